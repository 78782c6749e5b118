//! The kinds the controller watches, each cut down to what it looks at. What is not named here is not even built.
//!
//! Everything may be missing, as in Kubernetes' own definitions of these kinds.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Value, json};

/// `v1` Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    pub metadata: ObjectMeta,
    pub spec: Option<ServiceSpec>,
    pub status: Option<ServiceStatus>,
}

/// What a Service is to be.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub type_: Option<String>,
    pub load_balancer_class: Option<String>,
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Option<String>,
    pub external_traffic_policy: Option<String>,
    pub ip_family_policy: Option<String>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    pub selector: Option<BTreeMap<String, String>>,
    pub ports: Option<Vec<ServicePort>>,
}

/// A port of a Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServicePort {
    pub port: i32,
    pub protocol: Option<String>,
}

/// What a Service is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    #[serde(deserialize_with = "conditions")]
    pub conditions: Option<Vec<Condition>>,
    pub load_balancer: Option<LoadBalancer>,
}

/// Others' conditions too, whatever they lack: nobody checks those of a Service, Go writes no time as `null`, and a Service that
/// could not be read for one would lose its address at the next start.
fn conditions<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Condition>>, D::Error> {
    let found = Option::<Vec<Value>>::deserialize(from)?;
    let whole = |mut condition: Value| {
        let fields = condition.as_object_mut()?;
        for name in ["type", "status", "reason", "message"] {
            let field = fields.entry(name).or_insert(Value::Null);
            if field.is_null() {
                *field = json!("");
            }
        }
        let time = fields.entry("lastTransitionTime").or_insert(Value::Null);
        if time.is_null() {
            *time = json!("1970-01-01T00:00:00Z");
        }
        serde_json::from_value(condition).ok()
    };
    Ok(found.map(|found| found.into_iter().filter_map(whole).collect()))
}

/// The addresses of a Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancer {
    pub ingress: Option<Vec<Ingress>>,
}

/// An address of a Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Ingress {
    pub ip: Option<String>,
    pub hostname: Option<String>,
    pub ip_mode: Option<String>,
    /// Only whether there are any.
    pub ports: Option<Vec<IgnoredAny>>,
}

/// `v1` Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    pub status: Option<NodeStatus>,
}

/// What a Node is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub addresses: Option<Vec<NodeAddress>>,
}

/// An address of a Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    #[serde(rename = "type")]
    pub type_: String,
    pub address: String,
}

/// `v1` Namespace.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    pub metadata: ObjectMeta,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_read_whatever_its_conditions_lack() {
        let service = json!({"status": {
            "conditions": [{"type": "example.com/Ready", "status": "True", "lastTransitionTime": null}, "odd"],
            "loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]},
        }});
        let service: Service = serde_json::from_value(service).unwrap();
        let status = service.status.unwrap();
        let conditions = status.conditions.unwrap();
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].type_, "example.com/Ready");
        assert_eq!(conditions[0].message, "");
        assert!(status.load_balancer.is_some());
        let without: ServiceStatus = serde_json::from_value(json!({"conditions": null})).unwrap();
        assert!(without.conditions.is_none());
        let without: ServiceStatus = serde_json::from_value(json!({})).unwrap();
        assert!(without.conditions.is_none());
    }
}
