//! Carrying out what was decided, first of all writing it into `status.loadBalancer` of Services.
//!
//! A merge patch bound to the version the decision was made on. Where RBAC grants only `update` on
//! `services/status` (every MetalLB manifest), a PUT of the whole untyped object follows, and where
//! that works the process stays with it, so that no field is lost that we do not know.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ferrolb_config::ObjectName;
use ferrolb_runtime::{events::Events, object};
use k8s_openapi::{
    api::core::v1::Service, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use self::queue::{Queue, Turns};
use crate::{
    conflicts::Due,
    reconcile::{Effect, Input, Reconciler},
    translate::NOTED_POOL,
};

mod pool;
mod queue;

/// Writes under way at once: enough to fill an API server (32 gave 1.06 times the rate of 8) and to be served before what
/// is only written to be read, few enough for one that serves few at once.
const CONCURRENT: usize = 32;
/// The same of pools' statuses, which are only written to be read: a place of their own, so that however many there are and
/// however long they take they do not stand in line with Services.
const POOLS: usize = 4;
/// The first pause after a failed write; doubled up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest pause after a failed write.
const LONGEST: Duration = Duration::from_secs(5);

/// Feeds `reconciler` and carries out what it says, until every sender of `inputs` is gone.
pub async fn drive(
    mut reconciler: Reconciler,
    mut inputs: mpsc::Receiver<Input>,
    writer: Writer,
    events: Events,
) {
    loop {
        let received = match reconciler.next_deadline() {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), inputs.recv())
                .await
                .ok(),
            None => Some(inputs.recv().await),
        };
        let mut effects = VecDeque::from(match received {
            Some(Some(input)) => reconciler.take(input),
            Some(None) => return,
            None => Vec::new(),
        });
        effects.extend(reconciler.tick(Instant::now()));
        if inputs.is_empty() {
            effects.extend(reconciler.show());
        }
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Write(write) => writer.start(write),
                Effect::Withdraw(name, id) => {
                    if writer.withdraw(&name, id) {
                        let withdrawn = Input::Written(name, id, Written::Withdrawn);
                        effects.extend(reconciler.take(withdrawn));
                    }
                }
                Effect::WritePool(write) => writer.start_pool(write),
                Effect::Event {
                    about,
                    kind,
                    reason,
                    message,
                } => events.post(about, kind, reason, message),
            }
        }
    }
}

/// One status to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Its number, which its end is reported with.
    pub id: u64,
    /// Whose.
    pub name: ObjectName,
    /// The version the decision was made on.
    pub version: String,
    /// All of `status.loadBalancer.ingress`; none empties it.
    pub ingress: Vec<IpAddr>,
    /// What the annotation says that names the pool; `None`: it is removed if it is there.
    pub noted_pool: Option<String>,
    /// The conditions that are to be written along; none: they stay.
    pub due: Option<Due>,
    /// How many writes of this Service failed in a row before.
    pub failures: u32,
}

/// How a write ended.
#[derive(Debug)]
pub enum Written {
    /// It stands, as this version.
    Done {
        /// `metadata.resourceVersion` after the write.
        version: String,
        /// What was written.
        ingress: Vec<IpAddr>,
        /// The same of the annotation.
        noted_pool: Option<String>,
        /// All conditions, if they were written.
        conditions: Option<Vec<Condition>>,
    },
    /// Somebody changed the Service since the decision: decide again on the newer version.
    Conflict,
    /// There is no such Service any more.
    Gone,
    /// It had not begun, and was taken back.
    Withdrawn,
    /// The API server would not or could not; the pause is over.
    Failed,
}

/// Carries out writes beside the reconciler and reports each one's end to it.
pub struct Writer {
    client: Client,
    done: mpsc::Sender<Input>,
    pools: Arc<Semaphore>,
    waiting: Queue,
}

impl Writer {
    /// A writer that reports to `done`. Needs a runtime, on which it carries out what is started.
    pub fn new(client: Client, done: mpsc::Sender<Input>) -> Self {
        let (waiting, turns) = queue::queue();
        tokio::spawn(write_in_turn(turns, client.clone(), done.clone()));
        Self {
            client,
            done,
            pools: Arc::new(Semaphore::new(POOLS)),
            waiting,
        }
    }

    /// Starts `write`. The caller starts no other one for the same Service before this one's end is
    /// reported, or it was withdrawn.
    pub fn start(&self, write: Write) {
        self.waiting.wait(write);
    }

    /// Takes back the write with this number, whose end is not reported then; false if it has begun. What is started for the
    /// same Service instead takes its turn.
    pub fn withdraw(&self, name: &ObjectName, id: u64) -> bool {
        self.waiting.withdraw(name, id)
    }
}

/// Begins the writes in their order, as many at once as there are slots, until nobody starts any more.
async fn write_in_turn(mut turns: Turns, client: Client, done: mpsc::Sender<Input>) {
    let slots = Arc::new(Semaphore::new(CONCURRENT));
    let put = Arc::new(AtomicBool::new(false));
    while let Some(name) = turns.next().await {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let Some(write) = turns.begin(&name) else {
            continue;
        };
        let (client, done, put) = (client.clone(), done.clone(), put.clone());
        tokio::spawn(async move {
            let now = Timestamp::now();
            let conditions = write.due.as_ref().map(|due| due.conditions(now));
            // In memory of its own, which a pause after it need not keep.
            let writing = Box::pin(carry_out(&client, &write, conditions.as_deref(), &put));
            let result = writing.await;
            drop(slot);
            let written = match result {
                Ok(version) => Written::Done {
                    version,
                    ingress: write.ingress,
                    noted_pool: write.noted_pool,
                    conditions,
                },
                Err(kube::Error::Api(status)) if status.is_conflict() => Written::Conflict,
                Err(kube::Error::Api(status)) if status.is_not_found() => Written::Gone,
                Err(error) => {
                    let pause =
                        LONGEST.min(SHORTEST * 2_u32.saturating_pow(write.failures.min(16)));
                    tracing::error!(op = "updateServiceStatus", service = %write.name, error = %error,
                        retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                        "cannot write the Service's addresses, trying again");
                    tokio::time::sleep(pause).await;
                    Written::Failed
                }
            };
            // The reconciler ends only with the process.
            let _ = done
                .send(Input::Written(write.name, write.id, written))
                .await;
        });
    }
}

async fn carry_out(
    client: &Client,
    write: &Write,
    conditions: Option<&[Condition]>,
    put: &AtomicBool,
) -> Result<String, kube::Error> {
    if put.load(Ordering::Relaxed) {
        return replace(client, write, conditions).await;
    }
    let mut patch = json!({
        // The API server takes annotations along with a status. `null` removes one, be it there or not.
        "metadata": {"resourceVersion": write.version, "annotations": {NOTED_POOL: write.noted_pool}},
        "status": {"loadBalancer": {"ingress": ingress(&write.ingress)}},
    });
    let status = patch.get_mut("status").and_then(Value::as_object_mut);
    if let (Some(conditions), Some(status)) = (conditions, status) {
        // Bound to the version they were read at, so that those of others are as they were.
        status.insert("conditions".to_owned(), json!(conditions));
    }
    // Nothing is built of the answer, of which only the version is looked at.
    let patched = object::within::<Service>(client.clone(), &write.name.namespace)
        .patch_status(
            &write.name.name,
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await;
    match patched {
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            // An API server that has just started refuses everything for a moment: only a PUT that
            // works where the patch did not says that this is about our rights.
            let version = match replace(client, write, conditions).await {
                Ok(version) => version,
                // Neither is allowed: what we ask for first is what an operator should grant.
                Err(kube::Error::Api(put)) if put.is_forbidden() => {
                    return Err(kube::Error::Api(status));
                }
                Err(error) => return Err(error),
            };
            if !put.swap(true, Ordering::Relaxed) {
                tracing::info!(
                    op = "updateServiceStatus",
                    "patching services/status is not allowed here, writing whole objects from now on"
                );
            }
            Ok(version)
        }
        result => result.map(|object| version(&object)),
    }
}

/// PUT of the whole object as it is at the version decided on.
async fn replace(
    client: &Client,
    write: &Write,
    conditions: Option<&[Condition]>,
) -> Result<String, kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(
        client.clone(),
        &write.name.namespace,
        &ApiResource::erase::<Service>(&()),
    );
    let mut object = api.get(&write.name.name).await?;
    if version(&object) != write.version {
        return Err(kube::Error::Api(Box::new(conflict())));
    }
    match &write.noted_pool {
        Some(pool) => {
            let annotations = object.metadata.annotations.get_or_insert_default();
            annotations.insert(NOTED_POOL.to_owned(), pool.clone());
        }
        None => {
            if let Some(annotations) = &mut object.metadata.annotations {
                annotations.remove(NOTED_POOL);
            }
        }
    }
    if let Some(object) = object.data.as_object_mut() {
        let status = object.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            let balancer = match ingress(&write.ingress) {
                Value::Null => json!({}),
                list => json!({"ingress": list}),
            };
            status.insert("loadBalancer".to_owned(), balancer);
            if let Some(conditions) = conditions {
                status.insert("conditions".to_owned(), json!(conditions));
            }
        }
    }
    api.replace_status(&write.name.name, &PostParams::default(), &object)
        .await
        .map(|object| version(&object))
}

/// The value of `status.loadBalancer.ingress`; `null` removes it, which is how a merge patch clears.
fn ingress(addresses: &[IpAddr]) -> Value {
    if addresses.is_empty() {
        return Value::Null;
    }
    addresses
        .iter()
        .map(|address| json!({"ip": address.to_string()}))
        .collect()
}

fn version(object: &impl ResourceExt) -> String {
    object.resource_version().unwrap_or_default()
}

fn conflict() -> kube::core::Status {
    kube::core::Status {
        code: 409,
        reason: "Conflict".to_owned(),
        message: "the Service changed since the decision".to_owned(),
        ..kube::core::Status::default()
    }
}

#[cfg(test)]
pub(crate) mod tests;
