//! ARP requests at a steady pace from one packet socket, and every answer with the kernel's own time stamp.
//!
//! The frames are written and read here, not by FerroLB's code: what measures shall not share its faults.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, IoSliceMut},
    net::Ipv4Addr,
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        ControlMessageOwned, LinkAddr, MsgFlags, SockaddrLike as _, bind, recvmsg, setsockopt,
        sockopt,
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use super::trace::{Answer, Mac, Trace};
use crate::Lab;

/// ARP's Ethernet type.
const ETHER_TYPE: u16 = 0x0806;
/// Bytes the kernel may keep for us: seconds of answers.
const BUFFER: usize = 8 * 1024 * 1024;
/// How long the receiver waits before it looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(50);
/// A sender that is late by more than so many periods leaves questions out.
const LATE: u32 = 5;
/// Answers that are on their way when the questions stop are waited for.
const LINGER: Duration = Duration::from_millis(100);

/// The clock of every trace: time since the epoch.
pub fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Questions that go on until told to stop.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    workers: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Seen {
    asked: Vec<Duration>,
    answers: BTreeMap<Ipv4Addr, Vec<Answer>>,
}

impl Prober {
    /// Starts to ask for every one of `addresses` once in each `period` (1 ms or more) from `host`, in the name of its
    /// own address. Questions are being asked when this returns.
    ///
    /// # Errors
    /// There is no such host, or the kernel refuses the packet socket.
    pub fn start(lab: &Lab, host: &str, addresses: &[Ipv4Addr], period: Duration) -> Result<Self> {
        let us = lab.host(host)?;
        let mac = parse_mac(&us.mac)?;
        let frames: Vec<_> = addresses
            .iter()
            .map(|&target| request(mac, us.ipv4, target))
            .collect();
        let namespace = lab.namespace(host)?;
        let socket = Arc::new(namespace.within(open)?);
        let seen = Arc::new(Mutex::new(Seen {
            asked: Vec::new(),
            answers: addresses
                .iter()
                .map(|&address| (address, Vec::new()))
                .collect(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (begun, first) = mpsc::channel();
        let receiver = {
            let (socket, seen, stop) = (socket.clone(), seen.clone(), stop.clone());
            thread::spawn(move || receive(&socket, mac, &seen, &stop))
        };
        let sender = {
            let (seen, stop) = (seen.clone(), stop.clone());
            thread::spawn(move || ask(&socket, &frames, period, &seen, &stop, &begun))
        };
        let prober = Self {
            stop,
            seen,
            workers: vec![sender, receiver],
        };
        if first.recv().is_err() {
            prober.stop()?;
            return Err(anyhow!("no question could be asked from {host}"));
        }
        Ok(prober)
    }

    /// What was seen of one address so far.
    pub fn look(&self, address: Ipv4Addr) -> Trace {
        let seen = lock(&self.seen);
        Trace {
            asked: seen.asked.clone(),
            answers: seen.answers.get(&address).cloned().unwrap_or_default(),
        }
    }

    /// The newest answer for every address that has one.
    pub fn newest(&self) -> BTreeMap<Ipv4Addr, Answer> {
        let seen = lock(&self.seen);
        let newest = seen.answers.iter();
        newest
            .filter_map(|(&address, answers)| Some((address, *answers.last()?)))
            .collect()
    }

    /// Stops asking and returns what was seen of each address.
    ///
    /// # Errors
    /// The socket failed meanwhile, be it that the host was unplugged.
    pub fn stop(self) -> Result<BTreeMap<Ipv4Addr, Trace>> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker
                .join()
                .map_err(|_| anyhow!("a thread of the prober stopped"))??;
        }
        let seen = std::mem::take(&mut *lock(&self.seen));
        Ok(seen
            .answers
            .into_iter()
            .map(|(address, answers)| {
                let asked = seen.asked.clone();
                (address, Trace { asked, answers })
            })
            .collect())
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket on `eth0` of the namespace the thread is in.
pub(crate) fn open() -> Result<Socket> {
    let protocol = Protocol::from(i32::from(ETHER_TYPE.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
        .context("cannot open a packet socket (root is needed)")?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    socket.set_read_timeout(Some(LOOK))?;
    let eth0 = getifaddrs()?
        .filter(|interface| interface.interface_name == "eth0")
        .find_map(|interface| {
            let storage = interface.address?;
            let link: LinkAddr = *storage.as_link_addr()?;
            Some(link)
        })
        .context("no eth0")?;
    ensure!(eth0.len() > 0, "no link address");
    bind(socket.as_raw_fd(), &eth0).context("cannot bind to eth0")?;
    Ok(socket)
}

fn ask(
    socket: &Socket,
    frames: &[[u8; 60]],
    period: Duration,
    seen: &Mutex<Seen>,
    stop: &AtomicBool,
    begun: &mpsc::Sender<()>,
) -> Result<()> {
    let mut next = now();
    while !stop.load(Ordering::Relaxed) {
        let at = now();
        for frame in frames {
            match socket.send(frame) {
                // An unplugged host's questions get lost, as they do on a real wire.
                Err(error) if error.kind() != ErrorKind::NetworkDown => return Err(error.into()),
                _ => {}
            }
        }
        lock(seen).asked.push(at);
        // Nobody may be waiting any more.
        let _ = begun.send(());
        next += period;
        let wait = next.saturating_sub(now());
        if wait.is_zero() && now().saturating_sub(next) > period * LATE {
            next = now();
        }
        thread::sleep(wait);
    }
    Ok(())
}

fn receive(socket: &Socket, us: Mac, seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<()> {
    let mut stopping: Option<Duration> = None;
    loop {
        if stopping.is_none() && stop.load(Ordering::Relaxed) {
            stopping = Some(now());
        }
        if stopping.is_some_and(|since| now().saturating_sub(since) > LINGER) {
            return Ok(());
        }
        let mut frame = [0; 64];
        let (length, at) = match stamped(socket, &mut frame) {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => continue,
            Err(error) => return Err(error.into()),
        };
        let Some((address, from)) = reply(frame.get(..length).unwrap_or_default(), us) else {
            continue;
        };
        if let Some(answers) = lock(seen).answers.get_mut(&address) {
            answers.push(Answer { at, from });
        }
    }
}

/// The next frame's length, and when the kernel got it.
pub(crate) fn stamped(socket: &Socket, frame: &mut [u8]) -> nix::Result<(usize, Duration)> {
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut parts = [IoSliceMut::new(frame)];
    let received = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let stamp = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
        _ => None,
    });
    Ok((received.bytes, stamp.unwrap_or_else(now)))
}

/// A broadcast request for `target`, padded to the least length of a frame.
pub(crate) fn request(us: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> [u8; 60] {
    let parts: [&[u8]; 9] = [
        &[0xff; 6],
        &us,
        &ETHER_TYPE.to_be_bytes(),
        // Ethernet, IPv4, lengths of their addresses, request.
        &[0, 1, 8, 0, 6, 4, 0, 1],
        &us,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
        &[0; 18],
    ];
    let mut frame = [0; 60];
    for (place, byte) in frame.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
    }
    frame
}

/// The address and the hardware address of a reply to us; gratuitous ones, which nobody asked for, are none.
pub(crate) fn reply(frame: &[u8], us: Mac) -> Option<(Ipv4Addr, Mac)> {
    let is_reply = frame.get(12..14)? == ETHER_TYPE.to_be_bytes() && frame.get(20..22)? == [0, 2];
    if !is_reply || frame.get(..6)? != us {
        return None;
    }
    let mac: Mac = frame.get(22..28)?.try_into().ok()?;
    let address: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
    Some((address.into(), mac))
}

/// Reads `02:00:c0:a8:63:0b`.
///
/// # Errors
/// It is none.
pub fn parse_mac(text: &str) -> Result<Mac> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .with_context(|| format!("{text} is no hardware address"))?;
    bytes
        .try_into()
        .map_err(|_| anyhow!("{text} is no hardware address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Mac = [2, 0, 0, 0, 0, 1];

    /// What its owner says to a request.
    fn answer(request: &[u8; 60], owner: Mac) -> [u8; 60] {
        let mut frame = *request;
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&owner);
        frame[21] = 2;
        frame[22..28].copy_from_slice(&owner);
        frame[28..32].copy_from_slice(&request[38..42]);
        frame
    }

    #[test]
    fn a_reply_to_us_is_read() {
        let asked = request(US, [10, 0, 0, 1].into(), [10, 0, 0, 9].into());
        assert_eq!(reply(&asked, US), None);
        let owner = parse_mac("02:00:c0:a8:63:0b").unwrap();
        let mut heard = answer(&asked, owner);
        assert_eq!(reply(&heard, US), Some(([10, 0, 0, 9].into(), owner)));
        heard[..6].fill(0xff);
        assert_eq!(reply(&heard, US), None);
        assert_eq!(reply(&heard[..30], US), None);
    }

    #[test]
    fn hardware_addresses_are_read_whole() {
        assert!(parse_mac("02:00:c0:a8:63").is_err());
        assert!(parse_mac("02:00:c0:a8:63:xx").is_err());
    }
}
