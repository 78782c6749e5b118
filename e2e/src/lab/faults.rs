//! What goes wrong on purpose.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::namespace::{run, run_with_input};
use super::process::{Process, identity, others};
use super::state::Role;
use super::{Lab, Namespace, Signal, cgroup, control, network};

/// The bridge that the hosts of the smaller half of a partition are plugged into.
const OTHER_HALF: &str = "br9";
/// How often a limited group gets its share anew, in microseconds: Kubernetes' own choice.
const THROTTLE_PERIOD: u32 = 100_000;

/// The direction in which a switch port is dead; the link stays up, and nobody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dead {
    /// The host's frames do not reach the switch: it hears and is not heard.
    FromHost,
    /// The switch's frames do not reach the host: it is heard and does not hear.
    ToHost,
}

impl Lab {
    /// Takes a host off the switch, as by pulling its cable: the host's own link goes down too.
    pub fn unplug(&self, host: &str) -> Result<()> {
        self.set_plugged(host, false)
    }

    /// Puts a host back on the switch.
    pub fn plug(&self, host: &str) -> Result<()> {
        self.set_plugged(host, true)
    }

    fn set_plugged(&self, host: &str, plugged: bool) -> Result<()> {
        self.host(host)?;
        network::set_port(&self.name(), host, plugged)?;
        let mut state = self.state();
        state.unplugged.retain(|name| name != host);
        if !plugged {
            state.unplugged.push(host.to_owned());
        }
        state.save(&super::directory(&state.name))?;
        drop(state);
        self.route_services()
    }

    /// Lets the control plane reach cluster addresses through the first node that is on the switch.
    pub(super) fn route_services(&self) -> Result<()> {
        let state = self.state();
        let node = state
            .hosts
            .iter()
            .find(|host| host.role == Role::Node && !state.unplugged.contains(&host.name))
            .cloned();
        let control = Namespace::of(&state.name, control::HOST);
        drop(state);
        node.map_or(Ok(()), |node| network::route_services(&control, &node))
    }

    /// Sends a signal to a process, as found by [`Lab::container_pid`] for instance.
    pub fn kill(&self, pid: u32, signal: Signal) -> Result<()> {
        let process = i32::try_from(pid).ok().and_then(Process::of);
        process
            .with_context(|| format!("no process {pid}"))?
            .signal(signal)
    }

    /// Lets a host's switch port carry frames in one direction only, until [`Lab::mend`].
    ///
    /// # Errors
    /// The kernel has no nftables for the `netdev` family (egress needs Linux 5.16), or the port is dead already.
    pub fn cut(&self, host: &str, dead: Dead) -> Result<()> {
        self.host(host)?;
        let hook = match dead {
            Dead::FromHost => "ingress",
            Dead::ToHost => "egress",
        };
        self.nft(
            network::SWITCH,
            &format!(
                "table netdev cut_{host} {{\n\
                 chain frames {{ type filter hook {hook} device \"{host}\" priority 0; policy drop; }}\n}}"
            ),
        )
    }

    /// Takes away what [`Lab::cut`] did.
    ///
    /// # Errors
    /// The port is whole.
    pub fn mend(&self, host: &str) -> Result<()> {
        self.nft(network::SWITCH, &format!("delete table netdev cut_{host}"))
    }

    /// Drops TCP and UDP of a port, to and from a host, in the host's own kernel, until [`Lab::open_port`].
    ///
    /// # Errors
    /// The kernel has no nftables.
    pub fn block_port(&self, host: &str, port: u16) -> Result<()> {
        self.nft(
            host,
            &format!(
                "table inet block_{port} {{\n\
                 chain in {{ type filter hook input priority -300; meta l4proto {{ tcp, udp }} th dport {port} drop; }}\n\
                 chain out {{ type filter hook output priority -300; meta l4proto {{ tcp, udp }} th dport {port} drop; }}\n}}"
            ),
        )
    }

    /// Takes away what [`Lab::block_port`] did.
    ///
    /// # Errors
    /// The port is open.
    pub fn open_port(&self, host: &str, port: u16) -> Result<()> {
        self.nft(host, &format!("delete table inet block_{port}"))
    }

    fn nft(&self, host: &str, rules: &str) -> Result<()> {
        let namespace = self.namespace(host)?;
        namespace.within(|| run_with_input(Command::new("nft").args(["-f", "-"]), rules).map(drop))
    }

    /// Splits the LAN: these hosts are on a switch of their own from now on, until [`Lab::rejoin`]. No link goes down.
    ///
    /// # Errors
    /// There is no such host, or the LAN is split already.
    pub fn partition(&self, hosts: &[&str]) -> Result<()> {
        let mut lines = vec![
            format!("link add {OTHER_HALF} type bridge stp_state 0 forward_delay 0"),
            format!("link set {OTHER_HALF} up"),
        ];
        for host in hosts {
            self.host(host)?;
            lines.push(format!("link set {host} master {OTHER_HALF}"));
        }
        Namespace::of(&self.name(), network::SWITCH).ip(&lines)
    }

    /// Makes one LAN again of what [`Lab::partition`] split.
    ///
    /// # Errors
    /// The LAN is not split.
    pub fn rejoin(&self) -> Result<()> {
        let switch = Namespace::of(&self.name(), network::SWITCH);
        // Read off the switch: the process that split it may be another one.
        let mut ports = Command::new("ip");
        ports.args([
            "-n",
            switch.name(),
            "-o",
            "link",
            "show",
            "master",
            OTHER_HALF,
        ]);
        let mut lines: Vec<_> = run(&mut ports)?
            .lines()
            .filter_map(|line| line.split(": ").nth(1)?.split('@').next())
            .map(|port| format!("link set {port} master {}", network::BRIDGE))
            .collect();
        lines.push(format!("link del {OTHER_HALF}"));
        switch.ip(&lines)
    }

    /// Stops every process of a node with SIGSTOP: containerd, its shims, every container, kubelet, kube-proxy. What the
    /// kernel does for the node goes on, unlike on a machine that hangs: it forwards, and answers for the node's own
    /// addresses. Returns how many processes were stopped.
    ///
    /// # Errors
    /// There is no such node, or nothing of it runs.
    pub fn freeze(&self, node: &str) -> Result<usize> {
        let mut stopped = 0;
        // Twice: one of them may have been starting another.
        for _ in 0..2 {
            let found: Vec<_> = self.processes_of(node)?;
            stopped = found.len();
            found
                .into_iter()
                .try_for_each(|process| process.signal(Signal::SIGSTOP))?;
        }
        ensure!(stopped > 0, "nothing runs on {node}");
        Ok(stopped)
    }

    /// Lets a frozen node go on.
    ///
    /// # Errors
    /// There is no such node.
    pub fn thaw(&self, node: &str) -> Result<()> {
        self.processes_of(node)?
            .into_iter()
            .try_for_each(|process| process.signal(Signal::SIGCONT))
    }

    /// Everything in a node's network namespace or below its cgroup.
    fn processes_of(&self, node: &str) -> Result<Vec<Process>> {
        let room = identity(&self.namespace(node)?.path());
        let group = format!("{}/{node}", self.name());
        Ok(others()
            .into_iter()
            .filter(|process| {
                (room.is_some() && process.network() == room)
                    || cgroup::holds(&group, &process.cgroups())
            })
            .collect())
    }

    /// Sends a signal to a daemon of a host: `kubelet` of `n1`.
    ///
    /// # Errors
    /// No such daemon was started there.
    pub fn signal_daemon(&self, host: &str, program: &str, signal: Signal) -> Result<()> {
        self.daemon(host, program)?.signal(signal)
    }

    /// Limits the cgroup of a container's process to so many thousandths of a CPU (100 is Kubernetes' `100m`), and returns
    /// the group's `cpu.stat`, which counts how often the limit held it back.
    ///
    /// # Errors
    /// The kernel has no CPU bandwidth control, or the process is in no group of its own.
    pub fn throttle(&self, pid: u32, millicpu: u32) -> Result<PathBuf> {
        let group = cgroup::of_cpu(pid)?;
        let quota = THROTTLE_PERIOD / 1000 * millicpu;
        let (file, text) = if cgroup::unified() {
            ("cpu.max", format!("{quota} {THROTTLE_PERIOD}"))
        } else {
            fs::write(group.join("cpu.cfs_period_us"), THROTTLE_PERIOD.to_string())
                .with_context(|| format!("{} cannot be limited", group.display()))?;
            ("cpu.cfs_quota_us", quota.to_string())
        };
        fs::write(group.join(file), text)
            .with_context(|| format!("{} cannot be limited", group.display()))?;
        Ok(group.join("cpu.stat"))
    }
}
