//! Where facts come from, and what is asked instead where RBAC or the API server refuses.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_config::ObjectName;
use ferrolb_runtime::configmap::Source;
use ferrolb_runtime::watch::{Change, Unavailable, follow};
use ferrolb_speaker_core::{Node, SpeakerPod};
use k8s_openapi::api::core::v1::{Endpoints, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

use crate::translate::{self, EndpointFacts, ServiceFacts};

/// How often pods are listed that may not be watched: MetalLB's Role `pod-lister` grants only `list` (0.9 to 0.13).
const POLL: Duration = Duration::from_secs(10);

/// The pause after pods could not even be listed.
const REFUSED: Duration = Duration::from_secs(30);

/// Everything the deciding task is told.
#[derive(Debug)]
pub enum Input {
    /// A Service.
    Service(Change<ServiceFacts>),
    /// An EndpointSlice, or an Endpoints object.
    Endpoints(Change<EndpointFacts>),
    /// A Node.
    Node(Change<Node>),
    /// All pods of speakers; none while they cannot be listed.
    Speakers(Option<Vec<SpeakerPod>>),
    /// The configuration.
    Config(Source),
}

/// Follows EndpointSlices, or Endpoints if told to or if slices cannot be had.
pub async fn endpoints(client: Client, disable_slices: bool, sink: mpsc::Sender<Input>) {
    if !disable_slices {
        let (changes, mut seen) = mpsc::channel(64);
        let api: Api<EndpointSlice> = Api::all(client.clone());
        let following = follow(
            api,
            watcher::Config::default(),
            "endpointslices",
            translate::slice,
            |change| change,
            changes,
        );
        let telling = async {
            let mut had_any = false;
            while let Some(change) = seen.recv().await {
                match change {
                    // Once they were had, a refusal is an accident: what is known stays.
                    Change::Unavailable(why) if !had_any => return Some(why),
                    change => {
                        had_any = true;
                        if sink.send(Input::Endpoints(change)).await.is_err() {
                            return None;
                        }
                    }
                }
            }
            None
        };
        let refused = tokio::select! {
            () = following => None,
            refused = telling => refused,
        };
        let Some(why) = refused else {
            return;
        };
        tracing::info!(op = "watch", resource = "endpointslices", reason = ?why, "no EndpointSlices to be had, using Endpoints");
    }
    let api: Api<Endpoints> = Api::all(client);
    follow(
        api,
        watcher::Config::default(),
        "endpoints",
        translate::endpoints,
        Input::Endpoints,
        sink,
    )
    .await;
}

/// Follows the speakers' pods: watches where it may, lists every ten seconds where it may only list, and says once that
/// they are unknown where it may not even that.
pub async fn speakers(
    client: Client,
    namespace: String,
    labels: String,
    sink: mpsc::Sender<Input>,
) {
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    loop {
        let Some(()) = watch_speakers(&api, &labels, &sink).await else {
            return;
        };
        let Some(()) = list_speakers(&api, &labels, &sink).await else {
            return;
        };
        sleep(REFUSED).await;
    }
}

/// Watches until that is refused; none if nobody listens any more.
async fn watch_speakers(api: &Api<Pod>, labels: &str, sink: &mpsc::Sender<Input>) -> Option<()> {
    let (changes, mut seen) = mpsc::channel(64);
    let filter = watcher::Config::default().labels(labels);
    let following = follow(
        api.clone(),
        filter,
        "pods",
        translate::speaker,
        |change| change,
        changes,
    );
    let telling = async {
        let mut pods: BTreeMap<ObjectName, SpeakerPod> = BTreeMap::new();
        let mut listed = false;
        while let Some(change) = seen.recv().await {
            match change {
                Change::Applied(name, Some(pod)) => {
                    pods.insert(name, pod);
                }
                Change::Applied(name, None) | Change::Deleted(name) => {
                    pods.remove(&name);
                }
                Change::Synced => listed = true,
                Change::Unavailable(_) => return Some(()),
            }
            if listed {
                sink.send(Input::Speakers(Some(pods.values().cloned().collect())))
                    .await
                    .ok()?;
            }
        }
        Some(())
    };
    tokio::select! {
        () = following => Some(()),
        told = telling => told,
    }
}

/// Lists again and again until that is refused; none if nobody listens any more.
async fn list_speakers(api: &Api<Pod>, labels: &str, sink: &mpsc::Sender<Input>) -> Option<()> {
    let mut said = false;
    let mut poll = interval(POLL);
    loop {
        poll.tick().await;
        match api.list(&ListParams::default().labels(labels)).await {
            Ok(pods) => {
                if !said {
                    tracing::info!(
                        op = "watch",
                        resource = "pods",
                        poll_s = POLL.as_secs(),
                        "speakers' pods may be listed but not watched, listing them again and again"
                    );
                    said = true;
                }
                let pods = pods
                    .items
                    .into_iter()
                    .filter_map(translate::speaker)
                    .collect();
                sink.send(Input::Speakers(Some(pods))).await.ok()?;
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => {
                tracing::warn!(op = "watch", resource = "pods", reason = ?Unavailable::Forbidden,
                    "speakers' pods cannot be listed, so a node's readiness alone decides whether it may announce; grant list and watch on pods in this namespace");
                sink.send(Input::Speakers(None)).await.ok()?;
                return Some(());
            }
            // What is known stays.
            Err(error) => {
                tracing::warn!(op = "watch", resource = "pods", error = %error, "cannot list the speakers' pods");
            }
        }
    }
}
