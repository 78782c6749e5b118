//! Histories by chance: a world, and a few things that befall it, one after another or at once.

use std::time::Duration;

use super::checks::Bounds;
use super::random::Random;
use super::world::{Act, MS, Run, S, Setup, Time, World, address};
use crate::mutation::Mutation;
use crate::{Failback, Profile};

/// What a history is about: which of the bounds hold in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Nodes, speakers, links lost and back.
    Losses,
    /// Standing still, with and without a clock; starving.
    Stalls,
    /// Nothing but starving and a little loss: nothing may move (S5).
    Starving,
    /// Wires cut one way, both ways, partitions.
    Cuts,
    /// Planned moves, ends, changed and late views.
    Moves,
    /// All of it with lost, doubled and late frames, and somebody who repeats and forges.
    Hostile,
    /// Gossip blocked, tags stripped, a fabric that answers for the dead.
    Blind,
    /// MetalLB's speakers among ours.
    Legacy,
}

pub const THEMES: [Theme; 8] = [
    Theme::Losses,
    Theme::Stalls,
    Theme::Starving,
    Theme::Cuts,
    Theme::Moves,
    Theme::Hostile,
    Theme::Blind,
    Theme::Legacy,
];

/// One history from its seed: fine, or what went wrong.
pub fn play(seed: u64, mutation: Option<Mutation>, trace: bool) -> Result<World, String> {
    let mut random = Random::new(seed);
    let theme = random.pick(&THEMES);
    let setup = set_up(&mut random, theme, mutation);
    let described = format!("seed {seed}: {theme:?} {setup:?}");
    let mut world = World::new(setup, seed);
    world.checks.trace = trace;
    world.checks.bounds = bounds(theme, &world.setup);
    world.checks.dumb = !world.setup.clients && world.nodes.len() == 2;
    prepare(&mut world, &mut random, theme);
    world.run_until(8 * S);
    if theme == Theme::Starving {
        world.checks.harmless = Some(world.now);
    }
    let steps = random.range(1, 5);
    for _ in 0..steps {
        let mut back = Vec::new();
        let together = if random.chance(200_000) { 2 } else { 1 };
        for _ in 0..together {
            befall(&mut world, &mut random, theme, &mut back);
        }
        let long = random.pick(&[
            100 * MS,
            260 * MS,
            300 * MS,
            400 * MS,
            S,
            3 * S,
            6 * S,
            13 * S,
        ]);
        world.run_until(world.now + long + random.range(0, 200 * MS));
        for act in back {
            let at = world.now
                + if random.chance(500_000) {
                    0
                } else {
                    random.range(0, 600 * MS)
                };
            world.act(at, act);
        }
        let rest = random.pick(&[S, 3 * S, 7 * S]);
        world.run_until(world.now + rest);
        if world.checks.failed() {
            break;
        }
    }
    world.run_until(world.now + 18 * S);
    let mut checks = std::mem::take(&mut world.checks);
    checks.caches(&world);
    world.checks = checks;
    match world.checks.outcome() {
        Ok(()) => Ok(world),
        Err(violation) => Err(format!("{described}\n{violation}")),
    }
}

fn set_up(random: &mut Random, theme: Theme, mutation: Option<Mutation>) -> Setup {
    let hostile = theme == Theme::Hostile;
    let kernels = theme == Theme::Starving || random.chance(850_000);
    Setup {
        nodes: random.range(2, 8) as usize,
        segments: if random.chance(150_000) { 2 } else { 1 },
        addresses: random.range(1, 5) as usize,
        delay: random.pick(&[(20, 60), (50, 300), (100, 2000), (1000, 3000)]),
        loss: match theme {
            Theme::Hostile => random.pick(&[0, 1000, 10_000, 50_000]),
            Theme::Starving => random.pick(&[0, 1000, 10_000]),
            _ => 0,
        },
        twice: if hostile {
            random.pick(&[0, 10_000, 100_000])
        } else {
            0
        },
        stray: if hostile {
            random.pick(&[(0, 0), (10_000, 30 * MS), (100_000, 5 * MS)])
        } else {
            (0, 0)
        },
        // Without it a node that starts waits for dead ones until Kubernetes has them not ready.
        gossip: !matches!(theme, Theme::Starving | Theme::Cuts) || random.chance(700_000),
        kernels,
        clients: random.chance(850_000),
        client_every: random.pick(&[5 * MS, 20 * MS, 100 * MS]),
        client_burst: 1,
        hosts: 2,
        deafness: 0,
        same_order: false,
        gateway: random.chance(800_000),
        proxy: theme == Theme::Blind && random.chance(500_000),
        strips: theme == Theme::Blind && random.chance(300_000),
        attacked: false,
        profile: Profile {
            failback: if theme == Theme::Moves {
                random.pick(&[
                    Failback::Never,
                    Failback::After(Duration::ZERO),
                    Failback::After(Duration::from_secs(4)),
                ])
            } else {
                Failback::After(Duration::from_mins(5))
            },
            ..Profile::DEFAULT
        },
        mutation,
    }
}

/// How soon all is well again, by what may be in the way.
fn bounds(theme: Theme, setup: &Setup) -> Bounds {
    let (two, none) = match theme {
        Theme::Losses => (800 * MS, 500 * MS),
        // Who is to take over may itself run one moment in ten.
        Theme::Stalls => (1300 * MS, 4 * S),
        Theme::Moves => (1300 * MS, 3 * S),
        Theme::Starving => (300 * MS, 500 * MS),
        // A partition that heals one way first: a second for each address.
        Theme::Cuts => (3200 * MS, 2000 * MS),
        Theme::Hostile => (2500 * MS, 4500 * MS),
        // Both start, and neither can see the other: that takes as long as to tell a peer for invisible.
        Theme::Blind if setup.strips => (8 * S, 8 * S),
        // Gossip takes up to 6 s.
        Theme::Blind | Theme::Legacy => (1600 * MS, 9 * S),
    };
    let lossy = if setup.loss > 20_000 { 2 } else { 1 };
    Bounds {
        two: two * lossy,
        none: none * lossy,
    }
}

fn prepare(world: &mut World, random: &mut Random, theme: Theme) {
    match theme {
        Theme::Hostile if random.chance(600_000) => {
            world.setup.attacked = true;
            world.act(S, Act::Attack(true));
        }
        Theme::Blind => {
            if world.setup.strips {
                world.setup.gossip = true;
                // Claims wait for something heard, and nothing is sent there that would be answered.
                world.checks.restless = true;
            } else {
                world.act(random.range(0, 10 * S), Act::GossipBlocked(true));
            }
        }
        Theme::Moves => world.checks.restless = true,
        Theme::Legacy => {
            world.checks.legacy = true;
            for node in 0..world.nodes.len() {
                if random.chance(500_000) {
                    world.nodes[node].legacy = true;
                }
            }
        }
        _ => {}
    }
}

/// One thing happens; what ends it goes to `back`.
fn befall(world: &mut World, random: &mut Random, theme: Theme, back: &mut Vec<Act>) {
    let now = world.now;
    let node = if random.chance(600_000) {
        holder(world).unwrap_or(0)
    } else {
        random.below(world.nodes.len())
    };
    let segment = random.below(world.setup.segments);
    let station = world.station(node, segment);
    let which = match theme {
        // Gossip alone does not see more than that.
        Theme::Blind if world.setup.strips => random.range(0, 2),
        Theme::Losses | Theme::Blind => random.range(0, 5),
        Theme::Stalls => random.range(5, 9),
        Theme::Starving => 8,
        Theme::Cuts => random.range(9, 12),
        Theme::Moves => random.range(12, 16),
        // Who repeats frames across a cut is a wire of its own.
        Theme::Hostile if world.setup.attacked => {
            random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 14, 15])
        }
        Theme::Hostile => random.range(0, 16),
        Theme::Legacy => random.pick(&[0, 1, 16, 16]),
    };
    match which {
        0 => {
            world.act(now, Act::Run(node, Run::Off));
            back.push(Act::Run(node, Run::On));
        }
        1 => {
            world.act(now, Act::Run(node, Run::Killed));
            back.push(Act::Run(node, Run::On));
        }
        2 => {
            world.act(now, Act::Carrier(station, false));
            back.push(Act::Carrier(station, true));
        }
        3 => {
            world.act(now, Act::Rx(station, true));
            back.push(Act::Rx(station, false));
        }
        4 => {
            world.act(now, Act::Tx(station, true));
            back.push(Act::Tx(station, false));
        }
        5 => {
            world.act(now, Act::Run(node, Run::Stopped));
            back.push(Act::Run(node, Run::On));
        }
        6 => {
            world.act(now, Act::Run(node, Run::Paused { clock: true }));
            back.push(Act::Run(node, Run::On));
        }
        7 => {
            world.act(now, Act::Run(node, Run::Paused { clock: false }));
            back.push(Act::Run(node, Run::On));
        }
        8 => {
            let most = if theme == Theme::Starving {
                285 * MS
            } else {
                600 * MS
            };
            let throttle = (random.range(10 * MS, most), random.range(2 * MS, 100 * MS));
            world.act(now, Act::Throttle(node, Some(throttle)));
            back.push(Act::Throttle(node, None));
        }
        9 | 10 => cut(world, random, station, which == 10, back),
        11 => partition(world, random, back),
        12 => {
            let to = random.below(world.nodes.len());
            let index = random.below(world.setup.addresses);
            let to = random.chance(800_000).then_some(to);
            world.act(now, Act::Move(address(index), to));
            if random.chance(500_000) {
                back.push(Act::Unwish(address(index)));
            }
        }
        13 => {
            world.act(now, Act::Stop(node));
            world.act(now + 1600 * MS, Act::Run(node, Run::Killed));
            back.push(Act::Run(node, Run::On));
        }
        14 | 15 => view(world, random, which == 15),
        _ => {
            let legacy = !world.nodes[node].legacy;
            world.act(now, Act::Replace(node, legacy));
        }
    }
}

fn holder(world: &World) -> Option<usize> {
    let holding = world
        .stations
        .iter()
        .find(|station| station.table.contains_key(&address(0)))?;
    Some(holding.node)
}

fn cut(world: &mut World, random: &mut Random, one: usize, both: bool, back: &mut Vec<Act>) {
    let segment = world.stations[one].segment;
    let node = random.below(world.nodes.len());
    let other = world.station(node, segment);
    if one == other {
        return;
    }
    // Both ways between two alone, nobody can vouch: two answer, and nothing helps.
    let both = both && world.nodes.len() > 3;
    let (from, to) = if random.chance(500_000) {
        (one, other)
    } else {
        (other, one)
    };
    world.act(world.now, Act::Cut(from, to, true));
    back.push(Act::Cut(from, to, false));
    if both {
        world.act(world.now, Act::Cut(to, from, true));
        back.push(Act::Cut(to, from, false));
    }
}

fn partition(world: &mut World, random: &mut Random, back: &mut Vec<Act>) {
    let sides: Vec<bool> = world.nodes.iter().map(|_| random.chance(500_000)).collect();
    for a in 0..world.stations.len() {
        for b in 0..world.stations.len() {
            let (one, other) = (&world.stations[a], &world.stations[b]);
            if one.segment == other.segment && sides[one.node] != sides[other.node] {
                world.act(world.now, Act::Cut(a, b, true));
                back.push(Act::Cut(a, b, false));
            }
        }
    }
    // It heals at once.
    let at = world.now + random.range(S, 12 * S);
    for act in back.drain(..) {
        world.act(at, act);
    }
}

fn view(world: &mut World, random: &mut Random, late: bool) {
    let index = random.below(world.setup.addresses);
    let mut order: Vec<usize> = (0..world.nodes.len())
        .filter(|_| random.chance(700_000))
        .collect();
    if order.is_empty() {
        order.push(random.below(world.nodes.len()));
    }
    let turn = random.below(order.len());
    order.rotate_left(turn);
    let willing = if random.chance(300_000) {
        random.range(1, order.len() as u64 + 1) as usize
    } else {
        order.len()
    };
    let lags: Vec<Time> = world
        .nodes
        .iter()
        .map(|_| {
            if late {
                random.pick(&[0, 100 * MS, S, 4 * S])
            } else {
                random.range(0, 50 * MS)
            }
        })
        .collect();
    world.act(world.now, Act::View(address(index), order, willing, lags));
}
