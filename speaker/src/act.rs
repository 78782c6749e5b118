//! What a verdict does: the table, metrics, log lines and events.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_config::ObjectName;
use ferrolb_runtime::events::{About, EventType, Events};
use ferrolb_speaker_core::{Announced, Event, Reason, Verdict};

use crate::metrics::Metrics;
use crate::table::{Announcements, Change, Table};

/// The value of `protocol` in logs, events and metrics.
const PROTOCOL: &str = "layer2";

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
    table: Table,
    metrics: Metrics,
    events: Events,
}

impl Actor {
    /// Announces nothing yet.
    pub fn new(node: String, table: Table, metrics: Metrics, events: Events) -> Self {
        Self {
            node,
            announced: Announced::new(),
            silent: HashMap::new(),
            next: Announcements::new(),
            changes: Vec::new(),
            table,
            metrics,
            events,
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
        let step = self.announced.apply(name, verdict);
        for address in step.taken {
            let held = Arc::new(self.metrics.held(&address.to_string()));
            self.next.insert(address, held.clone());
            self.changes.push(Change::Taken(address, held));
        }
        for address in step.released {
            self.next.remove(&address);
            self.changes.push(Change::Released(address));
        }
        for event in step.events {
            self.tell(name, uid, event);
        }
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
        if !posted && reason.spokesman() == Some(self.node.as_str()) {
            self.post(
                name,
                uid,
                EventType::Warning,
                "announceFailed",
                reason.to_string(),
            );
            posted = true;
        }
        self.silent.insert(name.clone(), Silence { word, posted });
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
                let message = format!(
                    "announcing from node {:?} with protocol {PROTOCOL:?}",
                    self.node
                );
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
