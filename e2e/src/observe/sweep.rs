//! When each of thousands of addresses is answered for: ARP requests at a steady pace for those that have not been
//! answered yet.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use nix::errno::Errno;
use socket2::Socket;

use super::{
    prober::{self, parse_mac},
    trace::Mac,
};
use crate::Lab;

/// Questions sent without a pause between them.
const AT_ONCE: usize = 20;

/// Addresses, and when each was first answered for.
#[derive(Debug)]
pub struct Sweep {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    workers: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Seen {
    open: BTreeMap<Ipv4Addr, [u8; 60]>,
    answered: BTreeMap<Ipv4Addr, Duration>,
}

impl Sweep {
    /// Starts to ask from `host` for those of `addresses` that have not been answered, `pace` questions a second in turn.
    ///
    /// # Errors
    /// There is no such host, or the kernel refuses the packet socket.
    pub fn start(
        lab: &Lab,
        host: &str,
        addresses: impl IntoIterator<Item = Ipv4Addr>,
        pace: u32,
    ) -> Result<Self> {
        let us = lab.host(host)?;
        let mac = parse_mac(&us.mac)?;
        let socket = Arc::new(lab.namespace(host)?.within(prober::open)?);
        let open = addresses
            .into_iter()
            .map(|address| (address, prober::request(mac, us.ipv4, address)))
            .collect();
        let seen = Arc::new(Mutex::new(Seen {
            open,
            answered: BTreeMap::new(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let receiver = {
            let (socket, seen, stop) = (socket.clone(), seen.clone(), stop.clone());
            thread::spawn(move || receive(&socket, mac, &seen, &stop))
        };
        let sender = {
            let (seen, stop) = (seen.clone(), stop.clone());
            thread::spawn(move || ask(&socket, pace, &seen, &stop))
        };
        Ok(Self {
            stop,
            seen,
            workers: vec![sender, receiver],
        })
    }

    /// How many have not been answered for yet.
    pub fn left(&self) -> usize {
        lock(&self.seen).open.len()
    }

    /// Waits until every address was answered for, `limit` at most.
    pub fn wait(&self, limit: Duration) {
        let begun = Instant::now();
        while self.left() > 0 && begun.elapsed() < limit {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops asking; when each address was first answered for, as time since the epoch. Those that never were are
    /// missing.
    ///
    /// # Errors
    /// The socket failed meanwhile.
    pub fn stop(self) -> Result<BTreeMap<Ipv4Addr, Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker
                .join()
                .map_err(|_| anyhow!("a thread of the sweep stopped"))??;
        }
        Ok(std::mem::take(&mut lock(&self.seen).answered))
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask(socket: &Socket, pace: u32, seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<()> {
    let pause = Duration::from_secs(1) / pace.max(1) * u32::try_from(AT_ONCE)?;
    let mut last = Ipv4Addr::UNSPECIFIED;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let frames: Vec<_> = {
            let seen = lock(seen);
            let later = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
            let turn = seen.open.range(later).chain(&seen.open);
            turn.take(AT_ONCE.min(seen.open.len()))
                .map(|(address, frame)| (*address, *frame))
                .collect()
        };
        for (address, frame) in frames {
            last = address;
            match socket.send(&frame) {
                // What a full queue or a dead link swallows is asked again.
                Err(error)
                    if !matches!(error.kind(), ErrorKind::NetworkDown | ErrorKind::WouldBlock)
                        && error.raw_os_error() != Some(Errno::ENOBUFS as i32) =>
                {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        next += pause;
        let now = Instant::now();
        if next > now {
            thread::sleep(next - now);
        } else {
            next = now;
        }
    }
    Ok(())
}

fn receive(socket: &Socket, us: Mac, seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let mut frame = [0; 64];
        let (length, at) = match prober::stamped(socket, &mut frame) {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => continue,
            Err(error) => return Err(error.into()),
        };
        let Some((address, _)) = prober::reply(frame.get(..length).unwrap_or_default(), us) else {
            continue;
        };
        let mut seen = lock(seen);
        if seen.open.remove(&address).is_some() {
            seen.answered.insert(address, at);
        }
    }
    Ok(())
}
