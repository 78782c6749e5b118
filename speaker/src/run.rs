//! The speaker as a whole.
//!
//! ```text
//!  Services ────────┐                                  ┌──▶ events ──▶ core/v1 Events
//!  EndpointSlices ──┤            decider               ├──▶ metrics, log
//!  Nodes ───────────┼─▶ inputs ─▶ (owns the View, ─────┤
//!  speakers' pods ──┤             decides, acts)       └──▶ table ───────┐ snapshot per frame
//!  ConfigMap ───────┘                                                    ▼
//!                                              netlink ──▶ interfaces ──▶ responder (a thread of its own)
//!                                                                            ▲▼ ARP, NDP
//! ```

use std::path::Path;

use anyhow::Context as _;
use ferrolb_config::ObjectName;
use ferrolb_runtime::events::Events;
use ferrolb_runtime::metrics::{self, ClientMetrics};
use ferrolb_runtime::ready::Ready;
use ferrolb_runtime::{admin, client, configmap, shutdown, watch};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch as latest};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::act::Actor;
use crate::args::Args;
use crate::decider::Decider;
use crate::exclusions::{self, Exclusions};
use crate::interfaces::{self, Interfaces};
use crate::metrics::Metrics;
use crate::sources::{self, Input};
use crate::table::Table;
use crate::{responder, translate};

/// Changes waiting for the decider; the watches pause while it is full.
const INPUTS: usize = 1024;

/// Runs until a signal asks for the end or a vital task ends by itself.
pub async fn run(args: Args) -> anyhow::Result<()> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        "FerroLB speaker starting"
    );
    let ignored = args.without_effect();
    if !ignored.is_empty() {
        tracing::debug!(
            op = "startup",
            flags = ignored.join(" "),
            "flags accepted without effect"
        );
    }
    let node = args.node()?.to_owned();
    let stop = shutdown::on_signals()?;
    let excluded = Exclusions::read(Path::new(exclusions::PATH))?;
    let namespace = client::own_namespace(args.namespace.as_deref())?;
    let listener = admin::bind(args.listen()?, args.port).await?;

    let registry = metrics::registry()?;
    let client_metrics = ClientMetrics::new(&registry)?;
    let metrics = Metrics::new(&registry)?;
    let ready = Ready::new();
    let listing = ready.wait_for("lists");
    let client = client::connect(args.kubeconfig.as_deref()).await?;
    let (events, post_events) = Events::new(
        client.clone(),
        "metallb-speaker",
        Some(node.clone()),
        &registry,
    )?;

    let table = Table::default();
    let (found, interfaces) = latest::channel(Interfaces::new());
    let silence = CancellationToken::new();
    let mut responder = responder::start(
        interfaces,
        table.clone(),
        metrics.wire.clone(),
        silence.clone(),
    )
    .context("cannot start the responder")?;

    let configmap = ObjectName::new(namespace, &*args.config);
    let actor = Actor::new(node.clone(), table, metrics, events);
    let decider = Decider::new(node, configmap.clone(), actor, client_metrics, listing);

    let mut vital = JoinSet::new();
    let (inputs, queue) = mpsc::channel(INPUTS);
    follow_cluster(&mut vital, &client, &args, configmap, &inputs);
    drop(inputs);
    vital.spawn(interfaces::follow(excluded, found));
    vital.spawn(decider.run(queue));
    vital.spawn(post_events);

    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        served = admin::serve(listener, registry, ready, stop.clone()) => served.context("the metrics server"),
        () = responder.ended() => Err(anyhow::anyhow!("the responder ended, which it may not")),
        ended = vital.join_next() => match ended {
            Some(Err(error)) => Err(error).context("a vital task failed"),
            _ => Err(anyhow::anyhow!("a vital task ended, which none may")),
        },
    };
    // Silent first: whoever takes over should not find us still answering.
    silence.cancel();
    let clean = responder.join();
    tracing::info!(op = "shutdown", clean, "done");
    result
}

/// Follows everything the decider looks at.
fn follow_cluster(
    vital: &mut JoinSet<()>,
    client: &Client,
    args: &Args,
    configmap: ObjectName,
    inputs: &mpsc::Sender<Input>,
) {
    let class = args.lb_class.clone();
    let all = watcher::Config::default;
    vital.spawn(watch::follow(
        Api::all(client.clone()),
        all(),
        "services",
        move |service| translate::service(service, class.as_deref()),
        Input::Service,
        inputs.clone(),
    ));
    vital.spawn(watch::follow(
        Api::all(client.clone()),
        all(),
        "nodes",
        translate::node,
        Input::Node,
        inputs.clone(),
    ));
    vital.spawn(sources::endpoints(
        client.clone(),
        args.disable_epslices,
        inputs.clone(),
    ));
    let labels = args.speaker_pods().to_owned();
    vital.spawn(sources::speakers(
        client.clone(),
        configmap.namespace.clone(),
        labels,
        inputs.clone(),
    ));
    vital.spawn(configmap::follow(
        client.clone(),
        configmap,
        |source, _uid| Input::Config(source),
        inputs.clone(),
    ));
}
