//! Describes a lab and raises it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::control;
use super::process::Process;
use super::state::{Host, Role, State};
use super::{Lab, check_name, directory, network, preconditions, sweep, wait_for};
use crate::artifact;
use crate::steps::Steps;

/// How long the nodes may take to be Ready.
const READY: Duration = Duration::from_mins(3);
/// The most nodes and the most clients: their addresses must not meet.
const MOST: u8 = 30;

/// The description of a lab: see [`Lab::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    name: String,
    nodes: u8,
    clients: u8,
    addresses: BTreeMap<String, Ipv4Addr>,
}

impl Builder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nodes: 3,
            clients: 1,
            addresses: BTreeMap::new(),
        }
    }

    /// How many nodes there are, 1 to 30; 3 unless said otherwise.
    #[must_use]
    pub fn nodes(mut self, count: u8) -> Self {
        self.nodes = count;
        self
    }

    /// How many clients there are, 0 to 30; 1 unless said otherwise.
    #[must_use]
    pub fn clients(mut self, count: u8) -> Self {
        self.clients = count;
        self
    }

    /// Gives a host another address within 192.168.99.0/24 than its own.
    #[must_use]
    pub fn node_address(mut self, host: &str, address: Ipv4Addr) -> Self {
        self.addresses.insert(host.to_owned(), address);
        self
    }

    /// Builds what is missing, removes what there is of an earlier lab of this name, and raises the
    /// cluster. Returns when every node is Ready. On failure the remains are left for a look; the
    /// next `up` or [`Lab::remove`] removes them.
    pub fn up(self) -> Result<Lab> {
        let steps = Steps::start();
        preconditions::check()?;
        let hosts = self.hosts()?;
        let kubernetes = artifact::controlplane::build(&steps)?;
        let images = artifact::workload_images(&steps)?;
        steps.say("Kubernetes and the images are built");

        let _lock = sweep::lock(&self.name)?;
        if !sweep::leftovers(&self.name).is_empty() {
            steps.say(&format!("removing an earlier lab {}", self.name));
            sweep::sweep(&self.name)?;
        }
        let state = State {
            name: self.name.clone(),
            kubernetes,
            hosts,
            unplugged: Vec::new(),
            daemons: Vec::new(),
        };
        state.save(&directory(&self.name))?;
        let lab = Lab {
            state: Mutex::new(state),
            steps,
        };
        lab.raise(&images)?;
        Ok(lab)
    }

    /// Every host but the switch.
    fn hosts(&self) -> Result<Vec<Host>> {
        check_name(&self.name)?;
        ensure!(
            (1..=MOST).contains(&self.nodes),
            "a lab has 1 to {MOST} nodes, not {}",
            self.nodes
        );
        ensure!(
            self.clients <= MOST,
            "a lab has at most {MOST} clients, not {}",
            self.clients
        );
        let all = [(control::HOST.to_owned(), Role::ControlPlane, 1, 2)]
            .into_iter()
            .chain(
                (1..=self.nodes).map(|index| (format!("n{index}"), Role::Node, index, 10 + index)),
            )
            .chain(
                (1..=self.clients)
                    .map(|index| (format!("client{index}"), Role::Client, index, 50 + index)),
            );
        let hosts = all
            .map(|(name, role, index, last)| {
                let address = self
                    .addresses
                    .get(&name)
                    .copied()
                    .unwrap_or(Ipv4Addr::new(192, 168, 99, last));
                Host::new(name, role, index, address)
            })
            .collect::<Result<Vec<_>>>()?;
        for (name, address) in &self.addresses {
            ensure!(
                hosts.iter().any(|host| host.name == *name),
                "{name} is given an address but is no host"
            );
            ensure!(
                matches!(address.octets(), [192, 168, 99, 2..=254]),
                "{address} for {name} is not one of 192.168.99.2-192.168.99.254"
            );
        }
        let distinct: BTreeSet<Ipv4Addr> = hosts.iter().map(|host| host.ipv4).collect();
        ensure!(
            distinct.len() == hosts.len(),
            "two hosts have the same address"
        );
        Ok(hosts)
    }
}

impl Lab {
    /// Raises everything: the control plane and the nodes' containerds side by side, then the
    /// kubelets.
    fn raise(&self, images: &[PathBuf]) -> Result<()> {
        let hosts = self.hosts();
        let nodes: Vec<&Host> = hosts
            .iter()
            .filter(|host| host.role == Role::Node)
            .collect();
        network::raise(&self.name(), &hosts)?;
        self.route_services()?;
        self.steps
            .say(&format!("{} hosts are on the switch", hosts.len()));
        thread::scope(|scope| {
            let runtimes: Vec<_> = nodes
                .iter()
                .map(|&node| {
                    scope.spawn(move || {
                        self.raise_runtime(node, images)
                            .with_context(|| format!("node {}", node.name))?;
                        self.steps.say(&format!(
                            "{}: containerd is up, images are loaded",
                            node.name
                        ));
                        anyhow::Ok(())
                    })
                })
                .collect();
            self.raise_control_plane().context("control plane")?;
            self.steps.say("the API server is ready");
            runtimes
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread stopped"))?)
        })?;
        for node in &nodes {
            self.raise_kubelet(node)
                .with_context(|| format!("node {}", node.name))?;
        }
        wait_for(&self.steps, "every node to be Ready", READY, || {
            if let Some(node) = nodes.iter().find(|node| {
                !self
                    .daemon(&node.name, "kubelet")
                    .is_ok_and(Process::is_alive)
            }) {
                let log = self.log(&node.name, "kubelet");
                return Ok(Some(Err(anyhow!("kubelet on {} ended:\n{log}", node.name))));
            }
            self.kubectl(&[
                "wait",
                "--for=condition=Ready",
                "node",
                "--all",
                "--timeout=2s",
            ])?;
            // Pods are refused until their namespace's ServiceAccount exists.
            self.kubectl(&["get", "serviceaccount", "default", "--namespace=default"])?;
            Ok(Some(Ok(())))
        })??;
        self.steps.say(&format!(
            "lab {} is up: {} nodes are Ready",
            self.name(),
            nodes.len()
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_their_usual_addresses_unless_told_otherwise() {
        let hosts = Lab::builder("a")
            .nodes(2)
            .node_address("n1", Ipv4Addr::new(192, 168, 99, 100))
            .hosts()
            .unwrap();
        let told: Vec<(String, String)> = hosts
            .iter()
            .map(|host| (host.name.clone(), host.ipv4.to_string()))
            .collect();
        let expected = [("cp", "2"), ("n1", "100"), ("n2", "12"), ("client1", "51")];
        assert_eq!(
            told,
            expected.map(|(name, last)| (name.to_owned(), format!("192.168.99.{last}")))
        );
    }

    #[test]
    fn what_cannot_be_raised_is_refused() {
        let address = Ipv4Addr::new(192, 168, 99, 12);
        for (builder, reason) in [
            (Lab::builder("a-b"), "name"),
            (Lab::builder(""), "name"),
            (Lab::builder("a").nodes(0), "nodes"),
            (Lab::builder("a").clients(31), "clients"),
            (Lab::builder("a").node_address("n9", address), "no host"),
            (
                Lab::builder("a").node_address("n1", address),
                "same address",
            ),
            (
                Lab::builder("a").node_address("n1", Ipv4Addr::new(10, 0, 0, 1)),
                "not one of",
            ),
        ] {
            let error = builder.hosts().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
