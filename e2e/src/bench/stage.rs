//! A lab with a system installed, Services on it, and the wait until everything is whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::System;
use crate::{
    Lab,
    artifact::ECHO_IMAGE,
    deploy::{self, NAMESPACE, PATIENCE, Setup, resources, setup},
    observe::{
        http,
        prober::{Prober, parse_mac},
        service,
        trace::Mac,
    },
};

/// Asks over ARP.
pub const ASKER: &str = "client1";
/// Connects. Another host than the one that asks: answers to raw questions would refresh its kernel's neighbours.
pub const CONNECTOR: &str = "client2";
/// Where the Services have their addresses.
const POOL: &str = "192.168.99.150-192.168.99.199";
/// The Services whose traffic every node takes; a bench has so many addresses.
pub const SERVICES: usize = 10;
/// The Service whose traffic only nodes with an endpoint take.
pub const LOCAL: &str = "bench-local";
/// Owners that stay for so long are settled.
const STABLE: Duration = Duration::from_secs(4);
/// How often is asked meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// The node that answers for each address.
pub type Owners = BTreeMap<Ipv4Addr, String>;

/// Raises a lab, or takes the one that is up if `reuse` says so and it has the right size.
///
/// # Errors
/// It cannot be raised.
pub fn raise(name: &str, nodes: u8, reuse: bool) -> Result<Lab> {
    if reuse
        && let Ok(lab) = Lab::open(name)
        && lab.nodes().len() == usize::from(nodes)
        && lab.clients().len() >= 2
    {
        lab.steps().say(&format!("using lab {name}, which is up"));
        return Ok(lab);
    }
    Lab::builder(name).nodes(nodes).clients(2).up()
}

/// A lab with a system installed, ten Services, and an endpoint on every node.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// What is installed.
    pub system: System,
    /// The Services' addresses by their names, [`LOCAL`] apart.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    names: BTreeMap<Mac, String>,
}

impl<'a> Stage<'a> {
    /// Installs a system in place of what is there; `as_is`: with the images of FerroLB that are on the nodes.
    ///
    /// # Errors
    /// It cannot be installed, or does not get ready.
    pub fn install(lab: &'a Lab, system: System, as_is: bool) -> Result<Self> {
        lab.steps().say(&format!("installing {}", system.title()));
        let all = [
            "delete",
            "services,pods",
            "-n",
            "default",
            "-l",
            "e2e=yes",
            "--grace-period=1",
        ];
        lab.kubectl(&all)?;
        setup::remove(lab)?;
        match system {
            System::FerroLb => {
                if !as_is {
                    lab.deploy()?;
                }
                Setup::ConfigMap.install(lab)?;
                deploy::configure(lab, &deploy::pools(&[("bench", &[POOL])]))?;
            }
            System::MetalLb => {
                let release = Setup::MetalLb.release().context("no release")?;
                lab.deploy_metallb(release)?;
                Setup::MetalLb.install(lab)?;
                for (kind, spec) in [
                    ("IPAddressPool", json!({"addresses": [POOL]})),
                    ("L2Advertisement", json!({})),
                ] {
                    let object = resources::object(kind, "bench", &spec).to_string();
                    // The webhook is not up at once, and a busy API server may not answer in time.
                    lab.wait_for(&format!("the {kind}"), PATIENCE, || {
                        lab.apply(&object).map(Some)
                    })?;
                }
            }
        }
        let names = lab.hosts().into_iter();
        let names = names
            .map(|host| Ok((parse_mac(&host.mac)?, host.name)))
            .collect::<Result<_>>()?;
        let mut stage = Self {
            lab,
            system,
            addresses: BTreeMap::new(),
            names,
        };
        stage.populate()?;
        Ok(stage)
    }

    fn populate(&mut self) -> Result<()> {
        let nodes = self.lab.nodes();
        let services = (0..SERVICES)
            .zip(nodes.iter().cycle())
            .map(|(number, node)| {
                let selector = json!({"selector": {"app": "bench", "at": node}});
                balancer(&format!("bench-{number}"), &selector)
            });
        let services: Vec<_> = services.collect();
        self.apply_all(&services)?;
        self.endpoints()?;
        self.lab.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "pods",
            "-l",
            "app=bench",
            "--timeout=180s",
        ])?;
        self.addresses = self
            .lab
            .wait_for("every Service to have an address", PATIENCE, || {
                let path = "jsonpath={range .items[*]}{.metadata.name} {.status.loadBalancer.ingress[0].ip}{\"\\n\"}{end}";
                let text = self.lab.kubectl(&["get", "services", "-l", "e2e=yes", "-o", path])?;
                let pairs = text.lines().filter_map(|line| line.split_once(' '));
                let found: BTreeMap<_, _> = pairs
                    .map(|(name, address)| Ok((name.to_owned(), address.parse()?)))
                    .collect::<Result<_>>()?;
                Ok(Some(found).filter(|found| found.len() == SERVICES))
            })?;
        Ok(())
    }

    fn apply_all(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.lab.apply(&list.to_string()).map(drop)
    }

    /// Makes the endpoints, one on every node, that are not there.
    ///
    /// # Errors
    /// `kubectl` refuses them.
    pub fn endpoints(&self) -> Result<()> {
        let pods: Vec<_> = self.lab.nodes().iter().map(|node| endpoint(node)).collect();
        self.apply_all(&pods)
    }

    /// Makes the Service [`LOCAL`], with its endpoint on `node` alone, and returns its address once it is answered for.
    ///
    /// # Errors
    /// It is not.
    pub fn local(&self, node: &str) -> Result<Ipv4Addr> {
        for other in self.lab.nodes() {
            self.serves_locally(&other, other == node)?;
        }
        let spec = json!({"selector": {"app": "bench", "serves": "yes"}, "externalTrafficPolicy": "Local"});
        self.apply_all(&[balancer(LOCAL, &spec)])?;
        let address: Ipv4Addr = service::address(self.lab, LOCAL)?.parse()?;
        self.lab
            .wait("the only node with an endpoint to answer", PATIENCE, || {
                Ok(self.owner(address)? == node)
            })?;
        self.served(address)?;
        Ok(address)
    }

    /// Makes a node's pod an endpoint of [`LOCAL`], or no longer.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn serves_locally(&self, node: &str, yes: bool) -> Result<()> {
        let pod = format!("bench-{node}");
        let label = if yes { "serves=yes" } else { "serves-" };
        self.lab
            .kubectl(&["label", "--overwrite", "pod", &pod, label])
            .map(drop)
    }

    /// Puts the endpoint of the Service with this address on another node than `away` if it is there.
    ///
    /// # Errors
    /// There is no other node, or the Service does not serve.
    pub fn serve_elsewhere(&self, address: Ipv4Addr, away: &str) -> Result<()> {
        let mut named = self.addresses.iter().filter(|(_, is)| **is == address);
        let (name, _) = named.next().context("no such Service")?;
        let at = "jsonpath={.spec.selector.at}";
        let at = self.lab.kubectl(&["get", "service", name, "-o", at])?;
        if at.trim() == away {
            let nodes = self.lab.nodes();
            let other = nodes.iter().find(|node| *node != away);
            let other = other.context("there is one node only")?;
            let patch = json!({"spec": {"selector": {"app": "bench", "at": other}}}).to_string();
            self.lab
                .kubectl(&["patch", "service", name, "-p", &patch])?;
            let server = format!("node: {other}");
            self.lab.wait("the other endpoint to serve", PATIENCE, || {
                Ok(self.body(address)?.contains(&server))
            })?;
        }
        self.served(address)
    }

    fn body(&self, address: Ipv4Addr) -> Result<String> {
        let second = Duration::from_secs(1);
        let answer = http::get(self.lab, CONNECTOR, address.into(), 80, "/", second)?;
        ensure!(answer.status == 200, "status {}", answer.status);
        Ok(answer.body)
    }

    fn served(&self, address: Ipv4Addr) -> Result<()> {
        self.lab
            .wait(&format!("HTTP through {address}"), PATIENCE, || {
                self.body(address).map(|_| true)
            })
    }

    /// Lets the connecting client ask anew who has an address. After a fault that nobody noticed at the owner, such as a
    /// port dead for a while, its kernel may still use the node that stood in.
    ///
    /// # Errors
    /// The client's kernel refuses.
    pub fn forget(&self, address: Ipv4Addr) -> Result<()> {
        let address = address.to_string();
        let words = ["ip", "neigh", "flush", "to", &address, "dev", "eth0"];
        self.lab.read(CONNECTOR, &words).map(drop)
    }

    /// The host that the connecting client's kernel sends packets for an address to.
    ///
    /// # Errors
    /// The client's kernel does not say.
    pub fn neighbour(&self, address: Ipv4Addr) -> Result<Option<String>> {
        let mac = self.lab.neighbour(CONNECTOR, &address.to_string())?;
        mac.map(|mac| Ok(self.name(parse_mac(&mac)?))).transpose()
    }

    /// The name of the host with a hardware address, or that address.
    pub fn name(&self, mac: Mac) -> String {
        let unknown = || format!("{mac:02x?}");
        self.names.get(&mac).cloned().unwrap_or_else(unknown)
    }

    /// Who answers for an address right now.
    ///
    /// # Errors
    /// Nobody or several.
    pub fn owner(&self, address: Ipv4Addr) -> Result<String> {
        let owners = self.owners(&[address], LOOK * 10)?;
        owners.get(&address).cloned().context("nobody answers")
    }

    /// Who answers for each address during a time.
    fn owners(&self, addresses: &[Ipv4Addr], time: Duration) -> Result<Owners> {
        let prober = Prober::start(self.lab, ASKER, addresses, LOOK)?;
        thread::sleep(time);
        let traces = prober.stop()?;
        traces
            .iter()
            .map(|(&address, trace)| {
                let macs: BTreeSet<_> = trace.answers.iter().map(|answer| answer.from).collect();
                let names: Vec<_> = macs.into_iter().map(|mac| self.name(mac)).collect();
                match names.as_slice() {
                    [owner] if trace.answers.len() * 10 > trace.asked.len() * 9 => {
                        Ok((address, owner.clone()))
                    }
                    _ => Err(anyhow!(
                        "{} of {} questions for {address} answered, by {names:?}",
                        trace.answers.len(),
                        trace.asked.len()
                    )),
                }
            })
            .collect()
    }

    /// Waits until every node and speaker is Ready and every address is answered by one node, the same for four seconds;
    /// with MetalLB, which moves back at once what a node had, also until that is as in `before`. Who answers is
    /// returned.
    ///
    /// # Errors
    /// That is not so within three minutes.
    pub fn settled(&self, before: Option<&Owners>) -> Result<Owners> {
        // A busy API server may not answer in time.
        self.lab
            .wait("every node and speaker to be Ready", PATIENCE, || {
                self.lab.kubectl(&[
                    "wait",
                    "--for=condition=Ready",
                    "nodes",
                    "--all",
                    "--timeout=60s",
                ])?;
                deploy::wait_ready(self.lab)?;
                Ok(true)
            })?;
        let addresses: Vec<_> = self.addresses.values().copied().collect();
        let before = before.filter(|_| self.system == System::MetalLb);
        self.lab
            .wait_for("every address to have one owner", PATIENCE, || {
                let owners = self.owners(&addresses, STABLE)?;
                if let Some(before) = before {
                    ensure!(owners == *before, "owners are {owners:?}, were {before:?}");
                }
                Ok(Some(owners))
            })
    }

    /// The process of the speaker on a node.
    ///
    /// # Errors
    /// None runs there.
    pub fn speaker(&self, node: &str) -> Result<u32> {
        let pod = deploy::speaker_pod(self.lab, node)?;
        self.lab.container_pid(NAMESPACE, &pod, "speaker")
    }

    /// Gives a node a new speaker pod, which the kubelet starts without the delay it has for one that failed.
    ///
    /// # Errors
    /// `kubectl` refuses for minutes.
    pub fn renew_speaker(&self, node: &str) -> Result<()> {
        let on_node = format!("spec.nodeName={node}");
        let words = [
            "-n",
            NAMESPACE,
            "delete",
            "pods",
            "-l",
            "component=speaker",
            "--field-selector",
            &on_node,
        ];
        // A busy API server may not answer in time; to delete a pod once too often does no harm.
        self.lab
            .wait("the speaker's pod to be deleted", PATIENCE, || {
                self.lab.kubectl(&words).map(|_| true)
            })
    }

    /// Another node than this one.
    ///
    /// # Errors
    /// There is none.
    pub fn another(&self, node: &str) -> Result<String> {
        match self.lab.nodes().into_iter().find(|other| other != node) {
            Some(other) => Ok(other),
            None => bail!("there is no other node than {node}"),
        }
    }
}

fn balancer(name: &str, spec: &Value) -> Value {
    service::balancer(name, &json!({"e2e": "yes"}), spec)
}

/// A web server on a node.
fn endpoint(node: &str) -> Value {
    let labels = json!({"app": "bench", "at": node, "e2e": "yes"});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("bench-{node}"), "namespace": "default", "labels": labels},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            // A node that is away for a while keeps its endpoint.
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "echo", "image": ECHO_IMAGE, "imagePullPolicy": "Never",
                "env": [{"name": "NODE_NAME", "value": node}],
                "readinessProbe": {
                    "httpGet": {"path": "/", "port": 8080},
                    "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 10,
                },
            }],
        },
    })
}
