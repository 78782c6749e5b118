//! The Secret `memberlist`, without which MetalLB's speakers (0.13.9 and newer) are not even started: their manifest
//! mounts it, and the controller makes it (0.10 and newer).
//!
//! MetalLB's controller ends when it cannot; here addresses are more important. It is tried again until it works, with
//! one Event on the Deployment for whoever wonders why speakers hang in ContainerCreating.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ferrolb_config::ObjectName;
use ferrolb_runtime::events::{About, EventType, Events};
use k8s_openapi::{
    ByteString,
    api::{apps::v1::Deployment, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::args::Args;

/// The value's name.
const KEY: &str = "secretkey";
/// Length of the random bytes, as MetalLB has it. Written as Base64 without padding (22 characters): that text, not the
/// bytes, is what the speakers take for their key.
const LENGTH: usize = 16;
/// The first pause after a failure; doubled up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Failures that may be an API server still coming up: 7 s with the pauses. Until then nobody is alarmed, and a
/// Deployment that cannot be had is asked for again.
const PATIENCE: u32 = 3;

/// Why the Secret is not there yet.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot see whether it exists: {0}; the role needs list on secrets")]
    List(kube::Error),
    #[error("cannot read our Deployment, its owner: {0}; the role needs get on deployments")]
    Owner(kube::Error),
    #[error("cannot create it: {0}; the role needs create on secrets")]
    Create(kube::Error),
    #[error("the kernel gives no random bytes")]
    Random,
}

/// The Secret to have, and the Deployment it goes with when MetalLB is removed.
#[derive(Clone, Debug)]
pub struct MemberList {
    /// The Secret's name and namespace.
    pub secret: ObjectName,
    /// The Deployment in the same namespace (`METALLB_DEPLOYMENT`); without one the Secret belongs to nobody.
    pub deployment: String,
}

impl MemberList {
    /// As the command line and the environment say; `None` if no Secret is wanted (manifests up to 0.9).
    pub fn of(args: &Args, namespace: &str) -> Option<Self> {
        (!args.ml_secret_name.is_empty()).then(|| Self {
            secret: ObjectName::new(namespace, args.ml_secret_name.clone()),
            deployment: args.deployment.clone(),
        })
    }

    /// Makes the Secret if there is none, however long that takes.
    pub async fn ensure(self, client: Client, events: Events) {
        let mut pause = PAUSE;
        for failures in 1_u32.. {
            match self.attempt(&client, failures).await {
                Ok(true) => {
                    tracing::info!(op = "createMemberlistSecret", secret = %self.secret, "Secret created");
                    return;
                }
                Ok(false) => {
                    tracing::debug!(op = "createMemberlistSecret", secret = %self.secret, "Secret is there");
                    return;
                }
                Err(error) if failures < PATIENCE => {
                    tracing::warn!(op = "createMemberlistSecret", secret = %self.secret, error = %error, "trying again");
                }
                Err(error) => self.alarm(&error, &events),
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn alarm(&self, error: &Failure, events: &Events) {
        let text = format!(
            "Secret {} is missing, without which speakers do not start: {error}",
            self.secret
        );
        tracing::error!(op = "createMemberlistSecret", secret = %self.secret, error = text, "trying again");
        if !self.deployment.is_empty() {
            let about = About {
                api_version: "apps/v1",
                kind: "Deployment",
                namespace: self.secret.namespace.to_string(),
                name: self.deployment.clone(),
                uid: None,
            };
            events.post(about, EventType::Warning, "MemberlistSecretMissing", text);
        }
    }

    /// Whether the Secret had to be made; `nth` counts from 1.
    async fn attempt(&self, client: &Client, nth: u32) -> Result<bool, Failure> {
        let name = &self.secret.name;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &self.secret.namespace);
        // As MetalLB does: its role may list this one and not get it.
        let only = ListParams::default().fields(&format!("metadata.name={name}"));
        let there = secrets.list_metadata(&only).await.map_err(Failure::List)?;
        if !there.items.is_empty() {
            return Ok(false);
        }
        let owner = self.owner(client, nth).await?;
        let secret = self.make(owner, &random()?);
        match secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
            Err(error) => Err(Failure::Create(error)),
        }
    }

    /// The Deployment as an owner. It only serves tidying up: where it lastingly cannot be had, a Secret without an owner
    /// is better than none.
    async fn owner(&self, client: &Client, nth: u32) -> Result<Option<OwnerReference>, Failure> {
        if self.deployment.is_empty() {
            return Ok(None);
        }
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), &self.secret.namespace);
        match deployments.get_metadata(&self.deployment).await {
            Ok(deployment) => Ok(deployment.metadata.uid.map(|uid| OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: self.deployment.clone(),
                uid,
                ..OwnerReference::default()
            })),
            Err(kube::Error::Api(status))
                if nth >= PATIENCE && (status.is_not_found() || status.is_forbidden()) =>
            {
                tracing::warn!(op = "createMemberlistSecret", secret = %self.secret, deployment = self.deployment,
                    error = %status, "the Secret gets no owner, remove it by hand when it is of no use any more");
                Ok(None)
            }
            Err(error) => Err(Failure::Owner(error)),
        }
    }

    fn make(&self, owner: Option<OwnerReference>, key: &[u8; LENGTH]) -> Secret {
        let text = STANDARD_NO_PAD.encode(key).into_bytes();
        Secret {
            metadata: ObjectMeta {
                name: Some(self.secret.name.clone()),
                namespace: Some(self.secret.namespace.to_string()),
                owner_references: owner.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(text))])),
            ..Secret::default()
        }
    }
}

fn random() -> Result<[u8; LENGTH], Failure> {
    let mut key = [0; LENGTH];
    let filled = SystemRandom::new().fill(&mut key);
    filled.map(|()| key).map_err(|_| Failure::Random)
}

#[cfg(test)]
mod tests;
