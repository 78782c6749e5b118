//! The chart, installed, upgraded to and removed by the real Helm.

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    Lab,
    artifact::{ferrolb_image, metallb::NEWEST},
    deploy::{
        NAMESPACE, PATIENCE,
        chart::{self, Helm},
    },
    docs::follow,
};
use serde_json::json;

use crate::world::{CLASSIC, World};

/// Whoever reads metrics may read them.
const READER: &str = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: e2e-chart-reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: e2e-chart-reader}
rules: [{nonResourceURLs: [/metrics], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-chart-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: e2e-chart-reader}
subjects: [{kind: ServiceAccount, name: e2e-chart-reader, namespace: default}]
";

pub fn a_service_gets_an_address_and_answers(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    follow(world, "helm.md", "label")?;
    let address = world.balanced("a", json!({}))?;
    ensure!(address.to_string() == "192.168.99.96", "got {address}");
    let owner = world.owner(address)?;
    world.fetch(address)?;
    // Pools are checked when they are written.
    let refusal = world.refused(
        "IPAddressPool",
        "bad",
        json!({"addresses": ["192.168.99.96/28"]}),
    )?;
    ensure!(refusal.contains("overlaps"), "{refusal}");
    world.apply(READER)?;
    let result = scrape(world, &owner);
    world.kubectl_stdin(&["delete", "-f", "-"], READER)?;
    result
}

/// The announcer's metrics, by HTTPS and to whom Kubernetes lets read them.
fn scrape(world: &World, owner: &str) -> Result<()> {
    let token = world.kubectl(&["-n", "default", "create", "token", "e2e-chart-reader"])?;
    let token = format!("Authorization: Bearer {}", token.trim());
    let words = [
        "-n",
        NAMESPACE,
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/component=controller",
    ];
    let words = [&words[..], &["-o", "jsonpath={.items[0].status.podIP}"]].concat();
    let controller = world.kubectl(&words)?;
    let speaker = world.address(owner)?.to_string();
    for (host, series) in [
        (speaker.as_str(), "metallb_speaker_announced"),
        (
            controller.trim(),
            "metallb_allocator_addresses_in_use_total",
        ),
    ] {
        let url = format!("https://{host}:9120/metrics");
        let words = [
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--insecure",
            "--max-time",
            "10",
        ];
        let text = world.read("n1", &[&words[..], &["--header", &token, &url]].concat())?;
        ensure!(text.contains(series), "{text}");
    }
    Ok(())
}

pub fn uninstalling_leaves_nothing_and_a_release_of_metallbs_becomes_ours_and_back(
    world: &World,
) -> Result<()> {
    let helm = Helm::have(world.steps())?;
    follow(world, "install.md", "helm-uninstall")?;
    world.wait("nothing to be left", PATIENCE, || nothing_left(world))?;
    let theirs = chart::metallbs(world.steps(), NEWEST)?;
    // What the lab has no image for; and every speaker at a time, which is quicker.
    let quick = "frrk8s.enabled=false,speaker.updateStrategy.rollingUpdate.maxUnavailable=100%,\
                 speaker.readinessProbe.initialDelaySeconds=1,speaker.readinessProbe.periodSeconds=1,\
                 controller.readinessProbe.initialDelaySeconds=1,controller.readinessProbe.periodSeconds=1";
    // With the values file of its chart as it is, and what was set besides.
    let values = theirs.join("values.yaml");
    let values = values.to_string_lossy();
    helm.install(world, &theirs, &["-f", &values, "--set", quick])?;
    world.configure(&[("custom-ip-space", &[CLASSIC])])?;
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    world.owner(address)?;
    world.fetch(address)?;
    let uid = pool(world)?;

    let told = follow(world, "migration.md", "helm")?;
    ensure!(
        told.contains("WARNING: speaker.image names MetalLB's image"),
        "{told}"
    );
    run_by(world, true)?;
    ensure!(pool(world)? == uid, "the pool is another one");
    still(world, address)?;
    // Webhooks are answered by us, the older version of peers is converted.
    let refusal = world.refused(
        "IPAddressPool",
        "bad",
        json!({"addresses": ["192.168.99.96/28"]}),
    )?;
    ensure!(refusal.contains("overlaps"), "{refusal}");
    world.kubectl(&["-n", NAMESPACE, "get", "bgppeers.v1beta1.metallb.io"])?;

    follow(world, "migration.md", "helm-back")?;
    run_by(world, false)?;
    ensure!(pool(world)? == uid, "the pool is another one");
    still(world, address)
}

fn still(world: &World, address: std::net::Ipv4Addr) -> Result<()> {
    ensure!(
        world.balanced("a", json!({}))? == address,
        "another address"
    );
    world.owner(address)?;
    world.fetch(address).map(drop)
}

/// By which the pool would show that it was made anew.
fn pool(world: &World) -> Result<String> {
    let object = world.object("IPAddressPool", "custom-ip-space")?;
    Ok(object
        .pointer("/metadata/uid")
        .map(ToString::to_string)
        .unwrap_or_default())
}

/// Waits until every pod runs our images, or none does: those that go are there for seconds.
fn run_by(lab: &Lab, us: bool) -> Result<()> {
    lab.wait("the other images alone", PATIENCE, || {
        let images = images(lab)?;
        ensure!(images.iter().all(|image| ours(image) == us), "{images:?}");
        Ok(images.len() == 4)
    })
}

fn images(lab: &Lab) -> Result<Vec<String>> {
    let path = "jsonpath={.items[*].spec.containers[*].image}";
    let images = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", path])?;
    Ok(images.split_whitespace().map(str::to_owned).collect())
}

fn ours(image: &str) -> bool {
    ["controller", "speaker"]
        .iter()
        .any(|program| ferrolb_image(program).ends_with(image))
}

/// Whether everything of the chart is gone; the error says what is not.
fn nothing_left(world: &World) -> Result<bool> {
    let namespaced = "deployments,daemonsets,pods,services,secrets,configmaps,serviceaccounts,roles,rolebindings,\
                      networkpolicies,poddisruptionbudgets";
    let cluster = "clusterroles,clusterrolebindings,validatingwebhookconfigurations,customresourcedefinitions";
    let own = world.kubectl(&["-n", NAMESPACE, "get", namespaced, "-o", "name"])?;
    let wide = world.kubectl(&["get", cluster, "-o", "name"])?;
    // What every namespace has.
    let usual = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
    let left: Vec<_> = own
        .lines()
        .filter(|name| !usual.contains(name))
        .chain(wide.lines().filter(|name| name.contains("metallb")))
        .collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(true)
}
