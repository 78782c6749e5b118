//! What goes wrong on purpose.

use anyhow::{Context, Result};

use super::process::Process;
use super::state::Role;
use super::{Lab, Namespace, Signal, control, network};

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
}
