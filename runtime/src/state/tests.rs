//! What is written for which verdict, and how often. Time is tokio's, paused: it leaps.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::http::{Request, Response};
use kube::client::Body;

use super::*;

fn own(component: Component) -> Own {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: "p".to_owned(),
        uid: "u".to_owned(),
        ..OwnerReference::default()
    };
    Own {
        namespace: "metallb-system".to_owned(),
        component,
        owner: Some(owner),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// The object after every step that is due was taken, and how many that were.
fn settle(
    own: &Own,
    mut seen: Option<DynamicObject>,
    verdict: &Verdict,
    now: Timestamp,
) -> (DynamicObject, usize) {
    let mut steps = 0;
    while let Some(step) = own.next(seen.as_ref(), &says(verdict), now) {
        let mut object = seen.map_or(json!({}), |seen| serde_json::to_value(seen).unwrap());
        match step {
            Step::Create(new) => object = new,
            Step::Metadata(patch) | Step::Status(patch) => merge(&mut object, patch),
        }
        seen = Some(serde_json::from_value(object).unwrap());
        steps += 1;
        assert!(steps <= STEPS, "it does not come to rest");
    }
    (seen.unwrap(), steps)
}

/// A JSON merge patch (RFC 7396).
fn merge(object: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *object = patch;
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(&key);
        } else {
            merge(&mut object[&key], value);
        }
    }
}

fn says(verdict: &Verdict) -> Report {
    Report {
        verdict: verdict.clone(),
        strangers: BTreeMap::new(),
    }
}

fn invalid(why: &str) -> Verdict {
    Verdict::Invalid(why.to_owned())
}

#[test]
fn the_object_is_metallbs() {
    let controller = own(Component::Controller);
    let (object, _) = settle(&controller, None, &Verdict::Valid, at(7));
    let object = serde_json::to_value(object).unwrap();
    assert_eq!(
        object,
        json!({
            "apiVersion": "metallb.io/v1beta1",
            "kind": "ConfigurationState",
            "metadata": {
                "name": "controller",
                "namespace": "metallb-system",
                "labels": {"metallb.io/component-type": "controller"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}],
            },
            "status": {
                "conditions": [{
                    "type": "poolReconcilerValid",
                    "status": "True",
                    "reason": "Reconciled",
                    "message": "",
                    "lastTransitionTime": "1970-01-01T00:00:07Z",
                }],
                "result": "Valid",
            },
        })
    );
    let speaker = own(Component::Speaker("node-a".to_owned()));
    let (object, _) = settle(&speaker, None, &invalid("bad"), at(7));
    assert_eq!(object.metadata.name.as_deref(), Some("speaker-node-a"));
    let labels = object.metadata.labels.unwrap();
    assert_eq!(labels["metallb.io/node-name"], "node-a");
    let status = &object.data["status"];
    assert_eq!(status["result"], "Invalid");
    assert_eq!(status["errorSummary"], "configuration error: bad");
    let condition = &status["conditions"][0];
    assert_eq!(condition["type"], "configReconcilerValid");
    assert_eq!(condition["status"], "False");
    assert_eq!(condition["reason"], "ConfigurationError");
}

#[test]
fn the_same_again_writes_nothing_and_a_transition_has_its_time() {
    let own = own(Component::Controller);
    let (object, _) = settle(&own, None, &invalid("one"), at(1));
    assert_eq!(own.next(Some(&object), &says(&invalid("one")), at(2)), None);
    // Another message of the same state is no transition.
    let (object, steps) = settle(&own, Some(object), &invalid("two"), at(3));
    assert_eq!(steps, 1);
    let time = |object: &DynamicObject| {
        object.data["status"]["conditions"][0]["lastTransitionTime"].clone()
    };
    assert_eq!(time(&object), "1970-01-01T00:00:01Z");
    let (object, _) = settle(&own, Some(object), &Verdict::Valid, at(4));
    assert_eq!(time(&object), "1970-01-01T00:00:04Z");
    assert_eq!(object.data["status"].get("errorSummary"), None);
}

#[test]
fn what_was_reported_stands_until_there_is_news() {
    let own = own(Component::Controller);
    let (new, _) = settle(&own, None, &Verdict::Pending, at(1));
    assert_eq!(new.data["status"]["result"], "Unknown");
    let (old, _) = settle(&own, None, &Verdict::Valid, at(1));
    assert_eq!(own.next(Some(&old), &says(&Verdict::Pending), at(2)), None);
}

#[test]
fn labels_owners_and_foreign_conditions_are_kept_in_order() {
    let own = own(Component::Controller);
    let (mut object, _) = settle(&own, None, &Verdict::Valid, at(1));
    let foreign = json!({
        "type": "other", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "1970-01-01T00:00:01Z",
    });
    let conditions = object.data["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(foreign.clone());
    object.metadata.labels = Some([("mine".to_owned(), "x".to_owned())].into());
    let (object, _) = settle(&own, Some(object), &invalid("bad"), at(2));
    let labels = object.metadata.labels.unwrap();
    assert_eq!(labels.len(), 2);
    assert_eq!(object.data["status"]["conditions"][1], foreign);
    // A Pod that is gone must not take the object along.
    let mut older = settle(&own, None, &Verdict::Valid, at(1)).0;
    older.metadata.owner_references.as_mut().unwrap()[0].uid = "older".to_owned();
    let (object, steps) = settle(&own, Some(older), &Verdict::Valid, at(2));
    assert_eq!(object.metadata.owner_references.unwrap()[0].uid, "u");
    assert_eq!(steps, 1);
}

#[test]
fn a_message_longer_than_the_definition_allows_is_cut() {
    let own = own(Component::Controller);
    let (object, _) = settle(&own, None, &invalid(&"ä".repeat(40_000)), at(1));
    let message = object.data["status"]["conditions"][0]["message"].clone();
    assert_eq!(message.as_str().unwrap().chars().count(), LONGEST_MESSAGE);
}

/// An API server with one ConfigurationState, or without the definition.
#[derive(Default)]
struct Server {
    unknown: bool,
    object: Option<Value>,
    writes: Vec<String>,
    lists: usize,
}

fn client(server: &Arc<Mutex<Server>>) -> Client {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let uri = parts.uri.to_string();
            if uri.contains("watch=") {
                std::future::pending::<()>().await;
            }
            let answer = answer(
                &mut server.lock().unwrap(),
                parts.method.as_str(),
                &uri,
                &body,
            );
            let status = if answer["code"] == 404 { 404 } else { 200 };
            let body = Body::from(answer.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

fn answer(server: &mut Server, method: &str, uri: &str, body: &[u8]) -> Value {
    if uri.contains("/pods/") {
        return json!({"metadata": {"name": "p", "uid": "u"}});
    }
    if method == "GET" {
        server.lists += 1;
    }
    if server.unknown {
        return json!({"kind": "Status", "status": "Failure", "message": "", "reason": "NotFound", "code": 404});
    }
    if method == "GET" {
        let items: Vec<_> = server.object.iter().collect();
        return json!({"metadata": {"resourceVersion": "1"}, "items": items});
    }
    let path = uri.split('?').next().unwrap();
    let last = path.rsplit('/').next().unwrap();
    server.writes.push(format!("{method} {last}"));
    let written: Value = serde_json::from_slice(body).unwrap();
    let object = server.object.get_or_insert(json!({}));
    merge(object, written);
    object.clone()
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_written_once() {
    let server = Arc::new(Mutex::new(Server::default()));
    let (state, keeping) = State::new(
        client(&server),
        "metallb-system".to_owned(),
        Component::Controller,
        Some("p".to_owned()),
    );
    tokio::spawn(keeping);
    for verdict in [Verdict::Valid, Verdict::Valid, invalid("bad")] {
        state.set(verdict);
        tokio::time::sleep(Duration::from_mins(5)).await;
    }
    let server = server.lock().unwrap();
    assert_eq!(
        server.writes,
        ["POST configurationstates", "PATCH status", "PATCH status"]
    );
    let object = server.object.as_ref().unwrap();
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u");
    assert_eq!(object["status"]["result"], "Invalid");
}

#[tokio::test(start_paused = true)]
async fn without_the_definition_nothing_is_written_until_it_is_there() {
    let server = Arc::new(Mutex::new(Server {
        unknown: true,
        ..Server::default()
    }));
    let (state, keeping) = State::new(
        client(&server),
        "metallb-system".to_owned(),
        Component::Controller,
        None,
    );
    tokio::spawn(keeping);
    state.set(Verdict::Valid);
    tokio::time::sleep(Duration::from_hours(1)).await;
    {
        let mut server = server.lock().unwrap();
        assert_eq!(server.writes, [""; 0]);
        assert!(server.lists < 200, "asked {} times", server.lists);
        server.unknown = false;
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    let server = server.lock().unwrap();
    assert_eq!(server.object.as_ref().unwrap()["status"]["result"], "Valid");
}

#[test]
fn strangers_are_listed_in_a_condition_of_their_own_and_read_back() {
    let own = Own {
        namespace: "metallb-system".to_owned(),
        component: Component::Speaker("n1".to_owned()),
        owner: None,
    };
    let status = |object: &DynamicObject| -> ConfigurationStateStatus {
        serde_json::from_value(object.data["status"].clone()).unwrap()
    };
    let (object, _) = settle(&own, None, &Verdict::Valid, at(1));
    assert_eq!(status(&object).conditions.len(), 1);
    let mut report = says(&Verdict::Valid);
    let each =
        ["10.0.0.1", "fc00::1"].map(|ip| (ip.parse().unwrap(), "02:00:00:00:00:09".to_owned()));
    report.strangers = each.into();
    let Some(Step::Status(patch)) = own.next(Some(&object), &report, at(2)) else {
        panic!("something new is to be said")
    };
    let patched: ConfigurationStateStatus =
        serde_json::from_value(patch["status"].clone()).unwrap();
    assert_eq!(
        (patched.result.as_deref(), patched.conditions.len()),
        (Some("Valid"), 2)
    );
    assert_eq!(strangers(&patched), report.strangers);
    let mut object = object;
    object.data["status"] = patch["status"].clone();
    assert_eq!(own.next(Some(&object), &report, at(3)), None);
    // And the next process knows of none.
    let Some(Step::Status(patch)) = own.next(Some(&object), &says(&Verdict::Pending), at(4)) else {
        panic!("the end is to be said")
    };
    let patched = serde_json::from_value(patch["status"].clone()).unwrap();
    assert!(strangers(&patched).is_empty());
    // As many as a condition may hold.
    let many: BTreeMap<IpAddr, String> = (0..4000_u32)
        .map(|index| {
            (
                std::net::Ipv4Addr::from(index).into(),
                "02:00:00:00:00:09".to_owned(),
            )
        })
        .collect();
    let list = listed(&many);
    assert!(list.len() <= LONGEST_MESSAGE && list.ends_with('9'));
}
