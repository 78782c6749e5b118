//! The main job on a real cluster: real API server, kubelets, containers and kube-proxy, a client on the
//! same LAN. One lab serves all tests, one after the other; `cargo test -p ferrolb-e2e --test cluster -- NAME` runs some.
//! `KEEP=1` leaves the lab up; `LAB=name` names it (e2e otherwise); `HALF=1` and `HALF=2` run half of the tests each, for
//! two labs side by side; `ON_METALLB=1` runs the tests of custom resources on MetalLB in place of FerroLB.
// A test's question stands in its function; what it shows is the function's name.
#![allow(
    missing_docs,
    reason = "a test binary has no readers of its items but this file"
)]

mod addresses;
mod assignment;
mod classes;
mod configuration;
mod crds;
mod documents;
mod dual_stack;
mod era;
mod failover;
mod helm;
mod interfaces;
mod l2;
mod labs;
mod manifests;
mod metallb;
mod minikube;
mod nodes;
#[path = "../objects/mod.rs"]
mod objects;
mod probe;
mod resources;
mod rights;
mod scraping;
mod selectors;
mod services;
mod states;
mod strangers;
mod swap;
mod takeover;
mod webhooks;
mod wire;
mod world;

use std::{process::ExitCode, sync::Arc};

use ferrolb_e2e::deploy::Setup;
use libtest_mimic::{Arguments, Failed, Trial};
use world::World;

/// A test: it gets the cluster, cleaned.
type Test = fn(&World) -> anyhow::Result<()>;

macro_rules! tests {
    ($($room:ident: $($name:ident),+;)+) => { &[$($((concat!(stringify!($room), "::", stringify!($name)), $room::$name as Test)),+),+] };
}

/// The tests by what they need installed; each change of it takes half a minute.
// The first test needs a cluster that was never configured.
const GROUPS: &[(Setup, &[(&str, Test)])] = &[
    (
        Setup::ConfigMap,
        tests! {
            configuration: absent_at_start_waits_and_says_so, bad_edit_is_refused_whole_and_a_repair_taken_up,
                an_edit_that_drops_a_used_address_is_refused;
            addresses: first_of_a_masked_cidr, first_of_a_range, two_pools_in_order,
                requested_address_granted_and_refused, exhausted_pool_serves_the_waiting_when_freed, deletion_frees,
                change_of_type_clears, survives_a_killed_controller, survives_an_api_server_restart,
                a_nodes_own_address_is_never_given;
            wire: one_node_answers_arping_and_the_kernel, nobody_answers_for_what_is_not_held,
                bad_frames_are_dropped_and_counted, http_through_the_address, ipv6_is_answered;
            takeover: local_traffic_policy_follows_the_endpoints, speaker_killed_in_place_answers_again,
                speaker_gone_another_node_answers, node_unplugged_another_node_answers;
            failover: gossip_blocked_on_a_healthy_lan_one_answers,
                lan_split_off_from_the_api_server_one_on_each_side,
                lan_split_with_the_api_server_at_the_owner_one_on_each_side,
                a_stopped_speaker_that_goes_on_stays_silent, a_deleted_speaker_hands_over_once;
            // After what shows which rights are used, before what exchanges them.
            rights: of_the_base;
            era: rights_of_the_configmap_era_are_enough;
            scraping: plain_http_and_an_alert;
            labs: side_by_side_and_gone_without_a_trace;
            manifests: restricted_is_enough_for_the_controller, everything_is_accepted,
                the_base_becomes_the_overlay_of_custom_resources;
        },
    ),
    (
        Setup::Documented,
        tests! {
            documents: installed_and_tried, symptoms_look_as_described, upgraded_and_removed;
        },
    ),
    (
        Setup::Minikube,
        tests! {
            minikube: enabled_before_it_is_configured, configured_before_it_is_enabled, configured_again_while_in_use,
                limits_of_the_addon_are_enforced, a_speaker_killed_without_grace_answers_again,
                the_first_walkthrough_on_one_node;
        },
    ),
    (
        Setup::MinikubeMetalLb,
        tests! {
            swap: minikubes_and_back;
        },
    ),
    (
        Setup::Crds,
        tests! {
            crds: a_pools_status_counts_its_addresses, only_advertised_pools_are_answered_for;
            interfaces: only_selected_interfaces_answer, an_interface_nobody_has_is_said,
                an_announced_address_leaves_an_interface_for_none;
            states: a_services_status_names_its_node, every_daemon_says_what_it_makes_of_the_configuration;
            webhooks: bad_pools_are_refused, bad_advertisements_are_refused, bad_bgp_objects_are_refused,
                other_namespaces_are_refused;
            assignment: a_freed_address_goes_to_the_waiting, same_addresses_after_controller_restarts,
                sharing_is_reconsidered, services_of_a_deleted_pool_move_or_wait,
                pools_by_namespace_priority_and_labels, pools_by_priority_alone,
                a_relabelled_namespace_uses_other_pools, a_named_pool_serves_who_asks,
                pool_counts_grow_and_are_put_right;
            dual_stack: preferring_takes_what_pools_have, requiring_and_preferring_again,
                preferring_follows_its_own_pool;
            classes: another_class_gets_nothing;
            selectors: the_announcer_follows_the_node_selector, several_advertisements_select_nodes,
                service_selectors_choose_services, service_selectors_and_node_selectors_go_together, preferred_nodes;
            nodes: network_unavailable_moves_and_returns, the_exclude_label_moves_and_returns,
                a_node_without_a_speaker_moves_and_returns;
            scraping: https_with_a_token;
            strangers: a_foreign_holder_is_an_event_and_a_condition_until_it_is_gone,
                a_foreign_holder_that_claims_nothing_is_found_while_the_address_is_held,
                a_service_leaves_a_foreign_holder_for_another_address;
            l2: mixed_protocols_on_one_address, who_shares_an_address_has_one_announcer,
                statuses_deleted_by_hand_come_back, metrics_of_a_service;
        },
    ),
    (
        Setup::Chart,
        tests! {
            helm: a_service_gets_an_address_and_answers;
            rights: of_the_chart;
            helm: uninstalling_leaves_nothing_and_a_release_of_metallbs_becomes_ours_and_back;
        },
    ),
    (
        Setup::MetalLb,
        tests! {
            metallb: owners_are_metallbs;
            swap: newest_and_back;
        },
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One cluster, and tests that break it.
    arguments.test_threads = Some(1);
    let half = std::env::var("HALF").ok();
    let tests = || {
        let groups = GROUPS.iter();
        let groups =
            groups.filter(|(setup, _)| half.as_ref().is_none_or(|half| half_of(*setup) == half));
        groups.flat_map(|&(setup, tests)| {
            let setup = played_by(setup);
            tests.iter().map(move |&(name, test)| (setup, name, test))
        })
    };
    let setups = tests()
        .filter(|(_, name, _)| is_chosen(&arguments, name))
        .map(|(setup, ..)| setup)
        .collect();
    let world = if arguments.list {
        None
    } else {
        match World::raise(&setups) {
            Ok(world) => Some(Arc::new(world)),
            Err(error) => {
                eprintln!("the cluster cannot be raised: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    };
    let trials = tests()
        .map(|(setup, name, test)| {
            let world = world.clone();
            Trial::test(name, move || {
                let world = world.ok_or("no cluster")?;
                run(&world, setup, name, test).map_err(|error| Failed::from(format!("{error:#}")))
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

/// In which half of all tests those of a group are: each takes about as long on a cluster of its own.
fn half_of(setup: Setup) -> &'static str {
    match setup {
        Setup::Crds | Setup::MetalLb => "2",
        _ => "1",
    }
}

/// What is installed for a test that asks for `setup`: with `ON_METALLB=1`, MetalLB itself stands in for FerroLB on its
/// manifest, to see whether what a test demands is what MetalLB does.
fn played_by(setup: Setup) -> Setup {
    let on_metallb = std::env::var("ON_METALLB").is_ok_and(|on| on == "1");
    match setup {
        Setup::Crds if on_metallb => Setup::MetalLb,
        other => other,
    }
}

/// Whether the command line asks for this test.
fn is_chosen(arguments: &Arguments, name: &str) -> bool {
    let fits = |wanted: &String| {
        if arguments.exact {
            name == wanted
        } else {
            name.contains(wanted)
        }
    };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits)
}

fn run(world: &World, setup: Setup, name: &str, test: Test) -> anyhow::Result<()> {
    eprintln!("--- {name}");
    world.install(setup)?;
    // Cleaning configures, and the first test is about not being configured.
    let first = GROUPS.iter().flat_map(|(_, tests)| *tests).next();
    if first.is_none_or(|(first, _)| *first != name) {
        world.clean()?;
    }
    test(world)
}
