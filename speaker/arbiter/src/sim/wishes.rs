//! What an operator wants moved, what is to leave, and what is said where it stays.

use std::time::Duration;

use super::scenarios::{calm, fine, holder};
use super::world::{Act, MS, Run, S, Setup, Time, World, address};
use crate::{Cause, Failback, Obstacle, Profile, Report};

fn setup(nodes: usize, failback: u64) -> Setup {
    Setup {
        nodes,
        addresses: 1,
        same_order: true,
        profile: Profile {
            failback: Failback::After(Duration::from_secs(failback)),
            calm: Duration::ZERO,
            ..Profile::DEFAULT
        },
        ..Setup::default()
    }
}

/// Why an address stays, and whether for a wish; none: no more.
type Why = Option<(Obstacle, bool)>;

/// What was said of addresses that stay: when, by which station, and why.
fn stays(world: &World) -> Vec<(Time, usize, Why)> {
    let said = world.checks.stays.iter();
    said.map(|(at, station, report)| {
        let why = match report {
            Report::Stays {
                obstacle, wished, ..
            } => Some((*obstacle, *wished)),
            _ => None,
        };
        (*at, *station, why)
    })
    .collect()
}

fn whys(world: &World) -> Vec<Why> {
    stays(world).into_iter().map(|(_, _, why)| why).collect()
}

#[test]
fn what_is_wanted_at_a_node_stays_there_while_the_wish_stands() {
    for seed in 0..10 {
        let mut world = calm(setup(3, 5), seed);
        world.act(world.now, Act::Move(address(0), Some(2)));
        world.run_until(world.now + 500 * MS);
        assert_eq!(holder(&world), 2);
        world.run_until(world.now + 60 * S);
        fine(&world);
        assert_eq!((holder(&world), world.checks.took.len()), (2, 2));
        // Lost and back, it has it again.
        world.checks.restless = true;
        world.act(world.now, Act::Run(2, Run::Off));
        world.run_until(world.now + 4 * S);
        assert_eq!(holder(&world), 0);
        world.act(world.now, Act::Run(2, Run::On));
        world.run_until(world.now + 15 * S);
        fine(&world);
        assert_eq!(holder(&world), 2, "seed {seed}");
        assert!(stays(&world).is_empty(), "{:?}", stays(&world));
    }
}

#[test]
fn what_was_sent_away_is_not_taken_back_while_the_wish_stands() {
    for seed in 0..10 {
        let mut world = calm(setup(3, 5), seed);
        world.act(world.now, Act::Move(address(0), None));
        world.run_until(world.now + 60 * S);
        fine(&world);
        assert_eq!((holder(&world), world.checks.took.len()), (1, 2));
        // Another date: away from there, to the best of the others.
        world.act(world.now, Act::Move(address(0), None));
        world.run_until(world.now + 60 * S);
        fine(&world);
        assert_eq!((holder(&world), world.checks.took.len()), (0, 3));
        world.act(world.now, Act::Move(address(0), None));
        world.run_until(world.now + 30 * S);
        assert_eq!(holder(&world), 1);
        world.act(world.now, Act::Unwish(address(0)));
        world.run_until(world.now + 30 * S);
        fine(&world);
        assert_eq!(holder(&world), 0, "taken back once nobody minds");
        let last = world.checks.took.len() - 1;
        assert_eq!(world.checks.took[last].3, Cause::Failback);
    }
}

#[test]
fn a_wish_waits_for_its_node_says_so_once_and_is_done_when_it_comes() {
    for seed in 0..10 {
        // It would take five minutes to take it back.
        let mut world = calm(setup(3, 300), seed);
        world.checks.restless = true;
        world.act(world.now, Act::Run(2, Run::Off));
        world.run_until(world.now + 5 * S);
        let at = world.now;
        world.act(at, Act::Move(address(0), Some(2)));
        world.run_until(at + 60 * S);
        fine(&world);
        assert_eq!(holder(&world), 0, "not to any other");
        let said = stays(&world);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].2, Some((Obstacle::Unheard, true)));
        assert!((at + 2 * S..at + 3 * S).contains(&said[0].0), "{said:?}");
        world.act(world.now, Act::Run(2, Run::On));
        world.run_until(world.now + 3 * S);
        fine(&world);
        assert_eq!(holder(&world), 2);
        assert_eq!(whys(&world)[1..], [None]);
    }
}

#[test]
fn a_wish_that_is_withdrawn_waits_no_more() {
    let mut world = calm(setup(3, 300), 1);
    world.checks.restless = true;
    world.act(world.now, Act::View(address(0), vec![0, 1], 2, vec![0; 3]));
    world.act(world.now + MS, Act::Move(address(0), Some(2)));
    world.run_until(world.now + 20 * S);
    assert_eq!(whys(&world), [Some((Obstacle::NotEligible, true))]);
    world.act(world.now, Act::Unwish(address(0)));
    world.run_until(world.now + 5 * S);
    fine(&world);
    assert_eq!(whys(&world)[1..], [None]);
    assert_eq!((holder(&world), world.checks.took.len()), (0, 1));
}

#[test]
fn what_is_to_leave_and_has_nowhere_to_go_stays_and_that_is_said() {
    for (order, willing, why) in [
        (vec![0], 0, Obstacle::NobodyElse),
        (vec![1, 0], 0, Obstacle::Unwilling),
        (vec![2, 0], 1, Obstacle::Unheard),
    ] {
        let mut world = calm(setup(3, 300), 3);
        world.checks.restless = true;
        world.act(world.now, Act::Run(2, Run::Off));
        world.run_until(world.now + 5 * S);
        world.act(world.now, Act::View(address(0), order, willing, vec![0; 3]));
        world.run_until(world.now + 30 * S);
        fine(&world);
        assert_eq!(holder(&world), 0);
        assert_eq!(whys(&world), [Some((why, false))]);
        // One that is to keep it, and it goes there.
        let at = world.now;
        world.act(at, Act::View(address(0), vec![1, 0], 1, vec![0; 3]));
        world.run_until(at + 2 * S);
        fine(&world);
        assert_eq!((holder(&world), whys(&world)[1]), (1, None));
    }
}

#[test]
fn what_is_to_leave_goes_as_soon_as_another_is_heard() {
    for seed in 0..10 {
        let mut world = calm(setup(2, 300), seed);
        world.checks.restless = true;
        world.act(world.now, Act::Run(1, Run::Off));
        world.run_until(world.now + 5 * S);
        world.act(world.now, Act::View(address(0), vec![1, 0], 1, vec![0, 0]));
        world.run_until(world.now + 10 * S);
        assert_eq!(whys(&world), [Some((Obstacle::Unheard, false))]);
        world.act(world.now, Act::Run(1, Run::On));
        world.run_until(world.now + 2 * S);
        fine(&world);
        assert_eq!((holder(&world), whys(&world)[1]), (1, None), "seed {seed}");
    }
}

/// A node that believes that it may not answer refuses; it is asked ever more rarely, and takes it when it learns better.
#[test]
fn who_refuses_is_asked_ever_more_rarely() {
    let mut world = calm(setup(2, 300), 5);
    world.checks.restless = true;
    world.act(
        world.now,
        Act::View(address(0), vec![1, 0], 1, vec![0, 60 * S]),
    );
    // The other thinks that only this one may.
    let alone = world.candidates(&[0], 1);
    world.act(world.now, Act::Learn(1, address(0), alone));
    let before = world.frames;
    world.run_until(world.now + 50 * S);
    fine(&world);
    assert_eq!(holder(&world), 0);
    assert_eq!(whys(&world), [Some((Obstacle::Refused, false))]);
    let offers = world.checks.offers;
    assert!((8..14).contains(&offers), "{offers} of {before}");
    world.run_until(world.now + 25 * S);
    fine(&world);
    assert_eq!((holder(&world), whys(&world)[1]), (1, None));
}
