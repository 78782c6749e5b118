//! The lab itself: several at once, and nothing left of any.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{Lab, deploy::PATIENCE};

use crate::world::{World, lab_name};

pub fn side_by_side_and_gone_without_a_trace(world: &World) -> Result<()> {
    // One is killed in the middle of coming up...
    let mut raising = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["up", "--name", "torn", "--nodes", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start lab")?;
    world.wait("the other lab to begin", PATIENCE, || {
        Ok(Lab::leftovers("torn").len() > 5)
    })?;
    std::thread::sleep(Duration::from_secs(2));
    raising.kill()?;
    raising.wait()?;
    ensure!(
        !Lab::leftovers("torn").is_empty(),
        "a kill cleans nothing up"
    );
    // ...and comes up all the same, beside the one the tests run on.
    let torn = Lab::builder("torn").nodes(1).clients(1).up()?;
    let nodes = torn.kubectl(&["get", "nodes", "-o", "name"])?;
    ensure!(nodes.trim() == "node/n1", "{nodes}");
    let nodes = world.kubectl(&["get", "nodes", "-o", "name"])?;
    ensure!(nodes.lines().count() == 3, "{nodes}");
    torn.down()?;
    let left = Lab::leftovers("torn");
    ensure!(left.is_empty(), "left behind: {left:#?}");
    ensure!(
        !Lab::leftovers(&lab_name()).is_empty(),
        "leftovers see nothing at all"
    );
    Ok(())
}
