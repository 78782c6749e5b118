//! Istio's own judgement of the configuration.

use anyhow::{Result, bail, ensure};
use ferrolb_e2e::istio;
use serde_json::json;

use crate::{
    objects::{to_httpbin, virtual_service},
    world::World,
};

const CLEAN: &str = "No validation issues found";

pub fn what_was_applied_is_clean(world: &World) -> Result<()> {
    for name in ["httpbin-gateway.yaml", "hostname-echo-gateway.yaml"] {
        istio::apply(world, name)?;
    }
    // Said aloud that these applications have no sidecars, as `analyze` wants to be told.
    world.kubectl(&[
        "label",
        "--overwrite",
        "namespace",
        "default",
        "istio-injection=disabled",
    ])?;
    let verdict = world.mesh.istioctl(world, &["analyze", "-n", "default"])?;
    ensure!(verdict.contains(CLEAN), "{verdict}");

    // And it does find what is wrong.
    let lost = virtual_service(
        "lost",
        &["lost.example.com"],
        "nowhere",
        &json!([{"route": to_httpbin()}]),
    );
    world.submit(&[lost])?;
    match world.mesh.istioctl(world, &["analyze", "-n", "default"]) {
        Ok(verdict) => bail!("a gateway that is not there goes unnoticed: {verdict}"),
        Err(error) => ensure!(format!("{error:#}").contains("IST0101"), "{error:#}"),
    }
    Ok(())
}
