//! Planned moves of one, a hundred and a thousand addresses at once, whatever sets them off; and taking back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::scenarios::{calm, fine, holder};
use super::world::{Act, MS, Run, S, Setup, Time, World, address};
use crate::{Cause, Failback, Profile};

fn busy(addresses: usize) -> Setup {
    Setup {
        addresses,
        same_order: true,
        hosts: 0,
        ..Setup::default()
    }
}

/// Hands all addresses of node 0 to node 1, with requests every millisecond: how long until the last is let go. The
/// hardware address in the answers changes once for each, there is never another nor none, and requests see the same.
fn move_all(addresses: usize, seed: u64, set_off: impl Fn(&mut World, Time)) -> Time {
    let mut world = calm(busy(addresses), seed);
    let at = world.now + 50 * MS;
    world.setup.client_every = MS;
    // A thousand times a thousand requests a second would take the test a minute.
    world.setup.client_burst = if addresses > 100 { 10 } else { 100 };
    world.checks.record = true;
    set_off(&mut world, at);
    world.run_until(at + 500 * MS);
    fine(&world);
    let macs = [world.stations[0].mac, world.stations[1].mac];
    let only: BTreeSet<_> = [macs[1]].into();
    let mut last = 0;
    for index in 0..addresses {
        let address = address(index);
        let changes: Vec<_> = world.checks.served[&address].iter().collect();
        assert_eq!(changes.len(), 1, "seed {seed} {address}: {changes:?}");
        assert_eq!(changes[0].1, only);
        let gone = world
            .checks
            .released
            .iter()
            .find(|(when, station, which, _)| *when >= at && *station == 0 && *which == address);
        last = last.max(gone.unwrap_or_else(|| panic!("{address} is not let go")).0);
    }
    for index in 0..addresses.min(100) {
        let of_it: Vec<_> = world
            .checks
            .answers
            .iter()
            .filter(|answer| answer.at > at - 10 * MS && answer.address == address(index))
            .collect();
        let mut order: Vec<_> = of_it.iter().map(|answer| answer.mac).collect();
        order.dedup();
        // Of a thousand, not each was asked for both before and after.
        let well = order == macs || addresses > 100 && order.len() < 2;
        assert!(well, "seed {seed}: {order:?}");
        // Where each is asked for every millisecond.
        let gaps = of_it.windows(2).map(|pair| pair[1].at - pair[0].at);
        assert!(addresses > 100 || gaps.max() < Some(5 * MS), "seed {seed}");
    }
    last - at
}

fn move_some(name: &str, set_off: impl Fn(&mut World, Time)) {
    for (addresses, seeds) in [(1, 10), (100, 3), (1000, 1)] {
        let longest = (0..seeds)
            .map(|seed| move_all(addresses, seed, &set_off))
            .max();
        let longest = longest.unwrap_or(0);
        println!("{name}: {addresses} addresses in {longest} µs");
        assert!(longest < 500 * MS, "{longest}");
    }
}

#[test]
fn a_stop_hands_all_over() {
    move_some("stop", |world, at| world.act(at, Act::Stop(0)));
}

#[test]
fn a_wish_moves_all() {
    move_some("move", |world, at| {
        for index in 0..world.setup.addresses {
            world.act(at, Act::Move(address(index), Some(1)));
        }
    });
}

#[test]
fn a_node_that_is_to_leave_hands_all_over() {
    move_some("not willing", |world, at| {
        for index in 0..world.setup.addresses {
            let lags = vec![0, 20 * MS, 40 * MS];
            world.act(at, Act::View(address(index), vec![1, 2, 0], 2, lags));
        }
    });
}

#[test]
fn a_node_that_may_not_any_more_hands_all_over() {
    move_some("endpoint moved", |world, at| {
        for index in 0..world.setup.addresses {
            let lags = vec![0, 30 * MS, 20 * MS];
            world.act(at, Act::View(address(index), vec![1], 1, lags));
        }
    });
}

#[test]
fn who_may_not_any_more_is_silent_after_a_second_with_and_without_an_heir() {
    for (order, lag) in [(vec![1], 3 * S), (vec![2], 0)] {
        let mut world = calm(busy(3), 1);
        world.act(world.now, Act::Run(2, Run::Killed));
        world.run_until(world.now + S);
        let at = world.now;
        world.checks.bounds.none = 9 * S;
        for index in 0..3 {
            let lags = vec![0, lag, 0];
            world.act(at, Act::View(address(index), order.clone(), 1, lags));
        }
        world.run_until(at + 1050 * MS);
        fine(&world);
        assert!(world.stations[0].table.is_empty());
    }
}

#[test]
fn sticky_is_never_taken_back() {
    let profile = Profile {
        failback: Failback::Never,
        ..Profile::DEFAULT
    };
    let mut world = calm(Setup { profile, ..busy(2) }, 1);
    world.act(world.now, Act::Run(0, Run::Off));
    world.act(world.now + 2 * S, Act::Run(0, Run::On));
    world.run_until(world.now + 700 * S);
    fine(&world);
    assert_eq!(holder(&world), 1);
    world.act(world.now, Act::Run(1, Run::Off));
    world.run_until(world.now + S);
    assert_eq!(holder(&world), 0);
}

/// How long after each return of the better node it has its address back.
fn taken_back(failback: Failback, returns: usize) -> Vec<Time> {
    let profile = Profile {
        failback,
        calm: Duration::ZERO,
        ..Profile::DEFAULT
    };
    let mut world = calm(
        Setup {
            profile,
            addresses: 1,
            client_every: 50 * MS,
            ..busy(1)
        },
        1,
    );
    // Asking for what is refused.
    world.checks.restless = true;
    let mut waits = Vec::new();
    for _ in 0..returns {
        world.act(world.now, Act::Run(0, Run::Off));
        world.run_until(world.now + 2 * S);
        assert_eq!(holder(&world), 1);
        let at = world.now;
        world.act(at, Act::Run(0, Run::On));
        while world.stations[1].table.contains_key(&address(0)) && world.now < at + 4000 * S {
            world.run_until(world.now + 50 * MS);
        }
        world.run_until(world.now + S);
        fine(&world);
        assert_eq!(holder(&world), 0);
        waits.push(world.now - at - S);
        let (_, _, _, cause) = world.checks.took[world.checks.took.len() - 1];
        assert_eq!(cause, Cause::Failback);
    }
    waits
}

#[test]
fn at_once_is_at_once_the_first_time() {
    let waits = taken_back(Failback::After(Duration::ZERO), 1);
    assert!(waits[0] < 1500 * MS, "{waits:?}");
}

#[test]
fn who_comes_and_goes_waits_longer_each_time() {
    for failback in [0, 2] {
        let waits = taken_back(Failback::After(Duration::from_secs(failback)), 5);
        println!("taken back after {waits:?} µs");
        assert!(waits[0] < failback * S + 1500 * MS, "{waits:?}");
        for (turn, wait) in waits.iter().enumerate().skip(1) {
            let least = (10 * S) << turn;
            assert!((least..2 * least + 20 * S).contains(wait), "{waits:?}");
        }
    }
}

/// The watch's question may cross with Ready and Go: the hand-over goes on, and nobody answers with the old address again.
#[test]
fn a_question_in_passing_does_not_break_a_hand_over_off() {
    for seed in 0..400 {
        let mut world = calm(busy(1), seed);
        // Clients ask before it moves, too.
        let at = world.now + 50 * MS + seed * 250;
        let macs = [world.stations[0].mac, world.stations[1].mac];
        world.checks.record = true;
        world.setup.client_every = MS;
        world.act(at, Act::Move(address(0), Some(1)));
        world.run_until(at + 300 * MS);
        fine(&world);
        let mut order: Vec<_> = world
            .checks
            .answers
            .iter()
            .map(|answer| answer.mac)
            .collect();
        order.dedup();
        assert_eq!(order, macs, "seed {seed}");
    }
}
