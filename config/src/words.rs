//! What an operator wrote, before anyone asked whether it makes sense.
//!
//! This is the seam between the notations and the check: the ConfigMap's document is turned into [`Words`] by
//! `document.rs`, custom resources by the crate that knows them, and [`check()`](crate::check()) alone gives them a
//! meaning. Whoever fills words puts what it could not read into `problems` and leaves [`Word::Unreadable`] in its
//! place, so that the check neither loses that problem nor adds a second one for the gap.

use std::collections::BTreeMap;

use crate::labels::Labels;
use crate::pool::Origin;
use crate::problem::Problem;

/// One value in the operator's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Word<T> {
    /// Not written, or written as null.
    #[default]
    Absent,
    /// Written, but in a form that cannot be the value; the problem is already noted.
    Unreadable,
    /// Written.
    Said(T),
}

/// A whole configuration as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// What could not be read outside of the pools.
    pub problems: Vec<Problem>,
    /// The pools in the order they are written in, which is the order addresses are given out in.
    pub pools: Vec<PoolWords>,
    /// The `L2Advertisement`s. They speak of pools that are custom resources only: a pool of the ConfigMap says itself
    /// how it is announced.
    pub advertisements: Vec<AdvertisementWords>,
    /// What a ConfigMap says about BGP outside of the pools.
    pub bgp: BgpWords,
}

impl Words {
    /// Puts the words of another source behind these.
    pub fn append(&mut self, mut other: Self) {
        self.problems.append(&mut other.problems);
        self.pools.append(&mut other.pools);
        self.advertisements.append(&mut other.advertisements);
        self.bgp.peers.append(&mut other.bgp.peers);
        self.bgp.communities.append(&mut other.bgp.communities);
        self.bgp.profiles.append(&mut other.bgp.profiles);
    }
}

/// One address pool as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolWords {
    /// Where the pool stands: `address-pools[0]`, or the kind and name of a custom resource.
    pub place: String,
    /// Which kind of source it stands in.
    pub origin: Origin,
    /// What could not be read in this pool.
    pub problems: Vec<Problem>,
    /// `name`.
    pub name: Word<String>,
    /// `protocol`: `layer2` or `bgp`.
    pub protocol: Word<String>,
    /// `addresses`: CIDRs and ranges.
    pub addresses: Word<Vec<Word<String>>>,
    /// `auto-assign`; absent means true.
    pub auto_assign: Word<bool>,
    /// `avoid-buggy-ips`; absent means false.
    pub avoid_buggy_ips: Word<bool>,
    /// `bgp-advertisements`.
    pub bgp_advertisements: Vec<BgpAdvertisementWords>,
    /// `metadata.labels` of the custom resource, by which advertisements select it.
    pub labels: Labels,
    /// `serviceAllocation` of the custom resource.
    pub allocation: Option<AllocationWords>,
}

/// A label selector as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SelectorWords {
    /// `matchLabels`.
    pub labels: BTreeMap<String, String>,
    /// `matchExpressions`: key, operator, values.
    pub expressions: Vec<(String, String, Vec<String>)>,
}

/// `spec.serviceAllocation` of an `IPAddressPool` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllocationWords {
    /// `priority`; 0 is the same as absent.
    pub priority: i64,
    /// `namespaces`.
    pub namespaces: Vec<String>,
    /// `namespaceSelectors`.
    pub namespace_selectors: Vec<SelectorWords>,
    /// `serviceSelectors`.
    pub service_selectors: Vec<SelectorWords>,
}

/// An `L2Advertisement` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdvertisementWords {
    /// Where it stands: `L2Advertisement metallb-system/NAME`.
    pub place: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.ipAddressPools`; names of pools that do not exist are no problem.
    pub pools: Vec<String>,
    /// `spec.ipAddressPoolSelectors`.
    pub pool_selectors: Vec<SelectorWords>,
    /// `spec.nodeSelectors`.
    pub node_selectors: Vec<SelectorWords>,
    /// `spec.serviceSelectors`.
    pub service_selectors: Vec<SelectorWords>,
    /// `spec.interfaces`.
    pub interfaces: Vec<String>,
    /// `spec.preferredNodeSelectors`: weight and preference.
    pub preferred: Vec<(i64, SelectorWords)>,
}

/// What a ConfigMap says about BGP outside of the pools. Numbers, durations and addresses are kept as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpWords {
    /// `peers`.
    pub peers: Vec<PeerWords>,
    /// `bgp-communities`: name, place, value.
    pub communities: Vec<(String, String, Word<String>)>,
    /// `bfd-profiles`.
    pub profiles: Vec<BfdProfileWords>,
}

/// One of `peers` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerWords {
    /// Where it stands: `peers[0]`.
    pub place: String,
    /// `my-asn`.
    pub my_asn: Word<String>,
    /// `peer-asn`.
    pub peer_asn: Word<String>,
    /// `peer-address`.
    pub peer_address: Word<String>,
    /// `peer-port`; absent and 0 mean 179.
    pub peer_port: Word<String>,
    /// `source-address`.
    pub source_address: Word<String>,
    /// `hold-time`, a duration as Go writes it; absent means 90s.
    pub hold_time: Word<String>,
    /// `keepalive-time`, a duration as Go writes it.
    pub keepalive_time: Word<String>,
    /// `router-id`.
    pub router_id: Word<String>,
    /// `node-selectors`.
    pub node_selectors: Vec<SelectorWords>,
    /// `password`.
    pub password: Word<String>,
    /// `bfd-profile`.
    pub bfd_profile: Word<String>,
    /// `ebgp-multihop`.
    pub ebgp_multihop: Word<bool>,
}

impl PeerWords {
    /// What is said, without where.
    pub(crate) fn anywhere(&self) -> Self {
        Self {
            place: String::new(),
            ..self.clone()
        }
    }
}

/// One of `bfd-profiles` as written; intervals are in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BfdProfileWords {
    /// Where it stands: `bfd-profiles[0]`.
    pub place: String,
    /// `name`.
    pub name: Word<String>,
    /// `receive-interval`.
    pub receive_interval: Word<String>,
    /// `transmit-interval`.
    pub transmit_interval: Word<String>,
    /// `echo-interval`.
    pub echo_interval: Word<String>,
    /// `detect-multiplier`.
    pub detect_multiplier: Word<String>,
    /// `minimum-ttl`.
    pub minimum_ttl: Word<String>,
    /// `echo-mode`.
    pub echo_mode: Word<bool>,
    /// `passive-mode`.
    pub passive_mode: Word<bool>,
}

/// One of `bgp-advertisements` of a pool as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BgpAdvertisementWords {
    /// Where it stands: `address-pools[0].bgp-advertisements[0]`.
    pub place: String,
    /// `aggregation-length`; absent means 32.
    pub aggregation_length: Word<String>,
    /// `aggregation-length-v6`; absent means 128.
    pub aggregation_length_v6: Word<String>,
    /// `localpref`; absent means 0.
    pub local_pref: Word<String>,
    /// `communities`: names of `bgp-communities`, or communities.
    pub communities: Vec<Word<String>>,
}

impl BgpAdvertisementWords {
    /// What is said, without where.
    pub(crate) fn anywhere(&self) -> Self {
        Self {
            place: String::new(),
            ..self.clone()
        }
    }
}
