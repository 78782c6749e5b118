//! One arbiter and frames made by hand: who counts as there, and who notices that it was not.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::{Arbiter, Candidates, Frame, Input, Kind, Mac, NodeId, Output, PeerFacts, Profile};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const MAC: Mac = [2, 0, 0, 0, 0, 2];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One that knows of another, which comes first for the only address.
fn started(now: Instant) -> (Arbiter, NodeId, Vec<Output>) {
    started_with(Profile::DEFAULT, now)
}

fn started_with(profile: Profile, now: Instant) -> (Arbiter, NodeId, Vec<Output>) {
    let (me, other) = (NodeId::of("me"), NodeId::of("other"));
    let mut arbiter = Arbiter::new(me, profile, 7, now);
    let peer = PeerFacts {
        node: other,
        address: None,
        believed: None,
        legacy: false,
    };
    let candidates = Candidates {
        order: [other, me].into(),
        willing: 2,
    };
    let mut outputs = Vec::new();
    for input in [
        Input::Peers(vec![peer]),
        Input::Link(true),
        Input::View(ADDRESS, Some(candidates)),
        Input::Tick,
    ] {
        outputs.extend(arbiter.handle(input, now));
    }
    (arbiter, other, outputs)
}

/// The other's answer to the last question of a kind.
fn answer(outputs: &[Output], asked: Kind, other: NodeId) -> Option<Input> {
    let mut sent = outputs.iter().rev();
    let question = sent.find_map(|output| match output {
        Output::Send(frame, _) if frame.kind == asked => Some(*frame),
        _ => None,
    })?;
    let answer = Frame {
        kind: Kind::Holding,
        hearing: true,
        sender: other,
        subject: question.sender,
        ..question
    };
    Some(Input::Frame(answer, MAC))
}

/// Goes on until then, and answers for the other what it is asked by probes if `there`.
fn run(arbiter: &mut Arbiter, until: Instant, other: NodeId, there: bool) -> Vec<Output> {
    let mut all = Vec::new();
    while let Some(at) = arbiter.next_deadline().filter(|at| *at <= until) {
        let outputs = arbiter.handle(Input::Tick, at);
        let answer = answer(&outputs, Kind::Probe, other).filter(|_| there);
        all.extend(outputs);
        if let Some(answer) = answer {
            all.extend(arbiter.handle(answer, at));
        }
    }
    all
}

#[test]
fn an_answer_to_an_introduction_counts_once() {
    let now = Instant::now();
    let (mut arbiter, other, first) = started(now);
    let hellos = [first, run(&mut arbiter, now + ms(410), other, false)].concat();
    let greeting = answer(&hellos, Kind::Hello, other).unwrap();
    arbiter.handle(greeting.clone(), now + ms(411));
    assert_eq!(arbiter.presence(other), Some(true));
    run(&mut arbiter, now + ms(1300), other, false);
    assert_eq!(arbiter.presence(other), Some(false));
    // Somebody repeats it.
    arbiter.handle(greeting, now + ms(1301));
    assert_eq!(arbiter.presence(other), Some(false));
}

/// Once its probe is answered nothing wakes a node until the next; a standstill in between counts from when it would have had to
/// notice that there was no answer, as its peers' patience does.
#[test]
fn a_standstill_after_an_answer_is_noticed_as_soon_as_one_before_it() {
    let now = Instant::now();
    let (mut arbiter, other, first) = started(now);
    let greeting = answer(&first, Kind::Hello, other).unwrap();
    arbiter.handle(greeting, now);
    let mut probed = now;
    let mut waited = ms(0);
    // Until a round has just ended.
    while waited < ms(85) {
        probed = arbiter.next_deadline().unwrap();
        run(&mut arbiter, probed, other, true);
        waited = arbiter.next_deadline().unwrap() - probed;
        assert!(probed < now + ms(3000));
    }
    assert_eq!(arbiter.owed(), Some(probed + Profile::DEFAULT.timeout));
    let outputs = arbiter.handle(Input::Tick, probed + ms(305));
    assert!(outputs.contains(&Output::Mute(true)), "{outputs:?}");
}

/// Input: probes ten times as far apart as peers are patient, and a standstill between two of them in which no deadline of a probe
/// or an answer passes.
/// Output: it is noticed, for peers may have given the node up meanwhile.
#[test]
fn a_standstill_between_probes_far_apart_is_noticed() {
    let now = Instant::now();
    let profile = Profile {
        interval: ms(2500),
        ..Profile::DEFAULT
    };
    let (mut arbiter, other, first) = started_with(profile, now);
    let greeting = answer(&first, Kind::Hello, other).unwrap();
    arbiter.handle(greeting, now);
    // The last that was done is of a round that has just begun: what follows is the next probe.
    let rested = now + ms(6000);
    run(&mut arbiter, rested, other, true);
    let next = arbiter.next_deadline().unwrap();
    assert!(next <= rested + profile.patience, "{:?}", next - rested);
    let outputs = arbiter.handle(Input::Tick, next + ms(255));
    assert!(outputs.contains(&Output::Mute(true)), "{outputs:?}");
}
