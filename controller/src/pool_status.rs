//! The status of `IPAddressPool`s: how much of each is given out (MetalLB 0.15 and newer).
//!
//! It is written when the counts have changed or somebody edited it, one write a pool at a time. What changes while a
//! write is under way goes into the next one, so that a thousand assignments cost few writes.

use std::collections::BTreeMap;

use ferrolb_config::{ObjectName, Origin};
use ferrolb_config_api::IPAddressPoolStatus;
use ferrolb_controller_core::PoolUse;
use ferrolb_runtime::watch::Change;
use kube::api::DynamicObject;

/// The status of a pool as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `metadata.resourceVersion`.
    version: Option<u64>,
    /// `status`, if it is there in full.
    status: Option<IPAddressPoolStatus>,
}

impl Seen {
    /// What an `IPAddressPool` shows.
    pub fn of(object: &DynamicObject) -> Self {
        let version = object.metadata.resource_version.as_deref();
        let status = object.data.get("status").cloned();
        Self {
            version: version.and_then(|version| version.parse().ok()),
            status: status.and_then(|status| serde_json::from_value(status).ok()),
        }
    }
}

/// One status to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its number, which its end is reported with.
    pub id: u64,
    /// Whose.
    pub name: ObjectName,
    /// All of `status`.
    pub status: IPAddressPoolStatus,
    /// How many writes of this pool failed in a row before.
    pub failures: u32,
}

/// How a write ended; the pause after it is over.
#[derive(Debug)]
pub enum Written {
    /// It stands, as this; an API server whose definition knows less of the status keeps less.
    Done(Seen),
    /// The API server would not or could not.
    Failed,
}

struct Entry {
    seen: Seen,
    /// The number of the write under way.
    writing: Option<u64>,
    failures: u32,
    /// The version our own last write made, until a watch has shown it or a newer one.
    wrote: Option<u64>,
    /// What was written last, and what became of it: the same again would change nothing.
    settled: Option<(IPAddressPoolStatus, Option<IPAddressPoolStatus>)>,
}

/// The pools there are and what they show.
#[derive(Default)]
pub struct PoolStatuses {
    pools: BTreeMap<ObjectName, Entry>,
    writes: u64,
}

impl PoolStatuses {
    /// Takes what a watch tells.
    pub fn take(&mut self, change: Change<Seen>) {
        match change {
            Change::Applied(name, seen) => {
                if let Some(entry) = self.pools.get_mut(&name) {
                    // Until the watch has caught up with our own write, it tells the past.
                    if entry.wrote.is_some() && seen.version < entry.wrote {
                        return;
                    }
                    entry.wrote = None;
                    entry.seen = seen;
                } else {
                    let entry = Entry {
                        seen,
                        writing: None,
                        failures: 0,
                        wrote: None,
                        settled: None,
                    };
                    self.pools.insert(name, entry);
                }
            }
            Change::Deleted(name) => {
                self.pools.remove(&name);
            }
            // Whether the pools may be read is said where the configuration is read.
            Change::Synced | Change::Unavailable(_) => {}
        }
    }

    /// Takes the end of a write.
    pub fn written(&mut self, name: &ObjectName, id: u64, written: Written) {
        let Some(entry) = self
            .pools
            .get_mut(name)
            .filter(|entry| entry.writing == Some(id))
        else {
            return;
        };
        entry.writing = None;
        match written {
            Written::Done(seen) => {
                entry.failures = 0;
                // If the watch has told something newer than our write meanwhile, that stands.
                if entry.seen.version < seen.version {
                    entry.wrote = seen.version;
                    entry.seen = seen.clone();
                }
                if let Some((_, became)) = &mut entry.settled {
                    *became = seen.status;
                }
            }
            Written::Failed => {
                entry.failures = entry.failures.saturating_add(1);
                entry.settled = None;
            }
        }
    }

    /// What is to be written now that the pools are used like this.
    pub fn due(&mut self, uses: &[PoolUse]) -> Vec<Write> {
        let resources: BTreeMap<&str, IPAddressPoolStatus> = uses
            .iter()
            .filter(|pool| pool.origin == Origin::Resource)
            .map(|pool| (pool.name.as_str(), status(pool)))
            .collect();
        let mut due = Vec::new();
        for (name, entry) in &mut self.pools {
            let Some(status) = resources.get(name.name.as_str()) else {
                continue;
            };
            let shown = entry.seen.status.as_ref();
            let settled = entry
                .settled
                .as_ref()
                .is_some_and(|(wrote, became)| wrote == status && became.as_ref() == shown);
            if entry.writing.is_some() || shown == Some(status) || settled {
                continue;
            }
            self.writes += 1;
            entry.writing = Some(self.writes);
            entry.settled = Some((status.clone(), None));
            due.push(Write {
                id: self.writes,
                name: name.clone(),
                status: status.clone(),
                failures: entry.failures,
            });
        }
        due
    }
}

/// The counts of a pool. More addresses than 63 bits can say are as many as they can.
fn status(pool: &PoolUse) -> IPAddressPoolStatus {
    let most = |number: u128| i64::try_from(number).unwrap_or(i64::MAX);
    let left = |total: u128, in_use: u64| most(total.saturating_sub(in_use.into()));
    IPAddressPoolStatus {
        assigned_ipv4: most(pool.v4_in_use.into()),
        assigned_ipv6: most(pool.v6_in_use.into()),
        available_ipv4: left(pool.v4_total, pool.v4_in_use),
        available_ipv6: left(pool.v6_total, pool.v6_in_use),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name() -> ObjectName {
        ObjectName::new("metallb-system", "p")
    }

    fn in_use(v4_total: u128, v6_total: u128, in_use: u64) -> Vec<PoolUse> {
        vec![PoolUse {
            name: "p".into(),
            v4_total,
            v6_total,
            v4_in_use: in_use,
            v6_in_use: in_use,
            services: in_use,
            origin: Origin::Resource,
        }]
    }

    fn seen(version: u64, status: &serde_json::Value) -> Seen {
        let object = json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "p", "resourceVersion": version.to_string()}, "status": status});
        Seen::of(&serde_json::from_value(object).unwrap())
    }

    fn counts(assigned: [i64; 2], available: [i64; 2]) -> serde_json::Value {
        json!({"assignedIPv4": assigned[0], "assignedIPv6": assigned[1],
            "availableIPv4": available[0], "availableIPv6": available[1]})
    }

    fn applied(statuses: &mut PoolStatuses, version: u64, status: &serde_json::Value) {
        statuses.take(Change::Applied(name(), seen(version, status)));
    }

    fn only(mut writes: Vec<Write>) -> Write {
        assert_eq!(writes.len(), 1);
        writes.remove(0)
    }

    /// The e2e scenario "Pool Status DUALSTACK" of MetalLB.
    #[test]
    fn counts_follow_services_and_pools() {
        let mut statuses = PoolStatuses::default();
        applied(&mut statuses, 1, &json!(null));
        let mut version = 1;
        for (total, used, shows) in [
            (4, 0, counts([0, 0], [4, 4])),
            (4, 1, counts([1, 1], [3, 3])),
            (8, 1, counts([1, 1], [7, 7])),
            (8, 0, counts([0, 0], [8, 8])),
        ] {
            let write = only(statuses.due(&in_use(total, total, used)));
            assert_eq!(serde_json::to_value(&write.status).unwrap(), shows);
            version += 2;
            statuses.written(&name(), write.id, Written::Done(seen(version, &shows)));
            assert_eq!(statuses.due(&in_use(total, total, used)), []);
            // What the watch tells from before our write is the past.
            applied(&mut statuses, version - 1, &json!(null));
            assert_eq!(statuses.due(&in_use(total, total, used)), []);
        }
    }

    #[test]
    fn a_manual_edit_is_reverted() {
        let mut statuses = PoolStatuses::default();
        applied(&mut statuses, 1, &counts([0, 0], [4, 4]));
        assert_eq!(statuses.due(&in_use(4, 4, 0)), []);
        applied(&mut statuses, 2, &counts([9, 0], [4, 4]));
        let write = only(statuses.due(&in_use(4, 4, 0)));
        let mended = seen(3, &counts([0, 0], [4, 4]));
        statuses.written(&name(), write.id, Written::Done(mended));
        applied(&mut statuses, 4, &counts([9, 0], [4, 4]));
        assert_eq!(statuses.due(&in_use(4, 4, 0)).len(), 1, "and again");
    }

    #[test]
    fn what_changes_during_a_write_goes_into_one_more() {
        let mut statuses = PoolStatuses::default();
        applied(&mut statuses, 1, &json!(null));
        let write = only(statuses.due(&in_use(100, 0, 0)));
        for used in 1..50 {
            assert_eq!(statuses.due(&in_use(100, 0, used)), []);
        }
        let shows = seen(2, &counts([0, 0], [100, 0]));
        statuses.written(&name(), write.id, Written::Done(shows));
        let write = only(statuses.due(&in_use(100, 0, 50)));
        assert_eq!(write.status.assigned_ipv4, 50);
    }

    #[test]
    fn a_definition_that_drops_the_counts_is_not_written_to_for_ever() {
        let mut statuses = PoolStatuses::default();
        applied(&mut statuses, 1, &json!({}));
        let write = only(statuses.due(&in_use(4, 0, 0)));
        statuses.written(&name(), write.id, Written::Done(seen(2, &json!({}))));
        applied(&mut statuses, 2, &json!({}));
        assert_eq!(statuses.due(&in_use(4, 0, 0)), []);
        assert_eq!(statuses.due(&in_use(4, 0, 1)).len(), 1, "new counts");
    }

    #[test]
    fn a_failed_write_is_tried_again() {
        let mut statuses = PoolStatuses::default();
        applied(&mut statuses, 1, &json!(null));
        let write = only(statuses.due(&in_use(4, 0, 0)));
        statuses.written(&name(), write.id, Written::Failed);
        assert_eq!(only(statuses.due(&in_use(4, 0, 0))).failures, 1);
    }

    #[test]
    fn pools_that_are_no_objects_or_gone_have_no_status() {
        let mut statuses = PoolStatuses::default();
        applied(&mut statuses, 1, &json!(null));
        let mut of_the_configmap = in_use(4, 0, 0);
        of_the_configmap[0].origin = Origin::ConfigMap;
        assert_eq!(statuses.due(&of_the_configmap), []);
        let write = only(statuses.due(&in_use(4, 0, 0)));
        statuses.take(Change::Deleted(name()));
        assert_eq!(statuses.due(&in_use(4, 0, 0)), []);
        // Made again under the same name: the former one's write says nothing about it.
        applied(&mut statuses, 9, &json!(null));
        let own = only(statuses.due(&in_use(4, 0, 0)));
        let shows = seen(10, &counts([0, 0], [4, 0]));
        statuses.written(&name(), write.id, Written::Done(shows));
        assert_ne!(own.id, write.id);
        assert_eq!(
            statuses.due(&in_use(4, 0, 1)),
            [],
            "its own write is under way"
        );
    }

    #[test]
    fn more_than_63_bits_are_the_most_they_can_say() {
        let status = status(&in_use(4, u128::from(u64::MAX) + 1, 1)[0]);
        assert_eq!(status.available_ipv6, i64::MAX);
    }
}
