//! Whatever is written is read again; whatever arrives, nothing panics and nothing grows without bound.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use ferrolb_speaker_members::{
    Alive, Claim, End, Envelope, Exchange, Identity, IndirectPing, Key, MAX_META, Machine, Message,
    Ping, Profile, Source, Status, StreamMessage, StreamReader, Versions, kind, packet, whole,
};
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9.-]{1,40}", "[a-zäß€]{1,9}", "[a-z]{250}"]
}

fn source() -> impl Strategy<Value = Option<Source>> {
    let some = (any::<IpAddr>(), 1u16.., name()).prop_map(|(addr, port, node)| Source {
        addr,
        port,
        node,
    });
    proptest::option::of(some)
}

fn claim() -> impl Strategy<Value = Claim> {
    (any::<u32>(), name(), name()).prop_map(|(incarnation, node, from)| Claim {
        incarnation,
        node,
        from,
    })
}

fn alive() -> impl Strategy<Value = Alive> {
    let meta = prop::collection::vec(any::<u8>(), 0..MAX_META);
    let versions = proptest::option::of(any::<[u8; 6]>().prop_map(Versions));
    (
        any::<u32>(),
        name(),
        any::<IpAddr>(),
        any::<u16>(),
        meta,
        versions,
    )
        .prop_map(|(incarnation, node, addr, port, meta, versions)| Alive {
            incarnation,
            node,
            addr,
            port,
            meta,
            versions,
        })
}

fn message() -> impl Strategy<Value = Message> {
    let ping =
        (any::<u32>(), name(), source()).prop_map(|(seq, node, source)| Ping { seq, node, source });
    let indirect = (
        any::<u32>(),
        any::<IpAddr>(),
        any::<u16>(),
        name(),
        any::<bool>(),
        source(),
    )
        .prop_map(|(seq, target, port, node, nack, source)| IndirectPing {
            seq,
            target,
            port,
            node,
            nack,
            source,
        });
    prop_oneof![
        ping.prop_map(Message::Ping),
        indirect.prop_map(Message::IndirectPing),
        any::<u32>().prop_map(|seq| Message::Ack { seq }),
        any::<u32>().prop_map(|seq| Message::Nack { seq }),
        claim().prop_map(Message::Suspect),
        alive().prop_map(Message::Alive),
        claim().prop_map(Message::Dead),
    ]
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Alive),
        Just(Status::Suspect),
        Just(Status::Dead),
        Just(Status::Left)
    ]
}

fn exchange() -> impl Strategy<Value = Exchange> {
    (
        any::<bool>(),
        prop::collection::vec((status(), alive()), 0..20),
    )
        .prop_map(|(join, states)| Exchange { join, states })
}

fn address() -> SocketAddr {
    "192.0.2.1:7946".parse().unwrap()
}

fn machine(now: Instant) -> Machine {
    let me = Identity {
        name: "a".to_owned(),
        addr: address().ip(),
        port: 7946,
        meta: vec![],
    };
    Machine::new(me, Profile::lan(), 0, now, 1)
}

/// Drives a machine for some virtual time, and gives the largest packet it sent.
fn run(machine: &mut Machine, mut now: Instant) -> usize {
    let end = now + Duration::from_secs(40);
    let mut largest = 0;
    for _ in 0..2000 {
        while let Some(output) = machine.output() {
            if let ferrolb_speaker_members::Output::Packet { body, .. } = output {
                largest = largest.max(body.len());
            }
        }
        let Some(wake) = machine.next_wake().filter(|wake| *wake < end) else {
            return largest;
        };
        now = now.max(wake);
        machine.tick(now);
    }
    panic!("the machine never rests");
}

fn golden() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "bin"))
        .map(|p| std::fs::read(p).unwrap())
        .collect()
}

proptest! {
    #[test]
    fn messages_come_back(messages in prop::collection::vec(message(), 1..20)) {
        let parts: Vec<Vec<u8>> = messages.iter().map(Message::encode).collect();
        let contents = packet::decode(&packet::with_checksum(&packet::join(&parts)));
        prop_assert_eq!(contents.trouble, None);
        prop_assert_eq!(contents.messages, messages);
    }

    #[test]
    fn exchanges_come_back_through_any_envelope(
        exchange in exchange(), key in proptest::option::of(any::<[u8; 32]>()), label in "[a-z]{0,20}", nonce: [u8; 12],
        piece in 1usize..2000,
    ) {
        let key = key.map(|key| Key::new(&key).unwrap());
        let envelope = Envelope::new(&label, key, true, true).unwrap();
        let stream = envelope.close_stream(&exchange.encode(), nonce, End::Dialer);
        let mut reader = StreamReader::new(&envelope, End::Acceptor);
        let mut got = None;
        for piece in stream.chunks(piece) {
            got = reader.push(piece).unwrap();
        }
        prop_assert_eq!(got, Some(StreamMessage::Exchange(exchange)));
    }

    #[test]
    fn packets_come_back_through_any_envelope(
        body: Vec<u8>, key in proptest::option::of(any::<[u8; 16]>()), label in "[a-z]{1,20}", nonce: [u8; 12],
    ) {
        let key = key.map(|key| Key::new(&key).unwrap());
        let envelope = Envelope::new(&label, key, true, true).unwrap();
        let closed = envelope.close_packet(&body, nonce);
        prop_assert_eq!(closed.len(), body.len() + envelope.overhead());
        prop_assert_eq!(envelope.open_packet(&closed).unwrap(), body);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(kind in 0u8..15, bytes: Vec<u8>) {
        let bytes = [vec![kind], bytes].concat();
        let now = Instant::now();
        let mut machine = machine(now);
        machine.packet(now, address(), &bytes);
        let _ = whole(&bytes);
        let key = Key::new(&[1; 32]).unwrap();
        let envelope = Envelope::new("", Some(key), true, true).unwrap();
        prop_assert!(envelope.open_packet(&bytes).is_err());
        for end in [End::Dialer, End::Acceptor] {
            let _ = envelope.open_stream(&bytes, end);
        }
    }
}

proptest! {
    // Each drives a machine through 40 s of its time.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_frames_of_go_are_read_or_refused(
        frame in prop::sample::select(golden()), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut frame = frame;
        for (place, byte) in changes {
            let place = place.index(frame.len());
            frame[place] = byte;
        }
        frame.truncate(cut.index(frame.len() + 1));
        let now = Instant::now();
        let mut machine = machine(now);
        // Behind the checksum too, or few changes would get past it.
        for body in [&frame[..], frame.get(5..).unwrap_or_default()] {
            machine.packet(now, address(), body);
            if let Ok(StreamMessage::Exchange(exchange)) = whole(body) {
                machine.merge(now, exchange);
            }
        }
        run(&mut machine, now);
    }

    #[test]
    fn any_history_of_messages_leaves_a_machine_that_works(
        messages in prop::collection::vec((message(), 0u64..3000), 0..60), exchange in exchange(),
    ) {
        let mut now = Instant::now();
        let mut machine = machine(now);
        for (message, wait) in messages {
            now += Duration::from_millis(wait);
            prop_assert_eq!(machine.packet(now, address(), &message.encode()), None);
            machine.tick(now);
        }
        machine.merge(now, exchange);
        let largest = run(&mut machine, now);
        prop_assert!(largest <= 1400 + 5, "a packet of {} bytes", largest);
        let me = machine.members().find(|member| member.name == "a").unwrap();
        prop_assert_eq!(me.status, Status::Alive, "we know better than anyone that we live");
        machine.leave(now);
        prop_assert!(machine.has_left(now + Duration::from_secs(1)));
    }
}

#[test]
fn every_type_byte_is_answered() {
    for of in 0..=255 {
        let trouble = packet::decode(&[of]).trouble;
        assert_eq!(trouble.is_some(), of != kind::USER, "{of}: {trouble:?}");
    }
    assert_eq!(packet::decode(&[]).trouble, Some(packet::Unreadable::Empty));
}
