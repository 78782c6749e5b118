//! Real Istio on a real cluster with FerroLB: its ingress gateway, the Gateway API and Ingress, all asked by a client on
//! the same LAN through the addresses that FerroLB gave. One lab serves all tests, one after the other;
//! `cargo test -p ferrolb-e2e --test istio -- NAME` runs some. `KEEP=1` leaves the lab up, `REUSE=1` takes such a one;
//! `LAB=name` names it (istio otherwise).
// A test's question stands in its function; what it shows is the function's name.
#![allow(
    missing_docs,
    reason = "a test binary has no readers of its items but this file"
)]

mod addresses;
mod analysis;
mod dashboard;
mod gateway_api;
mod objects;
mod routes;
mod sidecars;
mod tls;
mod walkthroughs;
mod world;

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use world::World;

/// A test: it gets the cluster, cleaned.
type Test = fn(&World) -> anyhow::Result<()>;

macro_rules! tests {
    ($($room:ident: $($name:ident),+;)+) => { &[$($((concat!(stringify!($room), "::", stringify!($name)), $room::$name as Test)),+),+] };
}

/// All of them, in order; the last one takes a node away for a while.
const TESTS: &[(&str, Test)] = tests! {
    walkthroughs: httpbin_behind_the_ingress_gateway, hostname_echo_behind_a_gateway;
    routes: by_host_and_path, by_headers_and_with_headers_changed, delays_aborts_and_timeouts;
    tls: terminated_at_the_gateway, passed_through_by_name;
    sidecars: an_injected_application_is_reached_by_mutual_tls;
    analysis: what_was_applied_is_clean;
    dashboard: address_owner_and_gateway_traffic_together;
    gateway_api: a_gateway_makes_its_own_service, one_address_may_be_asked_for, an_address_that_cannot_be_had_is_said,
        an_ingress_shows_the_gateways_address;
    addresses: local_policy_keeps_the_clients_address, two_gateways_share_an_address,
        the_announcing_node_fails_under_load;
};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One cluster, and tests that break it.
    arguments.test_threads = Some(1);
    let world = if arguments.list {
        None
    } else {
        match World::raise() {
            Ok(world) => Some(Arc::new(world)),
            Err(error) => {
                eprintln!("the cluster cannot be raised: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    };
    let trials = TESTS
        .iter()
        .map(|&(name, test)| {
            let world = world.clone();
            Trial::test(name, move || {
                let world = world.ok_or("no cluster")?;
                eprintln!("--- {name}");
                world
                    .clean()
                    .and_then(|()| test(&world))
                    .map_err(|error| Failed::from(format!("{error:#}")))
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(Ok(world)) = world.map(Arc::try_unwrap)
        && let Err(error) = world.end()
    {
        eprintln!("the lab did not go cleanly: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
