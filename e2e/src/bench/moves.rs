//! Addresses move because somebody wants them to, and clients look for a gap, for two answerers, and for lost requests.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    System, load,
    losses::TOLERATED,
    milliseconds,
    stage::{ASKER, CONNECTOR, LOCAL, Owners, Stage},
};
use crate::{
    deploy::{self, NAMESPACE},
    observe::{
        clients::Client,
        prober::{Prober, now},
    },
};

/// The client asks over ARP this often.
const QUESTIONS: Duration = Duration::from_millis(1);
/// New connections with a request are made this often: 200 a second.
const REQUESTS: Duration = Duration::from_millis(5);
/// Clients work for so long before anything happens.
const LEAD: Duration = Duration::from_secs(1);
/// What has not moved by then does not move.
const LIMIT: Duration = Duration::from_secs(10);
/// After a move, this long is watched on; so it is after what was asked for is taken back.
const AFTER: Duration = Duration::from_secs(4);
/// The annotation that asks for a move.
const ANNOTATION: &str = "ferrolb.io/move";
/// The label of a node that shall take no traffic from outside.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Why an address moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing happens: what the measurement itself shows.
    Nothing,
    /// The owner's speaker pod is deleted, with its grace period.
    SpeakerDeleted,
    /// The DaemonSet is restarted, node after node.
    RollingRestart,
    /// The owner is cordoned and drained.
    Drained,
    /// The owner's Node object is deleted.
    NodeDeleted,
    /// The owner gets the label that excludes it from load balancing.
    Excluded,
    /// The only endpoint of a Service with `externalTrafficPolicy: Local` goes, after one elsewhere has come.
    EndpointMoves,
    /// Asked for by the annotation `ferrolb.io/move`.
    Asked,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Nothing,
        Self::SpeakerDeleted,
        Self::RollingRestart,
        Self::Drained,
        Self::NodeDeleted,
        Self::Excluded,
        Self::EndpointMoves,
        Self::Asked,
    ];

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Nothing => "(nothing happens)",
            Self::SpeakerDeleted => "speaker pod deleted",
            Self::RollingRestart => "rolling restart",
            Self::Drained => "cordon and drain",
            Self::NodeDeleted => "Node deleted",
            Self::Excluded => "exclude label",
            Self::EndpointMoves => "endpoint moves (Local)",
            Self::Asked => "move asked for",
        }
    }
}

/// What was seen of one move, and of the way back where there is one.
#[derive(Debug, Clone, Serialize)]
pub struct Move {
    /// Who announced.
    pub system: System,
    /// The cluster's size.
    pub nodes: usize,
    /// Why.
    pub kind: Kind,
    /// Who answered at first.
    pub owner: String,
    /// The machine's load.
    pub load: f64,
    /// Every change of who answers.
    pub changes: Vec<Change>,
    /// Milliseconds that a question waited for an answer at most.
    pub gap: f64,
    /// HTTP requests on new connections.
    pub requests: usize,
    /// Those not answered within two seconds.
    pub lost: usize,
    /// Those answered, after more than 250 ms.
    pub slow: usize,
    /// Why open connections broke, of four in use.
    pub broken: Vec<String>,
}

/// One change of who answers.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// Seconds since the move was asked for.
    pub after: f64,
    /// Who answered before.
    pub from: String,
    /// Who answered after.
    pub to: String,
    /// How often the hardware address in the answers changed, in the order of the wire: 1 is clean.
    pub times: usize,
    /// Milliseconds during which two answered.
    pub overlap: f64,
}

/// Asks for moves until there are `rounds` of them, every kind as often as the others; in each round over all kinds,
/// nothing happens once besides. `save` gets all samples after each.
///
/// # Errors
/// More than five cannot be measured, or the cluster does not become whole again.
pub fn run(
    stage: &Stage<'_>,
    rounds: usize,
    save: impl Fn(&[Move]) -> Result<()>,
) -> Result<Vec<Move>> {
    let mut moves: Vec<Move> = Vec::new();
    let steps = stage.lab.steps();
    let mut owners = stage.settled(None)?;
    let (mut asked, mut failed) = (0, 0);
    for (number, kind) in Kind::ALL.into_iter().cycle().enumerate() {
        if asked == rounds {
            break;
        }
        asked += usize::from(kind != Kind::Nothing);
        let found = match one(stage, kind, number, &owners) {
            Ok(found) => found,
            Err(error) => {
                failed += 1;
                let what = format!("not measured: {}: {error:#}", kind.title());
                ensure!(failed <= TOLERATED, "{what}");
                steps.say(&what);
                stage.endpoints()?;
                owners = stage.settled(None)?;
                continue;
            }
        };
        steps.say(&tell(&found));
        moves.push(found);
        save(&moves)?;
        stage.endpoints()?;
        if kind == Kind::EndpointMoves {
            stage.lab.kubectl(&["delete", "service", LOCAL])?;
        }
        owners = stage.settled(Some(&owners))?;
    }
    Ok(moves)
}

/// The move number `number`: of another address each time.
fn one(stage: &Stage<'_>, kind: Kind, number: usize, owners: &Owners) -> Result<Move> {
    let (address, owner) = if kind == Kind::EndpointMoves {
        let nodes = stage.lab.nodes();
        let node = nodes.get(number % nodes.len()).context("no nodes")?.clone();
        (stage.local(&node)?, node)
    } else {
        let place = number % owners.len().max(1);
        let chosen = owners.iter().nth(place).context("nobody owns anything")?;
        let (address, owner) = (*chosen.0, chosen.1.clone());
        stage.serve_elsewhere(address, &owner)?;
        (address, owner)
    };
    observe(stage, kind, address, &owner).with_context(|| format!("{} of {owner}", kind.title()))
}

fn tell(found: &Move) -> String {
    let what = format!("{}, {}", found.system.title(), found.kind.title());
    if found.changes.is_empty() && found.kind != Kind::Nothing {
        return format!("{what}: nothing moved");
    }
    let changes: Vec<_> = found
        .changes
        .iter()
        .map(|change| {
            format!(
                "{}→{} in {} ({:.1} ms)",
                change.from, change.to, change.times, change.overlap
            )
        })
        .collect();
    format!(
        "{what}: [{}], gap {:.1} ms, {} of {} requests lost, {} slow, {} connections broken",
        changes.join(", "),
        found.gap,
        found.lost,
        found.requests,
        found.slow,
        found.broken.len()
    )
}

fn observe(stage: &Stage<'_>, kind: Kind, address: Ipv4Addr, owner: &str) -> Result<Move> {
    let lab = stage.lab;
    let object = lab.kubectl(&["get", "node", owner, "-o", "json"])?;
    stage.forget(address)?;
    let prober = Prober::start(lab, ASKER, &[address], QUESTIONS)?;
    let client = Client::requesting(lab, CONNECTOR, address, REQUESTS)?;
    thread::sleep(LEAD);
    let begun = now();
    let asked = ask(stage, kind, address, owner);
    if asked.is_ok() {
        wait_for_move(&prober, address, begun, kind);
    }
    let back = take_back(stage, kind, address, owner, &object);
    thread::sleep(AFTER);
    let end = now();
    let seen = client.stop()?;
    let mut traces = prober.stop()?;
    asked?;
    back?;
    let trace = traces.remove(&address).context("no trace")?;
    let changes = trace
        .handovers(&(begun..end))
        .into_iter()
        .map(|change| Change {
            after: change.at.saturating_sub(begun).as_secs_f64(),
            from: stage.name(change.from),
            to: stage.name(change.to),
            times: change.changes,
            overlap: milliseconds(change.overlap),
        })
        .collect();
    Ok(Move {
        system: stage.system,
        nodes: lab.nodes().len(),
        kind,
        owner: owner.to_owned(),
        load: load(),
        changes,
        gap: milliseconds(trace.longest_wait(&(begun..end))),
        requests: seen.sent(),
        lost: seen.lost(),
        slow: seen.slow(),
        broken: seen.broken.into_iter().map(|(_, why)| why).collect(),
    })
}

/// Waits until somebody else answers, and some seconds more.
fn wait_for_move(prober: &Prober, address: Ipv4Addr, begun: Duration, kind: Kind) {
    let since = Instant::now();
    while kind != Kind::Nothing && since.elapsed() < LIMIT {
        let trace = prober.look(address);
        if !trace.handovers(&(begun..Duration::MAX)).is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    thread::sleep(AFTER);
}

fn ask(stage: &Stage<'_>, kind: Kind, address: Ipv4Addr, owner: &str) -> Result<()> {
    let lab = stage.lab;
    let words = |words: &[&str]| lab.kubectl(words).map(drop);
    match kind {
        Kind::Nothing => Ok(()),
        Kind::SpeakerDeleted => {
            let pod = deploy::speaker_pod(lab, owner)?;
            words(&["-n", NAMESPACE, "delete", "pod", &pod, "--wait=false"])
        }
        Kind::RollingRestart => {
            words(&["-n", NAMESPACE, "rollout", "restart", "daemonset/speaker"])?;
            deploy::wait_ready(lab)
        }
        Kind::Drained => words(&[
            "drain",
            owner,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            "--timeout=60s",
        ]),
        Kind::NodeDeleted => words(&["delete", "node", owner, "--wait=false"]),
        Kind::Excluded => words(&["label", "node", owner, &format!("{EXCLUDED}=")]),
        Kind::EndpointMoves => {
            let other = stage.another(owner)?;
            stage.serves_locally(&other, true)?;
            // A rollout waits until the new endpoint is ready, and then ends the old one.
            thread::sleep(Duration::from_secs(2));
            stage.serves_locally(owner, false)
        }
        Kind::Asked => {
            let note = format!("{ANNOTATION}={}", stage.another(owner)?);
            words(&[
                "annotate",
                "--overwrite",
                "service",
                named(stage, address)?,
                &note,
            ])
        }
    }
}

fn take_back(
    stage: &Stage<'_>,
    kind: Kind,
    address: Ipv4Addr,
    owner: &str,
    object: &str,
) -> Result<()> {
    let lab = stage.lab;
    let words = |words: &[&str]| lab.kubectl(words).map(drop);
    match kind {
        Kind::Nothing | Kind::SpeakerDeleted | Kind::RollingRestart | Kind::EndpointMoves => Ok(()),
        Kind::Drained => words(&["uncordon", owner]),
        Kind::NodeDeleted => lab.apply(&renewed(object)?).map(drop),
        Kind::Excluded => words(&["label", "node", owner, &format!("{EXCLUDED}-")]),
        Kind::Asked => {
            let note = format!("{ANNOTATION}-");
            words(&["annotate", "service", named(stage, address)?, &note])
        }
    }
}

fn named<'a>(stage: &'a Stage<'_>, address: Ipv4Addr) -> Result<&'a str> {
    let mut named = stage.addresses.iter().filter(|(_, is)| **is == address);
    let (name, _) = named.next().context("no such Service")?;
    Ok(name)
}

/// A Node as it was, to be made anew.
fn renewed(object: &str) -> Result<String> {
    let node: Value = serde_json::from_str(object)?;
    let part = |path: &str| node.pointer(path).cloned().unwrap_or_default();
    Ok(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": part("/metadata/name"),
            "labels": part("/metadata/labels"),
            "annotations": part("/metadata/annotations"),
        },
        "spec": {"podCIDR": part("/spec/podCIDR"), "podCIDRs": part("/spec/podCIDRs")},
    })
    .to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_made_anew_without_what_the_server_gave_it() {
        let node = json!({
            "metadata": {"name": "n1", "uid": "x", "resourceVersion": "7", "labels": {"a": "b"}},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"], "taints": [{}]},
            "status": {},
        });
        let anew: Value = serde_json::from_str(&renewed(&node.to_string()).unwrap()).unwrap();
        assert_eq!(anew.pointer("/metadata/labels/a"), Some(&json!("b")));
        assert_eq!(anew.pointer("/metadata/uid"), None);
        assert_eq!(anew.pointer("/spec/taints"), None);
        assert_eq!(anew.pointer("/status"), None);
    }
}
