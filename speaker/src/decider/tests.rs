//! Inputs as the watches give them, and what the arbiters, the metrics and the events say after.

mod arbiters;
mod bench;

use std::net::IpAddr;

use ferrolb_config::read;
use ferrolb_runtime::watch::Unavailable;
use ferrolb_speaker_core::{Members, Reach};

use self::bench::{Bench, Heard};
use super::*;

#[tokio::test]
async fn an_address_is_held_once_everything_is_listed_and_configured() {
    let mut bench = Bench::new();
    bench.serve("web", "10.0.0.1");
    bench.configure("10.0.0.0/24");
    bench.node("me", "192.168.1.1", |_| {});
    for synced in [
        Input::Service(Change::Synced),
        Input::Endpoints(Change::Synced),
        Input::Node(Change::Synced),
    ] {
        bench.tell(synced);
        assert!(bench.held().is_empty());
    }
    bench.tell(Input::Speakers(None));
    assert!(bench.held().is_empty());
    bench.tell(Input::Members(Members::default()));
    assert!(bench.held().is_empty());
    assert_eq!(bench.ready.pending(), ["lists"]);
    bench.interfaces(&["eth0"]);
    assert_eq!(bench.held(), ["10.0.0.1"]);
    assert!(bench.ready.pending().is_empty());
    assert_eq!(bench.announced("default/web", "10.0.0.1"), 1);
    assert_eq!(bench.client.config_loaded.get(), 1);

    bench.tell(Input::Service(Change::Deleted(ObjectName::new(
        "default", "web",
    ))));
    assert!(bench.held().is_empty());
    let families = bench.registry.gather();
    let left = families
        .iter()
        .filter(|family| family.name() == "metallb_speaker_announced");
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn a_configuration_without_an_address_in_use_waits_until_it_is_released() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    bench.serve("old", "10.0.0.1");
    bench.serve("new", "10.0.1.1");
    assert_eq!(bench.held(), ["10.0.0.1"]);
    bench.configure("10.0.1.0/24");
    assert_eq!(
        bench.held(),
        ["10.0.0.1"],
        "the former configuration stays in force"
    );
    assert_eq!(bench.client.config_stale.get(), 1);
    // The controller moved it, or it went.
    bench.tell(Input::Service(Change::Deleted(ObjectName::new(
        "default", "old",
    ))));
    assert_eq!(bench.held(), ["10.0.1.1"]);
    assert_eq!(bench.client.config_stale.get(), 0);
}

#[tokio::test]
async fn a_refused_or_deleted_configuration_changes_nothing_but_the_gauge() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.1");
    let nonsense =
        read("address-pools:\n- name: p\n  protocol: layer2\n  addresses: ['nonsense']\n")
            .unwrap_err();
    for source in [Source::Refused(nonsense), Source::Absent] {
        bench.tell(Input::Config(source));
        assert_eq!(bench.held(), ["10.0.0.1"]);
        assert_eq!(bench.client.config_stale.get(), 1);
    }
    bench.configure("10.0.0.0/25");
    assert_eq!(bench.client.config_stale.get(), 0);
}

#[tokio::test]
async fn every_speaker_refuses_a_configuration_that_takes_a_pool_whoever_announces() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    // Another node's: this one has no network.
    bench.node("me", "192.168.1.1", |me| me.node.network_unavailable = true);
    bench.serve("theirs", "10.0.0.1");
    assert!(bench.held().is_empty());
    bench.configure("10.0.1.0/24");
    assert_eq!(bench.client.config_stale.get(), 1);
    let in_force = bench.decider.view.config().unwrap();
    assert!(in_force.pool_of([10, 0, 0, 1].into()).is_some());
    // Moved into the new pool, which is no more in the way.
    bench.serve("theirs", "10.0.1.1");
    assert_eq!(bench.client.config_stale.get(), 0);
}

#[tokio::test]
async fn a_waiting_configuration_outlasts_an_outage_but_not_its_deletion() {
    for (source, taken_up) in [
        (Source::Unavailable(Unavailable::Forbidden), true),
        (Source::Absent, false),
    ] {
        let mut bench = Bench::listed();
        bench.configure("10.0.0.0/24");
        bench.serve("old", "10.0.0.1");
        bench.serve("new", "10.0.1.1");
        bench.configure("10.0.1.0/24");
        bench.tell(Input::Config(source));
        bench.tell(Input::Service(Change::Deleted(ObjectName::new(
            "default", "old",
        ))));
        assert_eq!(!bench.held().is_empty(), taken_up);
    }
}

#[tokio::test]
async fn what_was_listed_stays_when_it_cannot_be_watched_any_more() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.1");
    let errors = bench.client.update_errors.get();
    let why = Unavailable::Forbidden;
    for gone in [
        Input::Service(Change::Unavailable(why)),
        Input::Endpoints(Change::Unavailable(why)),
        Input::Node(Change::Unavailable(why)),
        Input::Config(Source::Unavailable(why)),
    ] {
        bench.tell(gone);
        assert_eq!(bench.held(), ["10.0.0.1"]);
    }
    assert_eq!(bench.client.update_errors.get(), errors + 3);
    assert!(bench.ready.pending().is_empty());
    // What still comes is decided as before.
    bench.serve("more", "10.0.0.2");
    assert_eq!(bench.held(), ["10.0.0.1", "10.0.0.2"]);
}

#[tokio::test]
async fn what_cannot_be_listed_at_first_is_waited_for() {
    let mut bench = Bench::new();
    bench.tell(Input::Service(Change::Unavailable(Unavailable::Forbidden)));
    assert_eq!(bench.ready.pending(), ["lists"]);
    assert!(!bench.decider.view.listed(Kind::Services));
}

#[tokio::test]
async fn both_families_are_announced() {
    let mut bench = Bench::listed();
    let document = "address-pools:\n- name: p\n  protocol: layer2\n  addresses: ['10.0.0.0/24', 'fc00::/64']\n";
    bench.tell(Input::Config(Source::Read(read(document).unwrap())));
    bench.serve_all("dual", &["fc00::1", "10.0.0.1"]);
    bench.serve("six", "fc00::2");
    assert_eq!(bench.held(), ["10.0.0.1", "fc00::1", "fc00::2"]);
    for (service, address) in [
        ("default/dual", "10.0.0.1"),
        ("default/dual", "fc00::1"),
        ("default/six", "fc00::2"),
    ] {
        assert_eq!(bench.announced(service, address), 1);
    }
    bench.tell(Input::Service(Change::Deleted(ObjectName::new(
        "default", "six",
    ))));
    assert_eq!(bench.held(), ["10.0.0.1", "fc00::1"]);
    let events = bench.events().await;
    let assigned = |name: &str| ["Normal", "nodeAssigned", name].map(str::to_owned);
    // Each address is taken by itself.
    assert_eq!(events, ["dual", "dual", "six"].map(assigned));
}

#[tokio::test]
async fn silence_is_counted_by_reason() {
    let mut bench = Bench::listed();
    let silent = |bench: &Bench, word| bench.silent(word);
    bench.serve("web", "10.0.0.1");
    assert_eq!(silent(&bench, "noConfig"), 1);
    bench.configure("10.0.0.0-10.0.0.255");
    assert_eq!((silent(&bench, "noConfig"), bench.held().len()), (0, 1));
    bench.node("me", "192.168.1.1", |me| me.node.network_unavailable = true);
    assert_eq!((silent(&bench, "notOwner"), bench.held().len()), (1, 0));
    bench.node("me", "10.0.0.1", |_| {});
    assert_eq!(
        (silent(&bench, "nodeAddress"), silent(&bench, "notOwner")),
        (1, 0)
    );
    bench.tell(Input::Service(Change::Deleted(ObjectName::new(
        "default", "web",
    ))));
    assert_eq!(silent(&bench, "nodeAddress"), 0);
    assert_eq!(
        bench.events().await,
        [
            ["Normal", "nodeAssigned", "web"],
            ["Warning", "announceFailed", "web"]
        ]
    );
}

#[tokio::test]
async fn a_service_that_goes_and_comes_is_told_anew_and_one_that_stays_is_not() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.1");
    bench.heard();
    bench.serve("web", "10.0.0.1");
    bench.configure("10.0.0.0/25");
    assert_eq!(bench.heard(), []);
    bench.tell(Input::Service(Change::Deleted(ObjectName::new(
        "default", "web",
    ))));
    bench.serve("web", "10.0.0.1");
    let heard = bench.heard();
    let address = IpAddr::from([10, 0, 0, 1]);
    assert_eq!(heard[0], Heard::Standing(address, None));
    assert!(matches!(heard[1], Heard::Standing(of, Some(_)) if of == address));
    assert_eq!(heard.len(), 2);
}

fn only(names: &[&str]) -> Reach {
    let names = names.iter().map(|name| (*name).to_owned());
    Reach::Only(names.collect())
}

#[tokio::test]
async fn the_interfaces_of_an_advertisement_are_answered_on_and_shown() {
    let mut bench = Bench::listed();
    bench.interfaces(&["eth0", "eth1", "eth2"]);
    bench.advertise_on(&["eth1"]);
    bench.serve("web", "10.0.0.1");
    assert_eq!(bench.reach("10.0.0.1"), Some(only(&["eth1"])));
    assert_eq!(bench.shown(), Some(vec!["eth1".to_owned()]));
    bench.advertise_on(&["eth2", "eth1", "foo"]);
    assert_eq!(bench.reach("10.0.0.1"), Some(only(&["eth1", "eth2"])));
    let both = vec!["eth1".to_owned(), "eth2".to_owned()];
    assert_eq!(bench.shown(), Some(both));
    bench.advertise_on(&[]);
    assert_eq!(bench.reach("10.0.0.1"), Some(Reach::Everywhere));
    assert_eq!(bench.shown(), Some(vec![]));
    // All of that is one announcement.
    let written = bench.whole_events().await;
    let messages: Vec<_> = written.iter().map(|event| &event["message"]).collect();
    assert_eq!(
        messages,
        ["announcing from node \"me\" with protocol \"layer2\""]
    );
    assert!(written[0]["lastTimestamp"].is_string());
}

#[tokio::test]
async fn an_address_whose_interfaces_are_missing_is_withdrawn_and_comes_back_with_them() {
    let mut bench = Bench::listed();
    bench.interfaces(&["eth0", "eth1"]);
    bench.advertise_on(&["eth1"]);
    bench.serve("web", "10.0.0.1");
    assert_eq!(bench.announced("default/web", "10.0.0.1"), 1);
    bench.advertise_on(&["foo"]);
    assert_eq!(bench.reach("10.0.0.1"), None);
    assert_eq!((bench.shown(), bench.silent("noInterface")), (None, 1));
    // Said once, however often it is looked at.
    bench.serve_all("web", &["10.0.0.1"]);
    bench.interfaces(&["eth0"]);
    bench.interfaces(&["eth0", "foo"]);
    assert_eq!(bench.reach("10.0.0.1"), Some(only(&["foo"])));
    assert_eq!(bench.shown(), Some(vec!["foo".to_owned()]));
    assert_eq!(bench.silent("noInterface"), 0);
    bench.interfaces(&["eth0"]);
    assert_eq!(bench.reach("10.0.0.1"), None);
    let written = bench.whole_events().await;
    let messages: Vec<_> = written.iter().map(|event| &event["message"]).collect();
    let assigned = "announcing from node \"me\" with protocol \"layer2\"";
    let failed = "the interfaces specified by LB IP \"10.0.0.1\" doesn't exist in assigned node \"me\" with protocol \"layer2\"";
    assert_eq!(messages, [assigned, failed, assigned, failed]);
}

#[tokio::test]
async fn an_announcement_in_configmap_mode_is_told_as_0_12_tells_it() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.1");
    // Syncs are no news.
    bench.serve("web", "10.0.0.1");
    bench.configure("10.0.0.0/25");
    let written = bench.whole_events().await;
    let messages: Vec<_> = written.iter().map(|event| &event["message"]).collect();
    assert_eq!(messages, ["announcing from node \"me\""]);
}

#[tokio::test]
async fn an_exclude_label_that_every_node_has_is_ignored_aloud() {
    let mut bench = Bench::listed();
    let label = |bench: &mut Bench, excluded: bool| {
        let exclude = "node.kubernetes.io/exclude-from-external-load-balancers".to_owned();
        let labels = excluded.then(|| (exclude, String::new()));
        bench.node("me", "192.168.1.1", |me| {
            me.node.labels = labels.into_iter().collect();
        });
    };
    bench.advertise_on(&[]);
    bench.serve("web", "10.0.0.1");
    label(&mut bench, true);
    assert_eq!(bench.held(), ["10.0.0.1"]);
    bench.serve("more", "10.0.0.2");
    label(&mut bench, false);
    label(&mut bench, true);
    let events = bench.events().await;
    let ignored = ["Warning", "excludeLabelIgnored", "me"].map(str::to_owned);
    let told = events.iter().filter(|event| **event == ignored);
    // Once for each time it came to that.
    assert_eq!(told.count(), 2, "{events:?}");
}

#[tokio::test]
async fn counters_of_addresses_that_went_long_ago_go() {
    let mut bench = Bench::listed();
    bench.configure("10.0.0.0/16");
    bench.serve("web", "10.0.0.1");
    let counters = |bench: &Bench| {
        let families = bench.registry.gather();
        let requests = families
            .iter()
            .find(|family| family.name() == "metallb_layer2_requests_received");
        requests.map_or(0, |family| family.get_metric().len())
    };
    for number in 0..1500_u16 {
        let [high, low] = number.to_be_bytes();
        bench.serve("web", &format!("10.0.{}.{low}", high + 1));
    }
    assert_eq!(counters(&bench), 1024 + 1);
    assert_eq!(bench.held(), ["10.0.6.219"]);
}
