//! Forty nodes on one segment: what each of them hears at rest, and when one is lost, comes back, or is replaced. Whatever
//! befalls one of them, the others are not to pay for it by their number.

use super::scenarios::{fine, nodes, world};
use super::world::{Act, MS, Run, S, Setup, Time, World};
use crate::Kind;

const NODES: usize = 40;
const ADDRESSES: usize = 80;

/// What was sent and heard in a while.
#[derive(Clone, Copy)]
struct Seen {
    sent: [u64; 16],
    /// Frames that reached the station which heard most.
    most: u64,
}

impl Seen {
    fn sent(self, kind: Kind) -> u64 {
        self.sent[kind as usize]
    }
}

fn during(world: &mut World, time: Time, what: &str) -> Seen {
    world.tally.heard.fill(0);
    world.tally.sent.fill(0);
    world.run_until(world.now + time);
    fine(world);
    let most = world.tally.heard.iter().copied().max().unwrap();
    let sent = world.tally.sent;
    let kinds: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| (kind, sent[kind as usize]))
        .filter(|(_, count)| *count > 0)
        .collect();
    println!("{what}, {} s: {most} heard at most, {kinds:?}", time / S);
    Seen { sent, most }
}

#[test]
fn what_befalls_one_node_costs_the_others_little() {
    let mut world = world(
        Setup {
            addresses: ADDRESSES,
            client_every: S,
            hosts: 0,
            ..nodes(NODES)
        },
        1,
    );
    world.run_until(20 * S);
    fine(&world);
    let nodes = NODES as u64;
    // Three probe each node ten times a second, and get an answer; one address a second is asked for.
    let rest = during(&mut world, 10 * S, "at rest");
    assert!((290..=320).contains(&(rest.sent(Kind::Probe) / nodes)));
    assert!(rest.most < 10 * (60 + 25));

    let now = world.now;
    world.act(now, Act::Run(7, Run::Off));
    during(&mut world, 11 * S, "a node is lost");
    // Besides those who watched it and those who have its addresses now nobody looks for it often.
    let lost = during(&mut world, 10 * S, "it stays away");
    assert!(lost.sent(Kind::Probe) < rest.sent(Kind::Probe) + 200);

    let now = world.now;
    world.act(now, Act::Run(7, Run::On));
    let back = during(&mut world, 2 * S, "it comes back");
    assert!(back.most < rest.most / 5 + 20 * nodes);
    during(&mut world, 18 * S, "it is back");

    // Others hold it for up all the time; it knows nobody.
    let now = world.now;
    world.act(now, Act::Stop(9));
    world.act(now + S, Act::Run(9, Run::Killed));
    world.act(now + S + 100 * MS, Act::Run(9, Run::On));
    let replaced = during(&mut world, 3 * S, "a speaker is replaced");
    assert!(replaced.sent(Kind::Ask) < rest.sent(Kind::Ask) / 3 + 10);
    assert!(replaced.sent(Kind::Vouch) < 20);
    assert!(replaced.most < rest.most / 3 + 10 * nodes);
}
