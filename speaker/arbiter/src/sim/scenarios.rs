//! One thing at a time, with tight bounds.

use std::time::Duration;

use super::world::{Act, MS, Run, S, Setup, Time, World, address};
use crate::mutation::Mutation;
use crate::{Cause, Failback, Profile};

pub fn world(setup: Setup, seed: u64) -> World {
    let mut world = World::new(setup, seed);
    world.checks.trace = std::env::var_os("SIM_TRACE").is_some();
    world
}

pub fn calm(setup: Setup, seed: u64) -> World {
    let mut world = world(setup, seed);
    world.run_until(6 * S);
    world
}

pub fn fine(world: &World) {
    if let Err(violation) = world.checks.outcome() {
        panic!("{violation}");
    }
}

pub fn holders(world: &World) -> Vec<usize> {
    (0..world.stations.len())
        .filter(|station| {
            world.effective(*station) && world.stations[*station].table.contains_key(&address(0))
        })
        .collect()
}

pub fn holder(world: &World) -> usize {
    let holders = holders(world);
    assert_eq!(
        holders.len(),
        1,
        "{holders:?} at {} {}",
        world.now / MS,
        world.checks.log()
    );
    holders[0]
}

/// What happened to the first address after a time: when it was taken, by whom.
pub fn taken(world: &World, after: Time) -> Vec<(Time, usize, Cause)> {
    let took = world.checks.took.iter();
    took.filter(|(at, _, which, _)| *at > after && *which == address(0))
        .map(|(at, station, _, cause)| (at - after, *station, *cause))
        .collect()
}

pub fn nodes(nodes: usize) -> Setup {
    Setup {
        nodes,
        ..Setup::default()
    }
}

#[test]
fn one_holds_each_address_and_rests() {
    for seed in 0..20 {
        let mut world = calm(Setup::default(), seed);
        fine(&world);
        assert_eq!(holder(&world), world.order[&address(0)][0]);
        world.run_until(30 * S);
        fine(&world);
        assert_eq!(world.checks.took.len(), 2);
    }
}

/// Loses the holder in some way: who takes over, and after how long.
fn lose(setup: Setup, seed: u64, how: impl Fn(usize) -> Act, within: Time) {
    let mut world = calm(setup, seed);
    let (old, at) = (holder(&world), world.now);
    world.act(at, how(old));
    world.run_until(at + 10 * S);
    fine(&world);
    let took = taken(&world, at);
    assert_eq!(took.len(), 1, "{took:?} seed {seed}");
    assert!(took[0].0 < within, "seed {seed}: {took:?}");
    assert_eq!(took[0].1, world.order[&address(0)][1]);
}

#[test]
fn a_node_without_power_is_replaced_in_320_ms() {
    for seed in 0..30 {
        lose(
            nodes(2 + seed as usize % 5),
            seed,
            |node| Act::Run(node, Run::Off),
            320 * MS,
        );
    }
}

#[test]
fn a_dead_speaker_is_replaced_in_450_ms() {
    for seed in 0..30 {
        lose(
            nodes(2 + seed as usize % 5),
            seed,
            |node| Act::Run(node, Run::Killed),
            450 * MS,
        );
    }
}

#[test]
fn a_lost_link_is_replaced_in_320_ms() {
    for seed in 0..30 {
        lose(
            nodes(2 + seed as usize % 5),
            seed,
            |node| Act::Carrier(node, false),
            320 * MS,
        );
    }
}

#[test]
fn a_node_that_cannot_speak_is_replaced_in_320_ms() {
    for seed in 0..30 {
        lose(
            nodes(2 + seed as usize % 5),
            seed,
            |node| Act::Tx(node, true),
            320 * MS,
        );
    }
}

#[test]
fn a_node_that_cannot_hear_is_replaced_in_450_ms() {
    for seed in 0..30 {
        lose(
            nodes(2 + seed as usize % 5),
            seed,
            |node| Act::Rx(node, true),
            450 * MS,
        );
    }
}

#[test]
fn the_fast_profile_replaces_a_node_in_150_ms() {
    for seed in 0..20 {
        let setup = Setup {
            profile: Profile::FAST,
            ..nodes(4)
        };
        lose(setup, seed, |node| Act::Run(node, Run::Off), 150 * MS);
    }
}

#[test]
fn the_quiet_profile_replaces_a_node_in_4_s() {
    for seed in 0..20 {
        let setup = Setup {
            profile: Profile::QUIET,
            ..nodes(4)
        };
        let mut world = calm(setup, seed);
        let (old, at) = (holder(&world), world.now);
        world.act(at, Act::Run(old, Run::Off));
        world.checks.bounds.none = 5 * S;
        world.run_until(at + 10 * S);
        fine(&world);
        assert!(taken(&world, at)[0].0 < 4 * S);
    }
}

#[test]
fn two_of_five_at_once_are_replaced_in_time() {
    for seed in 0..30 {
        let mut world = calm(nodes(5 + seed as usize % 4), seed);
        let at = world.now;
        let order = world.order[&address(0)].clone();
        for node in &order[..2] {
            world.act(at, Act::Run(*node, Run::Off));
        }
        world.run_until(at + 10 * S);
        fine(&world);
        let took = taken(&world, at);
        assert!(
            took.len() == 1 && took[0].0 < 340 * MS && took[0].1 == order[2],
            "seed {seed} {took:?}"
        );
    }
}

#[test]
fn two_nodes_on_a_silent_lan() {
    for seed in 0..30 {
        let setup = Setup {
            clients: false,
            gateway: seed % 2 == 0,
            ..nodes(2)
        };
        lose(setup, seed, |node| Act::Run(node, Run::Off), 320 * MS);
    }
}

/// Stands still and comes back: the other keeps the address, and soon only one answers.
fn stand_still(seed: u64, run: Run, long: Time) {
    let mut world = calm(nodes(2 + seed as usize % 4), seed);
    let (old, at) = (holder(&world), world.now);
    world.act(at, Act::Run(old, run));
    world.run_until(at + long);
    fine(&world);
    let new = holder(&world);
    assert_ne!(old, new);
    world.checks.longest_two = 0;
    world.act(at + long, Act::Run(old, Run::On));
    world.run_until(at + long + 10 * S);
    fine(&world);
    assert_eq!(holder(&world), new, "seed {seed}");
    let two = world.checks.longest_two;
    assert!(two < 260 * MS, "seed {seed}: two for {two}");
}

#[test]
fn a_frozen_speaker_comes_back_and_asks() {
    (0..20).for_each(|seed| stand_still(seed, Run::Stopped, 3 * S));
    (20..30).for_each(|seed| stand_still(seed, Run::Stopped, 15 * S));
}

#[test]
fn a_paused_machine_comes_back_with_its_clock() {
    (0..20).for_each(|seed| stand_still(seed, Run::Paused { clock: true }, 3 * S));
}

#[test]
fn a_paused_machine_comes_back_without_its_clock() {
    (0..20).for_each(|seed| stand_still(seed, Run::Paused { clock: false }, 3 * S));
    (20..30).for_each(|seed| stand_still(seed, Run::Paused { clock: false }, 15 * S));
}

/// All it was asked while it stood still it answers when it goes on; that is no reason to wait for it longer the next time.
#[test]
fn who_was_replaced_once_is_replaced_as_fast_again() {
    for seed in 0..30 {
        let mut world = calm(nodes(2 + seed as usize % 3), seed);
        let (at, order) = (world.now, world.order[&address(0)].clone());
        world.act(at, Act::Run(order[0], Run::Stopped));
        world.act(at + 2500 * MS, Act::Run(order[0], Run::On));
        world.act(at + 12 * S, Act::Run(order[1], Run::Stopped));
        world.act(at + 15 * S, Act::Run(order[1], Run::On));
        let at = at + 25 * S;
        world.run_until(at);
        assert_eq!(holder(&world), order[0]);
        world.act(at, Act::Run(order[0], Run::Killed));
        world.run_until(at + 10 * S);
        fine(&world);
        let took = taken(&world, at);
        assert!(
            took[0].0 < 450 * MS && took[0].1 == order[1],
            "seed {seed}: {took:?}"
        );
    }
}

/// Frames that waited for the one that stood still are no delay of those who sent them. 110 ms until the next probe at most,
/// 50 for its answer, 300 of patience.
#[test]
fn who_stood_still_is_not_more_patient_with_others_for_it() {
    for seed in 0..30 {
        let mut world = calm(nodes(2 + seed as usize % 3), seed);
        let (old, at) = (holder(&world), world.now);
        let heir = world.order[&address(0)][1];
        world.act(at, Act::Run(heir, Run::Stopped));
        world.act(at + 2500 * MS, Act::Run(heir, Run::On));
        let at = at + 20 * S;
        world.act(at, Act::Run(old, Run::Killed));
        world.run_until(at + 10 * S);
        fine(&world);
        let took = taken(&world, at);
        assert!(
            took[0].0 < 465 * MS && took[0].1 == heir,
            "seed {seed}: {took:?}"
        );
    }
}

#[test]
fn a_partition_has_one_on_each_side_and_one_after_healing() {
    for seed in 0..30 {
        let count = 2 + seed as usize % 5;
        let long = if seed % 3 == 0 { 20 * S } else { 3 * S };
        let mut world = calm(nodes(count), seed);
        let at = world.now;
        let split = 1 + world.random.below(count - 1);
        let sides = |cut: bool| {
            (0..count).flat_map(move |a| {
                (0..count)
                    .filter(move |b| (a < split) != (*b < split))
                    .map(move |b| Act::Cut(a, b, cut))
            })
        };
        sides(true).for_each(|act| world.act(at, act));
        world.run_until(at + long);
        fine(&world);
        assert_eq!(holders(&world).len(), 2, "seed {seed}");
        world.checks.longest_two = 0;
        sides(false).for_each(|act| world.act(at + long, act));
        world.run_until(at + long + 10 * S);
        fine(&world);
        holder(&world);
        assert!(
            world.checks.longest_two < S,
            "seed {seed} {}",
            world.checks.longest_two
        );
    }
}

#[test]
fn starved_is_not_dead() {
    for seed in 0..40 {
        let setup = Setup {
            loss: 10_000,
            ..nodes(2 + seed as usize % 4)
        };
        let mut world = calm(setup, seed);
        world.checks.harmless = Some(world.now);
        let at = world.now;
        for node in 0..world.nodes.len() {
            if world.random.chance(600_000) {
                let off = world.random.range(20 * MS, 230 * MS);
                let on = world.random.range(5 * MS, 100 * MS);
                world.act(at, Act::Throttle(node, Some((off, on))));
            }
        }
        world.run_until(at + 30 * S);
        fine(&world);
        assert_eq!(holder(&world), world.order[&address(0)][0]);
    }
}

/// A planned move: one change of hardware address in the answers, and no request without answer.
fn move_well(mut world: World, at: Time, old: usize, acts: Vec<Act>) -> World {
    world.checks.record = true;
    for act in acts {
        world.act(at + 100 * MS, act);
    }
    world.run_until(at + 3 * S);
    fine(&world);
    let answers: Vec<_> = world
        .checks
        .answers
        .iter()
        .filter(|answer| answer.address == address(0))
        .collect();
    let mut macs: Vec<_> = answers.iter().map(|answer| answer.mac).collect();
    macs.dedup();
    let new = holder(&world);
    assert_eq!(
        macs,
        [world.stations[old].mac, world.stations[new].mac],
        "{}",
        world.checks.log()
    );
    for pair in answers.windows(2) {
        assert!(
            pair[1].at - pair[0].at < 5 * MS,
            "nobody answered from {} to {}",
            pair[0].at,
            pair[1].at
        );
    }
    world
}

fn busy_clients(nodes: usize) -> Setup {
    Setup {
        nodes,
        addresses: 1,
        client_every: MS,
        ..Setup::default()
    }
}

#[test]
fn a_planned_move_is_not_noticed() {
    for seed in 0..30 {
        let world = calm(busy_clients(2 + seed as usize % 4), seed);
        let (at, order) = (world.now, world.order[&address(0)].clone());
        let to = order[1 + seed as usize % (order.len() - 1)];
        let world = move_well(world, at, order[0], vec![Act::Move(address(0), Some(to))]);
        assert_eq!(holder(&world), to);
    }
}

#[test]
fn a_stop_is_not_noticed() {
    for seed in 0..30 {
        let world = calm(busy_clients(2 + seed as usize % 4), seed);
        let (at, order) = (world.now, world.order[&address(0)].clone());
        let mut world = move_well(world, at, order[0], vec![Act::Stop(order[0])]);
        assert_eq!(holder(&world), order[1]);
        assert!(world.stations[order[0]].stopped);
        let now = world.now;
        world.act(now, Act::Run(order[0], Run::Killed));
        world.act(now + S, Act::Run(order[0], Run::On));
        world.run_until(now + 10 * S);
        fine(&world);
        assert_eq!(holder(&world), order[1]);
    }
}

#[test]
fn a_drained_node_is_left() {
    for seed in 0..20 {
        let world = calm(busy_clients(3), seed);
        let (at, mut order) = (world.now, world.order[&address(0)].clone());
        order.rotate_left(1);
        let lags = vec![0, 20 * MS, 300 * MS];
        let old = order[2];
        let world = move_well(
            world,
            at,
            old,
            vec![Act::View(address(0), order.clone(), 2, lags)],
        );
        assert_eq!(holder(&world), order[0]);
    }
}

#[test]
fn an_endpoint_moves_and_some_learn_late() {
    for seed in 0..40 {
        let mut world = calm(busy_clients(3), seed);
        let (at, order) = (world.now, world.order[&address(0)].clone());
        let (a, b) = (order[0], order[1]);
        let lags: Vec<Time> = (0..3)
            .map(|_| world.random.pick(&[0, 50 * MS, 700 * MS, 4 * S]))
            .collect();
        world.act(at, Act::View(address(0), vec![b], 1, lags.clone()));
        world.run_until(at + lags[b] + S);
        assert_eq!(
            holders(&world),
            [b],
            "seed {seed}, learnt after {lags:?}, {a} to {b}"
        );
        world.run_until(at + 10 * S);
        fine(&world);
        assert_eq!(holder(&world), b);
    }
}

/// How often an address moves in five minutes where two nodes differ about who may have it.
pub fn moves_between_views(seed: u64, mutation: Option<Mutation>) -> usize {
    let setup = Setup {
        mutation,
        ..nodes(2)
    };
    let mut world = calm(setup, seed);
    let at = world.now;
    world.checks.restless = true;
    for node in [0, 1] {
        let alone = world.candidates(&[node], 1);
        for index in 0..2 {
            world.act(at, Act::Learn(node, address(index), alone.clone()));
        }
    }
    world.run_until(at + 300 * S);
    let violations = usize::from(world.checks.failed()) * 100;
    taken(&world, at).len() + violations
}

#[test]
fn views_that_differ_for_ever() {
    for seed in 0..20 {
        let moves = moves_between_views(seed, None);
        assert!(moves < 8, "seed {seed}: {moves}");
    }
}

/// For how long two answer for one of many addresses after a partition.
pub fn two_of_many(seed: u64, mutation: Option<Mutation>) -> Time {
    let setup = Setup {
        addresses: 100,
        mutation,
        ..nodes(2)
    };
    let mut world = calm(setup, seed);
    let at = world.now;
    for (from, to) in [(0, 1), (1, 0)] {
        world.act(at, Act::Cut(from, to, true));
        world.act(at + 8 * S, Act::Cut(from, to, false));
    }
    // The claims of the taking are over by then.
    world.run_until(at + 8 * S);
    world.checks.longest_two = 0;
    world.checks.restless = true;
    world.checks.bounds.two = 60 * S;
    world.run_until(at + 30 * S);
    fine(&world);
    world.checks.longest_two
}

#[test]
fn a_hundred_addresses_heal_as_fast_as_one() {
    for seed in 0..5 {
        let two = two_of_many(seed, None);
        assert!(two < S, "seed {seed}: {two}");
    }
}

#[test]
fn gossip_blocked_on_a_healthy_lan_moves_nothing() {
    for seed in 0..20 {
        let mut world = calm(nodes(3), seed);
        world.checks.harmless = Some(world.now);
        world.act(world.now, Act::GossipBlocked(true));
        world.run_until(60 * S);
        fine(&world);
    }
}

#[test]
fn where_the_wire_shows_nobody_gossip_decides() {
    for seed in 0..20 {
        let setup = Setup {
            strips: true,
            ..nodes(3)
        };
        let mut world = calm(setup, seed);
        let order = world.order[&address(0)].clone();
        assert_eq!(holder(&world), order[0]);
        let at = world.now;
        world.checks.bounds.none = 8 * S;
        world.act(at, Act::Run(order[0], Run::Off));
        world.run_until(at + 10 * S);
        fine(&world);
        assert_eq!(holder(&world), order[1]);
    }
}

#[test]
fn failback_after_its_time_is_a_hand_over() {
    for seed in 0..20 {
        let profile = Profile {
            failback: Failback::After(Duration::from_secs(5)),
            ..Profile::DEFAULT
        };
        let mut world = calm(
            Setup {
                profile,
                ..busy_clients(3)
            },
            seed,
        );
        let (at, order) = (world.now, world.order[&address(0)].clone());
        world.act(at, Act::Run(order[0], Run::Off));
        world.act(at + 3 * S, Act::Run(order[0], Run::On));
        world.run_until(at + 6 * S);
        fine(&world);
        let world = move_well(world, at + 6 * S, order[1], Vec::new());
        assert!(
            taken(&world, at)
                .iter()
                .all(|(after, node, _)| *node == order[1] || *after > 8 * S)
        );
        assert_eq!(holder(&world), order[0]);
    }
}
