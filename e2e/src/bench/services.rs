//! The control path: how fast many Services get addresses and answers, and what the daemons take for it, with FerroLB and
//! with MetalLB on the same cluster, beside the bare loop of writes that shows what its API server can do.
//! `docs/performance.md` says what is measured and how.

pub mod asked;
pub mod client;
pub mod cost;
pub mod report;

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use self::{
    asked::Asked,
    client::{Cluster, Watch},
    cost::Cost,
};
use super::{
    Stolen, System, load, milliseconds, save,
    stage::{self, ASKER},
};
use crate::{
    Lab,
    deploy::{self, PATIENCE, Setup, resources, setup},
    lab::Signal,
    observe::{
        prober::{Prober, now},
        sweep::Sweep,
        trace::Trace,
    },
};

/// Addresses for 16 128 Services: all but the last 256 of 16 384.
const POOL: &str = "10.200.0.0-10.200.62.255";
/// Where Services made one by one get theirs, which no other is given.
const SINGLE_POOL: &str = "10.200.63.0/24";
/// The first of them.
const SINGLE: Ipv4Addr = Ipv4Addr::new(10, 200, 63, 1);
/// Their numbers begin here.
const SINGLES: usize = 90_000;
/// How often one Service's address is asked for while its first answer is waited for.
const PERIOD: Duration = Duration::from_millis(1);
/// How often an address that is there is asked for while others come.
const MEANWHILE: Duration = Duration::from_millis(5);
/// Questions a second when it is waited until all are answered: few enough not to be the load themselves.
const PACE: u32 = 4000;
/// How long Services may take to get their addresses, and addresses their answers.
const LIMIT: Duration = Duration::from_mins(15);
/// How long one address may take to be answered for.
const ANSWERED: Duration = Duration::from_mins(1);
/// Services of the bare loop.
const LOOP: usize = 2000;
/// Requests under way at once in the bare loop.
const LOOPS: [usize; 3] = [1, 8, 32];
/// Writes a second of [`WRITTEN`] that a cluster at rest makes at most.
const QUIET: f64 = 3.0;
/// What is written for Services.
const WRITTEN: [&str; 6] = [
    "services",
    "events",
    "endpointslices",
    "servicel2statuses",
    "ipaddresspools",
    "configurationstates",
];

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The lab's name.
    pub lab: String,
    /// The cluster's size.
    pub nodes: u8,
    /// How many Services there are to be, ascending; the first is looked at without load.
    pub sizes: Vec<usize>,
    /// Who announces, by turns in the same lab.
    pub systems: Vec<System>,
    /// How many Services are made one by one at each size.
    pub singles: usize,
    /// How long processor time at rest is counted.
    pub window: Duration,
    /// Use a lab of the right size that is up, and leave it up.
    pub keep: bool,
    /// Take the images of FerroLB that are on the nodes, and build none.
    pub as_is: bool,
}

/// What was seen, all of it.
#[derive(Debug, Clone, Serialize)]
pub struct Results {
    /// What each system did with each number of Services.
    pub sizes: Vec<Size>,
    /// What the API server can do when nobody else asks anything of it.
    pub bare: Option<Bare>,
}

/// A bare loop of requests against the API server, with all Services there and nothing installed.
#[derive(Debug, Clone, Serialize)]
pub struct Bare {
    /// The machine's load.
    pub load: f64,
    /// Statuses written in a second, by how many were under way at once.
    pub written: Vec<(usize, f64)>,
}

/// One Service, made when all was quiet.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Single {
    /// Milliseconds from the request that makes it until a watch shows its address.
    pub addressed: f64,
    /// The same until the first answer to ARP; none if there was none within [`ANSWERED`].
    pub answered: Option<f64>,
}

/// So many Services, which one system serves.
#[derive(Debug, Clone, Serialize)]
pub struct Size {
    /// Which.
    pub system: System,
    /// How many there are.
    pub services: usize,
    /// The machine's load when all had their addresses.
    pub load: f64,
    /// The part of the machine's time that its hypervisor gave to others until then, 0 to 1.
    pub stolen: f64,
    /// Seconds from the first address to the last, or until it was given up.
    pub addressed: f64,
    /// How many had one then.
    pub with_address: usize,
    /// Seconds from the first address until all were answered for; none if some were not within [`LIMIT`].
    pub answered: Option<f64>,
    /// Seconds from the first address until the API server was quiet: events and statuses are written. None if addresses
    /// were still being given when [`LIMIT`] was over.
    pub quiet: Option<f64>,
    /// What the API server was asked meanwhile, by verb, resource and answer.
    pub requests: HashMap<String, f64>,
    /// What the daemons take, at rest unless addresses were still being given.
    pub cost: Cost,
    /// Services made one by one beside them.
    pub beside: Vec<Single>,
    /// How fast their addresses are answered for.
    pub asked: Asked,
    /// How fast the nodes' kernels answer for their own.
    pub kernels: Asked,
    /// Seconds after the first at which each got its address, in order.
    pub times: Vec<f64>,
    /// Milliseconds that answers took for an address that was there before, asked for one at a time until all had theirs.
    pub meanwhile: Vec<f64>,
    /// Restarts, with the most Services only.
    pub restart: Option<Restart>,
}

/// SIGKILL to daemons, which the kubelet starts again.
#[derive(Debug, Clone, Serialize)]
pub struct Restart {
    /// The machine's load.
    pub load: f64,
    /// Seconds from the end of all speakers until the first and the last address was answered for; the last is none if
    /// some were not within [`LIMIT`].
    pub speakers: (Option<f64>, Option<f64>),
    /// Seconds from the end of the controller until a Service made at that moment had its address; none where addresses
    /// were still being given.
    pub controller: Option<f64>,
}

/// Does everything in the plan; prints the table on standard output, and writes every sample to a file.
///
/// # Errors
/// The lab cannot be raised, something cannot be installed, or the API server refuses what is asked.
pub fn run(plan: &Plan) -> Result<()> {
    let lab = stage::raise(&plan.lab, plan.nodes, plan.keep)?;
    let cluster = Cluster::connect(&lab)?;
    let steps = lab.steps();
    setup::remove(&lab)?;
    cluster.clear()?;
    let mut results = Results {
        sizes: Vec::new(),
        bare: None,
    };
    let mut present = 0;
    for &size in &plan.sizes {
        steps.say(&format!("making Services until there are {size}"));
        cluster.make_endpoints(present..size)?;
        cluster.make_services(present..size, None)?;
        present = size;
        let last = plan.sizes.last() == Some(&size);
        if last {
            // Alone: who is installed would answer to each write with its own.
            setup::remove(&lab)?;
            results.bare = Some(bare(&lab, &cluster, present.min(LOOP))?);
        }
        for &system in &plan.systems {
            setup::remove(&lab)?;
            // One before the pool, one after the controller's restart.
            cluster.clear_some(SINGLES..SINGLES + plan.singles + 2)?;
            cluster.take_statuses(0..present)?;
            install(&lab, system, plan.as_is)?;
            let seen = measure(&lab, &cluster, system, size, plan, last)?;
            steps.say(&told(&seen));
            results.sizes.push(seen);
            save("services.json", &results)?;
        }
    }
    println!("{}", report::table(&results));
    super::end(lab, plan.keep)
}

fn bare(lab: &Lab, cluster: &Cluster, services: usize) -> Result<Bare> {
    let steps = lab.steps();
    steps.say(&format!("the bare loop: {services} Services"));
    let mut written = Vec::new();
    for (round, at_once) in LOOPS.into_iter().enumerate() {
        // One at a time takes long, and needs no more to be known.
        let some = if at_once == 1 {
            services.div_ceil(4)
        } else {
            services
        };
        let ip = Ipv4Addr::new(10, 201, u8::try_from(round)?, 1);
        let took = cluster.write_statuses(0..some, at_once, Some(ip))?;
        written.push((at_once, per_second(some, took)));
    }
    steps.say(&format!("{written:.0?} written a second"));
    Ok(Bare {
        load: load(),
        written,
    })
}

/// Services that wait get their pool; then what the daemons take, and what one Service more does.
fn measure(
    lab: &Lab,
    cluster: &Cluster,
    system: System,
    size: usize,
    plan: &Plan,
    last: bool,
) -> Result<Size> {
    let steps = lab.steps();
    add(lab, "L2Advertisement", "many", &json!({}))?;
    let apart = json!({"addresses": [SINGLE_POOL], "autoAssign": false});
    add(lab, "IPAddressPool", "single", &apart)?;
    let mut made = 0;
    singles(lab, cluster, 1, &mut made)?;
    // What is told of those that wait.
    wait_quiet(lab, cluster)?;
    let watch = cluster.watch();
    lab.wait("the watch", PATIENCE, || Ok(watch.count() == made))?;
    let before = cluster.requests()?;
    let stolen = Stolen::watch();
    let prober = Prober::start(lab, ASKER, &[SINGLE], MEANWHILE)?;
    add(lab, "IPAddressPool", "many", &json!({"addresses": [POOL]}))?;
    let deadline = Instant::now() + LIMIT;
    let mut told = Instant::now();
    while watch.count() < size + made && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            steps.say(&format!("{} of {size} have an address", watch.count()));
        }
    }
    let (load, stolen) = (load(), stolen.share());
    let traces = prober.stop()?;
    let got = watch.addressed();
    let many = client::name(0)..client::name(size);
    let those = got.iter().filter(|(name, _)| many.contains(*name));
    let mut at: Vec<Duration> = those.map(|(_, (at, _))| *at).collect();
    at.sort();
    let begun = at.first().copied().context("no Service got an address")?;
    let since = |at: Duration| at.saturating_sub(begun).as_secs_f64();
    let addresses: Vec<Ipv4Addr> = got.values().map(|(_, address)| *address).collect();
    let sweep = Sweep::start(lab, ASKER, addresses.iter().copied(), PACE)?;
    sweep.wait(LIMIT);
    let left = sweep.left();
    let answers = sweep.stop()?;
    // Who has given them only in part goes on.
    let all = at.len() >= size;
    let answered = answers.values().copied().max().filter(|_| left == 0 && all);
    let quiet = all.then(|| wait_quiet(lab, cluster)).transpose()?;
    let requests = difference(&before, &cluster.requests()?);
    let cost = cost::measure(lab, plan.window)?;
    let singles_wanted = if all { plan.singles } else { 0 };
    let beside = singles(lab, cluster, singles_wanted, &mut made)?;
    let nodes = lab.hosts().into_iter();
    let nodes = nodes.filter(|host| lab.nodes().contains(&host.name));
    let kernels = asked::ask(lab, ASKER, &nodes.map(|host| host.ipv4).collect::<Vec<_>>())?;
    let asked = asked::ask(lab, ASKER, &addresses)?;
    let mut seen = Size {
        system,
        services: size,
        load,
        stolen,
        addressed: at.last().copied().map(since).unwrap_or_default(),
        with_address: at.len(),
        answered: answered.map(since),
        quiet: quiet.map(since),
        requests,
        cost,
        beside,
        asked,
        kernels,
        times: at.into_iter().map(since).collect(),
        meanwhile: traces.get(&SINGLE).map(waits).unwrap_or_default(),
        restart: None,
    };
    if last {
        let next = all.then_some(made);
        match restart(lab, cluster, &watch, next) {
            Ok(restart) => seen.restart = Some(restart),
            // What was seen before is worth keeping.
            Err(error) => steps.say(&format!("no figures of restarts: {error:#}")),
        }
    }
    Ok(seen)
}

/// Each by its own manifests, configured by custom resources, so that both write every status.
fn install(lab: &Lab, system: System, as_is: bool) -> Result<()> {
    lab.steps().say(&format!("installing {}", system.title()));
    match system {
        System::FerroLb => {
            if !as_is {
                lab.deploy()?;
            }
            deploy::apply_kustomization(lab, "overlays/crd")?;
            deploy::wait_ready(lab)
        }
        System::MetalLb => {
            let release = Setup::MetalLb.release().context("no release")?;
            lab.deploy_metallb(release)?;
            Setup::MetalLb.install(lab)
        }
    }
}

fn add(lab: &Lab, kind: &str, name: &str, spec: &Value) -> Result<()> {
    let object = resources::object(kind, name, spec).to_string();
    // The webhook is not up at once, and a busy API server may not answer in time.
    lab.wait_for(&format!("{kind} {name}"), PATIENCE, || {
        lab.apply(&object).map(Some)
    })
    .map(drop)
}

/// Makes Services one by one. They stay: a Service that goes makes MetalLB look at all others again, which takes minutes.
fn singles(lab: &Lab, cluster: &Cluster, count: usize, made: &mut usize) -> Result<Vec<Single>> {
    let mut singles = Vec::new();
    let watch = cluster.watch();
    for _ in 0..count {
        let number = SINGLES + *made;
        let address = nth(SINGLE, *made)?;
        *made += 1;
        cluster.make_endpoints(number..number + 1)?;
        let prober = Prober::start(lab, ASKER, &[address], PERIOD)?;
        thread::sleep(Duration::from_millis(300));
        let begun = now();
        cluster.make_services(number..number + 1, Some(address))?;
        let asked = Instant::now();
        let (mut addressed, mut answered) = (None, None);
        while addressed.is_none() && asked.elapsed() < LIMIT
            || answered.is_none() && asked.elapsed() < ANSWERED
        {
            thread::sleep(Duration::from_millis(5));
            addressed = watch.of(&client::name(number)).map(|(at, _)| at);
            answered = prober
                .look(address)
                .first_after(begun)
                .map(|first| first.at);
        }
        prober.stop()?;
        let since = |at: Duration| milliseconds(at.saturating_sub(begun));
        let addressed = since(addressed.context("a Service got no address")?);
        singles.push(Single {
            addressed,
            answered: answered.map(since),
        });
        // Until its event and its status are written.
        thread::sleep(Duration::from_millis(500));
    }
    Ok(singles)
}

/// Milliseconds from each question to the first answer after it.
fn waits(trace: &Trace) -> Vec<f64> {
    let mut answers = trace.answers.iter().peekable();
    let mut waits = Vec::new();
    for &asked in &trace.asked {
        while answers.next_if(|answer| answer.at < asked).is_some() {}
        waits.extend(
            answers
                .peek()
                .map(|answer| milliseconds(answer.at.saturating_sub(asked))),
        );
    }
    waits
}

/// Waits until hardly anything is written any more, and returns since when.
fn wait_quiet(lab: &Lab, cluster: &Cluster) -> Result<Duration> {
    let mut last = (now(), writes(&cluster.requests()?));
    let step = Duration::from_secs(2);
    lab.wait_for("the API server to be quiet", LIMIT, || {
        thread::sleep(step);
        let next = (now(), writes(&cluster.requests()?));
        let rate = (next.1 - last.1) / since_seconds(last.0, next.0);
        let since = std::mem::replace(&mut last, next).0;
        ensure!(rate < QUIET, "{rate:.0} writes a second");
        Ok(Some(since))
    })
}

fn writes(requests: &HashMap<String, f64>) -> f64 {
    let writes = requests.iter().filter(|(what, _)| {
        let (verb, what) = what.split_once(' ').unwrap_or_default();
        let resource = what.split('/').next().unwrap_or_default();
        !["GET", "LIST", "WATCH"].contains(&verb) && WRITTEN.contains(&resource)
    });
    writes.map(|(_, count)| count).sum()
}

fn difference(before: &HashMap<String, f64>, after: &HashMap<String, f64>) -> HashMap<String, f64> {
    let changed = after.iter().map(|(what, count)| {
        let former = before.get(what).copied().unwrap_or_default();
        (what.clone(), count - former)
    });
    changed.filter(|(_, count)| *count > 0.0).collect()
}

/// `next`: the number of the Service to be made then; none where the controller is busy still.
fn restart(lab: &Lab, cluster: &Cluster, watch: &Watch, next: Option<usize>) -> Result<Restart> {
    let addresses: Vec<Ipv4Addr> = watch
        .addressed()
        .values()
        .map(|(_, address)| *address)
        .collect();
    let daemons = cost::daemons(lab)?;
    let (controller, speakers): (Vec<_>, Vec<_>) = daemons
        .iter()
        .partition(|daemon| daemon.name == "controller");
    let begun = now();
    for speaker in speakers {
        lab.kill(speaker.pid, Signal::SIGKILL)?;
    }
    let sweep = Sweep::start(lab, ASKER, addresses, PACE)?;
    sweep.wait(LIMIT);
    let left = sweep.left();
    let answers = sweep.stop()?;
    let since = |at: &Duration| at.saturating_sub(begun).as_secs_f64();
    let first = answers.values().min().map(since);
    let last = answers.values().max().map(since).filter(|_| left == 0);
    let mut restart = Restart {
        load: load(),
        speakers: (first, last),
        controller: None,
    };
    let Some(next) = next else {
        return Ok(restart);
    };
    wait_quiet(lab, cluster)?;

    let begun = now();
    for controller in controller {
        lab.kill(controller.pid, Signal::SIGKILL)?;
    }
    let number = SINGLES + next;
    cluster.make_services(number..number + 1, Some(nth(SINGLE, next)?))?;
    let (at, _) = lab.wait_for("an address from the controller", LIMIT, || {
        Ok(watch.of(&client::name(number)))
    })?;
    restart.controller = Some(since_seconds(begun, at));
    Ok(restart)
}

fn since_seconds(begun: Duration, at: Duration) -> f64 {
    at.saturating_sub(begun).as_secs_f64()
}

/// An address so many after the first.
fn nth(first: Ipv4Addr, number: usize) -> Result<Ipv4Addr> {
    Ok(Ipv4Addr::from_bits(
        first.to_bits() + u32::try_from(number)?,
    ))
}

fn told(size: &Size) -> String {
    let spread = |samples: Vec<f64>| super::report::Spread::of(samples);
    let beside = || size.beside.iter();
    format!(
        "{}: {} of {} Services had an address {:.1} s after the first, all answered after {:.1?} s, quiet after {:.1?} s; \
         resident {} and {} KiB, at rest {:.4} and {:.4} cores; one more: address {:.1?}, answer {:.1?} ms; \
         answers {:?}, kernels' {:?}; {:?}; load {:.1}, stolen {:.2}",
        size.system.title(),
        size.with_address,
        size.services,
        size.addressed,
        size.answered,
        size.quiet,
        size.cost.controller,
        size.cost.speaker,
        size.cost.controller_cpu,
        size.cost.speakers_cpu,
        spread(beside().map(|one| one.addressed).collect()),
        spread(beside().filter_map(|one| one.answered).collect()),
        size.asked,
        size.kernels,
        size.restart,
        size.load,
        size.stolen,
    )
}

#[allow(
    clippy::cast_precision_loss,
    reason = "there are fewer Services than 2^52"
)]
fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
