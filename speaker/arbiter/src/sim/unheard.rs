//! Two that do not hear each other, alone or among others.

use super::scenarios::{calm, holder, holders, nodes, taken};
use super::world::{Act, Run, S, Setup, address};
use crate::mutation::Mutation;

/// One of two does not hear the other: soon one answers, and that stays so; or what went wrong.
pub fn deaf_pair(seed: u64, mutation: Option<Mutation>) -> Result<(), String> {
    let setup = Setup {
        mutation,
        ..nodes(2)
    };
    let mut world = calm(setup, seed);
    let (a, at) = (holder(&world), world.now);
    let (from, to) = if seed.is_multiple_of(2) {
        (a, 1 - a)
    } else {
        (1 - a, a)
    };
    world.act(at, Act::Cut(from, to, true));
    world.run_until(at + 2 * S);
    let one = holders(&world);
    if one.len() != 1 {
        return Err(format!("{one:?} answer"));
    }
    let before = world.checks.took.len();
    world.run_until(at + 20 * S);
    world.checks.outcome()?;
    if (holders(&world), world.checks.took.len()) != (one.clone(), before) {
        return Err(format!("{one:?} did not keep it"));
    }
    world.act(world.now, Act::Cut(from, to, false));
    world.run_until(world.now + 5 * S);
    world.checks.outcome()?;
    if holders(&world) == one {
        Ok(())
    } else {
        Err(format!("{one:?} lost it in the end"))
    }
}

#[test]
fn one_deaf_to_the_other() {
    for seed in 0..40 {
        if let Err(violation) = deaf_pair(seed, None) {
            panic!("seed {seed}: {violation}");
        }
    }
}

/// The first two in order do not hear each other, and others hear both: nothing changes; or what went wrong. And when the one
/// they vouched for is really gone, it is replaced.
pub fn unheard_pair(seed: u64, mutation: Option<Mutation>) -> Result<(), String> {
    let setup = Setup {
        mutation,
        ..nodes(3 + seed as usize % 3)
    };
    let mut world = calm(setup, seed);
    let at = world.now;
    let order = world.order[&address(0)].clone();
    world.act(at, Act::Cut(order[0], order[1], true));
    if seed.is_multiple_of(2) {
        world.act(at, Act::Cut(order[1], order[0], true));
    }
    world.run_until(at + 20 * S);
    world.checks.outcome()?;
    let taken_by = taken(&world, at);
    if holders(&world) != order[..1] || !taken_by.is_empty() {
        return Err(format!("taken: {taken_by:?}"));
    }
    let died = world.now;
    world.act(died, Act::Run(order[0], Run::Off));
    world.run_until(died + 5 * S);
    world.checks.outcome()?;
    match taken(&world, died).first() {
        Some((after, ..)) if *after < 2 * S => Ok(()),
        took => Err(format!("taken too late: {took:?}")),
    }
}

#[test]
fn a_third_vouches_where_two_do_not_hear_each_other() {
    for seed in 0..30 {
        if let Err(violation) = unheard_pair(seed, None) {
            panic!("seed {seed}: {violation}");
        }
    }
}
