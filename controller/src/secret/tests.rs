use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::http::{Request, Response};
use kube::client::Body;
use prometheus::Registry;
use serde_json::{Value, json};

use super::*;

/// An API server as far as this Secret goes.
#[derive(Default)]
struct Cluster {
    secret: Option<Value>,
    /// How many more lists fail.
    failing: u32,
    /// There is no right to read Deployments.
    hidden: bool,
    /// Somebody makes the Secret just before us.
    overtaken: bool,
    /// What was asked, in order.
    asked: Vec<String>,
}

impl Cluster {
    fn answer(
        &mut self,
        method: &str,
        path: &str,
        query: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let refusal = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                "reason": reason, "message": "no"});
            (code, status)
        };
        let secrets = "/api/v1/namespaces/metallb-system/secrets";
        match (method, path) {
            ("GET", path) if path == secrets => {
                self.asked.push(format!("list {query}"));
                if self.failing > 0 {
                    self.failing -= 1;
                    return refusal(403, "Forbidden");
                }
                let items: Vec<_> = self.secret.iter().collect();
                (
                    200,
                    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {},
                    "items": items}),
                )
            }
            ("GET", "/apis/apps/v1/namespaces/metallb-system/deployments/controller") => {
                self.asked.push("get deployment".to_owned());
                if self.hidden {
                    return refusal(403, "Forbidden");
                }
                (
                    200,
                    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"name": "controller", "namespace": "metallb-system", "uid": "u-1"}}),
                )
            }
            ("POST", path) if path == secrets => {
                self.asked.push("create".to_owned());
                if self.overtaken {
                    return refusal(409, "AlreadyExists");
                }
                self.secret = body;
                (201, self.secret.clone().unwrap())
            }
            // Events.
            _ => (201, body.unwrap_or_else(|| json!({"metadata": {}}))),
        }
    }
}

async fn ensure(cluster: Cluster, deployment: &str) -> Cluster {
    let cluster = Arc::new(Mutex::new(cluster));
    let shared = cluster.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let cluster = shared.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&body).ok();
            let query = parts.uri.query().unwrap_or_default();
            let (code, answer) = cluster.lock().unwrap().answer(
                parts.method.as_str(),
                parts.uri.path(),
                query,
                body,
            );
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    let client = Client::new(service, "metallb-system");
    let (events, _writer) = Events::new(client.clone(), "test", None, &Registry::new()).unwrap();
    let wanted = MemberList {
        secret: ObjectName::new("metallb-system", "memberlist"),
        deployment: deployment.to_owned(),
    };
    wanted.ensure(client, events).await;
    let mut cluster = cluster.lock().unwrap();
    std::mem::take(&mut *cluster)
}

#[tokio::test]
async fn a_missing_secret_is_made_as_metallb_makes_it() {
    let after = ensure(Cluster::default(), "controller").await;
    let list = "list fieldSelector=metadata.name%3Dmemberlist";
    assert!(after.asked[0].starts_with("list "), "{:?}", after.asked);
    assert!(after.asked[0].contains(&list[5..]), "{:?}", after.asked);
    assert_eq!(after.asked[1..], ["get deployment", "create"]);
    let mut secret = after.secret.unwrap();
    let data = secret["data"].take();
    assert_eq!(
        secret,
        json!({"apiVersion": "v1", "kind": "Secret", "data": null, "metadata": {"name": "memberlist",
            "namespace": "metallb-system", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment",
                "name": "controller", "uid": "u-1"}]}})
    );
    let data: BTreeMap<String, ByteString> = serde_json::from_value(data).unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["secretkey"]);
    let key = String::from_utf8(data["secretkey"].0.clone()).unwrap();
    assert_eq!(key.len(), 22);
    assert_eq!(STANDARD_NO_PAD.decode(&key).unwrap().len(), 16);
    let again = ensure(Cluster::default(), "controller").await;
    assert_ne!(again.secret.unwrap()["data"], json!(data));
}

#[tokio::test]
async fn one_that_is_there_is_left_alone() {
    let there = json!({"metadata": {"name": "memberlist"}});
    let cluster = Cluster {
        secret: Some(there.clone()),
        ..Cluster::default()
    };
    let after = ensure(cluster, "controller").await;
    assert_eq!(after.asked.len(), 1);
    assert_eq!(after.secret, Some(there));
}

#[tokio::test]
async fn another_controller_may_be_quicker() {
    let cluster = Cluster {
        overtaken: true,
        ..Cluster::default()
    };
    let after = ensure(cluster, "controller").await;
    assert_eq!(after.asked.last().unwrap(), "create");
}

#[tokio::test(start_paused = true)]
async fn refusals_are_outlasted() {
    let cluster = Cluster {
        failing: 20,
        ..Cluster::default()
    };
    let after = ensure(cluster, "controller").await;
    assert_eq!(after.asked.len(), 20 + 3);
    assert!(after.secret.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_cannot_be_read_is_asked_for_thrice_and_then_done_without() {
    let cluster = Cluster {
        hidden: true,
        ..Cluster::default()
    };
    let after = ensure(cluster, "controller").await;
    let asked = after
        .asked
        .iter()
        .filter(|asked| *asked == "get deployment");
    assert_eq!(asked.count(), 3);
    assert_eq!(
        after.secret.unwrap()["metadata"]["ownerReferences"],
        Value::Null
    );
    let unnamed = ensure(Cluster::default(), "").await;
    assert_eq!(unnamed.asked.len(), 2, "no Deployment, nobody to ask for");
}
