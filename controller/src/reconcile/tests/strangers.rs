//! What follows where hosts outside the cluster have addresses.

use std::time::{Duration, Instant};

use super::*;
use crate::args::OnConflict;

const MINUTE: Duration = Duration::from_mins(1);
const HOST: &str = "02:00:00:00:00:09";

impl Bench {
    fn reassign(self) -> Self {
        let reconciler = self.reconciler.on_conflict(OnConflict::Reassign);
        Self { reconciler, ..self }
    }
}

/// A controller that moves Services, with this configuration.
fn reassigning(addresses: &str) -> Bench {
    Bench::started(addresses).reassign()
}

/// What one speaker says: the address that a host has.
fn met(address: Option<&str>) -> Input {
    let met = address.map(|address| (ip(address), HOST.to_owned()));
    let speaker = ObjectName::new("metallb-system", "speaker-n1");
    Input::Strangers(Change::Applied(speaker, met.into_iter().collect()))
}

/// A Service that got its address by itself, or asked for it.
fn given(bench: &mut Bench, service: &str, desired: &[&str]) -> Vec<IpAddr> {
    let applied = bench.applied(service, &[], desired);
    let write = only(&bench.take(applied));
    assert!(bench.done(&write).is_empty());
    write.ingress
}

/// The end of what is under way of the one Service that is written.
fn finish(bench: &mut Bench, effects: &[Effect]) -> Vec<Effect> {
    let write = only(effects);
    bench.done(&write)
}

#[test]
fn a_service_is_moved_off_a_strangers_address_and_the_address_rests() {
    let mut bench = reassigning("10.0.0.1-10.0.0.3");
    let start = Instant::now();
    assert_eq!(given(&mut bench, "a", &[]), [ip("10.0.0.1")]);
    let said = bench.take(met(Some("10.0.0.1")));
    assert!(
        writes(&bench.reconciler.tick(start)).is_empty(),
        "a write is under way"
    );
    // The condition first, as it came first; then the move.
    let moved = finish(&mut bench, &said);
    assert_eq!(reasons(&moved), ["AddressReassigned"]);
    let write = only(&moved);
    assert_eq!(write.ingress, [ip("10.0.0.2")]);
    let ended = write.due.clone().expect("an end");
    let ended = ended.conditions(Timestamp::UNIX_EPOCH);
    assert_eq!(ended[0].status, "False");
    assert!(bench.done(&write).is_empty());
    // Nobody asks any more, so nobody reports. Others get other addresses, until there are no others.
    assert!(bench.take(met(None)).is_empty());
    bench.reconciler.tick(start + MINUTE);
    assert_eq!(given(&mut bench, "b", &[]), [ip("10.0.0.3")]);
    assert_eq!(given(&mut bench, "c", &[]), [ip("10.0.0.1")]);
    // It is forgotten in the end.
    bench.take(Input::Service(Change::Deleted(name("b"))));
    bench.take(Input::Service(Change::Deleted(name("c"))));
    let due = bench.reconciler.next_deadline().expect("an end");
    bench.reconciler.tick(due);
    assert_eq!(bench.reconciler.next_deadline(), None);
    assert_eq!(given(&mut bench, "d", &[]), [ip("10.0.0.1")]);
}

#[test]
fn who_asked_for_the_address_stays_and_nobody_moves_unless_asked_to() {
    let start = Instant::now();
    let mut bench = reassigning("10.0.0.1-10.0.0.2");
    assert_eq!(given(&mut bench, "a", &["10.0.0.1"]), [ip("10.0.0.1")]);
    let said = bench.take(met(Some("10.0.0.1")));
    assert!(bench.reconciler.tick(start).is_empty());
    assert!(finish(&mut bench, &said).is_empty());
    assert!(bench.reconciler.tick(start + MINUTE).is_empty());

    let mut bench = Bench::started("10.0.0.1-10.0.0.3");
    assert_eq!(given(&mut bench, "a", &[]), [ip("10.0.0.1")]);
    let said = bench.take(met(Some("10.0.0.1")));
    assert!(bench.reconciler.tick(start).is_empty());
    assert!(finish(&mut bench, &said).is_empty());
    assert!(bench.reconciler.tick(start + MINUTE).is_empty());
    // A new one is given another all the same.
    bench.take(Input::Service(Change::Deleted(name("a"))));
    assert_eq!(given(&mut bench, "b", &[]), [ip("10.0.0.2")]);
}

#[test]
fn who_finds_no_other_address_says_so_and_moves_when_there_is_one() {
    let mut bench = reassigning("10.0.0.1-10.0.0.2");
    let start = Instant::now();
    given(&mut bench, "a", &[]);
    given(&mut bench, "b", &[]);
    let said = bench.take(met(Some("10.0.0.1")));
    bench.reconciler.tick(start);
    let stays = finish(&mut bench, &said);
    assert_eq!(reasons(&stays), ["AddressNotReassigned"]);
    assert!(writes(&stays).is_empty());
    let moved = bench.take(Input::Service(Change::Deleted(name("b"))));
    assert_eq!(only(&moved).ingress, [ip("10.0.0.2")]);
    assert_eq!(reasons(&moved), ["AddressReassigned"]);
}

#[test]
fn a_service_is_moved_once_a_minute() {
    let mut bench = reassigning("10.0.0.1-10.0.0.4");
    let start = Instant::now();
    given(&mut bench, "a", &[]);
    for (now, next, at) in [
        (start, "10.0.0.1", "10.0.0.2"),
        (start + MINUTE, "10.0.0.2", "10.0.0.3"),
    ] {
        let said = bench.take(met(Some(next)));
        assert!(finish(&mut bench, &said).is_empty());
        if now > start {
            // The host follows at once.
            assert!(
                bench
                    .reconciler
                    .tick(start + Duration::from_secs(1))
                    .is_empty()
            );
            assert_eq!(bench.reconciler.next_deadline(), Some(now));
        }
        let moved = bench.reconciler.tick(now);
        assert_eq!(only(&moved).ingress, [ip(at)]);
        finish(&mut bench, &moved);
    }
}

#[test]
fn what_was_reported_to_the_process_before_counts_from_the_start() {
    let mut bench = bench().reassign();
    bench.take(Input::Node(Change::Synced));
    bench.take(Input::Namespace(Change::Synced));
    let held = bench.applied("a", &["10.0.0.1"], &[]);
    bench.take(held);
    let new = bench.applied("b", &[], &[]);
    bench.take(new);
    bench.take(Input::Service(Change::Synced));
    bench.take(Input::Config(pool("10.0.0.1-10.0.0.4"), objects()));
    assert!(!bench.reconciler.core.configured());
    assert!(bench.take(met(Some("10.0.0.1"))).is_empty());
    let started = bench.take(Input::Strangers(Change::Synced));
    let given: Vec<_> = writes(&started);
    let new = given.iter().find(|write| write.name == name("b")).unwrap();
    assert_eq!(new.ingress, [ip("10.0.0.2")]);
    // The condition, then the move.
    let condition = given.iter().find(|write| write.name == name("a")).unwrap();
    assert_eq!(condition.ingress, [ip("10.0.0.1")]);
    bench.done(condition);
    let moved = bench.reconciler.tick(Instant::now());
    assert_eq!(only(&moved).ingress, [ip("10.0.0.3")]);
}

#[test]
fn a_speaker_that_falls_silent_ends_no_conflict_but_lets_the_address_rest() {
    let mut bench = reassigning("10.0.0.1-10.0.0.2");
    let start = Instant::now();
    given(&mut bench, "a", &["10.0.0.1"]);
    let said = bench.take(met(Some("10.0.0.1")));
    assert!(finish(&mut bench, &said).is_empty());
    // Its pod is replaced: its state goes with it.
    let speaker = ObjectName::new("metallb-system", "speaker-n1");
    assert!(
        bench
            .take(Input::Strangers(Change::Deleted(speaker)))
            .is_empty()
    );
    assert!(bench.reconciler.tick(start).is_empty());
    let due = bench.reconciler.next_deadline().expect("an end");
    let ended = bench.reconciler.tick(due);
    let ended = only(&ended).due.expect("an end");
    assert_eq!(ended.conditions(Timestamp::UNIX_EPOCH)[0].status, "False");
    bench.take(Input::Service(Change::Deleted(name("a"))));
    assert_eq!(given(&mut bench, "b", &[]), [ip("10.0.0.2")]);
}
