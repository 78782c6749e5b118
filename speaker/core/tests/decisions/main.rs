//! Whole decisions: objects in, who may answer and who comes first out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod advertisements;
mod model;
mod willing;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_config::{Config, Labels, ObjectName, read};
use ferrolb_speaker_core::{
    Announcement, Endpoint, Endpoints, IngressIp, Kind, Node, Reason, Service, Settings,
    SpeakerPod, Touched, TrafficPolicy, Verdict, View, decide, first, standing,
};

const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];

fn config(addresses: &str, protocol: &str) -> Config {
    read(&format!(
        "address-pools:\n- name: pool\n  protocol: {protocol}\n  addresses:\n  - {addresses}\n"
    ))
    .unwrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

fn load_balancer(ingress: &[&str], traffic_policy: TrafficPolicy) -> Service {
    Service {
        load_balancer: true,
        ingress: ingress.iter().map(|text| IngressIp::from(*text)).collect(),
        traffic_policy,
        labels: Labels::new(),
        wanted_at: None,
    }
}

fn endpoint(node: &str, ready: bool, serving: bool) -> Endpoint {
    Endpoint {
        node: Some(node.to_owned()),
        ready,
        serving,
    }
}

fn ready_node(last: u8) -> Node {
    Node {
        ready: true,
        addresses: BTreeSet::from([[192, 168, 1, last].into()]),
        ..Node::default()
    }
}

/// Three Ready nodes with a Ready speaker each, the pool 192.168.1.240/28 and 10.0.0.0/24, everything listed.
fn view() -> View {
    filled(View::new(Settings::default()))
}

fn filled(mut view: View) -> View {
    for (node, last) in NODES.into_iter().zip(1..) {
        view.apply_node(node.to_owned(), ready_node(last));
    }
    view.set_speakers(Some(NODES.map(|node| pod(node, true)).to_vec()));
    view.set_config(config(
        "192.168.1.240/28\n  - 10.0.0.0/24\n  - fc00::/64",
        "layer2",
    ));
    for kind in Kind::ALL {
        view.set_listed(kind);
    }
    view
}

fn pod(node: &str, ready: bool) -> SpeakerPod {
    SpeakerPod {
        address: None,
        node: node.to_owned(),
        ready,
    }
}

fn with_service(view: &mut View, text: &str, service: Service, endpoints: &[Endpoint]) {
    view.apply_service(name(text), service);
    let endpoints = endpoints.iter().cloned().collect::<Endpoints>();
    view.apply_endpoints(name(&format!("{text}-slice")), name(text), endpoints);
}

/// Who comes first for an address, in the eyes of `me`, and is willing: MetalLB's owner.
fn owner(view: &View, me: &str, address: IpAddr) -> Option<String> {
    let standing = standing(view, me, address).filter(|standing| standing.willing > 0)?;
    standing.order.into_iter().next()
}

/// What a node announces for a Service while everybody answers for what it comes first for.
fn owned(view: &View, node: &str, service: &ObjectName) -> Vec<IpAddr> {
    let Verdict::May(mut may) = decide(view, node, service) else {
        return Vec::new();
    };
    may.addresses
        .retain(|address| owner(view, node, *address).as_deref() == Some(node));
    may.addresses
}

/// The nodes that announce the Service then.
fn announcing(view: &View, service: &str) -> Vec<&'static str> {
    let owns = |node: &&str| !owned(view, node, &name(service)).is_empty();
    NODES.into_iter().filter(owns).collect()
}

/// The order of nodes for an address, and how many are willing, as all see it that are not among these.
fn order_of(view: &View, address: &str) -> (Vec<String>, usize) {
    let standing = standing(view, "bystander", address.parse().unwrap()).unwrap();
    assert_eq!(standing.reach, None);
    (standing.order, standing.willing)
}

fn may(view: &View, node: &str, service: &str) -> Announcement {
    match decide(view, node, &name(service)) {
        Verdict::May(announcement) => announcement,
        Verdict::Silent(reason) => panic!("{node} may not: {reason}"),
    }
}

fn reason(view: &View, node: &str, service: &str) -> Reason {
    match decide(view, node, &name(service)) {
        Verdict::Silent(reason) => reason,
        Verdict::May(announcement) => panic!("{node} may announce {announcement:?}"),
    }
}

#[test]
fn cluster_policy_goes_to_the_first_node_wherever_the_endpoints_are() {
    let mut view = view();
    let service = load_balancer(&["192.168.1.240"], TrafficPolicy::Cluster);
    with_service(&mut view, "web", service, &[endpoint("node-b", true, true)]);
    // Appendix A: a, c, b.
    assert_eq!(announcing(&view, "web"), ["node-a"]);
    view.apply_node("node-a".to_owned(), Node::default());
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    view.delete_node("node-c");
    assert_eq!(announcing(&view, "web"), ["node-b"]);
}

#[test]
fn every_check_has_metallbs_word() {
    let mut view = view();
    let ready = [endpoint("node-a", true, true)];
    let cluster = TrafficPolicy::Cluster;
    let kinds: [(&str, Service, &[Endpoint], &str); 9] = [
        ("none", load_balancer(&[], cluster), &ready, "noIPAllocated"),
        ("host", load_balancer(&[""], cluster), &ready, "invalidIP"),
        (
            "second",
            load_balancer(&["192.168.1.240", "x"], cluster),
            &ready,
            "invalidIP",
        ),
        (
            "outside",
            load_balancer(&["172.16.0.1"], cluster),
            &ready,
            "ipNotAllowed",
        ),
        (
            "half",
            load_balancer(&["192.168.1.240", "172.16.0.1"], cluster),
            &ready,
            "ipNotAllowed",
        ),
        (
            "empty",
            load_balancer(&["192.168.1.240"], cluster),
            &[],
            "notOwner",
        ),
        (
            "unready",
            load_balancer(&["192.168.1.241"], cluster),
            &[endpoint("node-a", false, false)],
            "notOwner",
        ),
        (
            "elsewhere",
            load_balancer(&["192.168.1.242"], TrafficPolicy::Local),
            &[endpoint("gone", true, true)],
            "notOwner",
        ),
        ("internal", Service::default(), &ready, "notLoadBalancer"),
    ];
    for (service, facts, endpoints, word) in kinds {
        with_service(&mut view, service, facts, endpoints);
        for node in NODES {
            let reason = reason(&view, node, service);
            assert_eq!(reason.word(), word, "{service}: {reason}");
        }
    }
    assert_eq!(reason(&view, "node-a", "absent").word(), "serviceDeleted");
}

#[test]
fn nothing_is_announced_before_everything_is_listed_and_configured() {
    let mut view = View::new(Settings::default());
    let service = load_balancer(&["10.0.0.1"], TrafficPolicy::Cluster);
    with_service(&mut view, "web", service, &[endpoint("node-a", true, true)]);
    view.apply_node("node-a".to_owned(), ready_node(1));
    for kind in Kind::ALL {
        assert_eq!(reason(&view, "node-a", "web"), Reason::NotSynced);
        assert_eq!(standing(&view, "node-a", [10, 0, 0, 1].into()), None);
        view.set_listed(kind);
    }
    assert_eq!(reason(&view, "node-a", "web"), Reason::NoConfig);
    assert_eq!(standing(&view, "node-a", [10, 0, 0, 1].into()), None);
    assert_eq!(
        view.set_config(config("10.0.0.0/24", "layer2")),
        Touched::All
    );
    assert_eq!(announcing(&view, "web"), ["node-a"]);
    view.set_config(config("10.0.0.0/24", "bgp"));
    assert_eq!(reason(&view, "node-a", "web").word(), "protocolChanged");
}

#[test]
fn local_policy_goes_to_nodes_with_endpoints_and_to_terminating_ones_last() {
    let mut view = view();
    let service = load_balancer(&["192.168.1.240"], TrafficPolicy::Local);
    with_service(
        &mut view,
        "web",
        service,
        &[
            endpoint("node-b", true, true),
            endpoint("node-c", true, true),
        ],
    );
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    let slice = name("web-slice");
    let going = [
        endpoint("node-c", false, true),
        endpoint("node-b", true, true),
    ];
    view.apply_endpoints(slice.clone(), name("web"), Endpoints::from_iter(going));
    assert_eq!(announcing(&view, "web"), ["node-b"]);
    let all_going = [
        endpoint("node-c", false, true),
        endpoint("node-b", false, true),
    ];
    view.apply_endpoints(slice.clone(), name("web"), Endpoints::from_iter(all_going));
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    view.delete_endpoints(&slice);
    assert_eq!(reason(&view, "node-c", "web"), Reason::NoEndpoints);
}

#[test]
fn the_restarted_speaker_of_a_single_node_does_not_wait_for_its_own_pod() {
    let mut view = view();
    let service = load_balancer(&["192.168.1.240"], TrafficPolicy::Local);
    with_service(&mut view, "web", service, &[endpoint("node-a", true, true)]);
    view.delete_node("node-b");
    view.delete_node("node-c");
    view.set_speakers(Some(vec![pod("node-a", false)]));
    assert_eq!(announcing(&view, "web"), ["node-a"]);
}

#[test]
fn a_nodes_own_address_is_never_announced() {
    let mut view = view();
    view.set_config(config("192.168.1.0/24", "layer2"));
    let service = load_balancer(&["192.168.1.3"], TrafficPolicy::Cluster);
    with_service(&mut view, "web", service, &[endpoint("node-b", true, true)]);
    for node in NODES {
        let reason = reason(&view, node, "web");
        assert_eq!(reason.word(), "nodeAddress");
        assert!(reason.to_string().contains("node-c"), "{reason}");
        assert_eq!(standing(&view, node, [192, 168, 1, 3].into()), None);
    }
    // The address of a node that is gone is free.
    assert_eq!(view.delete_node("node-c"), Touched::All);
    assert_eq!(announcing(&view, "web").len(), 1);
}

#[test]
fn the_owner_of_the_first_address_announces_those_of_both_families() {
    let mut view = view();
    for (service, ingress) in [
        ("four", &["10.0.0.1", "fc00::1"][..]),
        ("six", &["fc00::2", "10.0.0.2"]),
        ("six-alone", &["fc00::3"]),
    ] {
        let service_facts = load_balancer(ingress, TrafficPolicy::Cluster);
        with_service(
            &mut view,
            service,
            service_facts,
            &[endpoint("node-b", true, true)],
        );
        let owner = first(NODES, ingress[0]).unwrap();
        let all: Vec<IpAddr> = ingress.iter().map(|text| text.parse().unwrap()).collect();
        for node in NODES {
            assert_eq!(may(&view, node, service).addresses, all);
        }
        assert_eq!(owned(&view, owner, &name(service)), all);
        assert_eq!(announcing(&view, service), [owner]);
    }
}

#[test]
fn a_shared_address_may_be_owned_by_another_node_than_the_first_of_a_service() {
    let mut view = view();
    let ready = [endpoint("node-b", true, true)];
    // Every Service has an address of its own and shares the other: the sharers' smallest key decides on that one.
    let services = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
    for own in services {
        let service = load_balancer(&[own, "fc00::5"], TrafficPolicy::Cluster);
        with_service(&mut view, own, service, &ready);
    }
    let shared = first(NODES, "10.0.0.1").unwrap();
    let mut several = 0;
    for own in services {
        assert_eq!(order_of(&view, own).0[0], first(NODES, own).unwrap());
        assert_eq!(order_of(&view, "fc00::5").0[0], shared);
        several += usize::from(announcing(&view, own).len() > 1);
    }
    assert!(several > 0, "the case this is about");
}

#[test]
fn a_configuration_is_measured_by_the_services_every_speaker_sees() {
    let mut view = view();
    let cluster = TrafficPolicy::Cluster;
    // Used by somebody, though nobody announces it: it has no endpoint.
    with_service(&mut view, "web", load_balancer(&["10.0.0.1"], cluster), &[]);
    // None of these has a pool now, so none can lose it.
    let strangers: [(&str, &[&str]); 4] = [
        ("outside", &["172.16.0.1"]),
        ("half", &["10.0.0.2", "172.16.0.1"]),
        ("host", &["10.0.0.3", ""]),
        ("new", &[]),
    ];
    for (stranger, ingress) in strangers {
        with_service(&mut view, stranger, load_balancer(ingress, cluster), &[]);
    }
    let internal = Service {
        load_balancer: false,
        ..load_balancer(&["10.0.0.4"], cluster)
    };
    with_service(&mut view, "internal", internal, &[]);
    let dual = load_balancer(&["10.0.0.5", "fc00::1"], cluster);
    with_service(&mut view, "dual", dual, &[]);

    let left_out = |view: &View, new: &Config| {
        view.left_out_by(new)
            .map(|(service, addresses)| (service.name.clone(), addresses.len()))
    };
    let both = "10.0.0.0/28\n  - fc00::/64";
    assert_eq!(left_out(&view, &config(both, "layer2")), None);
    // A pool that no longer uses layer 2 covers the address all the same (MetalLB's rule).
    assert_eq!(left_out(&view, &config(both, "bgp")), None);
    let ipv4 = config("10.0.0.0/24", "layer2");
    assert_eq!(left_out(&view, &ipv4), Some(("dual".to_owned(), 2)));
    view.delete_service(&name("dual"));
    assert_eq!(left_out(&view, &ipv4), None);
    let other = config("10.0.1.0/24", "layer2");
    assert_eq!(left_out(&view, &other), Some(("web".to_owned(), 1)));
    view.apply_service(name("web"), load_balancer(&["10.0.1.1"], cluster));
    assert_eq!(left_out(&view, &other), None);
    // Without a configuration in force nothing is in use.
    let mut fresh = View::new(Settings::default());
    fresh.apply_service(name("web"), load_balancer(&["10.0.0.1"], cluster));
    assert_eq!(left_out(&fresh, &other), None);
}

#[test]
fn services_that_share_an_address_have_one_owner_and_touch_each_other() {
    let mut view = view();
    let ready = [endpoint("node-b", true, true)];
    let (own, shared) = ("10.0.0.1", "192.168.1.240");
    with_service(
        &mut view,
        "one",
        load_balancer(&[shared], TrafficPolicy::Cluster),
        &ready,
    );
    assert_eq!(announcing(&view, "one"), ["node-a"]);
    // The second one's key, its first address, is smaller as text: node-b is first for it.
    let touched = view.apply_service(
        name("two"),
        load_balancer(&[own, shared], TrafficPolicy::Cluster),
    );
    assert_eq!(
        touched,
        Touched::Some(BTreeSet::from([name("one"), name("two")]))
    );
    // Without endpoints it announces nothing but still has its say in the key.
    assert_eq!(announcing(&view, "one"), ["node-b"]);
    assert_eq!(reason(&view, "node-b", "two"), Reason::NoEndpoints);
    let endpoints = Endpoints::from_iter(ready);
    assert_eq!(
        view.apply_endpoints(name("two-slice"), name("two"), endpoints),
        touched
    );
    assert_eq!(announcing(&view, "two"), ["node-b"]);
    assert_eq!(view.delete_service(&name("two")), touched);
    assert_eq!(announcing(&view, "one"), ["node-a"]);
}

#[test]
fn a_change_names_the_services_it_touches() {
    let mut view = view();
    let service = load_balancer(&["10.0.0.1"], TrafficPolicy::Cluster);
    let only = |text| Touched::Some(BTreeSet::from([name(text)]));
    assert_eq!(
        view.apply_service(name("web"), service.clone()),
        only("web")
    );
    assert!(view.apply_service(name("web"), service).is_empty());
    let endpoints = Endpoints::from_iter([endpoint("node-a", true, true)]);
    assert_eq!(
        view.apply_endpoints(name("s"), name("web"), endpoints.clone()),
        only("web")
    );
    assert!(
        view.apply_endpoints(name("s"), name("web"), endpoints.clone())
            .is_empty()
    );
    // A slice that changes hands touches both.
    let both = Touched::Some(BTreeSet::from([name("other"), name("web")]));
    assert_eq!(
        view.apply_endpoints(name("s"), name("other"), endpoints),
        both
    );
    assert_eq!(view.delete_endpoints(&name("s")), only("other"));
    // A heartbeat of a Node touches nothing; losing it touches all.
    assert!(
        view.apply_node("node-a".to_owned(), ready_node(1))
            .is_empty()
    );
    assert_eq!(view.delete_node("node-a"), Touched::All);
    assert!(view.delete_node("node-a").is_empty());
    assert_eq!(view.delete_service(&name("web")), only("web"));
}
