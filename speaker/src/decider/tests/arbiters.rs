//! What the arbiters are told, and what follows from what they tell.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ferrolb_config::{AdvertisementWords, ObjectName};
use ferrolb_runtime::watch::Change;
use ferrolb_speaker_arbiter::{Candidates, Cause, NodeId, Obstacle, PeerFacts, Report, Wish};
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

/// The wishes among what was heard since the last time.
fn wishes(bench: &mut Bench) -> Vec<(IpAddr, Option<Wish>)> {
    let heard = bench.heard().into_iter();
    heard
        .filter_map(|heard| match heard {
            Heard::Wish(address, wish) => Some((address, wish)),
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
        believed: Some(live),
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
async fn a_wish_on_a_service_is_told_once_for_each_address() {
    let mut bench = Bench::with_other();
    bench.configure("10.0.0.0/24");
    let both = ["10.0.0.3", "10.0.0.4"];
    bench.serve_all("web", &both);
    assert_eq!(wishes(&mut bench), []);
    let me = NodeId::of("me");
    for (wish, expected) in [
        (Some("other"), Some(Some(Wish::To(other())))),
        (Some("other"), None),
        (Some("2026-01-01"), Some(Some(Wish::Away))),
        (Some("nobody"), Some(Some(Wish::Away))),
        (Some("me"), Some(Some(Wish::To(me)))),
        (None, Some(None)),
        (None, None),
        (Some("other"), Some(Some(Wish::To(other())))),
    ] {
        bench.serve_wishing("web", &both, wish);
        let each = expected.map(|wish| [(FIRST, wish), (SECOND, wish)]);
        let expected: Vec<_> = each.into_iter().flatten().collect();
        assert_eq!(wishes(&mut bench), expected, "{wish:?}");
    }
    // It goes with its Service, and one of the same name that comes later has a wish of its own.
    bench.tell(Input::Service(Change::Deleted(web())));
    assert_eq!(wishes(&mut bench), [(FIRST, None), (SECOND, None)]);
    bench.serve_wishing("web", &["10.0.0.3"], Some("other"));
    assert_eq!(wishes(&mut bench), [(FIRST, Some(Wish::To(other())))]);
}

#[tokio::test]
async fn the_node_an_address_is_wanted_at_comes_first_while_the_wish_stands() {
    let mut bench = Bench::with_other();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.3");
    let orders = |bench: &mut Bench, wish| {
        bench.heard();
        bench.serve_wishing("web", &["10.0.0.3"], wish);
        let heard = bench.heard().into_iter();
        let mut orders = heard.filter(|heard| matches!(heard, Heard::Standing(..)));
        orders.next()
    };
    let everywhere = Some(Reach::Everywhere);
    let to_the_other = Some(heard(&["other", "me"], 2, everywhere.clone()));
    assert_eq!(orders(&mut bench, Some("other")), to_the_other);
    assert_eq!(bench.held(), [""; 0]);
    let as_before = Some(heard(&["me", "other"], 2, everywhere));
    assert_eq!(orders(&mut bench, Some("now")), as_before);
    assert_eq!(orders(&mut bench, None), None);
}

#[tokio::test]
async fn wishes_from_before_the_start_are_past_but_for_the_order() {
    let mut bench = Bench::new();
    bench.configure("10.0.0.0/24");
    bench.serve_wishing("web", &["10.0.0.3"], Some("other"));
    bench.node("other", "192.168.1.2", |_| {});
    bench.node("me", "192.168.1.1", |_| {});
    bench.tell(Input::Speakers(None));
    bench.interfaces(&["eth0"]);
    bench.tell(Input::Members(Members::default()));
    bench.tell(Input::Service(Change::Synced));
    bench.tell(Input::Endpoints(Change::Synced));
    bench.tell(Input::Node(Change::Synced));
    let told = bench.heard();
    let first = heard(&["other", "me"], 2, Some(Reach::Everywhere));
    assert!(told.contains(&first), "{told:?}");
    assert!(!told.iter().any(|heard| matches!(heard, Heard::Wish(..))));
    bench.serve_wishing("web", &["10.0.0.3"], Some("other"));
    assert_eq!(wishes(&mut bench), []);
    bench.serve_wishing("web", &["10.0.0.3"], Some("again"));
    assert_eq!(wishes(&mut bench), [(FIRST, Some(Wish::Away))]);
}

#[tokio::test]
async fn a_node_that_everything_is_moved_from_leaves_it_while_the_wish_stands() {
    let mut bench = Bench::with_other();
    bench.configure("10.0.0.0/24");
    bench.serve("web", "10.0.0.3");
    bench.heard();
    let wish = |bench: &mut Bench, wished| {
        bench.node("me", "192.168.1.1", |facts| facts.node.moves_away = wished);
        bench.heard()
    };
    let everywhere = Some(Reach::Everywhere);
    let left = heard(&["other", "me"], 1, everywhere.clone());
    assert_eq!(wish(&mut bench, true), [left]);
    let as_before = heard(&["me", "other"], 2, everywhere);
    assert_eq!(wish(&mut bench, false), [as_before]);
}

#[tokio::test]
async fn what_is_to_move_and_stays_is_told_on_the_object_that_asks_and_its_end() {
    let mut bench = holding();
    let stays = |wished| {
        let obstacle = Obstacle::Unheard;
        let report = Report::Stays {
            address: FIRST,
            obstacle,
            wished,
        };
        told("eth0", report)
    };
    let no_more = told("eth0", Report::StaysNoMore { address: FIRST });
    bench.arbiters_tell(vec![stays(true)]);
    bench.arbiters_tell(vec![no_more.clone()]);
    bench.node("me", "192.168.1.1", |me| me.node.unschedulable = true);
    bench.arbiters_tell(vec![stays(false)]);
    bench.arbiters_tell(vec![stays(false)]);
    bench.arbiters_tell(vec![no_more]);
    let told = bench.whole_events().await.into_iter().filter(|event| {
        let reason = event["reason"].as_str().unwrap_or_default();
        reason.starts_with("move")
    });
    let told: Vec<String> = told
        .map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let about = event["involvedObject"]["kind"].as_str().unwrap_or_default();
            format!("{about} {} {}", text("reason"), text("message"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "Service moveWaiting 10.0.0.3 is to move (ferrolb.io/move) and stays on node \"me\": no node that it might go to \
             is heard here (eth0)",
            "Service moveEnded 10.0.0.3 no longer waits to be moved from node \"me\": it has moved, or is not to move any more",
            "Node moveWaiting node \"me\" is cordoned, and goes on answering for 10.0.0.3 (eth0): no node that it might go to \
             is heard here",
            "Node moveEnded nothing waits to be moved from node \"me\" any more",
        ]
    );
}

/// The bridge of a network plugin, say: each node has one, and each would say that it announces the address.
#[tokio::test]
async fn an_interface_that_no_other_node_shares_counts_for_nothing_while_another_has_company() {
    let mut bench = holding();
    bench.arbiters_tell(vec![
        told("br0", took(FIRST, Cause::Unheld, None)),
        told("eth0", Report::Up(other())),
        told("eth0", released(FIRST, Cause::Moved, Some(other()))),
    ]);
    assert_eq!(bench.announced("default/web", "10.0.0.3"), 0);
    // It is answered for there all the same.
    let held = bench.metrics.failover.held.with_label_values(&["br0"]);
    assert_eq!(held.get(), 1);
    // Heard there as well, it counts.
    bench.arbiters_tell(vec![told("br0", Report::Up(other()))]);
    assert_eq!(bench.announced("default/web", "10.0.0.3"), 1);
}

#[tokio::test]
async fn what_an_arbiter_said_is_past_with_it() {
    let mut bench = holding();
    let mac = [2, 0, 0, 0, 0, 9];
    let stranger = Report::Stranger {
        address: SECOND,
        mac,
        speaks: true,
    };
    bench.arbiters_tell(vec![told("eth0", stranger)]);
    let series = |bench: &Bench, name: &str| {
        let scraped = bench.scraped().into_iter();
        scraped
            .filter(|line| line.starts_with(name))
            .collect::<Vec<_>>()
    };
    let conflict = "ferrolb_layer2_address_conflict{";
    assert_eq!(
        series(&bench, conflict),
        [
            "ferrolb_layer2_address_conflict{interface=\"eth0\",ip=\"10.0.0.4\",mac=\"02:00:00:00:00:09\"} 1"
        ]
    );
    assert_eq!(series(&bench, "ferrolb_layer2_held_addresses{").len(), 1);
    let mut fell = told("eth0", Report::StrangerGone { address: SECOND });
    fell.report = None;
    bench.arbiters_tell(vec![fell]);
    assert_eq!(series(&bench, conflict), [""; 0]);
    assert_eq!(series(&bench, "ferrolb_layer2_held_addresses{"), [""; 0]);
    assert_eq!(bench.announced("default/web", "10.0.0.3"), 0);
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
        report: Some(report),
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
    // What another node tells of is counted here, and no more.
    let met = |address, speaks| Report::Stranger {
        address,
        mac,
        speaks,
    };
    bench.arbiters_tell(vec![
        told("eth0", met(SECOND, false)),
        told("eth0", Report::StrangerGone { address: SECOND }),
        told("eth0", met(address, true)),
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
    assert_eq!((conflicts("stranger"), conflicts("strictARP")), (2, 1));
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
