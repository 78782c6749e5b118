//! Istio on a lab, installed as its users install it: its own charts, by `helm`. What the lab asks for besides (no DNS,
//! stock Envoy, small machines) are the values in `e2e/istio`.

pub mod curl;
pub mod desk;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::Lab;
use crate::artifact::helm::helm;
use crate::artifact::istio::{self, Chart, Istio};
use crate::deploy::{PATIENCE, project};
use crate::steps::Steps;

/// The namespace of the control plane and the gateway.
pub const NAMESPACE: &str = "istio-system";
/// The Service, Deployment and release of the ingress gateway.
pub const INGRESS: &str = "istio-ingressgateway";
/// The host that helm and istioctl run on: the API server is reachable from there.
const OPERATOR: &str = "cp";

/// Istio's programs and charts, and helm.
#[derive(Debug)]
pub struct Mesh {
    istio: Istio,
    helm: PathBuf,
}

/// A manifest of `e2e/manifests/istio`, by its path.
pub fn manifest(name: &str) -> PathBuf {
    project().join("e2e/manifests/istio").join(name)
}

/// Applies a manifest of `e2e/manifests/istio` in the namespace `default`.
///
/// # Errors
/// There is none of this name, or `kubectl` refuses it.
pub fn apply(lab: &Lab, name: &str) -> Result<()> {
    let path = manifest(name);
    let path = path.to_str().context("a path that is no text")?;
    lab.kubectl(&["apply", "-f", path]).map(drop)
}

impl Mesh {
    /// Builds what there is to build.
    ///
    /// # Errors
    /// Something does not build.
    pub fn build(steps: &Steps) -> Result<Self> {
        Ok(Self {
            istio: istio::build(steps)?,
            helm: helm(steps)?,
        })
    }

    /// Puts the images on every node of a lab, those of the applications too.
    ///
    /// # Errors
    /// They cannot be packed or loaded.
    pub fn load(&self, lab: &Lab) -> Result<()> {
        let mut archives = self.istio.images(lab.steps())?;
        archives.extend(istio::application_images(lab.steps())?);
        for archive in archives {
            lab.load_image(&archive)?;
        }
        lab.steps().say("Istio's images are on every node");
        Ok(())
    }

    /// Installs definitions, control plane and the Gateway API's definitions, and waits until the control plane is ready.
    ///
    /// # Errors
    /// `helm` or `kubectl` refuses, or it does not get ready.
    pub fn install(&self, lab: &Lab) -> Result<()> {
        let definitions = self.istio.gateway_api();
        // On the server: some definitions are too long for the note that kubectl leaves otherwise.
        let words = ["apply", "--server-side", "-f", text(&definitions)?];
        lab.kubectl(&words)?;
        self.helm_install(
            lab,
            "istio-base",
            Chart::Base,
            &["--create-namespace", "--set", "defaultRevision=default"],
        )?;
        let address = istio::sources().join("istiod-address.yaml");
        lab.kubectl(&["apply", "-f", text(&address)?])?;
        let values = istio::sources().join("values-istiod.yaml");
        self.helm_install(lab, "istiod", Chart::Istiod, &["-f", text(&values)?])?;
        // Ready is not yet registered: pods made before would not be given a proxy.
        let bundle = "jsonpath={.webhooks[*].clientConfig.caBundle}";
        lab.wait("Istio's webhook to be registered", PATIENCE, || {
            let words = [
                "get",
                "mutatingwebhookconfiguration",
                "istio-sidecar-injector",
                "-o",
                bundle,
            ];
            Ok(!lab.kubectl(&words)?.trim().is_empty())
        })
    }

    /// Installs or changes an ingress gateway by the values in `e2e/istio/values-gateway.yaml` and further `settings`
    /// as `helm` takes them: `["--set", "service.externalTrafficPolicy=Local"]`. Returns when it is ready and its
    /// Service has an address.
    ///
    /// # Errors
    /// `helm` refuses, or it does not get ready.
    pub fn gateway(&self, lab: &Lab, name: &str, settings: &[&str]) -> Result<()> {
        let values = istio::sources().join("values-gateway.yaml");
        let mut words = vec!["-f", text(&values)?];
        words.extend(settings);
        self.helm_install(lab, name, Chart::Gateway, &words)
    }

    /// Removes a gateway.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove_gateway(&self, lab: &Lab, name: &str) -> Result<()> {
        let words = ["uninstall", name, "-n", NAMESPACE, "--wait"];
        self.helm(lab, &words).map(drop)
    }

    fn helm_install(&self, lab: &Lab, release: &str, chart: Chart, more: &[&str]) -> Result<()> {
        let chart = self.istio.chart(chart);
        let timeout = format!("{}s", PATIENCE.as_secs());
        let mut words = vec![
            "upgrade",
            "--install",
            release,
            text(&chart)?,
            "-n",
            NAMESPACE,
            "--wait",
            "--timeout",
            &timeout,
            // The gateway's schema of this release forbids every value there is, taken by its letter, as Helm does
            // since 3.18.
            "--skip-schema-validation",
        ];
        words.extend(more);
        self.helm(lab, &words).map(drop)
    }

    /// Runs `helm` with the administrator's rights and returns what it prints.
    ///
    /// # Errors
    /// It fails; the error carries what it said.
    pub fn helm(&self, lab: &Lab, words: &[&str]) -> Result<String> {
        operate(lab, text(&self.helm)?, words)
    }

    /// Runs `istioctl` with the administrator's rights and returns what it prints, on whichever stream.
    ///
    /// # Errors
    /// It fails, as `analyze` does when it finds an error; the error carries what it said.
    pub fn istioctl(&self, lab: &Lab, words: &[&str]) -> Result<String> {
        let program = self.istio.istioctl();
        // The verdict goes to standard error.
        let both = ["-c", "exec \"$0\" \"$@\" 2>&1", text(&program)?];
        operate(lab, "sh", &[&both, words].concat())
    }
}

/// Runs a program of the operator's, its files kept with the lab's.
fn operate(lab: &Lab, program: &str, words: &[&str]) -> Result<String> {
    let home = lab.directory().join("operator");
    let settings = [
        format!("KUBECONFIG={}", text(&lab.kubeconfig())?),
        format!("HOME={}", text(&home)?),
    ];
    let mut all = vec!["env"];
    all.extend(settings.iter().map(String::as_str));
    all.push(program);
    all.extend(words);
    lab.read(OPERATOR, &all)
}

/// `status.loadBalancer.ingress[0].ip` of a Service, once it is there.
///
/// # Errors
/// There is none within [`PATIENCE`].
pub fn address(lab: &Lab, namespace: &str, service: &str) -> Result<String> {
    let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
    lab.wait_for(
        &format!("an address of Service {service}"),
        PATIENCE,
        || {
            let address = lab.kubectl(&["-n", namespace, "get", "service", service, "-o", path])?;
            Ok((!address.is_empty()).then_some(address))
        },
    )
}

/// An object as the API server shows it.
///
/// # Errors
/// There is none of this kind and name.
pub fn object(lab: &Lab, namespace: &str, kind: &str, name: &str) -> Result<Value> {
    let text = lab.kubectl(&["-n", namespace, "get", kind, name, "-o", "json"])?;
    Ok(serde_json::from_str(&text)?)
}

/// Moves every pod of Istio and of the applications off a node, and lets pods on it again.
///
/// # Errors
/// `kubectl` refuses, or they do not get ready elsewhere.
pub fn vacate(lab: &Lab, node: &str) -> Result<()> {
    // Not by cordoning it, which tells FerroLB that the node is being drained, and its addresses go too.
    lab.kubectl(&["taint", "node", node, "vacated=yes:NoSchedule"])?;
    let on_node = format!("spec.nodeName={node}");
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    for namespace in [NAMESPACE, "default"] {
        let words = [
            "-n",
            namespace,
            "delete",
            "pods",
            "--field-selector",
            &on_node,
        ];
        lab.kubectl(&words)?;
        let deployments = lab.kubectl(&["-n", namespace, "get", "deployments", "-o", "name"])?;
        for deployment in deployments.lines() {
            let words = ["-n", namespace, "rollout", "status", deployment, &timeout];
            lab.kubectl(&words)?;
        }
    }
    lab.kubectl(&["taint", "node", node, "vacated-"]).map(drop)
}

fn text(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
