//! Where facts come from, and what is asked instead where RBAC or the API server refuses.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_config::ObjectName;
use ferrolb_runtime::configuration::Source;
use ferrolb_runtime::object::{self, Object};
use ferrolb_runtime::watch::{Change, Unavailable, try_to_follow};
use ferrolb_speaker_core::{Members, SpeakerPod};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch as latest};
use tokio::time::sleep;

use crate::arbitration::Told;
use crate::interfaces::Names;
use crate::translate::{self, EndpointFacts, NodeFacts, ServiceFacts};

pub use speakers::speakers;

mod speakers;

/// The first pause after neither EndpointSlices nor Endpoints could be had; doubled each time up to [`SLOWEST`].
const QUICKEST: Duration = Duration::from_secs(1);
/// The longest such pause: only an operator changes what is still refused by then.
const SLOWEST: Duration = Duration::from_secs(30);

/// What arbiters tell is passed on so many at a time.
const TOLD: usize = 1024;

/// Everything the deciding task is told.
#[derive(Debug)]
pub enum Input {
    /// A Service.
    Service(Change<ServiceFacts>),
    /// An EndpointSlice, or an Endpoints object.
    Endpoints(Change<EndpointFacts>),
    /// A Node.
    Node(Change<NodeFacts>),
    /// All pods of speakers; none while they cannot be listed.
    Speakers(Option<Vec<SpeakerPod>>),
    /// What gossip knows of the speakers.
    Members(Members),
    /// The configuration.
    Config(Source),
    /// The names of all interfaces of this node that may be announced on.
    Interfaces(Names),
    /// What the arbiters tell, in order.
    Told(Vec<Told>),
}

/// Passes on which interfaces there are, until nobody listens or nobody tells.
pub async fn interfaces(mut names: latest::Receiver<Option<Names>>, sink: mpsc::Sender<Input>) {
    while names.changed().await.is_ok() {
        let now = names.borrow_and_update().clone();
        if let Some(now) = now
            && sink.send(Input::Interfaces(now)).await.is_err()
        {
            return;
        }
    }
    // Whoever told them ends the process; that is not ours to do.
    sink.closed().await;
}

/// Passes on what the arbiters tell, until nobody listens or nobody tells.
pub async fn arbiters(mut told: mpsc::UnboundedReceiver<Told>, sink: mpsc::Sender<Input>) {
    let mut some = Vec::new();
    while told.recv_many(&mut some, TOLD).await > 0 {
        if sink
            .send(Input::Told(std::mem::take(&mut some)))
            .await
            .is_err()
        {
            return;
        }
    }
    // Whoever told them ends the process; that is not ours to do.
    sink.closed().await;
}

/// Follows EndpointSlices, or Endpoints if told to or if slices cannot be had. Whichever can be listed first is followed
/// for ever; until then both are tried in turn, since an API server that has just started refuses everything.
pub async fn endpoints(client: Client, disable_slices: bool, sink: mpsc::Sender<Input>) {
    let mut pause = QUICKEST;
    let mut told = false;
    loop {
        if !disable_slices {
            let slices = object::everywhere::<discovery::EndpointSlice>(client.clone());
            match settle_on(slices, "endpointslices", translate::slice, &sink).await {
                None => return,
                Some(why) if !told => {
                    tracing::info!(op = "watch", resource = "endpointslices", reason = ?why,
                        "no EndpointSlices to be had, trying Endpoints");
                }
                Some(_) => {}
            }
        }
        let whole = object::everywhere::<core::Endpoints>(client.clone());
        let Some(why) = settle_on(whole, "endpoints", translate::endpoints, &sink).await else {
            return;
        };
        if !told {
            let neither = Input::Endpoints(Change::Unavailable(why));
            if sink.send(neither).await.is_err() {
                return;
            }
            told = true;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = sink.closed() => return,
        }
        pause = (pause * 2).min(SLOWEST);
    }
}

/// Follows one source of endpoints. Says why if it could not even be listed; otherwise follows it until nobody listens.
async fn settle_on<K>(
    api: Api<Object>,
    what: &'static str,
    translate: impl Fn(K) -> EndpointFacts,
    sink: &mpsc::Sender<Input>,
) -> Option<Unavailable>
where
    K: DeserializeOwned,
{
    let (changes, seen) = mpsc::channel(64);
    let filter = watcher::Config::default();
    tokio::select! {
        () = try_to_follow(api, filter, what, translate, |change| change, changes) => None,
        refused = pass_on_once_listed(seen, sink) => refused,
    }
}

/// Passes changes on from the end of the first list. Says why if that never comes, in which case nothing was passed on:
/// slices left over from half a list would count beside the Endpoints.
async fn pass_on_once_listed(
    mut seen: mpsc::Receiver<Change<EndpointFacts>>,
    sink: &mpsc::Sender<Input>,
) -> Option<Unavailable> {
    let mut first: BTreeMap<ObjectName, EndpointFacts> = BTreeMap::new();
    loop {
        match seen.recv().await? {
            Change::Applied(name, facts) => {
                first.insert(name, facts);
            }
            Change::Deleted(name) => {
                first.remove(&name);
            }
            Change::Unavailable(why) => return Some(why),
            Change::Synced => break,
        }
    }
    for (name, facts) in first {
        let applied = Input::Endpoints(Change::Applied(name, facts));
        sink.send(applied).await.ok()?;
    }
    sink.send(Input::Endpoints(Change::Synced)).await.ok()?;
    // It was had: a refusal now is an accident, and what is known stays.
    while let Some(change) = seen.recv().await {
        sink.send(Input::Endpoints(change)).await.ok()?;
    }
    None
}

#[cfg(test)]
pub mod fake_api;
#[cfg(test)]
mod tests;
