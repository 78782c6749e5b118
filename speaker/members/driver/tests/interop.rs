//! Clusters of our members and of HashiCorp's own (`e2e/gopeer`) on the loopback. Needs Go, which builds the peer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod go;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ferrolb_speaker_members::{Key, Profile, Status};
use ferrolb_speaker_members_driver::{Gossip, Settings};
use go::GoPeer;

/// No wait is longer: only what hangs gets near it.
const PATIENCE: Duration = Duration::from_secs(30);
/// With [`quick`]: probe 0.2 s, suspicion 0.8 s, and what other things there are to do on the machine.
const QUICK_DEATH: Duration = Duration::from_secs(10);

/// Five times as fast as the LAN profile; `go::TUNING` says the same to Go.
fn quick() -> Profile {
    Profile {
        tcp_timeout: Duration::from_secs(2),
        probe_interval: Duration::from_millis(200),
        probe_timeout: Duration::from_millis(100),
        gossip_interval: Duration::from_millis(50),
        push_pull_interval: Duration::from_secs(2),
        gossip_to_the_dead_time: Duration::from_secs(20),
        ..Profile::lan()
    }
}

async fn ours(name: &str, bind: &str, key: Option<&[u8]>, profile: Profile) -> Gossip {
    let settings = Settings {
        node_name: name.to_owned(),
        bind: bind.parse().unwrap(),
        meta: name.as_bytes().to_vec(),
        key: key.map(|key| Key::new(key).unwrap()),
        label: String::new(),
        profile,
    };
    Gossip::start(settings).await.unwrap()
}

fn statuses(gossip: &Gossip) -> Vec<(String, Status)> {
    let members = gossip.members();
    let snapshot = members.borrow().clone();
    snapshot
        .members
        .values()
        .map(|member| (member.name.clone(), member.status))
        .collect()
}

/// Waits until our node holds `name` for `status`.
async fn await_status(gossip: &Gossip, name: &str, status: Status, limit: Duration) -> Duration {
    let started = Instant::now();
    let mut members = gossip.members();
    let found = tokio::time::timeout(
        limit,
        members.wait_for(|snapshot| {
            snapshot
                .members
                .get(name)
                .is_some_and(|m| m.status == status)
        }),
    );
    let found = found.await.is_ok();
    assert!(
        found,
        "{name} is not {status:?} after {limit:?}: {:?}",
        statuses(gossip)
    );
    started.elapsed()
}

/// Waits until the live members are exactly these.
async fn await_live(gossip: &Gossip, names: &[&str], limit: Duration) -> Duration {
    let started = Instant::now();
    let mut members = gossip.members();
    let found = tokio::time::timeout(
        limit,
        members.wait_for(|snapshot| snapshot.live().eq(names.iter().copied())),
    );
    let found = found.await.is_ok();
    assert!(
        found,
        "not {names:?} after {limit:?}: {:?}",
        statuses(gossip)
    );
    started.elapsed()
}

/// Two of Go's and two of ours, in that order by name.
async fn mixed(key: Option<&[u8]>, profile: Profile, tuned: bool) -> ([GoPeer; 2], [Gossip; 2]) {
    let hex = go::hex(key.unwrap_or_default());
    let mut args = vec!["-key", &hex];
    if tuned {
        args.extend(go::TUNED);
    }
    let mut g1 = GoPeer::start("g1", &args).await;
    let g2 = GoPeer::start("g2", &args).await;
    let r1 = ours("r1", "127.0.0.1:0", key, profile.clone()).await;
    let r2 = ours("r2", "127.0.0.1:0", key, profile).await;
    // Each kind joins by the other.
    r1.join(vec![g1.addr]);
    r2.join(vec![g2.addr]);
    g1.join(r2.local_addr()).await;
    for gossip in [&r1, &r2] {
        await_live(gossip, &["g1", "g2", "r1", "r2"], PATIENCE).await;
    }
    for peer in [&g1, &g2] {
        peer.await_live(&["g1", "g2", "r1", "r2"], PATIENCE).await;
    }
    // Go passes our metadata on, and has none itself.
    for (name, meta) in [("r1", &b"r1"[..]), ("r2", b"r2"), ("g1", b"")] {
        assert_eq!(r2.members().borrow().members[name].meta, meta);
    }
    ([g1, g2], [r1, r2])
}

/// Kills one of Go's, then one of ours, and prints how long the others took.
async fn kill_one_of_each(
    key: Option<&[u8]>,
    profile: Profile,
    tuned: bool,
    limit: Duration,
    what: &str,
) {
    let ([g1, g2], [r1, r2]) = mixed(key, profile, tuned).await;
    let killed = Instant::now();
    g2.kill().await;
    await_status(&r1, "g2", Status::Dead, limit).await;
    let first = killed.elapsed();
    await_status(&r2, "g2", Status::Dead, limit).await;
    let second = killed.elapsed();
    g1.await_live(&["g1", "r1", "r2"], limit).await;
    println!(
        "{what}: Go's node dead for ours after {first:?} and {second:?}, for Go after {:?}",
        killed.elapsed()
    );

    let killed = Instant::now();
    drop(r2);
    await_status(&r1, "r2", Status::Dead, limit).await;
    let first = killed.elapsed();
    g1.await_live(&["g1", "r1"], limit).await;
    println!(
        "{what}: our node dead for ours after {first:?}, for Go after {:?}",
        killed.elapsed()
    );
}

#[tokio::test]
async fn a_killed_node_of_either_kind_is_found_out_by_both() {
    kill_one_of_each(None, quick(), true, QUICK_DEATH, "quick").await;
}

#[tokio::test]
async fn a_killed_node_of_either_kind_is_found_out_by_the_lan_profile() {
    let limit = Duration::from_secs(25);
    kill_one_of_each(Some(&[7; 32]), Profile::lan(), false, limit, "LAN, sealed").await;
}

#[tokio::test]
async fn a_leaving_node_of_either_kind_has_left() {
    let ([g1, g2], [r1, r2]) = mixed(Some(&[7; 16]), quick(), true).await;
    g2.leave().await;
    for gossip in [&r1, &r2] {
        await_status(gossip, "g2", Status::Left, PATIENCE).await;
    }
    let started = Instant::now();
    r2.leave().await;
    println!("our node took {:?} to leave", started.elapsed());
    await_status(&r1, "r2", Status::Left, PATIENCE).await;
    let heard = g1.await_live(&["g1", "r1"], PATIENCE).await;
    assert!(
        heard < Duration::from_millis(700),
        "told, not found out: {heard:?}"
    );
}

#[tokio::test]
async fn other_keys_are_refused_both_ways() {
    let key = go::hex(&[7; 32]);
    let sealed_args: Vec<&str> = [&["-key", &key][..], &go::TUNED].concat();
    let mut sealed = GoPeer::start("sealed", &sealed_args).await;
    let mut open = GoPeer::start("open", &go::TUNED).await;
    let other = ours("other", "127.0.0.1:0", Some(&[8; 32]), quick()).await;
    let none = ours("none", "127.0.0.1:0", None, quick()).await;
    let same = ours("same", "127.0.0.1:0", Some(&[7; 32]), quick()).await;
    for gossip in [&other, &none] {
        gossip.join(vec![sealed.addr]);
        sealed.join(gossip.local_addr()).await;
    }
    // Without a key, `none` and `open` are one cluster; the three with keys are not of it.
    other.join(vec![open.addr, none.local_addr()]);
    open.join(other.local_addr()).await;
    none.join(vec![other.local_addr(), open.addr]);
    same.join(vec![sealed.addr, other.local_addr()]);
    await_live(&none, &["none", "open"], PATIENCE).await;
    await_live(&same, &["same", "sealed"], PATIENCE).await;
    // Long enough for everything that was asked for above, and for gossip to spread it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    await_live(&other, &["other"], PATIENCE).await;
    await_live(&none, &["none", "open"], PATIENCE).await;
    await_live(&same, &["same", "sealed"], PATIENCE).await;
    sealed.await_live(&["same", "sealed"], PATIENCE).await;
    open.await_live(&["none", "open"], PATIENCE).await;
}

#[tokio::test]
async fn a_stopped_node_of_go_is_given_up_and_taken_back() {
    let ([g1, g2], [r1, r2]) = mixed(None, quick(), true).await;
    g2.stop();
    for gossip in [&r1, &r2] {
        await_status(gossip, "g2", Status::Dead, QUICK_DEATH).await;
    }
    g1.await_live(&["g1", "r1", "r2"], QUICK_DEATH).await;
    g2.go_on();
    // As MetalLB does every minute; the stopped node may have given up all others when it woke.
    for gossip in [&r1, &r2] {
        gossip.join(vec![g2.addr, g1.addr]);
    }
    for gossip in [&r1, &r2] {
        await_live(gossip, &["g1", "g2", "r1", "r2"], PATIENCE).await;
    }
    for peer in [&g1, &g2] {
        peer.await_live(&["g1", "g2", "r1", "r2"], PATIENCE).await;
    }
}

#[tokio::test]
async fn padded_seals_and_labels_of_go_are_understood() {
    // By version 1 of the protocol Go takes its own port for everyone's: same port, other addresses.
    let key = [9; 16];
    let r1 = ours("r1", "127.0.0.3:0", Some(&key), quick()).await;
    let (hex, port) = (go::hex(&key), r1.local_addr().port().to_string());
    let args = [
        "-key",
        &hex,
        "-protocol",
        "1",
        "-bind",
        "127.0.0.2",
        "-port",
        &port,
    ];
    let old = GoPeer::start("old", &[&args[..], &go::TUNED].concat()).await;
    r1.join(vec![old.addr]);
    await_live(&r1, &["old", "r1"], PATIENCE).await;
    old.await_live(&["old", "r1"], PATIENCE).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    await_live(&r1, &["old", "r1"], PATIENCE).await;
    old.await_live(&["old", "r1"], PATIENCE).await;

    let settings = Settings {
        node_name: "r2".to_owned(),
        bind: "127.0.0.1:0".parse().unwrap(),
        meta: Vec::new(),
        key: Some(Key::new(&key).unwrap()),
        label: "blue".to_owned(),
        profile: quick(),
    };
    let r2 = Gossip::start(settings).await.unwrap();
    let args = [&["-key", &hex, "-label", "blue"][..], &go::TUNED].concat();
    let mut blue = GoPeer::start("blue", &args).await;
    blue.join(r2.local_addr()).await;
    r2.join(vec![r1.local_addr()]);
    await_live(&r2, &["blue", "r2"], PATIENCE).await;
    blue.await_live(&["blue", "r2"], PATIENCE).await;
    await_live(&r1, &["old", "r1"], PATIENCE).await;
}

#[tokio::test]
async fn ipv6_members_meet() {
    let r1 = ours("r1", "[::1]:0", None, quick()).await;
    let args = [&["-bind", "::1"][..], &go::TUNED].concat();
    let mut g1 = GoPeer::start("g1", &args).await;
    assert!(matches!(g1.addr, SocketAddr::V6(_)));
    g1.join(r1.local_addr()).await;
    await_live(&r1, &["g1", "r1"], PATIENCE).await;
    g1.await_live(&["g1", "r1"], PATIENCE).await;
    g1.kill().await;
    await_status(&r1, "g1", Status::Dead, QUICK_DEATH).await;
}
