//! Arbiters on real segments: nodes and a client in network namespaces of their own, joined by a bridge in the test's.
//! Needs root.

mod nodes;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ferrolb_speaker_arbiter::{Cause, NodeId, Report};
use ferrolb_speaker_responder::lab::{FAR, OTHER, VIP, ip, said};
use ferrolb_speaker_wire::{Station, gratuitous, request, solicited_node, teach, unsolicited};

use self::nodes::{Node, Segment, in_segment};

const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x240);

fn took(report: &Report) -> Option<(IpAddr, Cause, Option<NodeId>)> {
    match *report {
        Report::Took {
            address,
            cause,
            from,
        } => Some((address, cause, from)),
        _ => None,
    }
}

fn released(report: &Report) -> Option<(IpAddr, Cause, Option<NodeId>)> {
    match *report {
        Report::Released { address, cause, to } => Some((address, cause, to)),
        _ => None,
    }
}

/// Two nodes that know each other, of which the first holds `VIP` and comes first for it.
async fn holder_and_heir(segment: &Segment) -> (Node, Node) {
    let mut holder = segment.node("a", 1).await;
    let mut heir = segment.node("b", 2).await;
    holder.meet(&[&heir]);
    heir.meet(&[&holder]);
    holder.stand(VIP, &["a", "b"]);
    heir.stand(VIP, &["a", "b"]);
    let taken = holder.told(took).await;
    assert_eq!((taken.0, taken.1), (VIP.into(), Cause::Unheld));
    let up = |report: &Report| matches!(report, Report::Up(_)).then_some(());
    holder.told(up).await;
    heir.told(up).await;
    (holder, heir)
}

/// Input: a node alone that may answer for an address of each family, which a neighbour believes elsewhere; then no longer.
/// Output: both are taken and made known to all, the neighbour among them; the group of the IPv6 one is joined and left;
/// what was let go is not made known any more.
#[test]
fn a_node_alone_takes_addresses_and_makes_them_known() {
    in_segment(|segment| async move {
        let mut node = segment.node("a", 1).await;
        node.meet(&[]);
        node.link_local().await;
        for address in [VIP.into(), VIP6.into()] {
            segment.believe(address, "02:00:00:00:00:99").await;
        }
        let (mac, metrics) = (node.mac, node.metrics.clone());
        let pair = |address| gratuitous(address, mac).map(|frame| frame.to_vec());
        let heard = segment.listen(pair(VIP).to_vec());
        node.stand(VIP, &["a"]);
        assert_eq!(node.told(took).await, (VIP.into(), Cause::Unheld, None));
        heard.await;
        assert_eq!(segment.ask(VIP, 3).await, [node.mac; 3]);
        let count = |address: Ipv4Addr| metrics.held(address.into()).counters.gratuitous();
        assert!(count(VIP) >= 2);

        let heard = segment.listen(vec![unsolicited(VIP6, node.mac).to_vec()]);
        node.stand(VIP6, &["a"]);
        assert_eq!(node.told(took).await, (VIP6.into(), Cause::Unheld, None));
        heard.await;
        node.member(solicited_node(VIP6), true).await;
        for address in [VIP.into(), VIP6.into()] {
            segment.until_believed(address, node.mac).await;
        }

        for address in [VIP.into(), VIP6.into()] {
            node.fall(address);
            let gone = node.told(released).await;
            assert_eq!(gone, (address, Cause::Withdrawn, None));
        }
        node.member(solicited_node(VIP6), false).await;
        node.until_answered(&[]).await;
        let before = count(VIP);
        node.stand(OTHER, &["a"]);
        segment.listen(pair(OTHER).to_vec()).await;
        // A round and the next.
        while count(OTHER) < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(count(VIP), before);
    });
}

/// Input: a node whose speaker has begun, and was not told yet who may answer for what; another takes an address meanwhile.
/// Output: it is silent on the wire, as one that is not there is; once it is told, it answers.
#[test]
fn who_was_told_nothing_yet_does_not_pass_for_a_node_that_is_there() {
    in_segment(|segment| async move {
        let mut holder = segment.node("a", 1).await;
        let heir = segment.node("b", 2).await;
        holder.meet(&[&heir]);
        heir.meet(&[&holder]);
        holder.stand(VIP, &["a", "b"]);
        let up = |report: &Report| matches!(report, Report::Up(_)).then_some(());
        assert_eq!(holder.told(took).await.0, IpAddr::from(VIP));
        assert_eq!(holder.all_told(up), []);
        heir.stand(OTHER, &["b", "a"]);
        holder.told(up).await;
    });
}

/// Input: three nodes that may answer for an IPv6 address; the link-local address of the first goes and comes back.
/// Output: all are members of its group beforehand; the first leaves it with its link-local address, and joins it again.
#[test]
fn groups_are_joined_by_who_may_have_to_answer_and_follow_the_link_local_address() {
    in_segment(|segment| async move {
        let mut nodes = Vec::new();
        for (name, number) in [("a", 1), ("b", 2), ("c", 3)] {
            nodes.push(segment.node(name, number).await);
        }
        let group = solicited_node(VIP6);
        for node in &nodes {
            let others = nodes.iter().filter(|other| other.mac != node.mac);
            node.meet(&others.collect::<Vec<_>>());
            node.stand(VIP6, &["a", "b", "c"]);
        }
        for node in &nodes {
            node.member(group, true).await;
        }
        assert_eq!(nodes[0].told(took).await.0, IpAddr::from(VIP6));
        nodes[0].here(|| ip("-6 addr flush dev near")).await;
        nodes[0].member(group, false).await;
        nodes[0].here(|| ip("addr add fe80::5/64 dev near")).await;
        nodes[0].member(group, true).await;
    });
}

/// Input: two nodes that may answer, then the link of the one that does goes down and comes back.
/// Output: one answers at a time, the other after the loss, and still after the return.
#[test]
fn one_of_two_answers_and_the_other_when_it_is_lost() {
    in_segment(|segment| async move {
        let (mut holder, mut heir) = holder_and_heir(&segment).await;
        assert_eq!(segment.ask(VIP, 20).await, vec![holder.mac; 20]);
        assert_eq!(heir.all_told(took), []);
        holder.here(|| ip("link set near down")).await;
        let gone = holder.told(released).await;
        assert_eq!((gone.0, gone.1), (VIP.into(), Cause::LinkDown));
        let taken = heir.told(took).await;
        assert_eq!(
            taken,
            (VIP.into(), Cause::HolderDown, Some(NodeId::of("a")))
        );
        assert_eq!(segment.ask(VIP, 20).await, vec![heir.mac; 20]);
        let down = |report: &Report| match report {
            Report::Down { node, .. } => Some(*node),
            _ => None,
        };
        assert_eq!(heir.all_told(down), [NodeId::of("a")]);

        holder.here(|| ip("link set near up")).await;
        let up = |report: &Report| matches!(report, Report::Up(_)).then_some(());
        holder.told(up).await;
        heir.told(up).await;
        assert_eq!(segment.ask(VIP, 20).await, vec![heir.mac; 20]);
        assert_eq!(
            (holder.all_told(took), heir.all_told(released)),
            (vec![], vec![])
        );
    });
}

/// Input: a client's question for an address, which the answering thread alone hears; then its holder dies.
/// Output: who takes it teaches the client where it is now, to its face.
#[test]
fn who_asked_is_taught_by_who_did_not_answer() {
    in_segment(|segment| async move {
        let (mut holder, mut heir) = holder_and_heir(&segment).await;
        let asker = Ipv4Addr::new(10, 9, 0, 77);
        segment.say(request(VIP, asker, FAR).to_vec()).await;
        let from = Station {
            mac: heir.mac,
            link_local: None,
        };
        let lesson = teach(VIP.into(), asker.into(), FAR, &from);
        let taught = segment.listen(vec![lesson.as_ref().to_vec()]);
        holder.end();
        assert_eq!(heir.told(took).await.0, IpAddr::from(VIP));
        taught.await;
    });
}

/// Input: a stranger that has an address which is held here, and asks from it for another.
/// Output: it is told of, by who holds the address.
#[test]
fn a_stranger_that_only_asks_is_seen() {
    in_segment(|segment| async move {
        let (mut holder, _heir) = holder_and_heir(&segment).await;
        segment.say(request(OTHER, VIP, FAR).to_vec()).await;
        let stranger = |report: &Report| match *report {
            Report::Stranger { address, mac, .. } => Some((address, mac)),
            _ => None,
        };
        let seen = holder.told(stranger).await;
        assert_eq!(seen, (VIP.into(), FAR.octets()));
    });
}

/// Input: a process that ends while a client asks every millisecond.
/// Output: answers with its own hardware address, then with that of the node that follows and never again with the first;
/// nowhere a gap as a loss would leave.
#[test]
fn a_planned_end_is_seamless() {
    in_segment(|segment| async move {
        let (mut holder, mut heir) = holder_and_heir(&segment).await;
        let asking = segment.ask_on(VIP);
        asking.answers(50).await;
        holder.words.hand_over().await;
        let gone = holder.told(released).await;
        assert_eq!(gone, (VIP.into(), Cause::Moved, Some(NodeId::of("b"))));
        let taken = heir.told(took).await;
        assert_eq!(taken, (VIP.into(), Cause::Moved, Some(NodeId::of("a"))));
        asking.answers(50).await;
        holder.end();
        asking.answers(50).await;
        let asked = asking.stop().await;
        let mut macs = asked.macs();
        macs.dedup();
        assert_eq!(macs, [holder.mac, heir.mac]);
        let gap = asked.longest_gap();
        assert!(gap < 200, "{gap} questions in a row were not answered");
        heir.until_answered(&["near"]).await;
    });
}

/// Input: the interface of a node alone goes down; loses its carrier; and comes back each time.
/// Output: it lets its address go, and takes it again.
#[test]
fn an_interface_that_goes_lets_its_addresses_go_and_takes_them_when_it_is_back() {
    in_segment(|segment| async move {
        let mut node = segment.node("a", 1).await;
        node.meet(&[]);
        node.stand(VIP, &["a"]);
        node.told(took).await;
        node.here(|| ip("link set near down")).await;
        assert_eq!(
            node.told(released).await,
            (VIP.into(), Cause::LinkDown, None)
        );
        node.until_answered(&[]).await;
        node.here(|| ip("link set near up")).await;
        assert_eq!(node.told(took).await.0, IpAddr::from(VIP));
        assert_eq!(segment.ask(VIP, 1).await, [node.mac]);

        ip("link set to-a down");
        assert_eq!(
            node.told(released).await,
            (VIP.into(), Cause::LinkDown, None)
        );
        ip("link set to-a up");
        assert_eq!(node.told(took).await.0, IpAddr::from(VIP));
        assert_eq!(segment.ask(VIP, 1).await, [node.mac]);
    });
}

/// Input: a node with two interfaces, one of which sends nothing because its queue is always full; addresses for both,
/// and for one alone. Then the other goes.
/// Output: each is taken where it may be, and let go where the interface went.
#[test]
fn each_interface_has_an_arbiter_of_its_own() {
    in_segment(|segment| async move {
        let mut node = segment.node("a", 1).await;
        node.meet(&[]);
        node.here(|| {
            said("tc", "qdisc add dev near root pfifo limit 0");
            ip("link add name more type veth peer name less");
            ip("link set less up");
            ip("link set more up");
        })
        .await;
        node.stand(VIP, &["a"]);
        node.stand_on(VIP6, &["a"], &["more", "missing"]);
        let mut taken = Vec::new();
        // A pair of veths has both ends here, and is one segment with two interfaces.
        while taken.len() < 4 {
            taken.push(node.told_where(took).await);
        }
        node.here(|| ip("link del less")).await;
        let mut gone = Vec::new();
        while gone.len() < 3 {
            gone.push(node.told_where(released).await);
        }
        node.until_answered(&["near"]).await;
        assert_eq!((taken.len(), gone.len()), (4, 3));
    });
}

/// Input: an address that may be answered for on one interface, on both, and on the other.
/// Output: it is taken where it is new, stays where it may, and is let go where it may not.
#[test]
fn an_address_follows_the_interfaces_it_may_be_answered_on() {
    in_segment(|segment| async move {
        let mut node = segment.node("a", 1).await;
        node.meet(&[]);
        node.here(|| {
            ip("link add name more type bridge");
            ip("link add name less type veth peer name least");
            ip("link set less master more up");
            ip("link set least master more up");
            ip("link set more up");
        })
        .await;
        node.stand_on(VIP, &["a"], &["near"]);
        assert_eq!(node.told_where(took).await.0, "near");
        node.stand_on(VIP, &["a"], &["more", "near"]);
        assert_eq!(node.told_where(took).await.0, "more");
        node.until_answered(&["near", "more"]).await;
        node.stand_on(VIP, &["a"], &["more"]);
        let gone = node.told_where(released).await;
        assert_eq!(
            gone,
            ("near".to_owned(), (VIP.into(), Cause::Withdrawn, None))
        );
        node.until_answered(&["more"]).await;
        assert_eq!(
            (node.all_told(took), node.all_told(released)),
            (vec![], vec![])
        );
    });
}

/// Input: two nodes with different secrets, of which the first holds an address and the second comes to want it.
/// Output: neither knows the other; the first's answer is a stranger's, and the address is left to it.
#[test]
fn frames_of_another_key_are_strangers() {
    in_segment(|segment| async move {
        let mut holder = segment.node("a", 1).await;
        let mut other = segment.node_with_key("b", 2, b"another").await;
        holder.meet(&[&other]);
        other.meet(&[&holder]);
        holder.stand(VIP, &["a"]);
        holder.told(took).await;
        other.stand(VIP, &["b"]);
        let stranger = |report: &Report| match *report {
            Report::Stranger { address, mac, .. } => Some((address, mac)),
            _ => None,
        };
        let seen = other.told(stranger).await;
        assert_eq!(seen, (VIP.into(), holder.mac.octets()));
        assert_eq!(segment.ask(VIP, 20).await, vec![holder.mac; 20]);
        let up = |report: &Report| matches!(report, Report::Up(_)).then_some(());
        assert_eq!((holder.all_told(up), other.all_told(up)), (vec![], vec![]));
        assert_eq!(other.all_told(took), []);
    });
}
