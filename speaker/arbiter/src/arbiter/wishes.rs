//! What is to move because an operator wants it or because this node is to leave what it holds; and why it stays where it
//! cannot move.

use std::net::IpAddr;
use std::time::Duration;

use super::{Arbiter, ms};
use crate::event::{Cause, Obstacle, Report, Wish};
use crate::frame::NodeId;
use crate::hold::{Deadline, State, Stays};

/// How long an address that is to move stays before that is reported, and from one report of it to the next.
const STAYS: Duration = ms(2000);
const STAYS_STILL: Duration = ms(10_000);

/// From the first round of offers that was refused to the next; doubled each time, so often.
const ROUND: Duration = ms(100);
const ROUNDS: u32 = 7;

impl Arbiter {
    /// What the operator wants of an address.
    pub(super) fn wish(&mut self, address: IpAddr, wish: Option<Wish>) {
        let me = self.me;
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        hold.sent_away = false;
        // Who does not hold it has nothing to move; whom it is to go to, the order of candidates says.
        hold.wish = wish.filter(|wish| hold.state.answers() && *wish != Wish::To(me));
        hold.rounds = 0;
        hold.offer_at = None;
        self.settle(address);
    }

    /// Who would take the address if it is offered now: whom the operator named, else the first that can. None where it is to
    /// go to the one named and to nobody else.
    pub(super) fn successor(&self, address: IpAddr) -> Option<NodeId> {
        let hold = self.holds.get(&address)?;
        let may_stay =
            self.stopping.is_none() && hold.eligible(self.me) && hold.willing().contains(&self.me);
        match hold.wish {
            Some(Wish::To(node)) => self.can_go_to(address, node).map_or_else(
                |_| (!may_stay).then(|| self.heir(address)).flatten(),
                |()| Some(node),
            ),
            Some(Wish::Away) | None => self.heir(address),
        }
    }

    /// I hold it and may: whether it is to move all the same, and does.
    pub(super) fn consider_leaving(&mut self, address: IpAddr) {
        let (me, now) = (self.me, self.now);
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        if !matches!(hold.state, State::Holding | State::Contested { .. }) || hold.queued {
            return;
        }
        let wished = hold.wish.map(|wish| match wish {
            Wish::To(node) => self.can_go_to(address, node),
            Wish::Away => self.can_go(address),
        });
        let leaves = (!hold.willing().contains(&me)).then(|| self.can_go(address));
        if wished.is_none() && leaves.is_none() {
            self.stays_no_more(address);
        } else if let Some(at) = hold.offer_at.filter(|at| now < *at) {
            self.timers.set_earlier(Deadline::Hold(address), at);
            self.stays(address, Obstacle::Refused, wished.is_some());
        } else {
            match (wished, leaves) {
                (Some(Ok(())), _) | (_, Some(Ok(()))) => self.queue_move(address, Cause::Moved),
                (Some(Err(obstacle)), _) | (None, Some(Err(obstacle))) => {
                    if obstacle == Obstacle::Refused {
                        self.offer_later(address);
                    } else {
                        self.stays(address, obstacle, wished.is_some());
                    }
                }
                (None, None) => {}
            }
        }
    }

    /// What keeps an address from going to any other node that is to keep it.
    fn can_go(&self, address: IpAddr) -> Result<(), Obstacle> {
        let Some(hold) = self.holds.get(&address) else {
            return Err(Obstacle::NobodyElse);
        };
        let me = self.me;
        match self.heir(address) {
            _ if !hold.order().iter().any(|node| *node != me) => Err(Obstacle::NobodyElse),
            Some(heir) if hold.willing().contains(&heir) => Ok(()),
            // It would hand it back at once.
            Some(_) => Err(Obstacle::Unwilling),
            None if hold.refused.is_empty() => Err(Obstacle::Unheard),
            None => Err(Obstacle::Refused),
        }
    }

    /// What keeps an address from going to this node.
    fn can_go_to(&self, address: IpAddr, node: NodeId) -> Result<(), Obstacle> {
        let Some(hold) = self.holds.get(&address) else {
            return Err(Obstacle::NotEligible);
        };
        let me = self.me;
        if !hold.eligible(node) {
            Err(Obstacle::NotEligible)
        } else if self.presence(node) != Some(true) {
            Err(Obstacle::Unheard)
        } else if !hold.willing().contains(&node) && hold.willing().contains(&me) {
            Err(Obstacle::Unwilling)
        } else if hold.refused.contains(&node) {
            Err(Obstacle::Refused)
        } else {
            Ok(())
        }
    }

    /// A node did not take what it was offered: offers it to another, or later again, ever more rarely.
    pub(super) fn declined(&mut self, address: IpAddr, node: NodeId) {
        if let Some(hold) = self.holds.get_mut(&address)
            && !hold.refused.contains(&node)
        {
            hold.refused.push(node);
        }
        if self.successor(address).is_none() {
            self.offer_later(address);
        } else {
            self.settle(address);
        }
    }

    fn offer_later(&mut self, address: IpAddr) {
        let (me, now, stopping) = (self.me, self.now, self.stopping.is_some());
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        // Whoever refuses may yet learn that it is eligible.
        hold.refused.clear();
        // What must leave has a second for it.
        let must = stopping || !hold.eligible(me);
        let wait = if must {
            ROUND
        } else {
            ROUND * 2_u32.pow(hold.rounds.min(ROUNDS))
        };
        hold.rounds = hold.rounds.saturating_add(1);
        hold.offer_at = (!must).then_some(now + wait);
        let wished = hold.wish.is_some();
        self.timers.set(Deadline::Hold(address), now + wait);
        if !must {
            self.stays(address, Obstacle::Refused, wished);
        }
    }

    /// It is to move and cannot: says so if that lasts.
    pub(super) fn stays(&mut self, address: IpAddr, obstacle: Obstacle, wished: bool) {
        let now = self.now;
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        let stays = hold.stays.get_or_insert(Stays {
            obstacle,
            since: now,
            told: None,
        });
        stays.obstacle = obstacle;
        let wait = if stays.told.is_some() {
            STAYS_STILL
        } else {
            STAYS
        };
        let (at, news) = (stays.since + wait, stays.told != Some(obstacle));
        if news && now >= at {
            stays.since = now;
            stays.told = Some(obstacle);
        }
        self.staying.insert(address);
        if news && now >= at {
            self.report(Report::Stays {
                address,
                obstacle,
                wished,
            });
        } else if news {
            self.timers.set_earlier(Deadline::Hold(address), at);
        }
    }

    /// It has moved, or may stay.
    pub(super) fn stays_no_more(&mut self, address: IpAddr) {
        self.staying.remove(&address);
        let stays = self
            .holds
            .get_mut(&address)
            .and_then(|hold| hold.stays.take());
        if stays.is_some_and(|stays| stays.told.is_some()) {
            self.report(Report::StaysNoMore { address });
        }
    }

    /// A node came or went: what stays for want of one may move now, or for another reason.
    pub(super) fn settle_staying(&mut self) {
        if !self.staying.is_empty() {
            self.unsettled.extend(&self.staying);
            self.settle_some();
        }
    }
}
