//! Whether an object of `metallb.io` may be written: MetalLB's admission rules (0.16), decided without I/O.
//!
//! MetalLB parses all objects of the namespace with the new one among them and refuses on the first error, wherever it
//! is: one bad object makes every other one unchangeable. Here a change is refused for what is wrong with *it*, so a
//! configuration can be mended object by object in any order; and what changes neither `spec` nor labels, or only takes
//! finalizers off an object that is being deleted, always passes.

use std::collections::BTreeMap;

use ferrolb_config_api::{
    BFDProfile, BGPAdvertisement, BGPPeer, Community, IPAddressPool, L2Advertisement,
};
use kube::api::DynamicObject;
use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    bgp, layer2, peer,
    review::{Answer, Operation, Request},
};

/// A kind with a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `IPAddressPool`.
    Pool,
    /// `L2Advertisement`.
    L2Advertisement,
    /// `BGPAdvertisement`.
    BgpAdvertisement,
    /// `Community`.
    Community,
    /// `BGPPeer`.
    BgpPeer,
    /// `BFDProfile`.
    BfdProfile,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Pool,
        Self::L2Advertisement,
        Self::BgpAdvertisement,
        Self::Community,
        Self::BgpPeer,
        Self::BfdProfile,
    ];

    /// The path MetalLB's ValidatingWebhookConfiguration names for it.
    pub fn path(self) -> &'static str {
        match self {
            Self::Pool => "/validate-metallb-io-v1beta1-ipaddresspool",
            Self::L2Advertisement => "/validate-metallb-io-v1beta1-l2advertisement",
            Self::BgpAdvertisement => "/validate-metallb-io-v1beta1-bgpadvertisement",
            Self::Community => "/validate-metallb-io-v1beta1-community",
            Self::BgpPeer => "/validate-metallb-io-v1beta2-bgppeer",
            Self::BfdProfile => "/validate-metallb-io-v1beta1-bfdprofile",
        }
    }

    /// Which other objects [`decide`] looks at.
    pub fn needs(self, rules: &Rules) -> Needs {
        let none = Needs::default();
        match self {
            Self::Pool => Needs {
                pools: true,
                ..none
            },
            Self::L2Advertisement => none,
            Self::BgpAdvertisement => Needs {
                pools: true,
                bgp_advertisements: true,
                nodes: true,
                ..none
            },
            Self::Community => Needs {
                communities: true,
                ..none
            },
            Self::BgpPeer => Needs {
                peers: rules.bgp == BgpType::Frr,
                nodes: rules.bgp == BgpType::Frr,
                ..none
            },
            Self::BfdProfile => Needs {
                peers: true,
                ..none
            },
        }
    }
}

/// Which lists are needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "one word for each list, nothing between them"
)]
pub struct Needs {
    /// `IPAddressPool`s.
    pub pools: bool,
    /// `BGPAdvertisement`s.
    pub bgp_advertisements: bool,
    /// `Community`s.
    pub communities: bool,
    /// `BGPPeer`s.
    pub peers: bool,
    /// Labels of Nodes.
    pub nodes: bool,
}

/// What is in the cluster now, as far as it was asked for; the namespace is that of [`Rules`].
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// `IPAddressPool`s.
    pub pools: Vec<DynamicObject>,
    /// `BGPAdvertisement`s.
    pub bgp_advertisements: Vec<BGPAdvertisement>,
    /// `Community`s.
    pub communities: Vec<Community>,
    /// `BGPPeer`s.
    pub peers: Vec<BGPPeer>,
    /// The labels of each Node.
    pub nodes: Vec<BTreeMap<String, String>>,
}

/// Whose rules hold for objects of BGP: `METALLB_BGP_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BgpType {
    /// `native`, and where nothing is said.
    Native,
    /// `frr` or `frr-k8s`.
    Frr,
    /// Anything else: only what holds for both.
    Unknown,
}

impl BgpType {
    /// From the variable's value.
    pub fn parse(value: &str) -> Self {
        match value {
            "native" => Self::Native,
            "frr" | "frr-k8s" => Self::Frr,
            _ => Self::Unknown,
        }
    }
}

/// What every decision depends on besides the objects.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The namespace whose objects are the configuration.
    pub namespace: String,
    /// Whose rules hold for BGP.
    pub bgp: BgpType,
}

/// The answer that needs no look at other objects, if there is one: the rest is for [`decide`].
pub fn decide_alone(kind: Kind, request: &Request, rules: &Rules) -> Option<Answer> {
    match (request.operation, kind) {
        (Operation::Create | Operation::Update, _) | (Operation::Delete, Kind::BfdProfile) => {}
        _ => return Some(Answer::Allowed(Vec::new())),
    }
    let namespace = text(subject(request), "/metadata/namespace")
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or(&request.namespace);
    match request.operation {
        Operation::Create if namespace != rules.namespace => Some(Answer::Refused(format!(
            "resource must be created in {} namespace",
            rules.namespace
        ))),
        // It is there, and nobody reads it: whoever wants to clean up must be able to.
        Operation::Update if namespace != rules.namespace => Some(Answer::Allowed(vec![format!(
            "only objects in the namespace {} are read, this one is without effect",
            rules.namespace
        )])),
        Operation::Delete if namespace != rules.namespace => Some(Answer::Allowed(Vec::new())),
        Operation::Update if settled(request) => Some(Answer::Allowed(Vec::new())),
        _ => None,
    }
}

/// The answer to a request that [`decide_alone`] has none for.
pub fn decide(kind: Kind, request: &Request, objects: &Objects, rules: &Rules) -> Answer {
    let read = match kind {
        Kind::Pool => read::<IPAddressPool>(request).map(|(_, raw)| layer2::pool(&raw, objects)),
        Kind::L2Advertisement => read::<L2Advertisement>(request)
            .map(|(_, raw)| layer2::selectors("L2Advertisement", &raw)),
        Kind::BgpAdvertisement => read::<BGPAdvertisement>(request)
            .map(|(new, raw)| bgp::advertisement(&new, &raw, objects, rules.bgp)),
        Kind::Community => {
            read::<Community>(request).map(|(new, _)| bgp::community(&new, objects, rules.bgp))
        }
        Kind::BgpPeer => {
            read::<BGPPeer>(request).map(|(new, raw)| peer::check(&new, &raw, objects, rules.bgp))
        }
        Kind::BfdProfile => read::<BFDProfile>(request).map(|(profile, _)| {
            if request.operation == Operation::Delete {
                bgp::profile_in_use(&profile, objects)
            } else {
                bgp::profile(&profile)
            }
        }),
    };
    match read {
        Err(error) => Answer::Undecodable(error),
        Ok(problems) if problems.is_empty() => Answer::Allowed(warnings(kind, request)),
        Ok(problems) => Answer::Refused(problems.join("\n")),
    }
}

/// What whoever writes a sound object should know.
fn warnings(kind: Kind, request: &Request) -> Vec<String> {
    let mut warnings = Vec::new();
    let of_bgp = match kind {
        Kind::Pool | Kind::L2Advertisement => None,
        Kind::BgpAdvertisement => Some("BGPAdvertisement"),
        Kind::Community => Some("Community"),
        Kind::BgpPeer => Some("BGPPeer"),
        Kind::BfdProfile => Some("BFDProfile"),
    };
    if let Some(name) = of_bgp
        && request.operation != Operation::Delete
    {
        warnings.push(format!(
            "FerroLB does not speak BGP: this {name} is kept, but nothing acts on it"
        ));
    }
    let disabled = subject(request).pointer("/spec/disableMP") == Some(&Value::Bool(true));
    if kind == Kind::BgpPeer && disabled {
        warnings.push(
            "disable mp is deprecated and has no effect since it's the default behavior now"
                .to_owned(),
        );
    }
    warnings
}

/// The object the request is about.
fn subject(request: &Request) -> &Value {
    match request.operation {
        Operation::Delete => &request.old_object,
        _ => &request.object,
    }
}

/// Whether an update leaves alone all that is checked.
fn settled(request: &Request) -> bool {
    let same = |pointer| request.object.pointer(pointer) == request.old_object.pointer(pointer);
    let leaving = text(&request.object, "/metadata/deletionTimestamp").is_some();
    leaving || (same("/spec") && same("/metadata/labels"))
}

/// A spec may be left out where everything in it may be.
pub fn with_spec(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.entry("spec").or_insert_with(|| json!({}));
    }
    object
}

/// The object in its own type and as it came.
fn read<K: DeserializeOwned>(request: &Request) -> Result<(K, DynamicObject), String> {
    let unreadable = |error| format!("the object cannot be read: {error}");
    let subject = &with_spec(subject(request).clone());
    let typed = K::deserialize(subject).map_err(unreadable)?;
    let raw = DynamicObject::deserialize(subject).map_err(unreadable)?;
    Ok((typed, raw))
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

#[cfg(test)]
mod tests;
