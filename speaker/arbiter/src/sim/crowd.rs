//! Ten thousand addresses on two nodes: what is sent at rest, and what a loss costs.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Arbiter, Candidates, Input, Kind, Mac, NodeId, Output, PeerFacts, Profile};

const ADDRESSES: u32 = 10_000;

fn address(index: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + index).into()
}

fn mac(node: usize) -> Mac {
    [2, 0, 0, 0, 0, node as u8]
}

/// Two arbiters, and a wire between them that takes no time.
struct Pair {
    arbiters: Vec<Arbiter>,
    alive: [bool; 2],
    now: Instant,
    sent: Vec<(Instant, usize, Kind)>,
    answers: [u32; 2],
}

impl Pair {
    fn tell(&mut self, node: usize, input: Input) {
        let mut queue = vec![(node, input)];
        while let Some((node, input)) = queue.pop() {
            if !self.alive[node] {
                continue;
            }
            for output in self.arbiters[node].handle(input, self.now) {
                match output {
                    Output::Send(frame, _) => {
                        self.sent.push((self.now, node, frame.kind));
                        queue.insert(0, (1 - node, Input::Frame(frame, mac(node))));
                    }
                    Output::Answer(..) => self.answers[node] += 1,
                    Output::AskAround => queue.insert(0, (node, Input::Heard(self.now))),
                    _ => {}
                }
            }
        }
    }

    fn run(&mut self, long: Duration) {
        let end = self.now + long;
        loop {
            let due = |node: usize| {
                self.arbiters[node]
                    .next_deadline()
                    .filter(|_| self.alive[node])
            };
            let Some((at, node)) = [0, 1]
                .into_iter()
                .filter_map(|node| Some((due(node)?, node)))
                .min()
            else {
                break;
            };
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            self.tell(node, Input::Tick);
        }
        self.now = end;
    }

    fn count(&self, since: Instant, wanted: impl Fn(usize, Kind) -> bool) -> usize {
        let of = self
            .sent
            .iter()
            .filter(|(at, node, kind)| *at >= since && wanted(*node, *kind));
        of.count()
    }
}

#[test]
fn the_number_of_addresses_costs_nothing_at_rest_and_claims_keep_their_pace() {
    let now = Instant::now();
    let ids = [NodeId::of("node-a"), NodeId::of("node-b")];
    let arbiters = ids
        .map(|id| Arbiter::new(id, Profile::DEFAULT, 7, now))
        .into();
    let mut pair = Pair {
        arbiters,
        alive: [true; 2],
        now,
        sent: Vec::new(),
        answers: [0; 2],
    };
    for node in [0, 1] {
        let peer = PeerFacts {
            node: ids[1 - node],
            address: None,
            believed: None,
            legacy: false,
        };
        pair.tell(node, Input::Peers(vec![peer]));
        pair.tell(node, Input::Link(true));
    }
    let orders: [Arc<[NodeId]>; 2] = [[ids[0], ids[1]].into(), [ids[1], ids[0]].into()];
    for index in 0..ADDRESSES {
        let order = orders[index as usize % 2].clone();
        for node in [0, 1] {
            let candidates = Candidates {
                order: order.clone(),
                willing: 2,
            };
            pair.tell(node, Input::View(address(index), Some(candidates)));
        }
    }
    pair.run(Duration::from_secs(30));
    assert_eq!(pair.answers, [ADDRESSES / 2; 2]);

    let rest = pair.now;
    pair.run(Duration::from_secs(10));
    assert!(
        pair.count(rest, |node, _| node == 0) <= 225,
        "more than probes and answers"
    );
    assert_eq!(pair.count(rest, |_, kind| kind == Kind::Claim), 0);

    // All of the other's are answered for in one step; what is sent keeps the pace: two frames a claim, 5 000 a second.
    pair.alive[1] = false;
    let lost = pair.now;
    // Its kernel was never heard, so that the patience counts from the suspicion.
    pair.run(Duration::from_millis(420));
    assert_eq!(pair.answers[0], ADDRESSES);
    pair.run(Duration::from_secs(2));
    let claims = pair.count(lost, |_, kind| kind == Kind::Claim);
    assert!((4_900..=5_500).contains(&claims), "{claims}");
    // One a second about the lost node, and one for an address that is held, however many there are.
    assert!(pair.count(lost, |_, kind| kind == Kind::Ask) <= 6);
}

/// How long a node that is alone takes from the views of so many addresses to the last answer.
fn alone(addresses: u32) -> Duration {
    let now = Instant::now();
    let me = NodeId::of("node-a");
    let mut pair = Pair {
        arbiters: vec![
            Arbiter::new(me, Profile::DEFAULT, 7, now),
            Arbiter::new(NodeId::of("node-b"), Profile::DEFAULT, 7, now),
        ],
        alive: [true, false],
        now,
        sent: Vec::new(),
        answers: [0; 2],
    };
    pair.tell(0, Input::Link(true));
    let order: Arc<[NodeId]> = [me].into();
    for index in 0..addresses {
        let candidates = Candidates {
            order: order.clone(),
            willing: 1,
        };
        pair.tell(0, Input::View(address(index), Some(candidates)));
    }
    let mut long = Duration::ZERO;
    while pair.answers[0] < addresses && long < Duration::from_secs(10) {
        long += Duration::from_millis(1);
        pair.run(Duration::from_millis(1));
    }
    // Never more Asks in a second than the pace.
    let asks: Vec<Instant> = pair
        .sent
        .iter()
        .filter(|(_, _, kind)| *kind == Kind::Ask)
        .map(|(at, ..)| *at)
        .collect();
    let pace = Profile::DEFAULT.pace as usize;
    let slack = pace / 50;
    let first_late = asks.get(pace + slack).zip(asks.first());
    assert!(first_late.is_none_or(|(late, first)| *late - *first >= Duration::from_secs(1)));
    long
}

#[test]
fn a_node_alone_answers_after_a_tenth_of_a_second_and_ten_thousand_addresses_keep_the_pace() {
    for (addresses, least, most) in [(1, 100, 101), (1000, 200, 320), (ADDRESSES, 1900, 2150)] {
        let long = alone(addresses).as_millis();
        println!("{addresses} addresses, alone: {long} ms");
        assert!((least..=most).contains(&long), "{addresses}: {long} ms");
    }
}
