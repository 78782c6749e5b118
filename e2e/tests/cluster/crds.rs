//! Configuration by custom resources.

use anyhow::{Result, ensure};
use ferrolb_e2e::{deploy::PATIENCE, observe::service::stays_without};
use serde_json::json;

use crate::world::World;

pub fn a_pools_status_counts_its_addresses(world: &World) -> Result<()> {
    world.configure(&[("counted", &["192.168.99.120/30", "fd99::1:0/124"])])?;
    let counts = || -> Result<_> {
        let pool = world.object("IPAddressPool", "counted")?;
        let names = [
            "assignedIPv4",
            "availableIPv4",
            "assignedIPv6",
            "availableIPv6",
        ];
        Ok(names.map(|name| pool.pointer(&format!("/status/{name}")).cloned()))
    };
    let expect = |expected: [u8; 4]| {
        world.wait(&format!("the counts {expected:?}"), PATIENCE, || {
            let counts = counts()?;
            ensure!(
                counts == expected.map(|count| Some(json!(count))),
                "{counts:?}"
            );
            Ok(true)
        })
    };
    expect([0, 4, 0, 16])?;
    world.balanced("a", json!({}))?;
    world.balanced("b", json!({}))?;
    expect([2, 2, 0, 16])?;
    world.kubectl(&["delete", "service", "a"])?;
    expect([1, 3, 0, 16])
}

pub fn only_advertised_pools_are_answered_for(world: &World) -> Result<()> {
    world.clear_configuration()?;
    let spec = |address: &str| json!({"addresses": [address], "autoAssign": false});
    world.create("IPAddressPool", "named", spec("192.168.99.120/32"))?;
    let labels = json!({"zone": "lan"});
    world.create_labelled(
        "IPAddressPool",
        "labelled",
        labels,
        spec("192.168.99.121/32"),
    )?;
    world.create("IPAddressPool", "left-out", spec("192.168.99.122/32"))?;
    world.create(
        "L2Advertisement",
        "some",
        json!({
            "ipAddressPools": ["named"],
            "ipAddressPoolSelectors": [{"matchLabels": {"zone": "lan"}}],
        }),
    )?;
    world.balancer("not-asked", json!({}))?;
    for (service, address) in [
        ("a", "192.168.99.120"),
        ("b", "192.168.99.121"),
        ("c", "192.168.99.122"),
    ] {
        world.echo(service, "n1")?;
        let given = world.balanced(service, json!({"loadBalancerIP": address}))?;
        ensure!(given.to_string() == address, "{service} got {given}");
    }
    for advertised in ["192.168.99.120", "192.168.99.121"] {
        world.owner(advertised.parse::<std::net::Ipv4Addr>()?)?;
    }
    world.silence("192.168.99.122".parse::<std::net::Ipv4Addr>()?)?;
    ensure!(
        stays_without(world, "not-asked")?,
        "no pool gives by itself"
    );
    // An advertisement of the rest, and it is answered for.
    world.create(
        "L2Advertisement",
        "rest",
        json!({"ipAddressPools": ["left-out"]}),
    )?;
    world.owner("192.168.99.122".parse::<std::net::Ipv4Addr>()?)?;
    world.delete("L2Advertisement", "some")?;
    world.silence("192.168.99.120".parse::<std::net::Ipv4Addr>()?)
}
