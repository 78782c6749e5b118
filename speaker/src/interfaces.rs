//! The interfaces that addresses are announced on, as the kernel tells: listen first, then dump, then changes; and dump
//! again when the kernel says that it had to drop some.
//!
//! Chosen as MetalLB 0.8 and later do: up, with broadcast, with ARP, no member of a bond, bridge or VRF, and not excluded
//! by name, as pods' links are unless the operator says otherwise. Loopback has no broadcast, so it never is. Interfaces whose frames are not Ethernet are left out as well:
//! there is no ARP as we speak it on them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use ferrolb_speaker_wire::MacAddr;
use futures::{StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;

use crate::exclusions::Exclusions;

/// The pause before the kernel is asked again after netlink failed.
const AGAIN: Duration = Duration::from_secs(1);

/// One interface addresses are announced on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index, which stays while it lives.
    pub index: NonZeroU32,
    /// Its name, which may change.
    pub name: String,
    /// Its hardware address, which may change.
    pub mac: MacAddr,
    /// It has carrier and takes frames (`IFF_RUNNING`). Until then whatever is sent is lost without a word.
    pub running: bool,
}

/// All of them, by index.
pub type Interfaces = BTreeMap<NonZeroU32, Interface>;

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

/// Keeps `sink` up to date until its receivers are gone.
pub async fn follow(excluded: Exclusions, sink: watch::Sender<Interfaces>) {
    loop {
        let failed = tokio::select! {
            result = listen(&excluded, &sink) => result.err().unwrap_or(LinkError::Closed),
            () = sink.closed() => return,
        };
        tracing::error!(op = "interfaceScan", error = %failed, "interfaces cannot be watched, asking again");
        tokio::time::sleep(AGAIN).await;
    }
}

async fn listen(excluded: &Exclusions, sink: &watch::Sender<Interfaces>) -> Result<(), LinkError> {
    let (connection, handle, mut changes) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    let driver = async {
        connection.await;
        Err(LinkError::Closed)
    };
    let table = async {
        let mut interfaces = dump(&handle, excluded).await?;
        loop {
            publish(sink, &interfaces);
            let (change, _) = changes.next().await.ok_or(LinkError::Closed)?;
            match change.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    apply(&mut interfaces, &link, excluded);
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                    remove(&mut interfaces, &link);
                }
                NetlinkPayload::Overrun(_) => {
                    tracing::warn!(
                        op = "interfaceScan",
                        "the kernel dropped changes of interfaces, listing them again"
                    );
                    interfaces = dump(&handle, excluded).await?;
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

async fn dump(handle: &Handle, excluded: &Exclusions) -> Result<Interfaces, LinkError> {
    let mut interfaces = Interfaces::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        apply(&mut interfaces, &link, excluded);
    }
    Ok(interfaces)
}

fn publish(sink: &watch::Sender<Interfaces>, interfaces: &Interfaces) {
    sink.send_if_modified(|told| {
        let differs = told != interfaces;
        if differs {
            told.clone_from(interfaces);
        }
        differs
    });
}

/// Messages of a family are about that family's settings of a link (a bridge's about its ports), not about the link.
fn is_about_the_link(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Unspec
}

fn remove(interfaces: &mut Interfaces, link: &LinkMessage) {
    if is_about_the_link(link)
        && let Some(index) = NonZeroU32::new(link.header.index)
    {
        interfaces.remove(&index);
    }
}

fn apply(interfaces: &mut Interfaces, link: &LinkMessage, excluded: &Exclusions) {
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
    let flags = link.header.flags;
    let fit = flags.contains(LinkFlags::Up | LinkFlags::Broadcast)
        && !flags.contains(LinkFlags::Noarp)
        && link.header.link_layer_type == LinkLayerType::Ether
        && !member
        && !excluded.names(name);
    match mac.filter(|_| fit) {
        Some(mac) => {
            let name = name.clone();
            let running = flags.contains(LinkFlags::Running);
            interfaces.insert(
                index,
                Interface {
                    index,
                    name,
                    mac,
                    running,
                },
            );
        }
        None => {
            interfaces.remove(&index);
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
            let mut interfaces = Interfaces::new();
            apply(&mut interfaces, &link, &excluded);
            assert_eq!(!interfaces.is_empty(), expected, "{what}");
        }
    }

    #[test]
    fn a_message_without_name_or_of_a_family_changes_nothing() {
        let good = LinkFlags::Up | LinkFlags::Broadcast;
        let whole = vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::Address(US.to_vec()),
        ];
        let none = Exclusions::parse("").unwrap();
        let mut interfaces = Interfaces::new();
        apply(
            &mut interfaces,
            &link(good, LinkLayerType::Ether, whole.clone()),
            &none,
        );
        apply(
            &mut interfaces,
            &link(LinkFlags::empty(), LinkLayerType::Ether, vec![]),
            &none,
        );
        let mut of_bridge = link(good, LinkLayerType::Ether, whole.clone());
        of_bridge.header.interface_family = AddressFamily::Bridge;
        remove(&mut interfaces, &of_bridge);
        assert_eq!(interfaces.len(), 1);
        remove(&mut interfaces, &link(good, LinkLayerType::Ether, whole));
        assert!(interfaces.is_empty());
    }
}
