//! Inputs as the watches give them, and what the table and the metrics say after.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use ferrolb_config::read;
use ferrolb_runtime::events::Events;
use ferrolb_runtime::ready::Ready;
use ferrolb_runtime::watch::Unavailable;
use ferrolb_speaker_core::{Endpoint, IngressIp, Node, Service, SpeakerPod, TrafficPolicy};
use prometheus::Registry;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::*;
use crate::metrics::Metrics;
use crate::sources::fake_api::{self, Answer};
use crate::table::Table;

struct Bench {
    decider: Decider,
    table: Table,
    metrics: Metrics,
    client: ClientMetrics,
    ready: Ready,
    /// Every event that was written, repeated ones repeated.
    written: Arc<Mutex<Vec<Value>>>,
    writing: JoinHandle<()>,
}

impl Bench {
    /// A speaker on node "me".
    fn new() -> Self {
        let registry = Registry::new();
        let (metrics, client) = (
            Metrics::new(&registry).unwrap(),
            ClientMetrics::new(&registry).unwrap(),
        );
        let written = Arc::new(Mutex::new(Vec::<Value>::new()));
        let record = written.clone();
        let api = fake_api::client(move |method, uri, body| {
            let mut written = record.lock().unwrap();
            let event = if method == "POST" {
                serde_json::from_slice::<Value>(body).unwrap()
            } else {
                // The same again raises the count of the first.
                let again =
                    |event: &&Value| uri.contains(event["metadata"]["name"].as_str().unwrap());
                written.iter().find(again).unwrap().clone()
            };
            written.push(event.clone());
            Answer::Is(event)
        });
        let (events, writer) =
            Events::new(api, "metallb-speaker", Some("me".to_owned()), &registry).unwrap();
        let (table, ready) = (Table::default(), Ready::new());
        let actor = Actor::new("me".to_owned(), table.clone(), metrics.clone(), events);
        let configmap = ObjectName::new("metallb-system", "config");
        let decider = Decider::new(
            "me".to_owned(),
            configmap,
            actor,
            client.clone(),
            ready.wait_for("lists"),
        );
        Self {
            decider,
            table,
            metrics,
            client,
            ready,
            written,
            writing: tokio::spawn(writer),
        }
    }

    /// Everything listed; node "me" alone, and live.
    fn listed() -> Self {
        let mut bench = Self::new();
        bench.tell(Input::Node(Change::Applied(
            ObjectName::new("", "me"),
            live_node("192.168.1.1"),
        )));
        bench.tell(Input::Speakers(Some(vec![SpeakerPod {
            node: "me".to_owned(),
            ready: true,
        }])));
        bench.tell(Input::Service(Change::Synced));
        bench.tell(Input::Endpoints(Change::Synced));
        bench.tell(Input::Node(Change::Synced));
        bench
    }

    fn tell(&mut self, input: Input) {
        self.decider.work(&mut vec![input]);
    }

    /// A Service with one ready endpoint on "me".
    fn serve(&mut self, name: &str, ip: &str) {
        self.serve_all(name, &[ip]);
    }

    fn serve_all(&mut self, name: &str, ips: &[&str]) {
        let service = Service {
            load_balancer: true,
            ingress: ips.iter().map(|ip| IngressIp::from(*ip)).collect(),
            traffic_policy: TrafficPolicy::Cluster,
        };
        let name = ObjectName::new("default", name);
        let endpoint = Endpoint {
            node: Some("me".to_owned()),
            ready: true,
            serving: true,
        };
        let endpoints = (name.clone(), [endpoint].into_iter().collect());
        self.tell(Input::Service(Change::Applied(
            name.clone(),
            (service, Some("uid".to_owned())),
        )));
        self.tell(Input::Endpoints(Change::Applied(name, Some(endpoints))));
    }

    fn configure(&mut self, range: &str) {
        let document =
            format!("address-pools:\n- name: p\n  protocol: layer2\n  addresses: ['{range}']\n");
        self.tell(Input::Config(Source::Read(read(&document).unwrap())));
    }

    fn held(&self) -> Vec<String> {
        let mut held: Vec<String> = self.table.load().keys().map(IpAddr::to_string).collect();
        held.sort();
        held
    }

    fn silent(&self, word: &str) -> i64 {
        self.metrics.silent.with_label_values(&[word]).get()
    }

    /// The type, reason and Service of every event, once all are written.
    async fn events(self) -> Vec<[String; 3]> {
        drop(self.decider);
        self.writing.await.unwrap();
        let written = self.written.lock().unwrap();
        written
            .iter()
            .map(|event| {
                [
                    &event["type"],
                    &event["reason"],
                    &event["involvedObject"]["name"],
                ]
                .map(|field| field.as_str().unwrap().to_owned())
            })
            .collect()
    }

    fn announced(&self, service: &str, ip: &str) -> i64 {
        self.metrics
            .announced
            .with_label_values(&[service, "layer2", "me", ip])
            .get()
    }
}

fn live_node(address: &str) -> Node {
    Node {
        ready: true,
        network_unavailable: false,
        addresses: [address.parse().unwrap()].into(),
    }
}

#[tokio::test]
async fn an_address_is_held_once_everything_is_listed_and_configured() {
    let mut bench = Bench::new();
    bench.serve("web", "10.0.0.1");
    bench.configure("10.0.0.0/24");
    bench.tell(Input::Node(Change::Applied(
        ObjectName::new("", "me"),
        live_node("192.168.1.1"),
    )));
    for synced in [
        Input::Service(Change::Synced),
        Input::Endpoints(Change::Synced),
        Input::Node(Change::Synced),
    ] {
        bench.tell(synced);
        assert!(bench.held().is_empty());
    }
    assert_eq!(bench.ready.pending(), ["lists"]);
    bench.tell(Input::Speakers(None));
    assert_eq!(bench.held(), ["10.0.0.1"]);
    assert!(bench.ready.pending().is_empty());
    assert_eq!(bench.announced("default/web", "10.0.0.1"), 1);
    assert_eq!(bench.client.config_loaded.get(), 1);

    bench.tell(Input::Service(Change::Deleted(ObjectName::new(
        "default", "web",
    ))));
    assert!(bench.held().is_empty());
    // Asking for the series makes it anew, at 0.
    assert_eq!(bench.announced("default/web", "10.0.0.1"), 0);
}

#[tokio::test]
async fn a_configuration_without_an_address_in_use_waits_until_it_is_released() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    bench.serve("old", "10.0.0.1");
    bench.serve("new", "10.0.1.1");
    assert_eq!(bench.held(), ["10.0.0.1"]);
    bench.configure("10.0.1.0/24");
    assert_eq!(
        bench.held(),
        ["10.0.0.1"],
        "the former configuration stays in force"
    );
    assert_eq!(bench.client.config_stale.get(), 1);
    // The controller moved it, or it went.
    bench.tell(Input::Service(Change::Deleted(ObjectName::new(
        "default", "old",
    ))));
    assert_eq!(bench.held(), ["10.0.1.1"]);
    assert_eq!(bench.client.config_stale.get(), 0);
}

#[tokio::test]
async fn a_refused_or_deleted_configuration_changes_nothing_but_the_gauge() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.1");
    let nonsense =
        read("address-pools:\n- name: p\n  protocol: layer2\n  addresses: ['nonsense']\n")
            .unwrap_err();
    for source in [Source::Refused(nonsense), Source::Absent] {
        bench.tell(Input::Config(source));
        assert_eq!(bench.held(), ["10.0.0.1"]);
        assert_eq!(bench.client.config_stale.get(), 1);
    }
    bench.configure("10.0.0.0/25");
    assert_eq!(bench.client.config_stale.get(), 0);
}

#[tokio::test]
async fn every_speaker_refuses_a_configuration_that_takes_a_pool_whoever_announces() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    // Another node's: this one is not Ready.
    let node = Node {
        ready: false,
        ..live_node("192.168.1.1")
    };
    bench.tell(Input::Node(Change::Applied(
        ObjectName::new("", "me"),
        node,
    )));
    bench.serve("theirs", "10.0.0.1");
    assert!(bench.held().is_empty());
    bench.configure("10.0.1.0/24");
    assert_eq!(bench.client.config_stale.get(), 1);
    let in_force = bench.decider.view.config().unwrap();
    assert!(in_force.pool_of([10, 0, 0, 1].into()).is_some());
    // Moved into the new pool, which is no more in the way.
    bench.serve("theirs", "10.0.1.1");
    assert_eq!(bench.client.config_stale.get(), 0);
}

#[tokio::test]
async fn a_waiting_configuration_outlasts_an_outage_but_not_its_deletion() {
    for (source, taken_up) in [
        (Source::Unavailable(Unavailable::Forbidden), true),
        (Source::Absent, false),
    ] {
        let mut bench = Bench::listed();
        bench.configure("10.0.0.0/24");
        bench.serve("old", "10.0.0.1");
        bench.serve("new", "10.0.1.1");
        bench.configure("10.0.1.0/24");
        bench.tell(Input::Config(source));
        bench.tell(Input::Service(Change::Deleted(ObjectName::new(
            "default", "old",
        ))));
        assert_eq!(!bench.held().is_empty(), taken_up);
    }
}

#[tokio::test]
async fn what_was_listed_stays_when_it_cannot_be_watched_any_more() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.1");
    let errors = bench.client.update_errors.get();
    let why = Unavailable::Forbidden;
    for gone in [
        Input::Service(Change::Unavailable(why)),
        Input::Endpoints(Change::Unavailable(why)),
        Input::Node(Change::Unavailable(why)),
        Input::Config(Source::Unavailable(why)),
    ] {
        bench.tell(gone);
        assert_eq!(bench.held(), ["10.0.0.1"]);
    }
    assert_eq!(bench.client.update_errors.get(), errors + 3);
    assert!(bench.ready.pending().is_empty());
    // What still comes is decided as before.
    bench.serve("more", "10.0.0.2");
    assert_eq!(bench.held(), ["10.0.0.1", "10.0.0.2"]);
}

#[tokio::test]
async fn what_cannot_be_listed_at_first_is_waited_for() {
    let mut bench = Bench::new();
    bench.tell(Input::Service(Change::Unavailable(Unavailable::Forbidden)));
    assert_eq!(bench.ready.pending(), ["lists"]);
    assert!(!bench.decider.view.listed(Kind::Services));
}

#[tokio::test]
async fn both_families_are_announced() {
    let mut bench = Bench::listed();
    let document = "address-pools:\n- name: p\n  protocol: layer2\n  addresses: ['10.0.0.0/24', 'fc00::/64']\n";
    bench.tell(Input::Config(Source::Read(read(document).unwrap())));
    bench.serve_all("dual", &["fc00::1", "10.0.0.1"]);
    bench.serve("six", "fc00::2");
    assert_eq!(bench.held(), ["10.0.0.1", "fc00::1", "fc00::2"]);
    for (service, address) in [
        ("default/dual", "10.0.0.1"),
        ("default/dual", "fc00::1"),
        ("default/six", "fc00::2"),
    ] {
        assert_eq!(bench.announced(service, address), 1);
    }
    bench.tell(Input::Service(Change::Deleted(ObjectName::new(
        "default", "six",
    ))));
    assert_eq!(bench.held(), ["10.0.0.1", "fc00::1"]);
    let events = bench.events().await;
    let assigned = |name: &str| ["Normal", "nodeAssigned", name].map(str::to_owned);
    assert_eq!(events, [assigned("dual"), assigned("six")]);
}

#[tokio::test]
async fn silence_is_counted_by_reason() {
    let mut bench = Bench::listed();
    let silent = |bench: &Bench, word| bench.silent(word);
    bench.serve("web", "10.0.0.1");
    assert_eq!(silent(&bench, "noConfig"), 1);
    bench.configure("10.0.0.0-10.0.0.255");
    assert_eq!((silent(&bench, "noConfig"), bench.held().len()), (0, 1));
    let node = Node {
        ready: false,
        ..live_node("192.168.1.1")
    };
    bench.tell(Input::Node(Change::Applied(
        ObjectName::new("", "me"),
        node,
    )));
    assert_eq!((silent(&bench, "notOwner"), bench.held().len()), (1, 0));
    bench.tell(Input::Node(Change::Applied(
        ObjectName::new("", "me"),
        live_node("10.0.0.1"),
    )));
    assert_eq!(
        (silent(&bench, "nodeAddress"), silent(&bench, "notOwner")),
        (1, 0)
    );
    bench.tell(Input::Service(Change::Deleted(ObjectName::new(
        "default", "web",
    ))));
    assert_eq!(silent(&bench, "nodeAddress"), 0);
    assert_eq!(
        bench.events().await,
        [
            ["Normal", "nodeAssigned", "web"],
            ["Warning", "announceFailed", "web"]
        ]
    );
}

#[tokio::test]
async fn a_service_that_goes_and_comes_is_a_new_holding_and_one_that_stays_is_not() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.1");
    let holding = |bench: &Bench| {
        bench
            .table
            .load()
            .get(&IpAddr::from([10, 0, 0, 1]))
            .cloned()
            .unwrap()
    };
    let first = holding(&bench);
    bench.serve("web", "10.0.0.1");
    bench.configure("10.0.0.0/25");
    assert!(std::sync::Arc::ptr_eq(&first, &holding(&bench)));
    bench.tell(Input::Service(Change::Deleted(ObjectName::new(
        "default", "web",
    ))));
    bench.serve("web", "10.0.0.1");
    assert!(!std::sync::Arc::ptr_eq(&first, &holding(&bench)));
}
