//! `BGPPeer`, by MetalLB's rules (0.16).

use std::{net::IpAddr, time::Duration};

use ferrolb_config_api::{BGPPeer, BGPPeerSpec};
use kube::{ResourceExt as _, api::DynamicObject};

use super::{
    admission::{BgpType, Objects},
    bgp::selects,
    layer2,
};

/// The shortest hold time that is not none (RFC 4271, 4.2).
const SHORTEST_HOLD: Duration = Duration::from_secs(3);

/// What is wrong with `new`. `raw` is the same object.
///
/// The BFD profile and the password's Secret are not looked at, as MetalLB's webhook does not: they may come later.
pub fn check(new: &BGPPeer, raw: &DynamicObject, objects: &Objects, bgp: BgpType) -> Vec<String> {
    let spec = &new.spec;
    let mut problems: Vec<_> = [by_itself(spec), timers(spec)].concat();
    let parsing = format!("parsing peer {}", new.name_any());
    for problem in &mut problems {
        *problem = format!("{parsing} {problem}");
    }
    problems.extend(layer2::selectors("BGPPeer", raw));
    match bgp {
        BgpType::Native => problems.extend(only_in_frr(spec)),
        BgpType::Frr => {
            let others = objects.peers.iter();
            let others = others.filter(|other| other.name_any() != new.name_any());
            problems.extend(
                others
                    .filter(|other| share_a_node(spec, &other.spec, objects))
                    .filter_map(|other| at_odds(spec, &other.spec)),
            );
        }
        BgpType::Unknown => {}
    }
    problems
}

fn by_itself(spec: &BGPPeerSpec) -> Vec<String> {
    let peer_asn = spec.peer_asn.unwrap_or_default();
    let dynamic = said(spec.dynamic_asn.as_ref());
    let address = said(spec.peer_address.as_ref());
    let interface = said(spec.interface.as_ref());
    let multi_hop = spec.ebgp_multi_hop.unwrap_or_default();
    let mut problems = Vec::new();
    let mut refuse = |condition: bool, text: &str| {
        if condition {
            problems.push(text.to_owned());
        }
    };
    refuse(spec.my_asn == 0, "missing local ASN");
    refuse(
        peer_asn == 0 && dynamic.is_none(),
        "missing peer ASN and dynamicASN",
    );
    refuse(
        peer_asn != 0 && dynamic.is_some(),
        "both peer ASN and dynamicASN specified",
    );
    refuse(
        peer_asn == spec.my_asn && multi_hop,
        "invalid ebgp-multihop parameter set for an ibgp peer",
    );
    refuse(
        address.is_none() && interface.is_none(),
        "peer has no Address or Interface specified",
    );
    refuse(
        address.is_some() && interface.is_some(),
        "peer has both Address and Interface specified",
    );
    if let Some(mode) = dynamic.filter(|mode| !matches!(*mode, "internal" | "external")) {
        problems.push(format!("invalid dynamicASN {mode}"));
    }
    for (what, value) in [
        ("BGPPeer address", address),
        ("router ID", said(spec.router_id.as_ref())),
        ("source IP", said(spec.source_address.as_ref())),
    ] {
        if let Some(value) = value.filter(|value| value.parse::<IpAddr>().is_err()) {
            problems.push(format!("invalid {what} {value:?}"));
        }
    }
    problems
}

/// The rules of hold and keepalive time. Of one alone the other follows (a third, three times), which is always sound
/// but for the hold time's minimum.
fn timers(spec: &BGPPeerSpec) -> Vec<String> {
    let mut problems = Vec::new();
    let mut read = |name: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        let read = duration(text);
        if read.is_none() {
            problems.push(format!(
                "invalid BGPPeer timers: {name} {text:?} is no duration such as 90s"
            ));
        }
        read
    };
    let hold = read("holdTime", &spec.hold_time);
    let keepalive = read("keepaliveTime", &spec.keepalive_time);
    let Some(effective) = hold.or(keepalive.map(|keepalive| keepalive.saturating_mul(3))) else {
        return problems;
    };
    let whole = Duration::from_secs(effective.as_secs());
    if !whole.is_zero() && whole < SHORTEST_HOLD {
        problems.push(format!(
            "invalid BGPPeer timers: invalid hold time {effective:?}: must be 0 or >=3s"
        ));
    }
    if let (Some(hold), Some(keepalive)) = (hold, keepalive)
        && keepalive > hold
    {
        problems.push(format!(
            "invalid BGPPeer timers: invalid keepaliveTime {keepalive:?}, must be lower than holdTime {hold:?}"
        ));
    }
    problems
}

/// A duration as Go writes it (`1m30s`); negative ones are none here.
fn duration(text: &str) -> Option<Duration> {
    let parsed: kube::core::Duration = text.parse().ok()?;
    (!parsed.is_negative()).then(|| parsed.into())
}

/// What MetalLB's own BGP cannot do. Its flag `disableMP` is not among them: it has no effect, and gets a warning.
fn only_in_frr(spec: &BGPPeerSpec) -> Vec<String> {
    let keepalive = spec.keepalive_time.as_deref().and_then(duration);
    let set = [
        (
            "keepalive-time",
            keepalive.is_some_and(|keepalive| !keepalive.is_zero()),
        ),
        ("vrf", said(spec.vrf.as_ref()).is_some()),
        ("connect time", spec.connect_time.is_some()),
        (
            "EnableGracefulRestart flag",
            spec.enable_graceful_restart == Some(true),
        ),
        (
            "dualstackaddressfamily flag",
            spec.dual_stack_address_family == Some(true),
        ),
        ("dynamicASN", said(spec.dynamic_asn.as_ref()).is_some()),
        ("interface", said(spec.interface.as_ref()).is_some()),
        ("localASN", spec.local_asn.unwrap_or_default() != 0),
    ];
    let address = spec.peer_address.as_deref().unwrap_or_default();
    set.into_iter()
        .filter(|(_, set)| *set)
        .map(|(what, _)| format!("peer {address} has {what} set on native bgp mode"))
        .collect()
}

/// Whether some node has both peers. Where no node is known they may.
fn share_a_node(one: &BGPPeerSpec, other: &BGPPeerSpec, objects: &Objects) -> bool {
    objects.nodes.is_empty()
        || objects
            .nodes
            .iter()
            .any(|node| selects(&one.node_selectors, node) && selects(&other.node_selectors, node))
}

/// Why one FRR cannot have both peers.
fn at_odds(one: &BGPPeerSpec, other: &BGPPeerSpec) -> Option<String> {
    let router = |spec: &BGPPeerSpec| spec.router_id.clone().unwrap_or_default();
    let vrf = |spec: &BGPPeerSpec| spec.vrf.clone().unwrap_or_default();
    if router(one) != router(other) {
        return Some(format!(
            "peer {} has RouterID different from {}, in FRR mode peers selecting the same node must all have the same RouterID",
            router(one),
            router(other)
        ));
    }
    if identifier(one) == identifier(other) {
        return Some(format!(
            "peer {} already exists, FRR mode doesn't support duplicate BGPPeers selecting the same node",
            identifier(one)
        ));
    }
    (one.my_asn != other.my_asn && vrf(one) == vrf(other)).then(|| {
        format!(
            "peer {} has myAsn different from {}, in FRR mode peers selecting the same node must have the same myAsn within the same VRF",
            identifier(one),
            identifier(other)
        )
    })
}

/// What FRR tells peers apart by: the address or interface, and the VRF.
fn identifier(spec: &BGPPeerSpec) -> String {
    let address = said(spec.peer_address.as_ref()).or_else(|| said(spec.interface.as_ref()));
    let address = address.unwrap_or_default();
    match said(spec.vrf.as_ref()) {
        None => address.to_owned(),
        Some(vrf) => format!("{address}-{vrf}"),
    }
}

/// An empty text is as good as none.
fn said(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}
