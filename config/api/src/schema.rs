//! From the types to CustomResourceDefinitions: what the API server checks by itself.
//!
//! Our manifests have no webhook, so what can be refused at the door is refused by the schema. Addresses are checked by
//! a CEL rule, which has a message where a pattern of the schema would show its regular expression; the rule uses
//! `matches()` alone, which every API server with CEL has (Kubernetes 1.25), because `cidr()` and `isIP()` came with
//! 1.31 and know no ranges. Repetitions are refused by the list type `set`, which costs nothing. What no schema sees (a
//! range that ends before it starts, pools that overlap) the daemons report.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::{
    BFDProfile, BGPAdvertisement, BGPPeer, Community, ConfigurationState, IPAddressPool,
    L2Advertisement, ServiceBGPStatus, ServiceL2Status, v1beta1,
};

/// A byte of an IPv4 address, without leading zeros.
const BYTE: &str = "(25[0-5]|(2[0-4]|1[0-9]|[1-9])?[0-9])";
/// What an IPv6 address consists of. Where its colons may stand is left to the daemons: a rule that knew would cost the
/// API server more than it allows.
const V6: &str = "[0-9a-fA-F]{0,4}:[0-9a-fA-F:]*:[0-9a-fA-F:.]*";
/// Most characters of an entry and most entries of a pool: without bounds the API server takes a rule on each entry for
/// too expensive.
const LONGEST_ADDRESS: u32 = 90;
const MOST_ADDRESSES: u32 = 2500;

/// Every definition, in the order of their names.
///
/// # Errors
/// The two versions of `BGPPeer` do not fit together, or a schema is no definition: mistakes of this crate.
pub fn definitions() -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let peers = vec![v1beta1::BGPPeer::crd(), BGPPeer::crd()];
    let all = [
        BFDProfile::crd(),
        BGPAdvertisement::crd(),
        kube::core::crd::merge_crds(peers, "v1beta2")?,
        Community::crd(),
        ConfigurationState::crd(),
        IPAddressPool::crd(),
        L2Advertisement::crd(),
        ServiceBGPStatus::crd(),
        ServiceL2Status::crd(),
    ];
    all.into_iter().map(settle).collect()
}

/// Takes out what the derived schema has and MetalLB's does not.
fn settle(definition: CustomResourceDefinition) -> Result<Value, Box<dyn std::error::Error>> {
    let mut value = serde_json::to_value(definition)?;
    let kind = value.pointer("/spec/names/kind").and_then(Value::as_str);
    let kind = kind.unwrap_or_default().to_owned();
    if let Some(Value::Object(names)) = value.pointer_mut("/spec/names") {
        names.insert("listKind".to_owned(), json!(format!("{kind}List")));
        names.retain(|_, value| *value != json!([]));
    }
    if let Some(Value::Object(metadata)) = value.pointer_mut("/metadata") {
        metadata.insert("labels".to_owned(), json!({"app": "metallb"}));
    }
    let versions = value.pointer_mut("/spec/versions");
    for version in versions.and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(Value::Object(root)) = version.pointer_mut("/schema/openAPIV3Schema") else {
            continue;
        };
        plain(root);
        // Of all kinds only a pool must have something to say.
        if kind == "IPAddressPool" {
            root.insert("required".to_owned(), json!(["spec"]));
        } else {
            root.remove("required");
        }
        if let Some(Value::Object(parts)) = root.get_mut("properties") {
            parts
                .values_mut()
                .filter_map(Value::as_object_mut)
                .for_each(|part| drop(part.remove("default")));
            if kind == "ConfigurationState" {
                parts.remove("spec");
            }
        }
    }
    Ok(value)
}

/// Without titles, and without allowing null: a null the schema does not allow is dropped by the API server before it
/// is stored, so that readers in Go and here see the same.
fn plain(schema: &mut Map<String, Value>) {
    for key in ["title", "nullable"] {
        if !schema.get(key).is_some_and(Value::is_object) {
            schema.remove(key);
        }
    }
    for (key, value) in schema {
        match value {
            // Bounds went through floating point numbers.
            Value::Number(number) => {
                if let Some(whole) = whole(number) {
                    *value = whole.into();
                }
            }
            // A default or an example is a value, not a schema.
            _ if key == "default" => {}
            Value::Object(inner) => plain(inner),
            Value::Array(items) => items
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(plain),
            _ => {}
        }
    }
}

/// The integer a floating point number is, if it is one.
#[allow(
    clippy::cast_possible_truncation,
    reason = "what does not fit is no bound of ours"
)]
fn whole(number: &serde_json::Number) -> Option<i64> {
    let number = number.as_f64()?;
    (number.fract() == 0.0).then_some(number as i64)
}

/// A CIDR of either family, as it is.
fn cidr_patterns() -> [String; 2] {
    [
        format!("^({BYTE}[.]){{3}}{BYTE}/(3[0-2]|[12]?[0-9])$"),
        format!("^{V6}/(12[0-8]|1[01][0-9]|[1-9]?[0-9])$"),
    ]
}

/// A range of either family, with blanks around its ends.
fn range_patterns() -> [String; 2] {
    let v4 = format!("({BYTE}[.]){{3}}{BYTE}");
    [
        format!("^ *{v4} *- *{v4} *$"),
        format!("^ *{V6} *- *{V6} *$"),
    ]
}

/// What one of several patterns matches.
fn matches(patterns: [String; 2]) -> String {
    patterns
        .map(|pattern| format!("self.matches('{pattern}')"))
        .join(" || ")
}

pub(crate) fn addresses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_ADDRESSES,
        "items": {
            "type": "string",
            "maxLength": LONGEST_ADDRESS,
            // Two rules, because the API server limits the cost of each.
            "x-kubernetes-validations": [
                {
                    "rule": format!("self.contains('-') || {}", matches(cidr_patterns())),
                    "message": "must be a CIDR (192.168.10.0/24) or a range (192.168.9.1-192.168.9.5)",
                },
                {
                    "rule": format!("!self.contains('-') || {}", matches(range_patterns())),
                    "message": "must be a range of one family (192.168.9.1-192.168.9.5)",
                },
            ],
        },
    })
}

pub(crate) fn defaults_to_true(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "boolean", "default": true})
}

pub(crate) fn defaults_to_false(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "boolean", "default": false})
}

pub(crate) fn integer(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer"})
}

pub(crate) fn int32(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32"})
}

/// Texts that are all different.
pub(crate) fn unique_texts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "string"},
        "x-kubernetes-list-type": "set",
    })
}

/// `metav1.LabelSelector`.
pub(crate) fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "A label selector: every requirement must hold; without any it selects everything.",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "type": "object",
                "description": "Labels and the values they must have.",
                "additionalProperties": {"type": "string"},
            },
            "matchExpressions": {
                "type": "array",
                "description": "Requirements on labels.",
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "description": "The label."},
                        "operator": {
                            "type": "string",
                            "description": "How the label relates to the values.",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "type": "array",
                            "description": "At least one for In and NotIn, none for the others.",
                            "items": {"type": "string"},
                            "x-kubernetes-list-type": "atomic",
                        },
                    },
                },
            },
        },
    })
}

/// Selectors that are all different.
pub(crate) fn selectors(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": selector(generator),
        "x-kubernetes-list-type": "set",
    })
}

/// A text that stays as it was first written.
pub(crate) fn immutable(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "Value is immutable"}],
    })
}

/// `metav1.Condition`, one for each type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {"type": "string", "maxLength": 32768},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            },
        },
    })
}

pub(crate) fn result(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["Valid", "Invalid", "Unknown"]})
}

/// 1 to 32. MetalLB's schema leaves the upper end to its webhook.
pub(crate) fn aggregation_length(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 32, "default": 32})
}

/// Up to 128. MetalLB's schema leaves the end to its webhook.
pub(crate) fn aggregation_length_v6(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "maximum": 128, "default": 128})
}

pub(crate) fn asn(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 0, "maximum": 4_294_967_295_u32})
}

pub(crate) fn local_asn(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 1, "maximum": 4_294_967_295_u32})
}

pub(crate) fn dynamic_asn(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["internal", "external"]})
}

pub(crate) fn peer_port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 16384, "default": 179})
}

pub(crate) fn old_peer_port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 0, "maximum": 16384})
}

pub(crate) fn connect_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "x-kubernetes-validations": [
            {
                "rule": "duration(self).getSeconds() >= 1 && duration(self).getSeconds() <= 65535",
                "message": "must be 1s to 65535s",
            },
            {
                "rule": "duration(self).getMilliseconds() % 1000 == 0",
                "message": "must be whole seconds",
            },
        ],
    })
}

pub(crate) fn graceful_restart(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "boolean",
        "x-kubernetes-validations": [
            {"rule": "self == oldSelf", "message": "cannot be changed, only chosen at creation"},
        ],
    })
}

pub(crate) fn secret(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}},
    })
}

pub(crate) fn interval(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 10, "maximum": 60000})
}

pub(crate) fn multiplier(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 2, "maximum": 255})
}

pub(crate) fn ttl(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 254})
}

#[cfg(test)]
mod tests {
    use ferrolb_config::AddressRange;
    use regex::Regex;

    use super::*;

    fn let_in(text: &str) -> bool {
        let patterns = if text.contains('-') {
            range_patterns()
        } else {
            cidr_patterns()
        };
        let matches = |pattern: &String| Regex::new(pattern).unwrap().is_match(text);
        patterns.iter().any(matches)
    }

    #[test]
    fn the_door_lets_in_what_the_daemons_read() {
        for text in [
            "192.168.10.0/24",
            "0.0.0.0/0",
            "10.0.0.9/32",
            "192.168.99.100/28",
            "192.168.9.1-192.168.9.5",
            "192.168.9.1 - 192.168.9.5",
            "::/0",
            "::1-::ffff",
            "fc00:f853:ccd:e799::-fc00:f853:ccd:e799::10",
            "fc00::/120",
            "1:2:3:4:5:6:7:8/128",
            "::ffff:10.0.0.0/120",
        ] {
            assert!(AddressRange::parse(text).is_ok() && let_in(text), "{text}");
        }
    }

    #[test]
    fn the_door_refuses_what_the_daemons_cannot_read() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.0/33",
            "10.0.0.0/024",
            "10.0.0.256/32",
            "010.0.0.0/8",
            " 10.0.0.0/24",
            "10.0.0.0/24 ",
            "10.0.0.1-",
            "10.0.0.1-10.0.0.2-10.0.0.3",
            "10.0.0.1-fc00::1",
            "fc00::/129",
            "fc00::1%eth0/128",
            "fc00",
            "ten/8",
        ] {
            assert!(
                AddressRange::parse(text).is_err() && !let_in(text),
                "{text}"
            );
        }
    }

    /// The API server's estimate for a rule on each entry (`k8s.io/apiserver/pkg/cel`): a tenth of the text's length in
    /// bytes, four a character, times a quarter of the pattern's, for each entry. More than ten millions, and it refuses
    /// the definition.
    #[test]
    fn the_rules_are_cheap_enough_for_the_api_server() {
        for patterns in [cidr_patterns(), range_patterns()] {
            let each = patterns.iter().map(|pattern| {
                let pattern = u32::try_from(pattern.len()).unwrap().div_ceil(4);
                (4 * LONGEST_ADDRESS + 1).div_ceil(10) * pattern
            });
            assert!(each.sum::<u32>() * MOST_ADDRESSES < 9_000_000);
        }
    }
}
