//! Objects as MetalLB's users have them, with every field: they are read and written again without a loss.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ferrolb_config_api::{
    BFDProfile, BGPAdvertisement, BGPPeer, Community, ConfigurationState, IPAddressPool,
    L2Advertisement, ServiceBGPStatus, ServiceL2Status, v1beta1,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The objects of `inputs/`.
fn objects() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    paths.sort();
    let read = |path| serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    paths.into_iter().map(read).collect()
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap()
}

/// What is left of an object that went through the type.
fn through<T: DeserializeOwned + Serialize>(object: Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(object).unwrap()).unwrap()
}

#[test]
fn every_object_comes_back_as_it_was() {
    let mut kinds = BTreeSet::new();
    for object in objects() {
        let given = object.clone();
        let (version, kind) = (text(&given, "apiVersion"), text(&given, "kind"));
        let back = match (version, kind) {
            ("metallb.io/v1beta1", "BFDProfile") => through::<BFDProfile>(object),
            ("metallb.io/v1beta1", "BGPAdvertisement") => through::<BGPAdvertisement>(object),
            ("metallb.io/v1beta1", "BGPPeer") => through::<v1beta1::BGPPeer>(object),
            ("metallb.io/v1beta2", "BGPPeer") => through::<BGPPeer>(object),
            ("metallb.io/v1beta1", "Community") => through::<Community>(object),
            ("metallb.io/v1beta1", "ConfigurationState") => {
                // The type has a spec because the derive macro wants one; objects have none.
                let mut object = object;
                object["spec"] = json!({});
                let mut back = through::<ConfigurationState>(object);
                assert_eq!(
                    back.as_object_mut().unwrap().remove("spec"),
                    Some(json!({}))
                );
                back
            }
            ("metallb.io/v1beta1", "IPAddressPool") => through::<IPAddressPool>(object),
            ("metallb.io/v1beta1", "L2Advertisement") => through::<L2Advertisement>(object),
            ("metallb.io/v1beta1", "ServiceBGPStatus") => through::<ServiceBGPStatus>(object),
            ("metallb.io/v1beta1", "ServiceL2Status") => through::<ServiceL2Status>(object),
            other => panic!("{other:?}"),
        };
        assert_eq!(back, given);
        kinds.insert(format!("{version} {kind}"));
    }
    assert_eq!(kinds.len(), 10);
}

#[test]
fn the_objects_have_every_field_metallb_knows() {
    let mut have = BTreeSet::new();
    for object in objects() {
        let version = text(&object, "apiVersion").trim_start_matches("metallb.io/");
        let kind = text(&object, "kind").to_lowercase();
        for part in ["spec", "status"] {
            if let Some(value) = object.get(part) {
                paths(&format!("{kind} {version} {part}"), value, &mut have);
            }
        }
    }
    let known = include_str!("../inputs/metallb-0.16.1.paths");
    for line in known.lines().filter(|line| !line.contains(" column ")) {
        let mut words = line.split(' ');
        let (plural, version, path) = (
            words.next().unwrap(),
            words.next().unwrap(),
            words.next().unwrap(),
        );
        let kind = match plural {
            "communities" => "community".to_owned(),
            _ if plural.ends_with("statuses") => plural.trim_end_matches("es").to_owned(),
            _ => plural.trim_end_matches('s').to_owned(),
        };
        let path = path.replace("{}", "");
        let path = format!("{kind} {version} {path}");
        assert!(have.contains(&path), "no object has {path}");
    }
}

/// The paths of all values; entries of lists and of free maps are all alike.
fn paths(path: &str, value: &Value, have: &mut BTreeSet<String>) {
    have.insert(path.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                paths(&format!("{path}.{key}"), value, have);
            }
        }
        Value::Array(items) => {
            for item in items {
                paths(&format!("{path}[]"), item, have);
            }
        }
        _ => {}
    }
}
