//! The configuration's source: one ConfigMap, read by the same checks in both daemons.

use ferrolb_config::{Config, ObjectName, Refused};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, runtime::watcher};
use tokio::sync::mpsc;

use crate::{
    metrics::ClientMetrics,
    watch::{self, Change, Unavailable},
};

/// The key of the ConfigMap that holds the document (MetalLB 0.3 to 0.12).
const KEY: &str = "config";

/// What the ConfigMap says now.
#[derive(Clone, Debug)]
pub enum Source {
    /// A document that passed every check.
    Read(Config),
    /// A document that did not; whatever is in force stays.
    Refused(Refused),
    /// There is no such ConfigMap: at start one waits, later the last configuration stays.
    Absent,
    /// RBAC keeps it from us, or the API server does not know ConfigMaps.
    Unavailable(Unavailable),
}

/// Follows the ConfigMap `name` until the receiver is gone. One [`Source`] is told at start and one for
/// each change of the document, each with the ConfigMap's uid where there is one: `kubectl describe`
/// shows only events that carry it.
pub async fn follow<M>(
    client: Client,
    name: ObjectName,
    wrap: impl Fn(Source, Option<String>) -> M,
    sink: mpsc::Sender<M>,
) {
    let api: Api<ConfigMap> = Api::namespaced(client, &name.namespace);
    let filter = watcher::Config::default().fields(&format!("metadata.name={}", name.name));
    let (changes, mut seen) = mpsc::channel(4);
    let document = |object: ConfigMap| {
        let text = object.data.and_then(|mut data| data.remove(KEY));
        (text.unwrap_or_default(), object.metadata.uid)
    };
    let following = watch::follow(
        api,
        filter,
        "configmaps",
        document,
        |change| change,
        changes,
    );
    let telling = async {
        let mut last: Option<String> = None;
        let mut told = false;
        while let Some(change) = seen.recv().await {
            let mut uid = None;
            let source = match change {
                // A relist or an edit of labels repeats the document: nothing new.
                Change::Applied(_, (text, _)) if last.as_ref() == Some(&text) => continue,
                Change::Applied(_, (text, its)) => {
                    uid = its;
                    let read = ferrolb_config::read(&text);
                    last = Some(text);
                    read.map_or_else(Source::Refused, Source::Read)
                }
                Change::Deleted(_) => {
                    last = None;
                    Source::Absent
                }
                Change::Synced if told => continue,
                Change::Synced => Source::Absent,
                Change::Unavailable(why) => {
                    // Whatever comes after that is news again.
                    last = None;
                    Source::Unavailable(why)
                }
            };
            told = !matches!(source, Source::Unavailable(_));
            if sink.send(wrap(source, uid)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = following => {}
        () = telling => {}
    }
}

/// The last word on the newest configuration, for logs and gauges.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// It is in force now.
    Accepted(&'a Config),
    /// It is not; `in_force` says whether an older one is.
    Refused {
        /// Every problem found.
        problems: &'a Refused,
        /// An older configuration stays in force.
        in_force: bool,
    },
    /// The ConfigMap is missing.
    Absent {
        /// The last configuration stays in force.
        in_force: bool,
    },
    /// It cannot be read.
    Unavailable(Unavailable),
}

/// Logs `outcome` and moves the gauges as MetalLB 0.12 does (`configLoaded`, `configStale`).
pub fn report(name: &ObjectName, outcome: &Outcome<'_>, metrics: &ClientMetrics) {
    let configmap = name.to_string();
    match outcome {
        Outcome::Accepted(config) => {
            metrics.config_loaded.set(1);
            metrics.config_stale.set(0);
            metrics.config_problems.set(0);
            let pools: Vec<_> = config
                .pools()
                .iter()
                .map(ferrolb_config::Pool::name)
                .collect();
            tracing::info!(
                event = "configLoaded",
                configmap,
                pools = pools.join(","),
                "configuration taken up"
            );
        }
        Outcome::Refused { problems, in_force } => {
            metrics.config_stale.set(1);
            let found = problems.problems();
            metrics
                .config_problems
                .set(i64::try_from(found.len()).unwrap_or(i64::MAX));
            for problem in found {
                tracing::error!(
                    event = "configProblem",
                    configmap,
                    place = problem.place,
                    problem = problem.what,
                    remedy = problem.remedy,
                    "problem in the configuration"
                );
            }
            let rest = if *in_force {
                "the last good one stays in force"
            } else {
                "nothing is in force yet"
            };
            tracing::error!(event = "configStale", configmap, problems = found.len(), error = %problems,
                "configuration refused whole, {rest}");
        }
        Outcome::Absent { in_force: true } => {
            metrics.config_stale.set(1);
            tracing::error!(
                event = "configStale",
                configmap,
                "the configuration was deleted, the last good one stays in force; create the ConfigMap again"
            );
        }
        Outcome::Absent { in_force: false } => {
            tracing::warn!(
                event = "noConfig",
                configmap,
                "no configuration yet, waiting for the ConfigMap to be created"
            );
        }
        Outcome::Unavailable(why) => {
            tracing::error!(event = "noConfig", configmap, reason = ?why,
                "cannot read the configuration; grant get, list and watch on configmaps in this namespace");
        }
    }
}
