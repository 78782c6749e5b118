//! Who asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant, SystemTime};

use ferrolb_speaker_responder::Protocol;
use ferrolb_speaker_responder::lab::{CLIENT, FAR, index};
use ferrolb_speaker_socket::{Inbox, PacketSocket, ask_for_short_slices};
use ferrolb_speaker_wire::{request, solicit};
use serde::Serialize;
use tokio::time::timeout;

/// The client's IPv6 address.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);

/// How many questions are out at once.
const OUTSTANDING: usize = 64;

/// When an answer counts as lost.
const LOST: Duration = Duration::from_millis(200);

/// From one address to the next that is asked for: a prime, so that all get their turn, far from each other.
const STRIDE: usize = 7919;

/// The times to an answer, one question at a time, in microseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    answered: usize,
    lost: usize,
}

/// What comes back with [`OUTSTANDING`] questions out.
#[derive(Debug, Serialize)]
pub struct Rate {
    /// Answers a second.
    per_second: f64,
    pub answered: u32,
    lost: usize,
}

/// The address with this number.
pub fn address(protocol: Protocol, number: u32) -> IpAddr {
    match protocol {
        Protocol::Arp => Ipv4Addr::from_bits(u32::from_be_bytes([10, 10, 0, 1]) + number).into(),
        Protocol::Ndp => {
            let base = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 1, 1).to_bits();
            Ipv6Addr::from_bits(base + u128::from(number)).into()
        }
    }
}

/// Asks for a number of addresses, from the far end.
pub struct Asker {
    protocol: Protocol,
    questions: Vec<(IpAddr, Vec<u8>)>,
}

/// A socket with what it received.
struct Ear {
    socket: PacketSocket,
    inbox: Inbox,
}

impl Asker {
    pub fn new(protocol: Protocol, addresses: u32) -> Self {
        let question = |number| {
            let target = address(protocol, number);
            let frame = match target {
                IpAddr::V4(target) => request(target, CLIENT, FAR).to_vec(),
                IpAddr::V6(target) => solicit(target, CLIENT6, FAR).to_vec(),
            };
            (target, frame)
        };
        Self {
            protocol,
            questions: (0..addresses).map(question).collect(),
        }
    }

    /// Asks for the last until there is an answer: by then the answerer is ready.
    pub fn until_answered(&self) {
        run(async {
            let mut ear = self.ear();
            let last = self.questions.last().expect("there are some");
            while self.time(&mut ear, last).await.is_none() {}
        });
    }

    pub fn one_at_a_time(&self, questions: usize) -> Latency {
        run(async {
            let mut ear = self.ear();
            let mut times = Vec::with_capacity(questions);
            for number in 0..questions {
                let question = &self.questions[number * STRIDE % self.questions.len()];
                times.extend(self.time(&mut ear, question).await);
            }
            times.sort_unstable();
            let at = |part: f64| {
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    clippy::cast_sign_loss,
                    reason = "a place in a list of some thousands"
                )]
                let place = (times.len() as f64 * part) as usize;
                let time = times.get(place.min(times.len().saturating_sub(1)));
                time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
            };
            Latency {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                answered: times.len(),
                lost: questions - times.len(),
            }
        })
    }

    /// Asks, and tells how long it took until the answer was there.
    async fn time(&self, ear: &mut Ear, (address, frame): &(IpAddr, Vec<u8>)) -> Option<Duration> {
        let asked = SystemTime::now();
        ear.socket
            .send(&[frame])
            .await
            .expect("the question is sent");
        loop {
            let received = timeout(LOST, ear.socket.receive(&mut ear.inbox)).await;
            received.ok()?.expect("the client hears");
            for received in ear.inbox.received() {
                if said(self.protocol, &received.frame) == Some(*address) {
                    return received.at?.duration_since(asked).ok();
                }
            }
        }
    }

    pub fn window(&self, time: Duration) -> Rate {
        run(async {
            let mut ear = self.ear();
            let (mut next, mut answered, mut lost, mut out) = (0, 0_u32, 0, 0);
            let started = Instant::now();
            let mut batch: Vec<&[u8]> = Vec::with_capacity(OUTSTANDING);
            while started.elapsed() < time {
                batch.clear();
                while out < OUTSTANDING {
                    batch.push(&self.questions[next % self.questions.len()].1);
                    next += STRIDE;
                    out += 1;
                }
                ear.socket.send(&batch).await.expect("questions are sent");
                match timeout(LOST, ear.socket.receive(&mut ear.inbox)).await {
                    Ok(received) => drop(received.expect("the client hears")),
                    Err(_elapsed) => {
                        lost += out;
                        out = 0;
                        continue;
                    }
                }
                for frame in ear.inbox.frames() {
                    if said(self.protocol, &frame).is_some() {
                        answered += 1;
                        out = out.saturating_sub(1);
                    }
                }
            }
            Rate {
                answered,
                per_second: f64::from(answered) / started.elapsed().as_secs_f64(),
                lost,
            }
        })
    }

    fn ear(&self) -> Ear {
        Ear {
            socket: self
                .protocol
                .for_statements(index("far"))
                .expect("root may"),
            inbox: Inbox::new(),
        }
    }
}

/// The address an answer is about.
fn said(protocol: Protocol, frame: &ferrolb_speaker_wire::Frame<'_>) -> Option<IpAddr> {
    let message = protocol.read(frame, FAR).ok()?;
    let location = message.location()?;
    (!location.unasked).then_some(location.address)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    // As the responder does: what is measured is who answers.
    ask_for_short_slices().expect("any thread may");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(work)
}
