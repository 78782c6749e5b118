//! MetalLB's webhooks, served where MetalLB's manifests call for them.
//!
//! ```text
//!  watch Secret ──────────────┐                        ┌─► Secret, caBundles
//!  watch webhook registration ├─► view ─► next ─► act ─┤
//!  watch definition of BGPPeer┘   (upkeep.rs, pure)    └─► certificate shown ─► server on 9443
//!                                                              │
//!  AdmissionReview ─► review ─► decide (pure) ◄─ lists from the API server
//!  ConversionReview ─► convert (pure)
//! ```
//!
//! None of it waits for the allocator, and none of its failures stops the allocator.

mod admission;
mod bgp;
mod certificate;
mod cluster;
mod convert;
mod layer2;
mod peer;
mod review;
mod server;
mod upkeep;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ferrolb_runtime::{
    admin, flags, object,
    ready::Blocker,
    serve::{Site, serve},
    tls::{self, Acceptor, Identity},
    watch::{self, Change},
};
use k8s_openapi::{
    api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::args::{Args, WebhookMode};

use self::{
    admission::{BgpType, Rules},
    cluster::Cluster,
    upkeep::{DEFINITION, Idle, Registration, Step, View},
};

/// Where MetalLB's Service for webhooks leads.
const PORT: u16 = 9443;
/// How often the certificate's end is looked at when nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_hours(1);
/// How long the process may be unready for want of webhooks: addresses are not to wait for them.
const ROLL_OUT: Duration = Duration::from_secs(30);
/// The pause after a failure; doubled up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How the webhooks are to be served.
#[derive(Clone, Debug)]
pub struct Options {
    /// Our namespace.
    pub namespace: String,
    /// `--cert-service-name`, for the log: what is served is what is called.
    pub service: String,
    /// `--webhook-secret`.
    pub secret: String,
    /// `--cert-dir`, with `--disable-cert-rotation`: somebody else puts the certificate there and cares for the
    /// `caBundle`s.
    pub given: Option<PathBuf>,
    /// `--tls-*`.
    pub tls: tls::Options,
    /// `METALLB_BGP_TYPE`.
    pub bgp: String,
}

impl Options {
    /// As the command line and the environment say; `None` with `--webhook-mode=disabled` alone. Whether a ConfigMap is
    /// read, too (`--config`), says nothing about who registered the webhooks: with `failurePolicy: Fail` and nobody
    /// here, no pool could be changed. Manifests of the ConfigMap era (0.7 to 0.12) register nothing and grant no right
    /// to see whether anybody else does; there each kind is asked for every half minute, in silence.
    ///
    /// # Errors
    /// One of the flags says nothing usable.
    pub fn of(args: &Args, namespace: &str) -> anyhow::Result<Option<Self>> {
        let options = Self {
            namespace: namespace.to_owned(),
            service: args.cert_service_name.clone(),
            secret: args.webhook_secret.clone(),
            given: args.disable_cert_rotation.then(|| args.cert_dir.clone()),
            tls: args.shared.tls()?,
            bgp: flags::bgp_type(),
        };
        Ok(match args.mode()? {
            WebhookMode::Disabled => None,
            WebhookMode::Enabled | WebhookMode::OnlyWebhook => Some(options),
        })
    }
}

/// Serves for as long as the process lives, beginning when there is something to serve with. `starting` keeps the process
/// unready until then or until it is known that nobody calls, so that a roll-out takes the old controller away only when
/// the new one answers; but not for longer than [`ROLL_OUT`].
pub async fn run(client: Client, options: Options, starting: Blocker, stop: CancellationToken) {
    let identity = Arc::new(Identity::empty());
    let signals = Signals::default();
    let settling = async {
        // Either way it is over.
        let _ = timeout(ROLL_OUT, signals.settled.notified()).await;
        drop(starting);
    };
    let serving = open(client.clone(), &options, identity.clone(), &signals, stop);
    let keeping = async {
        if let Some(directory) = options.given.clone() {
            signals.first.notify_one();
            tls::follow(directory, identity).await;
        } else {
            Box::pin(keep(client, &options, identity, &signals)).await;
        }
    };
    tokio::join!(settling, keeping, serving);
}

/// Warns once if `--webhook-mode=disabled` leaves a registration unanswered, as far as that can be seen: then the API
/// server refuses every change of what the registration names.
pub async fn warn_of_callers(client: Client, namespace: String) {
    match callers(client, &namespace).await {
        Ok(names) if names.is_empty() => {}
        Ok(names) => tracing::warn!(
            op = "webhooks",
            "--webhook-mode=disabled, but webhooks of ours are registered, so metallb.io objects cannot be changed; run \
             kubectl delete validatingwebhookconfiguration {}",
            names.join(" ")
        ),
        // Without the right to see them there is nothing to say.
        Err(error) => {
            tracing::debug!(op = "webhooks", error = %error, "cannot see who calls webhooks");
        }
    }
}

/// The ValidatingWebhookConfigurations that call us.
async fn callers(client: Client, namespace: &str) -> kube::Result<Vec<String>> {
    let hooks = ApiResource::erase::<ValidatingWebhookConfiguration>(&());
    let hooks: Api<DynamicObject> = Api::all_with(client, &hooks);
    let listed = hooks.list(&ListParams::default()).await?.items.into_iter();
    let ours = listed.filter(|object| Registration::of_hooks(object, namespace).calls_us());
    Ok(ours.filter_map(|object| object.metadata.name).collect())
}

/// What one part tells the others.
#[derive(Default)]
struct Signals {
    /// There is a certificate to show.
    first: Notify,
    /// The webhooks are served, or nobody calls them.
    settled: Notify,
}

/// Waits for the first certificate, then serves until `stop`.
async fn open(
    client: Client,
    options: &Options,
    identity: Arc<Identity>,
    signals: &Signals,
    stop: CancellationToken,
) {
    signals.first.notified().await;
    let acceptor = match Acceptor::new(identity, &options.tls) {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(op = "webhooks", error = %error,
                "webhooks cannot be served: metallb.io objects cannot be changed; check the --tls-* flags");
            return;
        }
    };
    let rules = Rules {
        namespace: options.namespace.clone(),
        bgp: BgpType::parse(&options.bgp),
    };
    let cluster = Cluster::new(client, options.namespace.clone());
    let listener = listen().await;
    signals.settled.notify_one();
    tracing::info!(op = "webhooks", port = PORT, "webhooks are served");
    serve(
        listener,
        Site::secure(acceptor, server::router(cluster, rules)),
        stop,
    )
    .await;
}

async fn listen() -> TcpListener {
    let mut pause = PAUSE;
    loop {
        match admin::bind(None, PORT).await {
            Ok(listener) => return listener,
            Err(error) => {
                tracing::error!(op = "webhooks", error = %error,
                    "webhooks cannot be served: metallb.io objects cannot be changed");
            }
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

enum Input {
    Secret(Change<Box<Secret>>),
    Hooks(Change<Registration>),
    Definition(Change<Registration>),
}

/// Keeps the certificate, and everybody's trust in it, in order.
async fn keep(client: Client, options: &Options, identity: Arc<Identity>, signals: &Signals) {
    let namespace = options.namespace.clone();
    let (sink, inputs) = mpsc::channel(16);
    let only = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let keeper = Keeper {
        secrets: Api::namespaced(client.clone(), &namespace),
        hooks: Api::all_with(
            client.clone(),
            &ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
        ),
        definitions: Api::all_with(
            client.clone(),
            &ApiResource::erase::<CustomResourceDefinition>(&()),
        ),
        view: View::new(namespace.clone(), options.secret.clone()),
        service: &options.service,
        identity,
        signals,
        said: None,
    };
    let secrets = watch::follow(
        object::within::<Secret>(client.clone(), &namespace),
        only(&options.secret),
        "secrets",
        Box::new,
        Input::Secret,
        sink.clone(),
    );
    let hooks = watch::follow(
        object::everywhere::<ValidatingWebhookConfiguration>(client.clone()),
        watcher::Config::default(),
        "validatingwebhookconfigurations",
        |object: DynamicObject| Registration::of_hooks(&object, &namespace),
        Input::Hooks,
        sink.clone(),
    );
    let definitions = watch::follow(
        object::everywhere::<CustomResourceDefinition>(client.clone()),
        only(DEFINITION),
        "customresourcedefinitions",
        |object: DynamicObject| Registration::of_definition(&object, &namespace),
        Input::Definition,
        sink,
    );
    tokio::join!(secrets, hooks, definitions, keeper.run(inputs));
}

struct Keeper<'a> {
    secrets: Api<Secret>,
    hooks: Api<DynamicObject>,
    definitions: Api<DynamicObject>,
    view: View,
    service: &'a str,
    identity: Arc<Identity>,
    signals: &'a Signals,
    /// The last thing said about why nothing is served, so that it is said once.
    said: Option<String>,
}

impl Keeper<'_> {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut pause = PAUSE;
        loop {
            let wait = if self.proceed().await {
                pause = PAUSE;
                LOOK_AGAIN
            } else {
                let wait = pause;
                pause = LONGEST_PAUSE.min(pause * 2);
                wait
            };
            match timeout(wait, inputs.recv()).await {
                Ok(Some(input)) => self.take(input),
                // The watches end only with the process.
                Ok(None) => return,
                Err(_) => {}
            }
            while let Ok(input) = inputs.try_recv() {
                self.take(input);
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Secret(change) => self.view.secret.take(change),
            Input::Hooks(change) => self.view.hooks.take(change),
            Input::Definition(change) => self.view.definition.take(change),
        }
    }

    /// Does what is to be done now. False if it is to be tried again soon.
    async fn proceed(&mut self) -> bool {
        let steps = match self.view.next(SystemTime::now()) {
            Ok(Ok(steps)) => steps,
            Ok(Err(idle)) => {
                self.say_idle(idle);
                return true;
            }
            Err(error) => {
                self.say_error("makeCertificate", &error.to_string());
                return false;
            }
        };
        let mut well = true;
        for step in steps {
            match self.act(&step).await {
                Ok(()) => {}
                // Somebody was quicker, and the watch is about to tell what it is now.
                Err(Failure::Api(kube::Error::Api(status)))
                    if status.is_conflict() || status.is_already_exists() =>
                {
                    tracing::debug!(op = "webhooks", "changed meanwhile, looking again");
                }
                Err(error) => {
                    self.say_error("webhooks", &error.to_string());
                    well = false;
                }
            }
        }
        if well {
            self.said = None;
        }
        well
    }

    async fn act(&self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Create(secret) => {
                self.secrets.create(&PostParams::default(), secret).await?;
                tracing::info!(
                    op = "webhooks",
                    secret = self.view.secret_name,
                    "Secret made"
                );
            }
            Step::Replace(secret) => {
                let name = &self.view.secret_name;
                self.secrets
                    .replace(name, &PostParams::default(), secret)
                    .await?;
                tracing::info!(op = "webhooks", secret = name, "Secret written");
            }
            Step::PatchHooks(name, patch) => {
                trust(&self.hooks, name, &Patch::Strategic(patch)).await?;
            }
            Step::PatchDefinition(patch) => {
                trust(&self.definitions, DEFINITION, &Patch::Merge(patch)).await?;
            }
            Step::Show(kept) => {
                self.identity.replace(kept.served()?);
                self.signals.first.notify_one();
            }
        }
        Ok(())
    }

    fn say_idle(&mut self, idle: Idle) {
        let host = format!("{}.{}.svc", self.service, self.view.namespace);
        let text = match idle {
            Idle::Waiting => return,
            Idle::NotCalled => format!("no webhooks are served: nothing calls {host}"),
            Idle::Blind => {
                format!("no webhooks are served: whether anything calls {host} is not ours to see")
            }
            Idle::NoSecret => {
                let text = format!(
                    "webhooks cannot be served, metallb.io objects cannot be changed: the Secret {} is not ours to see; \
                     grant create, list, watch and update on secrets in this namespace",
                    self.view.secret_name
                );
                return self.say_error("webhooks", &text);
            }
        };
        self.signals.settled.notify_one();
        if self.said.as_ref() != Some(&text) {
            tracing::info!(op = "webhooks", "{text}");
            self.said = Some(text);
        }
    }

    fn say_error(&mut self, op: &'static str, error: &str) {
        if self.said.as_deref() != Some(error) {
            tracing::error!(
                op,
                error,
                "webhooks are not as they should be, trying again"
            );
            self.said = Some(error.to_owned());
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}; the role needs get, list, watch, create, update and patch as MetalLB's has it")]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Certificate(#[from] tls::CertificateError),
}

async fn trust(api: &Api<DynamicObject>, name: &str, patch: &Patch<&Value>) -> kube::Result<()> {
    let params = PatchParams {
        field_manager: Some("ferrolb-controller".to_owned()),
        ..PatchParams::default()
    };
    api.patch(name, &params, patch).await?;
    tracing::info!(op = "webhooks", registration = name, "caBundle filled in");
    Ok(())
}

#[cfg(test)]
mod tests;
