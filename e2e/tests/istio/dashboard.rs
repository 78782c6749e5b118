//! The second walkthrough's last step, looking at the mesh: a real Prometheus scrapes our daemons and the gateway's Envoys,
//! and every question of the dashboard's row about gateways has an answer.

use std::fs;

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    deploy::{PATIENCE, manifests},
    istio::{self, INGRESS, NAMESPACE, curl},
    observe::{
        queries::{is_of_gateway, panels},
        scraper::{Scraper, with_rights},
        sole_answerer,
    },
};
use serde_json::Value;

use crate::world::{CLIENT, FIRST, World};

/// What a user would give Prometheus, with Istio.
const JOBS: &[&str] = &["standalone/scrape.yaml", "standalone/scrape-istio.yaml"];
const RIGHTS: &[&str] = &["standalone/rights.yaml", "standalone/rights-istio.yaml"];

pub fn address_owner_and_gateway_traffic_together(world: &World) -> Result<()> {
    istio::apply(world, "hostname-echo-gateway.yaml")?;
    let address = istio::address(world, NAMESPACE, INGRESS)?;
    let owner = sole_answerer(world, CLIENT, address.parse::<std::net::Ipv4Addr>()?, &[])?;
    let url = format!("http://{address}/");
    curl::until(world, CLIENT, 200, &[&url])?;
    with_rights(world, RIGHTS, || {
        let scraper = Scraper::start(world, JOBS)?;
        let dashboard = fs::read_to_string(manifests("grafana/ferrolb.json"))?;
        let row: Vec<_> = panels(&dashboard)?
            .into_iter()
            .filter(|panel| panel.expressions.iter().any(|asked| is_of_gateway(asked)))
            .collect();
        ensure!(row.len() > 3, "a row of {} panels", row.len());
        let announced = format!(
            "metallb_speaker_announced{{service=\"{NAMESPACE}/{INGRESS}\",ip=\"{FIRST}\",node=\"{owner}\"}} == 1"
        );
        world.wait(&format!("{announced} in Prometheus"), PATIENCE, || {
            Ok(scraper.query(&announced)?.len() == 1)
        })?;
        // Rates need requests in between two scrapes.
        let passed = "sum(increase(envoy_http_downstream_rq{response_code_class=\"2xx\"}[1m])) > 0";
        world.wait("the gateway's requests in Prometheus", PATIENCE, || {
            curl::curl(world, CLIENT, &[&url])?;
            Ok(!scraper.query(passed)?.is_empty())
        })?;
        for panel in &row {
            scraper.answers(panel)?;
        }
        let targets = scraper.targets()?;
        let envoys = targets.iter().filter(|target| {
            target.pointer("/labels/job").and_then(Value::as_str) == Some("istio-gateways")
                && target.get("health").and_then(Value::as_str) == Some("up")
        });
        let count = envoys.count();
        ensure!(count >= 2, "{count} gateways are scraped: {targets:#?}");
        Ok(())
    })
}
