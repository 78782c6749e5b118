//! Inputs as the watches give them, and what the table and the metrics say after.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use ferrolb_config::{AdvertisementWords, Labels, PoolWords, Word, Words, check, read};
use ferrolb_runtime::events::Events;
use ferrolb_runtime::ready::Ready;
use ferrolb_runtime::watch::Unavailable;
use ferrolb_speaker_core::{
    Endpoint, IngressIp, Members, Node, Reach, Service, SpeakerPod, TrafficPolicy,
};
use prometheus::Registry;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::*;
use crate::metrics::Metrics;
use crate::sources::fake_api::{self, Answer};
use crate::statuses::Statuses;
use crate::table::Table;

struct Bench {
    decider: Decider,
    table: Table,
    statuses: Statuses,
    metrics: Metrics,
    client: ClientMetrics,
    ready: Ready,
    registry: Registry,
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
        let statuses = Statuses::default();
        let actor = Actor::new(
            "me".to_owned(),
            table.clone(),
            metrics.clone(),
            events,
            statuses.clone(),
        );
        let configmap = ObjectName::new("metallb-system", "config");
        let decider = Decider::new(
            "me".to_owned(),
            configmap,
            View::new(),
            actor,
            client.clone(),
            ready.wait_for("lists"),
        );
        Self {
            decider,
            table,
            statuses,
            registry,
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
            address: None,
            node: "me".to_owned(),
            ready: true,
        }])));
        bench.tell(Input::Members(Members::default()));
        bench.tell(Input::Service(Change::Synced));
        bench.tell(Input::Endpoints(Change::Synced));
        bench.tell(Input::Node(Change::Synced));
        bench.interfaces(&["eth0"]);
        bench
    }

    fn tell(&mut self, input: Input) {
        self.decider.work(&mut vec![input]);
    }

    fn interfaces(&mut self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned());
        self.tell(Input::Interfaces(names.collect()));
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
            labels: Labels::new(),
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
        let written = self.whole_events().await;
        let fields = written.iter().map(|event| {
            [
                &event["type"],
                &event["reason"],
                &event["involvedObject"]["name"],
            ]
            .map(|field| field.as_str().unwrap().to_owned())
        });
        fields.collect()
    }

    /// Every event, once all are written.
    async fn whole_events(self) -> Vec<Value> {
        drop(self.decider);
        self.writing.await.unwrap();
        let written = self.written.lock().unwrap();
        written.clone()
    }

    /// A pool that is a custom resource, with one advertisement for it.
    fn advertise(&mut self, words: AdvertisementWords) {
        let range = Word::Said("10.0.0.0/24".to_owned());
        let pool = PoolWords {
            place: "IPAddressPool metallb-system/p".to_owned(),
            origin: Origin::Resource,
            name: Word::Said("p".to_owned()),
            addresses: Word::Said(vec![range]),
            ..PoolWords::default()
        };
        let words = Words {
            pools: vec![pool],
            advertisements: vec![words],
            ..Words::default()
        };
        self.tell(Input::Config(Source::Read(check(words).unwrap())));
    }

    /// As [`advertise`](Self::advertise), on these interfaces.
    fn advertise_on(&mut self, interfaces: &[&str]) {
        self.advertise(AdvertisementWords {
            interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            ..AdvertisementWords::default()
        });
    }

    /// Where an address is answered for; nothing if it is not.
    fn reach(&self, address: &str) -> Option<Reach> {
        let address: IpAddr = address.parse().unwrap();
        let table = self.table.load();
        table.get(&address).map(|held| held.reach.clone())
    }

    /// What was last to be shown of `default/web`.
    fn shown(&self) -> Option<Vec<String>> {
        let name = ObjectName::new("default", "web");
        self.statuses.last(&name)
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
        labels: Labels::new(),
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
    bench.tell(Input::Speakers(None));
    assert!(bench.held().is_empty());
    bench.tell(Input::Members(Members::default()));
    assert!(bench.held().is_empty());
    assert_eq!(bench.ready.pending(), ["lists"]);
    bench.interfaces(&["eth0"]);
    assert_eq!(bench.held(), ["10.0.0.1"]);
    assert!(bench.ready.pending().is_empty());
    assert_eq!(bench.announced("default/web", "10.0.0.1"), 1);
    assert_eq!(bench.client.config_loaded.get(), 1);

    bench.tell(Input::Service(Change::Deleted(ObjectName::new(
        "default", "web",
    ))));
    assert!(bench.held().is_empty());
    let families = bench.registry.gather();
    let left = families
        .iter()
        .filter(|family| family.name() == "metallb_speaker_announced");
    assert_eq!(left.count(), 0);
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

fn only(names: &[&str]) -> Reach {
    let names = names.iter().map(|name| (*name).to_owned());
    Reach::Only(names.collect())
}

#[tokio::test]
async fn the_interfaces_of_an_advertisement_are_answered_on_and_shown() {
    let mut bench = Bench::listed();
    bench.interfaces(&["eth0", "eth1", "eth2"]);
    bench.advertise_on(&["eth1"]);
    bench.serve("web", "10.0.0.1");
    assert_eq!(bench.reach("10.0.0.1"), Some(only(&["eth1"])));
    assert_eq!(bench.shown(), Some(vec!["eth1".to_owned()]));
    let _former = bench.table.take_changes();
    bench.advertise_on(&["eth2", "eth1", "foo"]);
    assert_eq!(bench.reach("10.0.0.1"), Some(only(&["eth1", "eth2"])));
    let both = vec!["eth1".to_owned(), "eth2".to_owned()];
    assert_eq!(bench.shown(), Some(both));
    let changes = bench.table.take_changes();
    assert!(matches!(changes[..], [crate::table::Change::Moved(..)]));
    bench.advertise_on(&[]);
    assert_eq!(bench.reach("10.0.0.1"), Some(Reach::Everywhere));
    assert_eq!(bench.shown(), Some(vec![]));
    // All of that is one announcement.
    let written = bench.whole_events().await;
    let messages: Vec<_> = written.iter().map(|event| &event["message"]).collect();
    assert_eq!(
        messages,
        ["announcing from node \"me\" with protocol \"layer2\""]
    );
    assert!(written[0]["lastTimestamp"].is_string());
}

#[tokio::test]
async fn an_address_whose_interfaces_are_missing_is_withdrawn_and_comes_back_with_them() {
    let mut bench = Bench::listed();
    bench.interfaces(&["eth0", "eth1"]);
    bench.advertise_on(&["eth1"]);
    bench.serve("web", "10.0.0.1");
    assert_eq!(bench.announced("default/web", "10.0.0.1"), 1);
    bench.advertise_on(&["foo"]);
    assert_eq!(bench.reach("10.0.0.1"), None);
    assert_eq!((bench.shown(), bench.silent("noInterface")), (None, 1));
    // Said once, however often it is looked at.
    bench.serve_all("web", &["10.0.0.1"]);
    bench.interfaces(&["eth0"]);
    bench.interfaces(&["eth0", "foo"]);
    assert_eq!(bench.reach("10.0.0.1"), Some(only(&["foo"])));
    assert_eq!(bench.shown(), Some(vec!["foo".to_owned()]));
    assert_eq!(bench.silent("noInterface"), 0);
    bench.interfaces(&["eth0"]);
    assert_eq!(bench.reach("10.0.0.1"), None);
    let written = bench.whole_events().await;
    let messages: Vec<_> = written.iter().map(|event| &event["message"]).collect();
    let assigned = "announcing from node \"me\" with protocol \"layer2\"";
    let failed = "the interfaces specified by LB IP \"10.0.0.1\" doesn't exist in assigned node \"me\" with protocol \"layer2\"";
    assert_eq!(messages, [assigned, failed, assigned, failed]);
}

#[tokio::test]
async fn an_announcement_in_configmap_mode_is_told_as_0_12_tells_it() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.1");
    // Syncs are no news.
    bench.serve("web", "10.0.0.1");
    bench.configure("10.0.0.0/25");
    let written = bench.whole_events().await;
    let messages: Vec<_> = written.iter().map(|event| &event["message"]).collect();
    assert_eq!(messages, ["announcing from node \"me\""]);
}

#[tokio::test]
async fn an_exclude_label_that_every_node_has_is_ignored_aloud() {
    let mut bench = Bench::listed();
    let label = |excluded: bool| {
        let exclude = "node.kubernetes.io/exclude-from-external-load-balancers".to_owned();
        let labels = excluded.then(|| (exclude, String::new()));
        let node = Node {
            labels: labels.into_iter().collect(),
            ..live_node("192.168.1.1")
        };
        Input::Node(Change::Applied(ObjectName::new("", "me"), node))
    };
    bench.advertise_on(&[]);
    bench.serve("web", "10.0.0.1");
    bench.tell(label(true));
    assert_eq!(bench.held(), ["10.0.0.1"]);
    bench.serve("more", "10.0.0.2");
    bench.tell(label(false));
    bench.tell(label(true));
    let events = bench.events().await;
    let ignored = ["Warning", "excludeLabelIgnored", "me"].map(str::to_owned);
    let told = events.iter().filter(|event| **event == ignored);
    // Once for each time it came to that.
    assert_eq!(told.count(), 2, "{events:?}");
}

#[tokio::test]
async fn counters_of_addresses_that_went_long_ago_go() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/16");
    bench.serve("web", "10.0.0.1");
    let counters = |bench: &Bench| {
        let families = bench.registry.gather();
        let requests = families
            .iter()
            .find(|family| family.name() == "metallb_layer2_requests_received");
        requests.map_or(0, |family| family.get_metric().len())
    };
    for number in 0..1500_u16 {
        let [high, low] = number.to_be_bytes();
        bench.serve("web", &format!("10.0.{}.{low}", high + 1));
    }
    assert_eq!(counters(&bench), 1024 + 1);
    assert_eq!(bench.held(), ["10.0.6.219"]);
}
