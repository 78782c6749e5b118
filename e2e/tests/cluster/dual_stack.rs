//! Services that prefer addresses of both families, and pools that have them or not.

use anyhow::Result;
use serde_json::{Value, json};

use crate::world::World;

/// The policy of every Service here.
fn prefers() -> Value {
    json!({"ipFamilyPolicy": "PreferDualStack"})
}

/// Makes or changes a pool.
fn pool(world: &World, name: &str, addresses: &[&str]) -> Result<()> {
    world.create("IPAddressPool", name, json!({"addresses": addresses}))
}

pub fn preferring_takes_what_pools_have(world: &World) -> Result<()> {
    world.configure(&[
        ("a-four", &["192.168.99.120/32"]),
        ("b-both", &["192.168.99.121/32", "fd99::1:1/128"]),
        ("c-six", &["fd99::1:2/128"]),
    ])?;
    // Both at once, wherever the pool stands.
    world.echo("both", "n1")?;
    world.balancer("both", prefers())?;
    world.gets("both", &["192.168.99.121", "fd99::1:1"])?;
    world.fetch([192, 168, 99, 121])?;
    world.fetch("fd99::1:1".parse::<std::net::Ipv6Addr>()?)?;
    // None has both any more: IPv4, or what the Service names first.
    world.balancer("four", prefers())?;
    world.gets("four", &["192.168.99.120"])?;
    world.balancer(
        "six",
        json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}),
    )?;
    world.gets("six", &["fd99::1:2"])?;
    for (name, address) in [("four", "192.168.99.120"), ("six", "fd99::1:2")] {
        world.keeps(name, &[address])?;
    }
    Ok(())
}

pub fn requiring_and_preferring_again(world: &World) -> Result<()> {
    world.configure(&[("four", &["192.168.99.120/32"])])?;
    let policy = |policy: &str| world.patch("a", &json!({"spec": {"ipFamilyPolicy": policy}}));
    world.balancer("a", prefers())?;
    world.gets("a", &["192.168.99.120"])?;
    policy("RequireDualStack")?;
    world.gets("a", &[])?;
    world.keeps("a", &[])?;
    policy("PreferDualStack")?;
    world.gets("a", &["192.168.99.120"])
}

pub fn preferring_follows_its_own_pool(world: &World) -> Result<()> {
    world.configure(&[("a", &["192.168.99.120/32"])])?;
    world.echo("a", "n1")?;
    world.balancer("a", prefers())?;
    world.gets("a", &["192.168.99.120"])?;
    // A pool with both is no reason to leave.
    pool(world, "b", &["192.168.99.121/32", "fd99::1:1/128"])?;
    world.keeps("a", &["192.168.99.120"])?;
    // The second family in its own pool is added.
    pool(world, "a", &["192.168.99.120/32", "fd99::1:2/128"])?;
    world.gets("a", &["192.168.99.120", "fd99::1:2"])?;
    world.fetch("fd99::1:2".parse::<std::net::Ipv6Addr>()?)?;
    world.keeps("a", &["192.168.99.120", "fd99::1:2"])?;
    // Taken away again, the Service keeps both families rather than its pool.
    pool(world, "a", &["192.168.99.120/32"])?;
    world.gets("a", &["192.168.99.121", "fd99::1:1"])?;
    world.owner([192, 168, 99, 121])?;
    world.silence([192, 168, 99, 120])
}
