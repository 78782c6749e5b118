//! Our own members among themselves, and what others may throw at them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use ferrolb_speaker_members::{Key, LabelTooLong, Profile, Status};
use ferrolb_speaker_members_driver::{Gossip, Settings, StartError};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

/// No wait is longer: only what hangs gets near it.
const PATIENCE: Duration = Duration::from_secs(30);

fn settings(name: &str) -> Settings {
    Settings {
        node_name: name.to_owned(),
        bind: "127.0.0.1:0".parse().unwrap(),
        meta: Vec::new(),
        key: Some(Key::new(&[1; 32]).unwrap()),
        label: String::new(),
        profile: Profile {
            tcp_timeout: Duration::from_secs(1),
            ..Profile::lan()
        },
    }
}

async fn await_status(gossip: &Gossip, name: &str, status: Status) {
    let mut members = gossip.members();
    let found = members.wait_for(|all| all.members.get(name).is_some_and(|m| m.status == status));
    tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let unspecified = Settings {
        bind: "0.0.0.0:0".parse().unwrap(),
        ..settings("a")
    };
    assert!(matches!(
        Gossip::start(unspecified).await,
        Err(StartError::Unspecified(_))
    ));
    assert!(matches!(
        Gossip::start(settings("")).await,
        Err(StartError::NoName)
    ));
    let label = Settings {
        label: "x".repeat(256),
        ..settings("a")
    };
    assert!(matches!(
        Gossip::start(label).await,
        Err(StartError::Label(LabelTooLong(256)))
    ));
    let meta = Settings {
        meta: vec![0; 513],
        ..settings("a")
    };
    assert!(matches!(
        Gossip::start(meta).await,
        Err(StartError::MetaTooLong(513))
    ));
    let first = Gossip::start(settings("a")).await.unwrap();
    let second = Settings {
        bind: first.local_addr(),
        ..settings("b")
    };
    assert!(matches!(
        Gossip::start(second).await,
        Err(StartError::Bind { .. })
    ));
}

#[tokio::test]
async fn a_port_is_free_again_after_leaving() {
    let first = Gossip::start(settings("a")).await.unwrap();
    let addr = first.local_addr();
    first.leave().await;
    let second = Gossip::start(Settings {
        bind: addr,
        ..settings("a")
    })
    .await
    .unwrap();
    await_status(&second, "a", Status::Alive).await;
}

#[tokio::test]
async fn noise_and_silence_keep_nobody_out() {
    let a = Gossip::start(settings("a")).await.unwrap();
    // More streams than are served at a time: some say nothing, some nonsense, some promise more than is allowed.
    let mut streams = Vec::new();
    for n in 0..60u8 {
        let mut stream = TcpStream::connect(a.local_addr()).await.unwrap();
        match n % 4 {
            0 => {}
            1 => stream.write_all(&[n; 100]).await.unwrap(),
            2 => stream
                .write_all(&[10, 0xff, 0xff, 0xff, 0xff])
                .await
                .unwrap(),
            _ => stream.write_all(&[10, 0, 1, 0, 0, 1]).await.unwrap(),
        }
        streams.push(stream);
    }
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for n in 0..=255u8 {
        udp.send_to(&vec![n; usize::from(n) * 5], a.local_addr())
            .await
            .unwrap();
    }
    let b = Gossip::start(settings("b")).await.unwrap();
    for _ in 0..10 {
        // The first attempts may meet a queue of those streams, as MetalLB's every minute would.
        b.join(vec![a.local_addr()]);
        let mut members = b.members();
        let joined = members.wait_for(|all| all.members.contains_key("a"));
        if tokio::time::timeout(Duration::from_secs(2), joined)
            .await
            .is_ok()
        {
            break;
        }
    }
    await_status(&a, "b", Status::Alive).await;
    drop(streams);
    b.leave().await;
    await_status(&a, "b", Status::Left).await;
}

#[tokio::test]
async fn the_last_handle_ends_the_gossip() {
    let a = Gossip::start(settings("a")).await.unwrap();
    let mut members = a.members();
    members.wait_for(|all| all.live().eq(["a"])).await.unwrap();
    drop(a);
    let closed = async { while members.changed().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
}
