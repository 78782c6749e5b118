//! Who answers for an address, asked by a real `arping` and read off the wire by a real `tcpdump`.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    Lab,
    lab::{Capture, SECOND},
};

/// How long a [`Watch`] asks before its start returns.
const LEAD: Duration = Duration::from_secs(1);

/// Every host that answers one question for `address` asked by `host`, by name (or its MAC where no host of the lab
/// has it). Waits one second for stragglers, so that a second answerer is seen.
///
/// # Errors
/// `arping` cannot be run.
pub fn answerers(lab: &Lab, host: &str, address: Ipv4Addr) -> Result<BTreeSet<String>> {
    answerers_on(lab, host, "eth0", address)
}

/// The same on another interface than `eth0`: a host is named only for an answer from its interface on the same LAN.
///
/// # Errors
/// `arping` cannot be run.
pub fn answerers_on(
    lab: &Lab,
    host: &str,
    interface: &str,
    address: Ipv4Addr,
) -> Result<BTreeSet<String>> {
    let address = address.to_string();
    // Exit status 1 only says that nobody answered.
    let output = lab.exec(
        host,
        &[
            "arping", "-r", "-c", "1", "-w", "1", "-i", interface, &address,
        ],
    )?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|mac| {
            if interface == SECOND {
                let hosts = lab.hosts().into_iter();
                let mut hosts = hosts.filter(|host| host.second_mac().eq_ignore_ascii_case(mac));
                return Ok(hosts
                    .next()
                    .map_or_else(|| mac.to_owned(), |host| host.name));
            }
            name_of(lab, mac)
        })
        .collect()
}

/// The host with this MAC, or the MAC.
pub(super) fn name_of(lab: &Lab, mac: &str) -> Result<String> {
    for host in lab.hosts() {
        if lab.mac(&host.name)?.eq_ignore_ascii_case(mac) {
            return Ok(host.name);
        }
    }
    Ok(mac.to_owned())
}

/// A question every 20 ms, and everything that is answered.
#[derive(Debug)]
pub struct Watch {
    asking: Child,
    capture: Capture,
    address: Ipv4Addr,
}

/// One answer on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Seconds since the epoch.
    pub at: f64,
    /// The host that answered, by name, or a MAC.
    pub from: String,
}

impl Watch {
    /// Starts asking for `address` from `host`; answers have been coming for a second when this returns.
    ///
    /// # Errors
    /// `arping` or `tcpdump` cannot be run.
    pub fn start(lab: &Lab, host: &str, address: Ipv4Addr) -> Result<Self> {
        let capture = lab.capture(
            host,
            &[&format!("arp and arp[6:2] = 2 and src host {address}")],
        )?;
        let mut arping = Command::new("arping");
        arping
            .args(["-q", "-W", "0.02", "-i", "eth0", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let asking = lab.spawn(host, &mut arping)?;
        // What a test does next shall be seen against answers before it.
        thread::sleep(LEAD);
        Ok(Self {
            asking,
            capture,
            address,
        })
    }

    /// Stops asking and returns the answers in wire order. Gratuitous replies, which nobody asked for, are left out.
    ///
    /// # Errors
    /// The capture cannot be read.
    pub fn stop(mut self, lab: &Lab) -> Result<Vec<Reply>> {
        self.asking.kill()?;
        self.asking.wait()?;
        let lines = self.capture.stop()?;
        lines
            .iter()
            .filter(|line| !line.contains("> ff:ff:ff:ff:ff:ff"))
            .filter(|line| line.contains(&format!("Reply {} is-at", self.address)))
            .map(|line| {
                let at = line.split(' ').next().context("an empty line")?;
                let mac = line.split(' ').nth(1).context("a line without a MAC")?;
                Ok(Reply {
                    at: at
                        .parse()
                        .with_context(|| format!("no time stamp: {line}"))?,
                    from: name_of(lab, mac)?,
                })
            })
            .collect()
    }
}

/// The longest time, in seconds, between one answer and the next.
pub fn longest_gap(replies: &[Reply]) -> f64 {
    let pairs = replies.iter().zip(replies.iter().skip(1));
    pairs.map(|(a, b)| b.at - a.at).fold(0.0, f64::max)
}

/// The answerers in order, each named once per turn: `[n1, n2]` for one clean change.
pub fn turns(replies: &[Reply]) -> Vec<String> {
    let mut turns: Vec<String> = replies.iter().map(|reply| reply.from.clone()).collect();
    turns.dedup();
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_turns() {
        let reply = |at, from: &str| Reply {
            at,
            from: from.to_owned(),
        };
        let replies = [
            reply(1.0, "a"),
            reply(1.5, "a"),
            reply(4.0, "b"),
            reply(4.1, "b"),
        ];
        assert!((longest_gap(&replies) - 2.5).abs() < 1e-9);
        assert_eq!(turns(&replies), ["a", "b"]);
    }
}
