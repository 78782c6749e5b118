//! What the daemons may do is what they do: the rules in force beside the API server's audit log, after the scenarios of
//! a group have run.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    deploy::rights::{Asked, Right, in_force},
    observe::service,
};
use serde_json::json;

use crate::world::World;

/// What a daemon asks for though nobody grants it, or is granted though nothing in a group makes it ask, as
/// [`Right::short`] says it, and why that is as it should be.
pub type Reasons<'a> = &'a [(&'a str, &'a str)];

/// What the base's daemons ask for in vain.
const IN_VAIN: Reasons = &[
    (
        "controller list namespaces",
        "only pools of custom resources are given to namespaces; of the ConfigMap's none is",
    ),
    ("controller list secrets", CALLED),
    (
        "controller list customresourcedefinitions.apiextensions.k8s.io",
        CALLED,
    ),
    (
        "controller list validatingwebhookconfigurations.admissionregistration.k8s.io",
        CALLED,
    ),
    ("controller list ipaddresspools.metallb.io", DEFINED),
    ("controller list configurationstates.metallb.io", DEFINED),
    ("speaker list configurationstates.metallb.io", DEFINED),
    ("speaker list servicel2statuses.metallb.io", DEFINED),
    // These now and then only, when custom resources are looked for again.
    ("speaker list ipaddresspools.metallb.io", DEFINED),
    ("speaker list l2advertisements.metallb.io", DEFINED),
    ("controller list l2advertisements.metallb.io", DEFINED),
];
const CALLED: &str = "webhooks are served where somebody calls them, which the base has nobody do";
const DEFINED: &str =
    "custom resources are heeded as soon as there are some, which the base has not";

/// What is granted for rare circumstances, wherever it is granted.
pub const RARE: Reasons = &[
    ("controller patch events", AGAIN),
    ("speaker patch events", AGAIN),
    ("controller patch configurationstates.metallb.io", OWNER),
    ("speaker patch configurationstates.metallb.io", OWNER),
];
const AGAIN: &str = "what is said again is counted, and nothing here happens twice to one process";
const OWNER: &str =
    "a new Pod takes over what the old one owned, if it is quicker than the collector of garbage";

pub fn of_the_base(world: &World) -> Result<()> {
    // The least that happens, where this test runs without those before it.
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    let owner = world.owner(address)?;
    service::wait_event(world, "default", "Service", "a", "nodeAssigned", &owner)?;
    compare(world, &Asked::since_installed(world)?, IN_VAIN, RARE)
}

/// Everything asked for is granted and everything granted is asked for, but for those with a reason.
pub fn compare(world: &World, asked: &Asked, in_vain: Reasons, rare: Reasons) -> Result<()> {
    let granted = in_force(world)?;
    let excused = |reasons: Reasons, right: &Right| {
        let short = right.short();
        // The chart's accounts are called after its release.
        let short = short.trim_start_matches("metallb-");
        reasons.iter().any(|(known, _)| *known == short)
    };
    let refused: BTreeSet<_> = asked
        .refused
        .iter()
        .filter(|right| !excused(in_vain, right))
        .map(Right::short)
        .collect();
    let idle: BTreeSet<_> = granted
        .iter()
        .filter(|right| !excused(rare, right))
        .filter(|right| !asked.answered.iter().any(|asked| right.covers(asked)))
        .map(Right::short)
        .collect();
    ensure!(
        granted.len() > 10 && asked.answered.len() > 10,
        "{granted:?} {asked:?}"
    );
    ensure!(
        refused.is_empty() && idle.is_empty(),
        "asked for and not granted: {refused:#?}\ngranted and not asked for: {idle:#?}"
    );
    Ok(())
}

pub fn of_the_chart(world: &World) -> Result<()> {
    // What webhooks compare new objects with.
    world.create(
        "Community",
        "c",
        json!({"communities": [{"name": "n", "value": "1:1"}]}),
    )?;
    world.create("BGPAdvertisement", "b", json!({"communities": ["n"]}))?;
    world.create("BFDProfile", "p", json!({}))?;
    world.delete("BFDProfile", "p")?;
    world.clear_configuration()?;
    compare(world, &Asked::since_installed(world)?, &[], RARE)
}
