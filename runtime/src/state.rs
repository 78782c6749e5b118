//! `ConfigurationState`: what this daemon makes of the configuration, for `kubectl get` (MetalLB 0.15.3 and newer).
//!
//! One object for each daemon, `controller` or `speaker-NODE`, owned by its Pod. It is written only when something
//! changes, and made again when somebody deletes it. Where the definition or the right to it is missing nothing is
//! written, and asking goes on calmly.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_config_api::{ConfigurationState, ConfigurationStateStatus};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch as latest};

use crate::{
    object,
    watch::{self, Change, Unavailable},
};

/// The first pause after a failed write; doubled each time up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest pause after a failed write.
const LONGEST: Duration = Duration::from_mins(1);
/// Most writes in a row: making the object, its labels, its status.
const STEPS: usize = 3;
/// The longest message of a condition, in characters.
const LONGEST_MESSAGE: usize = 32_768;

/// Which daemon reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Component {
    /// The controller.
    Controller,
    /// The speaker of this node.
    Speaker(String),
}

/// What the daemon makes of the newest configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It has not read one yet; what was reported before stands.
    #[default]
    Pending,
    /// It is in force.
    Valid,
    /// It is refused, for this reason.
    Invalid(String),
    /// It cannot tell, for this reason.
    Unknown(String),
}

/// The type of the condition that tells of hosts outside the cluster that answer for its addresses: of a speaker's state,
/// where it lists them, and of a Service.
pub const CONFLICT: &str = "ferrolb.io/AddressConflict";

/// That condition, without the time of its last transition.
pub fn conflict_condition(conflict: bool, message: String) -> Condition {
    let (status, reason) = if conflict {
        ("True", "AnsweredByStranger")
    } else {
        ("False", "NoConflict")
    };
    Condition {
        type_: CONFLICT.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }
}

/// The hosts that a speaker's state lists, by the address they answer for. What cannot be read is left out.
pub fn strangers(status: &ConfigurationStateStatus) -> BTreeMap<IpAddr, String> {
    let ours = |one: &&Condition| one.type_ == CONFLICT && one.status == "True";
    let listed = status.conditions.iter().find(ours);
    let entries = listed.iter().flat_map(|one| one.message.split(", "));
    let entries = entries.filter_map(|entry| entry.split_once('='));
    entries
        .filter_map(|(address, mac)| Some((address.parse().ok()?, mac.to_owned())))
        .collect()
}

/// As many of these as a condition may hold, as [`strangers`] reads them.
fn listed(strangers: &BTreeMap<IpAddr, String>) -> String {
    let mut list = String::new();
    for (address, mac) in strangers {
        let entry = format!("{address}={mac}");
        if list.len() + entry.len() + 2 > LONGEST_MESSAGE {
            break;
        }
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(&entry);
    }
    list
}

/// What a daemon has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Report {
    verdict: Verdict,
    /// The hosts outside the cluster that answer for its addresses.
    strangers: BTreeMap<IpAddr, String>,
}

/// The handle a daemon reports with. Clones speak for the same object.
#[derive(Clone, Debug)]
pub struct State {
    report: latest::Sender<Report>,
}

impl State {
    /// A handle, and the task that keeps the object of `component` in `namespace` in line with it until every handle is
    /// gone. `pod` is the name of our own Pod, which shall own the object.
    pub fn new(
        client: Client,
        namespace: String,
        component: Component,
        pod: Option<String>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (report, reports) = latest::channel(Report::default());
        let resource = ApiResource::erase::<ConfigurationState>(&());
        let keeper = Keeper {
            api: Api::namespaced_with(client.clone(), &namespace, &resource),
            pods: Api::namespaced(client.clone(), &namespace),
            client,
            pod,
            own: Own {
                namespace,
                component,
                owner: None,
            },
            seen: None,
            readable: false,
            failures: 0,
        };
        (Self { report }, keeper.run(reports))
    }

    /// Reports.
    pub fn set(&self, verdict: Verdict) {
        self.report.send_if_modified(|now| {
            let new = now.verdict != verdict;
            now.verdict = verdict;
            new
        });
    }

    /// Reports the hosts outside the cluster that answer for its addresses, with their hardware addresses: all of them.
    pub fn set_strangers(&self, strangers: BTreeMap<IpAddr, String>) {
        self.report.send_if_modified(|now| {
            let new = now.strangers != strangers;
            now.strangers = strangers;
            new
        });
    }
}

/// What the object has to say besides the verdict.
struct Own {
    namespace: String,
    component: Component,
    owner: Option<OwnerReference>,
}

/// The next write that is due.
#[derive(Debug, PartialEq)]
enum Step {
    /// Make the object.
    Create(Value),
    /// Merge this into its metadata.
    Metadata(Value),
    /// Merge this into its status.
    Status(Value),
}

impl Own {
    fn name(&self) -> String {
        match &self.component {
            Component::Controller => "controller".to_owned(),
            Component::Speaker(node) => format!("speaker-{node}"),
        }
    }

    fn labels(&self) -> Value {
        match &self.component {
            Component::Controller => json!({"metallb.io/component-type": "controller"}),
            Component::Speaker(node) => json!({
                "metallb.io/component-type": "speaker",
                "metallb.io/node-name": node,
            }),
        }
    }

    /// The type of our condition, as MetalLB's two daemons call theirs.
    fn condition(&self) -> &'static str {
        match self.component {
            Component::Controller => "poolReconcilerValid",
            Component::Speaker(_) => "configReconcilerValid",
        }
    }

    /// What is to be written next; `None` if everything stands as it should.
    fn next(&self, seen: Option<&DynamicObject>, report: &Report, now: Timestamp) -> Option<Step> {
        let mut metadata = json!({"labels": self.labels()});
        if let (Some(owner), Some(fields)) = (&self.owner, metadata.as_object_mut()) {
            fields.insert("ownerReferences".to_owned(), json!([owner]));
        }
        let Some(seen) = seen else {
            let fields = metadata.as_object_mut()?;
            fields.insert("name".to_owned(), json!(self.name()));
            fields.insert("namespace".to_owned(), json!(self.namespace));
            return Some(Step::Create(json!({
                "apiVersion": "metallb.io/v1beta1",
                "kind": "ConfigurationState",
                "metadata": metadata,
            })));
        };
        if !self.labelled(seen) {
            return Some(Step::Metadata(json!({"metadata": metadata})));
        }
        let written: ConfigurationStateStatus = seen
            .data
            .get("status")
            .and_then(|status| serde_json::from_value(status.clone()).ok())
            .unwrap_or_default();
        let mut wanted = self.status(&written, &report.verdict, now);
        note_strangers(&mut wanted.conditions, &report.strangers, now);
        (wanted != written).then(|| {
            // Null takes a summary away that no longer holds.
            Step::Status(json!({"status": {
                "conditions": wanted.conditions,
                "result": wanted.result,
                "errorSummary": wanted.error_summary,
            }}))
        })
    }

    /// Whether the object carries our labels and is owned by our Pod alone, if we know that.
    fn labelled(&self, seen: &DynamicObject) -> bool {
        let labels = seen.metadata.labels.clone().unwrap_or_default();
        let ours = self.labels();
        let mut ours = ours.as_object().into_iter().flatten();
        let owners = seen.metadata.owner_references.clone().unwrap_or_default();
        let owned = self
            .owner
            .as_ref()
            .is_none_or(|owner| owners == [owner.clone()]);
        owned && ours.all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
    }

    /// The status that says this verdict, with the conditions of others left alone.
    fn status(
        &self,
        written: &ConfigurationStateStatus,
        verdict: &Verdict,
        now: Timestamp,
    ) -> ConfigurationStateStatus {
        let (status, reason, message, result) = match verdict {
            Verdict::Pending => {
                let mut before = written.clone();
                before.result.get_or_insert_with(|| "Unknown".to_owned());
                return before;
            }
            Verdict::Valid => ("True", "Reconciled", String::new(), "Valid"),
            Verdict::Invalid(why) => {
                let message = cut(&format!("configuration error: {why}"));
                ("False", "ConfigurationError", message, "Invalid")
            }
            Verdict::Unknown(why) => ("Unknown", "UnknownError", cut(why), "Unknown"),
        };
        let mut conditions = written.conditions.clone();
        let is_ours = |condition: &Condition| condition.type_ == self.condition();
        // It changes with the status alone; a new message is no transition.
        let since = conditions.iter().find(|one| is_ours(one));
        let since = since.filter(|one| one.status == status);
        let ours = Condition {
            type_: self.condition().to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.clone(),
            last_transition_time: since.map_or(Time(now), |one| one.last_transition_time.clone()),
            observed_generation: None,
        };
        match conditions.iter_mut().find(|one| is_ours(one)) {
            Some(condition) => *condition = ours,
            None => conditions.push(ours),
        }
        ConfigurationStateStatus {
            conditions,
            result: Some(result.to_owned()),
            error_summary: Some(message).filter(|message| !message.is_empty()),
        }
    }
}

/// Lists the strangers in a condition of their own, which is there from the first on.
fn note_strangers(
    conditions: &mut Vec<Condition>,
    strangers: &BTreeMap<IpAddr, String>,
    now: Timestamp,
) {
    let place = conditions.iter().position(|one| one.type_ == CONFLICT);
    if strangers.is_empty() && place.is_none() {
        return;
    }
    let mut ours = conflict_condition(!strangers.is_empty(), listed(strangers));
    let former = place.map(|place| conditions.remove(place));
    let same = former.filter(|former| former.status == ours.status);
    ours.last_transition_time = same.map_or(Time(now), |same| same.last_transition_time);
    let place = place.unwrap_or(conditions.len());
    conditions.insert(place, ours);
}

/// As much as a condition may hold.
fn cut(message: &str) -> String {
    message.chars().take(LONGEST_MESSAGE).collect()
}

/// Keeps the object in line.
struct Keeper {
    client: Client,
    api: Api<DynamicObject>,
    pods: Api<Pod>,
    /// The name of our Pod, until its uid is known or cannot be had.
    pod: Option<String>,
    own: Own,
    seen: Option<DynamicObject>,
    /// The object was looked for, so that what was not seen is not there.
    readable: bool,
    failures: u32,
}

impl Keeper {
    async fn run(mut self, mut reports: latest::Receiver<Report>) {
        let filter =
            watcher::Config::default().fields(&format!("metadata.name={}", self.own.name()));
        let (changes, mut seen) = mpsc::channel(4);
        let following = watch::follow(
            object::within::<ConfigurationState>(self.client.clone(), &self.own.namespace),
            filter,
            "configurationstates",
            |object| object,
            |change| change,
            changes,
        );
        let keeping = async {
            loop {
                let report = reports.borrow_and_update().clone();
                let pause = self.keep(&report).await;
                let again = async {
                    match pause {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    change = seen.recv() => match change {
                        Some(change) => self.take(change),
                        None => return,
                    },
                    told = reports.changed() => if told.is_err() {
                        return;
                    },
                    () = again => {}
                }
            }
        };
        tokio::select! {
            () = following => {}
            () = keeping => {}
        }
    }

    fn take(&mut self, change: Change<DynamicObject>) {
        match change {
            Change::Applied(_, object) => self.seen = Some(object),
            Change::Deleted(_) => self.seen = None,
            Change::Synced => self.readable = true,
            Change::Unavailable(why) => {
                self.readable = false;
                self.seen = None;
                let remedy = match why {
                    Unavailable::Unknown => "its definition is not installed",
                    Unavailable::Forbidden => "grant all verbs on it in this namespace",
                };
                tracing::info!(
                    op = "watch",
                    resource = "configurationstates",
                    remedy,
                    "the state of the configuration is not reported in an object"
                );
            }
        }
    }

    /// Writes what is due; says after which time to try again if that failed.
    async fn keep(&mut self, report: &Report) -> Option<Duration> {
        if !self.readable {
            return None;
        }
        let error = match self.write(report).await {
            Ok(()) => {
                self.failures = 0;
                return None;
            }
            Err(error) => error,
        };
        let pause = LONGEST.min(SHORTEST * 2_u32.saturating_pow(self.failures.min(16)));
        if self.failures == 0 {
            tracing::warn!(op = "writeState", object = self.own.name(), error = %error,
                "cannot report the state of the configuration in an object, trying again");
        }
        self.failures = self.failures.saturating_add(1);
        Some(pause)
    }

    async fn write(&mut self, report: &Report) -> Result<(), kube::Error> {
        self.find_owner().await?;
        let name = self.own.name();
        let params = PatchParams::default();
        for _ in 0..STEPS {
            let now = Timestamp::now();
            let Some(step) = self.own.next(self.seen.as_ref(), report, now) else {
                return Ok(());
            };
            let written = match step {
                Step::Create(object) => {
                    let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
                    self.api.create(&PostParams::default(), &object).await
                }
                Step::Metadata(patch) => self.api.patch(&name, &params, &Patch::Merge(patch)).await,
                Step::Status(patch) => {
                    let patch = Patch::Merge(patch);
                    self.api.patch_status(&name, &params, &patch).await
                }
            };
            if let Err(kube::Error::Api(status)) = &written
                && status.is_not_found()
            {
                // Deleted this moment: it is made again.
                self.seen = None;
            }
            self.seen = Some(written?);
        }
        Ok(())
    }

    /// Asks once who our Pod is.
    async fn find_owner(&mut self) -> Result<(), kube::Error> {
        let Some(name) = &self.pod else {
            return Ok(());
        };
        match self.pods.get_metadata(name).await {
            Ok(pod) => {
                self.own.owner = Some(OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Pod".to_owned(),
                    name: name.clone(),
                    uid: pod.metadata.uid.unwrap_or_default(),
                    ..OwnerReference::default()
                });
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_not_found() => {
                tracing::info!(op = "writeState", pod = name, error = %status,
                    "cannot see our own Pod, so it will not own the state of the configuration");
            }
            Err(error) => return Err(error),
        }
        self.pod = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
