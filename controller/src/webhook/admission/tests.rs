//! Every file of `inputs/reviews` is a review as an API server sends it, what is in the cluster meanwhile, and what is
//! to be answered.

use std::{collections::BTreeSet, path::Path};

use super::*;
use crate::webhook::review;

fn list<K: DeserializeOwned>(cluster: &Value, name: &str) -> Vec<K> {
    let list = cluster.get(name).cloned().unwrap_or_else(|| json!([]));
    serde_json::from_value(list).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The answer as the API server gets it, by the same steps as in the server.
fn answer(input: &Value) -> Value {
    let path = input["path"].as_str().unwrap();
    let kind = Kind::ALL.into_iter().find(|kind| kind.path() == path);
    let kind = kind.unwrap_or_else(|| panic!("{path} is not served"));
    let rules = Rules {
        namespace: "metallb-system".to_owned(),
        bgp: BgpType::parse(input["bgp"].as_str().unwrap()),
    };
    let request = review::read(&serde_json::to_vec(&input["review"]).unwrap()).unwrap();
    let needs = kind.needs(&rules);
    let cluster = &input["cluster"];
    // What is not asked for must not be needed.
    let objects = Objects {
        pools: if needs.pools {
            list(cluster, "pools")
        } else {
            Vec::new()
        },
        bgp_advertisements: if needs.bgp_advertisements {
            list(cluster, "bgpAdvertisements")
        } else {
            Vec::new()
        },
        communities: if needs.communities {
            list(cluster, "communities")
        } else {
            Vec::new()
        },
        peers: if needs.peers {
            list(cluster, "peers")
        } else {
            Vec::new()
        },
        nodes: if needs.nodes {
            list(cluster, "nodes")
        } else {
            Vec::new()
        },
    };
    let answer = decide_alone(kind, &request, &rules)
        .unwrap_or_else(|| decide(kind, &request, &objects, &rules));
    review::write(&request.uid, &answer)
}

#[test]
fn every_review_is_answered_as_its_file_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/webhook/inputs/reviews");
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let input: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let review = answer(&input);
        let response = &review["response"];
        let expected = &input["expected"];
        let allowed = expected["allowed"].as_bool().unwrap();
        let message = response["status"]["message"].as_str().unwrap_or_default();
        let texts: Vec<String> = list(expected, "contains");
        let warnings: Vec<String> = list(expected, "warnings");
        let as_expected = response["uid"] == input["review"]["request"]["uid"]
            && response["allowed"].as_bool() == Some(allowed)
            && allowed == response["status"].is_null()
            && response["status"]["code"] == expected["code"]
            && texts.iter().all(|text| message.contains(text))
            && list::<String>(response, "warnings") == warnings;
        if !as_expected {
            wrong.push(format!("{name}: {response}"));
        }
        seen.insert((input["path"].as_str().unwrap().to_owned(), allowed));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for kind in Kind::ALL {
        for allowed in [true, false] {
            assert!(
                seen.contains(&(kind.path().to_owned(), allowed)),
                "no input has {kind:?} answered with {allowed}"
            );
        }
    }
}

#[test]
fn what_is_no_review_is_said_to_be_none() {
    for body in [
        &b""[..],
        b"{}",
        b"[]",
        b"{\"request\":{\"uid\":5}}",
        b"\xff",
    ] {
        let error = review::read(body).unwrap_err();
        assert!(error.starts_with("not an AdmissionReview"), "{error}");
        let review = review::write("", &Answer::Undecodable(error));
        assert_eq!(review["response"]["allowed"], false);
        assert_eq!(review["response"]["status"]["code"], 400);
        assert_eq!(review["kind"], "AdmissionReview");
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    }
}

#[test]
fn other_operations_are_none_of_our_business() {
    let body = json!({"request": {"uid": "u", "operation": "CONNECT"}});
    let request = review::read(&serde_json::to_vec(&body).unwrap()).unwrap();
    let rules = Rules {
        namespace: "n".to_owned(),
        bgp: BgpType::Unknown,
    };
    for kind in Kind::ALL {
        let answer = decide_alone(kind, &request, &rules);
        assert_eq!(answer, Some(Answer::Allowed(Vec::new())));
    }
}

#[test]
fn an_object_that_is_missing_is_unreadable() {
    let body = json!({"request": {"uid": "u", "operation": "CREATE", "namespace": "n"}});
    let request = review::read(&serde_json::to_vec(&body).unwrap()).unwrap();
    let rules = Rules {
        namespace: "n".to_owned(),
        bgp: BgpType::Frr,
    };
    for kind in Kind::ALL {
        assert_eq!(decide_alone(kind, &request, &rules), None);
        let answer = decide(kind, &request, &Objects::default(), &rules);
        assert!(matches!(answer, Answer::Undecodable(_)), "{kind:?}");
    }
}
