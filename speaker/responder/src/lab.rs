//! A real segment for tests and benches: interfaces in network namespaces of their own. Needs root.
#![allow(
    clippy::missing_panics_doc,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what it cannot set up ends the test; no daemon is built with it"
)]

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ferrolb_speaker_wire::MacAddr;
use nix::sched::{CloneFlags, unshare};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::interface::Interface;

/// An address to be answered for.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 240);
/// Another.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 241);
/// The client's.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The node's hardware address.
pub const NEAR: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xa);
/// The client's hardware address.
pub const FAR: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xb);
/// Only to catch a hang.
const SOON: Duration = Duration::from_mins(1);

type Job = Box<dyn FnOnce() + Send>;

/// A host in a network namespace of its own, which goes with it. Does one job after the other.
pub struct Host {
    jobs: mpsc::Sender<Job>,
    /// The path of its namespace, while it lives.
    pub namespace: String,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A new one, alone.
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (home, namespace) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            home.send(namespace_here()).unwrap();
            for job in queue {
                job();
            }
        });
        let namespace = namespace.recv().unwrap();
        Self { jobs, namespace }
    }

    /// Starts a job; what it returns may be awaited, or not.
    pub fn run<T: Send + 'static, J: FnOnce() -> T + Send + 'static>(
        &self,
        job: J,
    ) -> impl Future<Output = T> + use<T, J> {
        let (done, result) = oneshot::channel();
        let job = move || {
            let _nobody_waits = done.send(job());
        };
        self.jobs.send(Box::new(job)).unwrap();
        async { result.await.expect("the client's job failed") }
    }
}

/// The path of this thread's network namespace.
pub fn namespace_here() -> String {
    let thread = nix::unistd::gettid();
    format!("/proc/{}/task/{thread}/ns/net", std::process::id())
}

/// The node's side of the pair, and the client at the far end.
pub struct Lab {
    /// The far end, `far`.
    pub client: Host,
    /// The near end, in the namespace of who runs the test.
    pub near: Interface,
}

/// Runs `test` in a network namespace of its own, which goes with its thread; nothing at all where that is not allowed.
pub fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: a network namespace needs root");
        return;
    }
    let node = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            timeout(SOON, test()).await.expect("the test hangs");
        });
    });
    if let Err(panic) = node.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `test` on the node; both namespaces go with their threads.
pub fn in_lab<F: Future<Output = ()>>(test: impl FnOnce(Lab) -> F + Send + 'static) {
    in_namespace(|| async {
        let client = Host::new();
        // The pair goes with either namespace: a test that has no use for the client may drop it.
        let _stays = client.jobs.clone();
        ip(&format!(
            "link add name near address {NEAR} type veth peer name far address {FAR} netns {}",
            client.namespace
        ));
        ip("link set near up");
        let near = Interface {
            index: index("near"),
            name: "near".to_owned(),
            mac: NEAR,
            running: true,
            arp: true,
            ndp: None,
        };
        client
            .run(|| {
                ip("link set far up");
                ip(&format!("addr add {CLIENT}/24 dev far"));
                wait_for_carrier("far");
            })
            .await;
        wait_for_carrier("near");
        test(Lab { client, near }).await;
    });
}

/// What `ip` said.
pub fn ip(arguments: &str) -> String {
    said("ip", arguments)
}

/// What a program said. Children inherit the namespace of the thread that starts them.
pub fn said(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Until carrier has been noticed the kernel drops what is sent without a word.
pub fn wait_for_carrier(interface: &str) {
    while !ip(&format!("link show {interface}")).contains("state UP") {
        thread::sleep(Duration::from_millis(5));
    }
}

/// The index of an interface of this namespace.
pub fn index(name: &str) -> NonZeroU32 {
    NonZeroU32::new(nix::net::if_::if_nametoindex(name).unwrap()).unwrap()
}
