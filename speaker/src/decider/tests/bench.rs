//! A decider with everything around it played: the watches, the API server that takes events, and the arbiters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ferrolb_config::{
    AdvertisementWords, Labels, ObjectName, Origin, PoolWords, Word, Words, check, read,
};
use ferrolb_runtime::configuration::Source;
use ferrolb_runtime::events::Events;
use ferrolb_runtime::metrics::ClientMetrics;
use ferrolb_runtime::ready::Ready;
use ferrolb_runtime::watch::Change;
use ferrolb_speaker_arbiter::{Cause, NodeId, PeerFacts, Report, Wish};
use ferrolb_speaker_core::{
    Endpoint, IngressIp, Members, Node, Reach, Service, Settings, SpeakerPod, TrafficPolicy, View,
};
use prometheus::{Registry, TextEncoder};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::act::Actor;
use crate::arbitration::{self, Standing, Told};
use crate::decider::Decider;
use crate::metrics::Metrics;
use crate::sources::Input;
use crate::sources::fake_api::{self, Answer};
use crate::statuses::Statuses;
use crate::translate::{NodeFacts, ServiceFacts};

/// What the arbiters were told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Peers(Vec<PeerFacts>),
    Standing(IpAddr, Option<Standing>),
    Wish(IpAddr, Option<Wish>),
}

/// Stands in for the arbiters: where an address may be answered for here, it is taken if this node comes first, and let
/// go if it does not.
struct Arbiters {
    words: mpsc::UnboundedReceiver<arbitration::Word>,
    heard: Vec<Heard>,
    standings: BTreeMap<IpAddr, Standing>,
    interfaces: Vec<String>,
    held: BTreeSet<(IpAddr, String)>,
    /// They take and let go, and do not just listen.
    oblige: bool,
}

impl Arbiters {
    fn new(words: mpsc::UnboundedReceiver<arbitration::Word>) -> Self {
        Self {
            words,
            heard: Vec::new(),
            standings: BTreeMap::new(),
            interfaces: vec!["eth0".to_owned()],
            held: BTreeSet::new(),
            oblige: true,
        }
    }

    fn hear(&mut self) {
        while let Ok(word) = self.words.try_recv() {
            match word {
                arbitration::Word::Peers(peers) => self.heard.push(Heard::Peers(peers)),
                arbitration::Word::Standings(standings) => {
                    for (address, standing) in standings {
                        self.heard.push(Heard::Standing(address, standing.clone()));
                        match standing {
                            Some(standing) => self.standings.insert(address, standing),
                            None => self.standings.remove(&address),
                        };
                    }
                }
                arbitration::Word::Wish(address, wish) => {
                    self.heard.push(Heard::Wish(address, wish));
                }
                word => panic!("not the decider's to say: {word:?}"),
            }
        }
    }

    /// Where this node should answer for what.
    fn wanted(&self) -> BTreeSet<(IpAddr, String)> {
        let mut wanted = BTreeSet::new();
        for (address, standing) in &self.standings {
            let first = standing.candidates.order.first() == Some(&NodeId::of("me"));
            let reach = standing.reach.iter().filter(|_| first);
            for reach in reach {
                let all = self.interfaces.iter();
                let here = all.filter(|interface| reach.includes(interface));
                wanted.extend(here.map(|interface| (*address, interface.clone())));
            }
        }
        wanted
    }

    fn follow(&mut self, metrics: &Metrics) -> Vec<Told> {
        self.hear();
        if !self.oblige {
            return Vec::new();
        }
        let wanted = self.wanted();
        let gone = self.held.difference(&wanted);
        let gone = gone.map(|(address, interface)| {
            let standing = self.standings.get(address);
            let first = standing.and_then(|standing| standing.candidates.order.first().copied());
            let to = first.filter(|first| *first != NodeId::of("me"));
            let cause = match (standing, to) {
                (None, _) => Cause::Withdrawn,
                (_, None) => Cause::Ineligible,
                (_, Some(_)) => Cause::Moved,
            };
            told(interface, released(*address, cause, to))
        });
        let taken = wanted.difference(&self.held).map(|(address, interface)| {
            // The responder's counters are there with the first answer.
            metrics.held(*address);
            told(interface, took(*address, Cause::Unheld, None))
        });
        let told = gone.chain(taken).collect();
        self.held = wanted;
        told
    }
}

/// What the arbiter of an interface tells now.
pub fn told(interface: &str, report: Report) -> Told {
    Told {
        interface: interface.to_owned(),
        at: Instant::now(),
        report: Some(report),
    }
}

pub fn took(address: IpAddr, cause: Cause, from: Option<NodeId>) -> Report {
    Report::Took {
        address,
        cause,
        from,
    }
}

pub fn released(address: IpAddr, cause: Cause, to: Option<NodeId>) -> Report {
    Report::Released { address, cause, to }
}

pub struct Bench {
    pub decider: Decider,
    arbiters: Arbiters,
    statuses: Statuses,
    pub metrics: Metrics,
    pub client: ClientMetrics,
    pub ready: Ready,
    pub registry: Registry,
    /// Every event that was written, repeated ones repeated.
    written: Arc<Mutex<Vec<Value>>>,
    writing: JoinHandle<()>,
}

impl Bench {
    /// A speaker on node "me".
    pub fn new() -> Self {
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
        let ready = Ready::new();
        let (words, taken) = arbitration::Words::taken();
        let statuses = Statuses::default();
        let actor = Actor::new("me".to_owned(), metrics.clone(), events, statuses.clone());
        let configmap = ObjectName::new("metallb-system", "config");
        let decider = Decider::new(
            "me".to_owned(),
            configmap,
            View::new(Settings::default()),
            words,
            actor,
            client.clone(),
            ready.wait_for("lists"),
        );
        Self {
            decider,
            arbiters: Arbiters::new(taken),
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
    pub fn listed() -> Self {
        let mut bench = Self::new();
        bench.node("me", "192.168.1.1", |_| {});
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

    /// Everything listed; the nodes "me" and "other", both live.
    pub fn with_other() -> Self {
        let mut bench = Self::listed();
        bench.node("other", "192.168.1.2", |_| {});
        let pod = |node: &str| SpeakerPod {
            address: None,
            node: node.to_owned(),
            ready: true,
        };
        let pods = vec![pod("me"), pod("other")];
        bench.tell(Input::Speakers(Some(pods)));
        bench
    }

    /// Works at it, and then at what the arbiters make of that.
    pub fn tell(&mut self, input: Input) {
        self.decider.work(&mut vec![input]);
        loop {
            let told = self.arbiters.follow(&self.metrics);
            if told.is_empty() {
                return;
            }
            self.decider.work(&mut vec![Input::Told(told)]);
        }
    }

    /// What the arbiters tell by themselves, who do nothing else from now on.
    pub fn arbiters_tell(&mut self, told: Vec<Told>) {
        self.arbiters.oblige = false;
        self.tell(Input::Told(told));
    }

    /// What the arbiters heard since this was last asked.
    pub fn heard(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.arbiters.heard)
    }

    pub fn interfaces(&mut self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned());
        self.arbiters.interfaces = names.clone().collect();
        self.tell(Input::Interfaces(names.collect()));
    }

    /// A live node, but for what is changed about it.
    pub fn node(&mut self, name: &str, address: &str, change: impl FnOnce(&mut NodeFacts)) {
        let mut facts = NodeFacts {
            node: live_node(address),
        };
        change(&mut facts);
        let name = ObjectName::new("", name);
        self.tell(Input::Node(Change::Applied(name, facts)));
    }

    /// A Service with one ready endpoint on "me".
    pub fn serve(&mut self, name: &str, ip: &str) {
        self.serve_all(name, &[ip]);
    }

    pub fn serve_all(&mut self, name: &str, ips: &[&str]) {
        self.serve_wishing(name, ips, None);
    }

    /// As [`serve_all`](Self::serve_all), with this annotation `ferrolb.io/move`.
    pub fn serve_wishing(&mut self, name: &str, ips: &[&str], wish: Option<&str>) {
        let service = Service {
            load_balancer: true,
            ingress: ips.iter().map(|ip| IngressIp::from(*ip)).collect(),
            traffic_policy: TrafficPolicy::Cluster,
            labels: Labels::new(),
            wanted_at: wish.map(str::to_owned),
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
            ServiceFacts {
                service,
                uid: Some("uid".to_owned()),
                wish: wish.map(str::to_owned),
            },
        )));
        self.tell(Input::Endpoints(Change::Applied(name, Some(endpoints))));
    }

    pub fn configure(&mut self, range: &str) {
        let document =
            format!("address-pools:\n- name: p\n  protocol: layer2\n  addresses: ['{range}']\n");
        self.tell(Input::Config(Source::Read(read(&document).unwrap())));
    }

    /// The addresses announced, each once.
    pub fn held(&self) -> Vec<String> {
        let series = self.scraped();
        let announced = series.iter().filter_map(|line| {
            let (_, ip) = line
                .strip_prefix("metallb_speaker_announced")?
                .split_once("ip=\"")?;
            let (ip, _) = ip.split_once('"')?;
            Some(ip.to_owned())
        });
        let each: BTreeSet<String> = announced.collect();
        each.into_iter().collect()
    }

    /// What a scrape finds, comments aside.
    pub fn scraped(&self) -> Vec<String> {
        let text = TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    pub fn silent(&self, word: &str) -> i64 {
        self.metrics.silent.with_label_values(&[word]).get()
    }

    /// The type, reason and Service of every event, once all are written.
    pub async fn events(self) -> Vec<[String; 3]> {
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
    pub async fn whole_events(self) -> Vec<Value> {
        drop(self.decider);
        self.writing.await.unwrap();
        let written = self.written.lock().unwrap();
        written.clone()
    }

    /// A pool that is a custom resource, with one advertisement for it.
    pub fn advertise(&mut self, words: AdvertisementWords) {
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
    pub fn advertise_on(&mut self, interfaces: &[&str]) {
        self.advertise(AdvertisementWords {
            interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            ..AdvertisementWords::default()
        });
    }

    /// Where the arbiters may answer for an address; nothing if they may not.
    pub fn reach(&self, address: &str) -> Option<Reach> {
        let address: IpAddr = address.parse().unwrap();
        self.arbiters.standings.get(&address)?.reach.clone()
    }

    /// What was last to be shown of `default/web`.
    pub fn shown(&self) -> Option<Vec<String>> {
        let name = ObjectName::new("default", "web");
        self.statuses.last(&name)
    }

    pub fn announced(&self, service: &str, ip: &str) -> i64 {
        self.metrics
            .announced
            .with_label_values(&[service, "layer2", "me", ip])
            .get()
    }
}

pub fn live_node(address: &str) -> Node {
    Node {
        ready: true,
        addresses: [address.parse().unwrap()].into(),
        internal: vec![address.parse().unwrap()],
        ..Node::default()
    }
}
