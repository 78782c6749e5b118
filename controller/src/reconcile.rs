//! The controller's state: takes what the watches tell, decides, and says what is to be done.
//!
//! It does no I/O itself: [`Reconciler::take`] turns an [`Input`] into [`Effect`]s, which
//! [`act`](crate::act) carries out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ferrolb_config::{Config, ObjectName, Refused};
use ferrolb_controller_core::{Core, Level, Plan};
use ferrolb_runtime::{
    configmap::{self, Outcome, Source},
    events::{About, EventType},
    metrics::ClientMetrics,
    ready::Blocker,
    watch::{Change, Unavailable},
};

use crate::{
    act::{Write, Written},
    metrics::AllocatorMetrics,
    translate::Seen,
};

/// How often those who wait are decided again after one input. One of them may release what another
/// waits for (right after the restart, when a held address is not the wanted one); more rounds than
/// this wait for the writes that follow anyway.
const ROUNDS: usize = 4;
/// Events carry at most this many characters of a list of problems; the log has them all.
const EVENT_TEXT: usize = 1000;

/// Everything that can happen to the controller.
#[derive(Debug)]
pub enum Input {
    /// A Service.
    Service(Change<Seen>),
    /// A Node and its own addresses.
    Node(Change<Vec<IpAddr>>),
    /// The configuration, and the uid of the ConfigMap it stands in.
    Config(Source, Option<String>),
    /// The status write with this number ended.
    Written(ObjectName, u64, Written),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write a status, and report its end.
    Write(Write),
    /// Post an event.
    Event {
        /// The object it is about.
        about: About,
        /// How loud it is.
        kind: EventType,
        /// One word in camel case.
        reason: String,
        /// The text for the operator.
        message: String,
    },
}

struct Entry {
    seen: Seen,
    /// The number of the write under way: decisions wait for its end.
    writing: Option<u64>,
    /// Something changed meanwhile.
    changed: bool,
    failures: u32,
    /// The version our own last write made, until a watch has shown it or a newer one: what the watch
    /// still tells of older ones is stale.
    wrote: Option<u64>,
}

/// A readable configuration that is not in force.
struct Offer {
    config: Config,
    /// That it does not fit was said: trying it again is silent.
    reported: bool,
}

/// The state of the controller.
pub struct Reconciler {
    config: ObjectName,
    config_uid: Option<String>,
    metrics: ClientMetrics,
    pools: AllocatorMetrics,
    /// Dropped once every Service has been told at least once.
    unready: Option<Blocker>,

    core: Core,
    services: BTreeMap<ObjectName, Entry>,
    nodes: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// Every Node has been told at least once, or none may be seen.
    nodes_seen: bool,
    /// The newest readable configuration, while it is not the one in force.
    offered: Option<Offer>,
    /// The newest configuration was refused.
    refused: bool,
    /// Something was released: those who wait are decided again.
    revisit: bool,
    /// Writes started so far.
    writes: u64,
    effects: Vec<Effect>,
}

impl Reconciler {
    /// A controller that has seen nothing yet. `config` names the ConfigMap; `unready` is let go when
    /// every Service has been seen.
    pub fn new(
        config: ObjectName,
        metrics: ClientMetrics,
        pools: AllocatorMetrics,
        unready: Blocker,
    ) -> Self {
        Self {
            config,
            config_uid: None,
            metrics,
            pools,
            unready: Some(unready),
            core: Core::new(),
            services: BTreeMap::new(),
            nodes: BTreeMap::new(),
            nodes_seen: false,
            offered: None,
            refused: false,
            revisit: false,
            writes: 0,
            effects: Vec::new(),
        }
    }

    /// Takes one input to its end and returns what is to be done, in order.
    pub fn take(&mut self, input: Input) -> Vec<Effect> {
        self.metrics.updates.inc();
        self.handle(input);
        for _ in 0..ROUNDS {
            if !std::mem::take(&mut self.revisit) {
                break;
            }
            self.try_configure();
            for name in self.core.waiting() {
                self.decide(&name);
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// Brings the gauges up to date; not after every input, because it looks at every pool.
    pub fn show(&mut self) {
        self.pools
            .show(&self.core.pools(), self.core.waiting().len());
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Service(Change::Applied(name, seen)) => self.service(name, seen),
            Input::Service(Change::Deleted(name)) => {
                self.services.remove(&name);
                let plan = self.core.decide(&name, None);
                tracing::info!(event = "serviceDeleted", service = %name, "Service deleted");
                self.revisit |= plan.revisit;
            }
            Input::Service(Change::Synced) => {
                self.unready = None;
                self.try_configure();
            }
            Input::Service(Change::Unavailable(why)) => {
                tracing::error!(op = "watch", reason = ?why,
                    "cannot see Services; grant get, list and watch on services");
            }
            Input::Node(change) => self.node(change),
            Input::Config(source, uid) => {
                self.config_uid = uid.or(self.config_uid.take());
                self.source(source);
            }
            Input::Written(name, id, written) => self.written(&name, id, written),
        }
    }

    fn service(&mut self, name: ObjectName, seen: Seen) {
        let version = seen.version.parse::<u64>().ok();
        if let Some(entry) = self.services.get_mut(&name) {
            // Until the watch has caught up with our own write, it tells the past.
            if entry.wrote.is_some() && version < entry.wrote {
                return;
            }
            entry.wrote = None;
            entry.seen = seen;
        } else {
            let entry = Entry {
                seen,
                writing: None,
                changed: false,
                failures: 0,
                wrote: None,
            };
            self.services.insert(name.clone(), entry);
        }
        self.decide(&name);
    }

    fn node(&mut self, change: Change<Vec<IpAddr>>) {
        match change {
            Change::Applied(name, addresses) => {
                if self.nodes.get(&name) == Some(&addresses) {
                    return;
                }
                self.nodes.insert(name, addresses);
            }
            Change::Deleted(name) => {
                if self.nodes.remove(&name).is_none() {
                    return;
                }
            }
            Change::Synced if self.nodes_seen => return,
            Change::Synced => self.nodes_seen = true,
            Change::Unavailable(why) => {
                if why == Unavailable::Forbidden && self.nodes.is_empty() {
                    tracing::warn!(
                        op = "watch",
                        resource = "nodes",
                        "cannot see Nodes, so an address that is a node's own may be given out (the speakers \
                         will not announce it); grant list and watch on nodes to have it skipped"
                    );
                    self.nodes_seen = true;
                    self.try_configure();
                }
                return;
            }
        }
        if !self.nodes_seen {
            return;
        }
        let owners: BTreeMap<_, _> = self
            .nodes
            .iter()
            .flat_map(|(node, own)| own.iter().map(|address| (*address, node.name.clone())))
            .collect();
        self.core.reserve(owners);
        self.try_configure();
        // Whoever was refused an address that was a node's may have it now.
        self.revisit = true;
        let holders: BTreeSet<_> = self
            .nodes
            .values()
            .flatten()
            .flat_map(|address| self.core.holders(*address))
            .collect();
        for name in holders {
            self.decide(&name);
        }
    }

    fn source(&mut self, source: Source) {
        let in_force = self.core.configured();
        match source {
            Source::Read(config) => {
                self.offered = Some(Offer {
                    config,
                    reported: false,
                });
                self.try_configure();
            }
            Source::Refused(problems) => {
                self.offered = None;
                self.refuse(&problems);
            }
            Source::Absent => {
                self.offered = None;
                configmap::report(&self.config, &Outcome::Absent { in_force }, &self.metrics);
            }
            Source::Unavailable(why) => {
                configmap::report(&self.config, &Outcome::Unavailable(why), &self.metrics);
            }
        }
    }

    /// Takes up the offered configuration once everything that holds an address can have been seen:
    /// before that, its addresses would be given to others.
    fn try_configure(&mut self) {
        let services_seen = self.unready.is_none();
        if !(services_seen && self.nodes_seen) {
            return;
        }
        let Some(Offer { config, reported }) = self.offered.take() else {
            return;
        };
        let first = !self.core.configured();
        if let Err(problems) = self.core.configure(config.clone()) {
            // It may fit later, when a Service has let go of its address.
            self.offered = Some(Offer {
                config,
                reported: true,
            });
            if !reported {
                self.refuse(&problems);
            }
            return;
        }
        if std::mem::take(&mut self.refused) {
            self.config_event(
                EventType::Normal,
                "ConfigurationAccepted",
                "configuration taken up",
            );
        }
        configmap::report(&self.config, &Outcome::Accepted(&config), &self.metrics);
        let names: Vec<_> = self.services.keys().cloned().collect();
        for name in &names {
            self.decide(name);
        }
        if first {
            self.core.all_seen();
            tracing::info!(
                event = "stateSynced",
                services = names.len(),
                "every Service has been seen, giving out addresses"
            );
        }
        self.revisit = true;
    }

    fn refuse(&mut self, problems: &Refused) {
        self.metrics.update_errors.inc();
        let in_force = self.core.configured();
        configmap::report(
            &self.config,
            &Outcome::Refused { problems, in_force },
            &self.metrics,
        );
        let mut message = problems.to_string();
        if let Some((cut, _)) = message.char_indices().nth(EVENT_TEXT) {
            message.truncate(cut);
            message.push('…');
        }
        self.config_event(EventType::Warning, "ConfigurationRefused", &message);
        self.refused = true;
    }

    fn config_event(&mut self, kind: EventType, reason: &str, message: &str) {
        let about = About {
            api_version: "v1",
            kind: "ConfigMap",
            namespace: self.config.namespace.clone(),
            name: self.config.name.clone(),
            uid: self.config_uid.clone(),
        };
        self.event(about, kind, reason, message);
    }

    fn event(&mut self, about: About, kind: EventType, reason: &str, message: &str) {
        self.effects.push(Effect::Event {
            about,
            kind,
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
    }

    fn decide(&mut self, name: &ObjectName) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        if entry.writing.is_some() {
            entry.changed = true;
            return;
        }
        let plan = self.core.decide(name, entry.seen.request.as_ref());
        self.revisit |= plan.revisit;
        if entry.seen.request.is_none() {
            // Another implementation's: we let go of what was ours and touch nothing.
            return;
        }
        if let Some(ingress) = &plan.ingress {
            self.writes += 1;
            entry.writing = Some(self.writes);
            self.effects.push(Effect::Write(Write {
                id: self.writes,
                name: name.clone(),
                version: entry.seen.version.clone(),
                ingress: ingress.clone(),
                failures: entry.failures,
            }));
        }
        let uid = entry.seen.uid.clone();
        self.tell(name, uid, plan);
    }

    /// Says what was decided: in the log and as events of the Service.
    fn tell(&mut self, name: &ObjectName, uid: Option<String>, plan: Plan) {
        if let Some(ingress) = &plan.ingress {
            let ips: Vec<_> = ingress.iter().map(IpAddr::to_string).collect();
            tracing::info!(event = if ingress.is_empty() { "clearAssignment" } else { "ipAllocated" },
                service = %name, ips = ips.join(","), pool = plan.pool.as_deref().unwrap_or_default(),
                "addresses of the Service decided");
        }
        if let Some(reason) = &plan.pending {
            tracing::debug!(event = "pending", service = %name, reason, "no address for the Service");
        }
        for notice in plan.notices {
            let about = About {
                api_version: "v1",
                kind: "Service",
                namespace: name.namespace.clone(),
                name: name.name.clone(),
                uid: uid.clone(),
            };
            let kind = match notice.level {
                Level::Normal => EventType::Normal,
                Level::Warning => EventType::Warning,
            };
            if kind == EventType::Warning {
                tracing::warn!(op = "allocateIPs", service = %name, reason = notice.reason,
                    error = notice.message, "the Service needs attention");
            }
            self.event(about, kind, notice.reason, &notice.message);
        }
    }

    fn written(&mut self, name: &ObjectName, id: u64, written: Written) {
        // The end of another's write says nothing: a Service deleted and made again under the same
        // name has its own.
        let Some(entry) = self
            .services
            .get_mut(name)
            .filter(|entry| entry.writing == Some(id))
        else {
            return;
        };
        entry.writing = None;
        let changed = std::mem::take(&mut entry.changed);
        match written {
            Written::Done { version, ingress } => {
                entry.failures = 0;
                tracing::info!(event = "serviceUpdated", service = %name, "status written");
                // The watch will tell the same in a moment; until then we know it already. If it has
                // told something newer than our write meanwhile, that stands.
                let wrote = version.parse::<u64>().ok();
                if entry.seen.version.parse::<u64>().ok() < wrote {
                    entry.wrote = wrote;
                    entry.seen.version = version;
                    if let Some(request) = &mut entry.seen.request {
                        request.current = ingress.into_iter().map(Ok).collect();
                    }
                }
                // What it no longer shows may now be another's.
                self.decide(name);
            }
            Written::Conflict | Written::Gone if changed => self.decide(name),
            // The watch is about to tell what we do not know yet.
            Written::Conflict | Written::Gone => {}
            Written::Failed => {
                self.metrics.update_errors.inc();
                entry.failures = entry.failures.saturating_add(1);
                self.decide(name);
            }
        }
    }
}

#[cfg(test)]
mod tests;
