//! Everything in `config/deploy`, submitted to the real API server by the real kubectl.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    artifact::module::Module,
    deploy::{
        NAMESPACE, PATIENCE,
        chart::{self, Helm},
        manifests,
        rights::Asked,
    },
    docs::follow,
};
use serde_json::{Value, json};

use crate::{
    objects::{object, objects},
    resources::name,
    rights,
    world::World,
};

/// Where the Prometheus operator's own definitions are.
const OPERATOR: Module = Module {
    path: "github.com/prometheus-operator/prometheus-operator",
    version: "v0.85.0",
    sum: "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
};
/// Those of them that we ship objects of.
const MONITORING: [&str; 3] = ["podmonitors", "servicemonitors", "prometheusrules"];

pub fn everything_is_accepted(world: &World) -> Result<()> {
    let operator = OPERATOR.sources(world.steps())?;
    let mut definitions = Vec::new();
    for plural in MONITORING {
        let file = format!("example/prometheus-operator-crd/monitoring.coreos.com_{plural}.yaml");
        definitions.push(text(&operator.join(file))?);
    }
    let files: Vec<_> = definitions.iter().flat_map(|file| ["-f", file]).collect();
    // On the server: some are too long for the note that kubectl leaves otherwise.
    world.kubectl(&[&["apply", "--server-side"][..], &files].concat())?;
    let plurals = MONITORING.map(|plural| format!("crd/{plural}.monitoring.coreos.com"));
    let mut words = vec!["wait", "--for=condition=Established"];
    words.extend(plurals.iter().map(String::as_str));
    world.kubectl(&words)?;
    let result = submit_everything(world);
    world.kubectl(&[&["delete"][..], &files].concat())?;
    result
}

fn submit_everything(world: &World) -> Result<()> {
    let mut folders = Vec::new();
    let mut components = Vec::new();
    let mut texts = String::new();
    for file in kustomizations(&manifests(""))? {
        let written = fs::read_to_string(&file)?;
        let folder = file.parent().context("no folder")?.to_owned();
        if written.contains("kind: Component") {
            components.push(folder);
        } else {
            folders.push(folder);
        }
        texts.push_str(&written);
    }
    ensure!(
        folders.len() >= 7 && components.len() >= 3,
        "{folders:?} {components:?}"
    );
    for component in components {
        let name = component.file_name().and_then(|name| name.to_str());
        let used = name.is_some_and(|name| texts.contains(&format!("components/{name}")));
        ensure!(used, "{} is in no overlay", component.display());
    }
    for folder in folders {
        world.kubectl(&["apply", "--dry-run=server", "-k", &text(&folder)?])?;
    }
    let example = text(&manifests("examples/config.yaml"))?;
    world.kubectl(&["apply", "--dry-run=server", "-f", &example])?;
    for monitor in ["podMonitor", "serviceMonitor"] {
        let settings = format!(
            "prometheus.{monitor}.enabled=true,prometheus.serviceAccount=p,prometheus.namespace=m,\
             prometheus.prometheusRule.enabled=true,networkpolicies.enabled=true,networkpolicies.defaultDeny=true,\
             speaker.podDisruptionBudget.minAvailable=1,speaker.priorityClassName=system-node-critical"
        );
        let made = render(world, &["--set", &settings])?;
        let list = json!({"apiVersion": "v1", "kind": "List", "items": made});
        world.kubectl_stdin(&["apply", "--dry-run=server", "-f", "-"], &list.to_string())?;
    }
    Ok(())
}

fn render(world: &World, settings: &[&str]) -> Result<Vec<Value>> {
    let home = world.directory().join("helm");
    objects(&Helm::have(world.steps())?.render(&home, &chart::ours(), settings)?)
}

/// Every `kustomization.yaml` below; the chart's link to the definitions is not followed.
fn kustomizations(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(kustomizations(&entry.path())?);
        } else if entry.file_name() == "kustomization.yaml" {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn text(path: &Path) -> Result<String> {
    let path = path.to_str().context("a path that is no text")?;
    Ok(path.to_owned())
}

pub fn restricted_is_enough_for_the_controller(world: &World) -> Result<()> {
    world.apply(
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "secured"}})
            .to_string(),
    )?;
    let result = admit(world);
    world.kubectl(&["delete", "namespace", "secured"])?;
    result
}

fn admit(world: &World) -> Result<()> {
    world.wait("an account for pods", PATIENCE, || {
        let words = ["-n", "secured", "get", "serviceaccount", "default"];
        world.kubectl(&words).map(|_| true)
    })?;
    let base = objects(&world.kubectl(&["kustomize", &text(&manifests("base"))?])?)?;
    let chart = render(world, &[])?;
    for level in ["restricted", "baseline", "privileged"] {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        world.kubectl(&["label", "--overwrite", "namespace", "secured", &label])?;
        for (source, controller, speaker) in [
            (&base, "controller", "speaker"),
            (&chart, "metallb-controller", "metallb-speaker"),
        ] {
            submit_pod(world, object(source, "Deployment", controller)?)
                .with_context(|| format!("{level} refuses {controller}"))?;
            let admitted = submit_pod(world, object(source, "DaemonSet", speaker)?);
            if level == "privileged" {
                admitted?;
                continue;
            }
            let Err(refusal) = admitted else {
                anyhow::bail!("{level} admits {speaker}: say so in the documentation");
            };
            let refusal = format!("{refusal:#}");
            for reason in ["violates PodSecurity", "NET_RAW", "hostNetwork"] {
                ensure!(refusal.contains(reason), "{level}, {reason}: {refusal}");
            }
        }
    }
    Ok(())
}

/// Has the API server admit the pod of a workload.
fn submit_pod(world: &World, workload: &Value) -> Result<()> {
    let mut spec = workload
        .pointer("/spec/template/spec")
        .context("no pod")?
        .clone();
    let account = spec.get_mut("serviceAccountName").context("no account")?;
    *account = json!("default");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "pod", "namespace": "secured"}, "spec": spec,
    });
    world
        .kubectl_stdin(&["create", "--dry-run=server", "-f", "-"], &pod.to_string())
        .map(drop)
}

pub fn the_base_becomes_the_overlay_of_custom_resources(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    follow(world, "migration.md", "resources")?;
    // The pods of before are gone, and with them what they asked for.
    let mark = world.audit_log()?.len();
    ensure!(
        world.balanced("a", json!({}))? == address,
        "another address"
    );
    world.owner(address)?;
    world.fetch(address)?;

    let example = text(&manifests("examples/pools.yaml"))?;
    world.kubectl(&["apply", "-f", &example])?;
    let asked = "192.168.1.240";
    let given = world.balanced("b", json!({"loadBalancerIP": asked}))?;
    ensure!(given.to_string() == asked, "got {given}");
    world.wait(
        "every daemon to report on the configuration",
        PATIENCE,
        || {
            let states = world.objects("configurationstates")?;
            let valid = states
                .iter()
                .filter(|state| state.pointer("/status/result") == Some(&json!("Valid")));
            Ok(valid.count() == 4)
        },
    )?;
    world.wait("the status of Service a", PATIENCE, || {
        Ok(world.objects("servicel2statuses")?.len() == 1)
    })?;
    world.kubectl(&["delete", "service", "a"])?;
    world.wait("the status to go with its Service", PATIENCE, || {
        Ok(world.objects("servicel2statuses")?.is_empty())
    })?;
    let pools = world.objects("ipaddresspools")?;
    let names: BTreeSet<_> = pools.iter().map(name).collect();
    ensure!(
        names == BTreeSet::from(["custom-ip-space", "default"]),
        "{pools:?}"
    );

    let now = Asked::read(world.audit_log()?.get(mark..).unwrap_or_default(), "");
    let ever = Asked::since_installed(world)?;
    let asked = Asked {
        answered: ever.answered,
        refused: now.refused,
    };
    let result = rights::compare(world, &asked, &[], rights::RARE);
    // Nobody else's group has custom resources.
    world.kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        "ipaddresspools,l2advertisements",
        "--all",
    ])?;
    result
}
