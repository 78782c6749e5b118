//! A real Kubernetes cluster whose machines are network namespaces on one bridge.
//!
//! Proven as root on Linux 6.18 with cgroup v1 (hybrid), containerd 1.6 and runc 1.1; what is
//! written for cgroup v2 and containerd 1.7 and 2.x follows their documentation.
//!
//! | host | what runs there | address |
//! |---|---|---|
//! | `sw` | the bridge every host is plugged into | 192.168.99.1, fd99::1 |
//! | `cp` | etcd, API server, controller manager, scheduler | 192.168.99.2 |
//! | `n1`… | containerd, kubelet, kube-proxy, pods | 192.168.99.11… |
//! | `client1`… | whatever a test runs there | 192.168.99.51… |

mod builder;
mod capture;
mod cgroup;
mod control;
mod faults;
mod kubectl;
mod mounts;
mod namespace;
mod network;
mod node;
mod preconditions;
mod process;
mod runtime;
mod segment;
mod state;
mod sweep;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub use builder::Builder;
pub use capture::Capture;
pub use faults::Dead;
pub use namespace::Namespace;
pub use nix::sys::signal::Signal;
pub use preconditions::missing;
pub use segment::SECOND;
pub use state::{Host, Role};

use crate::artifact;
use crate::steps::{SIGN_OF_LIFE, Steps};
use state::State;

/// The name of the lab when none is given.
pub const DEFAULT_NAME: &str = "ferro";
/// Where labs keep their files: short, because unix sockets live below it.
const ROOT: &str = "/var/lib/ferrolb-lab";
/// The longest name of a lab: unix sockets live below its directory.
const NAME_LENGTH: usize = 20;
/// The environment variable that marks every process a lab starts with the lab's name.
const MARK: &str = "FERROLB_LAB";

/// Characters shown of the state one waits in; the error on timeout has it whole.
const STATE_SHOWN: usize = 160;

/// A running lab. Dropping it leaves the cluster running; [`Lab::down`] removes it.
#[derive(Debug)]
pub struct Lab {
    state: Mutex<State>,
    steps: Steps,
}

impl Lab {
    /// Starts the description of a lab. The name consists of lower-case letters and digits.
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    /// Attaches to a lab that an earlier process raised.
    pub fn open(name: &str) -> Result<Self> {
        check_name(name)?;
        let state =
            State::load(&directory(name)).with_context(|| format!("lab {name} is not up"))?;
        Ok(Self {
            state: Mutex::new(state),
            steps: Steps::start(),
        })
    }

    /// Removes the lab: every process, pod, namespace, mount, cgroup and file of it.
    pub fn down(self) -> Result<()> {
        let name = self.name();
        Self::remove(&name)
    }

    /// Removes whatever there is of the lab with this name, be it whole or the remains of a crash.
    pub fn remove(name: &str) -> Result<()> {
        let _lock = sweep::lock(name)?;
        sweep::sweep(name)
    }

    /// Every process, network namespace, mount, cgroup and directory that there still is of the
    /// lab with this name, one line each: empty after [`Lab::down`].
    pub fn leftovers(name: &str) -> Vec<String> {
        sweep::leftovers(name)
    }

    /// The lab's name.
    pub fn name(&self) -> String {
        self.state().name.clone()
    }

    /// Where the lab keeps its files; each daemon's log is `logs/HOST-PROGRAM.log` in it.
    pub fn directory(&self) -> PathBuf {
        directory(&self.state().name)
    }

    /// Every host of the lab, the switch excepted.
    pub fn hosts(&self) -> Vec<Host> {
        self.state().hosts.clone()
    }

    /// The names of the nodes, in order: `n1`, `n2`…
    pub fn nodes(&self) -> Vec<String> {
        self.names(Role::Node)
    }

    /// The names of the clients, in order: `client1`…
    pub fn clients(&self) -> Vec<String> {
        self.names(Role::Client)
    }

    fn names(&self, role: Role) -> Vec<String> {
        self.state()
            .hosts
            .iter()
            .filter(|host| host.role == role)
            .map(|host| host.name.clone())
            .collect()
    }

    /// A host by its name.
    pub fn host(&self, host: &str) -> Result<Host> {
        self.state().host(host).cloned()
    }

    /// A host's IPv4 address on the bridge.
    pub fn address(&self, host: &str) -> Result<Ipv4Addr> {
        Ok(self.host(host)?.ipv4)
    }

    /// A host's IPv6 address on the bridge.
    pub fn address6(&self, host: &str) -> Result<Ipv6Addr> {
        Ok(self.host(host)?.ipv6)
    }

    /// The MAC of a host's `eth0`, as `02:00:c0:a8:63:0b`.
    pub fn mac(&self, host: &str) -> Result<String> {
        Ok(self.host(host)?.mac)
    }

    /// The network namespace of a host; `sw` is the switch.
    pub fn namespace(&self, host: &str) -> Result<Namespace> {
        let state = self.state();
        if host != network::SWITCH {
            state.host(host)?;
        }
        Ok(Namespace::of(&state.name, host))
    }

    /// The administrator's kubeconfig. The API server is reachable from inside the lab alone:
    /// clients of it must run in a host's namespace, `cp` for instance.
    pub fn kubeconfig(&self) -> PathBuf {
        control::kubeconfig(&self.directory(), control::ADMIN)
    }

    /// Runs a command in a host's network namespace to its end. Only a command that cannot be
    /// started is an error; see [`Lab::read`] for one that must also succeed.
    pub fn exec(&self, host: &str, words: &[&str]) -> Result<Output> {
        let (program, arguments) = words.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(std::process::Stdio::null());
        self.mark(&mut command);
        self.namespace(host)?.output(&mut command)
    }

    /// Runs a command in a host's network namespace and returns its standard output; the error of
    /// one that fails carries its standard error.
    pub fn read(&self, host: &str, words: &[&str]) -> Result<String> {
        let output = self.exec(host, words)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{} on {host}: {}\n{text}{}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }

    /// Starts a command in a host's network namespace and returns at once. It ends with the lab at
    /// the latest.
    pub fn spawn(&self, host: &str, command: &mut Command) -> Result<Child> {
        self.mark(command);
        self.namespace(host)?.spawn(command)
    }

    /// Runs a closure on a thread of its own inside a host's network namespace: sockets it opens
    /// belong to that host, also after they are handed back.
    pub fn within<T: Send>(
        &self,
        host: &str,
        closure: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        self.namespace(host)?.within(closure)
    }

    /// The MAC a host's kernel holds for a neighbour's address, or `None` while it has none.
    pub fn neighbour(&self, host: &str, address: &str) -> Result<Option<String>> {
        network::neighbour(&self.namespace(host)?, address)
    }

    /// Imports an image archive on every node, all at once.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let directory = self.directory();
        let nodes = self.nodes();
        thread::scope(|scope| {
            let imports: Vec<_> = nodes
                .iter()
                .map(|node| scope.spawn(|| node::import(&directory, node, archive)))
                .collect();
            imports.into_iter().try_for_each(|import| {
                import
                    .join()
                    .map_err(|_| anyhow::anyhow!("import stopped"))?
            })
        })
    }

    /// Builds FerroLB's images and loads them on every node.
    pub fn deploy(&self) -> Result<()> {
        for archive in artifact::ferrolb_images(&self.steps)? {
            self.steps.say(&format!("loading {}", archive.display()));
            self.load_image(&archive)?;
        }
        self.steps.say("FerroLB's images are on every node");
        Ok(())
    }

    /// Builds a release of MetalLB and loads its images on every node.
    pub fn deploy_metallb(&self, release: artifact::metallb::Release) -> Result<()> {
        for archive in release.build(&self.steps)?.images()? {
            self.load_image(&archive)?;
        }
        self.steps
            .say(&format!("MetalLB {} is on every node", release.version));
        Ok(())
    }

    /// Where the lab's progress is told.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Calls `condition` until it is true or `timeout` has passed, and says every five seconds what
    /// is waited for. An error counts as "not yet"; the last one is part of the error on timeout.
    pub fn wait(
        &self,
        what: &str,
        timeout: Duration,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        self.wait_for(what, timeout, || Ok(condition()?.then_some(())))
    }

    /// Calls `probe` until it finds something or `timeout` has passed, and returns what it found.
    /// An error counts as "not yet"; the last one is part of the error on timeout.
    pub fn wait_for<T>(
        &self,
        what: &str,
        timeout: Duration,
        probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait_for(&self.steps, what, timeout, probe)
    }

    /// Lines about the lab: hosts with their addresses, and the daemons with their process numbers.
    pub fn status(&self) -> String {
        let state = self.state();
        let mut lines = vec![format!(
            "lab {} in {}",
            state.name,
            directory(&state.name).display()
        )];
        for host in &state.hosts {
            lines.push(format!(
                "{:<9} {:<15} {:<10} {}",
                host.name, host.ipv4, host.ipv6, host.mac
            ));
            for daemon in state
                .daemons
                .iter()
                .filter(|daemon| daemon.host == host.name)
            {
                let life = if daemon.process.is_alive() {
                    "running"
                } else {
                    "DEAD"
                };
                lines.push(format!(
                    "          {:<24} {:<8} {life}",
                    daemon.program, daemon.process.pid
                ));
            }
        }
        lines.join("\n")
    }

    fn mark(&self, command: &mut Command) {
        command.env(MARK, &self.state().name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a name that could not stand for a directory and, before a dash, for namespaces.
fn check_name(name: &str) -> Result<()> {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    ensure!(
        !name.is_empty() && name.len() <= NAME_LENGTH && name.chars().all(plain),
        "a lab's name is 1 to {NAME_LENGTH} lower-case letters and digits, {name:?} is not"
    );
    Ok(())
}

/// Where the lab with this name keeps its files.
fn directory(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

/// See [`Lab::wait_for`].
fn wait_for<T>(
    steps: &Steps,
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    let mut shown = begun;
    loop {
        let state = match probe() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if begun.elapsed() >= timeout {
            bail!(
                "waited {} s for {what}; last state: {state}",
                timeout.as_secs()
            );
        }
        if shown.elapsed() >= SIGN_OF_LIFE {
            shown = Instant::now();
            let short: String = state.chars().take(STATE_SHOWN).collect();
            steps.say(&format!(
                "waiting for {what} ({} s): {short}",
                begun.elapsed().as_secs()
            ));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Writes a file and the directories above it.
fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
