//! What a speaker's decisions cost in a very large cluster: `make bench-core`. Ignored otherwise, for it only tells.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and this one is run to be read"
)]

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ferrolb_config::{ObjectName, read};
use ferrolb_speaker_core::{
    Endpoint, Endpoints, IngressIp, Kind, Node, Service, Settings, SpeakerPod, Touched, Verdict,
    View, decide, ranking,
};

const SERVICES: usize = 10_000;

fn name(number: usize) -> ObjectName {
    ObjectName::new("default", format!("web-{number:05}"))
}

fn address(number: usize) -> IpAddr {
    let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
    [10, 0, high, low].into()
}

fn node(number: usize, ready: bool) -> Node {
    let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
    Node {
        ready,
        addresses: [[192, 168, high, low].into()].into(),
        ..Node::default()
    }
}

fn node_name(number: usize) -> String {
    format!("node-{number:04}")
}

fn service(number: usize) -> Service {
    Service {
        load_balancer: true,
        ingress: vec![IngressIp::from(address(number).to_string().as_str())],
        ..Service::default()
    }
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4
}

fn tell(what: &str, count: usize, time: Duration) {
    let each = time.as_secs_f64() * 1e6 / f64::from(u32::try_from(count).unwrap());
    println!("{what}: {count} in {time:.1?}, {each:.1} µs each");
}

/// Decides about Services and the order for their addresses, as the daemon does; how many may be announced.
fn settle(view: &View, me: &str, touched: &Touched) -> usize {
    let all;
    let names: Vec<&ObjectName> = match touched {
        Touched::Some(names) => names.iter().collect(),
        Touched::All => {
            all = view.services().cloned().collect::<Vec<_>>();
            all.iter().collect()
        }
    };
    let mut may = 0;
    for name in names {
        if let Verdict::May(announcement) = decide(view, me, name) {
            may += 1;
            for address in announcement.addresses {
                assert!(ranking(view, me, address).is_some());
            }
        }
    }
    may
}

/// Input: 10 000 Services in clusters of 3, 100 and 1 000 nodes, from the first list on; then one Service that changes, and
/// one Node.
/// Output: what each took, for people; that all may be announced.
#[test]
#[ignore = "tells how long things take"]
fn ten_thousand_services() {
    for nodes in [3, 100, 1000] {
        println!("{nodes} nodes");
        let before = resident();
        let begun = Instant::now();
        let mut view = View::new(Settings::default());
        for number in 0..nodes {
            view.apply_node(node_name(number), node(number, true));
        }
        let pods = (0..nodes).map(|number| SpeakerPod {
            node: node_name(number),
            ready: true,
            address: None,
        });
        view.set_speakers(Some(pods.collect()));
        for number in 0..SERVICES {
            view.apply_service(name(number), service(number));
            let endpoint = Endpoint {
                node: Some(node_name(number % nodes)),
                ready: true,
                serving: true,
            };
            let endpoints: Endpoints = [endpoint].into_iter().collect();
            view.apply_endpoints(name(number), name(number), endpoints);
        }
        let document = "address-pools: [{name: p, protocol: layer2, addresses: [10.0.0.0/16]}]";
        view.set_config(read(document).unwrap());
        for kind in Kind::ALL {
            view.set_listed(kind);
        }
        tell("listed", SERVICES, begun.elapsed());
        println!("memory: {} KiB", resident() - before);
        let me = node_name(0);
        let begun = Instant::now();
        assert_eq!(settle(&view, &me, &Touched::All), SERVICES);
        tell("decided", SERVICES, begun.elapsed());
        let begun = Instant::now();
        for number in 0..1000 {
            let mut changed = service(number);
            changed.labels = [("a".to_owned(), "b".to_owned())].into();
            let touched = view.apply_service(name(number), changed);
            assert_eq!(settle(&view, &me, &touched), 1);
        }
        tell("one Service changed", 1000, begun.elapsed());
        let begun = Instant::now();
        let touched = view.apply_node(node_name(1), node(1, false));
        settle(&view, &me, &touched);
        println!("one Node not Ready: {:.1?}", begun.elapsed());
        let begun = Instant::now();
        for _ in 0..1000 {
            assert_eq!(view.peers().len(), nodes);
        }
        tell("who there is", 1000, begun.elapsed());
    }
}
