//! Tagged questions, answers and announcements over a veth pair whose far end is in a namespace of its own, with a Linux
//! kernel's own addresses there: what arrives, what that kernel answers, and what it learns. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use ferrolb_speaker_socket::{Inbox, PacketSocket};
use ferrolb_speaker_wire::filter::INCOMING_NEIGHBOURS;
use ferrolb_speaker_wire::{
    FrameBuf, MacAddr, Message, Said, Station, Tag, announcement, answer, question,
};
use nix::sched::{CloneFlags, unshare};
use tokio::time::timeout;

const NEAR: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xa);
const FAR: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xb);
/// Only to catch a hang.
const SOON: Duration = Duration::from_secs(20);

const HERE: Station = Station {
    mac: NEAR,
    link_local: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa)),
};
/// Addresses of the far kernel, and some of nobody.
const KERNELS: [&str; 2] = ["10.9.0.2", "fd99::2"];
const NOBODYS: [&str; 2] = ["10.9.0.240", "fd99::240"];
const TAG: Tag = *b"opaque, 18 bytes.\xff";

/// Runs `test` with the near end in a fresh namespace, and the far end in another that a second thread keeps. `test` has the
/// far kernel do things by sending that thread commands: see [`Far`].
fn in_lab<F: Future<Output = ()>>(test: impl FnOnce(Far) -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: a network namespace needs root");
        return;
    }
    let lab = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip link add name near type veth peer name far");
        let far = Far::start();
        run(&format!("ip link set far netns {}", far.process));
        // The link-local address that questions come from, known to be free without waiting; no other.
        run("ip link set near addrgenmode none");
        run(&format!("ip link set near address {NEAR} up"));
        run("ip addr add fe80::a/64 dev near nodad");
        far.run("ip link set far addrgenmode none");
        far.run(&format!("ip link set far address {FAR} up"));
        far.run("ip addr add 10.9.0.2/24 dev far");
        far.run("ip addr add fe80::b/64 dev far nodad");
        far.run("ip addr add fd99::2/64 dev far nodad");
        // Until carrier has been noticed the kernel drops what is sent.
        while !run("ip -br link show near").contains(" UP ")
            || !far.run("ip -br link show far").contains(" UP ")
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { timeout(SOON, test(far)).await.expect("the test hangs") });
    });
    if let Err(panic) = lab.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program with arguments free of blanks in the namespace of the thread.
fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The far end's namespace: a thread in it, which ends with this.
struct Far {
    work: mpsc::Sender<Work>,
    /// By which `ip` finds the namespace: the thread's id.
    process: i32,
}

type Work = Box<dyn FnOnce() + Send>;

impl Far {
    fn start() -> Self {
        let (work, queue) = mpsc::channel::<Work>();
        let (told, process) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            told.send(nix::unistd::gettid().as_raw()).unwrap();
            for work in queue {
                work();
            }
        });
        let process = process.recv().unwrap();
        Self { work, process }
    }

    fn on<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (told, result) = mpsc::channel();
        let work = Box::new(move || told.send(work()).unwrap());
        self.work.send(work).unwrap();
        result.recv().unwrap()
    }

    fn run(&self, line: &str) -> String {
        let line = line.to_owned();
        self.on(move || run(&line))
    }

    /// What the far kernel believes of its neighbours.
    fn neighbours(&self) -> String {
        ["-4", "-6"]
            .map(|family| self.run(&format!("ip {family} neigh show dev far")))
            .concat()
    }
}

type Open = fn(NonZeroU32, &[ferrolb_speaker_wire::filter::Instruction]) -> OpenResult;
type OpenResult = Result<PacketSocket, ferrolb_speaker_socket::OpenError>;

/// The socket for the protocol of `address` at an end in the thread's namespace.
fn open(end: &str, address: IpAddr) -> PacketSocket {
    let index = nix::net::if_::if_nametoindex(end).unwrap();
    let open: Open = match address {
        IpAddr::V4(_) => PacketSocket::arp,
        IpAddr::V6(_) => PacketSocket::ndp,
    };
    open(NonZeroU32::new(index).unwrap(), &INCOMING_NEIGHBOURS).unwrap()
}

fn read<'a>(
    frame: &ferrolb_speaker_wire::Frame<'a>,
    address: IpAddr,
    us: MacAddr,
) -> Option<Message<'a>> {
    match address {
        IpAddr::V4(_) => Message::arp(frame, us),
        IpAddr::V6(_) => Message::ndp(frame, us),
    }
    .ok()
}

/// Sends `frames` from the near end and then `last`, a question the far kernel answers; gives what was heard until then.
async fn exchange(
    frames: &[FrameBuf],
    last: FrameBuf,
    kernels: IpAddr,
) -> Vec<(Said, Option<Tag>)> {
    let socket = open("near", kernels);
    socket.send(frames).await.unwrap();
    socket.send(&[last]).await.unwrap();
    let (mut inbox, mut heard) = (Inbox::new(), Vec::new());
    loop {
        socket.receive(&mut inbox).await.unwrap();
        for frame in inbox.frames() {
            let Some(message) = read(&frame, kernels, NEAR) else {
                continue;
            };
            let location = message.location();
            if message.asked().is_none() && location.is_some_and(|it| it.address == kernels) {
                assert_eq!((message.sender(), message.source), (FAR, FAR));
                assert!(!location.unwrap().unasked, "{message:?}");
                assert_ne!(message.tag, Some(&TAG));
                return heard;
            }
            heard.push((message.said, message.tag.copied()));
        }
    }
}

/// All that can be said of an address, to the far end and to all.
fn everything(address: IpAddr) -> Vec<FrameBuf> {
    [None, Some(FAR)]
        .into_iter()
        .flat_map(|to| {
            let asked = question(address, to, &HERE, Some(&TAG));
            let told = answer(address, FAR, None, &HERE, Some(&TAG));
            announcement(address, to, &HERE, Some(&TAG)).chain([asked, told])
        })
        .collect()
}

/// Input: every form, of both protocols.
/// Output: the same frames at the far end, tags and all.
#[test]
fn tags_arrive_as_they_were_sent() {
    in_lab(|far| async move {
        for address in NOBODYS.map(|address| address.parse().unwrap()) {
            let (told, heard) = mpsc::channel();
            let (ready, listening) = mpsc::channel();
            let sent = everything(address);
            let count = sent.len();
            far.work
                .send(Box::new(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap();
                    runtime.block_on(async {
                        let socket = open("far", address);
                        ready.send(()).unwrap();
                        let (mut inbox, mut seen) = (Inbox::new(), 0);
                        while seen < count {
                            timeout(SOON, socket.receive(&mut inbox))
                                .await
                                .unwrap()
                                .unwrap();
                            for frame in inbox.frames() {
                                let message = read(&frame, address, FAR).unwrap();
                                if message.about() == address {
                                    assert_eq!(message.tag, Some(&TAG));
                                    told.send(frame.bytes.to_vec()).unwrap();
                                    seen += 1;
                                }
                            }
                        }
                    });
                }))
                .unwrap();
            listening.recv().unwrap();
            open("near", address).send(&sent).await.unwrap();
            let heard: Vec<_> = heard.iter().take(count).collect();
            let sent: Vec<_> = sent.iter().map(|frame| frame.as_slice().to_vec()).collect();
            assert_eq!(heard, sent);
        }
    });
}

/// Input: tagged and plain questions, to one and to all, for an address of nobody and for one of the far kernel.
/// Output: it answers for its own, each time, without a tag; it believes nothing new of any address but the asker's.
#[test]
fn a_question_is_answered_by_a_kernel_for_its_own_address_and_teaches_it_nothing() {
    in_lab(|far| async move {
        for (kernels, nobodys) in KERNELS.into_iter().zip(NOBODYS) {
            let (kernels, nobodys): (IpAddr, IpAddr) =
                (kernels.parse().unwrap(), nobodys.parse().unwrap());
            let both =
                |address| [None, Some(FAR)].map(|to| question(address, to, &HERE, Some(&TAG)));
            let plain = question(kernels, Some(FAR), &HERE, None);
            assert_eq!(exchange(&both(nobodys), plain, kernels).await, []);
            for asked in both(kernels) {
                assert_eq!(exchange(&[], asked, kernels).await, []);
            }
        }
        let believed = far.neighbours();
        let lines: Vec<_> = believed.lines().collect();
        assert!(
            lines.iter().all(|line| line.starts_with("fe80::a ")),
            "{believed}"
        );
    });
}

/// Input: a far kernel that believes addresses elsewhere, and what makes known or answers where they are.
/// Output: an answer and an announcement each put it right.
#[test]
fn what_is_told_is_believed() {
    in_lab(|far| async move {
        // By default an answer replaces nothing younger than a second.
        far.run("sysctl -w net.ipv4.neigh.far.locktime=0");
        for (kernels, address) in KERNELS.into_iter().zip(NOBODYS) {
            let (kernels, address): (IpAddr, IpAddr) =
                (kernels.parse().unwrap(), address.parse().unwrap());
            let announced = |to| announcement(address, to, &HERE, Some(&TAG)).collect::<Vec<_>>();
            for told in [
                announced(None),
                announced(Some(FAR)),
                vec![answer(address, FAR, None, &HERE, Some(&TAG))],
            ] {
                far.run(&format!(
                    "ip neigh replace {address} dev far lladdr 02:00:00:00:00:99 nud stale"
                ));
                // An answer replaces nothing that was learned in the same tick of the kernel's clock.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let plain = question(kernels, Some(FAR), &HERE, None);
                exchange(&told, plain, kernels).await;
                let believed = far.run(&format!("ip neigh show {address} dev far"));
                assert!(
                    believed.contains("lladdr 02:00:00:00:00:0a"),
                    "{told:?}: {believed}"
                );
            }
        }
    });
}

/// Input: answers and advertisements of others, and this host's own frames.
/// Output: the filter lets the first through, and none of the second.
#[test]
fn the_filter_lets_answers_through_and_none_of_our_own() {
    in_lab(|far| async move {
        for (kernels, address) in KERNELS.into_iter().zip(NOBODYS) {
            let (kernels, address): (IpAddr, IpAddr) =
                (kernels.parse().unwrap(), address.parse().unwrap());
            let there = Station {
                mac: FAR,
                link_local: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xb)),
            };
            let near = open("near", address);
            near.send(&everything(address)).await.unwrap();
            let mut sent: Vec<_> = announcement(address, None, &there, Some(&TAG)).collect();
            sent.push(answer(address, NEAR, None, &there, Some(&TAG)));
            let count = sent.len();
            far.on(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async { open("far", kernels).send(&sent).await.unwrap() });
            });
            let (mut inbox, mut heard) = (Inbox::new(), 0);
            while heard < count {
                near.receive(&mut inbox).await.unwrap();
                for frame in inbox.frames() {
                    let message = read(&frame, address, NEAR).unwrap();
                    assert_eq!(message.source, FAR);
                    if message.about() == address {
                        assert_eq!((message.sender(), message.tag), (FAR, Some(&TAG)));
                        heard += 1;
                    }
                }
            }
        }
    });
}
