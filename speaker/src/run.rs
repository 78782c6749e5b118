//! The speaker as a whole.
//!
//! ```text
//!  Services ────────┐                                  ┌──▶ events ──▶ core/v1 Events
//!  EndpointSlices ──┤            decider               ├──▶ statuses ──▶ ServiceL2Status
//!  Nodes ───────────┼─▶ inputs ─▶ (owns the View, ─────┼──▶ metrics, log
//!  speakers' pods ──┤             decides, acts)       │
//!  gossip ──────────┤                 ▲                └──▶ who may answer ─┐
//!  configuration ───┤                 │ what was taken, let go              ▼
//!  interfaces ──────┘                 └────────────────────────────── arbiters (a thread of their own)
//!     ▲ names                                                              │ tables        ▲▼ probes, claims
//!     netlink ──▶ interfaces ───────────────────────────────────────▶ responder (a thread of its own)
//!                                                                                          ▲▼ ARP, NDP
//! ```

mod threads;

use std::path::Path;

use anyhow::Context as _;
use ferrolb_config::ObjectName;
use ferrolb_runtime::configuration::{self, Reporter};
use ferrolb_runtime::endpoints::Endpoints;
use ferrolb_runtime::events::Events;
use ferrolb_runtime::metrics::{self, ClientMetrics};
use ferrolb_runtime::ready::Ready;
use ferrolb_runtime::state::{Component, State};
use ferrolb_runtime::{client, object, process, shutdown, watch};
use ferrolb_speaker_core::{Settings, SpeakerPod, View};
use ferrolb_speaker_responder::Interfaces;
use k8s_openapi::api::core::v1 as core;
use kube::Client;
use kube::runtime::watcher;
use tokio::sync::{mpsc, watch as latest};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::threads::Threads;
use crate::act::Actor;
use crate::args::{Args, Cordoned};
use crate::decider::Decider;
use crate::exclusions::{self, Exclusions};
use crate::interfaces::{self, Own};
use crate::metrics::Metrics;
use crate::sources::{self, Input};
use crate::statuses::{self, Identity, Statuses};
use crate::{gossip, translate};

/// Changes waiting for the decider; the watches pause while it is full.
const INPUTS: usize = 1024;

/// Runs until a signal asks for the end or a vital task ends by itself.
pub async fn run(args: Args) -> anyhow::Result<()> {
    process::without_effect(&args.without_effect());
    // Read again where it is needed; what is wrong with it is said now.
    args.gossip()?;
    let node = args.node()?.to_owned();
    let stop = shutdown::on_signals()?;
    let excluded = Exclusions::read(Path::new(exclusions::PATH))?;
    let namespace = client::own_namespace(args.shared.namespace.as_deref())?;
    let endpoints = Endpoints::open(&args.shared, args.daemon()?).await?;

    let registry = metrics::registry()?;
    let client_metrics = ClientMetrics::new(&registry)?;
    let metrics = Metrics::new(&registry)?;
    let ready = Ready::new();
    let listing = ready.wait_for("lists");
    let client = client::connect(args.shared.kubeconfig.as_deref()).await?;
    let (events, post_events) = Events::new(
        client.clone(),
        "metallb-speaker",
        Some(node.clone()),
        &registry,
    )?;

    let (found, interfaces) = latest::channel(Interfaces::new());
    let (tell, told) = mpsc::unbounded_channel();
    let (tell_own, own) = latest::channel(Own::default());
    let mut threads = Threads::start(&args, interfaces, own, &metrics, &ready, tell)?;

    let configmap = ObjectName::new(namespace, args.shared.config_name());
    let statuses = Statuses::default();
    let identity = Identity {
        node: node.clone(),
        namespace: configmap.namespace.to_string(),
        pod: args.shared.pod().map(str::to_owned),
    };
    let status_errors = metrics.status_errors.clone();
    let view = View::new(Settings {
        ignore_exclusion: args.ignore_exclude_lb,
        leave_cordoned: args.failover.cordoned_nodes == Cordoned::Leave,
    });
    let (state, report_state) = State::new(
        client.clone(),
        configmap.namespace.to_string(),
        Component::Speaker(node.clone()),
        args.shared.pod().map(str::to_owned),
    );
    let actor =
        Actor::new(node.clone(), metrics, events, statuses.clone()).reporting(state.clone());
    let decider = Decider::new(
        node,
        Reporter::from(configmap.clone()).with_state(state),
        view,
        threads.words(),
        actor,
        client_metrics,
        listing,
    );

    let mut vital = JoinSet::new();
    let (inputs, queue) = mpsc::channel(INPUTS);
    let peers = follow_cluster(&mut vital, &client, &args, configmap, &inputs);
    let goodbye = CancellationToken::new();
    let (leaving, mut left) = mpsc::channel(1);
    vital.spawn(gossip::follow(
        move || args.gossip(),
        peers,
        inputs.clone(),
        goodbye.clone(),
        leaving,
    ));
    let (list, excluded) = latest::channel(excluded);
    let (tell_names, names) = latest::channel(None);
    vital.spawn(sources::arbiters(told, inputs.clone()));
    vital.spawn(sources::interfaces(names, inputs));
    vital.spawn(interfaces::follow(excluded, found, tell_names, tell_own));
    vital.spawn(exclusions::follow(Path::new(exclusions::PATH), list));
    vital.spawn(decider.run(queue));
    vital.spawn(report_state);
    vital.spawn(statuses::write(
        client.clone(),
        identity,
        statuses,
        status_errors,
    ));
    vital.spawn(post_events);
    vital.spawn(endpoints.serve(registry, ready, client));

    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        error = threads.ended() => Err(error),
        ended = vital.join_next() => match ended {
            Some(Err(error)) => Err(error).context("a vital task failed"),
            _ => Err(anyhow::anyhow!("a vital task ended, which none may")),
        },
    };
    // Silent before the goodbye: whoever takes over at that finds nobody answering.
    let clean = threads.end().await;
    goodbye.cancel();
    let _ = left.recv().await;
    tracing::info!(op = "shutdown", clean, "done");
    result
}

/// Follows everything the decider looks at in the cluster. Gives the speakers' pods, whom gossip asks to be let in.
fn follow_cluster(
    vital: &mut JoinSet<()>,
    client: &Client,
    args: &Args,
    configmap: ObjectName,
    inputs: &mpsc::Sender<Input>,
) -> latest::Receiver<Vec<SpeakerPod>> {
    let class = args.shared.class().map(str::to_owned);
    let all = watcher::Config::default;
    vital.spawn(watch::follow(
        object::everywhere::<core::Service>(client.clone()),
        all(),
        "services",
        move |service| translate::service(service, class.as_deref()),
        Input::Service,
        inputs.clone(),
    ));
    vital.spawn(watch::follow(
        object::everywhere::<core::Node>(client.clone()),
        all(),
        "nodes",
        translate::node,
        Input::Node,
        inputs.clone(),
    ));
    vital.spawn(sources::endpoints(
        client.clone(),
        args.shared.disable_epslices,
        inputs.clone(),
    ));
    let labels = args.speaker_pods().to_owned();
    let (pods, peers) = latest::channel(Vec::new());
    vital.spawn(sources::speakers(
        client.clone(),
        args.speaker_namespace(&configmap.namespace).to_owned(),
        labels,
        pods,
        inputs.clone(),
    ));
    vital.spawn(configuration::follow(
        client.clone(),
        configmap,
        args.shared.configmap_wanted(),
        |source, _| Input::Config(source),
        inputs.clone(),
    ));
    peers
}
