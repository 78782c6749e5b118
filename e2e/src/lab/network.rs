//! The lab's wires: a bridge in its own namespace, and a veth from it to every host.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::namespace::{Namespace, run};
use super::state::{Host, Role};

/// The host that is the bridge.
pub(super) const SWITCH: &str = "sw";
/// The bridge's interface in it.
pub(super) const BRIDGE: &str = "br0";
/// The bridge's own addresses, every host's default gateway. It forwards nothing.
const GATEWAY: (Ipv4Addr, &str) = (Ipv4Addr::new(192, 168, 99, 1), "fd99::1");
/// What the pods' addresses are taken from, of both families.
pub(super) const POD_NETWORK: &str = "10.244.0.0/16,fd44::/48";
/// What the Services' cluster addresses are taken from, of both families.
pub(super) const SERVICE_NETWORK: &str = "10.96.0.0/16,fd96::/112";

/// Every kernel setting a host starts with. Set before it has an interface, so that the interface
/// takes them over: addresses are usable at once (no duplicate address detection), and a packet may
/// come in by another way than the answer goes out.
const SETTINGS: [(&str, &str); 6] = [
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];
/// What a node needs besides, to forward between its pods and the bridge.
const FORWARDING: [(&str, &str); 2] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
];

impl Host {
    /// A host with the MAC and the IPv6 address that follow from its IPv4 address.
    pub(super) fn new(name: String, role: Role, index: u8, ipv4: Ipv4Addr) -> Result<Self> {
        let [a, b, c, d] = ipv4.octets();
        let ipv6: Ipv6Addr = format!("fd99::{d}").parse().context("no IPv6 address")?;
        Ok(Self {
            name,
            role,
            index,
            ipv4,
            ipv6,
            mac: format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}"),
        })
    }

    /// The networks of a node's pods, IPv4 then IPv6.
    pub(super) fn pod_networks(&self) -> [String; 2] {
        [
            format!("10.244.{}.0/24", self.index),
            format!("fd44:0:0:{}::/64", self.index),
        ]
    }
}

/// Makes the switch and every host, the hosts side by side.
pub(super) fn raise(lab: &str, hosts: &[Host]) -> Result<()> {
    let switch = Namespace::of(lab, SWITCH);
    switch.create()?;
    switch.sysctl(&SETTINGS)?;
    switch.ip(&[
        "link set lo up".to_owned(),
        // Neither spanning tree nor a learning delay: a port forwards as soon as it is up.
        format!("link add {BRIDGE} type bridge stp_state 0 forward_delay 0"),
        format!("link set {BRIDGE} up"),
        format!("addr add {}/24 dev {BRIDGE}", GATEWAY.0),
        format!("addr add {}/64 dev {BRIDGE} nodad", GATEWAY.1),
    ])?;
    thread::scope(|scope| {
        let threads: Vec<_> = hosts
            .iter()
            .map(|host| scope.spawn(|| raise_host(lab, &switch, host, hosts)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("thread stopped"))?)
    })
}

fn raise_host(lab: &str, switch: &Namespace, host: &Host, hosts: &[Host]) -> Result<()> {
    let namespace = Namespace::of(lab, &host.name);
    namespace.create()?;
    namespace.sysctl(&SETTINGS)?;
    if host.role == Role::Node {
        namespace.sysctl(&FORWARDING)?;
    }
    run(Command::new("ip")
        .args([
            "link",
            "add",
            "eth0",
            "address",
            &host.mac,
            "netns",
            namespace.name(),
        ])
        .args([
            "type",
            "veth",
            "peer",
            "name",
            &host.name,
            "netns",
            switch.name(),
        ]))?;
    switch.ip(&[format!("link set {} master {BRIDGE} up", host.name)])?;
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("addr add {}/24 dev eth0", host.ipv4),
        format!("addr add {}/64 dev eth0 nodad", host.ipv6),
        "link set eth0 up".to_owned(),
        format!("route add default via {}", GATEWAY.0),
        format!("-6 route add default via {}", GATEWAY.1),
    ];
    if host.role != Role::Client {
        for node in hosts
            .iter()
            .filter(|node| node.role == Role::Node && node.name != host.name)
        {
            let [ipv4, ipv6] = node.pod_networks();
            lines.push(format!("route add {ipv4} via {}", node.ipv4));
            lines.push(format!("-6 route add {ipv6} via {}", node.ipv6));
        }
    }
    // A batch takes no family option within a line.
    let (ipv6, ipv4): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| line.starts_with("-6 "));
    namespace.ip(&ipv4)?;
    namespace.ip(&ipv6
        .iter()
        .map(|line| line.trim_start_matches("-6 ").to_owned())
        .collect::<Vec<_>>())
}

/// Sends the control plane's packets for cluster addresses to this node, whose kube-proxy knows
/// them: the API server calls webhooks by their Service.
pub(super) fn route_services(control: &Namespace, node: &Host) -> Result<()> {
    let mut networks = SERVICE_NETWORK.split(',');
    let (ipv4, ipv6) = (
        networks.next().unwrap_or_default(),
        networks.next().unwrap_or_default(),
    );
    control.ip(&[
        format!("route replace {ipv4} via {}", node.ipv4),
        format!("route replace {ipv6} via {}", node.ipv6),
    ])
}

/// Sets a host's port on the switch up or down.
pub(super) fn set_port(lab: &str, host: &str, up: bool) -> Result<()> {
    Namespace::of(lab, SWITCH).ip(&[format!(
        "link set {host} {}",
        if up { "up" } else { "down" }
    )])
}

/// See [`super::Lab::neighbour`].
pub(super) fn neighbour(namespace: &Namespace, address: &str) -> Result<Option<String>> {
    let text = run(Command::new("ip").args([
        "-j",
        "-n",
        namespace.name(),
        "neigh",
        "show",
        "to",
        address,
    ]))?;
    // Nothing at all instead of an empty list when there is no entry.
    let entries: Value = serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text })?;
    Ok(entries
        .pointer("/0/lladdr")
        .and_then(Value::as_str)
        .map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_other_addresses_follow_from_the_first() {
        let host = Host::new("n1".into(), Role::Node, 1, Ipv4Addr::new(192, 168, 99, 11)).unwrap();
        assert_eq!(host.ipv6.to_string(), "fd99::11");
        assert_eq!(host.mac, "02:00:c0:a8:63:0b");
        assert_eq!(host.pod_networks(), ["10.244.1.0/24", "fd44:0:0:1::/64"]);
    }
}
