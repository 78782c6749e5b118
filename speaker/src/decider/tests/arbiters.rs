//! What the arbiters are told, and what follows from what they tell.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ferrolb_config::{AdvertisementWords, ObjectName};
use ferrolb_runtime::watch::Change;
use ferrolb_speaker_arbiter::{Candidates, Cause, NodeId, PeerFacts, Report};
use ferrolb_speaker_core::{Members, Reach, Reason};

use super::bench::{Bench, Heard, released, told, took};
use crate::arbitration::{Standing, Told};
use crate::sources::Input;

// By their order "me" comes before "other".
const FIRST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 3));
const SECOND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 4));

fn other() -> NodeId {
    NodeId::of("other")
}

fn web() -> ObjectName {
    ObjectName::new("default", "web")
}

/// That nodes in this order may answer for the first address was heard.
fn heard(order: &[&str], willing: usize, reach: Option<Reach>) -> Heard {
    let standing = Standing {
        candidates: Candidates {
            order: order.iter().map(|node| NodeId::of(node)).collect(),
            willing,
        },
        reach,
    };
    Heard::Standing(FIRST, Some(standing))
}

/// The moves among what was heard since the last time.
fn moves(bench: &mut Bench) -> Vec<(IpAddr, Option<NodeId>)> {
    let heard = bench.heard().into_iter();
    heard
        .filter_map(|heard| match heard {
            Heard::Move(address, to) => Some((address, to)),
            _ => None,
        })
        .collect()
}

/// Two nodes, a pool and the Service `default/web`, whose address this node holds.
fn holding() -> Bench {
    let mut bench = Bench::with_other();
    bench.configure("10.0.0.0/24");
    // From here on they tell what the test says, and nothing else.
    bench.arbiters_tell(vec![]);
    bench.serve("web", "10.0.0.3");
    bench.arbiters_tell(vec![told("eth0", took(FIRST, Cause::Unheld, None))]);
    bench
}

#[tokio::test]
async fn standings_have_the_order_the_willing_and_the_reach() {
    let mut bench = Bench::with_other();
    bench.interfaces(&["eth0", "eth1"]);
    bench.advertise_on(&["eth1", "eth9"]);
    bench.heard();
    bench.serve("web", "10.0.0.3");
    let eth1 = Some(Reach::Only(["eth1".to_owned()].into()));
    let metallbs = heard(&["me", "other"], 2, eth1.clone());
    assert_eq!(bench.heard(), [metallbs]);
    bench.node("me", "192.168.1.1", |me| me.node.ready = false);
    let last = heard(&["other", "me"], 1, eth1);
    assert_eq!(bench.heard()[1..], [last]);
    // This node has none of the interfaces.
    bench.advertise_on(&["eth9"]);
    let left_out = heard(&["other"], 1, None);
    assert_eq!(bench.heard(), [left_out]);
    bench.advertise(AdvertisementWords::default());
    let everywhere = heard(&["other", "me"], 1, Some(Reach::Everywhere));
    assert_eq!(bench.heard(), [everywhere]);
    bench.serve("web", "10.0.0.4");
    let heard = bench.heard();
    assert!(heard.contains(&Heard::Standing(FIRST, None)), "{heard:?}");
    assert!(matches!(heard[1], Heard::Standing(SECOND, Some(_))));
}

#[tokio::test]
async fn peers_are_told_before_standings_and_when_they_change() {
    let mut bench = Bench::new();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.3");
    bench.node("other", "192.168.1.2", |_| {});
    bench.node("me", "192.168.1.1", |_| {});
    bench.tell(Input::Speakers(None));
    bench.interfaces(&["eth0"]);
    bench.tell(Input::Members(Members::default()));
    for synced in [
        Input::Service(Change::Synced),
        Input::Endpoints(Change::Synced),
        Input::Node(Change::Synced),
    ] {
        assert_eq!(bench.heard(), [], "not all is known");
        bench.tell(synced);
    }
    let peer = |live| PeerFacts {
        node: other(),
        address: Some([192, 168, 1, 2].into()),
        gossip: Some(live),
        legacy: false,
    };
    let heard = bench.heard();
    assert_eq!(heard[0], Heard::Peers(vec![peer(true)]));
    assert!(matches!(heard[1..], [Heard::Standing(FIRST, Some(_))]));

    let members = |gone: &[&str]| {
        let gone = gone.iter().map(|node| (*node).to_owned());
        Input::Members(Members {
            gone: gone.collect(),
            ..Members::default()
        })
    };
    bench.tell(members(&[]));
    bench.node("other", "192.168.1.2", |_| {});
    assert_eq!(bench.heard(), []);
    bench.tell(members(&["other"]));
    assert_eq!(bench.heard(), [Heard::Peers(vec![peer(false)])]);
    bench.tell(Input::Node(Change::Deleted(ObjectName::new("", "other"))));
    let heard = bench.heard();
    assert_eq!(heard[0], Heard::Peers(vec![]));
    assert!(matches!(heard[1..], [Heard::Standing(FIRST, Some(_))]));
}

#[tokio::test]
async fn a_wish_on_a_service_moves_its_addresses_once() {
    let mut bench = Bench::with_other();
    bench.configure("10.0.0.0/24");
    let both = ["10.0.0.3", "10.0.0.4"];
    bench.serve_all("web", &both);
    assert_eq!(moves(&mut bench), []);
    for (wish, expected) in [
        (Some("other"), Some(Some(other()))),
        (Some("other"), None),
        (Some("2026-01-01"), Some(None)),
        (Some("nobody"), Some(None)),
        // Where it is already, or is not held: nothing to do from here.
        (Some("me"), None),
        (None, None),
        (Some("other"), Some(Some(other()))),
    ] {
        bench.serve_wishing("web", &both, wish);
        let each = expected.map(|to| [(FIRST, to), (SECOND, to)]);
        let expected: Vec<_> = each.into_iter().flatten().collect();
        assert_eq!(moves(&mut bench), expected, "{wish:?}");
    }
    // A Service of the same name that comes later has a wish of its own.
    bench.tell(Input::Service(Change::Deleted(web())));
    bench.serve_wishing("web", &["10.0.0.3"], Some("other"));
    assert_eq!(moves(&mut bench), [(FIRST, Some(other()))]);
}

#[tokio::test]
async fn wishes_from_before_the_start_are_past() {
    let mut bench = Bench::new();
    bench.configure("10.0.0.0/24");
    bench.serve_wishing("web", &["10.0.0.3"], Some("other"));
    bench.node("other", "192.168.1.2", |_| {});
    bench.node("me", "192.168.1.1", |me| me.wish = Some("now".to_owned()));
    bench.tell(Input::Speakers(None));
    bench.interfaces(&["eth0"]);
    bench.tell(Input::Members(Members::default()));
    bench.tell(Input::Service(Change::Synced));
    bench.tell(Input::Endpoints(Change::Synced));
    bench.tell(Input::Node(Change::Synced));
    assert!(
        bench
            .heard()
            .iter()
            .all(|heard| !matches!(heard, Heard::Move(..)))
    );
    bench.serve_wishing("web", &["10.0.0.3"], Some("other"));
    bench.node("me", "192.168.1.1", |me| me.wish = Some("now".to_owned()));
    assert_eq!(moves(&mut bench), []);
    bench.serve_wishing("web", &["10.0.0.3"], Some("again"));
    bench.node("me", "192.168.1.1", |me| me.wish = Some("again".to_owned()));
    assert_eq!(moves(&mut bench), [(FIRST, None), (FIRST, None)]);
}

#[tokio::test]
async fn a_wish_on_this_node_moves_everything_from_it_once() {
    let mut bench = Bench::with_other();
    bench.configure("10.0.0.0/24");
    bench.serve_all("web", &["10.0.0.3", "10.0.0.4"]);
    bench.heard();
    let wish = |bench: &mut Bench, node: &str, wish: Option<&str>| {
        let address = if node == "me" {
            "192.168.1.1"
        } else {
            "192.168.1.2"
        };
        bench.node(node, address, |facts| facts.wish = wish.map(str::to_owned));
        let mut moves = moves(bench);
        moves.sort();
        moves
    };
    let everything = [(FIRST, None), (SECOND, None)];
    assert_eq!(wish(&mut bench, "me", Some("1")), everything);
    assert_eq!(wish(&mut bench, "me", Some("1")), []);
    assert_eq!(wish(&mut bench, "other", Some("1")), []);
    assert_eq!(wish(&mut bench, "me", None), []);
    assert_eq!(wish(&mut bench, "me", Some("1")), everything);
    assert_eq!(wish(&mut bench, "me", Some("2")), everything);
}

#[tokio::test]
async fn a_cordoned_node_leaves_what_it_holds_to_others() {
    let mut bench = Bench::with_other();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.3");
    let cordon = |bench: &mut Bench, node: &str, address: &str, cordoned| {
        bench.node(node, address, |facts| facts.node.unschedulable = cordoned);
    };
    cordon(&mut bench, "other", "192.168.1.2", true);
    assert_eq!(bench.held(), ["10.0.0.3"]);
    bench.heard();
    cordon(&mut bench, "me", "192.168.1.1", true);
    let nobody_willing = heard(&["me", "other"], 0, Some(Reach::Everywhere));
    assert_eq!(bench.heard(), [nobody_willing]);
    cordon(&mut bench, "other", "192.168.1.2", false);
    let to_the_other = heard(&["other", "me"], 1, Some(Reach::Everywhere));
    assert_eq!(bench.heard(), [to_the_other]);
    assert!(bench.held().is_empty());
    assert_eq!(bench.silent("notOwner"), 1);
}

#[tokio::test]
async fn a_service_whose_address_moved_away_is_silent_and_says_who_has_it() {
    let mut bench = holding();
    assert_eq!(bench.announced("default/web", "10.0.0.3"), 1);
    assert_eq!((bench.shown(), bench.silent("notOwner")), (Some(vec![]), 0));
    let away = released(FIRST, Cause::Moved, Some(other()));
    bench.arbiters_tell(vec![told("eth0", away)]);
    assert!(bench.held().is_empty());
    assert_eq!((bench.shown(), bench.silent("notOwner")), (None, 1));
    let elsewhere = |holder: Option<&str>| Reason::HeldElsewhere {
        address: FIRST,
        holder: holder.map(str::to_owned),
    };
    let reason = bench.decider.actor.waits(&web());
    assert_eq!(reason, Some(elsewhere(Some("other"))));
    // It comes back, and then goes nobody knows where.
    bench.arbiters_tell(vec![told(
        "eth0",
        took(FIRST, Cause::HolderDown, Some(other())),
    )]);
    assert_eq!(bench.decider.actor.waits(&web()), None);
    assert_eq!(
        (bench.held(), bench.silent("notOwner")),
        (vec!["10.0.0.3".to_owned()], 0)
    );
    bench.arbiters_tell(vec![told("eth0", released(FIRST, Cause::LinkDown, None))]);
    assert_eq!(bench.decider.actor.waits(&web()), Some(elsewhere(None)));
    assert_eq!(bench.silent("notOwner"), 1);
    let assigned = ["Normal", "nodeAssigned", "web"].map(str::to_owned);
    assert_eq!(bench.events().await, [assigned.clone(), assigned]);
}

/// Input: an address held on two interfaces, of which one goes.
/// Output: it is announced until the second goes.
#[tokio::test]
async fn an_address_is_announced_while_any_interface_has_it() {
    let mut bench = holding();
    bench.arbiters_tell(vec![told("eth1", took(FIRST, Cause::Unheld, None))]);
    bench.arbiters_tell(vec![told("eth0", released(FIRST, Cause::LinkDown, None))]);
    assert_eq!(bench.held(), ["10.0.0.3"]);
    bench.arbiters_tell(vec![told("eth1", released(FIRST, Cause::LinkDown, None))]);
    assert!(bench.held().is_empty());
    assert_eq!(bench.events().await.len(), 1);
}

#[tokio::test]
async fn what_arbiters_tell_is_counted() {
    let mut bench = holding();
    let line = |bench: &Bench, series: &str| {
        let lines = bench.scraped();
        let found = lines.iter().find_map(|line| line.strip_prefix(series));
        found.map(|value| value.trim().to_owned())
    };
    let held = |bench: &Bench| line(bench, "ferrolb_layer2_held_addresses{interface=\"eth0\"}");
    let changes = |bench: &Bench, change: &str, cause: &str| {
        let labels = format!("{{cause=\"{cause}\",change=\"{change}\"}}");
        line(
            bench,
            &format!("ferrolb_layer2_owner_changes_total{labels}"),
        )
    };
    let seen = |value: &str| Some(value.to_owned());
    assert_eq!(held(&bench), seen("1"));
    assert_eq!(changes(&bench, "taken", "unheld"), seen("1"));
    bench.arbiters_tell(vec![told(
        "eth0",
        released(FIRST, Cause::Moved, Some(other())),
    )]);
    assert_eq!(held(&bench), seen("0"));
    assert_eq!(changes(&bench, "released", "moved"), seen("1"));

    let at = Instant::now();
    let down = Report::Down {
        node: other(),
        silent: Duration::from_millis(250),
        kernel: false,
    };
    let reports = [
        (Duration::ZERO, down),
        (
            Duration::from_millis(125),
            took(FIRST, Cause::HolderDown, Some(other())),
        ),
        // Nobody was lost that held this one.
        (Duration::from_secs(1), took(SECOND, Cause::Unheld, None)),
        (
            Duration::from_secs(2),
            Report::StoodStill(Duration::from_secs(1)),
        ),
        (Duration::from_secs(2), Report::Refuted(other())),
    ];
    let told = reports.map(|(after, report)| Told {
        interface: "eth0".to_owned(),
        at: at + after,
        report,
    });
    bench.arbiters_tell(told.to_vec());
    for (series, value) in [
        ("ferrolb_failover_nodes_lost_total{kernel=\"silent\"}", "1"),
        ("ferrolb_failover_detection_seconds_sum", "0.25"),
        ("ferrolb_failover_detection_seconds_count", "1"),
        ("ferrolb_failover_takeover_seconds_sum", "0.375"),
        ("ferrolb_failover_takeover_seconds_count", "1"),
        ("ferrolb_failover_stalls_total", "1"),
        ("ferrolb_failover_suspicions_refuted_total", "1"),
    ] {
        assert_eq!(line(&bench, series), seen(value), "{series}");
    }
    assert_eq!(changes(&bench, "taken", "holderDown"), seen("1"));
    assert_eq!(held(&bench), seen("2"));

    // Who is up again was not lost when the next address is taken.
    let back = vec![
        self::told("eth0", Report::Up(other())),
        self::told("eth0", released(FIRST, Cause::Moved, Some(other()))),
        self::told("eth0", took(FIRST, Cause::HolderDown, Some(other()))),
    ];
    bench.arbiters_tell(back);
    let count = line(&bench, "ferrolb_failover_takeover_seconds_count");
    assert_eq!(count, seen("1"));
}

#[tokio::test]
async fn who_disputes_an_address_is_told_on_its_services() {
    let mut bench = holding();
    bench.serve("more", "10.0.0.4");
    let address = FIRST;
    let mac = [2, 0, 0, 0, 0, 0x99];
    bench.arbiters_tell(vec![
        told("eth0", Report::Stranger { address, mac }),
        told("eth0", Report::StrangerGone { address }),
        told(
            "eth0",
            Report::StrictArp {
                node: other(),
                address,
            },
        ),
    ]);
    let conflicts = |kind: &str| {
        bench
            .metrics
            .failover
            .conflicts
            .with_label_values(&[kind])
            .get()
    };
    assert_eq!((conflicts("stranger"), conflicts("strictARP")), (1, 1));
    let written = bench.whole_events().await;
    let told: Vec<_> = written
        .iter()
        .map(|event| {
            let field = |name: &str| event[name].as_str().unwrap().to_owned();
            let of = event["involvedObject"]["name"].as_str().unwrap().to_owned();
            (field("type"), field("reason"), of, field("message"))
        })
        .collect();
    let expected = [
        ("Normal", "nodeAssigned", "announcing from node \"me\""),
        (
            "Warning",
            "addressConflict",
            "02:00:00:00:00:99, as heard on eth0 of node \"me\"",
        ),
        (
            "Normal",
            "addressConflictEnded",
            "10.0.0.3 is no longer answered for",
        ),
        (
            "Warning",
            "strictARPMissing",
            "the kernel of node \"other\" answers for 10.0.0.3",
        ),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((kind, reason, of, message), expected) in told.iter().zip(expected) {
        assert_eq!(
            (kind.as_str(), reason.as_str(), of.as_str()),
            (expected.0, expected.1, "web")
        );
        assert!(message.contains(expected.2), "{message}");
    }
}

/// Input: a Service whose interfaces this node lacks, where this node comes first and where another does.
/// Output: an event in the first case alone, and the count of silent Services in both.
#[tokio::test]
async fn a_missing_interface_is_told_by_who_would_come_first() {
    let mut bench = Bench::with_other();
    bench.advertise_on(&["eth9"]);
    bench.serve("theirs", "10.0.0.1");
    bench.serve("mine", "10.0.0.3");
    assert_eq!(bench.silent("noInterface"), 2);
    let events = bench.events().await;
    assert_eq!(events, [["Warning", "announceFailed", "mine"]]);
}
