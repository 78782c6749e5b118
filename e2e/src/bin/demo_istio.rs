//! Two walkthroughs of Istio, shown to a person with their own commands: httpbin behind the ingress gateway at the first
//! address of 192.168.99.100/28, and hostname-echo behind a Gateway; then the Gateway API asking for one address, and
//! the announcing node unplugged under load.

use std::{
    net::Ipv4Addr,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    Lab,
    deploy::{self, NAMESPACE, PATIENCE},
    istio::{self, INGRESS, Mesh, desk::Desk},
    observe::{arp, http, sole_answerer},
    steps::Steps,
};

const LAB: &str = "istiodemo";
const CLIENT: &str = "client1";
/// What the pool of `examples/config.yaml`, 192.168.99.100/28, gives first.
const EXPECTED: &str = "192.168.99.96";
/// Where the manifests are, from the project's folder.
const MANIFESTS: &str = "e2e/manifests/istio";

fn main() -> ExitCode {
    let steps = Steps::start();
    let keep = std::env::var("KEEP").is_ok_and(|keep| keep == "1");
    steps.say("raising a cluster of three nodes and a client, each a network namespace");
    let outcome = Lab::builder(LAB).nodes(3).clients(1).up().and_then(|lab| {
        let story = Story::begin(&lab, steps).and_then(Story::tell);
        if keep {
            steps.say("KEEP=1: the cluster stays up");
        } else {
            steps.say("taking the cluster down");
            lab.down()?;
        }
        story
    });
    match outcome {
        Ok(rows) => {
            summary(&rows, keep);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nthe demo did not work: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is told, and to whom.
struct Story<'a> {
    lab: &'a Lab,
    steps: Steps,
    mesh: Mesh,
    desk: Desk<'a>,
    rows: Vec<(&'static str, String)>,
}

impl<'a> Story<'a> {
    /// Everything a cluster has before the first walkthrough begins, FerroLB included.
    fn begin(lab: &'a Lab, steps: Steps) -> Result<Self> {
        steps.say("deploying FerroLB from config/deploy, with the pool 192.168.99.100/28");
        lab.deploy()?;
        deploy::apply_kustomization(lab, "")?;
        deploy::wait_ready(lab)?;
        steps.say("building Istio, or finding it built");
        let mesh = Mesh::build(&steps)?;
        mesh.load(lab)?;
        let desk = Desk::new(lab, &mesh)?;
        Ok(Self {
            lab,
            steps,
            mesh,
            desk,
            rows: Vec::new(),
        })
    }

    fn tell(mut self) -> Result<Vec<(&'static str, String)>> {
        self.operator("kubectl apply -f config/deploy/examples/config.yaml")?;
        self.operator(&format!("kubectl -n {NAMESPACE} get pods -o wide"))?;
        self.install()?;
        self.httpbin()?;
        self.hostname_echo()?;
        self.gateway_api()?;
        self.failover()?;
        Ok(self.rows)
    }

    fn install(&mut self) -> Result<()> {
        self.steps.say(
            "installing Istio 1.24 by its own charts: helm install istio-base, istiod, istio-ingressgateway",
        );
        let begun = Instant::now();
        self.mesh.install(self.lab)?;
        self.mesh.gateway(self.lab, INGRESS, &[])?;
        let took = begun.elapsed();
        self.rows.push((
            "Istio installed",
            format!("{:.0} s for three charts", took.as_secs_f64()),
        ));
        self.operator("helm list -n istio-system")?;
        self.operator("kubectl -n istio-system get pods -o wide")
    }

    /// The first walkthrough.
    fn httpbin(&mut self) -> Result<()> {
        self.chapter("Walkthrough 1: httpbin behind istio-ingressgateway");
        self.operator("kubectl get svc istio-ingressgateway -n istio-system")?;
        let get = "kubectl -n istio-system get service istio-ingressgateway -o";
        self.export(
            "INGRESS_HOST",
            &format!("{get} jsonpath='{{.status.loadBalancer.ingress[0].ip}}'"),
        )?;
        self.export(
            "INGRESS_PORT",
            &format!("{get} jsonpath='{{.spec.ports[?(@.name==\"http2\")].port}}'"),
        )?;
        let address = istio::address(self.lab, istio::NAMESPACE, INGRESS)?;
        ensure!(
            address == EXPECTED,
            "the first address of the pool's block is {EXPECTED}, the gateway has {address}"
        );
        self.rows.push(("address of the gateway", address));
        self.operator(&format!("kubectl apply -f {MANIFESTS}/httpbin.yaml"))?;
        self.operator("kubectl rollout status deployment/httpbin --timeout=180s")?;
        self.operator(&format!(
            "kubectl apply -f {MANIFESTS}/httpbin-gateway.yaml"
        ))?;
        let curl = |options: &str, path: &str| {
            format!(
                "curl {options} -HHost:httpbin.example.com \"http://$INGRESS_HOST:$INGRESS_PORT{path}\""
            )
        };
        self.client_until("HTTP/1.1 200", &curl("-s -I", "/status/200"))?;
        self.client_until("HTTP/1.1 418", &curl("-s -i", "/status/418"))?;
        self.steps.say("a path that no route leads to");
        self.client_until("HTTP/1.1 404", &curl("-s -I", "/headers"))?;
        let timed = "-s -o /dev/null -w '%{http_code} after %{time_total} s\\n'";
        self.client_until("200 after 2.", &curl(timed, "/delay/2"))?;
        self.steps
            .say("the same without a host name, as a browser asks");
        self.operator(&format!(
            "kubectl apply -f {MANIFESTS}/httpbin-gateway-any-host.yaml"
        ))?;
        self.client_until(
            "\"headers\"",
            "curl -s \"http://$INGRESS_HOST:$INGRESS_PORT/headers\"",
        )
    }

    /// The second one.
    fn hostname_echo(&mut self) -> Result<()> {
        self.chapter("Walkthrough 2: hostname-echo behind a Gateway");
        self.operator(&format!(
            "kubectl delete -f {MANIFESTS}/httpbin-gateway-any-host.yaml"
        ))?;
        self.operator(&format!("kubectl apply -f {MANIFESTS}/hostname-echo.yaml"))?;
        self.operator("kubectl rollout status deployment/hostname-echo --timeout=180s")?;
        self.operator(&format!(
            "kubectl apply -f {MANIFESTS}/hostname-echo-gateway.yaml"
        ))?;
        self.export(
            "ADDRESS",
            "kubectl -n istio-system get service istio-ingressgateway -o \
             jsonpath='{.status.loadBalancer.ingress[0].ip}'",
        )?;
        self.client_until("hostname-echo-", "curl -s \"http://$ADDRESS/\"")?;
        self.client_until(
            "hostname-echo-",
            "for i in $(seq 30); do curl -s \"http://$ADDRESS/\"; done | sort | uniq -c",
        )?;
        self.operator("istioctl proxy-status")?;
        self.operator("kubectl label --overwrite namespace default istio-injection=disabled")?;
        self.operator("istioctl analyze -n default")
    }

    fn gateway_api(&mut self) -> Result<()> {
        self.chapter("The Kubernetes Gateway API: a Gateway that asks for one address");
        self.operator(&format!("kubectl apply -f {MANIFESTS}/gateway-api.yaml"))?;
        self.operator("kubectl wait --for=condition=Programmed gateways.gateway.networking.k8s.io/web --timeout=180s")?;
        self.operator("kubectl get gateways.gateway.networking.k8s.io web")?;
        self.operator("kubectl get service web-istio -o custom-columns=NAME:.metadata.name,POLICY:.spec.ipFamilyPolicy,CLUSTER-IPS:.spec.clusterIPs,EXTERNAL-IP:.status.loadBalancer.ingress[*].ip")?;
        self.client_until("hostname-echo-", "curl -s http://192.168.99.105/")?;
        self.rows.push((
            "Gateway API",
            "one requested address, under PreferDualStack".to_owned(),
        ));
        Ok(())
    }

    fn failover(&mut self) -> Result<()> {
        let address: Ipv4Addr = EXPECTED.parse()?;
        let lab = self.lab;
        let owner = sole_answerer(lab, CLIENT, address, &[])?;
        self.chapter(&format!(
            "{owner} answers ARP for {address}: it is unplugged while the client goes on asking"
        ));
        self.steps
            .say(&format!("moving gateways and applications off {owner}"));
        istio::vacate(lab, &owner)?;
        self.client_until("hostname-echo-", "curl -s \"http://$ADDRESS/\"")?;
        let still = sole_answerer(lab, CLIENT, address, &[])?;
        ensure!(still == owner, "{still} answers, not {owner} any more");
        let answers = arp::Watch::start(lab, CLIENT, address)?;
        let requests = http::Stream::start(lab, CLIENT, address.into(), 80)?;
        thread::sleep(Duration::from_secs(2));
        self.steps.say(&format!("unplugging {owner}"));
        lab.unplug(&owner)?;
        let heir = sole_answerer(lab, CLIENT, address, &[&owner])?;
        self.client_until(
            "hostname-echo-",
            "curl -s --max-time 2 \"http://$ADDRESS/\"",
        )?;
        thread::sleep(Duration::from_secs(2));
        let answers = answers.stop(lab)?;
        let requests = requests.stop()?;
        lab.plug(&owner)?;
        self.rows.push((
            "node unplugged",
            format!("{owner}, then answered by {heir}"),
        ));
        self.rows.push((
            "cut off, ARP answers",
            format!("{:.1} s", arp::longest_gap(&answers)),
        ));
        self.rows.push((
            "cut off, requests through the gateway",
            format!(
                "{:.1} s ({} served, {} lost)",
                requests.longest_gap.as_secs_f64(),
                requests.served,
                requests.lost
            ),
        ));
        Ok(())
    }

    fn chapter(&self, title: &str) {
        eprintln!();
        self.steps.say(title);
    }

    /// Shows an operator's command and what it prints.
    fn operator(&self, line: &str) -> Result<()> {
        self.steps.say(&format!("operator$ {line}"));
        show(&self.desk.operator(line)?);
        Ok(())
    }

    /// Shows how an operator sets a variable to what a command prints.
    fn export(&mut self, name: &str, command: &str) -> Result<()> {
        self.steps
            .say(&format!("operator$ export {name}=$({command})"));
        let value = self.desk.operator(command)?;
        show(&format!("{name}={value}"));
        self.desk.export(name, &value);
        Ok(())
    }

    /// Shows a client's command and what it prints, once that contains `words`: a route takes a moment to reach the
    /// gateway.
    fn client_until(&self, words: &str, line: &str) -> Result<()> {
        self.steps.say(&format!("{CLIENT}$ {line}"));
        let answer = self.lab.wait_for("the answer", PATIENCE, || {
            let answer = self.desk.client(CLIENT, line)?;
            ensure!(answer.contains(words), "{answer}");
            Ok(Some(answer))
        })?;
        show(&answer);
        Ok(())
    }
}

fn show(text: &str) {
    for line in text.trim_end().lines() {
        eprintln!("             {line}");
    }
}

fn summary(rows: &[(&str, String)], keep: bool) {
    let width = rows
        .iter()
        .map(|(row, _)| row.len())
        .max()
        .unwrap_or_default();
    eprintln!();
    for (row, value) in rows {
        eprintln!("  {row:<width$}  {value}");
    }
    eprintln!();
    if keep {
        eprintln!("  Look around (as root):");
        for line in [
            "lab kubectl --name istiodemo -- get service,pods -A -o wide",
            "lab kubectl --name istiodemo -- get gateways.gateway.networking.k8s.io,virtualservices",
            "lab exec --name istiodemo client1 -- curl http://192.168.99.96/",
            "lab down --name istiodemo",
        ] {
            eprintln!("    target/debug/{line}");
        }
    } else {
        eprintln!("  make demo-istio KEEP=1 leaves the cluster up for a look around.");
    }
}
