//! What can be seen from outside FerroLB: answers on the wire, HTTP through an address, Services and
//! their events, metrics.

pub mod arp;
pub mod clients;
pub mod exposition;
pub mod http;
pub mod ndp;
pub mod prober;
pub mod queries;
pub mod scraper;
pub mod service;
pub mod sweep;
pub mod trace;

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Result, ensure};

use crate::{Lab, deploy::PATIENCE};

/// Every host that answers one question for `address` asked by `host`, by ARP or by NDP.
///
/// # Errors
/// The question cannot be asked.
pub fn answerers(lab: &Lab, host: &str, address: impl Into<IpAddr>) -> Result<BTreeSet<String>> {
    match address.into() {
        IpAddr::V4(address) => arp::answerers(lab, host, address),
        IpAddr::V6(address) => ndp::answerers(lab, host, address),
    }
}

/// Waits until exactly one host answers for `address`, none of `gone`, and names it.
///
/// # Errors
/// That is not so within [`PATIENCE`].
pub fn sole_answerer(
    lab: &Lab,
    host: &str,
    address: impl Into<IpAddr>,
    gone: &[&str],
) -> Result<String> {
    let address = address.into();
    lab.wait_for(&format!("one answer for {address}"), PATIENCE, || {
        let answerers = answerers(lab, host, address)?;
        let stale = answerers.iter().any(|name| gone.contains(&name.as_str()));
        ensure!(answerers.len() == 1 && !stale, "answered by {answerers:?}");
        Ok(answerers.into_iter().next())
    })
}
