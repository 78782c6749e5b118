//! Carries out what the book plans, against the API server.

use std::sync::Arc;
use std::time::Instant;

use ferrolb_config::ObjectName;
use ferrolb_config_api::{InterfaceName, ServiceL2Status};
use ferrolb_runtime::watch::{self, Change, Unavailable};
use ferrolb_runtime::{courtesy, object};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use prometheus::IntCounter;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::Statuses;
use super::book::{Book, Content, Plan, Shown, Write};

/// Plans carried out at once, the pauses after them included.
const AT_ONCE: usize = 4;

const NODE: &str = "metallb.io/node";
const SERVICE: &str = "metallb.io/service-name";
const NAMESPACE: &str = "metallb.io/service-namespace";

/// Who writes.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name of this speaker's Node.
    pub node: String,
    /// The namespace of its pod, where the objects are.
    pub namespace: String,
    /// The name of its pod, with which the objects go; if it is known.
    pub pod: Option<String>,
}

/// What is needed to carry out a plan.
struct Hand {
    identity: Identity,
    objects: Api<ServiceL2Status>,
    pods: Api<Pod>,
    /// The reference to our pod; none where it cannot be had.
    owner: OnceCell<Option<OwnerReference>>,
}

/// What a plan came to: what it changed, even if it failed in the end.
struct Outcome {
    service: ObjectName,
    seen: Vec<(String, Option<Shown>)>,
    result: kube::Result<()>,
}

/// The clock that the timers of the runtime go by.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Keeps the objects in line with what is told until nobody can tell any more of them, which is never.
pub async fn write(client: Client, identity: Identity, statuses: Statuses, errors: IntCounter) {
    let objects: Api<ServiceL2Status> = Api::namespaced(client.clone(), &identity.namespace);
    let (sink, mut changes) = mpsc::channel(256);
    let us = identity.node.clone();
    let following = watch::follow(
        object::within::<ServiceL2Status>(client.clone(), &identity.namespace),
        watcher::Config::default(),
        "servicel2statuses",
        move |object: ServiceL2Status| shown(&object, &us),
        |change| change,
        sink,
    );
    let hand = Arc::new(Hand {
        pods: Api::namespaced(client, &identity.namespace),
        identity,
        objects,
        owner: OnceCell::new(),
    });
    let (tell, outcomes) = mpsc::unbounded_channel();
    let mut worker = Worker {
        hand,
        book: Book::new(),
        listed: false,
        available: false,
        failing: false,
        under_way: JoinSet::new(),
        tell,
        outcomes,
        errors,
    };
    tokio::select! {
        () = following => {}
        () = worker.run(&statuses, &mut changes) => {}
    }
}

struct Worker {
    hand: Arc<Hand>,
    book: Book,
    /// The objects have been listed.
    listed: bool,
    /// They have, and can be had still.
    available: bool,
    /// The last plan failed, and that was said.
    failing: bool,
    /// Plans being carried out, and pauses after them.
    under_way: JoinSet<()>,
    tell: mpsc::UnboundedSender<Outcome>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    errors: IntCounter,
}

impl Worker {
    async fn run(
        &mut self,
        statuses: &Statuses,
        changes: &mut mpsc::Receiver<Change<Option<Shown>>>,
    ) {
        loop {
            self.start_plans();
            let deadline = self.book.next_deadline();
            let may_start = self.available && self.under_way.len() < AT_ONCE;
            tokio::select! {
                () = statuses.told() => {
                    let now = now();
                    let (services, settled) = statuses.take();
                    for (service, interfaces) in services {
                        self.book.want(service, interfaces, now);
                    }
                    if settled {
                        self.book.settle(now);
                    }
                }
                change = changes.recv() => match change {
                    Some(change) => self.take_in(change),
                    None => return,
                },
                // A plan does not panic; if it did, its Service would wait for the next start.
                Some(outcome) = self.outcomes.recv() => self.finish(outcome),
                Some(_) = self.under_way.join_next() => {}
                () = sleep_until(deadline.unwrap_or_else(now).into()), if may_start && deadline.is_some() => {}
            }
        }
    }

    fn start_plans(&mut self) {
        while self.available && self.under_way.len() < AT_ONCE {
            let Some(plan) = self.book.next(now()) else {
                return;
            };
            let (hand, tell) = (self.hand.clone(), self.tell.clone());
            self.under_way.spawn(async move {
                let begun = tokio::time::Instant::now();
                // The worker ends with this set.
                let _ = tell.send(hand.carry_out(plan).await);
                sleep(courtesy::pause_after(begun.elapsed())).await;
            });
        }
    }

    fn take_in(&mut self, change: Change<Option<Shown>>) {
        let now = now();
        self.listed |= matches!(change, Change::Synced);
        self.available = self.listed && !matches!(change, Change::Unavailable(_));
        match change {
            Change::Applied(name, Some(shown)) => self.book.see(name.name.clone(), shown, now),
            Change::Applied(name, None) | Change::Deleted(name) => {
                self.book.lose(&name.name, now);
            }
            Change::Synced => {}
            Change::Unavailable(why) => {
                let rest = match why {
                    Unavailable::Unknown => "the API server does not know them",
                    Unavailable::Forbidden => "RBAC does not grant get, list and watch on them",
                };
                tracing::info!(op = "watch", resource = "servicel2statuses", reason = ?why,
                    "ServiceL2Status objects are not written: {rest}");
            }
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        let now = now();
        for (object, shown) in outcome.seen {
            match shown {
                Some(shown) => self.book.see(object, shown, now),
                None => self.book.lose(&object, now),
            }
        }
        if let Err(error) = &outcome.result {
            self.errors.inc();
            let (service, what) = (
                &outcome.service,
                "cannot write a Service's ServiceL2Status, trying again",
            );
            if self.failing {
                tracing::debug!(op = "updateServiceL2Status", %service, error = %error, "{what}");
            } else {
                tracing::warn!(op = "updateServiceL2Status", %service, error = %error, "{what}");
            }
        }
        self.failing = outcome.result.is_err();
        self.book.done(outcome.service, outcome.result.is_ok(), now);
    }
}

impl Hand {
    async fn carry_out(&self, plan: Plan) -> Outcome {
        let mut seen = Vec::new();
        let result = self.try_to(&plan, &mut seen).await;
        Outcome {
            service: plan.service,
            seen,
            result,
        }
    }

    async fn try_to(
        &self,
        plan: &Plan,
        seen: &mut Vec<(String, Option<Shown>)>,
    ) -> kube::Result<()> {
        for object in &plan.delete {
            match self.objects.delete(object, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
            seen.push((object.clone(), None));
        }
        let Some(Write { object, interfaces }) = &plan.write else {
            return Ok(());
        };
        let shown = |content| Shown {
            service: plan.service.clone(),
            mine: true,
            content,
        };
        let object = if let Some(object) = object {
            object.clone()
        } else {
            // The status is another resource, so it is written after the object.
            let new = self.new_object(plan).await?;
            let made = self.objects.create(&PostParams::default(), &new).await?;
            let name = made.metadata.name.unwrap_or_default();
            seen.push((name.clone(), Some(shown(Content::Empty))));
            name
        };
        let status = json!({"status": {
            "node": self.identity.node,
            "serviceName": plan.service.name,
            "serviceNamespace": &*plan.service.namespace,
            // Null takes away the list there was.
            "interfaces": (!interfaces.is_empty()).then(|| {
                let names = interfaces.iter().cloned();
                names.map(|name| InterfaceName { name }).collect::<Vec<_>>()
            }),
        }});
        let (how, patch) = (PatchParams::default(), Patch::Merge(&status));
        match self.objects.patch_status(&object, &how, &patch).await {
            Ok(_) => seen.push((object, Some(shown(Content::Sound(interfaces.clone()))))),
            Err(kube::Error::Api(status)) if status.code == 404 => seen.push((object, None)),
            // What it says cannot be changed into this.
            Err(kube::Error::Api(status)) if status.code == 422 => {
                seen.push((object, Some(shown(Content::Contradictory))));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn new_object(&self, plan: &Plan) -> kube::Result<ServiceL2Status> {
        let owner = self.owner.get_or_try_init(|| self.find_owner()).await?;
        let labels = [
            (NODE, label_of(&self.identity.node)),
            (SERVICE, plan.service.name.clone()),
            (NAMESPACE, plan.service.namespace.to_string()),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value));
        Ok(ServiceL2Status {
            metadata: ObjectMeta {
                generate_name: Some("l2-".to_owned()),
                namespace: Some(self.identity.namespace.clone()),
                labels: Some(labels.into()),
                owner_references: owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            ..ServiceL2Status::default()
        })
    }

    /// With our pod its statuses go, if somebody lets us see it.
    async fn find_owner(&self) -> kube::Result<Option<OwnerReference>> {
        let Some(name) = &self.identity.pod else {
            return Ok(None);
        };
        let pod = match self.pods.get_metadata(name).await {
            Ok(pod) => pod,
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => {
                tracing::info!(op = "updateServiceL2Status", pod = name, error = %status,
                    "ServiceL2Status objects do not go with this pod, which cannot be seen");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(pod.metadata.uid.map(|uid| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: name.clone(),
            uid,
            ..OwnerReference::default()
        }))
    }
}

/// What an object says, seen from the node `us`; none if its labels name no Service.
fn shown(object: &ServiceL2Status, us: &str) -> Option<Shown> {
    let labels = object.metadata.labels.as_ref()?;
    let service = ObjectName::new(
        labels.get(NAMESPACE)?.as_str(),
        labels.get(SERVICE)?.as_str(),
    );
    let labelled = labels.get(NODE).is_some_and(|node| *node == label_of(us));
    let status = object.status.clone().unwrap_or_default();
    // The label of a long name is not the name, so the status decides where it says anything.
    let mine = status.node.as_ref().map_or(labelled, |node| node == us);
    let said = [
        (status.service_name, service.name.as_str()),
        (status.service_namespace, &*service.namespace),
    ];
    let content = if mine != labelled
        || said
            .iter()
            .any(|(said, expected)| said.as_ref().is_some_and(|said| said != *expected))
    {
        Content::Contradictory
    } else if status.node.is_none() || said.iter().any(|(said, _)| said.is_none()) {
        Content::Empty
    } else {
        let names = status.interfaces.into_iter().map(|one| one.name);
        Content::Sound(names.collect())
    };
    Some(Shown {
        service,
        mine,
        content,
    })
}

/// A node's name as the value of a label, which has 63 characters at most: a longer one ends in a digest of the whole.
/// MetalLB writes no status for such nodes.
fn label_of(node: &str) -> String {
    /// The longest value of a label.
    const LONGEST: usize = 63;
    /// Characters of the digest, and the hyphen before it.
    const DIGEST: usize = 10 + 1;
    if node.len() <= LONGEST {
        return node.to_owned();
    }
    let digest = Sha256::digest(node);
    let digest: Vec<_> = digest
        .iter()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let start: String = node.chars().take(LONGEST - DIGEST).collect();
    format!("{start}-{}", digest.concat())
}

#[cfg(test)]
mod tests;
