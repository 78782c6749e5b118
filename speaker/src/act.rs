//! What a verdict does: the table, metrics, log lines, events and status objects.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_config::{ObjectName, Origin};
use ferrolb_runtime::events::{About, EventType, Events};
use ferrolb_speaker_core::{Announced, Announcement, Event, Reason, Verdict};

use crate::metrics::Metrics;
use crate::statuses::Statuses;
use crate::table::{Announcements, Change, Table};

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

/// Carries out verdicts. Owns what this node announces.
pub struct Actor {
    node: String,
    announced: Announced,
    /// Every silent LoadBalancer Service.
    silent: HashMap<ObjectName, Silence>,
    /// The table as it is to be published next.
    next: Announcements,
    /// How it differs from the published one.
    changes: Vec<Change>,
    /// Released addresses whose counters are still served, the longest released first.
    retired: VecDeque<IpAddr>,
    /// It was told that the exclude label is not heeded.
    exclusion_told: bool,
    table: Table,
    metrics: Metrics,
    events: Events,
    statuses: Statuses,
}

impl Actor {
    /// Announces nothing yet.
    pub fn new(
        node: String,
        table: Table,
        metrics: Metrics,
        events: Events,
        statuses: Statuses,
    ) -> Self {
        Self {
            node,
            announced: Announced::new(),
            silent: HashMap::new(),
            next: Announcements::new(),
            changes: Vec::new(),
            retired: VecDeque::new(),
            exclusion_told: false,
            table,
            metrics,
            events,
            statuses,
        }
    }

    /// Takes over the verdict on one Service, with the uid its events carry. The wire follows with
    /// [`publish`](Self::publish).
    pub fn apply(&mut self, name: &ObjectName, uid: Option<&String>, verdict: Verdict) {
        let silence = match &verdict {
            Verdict::Announce(_) => None,
            Verdict::Silent(reason) => Some(reason),
        };
        self.count_silence(name, uid, silence);
        let shown = self.shown(name);
        let step = self.announced.apply(name, verdict);
        for (address, reach) in step.taken {
            self.retired.retain(|retired| *retired != address);
            let held = self.metrics.held(&address.to_string());
            let held = Arc::new(held.on(reach));
            self.next.insert(address, held.clone());
            self.changes.push(Change::Taken(address, held));
        }
        for (address, reach) in step.moved {
            if let Some(held) = self.next.get_mut(&address) {
                *held = Arc::new(held.on(reach));
                self.changes.push(Change::Moved(address, held.clone()));
            }
        }
        for address in step.released {
            self.next.remove(&address);
            self.changes.push(Change::Released(address));
            self.retired.push_back(address);
        }
        while self.retired.len() > RETIRED {
            if let Some(longest) = self.retired.pop_front() {
                self.metrics.forget(&longest.to_string());
            }
        }
        for event in step.events {
            self.tell(name, uid, event);
        }
        let now = self.shown(name);
        if now != shown {
            self.statuses.tell(name, now);
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
            let about = About {
                api_version: "v1",
                kind: "Node",
                namespace: String::new(),
                name: self.node.clone(),
                // The kubelet's own events have the name here, and kubectl looks for it.
                uid: Some(self.node.clone()),
            };
            let reason = "excludeLabelIgnored";
            self.events
                .post(about, EventType::Warning, reason, message.to_owned());
        }
    }

    /// What the status object of a Service should show: its interfaces, none for all; nothing if it is not announced, or
    /// if another node that announces it too leads: there is one object, and two writers would undo each other's for ever.
    fn shown(&self, name: &ObjectName) -> Option<Vec<String>> {
        let announcement = self.announced.get(name).filter(|one| one.leads)?;
        let names = announcement.reach.names();
        Some(names.into_iter().flatten().cloned().collect())
    }

    /// Makes all changes since the last call visible to the responder, in one step.
    pub fn publish(&mut self) {
        if !self.changes.is_empty() {
            let changes = std::mem::take(&mut self.changes);
            self.table.publish(self.next.clone(), changes);
        }
    }

    fn count_silence(&mut self, name: &ObjectName, uid: Option<&String>, reason: Option<&Reason>) {
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
        if !posted {
            for message in self.failures(reason) {
                self.post(name, uid, EventType::Warning, "announceFailed", message);
                posted = true;
            }
        }
        self.silent.insert(name.clone(), Silence { word, posted });
    }

    /// What this node has to say aloud about a Service that nobody announces.
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
            _ if reason.spokesman() == Some(self.node.as_str()) => vec![reason.to_string()],
            _ => Vec::new(),
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
            namespace: name.namespace.clone(),
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
