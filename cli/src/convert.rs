//! From the ConfigMap of MetalLB 0.7–0.12 to the custom resources of 0.13 and newer.
//!
//! The documents come in the order and under the names MetalLB's `configmaptocrs` gives them. Other than that tool this
//! one writes nothing if the configuration has a problem, names every problem, and leaves out fields the API server
//! fills in by itself (`status`, `creationTimestamp`).

use std::fmt::Write as _;

use ferrolb_config::{
    BfdProfileWords, BgpAdvertisementWords, PeerWords, PoolWords, Refused, SelectorWords, Word,
    Words, check, words,
};
use ferrolb_config_api::{
    BFDProfile, BFDProfileSpec, BGPAdvertisement, BGPAdvertisementSpec, BGPPeer, BGPPeerSpec,
    Community, CommunityAlias, CommunitySpec, IPAddressPool, IPAddressPoolSpec, L2Advertisement,
    L2AdvertisementSpec, advertisement_words, pool_words,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The namespace of everything MetalLB's manifests make.
const NAMESPACE: &str = "metallb-system";
/// The longest name of an object whose name becomes a label.
const LONGEST_NAME: usize = 63;

/// The custom resources, and what the operator should know about them.
#[derive(Debug)]
pub struct Converted {
    /// YAML documents.
    pub resources: String,
    /// Sentences, one for each name that had to be changed.
    pub notes: Vec<String>,
}

/// Why there are no custom resources.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The source is not a ConfigMap.
    #[error("the source is no ConfigMap: {0}; give --only-data if it is the bare configuration")]
    Source(String),
    /// The ConfigMap is another one.
    #[error("the ConfigMap has no key \"config\"; give the one that holds MetalLB's configuration")]
    Key,
    /// The configuration has problems.
    #[error("the configuration has problems:\n{0}")]
    Configuration(Refused),
    /// Nothing of a name can be part of an object's name.
    #[error(
        "{0:?} cannot be made the name of an object; give it a name of letters, digits and \"-\""
    )]
    Name(String),
    /// The result would not be accepted.
    #[error("the resources would have problems:\n{0}")]
    Result(Refused),
    /// The result cannot be written down.
    #[error("cannot write the resources as YAML: {0}")]
    Yaml(String),
}

/// What is read of a ConfigMap.
#[derive(Deserialize)]
struct ConfigMap {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Metadata {
    namespace: Option<String>,
}

#[derive(Default, Deserialize)]
struct Data {
    config: Option<String>,
}

/// Converts a ConfigMap, or the bare configuration if there is `only_data`.
///
/// # Errors
/// What is wrong with the source, every problem at once.
pub fn convert(source: &str, only_data: bool) -> Result<Converted, ConvertError> {
    let (document, namespace) = if only_data {
        (source.to_owned(), None)
    } else {
        let options = serde_saphyr::options! { with_snippet: false };
        let map: ConfigMap = serde_saphyr::from_str_with_options(source, options)
            .map_err(|error| ConvertError::Source(error.to_string()))?;
        let document = map.data.config.ok_or(ConvertError::Key)?;
        (document, map.metadata.namespace)
    };
    let words = words(&document);
    check(words.clone()).map_err(ConvertError::Configuration)?;
    let namespace = namespace.unwrap_or_else(|| NAMESPACE.to_owned());
    let mut resources = Resources {
        namespace,
        documents: Vec::new(),
        notes: Vec::new(),
    };
    resources.all(&words)?;
    resources.check()?;
    resources.write()
}

/// The resources made so far.
struct Resources {
    namespace: String,
    documents: Vec<Value>,
    notes: Vec<String>,
}

impl Resources {
    fn all(&mut self, words: &Words) -> Result<(), ConvertError> {
        for (index, peer) in words.bgp.peers.iter().enumerate() {
            let name = format!("peer{}", index + 1);
            self.add(BGPPeer::new(&name, bgp_peer(peer)))?;
        }
        let mut names = Vec::new();
        for pool in &words.pools {
            let name = self.name(&said(&pool.name).unwrap_or_default())?;
            self.add(IPAddressPool::new(&name, ip_address_pool(pool)))?;
            names.push(name);
        }
        self.advertisements(&words.pools, &names)?;
        for profile in &words.bgp.profiles {
            let name = self.name(&said(&profile.name).unwrap_or_default())?;
            self.add(BFDProfile::new(&name, bfd_profile(profile)))?;
        }
        let mut communities: Vec<_> = words.bgp.communities.iter().collect();
        communities.sort_by(|one, other| one.0.cmp(&other.0));
        let aliases = communities
            .into_iter()
            .map(|(name, _, value)| CommunityAlias {
                name: Some(name.clone()),
                value: said(value),
            });
        let communities: Vec<_> = aliases.collect();
        if !communities.is_empty() {
            self.add(Community::new("communities", CommunitySpec { communities }))?;
        }
        Ok(())
    }

    /// First those of BGP, then those of layer 2. A pool of BGP has at least one.
    fn advertisements(
        &mut self,
        pools: &[PoolWords],
        names: &[String],
    ) -> Result<(), ConvertError> {
        let of = |protocol: &str| {
            let all = pools.iter().zip(names);
            let protocol = Word::Said(protocol.to_owned());
            all.filter(move |(pool, _)| pool.protocol == protocol)
        };
        let mut count = 0;
        for (pool, name) in of("bgp") {
            let none = [BgpAdvertisementWords::default()];
            let written = match pool.bgp_advertisements.as_slice() {
                [] => &none,
                written => written,
            };
            for words in written {
                count += 1;
                let spec = bgp_advertisement(words, name);
                let called = format!("bgpadvertisement{count}");
                self.add(BGPAdvertisement::new(&called, spec))?;
            }
        }
        for (index, (_, name)) in of("layer2").enumerate() {
            let spec = L2AdvertisementSpec {
                ip_address_pools: vec![name.clone()],
                ..L2AdvertisementSpec::default()
            };
            let called = format!("l2advertisement{}", index + 1);
            self.add(L2Advertisement::new(&called, spec))?;
        }
        Ok(())
    }

    fn add(&mut self, object: impl Serialize) -> Result<(), ConvertError> {
        let mut object =
            serde_json::to_value(object).map_err(|error| ConvertError::Yaml(error.to_string()))?;
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            let namespace = Value::String(self.namespace.clone());
            metadata.insert("namespace".to_owned(), namespace);
        }
        self.documents.push(object);
        Ok(())
    }

    /// A name as Kubernetes takes it. Names of pools were free before.
    fn name(&mut self, name: &str) -> Result<String, ConvertError> {
        let short: String = name.chars().take(LONGEST_NAME).collect();
        let plain = short.to_lowercase().replace('_', "-");
        let begins = plain.trim_start_matches(|first: char| !first.is_ascii_lowercase());
        let fits = |part: &str| {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            part.bytes().all(|byte| inner(byte) || byte == b'-')
                && part.bytes().next().is_some_and(inner)
                && part.bytes().next_back().is_some_and(inner)
        };
        if !begins.split('.').all(fits) {
            return Err(ConvertError::Name(name.to_owned()));
        }
        if begins != name {
            self.notes.push(format!(
                "{name:?} is called {begins:?} now: change the annotations that ask for it by its name"
            ));
        }
        Ok(begins.to_owned())
    }

    /// The same check the daemons make.
    fn check(&self) -> Result<(), ConvertError> {
        let mut words = Words::default();
        for document in &self.documents {
            let read = match document.get("kind").and_then(Value::as_str) {
                Some("IPAddressPool") => pool_words,
                Some("L2Advertisement") => advertisement_words,
                _ => continue,
            };
            let object = serde_json::from_value(document.clone());
            let object = object.map_err(|error| ConvertError::Yaml(error.to_string()))?;
            words.append(read(&object));
        }
        check(words).map(drop).map_err(ConvertError::Result)
    }

    fn write(self) -> Result<Converted, ConvertError> {
        let mut resources = "# Written by `ferrolb convert`.\n".to_owned();
        for document in &self.documents {
            let text = serde_saphyr::to_string(document)
                .map_err(|error| ConvertError::Yaml(error.to_string()))?;
            // Writing to a String cannot fail.
            let _ = write!(resources, "---\n{text}");
        }
        Ok(Converted {
            resources,
            notes: self.notes,
        })
    }
}

fn ip_address_pool(words: &PoolWords) -> IPAddressPoolSpec {
    let addresses = match &words.addresses {
        Word::Said(addresses) => addresses.iter().filter_map(said).collect(),
        Word::Absent | Word::Unreadable => Vec::new(),
    };
    IPAddressPoolSpec {
        addresses,
        auto_assign: said(&words.auto_assign),
        avoid_buggy_ips: said(&words.avoid_buggy_ips),
        service_allocation: None,
    }
}

fn bgp_advertisement(words: &BgpAdvertisementWords, pool: &str) -> BGPAdvertisementSpec {
    BGPAdvertisementSpec {
        aggregation_length: number(&words.aggregation_length),
        aggregation_length_v6: number(&words.aggregation_length_v6),
        local_pref: number(&words.local_pref),
        communities: words.communities.iter().filter_map(said).collect(),
        ip_address_pools: vec![pool.to_owned()],
        ..BGPAdvertisementSpec::default()
    }
}

fn bgp_peer(words: &PeerWords) -> BGPPeerSpec {
    let text = |word| said(word).filter(|text: &String| !text.is_empty());
    BGPPeerSpec {
        my_asn: number(&words.my_asn).unwrap_or_default(),
        peer_asn: number(&words.peer_asn),
        peer_address: text(&words.peer_address),
        peer_port: number(&words.peer_port).filter(|port| *port != 0),
        source_address: text(&words.source_address),
        router_id: text(&words.router_id),
        // MetalLB's default, which the new kind does not have.
        hold_time: text(&words.hold_time).or_else(|| Some("90s".to_owned())),
        keepalive_time: text(&words.keepalive_time),
        node_selectors: words.node_selectors.iter().map(selector).collect(),
        password: text(&words.password),
        bfd_profile: text(&words.bfd_profile),
        ebgp_multi_hop: said(&words.ebgp_multihop),
        ..BGPPeerSpec::default()
    }
}

fn bfd_profile(words: &BfdProfileWords) -> BFDProfileSpec {
    BFDProfileSpec {
        receive_interval: number(&words.receive_interval),
        transmit_interval: number(&words.transmit_interval),
        echo_interval: number(&words.echo_interval),
        detect_multiplier: number(&words.detect_multiplier),
        minimum_ttl: number(&words.minimum_ttl),
        echo_mode: Some(said(&words.echo_mode).unwrap_or_default()),
        passive_mode: Some(said(&words.passive_mode).unwrap_or_default()),
    }
}

fn selector(words: &SelectorWords) -> LabelSelector {
    let expressions: Vec<_> = words
        .expressions
        .iter()
        .map(|(key, operator, values)| LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.clone(),
            values: (!values.is_empty()).then(|| values.clone()),
        })
        .collect();
    LabelSelector {
        match_labels: (!words.labels.is_empty()).then(|| words.labels.clone()),
        match_expressions: (!expressions.is_empty()).then_some(expressions),
    }
}

/// What was written, if it was.
fn said<T: Clone>(word: &Word<T>) -> Option<T> {
    match word {
        Word::Said(value) => Some(value.clone()),
        Word::Absent | Word::Unreadable => None,
    }
}

/// A number the check has found to be one.
fn number<T: std::str::FromStr>(word: &Word<String>) -> Option<T> {
    said(word)?.parse().ok()
}
