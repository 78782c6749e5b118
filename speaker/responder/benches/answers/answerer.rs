//! Who answers.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ferrolb_speaker_arbiter::Key;
use ferrolb_speaker_responder::lab::{NEAR, index, ip};
use ferrolb_speaker_responder::{
    AddressMetrics, Held, Interface, Interfaces, Protocol, Responder, Table, Tables, WireMetrics,
    start,
};
use ferrolb_speaker_socket::Groups;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::asker::address;

/// Changes of the table a second: the arbiters' pace.
const PACE: u32 = 5000;

/// Addresses that come and go while others are asked for.
const OTHERS: u32 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// The kernel, for addresses of the interface.
    Kernel,
    /// The speaker's thread.
    Responder,
    /// The same, and the groups of all addresses are joined, as the arbiters do where NDP is spoken.
    Joined,
}

/// What else goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Nothing,
    /// Other addresses are taken and let go, 5000 a second.
    Changes,
    /// The same, and a thread of the same process computes all the time, as one does that reconciles.
    Busy,
}

impl Work {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Changes => "changes",
            Self::Busy => "changes and a busy thread",
        }
    }
}

/// At work.
pub struct Answering {
    _groups: Option<(Runtime, Groups)>,
    responder: Option<(Responder, CancellationToken, watch::Sender<Interfaces>)>,
    end: Arc<AtomicBool>,
    started: Instant,
    changes: Option<JoinHandle<u32>>,
    busy: Option<JoinHandle<()>>,
}

impl Answerer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Responder => "responder",
            Self::Joined => "responder, groups joined",
        }
    }

    /// Starts on this namespace's `near`.
    pub fn start(self, protocol: Protocol, addresses: u32, beside: Work) -> Answering {
        let all = (0..addresses).map(|number| address(protocol, number));
        let end = Arc::new(AtomicBool::new(false));
        let mut responder = None;
        let mut groups = None;
        let mut changes = None;
        match self {
            Self::Kernel => assign(all),
            Self::Responder | Self::Joined => {
                ip("addr add 10.9.0.2/24 dev near");
                if self == Self::Joined {
                    groups = Some(joined(all.clone()));
                }
                let registry = prometheus::Registry::new();
                let wire = WireMetrics::new(&registry).expect("nothing is registered");
                let counters = AddressMetrics::new(&registry).expect("nothing is registered");
                let near = Interface {
                    index: index("near"),
                    name: "near".to_owned(),
                    mac: NEAR,
                    running: true,
                    arp: true,
                    ndp: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa)),
                };
                let tables = Tables::default();
                let table = tables.of(near.index);
                for address in all {
                    let counters = counters.of(address);
                    table.insert(address, Held { at: None, counters });
                }
                let (told, interfaces) = watch::channel(Interfaces::from([(near.index, near)]));
                let stop = CancellationToken::new();
                let key = Key::new(b"secret").expect("a key");
                let ever = std::future::pending();
                let started = start(interfaces, tables, key, wire, stop.clone(), ever);
                responder = Some((started.expect("a thread"), stop, told));
                if beside != Work::Nothing {
                    let end = end.clone();
                    changes = Some(thread::spawn(move || {
                        change(protocol, addresses, &table, &counters, &end)
                    }));
                }
            }
        }
        let busy = (beside == Work::Busy).then(|| {
            let end = end.clone();
            thread::spawn(move || while !end.load(Ordering::Relaxed) {})
        });
        Answering {
            responder,
            _groups: groups,
            end,
            started: Instant::now(),
            changes,
            busy,
        }
    }
}

impl Answering {
    /// Ends it, and tells how many addresses were taken or let go a second.
    pub fn stop(self) -> f64 {
        self.end.store(true, Ordering::Relaxed);
        let time = self.started.elapsed();
        let changes = self
            .changes
            .map_or(0, |thread| thread.join().expect("it changes"));
        if let Some(busy) = self.busy {
            busy.join().expect("it counts");
        }
        if let Some((responder, stop, _told)) = self.responder {
            stop.cancel();
            assert!(responder.join(), "the responder fell");
        }
        f64::from(changes) / time.as_secs_f64()
    }
}

/// Joins the groups of IPv6 addresses, and the runtime their socket belongs to.
fn joined(addresses: impl Iterator<Item = IpAddr>) -> (Runtime, Groups) {
    let runtime = Builder::new_current_thread().enable_io().build();
    let runtime = runtime.expect("a runtime");
    let entered = runtime.enter();
    let socket = Protocol::Ndp
        .for_statements(index("near"))
        .expect("root may");
    let mut groups = Groups::new(Arc::new(socket));
    for address in addresses {
        if let IpAddr::V6(address) = address {
            groups.take(address).expect("the kernel has room");
        }
    }
    drop(entered);
    (runtime, groups)
}

/// Gives the kernel the addresses.
fn assign(addresses: impl Iterator<Item = IpAddr>) {
    let mut batch = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip starts");
    let mut input = batch.stdin.take().expect("it is piped");
    writeln!(input, "addr add 10.9.0.2/24 dev near").expect("ip reads");
    for address in addresses {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let nodad = if address.is_ipv4() { "" } else { " nodad" };
        writeln!(input, "addr add {address}/{length} dev near{nodad}").expect("ip reads");
    }
    drop(input);
    assert!(batch.wait().expect("ip ends").success());
}

/// Takes and lets go addresses other than the first, at the arbiters' pace; tells how many.
fn change(
    protocol: Protocol,
    first: u32,
    table: &Table,
    counters: &AddressMetrics,
    end: &AtomicBool,
) -> u32 {
    let started = Instant::now();
    let mut done = 0;
    while !end.load(Ordering::Relaxed) {
        let address = address(protocol, first + done % OTHERS);
        if (done / OTHERS).is_multiple_of(2) {
            let counters = counters.of(address);
            table.insert(address, Held { at: None, counters });
        } else {
            table.remove(address);
        }
        done += 1;
        let due = Duration::from_secs(1) * done / PACE;
        // A dozen at once, as they come.
        if done.is_multiple_of(16) {
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    done
}

/// The processor time the responder's thread has taken; none while there is none.
pub fn processor_time() -> Option<Duration> {
    let threads = fs::read_dir("/proc/self/task").ok()?;
    let name = |path: &Path| fs::read_to_string(path.join("comm")).unwrap_or_default();
    let mut paths = threads.filter_map(|thread| Some(thread.ok()?.path()));
    let path = paths.find(|path| name(path).trim() == "responder")?;
    let text = fs::read_to_string(path.join("schedstat")).ok()?;
    let nanoseconds = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}
