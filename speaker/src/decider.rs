//! The one task that owns the view: takes changes in, decides what they touch, tells the arbiters and carries the verdicts
//! out.

mod standings;

use std::collections::HashMap;

use ferrolb_config::{Config, ObjectName, Origin};
use ferrolb_runtime::configuration::{Outcome, Reporter, Source};
use ferrolb_runtime::metrics::ClientMetrics;
use ferrolb_runtime::ready::Blocker;
use ferrolb_runtime::watch::Change;
use ferrolb_speaker_core::{Kind, Reason, Touched, Verdict, View, decide, standing};
use tokio::sync::mpsc;

use self::standings::Standings;
use crate::act::Actor;
use crate::arbitration::Words;
use crate::sources::Input;

/// Each Service's uid, for its events.
pub type Uids = HashMap<ObjectName, String>;

/// Changes taken in before deciding: during a list thousands wait, and deciding after each would be wasted.
const BATCH: usize = 1024;

/// Owns everything known and decides.
pub struct Decider {
    node: String,
    reporter: Reporter,
    view: View,
    uids: Uids,
    /// It is known whether there is a configuration: until then nothing can be taken.
    configured: bool,
    /// A sound configuration that takes the pool from a Service, taken up once it no longer does.
    waiting: Option<Config>,
    standings: Standings,
    actor: Actor,
    metrics: ClientMetrics,
    /// Held until everything has been listed.
    listing: Option<Blocker>,
}

impl Decider {
    /// Knows what `view` holds, which is nothing yet. `listing` is dropped once every kind of object has been listed.
    pub fn new(
        node: String,
        reporter: impl Into<Reporter>,
        view: View,
        words: Words,
        actor: Actor,
        metrics: ClientMetrics,
        listing: Blocker,
    ) -> Self {
        Self {
            standings: Standings::new(node.clone(), words),
            node,
            reporter: reporter.into(),
            view,
            uids: Uids::new(),
            configured: false,
            waiting: None,
            actor,
            metrics,
            listing: Some(listing),
        }
    }

    /// Works until every source is gone.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut batch = Vec::with_capacity(BATCH);
        while inputs.recv_many(&mut batch, BATCH).await > 0 {
            self.work(&mut batch);
        }
    }

    /// Takes in a batch of changes and brings everything in line with them.
    fn work(&mut self, batch: &mut Vec<Input>) {
        let mut touched = Touched::default();
        for input in batch.drain(..) {
            self.metrics.updates.inc();
            touched.merge(self.take_in(input));
        }
        if self.view.complete() {
            self.listing = None;
            self.standings.tell_peers(&self.view);
        }
        self.settle(touched);
        // A configuration that waited for an address to go may be due now, which touches everything.
        let due = self.take_up_waiting();
        self.settle(due);
        self.look_around();
    }

    /// What does not depend on one Service.
    fn look_around(&mut self) {
        let Some(config) = self.view.config().filter(|_| self.view.complete()) else {
            return;
        };
        self.actor.settled();
        let mut pools = config.pools().iter();
        let heeds_labels = pools.any(|pool| pool.origin() == Origin::Resource);
        let void = self.view.exclusion_void().filter(|_| heeds_labels);
        self.actor.exclusion_void(void);
    }

    fn take_in(&mut self, input: Input) -> Touched {
        match input {
            Input::Service(Change::Applied(name, facts)) => {
                match facts.uid {
                    Some(uid) => self.uids.insert(name.clone(), uid),
                    None => self.uids.remove(&name),
                };
                let past = !self.view.complete();
                self.standings.wish(&name, &facts.service, facts.wish, past);
                self.view.apply_service(name, facts.service)
            }
            Input::Service(Change::Deleted(name)) => {
                self.uids.remove(&name);
                self.standings.forget(&name);
                self.view.delete_service(&name)
            }
            Input::Service(change) => self.listed(Kind::Services, "services", &change),
            Input::Endpoints(Change::Applied(slice, Some((service, endpoints)))) => {
                self.view.apply_endpoints(slice, service, endpoints)
            }
            Input::Endpoints(Change::Applied(slice, None) | Change::Deleted(slice)) => {
                self.view.delete_endpoints(&slice)
            }
            Input::Endpoints(change) => self.listed(Kind::Endpoints, "endpoints", &change),
            Input::Node(Change::Applied(name, facts)) => {
                self.view.apply_node(name.name.clone(), facts.node)
            }
            Input::Node(Change::Deleted(name)) => self.view.delete_node(&name.name),
            Input::Node(change) => self.listed(Kind::Nodes, "nodes", &change),
            Input::Speakers(pods) => {
                let mut touched = self.view.set_speakers(pods);
                touched.merge(self.view.set_listed(Kind::Speakers));
                touched
            }
            Input::Members(members) => {
                let mut touched = self.view.set_members(members);
                touched.merge(self.view.set_listed(Kind::Members));
                touched
            }
            Input::Config(source) => self.configure(source),
            Input::Interfaces(names) => {
                let mut touched = self.view.set_interfaces(names);
                touched.merge(self.view.set_listed(Kind::Interfaces));
                touched
            }
            Input::Told(told) => {
                for told in &told {
                    self.actor.heed(told, self.standings.names(), &self.uids);
                }
                self.actor.tell_leaving(self.view.leaving(&self.node));
                Touched::default()
            }
        }
    }

    /// The end of a list, or the word that there is none to be had.
    fn listed<T>(&mut self, kind: Kind, resource: &str, change: &Change<T>) -> Touched {
        if let Change::Unavailable(why) = change {
            self.metrics.update_errors.inc();
            if self.view.listed(kind) {
                tracing::error!(op = "watch", resource, reason = ?why,
                    "cannot be watched any more, what is known of it stays; grant get, list and watch on it");
            } else {
                tracing::error!(op = "watch", resource, reason = ?why,
                    "cannot be watched, so nothing is announced yet; grant get, list and watch on it");
            }
            return Touched::default();
        }
        self.view.set_listed(kind)
    }

    fn configure(&mut self, source: Source) -> Touched {
        self.configured |= !matches!(source, Source::Unavailable(_));
        // Not to be read for a while takes nothing back.
        if !matches!(source, Source::Unavailable(_)) {
            self.waiting = None;
        }
        let in_force = self.view.config().is_some();
        match source {
            Source::Read(config) => {
                self.waiting = Some(config);
                if let Some(reason) = self.left_out() {
                    self.reporter.held_up(&reason, &self.metrics);
                }
                return self.take_up_waiting();
            }
            Source::Refused(problems) => {
                self.metrics.update_errors.inc();
                let problems = &problems;
                let refused = Outcome::Refused { problems, in_force };
                self.reporter.report(&refused, &self.metrics);
            }
            Source::Absent => {
                let absent = Outcome::Absent { in_force };
                self.reporter.report(&absent, &self.metrics);
            }
            Source::Unavailable(why) => {
                let unavailable = Outcome::Unavailable(why);
                self.reporter.report(&unavailable, &self.metrics);
            }
        }
        Touched::default()
    }

    /// Takes up the waiting configuration if it takes no Service's pool.
    fn take_up_waiting(&mut self) -> Touched {
        if self.left_out().is_some() {
            return Touched::default();
        }
        let Some(config) = self.waiting.take() else {
            return Touched::default();
        };
        self.reporter
            .report(&Outcome::Accepted(&config), &self.metrics);
        self.view.set_config(config)
    }

    /// The Service whose pool the waiting configuration would take, as a sentence.
    fn left_out(&self) -> Option<String> {
        let (service, addresses) = self.view.left_out_by(self.waiting.as_ref()?)?;
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        Some(format!(
            "no single pool covers {} of Service {service}; put it back, or delete the Service first",
            addresses.join(", ")
        ))
    }

    /// Decides anew on what a change touched. Before everything is listed there is nothing to decide; the end of the last
    /// list touches every Service.
    fn settle(&mut self, touched: Touched) {
        if !self.view.complete() {
            return;
        }
        let names: Vec<ObjectName> = match touched {
            Touched::Some(names) => names.into_iter().collect(),
            Touched::All => self.view.services().cloned().collect(),
        };
        for name in &names {
            let verdict = decide(&self.view, &self.node, name);
            let speaks = self.speaks(&verdict);
            self.actor.apply(name, self.uids.get(name), verdict, speaks);
        }
        self.standings
            .tell_standings(&self.view, &names, self.configured);
    }

    /// Whether this node's speaker is the one to tell a Service's users why it is silent. Which interfaces a node has only
    /// its own speaker knows, so that is told, as MetalLB tells it, by the one that would come first.
    fn speaks(&self, verdict: &Verdict) -> bool {
        let Verdict::Silent(reason) = verdict else {
            return false;
        };
        let Reason::NoInterface { addresses, .. } = reason else {
            return reason.spokesman() == Some(self.node.as_str());
        };
        // With the eyes of nobody: each node leaves itself out of its own order where it has no interface.
        let order = addresses
            .first()
            .and_then(|address| standing(&self.view, "", *address))
            .map(|standing| standing.order);
        order.is_some_and(|order| order.first() == Some(&self.node))
    }
}

#[cfg(test)]
mod tests;
