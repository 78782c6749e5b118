//! The writer against an API server in memory: what is there after what was told.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use prometheus::IntCounter;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::sources::fake_api::{self, Answer};

/// Only to catch a hang.
const SOON: Duration = Duration::from_mins(1);

/// The objects of the namespace `metallb-system`, and what was asked for.
#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    asked: Vec<String>,
    made: u32,
    /// Refuse everything about statuses with this code.
    refuse: Option<u16>,
    /// Refuse to show pods.
    hide_pods: bool,
}

impl Server {
    fn answer(&mut self, method: &str, uri: &str, body: &[u8]) -> Answer {
        let path = uri.split('?').next().unwrap();
        let object = path.split('/').nth(7).map(str::to_owned);
        if path.contains("/pods/") {
            return if self.hide_pods {
                Answer::No(403)
            } else {
                Answer::Is(json!({"metadata": {"name": "speaker-x", "uid": "pod-uid"}}))
            };
        }
        if let Some(code) = self.refuse {
            return Answer::No(code);
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if method == "GET" && uri.contains("watch=true") {
            return Answer::Silence;
        }
        self.asked.push(format!("{method} {path}"));
        match (method, object) {
            ("GET", _) => fake_api::list(&self.objects.values().cloned().collect::<Vec<_>>()),
            ("POST", _) => {
                self.made += 1;
                let name = format!("l2-{}", self.made);
                let mut made = body;
                assert_eq!(made["metadata"]["generateName"], "l2-");
                assert!(made.get("status").is_none_or(Value::is_null), "{made}");
                made["metadata"]["name"] = json!(name);
                self.objects.insert(name, made.clone());
                Answer::Is(made)
            }
            ("PATCH", Some(name)) if path.ends_with("/status") => {
                let Some(there) = self.objects.get_mut(&name) else {
                    return Answer::No(404);
                };
                let status = body["status"].as_object().unwrap().clone();
                if there["status"].is_null() {
                    there["status"] = json!({});
                }
                let held = there["status"].as_object_mut().unwrap();
                // A merge patch (RFC 7396).
                for (key, value) in status {
                    if value.is_null() {
                        held.remove(&key);
                    } else {
                        held.insert(key, value);
                    }
                }
                Answer::Is(there.clone())
            }
            ("DELETE", Some(name)) => match self.objects.remove(&name) {
                Some(gone) => Answer::Is(gone),
                None => Answer::No(404),
            },
            other => panic!("{other:?}"),
        }
    }
}

struct Bench {
    server: Arc<Mutex<Server>>,
    statuses: Statuses,
    errors: IntCounter,
    task: JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bench {
    fn start(node: &str, server: Server) -> Self {
        let server = Arc::new(Mutex::new(server));
        let answering = server.clone();
        let client = fake_api::client(move |method, uri, body| {
            answering.lock().unwrap().answer(method, uri, body)
        });
        let identity = Identity {
            node: node.to_owned(),
            namespace: "metallb-system".to_owned(),
            pod: Some("speaker-x".to_owned()),
        };
        let statuses = Statuses::default();
        let errors = IntCounter::new("errors", "errors").unwrap();
        let task = tokio::spawn(write(client, identity, statuses.clone(), errors.clone()));
        Self {
            server,
            statuses,
            errors,
            task,
        }
    }

    /// Waits until the objects are so.
    async fn until(&self, so: impl Fn(&BTreeMap<String, Value>) -> bool) {
        let polled = async {
            while !so(&self.server.lock().unwrap().objects) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let came = timeout(SOON, polled).await.is_ok();
        assert!(came, "{:?}", self.server.lock().unwrap().objects);
    }
}

fn web() -> ObjectName {
    ObjectName::new("default", "web")
}

fn object(name: &str, node: &str, status: Value) -> (String, Value) {
    let object = json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status",
        "metadata": {"name": name, "namespace": "metallb-system", "labels": {
            NODE: label_of(node), SERVICE: "web", NAMESPACE: "default",
        }},
        "spec": {},
        "status": status,
    });
    (name.to_owned(), object)
}

fn status(node: &str, interfaces: &[&str]) -> Value {
    let interfaces: Vec<_> = interfaces
        .iter()
        .map(|name| json!({"name": name}))
        .collect();
    json!({"node": node, "serviceName": "web", "serviceNamespace": "default", "interfaces": interfaces})
}

#[tokio::test]
async fn the_announcers_status_is_made_then_filled_and_foreign_ones_go() {
    let mut server = Server::default();
    server
        .objects
        .extend([object("l2-old", "other", status("other", &[]))]);
    let bench = Bench::start("me", server);
    bench
        .statuses
        .tell(&web(), Some(vec!["eth0".to_owned(), "eth1".to_owned()]));
    bench
        .until(|objects| {
            let only = objects.len() == 1 && objects.contains_key("l2-1");
            only && objects["l2-1"]["status"] == status("me", &["eth0", "eth1"])
        })
        .await;
    let labels = json!({NODE: "me", SERVICE: "web", NAMESPACE: "default"});
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "speaker-x", "uid": "pod-uid"}]);
    let server = bench.server.lock().unwrap();
    let metadata = &server.objects["l2-1"]["metadata"];
    assert_eq!(metadata["labels"], labels);
    assert_eq!(metadata["ownerReferences"], owner);
    let all = "/apis/metallb.io/v1beta1/namespaces/metallb-system/servicel2statuses";
    let expected = [
        format!("GET {all}"),
        format!("DELETE {all}/l2-old"),
        format!("POST {all}"),
        format!("PATCH {all}/l2-1/status"),
    ];
    assert_eq!(server.asked, expected);
}

#[tokio::test]
async fn a_withdrawn_service_loses_our_status_only() {
    let mut server = Server::default();
    server.objects.extend([
        object("l2-mine", "me", status("me", &["eth0"])),
        object("l2-theirs", "other", status("other", &[])),
    ]);
    let bench = Bench::start("me", server);
    bench.statuses.settle();
    bench
        .until(|objects| objects.keys().eq(["l2-theirs"]))
        .await;
    bench.statuses.tell(&web(), Some(vec![]));
    bench.until(|objects| objects.keys().eq(["l2-1"])).await;
    bench.statuses.tell(&web(), None);
    bench.until(BTreeMap::is_empty).await;
    assert_eq!(bench.errors.get(), 0);
}

#[tokio::test]
async fn other_interfaces_are_patched_and_the_same_are_not() {
    let mut server = Server::default();
    server
        .objects
        .extend([object("l2-mine", "me", status("me", &["eth0"]))]);
    let bench = Bench::start("me", server);
    bench.statuses.tell(&web(), Some(vec!["eth0".to_owned()]));
    bench.statuses.settle();
    // Something else, so that there is something to wait for.
    let other = ObjectName::new("default", "other");
    bench.statuses.tell(&other, Some(vec![]));
    bench
        .until(|objects| objects.len() == 2 && !objects["l2-1"]["status"].is_null())
        .await;
    let patches = |bench: &Bench| {
        let server = bench.server.lock().unwrap();
        let asked = server.asked.iter();
        asked.filter(|asked| asked.contains("l2-mine")).count()
    };
    assert_eq!(patches(&bench), 0);
    bench.statuses.tell(&web(), Some(vec![]));
    bench
        .until(|objects| objects["l2-mine"]["status"].get("interfaces").is_none())
        .await;
    assert_eq!(patches(&bench), 1);
}

#[tokio::test]
async fn a_long_node_name_fits_its_label() {
    let node = format!("{}.example", "node-".repeat(20));
    let label = label_of(&node);
    assert!(label.len() == 63 && label != label_of(&format!("{node}s")));
    assert_eq!(label_of("node-a"), "node-a");
    let bench = Bench::start(&node, Server::default());
    bench.statuses.tell(&web(), Some(vec![]));
    let expected = status(&node, &[]);
    bench
        .until(|objects| {
            let made = objects.get("l2-1").map(|made| &made["status"]);
            made.is_some_and(|status| status["node"] == expected["node"])
        })
        .await;
    let server = bench.server.lock().unwrap();
    assert_eq!(server.objects["l2-1"]["metadata"]["labels"][NODE], label);
}

#[tokio::test]
async fn without_a_sight_of_our_pod_statuses_have_no_owner() {
    let server = Server {
        hide_pods: true,
        ..Server::default()
    };
    let bench = Bench::start("me", server);
    bench.statuses.tell(&web(), Some(vec![]));
    bench.until(|objects| !objects.is_empty()).await;
    let server = bench.server.lock().unwrap();
    let owners = &server.objects["l2-1"]["metadata"]["ownerReferences"];
    assert!(owners.is_null(), "{owners}");
}

#[tokio::test(start_paused = true)]
async fn where_there_are_no_such_objects_nothing_is_written() {
    for code in [403, 404] {
        let server = Server {
            refuse: Some(code),
            ..Server::default()
        };
        let bench = Bench::start("me", server);
        bench.statuses.tell(&web(), Some(vec![]));
        bench.statuses.settle();
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert!(bench.server.lock().unwrap().asked.is_empty());
        assert!(!bench.task.is_finished() && bench.errors.get() == 0);
        // They may come later.
        bench.server.lock().unwrap().refuse = None;
        bench.until(|objects| !objects.is_empty()).await;
    }
}

#[test]
fn an_object_is_read_as_what_its_labels_say() {
    let read = |node: &str, status: Value| {
        let (_, object) = object("l2-x", node, status);
        shown(&serde_json::from_value(object).unwrap(), "me").unwrap()
    };
    let sound = Content::Sound(vec!["eth0".to_owned()]);
    let mine = read("me", status("me", &["eth0"]));
    assert_eq!(
        (mine.service, mine.mine, mine.content),
        (web(), true, sound)
    );
    let empty = read("me", Value::Null);
    assert_eq!((empty.mine, empty.content), (true, Content::Empty));
    let theirs = read("other", status("other", &[]));
    assert_eq!(
        (theirs.mine, theirs.content),
        (false, Content::Sound(vec![]))
    );
    for (label, node) in [("me", "other"), ("other", "me")] {
        let strange = read(label, status(node, &[]));
        assert_eq!(
            (strange.mine, strange.content),
            (node == "me", Content::Contradictory)
        );
    }
    let unlabelled = json!({"apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status", "metadata": {}, "spec": {}});
    assert_eq!(
        shown(&serde_json::from_value(unlabelled).unwrap(), "me"),
        None
    );
}
