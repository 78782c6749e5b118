//! Who answers for an IPv6 address, asked by a real `ndisc6`.

use std::{collections::BTreeSet, net::Ipv6Addr};

use anyhow::Result;

use super::arp::name_of;
use crate::Lab;

/// Every host that answers one Neighbour Solicitation for `address` sent by `host`, by name (or its MAC where no host of
/// the lab has it). Waits one second for stragglers, so that a second answerer is seen.
///
/// # Errors
/// `ndisc6` cannot be run.
pub fn answerers(lab: &Lab, host: &str, address: Ipv6Addr) -> Result<BTreeSet<String>> {
    let address = address.to_string();
    // Exit status 2 only says that nobody answered.
    let output = lab.exec(
        host,
        &[
            "ndisc6", "-n", "-m", "-r", "1", "-w", "1000", &address, "eth0",
        ],
    )?;
    let text = String::from_utf8_lossy(&output.stdout);
    macs(&text).map(|mac| name_of(lab, mac)).collect()
}

/// The hardware addresses in what `ndisc6` says, one a line.
fn macs(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.split_once("link-layer address: "))
        .map(|(_, mac)| mac.trim())
}

#[cfg(test)]
mod tests {
    use super::macs;

    #[test]
    fn answers_are_read() {
        let text = "Soliciting fd99::1:0 (fd99::1:0) on eth0...\n\
            Target link-layer address: 02:00:C0:A8:63:0B\n from fd99::1:0\n";
        assert!(macs(text).eq(["02:00:C0:A8:63:0B"]));
        assert_eq!(
            macs("Soliciting fd99::1:0 (fd99::1:0) on eth0...\nTimed out.\n").count(),
            0
        );
    }
}
