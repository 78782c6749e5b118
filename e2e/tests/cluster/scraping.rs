//! A real Prometheus scrapes both daemons by the jobs we ship, evaluates the alerts we ship, answers everything the
//! dashboard asks, and finds exactly the series docs/metrics.md tells of.

use std::fs;

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    deploy::{self, PATIENCE, manifests, metrics, project},
    observe::{
        exposition::Exposition,
        queries::{is_of_gateway, panels},
        scraper::{HOST, Scraper, with_rights},
    },
};
use serde_json::{Value, json};

use crate::world::World;

/// The jobs for our daemons.
const JOBS: &[&str] = &["standalone/scrape.yaml"];
/// A host on the LAN that is no node, and the address it takes for itself.
const STRANGER: &str = "cp";
const TAKEN: &str = "192.168.99.101";
/// What is refused: no address is like this.
const NONSENSE: &str =
    "address-pools:\n- {name: default, protocol: layer2, addresses: [192.168.99.300/28]}\n";

/// Plain HTTP on 7472, as our manifests and the ConfigMap's era have it; an alert about a refused configuration.
pub fn plain_http_and_an_alert(world: &World) -> Result<()> {
    with_rights(world, &["standalone/rights.yaml"], || {
        let server = Server::start(world)?;
        server.scrapes("http://", "7472")?;
        server.answers()?;
        server.alerts()
    })
}

/// HTTPS on 9120 with a token, as MetalLB's newest manifests have it.
pub fn https_with_a_token(world: &World) -> Result<()> {
    with_rights(
        world,
        &["standalone/rights.yaml", "https/rights.yaml"],
        || {
            let server = Server::start(world)?;
            server.scrapes("https://", "9120")?;
            server.answers()
        },
    )
}

/// A Prometheus, and the cluster it scrapes.
struct Server<'a> {
    world: &'a World,
    scraper: Scraper<'a>,
}

impl<'a> Server<'a> {
    fn start(world: &'a World) -> Result<Self> {
        let scraper = Scraper::start(world, JOBS)?;
        Ok(Self { world, scraper })
    }

    /// It scrapes the controller and every speaker, in this way; what they serve is what the documentation says.
    fn scrapes(&self, scheme: &str, port: &str) -> Result<()> {
        let world = self.world;
        // Something to be seen of every series.
        world.echo("scraped", HOST)?;
        let address = world.balanced("scraped", json!({}))?;
        let owner = world.owner(address)?;
        world.fetch(address)?;
        let of_the_stranger = |verb| {
            let address = format!("{TAKEN}/32");
            world.read(STRANGER, &["ip", "address", verb, &address, "dev", "eth0"])
        };
        of_the_stranger("add")?;
        let served = self.serves(scheme, port);
        of_the_stranger("del")?;
        served?;
        // And it is in Prometheus as it is on the wire.
        let seen = format!(
            "metallb_speaker_announced{{ip=\"{address}\",node=\"{owner}\",service=\"default/scraped\",job=~\"metallb.*\"}} == 1"
        );
        world.wait(&format!("{seen} in Prometheus"), PATIENCE, || {
            Ok(self.scraper.query(&seen)?.len() == 1)
        })
    }

    /// The pages it scrapes have what the documentation says.
    fn serves(&self, scheme: &str, port: &str) -> Result<()> {
        let world = self.world;
        // Without an endpoint nobody would ask for it.
        world.echo("taken", HOST)?;
        world.balancer("taken", json!({"loadBalancerIP": TAKEN}))?;
        let conflict = format!("ferrolb_layer2_address_conflict{{ip=\"{TAKEN}\"}} == 1");
        world.wait(&format!("{conflict} in Prometheus"), PATIENCE, || {
            Ok(!self.scraper.query(&conflict)?.is_empty())
        })?;
        let targets = world.wait_for("every scrape to work", PATIENCE, || {
            let targets = self.scraper.targets()?;
            let text = |target: &Value, pointer: &str| {
                let text = target.pointer(pointer).and_then(Value::as_str);
                text.unwrap_or_default().to_owned()
            };
            let found: Vec<_> = targets
                .iter()
                .map(|target| {
                    let daemon = text(target, "/labels/container");
                    (daemon, text(target, "/scrapeUrl"), text(target, "/health"))
                })
                .collect();
            let of = |daemon: &str| found.iter().filter(|(is, ..)| is == daemon).count();
            ensure!(
                of("controller") == 1
                    && of("speaker") == world.nodes().len()
                    && found.len() == 1 + of("speaker")
                    && found.iter().all(|(_, _, health)| health == "up"),
                "{targets:#?}"
            );
            Ok(Some(found))
        })?;
        let mut served = [Exposition::default(), Exposition::default()];
        for (daemon, url, _) in targets {
            ensure!(
                url.starts_with(scheme) && url.contains(&format!(":{port}/")),
                "{daemon} is scraped at {url}"
            );
            let page = self.scraper.page(&url)?;
            let [controller, speakers] = &mut served;
            let of = if daemon == "controller" {
                controller
            } else {
                speakers
            };
            of.add(&page);
        }
        let rows = fs::read_to_string(project().join("docs/metrics.md"))?;
        let rows = metrics::documented(&rows)?;
        let differences: Vec<_> = ["controller", "speaker"]
            .into_iter()
            .zip(&served)
            .flat_map(|(daemon, served)| metrics::differences(&rows, daemon, served))
            .collect();
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        Ok(())
    }

    /// Everything the dashboard asks about us is answered with at least one series.
    fn answers(&self) -> Result<()> {
        // A reason to be silent that is not the normal one: an address nobody can have.
        let foreign = json!({"loadBalancerIP": "203.0.113.1"});
        self.world.balancer("waits", foreign)?;
        let dashboard = fs::read_to_string(manifests("grafana/ferrolb.json"))?;
        for mut panel in panels(&dashboard)? {
            panel.expressions.retain(|asked| !is_of_gateway(asked));
            self.scraper.answers(&panel)?;
        }
        Ok(())
    }

    /// A refused configuration raises its alerts, its repair ends them.
    fn alerts(&self) -> Result<()> {
        let world = self.world;
        let wanted = ["MetalLBStaleConfig", "FerroLBConfigProblems"];
        let controller = deploy::controller_pod(world)?;
        let firing = || -> Result<Vec<String>> {
            let alerts = self.scraper.alerts()?;
            let fires = |alert: &&Value| {
                alert.get("state") == Some(&json!("firing"))
                    && alert.pointer("/labels/pod") == Some(&json!(controller))
            };
            let names = alerts.iter().filter(fires);
            let names = names.filter_map(|alert| alert.pointer("/labels/alertname")?.as_str());
            Ok(names.map(str::to_owned).collect())
        };
        let count = || -> Result<usize> {
            let firing = firing()?;
            Ok(wanted
                .iter()
                .filter(|name| firing.iter().any(|is| is == *name))
                .count())
        };
        ensure!(count()? == 0, "before there is a reason: {:?}", firing()?);
        deploy::configure(world, NONSENSE)?;
        world.wait("the alerts about a refused configuration", PATIENCE, || {
            ensure!(count()? == wanted.len(), "firing: {:?}", firing()?);
            Ok(true)
        })?;
        world.configure(&[("custom-ip-space", &[crate::world::CLASSIC])])?;
        world.wait("the alerts to end with their reason", PATIENCE, || {
            Ok(count()? == 0)
        })
    }
}
