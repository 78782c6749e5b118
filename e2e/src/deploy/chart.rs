//! Charts, rendered and installed by the real Helm: ours, and MetalLB's to come from.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{NAMESPACE, PATIENCE, manifests};
use crate::Lab;
use crate::artifact::helm::helm;
use crate::artifact::metallb::Release;
use crate::steps::Steps;

/// The release every test installs: MetalLB's documentation calls it so.
pub const RELEASE: &str = "metallb";
/// The host the operator's commands run on: the API server is reachable from there.
const HOST: &str = "cp";

/// Our chart.
pub fn ours() -> PathBuf {
    manifests("chart")
}

/// The chart of a release of MetalLB, where Go keeps its sources.
///
/// # Errors
/// Its module cannot be had.
pub fn metallbs(steps: &Steps, release: Release) -> Result<PathBuf> {
    Ok(release.sources(steps)?.join("charts/metallb"))
}

/// Helm, ready to run.
#[derive(Debug, Clone)]
pub struct Helm {
    program: PathBuf,
}

impl Helm {
    /// Builds it, or finds it built.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn have(steps: &Steps) -> Result<Self> {
        let program = helm(steps)?;
        Ok(Self { program })
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs it where no cluster is needed and returns what it prints; `home` is where it may keep things.
    ///
    /// # Errors
    /// It fails; the error carries what it said.
    pub fn run(&self, home: &Path, words: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(words)
            .envs(settings(home))
            // No cluster shall have a say, if this machine knows one.
            .env("KUBECONFIG", home.join("none"))
            .stdin(Stdio::null())
            .output()
            .context("cannot start helm")?;
        ensure!(
            output.status.success(),
            "helm {}: {}\n{}{}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The objects a chart makes of these settings (`["--set", "rbac.create=false"]`), for the release [`RELEASE`] in
    /// [`NAMESPACE`]: YAML, many documents.
    ///
    /// # Errors
    /// It refuses the settings.
    pub fn render(&self, home: &Path, chart: &Path, settings: &[&str]) -> Result<String> {
        let chart = chart.to_str().context("a path that is no text")?;
        let mut words = vec!["template", RELEASE, chart, "-n", NAMESPACE];
        words.extend(settings);
        self.run(home, &words)
    }

    /// Runs it with the administrator's rights on a lab's cluster and returns what it prints.
    ///
    /// # Errors
    /// It fails; the error carries what it said.
    pub fn operate(&self, lab: &Lab, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .envs(settings(&lab.directory().join("helm")))
            .env("KUBECONFIG", lab.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = lab.spawn(HOST, &mut command)?.wait_with_output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "helm {}: {}\n{}",
            words.join(" "),
            output.status,
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }

    /// Installs a chart as [`RELEASE`] in [`NAMESPACE`], or upgrades the release to it, and waits until everything is
    /// ready. Returns what Helm tells the operator.
    ///
    /// # Errors
    /// It fails; the error carries what it said.
    pub fn install(&self, lab: &Lab, chart: &Path, settings: &[&str]) -> Result<String> {
        let chart = chart.to_str().context("a path that is no text")?;
        let timeout = format!("{}s", PATIENCE.as_secs());
        let mut words = vec![
            "upgrade",
            "--install",
            RELEASE,
            chart,
            "-n",
            NAMESPACE,
            "--create-namespace",
            "--wait",
            "--timeout",
            &timeout,
        ];
        words.extend(settings);
        self.operate(lab, &words)
    }
}

/// Where Helm keeps what it keeps: nowhere near the user's.
fn settings(home: &Path) -> [(&'static str, PathBuf); 3] {
    [
        ("HELM_CACHE_HOME", home.join("cache")),
        ("HELM_CONFIG_HOME", home.join("config")),
        ("HELM_DATA_HOME", home.join("data")),
    ]
}
