//! Pools that are custom resources: who may announce, on which interfaces, and who is preferred, by what L2Advertisements say.
//! The scenarios are those of MetalLB's end-to-end tests (`node_selector`, `service_selector`, `interface_selector`,
//! `preferred_node`, and the node conditions of `l2`).

use ferrolb_config::{
    AdvertisementWords, Config, Origin, PoolWords, SelectorWords, Word, Words, check,
};
use ferrolb_speaker_core::{Reach, Service, Touched, TrafficPolicy, View};

use super::*;

/// Where node-a, then c, then b comes in the order (Appendix A).
const ADDRESS: &str = "192.168.1.240";
const NODES_IN_ORDER: [&str; 3] = ["node-a", "node-c", "node-b"];
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Labels, or a selector's `matchLabels`.
pub fn labels<T: FromIterator<(String, String)>>(pairs: &[(&str, &str)]) -> T {
    pairs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

pub fn selector(key: &str, value: &str) -> SelectorWords {
    SelectorWords {
        labels: labels(&[(key, value)]),
        ..SelectorWords::default()
    }
}

/// One that selects the node of this name.
fn host(node: &str) -> SelectorWords {
    selector("kubernetes.io/hostname", node)
}

/// A pool `pool` that is a custom resource, with the addresses of the other tests, advertised so.
pub fn resources(advertisements: Vec<AdvertisementWords>) -> Config {
    let ranges = ["192.168.1.240/28", "10.0.0.0/24", "fc00::/64"];
    let pool = PoolWords {
        place: "IPAddressPool metallb-system/pool".to_owned(),
        origin: Origin::Resource,
        name: Word::Said("pool".to_owned()),
        addresses: Word::Said(ranges.map(|range| Word::Said(range.to_owned())).to_vec()),
        ..PoolWords::default()
    };
    let words = Words {
        pools: vec![pool],
        advertisements,
        ..Words::default()
    };
    check(words).unwrap()
}

pub fn advertisement(name: &str) -> AdvertisementWords {
    AdvertisementWords {
        place: format!("L2Advertisement metallb-system/{name}"),
        name: name.to_owned(),
        ..AdvertisementWords::default()
    }
}

/// One for the nodes of these names.
fn on(name: &str, nodes: &[&str]) -> AdvertisementWords {
    AdvertisementWords {
        node_selectors: nodes.iter().map(|node| host(node)).collect(),
        ..advertisement(name)
    }
}

/// A Ready node with its host name as label, and these.
fn labelled(node: &str, last: u8, more: &[(&str, &str)]) -> Node {
    let mut all = more.to_vec();
    all.push(("kubernetes.io/hostname", node));
    Node {
        labels: labels(&all),
        ..ready_node(last)
    }
}

/// Sets a node's labels beside its host name.
fn label(view: &mut View, node: &str, more: &[(&str, &str)]) -> Touched {
    let last = NODES.iter().zip(1..).find(|(known, _)| **known == node);
    view.apply_node(node.to_owned(), labelled(node, last.unwrap().1, more))
}

/// Three nodes, and `web` at [`ADDRESS`] with an endpoint.
fn advertised(advertisements: Vec<AdvertisementWords>) -> View {
    with_web(view(), advertisements)
}

fn with_web(mut view: View, advertisements: Vec<AdvertisementWords>) -> View {
    view.set_config(resources(advertisements));
    for node in NODES {
        label(&mut view, node, &[]);
    }
    serve(&mut view, "web", ADDRESS, &[]);
    view
}

fn serve(view: &mut View, service: &str, ip: &str, pairs: &[(&str, &str)]) {
    let facts = Service {
        labels: labels(pairs),
        ..load_balancer(&[ip], TrafficPolicy::Cluster)
    };
    with_service(view, service, facts, &[endpoint("node-b", true, true)]);
}

#[test]
fn without_an_advertisement_nobody_announces() {
    let mut view = advertised(vec![]);
    for node in NODES {
        let reason = reason(&view, node, "web");
        assert_eq!(reason.word(), "noMatchingAdvertisement");
        assert!(reason.to_string().contains("L2Advertisement"), "{reason}");
    }
    view.set_config(resources(vec![advertisement("all")]));
    assert_eq!(announcing(&view, "web"), ["node-a"]);
    let announcement = may(&view, "node-a", "web");
    assert_eq!(announcement.origin, Origin::Resource);
    assert_eq!(announcement.reach, Reach::Everywhere);
}

#[test]
fn the_announcer_follows_the_node_selector() {
    for node in NODES {
        let view = advertised(vec![on("one", &[node])]);
        assert_eq!(announcing(&view, "web"), [node]);
        for other in NODES.iter().filter(|other| **other != node) {
            let reason = reason(&view, other, "web");
            assert_eq!(reason.word(), "noMatchingAdvertisement");
            assert!(reason.to_string().contains(node), "{reason}");
        }
    }
}

#[test]
fn several_advertisements_select_the_nodes_of_all_of_them() {
    let view = advertised(vec![on("one", &["node-b"]), on("two", &["node-c"])]);
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    let view = advertised(vec![
        on("one", &["node-b", "node-c"]),
        on("two", &["node-a"]),
    ]);
    assert_eq!(announcing(&view, "web"), ["node-a"]);
}

#[test]
fn labelling_a_node_adds_it() {
    let mut view = advertised(vec![AdvertisementWords {
        node_selectors: vec![selector("rack", "1")],
        ..advertisement("rack")
    }]);
    assert!(announcing(&view, "web").is_empty());
    assert_eq!(label(&mut view, "node-b", &[("rack", "1")]), Touched::All);
    assert_eq!(announcing(&view, "web"), ["node-b"]);
    // What no advertisement asks for is no news.
    let touched = label(&mut view, "node-b", &[("rack", "1"), ("disk", "ssd")]);
    assert!(touched.is_empty());
    assert_eq!(label(&mut view, "node-b", &[]), Touched::All);
    assert!(announcing(&view, "web").is_empty());
}

#[test]
fn an_advertisement_speaks_of_the_services_it_selects() {
    let mut view = advertised(vec![AdvertisementWords {
        pools: vec!["pool".to_owned()],
        service_selectors: vec![selector("app", "web"), selector("app", "api")],
        ..advertisement("some")
    }]);
    assert_eq!(
        reason(&view, "node-a", "web").word(),
        "noMatchingAdvertisement"
    );
    // Any selector will do.
    for app in ["web", "api"] {
        serve(&mut view, "web", ADDRESS, &[("app", app), ("x", "y")]);
        assert_eq!(announcing(&view, "web"), ["node-a"], "{app}");
    }
    serve(&mut view, "web", ADDRESS, &[("app", "db")]);
    assert!(announcing(&view, "web").is_empty());
    // One of another pool does not count.
    let mut config = advertisement("other");
    config.pools = vec!["other".to_owned()];
    view.set_config(resources(vec![config]));
    assert!(announcing(&view, "web").is_empty());
}

#[test]
fn of_two_advertisements_for_a_service_one_node_announces() {
    let both = |node: &str| AdvertisementWords {
        service_selectors: vec![selector("app", "web")],
        ..on(node, &[node])
    };
    let mut view = advertised(vec![both("node-b"), both("node-c")]);
    serve(&mut view, "web", ADDRESS, &[("app", "web")]);
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    // Only the one for another Service selects node-a.
    let mut other = on("node-a", &["node-a"]);
    other.service_selectors = vec![selector("app", "db")];
    view.set_config(resources(vec![other, both("node-b")]));
    assert_eq!(announcing(&view, "web"), ["node-b"]);
}

#[test]
fn services_that_share_an_address_have_one_owner_though_their_advertisements_differ() {
    let only = |app: &str, nodes: &[&str]| AdvertisementWords {
        service_selectors: vec![selector("app", app)],
        ..on(app, nodes)
    };
    let mut view = advertised(vec![
        only("web", &["node-a", "node-b"]),
        only("dns", &["node-b", "node-c"]),
    ]);
    serve(&mut view, "web", ADDRESS, &[("app", "web")]);
    assert_eq!(announcing(&view, "web"), ["node-a"]);
    serve(&mut view, "dns", ADDRESS, &[("app", "dns")]);
    // The one that may announce both, though it is the last in the order.
    assert_eq!(announcing(&view, "web"), ["node-b"]);
    assert_eq!(announcing(&view, "dns"), ["node-b"]);
    // Without such a node one of them is announced, by one node.
    label(&mut view, "node-b", &[(EXCLUDE, "")]);
    assert_eq!(order_of(&view, ADDRESS).0, ["node-a", "node-c"]);
    assert_eq!(announcing(&view, "web"), ["node-a"]);
    assert!(announcing(&view, "dns").is_empty());
}

#[test]
fn an_address_is_answered_on_the_interfaces_of_the_advertisements_for_the_node() {
    let through = |name: &str, interfaces: &[&str], nodes: &[&str]| AdvertisementWords {
        interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
        ..on(name, nodes)
    };
    let mut view = advertised(vec![through("one", &["eth1"], &["node-a"])]);
    view.set_interfaces(["eth0", "eth1", "eth2"].map(str::to_owned).into());
    let reach = |view: &View| {
        let announcement = may(view, "node-a", "web");
        let names = announcement.reach.names().cloned();
        names.map(|names| names.into_iter().collect::<Vec<_>>())
    };
    let some = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(reach(&view), some(&["eth1"]));
    // Modified; two advertisements; one of which is for another node; one without a list.
    for (advertisements, expected) in [
        (vec![through("one", &["eth2"], &[])], some(&["eth2"])),
        (
            vec![
                through("one", &["eth2"], &[]),
                through("two", &["eth0"], &[]),
            ],
            some(&["eth0", "eth2"]),
        ),
        (
            vec![
                through("one", &["eth2", "foo"], &[]),
                through("two", &["eth0"], &["node-b"]),
            ],
            some(&["eth2"]),
        ),
        (
            vec![through("one", &["eth2"], &[]), advertisement("two")],
            None,
        ),
    ] {
        view.set_config(resources(advertisements));
        assert_eq!(reach(&view), expected);
    }
}

#[test]
fn without_the_named_interfaces_a_node_leaves_itself_out_until_one_appears() {
    let mut named = advertisement("one");
    named.interfaces = vec!["foo".to_owned(), "bar".to_owned()];
    let mut view = advertised(vec![named]);
    let had = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let address = ADDRESS.parse().unwrap();
    view.set_interfaces(had(&["eth0"]));
    let why = reason(&view, "node-a", "web");
    let Reason::NoInterface { addresses, named } = &why else {
        panic!("{why}");
    };
    assert_eq!(addresses, &[address]);
    assert_eq!(named, &["bar", "foo"]);
    let alone = standing(&view, "node-a", address).unwrap();
    assert_eq!(alone.order, ["node-c", "node-b"]);
    assert_eq!((alone.willing, alone.reach), (2, None));
    // The others cannot know.
    assert_eq!(
        order_of(&view, ADDRESS),
        (NODES_IN_ORDER.map(str::to_owned).to_vec(), 3)
    );
    assert_eq!(view.set_interfaces(had(&["eth0", "foo"])), Touched::All);
    let back = standing(&view, "node-a", address).unwrap();
    assert_eq!(back.order, NODES_IN_ORDER);
    assert_eq!(back.reach, Some(Reach::Only(had(&["foo"]))));
    assert!(
        view.set_interfaces(had(&["eth0", "eth1", "foo"]))
            .is_empty()
    );
    assert_eq!(view.set_interfaces(had(&["eth0"])), Touched::All);
    assert_eq!(reason(&view, "node-a", "web"), why);
    // On the only node there is, nobody is left.
    view.delete_node("node-b");
    view.delete_node("node-c");
    assert_eq!(standing(&view, "node-a", address), None);
    // Where nobody asks for interfaces they are no news.
    view.set_config(resources(vec![advertisement("all")]));
    assert!(view.set_interfaces(had(&[])).is_empty());
}

#[test]
fn an_address_is_answered_for_wherever_one_of_its_services_may_be() {
    let through = |app: &str, interface: &str, nodes: &[&str]| AdvertisementWords {
        interfaces: vec![interface.to_owned()],
        service_selectors: vec![selector("app", app)],
        ..on(app, nodes)
    };
    let mut view = advertised(vec![
        through("web", "eth0", &["node-a", "node-b"]),
        through("dns", "eth1", &["node-a", "node-c"]),
    ]);
    serve(&mut view, "web", ADDRESS, &[("app", "web")]);
    serve(&mut view, "dns", ADDRESS, &[("app", "dns")]);
    let reach = |view: &View, node: &str| {
        let reach = standing(view, node, ADDRESS.parse().unwrap())
            .unwrap()
            .reach?;
        Some(reach.names().unwrap().iter().cloned().collect::<Vec<_>>())
    };
    view.set_interfaces(["eth0", "eth1"].map(str::to_owned).into());
    assert_eq!(reach(&view, "node-a").unwrap(), ["eth0", "eth1"]);
    assert_eq!(reach(&view, "node-b").unwrap(), ["eth0"]);
    assert_eq!(reach(&view, "node-c").unwrap(), ["eth1"]);
    // With one of the two it is for one Service only, and keeps its place, which the others give it too.
    view.set_interfaces(["eth1".to_owned()].into());
    assert_eq!(reach(&view, "node-a").unwrap(), ["eth1"]);
    assert_eq!(reason(&view, "node-a", "web").word(), "noInterface");
    assert_eq!(reach(&view, "node-b"), None);
    let mine = standing(&view, "node-a", ADDRESS.parse().unwrap()).unwrap();
    assert_eq!(mine.order, order_of(&view, ADDRESS).0);
    assert_eq!(mine.order[0], "node-a");
}

#[test]
fn a_node_without_network_is_left_out_and_comes_back() {
    let mut view = advertised(vec![advertisement("all")]);
    assert_eq!(announcing(&view, "web"), ["node-a"]);
    let unplugged = Node {
        network_unavailable: true,
        ..labelled("node-a", 1, &[])
    };
    assert_eq!(
        view.apply_node("node-a".to_owned(), unplugged),
        Touched::All
    );
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    assert_eq!(label(&mut view, "node-a", &[]), Touched::All);
    assert_eq!(announcing(&view, "web"), ["node-a"]);
}

#[test]
fn an_excluded_node_is_left_out_and_comes_back() {
    let mut view = advertised(vec![advertisement("all")]);
    assert_eq!(
        label(&mut view, "node-a", &[(EXCLUDE, "false")]),
        Touched::All
    );
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    let why = reason(&view, "node-a", "web");
    assert_eq!(why.word(), "notOwner");
    assert!(why.to_string().contains(EXCLUDE), "{why}");
    assert_eq!(label(&mut view, "node-a", &[]), Touched::All);
    assert_eq!(announcing(&view, "web"), ["node-a"]);
}

#[test]
fn the_exclude_label_is_ignored_where_the_operator_says_so_and_for_pools_of_the_configmap() {
    let ignoring = filled(ignoring_exclusion());
    let mut view = with_web(ignoring, vec![advertisement("all")]);
    label(&mut view, "node-a", &[(EXCLUDE, "")]);
    assert_eq!(announcing(&view, "web"), ["node-a"]);

    let mut view = advertised(vec![advertisement("all")]);
    label(&mut view, "node-a", &[(EXCLUDE, "")]);
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    view.set_config(config("192.168.1.240/28", "layer2"));
    assert_eq!(announcing(&view, "web"), ["node-a"]);
    assert_eq!(may(&view, "node-a", "web").origin, Origin::ConfigMap);
}

#[test]
fn the_exclude_label_keeps_nobody_out_where_every_node_has_it() {
    let mut view = advertised(vec![advertisement("all")]);
    for node in ["node-a", "node-b"] {
        label(&mut view, node, &[(EXCLUDE, "")]);
    }
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    assert_eq!(view.exclusion_void(), None);
    assert_eq!(label(&mut view, "node-c", &[(EXCLUDE, "")]), Touched::All);
    assert_eq!(announcing(&view, "web"), ["node-a"]);
    assert_eq!(view.exclusion_void(), Some("node-a"));
    label(&mut view, "node-b", &[]);
    assert_eq!(announcing(&view, "web"), ["node-b"]);
    // The last one without it goes.
    assert_eq!(view.delete_node("node-b"), Touched::All);
    assert_eq!(announcing(&view, "web"), ["node-a"]);
    // Said by the operator, it is nothing to be told.
    let view = filled(ignoring_exclusion());
    assert_eq!(view.exclusion_void(), None);
}

fn ignoring_exclusion() -> View {
    View::new(Settings {
        ignore_exclusion: true,
        ..Settings::default()
    })
}

fn preferring(name: &str, weights: &[(i64, SelectorWords)]) -> AdvertisementWords {
    AdvertisementWords {
        preferred: weights.to_vec(),
        ..advertisement(name)
    }
}

#[test]
fn a_preferred_node_goes_first_and_losing_the_label_gives_back() {
    let mut view = advertised(vec![preferring("all", &[(10, selector("disk", "ssd"))])]);
    // Nobody is preferred: the order alone.
    assert_eq!(announcing(&view, "web"), ["node-a"]);
    let ssd = [("disk", "ssd")];
    assert_eq!(label(&mut view, "node-b", &ssd), Touched::All);
    assert_eq!(announcing(&view, "web"), ["node-b"]);
    assert_eq!(order_of(&view, ADDRESS).0, ["node-b", "node-a", "node-c"]);
    // Alike preferred: the order, a, c, b.
    label(&mut view, "node-c", &ssd);
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    assert_eq!(order_of(&view, ADDRESS).0, ["node-c", "node-b", "node-a"]);
    // Preferred, but not eligible.
    label(&mut view, "node-c", &[("disk", "ssd"), (EXCLUDE, "")]);
    assert_eq!(announcing(&view, "web"), ["node-b"]);
    label(&mut view, "node-b", &[]);
    label(&mut view, "node-c", &[]);
    assert_eq!(announcing(&view, "web"), ["node-a"]);
}

#[test]
fn weights_add_up_over_the_advertisements_of_a_service() {
    let (x, y) = (selector("x", "1"), selector("y", "1"));
    let mut view = advertised(vec![
        preferring("one", &[(60, x.clone()), (70, y.clone())]),
        preferring("two", &[(50, x)]),
    ]);
    label(&mut view, "node-b", &[("x", "1")]);
    label(&mut view, "node-c", &[("y", "1")]);
    // 110 against 70.
    assert_eq!(announcing(&view, "web"), ["node-b"]);
    label(&mut view, "node-c", &[("x", "1"), ("y", "1")]);
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    // Changed while announced.
    view.set_config(resources(vec![preferring("one", &[(1, host("node-a"))])]));
    assert_eq!(announcing(&view, "web"), ["node-a"]);
}

#[test]
fn preferences_count_among_selected_nodes_and_for_selected_services_only() {
    // The preferred node is not selected: the eligible ones win.
    let mut view = advertised(vec![AdvertisementWords {
        node_selectors: vec![host("node-b"), host("node-c")],
        ..preferring("one", &[(100, host("node-a"))])
    }]);
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    // Nor does an advertisement prefer nodes that only another one selects.
    view.set_config(resources(vec![
        AdvertisementWords {
            node_selectors: vec![host("node-c")],
            ..preferring("one", &[(100, host("node-b"))])
        },
        on("two", &["node-b"]),
    ]));
    assert_eq!(announcing(&view, "web"), ["node-c"]);
    let db = AdvertisementWords {
        service_selectors: vec![selector("app", "db")],
        ..preferring("db", &[(100, host("node-b"))])
    };
    view.set_config(resources(vec![db, advertisement("all")]));
    assert_eq!(announcing(&view, "web"), ["node-a"]);
    serve(&mut view, "web", ADDRESS, &[("app", "db")]);
    assert_eq!(announcing(&view, "web"), ["node-b"]);
}

#[test]
fn a_local_service_goes_to_selected_nodes_with_endpoints() {
    let mut view = advertised(vec![on("one", &["node-a", "node-b"])]);
    let local = load_balancer(&[ADDRESS], TrafficPolicy::Local);
    let ends = |nodes: &[&str]| -> Vec<Endpoint> {
        nodes
            .iter()
            .map(|node| endpoint(node, true, true))
            .collect()
    };
    with_service(
        &mut view,
        "web",
        local.clone(),
        &ends(&["node-b", "node-c"]),
    );
    assert_eq!(announcing(&view, "web"), ["node-b"]);
    with_service(&mut view, "web", local, &ends(&["node-c"]));
    assert!(announcing(&view, "web").is_empty());
}

#[test]
fn a_pool_that_is_a_resource_may_go_while_it_is_used() {
    let view = advertised(vec![advertisement("all")]);
    let without = check(Words::default()).unwrap();
    assert_eq!(view.left_out_by(&without), None);
}
