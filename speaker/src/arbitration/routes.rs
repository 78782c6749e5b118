//! The default gateways: who is asked whether this node hears at all, and told first where an address is.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ferrolb_speaker_core::Host;
use ferrolb_speaker_wire::MacAddr;

/// The kernel's table of IPv4 routes (proc(5)), of this network namespace.
const TABLE: &str = "/proc/net/route";

/// How often that table is read.
const OFTEN: Duration = Duration::from_secs(30);

/// The gateways of default routes through one interface.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    /// Each with its hardware address, as soon as it was heard, and when it was last.
    known: BTreeMap<IpAddr, Option<(MacAddr, Instant)>>,
    read: Option<Instant>,
}

impl Gateways {
    /// Reads the table again if that was long ago; gives those to be asked where they are.
    pub(super) fn look(&mut self, interface: &str) -> Vec<IpAddr> {
        if self.read.is_some_and(|at| at.elapsed() < OFTEN) {
            return Vec::new();
        }
        self.read = Some(Instant::now());
        let table = fs::read_to_string(TABLE).unwrap_or_default();
        let known = of(interface, &table).into_iter().map(|gateway| {
            let gateway = IpAddr::from(gateway);
            (gateway, self.known.get(&gateway).copied().flatten())
        });
        self.known = known.collect();
        let unknown = self.known.iter().filter(|(_, mac)| mac.is_none());
        unknown.map(|(gateway, _)| *gateway).collect()
    }

    /// A host said at that time that it is there. What was said before something else that is known already says nothing: its
    /// questions come another way than its answers.
    pub(super) fn is_at(&mut self, address: IpAddr, mac: MacAddr, at: Instant) {
        if let Some(known) = self.known.get_mut(&address)
            && known.is_none_or(|(_, since)| since <= at)
        {
            *known = Some((mac, at));
        }
    }

    /// Their addresses.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.known.keys().copied().collect()
    }

    /// Those whose hardware address is known.
    pub(super) fn hosts(&self) -> Vec<Host> {
        let known = self.known.iter();
        known
            .filter_map(|(address, said)| {
                let (mac, _) = (*said)?;
                Some(Host {
                    address: *address,
                    mac: mac.octets(),
                })
            })
            .collect()
    }
}

/// Columns: interface, destination, gateway, …, mask; numbers as the machine keeps them, in hexadecimal.
fn of(interface: &str, table: &str) -> Vec<Ipv4Addr> {
    let gateway = |line: &str| {
        let mut columns = line.split_whitespace();
        let (name, destination, gateway) = (columns.next()?, columns.next()?, columns.next()?);
        let mask = columns.nth(4)?;
        let number = |text| u32::from_str_radix(text, 16).ok();
        let gateway = number(gateway).filter(|gateway| *gateway != 0)?;
        (name == interface && number(destination)? == 0 && number(mask)? == 0)
            .then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    };
    table.lines().skip(1).filter_map(gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: a gateway whose other half takes over, and a question of the first that is heard late.
    /// Output: the gateway is where it said last that it is.
    #[test]
    fn a_gateway_is_where_it_said_last() {
        let gateway = IpAddr::from([10, 9, 0, 1]);
        let (first, other) = (
            MacAddr::new(2, 0, 0, 0, 0, 1),
            MacAddr::new(2, 0, 0, 0, 0, 2),
        );
        let mut gateways = Gateways::default();
        gateways.known.insert(gateway, None);
        let now = Instant::now();
        let earlier = now.checked_sub(Duration::from_millis(2)).unwrap();
        gateways.is_at(gateway, other, now);
        gateways.is_at(gateway, first, earlier);
        gateways.is_at(IpAddr::from([10, 9, 0, 2]), first, now);
        let mac = other.octets();
        assert_eq!(
            gateways.hosts(),
            [Host {
                address: gateway,
                mac
            }]
        );
        gateways.is_at(gateway, first, now);
        assert_eq!(gateways.hosts()[0].mac, first.octets());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn gateways_of_default_routes_of_the_interface() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0163A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth1\t00000000\t0162A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t0063A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                     eth0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0 short\n";
        assert_eq!(
            of("eth0", table),
            ["192.168.99.1".parse::<Ipv4Addr>().unwrap()]
        );
        assert!(of("eth2", table).is_empty());
    }
}
