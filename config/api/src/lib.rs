//! The custom resources of `metallb.io`, field by field as MetalLB 0.16 has them.
//!
//! ```text
//!  object of the API server ── words.rs ──▶ ferrolb_config::Words ── check ──▶ Config
//!  types of this crate ── schema.rs ──▶ CustomResourceDefinitions (config/deploy/crds)
//! ```
//!
//! Layer 2 is what is used: [`IPAddressPool`], [`L2Advertisement`], [`ServiceL2Status`], [`ConfigurationState`]. The
//! kinds of BGP are here so that objects of theirs keep a home: they are stored and validated, and not acted on.

mod bgp;
mod ip_address_pool;
mod l2_advertisement;
mod schema;
mod status;
mod words;

pub use bgp::v1beta1;
pub use bgp::{
    BFDProfile, BFDProfileSpec, BGPAdvertisement, BGPAdvertisementSpec, BGPPeer, BGPPeerSpec,
    Community, CommunityAlias, CommunitySpec, Empty, SecretName,
};
pub use ip_address_pool::{
    IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, ServiceAllocation,
};
pub use l2_advertisement::{L2Advertisement, L2AdvertisementSpec, PreferredNodeSelector};
pub use schema::definitions;
pub use status::{
    ConfigurationState, ConfigurationStateSpec, ConfigurationStateStatus, InterfaceName,
    ServiceBGPStatus, ServiceBGPStatusSpec, ServiceBGPStatusStatus, ServiceL2Status,
    ServiceL2StatusSpec, ServiceL2StatusStatus,
};
pub use words::{advertisement_words, pool_words};

/// The API group of every kind here.
pub const GROUP: &str = "metallb.io";
