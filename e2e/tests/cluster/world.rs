//! The cluster all tests of this binary run on, one after the other.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    Lab,
    artifact::metallb::Release,
    deploy::{self, NAMESPACE, PATIENCE, Setup, setup},
    observe::{answerers, http, service, sole_answerer},
    steps::Steps,
};
use serde_json::{Value, json};

/// The host every question comes from.
pub const CLIENT: &str = "client1";
/// The node whose own address lies in the classic pool, as minikube's does.
pub const INSIDER: &str = "n3";
/// That address.
pub const INSIDER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 100);
/// The classic pool: its first address is .96.
pub const CLASSIC: &str = "192.168.99.100/28";

/// A lab, and what is installed on it.
pub struct World {
    lab: Lab,
    installed: Mutex<Option<Setup>>,
    /// Whose images are on the nodes besides FerroLB's.
    loaded: Mutex<Vec<Release>>,
    ours_loaded: OnceLock<()>,
}

impl std::ops::Deref for World {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

/// The lab's name: `LAB`, or e2e. Runs with names of their own do not meet.
pub fn lab_name() -> String {
    std::env::var("LAB").unwrap_or_else(|_| "e2e".to_owned())
}

impl World {
    /// Raises three nodes and a client. The releases of MetalLB that `setups` need are built meanwhile.
    pub fn raise(setups: &BTreeSet<Setup>) -> Result<Self> {
        let releases: Vec<_> = setups.iter().filter_map(|setup| setup.release()).collect();
        std::thread::spawn(move || {
            for release in releases {
                // A failure shows where the result is used: there it is tried again.
                let _ = release.build(&Steps::start());
            }
        });
        let lab = Lab::builder(&lab_name())
            .nodes(3)
            .node_address(INSIDER, INSIDER_ADDRESS)
            .clients(1)
            .up()?;
        Ok(Self {
            lab,
            installed: Mutex::default(),
            loaded: Mutex::default(),
            ours_loaded: OnceLock::new(),
        })
    }

    /// What is installed.
    pub fn setup(&self) -> Result<Setup> {
        let installed = self
            .installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        installed.context("nothing is installed")
    }

    /// Installs `setup` in place of what is there, if it is not there already.
    pub fn install(&self, setup: Setup) -> Result<()> {
        let mut installed = self
            .installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *installed == Some(setup) {
            return Ok(());
        }
        eprintln!("--- installing {setup:?}");
        *installed = None;
        self.remove_objects()?;
        setup::remove(self)?;
        if setup.is_ferrolb() {
            self.load_ferrolb()?;
        }
        if let Some(release) = setup.release() {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            if !loaded.contains(&release) {
                self.deploy_metallb(release)?;
                loaded.push(release);
            }
        }
        setup.install(self)?;
        *installed = Some(setup);
        Ok(())
    }

    /// Puts FerroLB's images on the nodes, once.
    pub fn load_ferrolb(&self) -> Result<()> {
        if self.ours_loaded.get().is_none() {
            self.deploy()?;
            self.ours_loaded.get_or_init(|| ());
        }
        Ok(())
    }

    /// Takes the lab down, or leaves it up for a look around where `KEEP=1` says so.
    pub fn end(self) -> Result<()> {
        if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
            eprintln!("the lab stays up: target/debug/lab --help");
            return Ok(());
        }
        let name = self.lab.name();
        self.lab.down()?;
        let left = Lab::leftovers(&name);
        ensure!(left.is_empty(), "left behind: {left:#?}");
        Ok(())
    }

    /// Removes what an earlier test made and puts the classic pool in force.
    pub fn clean(&self) -> Result<()> {
        self.remove_objects()?;
        if self.setup()?.has_resources() {
            // Pools of the same names shall be other pools.
            self.clear_configuration()?;
        }
        self.configure(&[("custom-ip-space", &[CLASSIC])])
    }

    /// Removes what an earlier test made outside of the daemons' namespace.
    fn remove_objects(&self) -> Result<()> {
        self.kubectl(&[
            "delete",
            "services,pods",
            "-n",
            "default",
            "-l",
            "e2e=yes",
            "--wait",
            "--grace-period=1",
        ])?;
        // An event of an earlier test would pass for one of this test.
        for namespace in ["default", NAMESPACE] {
            self.kubectl(&["delete", "events", "--all", "-n", namespace])?;
        }
        Ok(())
    }

    /// Puts pools in force: waits until the controller shows exactly these and nothing is stale.
    pub fn configure(&self, pools: &[(&str, &[&str])]) -> Result<()> {
        if self.setup()?.has_resources() {
            return self.configure_resources(pools);
        }
        deploy::configure(self, &deploy::pools(pools))?;
        let wanted: BTreeSet<_> = pools.iter().map(|(name, _)| (*name).to_owned()).collect();
        self.wait("the configuration to be taken up", PATIENCE, || {
            let text = self.controller_metrics()?;
            let shown: BTreeSet<_> = text
                .lines()
                .filter_map(|line| line.strip_prefix("metallb_allocator_addresses_total{pool=\""))
                .filter_map(|line| Some(line.split_once('"')?.0.to_owned()))
                .collect();
            let stale = http::series(&text, "metallb_k8s_client_config_stale_bool");
            ensure!(
                shown == wanted && stale == Some(0.0),
                "pools {shown:?}, stale {stale:?}"
            );
            Ok(true)
        })
    }

    /// Creates a Service of `type: LoadBalancer` named `name`; `spec` is merged into its spec.
    pub fn balancer(&self, name: &str, spec: Value) -> Result<()> {
        let object = service::balancer(name, &json!({"e2e": "yes"}), &spec);
        self.apply(&object.to_string()).map(drop)
    }

    /// Creates such a Service and waits for its address.
    pub fn balanced(&self, name: &str, spec: Value) -> Result<Ipv4Addr> {
        self.balancer(name, spec)?;
        Ok(service::address(self, name)?.parse()?)
    }

    /// Runs an echo server for the Service `name` on `node` and waits until it is ready.
    pub fn echo(&self, name: &str, node: &str) -> Result<()> {
        let pod = format!("{name}-{node}");
        self.apply(
            &json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": pod, "namespace": "default", "labels": {"app": name, "e2e": "yes"}},
                "spec": {
                    "nodeName": node,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "echo", "image": "lab/echo:1", "imagePullPolicy": "Never",
                        "env": [{"name": "NODE_NAME", "value": node}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                    }],
                },
            })
            .to_string(),
        )?;
        let pod = format!("pod/{pod}");
        self.kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=120s"])
            .map(drop)
    }

    /// Waits until exactly one host answers for `address` and returns its name.
    pub fn owner(&self, address: impl Into<IpAddr>) -> Result<String> {
        sole_answerer(self, CLIENT, address, &[])
    }

    /// Waits until nobody answers for `address`.
    pub fn silence(&self, address: impl Into<IpAddr>) -> Result<()> {
        let address = address.into();
        self.wait(&format!("silence for {address}"), PATIENCE, || {
            let heard = answerers(self, CLIENT, address)?;
            ensure!(heard.is_empty(), "answered by {heard:?}");
            Ok(true)
        })
    }

    /// `GET /` through `address` from the client until it works; returns the body.
    pub fn fetch(&self, address: impl Into<IpAddr>) -> Result<String> {
        let address = address.into();
        self.wait_for(&format!("HTTP through {address}"), PATIENCE, || {
            let answer = http::get(self, CLIENT, address, 80, "/", Duration::from_secs(2))?;
            ensure!(answer.status == 200, "status {}", answer.status);
            Ok(Some(answer.body))
        })
    }

    /// The controller's metrics.
    pub fn controller_metrics(&self) -> Result<String> {
        let pod = deploy::controller_pod(self)?;
        let path = "jsonpath={.status.podIP}";
        let ip = self.kubectl(&["-n", NAMESPACE, "get", "pod", &pod, "-o", path])?;
        let answer = http::get(
            self,
            "n1",
            ip.trim().parse()?,
            7472,
            "/metrics",
            Duration::from_secs(5),
        )?;
        Ok(answer.body)
    }

    /// The metrics of the speaker on `node`.
    pub fn speaker_metrics(&self, node: &str) -> Result<String> {
        let address = self.address(node)?;
        let answer = http::get(
            self,
            CLIENT,
            address.into(),
            7472,
            "/metrics",
            Duration::from_secs(5),
        )?;
        Ok(answer.body)
    }

    /// Kills a daemon's process outright and waits until the kubelet has another one running and ready.
    pub fn kill_container(&self, pod: &str, container: &str) -> Result<()> {
        let before = self.container_pid(NAMESPACE, pod, container)?;
        self.kill(before, ferrolb_e2e::lab::Signal::SIGKILL)?;
        self.wait(&format!("{pod} to run again"), PATIENCE, || {
            let now = self.container_pid(NAMESPACE, pod, container)?;
            Ok(now != before)
        })?;
        let pod = format!("pod/{pod}");
        self.kubectl(&[
            "-n",
            NAMESPACE,
            "wait",
            "--for=condition=Ready",
            &pod,
            "--timeout=180s",
        ])
        .map(drop)
        .context("not ready again")
    }
}
