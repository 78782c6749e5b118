//! This node's part in the speakers' gossip: who of them is there, in seconds rather than in the minute Kubernetes takes.
//! MetalLB's speakers (0.9 and newer) take part in the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use ferrolb_speaker_core::{Members, SpeakerPod};
use ferrolb_speaker_members_driver::{Gossip, Settings, Snapshot};
use tokio::sync::{mpsc, watch as latest};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::sources::Input;

/// What our speakers say of themselves, by which they know each other. MetalLB's say nothing.
pub const MARK: &[u8] = b"ferrolb/1";

/// How often pods that are no members are asked to let us in. MetalLB asks every minute.
const JOIN: Duration = Duration::from_secs(10);
/// The pause before another try where the port is taken, as by the speaker we replace.
const BIND: Duration = Duration::from_secs(2);
/// How long a speaker that fell silent counts as gone for gossip's sake. Kubernetes has noticed by then if its node is
/// dead; if it has not, it is the gossip that is broken, and two nodes that take each other for dead both answer.
const GONE: Duration = Duration::from_mins(3);
/// The longest a goodbye may take; memberlist's takes a second at most.
const GOODBYE: Duration = Duration::from_secs(2);

/// Takes part until told to stop, and says goodbye then. `gone` is dropped when that is done.
pub async fn follow(
    settings: impl Fn() -> Option<Settings>,
    mut peers: latest::Receiver<Vec<SpeakerPod>>,
    sink: mpsc::Sender<Input>,
    stop: CancellationToken,
    gone: mpsc::Sender<()>,
) {
    let Some((gossip, me, port)) = join(settings, &stop).await else {
        // Switched off, or told to stop: not ours to end the process.
        drop(gone);
        return sink.closed().await;
    };
    let mut members = gossip.members();
    let mut believed = Believed::default();
    let mut told = Members::default();
    loop {
        let others: Vec<SocketAddr> = {
            let pods = peers.borrow_and_update();
            let addresses = pods.iter().filter_map(|pod| pod.address);
            addresses
                .map(|address| SocketAddr::new(address, port))
                .collect()
        };
        let snapshot = members.borrow_and_update().clone();
        let strangers: Vec<SocketAddr> = others
            .into_iter()
            .filter(|peer| !snapshot.has_live(*peer))
            .collect();
        if !strangers.is_empty() {
            gossip.join(strangers);
        }
        let next = sleep(JOIN);
        tokio::pin!(next);
        // Until it is time to join again, or somebody new is there to be joined.
        loop {
            let snapshot = members.borrow_and_update().clone();
            let now = believed.update(&snapshot, &me, Instant::now());
            if now != told {
                tell(&told, &now);
                told.clone_from(&now);
                if sink.send(Input::Members(now)).await.is_err() {
                    break;
                }
            }
            tokio::select! {
                changed = members.changed() => if changed.is_err() {
                    tracing::error!(op = "gossip", "the gossip ended by itself, the Nodes' readiness decides");
                    let _ = sink.send(Input::Members(Members::default())).await;
                    drop(gone);
                    return sink.closed().await;
                },
                Ok(()) = peers.changed() => break,
                () = &mut next => break,
                () = stop.cancelled() => {
                    if tokio::time::timeout(GOODBYE, gossip.leave()).await.is_err() {
                        tracing::warn!(op = "gossip", "the goodbye was not heard in time");
                    }
                    drop(gone);
                    return sink.closed().await;
                }
            }
        }
    }
}

/// Becomes a member, as soon as the port is free. None where there is to be no gossip.
async fn join(
    settings: impl Fn() -> Option<Settings>,
    stop: &CancellationToken,
) -> Option<(Gossip, String, u16)> {
    let mut said = false;
    loop {
        let settings = settings()?;
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
            Err(error) if !said => {
                tracing::error!(op = "gossip", %error, "cannot take part, trying again; the Nodes' readiness decides meanwhile");
            }
            Err(_) => {}
        }
        said = true;
        tokio::select! {
            () = sleep(BIND) => {}
            () = stop.cancelled() => return None,
        }
    }
}

/// One line for each node whose speaker came or went.
fn tell(before: &Members, now: &Members) {
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
            present = now.metallb,
            "while speakers of MetalLB are members, gossip alone says who lives, as for them"
        );
    }
}

/// What is made of the members over time.
#[derive(Debug, Default)]
struct Believed {
    /// Since when somebody who was there is not. memberlist forgets its dead within a minute, which is sooner than
    /// Kubernetes notices them.
    gone: BTreeMap<String, Instant>,
    /// Who was ever there.
    live: BTreeSet<String>,
}

impl Believed {
    fn update(&mut self, snapshot: &Snapshot, me: &str, now: Instant) -> Members {
        let live: BTreeSet<String> = snapshot.live().map(str::to_owned).collect();
        for name in self.live.difference(&live) {
            self.gone.entry(name.clone()).or_insert(now);
        }
        self.gone
            .retain(|name, since| !live.contains(name) && now.duration_since(*since) < GONE);
        let others = snapshot.members.values();
        let metallb = others
            .filter(|member| member.status.is_live() && member.name != me)
            .any(|member| !member.meta.starts_with(b"ferrolb/"));
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
    use ferrolb_speaker_members::{Member, Status};

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
        let later = start + GONE - Duration::from_secs(1);
        assert_eq!(names(&believed.update(&alone, "a", later).gone), ["b"]);
        assert!(believed.update(&alone, "a", start + GONE).gone.is_empty());
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
        assert!(believed.update(&mixed, "a", Instant::now()).metallb);
        let gone = snapshot(&[("a", Status::Alive, MARK), ("b", Status::Left, b"")]);
        assert!(!believed.update(&gone, "a", Instant::now()).metallb);
        // Whatever is known of ourselves.
        let me = snapshot(&[("a", Status::Alive, b"")]);
        assert!(!believed.update(&me, "a", Instant::now()).metallb);
    }
}
