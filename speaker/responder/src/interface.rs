//! An interface that addresses are announced on.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;

use ferrolb_speaker_wire::MacAddr;

/// One interface addresses are announced on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index, which stays while it lives.
    pub index: NonZeroU32,
    /// Its name, which may change.
    pub name: String,
    /// Its hardware address, which may change.
    pub mac: MacAddr,
    /// It has carrier and takes frames (`IFF_RUNNING`). Until then whatever is sent is lost without a word.
    pub running: bool,
    /// ARP is spoken on it: it has broadcast.
    pub arp: bool,
    /// NDP is spoken on it: it has this link-local IPv6 address.
    pub ndp: Option<Ipv6Addr>,
}

/// All of them, by index.
pub type Interfaces = BTreeMap<NonZeroU32, Interface>;
