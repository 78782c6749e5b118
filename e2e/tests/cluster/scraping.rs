//! A real Prometheus scrapes both daemons by the jobs we ship, evaluates the alerts we ship, answers everything the
//! dashboard asks, and finds exactly the series docs/metrics.md tells of.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    artifact::prometheus::Prometheus,
    deploy::{self, NAMESPACE, PATIENCE, manifests, metrics, project},
    observe::{
        exposition::Exposition,
        queries::{is_of_gateway, panels},
    },
};
use serde_json::{Value, json};

use crate::world::World;

/// Where Prometheus runs: a host that reaches nodes and pods.
const HOST: &str = "n1";
const PORT: u16 = 9090;
/// Who it is to the API server, as rights.yaml says.
const ACCOUNT: &str = "system:serviceaccount:monitoring:prometheus";
/// How the shipped jobs find pods. Debian's Prometheus was built without it: what it would find is given to it as a file.
const DISCOVERY: &str =
    "  kubernetes_sd_configs:\n  - role: pod\n    namespaces: {names: [metallb-system]}\n";
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// What is refused: no address is like this.
const NONSENSE: &str =
    "address-pools:\n- {name: default, protocol: layer2, addresses: [192.168.99.300/28]}\n";

/// Plain HTTP on 7472, as our manifests and the ConfigMap's era have it; an alert about a refused configuration.
pub fn plain_http_and_an_alert(world: &World) -> Result<()> {
    with_rights(world, &["standalone/rights.yaml"], || {
        let server = Server::start(world)?;
        server.scrapes("http://", "7472")?;
        server.answers()?;
        server.alerts()
    })
}

/// HTTPS on 9120 with a token, as MetalLB's newest manifests have it.
pub fn https_with_a_token(world: &World) -> Result<()> {
    with_rights(
        world,
        &["standalone/rights.yaml", "https/rights.yaml"],
        || {
            let server = Server::start(world)?;
            server.scrapes("https://", "9120")?;
            server.answers()
        },
    )
}

/// Applies files of config/deploy/prometheus for as long as the test runs, and makes the account they speak of.
fn with_rights(world: &World, files: &[&str], test: impl FnOnce() -> Result<()>) -> Result<()> {
    let account = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "prometheus", "namespace": "monitoring"}},
    ]});
    world.apply(&account.to_string())?;
    let paths = files
        .iter()
        .map(|file| manifests("prometheus").join(file).display().to_string());
    let paths: Vec<_> = paths.collect();
    let on_all = |verb| {
        paths
            .iter()
            .try_for_each(|path| world.kubectl(&[verb, "-f", path]).map(drop))
    };
    let result = on_all("apply").and_then(|()| test());
    on_all("delete")?;
    world.kubectl(&["delete", "namespace", "monitoring", "--wait=false"])?;
    result
}

/// A running Prometheus; it ends with the test.
struct Server<'a> {
    world: &'a World,
    process: Child,
    token: String,
    address: String,
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl<'a> Server<'a> {
    /// Starts it with what we ship, but for durations: everything is looked at every second.
    fn start(world: &'a World) -> Result<Self> {
        let prometheus = Prometheus::fetch(world.steps())?;
        let room = world.directory().join("prometheus");
        if room.exists() {
            fs::remove_dir_all(&room)?;
        }
        fs::create_dir_all(&room)?;
        let token = world.kubectl(&["-n", "monitoring", "create", "token", "prometheus"])?;
        let token = token.trim().to_owned();
        fs::write(room.join("token"), &token)?;
        fs::write(room.join("targets.json"), discovered(world)?.to_string())?;
        fs::write(
            room.join("alerts.yaml"),
            quickened(&shipped("standalone/alerts.yaml")?)?,
        )?;
        let configuration = room.join("prometheus.yaml");
        fs::write(&configuration, configured(&room)?)?;
        let address = format!("{}:{PORT}", world.address(HOST)?);
        let log = fs::File::create(room.join("log"))?;
        let mut command = prometheus.server(&configuration, &room.join("data"), &address);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let process = world.spawn(HOST, &mut command)?;
        let server = Self {
            world,
            process,
            token,
            address,
        };
        world.wait("Prometheus to be ready", PATIENCE, || {
            server
                .get("/-/ready", &[])
                .with_context(|| fs::read_to_string(room.join("log")).unwrap_or_default())
                .map(|_| true)
        })?;
        Ok(server)
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
        self.world.read(HOST, &words)
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
    fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let query = format!("query={expression}");
        self.ask("/api/v1/query", &[query], "/data/result")
    }

    /// It scrapes the controller and every speaker, in this way; what they serve is what the documentation says.
    fn scrapes(&self, scheme: &str, port: &str) -> Result<()> {
        let world = self.world;
        // Something to be seen of every series.
        world.echo("scraped", HOST)?;
        let address = world.balanced("scraped", json!({}))?;
        let owner = world.owner(address)?;
        world.fetch(address)?;
        let targets = world.wait_for("every scrape to work", PATIENCE, || {
            let targets = self.ask("/api/v1/targets", &[], "/data/activeTargets")?;
            let text = |target: &Value, pointer: &str| {
                let text = target.pointer(pointer).and_then(Value::as_str);
                text.unwrap_or_default().to_owned()
            };
            let found: Vec<_> = targets
                .iter()
                .map(|target| {
                    let daemon = text(target, "/labels/container");
                    (daemon, text(target, "/scrapeUrl"), text(target, "/health"))
                })
                .collect();
            let of = |daemon: &str| found.iter().filter(|(is, ..)| is == daemon).count();
            ensure!(
                of("controller") == 1
                    && of("speaker") == world.nodes().len()
                    && found.len() == 1 + of("speaker")
                    && found.iter().all(|(_, _, health)| health == "up"),
                "{targets:#?}"
            );
            Ok(Some(found))
        })?;
        let mut served = [Exposition::default(), Exposition::default()];
        for (daemon, url, _) in targets {
            ensure!(
                url.starts_with(scheme) && url.contains(&format!(":{port}/")),
                "{daemon} is scraped at {url}"
            );
            let page = self.page(&url)?;
            let [controller, speakers] = &mut served;
            let of = if daemon == "controller" {
                controller
            } else {
                speakers
            };
            of.add(&page);
        }
        let rows = fs::read_to_string(project().join("docs/metrics.md"))?;
        let rows = metrics::documented(&rows)?;
        let differences: Vec<_> = ["controller", "speaker"]
            .into_iter()
            .zip(&served)
            .flat_map(|(daemon, served)| metrics::differences(&rows, daemon, served))
            .collect();
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        // And it is in Prometheus as it is on the wire.
        let seen = format!(
            "metallb_speaker_announced{{ip=\"{address}\",node=\"{owner}\",service=\"default/scraped\",job=~\"metallb.*\"}} == 1"
        );
        world.wait(&format!("{seen} in Prometheus"), PATIENCE, || {
            Ok(self.query(&seen)?.len() == 1)
        })
    }

    /// A daemon's page, read as Prometheus reads it.
    fn page(&self, url: &str) -> Result<String> {
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
        self.world.read(HOST, &words)
    }

    /// Everything the dashboard asks about us is answered with at least one series.
    fn answers(&self) -> Result<()> {
        // A reason to be silent that is not the normal one: an address nobody can have.
        let foreign = json!({"loadBalancerIP": "203.0.113.1"});
        self.world.balancer("waits", foreign)?;
        let dashboard = fs::read_to_string(manifests("grafana/ferrolb.json"))?;
        for panel in panels(&dashboard)? {
            for expression in &panel.expressions {
                if is_of_gateway(expression) {
                    continue;
                }
                let expression = expression
                    .replace("$job", "metallb.*")
                    .replace("$__rate_interval", "1m")
                    .replace("$__range", "1m");
                let what = format!("an answer for the panel {:?}: {expression}", panel.title);
                self.world
                    .wait(&what, PATIENCE, || Ok(!self.query(&expression)?.is_empty()))?;
            }
        }
        Ok(())
    }

    /// A refused configuration raises its alerts, its repair ends them.
    fn alerts(&self) -> Result<()> {
        let world = self.world;
        let wanted = ["MetalLBStaleConfig", "FerroLBConfigProblems"];
        let controller = deploy::controller_pod(world)?;
        let firing = || -> Result<Vec<String>> {
            let alerts = self.ask("/api/v1/alerts", &[], "/data/alerts")?;
            let fires = |alert: &&Value| {
                alert.get("state") == Some(&json!("firing"))
                    && alert.pointer("/labels/pod") == Some(&json!(controller))
            };
            let names = alerts.iter().filter(fires);
            let names = names.filter_map(|alert| alert.pointer("/labels/alertname")?.as_str());
            Ok(names.map(str::to_owned).collect())
        };
        let count = || -> Result<usize> {
            let firing = firing()?;
            Ok(wanted
                .iter()
                .filter(|name| firing.iter().any(|is| is == *name))
                .count())
        };
        ensure!(count()? == 0, "before there is a reason: {:?}", firing()?);
        deploy::configure(world, NONSENSE)?;
        world.wait("the alerts about a refused configuration", PATIENCE, || {
            ensure!(count()? == wanted.len(), "firing: {:?}", firing()?);
            Ok(true)
        })?;
        world.configure(&[("custom-ip-space", &[crate::world::CLASSIC])])?;
        world.wait("the alerts to end with their reason", PATIENCE, || {
            Ok(count()? == 0)
        })
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

/// The whole configuration: the shipped jobs with the pods from a file in place of discovery.
fn configured(room: &std::path::Path) -> Result<String> {
    let jobs = shipped("standalone/scrape.yaml")?;
    ensure!(
        jobs.matches(DISCOVERY).count() == 2,
        "discovery is written in another way"
    );
    ensure!(jobs.contains(TOKEN), "the token is elsewhere");
    let file = |name: &str| -> PathBuf { room.join(name) };
    let targets = format!(
        "  file_sd_configs:\n  - files: [{}]\n",
        file("targets.json").display()
    );
    let jobs = jobs
        .replace(DISCOVERY, &targets)
        .replace(TOKEN, &file("token").display().to_string());
    Ok(format!(
        "global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 1s}}\nrule_files: [{}]\n{jobs}",
        file("alerts.yaml").display()
    ))
}

/// What discovery finds with the account's rights: one target for each port of each container, under the labels
/// Prometheus documents for `role: pod`.
fn discovered(world: &World) -> Result<Value> {
    let pods = world.kubectl(&[
        "--as", ACCOUNT, "-n", NAMESPACE, "get", "pods", "-o", "json",
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
    // MetalLB's manifest has the ports of webhooks and gossip too, which the jobs must leave alone.
    ensure!(targets.len() > world.nodes().len(), "found {targets:?}");
    Ok(Value::Array(targets))
}
