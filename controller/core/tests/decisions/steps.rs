//! What can happen to a cluster, at random.

use std::sync::LazyLock;

use ferrolb_config::{AllocationWords, Config, ObjectName, PoolWords, Word, read};
use ferrolb_controller_core::{FamilyPolicy, Request};
use proptest::prelude::*;

use crate::world::*;

/// Configurations to change between; many are refused while addresses are in use, which is part of the test.
pub static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    let documents = [
        "",
        "address-pools:
- {name: a, protocol: layer2, addresses: [10.0.0.0/30, 'fc00::/127']}
- {name: b, protocol: layer2, auto-assign: no, avoid-buggy-ips: yes, addresses: ['fc00:1::/127', 10.0.0.254-10.0.1.2]}",
        "address-pools:
- {name: b, protocol: layer2, addresses: ['fc00::/127', 'fc00:1::/126', 10.0.0.254-10.0.1.2]}
- {name: a, protocol: layer2, addresses: [10.0.0.2/31, 10.0.0.0/31]}",
        "address-pools:
- {name: all, protocol: layer2, avoid-buggy-ips: yes, addresses: [10.0.0.0-10.0.1.2, 'fc00::/15']}",
        "address-pools:
- {name: a, protocol: bgp, addresses: [10.0.0.0/30, 'fc00::/127']}
- {name: b, protocol: layer2, addresses: [10.0.0.254-10.0.1.2, 'fc00:1::/127']}",
        "address-pools:
- {name: a, protocol: layer2, addresses: [10.0.0.0/24, 10.0.1.0/30, 'fc00::/64', 'fc00:1::/64']}",
    ];
    let documents = documents.map(|document| read(document).unwrap());
    let (low, high) = (
        ["fc00::/127", "10.0.0.0/30"],
        ["fc00:1::/127", "10.0.0.254-10.0.1.2"],
    );
    let namespaced = AllocationWords {
        priority: 2,
        namespaces: vec!["other".into()],
        ..AllocationWords::default()
    };
    let selected = AllocationWords {
        priority: 1,
        namespace_selectors: selectors(&[("k", "v")]),
        service_selectors: selectors(&[("app", "x"), ("app", "y")]),
        ..AllocationWords::default()
    };
    let custom = [
        vec![
            resource("a", &low),
            PoolWords {
                auto_assign: Word::Said(false),
                avoid_buggy_ips: Word::Said(true),
                ..resource("b", &high)
            },
        ],
        vec![
            pinned("a", &low, namespaced.clone()),
            pinned("b", &high, priority(1)),
            resource("all", &["10.0.0.128/30", "fc00:0:1::/127"]),
        ],
        vec![
            pinned("a", &low, selected.clone()),
            resource("b", &["10.0.1.0/31", "fc00:1::/127"]),
        ],
        vec![
            pinned("b", &high, priority(0)),
            pinned("a", &low, namespaced),
            pinned("all", &["10.0.0.128/31"], selected),
        ],
        vec![resource("all", &["10.0.0.0-10.0.1.2", "fc00::/15"])],
    ];
    let both = [
        merged(
            "address-pools: [{name: a, protocol: layer2, addresses: ['fc00::/127', 10.0.0.0/30]}]",
            vec![resource("b", &high)],
        ),
        merged(
            "address-pools: [{name: b, protocol: layer2, addresses: ['fc00:1::/127', 10.0.0.254-10.0.1.2]}]",
            vec![pinned("a", &low, priority(1))],
        ),
    ];
    documents
        .into_iter()
        .chain(custom.map(resources))
        .chain(both)
        .collect()
});

/// The namespaces: the first three of four Services live in the first one, every fourth in the other.
pub const NAMESPACES: [&str; 2] = ["default", "other"];

pub fn service(index: usize) -> ObjectName {
    ObjectName::new(NAMESPACES[usize::from(index % 4 == 3)], format!("s{index}"))
}

/// Addresses that are asked for and that nodes have.
pub const ADDRESSES: [&str; 8] = [
    "10.0.0.0",
    "10.0.0.1",
    "10.0.0.3",
    "10.0.0.254",
    "10.0.1.1",
    "fc00::",
    "fc00::1",
    "fc00:1::1",
];

/// Texts that somebody writes into a status by hand.
pub const TEXTS: [&str; 6] = [
    "10.0.0.0", "10.0.0.1", "10.0.0.2", "fc00::", "10.7.7.7", "x",
];

/// What happens to the cluster.
#[derive(Clone, Debug)]
pub enum Step {
    Apply(usize, Box<Request>),
    /// The write that is due succeeds; a watch tells so at once, or only before the next decision.
    Written(usize, bool),
    /// Somebody edits a status by hand.
    Edit(usize, Vec<usize>),
    /// Somebody edits the annotation that names the pool.
    Note(usize, Option<&'static str>),
    Delete(usize),
    /// A configuration is offered; if it is accepted all Services are decided, but for one that is being written.
    Configure(usize, usize),
    /// A Namespace gets a label, loses its labels, or is gone.
    Label(usize, Option<&'static str>, bool),
    Reserve(Vec<usize>),
    /// Strangers answer for these addresses, which are to be left or not.
    Dispute(Vec<(usize, bool)>),
    /// The controller starts again and sees the Services from this one on, in a circle; and no Namespaces, if so said.
    Restart(usize, bool),
}

fn request() -> impl Strategy<Value = Request> {
    let stack = prop_oneof![
        4 => Just(plain()),
        2 => Just(v6()),
        1 => Just(dual(FamilyPolicy::RequireDualStack)),
        2 => Just(dual(FamilyPolicy::PreferDualStack)),
        1 => Just(Request { cluster_ips: vec!["fd00::1".into(), "10.96.0.1".into()], ..dual(FamilyPolicy::PreferDualStack) }),
        1 => Just(Request { balancer: false, ..plain() }),
    ];
    let wishes = prop_oneof![
        4 => Just(Vec::new()),
        2 => (0..ADDRESSES.len()).prop_map(|one| vec![one]),
        1 => (0..5_usize, 5..ADDRESSES.len()).prop_map(|(v4, v6)| vec![v4, v6]),
    ];
    let pool = prop::option::weighted(0.2, prop::sample::select(vec!["a", "b", "all", "none"]));
    let sharing = prop::option::weighted(0.6, prop::sample::select(vec!["k", "l"]));
    let backend = prop::sample::select(vec!["", "", "", "app=x"]);
    let ports = prop::collection::btree_set(1..4_u16, 1..3);
    let app = prop::option::weighted(0.4, prop::sample::select(vec!["x", "y", "z"]));
    (stack, wishes, pool, sharing, backend, ports, app).prop_map(
        |(stack, wishes, pool, sharing, backend, ports, app)| Request {
            labels: labels(&app.map(|app| ("app", app)).into_iter().collect::<Vec<_>>()),
            desired: Ok(wishes
                .into_iter()
                .map(|index| ip(ADDRESSES[index]))
                .collect()),
            pool: pool.map(String::from),
            sharing: sharing.map(String::from),
            backend: backend.into(),
            ports: tcp(&ports.into_iter().collect::<Vec<_>>()),
            ..stack
        },
    )
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..8_usize, request()).prop_map(|(service, request)| Step::Apply(service, request.into())),
        12 => (0..8_usize, any::<bool>()).prop_map(|(service, told)| Step::Written(service, told)),
        1 => (0..8_usize, prop::collection::vec(0..TEXTS.len(), 0..3))
            .prop_map(|(service, texts)| Step::Edit(service, texts)),
        4 => (0..8_usize).prop_map(Step::Delete),
        1 => (0..8_usize, prop::option::of(prop::sample::select(vec!["a", "x"])))
            .prop_map(|(service, pool)| Step::Note(service, pool)),
        4 => (0..CONFIGS.len(), 0..16_usize).prop_map(|(config, writing)| Step::Configure(config, writing)),
        1 => (0..2_usize, prop::option::of(Just("v")), any::<bool>())
            .prop_map(|(namespace, label, known)| Step::Label(namespace, label, known)),
        1 => prop::collection::vec(0..ADDRESSES.len(), 0..3).prop_map(Step::Reserve),
        3 => prop::collection::vec((0..ADDRESSES.len(), any::<bool>()), 0..4).prop_map(Step::Dispute),
        1 => (0..8_usize, any::<bool>()).prop_map(|(first, hidden)| Step::Restart(first, hidden)),
    ]
}
