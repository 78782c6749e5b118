//! What is to move and stays: said on the object that asks for the move, once, and its end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_runtime::events::{About, EventType};
use ferrolb_speaker_arbiter::Obstacle;
use ferrolb_speaker_core::Leaving;

use super::Actor;
use crate::decider::Uids;

/// The reasons of the events.
const WAITS: &str = "moveWaiting";
const ENDED: &str = "moveEnded";

/// Addresses that are to move and stay, by the interface they are held on.
#[derive(Debug, Default)]
pub(super) struct Stays {
    /// Why, and whether the operator wants this very address moved.
    why: BTreeMap<(IpAddr, String), (Obstacle, bool)>,
    /// It was said that this node is to leave what it holds, and stays.
    told: bool,
}

const fn sentence(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::NobodyElse => "no other node may answer for it",
        Obstacle::Unheard => "no node that it might go to is heard here",
        Obstacle::Unwilling => {
            "the nodes that it might go to are cordoned, not Ready or asked to move everything away themselves"
        }
        Obstacle::NotEligible => "the node it is to go to may not answer for it",
        Obstacle::Refused => {
            "the other node refuses it; what it knows of the cluster may be out of date"
        }
        Obstacle::Legacy => {
            "while speakers of MetalLB are there, their rule says which node answers"
        }
    }
}

impl Actor {
    /// An address that is to move stays.
    pub(super) fn stays(
        &mut self,
        address: IpAddr,
        interface: &str,
        obstacle: Obstacle,
        wished: bool,
        uids: &Uids,
    ) {
        let key = (address, interface.to_owned());
        self.stays.why.insert(key, (obstacle, wished));
        if wished {
            let message = format!(
                "{address} is to move (ferrolb.io/move) and stays on node {:?}: {} ({interface})",
                self.node,
                sentence(obstacle)
            );
            self.say(address, EventType::Warning, WAITS, &message, uids);
        }
    }

    /// It has moved, or may stay.
    pub(super) fn stays_no_more(&mut self, address: IpAddr, interface: &str, uids: &Uids) {
        let was = self.stays.why.remove(&(address, interface.to_owned()));
        if was.is_some_and(|(_, wished)| wished) {
            let message = format!(
                "{address} no longer waits to be moved from node {:?}: it has moved, or is not to move any more",
                self.node
            );
            self.say(address, EventType::Normal, ENDED, &message, uids);
        }
    }

    /// The arbiter of an interface is no more.
    pub(super) fn forget_stays(&mut self, interface: &str) {
        self.stays.why.retain(|(_, on), _| on != interface);
    }

    /// Tells, on the Node, that what this node is to leave stays, or no longer. `leaving`: why it is to leave what it holds.
    pub fn tell_leaving(&mut self, leaving: Option<Leaving>) {
        let mut staying = self.stays.why.iter().filter(|(_, (_, wished))| !wished);
        let first = staying.next();
        let (reason, kind, message) = match (first, self.stays.told) {
            (Some(((address, interface), (obstacle, _))), false) => {
                let more = staying.count();
                let others = if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                };
                let why =
                    leaving.map_or_else(|| "is to leave it".to_owned(), |why| why.to_string());
                let message = format!(
                    "node {:?} {why}, and goes on answering for {address} ({interface}){others}: {}",
                    self.node,
                    sentence(*obstacle)
                );
                (WAITS, EventType::Warning, message)
            }
            (None, true) => {
                let message = format!(
                    "nothing waits to be moved from node {:?} any more",
                    self.node
                );
                (ENDED, EventType::Normal, message)
            }
            _ => return,
        };
        self.stays.told = !self.stays.told;
        tracing::warn!(event = reason, node = self.node, "{message}");
        self.events.post(self.this_node(), kind, reason, message);
    }

    /// This Node, for events about it.
    pub(super) fn this_node(&self) -> About {
        About {
            api_version: "v1",
            kind: "Node",
            namespace: String::new(),
            name: self.node.clone(),
            // The kubelet's own events have the name here, and kubectl looks for it.
            uid: Some(self.node.clone()),
        }
    }
}
