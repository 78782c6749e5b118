//! What can be installed on a lab: FerroLB by its own files or on those of others, and MetalLB itself.

use std::fs;

use anyhow::{Context as _, Result};

use super::{chart, project, wait_ready};
use crate::Lab;
use crate::artifact::ferrolb_image;
use crate::artifact::metallb::{MINIKUBE, NEWEST, Release};
use crate::docs;

/// The two programs, by the names of their workloads, containers and images.
pub const PROGRAMS: [&str; 2] = ["controller", "speaker"];

/// What is installed. At most one of them is on a lab at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setup {
    /// FerroLB by `config/deploy/base`, configured by the ConfigMap.
    ConfigMap,
    /// FerroLB as docs/install.md says first, with custom resources.
    Documented,
    /// FerroLB's images on MetalLB's own manifest: its custom resources, webhooks, RBAC, arguments, volumes.
    Crds,
    /// FerroLB by its own chart, with its default values.
    Chart,
    /// MetalLB by that manifest.
    MetalLb,
    /// FerroLB's images on the objects of minikube's addon, which are MetalLB 0.9's.
    Minikube,
    /// MetalLB 0.9 on those objects.
    MinikubeMetalLb,
}

impl Setup {
    /// The release of MetalLB whose images or manifest it needs.
    pub fn release(self) -> Option<Release> {
        match self {
            Self::ConfigMap | Self::Documented | Self::Minikube => None,
            Self::Crds | Self::Chart | Self::MetalLb => Some(NEWEST),
            Self::MinikubeMetalLb => Some(MINIKUBE),
        }
    }

    /// Whether FerroLB runs in it.
    pub fn is_ferrolb(self) -> bool {
        matches!(
            self,
            Self::ConfigMap | Self::Documented | Self::Crds | Self::Chart | Self::Minikube
        )
    }

    /// Whether it is configured by custom resources.
    pub fn has_resources(self) -> bool {
        matches!(
            self,
            Self::Documented | Self::Crds | Self::Chart | Self::MetalLb
        )
    }

    /// Installs it on a lab that has nothing installed and all images on its nodes, and waits until it is ready.
    ///
    /// # Errors
    /// `kubectl` or `helm` refuses something, or it does not get ready.
    pub fn install(self, lab: &Lab) -> Result<()> {
        let newest = || NEWEST.build(lab.steps())?.manifest();
        match self {
            // What is said of it waits, too.
            Self::ConfigMap => return docs::follow(lab, "install.md", "configmap").map(drop),
            Self::Documented => return docs::follow(lab, "install.md", "install").map(drop),
            Self::Chart => return docs::follow(lab, "install.md", "helm").map(drop),
            Self::Crds => apply(lab, &at_once(&with_ferrolb(&newest()?, NEWEST)))?,
            Self::MetalLb => apply(lab, &at_once(&newest()?))?,
            Self::Minikube => apply(lab, &with_ferrolb(&minikube_manifest()?, MINIKUBE))?,
            Self::MinikubeMetalLb => apply(lab, &at_once(&minikube_manifest()?))?,
        }
        wait_ready(lab)
    }
}

/// Removes whatever is installed, with its configuration, custom resources and their definitions.
///
/// # Errors
/// `kubectl` refuses, or it takes longer than [`super::PATIENCE`].
pub fn remove(lab: &Lab) -> Result<()> {
    // First what would stand in the way of the rest: nobody serves it any more.
    delete(
        lab,
        &[
            "validatingwebhookconfiguration",
            "metallb-webhook-configuration",
        ],
    )?;
    delete(lab, &["namespace", super::NAMESPACE])?;
    let mut roles: Vec<_> = PROGRAMS
        .iter()
        .flat_map(|program| {
            [super::NAMESPACE, chart::RELEASE].map(|full| format!("{full}:{program}"))
        })
        .collect();
    roles.push(format!("{}:namespace-watcher", super::NAMESPACE));
    for kind in ["clusterrole", "clusterrolebinding"] {
        let mut words = vec![kind];
        words.extend(roles.iter().map(String::as_str));
        delete(lab, &words)?;
    }
    let definitions = lab.kubectl(&["get", "customresourcedefinitions", "-o", "name"])?;
    let definitions: Vec<_> = definitions
        .lines()
        .filter(|name| name.ends_with(".metallb.io"))
        .collect();
    if definitions.is_empty() {
        return Ok(());
    }
    delete(lab, &definitions)
}

fn delete(lab: &Lab, words: &[&str]) -> Result<()> {
    let timeout = format!("--timeout={}s", super::PATIENCE.as_secs());
    let mut all = vec!["delete", "--ignore-not-found", &timeout];
    all.extend(words);
    lab.kubectl(&all).map(drop)
}

/// Gives the workloads other images, as an operator does who swaps them, and waits until they run: `image` names that of
/// `controller` and that of `speaker`.
///
/// # Errors
/// `kubectl` refuses, or they do not get ready.
pub fn swap_images(lab: &Lab, image: impl Fn(&str) -> String) -> Result<()> {
    for (program, kind) in PROGRAMS.into_iter().zip(["deployment", "daemonset"]) {
        let workload = format!("{kind}/{program}");
        let image = format!("{program}={}", image(program));
        lab.kubectl(&["-n", super::NAMESPACE, "set", "image", &workload, &image])?;
    }
    wait_ready(lab)
}

/// `manifest` with FerroLB's images in place of a release's.
fn with_ferrolb(manifest: &str, release: Release) -> String {
    PROGRAMS
        .into_iter()
        .fold(manifest.to_owned(), |text, program| {
            text.replace(&release.image(program), &ferrolb_image(program))
        })
}

/// `manifest` with FerroLB's failback as MetalLB's: at once. MetalLB itself takes no notice of it, FerroLB once its images
/// are there, and tests that ask for MetalLB's owners need not wait for minutes.
fn at_once(manifest: &str) -> String {
    manifest
        .lines()
        .flat_map(|line| {
            let indent = line.strip_suffix("- name: METALLB_NODE_NAME");
            let more = indent
                .map(|indent| format!("{indent}- name: FERROLB_FAILBACK\n{indent}  value: 0s"));
            more.into_iter().chain([line.to_owned()])
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// What minikube's addon applies.
fn minikube_manifest() -> Result<String> {
    let path = project().join("e2e/manifests/minikube.yaml");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn apply(lab: &Lab, manifest: &str) -> Result<()> {
    lab.apply(manifest).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failback_is_a_variable_of_the_speaker() {
        let manifest = at_once(&minikube_manifest().unwrap());
        let lines: Vec<_> = manifest.lines().collect();
        let at = lines
            .iter()
            .position(|line| line.ends_with("- name: FERROLB_FAILBACK"));
        let at = at.unwrap();
        assert_eq!(lines[at + 1].trim(), "value: 0s");
        assert!(lines[at + 2].ends_with("- name: METALLB_NODE_NAME"));
        assert_eq!(
            lines.len(),
            minikube_manifest().unwrap().lines().count() + 2
        );
    }

    #[test]
    fn images_are_all_that_changes() {
        let manifest = minikube_manifest().unwrap();
        let ours = with_ferrolb(&manifest, MINIKUBE);
        let changed: Vec<_> = manifest
            .lines()
            .zip(ours.lines())
            .filter(|(before, after)| before != after)
            .map(|(_, after)| after.trim())
            .collect();
        let expected = PROGRAMS.map(|program| format!("image: {}", ferrolb_image(program)));
        assert_eq!(changed.len(), 2);
        assert!(
            expected.iter().all(|line| changed.contains(&line.as_str())),
            "{changed:?}"
        );
    }
}
