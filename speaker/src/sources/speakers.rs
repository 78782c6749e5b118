//! The speakers' pods: watched where that is allowed, listed again and again where only that is, and unknown where not
//! even that is.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_config::ObjectName;
use ferrolb_runtime::object::{self, Object};
use ferrolb_runtime::watch::{Change, try_to_follow};
use ferrolb_speaker_core::SpeakerPod;
use k8s_openapi::api::core::v1 as core;
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch as latest};
use tokio::time::{Instant, sleep, timeout};

use super::Input;
use crate::translate;

/// How often pods are listed that may not be watched: MetalLB's Role `pod-lister` grants only `list` (0.9 to 0.12). The
/// API server answers from its cache.
const POLL: Duration = Duration::from_secs(1);

/// Up to so many pods. Every speaker asks for all of them, so beyond that the pause grows with their number.
const POLLED_QUICKLY: usize = 100;

/// How often pods are asked for that are known to be refused.
const UNKNOWN: Duration = Duration::from_secs(30);

/// The pause after a list that failed otherwise.
const FAILED: Duration = Duration::from_secs(5);

/// How long a list may take.
const ANSWER: Duration = Duration::from_secs(10);

/// How long pods are listed before the watch is tried again: it may have been refused by an API server that had just
/// started, or be granted by now.
const WATCH_AGAIN: Duration = Duration::from_mins(5);

/// How long pods that were had before must be refused to be given up: operators change RBAC in steps, API servers start.
const GIVEN_UP: Duration = Duration::from_mins(2);

/// Follows the speakers' pods until nobody listens. `peers` are the ones last known.
pub async fn speakers(
    client: Client,
    namespace: String,
    labels: String,
    peers: latest::Sender<Vec<SpeakerPod>>,
    sink: mpsc::Sender<Input>,
) {
    let mut follower = Follower {
        api: object::within::<core::Pod>(client, &namespace),
        labels,
        peers,
        sink,
        told: Told::Nothing,
        refused_since: None,
        failing: false,
        said: false,
    };
    // The first watch has all the time it needs: where the API server is away, it is to be waited for.
    let mut patience = None;
    while follower.watch(patience).await.is_some() && follower.poll().await.is_some() {
        patience = Some(ANSWER);
    }
}

/// What was last told of the pods.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Known,
    Unknown,
}

struct Follower {
    api: Api<Object>,
    labels: String,
    /// Whom gossip may ask to let it in.
    peers: latest::Sender<Vec<SpeakerPod>>,
    sink: mpsc::Sender<Input>,
    told: Told,
    /// The first of the refusals in a row.
    refused_since: Option<Instant>,
    /// The last list failed.
    failing: bool,
    /// That they are polled was said.
    said: bool,
}

impl Follower {
    /// Watches until that is refused, or until a list is not complete within `patience`. None if nobody listens.
    async fn watch(&mut self, patience: Option<Duration>) -> Option<()> {
        let (changes, mut seen) = mpsc::channel(64);
        let filter = watcher::Config::default().labels(&self.labels);
        let following = try_to_follow(
            self.api.clone(),
            filter,
            "pods",
            translate::speaker,
            |change| change,
            changes,
        );
        let telling = async {
            let mut pods: BTreeMap<ObjectName, SpeakerPod> = BTreeMap::new();
            let mut listed = false;
            loop {
                let change = match patience.filter(|_| !listed) {
                    None => seen.recv().await,
                    Some(patience) => match timeout(patience, seen.recv()).await {
                        Ok(change) => change,
                        Err(_) => return Some(()),
                    },
                };
                match change {
                    Some(Change::Applied(name, Some(pod))) => {
                        pods.insert(name, pod);
                    }
                    Some(Change::Applied(name, None) | Change::Deleted(name)) => {
                        pods.remove(&name);
                    }
                    Some(Change::Synced) => listed = true,
                    Some(Change::Unavailable(_)) | None => return Some(()),
                }
                if listed {
                    self.known(pods.values().cloned().collect()).await?;
                }
            }
        };
        tokio::select! {
            () = following => Some(()),
            told = telling => told,
        }
    }

    /// Lists again and again until it is time to try the watch once more. None if nobody listens.
    async fn poll(&mut self) -> Option<()> {
        let began = Instant::now();
        let params = ListParams::default().labels(&self.labels).match_any();
        while began.elapsed() < WATCH_AGAIN {
            let answer = timeout(ANSWER, self.api.list(&params)).await;
            let pause = match answer {
                Ok(Ok(list)) => {
                    self.say_polling();
                    let read = list.items.iter().map(Object::read);
                    match read.collect::<Result<Vec<_>, _>>() {
                        Ok(pods) => {
                            let pods = pods.into_iter().filter_map(translate::speaker);
                            let pods: Vec<_> = pods.collect();
                            let share = pods.len() / POLLED_QUICKLY;
                            self.known(pods).await?;
                            POLL.saturating_mul(u32::try_from(share).unwrap_or(u32::MAX).max(1))
                        }
                        Err(error) => self.failed(&error.to_string()),
                    }
                }
                Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403 | 404) => {
                    self.refused().await?;
                    match self.told {
                        Told::Unknown => UNKNOWN,
                        Told::Nothing | Told::Known => POLL,
                    }
                }
                Ok(Err(error)) => self.failed(&error.to_string()),
                Err(_) => self.failed("no answer within 10 s"),
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.sink.closed() => return None,
            }
        }
        Some(())
    }

    fn say_polling(&mut self) {
        if !self.said {
            tracing::info!(
                op = "watch",
                resource = "pods",
                poll_s = POLL.as_secs(),
                "speakers' pods may be listed but not watched, listing them again and again"
            );
            self.said = true;
        }
    }

    /// They were had.
    async fn known(&mut self, pods: Vec<SpeakerPod>) -> Option<()> {
        if self.told == Told::Unknown {
            tracing::info!(
                op = "watch",
                resource = "pods",
                "speakers' pods are known again"
            );
        }
        self.told = Told::Known;
        self.refused_since = None;
        self.failing = false;
        self.peers.send_if_modified(|known| {
            let news = *known != pods;
            if news {
                known.clone_from(&pods);
            }
            news
        });
        self.sink.send(Input::Speakers(Some(pods))).await.ok()
    }

    /// RBAC refused them. Where they were never had nothing changes by saying so; where they were, every address might
    /// change its owner, so what is known stays unless the refusal lasts.
    async fn refused(&mut self) -> Option<()> {
        self.failing = false;
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        let settled = match self.told {
            Told::Nothing => false,
            Told::Known => since.elapsed() < GIVEN_UP,
            Told::Unknown => true,
        };
        if settled {
            return Some(());
        }
        tracing::warn!(
            op = "watch",
            resource = "pods",
            "speakers' pods may not be listed, so a node's readiness alone decides whether it may announce; grant list and watch on pods in this namespace"
        );
        self.told = Told::Unknown;
        self.sink.send(Input::Speakers(None)).await.ok()
    }

    /// No word from the API server: what is known stays.
    fn failed(&mut self, error: &str) -> Duration {
        self.refused_since = None;
        if !self.failing {
            tracing::warn!(
                op = "watch",
                resource = "pods",
                error,
                "cannot list the speakers' pods, what is known of them stays"
            );
            self.failing = true;
        }
        FAILED
    }
}
