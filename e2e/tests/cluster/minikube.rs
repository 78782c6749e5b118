//! FerroLB's images in minikube's MetalLB addon: its objects, its rights, its limits, its one node.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    artifact::ferrolb_image,
    deploy::{self, NAMESPACE, PATIENCE, Setup, setup},
    observe::{http, service},
};
use serde_json::{Value, json};

use crate::world::{CLASSIC, INSIDER, INSIDER_ADDRESS, World};

/// `minikube addons enable` before `addons configure`: the template's start and end are empty.
const UNCONFIGURED: &str =
    "address-pools:\n- name: default\n  protocol: layer2\n  addresses:\n  - -\n";
/// What `addons configure` makes of it.
const CONFIGURED: &str = "address-pools:\n- name: default\n  protocol: layer2\n  addresses:\n  - \
                          192.168.99.105-192.168.99.110\n";
/// What it makes of another answer.
const CONFIGURED_AGAIN: &str = "address-pools:\n- name: default\n  protocol: layer2\n  addresses:\n  - \
                                192.168.99.105-192.168.99.120\n";
/// What scripts put in its place, Kiali's among them: the list in one line.
const IN_ONE_LINE: &str = "address-pools:\n- name: default\n  protocol: layer2\n  addresses: \
                           [192.168.99.105-192.168.99.120]\n";
/// kubeadm labels every control plane like this, and minikube's one node is one.
const LABELS: [&str; 2] = [
    "node-role.kubernetes.io/control-plane=",
    "node.kubernetes.io/exclude-from-external-load-balancers=",
];
/// The addon's limits: bytes, and microseconds of each 100 000.
const MEMORY: u64 = 100 * 1024 * 1024;
const PROCESSOR: u64 = 10_000;

pub fn enabled_before_it_is_configured(world: &World) -> Result<()> {
    // As the addon finds it: never configured.
    world.kubectl(&["-n", NAMESPACE, "delete", "configmap", "config"])?;
    restart(world)?;
    deploy::configure(world, UNCONFIGURED)?;
    world.echo("a", "n1")?;
    world.balancer("a", json!({}))?;
    let controller = deploy::controller_pod(world)?;
    world.wait("the controller to say what is wrong", PATIENCE, || {
        Ok(deploy::log(world, &controller, false)?.contains("configProblem"))
    })?;
    ensure!(
        service::stays_without(world, "a")?,
        "an address from a pool without any"
    );
    deploy::configure(world, CONFIGURED)?;
    serves(world, "a", "192.168.99.105")?;
    nothing_restarted(world)
}

pub fn configured_before_it_is_enabled(world: &World) -> Result<()> {
    deploy::configure(world, CONFIGURED)?;
    world.echo("a", "n1")?;
    world.balancer("a", json!({}))?;
    restart(world)?;
    serves(world, "a", "192.168.99.105")?;
    nothing_restarted(world)
}

/// `addons configure` once more applies all of the addon's objects again, whatever is in use.
pub fn configured_again_while_in_use(world: &World) -> Result<()> {
    deploy::configure(world, CONFIGURED)?;
    world.echo("a", "n1")?;
    world.balancer("a", json!({}))?;
    serves(world, "a", "192.168.99.105")?;
    world.balancer("later", json!({"loadBalancerIP": "192.168.99.118"}))?;
    ensure!(
        service::stays_without(world, "later")?,
        "outside of the pool"
    );
    for document in [CONFIGURED_AGAIN, IN_ONE_LINE] {
        deploy::configure(world, document)?;
        Setup::Minikube.install(world)?;
        let address = service::address(world, "later")?;
        ensure!(address == "192.168.99.118", "got {address}");
        serves(world, "a", "192.168.99.105")?;
    }
    nothing_restarted(world)
}

/// The kubelet holds both daemons to the addon's limits, and they keep well below the memory's.
pub fn limits_of_the_addon_are_enforced(world: &World) -> Result<()> {
    // Some work, for the figures to mean something.
    for number in 0..10 {
        world.balancer(&format!("limits-{number}"), json!({}))?;
    }
    for number in 0..10 {
        service::address(world, &format!("limits-{number}"))?;
    }
    for (pod, daemon) in [
        (deploy::controller_pod(world)?, "controller"),
        (deploy::speaker_pod(world, INSIDER)?, "speaker"),
    ] {
        let process = world.container_pid(NAMESPACE, &pod, daemon)?;
        let limits = Limits::of(process)?;
        eprintln!("{daemon}: {limits:?}");
        ensure!(limits.memory == MEMORY, "{daemon}: {limits:?}");
        ensure!(limits.processor == PROCESSOR, "{daemon}: {limits:?}");
        // A period is counted only where the scheduler watches over the quota.
        ensure!(limits.periods > 0, "{daemon}: {limits:?}");
        ensure!(limits.most_used < MEMORY / 2, "{daemon}: {limits:?}");
    }
    nothing_restarted(world)
}

/// The addon gives a speaker no time to say goodbye.
pub fn a_speaker_killed_without_grace_answers_again(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    let owner = world.owner(address)?;
    let pod = deploy::speaker_pod(world, &owner)?;
    world.kubectl(&["-n", NAMESPACE, "delete", "pod", &pod])?;
    world.owner(address)?;
    world.fetch(address)?;
    deploy::wait_ready(world)
}

/// minikube's cluster is one node, a control plane by its labels, whose own address (192.168.99.100) lies in the pool
/// the walkthrough gives (192.168.99.100/28): the first Service gets 192.168.99.96, and a client of the same network
/// reaches it without a tunnel.
pub fn the_first_walkthrough_on_one_node(world: &World) -> Result<()> {
    let others = leave_one_node(world)?;
    let result = walk(world);
    for node in &others {
        world.kubectl_stdin(&["create", "-f", "-"], &node.to_string())?;
    }
    let taken: Vec<_> = LABELS.iter().map(|label| label.replace('=', "-")).collect();
    let mut words = vec!["label", "node", INSIDER];
    words.extend(taken.iter().map(String::as_str));
    world.kubectl(&words)?;
    let ready = [
        "wait",
        "--for=condition=Ready",
        "node",
        "--all",
        "--timeout=120s",
    ];
    world.kubectl(&ready)?;
    deploy::wait_ready(world)?;
    result
}

fn walk(world: &World) -> Result<()> {
    ensure!(
        world
            .kubectl(&["get", "nodes", "-o", "name"])?
            .lines()
            .count()
            == 1
    );
    // The addon on a fresh cluster of one node, then its pool.
    world.kubectl(&["-n", NAMESPACE, "delete", "configmap", "config"])?;
    restart(world)?;
    world.configure(&[("default", &[CLASSIC])])?;
    world.echo("gateway", INSIDER)?;
    world.balancer("gateway", json!({}))?;
    serves(world, "gateway", "192.168.99.96")?;
    let owner = world.owner("192.168.99.96".parse::<std::net::IpAddr>()?)?;
    ensure!(owner == INSIDER, "answered by {owner}");
    // Metrics as the addon's annotations tell Prometheus: plain, on 7472.
    let announced = format!(
        "metallb_speaker_announced{{ip=\"192.168.99.96\",node=\"{INSIDER}\",protocol=\"layer2\",service=\"default/gateway\"}}"
    );
    world.wait("the metric of the announcement", PATIENCE, || {
        Ok(http::series(&world.speaker_metrics(INSIDER)?, &announced) == Some(1.0))
    })?;
    // The node's own address is in the pool and the addon's controller may not see nodes: the speaker may, and leaves
    // it to the node's own kernel.
    let own = INSIDER_ADDRESS.to_string();
    world.balancer("insider", json!({"loadBalancerIP": own}))?;
    service::wait_event(
        world,
        "default",
        "Service",
        "insider",
        "announceFailed",
        INSIDER,
    )?;
    ensure!(world.owner(INSIDER_ADDRESS)? == INSIDER);
    // `minikube stop` and `start`: every pod is a new one. And whoever gives the addon one image for both daemons gets
    // both, though the addon names no program to start.
    setup::swap_images(world, |_| ferrolb_image("ferrolb"))?;
    serves(world, "gateway", "192.168.99.96")?;
    nothing_restarted(world)?;
    setup::swap_images(world, ferrolb_image)
}

/// The Service has this address, one node answers for it, and it serves.
fn serves(world: &World, name: &str, expected: &str) -> Result<()> {
    let address = service::address(world, name)?;
    ensure!(address == expected, "{name} got {address}");
    let address: std::net::Ipv4Addr = address.parse()?;
    world.owner(address)?;
    world.fetch(address).map(drop)
}

/// New pods, as `addons enable` makes them.
fn restart(world: &World) -> Result<()> {
    for workload in ["deployment/controller", "daemonset/speaker"] {
        world.kubectl(&["-n", NAMESPACE, "rollout", "restart", workload])?;
    }
    deploy::wait_ready(world)
}

/// No daemon has fallen: the addon has no probes, so only what ends by itself is restarted.
fn nothing_restarted(world: &World) -> Result<()> {
    let pods = world.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "json"])?;
    let pods: Value = serde_json::from_str(&pods)?;
    let pods = pods.get("items").and_then(Value::as_array);
    for pod in pods.into_iter().flatten() {
        let restarts = pod.pointer("/status/containerStatuses/0/restartCount");
        ensure!(restarts == Some(&json!(0)), "restarted: {pod}");
    }
    Ok(())
}

/// Makes [`INSIDER`] the only node, labelled as kubeadm does, and returns the others as they can be made again: their
/// kubelets go on running and take them up.
fn leave_one_node(world: &World) -> Result<Vec<Value>> {
    let mut others = Vec::new();
    for node in world.nodes() {
        if node == INSIDER {
            continue;
        }
        let object: Value =
            serde_json::from_str(&world.kubectl(&["get", "node", &node, "-o", "json"])?)?;
        others.push(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node, "labels": object.pointer("/metadata/labels")},
            "spec": object.get("spec"),
        }));
        world.kubectl(&["delete", "node", &node])?;
        // They would stay until their node has been missed for a minute.
        let here = format!("spec.nodeName={node}");
        let pods = [
            "delete",
            "pods",
            "--all-namespaces",
            "--force",
            "--grace-period=0",
            "--field-selector",
        ];
        let mut words = pods.to_vec();
        words.push(&here);
        world.kubectl(&words)?;
    }
    let mut words = vec!["label", "node", INSIDER, "--overwrite"];
    words.extend(LABELS);
    world.kubectl(&words)?;
    Ok(others)
}

/// What the kernel holds a container to.
#[derive(Debug)]
struct Limits {
    /// Bytes.
    memory: u64,
    /// Bytes.
    most_used: u64,
    /// Microseconds of each 100 000.
    processor: u64,
    /// How many of these periods the quota was watched over in.
    periods: u64,
}

impl Limits {
    /// Those of the control groups a process is in, v1 or v2.
    fn of(process: u32) -> Result<Self> {
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
        let root = Path::new("/sys/fs/cgroup");
        let group = |controller: &str| {
            groups.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let (controllers, path) = (fields.next()?, fields.next()?);
                let path = path.trim_start_matches('/');
                (controllers.split(',').any(|one| one == controller))
                    .then(|| root.join(controller).join(path))
            })
        };
        let read = |folder: &Path, file: &str| -> Result<String> {
            let path = folder.join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let number = |text: &str| -> Result<u64> {
            text.trim()
                .parse()
                .with_context(|| format!("no number: {text}"))
        };
        let periods = |folder: &Path| -> Result<u64> {
            let text = read(folder, "cpu.stat")?;
            let count = text
                .lines()
                .find_map(|line| line.strip_prefix("nr_periods "));
            number(count.context("cpu.stat counts no periods")?)
        };
        if let (Some(memory), Some(processor)) = (group("memory"), group("cpu")) {
            return Ok(Self {
                memory: number(&read(&memory, "memory.limit_in_bytes")?)?,
                most_used: number(&read(&memory, "memory.max_usage_in_bytes")?)?,
                processor: number(&read(&processor, "cpu.cfs_quota_us")?)?,
                periods: periods(&processor)?,
            });
        }
        let unified = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let folder = root.join(unified.context("no control group")?);
        let quota = read(&folder, "cpu.max")?;
        Ok(Self {
            memory: number(&read(&folder, "memory.max")?)?,
            most_used: number(&read(&folder, "memory.current")?)?,
            processor: number(quota.split_whitespace().next().unwrap_or_default())?,
            periods: periods(&folder)?,
        })
    }
}
