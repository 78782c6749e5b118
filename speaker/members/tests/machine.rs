//! One machine and what it says to messages made by hand.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ferrolb_speaker_members::{
    Alive, Claim, Identity, IndirectPing, Machine, Message, Output, Ping, Profile, Source, Status,
    Versions, packet,
};

struct Bench {
    machine: Machine,
    now: Instant,
    sent: Vec<(SocketAddr, Message)>,
    verdicts: Vec<(String, Status)>,
}

fn socket(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 7946))
}

fn alive(name: &str, incarnation: u32, last: u8) -> Alive {
    Alive {
        incarnation,
        node: name.to_owned(),
        addr: socket(last).ip(),
        port: 7946,
        meta: vec![],
        versions: Some(Versions::OURS),
    }
}

fn claim(name: &str, incarnation: u32, from: &str) -> Claim {
    Claim {
        incarnation,
        node: name.to_owned(),
        from: from.to_owned(),
    }
}

impl Bench {
    /// "me" at .1, and others it has heard of: "n2" at .2 and so on.
    fn new(others: u8) -> Self {
        let me = Identity {
            name: "me".to_owned(),
            addr: socket(1).ip(),
            port: 7946,
            meta: vec![],
        };
        let now = Instant::now();
        let machine = Machine::new(me, Profile::lan(), 0, now, 5);
        let mut bench = Self {
            machine,
            now,
            sent: vec![],
            verdicts: vec![],
        };
        for last in 2..others + 2 {
            bench.hear(Message::Alive(alive(&format!("n{last}"), 1, last)));
        }
        bench
    }

    fn collect(&mut self) {
        while let Some(output) = self.machine.output() {
            match output {
                Output::Packet { to, body } => {
                    let contents = packet::decode(&body);
                    assert_eq!(contents.trouble, None);
                    self.sent
                        .extend(contents.messages.into_iter().map(|message| (to, message)));
                }
                Output::Verdict(member) => self.verdicts.push((member.name, member.status)),
                Output::Exchange { .. } | Output::TcpPing { .. } => {}
            }
        }
    }

    fn hear(&mut self, message: Message) {
        self.machine.packet(self.now, socket(9), &message.encode());
        self.collect();
    }

    /// Time passes; pings are answered but by `silent`.
    fn run(&mut self, seconds: u64, silent: &str) {
        let end = self.now + Duration::from_secs(seconds);
        let mut calls = 0;
        while let Some(wake) = self.machine.next_wake().filter(|wake| *wake <= end) {
            calls += 1;
            assert!(calls < 1000, "the machine never rests");
            self.now = self.now.max(wake);
            let before = self.sent.len();
            self.machine.tick(self.now);
            self.collect();
            let pings: Vec<u32> = self.sent[before..]
                .iter()
                .filter_map(|(_, message)| match message {
                    Message::Ping(ping) if ping.node != silent => Some(ping.seq),
                    _ => None,
                })
                .collect();
            for seq in pings {
                self.hear(Message::Ack { seq });
            }
        }
        self.now = end;
    }

    fn sent_to(&self, last: u8, wanted: impl Fn(&Message) -> bool) -> bool {
        self.sent
            .iter()
            .any(|(to, message)| *to == socket(last) && wanted(message))
    }
}

#[test]
fn pings_are_answered_where_they_ask_for_it() {
    let mut bench = Bench::new(1);
    let source = Source {
        addr: socket(7).ip(),
        port: 77,
        node: "n7".to_owned(),
    };
    let ping = |node: &str, source: Option<&Source>| {
        Message::Ping(Ping {
            seq: 40,
            node: node.to_owned(),
            source: source.cloned(),
        })
    };
    bench.hear(ping("me", None));
    assert!(
        bench.sent_to(9, |message| *message == Message::Ack { seq: 40 }),
        "to the sender"
    );
    bench.hear(ping("", Some(&source)));
    assert!(
        bench
            .sent
            .contains(&(source.socket(), Message::Ack { seq: 40 }))
    );
    bench.sent.clear();
    bench.hear(ping("another", Some(&source)));
    assert_eq!(bench.sent, [], "a node that had our address before");
}

#[test]
fn a_third_node_is_asked_for_others() {
    let mut bench = Bench::new(1);
    let ask = |seq| {
        let (target, node) = (socket(2).ip(), "n2".to_owned());
        Message::IndirectPing(IndirectPing {
            seq,
            target,
            port: 7946,
            node,
            nack: true,
            source: None,
        })
    };
    bench.hear(ask(50));
    let (_, Message::Ping(ping)) = bench
        .sent
        .iter()
        .find(|(to, _)| *to == socket(2))
        .unwrap()
        .clone()
    else {
        panic!("n2 is pinged first: {:?}", bench.sent);
    };
    bench.hear(Message::Ack { seq: ping.seq });
    assert!(bench.sent_to(9, |message| *message == Message::Ack { seq: 50 }));
    bench.run(1, "n2");
    assert!(!bench.sent_to(9, |message| matches!(message, Message::Nack { .. })));
    // This time it is silent.
    bench.hear(ask(51));
    bench.run(1, "n2");
    assert!(bench.sent_to(9, |message| *message == Message::Nack { seq: 51 }));
}

#[test]
fn a_suspect_is_told_so_with_the_next_ping() {
    let mut bench = Bench::new(1);
    bench.hear(Message::Suspect(claim("n2", 1, "n3")));
    bench.sent.clear();
    bench.run(3, "n2");
    let told = bench.sent.windows(2).any(|pair| {
        matches!(pair, [(_, Message::Ping(ping)), (_, Message::Suspect(claim))]
            if ping.node == "n2" && claim.node == "n2" && claim.from == "me")
    });
    assert!(told, "{:?}", bench.sent);
}

#[test]
fn the_dead_are_told_for_a_while_and_forgotten_after() {
    let mut bench = Bench::new(1);
    bench.run(5, "");
    bench.run(10, "n2");
    assert_eq!(
        bench.verdicts.last(),
        Some(&("n2".to_owned(), Status::Dead))
    );
    assert!(bench.sent_to(
        2,
        |message| matches!(message, Message::Dead(claim) if claim.node == "n2")
    ));
    bench.run(20, "n2");
    assert_eq!(bench.machine.status("n2"), Some(Status::Dead));
    bench.run(30, "n2");
    assert_eq!(bench.machine.status("n2"), None);
    assert_eq!(bench.machine.count(), 1);
}

#[test]
fn a_name_belongs_to_its_address_until_its_owner_has_left() {
    let mut bench = Bench::new(2);
    let addr = |bench: &Bench| {
        bench
            .machine
            .members()
            .find(|member| member.name == "n2")
            .unwrap()
            .addr
    };
    bench.hear(Message::Alive(alive("n2", 9, 66)));
    assert_eq!(addr(&bench), socket(2).ip());
    bench.hear(Message::Dead(claim("n2", 1, "n3")));
    bench.hear(Message::Alive(alive("n2", 9, 66)));
    assert_eq!(
        (addr(&bench), bench.machine.status("n2")),
        (socket(2).ip(), Some(Status::Dead))
    );
    bench.hear(Message::Dead(claim("n3", 1, "n3")));
    assert_eq!(bench.machine.status("n3"), Some(Status::Left));
    bench.hear(Message::Alive(alive("n3", 1, 67)));
    assert_eq!(
        bench.machine.status("n3"),
        Some(Status::Alive),
        "even with an old incarnation"
    );
    // Our own name is ours.
    bench.hear(Message::Alive(alive("me", 99, 68)));
    assert_eq!(
        bench
            .machine
            .members()
            .find(|member| member.name == "me")
            .unwrap()
            .addr,
        socket(1).ip()
    );
}

#[test]
fn accusations_are_refuted_louder_than_they_were_made() {
    let mut bench = Bench::new(1);
    for accusation in [
        Message::Suspect(claim("me", 5, "n2")),
        Message::Dead(claim("me", 20, "n2")),
        Message::Alive(alive("me", 30, 1)),
        Message::Suspect(claim("me", u32::MAX - 1, "n2")),
    ] {
        let (Message::Suspect(Claim { incarnation, .. })
        | Message::Dead(Claim { incarnation, .. })
        | Message::Alive(Alive { incarnation, .. })) = accusation
        else {
            panic!("an accusation");
        };
        bench.hear(accusation);
        bench.sent.clear();
        bench.run(2, "");
        assert!(bench.sent_to(2, |message| {
            matches!(message, Message::Alive(alive) if alive.node == "me" && alive.incarnation == incarnation + 1)
        }));
    }
    assert_eq!(bench.machine.status("me"), Some(Status::Alive));
}

#[test]
fn old_news_and_nonsense_change_nothing() {
    let mut bench = Bench::new(2);
    bench.hear(Message::Alive(alive("n2", 10, 2)));
    let before: Vec<_> = bench.machine.members().collect();
    bench.hear(Message::Suspect(claim("n2", 9, "n3")));
    bench.hear(Message::Dead(claim("n2", 9, "n3")));
    bench.hear(Message::Suspect(claim("unknown", 9, "n3")));
    bench.hear(Message::Dead(claim("unknown", 9, "n3")));
    for versions in [[0, 5, 2, 0, 0, 0], [3, 2, 2, 0, 0, 0], [1, 0, 0, 0, 0, 0]] {
        bench.hear(Message::Alive(Alive {
            versions: Some(Versions(versions)),
            ..alive("n4", 1, 4)
        }));
    }
    assert_eq!(bench.machine.members().collect::<Vec<_>>(), before);
}

#[test]
fn nothing_brings_back_who_has_left() {
    let mut bench = Bench::new(1);
    bench.machine.leave(bench.now);
    bench.collect();
    assert!(bench.sent_to(2, |message| *message == Message::Dead(claim("me", 1, "me"))));
    bench.sent.clear();
    bench.hear(Message::Alive(alive("me", 7, 1)));
    bench.hear(Message::Suspect(claim("me", 7, "n2")));
    bench.run(2, "");
    assert_eq!(bench.machine.status("me"), Some(Status::Left));
    assert!(
        !bench
            .sent
            .iter()
            .any(|(_, message)| matches!(message, Message::Alive(a) if a.node == "me"))
    );
    assert!(bench.machine.has_left(bench.now));
}

#[test]
fn only_strangers_are_joined() {
    let mut bench = Bench::new(2);
    bench.hear(Message::Dead(claim("n3", 1, "n2")));
    bench
        .machine
        .join(&[socket(1), socket(2), socket(3), socket(4)]);
    let mut joined = Vec::new();
    while let Some(output) = bench.machine.output() {
        if let Output::Exchange { to, join: true } = output {
            joined.push(to);
        }
    }
    assert_eq!(joined, [socket(3), socket(4)]);
}
