//! One member of HashiCorp's memberlist in a process of its own.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

/// The quick profile, for Go: the flag and the file.
pub const TUNED: [&str; 2] = [
    "-tuning",
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/go/quick.json"),
];

/// The peer, built once.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../e2e/gopeer");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gopeer");
    let built = std::process::Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(module)
        .status()
        .expect("Go builds the peer: install Go 1.25 or newer");
    assert!(built.success(), "go build: {built}");
    program
});

/// Bytes as Go's flag takes them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A running member; killed when dropped.
pub struct GoPeer {
    child: Child,
    input: ChildStdin,
    /// The names of the live members, as the peer last told them.
    live: watch::Receiver<Vec<String>>,
    pub addr: SocketAddr,
}

impl GoPeer {
    pub async fn start(name: &str, args: &[&str]) -> Self {
        let mut child = Command::new(&*PROGRAM)
            .args(["-name", name])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines
            .next_line()
            .await
            .unwrap()
            .expect("a peer tells of itself first");
        let first: serde_json::Value = serde_json::from_str(&first).unwrap();
        let (addr, port) = (
            first[0]["addr"].as_str().unwrap(),
            first[0]["port"].as_u64().unwrap(),
        );
        let addr = SocketAddr::new(addr.parse().unwrap(), u16::try_from(port).unwrap());
        let (tell, live) = watch::channel(vec![name.to_owned()]);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let members: Vec<serde_json::Value> = serde_json::from_str(&line).unwrap();
                let names = members
                    .iter()
                    .map(|m| m["name"].as_str().unwrap().to_owned());
                tell.send_replace(names.collect());
            }
        });
        Self {
            child,
            input,
            live,
            addr,
        }
    }

    pub async fn join(&mut self, target: SocketAddr) {
        self.input
            .write_all(format!("join {target}\n").as_bytes())
            .await
            .unwrap();
    }

    /// Waits until the peer's live members are exactly these; how long that took.
    pub async fn await_live(&self, names: &[&str], limit: Duration) -> Duration {
        let started = Instant::now();
        let mut live = self.live.clone();
        let found = tokio::time::timeout(limit, live.wait_for(|live| live == names))
            .await
            .is_ok();
        assert!(
            found,
            "Go: not {names:?} after {limit:?}: {:?}",
            self.live.borrow()
        );
        started.elapsed()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("a running peer");
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    /// As when the node loses power.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Says goodbye, by the end of its input.
    pub async fn leave(self) {
        let Self {
            mut child, input, ..
        } = self;
        drop(input);
        assert!(child.wait().await.unwrap().success());
    }
}
