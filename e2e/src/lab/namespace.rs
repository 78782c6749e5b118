//! Named network namespaces: making, entering and removing them.
//!
//! A command is put into a namespace by a thread that enters it first; children inherit it. `ip
//! netns exec` would also mount a fresh /sys, in which kubelet and containerd find no cgroups.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

/// Where `ip netns` keeps the names.
pub(super) const DIRECTORY: &str = "/run/netns";

/// A network namespace with a name known to `ip netns`.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace of a host of a lab: `LAB-HOST`.
    pub(super) fn of(lab: &str, host: &str) -> Self {
        Self {
            name: format!("{lab}-{host}"),
        }
    }

    /// Its name, as in `ip netns list`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(DIRECTORY).join(&self.name)
    }

    /// Makes it.
    pub(super) fn create(&self) -> Result<()> {
        run(Command::new("ip").args(["netns", "add", &self.name])).map(drop)
    }

    /// Runs a closure on a thread of its own inside the namespace.
    pub fn within<T: Send>(&self, closure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let path = self.path();
                let file = File::open(&path)
                    .with_context(|| format!("no namespace {}", path.display()))?;
                setns(file, CloneFlags::CLONE_NEWNET).with_context(|| {
                    format!("cannot enter namespace {} (root is needed)", self.name)
                })?;
                closure()
            });
            thread
                .join()
                .map_err(|_| anyhow!("the thread in namespace {} stopped", self.name))?
        })
    }

    /// Starts a command inside the namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.within(|| start(command))
    }

    /// Runs a command inside the namespace to its end.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        let mut child = None;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.within(|| {
            child = Some(start(command)?);
            Ok(())
        })?;
        Ok(child.context("not started")?.wait_with_output()?)
    }

    /// Feeds lines to `ip -batch` inside the namespace.
    pub(super) fn ip(&self, lines: &[String]) -> Result<()> {
        run_with_input(
            Command::new("ip").args(["-n", &self.name, "-batch", "-"]),
            &lines.join("\n"),
        )
        .map(drop)
    }

    /// Writes a kernel setting of this namespace, as `net/ipv4/ip_forward`.
    pub(super) fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.within(|| {
            settings.iter().try_for_each(|(name, value)| {
                std::fs::write(format!("/proc/sys/{name}"), value)
                    .with_context(|| format!("cannot set {name}"))
            })
        })
    }
}

/// Starts a command; the error names the program.
pub(super) fn start(command: &mut Command) -> Result<Child> {
    command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// Runs a command that must succeed; the error carries what it said.
pub(super) fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

/// Like [`run`], with text for the command's standard input.
pub(super) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let child = start(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )?;
    finish(child, input, &format!("{command:?}"))
}

/// Feeds a started command, waits for its end, and returns its standard output if it succeeded.
pub(super) fn finish(mut child: Child, input: &str, what: &str) -> Result<String> {
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        // On a thread of its own: a command that answers before it has read everything must not
        // block on a full pipe. One that ends without reading breaks the pipe, which its own exit
        // status explains better.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
        child.wait_with_output()
    })?;
    ensure!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
