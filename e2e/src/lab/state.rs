//! What a lab remembers of itself on disk, for the next process that deals with it.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::process::Process;

/// The file in the lab's directory.
const FILE: &str = "state.json";

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// etcd, API server, controller manager, scheduler.
    ControlPlane,
    /// A node of the cluster.
    Node,
    /// A machine on the same segment that is no part of the cluster.
    Client,
}

/// A machine of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name: `cp`, `n1`, `client1`.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Counts the hosts of a role from 1; a node's pods live in 10.244.INDEX.0/24.
    pub index: u8,
    /// The address of its `eth0`.
    pub ipv4: Ipv4Addr,
    /// The other address of its `eth0`.
    pub ipv6: Ipv6Addr,
    /// The MAC of its `eth0`.
    pub mac: String,
}

/// A daemon the lab started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Daemon {
    /// The host it runs on.
    pub host: String,
    /// What it is: `etcd`, `kubelet`.
    pub program: String,
    /// Its process.
    pub process: Process,
}

/// Everything remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    /// The lab's name.
    pub name: String,
    /// The binary with all of Kubernetes.
    pub kubernetes: PathBuf,
    /// Every host except the switch.
    pub hosts: Vec<Host>,
    /// The hosts that are off the switch.
    pub unplugged: Vec<String>,
    /// Every daemon started so far.
    pub daemons: Vec<Daemon>,
}

impl State {
    /// Reads the state of the lab in this directory.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("cannot understand {}", path.display()))
    }

    /// Writes the state in one step.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let draft = directory.join("state.part");
        super::write(&draft, &serde_json::to_string_pretty(self)?)?;
        fs::rename(&draft, directory.join(FILE)).context("cannot save the lab's state")
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts
            .iter()
            .find(|host| host.name == name)
            .with_context(|| {
                let names: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
                format!(
                    "lab {} has no host {name}; it has {}",
                    self.name,
                    names.join(", ")
                )
            })
    }

    /// Remembers a daemon in place of an earlier one of the same program on the same host.
    pub fn remember(&mut self, host: &str, program: &str, process: Process) {
        self.daemons
            .retain(|daemon| daemon.host != host || daemon.program != program);
        self.daemons.push(Daemon {
            host: host.to_owned(),
            program: program.to_owned(),
            process,
        });
    }

    /// The process of a daemon.
    pub fn daemon(&self, host: &str, program: &str) -> Option<Process> {
        self.daemons
            .iter()
            .find(|daemon| daemon.host == host && daemon.program == program)
            .map(|daemon| daemon.process)
    }
}
