//! Many addresses asked for at once, in turn, and when each was answered, by whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use ferrolb_e2e::Lab;
use ferrolb_speaker_socket::{Inbox, PacketSocket};
use ferrolb_speaker_wire::{ArpFrame, MacAddr, Operation, decode, filter, request};

/// Questions are sent this often, a few addresses each time.
const TICK: Duration = Duration::from_millis(10);
/// Each address is asked for this often: the finest gap that can be seen.
pub const ROUND: Duration = Duration::from_millis(50);

/// Questions that go on until told to stop.
pub struct Probe {
    stop: Arc<AtomicBool>,
    worker: JoinHandle<Result<Vec<Reply>>>,
    addresses: Vec<Ipv4Addr>,
    begun: Instant,
}

struct Reply {
    at: Instant,
    address: Ipv4Addr,
    from: MacAddr,
}

/// What was heard of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The longest time without an answer.
    pub silence: Duration,
    /// How many rounds were answered by two hardware addresses.
    pub doubled: usize,
    /// Everyone who answered.
    pub by: BTreeSet<MacAddr>,
}

impl Probe {
    /// Starts to ask for `addresses` from `host`.
    pub fn start(lab: &Lab, host: &str, addresses: &[Ipv4Addr]) -> Result<Self> {
        let us: MacAddr = lab.mac(host)?.parse().map_err(|_| anyhow!("no MAC"))?;
        let sender = lab.address(host)?;
        let frames: Vec<_> = addresses
            .iter()
            .map(|&target| request(target, sender, us))
            .collect();
        let namespace = lab.namespace(host)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let worker = std::thread::spawn(move || {
            namespace.within(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?
                    .block_on(ask(&frames, us, &stopped))
            })
        });
        Ok(Self {
            stop,
            worker,
            addresses: addresses.to_vec(),
            begun: Instant::now(),
        })
    }

    /// Asks for `addresses` for so long.
    pub fn for_a_while(
        lab: &Lab,
        host: &str,
        addresses: &[Ipv4Addr],
        time: Duration,
    ) -> Result<BTreeMap<Ipv4Addr, Heard>> {
        let probe = Self::start(lab, host, addresses)?;
        std::thread::sleep(time);
        probe.stop()
    }

    /// Stops asking and tells what was heard of each address.
    pub fn stop(self) -> Result<BTreeMap<Ipv4Addr, Heard>> {
        let ended = Instant::now();
        self.stop.store(true, Ordering::Relaxed);
        let replies = self
            .worker
            .join()
            .map_err(|_| anyhow!("the client stopped"))??;
        Ok(self
            .addresses
            .iter()
            .map(|&address| {
                let of_it = replies.iter().filter(|reply| reply.address == address);
                (address, heard(self.begun, of_it, ended))
            })
            .collect())
    }
}

async fn ask(frames: &[ArpFrame], us: MacAddr, stop: &AtomicBool) -> Result<Vec<Reply>> {
    let index = nix::net::if_::if_nametoindex("eth0")?;
    let index = NonZeroU32::new(index).context("no eth0")?;
    let socket = PacketSocket::arp(index, &filter::INCOMING_ARP)?;
    let ticks = ROUND.as_millis() / TICK.as_millis();
    let batch = frames.len().div_ceil(usize::try_from(ticks)?).max(1);
    let mut inbox = Inbox::new();
    let mut replies = Vec::new();
    let mut next = tokio::time::Instant::now();
    for batch in frames.chunks(batch).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        socket.send(batch).await?;
        next += TICK;
        while let Ok(received) = tokio::time::timeout_at(next, socket.receive(&mut inbox)).await {
            received?;
            let at = Instant::now();
            for frame in inbox.frames() {
                // Gratuitous replies, which nobody asked for, go to everybody.
                let to_us = frame.bytes.first() != Some(&0xff);
                if let Ok(packet) = decode(&frame, us)
                    && packet.operation == Operation::Reply
                    && to_us
                {
                    replies.push(Reply {
                        at,
                        address: packet.sender_ip,
                        from: packet.sender_mac,
                    });
                }
            }
        }
    }
    Ok(replies)
}

fn heard<'a>(begun: Instant, replies: impl Iterator<Item = &'a Reply>, ended: Instant) -> Heard {
    let mut heard = Heard {
        silence: Duration::ZERO,
        doubled: 0,
        by: BTreeSet::new(),
    };
    let mut last: Option<&Reply> = None;
    for reply in replies {
        let since = reply.at - last.map_or(begun, |last| last.at);
        heard.silence = heard.silence.max(since);
        // Two answers to one question: the next one is a round away.
        if since < ROUND / 2 && last.is_some_and(|last| last.from != reply.from) {
            heard.doubled += 1;
        }
        heard.by.insert(reply.from);
        last = Some(reply);
    }
    let rest = ended.saturating_duration_since(last.map_or(begun, |last| last.at));
    heard.silence = heard.silence.max(rest);
    heard
}
