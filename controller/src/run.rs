//! The controller as a whole.
//!
//! ```text
//!  watch Services ───┐                                       ┌─► writer ─► services/status
//!  watch Nodes ──────┼─► inputs ─► reconciler ─► effects ────┤     │       ipaddresspools/status
//!  watch Namespaces ─┤      ▲      (owns Core,               └─► events ─► core/v1 Events
//!  configuration ────┤      │       decides, sync)                 │
//!  pools' status ────┤      │                                      │
//!  speakers' states ─┘      └─────────── what was written ◄────────┘
//! ```

use anyhow::Context as _;
use ferrolb_config::ObjectName;
use ferrolb_config_api::{ConfigurationState, IPAddressPool};
use ferrolb_runtime::{
    client,
    configuration::{self, Reporter},
    endpoints::{Daemon, Endpoints},
    events::Events,
    metrics::{self, ClientMetrics},
    object, process,
    ready::Ready,
    shutdown,
    state::{Component, State},
    watch,
};
use k8s_openapi::api::core::v1 as core;
use kube::{Client, api::DynamicObject, runtime::watcher};
use prometheus::Registry;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    act::{self, Writer},
    args::{Args, WebhookMode},
    conflicts,
    metrics::AllocatorMetrics,
    pool_status,
    reconcile::{Input, Reconciler},
    secret::MemberList,
    translate, webhook,
};

/// Changes waiting for the reconciler; the watches pause while it is full.
const INPUTS: usize = 1024;

/// Runs until a signal asks for the end or a vital task ends by itself.
///
/// # Errors
/// The cluster or the metrics port cannot be had at start, or a vital task ended.
pub async fn run(args: Args) -> anyhow::Result<()> {
    process::without_effect(&args.without_effect());
    let stop = shutdown::on_signals()?;
    let endpoints = Endpoints::open(&args.shared, Daemon::Controller).await?;
    let namespace = client::own_namespace(args.shared.namespace.as_deref())?;
    let webhooks = webhook::Options::of(&args, &namespace)?;
    let memberlist = MemberList::of(&args, &namespace);
    let client = client::connect(args.shared.kubeconfig.as_deref()).await?;

    let registry = metrics::registry()?;
    let ready = Ready::new();
    ready.check(client::out_of_reach);
    let (events, post_events) = Events::new(client.clone(), "metallb-controller", None, &registry)?;

    let mut vital = JoinSet::new();
    vital.spawn(post_events);
    if let Some(webhooks) = webhooks {
        let starting = ready.wait_for("webhooks");
        vital.spawn(webhook::run(
            client.clone(),
            webhooks,
            starting,
            stop.clone(),
        ));
    } else {
        tokio::spawn(webhook::warn_of_callers(client.clone(), namespace.clone()));
    }
    if let Some(memberlist) = memberlist {
        tokio::spawn(memberlist.ensure(client.clone(), events.clone()));
    }
    if args.mode()? != WebhookMode::OnlyWebhook {
        allocate(
            &mut vital, &args, namespace, &client, &registry, &ready, events,
        )?;
    }
    vital.spawn(endpoints.serve(registry, ready, client));

    tokio::select! {
        () = stop.cancelled() => {
            tracing::info!(op = "shutdown", "done");
            Ok(())
        }
        ended = vital.join_next() => match ended {
            Some(Err(error)) => Err(error).context("a vital task failed"),
            _ => anyhow::bail!("a vital task ended, which none may"),
        },
    }
}

/// What gives Services addresses: everything but the webhooks.
fn allocate(
    vital: &mut JoinSet<()>,
    args: &Args,
    namespace: String,
    client: &Client,
    registry: &Registry,
    ready: &Ready,
    events: Events,
) -> anyhow::Result<()> {
    let config = ObjectName::new(namespace, args.shared.config_name());
    let client_metrics = ClientMetrics::new(registry)?;
    let allocator_metrics = AllocatorMetrics::new(registry)?;
    let synced = ready.wait_for("services");

    let (inputs, queue) = mpsc::channel(INPUTS);
    let writer = Writer::new(client.clone(), inputs.clone());
    let (state, report_state) = State::new(
        client.clone(),
        config.namespace.to_string(),
        Component::Controller,
        args.shared.pod().map(str::to_owned),
    );
    let reporter = Reporter::from(config.clone()).with_state(state);
    let reconciler = Reconciler::new(reporter, client_metrics, allocator_metrics, synced)
        .on_conflict(args.on_conflict);

    let class = args.shared.class().map(str::to_owned);
    vital.spawn(watch::follow(
        object::everywhere::<core::Service>(client.clone()),
        watcher::Config::default(),
        "services",
        move |service| translate::service(service, class.as_deref()),
        Input::Service,
        inputs.clone(),
    ));
    vital.spawn(watch::follow(
        object::everywhere::<core::Node>(client.clone()),
        watcher::Config::default(),
        "nodes",
        translate::node_addresses,
        Input::Node,
        inputs.clone(),
    ));
    vital.spawn(watch::follow(
        object::everywhere::<core::Namespace>(client.clone()),
        watcher::Config::default(),
        "namespaces",
        translate::namespace_labels,
        Input::Namespace,
        inputs.clone(),
    ));
    vital.spawn(watch::follow(
        object::within::<IPAddressPool>(client.clone(), &config.namespace),
        watcher::Config::default(),
        "ipaddresspools",
        |pool: DynamicObject| pool_status::Seen::of(&pool),
        Input::Pool,
        inputs.clone(),
    ));
    // Without these there is less to tell and to heed, so nothing waits for them longer than it must.
    vital.spawn(watch::try_to_follow(
        object::within::<ConfigurationState>(client.clone(), &config.namespace),
        watcher::Config::default().labels("metallb.io/component-type=speaker"),
        "configurationstates",
        |state: DynamicObject| conflicts::strangers(&state),
        Input::Strangers,
        inputs.clone(),
    ));
    vital.spawn(configuration::follow(
        client.clone(),
        config,
        args.shared.configmap_wanted(),
        Input::Config,
        inputs,
    ));
    vital.spawn(act::drive(reconciler, queue, writer, events));
    vital.spawn(report_state);
    Ok(())
}
