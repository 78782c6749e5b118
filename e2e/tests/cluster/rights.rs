//! What the daemons may do is what they do: the rules in force beside the API server's audit log, after the scenarios of
//! a group have run.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use ferrolb_e2e::deploy::rights::{Asked, Right, in_force};
use serde_json::json;

use crate::world::World;

/// What a daemon asks for though nobody grants it, or is granted though nothing in a group makes it ask, as
/// [`Right::short`] says it, and why that is as it should be.
pub type Reasons<'a> = &'a [(&'a str, &'a str)];

/// What the base's controller asks for in vain.
const IN_VAIN: Reasons = &[
    (
        "controller list namespaces",
        "only pools of custom resources are given to namespaces; of the ConfigMap's none is",
    ),
    (
        "controller list secrets",
        "the webhooks' certificate: nobody calls a webhook of the base's",
    ),
];

/// What is granted for rare circumstances.
const RARE: Reasons = &[];

pub fn of_the_base(world: &World) -> Result<()> {
    compare(world, &Asked::since_installed(world)?, IN_VAIN, RARE)
}

/// Everything asked for is granted and everything granted is asked for, but for those with a reason.
pub fn compare(world: &World, asked: &Asked, in_vain: Reasons, rare: Reasons) -> Result<()> {
    let granted = in_force(world)?;
    let excused = |reasons: Reasons, right: &Right| {
        let short = right.short();
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
    for (reason, _) in in_vain {
        let known = asked.refused.iter().any(|right| right.short() == *reason);
        ensure!(known, "{reason}: not asked for any more");
    }
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
