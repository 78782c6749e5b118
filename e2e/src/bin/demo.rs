//! The main job, shown to a person: a pool, a Service with an address from it, a client on the same
//! LAN that reaches it, and what happens when the node that answers is unplugged.

use std::{
    net::Ipv4Addr,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use ferrolb_e2e::{
    Lab,
    deploy::{self, NAMESPACE, PATIENCE},
    observe::{arp, http, service, sole_answerer},
    steps::Steps,
};

const LAB: &str = "demo";
const CLIENT: &str = "client1";
/// What the pool of `examples/config.yaml`, 192.168.99.100/28, gives first.
const EXPECTED: &str = "192.168.99.96";

fn main() -> ExitCode {
    let steps = Steps::start();
    let keep = std::env::var("KEEP").is_ok_and(|keep| keep == "1");
    let outcome = raise(&steps).and_then(|lab| {
        let story = tell(&lab, &steps);
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
            if keep {
                look_around();
            }
            ExitCode::FAILURE
        }
    }
}

fn raise(steps: &Steps) -> Result<Lab> {
    steps.say("raising a cluster of three nodes and a client, each a network namespace");
    Lab::builder(LAB).nodes(3).clients(1).up()
}

/// Goes through the whole story; returns the rows of the summary.
fn tell(lab: &Lab, steps: &Steps) -> Result<Vec<(&'static str, String)>> {
    let mut rows = Vec::new();

    steps.say("deploying FerroLB from config/deploy");
    lab.deploy()?;
    deploy::apply_kustomization(lab, "")?;
    deploy::wait_ready(lab)?;
    steps.say(
        lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "wide"])?
            .trim_end(),
    );

    steps.say("applying the pool 192.168.99.100/28 and an application with two replicas");
    let applied = Instant::now();
    let pool = deploy::manifests("examples/config.yaml");
    let application = deploy::project().join("e2e/manifests/echo.yaml");
    for file in [pool, application] {
        lab.apply(&std::fs::read_to_string(file)?)?;
    }
    let address = service::address(lab, "echo")?;
    rows.push((
        "address of the Service",
        format!(
            "{address} ({} ms after kubectl apply)",
            applied.elapsed().as_millis()
        ),
    ));
    steps.say(lab.kubectl(&["get", "service", "echo"])?.trim_end());
    ensure!(
        address == EXPECTED,
        "expected {EXPECTED}, the first address of the pool's block"
    );
    let address: Ipv4Addr = address.parse()?;

    let owner = sole_answerer(lab, CLIENT, address, &[])?;
    rows.push(("answered by", format!("{owner} ({})", lab.mac(&owner)?)));
    steps.say(&format!(
        "{owner} answers ARP for {address}; moving the application's pods away from it"
    ));
    move_pods_off(lab, &owner)?;
    curl(lab, steps, address)?;
    let neighbour = lab.neighbour(CLIENT, &address.to_string())?;
    ensure!(
        neighbour == Some(lab.mac(&owner)?),
        "the client's kernel holds {neighbour:?}"
    );

    steps.say(&format!("unplugging {owner}, while the client goes on asking (the speakers notice by gossip, in about 6 s)"));
    let answers = arp::Watch::start(lab, CLIENT, address)?;
    let requests = http::Stream::start(lab, CLIENT, address.into(), 80)?;
    thread::sleep(Duration::from_secs(2));
    lab.unplug(&owner)?;
    let heir = sole_answerer(lab, CLIENT, address, &[&owner])?;
    curl(lab, steps, address)?;
    thread::sleep(Duration::from_secs(2));
    let answers = answers.stop(lab)?;
    let requests = requests.stop()?;
    rows.push((
        "node unplugged",
        format!("{owner}, then answered by {heir}"),
    ));
    rows.push((
        "cut off, ARP answers",
        format!("{:.1} s", arp::longest_gap(&answers)),
    ));
    rows.push((
        "cut off, new HTTP connections",
        format!(
            "{:.1} s ({} served, {} lost)",
            requests.longest_gap.as_secs_f64(),
            requests.served,
            requests.lost
        ),
    ));

    steps.say(&format!("plugging {owner} in again"));
    lab.plug(&owner)?;
    lab.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "nodes",
        "--all",
        "--timeout=180s",
    ])?;
    deploy::wait_ready(lab)?;
    let after = sole_answerer(lab, CLIENT, address, &[])?;
    curl(lab, steps, address)?;
    rows.push(("after it came back", format!("answered by {after} alone")));
    for (row, pod) in [
        ("memory of the controller", deploy::controller_pod(lab)?),
        ("memory of a speaker", deploy::speaker_pod(lab, &after)?),
    ] {
        let container = pod.split('-').next().unwrap_or_default().to_owned();
        rows.push((
            row,
            format!("{} kB resident", resident(lab, &pod, &container)?),
        ));
    }
    Ok(rows)
}

/// Reschedules the application's pods of `node`: with them there, one would measure how long kube-proxy
/// sends a share of connections to dead endpoints.
fn move_pods_off(lab: &Lab, node: &str) -> Result<()> {
    // Not by cordoning it, which tells FerroLB that the node is being drained, and the address would go first.
    lab.kubectl(&["taint", "node", node, "vacated=yes:NoSchedule"])?;
    let on_node = format!("spec.nodeName={node}");
    lab.kubectl(&[
        "delete",
        "pods",
        "-l",
        "app=echo",
        "--field-selector",
        &on_node,
    ])?;
    lab.kubectl(&["rollout", "status", "deployment/echo", "--timeout=180s"])?;
    lab.kubectl(&["taint", "node", node, "vacated-"]).map(drop)
}

fn curl(lab: &Lab, steps: &Steps, address: Ipv4Addr) -> Result<()> {
    let url = format!("http://{address}/");
    steps.say(&format!("client1$ curl {url}"));
    let body = lab.wait_for("an answer", PATIENCE, || {
        lab.read(CLIENT, &["curl", "-sS", "--fail", "--max-time", "2", &url])
            .map(Some)
    })?;
    for line in body.lines() {
        eprintln!("             {line}");
    }
    Ok(())
}

fn resident(lab: &Lab, pod: &str, container: &str) -> Result<u64> {
    let pid = lab.container_pid(NAMESPACE, pod, container)?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    match line.and_then(|line| line.split_whitespace().next()) {
        Some(kilobytes) => Ok(kilobytes.parse()?),
        None => bail!("process {pid} has no resident memory"),
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
        look_around();
    } else {
        eprintln!("  make demo KEEP=1 leaves the cluster up for a look around.");
    }
}

fn look_around() {
    eprintln!("  Look around (as root):");
    for line in [
        "lab kubectl --name demo -- get service,pods -A -o wide",
        "lab kubectl --name demo -- describe service echo",
        "lab kubectl --name demo -- -n metallb-system logs daemonset/speaker",
        "lab exec --name demo client1 -- curl http://192.168.99.96/",
        "lab exec --name demo client1 -- arping -c 3 -i eth0 192.168.99.96",
        "lab unplug --name demo n1        and: lab plug --name demo n1",
        "lab down --name demo",
    ] {
        eprintln!("    target/debug/{line}");
    }
}
