//! Frames that HashiCorp's memberlist 0.5.1 sent (`e2e/gopeer/record` writes them anew): ours must be the same bytes, and
//! whatever Go closes, compresses and joins must open here.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::path::Path;

use ferrolb_speaker_members::{
    Arrived, End, Envelope, Key, Message, Status, StreamMessage, StreamReader, Versions, kind,
    packet, whole,
};

/// Every frame of a scenario: its name without scenario and suffix, and its bytes.
fn frames(scenario: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs");
    let mut frames: Vec<(String, Vec<u8>)> = std::fs::read_dir(directory)
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?.strip_suffix(".bin")?;
            let name = name.strip_prefix(scenario)?.strip_prefix('-')?.to_owned();
            Some((name, std::fs::read(path).unwrap()))
        })
        .collect();
    frames.sort();
    assert!(!frames.is_empty(), "no frames of {scenario}");
    frames
}

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn envelope(scenario: &str) -> Envelope {
    let (key, label) = match scenario {
        "key16" => (Some(&SECRET[..16]), ""),
        "key32" | "keypad" => (Some(SECRET), ""),
        "keylabel" => (Some(SECRET), "blue"),
        "labelled" => (None, "blue"),
        _ => (None, ""),
    };
    Envelope::new(label, key.map(|key| Key::new(key).unwrap()), true, true).unwrap()
}

const SCENARIOS: [&str; 7] = [
    "plain",
    "compressed",
    "key16",
    "key32",
    "keypad",
    "labelled",
    "keylabel",
];

#[test]
fn our_messages_are_the_same_bytes() {
    let mut kinds = BTreeSet::new();
    for (name, frame) in frames("plain") {
        if name.starts_with("stream") {
            let encoded = match whole(&frame).unwrap() {
                StreamMessage::Exchange(exchange) => exchange.encode(),
                StreamMessage::Ping(ping) => Message::Ping(ping).encode(),
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(encoded, frame, "{name}");
            continue;
        }
        let contents = packet::decode(&frame);
        assert_eq!(contents.trouble, None, "{name}");
        let parts: Vec<Vec<u8>> = contents.messages.iter().map(Message::encode).collect();
        kinds.extend(parts.iter().map(|part| part[0]));
        let joined = packet::join(&parts);
        let again = if frame[0] == kind::HAS_CRC {
            packet::with_checksum(&joined)
        } else {
            joined
        };
        assert_eq!(again, frame, "{name}");
    }
    let all = [
        kind::PING,
        kind::INDIRECT_PING,
        kind::ACK,
        kind::SUSPECT,
        kind::ALIVE,
        kind::DEAD,
        kind::NACK,
    ];
    assert_eq!(kinds, BTreeSet::from(all), "every kind was recorded");
}

#[test]
fn every_packet_of_go_opens() {
    for scenario in SCENARIOS {
        let envelope = envelope(scenario);
        for (name, frame) in frames(scenario) {
            if name.starts_with("packet") {
                let body = envelope.open_packet(&frame).unwrap();
                let contents = packet::decode(&body);
                assert_eq!(contents.trouble, None, "{scenario}-{name}");
                assert!(!contents.messages.is_empty(), "{scenario}-{name}");
            }
        }
    }
}

#[test]
fn every_stream_of_go_opens() {
    for scenario in SCENARIOS {
        let envelope = envelope(scenario);
        let streams = frames(scenario);
        let label = streams.iter().find(|(name, _)| name == "stream-label");
        let label = label.map_or(&[][..], |(_, head)| head);
        let mut seen = 0;
        for (name, frame) in streams
            .iter()
            .filter(|(name, _)| name.starts_with("stream"))
        {
            if name == "stream-label" {
                continue;
            }
            let mut reader = StreamReader::new(&envelope, End::Acceptor);
            assert_eq!(reader.push(label).unwrap(), None);
            let Some(StreamMessage::Exchange(exchange)) = reader.push(frame).unwrap() else {
                continue;
            };
            seen += 1;
            assert!(exchange.join, "{scenario}-{name}: the first one joins");
            let (status, alive) = &exchange.states[0];
            assert_eq!(
                (*status, alive.addr.to_string().as_str()),
                (Status::Alive, "127.0.0.1")
            );
            let Versions([least, greatest, ..]) = alive.versions.unwrap();
            assert_eq!((least, greatest), (1, 5));
        }
        assert_eq!(seen, 1, "{scenario}");
    }
}

#[test]
fn compression_was_really_used() {
    let compressed = frames("compressed");
    let (_, stream) = compressed
        .iter()
        .find(|(name, _)| name == "stream-compress")
        .unwrap();
    assert_eq!(stream[0], kind::COMPRESS);
    assert!(compressed.iter().any(|(name, frame)| {
        name == "packet-crc-compress" && packet::decode(frame).messages.len() > 1
    }));
}

#[test]
fn what_is_for_others_stays_closed() {
    for scenario in SCENARIOS {
        for other in SCENARIOS {
            let same = (scenario, other);
            let same = scenario == other
                || matches!(same, ("plain", "compressed") | ("compressed", "plain"))
                || matches!(same, ("key32", "keypad") | ("keypad", "key32"));
            let envelope = envelope(other);
            for (name, frame) in frames(scenario)
                .iter()
                .filter(|(name, _)| name.starts_with("packet"))
            {
                let understood = envelope.open_packet(frame).is_ok_and(|body| {
                    let contents = packet::decode(&body);
                    contents.trouble.is_none() && !contents.messages.is_empty()
                });
                assert_eq!(understood, same, "{scenario}-{name} opened as {other}");
            }
        }
    }
}

#[test]
fn ours_is_closed_as_go_does_it() {
    // The sealed head of Go's stream: type, length, version, nonce. The same nonce gives the same bytes.
    let envelope = envelope("key16");
    for (name, frame) in frames("key16") {
        if name == "stream-encrypt" {
            let nonce = frame[6..18].try_into().unwrap();
            let Arrived::Opened(body) = envelope.open_stream(&frame, End::Acceptor).unwrap() else {
                panic!("{name} is whole");
            };
            assert_eq!(envelope.close_stream(&body, nonce, End::Dialer), frame);
        } else {
            let nonce = frame[1..13].try_into().unwrap();
            let body = envelope.open_packet(&frame).unwrap();
            assert_eq!(envelope.close_packet(&body, nonce), frame);
        }
    }
}
