//! What the controller does, told as inputs and effects.

use std::collections::BTreeSet;

use ferrolb_controller_core::{FamilyPolicy, Request};
use ferrolb_runtime::{ready::Ready, watch::Unavailable};
use k8s_openapi::jiff::Timestamp;
use prometheus::Registry;

use super::*;

mod driven;
mod resources;
mod strangers;

struct Bench {
    reconciler: Reconciler,
    ready: Ready,
    metrics: ClientMetrics,
    version: u64,
}

fn bench() -> Bench {
    let registry = Registry::new();
    let metrics = ClientMetrics::new(&registry).unwrap();
    let pools = AllocatorMetrics::new(&registry).unwrap();
    let ready = Ready::new();
    let unready = ready.wait_for("services");
    let config = ObjectName::new("metallb-system", "config");
    Bench {
        reconciler: Reconciler::new(config, metrics.clone(), pools, unready),
        ready,
        metrics,
        version: 0,
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

fn pool(addresses: &str) -> Source {
    let text = format!("address-pools: [{{name: p, protocol: layer2, addresses: [{addresses}]}}]");
    Source::Read(ferrolb_config::read(&text).unwrap())
}

fn objects() -> Objects {
    Objects::new(ObjectName::new("metallb-system", "config"))
}

fn bad() -> Source {
    Source::Refused(ferrolb_config::read("nonsense: 1").unwrap_err())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Bench {
    fn take(&mut self, input: Input) -> Vec<Effect> {
        self.reconciler.take(input)
    }

    /// A Service of type LoadBalancer as the watch tells it, newer than all before.
    fn applied(&mut self, service: &str, current: &[&str], desired: &[&str]) -> Input {
        self.version += 10;
        Self::told(service, current, desired, self.version)
    }

    fn told(service: &str, current: &[&str], desired: &[&str], version: u64) -> Input {
        let request = Request {
            balancer: true,
            labels: Labels::new(),
            surplus: false,
            noted_pool: None,
            deprecated: BTreeSet::new(),
            current: current.iter().map(|text| Ok(ip(text))).collect(),
            cluster_ips: vec!["10.96.0.9".to_owned()],
            policy: FamilyPolicy::SingleStack,
            desired: Ok(desired.iter().map(|text| ip(text)).collect()),
            pool: None,
            sharing: None,
            backend: String::new(),
            ports: BTreeSet::new(),
        };
        Input::Service(Change::Applied(
            name(service),
            Seen {
                request: Some(request),
                uid: Some(format!("uid-{service}")),
                version: version.to_string(),
                conditions: Vec::new(),
            },
        ))
    }

    /// Everything has been seen, and this configuration is in force.
    fn started(addresses: &str) -> Self {
        let mut bench = bench();
        bench.take(Input::Node(Change::Synced));
        bench.take(Input::Namespace(Change::Synced));
        bench.take(Input::Strangers(Change::Synced));
        bench.take(Input::Service(Change::Synced));
        bench.take(Input::Config(pool(addresses), objects()));
        assert!(bench.reconciler.core.configured());
        bench
    }

    fn done(&mut self, write: &Write) -> Vec<Effect> {
        self.version += 10;
        self.done_in_vain(write)
    }

    /// The end of a write that changed nothing: the version is that of before.
    fn done_in_vain(&mut self, write: &Write) -> Vec<Effect> {
        let written = Written::Done {
            version: self.version.to_string(),
            ingress: write.ingress.clone(),
            noted_pool: write.noted_pool.clone(),
            conditions: write
                .due
                .as_ref()
                .map(|due| due.conditions(Timestamp::UNIX_EPOCH)),
        };
        self.take(Input::Written(write.name.clone(), write.id, written))
    }
}

fn writes(effects: &[Effect]) -> Vec<Write> {
    let writes = effects.iter().filter_map(|effect| match effect {
        Effect::Write(write) => Some(write.clone()),
        Effect::Event { .. } | Effect::WritePool(_) | Effect::Withdraw(..) => None,
    });
    writes.collect()
}

fn reasons(effects: &[Effect]) -> Vec<&str> {
    let reasons = effects.iter().filter_map(|effect| match effect {
        Effect::Event { reason, .. } => Some(reason.as_str()),
        Effect::Write(_) | Effect::WritePool(_) | Effect::Withdraw(..) => None,
    });
    reasons.collect()
}

/// The one write among the effects: whose, and what.
fn only(effects: &[Effect]) -> Write {
    let mut writes = writes(effects);
    assert_eq!(writes.len(), 1, "{effects:?}");
    writes.remove(0)
}

#[test]
fn nothing_is_given_before_services_nodes_namespaces_and_reports_were_seen() {
    let mut bench = bench();
    assert!(
        bench
            .take(Input::Config(pool("10.0.0.1-10.0.0.2"), objects()))
            .is_empty()
    );
    let waiting = bench.applied("waiting", &[], &[]);
    assert!(bench.take(waiting).is_empty());
    let holder = bench.applied("holder", &["10.0.0.1"], &[]);
    assert!(bench.take(holder).is_empty());
    assert_eq!(bench.ready.pending(), ["services"]);
    assert!(bench.take(Input::Service(Change::Synced)).is_empty());
    assert!(bench.ready.pending().is_empty());
    assert!(bench.take(Input::Namespace(Change::Synced)).is_empty());
    assert!(bench.take(Input::Strangers(Change::Synced)).is_empty());
    let write = only(&bench.take(Input::Node(Change::Synced)));
    assert_eq!(
        (write.name, write.ingress),
        (name("waiting"), vec![ip("10.0.0.2")])
    );
}

#[test]
fn nodes_and_namespaces_that_may_not_be_seen_hold_nothing_up() {
    let mut bench = bench();
    bench.take(Input::Config(pool("10.0.0.1/32"), objects()));
    let service = bench.applied("a", &[], &[]);
    bench.take(service);
    bench.take(Input::Service(Change::Synced));
    let forbidden = Input::Namespace(Change::Unavailable(Unavailable::Forbidden));
    assert!(bench.take(forbidden).is_empty());
    let unknown = Input::Strangers(Change::Unavailable(Unavailable::Unknown));
    assert!(bench.take(unknown).is_empty());
    let forbidden = Input::Node(Change::Unavailable(Unavailable::Forbidden));
    assert_eq!(only(&bench.take(forbidden)).ingress, [ip("10.0.0.1")]);
}

#[test]
fn a_node_that_gives_its_address_up_lets_the_refused_have_it() {
    let mut bench = bench();
    let node = ObjectName::new("", "n1");
    bench.take(Input::Node(Change::Applied(
        node.clone(),
        vec![ip("10.0.0.1")],
    )));
    bench.take(Input::Node(Change::Synced));
    bench.take(Input::Namespace(Change::Synced));
    bench.take(Input::Strangers(Change::Synced));
    bench.take(Input::Service(Change::Synced));
    bench.take(Input::Config(pool("10.0.0.1/32"), objects()));
    let service = bench.applied("a", &[], &[]);
    assert_eq!(reasons(&bench.take(service)), ["AllocationFailed"]);
    let write = only(&bench.take(Input::Node(Change::Deleted(node))));
    assert_eq!(write.ingress, [ip("10.0.0.1")]);
}

#[test]
fn one_write_at_a_time_and_what_changed_meanwhile_is_decided_after_it() {
    let mut bench = Bench::started("10.0.0.0/24");
    let service = bench.applied("a", &[], &[]);
    let first = only(&bench.take(service));
    let moved = bench.applied("a", &[], &["10.0.0.7"]);
    assert!(
        writes(&bench.take(moved)).is_empty(),
        "a write is under way"
    );
    let conflict = Input::Written(first.name.clone(), first.id, Written::Conflict);
    let second = only(&bench.take(conflict));
    assert_eq!(second.ingress, [ip("10.0.0.7")]);
    assert_ne!(second.id, first.id);
}

/// Input: a Service that changes twice while its write waits for its turn; one that is deleted meanwhile.
/// Output: the write is taken back, once, and what is decided anew is written in its stead, on the newest version.
#[test]
fn what_changes_while_its_write_waits_is_decided_before_its_turn_comes() {
    let mut bench = Bench::started("10.0.0.0/24");
    let service = bench.applied("a", &[], &[]);
    let first = only(&bench.take(service));
    let withdrawal = Effect::Withdraw(name("a"), first.id);
    let moved = bench.applied("a", &[], &["10.0.0.7"]);
    assert_eq!(bench.take(moved), [withdrawal]);
    let again = bench.applied("a", &[], &["10.0.0.8"]);
    assert_eq!(bench.take(again), []);
    let withdrawn = Input::Written(name("a"), first.id, Written::Withdrawn);
    let second = only(&bench.take(withdrawn));
    assert_eq!(
        (second.ingress.as_slice(), second.version.as_str()),
        ([ip("10.0.0.8")].as_slice(), "30")
    );
    let withdrawal = Effect::Withdraw(name("a"), second.id);
    let deleted = bench.take(Input::Service(Change::Deleted(name("a"))));
    assert!(deleted.contains(&withdrawal));
    let withdrawn = Input::Written(name("a"), second.id, Written::Withdrawn);
    assert_eq!(bench.take(withdrawn), []);
}

#[test]
fn a_conflict_is_decided_again_when_the_watch_tells_why() {
    let mut bench = Bench::started("10.0.0.0/24");
    let service = bench.applied("a", &[], &[]);
    let first = only(&bench.take(service));
    let conflict = Input::Written(first.name.clone(), first.id, Written::Conflict);
    assert!(bench.take(conflict).is_empty());
    let newer = bench.applied("a", &[], &[]);
    let second = only(&bench.take(newer));
    assert_eq!(second.ingress, first.ingress, "the address stays the same");
    assert_eq!(second.version, "20");
}

#[test]
fn a_conflict_of_which_no_watch_tells_is_decided_again_in_the_end() {
    let mut bench = Bench::started("10.0.0.0/24");
    let service = bench.applied("a", &[], &[]);
    let first = only(&bench.take(service));
    let conflict = |write: &Write| Input::Written(write.name.clone(), write.id, Written::Conflict);
    assert!(bench.take(conflict(&first)).is_empty());
    let start = Instant::now();
    assert!(bench.reconciler.tick(start).is_empty());
    assert_eq!(bench.reconciler.next_deadline(), Some(start + OVERDUE));
    let second = only(&bench.reconciler.tick(start + OVERDUE));
    assert_eq!(second.ingress, first.ingress);
    assert_eq!(bench.reconciler.next_deadline(), None);
    // Nothing is waited for any more once the watch has told.
    assert!(bench.take(conflict(&second)).is_empty());
    let newer = bench.applied("a", &[], &[]);
    let third = only(&bench.take(newer));
    bench.reconciler.tick(start + OVERDUE);
    assert_eq!(bench.reconciler.next_deadline(), None);
    assert!(bench.done(&third).is_empty());
}

#[test]
fn a_failed_write_is_tried_again_with_the_same_address() {
    let mut bench = Bench::started("10.0.0.0/24");
    let service = bench.applied("a", &[], &[]);
    let first = only(&bench.take(service));
    let again = only(&bench.take(Input::Written(
        first.name.clone(),
        first.id,
        Written::Failed,
    )));
    assert_eq!((again.ingress, again.failures), (first.ingress, 1));
}

#[test]
fn what_the_watch_tells_from_before_our_own_write_is_the_past() {
    let mut bench = Bench::started("10.0.0.0/24");
    let service = bench.applied("a", &[], &[]);
    let write = only(&bench.take(service));
    bench.done(&write);
    // An edit of a label made before our write: the watch tells it after we know of our write.
    let stale = Bench::told("a", &[], &[], bench.version - 5);
    assert!(bench.take(stale).is_empty());
    let caught_up = Bench::told("a", &["10.0.0.0"], &[], bench.version);
    assert!(bench.take(caught_up).is_empty());
    // From here on the watch is believed whatever it tells: versions may start anew.
    let emptied = Bench::told("a", &[], &[], 1);
    assert_eq!(only(&bench.take(emptied)).ingress, [ip("10.0.0.0")]);
}

#[test]
fn the_end_of_a_former_services_write_says_nothing_about_its_namesake() {
    let mut bench = Bench::started("10.0.0.0/24");
    let service = bench.applied("a", &[], &[]);
    let former = only(&bench.take(service));
    bench.take(Input::Service(Change::Deleted(name("a"))));
    let namesake = bench.applied("a", &[], &[]);
    let own = only(&bench.take(namesake));
    let end = Input::Written(former.name.clone(), former.id, Written::Conflict);
    assert!(bench.take(end).is_empty());
    let changed = bench.applied("a", &[], &["10.0.0.9"]);
    assert!(
        writes(&bench.take(changed)).is_empty(),
        "its own write is still under way"
    );
    assert_eq!(only(&bench.done(&own)).ingress, [ip("10.0.0.9")]);
}

#[test]
fn a_deleted_service_serves_the_one_that_waits() {
    let mut bench = Bench::started("10.0.0.1/32");
    let holder = bench.applied("a", &["10.0.0.1"], &[]);
    bench.take(holder);
    let waiting = bench.applied("b", &[], &[]);
    assert_eq!(reasons(&bench.take(waiting)), ["AllocationFailed"]);
    let effects = bench.take(Input::Service(Change::Deleted(name("a"))));
    assert_eq!(only(&effects).name, name("b"));
    assert_eq!(reasons(&effects), ["IPAllocated"]);
}

#[test]
fn an_edit_that_does_not_fit_is_told_once_and_taken_up_when_it_does() {
    let mut bench = Bench::started("10.0.0.1/32");
    let holder = bench.applied("a", &["10.0.0.1"], &[]);
    bench.take(holder);
    let effects = bench.take(Input::Config(pool("10.0.0.2/32"), objects()));
    assert_eq!(reasons(&effects), ["ConfigurationRefused"]);
    assert_eq!(bench.metrics.config_stale.get(), 1);
    // Another Service lets go of something else: tried again, in silence.
    let other = bench.applied("b", &[], &[]);
    bench.take(other);
    let effects = bench.take(Input::Service(Change::Deleted(name("b"))));
    assert!(reasons(&effects).is_empty(), "{effects:?}");
    let effects = bench.take(Input::Service(Change::Deleted(name("a"))));
    assert_eq!(reasons(&effects), ["ConfigurationAccepted"]);
    assert_eq!(bench.metrics.config_stale.get(), 0);
}

#[test]
fn a_refusal_is_told_again_when_the_bad_document_comes_back() {
    let mut bench = Bench::started("10.0.0.1/32");
    assert_eq!(
        reasons(&bench.take(Input::Config(bad(), objects()))),
        ["ConfigurationRefused"]
    );
    assert!(
        bench
            .take(Input::Config(Source::Absent, objects()))
            .is_empty()
    );
    assert_eq!(
        reasons(&bench.take(Input::Config(bad(), objects()))),
        ["ConfigurationRefused"]
    );
    let repaired = bench.take(Input::Config(pool("10.0.0.1/32"), objects()));
    assert_eq!(reasons(&repaired), ["ConfigurationAccepted"]);
}

#[test]
fn anothers_service_is_left_alone() {
    let mut bench = Bench::started("10.0.0.1/32");
    let theirs = Input::Service(Change::Applied(
        name("theirs"),
        Seen {
            request: None,
            uid: None,
            version: "5".to_owned(),
            conditions: Vec::new(),
        },
    ));
    assert!(bench.take(theirs).is_empty());
}

#[test]
fn a_foreign_holder_is_a_condition_of_the_service_until_it_is_gone() {
    let mut bench = Bench::started("10.0.0.1/32");
    let service = bench.applied("a", &[], &[]);
    let given = writes(&bench.take(service)).remove(0);
    assert!(given.due.is_none());
    bench.done(&given);
    let told = |mac: Option<&str>| {
        let mac = mac.map(|mac| (ip("10.0.0.1"), mac.to_owned()));
        let speaker = ObjectName::new("metallb-system", "speaker-n1");
        Input::Strangers(Change::Applied(speaker, mac.into_iter().collect()))
    };
    let conflict = writes(&bench.take(told(Some("02:00:00:00:00:09")))).remove(0);
    // The addresses are as they were.
    assert_eq!(conflict.ingress, [ip("10.0.0.1")]);
    let due = conflict.due.clone().expect("a condition");
    let said = due.conditions(Timestamp::UNIX_EPOCH);
    assert_eq!((said.len(), said[0].status.as_str()), (1, "True"));
    assert!(bench.done(&conflict).is_empty());
    assert!(bench.take(told(Some("02:00:00:00:00:09"))).is_empty());
    let ended = writes(&bench.take(told(None))).remove(0);
    let due = ended.due.clone().expect("its end");
    assert_eq!(due.conditions(Timestamp::UNIX_EPOCH)[0].status, "False");
    assert!(bench.done(&ended).is_empty());
}

/// API servers before 1.20 drop conditions of Services without a word.
#[test]
fn a_condition_that_does_not_stay_is_written_once() {
    let mut bench = Bench::started("10.0.0.1/32");
    let service = bench.applied("a", &[], &[]);
    let given = only(&bench.take(service));
    bench.done(&given);
    let told = |mac: &str| {
        let strangers = [(ip("10.0.0.1"), mac.to_owned())];
        let speaker = ObjectName::new("metallb-system", "speaker-n1");
        Input::Strangers(Change::Applied(speaker, strangers.into()))
    };
    let conflict = only(&bench.take(told("02:00:00:00:00:09")));
    assert!(bench.done_in_vain(&conflict).is_empty());
    let service = bench.applied("a", &["10.0.0.1"], &[]);
    assert!(bench.take(service).is_empty());
    // Something else is said.
    only(&bench.take(told("02:00:00:00:00:0a")));
}
