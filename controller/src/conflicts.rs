//! Addresses that hosts outside the cluster answer for: what the speakers report of them, as a condition of the Services.
//!
//! A speaker cannot write to a Service, and should not: whoever may write the status of every Service can draw any traffic
//! of the cluster. It reports in its own `ConfigurationState`, which only the speakers and this controller may write.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ferrolb_config::ObjectName;
use ferrolb_config_api::ConfigurationStateStatus;
use ferrolb_runtime::{state, watch::Change};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::api::DynamicObject;

/// For how long what a speaker said stands when its state is gone. States go with their pods, and whoever speaks on that
/// node or answers for the address next says what it meets within seconds.
const STANDS: Duration = Duration::from_mins(1);

/// Who has which address, by what one speaker says: the hardware address of the host.
pub type Strangers = BTreeMap<IpAddr, String>;

/// What a speaker's state says. It is taken as it comes: under MetalLB's definition it may be without a spec, and one object
/// that cannot be read would end the watch of all.
pub fn strangers(state: &DynamicObject) -> Strangers {
    let status = state.data.get("status").cloned().unwrap_or_default();
    let status: ConfigurationStateStatus = serde_json::from_value(status).unwrap_or_default();
    state::strangers(&status)
}

/// What all speakers say.
#[derive(Debug, Default)]
pub struct Conflicts {
    by_speaker: BTreeMap<ObjectName, Strangers>,
    /// What states said that are gone, and until when that stands; none: not reckoned yet.
    gone: BTreeMap<ObjectName, (Strangers, Option<Instant>)>,
    /// All that was said before is known.
    known: bool,
    /// It may not be seen, which was said.
    hidden: bool,
    /// Services are to be given other addresses by it.
    needed: bool,
}

/// A condition of a Service that is to be written, with those of others.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    others: Vec<Condition>,
    /// Whether there is a conflict, and what is to be done about it.
    conflict: bool,
    message: String,
    /// Since when that is so; none: from now on.
    since: Option<Time>,
}

impl Conflicts {
    /// Says that Services are to be given other addresses by what speakers say, so that it matters whether it can be seen.
    pub fn need(&mut self) {
        self.needed = true;
    }

    /// Whether addresses may be given out: what speakers say is waited for only where Services move by it, since a report that
    /// cannot be had must not hold up everything else.
    pub fn enough_seen(&self) -> bool {
        !self.needed || self.known || self.hidden
    }

    /// Whether all that speakers say is known.
    pub fn known(&self) -> bool {
        self.known
    }

    /// Takes over what was seen; the addresses about which something else is said now.
    pub fn take(&mut self, change: Change<Strangers>) -> BTreeSet<IpAddr> {
        match change {
            Change::Applied(name, now) => {
                let said = self.by_speaker.get(&name).into_iter();
                let about = said.flat_map(Strangers::keys).chain(now.keys());
                let before = self.all_with(about.copied().collect());
                self.by_speaker.insert(name, now);
                let changed = before.into_iter();
                let changed =
                    changed.filter(|(address, before)| self.with(*address) != before.as_deref());
                changed.map(|(address, _)| address).collect()
            }
            Change::Deleted(name) => {
                let said = self.by_speaker.remove(&name);
                if let Some(said) = said.filter(|said| !said.is_empty()) {
                    self.gone.insert(name, (said, None));
                }
                BTreeSet::new()
            }
            Change::Synced => {
                self.hidden = false;
                if std::mem::replace(&mut self.known, true) {
                    return BTreeSet::new();
                }
                let all = self.by_speaker.values().flat_map(Strangers::keys);
                all.copied().collect()
            }
            Change::Unavailable(why) => {
                if std::mem::replace(&mut self.hidden, true) {
                    return BTreeSet::new();
                }
                self.known = false;
                self.gone.clear();
                let before = std::mem::take(&mut self.by_speaker);
                if self.needed {
                    tracing::warn!(op = "watch", resource = "configurationstates", reason = ?why,
                        "--on-conflict=reassign does nothing: the speakers' reports cannot be seen. It takes MetalLB's custom \
                         resources of 0.15.3 or newer, and get, list and watch on configurationstates");
                } else {
                    tracing::info!(op = "watch", resource = "configurationstates", reason = ?why,
                        "Services get no condition ferrolb.io/AddressConflict: the speakers' reports cannot be seen. Their \
                         events and metrics tell of conflicts all the same");
                }
                let before = before.into_values().flat_map(Strangers::into_keys);
                before.collect()
            }
        }
    }

    fn all_with(&self, addresses: BTreeSet<IpAddr>) -> Vec<(IpAddr, Option<String>)> {
        let each = addresses.into_iter();
        each.map(|address| (address, self.with(address).map(str::to_owned)))
            .collect()
    }

    /// When [`tick`](Self::tick) is due; none if only news change anything.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.gone.values().filter_map(|(_, until)| *until).min()
    }

    /// What the time changes: the addresses about which nothing is said any more.
    pub fn tick(&mut self, now: Instant) -> BTreeSet<IpAddr> {
        let over = |until: &mut Option<Instant>| *until.get_or_insert(now + STANDS) <= now;
        let over = self.gone.extract_if(.., |_, (_, until)| over(until));
        let said: Vec<_> = over.flat_map(|(_, (said, _))| said).collect();
        let silent = said.into_iter();
        let silent = silent.filter(|(address, mac)| self.with(*address) != Some(mac));
        silent.map(|(address, _)| address).collect()
    }

    /// The host that has the address.
    pub fn with(&self, address: IpAddr) -> Option<&str> {
        let gone = self.gone.values().map(|(said, _)| said);
        let mut all = self.by_speaker.values().chain(gone);
        all.find_map(|strangers| strangers.get(&address).map(String::as_str))
    }

    /// What the condition of a Service with these addresses should say, if it says something else.
    pub fn due(&self, conditions: &[Condition], addresses: &[IpAddr]) -> Option<Due> {
        if !self.known {
            return None;
        }
        let whose = |address: &IpAddr| {
            let mac = self.with(*address)?;
            Some(format!("the host {mac} answers for {address}"))
        };
        let found: Vec<String> = addresses.iter().filter_map(whose).collect();
        let conflict = !found.is_empty();
        let ours = ours(conditions);
        let message = if conflict {
            format!(
                "{}; give that host another address, or take the address out of the pool",
                found.join(", ")
            )
        } else {
            "no host outside the cluster answers for the addresses".to_owned()
        };
        let said = ours.map(|ours| (ours.status == "True", ours.message.as_str()));
        let due = match said {
            None => conflict,
            Some(said) => said != (conflict, message.as_str()),
        };
        let others = conditions.iter().filter(|one| one.type_ != state::CONFLICT);
        due.then(|| Due {
            others: others.cloned().collect(),
            conflict,
            message,
            since: ours
                .filter(|ours| (ours.status == "True") == conflict)
                .map(|ours| ours.last_transition_time.clone()),
        })
    }
}

/// What is said of conflicts among conditions of a Service: whether there is one, and who has what.
pub fn said(conditions: &[Condition]) -> Option<(bool, String)> {
    ours(conditions).map(|ours| (ours.status == "True", ours.message.clone()))
}

fn ours(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|one| one.type_ == state::CONFLICT)
}

impl Due {
    /// Whether it says nothing but what is said.
    pub fn repeats(&self, said: Option<&(bool, String)>) -> bool {
        said.is_some_and(|(conflict, message)| {
            (*conflict, message) == (self.conflict, &self.message)
        })
    }

    /// All conditions of the Service, as they are to be.
    pub fn conditions(&self, now: Timestamp) -> Vec<Condition> {
        let ours = state::conflict_condition(self.conflict, self.message.clone());
        let ours = Condition {
            last_transition_time: self.since.clone().unwrap_or(Time(now)),
            ..ours
        };
        self.others.iter().cloned().chain([ours]).collect()
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_runtime::watch::Unavailable;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn a_state_without_a_spec_is_read_and_one_of_another_kind_says_nothing() {
        let read = |text: &str| {
            let state: DynamicObject = serde_json::from_str(text).unwrap();
            strangers(&state)
        };
        let reported = r#"{"metadata": {"name": "speaker-n1"}, "status": {"conditions": [{"type": "ferrolb.io/AddressConflict",
            "status": "True", "reason": "AnsweredByStranger", "message": "10.0.0.1=02:00:00:00:00:09",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}"#;
        let expected = [(ip(1), "02:00:00:00:00:09".to_owned())];
        assert_eq!(read(reported), Strangers::from(expected));
        for empty in [
            r#"{"metadata": {}}"#,
            r#"{"metadata": {}, "status": {"conditions": 7}}"#,
        ] {
            assert_eq!(read(empty), Strangers::new());
        }
    }

    fn told(node: &str, strangers: &[(u8, &str)]) -> Change<Strangers> {
        let each = strangers.iter();
        let strangers = each.map(|(last, mac)| (ip(*last), (*mac).to_owned()));
        let name = ObjectName::new("metallb-system", format!("speaker-{node}"));
        Change::Applied(name, strangers.collect())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_conflict_is_a_condition_beside_those_of_others_until_it_ends() {
        let mut conflicts = Conflicts::default();
        assert_eq!(conflicts.due(&[], &[ip(1)]), None);
        let changed = conflicts.take(told("n1", &[(1, "02:00:00:00:00:09"), (2, "x")]));
        assert_eq!(changed, [ip(1), ip(2)].into());
        // Before everything was told, what a former process wrote stays.
        assert!(conflicts.enough_seen() && conflicts.due(&[], &[ip(1)]).is_none());
        conflicts.need();
        assert!(!conflicts.enough_seen());
        conflicts.take(Change::Synced);
        assert!(conflicts.enough_seen());
        assert_eq!(conflicts.due(&[], &[ip(3)]), None);
        let others = Condition {
            type_: "example.com/Ready".to_owned(),
            ..state::conflict_condition(true, String::new())
        };
        let begun = conflicts
            .due(std::slice::from_ref(&others), &[ip(1)])
            .unwrap();
        let written = begun.conditions(at(1));
        assert_eq!((&written[0], written.len()), (&others, 2));
        let ours = (written[1].status.as_str(), written[1].type_.as_str());
        assert_eq!(ours, ("True", "ferrolb.io/AddressConflict"));
        assert!(
            written[1]
                .message
                .contains("02:00:00:00:00:09 answers for 10.0.0.1")
        );
        assert_eq!(conflicts.due(&written, &[ip(1)]), None);

        // Another host: no transition.
        assert_eq!(
            conflicts.take(told("n1", &[(1, "y")])),
            [ip(1), ip(2)].into()
        );
        let other = conflicts.due(&written, &[ip(1)]).unwrap().conditions(at(2));
        assert_eq!(other[1].last_transition_time, Time(at(1)));
        // A second speaker says so, too; it lasts until both say otherwise.
        conflicts.take(told("n2", &[(1, "y")]));
        conflicts.take(told("n1", &[]));
        assert_eq!(conflicts.due(&other, &[ip(1)]), None);
        // Its state goes with its pod, and the next one says nothing at first and meets the host again.
        let gone = || Change::Deleted(ObjectName::new("metallb-system", "speaker-n2"));
        let start = Instant::now();
        assert!(conflicts.take(gone()).is_empty() && conflicts.tick(start).is_empty());
        assert_eq!(conflicts.due(&other, &[ip(1)]), None);
        assert!(conflicts.take(told("n2", &[])).is_empty());
        assert!(conflicts.take(told("n2", &[(1, "y")])).is_empty());
        assert!(conflicts.tick(start + STANDS).is_empty());
        // Nobody does.
        assert!(conflicts.take(gone()).is_empty() && conflicts.tick(start).is_empty());
        assert_eq!(conflicts.next_deadline(), Some(start + STANDS));
        assert_eq!(conflicts.tick(start + STANDS), [ip(1)].into());
        assert_eq!(conflicts.next_deadline(), None);
        let ended = conflicts.due(&other, &[ip(1)]).unwrap().conditions(at(3));
        assert_eq!((ended[1].status.as_str(), ended.len()), ("False", 2));
        assert_eq!(ended[1].last_transition_time, Time(at(3)));
        assert_eq!(conflicts.due(&ended, &[ip(1)]), None);
    }

    #[test]
    fn reports_that_may_not_be_seen_any_more_say_nothing() {
        let mut conflicts = Conflicts::default();
        conflicts.take(told("n1", &[(1, "x")]));
        conflicts.take(Change::Synced);
        let written = conflicts.due(&[], &[ip(1)]).unwrap().conditions(at(1));
        let forbidden = || Change::Unavailable(Unavailable::Forbidden);
        assert_eq!(conflicts.take(forbidden()), [ip(1)].into());
        assert_eq!(conflicts.with(ip(1)), None);
        // What was written stays: nothing is known of it.
        assert_eq!(conflicts.due(&written, &[ip(1)]), None);
        assert!(conflicts.take(forbidden()).is_empty());
        // They may be seen again: what is found is told anew.
        conflicts.take(told("n1", &[(2, "x")]));
        assert_eq!(conflicts.take(Change::Synced), [ip(2)].into());
        assert!(conflicts.due(&written, &[ip(1)]).is_some());
    }
}
