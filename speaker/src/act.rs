//! What a verdict does, and what an arbiter tells: metrics, log lines, events and status objects.

mod owners;
mod stays;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use ferrolb_config::{ObjectName, Origin};
use ferrolb_runtime::events::{About, EventType, Events};
use ferrolb_runtime::state::State;
use ferrolb_speaker_core::{Announced, Announcement, Event, Reach, Reason, Verdict};

pub use owners::Names;

use self::owners::Owners;
use self::stays::Stays;
use crate::decider::Uids;
use crate::metrics::Metrics;
use crate::statuses::Statuses;

/// The value of `protocol` in logs, events and metrics.
const PROTOCOL: &str = "layer2";

/// Released addresses whose counters go on being served: a dashboard sees the last of them, and addresses that come and go
/// do not make series without end (MetalLB keeps them all).
const RETIRED: usize = 1024;

/// What is remembered of a Service's silence.
#[derive(Clone, Copy)]
struct Silence {
    /// The reason it is counted under.
    word: &'static str,
    /// This node posted the event about it.
    posted: bool,
}

/// Carries out verdicts, and what arbiters tell. Owns what this node announces.
pub struct Actor {
    node: String,
    announced: Announced,
    /// Every silent LoadBalancer Service.
    silent: HashMap<ObjectName, Silence>,
    owners: Owners,
    stays: Stays,
    /// Released addresses whose counters are still served, the longest released first.
    retired: VecDeque<IpAddr>,
    /// It was told that the exclude label is not heeded.
    exclusion_told: bool,
    metrics: Metrics,
    events: Events,
    statuses: Statuses,
    /// Where hosts that answer for our addresses are reported, for the controller.
    state: Option<State>,
}

impl Actor {
    /// Announces nothing yet.
    pub fn new(node: String, metrics: Metrics, events: Events, statuses: Statuses) -> Self {
        Self {
            node,
            announced: Announced::new(),
            silent: HashMap::new(),
            owners: Owners::default(),
            stays: Stays::default(),
            retired: VecDeque::new(),
            exclusion_told: false,
            metrics,
            events,
            statuses,
            state: None,
        }
    }

    /// Reports hosts that are no speakers and answer for our addresses there.
    pub fn reporting(self, state: State) -> Self {
        let state = Some(state);
        Self { state, ..self }
    }

    /// Takes over the verdict on one Service, with the uid its events carry. `speaks`: if it is silent, its users are told why
    /// from here, where they should act.
    pub fn apply(
        &mut self,
        name: &ObjectName,
        uid: Option<&String>,
        verdict: Verdict,
        speaks: bool,
    ) {
        let why = match &verdict {
            Verdict::May(_) => None,
            Verdict::Silent(reason) => Some(reason.clone()),
        };
        let shown = self.shown(name);
        let events = self.announced.apply(name, verdict);
        let why = why.or_else(|| self.waits(name));
        self.count_silence(name, uid, why.as_ref(), speaks);
        self.follow(name, uid, shown, events);
    }

    /// An address is held on an interface from now on, or no longer (`gone`).
    fn hold(&mut self, address: IpAddr, interface: &str, gone: Option<Reason>, uids: &Uids) {
        let names: Vec<ObjectName> = self.announced.with(address).cloned().collect();
        let shown: Vec<_> = names.iter().map(|name| self.shown(name)).collect();
        let mut events = self.announced.hold(address, interface, gone);
        for (name, shown) in names.iter().zip(shown) {
            let uid = uids.get(name);
            let why = self.waits(name);
            self.count_silence(name, uid, why.as_ref(), false);
            let (mine, others) = events.into_iter().partition(|(of, _)| of == name);
            events = others;
            let mine: Vec<(ObjectName, Event)> = mine;
            let mine = mine.into_iter().map(|(_, event)| event).collect();
            self.follow(name, uid, shown, mine);
        }
    }

    /// Why a Service that may be announced is not.
    pub fn waits(&self, name: &ObjectName) -> Option<Reason> {
        let may = self.announced.may(name)?;
        let address = *may.addresses.first()?;
        self.announced.get(name).is_none().then(|| {
            let holder = self.owners.elsewhere.get(&address).cloned();
            Reason::HeldElsewhere { address, holder }
        })
    }

    fn follow(
        &mut self,
        name: &ObjectName,
        uid: Option<&String>,
        shown: Option<Vec<String>>,
        events: Vec<Event>,
    ) {
        for event in events {
            self.tell(name, uid, event);
        }
        let now = self.shown(name);
        if now != shown {
            self.statuses.tell(name, now);
        }
    }

    fn retire(&mut self, address: IpAddr) {
        self.retired.push_back(address);
        while self.retired.len() > RETIRED {
            if let Some(longest) = self.retired.pop_front() {
                self.metrics.forget(longest);
            }
        }
    }

    /// Everything is known, and decided with what is known: what is not announced now is not announced.
    pub fn settled(&self) {
        self.statuses.settle();
    }

    /// The exclude label is not heeded, because every node has it; `first` is the first of them. Told once, until it is
    /// heeded again; the event comes from the speaker of that node alone.
    pub fn exclusion_void(&mut self, first: Option<&str>) {
        let Some(first) = first else {
            self.exclusion_told = false;
            return;
        };
        if std::mem::replace(&mut self.exclusion_told, true) {
            return;
        }
        let message = "every node has the label node.kubernetes.io/exclude-from-external-load-balancers, so it is \
                       ignored; remove it where addresses should be announced";
        tracing::warn!(op = "setNode", node = self.node, "{message}");
        if first == self.node {
            let reason = "excludeLabelIgnored";
            self.events.post(
                self.this_node(),
                EventType::Warning,
                reason,
                message.to_owned(),
            );
        }
    }

    /// What the status object of a Service should show: its interfaces, none for all; nothing if it is not announced, or
    /// if another node that announces it too leads: there is one object, and two writers would undo each other's. Two that
    /// lead on segments of their own do so ever more rarely ([`crate::statuses`]).
    fn shown(&self, name: &ObjectName) -> Option<Vec<String>> {
        let announcement = self.announced.get(name)?;
        self.announced
            .leads(name)
            .then(|| match announcement.reach {
                Reach::Everywhere => Vec::new(),
                Reach::Only(_) => {
                    let held = self.announced.interfaces(name).into_iter();
                    held.map(str::to_owned).collect()
                }
            })
    }

    fn count_silence(
        &mut self,
        name: &ObjectName,
        uid: Option<&String>,
        reason: Option<&Reason>,
        speaks: bool,
    ) {
        // What is no LoadBalancer Service is not silent: nobody expects it to speak.
        let reason = reason
            .filter(|reason| !matches!(reason, Reason::ServiceDeleted | Reason::NotLoadBalancer));
        let former = self.silent.remove(name);
        let Some(reason) = reason else {
            if let Some(former) = former {
                self.metrics.silent.with_label_values(&[former.word]).dec();
            }
            return;
        };
        let word = reason.word();
        let same = former.filter(|former| former.word == word);
        if same.is_none() {
            if let Some(former) = former {
                self.metrics.silent.with_label_values(&[former.word]).dec();
            }
            self.metrics.silent.with_label_values(&[word]).inc();
            log_silence(name, reason);
        }
        // Once, however often the part of the spokesman comes back to this node.
        let mut posted = same.is_some_and(|same| same.posted);
        if !posted && speaks {
            for message in self.failures(reason) {
                self.post(name, uid, EventType::Warning, "announceFailed", message);
                posted = true;
            }
        }
        self.silent.insert(name.clone(), Silence { word, posted });
    }

    /// What the users of a silent Service are told.
    fn failures(&self, reason: &Reason) -> Vec<String> {
        match reason {
            Reason::NoInterface { addresses, .. } => {
                let each = addresses.iter();
                each.map(|address| {
                    format!(
                        "the interfaces specified by LB IP \"{address}\" doesn't exist in assigned node {:?} with \
                         protocol {PROTOCOL:?}",
                        self.node
                    )
                })
                .collect()
            }
            _ => vec![reason.to_string()],
        }
    }

    fn tell(&self, name: &ObjectName, uid: Option<&String>, event: Event) {
        match event {
            Event::Announced(announcement) => {
                for address in &announcement.addresses {
                    self.series(name, *address, |labels| {
                        self.metrics.announced.with_label_values(labels).set(1);
                    });
                }
                tracing::info!(event = "serviceAnnounced", service = %name, ips = list(&announcement.addresses),
                    pool = announcement.pool, protocol = PROTOCOL, "service has IP, announcing");
                let message = self.assigned(&announcement);
                self.post(name, uid, EventType::Normal, "nodeAssigned", message);
            }
            Event::Withdrawn(announcement, reason) => {
                for address in &announcement.addresses {
                    self.series(name, *address, |labels| {
                        // Only absent if it was never set.
                        let _absent = self.metrics.announced.remove_label_values(labels);
                    });
                }
                tracing::info!(event = "serviceWithdrawn", service = %name, ips = list(&announcement.addresses),
                    pool = announcement.pool, protocol = PROTOCOL, reason = reason.word(), detail = %reason,
                    "withdrawing service announcement");
            }
        }
    }

    /// MetalLB's words: since 0.13 they name the protocol.
    fn assigned(&self, announcement: &Announcement) -> String {
        match announcement.origin {
            Origin::ConfigMap => format!("announcing from node {:?}", self.node),
            Origin::Resource => {
                format!(
                    "announcing from node {:?} with protocol {PROTOCOL:?}",
                    self.node
                )
            }
        }
    }

    fn series(&self, name: &ObjectName, address: IpAddr, act: impl FnOnce(&[&str])) {
        act(&[
            &name.to_string(),
            PROTOCOL,
            &self.node,
            &address.to_string(),
        ]);
    }

    fn post(
        &self,
        name: &ObjectName,
        uid: Option<&String>,
        kind: EventType,
        reason: &str,
        message: String,
    ) {
        let about = About {
            api_version: "v1",
            kind: "Service",
            namespace: name.namespace.to_string(),
            name: name.name.clone(),
            uid: uid.cloned(),
        };
        self.events.post(about, kind, reason, message);
    }
}

/// Says it aloud where the operator should act, and nobody else will say it.
fn log_silence(name: &ObjectName, reason: &Reason) {
    let word = reason.word();
    match reason {
        Reason::NodeAddress { .. } => {
            tracing::error!(event = "serviceRefused", service = %name, reason = word, error = %reason,
                "the Service's address is a node's own, nobody announces it");
        }
        Reason::NoInterface { .. } => {
            tracing::warn!(op = "setBalancer", service = %name, protocol = PROTOCOL, reason = word, error = %reason,
                "the specified interfaces used to announce LB IP don't exist");
        }
        _ => {
            tracing::debug!(event = "serviceSilent", service = %name, reason = word, detail = %reason,
                "not announced from this node");
        }
    }
}

/// Addresses as Go prints them in MetalLB's logs.
fn list(addresses: &[IpAddr]) -> String {
    let quoted: Vec<_> = addresses
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    format!("[{}]", quoted.join(" "))
}
