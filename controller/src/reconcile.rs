//! The one task that owns the allocator: takes what the watches tell, decides, hands out the work.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ferrolb_config::{Config, ObjectName, Refused};
use ferrolb_controller_core::{Core, Level, Plan};
use ferrolb_runtime::{
    configmap::{self, Outcome, Source},
    events::{About, EventType, Events},
    metrics::ClientMetrics,
    ready::Blocker,
    watch::{Change, Unavailable},
};
use tokio::sync::mpsc;

use crate::{
    act::{Write, Writer, Written},
    metrics::AllocatorMetrics,
    translate::Seen,
};

/// Events carry at most this many characters of a list of problems; the log has them all.
const EVENT_TEXT: usize = 1000;

/// Everything that can happen to the controller.
#[derive(Debug)]
pub enum Input {
    /// A Service.
    Service(Change<Seen>),
    /// A Node and its own addresses.
    Node(Change<Vec<IpAddr>>),
    /// The configuration.
    Config(Source),
    /// A status write ended.
    Written(ObjectName, Written),
}

struct Entry {
    seen: Seen,
    /// A write is under way: decisions wait for its end.
    writing: bool,
    /// Something changed meanwhile.
    changed: bool,
    failures: u32,
    /// The version our own last write made, until a watch has shown it or a newer one: what the watch
    /// still tells of older ones is stale.
    wrote: Option<u64>,
}

/// The state of the controller.
pub struct Reconciler {
    config: ObjectName,
    writer: Writer,
    events: Events,
    metrics: ClientMetrics,
    pools: AllocatorMetrics,
    /// Dropped once every Service has been seen.
    unready: Option<Blocker>,

    core: Core,
    services: BTreeMap<ObjectName, Entry>,
    nodes: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// Every Service has been told at least once.
    services_seen: bool,
    /// Every Node has been told at least once, or none may be seen.
    nodes_seen: bool,
    /// The newest readable configuration, while it is not the one in force.
    offered: Option<Config>,
    /// The refusal last reported, so that trying again is silent.
    refusal: Option<String>,
    /// Something was released: those who wait are decided again.
    revisit: bool,
}

impl Reconciler {
    /// A controller that has seen nothing yet. `config` names the ConfigMap; `unready` is let go when
    /// every Service has been seen.
    pub fn new(
        config: ObjectName,
        writer: Writer,
        events: Events,
        metrics: ClientMetrics,
        pools: AllocatorMetrics,
        unready: Blocker,
    ) -> Self {
        Self {
            config,
            writer,
            events,
            metrics,
            pools,
            unready: Some(unready),
            core: Core::new(),
            services: BTreeMap::new(),
            nodes: BTreeMap::new(),
            services_seen: false,
            nodes_seen: false,
            offered: None,
            refusal: None,
            revisit: false,
        }
    }

    /// Works until every sender of `inputs` is gone.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        while let Some(input) = inputs.recv().await {
            self.metrics.updates.inc();
            self.take(input);
            // Deciding those who wait releases nothing, so one round is enough.
            if std::mem::take(&mut self.revisit) {
                self.try_configure();
                self.decide_waiting();
            }
            if inputs.is_empty() {
                self.pools
                    .show(&self.core.pools(), self.core.waiting().len());
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Service(Change::Applied(name, seen)) => self.service(name, seen),
            Input::Service(Change::Deleted(name)) => {
                self.services.remove(&name);
                let plan = self.core.decide(&name, None);
                tracing::info!(event = "serviceDeleted", service = %name, "Service deleted");
                self.revisit |= plan.revisit;
            }
            Input::Service(Change::Synced) => {
                self.services_seen = true;
                self.unready = None;
                self.try_configure();
            }
            Input::Service(Change::Unavailable(why)) => {
                tracing::error!(op = "watch", reason = ?why,
                    "cannot see Services; grant get, list and watch on services");
            }
            Input::Node(change) => self.node(change),
            Input::Config(source) => self.source(source),
            Input::Written(name, written) => self.written(&name, written),
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
                writing: false,
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
                self.offered = Some(config);
                self.try_configure();
            }
            Source::Refused(problems) => {
                self.offered = None;
                self.refused(&problems);
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
        if !(self.services_seen && self.nodes_seen) {
            return;
        }
        let Some(config) = self.offered.take() else {
            return;
        };
        let first = !self.core.configured();
        if let Err(problems) = self.core.configure(config.clone()) {
            // It may fit later, when a Service has let go of its address.
            self.offered = Some(config);
            self.refused(&problems);
            return;
        }
        if self.refusal.take().is_some() {
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

    fn refused(&mut self, problems: &Refused) {
        let text = problems.to_string();
        if self.refusal.as_ref() == Some(&text) {
            return;
        }
        self.metrics.update_errors.inc();
        let in_force = self.core.configured();
        configmap::report(
            &self.config,
            &Outcome::Refused { problems, in_force },
            &self.metrics,
        );
        let mut message = text.clone();
        if let Some((cut, _)) = message.char_indices().nth(EVENT_TEXT) {
            message.truncate(cut);
            message.push('…');
        }
        self.config_event(EventType::Warning, "ConfigurationRefused", &message);
        self.refusal = Some(text);
    }

    fn config_event(&self, kind: EventType, reason: &str, message: &str) {
        let about = About {
            api_version: "v1",
            kind: "ConfigMap",
            namespace: self.config.namespace.clone(),
            name: self.config.name.clone(),
            uid: None,
        };
        self.events.post(about, kind, reason, message);
    }

    fn decide_waiting(&mut self) {
        for name in self.core.waiting() {
            self.decide(&name);
        }
    }

    fn decide(&mut self, name: &ObjectName) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        if entry.writing {
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
            entry.writing = true;
            self.writer.start(Write {
                name: name.clone(),
                version: entry.seen.version.clone(),
                ingress: ingress.clone(),
                failures: entry.failures,
            });
        }
        let uid = entry.seen.uid.clone();
        self.tell(name, uid, plan);
    }

    /// Says what was decided: in the log and as events of the Service.
    fn tell(&self, name: &ObjectName, uid: Option<String>, plan: Plan) {
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
            self.events.post(about, kind, notice.reason, notice.message);
        }
    }

    fn written(&mut self, name: &ObjectName, written: Written) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        entry.writing = false;
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
            }
            Written::Conflict => {}
            Written::Gone => return,
            Written::Failed => {
                self.metrics.update_errors.inc();
                entry.failures = entry.failures.saturating_add(1);
                entry.changed = true;
            }
        }
        if std::mem::take(&mut entry.changed) {
            self.decide(name);
        }
    }
}
