//! The interfaces that addresses are announced on, as the kernel tells: listen first, then dump, then changes; and dump
//! again when the kernel says that it had to drop some.
//!
//! Chosen as MetalLB 0.8 and later do: up, not without ARP (`IFF_NOARP`), no member of a bond, bridge or VRF, and not
//! excluded by name, as pods' links are unless the operator says otherwise; then ARP is answered where there is broadcast,
//! and NDP where there is a link-local IPv6 address. Loopback has neither. Interfaces whose frames are not Ethernet are left
//! out as well: neither protocol is spoken on them as we speak it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_speaker_responder::{Interface, Interfaces};
use ferrolb_speaker_wire::MacAddr;
use futures::{StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;

use crate::exclusions::Exclusions;

/// The pause before the kernel is asked again after netlink failed.
const AGAIN: Duration = Duration::from_secs(1);

/// The names of all interfaces that are not excluded, be they fit to be announced on or not: what an `L2Advertisement`
/// may name.
pub type Names = BTreeSet<String>;

/// The hardware addresses of all this node's interfaces, those that nothing is announced on among them: what they say is no
/// stranger's word.
pub type Own = Arc<HashSet<MacAddr>>;

/// What the kernel has told, of which the interfaces follow.
#[derive(Debug, Default)]
struct Links {
    /// Those that fit but for what either protocol asks; `ndp` is filled in when they are told.
    fit: Interfaces,
    link_local: BTreeMap<NonZeroU32, BTreeSet<Ipv6Addr>>,
    /// The names of those that are not excluded.
    names: BTreeMap<NonZeroU32, String>,
    macs: BTreeMap<NonZeroU32, MacAddr>,
}

/// Where what the kernel tells is published.
struct Sinks {
    interfaces: watch::Sender<Interfaces>,
    /// None before the first list.
    names: watch::Sender<Option<Names>>,
    own: watch::Sender<Own>,
}

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("cannot open a netlink socket: {0}")]
    Open(#[from] std::io::Error),
    #[error("cannot list the interfaces: {0}")]
    Dump(#[from] rtnetlink::Error),
    #[error("the netlink socket was closed")]
    Closed,
}

/// Keeps `interfaces`, `names` and `own` up to date until nobody listens to the interfaces any more.
pub async fn follow(
    mut excluded: watch::Receiver<Exclusions>,
    interfaces: watch::Sender<Interfaces>,
    names: watch::Sender<Option<Names>>,
    own: watch::Sender<Own>,
) {
    let sinks = Sinks {
        interfaces,
        names,
        own,
    };
    loop {
        let failed = tokio::select! {
            result = listen(&mut excluded, &sinks) => result.err().unwrap_or(LinkError::Closed),
            () = sinks.interfaces.closed() => return,
        };
        tracing::error!(op = "interfaceScan", error = %failed, "interfaces cannot be watched, asking again");
        tokio::time::sleep(AGAIN).await;
    }
}

async fn listen(
    excluded: &mut watch::Receiver<Exclusions>,
    sinks: &Sinks,
) -> Result<(), LinkError> {
    let (connection, handle, mut changes) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link, MulticastGroup::Ipv6Ifaddr])?;
    let driver = async {
        connection.await;
        Err(LinkError::Closed)
    };
    let table = async {
        let mut list = excluded.borrow_and_update().clone();
        let mut links = dump(&handle, &list).await?;
        let mut may_change = true;
        loop {
            sinks.publish(&links);
            let (change, _) = tokio::select! {
                change = changes.next() => change.ok_or(LinkError::Closed)?,
                told = excluded.changed(), if may_change => {
                    may_change = told.is_ok();
                    list = excluded.borrow_and_update().clone();
                    links = dump(&handle, &list).await?;
                    continue;
                }
            };
            match change.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    links.apply(&link, &list);
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                    links.remove(&link);
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                    links.apply_address(&address);
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) => {
                    links.remove_address(&address);
                }
                NetlinkPayload::Overrun(_) => {
                    tracing::warn!(
                        op = "interfaceScan",
                        "the kernel dropped changes of interfaces, listing them again"
                    );
                    links = dump(&handle, &list).await?;
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        result = driver => result,
        result = table => result,
    }
}

async fn dump(handle: &Handle, excluded: &Exclusions) -> Result<Links, LinkError> {
    let mut links = Links::default();
    let mut told = handle.link().get().execute();
    while let Some(link) = told.try_next().await? {
        links.apply(&link, excluded);
    }
    let mut told = handle.address().get().execute();
    while let Some(address) = told.try_next().await? {
        links.apply_address(&address);
    }
    Ok(links)
}

impl Sinks {
    fn publish(&self, links: &Links) {
        // Before the interfaces: what is heard on a new one is judged by it.
        tell(&self.own, Arc::new(links.macs.values().copied().collect()));
        tell(&self.interfaces, links.interfaces());
        tell(&self.names, Some(links.names.values().cloned().collect()));
    }
}

fn tell<T: PartialEq>(sink: &watch::Sender<T>, now: T) {
    sink.send_if_modified(|told| {
        let differs = *told != now;
        if differs {
            *told = now;
        }
        differs
    });
}

/// Messages of a family are about that family's settings of a link (a bridge's about its ports), not about the link.
fn is_about_the_link(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Unspec
}

/// The interface and the link-local IPv6 address a message is about, if it is about one.
fn link_local(message: &AddressMessage) -> Option<(NonZeroU32, Ipv6Addr)> {
    let index = NonZeroU32::new(message.header.index)?;
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
            _ => None,
        })?;
    address.is_unicast_link_local().then_some((index, address))
}

impl Links {
    /// Those on which either protocol is spoken.
    fn interfaces(&self) -> Interfaces {
        let told = self.fit.values().map(|interface| Interface {
            ndp: self
                .link_local
                .get(&interface.index)
                .and_then(|addresses| addresses.first().copied()),
            ..interface.clone()
        });
        told.filter(|interface| interface.arp || interface.ndp.is_some())
            .map(|interface| (interface.index, interface))
            .collect()
    }

    fn apply_address(&mut self, message: &AddressMessage) {
        if let Some((index, address)) = link_local(message) {
            self.link_local.entry(index).or_default().insert(address);
        }
    }

    fn remove_address(&mut self, message: &AddressMessage) {
        if let Some((index, address)) = link_local(message)
            && let Some(addresses) = self.link_local.get_mut(&index)
        {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.link_local.remove(&index);
            }
        }
    }

    fn remove(&mut self, link: &LinkMessage) {
        if is_about_the_link(link)
            && let Some(index) = NonZeroU32::new(link.header.index)
        {
            self.fit.remove(&index);
            self.link_local.remove(&index);
            self.names.remove(&index);
            self.macs.remove(&index);
        }
    }

    fn apply(&mut self, link: &LinkMessage, excluded: &Exclusions) {
        let Some(index) = NonZeroU32::new(link.header.index) else {
            return;
        };
        if !is_about_the_link(link) {
            return;
        }
        let (mut name, mut mac, mut member) = (None, None, false);
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text),
                LinkAttribute::Address(bytes) => {
                    mac = <[u8; 6]>::try_from(bytes.as_slice())
                        .ok()
                        .map(MacAddr::from);
                }
                LinkAttribute::Controller(master) => member = *master != 0,
                _ => {}
            }
        }
        // Wireless drivers send messages with one attribute only; those say nothing of the link's state.
        let Some(name) = name else {
            return;
        };
        match mac {
            Some(mac) => self.macs.insert(index, mac),
            None => self.macs.remove(&index),
        };
        if excluded.names(name) {
            self.names.remove(&index);
        } else {
            self.names.insert(index, name.clone());
        }
        let flags = link.header.flags;
        let fit = flags.contains(LinkFlags::Up)
            && !flags.contains(LinkFlags::Noarp)
            && link.header.link_layer_type == LinkLayerType::Ether
            && !member
            && self.names.contains_key(&index);
        match mac.filter(|_| fit) {
            Some(mac) => {
                let name = name.clone();
                let running = flags.contains(LinkFlags::Running);
                let arp = flags.contains(LinkFlags::Broadcast);
                self.fit.insert(
                    index,
                    Interface {
                        index,
                        name,
                        mac,
                        running,
                        arp,
                        ndp: None,
                    },
                );
            }
            None => {
                self.fit.remove(&index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn link(flags: LinkFlags, kind: LinkLayerType, more: Vec<LinkAttribute>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = 3;
        link.header.flags = flags;
        link.header.link_layer_type = kind;
        link.attributes = more;
        link
    }

    fn address(text: &str) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = 3;
        message.attributes = vec![AddressAttribute::Address(text.parse().unwrap())];
        message
    }

    #[test]
    fn ndp_is_spoken_while_there_is_a_link_local_address() {
        let whole = vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::Address(US.to_vec()),
        ];
        let good = link(
            LinkFlags::Up | LinkFlags::Broadcast,
            LinkLayerType::Ether,
            whole,
        );
        let none = Exclusions::parse("").unwrap();
        let mut links = Links::default();
        let spoken = |links: &Links| {
            links
                .interfaces()
                .values()
                .any(|interface| interface.ndp.is_some())
        };
        // In whatever order the kernel tells.
        links.apply_address(&address("fe80::1"));
        assert!(links.interfaces().is_empty());
        links.apply(&good, &none);
        assert!(spoken(&links));
        links.apply_address(&address("fe80::2"));
        links.apply_address(&address("fd99::1"));
        links.apply_address(&address("169.254.0.1"));
        links.remove_address(&address("fe80::1"));
        links.remove_address(&address("fe80::1"));
        assert!(spoken(&links));
        links.remove_address(&address("fe80::2"));
        assert!(!spoken(&links) && links.interfaces().len() == 1);
        links.apply_address(&address("fe80::1"));
        links.remove(&good);
        links.apply(&good, &none);
        assert!(!spoken(&links));
    }

    #[test]
    fn which_links_qualify() {
        let named = |name: &str| {
            vec![
                LinkAttribute::IfName(name.to_owned()),
                LinkAttribute::Address(US.to_vec()),
            ]
        };
        let good = LinkFlags::Up | LinkFlags::Broadcast;
        let ether = LinkLayerType::Ether;
        let excluded = Exclusions::parse("announcedInterfacesToExclude: [\"^veth\"]").unwrap();
        let mut member = named("eth1");
        member.push(LinkAttribute::Controller(7));
        for (what, link, expected) in [
            ("plain", link(good, ether, named("eth0")), true),
            (
                "down",
                link(LinkFlags::Broadcast, ether, named("eth0")),
                false,
            ),
            (
                "point to point",
                link(LinkFlags::Up, ether, named("eth0")),
                false,
            ),
            (
                "no ARP",
                link(good | LinkFlags::Noarp, ether, named("eth0")),
                false,
            ),
            (
                "loopback",
                link(
                    LinkFlags::Up | LinkFlags::Loopback,
                    LinkLayerType::Loopback,
                    named("lo"),
                ),
                false,
            ),
            (
                "not Ethernet",
                link(good, LinkLayerType::Tunnel, named("tunl0")),
                false,
            ),
            ("bond member", link(good, ether, member), false),
            ("excluded", link(good, ether, named("veth12")), false),
            (
                "no address",
                link(good, ether, vec![LinkAttribute::IfName("x".to_owned())]),
                false,
            ),
        ] {
            let mut links = Links::default();
            links.apply(&link, &excluded);
            assert_eq!(!links.interfaces().is_empty(), expected, "{what}");
            // An operator may name what is down, but not what is excluded.
            assert_eq!(links.names.is_empty(), what == "excluded", "{what}");
            // A link-local address makes up for broadcast, and for nothing else.
            links.apply_address(&address("fe80::1"));
            let ndp = links
                .interfaces()
                .values()
                .any(|interface| interface.ndp.is_some());
            assert_eq!(ndp, expected || what == "point to point", "{what}");
        }
    }

    #[test]
    fn every_interface_counts_as_this_nodes() {
        let named = vec![
            LinkAttribute::IfName("veth1".to_owned()),
            LinkAttribute::Address(US.to_vec()),
        ];
        let excluded = Exclusions::parse("announcedInterfacesToExclude: [\"^veth\"]").unwrap();
        let veth = link(LinkFlags::empty(), LinkLayerType::Ether, named);
        let mut links = Links::default();
        links.apply(&veth, &excluded);
        assert!(links.interfaces().is_empty() && links.names.is_empty());
        let own: Vec<_> = links.macs.values().copied().collect();
        assert_eq!(own, [MacAddr::from(US)]);
        links.remove(&veth);
        assert!(links.macs.is_empty());
    }

    #[test]
    fn a_message_without_name_or_of_a_family_changes_nothing() {
        let good = LinkFlags::Up | LinkFlags::Broadcast;
        let whole = vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::Address(US.to_vec()),
        ];
        let none = Exclusions::parse("").unwrap();
        let mut links = Links::default();
        links.apply(&link(good, LinkLayerType::Ether, whole.clone()), &none);
        links.apply(
            &link(LinkFlags::empty(), LinkLayerType::Ether, vec![]),
            &none,
        );
        let mut of_bridge = link(good, LinkLayerType::Ether, whole.clone());
        of_bridge.header.interface_family = AddressFamily::Bridge;
        links.remove(&of_bridge);
        assert_eq!(links.interfaces().len(), 1);
        links.remove(&link(good, LinkLayerType::Ether, whole));
        assert!(links.interfaces().is_empty() && links.names.is_empty());
    }

    /// Input: an interface that the list of excluded ones comes to name while it is announced on, and then no longer.
    /// Output: it is no longer among the interfaces, nor among the names that may be announced on; then it is again.
    #[test]
    fn an_interface_excluded_while_it_is_used_is_let_go() {
        ferrolb_speaker_responder::lab::in_lab(|lab| async move {
            let list = |text: &str| Exclusions::parse(text).unwrap();
            let (excluding, excluded) = watch::channel(list(""));
            let (found, mut interfaces) = watch::channel(Interfaces::new());
            let (tell_names, mut names) = watch::channel(None::<Names>);
            let (tell_own, mut own) = watch::channel(Own::default());
            tokio::spawn(follow(excluded, found, tell_names, tell_own));
            for (text, there) in [
                ("", true),
                ("announcedInterfacesToExclude: [^ne.r$]", false),
                ("announcedInterfacesToExclude: [^far$]", true),
            ] {
                excluding.send_replace(list(text));
                let answered =
                    |all: &Interfaces| all.values().any(|one| one.name == "near") == there;
                let found = interfaces.wait_for(answered).await;
                drop(found.unwrap());
                let known = |names: &Option<Names>| {
                    let names = names.as_ref();
                    names.is_some_and(|names| names.contains("near") == there)
                };
                drop(names.wait_for(known).await.unwrap());
                // Announced on or not, it is this node's.
                let near = lab.near.mac;
                drop(own.wait_for(|own| own.contains(&near)).await.unwrap());
            }
        });
    }
}
