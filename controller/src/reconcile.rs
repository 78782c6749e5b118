//! The controller's state: takes what the watches tell, decides, and says what is to be done.
//!
//! It does no I/O itself: [`Reconciler::take`] turns an [`Input`] into [`Effect`]s, which
//! [`act`](crate::act) carries out.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use ferrolb_config::{Config, Labels, ObjectName, Refused};
use ferrolb_controller_core::{Core, Level, Plan, Request};
use ferrolb_runtime::{
    configuration::{Notice, Objects, Outcome, Reporter, Source},
    events::{About, EventType},
    metrics::ClientMetrics,
    ready::Blocker,
    watch::Change,
};

mod strangers;
mod surroundings;

use crate::{
    act::{Write, Written},
    conflicts::{self, Conflicts, Strangers},
    disputes::Disputes,
    metrics::AllocatorMetrics,
    pool_status::{self, PoolStatuses},
    translate::Seen,
};
use surroundings::Surroundings;

/// How often those who wait are decided again after one input. One of them may release what another
/// waits for (right after the restart, when a held address is not the wanted one); more rounds than
/// this wait for the writes that follow anyway.
const ROUNDS: usize = 4;

/// How long a watch may take to tell what a refused write did not know. Then the write is tried again: not every refusal
/// means that the object has changed.
const OVERDUE: Duration = Duration::from_secs(10);

/// Everything that can happen to the controller.
#[derive(Debug)]
pub enum Input {
    /// A Service.
    Service(Change<Seen>),
    /// A Node and its own addresses.
    Node(Change<Vec<IpAddr>>),
    /// A Namespace and its labels.
    Namespace(Change<Labels>),
    /// An `IPAddressPool` and its status.
    Pool(Change<pool_status::Seen>),
    /// The configuration, and the objects it stands in.
    Config(Source, Objects),
    /// The hosts outside the cluster that one speaker met.
    Strangers(Change<Strangers>),
    /// The status write with this number ended.
    Written(ObjectName, u64, Written),
    /// The write of a pool's status with this number ended.
    PoolWritten(ObjectName, u64, pool_status::Written),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write a status, and report its end.
    Write(Write),
    /// Take back this Service's write with this number if it has not begun, and report that.
    Withdraw(ObjectName, u64),
    /// Write the status of a pool, and report its end.
    WritePool(pool_status::Write),
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
    /// What our own last write said of conflicts, until a watch has shown it. An API server before 1.20 drops conditions of
    /// Services without a word, and the same would be written for ever.
    said: Option<(bool, String)>,
}

impl Entry {
    fn request(&self) -> Option<&Request> {
        self.seen.request.as_ref()
    }
}

/// A readable configuration that is not in force.
struct Offer {
    config: Config,
    /// That it does not fit was said: trying it again is silent.
    reported: bool,
}

/// The state of the controller.
pub struct Reconciler {
    reporter: Reporter,
    objects: Objects,
    metrics: ClientMetrics,
    pools: AllocatorMetrics,
    /// Dropped once every Service has been told at least once.
    unready: Option<Blocker>,

    core: Core,
    services: BTreeMap<ObjectName, Entry>,
    around: Surroundings,
    statuses: PoolStatuses,
    conflicts: Conflicts,
    disputes: Disputes,
    /// The newest readable configuration, while it is not the one in force.
    offered: Option<Offer>,
    /// The objects that were told why the newest configuration was refused.
    refused: Vec<About>,
    /// Services whose last write was refused because there is something newer, which no watch has told yet, and until when
    /// that is waited for; none: not reckoned yet.
    overtaken: BTreeMap<ObjectName, Option<Instant>>,
    /// Something was released: those who wait are decided again.
    revisit: bool,
    /// Writes started so far.
    writes: u64,
    effects: Vec<Effect>,
}

impl Reconciler {
    /// A controller that has seen nothing yet. `reporter` tells what becomes of configurations; `unready`
    /// is let go when every Service has been seen.
    pub fn new(
        reporter: impl Into<Reporter>,
        metrics: ClientMetrics,
        pools: AllocatorMetrics,
        unready: Blocker,
    ) -> Self {
        let reporter = reporter.into();
        Self {
            objects: Objects::new(reporter.configmap().clone()),
            reporter,
            metrics,
            pools,
            unready: Some(unready),
            core: Core::new(),
            services: BTreeMap::new(),
            around: Surroundings::default(),
            statuses: PoolStatuses::default(),
            conflicts: Conflicts::default(),
            disputes: Disputes::default(),
            offered: None,
            refused: Vec::new(),
            overtaken: BTreeMap::new(),
            revisit: false,
            writes: 0,
            effects: Vec::new(),
        }
    }

    /// Takes one input to its end and returns what is to be done, in order.
    pub fn take(&mut self, input: Input) -> Vec<Effect> {
        self.metrics.updates.inc();
        self.handle(input);
        self.settle();
        std::mem::take(&mut self.effects)
    }

    /// Does what the time brings; due at [`next_deadline`](Self::next_deadline), and after every input.
    pub fn tick(&mut self, now: Instant) -> Vec<Effect> {
        self.pass_time(now);
        self.catch_up(now);
        self.settle();
        std::mem::take(&mut self.effects)
    }

    /// When [`tick`](Self::tick) is due; none if nothing is.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.disputes.next_deadline(),
            self.conflicts.next_deadline(),
            self.overtaken.values().copied().flatten().min(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Decides Services of which no watch tells what their last write did not know.
    fn catch_up(&mut self, now: Instant) {
        let overdue = |until: &mut Option<Instant>| *until.get_or_insert(now + OVERDUE) <= now;
        let overdue: Vec<_> = self
            .overtaken
            .extract_if(.., |_, until| overdue(until))
            .collect();
        for (name, _) in overdue {
            self.decide(&name);
        }
    }

    /// While something is released: decides those that may have waited for it, first who has no address.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            if !std::mem::take(&mut self.revisit) {
                break;
            }
            self.try_configure();
            for name in self.core.waiting().into_iter().chain(self.leaving()) {
                self.decide(&name);
            }
        }
    }

    /// Brings gauges and the status of pools up to date; not after every input, because it looks at every pool.
    pub fn show(&mut self) -> Vec<Effect> {
        let pools = self.core.pools();
        self.pools.show(&pools, self.core.waiting().len());
        let due = self.statuses.due(&pools);
        due.into_iter().map(Effect::WritePool).collect()
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Service(Change::Applied(name, seen)) => self.service(name, seen),
            Input::Service(Change::Deleted(name)) => {
                let entry = self.services.remove(&name);
                if let Some(id) = entry.and_then(|entry| entry.writing) {
                    self.effects.push(Effect::Withdraw(name.clone(), id));
                }
                self.overtaken.remove(&name);
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
            Input::Namespace(change) => self.namespace(change),
            Input::Strangers(change) => self.strangers(change),
            Input::Pool(change) => self.statuses.take(change),
            Input::Config(source, objects) => {
                self.objects = objects;
                self.source(source);
            }
            Input::Written(name, id, written) => self.written(&name, id, written),
            Input::PoolWritten(name, id, written) => self.statuses.written(&name, id, written),
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
            if conflicts::said(&seen.conditions).is_some() || seen.uid != entry.seen.uid {
                entry.said = None;
            }
            entry.seen = seen;
            self.overtaken.remove(&name);
        } else {
            let entry = Entry {
                seen,
                writing: None,
                changed: false,
                failures: 0,
                wrote: None,
                said: None,
            };
            self.services.insert(name.clone(), entry);
        }
        self.decide(&name);
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
                self.reporter
                    .report(&Outcome::Absent { in_force }, &self.metrics);
            }
            Source::Unavailable(why) => {
                self.reporter
                    .report(&Outcome::Unavailable(why), &self.metrics);
            }
        }
    }

    /// Takes up the offered configuration once everything that holds an address can have been seen:
    /// before that, its addresses would be given to others.
    fn try_configure(&mut self) {
        let services_seen = self.unready.is_none();
        if !(services_seen && self.around.seen() && self.conflicts.enough_seen()) {
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
        let refused = std::mem::take(&mut self.refused);
        let notices = self.objects.accepted(&config, refused);
        self.notify(notices);
        self.reporter
            .report(&Outcome::Accepted(&config), &self.metrics);
        self.around.warn(&config);
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
        self.reporter
            .report(&Outcome::Refused { problems, in_force }, &self.metrics);
        let notices = self.objects.refused(problems);
        for notice in &notices {
            if !self.refused.contains(&notice.about) {
                self.refused.push(notice.about.clone());
            }
        }
        self.notify(notices);
    }

    fn notify(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            self.event(notice.about, notice.kind, notice.reason, &notice.message);
        }
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
        if let Some(id) = entry.writing {
            // What waits for its turn is decided anew before it comes.
            if !std::mem::replace(&mut entry.changed, true) {
                self.effects.push(Effect::Withdraw(name.clone(), id));
            }
            return;
        }
        let plan = self.core.decide(name, entry.seen.request.as_ref());
        self.revisit |= plan.revisit;
        if entry.seen.request.is_none() {
            // Another implementation's: we let go of what was ours and touch nothing.
            return;
        }
        let request = entry.seen.request.iter();
        let shown = request.flat_map(|request| request.current.iter().flatten().copied());
        let addresses = plan.ingress.clone().unwrap_or_else(|| shown.collect());
        // Where the status stays as it is because nothing could be decided, so do the conditions.
        let settled = plan.ingress.is_some() || plan.pending.is_none();
        let due = self.conflicts.due(&entry.seen.conditions, &addresses);
        let due = due.filter(|due| settled && !due.repeats(entry.said.as_ref()));
        if plan.ingress.is_some() || due.is_some() {
            self.writes += 1;
            entry.writing = Some(self.writes);
            self.effects.push(Effect::Write(Write {
                id: self.writes,
                name: name.clone(),
                version: entry.seen.version.clone(),
                ingress: addresses,
                noted_pool: plan.noted_pool.clone(),
                due,
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
                namespace: name.namespace.to_string(),
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
            Written::Done {
                version,
                ingress,
                noted_pool,
                conditions,
            } => {
                entry.failures = 0;
                tracing::info!(event = "serviceUpdated", service = %name, "status written");
                // The watch will tell the same in a moment; until then we know it already. If it has
                // told something newer than our write meanwhile, that stands.
                let wrote = version.parse::<u64>().ok();
                let shown = entry.seen.version.parse::<u64>().ok();
                let said = conditions.as_deref().and_then(conflicts::said);
                if said.is_some()
                    && shown <= wrote
                    && conflicts::said(&entry.seen.conditions) != said
                {
                    entry.said = said;
                }
                if shown < wrote {
                    entry.wrote = wrote;
                    entry.seen.version = version;
                    if let Some(conditions) = conditions {
                        entry.seen.conditions = conditions;
                    }
                    if let Some(request) = &mut entry.seen.request {
                        request.current = ingress.into_iter().map(Ok).collect();
                        request.surplus = false;
                        request.noted_pool = noted_pool;
                    }
                }
                // What it no longer shows may now be another's.
                self.decide(name);
            }
            Written::Conflict | Written::Gone if changed => self.decide(name),
            // The watch is about to tell what we do not know yet.
            Written::Conflict | Written::Gone => {
                self.overtaken.insert(name.clone(), None);
            }
            Written::Withdrawn => self.decide(name),
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
