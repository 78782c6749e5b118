//! One segment for each interface, started and ended as interfaces come and go.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrolb_speaker_arbiter::{Cause, PeerFacts, Report};
use ferrolb_speaker_responder::{Interface, Interfaces, Protocol, Tables};
use ferrolb_speaker_wire::MacAddr;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use super::segment::{News, Segment};
use super::{Settings, Standing, Told, Word};
use crate::interfaces::Own;
use crate::metrics::Metrics;

/// Standings told at once. Between them a segment sees to its deadlines.
const AT_ONCE: usize = 128;

/// A segment at work. It ends when this is dropped.
struct Running {
    interface: Interface,
    news: mpsc::UnboundedSender<News>,
    task: Id,
}

/// The first pause before an arbiter that fell is started again; doubled each time up to the longest. Falls are forgotten when
/// it has run for so long.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
const FORGOTTEN: Duration = Duration::from_mins(10);

/// An arbiter that fell.
struct Fallen {
    /// How often in a row.
    times: u32,
    /// Until when it rests.
    until: Instant,
}

pub(super) struct Segments {
    settings: Settings,
    tables: Tables,
    metrics: Metrics,
    told: mpsc::UnboundedSender<Told>,
    running: BTreeMap<NonZeroU32, Running>,
    /// Segments that have been told to end. One that follows on the same interface waits for that: they share a table.
    ending: HashMap<Id, NonZeroU32>,
    /// Interfaces whose arbiter fell of late.
    fallen: HashMap<NonZeroU32, Fallen>,
    tasks: JoinSet<()>,
    wanted: Interfaces,
    /// The hardware addresses of all this node's interfaces, as the kernel told last; and these with those of `wanted`.
    all_own: Own,
    own: Own,
    /// For segments that start later; none before the first word about it.
    peers: Option<Vec<PeerFacts>>,
    /// The process ends: what starts now would take what nobody hands over.
    stopping: bool,
    /// None before the first word about them. Until then nothing starts: a speaker that answers its peers' probes and can
    /// take nothing yet would be waited for where a silent one is replaced.
    standings: Option<HashMap<IpAddr, Standing>>,
}

/// Tells a segment who may answer for all addresses, some at a time.
fn tell<'a>(
    news: &mpsc::UnboundedSender<News>,
    standings: impl Iterator<Item = (&'a IpAddr, &'a Standing)>,
) {
    let all: Vec<_> = standings
        .map(|(address, standing)| (*address, Some(standing.clone())))
        .collect();
    for some in all.chunks(AT_ONCE) {
        let _ended = news.send(News::Standings(some.to_vec()));
    }
}

/// Until then; for ever without a time.
async fn resting(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

impl Segments {
    pub(super) fn new(
        settings: Settings,
        tables: Tables,
        metrics: Metrics,
        told: mpsc::UnboundedSender<Told>,
    ) -> Self {
        Self {
            settings,
            tables,
            metrics,
            told,
            running: BTreeMap::new(),
            ending: HashMap::new(),
            fallen: HashMap::new(),
            tasks: JoinSet::new(),
            wanted: Interfaces::new(),
            all_own: Own::default(),
            own: Own::default(),
            peers: None,
            stopping: false,
            standings: None,
        }
    }

    /// Runs until nobody has words any more.
    pub(super) async fn run(
        mut self,
        mut interfaces: watch::Receiver<Interfaces>,
        mut own: watch::Receiver<Own>,
        mut words: mpsc::UnboundedReceiver<Word>,
    ) {
        let (mut followed, mut told) = (true, true);
        interfaces.mark_changed();
        own.mark_changed();
        loop {
            let next_start = self.next_start();
            tokio::select! {
                changed = interfaces.changed(), if followed => {
                    // The sender goes first when the process stops: then what is open stays until the end.
                    followed = changed.is_ok();
                    self.wanted = interfaces.borrow_and_update().clone();
                    self.match_interfaces();
                }
                changed = own.changed(), if told => {
                    told = changed.is_ok();
                    self.all_own = own.borrow_and_update().clone();
                    self.match_own();
                }
                word = words.recv() => match word {
                    Some(Word::End) | None => break,
                    Some(word) => self.pass_on(word),
                },
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                () = resting(next_start) => self.start_missing(),
            }
        }
        // They let everything go, which ends the answering.
        self.running.clear();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends segments whose interface is gone or another now, and starts those that are missing.
    fn match_interfaces(&mut self) {
        self.match_own();
        let (wanted, standings) = (&self.wanted, &self.standings);
        let ending = &mut self.ending;
        self.running.retain(|index, running| {
            let same = wanted.get(index).filter(|wanted| {
                wanted.name == running.interface.name && wanted.mac == running.interface.mac
            });
            if let Some(now) = same
                && *now != running.interface
            {
                let spoken = |one: &Interface| Protocol::ALL.map(|protocol| protocol.fits(one));
                let others = spoken(now) != spoken(&running.interface);
                running.interface = now.clone();
                let _ended = running.news.send(News::Interface(now.clone()));
                if others {
                    tell(&running.news, standings.iter().flatten());
                }
            }
            if same.is_none() {
                ending.insert(running.task, *index);
            }
            same.is_some()
        });
        self.start_missing();
    }

    /// Tells the segments which hardware addresses are this node's.
    fn match_own(&mut self) {
        let announced = self.wanted.values().map(|one| one.mac);
        let own: HashSet<MacAddr> = announced.chain(self.all_own.iter().copied()).collect();
        if *self.own != own {
            self.own = Arc::new(own);
            for running in self.running.values() {
                let _ended = running.news.send(News::Own(self.own.clone()));
            }
        }
    }

    fn start_missing(&mut self) {
        let missing: Vec<Interface> = self
            .wanted
            .values()
            .filter(|interface| self.missing(interface.index) && !self.rests(interface.index))
            .cloned()
            .collect();
        for interface in missing {
            self.start(interface);
        }
    }

    fn start(&mut self, interface: Interface) {
        let (news, queue) = mpsc::unbounded_channel();
        let segment = Segment::new(
            interface.clone(),
            self.own.clone(),
            self.settings.clone(),
            self.tables.of(interface.index),
            self.metrics.clone(),
            self.told.clone(),
        );
        let task = self.tasks.spawn(segment.run(queue)).id();
        if let Some(peers) = &self.peers {
            let _waits = news.send(News::Peers(peers.clone()));
        }
        let _waits = news.send(News::Interface(interface.clone()));
        tell(&news, self.standings.iter().flatten());
        self.running.insert(
            interface.index,
            Running {
                interface,
                news,
                task,
            },
        );
    }

    fn pass_on(&mut self, word: Word) {
        let all = self.running.values();
        match word {
            Word::Peers(peers) => {
                for running in all {
                    let _ended = running.news.send(News::Peers(peers.clone()));
                }
                self.peers = Some(peers);
            }
            Word::Standings(standings) => {
                for running in all {
                    for some in standings.chunks(AT_ONCE) {
                        let _ended = running.news.send(News::Standings(some.to_vec()));
                    }
                }
                let known = self.standings.get_or_insert_default();
                for (address, standing) in standings {
                    match standing {
                        Some(standing) => known.insert(address, standing),
                        None => known.remove(&address),
                    };
                }
                self.start_missing();
            }
            Word::Wish(address, wish) => {
                for running in all {
                    let _ended = running.news.send(News::Wish(address, wish));
                }
            }
            Word::Stop(stopping) => {
                self.stopping = true;
                for running in all {
                    let _ended = running.news.send(News::Stop(stopping.clone()));
                }
            }
            Word::End => {}
        }
    }

    /// A segment ended. One that panicked is a fault, and starts again knowing nothing.
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        self.ending.remove(&id);
        let fallen = self.running.iter().find(|(_, one)| one.task == id);
        if let Some(index) = fallen.map(|(index, _)| *index)
            && let Some(fallen) = self.running.remove(&index)
        {
            self.metrics.wire.restarts.inc();
            let pause = self.rest(index);
            if let Err(fault) = ended {
                tracing::error!(op = "arbitrate", interface = fallen.interface.name, error = %fault, bug = "true",
                    retry = ?pause, "an arbiter fell, starting it again after a pause");
            }
            self.clear(index, &fallen.interface.name);
        }
        self.start_missing();
    }

    /// The arbiter of this interface fell: how long it rests before it starts again.
    fn rest(&mut self, index: NonZeroU32) -> Duration {
        let now = Instant::now();
        let times = self
            .fallen
            .get(&index)
            .filter(|fallen| now < fallen.until + FORGOTTEN)
            .map_or(0, |fallen| fallen.times);
        let pause = LONGEST.min(SHORTEST * 2_u32.saturating_pow(times.min(16)));
        let until = now + pause;
        let times = times.saturating_add(1);
        self.fallen.insert(index, Fallen { times, until });
        pause
    }

    fn rests(&self, index: NonZeroU32) -> bool {
        let fallen = self.fallen.get(&index);
        fallen.is_some_and(|fallen| Instant::now() < fallen.until)
    }

    /// Whether there should be an arbiter for the interface and is none. None starts while the last one ends, or the process.
    fn missing(&self, index: NonZeroU32) -> bool {
        !self.stopping
            && self.standings.is_some()
            && self.wanted.contains_key(&index)
            && !self.running.contains_key(&index)
            && !self.ending.values().any(|ending| *ending == index)
    }

    /// When the next arbiter that is missing has rested.
    fn next_start(&self) -> Option<Instant> {
        let wanted = self
            .fallen
            .iter()
            .filter(|(index, _)| self.missing(**index));
        wanted.map(|(_, fallen)| fallen.until).min()
    }

    /// Lets go what a fallen segment held.
    fn clear(&self, index: NonZeroU32, name: &str) {
        let table = self.tables.of(index);
        table.mute(false);
        table.promise(None);
        table.overheard().close();
        let released = table.clear().into_iter().map(|address| Report::Released {
            address,
            cause: Cause::LinkDown,
            to: None,
        });
        for report in released.map(Some).chain([None]) {
            let interface = name.to_owned();
            let at = Instant::now();
            let _the_process_ends = self.told.send(Told {
                interface,
                at,
                report,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_speaker_arbiter::{Key, NodeId, Profile};

    use super::*;
    use ferrolb_speaker_responder::lab::{VIP, in_lab};

    /// Input: an arbiter that panics, as one would on a frame it cannot bear, while it holds an address.
    /// Output: the address is let go, the fall is counted, and the interface has another arbiter.
    #[test]
    fn an_arbiter_that_falls_lets_go_and_is_replaced() {
        in_lab(|lab| async move {
            let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
            let settings = Settings {
                me: NodeId::of("me"),
                profile: Profile::QUIET,
                key: Key::new(b"secret").unwrap(),
            };
            let (tell, mut told) = mpsc::unbounded_channel();
            let tables = Tables::default();
            let mut segments = Segments::new(settings, tables.clone(), metrics.clone(), tell);
            let index = lab.near.index;
            let table = tables.of(index);
            table.insert(VIP.into(), metrics.held(VIP.into()));
            table.mute(true);
            let task = segments
                .tasks
                .spawn(async { panic!("a frame nobody can bear") });
            let running = Running {
                interface: lab.near.clone(),
                news: mpsc::unbounded_channel().0,
                task: task.id(),
            };
            segments.running.insert(index, running);
            segments.wanted = Interfaces::from([(index, lab.near)]);
            segments.standings = Some(HashMap::new());

            let ended = segments.tasks.join_next_with_id().await.unwrap();
            segments.ended(ended);
            assert!(table.open().is_some() && !table.holds(VIP.into()));
            assert_eq!(metrics.wire.restarts.get(), 1);
            let (first, last) = (told.recv().await.unwrap(), told.recv().await.unwrap());
            assert_eq!((first.interface.as_str(), last.report), ("near", None));
            let released = Report::Released {
                address: VIP.into(),
                cause: Cause::LinkDown,
                to: None,
            };
            assert_eq!(first.report, Some(released));
            assert!(segments.running.is_empty() && segments.rests(index));
            resting(segments.next_start()).await;
            segments.start_missing();
            assert!(segments.running.contains_key(&index) && segments.tasks.len() == 1);
            // Each fall is answered later, up to half a minute.
            let pauses: Vec<_> = (0..12).map(|_| segments.rest(index).as_millis()).collect();
            assert_eq!((pauses[0], pauses[1], pauses[11]), (200, 400, 30_000));
            // None is waited for where none may start.
            let running = segments.running.remove(&index).unwrap();
            assert!(segments.next_start().is_some());
            segments.ending.insert(running.task, index);
            assert_eq!(segments.next_start(), None);
            segments.ending.clear();
            segments.stopping = true;
            assert_eq!(segments.next_start(), None);
        });
    }
}
