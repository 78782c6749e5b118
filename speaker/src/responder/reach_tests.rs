//! Addresses that are answered for on some interfaces only, on a real segment. Needs root.

use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_speaker_core::Reach;
use tokio::sync::watch;

use super::ndp_tests;
use super::tests::{OTHER, Running, VIP, exchange, hold, in_lab, question};
use crate::exclusions::Exclusions;
use crate::interfaces::{self, Interfaces, Names};
use crate::table::{Announcements, Change};

/// Moves a held address to these interfaces.
fn move_to(running: &Running, address: IpAddr, interfaces: &[&str]) {
    let names = interfaces.iter().map(|name| (*name).to_owned());
    let mut next = Announcements::clone(&running.table.load());
    let held = next.get_mut(&address).unwrap();
    *held = Arc::new(held.on(Reach::Only(names.collect())));
    let change = Change::Moved(address, held.clone());
    running.table.publish(next, vec![change]);
}

/// Input: an address that may be announced on another interface only, then on this one, too.
/// Output: neither answers nor gratuitous frames at first, both then; the counters count on.
#[test]
fn an_address_is_answered_and_made_known_on_its_interfaces_only() {
    in_lab(|lab| async move {
        let running = Running::start(&[VIP, OTHER]).await;
        let counted = |address: std::net::Ipv4Addr| running.metrics.held(&address.to_string());
        running
            .until(|metrics| metrics.held(&VIP.to_string()).gratuitous.get() >= 2)
            .await;
        move_to(&running, VIP.into(), &["elsewhere"]);
        let frames = [question(VIP), question(OTHER)];
        let answered = lab.client.run(move || exchange(&frames, OTHER)).await;
        assert_eq!(answered, [OTHER]);
        assert_eq!(counted(VIP).requests.get(), 0);
        // The rounds of another address take as long as those that are left.
        let moved = counted(VIP).gratuitous.get();
        hold(&running.table, &running.metrics, &[VIP]);
        let other = counted(OTHER).gratuitous.get();
        hold(&running.table, &running.metrics, &[VIP, OTHER]);
        running
            .until(|metrics| metrics.held(&OTHER.to_string()).gratuitous.get() >= other + 6)
            .await;
        assert_eq!(counted(VIP).gratuitous.get(), moved);

        move_to(&running, VIP.into(), &["elsewhere", "near"]);
        let frames = [question(VIP)];
        let answered = lab.client.run(move || exchange(&frames, VIP)).await;
        assert_eq!(answered, [VIP]);
        running
            .until(|metrics| metrics.held(&VIP.to_string()).gratuitous.get() >= moved + 2)
            .await;
    });
}

#[test]
fn the_group_of_an_address_is_joined_on_its_interfaces_only() {
    in_lab(|_lab| async move {
        let running = Running::with_vip(&[ndp_tests::VIP]).await;
        move_to(&running, ndp_tests::VIP.into(), &["elsewhere"]);
        ndp_tests::until_joined(false).await;
        move_to(&running, ndp_tests::VIP.into(), &["near"]);
        ndp_tests::until_joined(true).await;
    });
}

/// Input: an interface that the list of excluded ones comes to name while it is announced on, and then no longer.
/// Output: it is no longer among the interfaces, nor among the names that may be announced on; then it is again.
#[test]
fn an_interface_excluded_while_it_is_used_is_let_go() {
    in_lab(|_lab| async move {
        let list = |text: &str| Exclusions::parse(text).unwrap();
        let (excluding, excluded) = watch::channel(list(""));
        let (found, mut interfaces) = watch::channel(Interfaces::new());
        let (tell_names, mut names) = watch::channel(None::<Names>);
        tokio::spawn(interfaces::follow(excluded, found, tell_names));
        for (text, there) in [
            ("", true),
            ("announcedInterfacesToExclude: [^ne.r$]", false),
            ("announcedInterfacesToExclude: [^far$]", true),
        ] {
            excluding.send_replace(list(text));
            let answered = |all: &Interfaces| all.values().any(|one| one.name == "near") == there;
            let found = interfaces.wait_for(answered).await;
            drop(found.unwrap());
            let known = |names: &Option<Names>| {
                let names = names.as_ref();
                names.is_some_and(|names| names.contains("near") == there)
            };
            drop(names.wait_for(known).await.unwrap());
        }
    });
}
