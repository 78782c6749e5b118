//! A real Prometheus on a host of the lab, with the jobs we ship.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::queries::Panel;
use crate::{
    Lab,
    artifact::prometheus::Prometheus,
    deploy::{PATIENCE, manifests},
};

/// Where it runs: a host that reaches nodes and pods.
pub const HOST: &str = "n1";
const PORT: u16 = 9090;
/// Its namespace, as the shipped rights have it.
const NAMESPACE: &str = "monitoring";
/// Who it is to the API server, as the shipped rights say.
const ACCOUNT: &str = "system:serviceaccount:monitoring:prometheus";
/// How the shipped jobs begin to find pods. Debian's Prometheus was built without it: what it would find is given to it as
/// a file.
const DISCOVERY: &str = "  kubernetes_sd_configs:\n  - role: pod\n    namespaces: {names: [";
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Applies files of `config/deploy/prometheus` for as long as `work` runs, and makes the account they speak of.
///
/// # Errors
/// `kubectl` refuses one of them, or `work` fails.
pub fn with_rights(lab: &Lab, files: &[&str], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let account = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "prometheus", "namespace": NAMESPACE}},
    ]});
    lab.apply(&account.to_string())?;
    let paths = files
        .iter()
        .map(|file| manifests("prometheus").join(file).display().to_string());
    let paths: Vec<_> = paths.collect();
    let on_all = |verb| {
        paths
            .iter()
            .try_for_each(|path| lab.kubectl(&[verb, "-f", path]).map(drop))
    };
    let result = on_all("apply").and_then(|()| work());
    on_all("delete")?;
    lab.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])?;
    result
}

/// A running Prometheus; it ends with this value.
#[derive(Debug)]
pub struct Scraper<'a> {
    lab: &'a Lab,
    process: Child,
    token: String,
    address: String,
}

impl Drop for Scraper<'_> {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl<'a> Scraper<'a> {
    /// Starts it with the jobs in these files of `config/deploy/prometheus` and the alerts there, as they are but for
    /// durations: everything is looked at every second or two. [`with_rights`] must hold.
    ///
    /// # Errors
    /// The files are not as they are known, or it does not get ready.
    pub fn start(lab: &'a Lab, jobs: &[&str]) -> Result<Self> {
        let prometheus = Prometheus::fetch(lab.steps())?;
        let room = lab.directory().join("prometheus");
        if room.exists() {
            fs::remove_dir_all(&room)?;
        }
        fs::create_dir_all(&room)?;
        let token = lab.kubectl(&["-n", NAMESPACE, "create", "token", "prometheus"])?;
        let token = token.trim().to_owned();
        fs::write(room.join("token"), &token)?;
        let alerts = quickened(&shipped("standalone/alerts.yaml")?)?;
        fs::write(room.join("alerts.yaml"), alerts)?;
        let mut all = Vec::new();
        for file in jobs {
            all.extend(jobs_of(lab, &room, &shipped(file)?)?);
        }
        let settings = json!({
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
            "rule_files": [room.join("alerts.yaml")],
            "scrape_configs": all,
        });
        // JSON is YAML.
        let configuration = room.join("prometheus.yaml");
        fs::write(&configuration, settings.to_string())?;
        let address = format!("{}:{PORT}", lab.address(HOST)?);
        let log = fs::File::create(room.join("log"))?;
        let mut command = prometheus.server(&configuration, &room.join("data"), &address);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let process = lab.spawn(HOST, &mut command)?;
        let scraper = Self {
            lab,
            process,
            token,
            address,
        };
        lab.wait("Prometheus to be ready", PATIENCE, || {
            scraper
                .get("/-/ready", &[])
                .with_context(|| fs::read_to_string(room.join("log")).unwrap_or_default())
                .map(|_| true)
        })?;
        Ok(scraper)
    }

    /// A page of its own, with these queries.
    fn get(&self, path: &str, queries: &[String]) -> Result<String> {
        let url = format!("http://{}{path}", self.address);
        let mut words = vec!["curl", "--silent", "--show-error", "--fail-with-body"];
        words.extend(["--max-time", "5", "--get"]);
        for query in queries {
            words.extend(["--data-urlencode", query]);
        }
        words.push(&url);
        self.lab.read(HOST, &words)
    }

    /// A part of what one of its interfaces answers.
    fn ask(&self, path: &str, queries: &[String], pointer: &str) -> Result<Vec<Value>> {
        let answer = self.get(path, queries)?;
        let answer: Value = serde_json::from_str(&answer)?;
        let part = answer.pointer(pointer).and_then(Value::as_array);
        part.cloned()
            .with_context(|| format!("{path} has no {pointer}: {answer}"))
    }

    /// What a question is answered with, one entry for each series.
    ///
    /// # Errors
    /// It is no question, or not answered.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let query = format!("query={expression}");
        self.ask("/api/v1/query", &[query], "/data/result")
    }

    /// What it scrapes.
    ///
    /// # Errors
    /// It does not say.
    pub fn targets(&self) -> Result<Vec<Value>> {
        self.ask("/api/v1/targets", &[], "/data/activeTargets")
    }

    /// The alerts that are pending or firing.
    ///
    /// # Errors
    /// It does not say.
    pub fn alerts(&self) -> Result<Vec<Value>> {
        self.ask("/api/v1/alerts", &[], "/data/alerts")
    }

    /// Waits until everything a panel asks is answered with at least one series.
    ///
    /// # Errors
    /// That is not so within [`PATIENCE`].
    pub fn answers(&self, panel: &Panel) -> Result<()> {
        for expression in &panel.expressions {
            let expression = expression
                .replace("$job", "metallb.*")
                .replace("$__rate_interval", "1m")
                .replace("$__range", "1m");
            let what = format!("an answer for the panel {:?}: {expression}", panel.title);
            self.lab
                .wait(&what, PATIENCE, || Ok(!self.query(&expression)?.is_empty()))?;
        }
        Ok(())
    }

    /// The page at `url`, read as Prometheus reads it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn page(&self, url: &str) -> Result<String> {
        let token = format!("Authorization: Bearer {}", self.token);
        let mut words = vec![
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "5",
        ];
        if url.starts_with("https") {
            words.extend(["--insecure", "--header", &token]);
        }
        words.push(url);
        self.lab.read(HOST, &words)
    }
}

fn shipped(name: &str) -> Result<String> {
    let path = manifests("prometheus").join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The alerts with a second in place of each minute of patience: that it is a minute is tested by promtool.
fn quickened(alerts: &str) -> Result<String> {
    let quick = alerts.replace("for: 1m\n", "for: 1s\n");
    ensure!(quick != alerts, "no alert waits for a minute");
    Ok(quick)
}

/// The jobs of a shipped file, with the pods from a file in place of discovery and the token from another.
fn jobs_of(lab: &Lab, room: &Path, file: &str) -> Result<Vec<Value>> {
    let mut text = file.replace(TOKEN, &room.join("token").display().to_string());
    let mut found = 0;
    while let Some((before, after)) = text.split_once(DISCOVERY) {
        let (namespace, after) = after
            .split_once("]}\n")
            .context("discovery is written in another way")?;
        let targets: PathBuf = room.join(format!("{namespace}.json"));
        fs::write(&targets, discovered(lab, namespace)?.to_string())?;
        text = format!(
            "{before}  file_sd_configs:\n  - files: [{}]\n{after}",
            targets.display()
        );
        found += 1;
    }
    ensure!(found > 0, "discovery is written in another way");
    let whole: Value = serde_saphyr::from_str(&text).context("no YAML")?;
    let jobs = whole.get("scrape_configs").and_then(Value::as_array);
    jobs.cloned().context("no scrape_configs")
}

/// What discovery finds with the account's rights: one target for each port of each container, under the labels
/// Prometheus documents for `role: pod`.
fn discovered(lab: &Lab, namespace: &str) -> Result<Value> {
    let pods = lab.kubectl(&[
        "--as", ACCOUNT, "-n", namespace, "get", "pods", "-o", "json",
    ])?;
    let pods: Value = serde_json::from_str(&pods)?;
    let list = |value: &Value, pointer: &str| -> Vec<Value> {
        let list = value.pointer(pointer).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let text = |value: &Value, pointer: &str| -> String {
        let text = value.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let mut targets = Vec::new();
    for pod in list(&pods, "/items") {
        for container in list(&pod, "/spec/containers") {
            for port in list(&container, "/ports") {
                let number = port.get("containerPort").and_then(Value::as_u64);
                let number = number.context("a port without a number")?;
                targets.push(json!({
                    "targets": [format!("{}:{number}", text(&pod, "/status/podIP"))],
                    "labels": {
                        "__meta_kubernetes_namespace": text(&pod, "/metadata/namespace"),
                        "__meta_kubernetes_pod_name": text(&pod, "/metadata/name"),
                        "__meta_kubernetes_pod_phase": text(&pod, "/status/phase"),
                        "__meta_kubernetes_pod_container_name": text(&container, "/name"),
                        "__meta_kubernetes_pod_container_port_name": text(&port, "/name"),
                    },
                }));
            }
        }
    }
    Ok(Value::Array(targets))
}
