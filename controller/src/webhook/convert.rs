//! `BGPPeer` between `v1beta1` and `v1beta2`: the `/convert` path MetalLB's CustomResourceDefinition names.
//!
//! As MetalLB 0.16 does it: what only `v1beta2` knows is lost on the way down, and an absent timer becomes `0s` either
//! way. Objects stay JSON, so nothing else about them can change.

use kube::core::{
    Status,
    conversion::{ConversionRequest, ConversionResponse, ConversionReview},
};
use serde_json::{Map, Value, json};

const OLD: &str = "metallb.io/v1beta1";
const NEW: &str = "metallb.io/v1beta2";

/// The fields of `spec` that both versions have.
const COMMON: [&str; 12] = [
    "bfdProfile",
    "ebgpMultiHop",
    "holdTime",
    "keepaliveTime",
    "myASN",
    "nodeSelectors",
    "password",
    "peerASN",
    "peerAddress",
    "peerPort",
    "routerID",
    "sourceAddress",
];

/// Answers a ConversionReview. It fails as a whole if one of its objects cannot be converted.
pub fn answer(body: &[u8]) -> ConversionReview {
    let request = serde_json::from_slice::<ConversionReview>(body)
        .map_err(|error| error.to_string())
        .and_then(|review| {
            ConversionRequest::from_review(review).map_err(|error| error.to_string())
        });
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            let text = format!("not a ConversionReview of apiextensions.k8s.io/v1: {error}");
            let status = Status::failure(&text, "BadRequest").with_code(400);
            return ConversionResponse::invalid(status).into_review();
        }
    };
    let target = request.desired_api_version.clone();
    let objects = request.objects.iter();
    let converted: Result<Vec<_>, _> = objects.map(|object| convert(object, &target)).collect();
    let response = ConversionResponse::for_request(request);
    match converted {
        Ok(objects) => response.success(objects),
        Err(error) => response.failure(Status::failure(&error, "BadRequest").with_code(400)),
    }
    .into_review()
}

fn convert(object: &Value, target: &str) -> Result<Value, String> {
    let text = |field| {
        object
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (kind, version) = (text("kind"), text("apiVersion"));
    if kind != "BGPPeer" || ![OLD, NEW].contains(&version) || ![OLD, NEW].contains(&target) {
        return Err(format!(
            "cannot convert {kind} of {version} to {target}: only BGPPeer between {OLD} and {NEW} is known here"
        ));
    }
    let mut converted = object.clone();
    if version == target {
        return Ok(converted);
    }
    let Some(fields) = converted.as_object_mut() else {
        return Err("not an object".to_owned());
    };
    let spec = match fields.remove("spec") {
        Some(Value::Object(spec)) => spec,
        None | Some(Value::Null) => Map::new(),
        Some(other) => return Err(format!("the spec of a BGPPeer is not {other}")),
    };
    let mut spec: Map<_, _> = spec
        .into_iter()
        .filter(|(field, value)| COMMON.contains(&field.as_str()) && !value.is_null())
        .collect();
    for timer in ["holdTime", "keepaliveTime"] {
        spec.entry(timer).or_insert_with(|| json!("0s"));
    }
    if target == OLD {
        spec.entry("peerASN").or_insert_with(|| json!(0));
        spec.entry("peerAddress").or_insert_with(|| json!(""));
        required_values(&mut spec);
    }
    fields.insert("apiVersion".to_owned(), json!(target));
    fields.insert("spec".to_owned(), Value::Object(spec));
    Ok(converted)
}

/// The old version's selectors always have `values`, if only an empty list.
fn required_values(spec: &mut Map<String, Value>) {
    let selectors = spec.get_mut("nodeSelectors").and_then(Value::as_array_mut);
    for selector in selectors.into_iter().flatten() {
        let expressions = selector
            .get_mut("matchExpressions")
            .and_then(Value::as_array_mut);
        for expression in expressions.into_iter().flatten() {
            if let Some(fields) = expression.as_object_mut() {
                let values = fields.entry("values").or_insert_with(|| json!([]));
                if values.is_null() {
                    *values = json!([]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(target: &str, objects: Vec<Value>) -> Vec<u8> {
        let review = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "request": {"uid": "u1", "desiredAPIVersion": target, "objects": objects}});
        serde_json::to_vec(&review).unwrap()
    }

    /// What the API server takes from the answer.
    fn converted(target: &str, objects: Vec<Value>) -> Vec<Value> {
        let answer = serde_json::to_value(answer(&review(target, objects))).unwrap();
        assert_eq!(answer["apiVersion"], "apiextensions.k8s.io/v1");
        assert_eq!(answer["kind"], "ConversionReview");
        assert_eq!(answer["response"]["uid"], "u1");
        assert_eq!(
            answer["response"]["result"]["status"], "Success",
            "{answer}"
        );
        answer["response"]["convertedObjects"]
            .as_array()
            .unwrap()
            .clone()
    }

    fn peer(version: &str, spec: Value) -> Value {
        json!({"apiVersion": version, "kind": "BGPPeer", "spec": spec, "status": {}, "metadata": {
            "name": "p", "namespace": "n", "uid": "1-2", "generation": 3, "labels": {"a": "b"}, "annotations": {"c": "d"},
            "managedFields": [{"manager": "m"}], "creationTimestamp": "2026-01-01T00:00:00Z"}})
    }

    fn shared_fields() -> Value {
        json!({"myASN": 42, "peerASN": 142, "peerAddress": "1.2.3.4", "peerPort": 1179, "holdTime": "3m0s",
            "keepaliveTime": "1s", "routerID": "10.20.30.40", "sourceAddress": "10.20.30.41", "ebgpMultiHop": true,
            "bfdProfile": "default", "password": "nopass", "nodeSelectors": [{"matchLabels": {"foo": "bar"},
            "matchExpressions": [{"key": "k", "operator": "In", "values": ["quux"]}]}]})
    }

    #[test]
    fn what_both_versions_have_goes_both_ways_unchanged() {
        let (old, new) = (peer(OLD, shared_fields()), peer(NEW, shared_fields()));
        assert_eq!(converted(NEW, vec![old.clone()]), vec![new.clone()]);
        assert_eq!(converted(OLD, vec![new.clone()]), vec![old.clone()]);
        let both = vec![old.clone(), new.clone()];
        assert_eq!(converted(NEW, both.clone()), [new.clone(), new]);
        assert_eq!(converted(OLD, both), [old.clone(), old]);
    }

    #[test]
    fn what_only_the_new_version_has_is_lost_on_the_way_down() {
        let mut spec = shared_fields();
        for (field, value) in [
            ("vrf", json!("red")),
            ("connectTime", json!("5s")),
            ("dynamicASN", json!("internal")),
            ("passwordSecret", json!({"name": "s"})),
            ("disableMP", json!(false)),
        ] {
            spec[field] = value;
        }
        assert_eq!(
            converted(OLD, vec![peer(NEW, spec)]),
            [peer(OLD, shared_fields())]
        );
    }

    #[test]
    fn absent_timers_become_zero_and_required_fields_are_there() {
        let up = converted(
            NEW,
            vec![peer(
                OLD,
                json!({"myASN": 1, "peerASN": 2, "peerAddress": "a"}),
            )],
        );
        let expected = json!({"myASN": 1, "peerASN": 2, "peerAddress": "a", "holdTime": "0s", "keepaliveTime": "0s"});
        assert_eq!(up, [peer(NEW, expected)]);
        let exists = json!([{"matchExpressions": [{"key": "k", "operator": "Exists"}]}]);
        let spec =
            json!({"myASN": 1, "interface": "eth0", "holdTime": null, "nodeSelectors": exists});
        let down = converted(OLD, vec![peer(NEW, spec)]);
        let exists =
            json!([{"matchExpressions": [{"key": "k", "operator": "Exists", "values": []}]}]);
        let expected = json!({"myASN": 1, "peerASN": 0, "peerAddress": "", "holdTime": "0s", "keepaliveTime": "0s",
            "nodeSelectors": exists});
        assert_eq!(down, [peer(OLD, expected)]);
    }

    #[test]
    fn what_cannot_be_converted_is_said() {
        for (target, object, text) in [
            ("metallb.io/v1", peer(OLD, json!({})), "metallb.io/v1:"),
            (NEW, peer("metallb.io/v1alpha1", json!({})), "v1alpha1"),
            (
                NEW,
                json!({"kind": "IPAddressPool", "apiVersion": OLD}),
                "IPAddressPool",
            ),
            (NEW, json!(5), "only BGPPeer"),
            (NEW, peer(OLD, json!("x")), "spec"),
        ] {
            let review = review(target, vec![peer(NEW, json!({})), object]);
            let answer = serde_json::to_value(answer(&review)).unwrap();
            let response = &answer["response"];
            assert_eq!(response["uid"], "u1");
            assert_eq!(response["result"]["status"], "Failure");
            assert_eq!(response["convertedObjects"], json!([]));
            let message = response["result"]["message"].as_str().unwrap();
            assert!(message.contains(text), "{message}");
        }
        for body in [&b"x"[..], b"{}", b"{\"apiVersion\":\"a\",\"kind\":\"b\"}"] {
            let answer = serde_json::to_value(answer(body)).unwrap();
            assert_eq!(answer["response"]["result"]["code"], 400);
        }
    }
}
