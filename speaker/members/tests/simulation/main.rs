//! Clusters of machines in virtual time. Every failure names its seed; the same seed is the same history.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod world;

use std::time::Duration;

use ferrolb_speaker_members::{Profile, Status};
use world::World;

const SECOND: Duration = Duration::from_secs(1);

/// When the last survivor must know of a death at the latest. Each survivor meets the victim within two rounds less one
/// place, the probe takes an interval, and with every survivor's confirmation the suspicion lasts its least; a second
/// for the gossip.
fn bound(nodes: u32, least_suspicion: Duration) -> Duration {
    SECOND * (2 * (nodes - 1)) + SECOND + least_suspicion + SECOND
}

#[test]
fn a_killed_node_is_declared_dead_within_the_bound() {
    for (nodes, least, typical) in [
        (2, 4.0, 7.0),
        (3, 4.0, 7.5),
        (5, 4.0, 7.5),
        (10, 4.0, 8.0),
        (30, 5.9, 10.0),
    ] {
        let mut times: Vec<Duration> = (0..20)
            .map(|seed| {
                let mut world = World::joined(nodes, &Profile::lan(), seed);
                let started = world.now;
                world.kill(1);
                let bound = bound(
                    u32::try_from(nodes).unwrap(),
                    Duration::from_secs_f64(least),
                );
                assert!(
                    world.run_until(started + bound, |world| world.all_say(1, Status::Dead)),
                    "{nodes} nodes, seed {seed}: not all know after {bound:?}"
                );
                let time = world.now - started;
                assert!(
                    time.as_secs_f64() > least,
                    "nobody may be given up before he could protest"
                );
                time
            })
            .collect();
        times.sort();
        let median = times[times.len() / 2];
        println!(
            "{nodes} nodes: {:?} to {:?}, median {median:?}",
            times[0],
            times[times.len() - 1]
        );
        assert!(
            median.as_secs_f64() < typical,
            "{nodes} nodes: median {median:?}"
        );
    }
}

#[test]
fn a_hundred_nodes_converge_and_agree_on_a_death() {
    let mut world = World::new(100, &Profile::lan(), 7);
    world.everyone_joins_the_first();
    assert!(world.run_until(world.now + 10 * SECOND, World::converged));
    world.kill(50);
    let started = world.now;
    assert!(world.run_until(started + 40 * SECOND, |world| {
        world.all_say(50, Status::Dead)
    }));
    println!("100 nodes: {:?}", world.now - started);
}

#[test]
fn losing_every_tenth_packet_kills_nobody() {
    for seed in 0..5 {
        let mut world = World::joined(8, &Profile::lan(), seed);
        world.loss = 100;
        world.run(300 * SECOND);
        for node in &world.nodes {
            let dead = node
                .verdicts
                .iter()
                .find(|(_, _, status)| *status == Status::Dead);
            assert_eq!(dead, None, "seed {seed}, {}", node.name);
        }
        world.loss = 0;
        assert!(
            world.run_until(world.now + 30 * SECOND, World::converged),
            "seed {seed}"
        );
    }
}

#[test]
fn a_false_suspicion_is_refuted_before_it_does_harm() {
    for seed in 0..20 {
        let mut world = World::joined(6, &Profile::lan(), seed);
        let before = world.nodes[0].verdicts.len();
        world.suspect_falsely(0, 3);
        assert_eq!(world.status(0, 3), Some(Status::Suspect));
        assert!(
            world.run_until(world.now + 4 * SECOND, World::converged),
            "seed {seed}: not refuted"
        );
        let after: Vec<Status> = world.nodes[0].verdicts[before..]
            .iter()
            .map(|v| v.2)
            .collect();
        assert_eq!(after, [Status::Suspect, Status::Alive], "seed {seed}");
    }
}

#[test]
fn both_sides_of_a_partition_lose_each_other_and_find_together_again() {
    for seed in 0..10 {
        let mut world = World::joined(7, &Profile::lan(), seed);
        world.side = vec![0, 0, 0, 1, 1, 1, 1];
        let split = |world: &World| {
            (0..7).all(|at| {
                (0..7).all(|of| {
                    let expected = if world.side[at] == world.side[of] {
                        Status::Alive
                    } else {
                        Status::Dead
                    };
                    world.status(at, of).is_none_or(|status| status == expected)
                })
            })
        };
        assert!(
            world.run_until(world.now + 90 * SECOND, split),
            "seed {seed}: no split"
        );
        world.side = vec![0; 7];
        world.everyone_joins();
        assert!(
            world.run_until(world.now + 5 * SECOND, World::converged),
            "seed {seed}: not healed"
        );
    }
}

#[test]
fn a_farewell_is_no_death_and_reaches_all_at_once() {
    for seed in 0..10 {
        let mut world = World::joined(20, &Profile::lan(), seed);
        world.leave(4);
        let limit = world.now + Duration::from_millis(10);
        assert!(
            world.run_until(limit, |world| world.all_say(4, Status::Left)),
            "seed {seed}"
        );
        assert!(world.run_until(world.now + SECOND, |world| {
            world.nodes[4].machine.has_left(world.now)
        }));
        world.kill(4);
        world.run(30 * SECOND);
        assert!(world.converged(), "seed {seed}");
        let dead = world
            .nodes
            .iter()
            .flat_map(|node| &node.verdicts)
            .find(|v| v.2 == Status::Dead);
        assert_eq!(dead, None, "seed {seed}");
    }
}

#[test]
fn a_paused_node_blames_nobody_and_comes_back() {
    for (seed, kept) in (0..20).flat_map(|seed| [(seed, true), (seed, false)]) {
        let mut world = World::joined(5, &Profile::lan(), seed);
        // Something is under way when it stops: a suspicion, a probe.
        world.suspect_falsely(2, 3);
        let before = world.nodes[2].verdicts.len();
        world.pause(2);
        // Longer than that suspicion lasts while nobody confirms it.
        world.run(30 * SECOND);
        world.resume(2, kept);
        // At the latest by the next exchange of everything.
        let limit = world.now + 70 * SECOND;
        assert!(
            world.run_until(limit, World::converged),
            "seed {seed}: not back"
        );
        let dead = world.nodes[2].verdicts[before..]
            .iter()
            .find(|verdict| verdict.2 == Status::Dead);
        assert_eq!(dead, None, "seed {seed}, packets kept: {kept}");
    }
}

#[test]
fn two_nodes_that_cannot_hear_each_other_are_vouched_for_by_a_third() {
    let mut world = World::joined(3, &Profile::lan(), 3);
    world.cut = Some((0, 1));
    world.run(120 * SECOND);
    let doubt = world
        .nodes
        .iter()
        .flat_map(|node| &node.verdicts)
        .find(|verdict| verdict.2 != Status::Alive);
    assert_eq!(doubt, None);
}

#[test]
fn a_node_that_cannot_be_reached_by_udp_lives_by_tcp() {
    let mut world = World::joined(4, &Profile::lan(), 3);
    world.loss = 1000;
    world.run(60 * SECOND);
    let dead = world
        .nodes
        .iter()
        .flat_map(|node| &node.verdicts)
        .find(|v| v.2 != Status::Alive);
    assert_eq!(dead, None);
}

#[test]
fn of_four_the_second_to_die_is_missed_no_longer_than_the_first() {
    for seed in 0..20 {
        let mut world = World::joined(4, &Profile::lan(), seed);
        for victim in [3, 2] {
            let started = world.now;
            world.kill(victim);
            // Two rounds of probes at most, the probe, the suspicion, the gossip.
            let limit = bound(4, 4 * SECOND);
            assert!(
                world.run_until(started + limit, |world| world.all_say(victim, Status::Dead)),
                "seed {seed}: {victim} is not dead after {limit:?}"
            );
        }
    }
}

#[test]
fn a_death_elsewhere_is_no_reason_to_doubt_ourselves() {
    for seed in 0..10 {
        let mut world = World::joined(6, &Profile::lan(), seed);
        world.kill(5);
        assert!(world.run_until(world.now + 20 * SECOND, |world| {
            let healthy = (0..5).all(|at| world.nodes[at].machine.health_score() == 0);
            assert!(healthy, "seed {seed}: the helpers' nacks come too late");
            world.all_say(5, Status::Dead)
        }));
    }
}
