//! FerroLB's images in minikube's MetalLB addon.

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    deploy::{self, NAMESPACE, PATIENCE},
    observe::service,
};
use serde_json::{Value, json};

use crate::world::World;

/// `minikube addons enable` before `addons configure`: the template's start and end are empty.
const UNCONFIGURED: &str =
    "address-pools:\n- name: default\n  protocol: layer2\n  addresses:\n  - -\n";
/// What `addons configure` makes of it.
const CONFIGURED: &str = "address-pools:\n- name: default\n  protocol: layer2\n  addresses:\n  - \
                          192.168.99.105-192.168.99.110\n";

pub fn enabled_before_it_is_configured(world: &World) -> Result<()> {
    // As the addon finds it: never configured.
    world.kubectl(&["-n", NAMESPACE, "delete", "configmap", "config"])?;
    for workload in ["deployment/controller", "daemonset/speaker"] {
        world.kubectl(&["-n", NAMESPACE, "rollout", "restart", workload])?;
    }
    deploy::wait_ready(world)?;
    deploy::configure(world, UNCONFIGURED)?;
    world.echo("a", "n1")?;
    world.balancer("a", json!({}))?;
    let controller = deploy::controller_pod(world)?;
    world.wait("the controller to say what is wrong", PATIENCE, || {
        Ok(deploy::log(world, &controller, false)?.contains("configProblem"))
    })?;
    ensure!(
        service::stays_without(world, "a")?,
        "an address from a pool without any"
    );
    deploy::configure(world, CONFIGURED)?;
    let address: std::net::Ipv4Addr = service::address(world, "a")?.parse()?;
    ensure!(address.to_string() == "192.168.99.105", "got {address}");
    world.owner(address)?;
    world.fetch(address)?;
    let pods = world.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "json"])?;
    let pods: Value = serde_json::from_str(&pods)?;
    let statuses = pods.get("items").and_then(Value::as_array);
    for pod in statuses.into_iter().flatten() {
        let restarts = pod.pointer("/status/containerStatuses/0/restartCount");
        ensure!(restarts == Some(&json!(0)), "restarted: {pod}");
    }
    Ok(())
}
