//! Somebody who is none of ours has an address.

use super::scenarios::{calm, fine, holder, holders, world};
use super::world::{Act, MS, Run, S, Setup, World, address};
use crate::{Cause, Report};

fn setup() -> Setup {
    Setup {
        addresses: 1,
        same_order: true,
        ..Setup::default()
    }
}

fn told(world: &World, gone: bool) -> Vec<(u64, usize)> {
    let of_kind = |report: &Report| matches!(report, Report::StrangerGone { .. }) == gone;
    let told = world.checks.strangers.iter();
    told.filter(|(_, _, report)| of_kind(report))
        .map(|(at, station, _)| (*at, *station))
        .collect()
}

#[test]
fn an_address_a_stranger_has_is_taken_when_it_is_gone() {
    for seed in 0..10 {
        let mut world = world(setup(), seed);
        world.checks.bounds.none = 60 * S;
        world.checks.restless = true;
        world.strangers.insert(address(0));
        world.run_until(30 * S);
        fine(&world);
        assert_eq!(holders(&world), [0; 0], "seed {seed}");
        let times: Vec<_> = told(&world, false)
            .into_iter()
            .filter(|(_, station)| *station == 0)
            .collect();
        // Every 5 s.
        assert!((5..=7).contains(&times.len()), "{times:?}");
        assert!(told(&world, true).is_empty());
        world.act(world.now, Act::Stranger(address(0), false));
        world.run_until(world.now + 5300 * MS);
        assert_eq!(holder(&world), 0);
        world.run_until(world.now + S);
        let mut told_of: Vec<usize> = told(&world, false).iter().map(|told| told.1).collect();
        let mut gone: Vec<usize> = told(&world, true).iter().map(|told| told.1).collect();
        told_of.sort_unstable();
        told_of.dedup();
        gone.sort_unstable();
        assert_eq!(
            gone, told_of,
            "each that told of it tells once that it is gone"
        );
    }
}

#[test]
fn what_is_held_is_defended_once_in_ten_seconds_until_the_stranger_is_gone() {
    for seed in 0..10 {
        let mut world = calm(setup(), seed);
        let at = world.now;
        world.checks.restless = true;
        world.act(at, Act::Stranger(address(0), true));
        for second in 0..30 {
            world.act(at + second * S, Act::StrangerClaims(address(0)));
        }
        world.run_until(at + 30 * S);
        fine(&world);
        assert_eq!(holder(&world), 0);
        let reports = told(&world, false);
        assert!(reports.iter().all(|(_, station)| *station == 0));
        assert_eq!(reports.len(), 3, "{reports:?}");
        // It claims no more and still answers: it is still there.
        world.run_until(at + 70 * S);
        assert!(told(&world, true).is_empty());
        assert!(told(&world, false).len() >= 5, "{:?}", told(&world, false));
        world.act(world.now, Act::Stranger(address(0), false));
        world.run_until(world.now + 45 * S);
        fine(&world);
        assert_eq!(told(&world, true).len(), 1);
        assert_eq!((holder(&world), world.checks.took.len()), (0, 1));
    }
}

#[test]
fn a_stranger_that_answers_single_hosts_is_found_while_the_address_is_held() {
    for (addresses, seed) in (0..10).map(|seed| (1 + seed as usize % 3, seed)) {
        let several = Setup {
            addresses,
            ..setup()
        };
        let mut world = calm(several, seed);
        world.checks.restless = true;
        let (at, last) = (world.now, address(addresses - 1));
        world.act(at, Act::Stranger(last, true));
        // Each of what is held is asked for in turn, one a second.
        world.run_until(at + addresses as u64 * S + 300 * MS);
        fine(&world);
        let holds = |station: usize| world.stations[station].table.contains_key(&last);
        let reports = told(&world, false);
        assert!(!reports.is_empty(), "seed {seed}");
        assert!(reports.iter().all(|(_, station)| holds(*station)));
        world.act(world.now, Act::Stranger(last, false));
        world.run_until(world.now + 45 * S);
        fine(&world);
        assert_eq!(told(&world, true).len(), 1, "seed {seed}");
    }
}

#[test]
fn of_those_that_want_an_address_a_stranger_has_one_tells() {
    for seed in 0..10 {
        let mut world = world(setup(), seed);
        world.checks.bounds.none = 60 * S;
        world.checks.restless = true;
        world.strangers.insert(address(0));
        world.run_until(40 * S);
        let all = world.checks.strangers.iter();
        let speaking = all.filter(|(at, _, report)| {
            // Before they know each other all may think that they come first.
            *at > 2 * S && matches!(report, Report::Stranger { speaks: true, .. })
        });
        let mut speaking: Vec<usize> = speaking.map(|(_, station, _)| *station).collect();
        speaking.dedup();
        assert_eq!(speaking, [0], "seed {seed}");
    }
}

#[test]
fn a_stranger_is_known_for_one_although_another_node_was_never_seen() {
    for seed in 0..10 {
        let lonely = Setup {
            gossip: false,
            ..setup()
        };
        let mut world = world(lonely, seed);
        world.checks.bounds.none = 60 * S;
        world.checks.restless = true;
        world.strangers.insert(address(0));
        world.stations[2].carrier = false;
        world.act(60 * MS, Act::Run(2, Run::Off));
        world.run_until(20 * S);
        fine(&world);
        assert_eq!(holders(&world), [0; 0], "seed {seed}");
        assert!(!told(&world, false).is_empty());
    }
}

#[test]
fn what_one_of_us_held_is_taken_over_whoever_answers() {
    for seed in 0..10 {
        let mut world = calm(setup(), seed);
        let at = world.now;
        world.act(at, Act::Stranger(address(0), true));
        world.act(at + MS, Act::Run(0, Run::Off));
        world.run_until(at + 400 * MS);
        fine(&world);
        assert_eq!(holder(&world), 1);
        let (_, _, _, cause) = world.checks.took[1];
        assert_eq!(cause, Cause::HolderDown);
    }
}
