//! Nodes are lost, and clients count how long they are cut off.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::{
    Stolen, System, load, milliseconds,
    random::Random,
    stage::{ASKER, CONNECTOR, Owners, Stage},
};
use crate::{
    lab::{Dead, Signal},
    observe::{
        clients::Client,
        prober::{Prober, now},
        trace::{Trace, longest_wait},
    },
};

/// Clients ask, and connect, this often.
const PERIOD: Duration = Duration::from_millis(10);
/// So many rounds may fail to be measured, as when a busy API server does not answer `kubectl`; they are told of, and counted
/// nowhere.
pub(super) const TOLERATED: usize = 5;
/// Clients ask for so long before anything happens.
const LEAD: Duration = Duration::from_millis(700);
/// What nobody answers for by then counts as not taken over.
const LIMIT: Duration = Duration::from_secs(30);
/// After everything is answered for again, this long is watched before the node comes back.
const AFTER: Duration = Duration::from_secs(2);
/// After the node is back, this long is watched who answers.
const HEALED: Duration = Duration::from_secs(3);

/// How a node, or what answers on it, is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The switch side of its link goes down, and with it its own.
    Unplugged,
    /// SIGSTOP to every process. The node's kernel goes on answering for the node's own addresses.
    Frozen,
    /// SIGKILL to the speaker; the kubelet starts it again.
    KilledReturns,
    /// SIGKILL to the speaker, and the kubelet cannot start it again.
    KilledStaysAway,
    /// The switch port does not carry what the node sends.
    Mute,
    /// The switch port does not carry what is sent to the node.
    Deaf,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unplugged,
        Self::Frozen,
        Self::KilledReturns,
        Self::KilledStaysAway,
        Self::Mute,
        Self::Deaf,
    ];

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Unplugged => "link unplugged",
            Self::Frozen => "node frozen",
            Self::KilledReturns => "speaker killed, restarts",
            Self::KilledStaysAway => "speaker killed, stays away",
            Self::Mute => "port dead from the node",
            Self::Deaf => "port dead to the node",
        }
    }
}

/// What was seen of one loss.
#[derive(Debug, Clone, Serialize)]
pub struct Loss {
    /// Who announced.
    pub system: System,
    /// The cluster's size.
    pub nodes: usize,
    /// How it was lost.
    pub kind: Kind,
    /// Which node.
    pub victim: String,
    /// The machine's load.
    pub load: f64,
    /// The share of the machine's time that its hypervisor gave to others meanwhile, 0 to 1.
    pub stolen: f64,
    /// The addresses it answered for.
    pub addresses: Vec<Address>,
    /// New connections to one of them.
    pub connections: Connections,
}

/// What ARP showed of one address.
#[derive(Debug, Clone, Serialize)]
pub struct Address {
    /// The address.
    pub address: Ipv4Addr,
    /// Who answered at last, before the node came back.
    pub heir: String,
    /// Milliseconds that a question waited for an answer at most, from the loss until the node came back.
    pub blackout: f64,
    /// Milliseconds from the loss to the first answer after it; `None` if there was none.
    pub first: Option<f64>,
    /// Milliseconds during which two answered, at most, from the loss until three seconds after the node was back.
    pub doubled: f64,
}

/// What new connections showed.
#[derive(Debug, Clone, Serialize)]
pub struct Connections {
    /// Where they went.
    pub address: Ipv4Addr,
    /// The node that the client's kernel sent them to before the loss.
    pub through: String,
    /// Milliseconds that a client had to wait for a connection at most.
    pub blackout: f64,
    /// Milliseconds from the loss to the first connection begun after it; `None` if there was none.
    pub first: Option<f64>,
}

impl Loss {
    /// The longest of its addresses' blackouts.
    pub fn longest(&self) -> f64 {
        let addresses = self.addresses.iter();
        addresses
            .map(|address| address.blackout)
            .fold(0.0, f64::max)
    }
}

/// Loses `rounds` nodes, every kind as often as the others, in an order and of nodes that the seed decides among those
/// that hold an address. `save` gets all samples after each.
///
/// # Errors
/// More than five rounds cannot be measured, or the cluster does not become whole again.
pub fn run(
    stage: &Stage<'_>,
    rounds: usize,
    seed: u64,
    save: impl Fn(&[Loss]) -> Result<()>,
) -> Result<Vec<Loss>> {
    let mut random = Random::new(seed);
    let mut kinds: Vec<_> = Kind::ALL.into_iter().cycle().take(rounds).collect();
    random.shuffle(&mut kinds);
    let mut losses = Vec::new();
    let mut failed = 0;
    let mut owners = stage.settled(None)?;
    let steps = stage.lab.steps();
    for (number, kind) in kinds.into_iter().enumerate() {
        let mut holders: Vec<_> = owners.values().cloned().collect();
        holders.sort_unstable();
        holders.dedup();
        let victim = random.pick(&holders).context("nobody holds an address")?;
        let loss = match lose(stage, kind, victim, &owners) {
            Ok(loss) => loss,
            Err(error) => {
                failed += 1;
                let what = format!("not measured: {victim}, {}: {error:#}", kind.title());
                ensure!(failed <= TOLERATED, "{what}");
                steps.say(&what);
                // What was not broken cannot be healed.
                let _ = heal(stage, kind, victim);
                owners = stage.settled(None)?;
                continue;
            }
        };
        steps.say(&format!(
            "{} {}/{rounds}: {victim}, {}: {} addresses, ARP {:.0} ms, TCP {:.0} ms, {:.0} % stolen",
            stage.system.title(),
            number + 1,
            kind.title(),
            loss.addresses.len(),
            loss.longest(),
            loss.connections.blackout,
            loss.stolen * 100.0,
        ));
        losses.push(loss);
        save(&losses)?;
        if matches!(kind, Kind::KilledReturns | Kind::KilledStaysAway) {
            stage.renew_speaker(victim)?;
        }
        owners = stage.settled(Some(&owners))?;
    }
    Ok(losses)
}

fn lose(stage: &Stage<'_>, kind: Kind, victim: &str, owners: &Owners) -> Result<Loss> {
    let lab = stage.lab;
    let held: Vec<_> = owners
        .iter()
        .filter(|(_, owner)| *owner == victim)
        .map(|(&address, _)| address)
        .collect();
    let target = *held.first().context("it holds no address")?;
    stage.serve_elsewhere(target, victim)?;
    let speaker = stage.speaker(victim)?;
    stage.forget(target)?;
    let prober = Prober::start(lab, ASKER, &held, PERIOD)?;
    let client = Client::connecting(lab, CONNECTOR, target, PERIOD)?;
    thread::sleep(LEAD);
    let through = stage.neighbour(target)?;

    let stolen = Stolen::watch();
    let begun = now();
    let broken = break_it(stage, kind, victim, speaker);
    let done = now();
    if broken.is_ok() {
        watch(&prober, &client, held.len(), done);
    }
    let healing = now();
    let healed = heal(stage, kind, victim);
    broken?;
    healed?;
    thread::sleep(HEALED);
    let connections = client.stop()?;
    let traces = prober.stop()?;

    let (asked, connected) = connections.connections();
    Ok(Loss {
        system: stage.system,
        nodes: lab.nodes().len(),
        kind,
        victim: victim.to_owned(),
        load: load(),
        stolen: stolen.share(),
        addresses: addresses(stage, &traces, begun, done, healing),
        connections: Connections {
            address: target,
            through: through.unwrap_or_default(),
            blackout: milliseconds(longest_wait(&asked, &connected, &(begun..healing))),
            first: connections
                .first_after(done)
                .filter(|at| *at < healing)
                .map(|at| milliseconds(at.saturating_sub(begun))),
        },
    })
}

fn addresses(
    stage: &Stage<'_>,
    traces: &BTreeMap<Ipv4Addr, Trace>,
    begun: Duration,
    done: Duration,
    healing: Duration,
) -> Vec<Address> {
    let seen = traces.iter().map(|(&address, trace)| {
        let first = trace.first_after(done).filter(|first| first.at < healing);
        let before = trace.answers.partition_point(|answer| answer.at < healing);
        let heir = trace.answers.get(..before).and_then(<[_]>::last);
        let handovers = trace.handovers(&(begun..Duration::MAX));
        let doubled = handovers.iter().map(|handover| handover.overlap).max();
        Address {
            address,
            heir: heir.map_or_else(String::new, |answer| stage.name(answer.from)),
            blackout: milliseconds(trace.longest_wait(&(begun..healing))),
            first: first.map(|first| milliseconds(first.at.saturating_sub(begun))),
            doubled: milliseconds(doubled.unwrap_or_default()),
        }
    });
    seen.collect()
}

/// Waits until every address is answered for after the loss, and connections are made, and a little longer.
fn watch(prober: &Prober, client: &Client, count: usize, done: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        thread::sleep(Duration::from_millis(100));
        let newest = prober.newest();
        let answered = newest.values().filter(|answer| answer.at > done).count();
        if answered == count && client.look().first_after(done).is_some() {
            // One answer is not service: who gave it may be lost, or yield, again.
            thread::sleep(AFTER);
            let late = now().saturating_sub(PERIOD * 20);
            let newest = prober.newest();
            if newest.values().filter(|answer| answer.at > late).count() == count {
                return;
            }
        }
    }
}

fn break_it(stage: &Stage<'_>, kind: Kind, victim: &str, speaker: u32) -> Result<()> {
    let lab = stage.lab;
    match kind {
        Kind::Unplugged => lab.unplug(victim),
        Kind::Frozen => {
            // At once; to find the others takes a while.
            lab.kill(speaker, Signal::SIGSTOP)?;
            lab.freeze(victim).map(drop)
        }
        Kind::KilledReturns => lab.kill(speaker, Signal::SIGKILL),
        Kind::KilledStaysAway => {
            lab.signal_daemon(victim, "kubelet", Signal::SIGSTOP)?;
            lab.kill(speaker, Signal::SIGKILL)
        }
        Kind::Mute => lab.cut(victim, Dead::FromHost),
        Kind::Deaf => lab.cut(victim, Dead::ToHost),
    }
}

fn heal(stage: &Stage<'_>, kind: Kind, victim: &str) -> Result<()> {
    let lab = stage.lab;
    match kind {
        Kind::Unplugged => lab.plug(victim),
        Kind::Frozen => lab.thaw(victim),
        Kind::KilledReturns => Ok(()),
        Kind::KilledStaysAway => lab.signal_daemon(victim, "kubelet", Signal::SIGCONT),
        Kind::Mute | Kind::Deaf => lab.mend(victim),
    }
}
