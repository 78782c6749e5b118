//! Services of other implementations.

use anyhow::{Result, ensure};
use ferrolb_e2e::observe::service::stays_without;
use serde_json::json;

use crate::world::World;

pub fn another_class_gets_nothing(world: &World) -> Result<()> {
    world.balancer("foreign", json!({"loadBalancerClass": "example.org/foo"}))?;
    // Who comes later finds the first address free: nothing is set aside either.
    ensure!(world.balanced("ours", json!({}))?.octets() == [192, 168, 99, 96]);
    ensure!(stays_without(world, "foreign")?);
    let events = ferrolb_e2e::observe::service::events(world, "default", "Service", "foreign")?;
    ensure!(events.is_empty(), "{events:?}");
    Ok(())
}
