//! The ConfigMap: absent, broken, repaired.

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    deploy::{self, NAMESPACE, PATIENCE},
    observe::{http, service},
};
use serde_json::json;

use crate::world::{CLASSIC, World};

pub fn absent_at_start_waits_and_says_so(world: &World) -> Result<()> {
    world.balancer("early", json!({}))?;
    ensure!(
        service::stays_without(world, "early")?,
        "an address without a configuration"
    );
    let metrics = world.controller_metrics()?;
    ensure!(
        http::series(&metrics, "metallb_k8s_client_config_loaded_bool") == Some(0.0),
        "{metrics}"
    );
    for pod in [
        deploy::controller_pod(world)?,
        deploy::speaker_pod(world, "n1")?,
    ] {
        let log = deploy::log(world, &pod, false)?;
        ensure!(
            log.contains("\"event\":\"noConfig\"") && log.contains("waiting"),
            "{pod} says: {log}"
        );
    }
    world.configure(&[("custom-ip-space", &[CLASSIC])])?;
    let address = service::address(world, "early")?;
    ensure!(address == "192.168.99.96", "got {address}");
    Ok(())
}

pub fn bad_edit_is_refused_whole_and_a_repair_taken_up(world: &World) -> Result<()> {
    world.echo("before", "n1")?;
    let before = world.balanced("before", json!({}))?;
    let owner = world.owner(before)?;
    let bad = "address-pools:\n\
        - name: good\n  protocol: layer2\n  addresses: [192.168.99.120/30]\n\
        - name: bad\n  protocol: layr2\n  addresses: [192.168.99.130, 192.168.99.140-192.168.99.135]\n";
    deploy::configure(world, bad)?;

    // Every problem at once, where the operator looks: event, log and metric, on both daemons.
    for words in ["layr2", "192.168.99.130", "192.168.99.135"] {
        service::wait_event(
            world,
            NAMESPACE,
            "ConfigMap",
            "config",
            "ConfigurationRefused",
            words,
        )?;
    }
    let log = deploy::log(world, &deploy::controller_pod(world)?, false)?;
    ensure!(
        log.matches("\"event\":\"configProblem\"").count() >= 3,
        "{log}"
    );
    let stale = "metallb_k8s_client_config_stale_bool";
    ensure!(
        http::series(&world.controller_metrics()?, stale) == Some(1.0),
        "the controller is not stale"
    );
    for node in world.nodes() {
        world.wait(&format!("{node} to say that it is stale"), PATIENCE, || {
            Ok(http::series(&world.speaker_metrics(&node)?, stale) == Some(1.0))
        })?;
    }

    // Everything keeps working on the last good configuration, and nothing of the bad one is in force.
    ensure!(world.owner(before)? == owner, "the address moved");
    world.fetch(before)?;
    ensure!(world.balanced("after", json!({}))?.to_string() == "192.168.99.97");
    world.balancer("wants-new", json!({"loadBalancerIP": "192.168.99.120"}))?;
    service::wait_event(
        world,
        "default",
        "Service",
        "wants-new",
        "AllocationFailed",
        "not allowed in config",
    )?;

    world.configure(&[
        ("custom-ip-space", &[CLASSIC]),
        ("good", &["192.168.99.120/30"]),
    ])?;
    ensure!(service::address(world, "wants-new")? == "192.168.99.120");
    service::wait_event(
        world,
        NAMESPACE,
        "ConfigMap",
        "config",
        "ConfigurationAccepted",
        "",
    )?;
    for node in world.nodes() {
        world.wait(&format!("{node} to take up the repair"), PATIENCE, || {
            Ok(http::series(&world.speaker_metrics(&node)?, stale) == Some(0.0))
        })?;
    }
    Ok(())
}

pub fn an_edit_that_drops_a_used_address_is_refused(world: &World) -> Result<()> {
    world.balanced("holder", json!({}))?;
    deploy::configure(
        world,
        &deploy::pools(&[("elsewhere", &["192.168.99.120/30"])]),
    )?;
    service::wait_event(
        world,
        NAMESPACE,
        "ConfigMap",
        "config",
        "ConfigurationRefused",
        "default/holder",
    )?;
    ensure!(service::addresses(world, "holder")? == ["192.168.99.96"]);
    // Once the Service lets go, the edit fits and is taken up without another one.
    world.kubectl(&["delete", "service", "holder"])?;
    ensure!(world.balanced("next", json!({}))?.to_string() == "192.168.99.120");
    Ok(())
}
