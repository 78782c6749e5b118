//! Who should rather not answer, who is believed to live, and what MetalLB's speakers change about both.

use ferrolb_speaker_core::{Members, Peer};

use super::*;

/// Where node-a, then c, then b comes in the order (Appendix A).
const ADDRESS: &str = "192.168.1.240";

/// Three nodes, and `web` at [`ADDRESS`] with an endpoint.
fn with_web(mut view: View) -> View {
    let service = load_balancer(&[ADDRESS], TrafficPolicy::Cluster);
    with_service(&mut view, "web", service, &[endpoint("node-b", true, true)]);
    view
}

fn ordered(view: &View) -> (Vec<String>, usize) {
    order_of(view, ADDRESS)
}

fn expected(order: [&str; 3], willing: usize) -> (Vec<String>, usize) {
    (order.map(str::to_owned).to_vec(), willing)
}

fn not_ready(last: u8) -> Node {
    Node {
        ready: false,
        ..ready_node(last)
    }
}

fn cordoned(last: u8) -> Node {
    Node {
        unschedulable: true,
        ..ready_node(last)
    }
}

fn members(live: &[&str], gone: &[&str], metallb: &[&str]) -> Members {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Members {
        live: set(live),
        gone: set(gone),
        metallb: set(metallb),
    }
}

/// The names of the peers believed to live.
fn live(view: &View) -> Vec<String> {
    let peers = view.peers().into_iter();
    let live = peers.filter(|peer| peer.live);
    live.map(|peer| peer.node).collect()
}

#[test]
fn a_cordoned_node_comes_last_until_it_is_not() {
    let mut view = with_web(view());
    let all = expected(["node-a", "node-c", "node-b"], 3);
    assert_eq!(ordered(&view), all);
    assert_eq!(
        view.apply_node("node-a".to_owned(), cordoned(1)),
        Touched::All
    );
    assert_eq!(ordered(&view), expected(["node-c", "node-b", "node-a"], 2));
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    // It may still, and lives.
    may(&view, "node-a", "web");
    assert_eq!(live(&view), NODES);
    view.apply_node("node-b".to_owned(), cordoned(2));
    assert_eq!(ordered(&view), expected(["node-c", "node-a", "node-b"], 1));
    view.apply_node("node-c".to_owned(), cordoned(3));
    assert_eq!(ordered(&view), expected(["node-a", "node-c", "node-b"], 0));
    for (node, last) in NODES.into_iter().zip(1..) {
        view.apply_node(node.to_owned(), ready_node(last));
    }
    assert_eq!(ordered(&view), all);
}

#[test]
fn a_node_that_everything_is_to_be_moved_from_comes_last_and_says_why() {
    let mut view = with_web(view());
    let moved = Node {
        moves_away: true,
        ..cordoned(1)
    };
    view.apply_node("node-a".to_owned(), moved);
    assert_eq!(ordered(&view), expected(["node-c", "node-b", "node-a"], 2));
    let why = |view: &View, node| view.leaving(node).map(|why| why.to_string());
    assert_eq!(
        why(&view, "node-a").as_deref(),
        Some("has the annotation ferrolb.io/move")
    );
    view.apply_node("node-b".to_owned(), not_ready(2));
    assert_eq!(why(&view, "node-b").as_deref(), Some("is not Ready"));
    assert_eq!(why(&view, "node-c"), None);
    // Beside MetalLB's speakers, which know nothing of it, its rule holds.
    view.set_members(members(&NODES, &[], &["node-c"]));
    assert_eq!(ordered(&view), expected(["node-a", "node-c", "node-b"], 3));
    assert_eq!(why(&view, "node-a"), None);
}

#[test]
fn where_an_address_is_wanted_comes_first_if_it_may_and_is_willing() {
    let mut view = view();
    let wanted = |view: &mut View, at: &str| {
        let service = Service {
            wanted_at: Some(at.to_owned()),
            ..load_balancer(&[ADDRESS], TrafficPolicy::Cluster)
        };
        with_service(view, "web", service, &[endpoint("node-b", true, true)]);
        ordered(view)
    };
    let metallbs = expected(["node-a", "node-c", "node-b"], 3);
    assert_eq!(
        wanted(&mut view, "node-b"),
        expected(["node-b", "node-a", "node-c"], 3)
    );
    assert_eq!(wanted(&mut view, "node-a"), metallbs);
    assert_eq!(wanted(&mut view, "Sun Nov 22"), metallbs);
    view.apply_node("node-b".to_owned(), cordoned(2));
    assert_eq!(
        wanted(&mut view, "node-b"),
        expected(["node-a", "node-c", "node-b"], 2)
    );
    view.apply_node("node-b".to_owned(), ready_node(2));
    view.set_members(members(&NODES, &[], &["node-c"]));
    assert_eq!(wanted(&mut view, "node-b"), metallbs);
}

#[test]
fn a_cordoned_node_keeps_its_place_where_the_operator_says_so() {
    let mut view = with_web(filled(View::new(Settings {
        leave_cordoned: false,
        ..Settings::default()
    })));
    let touched = view.apply_node("node-a".to_owned(), cordoned(1));
    assert!(touched.is_empty());
    assert_eq!(ordered(&view), expected(["node-a", "node-c", "node-b"], 3));
}

#[test]
fn a_node_that_is_not_ready_comes_last_and_one_without_network_not_at_all() {
    let mut view = with_web(view());
    assert_eq!(
        view.apply_node("node-a".to_owned(), not_ready(1)),
        Touched::All
    );
    assert_eq!(ordered(&view), expected(["node-c", "node-b", "node-a"], 2));
    may(&view, "node-a", "web");
    assert_eq!(live(&view), ["node-b", "node-c"]);
    // Cordoning it changes nothing more.
    let both = Node {
        unschedulable: true,
        ..not_ready(1)
    };
    assert!(view.apply_node("node-a".to_owned(), both).is_empty());
    let unplugged = Node {
        network_unavailable: true,
        ..ready_node(1)
    };
    let touched = view.apply_node("node-a".to_owned(), unplugged);
    assert_eq!(touched, Touched::All);
    assert_eq!(
        ordered(&view),
        (vec!["node-c".to_owned(), "node-b".to_owned()], 2)
    );
    let why = reason(&view, "node-a", "web");
    assert_eq!(why.word(), "notOwner");
    assert!(why.to_string().contains("node-c"), "{why}");
    assert!(why.to_string().contains("NetworkUnavailable"), "{why}");
}

#[test]
fn who_may_not_is_told_who_may_though_unwilling_or_that_nobody_may() {
    let mut view = with_web(view());
    let unplugged = Node {
        network_unavailable: true,
        ..ready_node(1)
    };
    view.apply_node("node-a".to_owned(), unplugged);
    view.apply_node("node-b".to_owned(), not_ready(2));
    view.apply_node("node-c".to_owned(), not_ready(3));
    let Reason::NotEligible { owner, .. } = reason(&view, "node-a", "web") else {
        panic!("somebody may");
    };
    assert_eq!(owner, "node-c");
    view.delete_node("node-b");
    view.delete_node("node-c");
    let why = reason(&view, "node-a", "web");
    assert!(matches!(why, Reason::NoCandidate(_)), "{why}");
    assert_eq!(standing(&view, "node-a", ADDRESS.parse().unwrap()), None);
}

#[test]
fn a_node_whose_speaker_is_not_ready_comes_last_where_pods_tell() {
    let mut view = with_web(view());
    let all = expected(["node-a", "node-c", "node-b"], 3);
    view.set_speakers(Some(vec![
        pod("node-a", false),
        pod("node-b", true),
        pod("node-c", true),
    ]));
    assert_eq!(ordered(&view), expected(["node-c", "node-b", "node-a"], 2));
    assert_eq!(live(&view), ["node-b", "node-c"]);
    may(&view, "node-a", "web");
    // Unknown, a list of other pods, or none that is Ready: the Nodes decide alone.
    for pods in [
        None,
        Some(vec![]),
        Some(vec![pod("elsewhere", true)]),
        Some(vec![pod("node-b", false), pod("elsewhere", true)]),
    ] {
        view.set_speakers(Some(vec![pod("node-b", true)]));
        assert_eq!(ordered(&view), expected(["node-b", "node-a", "node-c"], 1));
        assert_eq!(view.set_speakers(pods.clone()), Touched::All);
        assert_eq!(ordered(&view), all, "{pods:?}");
        assert!(view.set_speakers(pods).is_empty());
    }
}

#[test]
fn preference_does_not_make_up_for_unwillingness() {
    use super::advertisements::{advertisement, labels, resources, selector};

    let mut preferring = advertisement("all");
    preferring.preferred = vec![(10, selector("disk", "ssd"))];
    let mut view = with_web(view());
    view.set_config(resources(vec![preferring]));
    let ssd = |node: Node| Node {
        labels: labels(&[("disk", "ssd")]),
        ..node
    };
    view.apply_node("node-b".to_owned(), ssd(ready_node(2)));
    assert_eq!(ordered(&view), expected(["node-b", "node-a", "node-c"], 3));
    view.apply_node("node-b".to_owned(), ssd(cordoned(2)));
    assert_eq!(ordered(&view), expected(["node-a", "node-c", "node-b"], 2));
    // Among the unwilling it counts.
    view.apply_node("node-a".to_owned(), cordoned(1));
    assert_eq!(ordered(&view), expected(["node-c", "node-b", "node-a"], 1));
}

#[test]
fn gossip_says_who_lives_and_not_who_may() {
    let mut view = with_web(view());
    // Of whom gossip has never heard, Node and pod tell.
    let touched = view.set_members(members(&["node-c"], &[], &[]));
    assert!(touched.is_empty());
    assert_eq!(live(&view), NODES);
    let touched = view.set_members(members(&["node-b", "node-c"], &["node-a"], &[]));
    assert!(touched.is_empty());
    assert_eq!(live(&view), ["node-b", "node-c"]);
    assert_eq!(ordered(&view), expected(["node-a", "node-c", "node-b"], 3));
    may(&view, "node-a", "web");
    // A member whose pod is not Ready may have no socket yet.
    view.set_speakers(Some(vec![pod("node-b", true)]));
    assert_eq!(live(&view), ["node-b"]);
}

#[test]
fn beside_metallb_everybody_is_willing_and_gossip_alone_says_who_lives() {
    let mut view = with_web(view());
    view.apply_node("node-a".to_owned(), not_ready(1));
    view.apply_node("node-c".to_owned(), cordoned(3));
    view.set_speakers(Some(vec![pod("node-c", true)]));
    assert_eq!(ordered(&view), expected(["node-a", "node-c", "node-b"], 0));
    let touched = view.set_members(members(&["node-a", "node-b"], &[], &["node-b"]));
    assert_eq!(touched, Touched::All);
    assert_eq!(ordered(&view), expected(["node-a", "node-c", "node-b"], 3));
    assert_eq!(live(&view), ["node-a", "node-b"]);
    let legacy = |view: &View| {
        let peers = view.peers().into_iter();
        let legacy = peers.filter(|peer| peer.legacy);
        legacy.map(|peer| peer.node).collect::<Vec<_>>()
    };
    assert_eq!(legacy(&view), ["node-b"]);
    // Which of them is MetalLB's changes no order, nor does who of them lives.
    let touched = view.set_members(members(&["node-a"], &["node-b"], &["node-a"]));
    assert!(touched.is_empty());
    assert_eq!(live(&view), ["node-a"]);
    assert_eq!(legacy(&view), ["node-a"]);
    // The last of them goes.
    let touched = view.set_members(members(&["node-a"], &[], &[]));
    assert_eq!(touched, Touched::All);
    assert_eq!(ordered(&view), expected(["node-a", "node-c", "node-b"], 0));
    assert_eq!(legacy(&view), [""; 0]);
    assert_eq!(live(&view), ["node-c"]);
}

#[test]
fn peers_are_all_nodes_with_the_first_internal_address_ipv4_before_ipv6() {
    let mut view = View::new(Settings::default());
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let node = |internal: &[&str]| Node {
        internal: internal.iter().map(|text| ip(text)).collect(),
        ..ready_node(9)
    };
    for (name, internal) in [
        ("both", &["fd00::1", "10.0.0.9", "10.0.0.2"][..]),
        ("six", &["fd00::3", "fd00::2"]),
        ("none", &[]),
    ] {
        view.apply_node(name.to_owned(), node(internal));
    }
    let excluded = "node.kubernetes.io/exclude-from-external-load-balancers";
    let unplugged = Node {
        network_unavailable: true,
        labels: Labels::from([(excluded.to_owned(), String::new())]),
        ..node(&["10.0.0.3"])
    };
    view.apply_node("unplugged".to_owned(), unplugged);
    let peer = |node: &str, address: Option<&str>, live| Peer {
        node: node.to_owned(),
        address: address.map(ip),
        live,
        legacy: false,
    };
    let all = [
        peer("both", Some("10.0.0.9"), true),
        peer("none", None, true),
        peer("six", Some("fd00::3"), true),
        peer("unplugged", Some("10.0.0.3"), false),
    ];
    assert_eq!(view.peers(), all);
    // What only peers show touches no Service.
    let moved = view.apply_node("none".to_owned(), node(&["10.0.0.4"]));
    assert!(moved.is_empty());
    assert_eq!(view.peers()[1], peer("none", Some("10.0.0.4"), true));
}
