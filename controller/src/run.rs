//! The controller as a whole.
//!
//! ```text
//!  watch Services ──┐                                       ┌─► writer ─► services/status
//!  watch Nodes ─────┼─► inputs ─► reconciler ─► effects ────┤     │
//!  watch ConfigMap ─┘      ▲      (owns Core,               └─► events ─► core/v1 Events
//!                          │       decides, sync)                 │
//!                          └─────────── what was written ◄────────┘
//! ```

use anyhow::Context as _;
use ferrolb_config::ObjectName;
use ferrolb_runtime::{
    admin, client, configmap,
    events::Events,
    metrics::{self, ClientMetrics},
    ready::Ready,
    shutdown, watch,
};
use kube::{Api, runtime::watcher};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    act::{self, Writer},
    args::Args,
    metrics::AllocatorMetrics,
    reconcile::{Input, Reconciler},
    translate,
};

/// Changes waiting for the reconciler; the watches pause while it is full.
const INPUTS: usize = 1024;

/// Runs until a signal asks for the end or a vital task ends by itself.
///
/// # Errors
/// The cluster or the metrics port cannot be had at start, or a vital task ended.
pub async fn run(args: Args) -> anyhow::Result<()> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        "FerroLB controller starting"
    );
    let stop = shutdown::on_signals()?;
    let namespace = client::own_namespace(args.namespace.as_deref())?;
    let client = client::connect(args.kubeconfig.as_deref()).await?;
    let config = ObjectName {
        namespace,
        name: args.config,
    };

    let registry = metrics::registry()?;
    let client_metrics = ClientMetrics::new(&registry)?;
    let allocator_metrics = AllocatorMetrics::new(&registry)?;
    let ready = Ready::new();
    let synced = ready.wait_for("services");
    let (events, post_events) = Events::new(client.clone(), "metallb-controller", None, &registry)?;
    let listener = admin::bind(None, args.port).await?;

    let (inputs, queue) = mpsc::channel(INPUTS);
    let writer = Writer::new(client.clone(), inputs.clone());
    let reconciler = Reconciler::new(config.clone(), client_metrics, allocator_metrics, synced);

    let mut vital = JoinSet::new();
    let class = args.lb_class;
    vital.spawn(watch::follow(
        Api::all(client.clone()),
        watcher::Config::default(),
        "services",
        move |service| translate::service(service, class.as_deref()),
        Input::Service,
        inputs.clone(),
    ));
    vital.spawn(watch::follow(
        Api::all(client.clone()),
        watcher::Config::default(),
        "nodes",
        |node| translate::node_addresses(&node),
        Input::Node,
        inputs.clone(),
    ));
    vital.spawn(configmap::follow(client, config, Input::Config, inputs));
    vital.spawn(act::drive(reconciler, queue, writer, events));
    vital.spawn(post_events);
    let serving = admin::serve(listener, registry, ready, stop.clone());

    tokio::select! {
        () = stop.cancelled() => {
            tracing::info!(op = "shutdown", "done");
            Ok(())
        }
        served = serving => served.context("the metrics server"),
        ended = vital.join_next() => match ended {
            Some(Err(error)) => Err(error).context("a vital task failed"),
            _ => anyhow::bail!("a vital task ended, which none may"),
        },
    }
}
