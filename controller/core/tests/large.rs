//! What the controller's decisions cost with very many Services: `make bench-core`. Ignored otherwise, for it only tells.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and this one is run to be read"
)]

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use ferrolb_config::{Labels, ObjectName, read};
use ferrolb_controller_core::{Core, FamilyPolicy, Port, Request, Transport};

const SERVICES: usize = 10_000;

fn name(number: usize) -> ObjectName {
    ObjectName::new("default", format!("web-{number:05}"))
}

fn request() -> Request {
    Request {
        balancer: true,
        labels: Labels::new(),
        current: Vec::new(),
        surplus: false,
        noted_pool: None,
        deprecated: BTreeSet::new(),
        cluster_ips: vec!["10.96.0.1".to_owned()],
        policy: FamilyPolicy::SingleStack,
        desired: Ok(Vec::new()),
        pool: None,
        sharing: None,
        backend: String::new(),
        ports: BTreeSet::from([Port {
            transport: Transport::Tcp,
            number: 80,
        }]),
    }
}

fn core(range: &str) -> Core {
    let mut core = Core::new();
    let document = format!("address-pools: [{{name: p, protocol: layer2, addresses: [{range}]}}]");
    core.configure(read(&document).unwrap()).unwrap();
    core
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4
}

fn tell(what: &str, count: usize, time: Duration) {
    let each = time.as_secs_f64() * 1e6 / f64::from(u32::try_from(count).unwrap());
    println!("{what}: {count} in {time:.1?}, {each:.2} µs each");
}

/// Input: 10 000 Services without an address, then one more of them at a time, a restart, and a pool with half as many
/// addresses as are wanted.
/// Output: what each took, for people; that all have got one.
#[test]
#[ignore = "tells how long things take"]
fn ten_thousand_services() {
    let before = resident();
    let mut requests: Vec<_> = (0..SERVICES)
        .map(|number| (name(number), request()))
        .collect();
    let mut allocator = core("10.0.0.0/16");
    allocator.all_seen();
    let asked = resident();
    let begun = Instant::now();
    for (name, request) in &mut requests {
        let plan = allocator.decide(name, Some(request));
        request.current = plan.ingress.unwrap().into_iter().map(Ok).collect();
    }
    tell("given", SERVICES, begun.elapsed());
    let begun = Instant::now();
    for (name, request) in &requests {
        assert_eq!(allocator.decide(name, Some(request)).ingress, None);
    }
    tell("written, decided again", SERVICES, begun.elapsed());
    println!(
        "memory: {} KiB of requests, {} KiB of decisions",
        asked - before,
        resident() - asked
    );
    let begun = Instant::now();
    for number in 0..1000 {
        let (name, request) = &requests[number * 7];
        assert_eq!(allocator.decide(name, None).ingress, None);
        let mut anew = request.clone();
        anew.current.clear();
        assert!(allocator.decide(name, Some(&anew)).ingress.is_some());
    }
    tell("deleted and made among 10 000", 1000, begun.elapsed());

    let mut restarted = core("10.0.0.0/16");
    let begun = Instant::now();
    for (name, request) in &requests {
        assert_eq!(restarted.decide(name, Some(request)).ingress, None);
    }
    restarted.all_seen();
    assert!(restarted.waiting().is_empty());
    tell("taken up after a restart", SERVICES, begun.elapsed());

    let mut short = core("10.0.0.1-10.0.19.136");
    short.all_seen();
    let begun = Instant::now();
    for (name, request) in &mut requests {
        request.current.clear();
        let plan = short.decide(name, Some(request));
        request.current = plan.ingress.into_iter().flatten().map(Ok).collect();
    }
    tell("given until the pool was empty", SERVICES, begun.elapsed());
    let waiting = short.waiting();
    println!("{} wait", waiting.len());
    let begun = Instant::now();
    let plan = short.decide(&requests[0].0, None);
    assert!(plan.revisit);
    for name in &waiting {
        let number: usize = name.name.trim_start_matches("web-").parse().unwrap();
        let _ = short.decide(name, Some(&requests[number].1));
    }
    assert_eq!(short.waiting().len(), waiting.len() - 1);
    tell(
        "one let go, all waiting decided",
        waiting.len(),
        begun.elapsed(),
    );
}
