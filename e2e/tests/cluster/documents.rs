//! The documents' commands, run in order as a reader runs them. What the documents say is seen must be seen; the tests
//! bring about what they speak of.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    Lab,
    deploy::{NAMESPACE, PATIENCE, manifests},
    docs::follow,
};

use crate::world::World;

/// The first address of the documents' pool, in the lab's network.
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 240);
/// A node that does not answer for it while nothing moves.
const KERNEL: &str = "n3";
/// A host of the LAN that is neither a node nor the reader's.
const STRANGER: &str = "cp";

/// A range is free, the pool is there, an address answers, moves, and is told from what only looks like it.
pub fn installed_and_tried(world: &World) -> Result<()> {
    start(world)?;
    follow(world, "install.md", "range")?;
    follow(world, "install.md", "images")?;
    follow(world, "install.md", "check")?;
    follow(world, "owners.md", "move")?;
    follow(world, "kube-proxy.md", "mode")?;
    follow(world, "kube-proxy.md", "policy")?;
    // kube-proxy in IPVS mode would have it on an interface of every node.
    settle_away_from_the_kernel(world)?;
    with_address(world, KERNEL, FIRST, false, || {
        follow(world, "kube-proxy.md", "strict-arp")
    })?;
    follow(world, "security.md", "rights")?;
    follow(world, "security.md", "metrics")?;
    let granted = manifests("prometheus/https/rights.yaml");
    world.kubectl(&["delete", "-f", &granted.to_string_lossy()])?;
    follow(world, "security.md", "key")?;
    end(world)
}

/// Each symptom is brought about, looked at by the document's commands, and found to be what it says.
pub fn symptoms_look_as_described(world: &World) -> Result<()> {
    let doc = "troubleshooting.md";
    start(world)?;
    follow(world, "install.md", "check")?;
    for part in ["first", "behind", "flapping", "upgrade"] {
        follow(world, doc, part)?;
    }

    let wish = "metallb.io/loadBalancerIPs";
    let outside = format!("{wish}=192.168.99.200");
    world.kubectl(&["annotate", "service", "web", &outside])?;
    follow(world, doc, "pending")?;
    world.kubectl(&["annotate", "service", "web", &format!("{wish}-")])?;
    world.fetch(FIRST)?;

    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        world.kubectl(&["scale", "deployment", "web", &replicas])
    };
    scale("0")?;
    follow(world, doc, "silent")?;
    scale("2")?;
    world.fetch(FIRST)?;

    settle_away_from_the_kernel(world)?;
    with_address(world, KERNEL, FIRST, true, || follow(world, doc, "two"))?;

    world.kubectl(&["delete", "service", "web"])?;
    with_address(world, STRANGER, FIRST, true, || {
        let words = "expose deployment web --type=LoadBalancer --port=80 --target-port=8080";
        world.kubectl(&words.split(' ').collect::<Vec<_>>())?;
        follow(world, doc, "stranger")
    })?;

    let two =
        r#"{"spec": {"addresses": ["192.168.99.240-192.168.99.250", "fd99::1000-fd99::100f"]}}"#;
    let words = ["-n", NAMESPACE, "patch", "ipaddresspool", "lan"];
    world.kubectl(&[&words[..], &["--type=merge", "-p", two]].concat())?;
    let dual = r#"{"spec": {"ipFamilyPolicy": "PreferDualStack"}}"#;
    world.kubectl(&["patch", "service", "web", "-p", dual])?;
    follow(world, doc, "ipv6")?;
    end(world)
}

/// Upgraded, taken back, closed, and removed without a trace.
pub fn upgraded_and_removed(world: &World) -> Result<()> {
    start(world)?;
    follow(world, "upgrade.md", "kubectl")?;
    follow(world, "upgrade.md", "back")?;
    follow(world, "security.md", "hardened")?;
    let printed = follow(world, "install.md", "uninstall")?;
    ensure!(printed.contains("none is left"), "{printed}");
    world.wait("nothing to be left", PATIENCE, || {
        let kinds = "namespaces,clusterroles,clusterrolebindings,customresourcedefinitions";
        let left = world.kubectl(&["get", kinds, "-o", "name"])?;
        let left: Vec<_> = left
            .lines()
            .filter(|name| name.contains("metallb"))
            .collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(true)
    })
}

/// The document's pool in place of the tests'.
fn start(world: &World) -> Result<()> {
    world.clear_configuration()?;
    follow(world, "install.md", "pools").map(drop)
}

fn end(world: &World) -> Result<()> {
    follow(world, "install.md", "clean").map(drop)
}

/// Sees to it that another node than [`KERNEL`] answers for [`FIRST`].
fn settle_away_from_the_kernel(world: &World) -> Result<()> {
    let nodes = world.nodes();
    let other = nodes.iter().find(|node| *node != KERNEL);
    let to = format!("ferrolb.io/move={}", other.context("one node only")?);
    if world.owner(FIRST)? == KERNEL {
        world.kubectl(&["annotate", "service", "web", &to, "--overwrite"])?;
    }
    world.wait("another node to answer", PATIENCE, || {
        Ok(world.owner(FIRST)? != KERNEL)
    })
}

/// Does something while a host's kernel has an address, and takes it away afterwards (`clean`), or has that done by what
/// is done.
fn with_address(
    lab: &Lab,
    host: &str,
    address: Ipv4Addr,
    clean: bool,
    act: impl FnOnce() -> Result<String>,
) -> Result<()> {
    let address = format!("{address}/32");
    // On any interface: Linux answers for it on all of them.
    let change = |verb: &str| lab.read(host, &["ip", "address", verb, &address, "dev", "lo"]);
    change("add")?;
    let result = act();
    if clean || result.is_err() {
        change("del")?;
    }
    result.map(drop)
}
