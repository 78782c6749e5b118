//! The control path: how fast many Services get addresses and answers, and what the daemons take for it, with FerroLB and
//! with MetalLB on the same cluster, beside the bare loop of writes that shows what its API server can do.
//! `docs/performance.md` says what is measured and how.

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
use serde_json::json;

use self::{client::Cluster, cost::Cost};
use super::{
    System, load, milliseconds, save,
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

/// Addresses for 16 384 Services.
const POOL: &str = "10.200.0.0/18";
/// Where Services made one by one get theirs: out of the way of the others.
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
const LIMIT: Duration = Duration::from_mins(20);
/// Services of the bare loop, and of those that all wait when the pool comes.
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
    /// What the API server can do when nobody else asks anything of it.
    pub bare: Bare,
    /// What each system did.
    pub systems: Vec<Measured>,
}

/// A bare loop of requests against the API server.
#[derive(Debug, Clone, Serialize)]
pub struct Bare {
    /// The machine's load.
    pub load: f64,
    /// Services made in a second, 32 at a time.
    pub made: f64,
    /// Statuses written in a second, by how many were under way at once.
    pub written: Vec<(usize, f64)>,
}

/// What one system did.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Which.
    pub system: System,
    /// Services made one by one when there are no others.
    pub alone: Vec<Single>,
    /// At each size.
    pub sizes: Vec<Size>,
    /// Services that all waited when the pool came.
    pub at_once: AtOnce,
    /// Restarts with the most Services.
    pub restart: Restart,
}

/// One Service, made when all was quiet.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Single {
    /// Milliseconds from the request that makes it until a watch shows its address.
    pub addressed: f64,
    /// The same until the first answer to ARP; none if there was none within [`LIMIT`].
    pub answered: Option<f64>,
}

/// So many Services.
#[derive(Debug, Clone, Serialize)]
pub struct Size {
    /// How many there are now.
    pub services: usize,
    /// How many were added.
    pub added: usize,
    /// The machine's load at the end.
    pub load: f64,
    /// Seconds from the first request until all were made.
    pub made: f64,
    /// The same until all had an address, or until it was given up.
    pub addressed: f64,
    /// How many had one then.
    pub with_address: usize,
    /// Seconds from the first request until all were answered for; none if some were not within [`LIMIT`].
    pub answered: Option<f64>,
    /// Seconds until the API server was quiet: events and statuses are written.
    pub quiet: f64,
    /// What the API server was asked meanwhile, by verb, resource and answer.
    pub requests: HashMap<String, f64>,
    /// What the daemons take at rest.
    pub cost: Cost,
    /// Services made one by one beside them.
    pub beside: Vec<Single>,
    /// Seconds after the first request at which each got its address, in order.
    pub times: Vec<f64>,
    /// Milliseconds that answers took for an address that was there before, asked for one at a time until all had theirs.
    pub meanwhile: Vec<f64>,
}

/// Services that were there before the pool.
#[derive(Debug, Clone, Serialize)]
pub struct AtOnce {
    /// How many.
    pub services: usize,
    /// The machine's load at the end.
    pub load: f64,
    /// Seconds from the first address to the last.
    pub seconds: f64,
    /// How many got one.
    pub with_address: usize,
}

/// SIGKILL to daemons, which the kubelet starts again.
#[derive(Debug, Clone, Serialize)]
pub struct Restart {
    /// How many Services there were.
    pub services: usize,
    /// The machine's load.
    pub load: f64,
    /// Seconds from the end of all speakers until the first and the last address was answered for; the last is none if
    /// some were not within [`LIMIT`].
    pub speakers: (Option<f64>, Option<f64>),
    /// Seconds from the end of the controller until a Service made at that moment had its address.
    pub controller: f64,
}

/// Does everything in the plan; prints the table on standard output, and writes every sample to a file.
///
/// # Errors
/// The lab cannot be raised, something cannot be installed, or the API server refuses what is asked.
pub fn run(plan: &Plan) -> Result<()> {
    let lab = stage::raise(&plan.lab, plan.nodes, plan.keep)?;
    let cluster = Cluster::connect(&lab)?;
    let most = plan.sizes.iter().copied().max().unwrap_or(1);
    setup::remove(&lab)?;
    cluster.clear()?;
    let mut results = Results {
        bare: bare(&lab, &cluster, most.min(LOOP))?,
        systems: Vec::new(),
    };
    for &system in &plan.systems {
        let measured = measure(&lab, &cluster, system, plan)?;
        results.systems.push(measured);
        save("services.json", &results)?;
    }
    println!("{}", report::table(&results));
    super::end(lab, plan.keep)
}

fn bare(lab: &Lab, cluster: &Cluster, services: usize) -> Result<Bare> {
    let steps = lab.steps();
    steps.say(&format!("the bare loop: {services} Services"));
    let begun = Instant::now();
    cluster.make_services(0..services, None)?;
    let made = per_second(services, begun.elapsed());
    let mut written = Vec::new();
    for (round, at_once) in LOOPS.into_iter().enumerate() {
        // One at a time takes long, and needs no more to be known.
        let some = if at_once == 1 { services / 4 } else { services };
        let ip = Ipv4Addr::new(10, 201, u8::try_from(round)?, 1);
        let took = cluster.write_statuses(0..some, at_once, ip)?;
        written.push((at_once, per_second(some, took)));
    }
    steps.say(&format!("{made:.0} made, {written:.0?} written a second"));
    cluster.clear()?;
    let load = load();
    Ok(Bare {
        load,
        made,
        written,
    })
}

fn measure(lab: &Lab, cluster: &Cluster, system: System, plan: &Plan) -> Result<Measured> {
    install(lab, system, plan.as_is)?;
    add_pool(lab)?;
    let steps = lab.steps();
    let mut made = 0;
    let alone = singles(lab, cluster, plan.singles, &mut made)?;
    steps.say(&format!("{}: alone {}", system.title(), told(&alone)));
    let mut sizes = Vec::new();
    let mut present = 0;
    for &size in &plan.sizes {
        let grown = grow(lab, cluster, present..size, plan, &mut made)?;
        present = size;
        steps.say(&format!(
            "{}: {} of {size} Services had an address after {:.1} s, all answered after {:.1?} s, quiet after {:.1} s; \
             resident {} and {} KiB, at rest {:.4} and {:.4} cores; beside them {}",
            system.title(),
            grown.with_address,
            grown.addressed,
            grown.answered,
            grown.quiet,
            grown.cost.controller,
            grown.cost.speaker,
            grown.cost.controller_cpu,
            grown.cost.speakers_cpu,
            told(&grown.beside),
        ));
        sizes.push(grown);
        save(&format!("services-{}.json", system.file()), &sizes)?;
    }
    let restart = restart(lab, cluster, present, made)?;
    steps.say(&format!("{}: {restart:?}", system.title()));
    let at_once = at_once(lab, cluster, present.min(LOOP))?;
    steps.say(&format!("{}: {at_once:?}", system.title()));
    cluster.clear()?;
    Ok(Measured {
        system,
        alone,
        sizes,
        at_once,
        restart,
    })
}

/// Each by its own manifests, configured by custom resources, so that both write every status.
fn install(lab: &Lab, system: System, as_is: bool) -> Result<()> {
    lab.steps().say(&format!("installing {}", system.title()));
    setup::remove(lab)?;
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

fn add_pool(lab: &Lab) -> Result<()> {
    for (kind, spec) in [
        ("L2Advertisement", json!({})),
        ("IPAddressPool", json!({"addresses": [POOL]})),
    ] {
        let object = resources::object(kind, "many", &spec).to_string();
        // The webhook is not up at once, and a busy API server may not answer in time.
        lab.wait_for(&format!("the {kind}"), PATIENCE, || {
            lab.apply(&object).map(Some)
        })?;
    }
    Ok(())
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
        let deadline = Instant::now() + Duration::from_mins(1);
        let (mut addressed, mut answered) = (None, None);
        while (addressed.is_none() || answered.is_none()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
            addressed = watch.of(&client::name(number)).map(|(at, _)| at);
            answered = prober
                .look(address)
                .first_after(begun)
                .map(|first| first.at);
        }
        prober.stop()?;
        let since = |at: Duration| milliseconds(at.saturating_sub(begun));
        let addressed = since(addressed.context("a Service got no address within a minute")?);
        singles.push(Single {
            addressed,
            answered: answered.map(since),
        });
        // Until its event and its status are written.
        thread::sleep(Duration::from_millis(500));
    }
    Ok(singles)
}

fn grow(
    lab: &Lab,
    cluster: &Cluster,
    numbers: std::ops::Range<usize>,
    plan: &Plan,
    made_singly: &mut usize,
) -> Result<Size> {
    let (present, size) = (numbers.start, numbers.end);
    let others = *made_singly;
    cluster.make_endpoints(numbers.clone())?;
    let watch = cluster.watch();
    lab.wait("the watch", PATIENCE, || {
        Ok(watch.count() == present + others)
    })?;
    let before = cluster.requests()?;
    let prober = Prober::start(lab, ASKER, &[SINGLE], MEANWHILE)?;
    let begun = now();
    let since = |at: Duration| at.saturating_sub(begun).as_secs_f64();
    cluster.make_services(numbers.clone(), None)?;
    let made = since(now());
    let deadline = Instant::now() + LIMIT;
    let mut told = Instant::now();
    while watch.count() < size + others && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            let steps = lab.steps();
            steps.say(&format!("{} of {size} have an address", watch.count()));
        }
    }
    let traces = prober.stop()?;
    let meanwhile = traces.get(&SINGLE).map(waits).unwrap_or_default();
    let got = watch.addressed();
    let addressed = got.values().map(|(at, _)| *at).max();
    let sweep = Sweep::start(lab, ASKER, got.values().map(|(_, address)| *address), PACE)?;
    sweep.wait(LIMIT);
    let left = sweep.left();
    let answers = sweep.stop()?;
    let answered = answers.values().copied().max().filter(|_| left == 0);
    let quiet = wait_quiet(lab, cluster)?;
    let requests = difference(&before, &cluster.requests()?);
    let mut times: Vec<f64> = got
        .iter()
        .filter(|(name, _)| (client::name(present)..client::name(size)).contains(*name))
        .map(|(_, (at, _))| since(*at))
        .collect();
    times.sort_by(f64::total_cmp);
    let cost = cost::measure(lab, plan.window)?;
    let beside = singles(lab, cluster, plan.singles, made_singly)?;
    Ok(Size {
        services: size,
        added: size - present,
        load: load(),
        made,
        addressed: addressed.map(since).unwrap_or_default(),
        with_address: present + times.len(),
        answered: answered.map(since),
        quiet: since(quiet),
        requests,
        cost,
        beside,
        times,
        meanwhile,
    })
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

fn restart(lab: &Lab, cluster: &Cluster, services: usize, made_singly: usize) -> Result<Restart> {
    let watch = cluster.watch();
    lab.wait("the watch", PATIENCE, || Ok(watch.count() >= services))?;
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
    wait_quiet(lab, cluster)?;

    let begun = now();
    for controller in controller {
        lab.kill(controller.pid, Signal::SIGKILL)?;
    }
    let number = SINGLES + made_singly;
    cluster.make_services(number..number + 1, Some(nth(SINGLE, made_singly)?))?;
    let (at, _) = lab.wait_for("an address from the controller", LIMIT, || {
        Ok(watch.of(&client::name(number)))
    })?;
    let controller = since_seconds(begun, at);
    Ok(Restart {
        services,
        load: load(),
        speakers: (first, last),
        controller,
    })
}

fn since_seconds(begun: Duration, at: Duration) -> f64 {
    at.saturating_sub(begun).as_secs_f64()
}

/// Every Service anew, without a pool; then the pool.
fn at_once(lab: &Lab, cluster: &Cluster, services: usize) -> Result<AtOnce> {
    cluster.clear()?;
    resources::delete(lab, "IPAddressPool", "many")?;
    cluster.make_endpoints(0..services)?;
    cluster.make_services(0..services, None)?;
    wait_quiet(lab, cluster)?;
    let watch = cluster.watch();
    thread::sleep(Duration::from_secs(1));
    add_pool(lab)?;
    let deadline = Instant::now() + LIMIT;
    while watch.count() < services && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let seen = watch.addressed();
    let times = || seen.values().map(|(at, _)| *at);
    let (first, last) = (times().min(), times().max());
    let seconds = match (first, last) {
        (Some(first), Some(last)) => since_seconds(first, last),
        _ => f64::NAN,
    };
    Ok(AtOnce {
        services,
        load: load(),
        seconds,
        with_address: seen.len(),
    })
}

/// An address so many after the first.
fn nth(first: Ipv4Addr, number: usize) -> Result<Ipv4Addr> {
    Ok(Ipv4Addr::from_bits(
        first.to_bits() + u32::try_from(number)?,
    ))
}

fn told(singles: &[Single]) -> String {
    let spread = |samples: Vec<f64>| super::report::Spread::of(samples);
    let addressed = spread(singles.iter().map(|one| one.addressed).collect());
    let answered = spread(singles.iter().filter_map(|one| one.answered).collect());
    format!("address {addressed:.1?}, answer {answered:.1?} ms")
}

#[allow(
    clippy::cast_precision_loss,
    reason = "there are fewer Services than 2^52"
)]
fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
