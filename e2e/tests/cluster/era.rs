//! The rights MetalLB's manifests gave in the ConfigMap era (0.7 to 0.9, minikube's addon): no nodes for
//! the controller, Endpoints instead of EndpointSlices, no pods, `update` alone on services/status.

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    deploy::{self, NAMESPACE, PATIENCE},
    observe::{arp, http, service},
};
use serde_json::json;

use crate::world::{CLIENT, INSIDER, INSIDER_ADDRESS, World};

pub fn rights_of_the_configmap_era_are_enough(world: &World) -> Result<()> {
    take_up(world, "overlays/configmap-era")?;
    let result = under_old_rights(world);
    take_up(world, "base")?;
    result
}

fn take_up(world: &World, folder: &str) -> Result<()> {
    world.kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        "role,rolebinding",
        "pod-lister",
        "--ignore-not-found",
    ])?;
    deploy::apply_kustomization(world, folder)?;
    for workload in ["deployment/controller", "daemonset/speaker"] {
        world.kubectl(&["-n", NAMESPACE, "rollout", "restart", workload])?;
    }
    deploy::wait_ready(world)
}

fn under_old_rights(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    ensure!(address.to_string() == "192.168.99.96");
    world.owner(address)?;
    world.fetch(address)?;

    // The controller cannot know that .100 is a node's own, and says so.
    let log = deploy::log(world, &deploy::controller_pod(world)?, false)?;
    ensure!(log.contains("cannot see Nodes"), "{log}");
    let given = world.balanced(
        "insider",
        json!({"loadBalancerIP": INSIDER_ADDRESS.to_string()}),
    )?;
    ensure!(given == INSIDER_ADDRESS);
    world.echo("insider", "n1")?;
    // The speakers can, and none answers for it: the node's own kernel alone does.
    service::wait_event(
        world,
        "default",
        "Service",
        "insider",
        "announceFailed",
        INSIDER,
    )?;
    let answerers = arp::answerers(world, CLIENT, INSIDER_ADDRESS)?;
    ensure!(answerers.iter().eq([INSIDER]), "answered by {answerers:?}");
    let refused = "ferrolb_speaker_silent_services{reason=\"nodeAddress\"}";
    world.wait("a speaker to count the Service as silent", PATIENCE, || {
        for node in world.nodes() {
            let metrics = world.speaker_metrics(&node)?;
            let announced = metrics
                .lines()
                .any(|line| line.starts_with("metallb_speaker_announced{ip=\"192.168.99.100\""));
            ensure!(!announced, "{node} announces a node's own address");
            if http::series(&metrics, refused) == Some(1.0) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}
