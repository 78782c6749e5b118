//! The configuration's source: the ConfigMap and the custom resources, read by the same checks in both daemons.
//!
//! ```text
//!  ConfigMap ────────┐
//!  IPAddressPools ───┼─▶ gather (what each source answered) ─▶ Words::append ─▶ check ─▶ Source
//!  L2Advertisements ─┘
//! ```
//!
//! Any of the three may be missing or forbidden, now or later. A source that was never had counts as empty; one that
//! was had and is forbidden now keeps what it said, because only an operator's edit should change what is in force.

mod gather;
mod report;

use std::time::Duration;

use ferrolb_config::{Config, ObjectName, Refused, Words};
use ferrolb_config_api::{IPAddressPool, L2Advertisement, advertisement_words, pool_words};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Client, Resource,
    api::{ApiResource, DynamicObject},
    runtime::watcher,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    object,
    watch::{self, Change, Unavailable},
};

use gather::{Gathered, Said};
pub use report::{Notice, Objects, Outcome, Reporter};

/// The key of the ConfigMap that holds the document (MetalLB 0.3 to 0.12).
const KEY: &str = "config";
/// The first pause after the API server said that it has no such definition; doubled each time up to [`SLOWEST`].
const QUICKEST: Duration = Duration::from_millis(100);
/// The longest such pause: only an operator changes that.
const SLOWEST: Duration = Duration::from_secs(30);
/// How often the API server must say so to be believed: one that has just started may not have read its definitions.
const MISSES: u32 = 3;
/// How long nothing must change before a configuration is made of what was seen: `kubectl apply` writes the objects of
/// one file within this.
const QUIET: Duration = Duration::from_millis(50);
/// How long changes can hold up a configuration at most.
const LONGEST: Duration = Duration::from_millis(500);
/// How long the loss of every pool is waited out: `kubectl replace --force` and tools that prune first remove everything
/// for a moment, and every Service would lose its address.
const EMPTY: Duration = Duration::from_secs(5);

/// What the sources say now.
#[derive(Clone, Debug)]
pub enum Source {
    /// Words that passed every check.
    Read(Config),
    /// Words that did not; whatever is in force stays.
    Refused(Refused),
    /// There is no ConfigMap, and no IPAddressPools can be read: at start one waits, later the last configuration stays.
    Absent,
    /// RBAC keeps every source from us.
    Unavailable(Unavailable),
}

/// One change in one of the sources.
enum Seen {
    ConfigMap(Change<Said>),
    Pool(Change<Said>),
    Advertisement(Change<Said>),
}

/// Follows the ConfigMap `name` and the custom resources of its namespace until the receiver is gone. One [`Source`] is
/// told once every source has answered, be it with a refusal, and one for each change of what they say together, each
/// with the [`Objects`] it stands in.
///
/// MetalLB has read no ConfigMap since 0.13, and its own converter leaves the old one behind, with the same pools. So where
/// custom resources can be read, the ConfigMap counts only if it is asked for (`beside`: the flag `--config` was given, as
/// in every manifest of its time).
pub async fn follow<M>(
    client: Client,
    name: ObjectName,
    beside: bool,
    wrap: impl Fn(Source, Objects) -> M,
    sink: mpsc::Sender<M>,
) {
    let (changes, seen) = mpsc::channel(64);
    let configmap = watch::follow(
        object::within::<ConfigMap>(client.clone(), &name.namespace),
        watcher::Config::default().fields(&format!("metadata.name={}", name.name)),
        "configmaps",
        document,
        Seen::ConfigMap,
        changes.clone(),
    );
    let namespace = &*name.namespace;
    let pools = resources::<IPAddressPool>(
        &client,
        namespace,
        "ipaddresspools",
        |object: DynamicObject| said(&object, pool_words(&object)),
        Seen::Pool,
        changes.clone(),
    );
    let advertisements = resources::<L2Advertisement>(
        &client,
        namespace,
        "l2advertisements",
        |object: DynamicObject| said(&object, advertisement_words(&object)),
        Seen::Advertisement,
        changes,
    );
    tokio::select! {
        _ = futures::future::join3(configmap, pools, advertisements) => {}
        () = tell(Gathered::new(name.clone(), beside), seen, wrap, sink) => {}
    }
}

/// Follows the objects of a kind of ours, as they are, because the definition in the cluster may be of another release.
///
/// Until there is a definition nothing is listed: whoever may not list is told that (HTTP 403) before being told that
/// there is nothing (404), and a refusal is believed only after seconds. What there is, everybody may ask.
async fn resources<K: Resource<DynamicType = ()>>(
    client: &Client,
    namespace: &str,
    what: &'static str,
    translate: impl Fn(DynamicObject) -> Said,
    wrap: impl Fn(Change<Said>) -> Seen,
    sink: mpsc::Sender<Seen>,
) {
    let resource = ApiResource::erase::<K>(&());
    let mut misses = 0;
    let mut pause = QUICKEST;
    while !may_be_defined(client, &resource).await {
        misses += 1;
        if misses == MISSES {
            let unknown = Change::Unavailable(Unavailable::Unknown);
            if sink.send(wrap(unknown)).await.is_err() {
                return;
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(SLOWEST);
    }
    let api = object::within::<K>(client.clone(), namespace);
    let filter = watcher::Config::default();
    watch::follow(api, filter, what, translate, wrap, sink).await;
}

/// Whether the API server has the resource, or does not say.
async fn may_be_defined(client: &Client, resource: &ApiResource) -> bool {
    match client.list_api_group_resources(&resource.api_version).await {
        Ok(list) => list.resources.iter().any(|one| one.name == resource.plural),
        Err(kube::Error::Api(status)) => status.code != 404,
        Err(_) => true,
    }
}

/// What a ConfigMap says.
fn document(object: ConfigMap) -> Said {
    let text = object.data.and_then(|mut data| data.remove(KEY));
    Said {
        words: ferrolb_config::words(&text.unwrap_or_default()),
        uid: object.metadata.uid,
    }
}

/// What a custom resource says: its labels and its spec, so that a new status is nothing new.
fn said(object: &DynamicObject, words: Words) -> Said {
    Said {
        words,
        uid: object.metadata.uid.clone(),
    }
}

/// Tells a source whenever what is gathered says something else than before.
async fn tell<M>(
    mut gathered: Gathered,
    mut seen: mpsc::Receiver<Seen>,
    wrap: impl Fn(Source, Objects) -> M,
    sink: mpsc::Sender<M>,
) {
    while let Some(change) = seen.recv().await {
        gathered.take(change);
        let began = Instant::now();
        loop {
            let quiet = if gathered.emptied() {
                began + EMPTY
            } else {
                (Instant::now() + QUIET).min(began + LONGEST)
            };
            match timeout_at(quiet, seen.recv()).await {
                Ok(Some(change)) => gathered.take(change),
                Ok(None) => return,
                Err(_) => break,
            }
        }
        if let Some(source) = gathered.news() {
            let message = wrap(source, gathered.objects());
            if sink.send(message).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
