//! What can be seen from outside FerroLB: answers on the wire, HTTP through an address, Services and
//! their events, metrics.

pub mod arp;
pub mod http;
pub mod ndp;
pub mod service;
