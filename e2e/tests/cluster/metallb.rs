//! FerroLB's decisions beside those of MetalLB itself.

use anyhow::{Result, ensure};
use ferrolb_e2e::artifact::metallb::NEWEST;
use ferrolb_speaker_core::first;

use crate::world::World;

/// The names nodes have, in this lab and elsewhere.
const NODES: [&str; 9] = [
    "n1",
    "n2",
    "n3",
    "node-a",
    "kind-control-plane",
    "kind-worker2",
    "minikube",
    "ip-10-0-0-7.eu-central-1.compute.internal",
    "worker.example.org",
];

/// Addresses as their owners write them; each is asked for every set of nodes.
const ADDRESSES: [&str; 8] = [
    "192.168.99.96",
    "192.168.1.240",
    "10.0.0.1",
    "203.0.113.255",
    "fc00:f853:ccd:e799::1",
    "2001:db8:0:0:1:0:0:1",
    "fd99::1:0",
    "2001:DB8::A",
];

pub fn owners_are_metallbs(world: &World) -> Result<()> {
    let mut questions = Vec::new();
    // Every set of nodes: each bit of the number is one of them.
    for set in 1_u32..1 << NODES.len() {
        let nodes: Vec<String> = (0..)
            .zip(NODES)
            .filter(|(bit, _)| set >> bit & 1 == 1)
            .map(|(_, node)| node.to_owned())
            .collect();
        questions.extend(ADDRESSES.map(|address| (nodes.clone(), address.to_owned())));
    }
    let answers = NEWEST.build(world.steps())?.announcers(&questions)?;
    for ((nodes, address), theirs) in questions.iter().zip(&answers) {
        let key: std::net::IpAddr = address.parse()?;
        let ours = first(nodes.iter().map(String::as_str), &key.to_string());
        ensure!(
            theirs.iter().map(String::as_str).eq(ours),
            "{address} on {nodes:?}: MetalLB says {theirs:?}, FerroLB {ours:?}"
        );
    }
    eprintln!(
        "{} sets of nodes and addresses have the same owner",
        questions.len()
    );
    Ok(())
}
