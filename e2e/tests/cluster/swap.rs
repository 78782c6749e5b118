//! MetalLB's images are exchanged for FerroLB's under Services in use, and back: nothing else changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    artifact::metallb,
    deploy::{PATIENCE, setup},
    docs::follow,
    observe::service,
};
use ferrolb_speaker_core::first;
use serde_json::{Value, json};

use crate::{
    probe::{Heard, Probe, ROUND},
    world::{CLIENT, World},
};

/// How many Services are in use.
const SERVICES: usize = 50;
/// Where they have their addresses.
const POOL: &str = "192.168.99.150-192.168.99.199";
/// How long answers are listened to when they must all come from one.
const WHILE: Duration = Duration::from_secs(1);

/// By custom resources, on the newest release's own manifest, by docs/migration.md; in the end by our own manifests.
pub fn newest_and_back(world: &World) -> Result<()> {
    let step = |part: &str| follow(world, "migration.md", part).map(drop);
    let addresses = there_and_back(world, || step("before-resources"), || step("back-0.16"))?;
    step("before")?;
    let swap = Swap { world };
    swap.exchange("FerroLB by its manifests", &addresses, || step("manifests"))?;
    step("after")
}

/// By the ConfigMap, on the objects of minikube's addon.
pub fn minikubes_and_back(world: &World) -> Result<()> {
    let before = || follow(world, "migration.md", "before-configmap").map(drop);
    let back = || setup::swap_images(world, |program| metallb::MINIKUBE.image(program));
    there_and_back(world, before, back).map(drop)
}

/// The release serves; FerroLB takes over as docs/migration.md says; the release takes over again by `back`. Returns what
/// every Service has then.
fn there_and_back(
    world: &World,
    before: impl FnOnce() -> Result<()>,
    back: impl FnOnce() -> Result<()>,
) -> Result<Addresses> {
    let step = |part: &str| follow(world, "migration.md", part).map(drop);
    let swap = Swap { world };
    world.load_ferrolb()?;
    world.configure(&[("swap", &[POOL])])?;
    world.echo("swap", "n1")?;
    world.echo("swap", "n2")?;
    swap.create()?;
    let addresses = swap.all_assigned()?;
    swap.works("MetalLB", &addresses)?;
    let addresses = swap.edit(&["192.168.99.210-192.168.99.211"], "192.168.99.210")?;

    before()?;
    step("before")?;
    swap.exchange("FerroLB", &addresses, || step("images"))?;
    step("after")?;
    let addresses = swap.edit(
        &["192.168.99.210-192.168.99.211", "192.168.99.212/32"],
        "192.168.99.212",
    )?;

    swap.exchange("MetalLB", &addresses, back)?;
    let addresses = swap.edit(
        &["192.168.99.210-192.168.99.212", "192.168.99.214/31"],
        "192.168.99.215",
    )?;
    swap.works("MetalLB", &addresses)?;
    Ok(addresses)
}

/// The address of each Service.
type Addresses = BTreeMap<String, Ipv4Addr>;

struct Swap<'a> {
    world: &'a World,
}

impl Swap<'_> {
    fn create(&self) -> Result<()> {
        let items: Vec<Value> = (0..SERVICES)
            .map(|number| balancer(&format!("swap-{number}"), json!({})))
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        self.world.apply(&list.to_string()).map(drop)
    }

    /// What every Service of the test has now; one that has none, or more than one, is an error.
    fn assigned(&self) -> Result<Addresses> {
        let list = self
            .world
            .kubectl(&["get", "services", "-l", "e2e=yes", "-o", "json"])?;
        let list: Value = serde_json::from_str(&list)?;
        let items = list.get("items").and_then(Value::as_array);
        items
            .into_iter()
            .flatten()
            .map(|service| {
                let name = crate::resources::name(service);
                let ingress = service.pointer("/status/loadBalancer/ingress");
                let ingress = ingress.and_then(Value::as_array);
                let ips: Vec<_> = ingress
                    .into_iter()
                    .flatten()
                    .filter_map(|entry| entry.get("ip")?.as_str())
                    .collect();
                ensure!(ips.len() == 1, "Service {name} has {ips:?}");
                let ip = ips.first().context("no address")?.parse()?;
                Ok((name.to_owned(), ip))
            })
            .collect()
    }

    fn all_assigned(&self) -> Result<Addresses> {
        self.world
            .wait_for("every Service to have an address", PATIENCE, || {
                self.assigned().map(Some)
            })
    }

    /// Every Service has the address it had, is answered for by one node alone, and serves.
    fn works(&self, who: &str, addresses: &Addresses) -> Result<()> {
        let now = self.assigned()?;
        ensure!(now == *addresses, "{who}: {now:?} was {addresses:?}");
        let targets: Vec<_> = addresses.values().copied().collect();
        let owners = self.world.wait_for(
            &format!("{who}: one answer for every address"),
            PATIENCE,
            || {
                let heard = Probe::for_a_while(self.world, CLIENT, &targets, WHILE)?;
                let several = heard.iter().find(|(_, heard)| heard.by.len() != 1);
                ensure!(several.is_none(), "so far: {several:?}");
                Ok(Some(heard))
            },
        )?;
        let agree = self.in_order(&owners)?;
        eprintln!(
            "{who}: {} addresses, each answered by one node, {agree} of them by the first in the election's order",
            owners.len()
        );
        for address in targets.iter().step_by(targets.len().div_ceil(3)) {
            self.world.fetch(*address)?;
        }
        Ok(())
    }

    /// How many addresses are answered by the node our order puts first.
    fn in_order(&self, owners: &BTreeMap<Ipv4Addr, Heard>) -> Result<usize> {
        let nodes = self.world.nodes();
        let mut agree = 0;
        for (address, heard) in owners {
            let names = nodes.iter().map(String::as_str);
            let owner = first(names, &address.to_string()).context("no nodes")?;
            let owner = self.world.mac(owner)?;
            agree += usize::from(heard.by.iter().any(|mac| mac.to_string() == owner));
        }
        Ok(agree)
    }

    /// Widens the pool by `ranges`: a Service that asks for `wanted`, which is there only now, gets it. Returns what
    /// every Service has then. Where there is a webhook, a pool it must refuse is refused.
    fn edit(&self, ranges: &[&str], wanted: &str) -> Result<Addresses> {
        let ranges: Vec<_> = std::iter::once(POOL)
            .chain(ranges.iter().copied())
            .collect();
        self.world.configure(&[("swap", &ranges)])?;
        let name = format!("wants-{}", wanted.replace('.', "-"));
        let service = balancer(&name, json!({"loadBalancerIP": wanted}));
        self.world.apply(&service.to_string())?;
        let address = service::address(self.world, &name)?;
        ensure!(address == wanted, "{name} got {address}");
        if self.world.setup()?.has_resources() {
            let spec = json!({"addresses": ["192.168.99.190-192.168.99.191"]});
            let said = self.world.refused("IPAddressPool", "clash", spec)?;
            ensure!(
                said.contains("denied the request") && said.contains("overlaps"),
                "{said}"
            );
        }
        self.all_assigned()
    }

    /// Exchanges what runs for `who` by `change`, asking for every address all the while until it works, and says how long
    /// any was without an answer.
    fn exchange(
        &self,
        who: &str,
        addresses: &Addresses,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let targets: Vec<_> = addresses.values().copied().collect();
        let probe = Probe::start(self.world, CLIENT, &targets)?;
        let begun = Instant::now();
        let swapped = change();
        let took = begun.elapsed();
        let works = swapped.and_then(|()| self.works(who, addresses));
        let heard = probe.stop()?;
        works?;
        let mut silences: Vec<_> = heard.values().map(|heard| heard.silence).collect();
        silences.sort();
        let longest = silences.last().copied().unwrap_or_default();
        let middle = silences
            .get(silences.len() / 2)
            .copied()
            .unwrap_or_default();
        let silent = silences.iter().filter(|time| **time > ROUND * 4).count();
        let doubled: Vec<_> = heard.values().map(|heard| heard.doubled).collect();
        let twice = doubled.iter().filter(|rounds| **rounds > 0).count();
        let most = u32::try_from(doubled.iter().max().copied().unwrap_or_default())?;
        let seen: BTreeSet<_> = heard.values().flat_map(|heard| &heard.by).collect();
        eprintln!(
            "swapped for {who} in {:.0} s: an address went unanswered for at most {} ms (the middle one {} ms, asked \
             every {} ms); {silent} of {} for more than {} ms; {twice} were answered by two nodes at once, for {} ms \
             at most; {} nodes answered",
            took.as_secs_f64(),
            longest.as_millis(),
            middle.as_millis(),
            ROUND.as_millis(),
            targets.len(),
            (ROUND * 4).as_millis(),
            (ROUND * most).as_millis(),
            seen.len(),
        );
        Ok(())
    }
}

fn balancer(name: &str, extra: Value) -> Value {
    let mut object = service::balancer(name, &json!({"e2e": "yes"}), &extra);
    if let Some(selector) = object.pointer_mut("/spec/selector") {
        *selector = json!({"app": "swap"});
    }
    object
}
