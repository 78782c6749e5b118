//! The cluster all tests of this binary run on, one after the other.

use std::{collections::BTreeSet, thread};

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    Lab,
    artifact::istio as built,
    deploy::{self, Setup},
    istio::{
        self, INGRESS, Mesh,
        curl::{self, Response},
    },
    steps::Steps,
};
use serde_json::{Value, json};

/// The host every question comes from.
pub const CLIENT: &str = "client1";
/// The classic pool and its first address.
pub const CLASSIC: &str = "192.168.99.100/28";
pub const FIRST: &str = "192.168.99.96";

/// A lab with FerroLB, Istio, an ingress gateway and two applications.
pub struct World {
    lab: Lab,
    pub mesh: Mesh,
}

impl std::ops::Deref for World {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl World {
    /// Raises three nodes and a client, and installs everything; with `REUSE=1`, takes what `KEEP=1` left.
    pub fn raise() -> Result<Self> {
        let name = std::env::var("LAB").unwrap_or_else(|_| "istio".to_owned());
        let early = thread::spawn(|| {
            // A failure shows where the result is used: there it is tried again.
            let steps = Steps::start();
            built::build(&steps).and_then(|istio| istio.images(&steps))
        });
        let reuse = std::env::var("REUSE").is_ok_and(|reuse| reuse == "1");
        let lab = if reuse {
            Lab::open(&name)?
        } else {
            Lab::builder(&name).nodes(3).clients(1).up()?
        };
        let gateway = ["-n", istio::NAMESPACE, "get", "deployment", INGRESS];
        if reuse && lab.kubectl(&gateway).is_ok() {
            let mesh = Mesh::build(lab.steps())?;
            return Ok(Self { lab, mesh });
        }
        lab.deploy()?;
        Setup::ConfigMap.install(&lab)?;
        deploy::configure(&lab, &deploy::pools(&[("custom-ip-space", &[CLASSIC])]))?;
        let _ = early.join();
        let mesh = Mesh::build(lab.steps())?;
        mesh.load(&lab)?;
        mesh.install(&lab)?;
        lab.steps().say("istiod is ready");
        mesh.gateway(&lab, INGRESS, &[])?;
        for application in ["httpbin", "hostname-echo"] {
            istio::apply(&lab, &format!("{application}.yaml"))?;
            let deployment = format!("deployment/{application}");
            lab.kubectl(&["rollout", "status", &deployment, "--timeout=180s"])?;
        }
        lab.steps().say("the ingress gateway is ready");
        Ok(Self { lab, mesh })
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

    /// Removes what an earlier test made.
    pub fn clean(&self) -> Result<()> {
        // Gateways first: their Services and Deployments go with them.
        let kinds = "gateways.gateway.networking.k8s.io,httproutes.gateway.networking.k8s.io,\
                     gateways.networking.istio.io,virtualservices.networking.istio.io,ingresses.networking.k8s.io";
        self.kubectl(&["delete", kinds, "--all", "-n", "default"])?;
        for namespace in ["default", istio::NAMESPACE] {
            self.kubectl(&[
                "delete",
                "deployments,services,secrets",
                "-n",
                namespace,
                "-l",
                "e2e=yes",
            ])?;
        }
        // An event of an earlier test would pass for one of this test.
        self.kubectl(&["delete", "events", "--all", "-n", "default"])
            .map(drop)
    }

    /// Applies objects in the namespace `default`, unless they name another.
    pub fn submit(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.apply(&list.to_string()).map(drop)
    }

    /// Asks `http://FIRST/path` for `host` from the client until the status is `status`.
    pub fn ask(&self, status: u16, host: &str, path: &str, more: &[&str]) -> Result<Response> {
        let header = format!("Host: {host}");
        let url = format!("http://{FIRST}{path}");
        let words = [&["-H", &header, &url][..], more].concat();
        curl::until(&self.lab, CLIENT, status, &words)
    }

    /// The pods that answer `url` for `host`, among `count` requests.
    pub fn answering(&self, host: &str, url: &str, count: usize) -> Result<BTreeSet<String>> {
        let header = format!("Host: {host}");
        (0..count)
            .map(|_| {
                let response = curl::curl(&self.lab, CLIENT, &["-H", &header, url])?;
                ensure!(response.status == 200, "status {}", response.status);
                Ok(response.body.trim().to_owned())
            })
            .collect()
    }
}
