//! From the API's language to the allocator's: the only file that knows both.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ferrolb_config::Labels;
use ferrolb_controller_core::{FamilyPolicy, Port, Request, Transport};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use kinds::{Ingress, Namespace, Node, Service, ServiceSpec};

pub mod kinds;

/// The annotation prefixes, the newer one first: where both are set it wins (MetalLB 0.14.9).
const PREFIXES: [&str; 2] = ["metallb.io/", "metallb.universe.tf/"];
/// What every annotation key starts with that MetalLB calls deprecated.
const DEPRECATED: &str = "metallb.universe.tf";
/// The annotation that names the pool of a Service's addresses, written by the controller (MetalLB 0.14.9 and newer).
pub const NOTED_POOL: &str = "metallb.io/ip-allocated-from-pool";

/// A Service as far as this daemon cares.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// What it asks for; `None` where another implementation is to serve it, so that nothing of it
    /// may be touched.
    pub request: Option<Request>,
    /// `metadata.uid`, for events.
    pub uid: Option<String>,
    /// `metadata.resourceVersion`: the version a decision was made on.
    pub version: String,
    /// `status.conditions`, ours and those of others.
    pub conditions: Vec<Condition>,
}

/// What `service` asks for. `class` is `--lb-class`.
pub fn service(service: Service, class: Option<&str>) -> Seen {
    let uid = service.metadata.uid.clone();
    let version = service
        .metadata
        .resource_version
        .clone()
        .unwrap_or_default();
    let status = service.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.clone());
    let request = request(service, class);
    Seen {
        request,
        uid,
        version,
        conditions: conditions.unwrap_or_default(),
    }
}

fn request(service: Service, class: Option<&str>) -> Option<Request> {
    let spec = service.spec.unwrap_or_default();
    let balancer = spec.type_.as_deref() == Some("LoadBalancer");
    // A class can only be set on a LoadBalancer and vanishes with it, so whatever is no balancer
    // any more is still looked at: it may have been ours.
    if balancer && spec.load_balancer_class.as_deref() != class.filter(|class| !class.is_empty()) {
        return None;
    }
    let annotations = service.metadata.annotations.unwrap_or_default();
    let ingress = service
        .status
        .and_then(|status| status.load_balancer)
        .and_then(|balancer| balancer.ingress)
        .unwrap_or_default();
    let surplus = ingress.iter().any(says_more);
    let current = ingress
        .into_iter()
        .filter_map(|ingress| ingress.ip)
        .filter(|ip| !ip.is_empty())
        .map(|ip| ip.parse().map_err(|_| ip))
        .collect();
    Some(Request {
        balancer,
        labels: service.metadata.labels.unwrap_or_default().into(),
        current,
        surplus,
        noted_pool: annotations.get(NOTED_POOL).cloned(),
        deprecated: annotations
            .keys()
            .filter(|key| key.starts_with(DEPRECATED))
            .cloned()
            .collect(),
        cluster_ips: cluster_ips(&spec),
        policy: match spec.ip_family_policy.as_deref() {
            Some("PreferDualStack") => FamilyPolicy::PreferDualStack,
            Some("RequireDualStack") => FamilyPolicy::RequireDualStack,
            _ => FamilyPolicy::SingleStack,
        },
        desired: desired(&annotations, &spec),
        pool: annotation(&annotations, "address-pool").map(|(_, pool)| pool.to_owned()),
        sharing: annotation(&annotations, "allow-shared-ip").map(|(_, key)| key.to_owned()),
        backend: backend(&spec),
        ports: ports(&spec),
    })
}

/// Whether an entry of the status is more than an address. `ipMode: VIP` is not: the API server adds it (Kubernetes
/// 1.30 and newer).
fn says_more(ingress: &Ingress) -> bool {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    empty(&ingress.ip)
        || !empty(&ingress.hostname)
        || ingress.ports.iter().flatten().next().is_some()
        || ingress.ip_mode.as_deref().is_some_and(|mode| mode != "VIP")
}

/// The value of an annotation under either prefix, with its whole key; an empty value is as good as none.
fn annotation<'a>(
    annotations: &'a BTreeMap<String, String>,
    name: &str,
) -> Option<(&'a str, &'a str)> {
    PREFIXES
        .iter()
        .find_map(|prefix| annotations.get_key_value(&format!("{prefix}{name}")))
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .filter(|(_, value)| !value.is_empty())
}

/// `spec.clusterIPs`, or `[spec.clusterIP]` from servers that know only that (before 1.20).
fn cluster_ips(spec: &ServiceSpec) -> Vec<String> {
    match &spec.cluster_ips {
        Some(all) if !all.is_empty() => all.clone(),
        _ => spec
            .cluster_ip
            .iter()
            .filter(|ip| !ip.is_empty())
            .cloned()
            .collect(),
    }
}

/// The addresses asked for by annotation or by `spec.loadBalancerIP`, or what is wrong with them
/// (MetalLB's texts).
fn desired(
    annotations: &BTreeMap<String, String>,
    spec: &ServiceSpec,
) -> Result<Vec<IpAddr>, String> {
    let by_field = spec.load_balancer_ip.as_deref().filter(|ip| !ip.is_empty());
    match (annotation(annotations, "loadBalancerIPs"), by_field) {
        (None, None) => Ok(Vec::new()),
        (Some((key, _)), Some(_)) => Err(format!(
            "service can not have both {key} and svc.Spec.LoadBalancerIP"
        )),
        (Some((key, list)), None) => list
            .split(',')
            .map(|part| part.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(|_| format!("invalid {key}: {list:?}")),
        (None, Some(ip)) => ip
            .parse()
            .map(|ip| vec![ip])
            .map_err(|_| format!("invalid spec.loadBalancerIP {ip:?}")),
    }
}

/// Which backends stand behind an address, as far as sharing it goes: any for `Cluster`, the selected
/// pods for `Local`.
fn backend(spec: &ServiceSpec) -> String {
    if spec.external_traffic_policy.as_deref() != Some("Local") {
        return String::new();
    }
    let selector = spec.selector.iter().flatten();
    let words: Vec<_> = selector
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    words.join(",")
}

fn ports(spec: &ServiceSpec) -> BTreeSet<Port> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            Some(Port {
                transport: match port.protocol.as_deref() {
                    Some("UDP") => Transport::Udp,
                    Some("SCTP") => Transport::Sctp,
                    _ => Transport::Tcp,
                },
                number: u16::try_from(port.port).ok()?,
            })
        })
        .collect()
}

/// The addresses the node answers for itself: its kernel, not a speaker.
pub fn node_addresses(node: Node) -> Vec<IpAddr> {
    let status = node.status.unwrap_or_default();
    let addresses = status.addresses.into_iter().flatten();
    addresses
        .filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"))
        .filter_map(|address| address.address.parse().ok())
        .collect()
}

/// The labels of a Namespace.
pub fn namespace_labels(namespace: Namespace) -> Labels {
    namespace.metadata.labels.unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(object: serde_json::Value, class: Option<&str>) -> Option<Request> {
        service(serde_json::from_value(object).unwrap(), class).request
    }

    fn balancer(spec: serde_json::Value, annotations: serde_json::Value) -> Request {
        let mut spec = spec;
        spec["type"] = json!("LoadBalancer");
        seen(
            json!({"metadata": {"name": "s", "annotations": annotations}, "spec": spec}),
            None,
        )
        .expect("ours")
    }

    #[test]
    fn a_plain_balancer() {
        let request = balancer(
            json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}),
            json!({}),
        );
        assert!(request.balancer);
        assert_eq!(request.cluster_ips, ["10.0.0.1"]);
        assert_eq!(request.desired, Ok(vec![]));
        assert_eq!(request.ports.len(), 2);
        assert_eq!(request.backend, "");
    }

    #[test]
    fn current_addresses_keep_their_order_and_name_what_is_none() {
        let request = seen(
            json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [
                {"ip": "10.0.0.9"}, {"hostname": "a.example"}, {"ip": "nonsense"}]}}}),
            None,
        )
        .unwrap();
        assert_eq!(
            request.current,
            [Ok("10.0.0.9".parse().unwrap()), Err("nonsense".to_owned())]
        );
    }

    #[test]
    fn what_else_a_status_says_is_surplus() {
        let surplus = |entry: serde_json::Value| {
            let status = json!({"loadBalancer": {"ingress": [entry]}});
            let object = json!({"spec": {"type": "LoadBalancer"}, "status": status});
            seen(object, None).unwrap().surplus
        };
        assert!(!surplus(json!({"ip": "10.0.0.9"})));
        // The API server's default (Kubernetes 1.30 and newer).
        assert!(!surplus(json!({"ip": "10.0.0.9", "ipMode": "VIP"})));
        for entry in [
            json!({"ip": "10.0.0.9", "ipMode": "Proxy"}),
            json!({"ip": "10.0.0.9", "hostname": "a.example"}),
            json!({"hostname": "a.example"}),
            json!({"ip": "10.0.0.9", "ports": [{"port": 80, "protocol": "TCP"}]}),
        ] {
            assert!(surplus(entry.clone()), "{entry}");
        }
    }

    #[test]
    fn labels_the_note_and_deprecated_keys_are_seen() {
        let object = json!({
            "metadata": {"labels": {"app": "x"}, "annotations": {
                "metallb.io/ip-allocated-from-pool": "p", "metallb.io/address-pool": "p",
                "metallb.universe.tf/allow-shared-ip": "k", "metallb.universe.tf.example/other": "",
                "example.com/metallb.universe.tf": ""}},
            "spec": {"type": "LoadBalancer"}});
        let request = seen(object, None).unwrap();
        assert_eq!(request.labels.get("app"), Some("x"));
        assert_eq!(request.noted_pool.as_deref(), Some("p"));
        let deprecated: Vec<_> = request.deprecated.iter().map(String::as_str).collect();
        let expected = [
            "metallb.universe.tf.example/other",
            "metallb.universe.tf/allow-shared-ip",
        ];
        assert_eq!(deprecated, expected);
    }

    #[test]
    fn every_annotation_is_read_under_both_prefixes_and_the_newer_key_wins() {
        for (old, new) in [(true, false), (false, true), (true, true)] {
            let mut annotations = serde_json::Map::new();
            for (set, prefix, value, address) in [
                (old, "metallb.universe.tf/", "old", "10.0.0.1"),
                (new, "metallb.io/", "new", "10.0.0.2"),
            ] {
                if set {
                    annotations.insert(format!("{prefix}address-pool"), json!(value));
                    annotations.insert(format!("{prefix}allow-shared-ip"), json!(value));
                    annotations.insert(format!("{prefix}loadBalancerIPs"), json!(address));
                }
            }
            let request = balancer(json!({}), annotations.into());
            let (value, address) = if new {
                ("new", "10.0.0.2")
            } else {
                ("old", "10.0.0.1")
            };
            assert_eq!(request.pool.as_deref(), Some(value));
            assert_eq!(request.sharing.as_deref(), Some(value));
            assert_eq!(request.desired, Ok(vec![address.parse().unwrap()]));
        }
    }

    #[test]
    fn the_newer_annotation_wins_even_when_empty() {
        let request = balancer(
            json!({}),
            json!({"metallb.io/address-pool": "a", "metallb.universe.tf/address-pool": "b"}),
        );
        assert_eq!(request.pool.as_deref(), Some("a"));
        let request = balancer(
            json!({}),
            json!({"metallb.io/address-pool": "", "metallb.universe.tf/address-pool": "b"}),
        );
        assert_eq!(request.pool, None);
        let request = balancer(json!({}), json!({"metallb.universe.tf/address-pool": "b"}));
        assert_eq!(request.pool.as_deref(), Some("b"));
    }

    #[test]
    fn asked_addresses() {
        let key = "metallb.universe.tf/loadBalancerIPs";
        let both = balancer(json!({}), json!({key: "10.0.0.1, fc00::1"}));
        assert_eq!(both.desired.unwrap().len(), 2);
        let bad = balancer(json!({}), json!({key: "10.0.0.1,x"}));
        assert_eq!(
            bad.desired.unwrap_err(),
            "invalid metallb.universe.tf/loadBalancerIPs: \"10.0.0.1,x\""
        );
        let twice = balancer(
            json!({"loadBalancerIP": "10.0.0.1"}),
            json!({key: "10.0.0.1"}),
        );
        assert!(
            twice
                .desired
                .unwrap_err()
                .starts_with("service can not have both")
        );
        let field = balancer(json!({"loadBalancerIP": "10.0.0.300"}), json!({}));
        assert_eq!(
            field.desired.unwrap_err(),
            "invalid spec.loadBalancerIP \"10.0.0.300\""
        );
    }

    #[test]
    fn local_backends_are_their_selector() {
        let request = balancer(
            json!({"externalTrafficPolicy": "Local", "selector": {"b": "2", "a": "1"}}),
            json!({}),
        );
        assert_eq!(request.backend, "a=1,b=2");
    }

    #[test]
    fn a_class_decides_whose_it_is() {
        let classy = |class| json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": class}});
        assert_eq!(seen(classy("other"), None), None);
        assert_eq!(seen(classy("other"), Some("mine")), None);
        assert!(seen(classy("mine"), Some("mine")).is_some());
        assert_eq!(
            seen(json!({"spec": {"type": "LoadBalancer"}}), Some("mine")),
            None
        );
        let cluster_ip = seen(json!({"spec": {"type": "ClusterIP"}}), None).unwrap();
        assert!(!cluster_ip.balancer);
    }

    #[test]
    fn a_nodes_own_addresses() {
        let node: Node = serde_json::from_value(json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "192.168.99.100"},
            {"type": "Hostname", "address": "192.168.99.101"},
            {"type": "ExternalIP", "address": "fd00::1"}]}}))
        .unwrap();
        let own = node_addresses(node);
        assert_eq!(own.len(), 2);
    }
}
