//! What one node knows of another on one segment.
//!
//! ```text
//!            a fresh answer             no answer in time, or an Ask about it
//! Unknown ───────────────────▶ Up ───────────────────────────────────────────▶ Suspect
//!                              ▲ ◀──────── a fresh answer, a vouch, its frames ── │
//!                              │                                                  │ silent for the patience
//!                              └──────────────── a fresh answer ────────── Down ◀─┘
//! ```
//!
//! There is no way from Unknown to Down: silence means nothing from who was never heard.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::event::PeerFacts;
use crate::frame::Mac;
use crate::profile::Profile;

/// How many probes may be under way to one peer.
const UNDER_WAY: usize = 256;

/// How long a peer may take to show itself on the wire.
pub(crate) const BLIND: Duration = Duration::from_secs(3);

/// How long a node must stay up for its losses to be forgotten, and the longest that its return is held back for them.
const FLAPS_KEPT: Duration = Duration::from_hours(1);
const FLAPS_MOST: Duration = Duration::from_mins(30);

/// How old a probe may be whose answer still counts.
const FRESH: Duration = Duration::from_secs(3);

/// How long the worst delay is remembered, at least.
const WORST_KEPT: Duration = Duration::from_mins(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    Unknown,
    Up,
    Suspect,
    Down,
}

/// A suspicion under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspicion {
    /// Since when; moved by own stalls.
    pub since: Instant,
    /// When an own stall restarted it.
    pub floor: Option<Instant>,
    /// Probes sent in it.
    pub probes: u32,
    /// When the last was sent.
    pub probed: Option<Instant>,
    /// When the last answer to the demanded number of probes could have come.
    pub enough: Option<Instant>,
}

#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a plain fact of its own"
)]
pub(crate) struct Peer {
    pub state: Liveness,
    /// From its last fresh answer; until then from any authentic frame.
    pub mac: Option<Mac>,
    pub node_address: Option<IpAddr>,
    pub believed: Option<bool>,
    pub legacy: bool,
    /// Kubernetes has it.
    pub listed: bool,
    /// Nonces of mine it has not answered, when they were sent, and how long I had stood still in all by then.
    nonces: VecDeque<(u32, Instant, Duration)>,
    /// The answer to what was sent before this tells no delay: it was down then.
    timed_from: Instant,
    pub answered: Option<Instant>,
    /// How many own stalls excused its silence since.
    pub excused: u32,
    /// Which of my introductions it answered last.
    pub answered_hello: Option<u32>,
    /// The last probe that counts for the watch.
    pub probed: Option<Instant>,
    pub next_probe: Instant,
    /// The highest nonce of its own seen, and which of the 64 up to it.
    highest: Option<(u32, u64)>,
    /// Its last frame that was new, and its last whose sender heard others.
    pub seen: Option<Instant>,
    pub seen_hearing: Option<Instant>,
    worst: (Duration, Duration, Instant),
    /// When its kernel last answered.
    pub kernel: Option<Instant>,
    pub suspicion: Option<Suspicion>,
    /// The last Ask about it: nonce and when; and which was vouched for.
    pub asked: Option<(u32, Instant)>,
    pub vouched_ask: Option<u32>,
    /// When I asked all about it.
    pub own_ask: Option<Instant>,
    /// Others hear it.
    pub vouched: Option<Instant>,
    /// I declared it down, with proof of hearing, and it has not noted so.
    pub declared: bool,
    /// Until when it counts as one that was away; and as one that had declared me down as well.
    pub returned: Option<Instant>,
    pub mutual: Option<Instant>,
    /// How often it was told, and the nonce of the last telling.
    pub told: (u32, Option<u32>),
    /// It does not hear me: its frames are its life.
    pub deaf: bool,
    /// Frames that make that suspected of it while it is down: the second, and the last.
    pub deaf_since: Option<(Option<Instant>, Instant)>,
    pub down_since: Option<Instant>,
    /// Never seen here, and something depends on whether it is there: how often all were asked about it in vain, when one
    /// vouched for it last, and the verdict: it is not on this segment, whatever gossip says.
    pub awaited: bool,
    pub sought: u32,
    pub spoken_for: Option<Instant>,
    pub absent: bool,
    /// How often it was down of late, and since when it is up.
    pub flaps: u32,
    pub up_since: Option<Instant>,
    /// Which address it was last told that is mine now.
    pub insisted: Option<IpAddr>,
    /// Since when it is looked for on this wire.
    pub known: Instant,
    /// The addresses last asked of it in turn.
    pub turn: [Option<IpAddr>; 2],
}

impl Peer {
    pub fn new(now: Instant) -> Self {
        Self {
            state: Liveness::Unknown,
            mac: None,
            node_address: None,
            believed: None,
            legacy: false,
            listed: false,
            nonces: VecDeque::new(),
            timed_from: now,
            answered: None,
            excused: 0,
            answered_hello: None,
            probed: None,
            next_probe: now,
            highest: None,
            seen: None,
            seen_hearing: None,
            worst: (Duration::ZERO, Duration::ZERO, now),
            kernel: None,
            suspicion: None,
            asked: None,
            vouched_ask: None,
            own_ask: None,
            vouched: None,
            declared: false,
            returned: None,
            mutual: None,
            told: (0, None),
            deaf: false,
            deaf_since: None,
            down_since: None,
            awaited: false,
            sought: 0,
            spoken_for: None,
            absent: false,
            flaps: 0,
            up_since: None,
            insisted: None,
            known: now,
            turn: [None; 2],
        }
    }

    /// The wire was lost: all it showed there, but for what tells new frames from repeated ones. Who was down still is, as
    /// far as anybody knows.
    pub fn forget(&mut self, now: Instant) {
        let down = self.state == Liveness::Down;
        *self = Self {
            state: if down {
                Liveness::Down
            } else {
                Liveness::Unknown
            },
            down_since: self.down_since.filter(|_| down),
            mac: self.mac.filter(|_| down),
            node_address: self.node_address,
            believed: self.believed,
            legacy: self.legacy,
            listed: self.listed,
            highest: self.highest,
            flaps: self.flaps,
            up_since: self.up_since,
            ..Self::new(now)
        };
    }

    pub fn learn(&mut self, facts: &PeerFacts) {
        self.node_address = facts.address;
        self.believed = facts.believed;
        self.legacy = facts.legacy;
        self.listed = true;
    }

    /// Whether it must be reckoned with: the wire where it ever proved itself, else gossip, else Kubernetes.
    pub fn alive(&self) -> bool {
        match self.state {
            Liveness::Up | Liveness::Suspect => true,
            Liveness::Down => false,
            Liveness::Unknown => !self.absent && self.believed.unwrap_or(self.listed),
        }
    }

    /// Whether gossip, which is all MetalLB goes by, has it alive.
    pub fn believed_alive(&self) -> bool {
        self.believed.unwrap_or(self.listed)
    }

    /// Whether it is there and should have shown itself on the wire, and never did: tags do not pass, or no frames.
    pub fn blind(&self, now: Instant) -> bool {
        self.state == Liveness::Unknown
            && self.mac.is_none()
            && !self.absent
            && self.believed == Some(true)
            && now > self.known + BLIND
    }

    /// Whether it is open whether it is on this segment.
    pub fn sought_for(&self) -> bool {
        self.state == Liveness::Unknown && !self.legacy && self.alive()
    }

    /// It showed itself, or may again: whether it is on this segment is open once more.
    pub fn expect(&mut self) {
        self.absent = false;
        self.sought = 0;
    }

    /// It is up and was not.
    pub fn returns(&mut self, was_down: bool, now: Instant) {
        if was_down {
            self.timed_from = now;
            let kept = self.up_since.is_some_and(|since| {
                let until = self.down_since.unwrap_or(now);
                until.saturating_duration_since(since) < FLAPS_KEPT
            });
            self.flaps = if kept {
                self.flaps.saturating_add(1)
            } else {
                1
            };
        }
        self.up_since = Some(now);
    }

    /// Until when nothing is handed back to it, because it came and went too often: from its second return on, twice the
    /// time of the one before.
    pub fn distrusted(&self, failback: Duration) -> Option<Instant> {
        let base = failback.max(Duration::from_secs(10));
        let times = 2_u32.pow(self.flaps.checked_sub(2)?.min(10) + 1);
        let wait = base.saturating_mul(times).min(FLAPS_MOST.max(failback));
        Some(self.up_since? + wait)
    }

    /// A probe with that nonce was sent; I have stood still for `still` in all.
    pub fn asks(&mut self, nonce: u32, now: Instant, still: Duration) {
        if self.nonces.len() == UNDER_WAY {
            self.nonces.pop_front();
        }
        self.nonces.push_back((nonce, now, still));
    }

    /// Whether `nonce` is one of mine that was not answered; it is now. Its delay is remembered unless it was down, when this is
    /// the first answer or when it was asked: who was away that long has lost what it held, and patience with it would only make
    /// its next loss last longer. For as long as I stood still myself, the answer waited for me: `still` is how long that was in all.
    pub fn answers(&mut self, nonce: u32, now: Instant, still: Duration) -> bool {
        let matches = |&(mine, sent, _): &(u32, Instant, _)| mine == nonce && now <= sent + FRESH;
        let Some(index) = self.nonces.iter().position(matches) else {
            return false;
        };
        if let Some((_, sent, before)) = self.nonces.remove(index)
            && self.state != Liveness::Down
            && sent >= self.timed_from
        {
            let mine = still.saturating_sub(before);
            let delay = now.saturating_duration_since(sent).saturating_sub(mine);
            let (current, former, since) = self.worst;
            self.worst = if now.saturating_duration_since(since) > WORST_KEPT {
                (delay, current, now)
            } else {
                (current.max(delay), former, since)
            };
        }
        true
    }

    /// Whether a nonce of its own was not seen before, and is not far behind the highest seen: wires change the order of
    /// frames. It is seen now.
    pub fn rises(&mut self, nonce: u32) -> bool {
        let Some((highest, seen)) = self.highest else {
            self.highest = Some((nonce, 1));
            return true;
        };
        let ahead = nonce.wrapping_sub(highest);
        if ahead != 0 && ahead < u32::MAX / 2 {
            self.highest = Some((nonce, seen.checked_shl(ahead).unwrap_or(0) | 1));
            return true;
        }
        let bit = 1_u64.checked_shl(highest.wrapping_sub(nonce)).unwrap_or(0);
        if bit == 0 || seen & bit != 0 {
            return false;
        }
        self.highest = Some((highest, seen | bit));
        true
    }

    /// From when on, and for how long, it must have been silent to be down.
    pub fn patience(
        &self,
        profile: &Profile,
        suspicion: &Suspicion,
        ask_kernel: bool,
    ) -> (Instant, Duration) {
        let answered = self.answered.unwrap_or(suspicion.since);
        let answered = suspicion
            .floor
            .map_or(answered, |floor| answered.max(floor));
        let (current, former, _) = self.worst;
        let calm = 4 * current.max(former);
        if !ask_kernel {
            (answered, profile.patience)
        } else if self.kernel_speaks(suspicion) {
            (
                answered.max(suspicion.since),
                calm.clamp(profile.starved, profile.starved_most),
            )
        } else if self.kernel.is_some() {
            (answered, profile.patience)
        } else {
            // Never heard its kernel: whether the node or only its speaker is silent cannot be told.
            (
                answered.max(suspicion.since),
                calm.clamp(profile.patience, profile.starved_most),
            )
        }
    }

    /// Whether its kernel answered since it was suspected.
    pub fn kernel_speaks(&self, suspicion: &Suspicion) -> bool {
        self.kernel.is_some_and(|at| at >= suspicion.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_and_only_to_my_nonce() {
        let now = Instant::now();
        let mut peer = Peer::new(now);
        let still = Duration::ZERO;
        peer.asks(7, now, still);
        assert!(!peer.answers(8, now, still));
        assert!(peer.answers(7, now, still));
        assert!(!peer.answers(7, now, still));
    }

    #[test]
    fn each_return_is_trusted_later_up_to_half_an_hour() {
        let start = Instant::now();
        let mut peer = Peer::new(start);
        peer.returns(false, start);
        let minutes = |peer: &Peer, now: Instant| {
            let until = peer.distrusted(Duration::from_mins(5));
            until.map_or(0, |until| (until - now).as_secs() / 60)
        };
        let waits: Vec<u64> = (1..8)
            .map(|cycle| {
                let now = start + Duration::from_mins(cycle);
                peer.down_since = Some(now);
                peer.returns(true, now);
                minutes(&peer, now)
            })
            .collect();
        assert_eq!(waits, [0, 10, 20, 30, 30, 30, 30]);
        let later = start + Duration::from_hours(2);
        peer.down_since = Some(later);
        peer.returns(true, later);
        assert_eq!(minutes(&peer, later), 0);
    }

    #[test]
    fn nonces_rise_also_around_the_corner() {
        let mut peer = Peer::new(Instant::now());
        assert!(peer.rises(u32::MAX));
        assert!(!peer.rises(u32::MAX));
        assert!(peer.rises(3));
        assert!(!peer.rises(u32::MAX));
        assert!(peer.rises(2));
        assert!(!peer.rises(2));
        assert!(peer.rises(80));
        assert!(!peer.rises(1));
        assert!(peer.rises(17));
    }

    #[test]
    fn the_worst_delay_is_kept_for_five_minutes_at_least_and_ten_at_most() {
        let start = Instant::now();
        let mut peer = Peer::new(start);
        let (suspicion, at) = (
            Suspicion {
                since: start,
                floor: None,
                probes: 0,
                probed: None,
                enough: None,
            },
            |s| start + Duration::from_secs(s),
        );
        let mut answer = |nonce, sent: Instant, delay| {
            peer.asks(nonce, sent, Duration::ZERO);
            assert!(peer.answers(nonce, sent + Duration::from_millis(delay), Duration::ZERO));
            peer.patience(&Profile::DEFAULT, &suspicion, true)
                .1
                .as_millis()
        };
        assert_eq!(answer(1, at(1), 1), 250);
        assert_eq!(answer(2, at(2), 200), 800);
        assert_eq!(answer(3, at(299), 1), 800);
        assert_eq!(answer(4, at(302), 1), 800);
        assert_eq!(answer(5, at(603), 1), 250);
    }

    #[test]
    fn neither_its_standstill_that_cost_the_addresses_nor_mine_earns_patience() {
        let now = Instant::now();
        let suspicion = Suspicion {
            since: now,
            floor: None,
            probes: 0,
            probed: None,
            enough: None,
        };
        let ms = Duration::from_millis;
        let answered_late = |state, mine| {
            let mut peer = Peer::new(now);
            peer.state = state;
            peer.asks(1, now, ms(3000));
            assert!(peer.answers(1, now + ms(400), ms(3000) + mine));
            peer.patience(&Profile::DEFAULT, &suspicion, true).1
        };
        assert_eq!(answered_late(Liveness::Suspect, ms(0)), ms(1600));
        assert_eq!(answered_late(Liveness::Suspect, ms(100)), ms(1200));
        let shortest = Profile::DEFAULT.patience;
        assert_eq!(answered_late(Liveness::Up, ms(390)), shortest);
        assert_eq!(answered_late(Liveness::Down, ms(0)), shortest);
        // What it was asked while it was down it answers all at once when it returns.
        let mut peer = Peer::new(now);
        peer.state = Liveness::Down;
        peer.asks(1, now, ms(0));
        peer.asks(2, now + ms(100), ms(0));
        let back = now + ms(1000);
        assert!(peer.answers(1, back, ms(0)));
        peer.state = Liveness::Up;
        peer.returns(true, back);
        assert!(peer.answers(2, back, ms(0)));
        assert_eq!(
            peer.patience(&Profile::DEFAULT, &suspicion, true).1,
            shortest
        );
    }
}
