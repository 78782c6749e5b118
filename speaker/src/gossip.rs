//! This node's part in the speakers' gossip: who of them is there, in seconds rather than in the minute Kubernetes takes.
//! MetalLB's speakers (0.9 and newer) take part in the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use ferrolb_speaker_core::{Members, SpeakerPod};
use ferrolb_speaker_members::Status;
use ferrolb_speaker_members_driver::{Gossip, Settings, Snapshot};
use tokio::sync::{mpsc, watch as latest};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::args::ArgsError;
use crate::sources::Input;

/// What our speakers say of themselves, by which they know each other. MetalLB's say nothing.
pub const MARK: &[u8] = b"ferrolb/1";

/// How often pods that are no members are asked to let us in. MetalLB asks every minute.
const JOIN: Duration = Duration::from_secs(10);
/// How long the first answers are waited for before anything is decided: whoever decides alone, in a cluster of others,
/// answers beside them.
const FIRST: Duration = Duration::from_secs(2);
/// The pause before another try where the port is taken, as by the speaker we replace.
const BIND: Duration = Duration::from_secs(2);
/// How long a speaker that fell silent counts as gone for gossip's sake. Kubernetes has noticed by then if its node is
/// dead; if it has not, it is the gossip that is broken, and two nodes that take each other for dead both answer.
const SILENT: Duration = Duration::from_secs(75);
/// The same for one that said goodbye: Kubernetes knows of the end of a pod in a moment, and of its successor.
const LEFT: Duration = Duration::from_secs(10);
/// The longest a goodbye may take; memberlist's takes a second at most.
const GOODBYE: Duration = Duration::from_secs(2);

/// Takes part until told to stop, and says goodbye then. `gone` is dropped when that is done. `settings` are read again at
/// each try; `None`: there is no gossip.
pub async fn follow(
    settings: impl Fn() -> Result<Option<Settings>, ArgsError>,
    peers: latest::Receiver<Vec<SpeakerPod>>,
    sink: mpsc::Sender<Input>,
    stop: CancellationToken,
    gone: mpsc::Sender<()>,
) {
    let joined = join(settings, &sink, &stop).await;
    if let Some((gossip, me, port)) = joined {
        let mut part = Part {
            gossip,
            port,
            me,
            peers,
            sink: sink.clone(),
            believed: Believed::default(),
            told: None,
        };
        match part.take(&stop).await {
            End::Stopped => {
                if timeout(GOODBYE, part.gossip.leave()).await.is_err() {
                    tracing::warn!(op = "gossip", "the goodbye was not heard in time");
                }
            }
            End::Broken => {
                tracing::error!(
                    op = "gossip",
                    "it ended by itself, Nodes and pods alone tell who is there"
                );
                let _ = sink.send(Input::Members(Members::default())).await;
            }
            End::Unheard => {}
        }
    }
    drop(gone);
    // Whoever ends the process, it is not us.
    sink.closed().await;
}

/// Becomes a member, as soon as the port is free. None where there is to be no gossip.
async fn join(
    settings: impl Fn() -> Result<Option<Settings>, ArgsError>,
    sink: &mpsc::Sender<Input>,
    stop: &CancellationToken,
) -> Option<(Gossip, String, u16)> {
    let mut said = false;
    loop {
        let problem = match settings() {
            Ok(None) => {
                let _ = sink.send(Input::Members(Members::default())).await;
                return None;
            }
            Ok(Some(settings)) => {
                let (me, port) = (settings.node_name.clone(), settings.bind.port());
                if settings.key.is_none() && !said {
                    tracing::warn!(
                        op = "gossip",
                        "not encrypted; give the speakers a secret (METALLB_ML_SECRET_KEY or --ml-secret-key-path)"
                    );
                }
                match Gossip::start(settings).await {
                    Ok(gossip) => {
                        tracing::info!(op = "gossip", address = %gossip.local_addr(), "listening");
                        return Some((gossip, me, port));
                    }
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        if !said {
            said = true;
            tracing::error!(
                op = "gossip",
                error = problem,
                "cannot take part, trying again; Nodes and pods alone tell who is there meanwhile"
            );
            if sink.send(Input::Members(Members::default())).await.is_err() {
                return None;
            }
        }
        tokio::select! {
            () = sleep(BIND) => {}
            () = stop.cancelled() => return None,
        }
    }
}

/// Why taking part has ended.
enum End {
    /// We were told to.
    Stopped,
    /// The gossip itself has ended.
    Broken,
    /// Nobody listens to us.
    Unheard,
}

/// Our part in the gossip.
struct Part {
    gossip: Gossip,
    me: String,
    /// Everybody's port.
    port: u16,
    peers: latest::Receiver<Vec<SpeakerPod>>,
    sink: mpsc::Sender<Input>,
    believed: Believed,
    /// What was told last.
    told: Option<Members>,
}

impl Part {
    async fn take(&mut self, stop: &CancellationToken) -> End {
        let mut members = self.gossip.members();
        let mut ask = interval(JOIN);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let first = sleep(FIRST);
        tokio::pin!(first);
        loop {
            let snapshot = members.borrow_and_update().clone();
            let now = self.believed.update(&snapshot, &self.me, Instant::now());
            // The first word waits for the others', if there are any.
            if self.told.is_some() || first.is_elapsed() || self.among_others(&snapshot) {
                let news = self.told.as_ref() != Some(&now);
                if news && self.tell(now).await.is_none() {
                    return End::Unheard;
                }
            }
            tokio::select! {
                changed = members.changed() => if changed.is_err() {
                    return End::Broken;
                },
                Ok(()) = self.peers.changed() => self.ask(&snapshot),
                _ = ask.tick() => self.ask(&snapshot),
                () = &mut first, if !first.is_elapsed() => {}
                () = stop.cancelled() => return End::Stopped,
            }
        }
    }

    /// Everybody whose pod is known is there, or at least somebody.
    fn among_others(&self, snapshot: &Snapshot) -> bool {
        let others = snapshot.live().filter(|name| *name != self.me).count();
        let pods = self.peers.borrow();
        let alone = !pods.is_empty() && pods.iter().all(|pod| pod.node == self.me);
        others > 0 || alone
    }

    /// Asks the pods that are no members to let us in.
    fn ask(&mut self, snapshot: &Snapshot) {
        let strangers: Vec<SocketAddr> = {
            let pods = self.peers.borrow_and_update();
            let addresses = pods.iter().filter_map(|pod| pod.address);
            let peers = addresses.map(|address| SocketAddr::new(address, self.port));
            peers.filter(|peer| !snapshot.has_live(*peer)).collect()
        };
        if !strangers.is_empty() {
            self.gossip.join(strangers);
        }
    }

    async fn tell(&mut self, now: Members) -> Option<()> {
        let before = self.told.take().unwrap_or_default();
        log(&before, &now);
        self.told = Some(now.clone());
        self.sink.send(Input::Members(now)).await.ok()
    }
}

/// One line for each node whose speaker came or went.
fn log(before: &Members, now: &Members) {
    for node in now.live.difference(&before.live) {
        tracing::info!(event = "memberJoined", node, "its speaker is there");
    }
    for node in now.gone.difference(&before.gone) {
        tracing::warn!(
            event = "memberGone",
            node,
            "its speaker said goodbye or fell silent"
        );
    }
    if now.metallb != before.metallb {
        tracing::info!(
            event = "metallbMembers",
            nodes = ?now.metallb,
            "while speakers of MetalLB are members, gossip alone says who lives, as for them"
        );
    }
}

/// What is made of the members over time.
#[derive(Debug, Default)]
struct Believed {
    /// Until when somebody who was there counts as gone. memberlist forgets its dead within a minute, which is sooner
    /// than Kubernetes notices them.
    gone: BTreeMap<String, Instant>,
    /// Who was there last.
    live: BTreeSet<String>,
}

impl Believed {
    fn update(&mut self, snapshot: &Snapshot, me: &str, now: Instant) -> Members {
        let live: BTreeSet<String> = snapshot.live().map(str::to_owned).collect();
        for name in self.live.difference(&live) {
            let status = snapshot.members.get(name).map(|member| member.status);
            let long = if status == Some(Status::Left) {
                LEFT
            } else {
                SILENT
            };
            self.gone.entry(name.clone()).or_insert(now + long);
        }
        self.gone
            .retain(|name, until| !live.contains(name) && now < *until);
        let others = snapshot.members.values();
        let metallb = others
            .filter(|member| member.status.is_live() && member.name != me)
            .filter(|member| !member.meta.starts_with(b"ferrolb/"))
            .map(|member| member.name.clone())
            .collect();
        self.live.clone_from(&live);
        Members {
            live,
            gone: self.gone.keys().cloned().collect(),
            metallb,
        }
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_speaker_members::Member;

    use super::*;

    fn snapshot(members: &[(&str, Status, &[u8])]) -> Snapshot {
        let each = members.iter().map(|(name, status, meta)| {
            let member = Member {
                name: (*name).into(),
                addr: [10, 0, 0, 1].into(),
                port: 7946,
                meta: meta.to_vec(),
                status: *status,
            };
            (member.name.clone(), member)
        });
        Snapshot {
            members: each.collect(),
            health_score: 0,
        }
    }

    fn names(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    #[test]
    fn the_dead_are_remembered_until_kubernetes_must_know() {
        let start = Instant::now();
        let mut believed = Believed::default();
        let both = snapshot(&[("a", Status::Alive, MARK), ("b", Status::Suspect, MARK)]);
        let members = believed.update(&both, "a", start);
        assert_eq!(names(&members.live), ["a", "b"]);
        let dead = snapshot(&[("a", Status::Alive, MARK), ("b", Status::Dead, MARK)]);
        assert_eq!(names(&believed.update(&dead, "a", start).gone), ["b"]);
        // Forgotten by memberlist, not by us.
        let alone = snapshot(&[("a", Status::Alive, MARK)]);
        let later = start + SILENT.saturating_sub(Duration::from_secs(1));
        assert_eq!(names(&believed.update(&alone, "a", later).gone), ["b"]);
        assert!(believed.update(&alone, "a", start + SILENT).gone.is_empty());
    }

    #[test]
    fn a_goodbye_is_forgotten_as_soon_as_kubernetes_knows() {
        let start = Instant::now();
        let mut believed = Believed::default();
        believed.update(&snapshot(&[("b", Status::Alive, MARK)]), "a", start);
        let left = snapshot(&[("b", Status::Left, MARK)]);
        assert_eq!(names(&believed.update(&left, "a", start).gone), ["b"]);
        assert!(believed.update(&left, "a", start + LEFT).gone.is_empty());
    }

    #[test]
    fn who_returns_is_gone_no_more() {
        let now = Instant::now();
        let mut believed = Believed::default();
        believed.update(&snapshot(&[("b", Status::Alive, MARK)]), "a", now);
        believed.update(&snapshot(&[("b", Status::Left, MARK)]), "a", now);
        let members = believed.update(&snapshot(&[("b", Status::Alive, MARK)]), "a", now);
        assert!(members.gone.is_empty() && members.live.contains("b"));
    }

    #[test]
    fn somebody_dead_from_the_first_is_never_taken_for_gone() {
        let mut believed = Believed::default();
        let dead = snapshot(&[("b", Status::Dead, MARK)]);
        assert_eq!(
            believed.update(&dead, "a", Instant::now()),
            Members::default()
        );
    }

    #[test]
    fn metallb_is_known_by_saying_nothing_of_itself() {
        let mut believed = Believed::default();
        let mixed = snapshot(&[("a", Status::Alive, MARK), ("b", Status::Alive, b"")]);
        assert_eq!(
            names(&believed.update(&mixed, "a", Instant::now()).metallb),
            ["b"]
        );
        let gone = snapshot(&[("a", Status::Alive, MARK), ("b", Status::Left, b"")]);
        assert!(
            believed
                .update(&gone, "a", Instant::now())
                .metallb
                .is_empty()
        );
        // Whatever is known of ourselves.
        let me = snapshot(&[("a", Status::Alive, b"")]);
        assert!(believed.update(&me, "a", Instant::now()).metallb.is_empty());
    }
}
