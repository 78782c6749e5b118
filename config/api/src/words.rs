//! From objects as the API server sends them to the words the check understands.
//!
//! The schema in the cluster may be MetalLB's, ours, or of another release; an object that does not fit our types is a
//! problem of that object, with its place, and not the end of a watch.

use ferrolb_config::{
    AdvertisementWords, AllocationWords, Origin, PoolWords, Problem, SelectorWords, Word, Words,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{IPAddressPoolSpec, L2AdvertisementSpec, ServiceAllocation};

/// The words of an `IPAddressPool`: one pool, whose place is `IPAddressPool NAMESPACE/NAME`.
pub fn pool_words(object: &DynamicObject) -> Words {
    let place = place("IPAddressPool", object);
    let mut pool = PoolWords {
        place: place.clone(),
        origin: Origin::Resource,
        name: Word::Said(object.metadata.name.clone().unwrap_or_default()),
        labels: object.metadata.labels.clone().unwrap_or_default().into(),
        ..PoolWords::default()
    };
    match spec::<IPAddressPoolSpec>(object, &place) {
        Ok(spec) => {
            pool.addresses = Word::Said(spec.addresses.into_iter().map(Word::Said).collect());
            pool.auto_assign = spec.auto_assign.map_or(Word::Absent, Word::Said);
            pool.avoid_buggy_ips = spec.avoid_buggy_ips.map_or(Word::Absent, Word::Said);
            pool.allocation = spec.service_allocation.map(allocation);
        }
        Err(problem) => {
            pool.problems.push(problem);
            pool.addresses = Word::Unreadable;
        }
    }
    Words {
        pools: vec![pool],
        ..Words::default()
    }
}

/// The words of an `L2Advertisement`, whose place is `L2Advertisement NAMESPACE/NAME`.
pub fn advertisement_words(object: &DynamicObject) -> Words {
    let place = place("L2Advertisement", object);
    let mut words = Words::default();
    match spec::<L2AdvertisementSpec>(object, &place) {
        Ok(spec) => words.advertisements.push(AdvertisementWords {
            place,
            name: object.metadata.name.clone().unwrap_or_default(),
            pools: spec.ip_address_pools,
            pool_selectors: selectors(spec.ip_address_pool_selectors),
            node_selectors: selectors(spec.node_selectors),
            service_selectors: selectors(spec.service_selectors),
            interfaces: spec.interfaces,
            preferred: spec
                .preferred_node_selectors
                .into_iter()
                .map(|entry| (i64::from(entry.weight), selector(entry.preference)))
                .collect(),
        }),
        Err(problem) => words.problems.push(problem),
    }
    words
}

/// `KIND NAMESPACE/NAME`.
fn place(kind: &str, object: &DynamicObject) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let (namespace, name) = (
        part(&object.metadata.namespace),
        part(&object.metadata.name),
    );
    format!("{kind} {namespace}/{name}")
}

/// The spec; one that is left out is empty.
fn spec<T: DeserializeOwned>(object: &DynamicObject, place: &str) -> Result<T, Problem> {
    let spec = match object.data.get("spec") {
        None | Some(Value::Null) => json!({}),
        Some(spec) => spec.clone(),
    };
    serde_json::from_value(without_nulls(spec)).map_err(|error| {
        let what = format!("the spec cannot be read: {error}");
        Problem::new(
            place,
            what,
            "write the field as the definition describes it",
        )
    })
}

/// Null is the same as absent, as it is for MetalLB.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn allocation(said: ServiceAllocation) -> AllocationWords {
    AllocationWords {
        priority: said.priority.unwrap_or_default(),
        namespaces: said.namespaces,
        namespace_selectors: selectors(said.namespace_selectors),
        service_selectors: selectors(said.service_selectors),
    }
}

fn selectors(said: Vec<LabelSelector>) -> Vec<SelectorWords> {
    said.into_iter().map(selector).collect()
}

fn selector(said: LabelSelector) -> SelectorWords {
    let expressions = said.match_expressions.unwrap_or_default().into_iter();
    SelectorWords {
        labels: said.match_labels.unwrap_or_default(),
        expressions: expressions
            .map(|one| (one.key, one.operator, one.values.unwrap_or_default()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_config::{Family, Labels, check};
    use proptest::prelude::*;

    use super::*;

    fn object(spec: Value) -> DynamicObject {
        let metadata =
            json!({"name": "a", "namespace": "metallb-system", "labels": {"zone": "east"}});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn labels(key: &str, value: &str) -> Labels {
        Labels::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn every_field_has_its_meaning() {
        let mut words = pool_words(&object(json!({
            "addresses": ["10.0.0.0/24", "10.0.1.1 - 10.0.1.3"],
            "autoAssign": false,
            "avoidBuggyIPs": true,
            "serviceAllocation": {
                "priority": 7,
                "namespaces": ["n"],
                "namespaceSelectors": [{"matchLabels": {"team": "a"}}],
                "serviceSelectors": [{"matchExpressions": [{"key": "app", "operator": "Exists"}]}],
            },
        })));
        words.append(advertisement_words(&object(json!({
            "ipAddressPoolSelectors": [{"matchLabels": {"zone": "east"}}],
            "nodeSelectors": [{"matchExpressions": [{"key": "rack", "operator": "In", "values": ["r1"]}]}],
            "serviceSelectors": [{"matchLabels": {"app": "web"}}],
            "interfaces": ["eth1", "eth0", "eth1"],
            "preferredNodeSelectors": [{"weight": 30, "preference": {"matchLabels": {"rack": "r1"}}}],
        }))));
        let config = check(words).unwrap();
        let pool = config.pool("a").unwrap();
        assert_eq!(pool.origin(), Origin::Resource);
        assert_eq!(pool.size(Family::V4), 254 + 3);
        assert!(!pool.auto_assign() && pool.avoid_buggy_ips());
        let allocation = pool.allocation().unwrap();
        assert_eq!(allocation.priority(), Some(7));
        let (none, app) = (Labels::new(), labels("app", "web"));
        assert!(allocation.admits("n", Some(&none), &app));
        assert!(allocation.admits("m", Some(&labels("team", "a")), &app));
        assert!(!allocation.admits("m", Some(&none), &app));
        assert!(!allocation.admits("n", Some(&none), &none));
        let advertisements: Vec<_> = pool.advertisements().collect();
        let [only] = advertisements.as_slice() else {
            panic!("{advertisements:?}");
        };
        assert_eq!(only.name(), "a");
        assert!(only.selects_node(&labels("rack", "r1")) && !only.selects_node(&none));
        assert!(only.selects_service(&app) && !only.selects_service(&none));
        assert_eq!(only.interfaces().len(), 2);
        assert_eq!(only.preference(&labels("rack", "r1")), 30);
    }

    #[test]
    fn what_is_left_out_or_null_is_the_default() {
        let mut words = pool_words(&object(json!({
            "addresses": ["10.0.0.0/24"], "autoAssign": null, "serviceAllocation": null,
        })));
        words.append(advertisement_words(&object(Value::Null)));
        let config = check(words).unwrap();
        let pool = config.pool("a").unwrap();
        assert!(pool.auto_assign() && !pool.avoid_buggy_ips() && pool.allocation().is_none());
        assert_eq!(pool.advertisements().count(), 1);
    }

    #[test]
    fn every_problem_is_reported_at_its_place() {
        let mut words = pool_words(&object(json!({
            "addresses": ["10.0.0.0/33", "10.0.0.9-10.0.0.1"],
            "serviceAllocation": {"namespaces": ["n", "n"]},
        })));
        words.append(pool_words(&object(json!({"addresses": [7]}))));
        words.append(pool_words(&object(json!({"addresses": []}))));
        words.append(advertisement_words(&object(json!({"interfaces": "eth0"}))));
        words.append(advertisement_words(&object(json!({
            "nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Like"}]}],
        }))));
        let refused = check(words).unwrap_err();
        let places: Vec<_> = refused
            .problems()
            .iter()
            .map(|one| one.place.as_str())
            .collect();
        assert_eq!(
            places,
            [
                "L2Advertisement metallb-system/a",
                "IPAddressPool metallb-system/a.addresses[0]",
                "IPAddressPool metallb-system/a.addresses[1]",
                "IPAddressPool metallb-system/a.serviceAllocation.namespaces",
                "IPAddressPool metallb-system/a",
                "IPAddressPool metallb-system/a.name",
                "IPAddressPool metallb-system/a.name",
                "IPAddressPool metallb-system/a.addresses",
                "L2Advertisement metallb-system/a.nodeSelectors[0].matchExpressions[0]",
            ]
        );
    }

    /// Values that fit somewhere and values that fit nowhere.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop::sample::select(vec![
                "In",
                "Exists",
                "10.0.0.0/24",
                "10.0.0.1-10.0.0.9",
                "a",
                ""
            ])
            .prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        let keys = prop::sample::select(vec![
            "addresses",
            "autoAssign",
            "serviceAllocation",
            "namespaces",
            "namespaceSelectors",
            "nodeSelectors",
            "matchLabels",
            "matchExpressions",
            "key",
            "operator",
            "values",
            "preferredNodeSelectors",
            "weight",
            "preference",
            "other",
        ]);
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(keys.clone().prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_object_is_a_configuration_or_problems(spec in value()) {
            let object = object(spec);
            let mut words = pool_words(&object);
            words.append(advertisement_words(&object));
            if let Err(refused) = check(words) {
                prop_assert!(!refused.problems().is_empty());
                prop_assert_eq!(refused.to_string().lines().count(), refused.problems().len());
            }
        }
    }
}
