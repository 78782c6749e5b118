//! Inputs as the watches give them, and what the table and the metrics say after.

use std::net::IpAddr;

use ferrolb_config::read;
use ferrolb_runtime::events::Events;
use ferrolb_runtime::ready::Ready;
use ferrolb_speaker_core::{Endpoint, IngressIp, Node, Service, SpeakerPod, TrafficPolicy};
use prometheus::Registry;

use super::*;
use crate::metrics::Metrics;
use crate::table::Table;

struct Bench {
    decider: Decider,
    table: Table,
    metrics: Metrics,
    client: ClientMetrics,
    ready: Ready,
}

impl Bench {
    /// A speaker on node "me" whose events go nowhere.
    fn new() -> Self {
        let registry = Registry::new();
        let (metrics, client) = (
            Metrics::new(&registry).unwrap(),
            ClientMetrics::new(&registry).unwrap(),
        );
        let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let nowhere = kube::Client::try_from(nowhere).unwrap();
        let (events, _unwritten) =
            Events::new(nowhere, "metallb-speaker", Some("me".to_owned()), &registry).unwrap();
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
        let service = Service {
            load_balancer: true,
            ingress: vec![IngressIp::from(ip)],
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
async fn a_configuration_without_a_held_address_waits_until_it_is_released() {
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
async fn silence_is_counted_by_reason() {
    let mut bench = Bench::listed();
    let silent = |bench: &Bench, word| bench.metrics.silent.with_label_values(&[word]).get();
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
