//! From Kubernetes' objects to what a decision looks at: the only file that knows both languages.
//!
//! Objects are taken apart as they arrive and never kept whole: a speaker runs on every node, and what it remembers of
//! 10 000 Services should be small.

use ferrolb_config::ObjectName;
use ferrolb_speaker_core as core;
use ferrolb_speaker_core::IngressIp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use kinds::{Condition, EndpointSlice, Endpoints, Node, Pod, Service};

pub mod kinds;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The annotation by which an operator moves addresses by hand.
const MOVE: &str = "ferrolb.io/move";

/// What is kept of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    /// What decisions look at.
    pub service: core::Service,
    /// `metadata.uid`, which its events carry.
    pub uid: Option<String>,
    /// The annotation `ferrolb.io/move`, unless it is empty.
    pub wish: Option<String>,
}

/// What is kept of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// What decisions look at.
    pub node: core::Node,
}

/// The endpoints of a Service; none for a slice that names no Service.
pub type EndpointFacts = Option<(ObjectName, core::Endpoints)>;

/// `class` is `spec.loadBalancerClass` of the Services to announce; empty or none for those without one.
pub fn service(service: Service, class: Option<&str>) -> ServiceFacts {
    let wish = wish(&service.metadata);
    let spec = service.spec.unwrap_or_default();
    let class = class.filter(|class| !class.is_empty());
    let load_balancer = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.load_balancer_class.as_deref() == class;
    let traffic_policy = match spec.external_traffic_policy.as_deref() {
        Some("Local") => core::TrafficPolicy::Local,
        _ => core::TrafficPolicy::Cluster,
    };
    let ingress = service
        .status
        .and_then(|status| status.load_balancer)
        .and_then(|balancer| balancer.ingress)
        .filter(|_| load_balancer)
        .unwrap_or_default();
    let ingress = ingress
        .iter()
        .map(|entry| IngressIp::from(entry.ip.as_deref().unwrap_or_default()));
    let facts = core::Service {
        load_balancer,
        ingress: ingress.collect(),
        traffic_policy,
        labels: service
            .metadata
            .labels
            .filter(|_| load_balancer)
            .unwrap_or_default()
            .into(),
        wanted_at: wish.clone(),
    };
    ServiceFacts {
        service: facts,
        uid: service.metadata.uid,
        wish,
    }
}

fn wish(metadata: &ObjectMeta) -> Option<String> {
    let wish = metadata.annotations.as_ref()?.get(MOVE)?;
    (!wish.is_empty()).then(|| wish.clone())
}

/// An endpoint's readiness that is not told is true (`EndpointConditions.ready`).
pub fn slice(slice: EndpointSlice) -> EndpointFacts {
    let service = slice.metadata.labels?.remove(SERVICE_NAME)?;
    let service = ObjectName::new(slice.metadata.namespace.unwrap_or_default(), service);
    let endpoints = slice.endpoints.into_iter().flatten().map(|endpoint| {
        let conditions = endpoint.conditions.unwrap_or_default();
        core::Endpoint {
            node: endpoint.node_name,
            ready: conditions.ready.unwrap_or(true),
            serving: conditions.serving.unwrap_or(false),
        }
    });
    Some((service, endpoints.collect()))
}

/// Endpoints have the name of their Service.
pub fn endpoints(endpoints: Endpoints) -> EndpointFacts {
    let name = ObjectName::new(endpoints.metadata.namespace?, endpoints.metadata.name?);
    let subsets = endpoints.subsets.into_iter().flatten();
    let ready = subsets
        .flat_map(|subset| subset.addresses.unwrap_or_default())
        .map(|address| core::Endpoint {
            node: address.node_name,
            ready: true,
            serving: true,
        });
    Some((name, ready.collect()))
}

/// What a Node says of itself.
pub fn node(node: Node) -> NodeFacts {
    let wish = wish(&node.metadata);
    let status = node.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let holds = |kind| {
        conditions
            .iter()
            .any(|condition: &Condition| condition.type_ == kind && condition.status == "True")
    };
    let own = status.addresses.unwrap_or_default();
    let of_types = |types: &[&str]| {
        let own = own.iter();
        let own = own.filter(|address| types.contains(&address.type_.as_str()));
        let own = own.filter_map(|address| address.address.parse::<std::net::IpAddr>().ok());
        own.map(|address| address.to_canonical())
            .collect::<Vec<_>>()
    };
    let unschedulable = node.spec.and_then(|spec| spec.unschedulable);
    NodeFacts {
        node: core::Node {
            ready: holds("Ready"),
            network_unavailable: holds("NetworkUnavailable"),
            unschedulable: unschedulable == Some(true),
            moves_away: wish.is_some(),
            addresses: of_types(&["InternalIP", "ExternalIP"])
                .into_iter()
                .collect(),
            internal: of_types(&["InternalIP"]),
            labels: node.metadata.labels.unwrap_or_default().into(),
        },
    }
}

/// A speaker's pod; none before it has a node. One that is being deleted answers no longer, whatever its condition.
pub fn speaker(pod: Pod) -> Option<core::SpeakerPod> {
    let node = pod.spec?.node_name?;
    let status = pod.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Some(core::SpeakerPod {
        node,
        ready: ready && pod.metadata.deletion_timestamp.is_none(),
        address: status.pod_ip.and_then(|text| text.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object<T: serde::de::DeserializeOwned>(json: Value) -> T {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn service_facts() {
        let whole = |kind: &str, class: Value| {
            object::<Service>(json!({
                "metadata": {"name": "web", "namespace": "default", "uid": "u", "labels": {"app": "web"},
                    "annotations": {"ferrolb.io/move": "n2"}},
                "spec": {"type": kind, "loadBalancerClass": class, "externalTrafficPolicy": "Local"},
                "status": {"loadBalancer": {"ingress": [{"ip": "::ffff:10.0.0.1"}, {"hostname": "x"}]}},
            }))
        };
        let ServiceFacts {
            service: facts,
            uid,
            wish,
        } = service(whole("LoadBalancer", Value::Null), None);
        assert!(facts.load_balancer);
        assert_eq!((uid.as_deref(), wish.as_deref()), (Some("u"), Some("n2")));
        assert_eq!(facts.traffic_policy, core::TrafficPolicy::Local);
        assert_eq!(
            facts.ingress,
            [
                IngressIp::from("10.0.0.1"),
                IngressIp::Invalid(String::new())
            ]
        );
        assert_eq!(facts.labels.get("app"), Some("web"));
        assert_eq!(facts.wanted_at.as_deref(), Some("n2"));
        let internal = service(whole("ClusterIP", Value::Null), None).service;
        assert!(internal.ingress.is_empty() && internal.labels.is_empty());
        assert!(
            !service(whole("LoadBalancer", json!("other")), None)
                .service
                .load_balancer
        );
        assert!(
            !service(whole("LoadBalancer", json!("other")), Some(""))
                .service
                .load_balancer
        );
        assert!(
            service(whole("LoadBalancer", json!("other")), Some("other"))
                .service
                .load_balancer
        );
        assert!(
            !service(whole("LoadBalancer", Value::Null), Some("other"))
                .service
                .load_balancer
        );
    }

    #[test]
    fn an_empty_wish_is_none() {
        let wish = |annotations: Value| {
            let object = json!({"metadata": {"annotations": annotations}});
            let of_service = service(self::object(object.clone()), None).wish;
            assert_eq!(
                of_service.is_some(),
                node(self::object(object)).node.moves_away
            );
            of_service
        };
        assert_eq!(wish(Value::Null), None);
        assert_eq!(wish(json!({"ferrolb.io/move": ""})), None);
        assert_eq!(wish(json!({"ferrolb.io/moved": "now"})), None);
        assert_eq!(wish(json!({"ferrolb.io/move": "2"})).as_deref(), Some("2"));
    }

    #[test]
    fn slice_facts() {
        let facts = slice(object(json!({
            "metadata": {"name": "web-x", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.1.0.1"], "nodeName": "a"},
                {"addresses": ["10.1.0.2"], "nodeName": "b", "conditions": {"ready": false, "serving": true}},
                {"addresses": ["10.1.0.3"], "conditions": {"ready": true}},
            ],
        })));
        let expected = [
            (Some("a"), true, false),
            (Some("b"), false, true),
            (None, true, false),
        ];
        let expected = expected.map(|(node, ready, serving)| core::Endpoint {
            node: node.map(str::to_owned),
            ready,
            serving,
        });
        assert_eq!(
            facts,
            Some((
                ObjectName::new("default", "web"),
                expected.into_iter().collect()
            ))
        );
        assert_eq!(
            slice(object(json!({"addressType": "IPv4", "endpoints": []}))),
            None
        );
    }

    #[test]
    fn only_ready_addresses_of_endpoints_count() {
        let facts = endpoints(object(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "subsets": [{"addresses": [{"ip": "10.1.0.1", "nodeName": "a"}], "notReadyAddresses": [{"ip": "10.1.0.2", "nodeName": "b"}]}],
        })));
        let ready = core::Endpoint {
            node: Some("a".to_owned()),
            ready: true,
            serving: true,
        };
        assert_eq!(
            facts,
            Some((
                ObjectName::new("default", "web"),
                [ready].into_iter().collect()
            ))
        );
    }

    #[test]
    fn node_facts() {
        let facts = node(object(
            json!({"metadata": {"labels": {"rack": "1"}, "annotations": {"ferrolb.io/move": "now"}},
                "spec": {"unschedulable": true}, "status": {
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "False"}],
                "addresses": [
                    {"type": "InternalIP", "address": "192.168.1.2"},
                    {"type": "ExternalIP", "address": "fc00::2"},
                    {"type": "Hostname", "address": "192.168.1.9"},
                    {"type": "InternalIP", "address": "garbage"},
                ],
            }}),
        ));
        assert!(facts.node.moves_away);
        let facts = facts.node;
        assert!(facts.ready && !facts.network_unavailable && facts.unschedulable);
        assert_eq!(facts.labels.get("rack"), Some("1"));
        let own: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(own, ["192.168.1.2", "fc00::2"]);
        assert_eq!(
            facts.internal,
            ["192.168.1.2".parse::<std::net::IpAddr>().unwrap()]
        );
        assert_eq!(node(Node::default()), NodeFacts::default());
    }

    #[test]
    fn a_pod_under_deletion_is_no_longer_ready() {
        let pod = |deleted: Value| {
            speaker(object(json!({
                "metadata": {"deletionTimestamp": deleted},
                "spec": {"nodeName": "a", "containers": []},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            })))
            .unwrap()
        };
        assert!(pod(Value::Null).ready);
        assert!(!pod(json!("2026-01-01T00:00:00Z")).ready);
        assert_eq!(speaker(object(json!({"spec": {"containers": []}}))), None);
    }
}
