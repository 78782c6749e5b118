//! What became of a configuration, told in logs, gauges and events.

use std::collections::BTreeMap;

use ferrolb_config::{Config, ObjectName, Pool, Protocol, Refused};

use crate::{
    events::{About, EventType},
    metrics::ClientMetrics,
    state::{State, Verdict},
    watch::Unavailable,
};

/// Events carry at most this many characters of a list of problems; the log has them all.
const EVENT_TEXT: usize = 1000;

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
    /// There is none.
    Absent {
        /// The last configuration stays in force.
        in_force: bool,
    },
    /// It cannot be read.
    Unavailable(Unavailable),
}

/// The objects a configuration consists of, to tell them what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    configmap: About,
    /// By the place that problems name.
    resources: BTreeMap<String, About>,
}

/// An event to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The object it is about.
    pub about: About,
    /// How loud it is.
    pub kind: EventType,
    /// One word in camel case.
    pub reason: &'static str,
    /// The text for the operator.
    pub message: String,
}

impl Objects {
    /// No object but the ConfigMap of this name, of which there need not be one.
    pub fn new(configmap: ObjectName) -> Self {
        Self {
            configmap: About {
                api_version: "v1",
                kind: "ConfigMap",
                namespace: configmap.namespace.to_string(),
                name: configmap.name.clone(),
                uid: None,
            },
            resources: BTreeMap::new(),
        }
    }

    /// The ConfigMap's uid: `kubectl describe` shows only events that carry it.
    pub(super) fn set_uid(&mut self, uid: Option<String>) {
        self.configmap.uid = uid;
    }

    /// Adds a custom resource.
    pub(super) fn add(&mut self, kind: &'static str, name: &ObjectName, uid: Option<String>) {
        let about = About {
            api_version: "metallb.io/v1beta1",
            kind,
            namespace: name.namespace.to_string(),
            name: name.name.clone(),
            uid,
        };
        self.resources.insert(format!("{kind} {name}"), about);
    }

    /// The object a place lies in; what is no custom resource's is the ConfigMap's.
    fn at(&self, place: &str) -> &About {
        let mut known = self.resources.iter().filter(|(object, _)| {
            let rest = place.strip_prefix(object.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        // Names may contain dots: the longest that fits is meant.
        let longest = known.next_back();
        longest.map_or(&self.configmap, |(_, about)| about)
    }

    /// The events of a refusal: each object is told its own problems.
    pub fn refused(&self, problems: &Refused) -> Vec<Notice> {
        let mut notices: Vec<Notice> = Vec::new();
        for problem in problems.problems() {
            let about = self.at(&problem.place);
            if let Some(notice) = notices.iter_mut().find(|notice| notice.about == *about) {
                notice.message = format!("{}\n{problem}", notice.message);
            } else {
                notices.push(Notice {
                    about: about.clone(),
                    kind: EventType::Warning,
                    reason: "ConfigurationRefused",
                    message: problem.to_string(),
                });
            }
        }
        for notice in &mut notices {
            if let Some((cut, _)) = notice.message.char_indices().nth(EVENT_TEXT) {
                notice.message.truncate(cut);
                notice.message.push('…');
            }
        }
        notices
    }

    /// The events of a configuration taken up: `refused` are the objects whose problems are mended, and pools that are
    /// not served are named.
    pub fn accepted(&self, config: &Config, refused: Vec<About>) -> Vec<Notice> {
        let mut notices: Vec<Notice> = refused
            .into_iter()
            .map(|about| Notice {
                about,
                kind: EventType::Normal,
                reason: "ConfigurationAccepted",
                message: "configuration taken up".to_owned(),
            })
            .collect();
        if let Some(pools) = bgp_pools(config) {
            notices.push(Notice {
                about: self.configmap.clone(),
                kind: EventType::Warning,
                reason: "BGPNotSupported",
                message: format!("{NOT_SERVED}: {}", pools.join(", ")),
            });
        }
        notices
    }
}

/// What is said of pools with `protocol: bgp`.
const NOT_SERVED: &str = "BGP is not spoken here: pools with protocol bgp keep the addresses they gave, give no new ones \
                          and are not announced";

/// The names of the pools with `protocol: bgp`; `None` if there are none.
fn bgp_pools(config: &Config) -> Option<Vec<&str>> {
    let pools = config.pools().iter();
    let names: Vec<_> = pools
        .filter(|pool| pool.protocol() == Protocol::Bgp)
        .map(Pool::name)
        .collect();
    (!names.is_empty()).then_some(names)
}

/// Tells what became of configurations.
#[derive(Clone, Debug)]
pub struct Reporter {
    configmap: ObjectName,
    state: Option<State>,
}

/// A reporter that names this ConfigMap, and has no object of its own to write to.
impl From<ObjectName> for Reporter {
    fn from(configmap: ObjectName) -> Self {
        Self {
            configmap,
            state: None,
        }
    }
}

impl Reporter {
    /// One that also keeps a `ConfigurationState`.
    #[must_use]
    pub fn with_state(self, state: State) -> Self {
        Self {
            state: Some(state),
            ..self
        }
    }

    /// The ConfigMap's name.
    pub fn configmap(&self) -> &ObjectName {
        &self.configmap
    }

    /// Logs `outcome`, moves the gauges and sets the `ConfigurationState`.
    pub fn report(&self, outcome: &Outcome<'_>, metrics: &ClientMetrics) {
        report(&self.configmap, outcome, metrics);
        self.set(match outcome {
            Outcome::Accepted(_) => Verdict::Valid,
            Outcome::Refused { problems, .. } => Verdict::Invalid(problems.to_string()),
            Outcome::Absent { .. } => Verdict::Unknown("there is no configuration".to_owned()),
            Outcome::Unavailable(_) => {
                Verdict::Unknown("the configuration cannot be read".to_owned())
            }
        });
    }

    /// Says that a sound configuration is held up, because a Service that is served would lose its pool. `detail` says
    /// which, and what to do.
    pub fn held_up(&self, detail: &str, metrics: &ClientMetrics) {
        metrics.config_stale.set(1);
        metrics.update_errors.inc();
        tracing::error!(event = "configStale", op = "setConfig", configmap = %self.configmap,
            error = "service has no configuration under new config", detail,
            "new configuration rejected");
        self.set(Verdict::Invalid(detail.to_owned()));
    }

    fn set(&self, verdict: Verdict) {
        if let Some(state) = &self.state {
            state.set(verdict);
        }
    }
}

/// Logs `outcome` and moves the gauges as MetalLB 0.12 does (`configLoaded`, `configStale`).
fn report(name: &ObjectName, outcome: &Outcome<'_>, metrics: &ClientMetrics) {
    let configmap = name.to_string();
    match outcome {
        Outcome::Accepted(config) => accepted(&configmap, config, metrics),
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
                "the configuration was deleted, the last good one stays in force; create the ConfigMap or an \
                 IPAddressPool again"
            );
        }
        Outcome::Absent { in_force: false } => {
            tracing::warn!(
                event = "noConfig",
                configmap,
                "no configuration yet, waiting for the ConfigMap or an IPAddressPool to be created"
            );
        }
        Outcome::Unavailable(why) => {
            tracing::error!(event = "noConfig", configmap, reason = ?why,
                "cannot read the configuration; grant get, list and watch on configmaps, or on ipaddresspools and \
                 l2advertisements of metallb.io, in this namespace");
        }
    }
}

fn accepted(configmap: &str, config: &Config, metrics: &ClientMetrics) {
    metrics.config_loaded.set(1);
    metrics.config_stale.set(0);
    metrics.config_problems.set(0);
    let pools: Vec<_> = config.pools().iter().map(Pool::name).collect();
    tracing::info!(
        event = "configLoaded",
        configmap,
        pools = pools.join(","),
        "configuration taken up"
    );
    let unserved = bgp_pools(config).unwrap_or_default();
    metrics
        .config_bgp_pools
        .set(i64::try_from(unserved.len()).unwrap_or(i64::MAX));
    if !unserved.is_empty() {
        tracing::warn!(
            event = "bgpNotSupported",
            configmap,
            pools = unserved.join(","),
            "{NOT_SERVED}"
        );
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_config::Problem;

    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName::new("metallb-system", name)
    }

    fn objects() -> Objects {
        let mut objects = Objects::new(name("config"));
        objects.set_uid(Some("c".to_owned()));
        objects.add("IPAddressPool", &name("a"), Some("p".to_owned()));
        objects.add("IPAddressPool", &name("a.b"), None);
        objects.add("L2Advertisement", &name("a"), None);
        objects
    }

    #[test]
    fn each_object_is_told_its_own_problems() {
        let problem = |place: &str| Problem::new(place, "wrong", "mend it");
        let problems = Refused::unless_empty(vec![
            problem("IPAddressPool metallb-system/a.addresses[0]"),
            problem("address-pools[0]"),
            problem("IPAddressPool metallb-system/a.addresses[1]"),
            problem("IPAddressPool metallb-system/a.b.addresses[0]"),
            problem("IPAddressPool metallb-system/ab"),
            problem("L2Advertisement metallb-system/a"),
        ])
        .unwrap_err();
        let told: Vec<_> = objects()
            .refused(&problems)
            .into_iter()
            .map(|notice| {
                let about = notice.about;
                assert_eq!(notice.reason, "ConfigurationRefused");
                (about.kind, about.name, notice.message.lines().count())
            })
            .collect();
        let expected = [
            ("IPAddressPool", "a", 2),
            // What belongs to no object of ours is said where the operator looks first.
            ("ConfigMap", "config", 2),
            ("IPAddressPool", "a.b", 1),
            ("L2Advertisement", "a", 1),
        ];
        assert_eq!(
            told,
            expected.map(|(kind, name, lines)| (kind, name.to_owned(), lines))
        );
    }

    #[test]
    fn a_long_list_of_problems_is_cut() {
        let many = (0..200).map(|index| Problem::new(format!("p[{index}]"), "ä", "b"));
        let problems = Refused::unless_empty(many.collect()).unwrap_err();
        let notices = objects().refused(&problems);
        assert_eq!(notices.len(), 1);
        assert_eq!(notices[0].message.chars().count(), EVENT_TEXT + 1);
    }

    #[test]
    fn pools_of_bgp_are_named_in_an_event_and_counted() {
        let registry = prometheus::Registry::new();
        let metrics = ClientMetrics::new(&registry).unwrap();
        let config = |protocol: &str| {
            ferrolb_config::read(&format!(
                "address-pools: [{{name: p, protocol: {protocol}, addresses: [10.0.0.0/24]}}]"
            ))
            .unwrap()
        };
        let bgp = config("bgp");
        report(&name("config"), &Outcome::Accepted(&bgp), &metrics);
        assert_eq!(metrics.config_bgp_pools.get(), 1);
        let notices = objects().accepted(&bgp, Vec::new());
        assert_eq!(notices.len(), 1);
        assert_eq!(notices[0].reason, "BGPNotSupported");
        assert!(notices[0].message.ends_with(": p"));
        let layer2 = config("layer2");
        report(&name("config"), &Outcome::Accepted(&layer2), &metrics);
        assert_eq!(metrics.config_bgp_pools.get(), 0);
        assert_eq!(objects().accepted(&layer2, Vec::new()), []);
    }
}
