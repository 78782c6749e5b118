//! The main job on a real cluster: real API server, kubelets, containers and kube-proxy, a client on the
//! same LAN. One lab serves all tests, one after the other; `cargo test -p ferrolb-e2e --test cluster -- NAME` runs some.
// A test's question stands in its function; what it shows is the function's name.
#![allow(
    missing_docs,
    reason = "a test binary has no readers of its items but this file"
)]

mod addresses;
mod configuration;
mod era;
mod labs;
mod takeover;
mod wire;
mod world;

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use world::World;

/// A test: it gets the cluster, cleaned.
type Test = fn(&World) -> anyhow::Result<()>;

macro_rules! tests {
    ($($room:ident: $($name:ident),+;)+) => { &[$($((concat!(stringify!($room), "::", stringify!($name)), $room::$name as Test)),+),+] };
}

// The first one needs a cluster that was never configured.
const TESTS: &[(&str, Test)] = tests! {
    configuration: absent_at_start_waits_and_says_so, bad_edit_is_refused_whole_and_a_repair_taken_up,
        an_edit_that_drops_a_used_address_is_refused;
    addresses: first_of_a_masked_cidr, first_of_a_range, two_pools_in_order, requested_address_granted_and_refused,
        exhausted_pool_serves_the_waiting_when_freed, deletion_frees, change_of_type_clears,
        survives_a_killed_controller, survives_an_api_server_restart, a_nodes_own_address_is_never_given;
    wire: one_node_answers_arping_and_the_kernel, nobody_answers_for_what_is_not_held, bad_frames_are_dropped_and_counted,
        http_through_the_address, ipv6_is_answered;
    takeover: local_traffic_policy_follows_the_endpoints, speaker_killed_in_place_answers_again,
        speaker_gone_another_node_answers, node_unplugged_another_node_answers;
    era: rights_of_the_configmap_era_are_enough;
    labs: side_by_side_and_gone_without_a_trace;
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
        .map(|(name, test)| {
            let world = world.clone();
            Trial::test(*name, move || {
                let world = world.ok_or("no cluster")?;
                run(&world, name, *test).map_err(|error| Failed::from(format!("{error:#}")))
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

fn run(world: &World, name: &str, test: Test) -> anyhow::Result<()> {
    eprintln!("--- {name}");
    // Cleaning configures, and the first test is about not being configured.
    if name != TESTS.first().map_or("", |(first, _)| first) {
        world.clean()?;
    }
    test(world)
}
