//! A second LAN beside the first, for what depends on the interface.

use std::process::Command;

use anyhow::Result;

use super::Lab;
use super::namespace::{Namespace, run};
use super::network::SWITCH;
use super::state::Host;

/// The second interface of every host.
pub const SECOND: &str = "eth1";
/// The bridge it is plugged into.
const BRIDGE: &str = "br1";

impl Host {
    /// The MAC of the host's interface on the second LAN.
    pub fn second_mac(&self) -> String {
        self.mac.replacen("02:00:", "02:01:", 1)
    }
}

impl Lab {
    /// Gives every host an interface [`SECOND`] on a second LAN, 192.168.98.0/24, where its address ends as on the first.
    ///
    /// # Errors
    /// There is a second LAN already.
    pub fn add_segment(&self) -> Result<()> {
        let name = self.name();
        let switch = Namespace::of(&name, SWITCH);
        switch.ip(&[
            format!("link add {BRIDGE} type bridge stp_state 0 forward_delay 0"),
            format!("link set {BRIDGE} up"),
        ])?;
        for host in self.hosts() {
            let namespace = Namespace::of(&name, &host.name);
            let port = format!("{}-2", host.name);
            let mut link = Command::new("ip");
            link.args(["link", "add", SECOND, "address", &host.second_mac()])
                .args(["netns", namespace.name(), "type", "veth", "peer"])
                .args(["name", &port, "netns", switch.name()]);
            run(&mut link)?;
            switch.ip(&[format!("link set {port} master {BRIDGE} up")])?;
            let [.., last] = host.ipv4.octets();
            namespace.ip(&[
                format!("addr add 192.168.98.{last}/24 dev {SECOND}"),
                format!("link set {SECOND} up"),
            ])?;
        }
        Ok(())
    }

    /// Takes the second LAN away.
    ///
    /// # Errors
    /// There is none.
    pub fn remove_segment(&self) -> Result<()> {
        let name = self.name();
        for host in self.hosts() {
            // Its other end goes with it.
            Namespace::of(&name, &host.name).ip(&[format!("link del {SECOND}")])?;
        }
        Namespace::of(&name, SWITCH).ip(&[format!("link del {BRIDGE}")])
    }
}
