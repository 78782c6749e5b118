//! How fast questions are answered: by the responder as the speaker starts it, and by the kernel for addresses of its own, in
//! the same run. `docs/performance.md` says what is measured and what came out.
//!
//! A client and a node, each a network namespace, joined by a veth pair; the client asks with a packet socket and takes the
//! time from before its question is sent until the kernel receives the answer (`SO_TIMESTAMPNS`), so that its own wake-up
//! does not count. Prints one JSON array. Needs root.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what cannot be set up or measured ends the bench"
)]

mod answerer;
mod asker;

use std::sync::mpsc;
use std::time::Duration;

use ferrolb_speaker_responder::Protocol;
use ferrolb_speaker_responder::lab::{self, Host, ip, wait_for_carrier};
use serde::Serialize;

use self::answerer::{Answerer, Work};
use self::asker::{Asker, Latency, Rate};

/// How many addresses are answered for.
const ADDRESSES: [u32; 2] = [1, 10_000];

/// What is measured of one answerer.
#[derive(Debug, Serialize)]
struct Row {
    protocol: &'static str,
    answerer: &'static str,
    addresses: u32,
    /// What else goes on.
    beside: &'static str,
    latency: Latency,
    rate: Rate,
    /// Processor time the responder's thread took for each of these answers, in microseconds. The kernel's own are made
    /// on the client's time.
    processor: Option<f64>,
    /// Addresses taken or let go while that was measured, a second.
    changes: f64,
    load: f64,
}

/// How long it is measured.
#[derive(Clone, Copy)]
struct Effort {
    questions: usize,
    time: Duration,
    rounds: usize,
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "quick");
    let effort = if quick {
        Effort {
            questions: 5_000,
            time: Duration::from_millis(500),
            rounds: 1,
        }
    } else {
        Effort {
            questions: 20_000,
            time: Duration::from_secs(1),
            rounds: 5,
        }
    };
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut rows = Vec::new();
    // By turns, so that what else the machine does falls on all of them.
    for _ in 0..effort.rounds {
        for protocol in Protocol::ALL {
            for addresses in ADDRESSES {
                for (answerer, beside) in [
                    (Answerer::Kernel, Work::Nothing),
                    (Answerer::Responder, Work::Nothing),
                    (Answerer::Responder, Work::Changes),
                    (Answerer::Kernel, Work::Busy),
                    (Answerer::Responder, Work::Busy),
                    (Answerer::Joined, Work::Nothing),
                ] {
                    if answerer == Answerer::Joined && protocol == Protocol::Arp {
                        continue;
                    }
                    let name = format!("{protocol:?}-{}-{}", answerer.name(), beside.name());
                    if name.contains(&only) {
                        let row = measure(protocol, answerer, addresses, beside, effort);
                        eprintln!("{row:?}");
                        rows.push(row);
                    }
                }
            }
        }
    }
    println!(
        "{}",
        serde_json::to_string_pretty(&rows).expect("plain numbers")
    );
}

fn measure(
    protocol: Protocol,
    answerer: Answerer,
    addresses: u32,
    beside: Work,
    effort: Effort,
) -> Row {
    let (client, node) = (Host::new(), Host::new());
    let at = client.namespace.clone();
    wait(&node, move || {
        ip(&format!(
            "link add name near address {} type veth peer name far address {} netns {at}",
            lab::NEAR,
            lab::FAR
        ));
        ip("link set near up");
    });
    wait(&client, || {
        ip("link set far up");
        ip(&format!("addr add {}/24 dev far", lab::CLIENT));
        ip(&format!("addr add {}/64 dev far nodad", asker::CLIENT6));
        wait_for_carrier("far");
    });
    let answering = wait(&node, move || {
        wait_for_carrier("near");
        answerer.start(protocol, addresses, beside)
    });
    let (latency, rate, spent) = wait(&client, move || {
        let asker = Asker::new(protocol, addresses);
        asker.until_answered();
        let latency = asker.one_at_a_time(effort.questions);
        let before = answerer::processor_time();
        let rate = asker.window(effort.time);
        let after = answerer::processor_time();
        (latency, rate, before.zip(after))
    });
    let processor = spent.map(|(before, after)| {
        (after.saturating_sub(before)).as_secs_f64() * 1e6 / f64::from(rate.answered)
    });
    Row {
        protocol: match protocol {
            Protocol::Arp => "arp",
            Protocol::Ndp => "ndp",
        },
        answerer: answerer.name(),
        addresses,
        beside: beside.name(),
        latency,
        rate,
        processor,
        changes: answering.stop(),
        load: load(),
    }
}

/// Does a job on the host and waits for its end.
fn wait<T: Send + 'static>(host: &Host, job: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    drop(host.run(move || done.send(job())));
    result.recv().expect("the host's job failed")
}

/// The machine's load of the last minute.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next();
    first.and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}
