//! Kubernetes Events in the core/v1 form, which MetalLB's RBAC grants and its users' tools read.
//!
//! The same event about the same object again raises its count instead of making another one. Posting
//! never holds up a decision: a full queue drops the event and counts it.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use prometheus::{IntCounter, Registry};
use serde_json::json;
use tokio::sync::mpsc;

use crate::courtesy;

/// Events waiting to be written: one for each of 10 000 Services decided in one go, and some.
const QUEUE: usize = 16_384;
/// Attempts to write an event while the API server is away or busy; with the pauses doubled, 25 s.
const ATTEMPTS: u32 = 8;
/// The pause after the first failed attempt.
const PAUSE: Duration = Duration::from_millis(200);
/// Events whose count is remembered; the memory is emptied when it is full.
const REMEMBERED: usize = 4096;

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something went as it should.
    Normal,
    /// Somebody should look.
    Warning,
}

/// The object an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct About {
    /// `v1` for everything we report on so far.
    pub api_version: &'static str,
    /// `Service`, `ConfigMap`, `Node`.
    pub kind: &'static str,
    /// Empty for cluster-wide objects, whose events live in `default`.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's uid where known: `kubectl describe` asks for it.
    pub uid: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Posting {
    about: About,
    kind: EventType,
    reason: String,
    message: String,
}

/// The handle that posts. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Posting>,
    dropped: IntCounter,
}

impl Events {
    /// A handle and the task that writes, which ends when every handle is gone. `component` is the
    /// events' source (`metallb-controller` or `metallb-speaker`, the names MetalLB's users filter by),
    /// `host` the node, where there is one.
    ///
    /// # Errors
    /// The metric's name is taken in `registry`.
    pub fn new(
        client: Client,
        component: &'static str,
        host: Option<String>,
        registry: &Registry,
    ) -> prometheus::Result<(Self, impl Future<Output = ()> + Send + use<>)> {
        let dropped = IntCounter::new(
            "ferrolb_events_dropped_total",
            "Number of Kubernetes events not written: queue full or refused by the API server.",
        )?;
        registry.register(Box::new(dropped.clone()))?;
        let (queue, postings) = mpsc::channel(QUEUE);
        let writer = Writer {
            client,
            source: EventSource {
                component: Some(component.to_owned()),
                host,
            },
            remembered: HashMap::new(),
            hasher: RandomState::new(),
            forbidden: false,
            dropped: dropped.clone(),
        };
        Ok((Self { queue, dropped }, writer.run(postings)))
    }

    /// Posts an event, now or never.
    pub fn post(
        &self,
        about: About,
        kind: EventType,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        let posting = Posting {
            about,
            kind,
            reason: reason.into(),
            message: message.into(),
        };
        if self.queue.try_send(posting).is_err() {
            self.dropped.inc();
        }
    }
}

struct Written {
    name: String,
    count: i32,
}

struct Writer {
    client: Client,
    source: EventSource,
    /// By a hash of what was posted: the texts of thousands would be megabytes.
    remembered: HashMap<u64, Written>,
    hasher: RandomState,
    forbidden: bool,
    dropped: IntCounter,
}

impl Writer {
    async fn run(mut self, mut postings: mpsc::Receiver<Posting>) {
        while let Some(posting) = postings.recv().await {
            let begun = Instant::now();
            if let Err(error) = self.write_patiently(&posting).await {
                self.dropped.inc();
                let forbidden = matches!(&error, kube::Error::Api(status) if status.is_forbidden());
                if !(forbidden && self.forbidden) {
                    tracing::warn!(op = "postEvent", error = %error, "cannot write an event");
                }
                self.forbidden |= forbidden;
            }
            // Every Service has its events, and none of them its address from them.
            tokio::time::sleep(courtesy::pause_after(begun.elapsed())).await;
        }
    }

    /// Tries again where a moment may help: an event lost is a reason nobody reads.
    async fn write_patiently(&mut self, posting: &Posting) -> Result<(), kube::Error> {
        for attempt in 1..ATTEMPTS {
            match self.write(posting).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 400..=428 | 430..=499) => {
                    return Err(kube::Error::Api(status));
                }
                Err(error) => {
                    tracing::debug!(op = "postEvent", error = %error, "event not written, trying again");
                    tokio::time::sleep(PAUSE * 2_u32.saturating_pow(attempt - 1)).await;
                }
                Ok(()) => return Ok(()),
            }
        }
        self.write(posting).await
    }

    async fn write(&mut self, posting: &Posting) -> Result<(), kube::Error> {
        // An event lives in its object's namespace, a cluster-wide object's in "default".
        let namespace = if posting.about.namespace.is_empty() {
            "default"
        } else {
            &posting.about.namespace
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let now = Timestamp::now();
        let key = self.hasher.hash_one(posting);
        if let Some(written) = self.remembered.get_mut(&key) {
            let count = written.count.saturating_add(1);
            let patch = json!({"count": count, "lastTimestamp": Time(now)});
            match api
                .patch(
                    &written.name,
                    &PatchParams::default(),
                    &Patch::Merge(&patch),
                )
                .await
            {
                Ok(_) => {
                    written.count = count;
                    return Ok(());
                }
                // Events expire (an hour by default): then it is a new one.
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let event = self.event(posting, namespace, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        if self.remembered.len() >= REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(key, Written { name, count: 1 });
        Ok(())
    }

    fn event(&self, posting: &Posting, namespace: &str, now: Timestamp) -> Event {
        let about = &posting.about;
        Event {
            metadata: ObjectMeta {
                // client-go's form: the object's name and the moment, which makes it unique.
                name: Some(format!("{}.{:x}", about.name, now.as_nanosecond())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(about.api_version.to_owned()),
                kind: Some(about.kind.to_owned()),
                namespace: Some(about.namespace.clone()).filter(|name| !name.is_empty()),
                name: Some(about.name.clone()),
                uid: about.uid.clone(),
                ..ObjectReference::default()
            },
            type_: Some(
                match posting.kind {
                    EventType::Normal => "Normal",
                    EventType::Warning => "Warning",
                }
                .to_owned(),
            ),
            reason: Some(posting.reason.clone()),
            message: Some(posting.message.clone()),
            source: Some(self.source.clone()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        }
    }
}
