//! What has to be true in the cluster for the webhooks to be called and believed, decided without I/O: a Secret with a
//! certificate that serves, and its authority in every registration that calls us.
//!
//! MetalLB's manifests register its webhooks with `failurePolicy: Fail`, and that stays when the images are swapped: as
//! long as nobody answers, no pool can be changed. Our own manifests have no webhook. So we serve where something calls
//! a path of ours in our namespace, and do nothing anywhere else. The names of the registration and of the Service differ
//! from release to release (0.13.2: `validating-webhook-configuration`, up to 0.14.3: `webhook-service`) and cannot be
//! relied on; the certificate is for the names that are called.
//!
//! Two controllers (a roll-out, or MetalLB's beside ours) cannot fight: each takes what the Secret holds if it serves,
//! changes the Secret only against the version it saw, and puts into registrations what the Secret holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use ferrolb_runtime::watch::{Change, Unavailable};
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::certificate::{Kept, MakeError};

/// The CustomResourceDefinition whose objects are converted by us.
pub const DEFINITION: &str = "bgppeers.metallb.io";
/// The path of that conversion.
pub const CONVERSION: &str = "/convert";
/// What every other path begins with.
const VALIDATION: &str = "/validate-metallb-io-";

/// The Secret, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Not told yet.
    NotYet,
    /// There is none.
    Absent,
    /// We cannot see it.
    Unseen(Unavailable),
    /// As it is.
    There(Box<Secret>),
}

impl Known {
    /// Takes what the watch of it tells.
    pub fn take(&mut self, change: Change<Box<Secret>>) {
        *self = match change {
            // An API server that refuses for a while is no reason to forget what is there.
            Change::Synced | Change::Unavailable(_) if matches!(self, Self::There(_)) => return,
            Change::Applied(_, secret) => Self::There(secret),
            Change::Deleted(_) | Change::Synced => Self::Absent,
            Change::Unavailable(why) => Self::Unseen(why),
        };
    }
}

/// One call of a webhook of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The webhook's name; empty for a conversion.
    hook: String,
    /// The Service that is called.
    service: String,
    /// Whom the caller trusts: `caBundle`, base64.
    trust: String,
}

impl Call {
    /// What a `clientConfig` calls, if it is ours.
    fn of(hook: &str, client: &Value, namespace: &str) -> Option<Self> {
        let text = |pointer| {
            client
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let path = text("/service/path");
        // Others live in our namespace, too: frr-k8s, for one.
        let ours = path == CONVERSION || path.starts_with(VALIDATION);
        (ours && text("/service/namespace") == namespace).then(|| Self {
            hook: hook.to_owned(),
            service: text("/service/name").to_owned(),
            trust: text("/caBundle").to_owned(),
        })
    }
}

/// An object that calls webhooks, and which of its calls are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    version: String,
    calls: Vec<Call>,
}

impl Registration {
    /// A ValidatingWebhookConfiguration.
    pub fn of_hooks(object: &DynamicObject, namespace: &str) -> Self {
        let hooks = object.data.get("webhooks").and_then(Value::as_array);
        let calls = hooks.into_iter().flatten().filter_map(|hook| {
            let name = hook.get("name")?.as_str()?;
            Call::of(name, hook.get("clientConfig")?, namespace)
        });
        Self {
            version: object.metadata.resource_version.clone().unwrap_or_default(),
            calls: calls.collect(),
        }
    }

    /// A CustomResourceDefinition.
    pub fn of_definition(object: &DynamicObject, namespace: &str) -> Self {
        let client = object.data.pointer("/spec/conversion/webhook/clientConfig");
        let call = client.and_then(|client| Call::of("", client, namespace));
        Self {
            version: object.metadata.resource_version.clone().unwrap_or_default(),
            calls: call.into_iter().collect(),
        }
    }

    /// Whether any of its calls is ours.
    pub fn calls_us(&self) -> bool {
        !self.calls.is_empty()
    }
}

/// The objects of one kind that call us.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Callers {
    /// The first list has come.
    told: bool,
    /// The list cannot be had.
    unseen: Option<Unavailable>,
    there: BTreeMap<String, Registration>,
}

impl Callers {
    /// Takes what the watch of the kind tells.
    pub fn take(&mut self, change: Change<Registration>) {
        match change {
            Change::Applied(name, registration) if registration.calls_us() => {
                self.there.insert(name.name.clone(), registration);
            }
            Change::Applied(name, _) | Change::Deleted(name) => {
                self.there.remove(&name.name);
            }
            Change::Synced => {
                self.told = true;
                self.unseen = None;
            }
            Change::Unavailable(why) => {
                self.told = true;
                self.unseen = Some(why);
            }
        }
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the Secret.
    Create(Secret),
    /// Write the Secret over the version that was seen.
    Replace(Secret),
    /// Send this strategic merge patch to the ValidatingWebhookConfiguration of this name.
    PatchHooks(String, Value),
    /// Send this merge patch to [`DEFINITION`].
    PatchDefinition(Value),
    /// Show this certificate from now on.
    Show(Kept),
}

/// Why nothing is served now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// The first lists have not come yet.
    Waiting,
    /// Nothing calls us.
    NotCalled,
    /// We may not see whether anything does.
    Blind,
    /// We are called, and cannot read the Secret.
    NoSecret,
}

/// What is known of the cluster.
#[derive(Clone, Debug)]
pub struct View {
    /// Our namespace.
    pub namespace: String,
    /// The Secret's name.
    pub secret_name: String,
    /// The Secret.
    pub secret: Known,
    /// ValidatingWebhookConfigurations.
    pub hooks: Callers,
    /// The definition of BGPPeer.
    pub definition: Callers,
}

impl View {
    /// Nothing is known yet.
    pub fn new(namespace: String, secret_name: String) -> Self {
        Self {
            namespace,
            secret_name,
            secret: Known::NotYet,
            hooks: Callers::default(),
            definition: Callers::default(),
        }
    }

    /// What to do, in this order, or why nothing. Registrations come before the certificate they are to trust is shown.
    ///
    /// # Errors
    /// A certificate is needed and cannot be made.
    pub fn next(&self, now: SystemTime) -> Result<Result<Vec<Step>, Idle>, MakeError> {
        let hosts = self.hosts();
        if hosts.is_empty() {
            return Ok(Err(self.idle()));
        }
        let secret = match &self.secret {
            Known::NotYet => return Ok(Err(Idle::Waiting)),
            Known::Unseen(_) => return Ok(Err(Idle::NoSecret)),
            Known::Absent => {
                let made = Kept::default().renewed(&hosts, now)?;
                return Ok(Ok(vec![Step::Create(self.with(Secret::default(), &made))]));
            }
            Known::There(secret) => secret,
        };
        let kept = Kept::from_data(secret.data.as_ref());
        if let Some(flaw) = kept.flaw(&hosts, now) {
            tracing::info!(op = "renewCertificate", secret = self.secret_name, reason = %flaw,
                "the webhooks' certificate is made anew");
            let made = kept.renewed(&hosts, now)?;
            let renewed = self.with(Secret::clone(secret), &made);
            return Ok(Ok(vec![Step::Replace(renewed)]));
        }
        let bundle = serde_json::to_value(ByteString(kept.authority.clone())).unwrap_or_default();
        let hooks = self.hooks.there.iter().filter_map(|(name, hooks)| {
            Some(Step::PatchHooks(name.clone(), hooks_patch(hooks, &bundle)?))
        });
        let definitions = self.definition.there.values();
        let definitions = definitions
            .filter_map(|definition| definition_patch(definition, &bundle))
            .map(Step::PatchDefinition);
        Ok(Ok(hooks
            .chain(definitions)
            .chain([Step::Show(kept)])
            .collect()))
    }

    /// The names we are called by.
    fn hosts(&self) -> Vec<String> {
        let registrations = self
            .hooks
            .there
            .values()
            .chain(self.definition.there.values());
        let calls = registrations.flat_map(|registration| &registration.calls);
        let services: BTreeSet<_> = calls.map(|call| &call.service).collect();
        services
            .into_iter()
            .map(|service| format!("{service}.{}.svc", self.namespace))
            .collect()
    }

    fn idle(&self) -> Idle {
        let sources = [&self.hooks, &self.definition];
        if sources.iter().any(|source| !source.told) {
            Idle::Waiting
        } else if sources
            .iter()
            .any(|source| source.unseen == Some(Unavailable::Forbidden))
        {
            Idle::Blind
        } else {
            Idle::NotCalled
        }
    }

    /// `secret` with this content; whatever else it holds stays.
    fn with(&self, secret: Secret, kept: &Kept) -> Secret {
        let mut data = secret.data.unwrap_or_default();
        // The key of another authority must not stay.
        data.remove("ca.key");
        data.extend(kept.to_data());
        Secret {
            metadata: ObjectMeta {
                name: Some(self.secret_name.clone()),
                namespace: Some(self.namespace.clone()),
                ..secret.metadata
            },
            data: Some(data),
            ..secret
        }
    }
}

/// The patch that makes every caller trust `bundle`; `None` if all do.
fn hooks_patch(hooks: &Registration, bundle: &Value) -> Option<Value> {
    let calls = hooks.calls.iter().filter(|call| *bundle != call.trust);
    let changes: Vec<_> = calls
        .map(|call| json!({"name": call.hook, "clientConfig": {"caBundle": bundle}}))
        .collect();
    (!changes.is_empty())
        .then(|| json!({"metadata": {"resourceVersion": hooks.version}, "webhooks": changes}))
}

fn definition_patch(definition: &Registration, bundle: &Value) -> Option<Value> {
    let mut calls = definition.calls.iter();
    calls.any(|call| *bundle != call.trust).then(|| {
        json!({
            "metadata": {"resourceVersion": definition.version},
            "spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": bundle}}}},
        })
    })
}

#[cfg(test)]
mod tests;
