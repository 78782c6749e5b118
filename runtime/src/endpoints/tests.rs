//! What each era's manifests come to, and the ports as their clients find them.

use std::collections::BTreeMap;

use clap::Parser;

use super::*;
use crate::{
    flags,
    testing::{ask_plain, ask_secure, silent_client},
};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    shared: Shared,
}

fn shared(line: &str) -> Shared {
    let words = ["x"].into_iter().chain(line.split_whitespace());
    flags::read::<Args>(words.map(str::to_owned), &BTreeMap::new())
        .expect(line)
        .args
        .shared
}

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const SPEAKER: Daemon = Daemon::Speaker { host: Some(HOST) };

fn plan(line: &str, daemon: Daemon) -> Plan {
    Plan::new(&shared(line), daemon).expect(line)
}

#[test]
fn the_scheme_is_that_of_the_era() {
    use Scheme::{Both, Http, Https};
    for (line, controller, speaker) in [
        ("", Both, Both),
        // 0.7 to 0.12.
        ("--port=7472 --config=config", Http, Http),
        ("--port=9120 --config=config", Http, Http),
        // 0.13 to 0.15.
        ("--port=7472 --log-level=info", Both, Both),
        ("--port=7472 --tls-min-version=VersionTLS12", Both, Https),
        // 0.16, and its chart with a port of one's own.
        ("--port=9120 --log-level=info", Https, Https),
        ("--port=8080", Both, Both),
        ("--port=8080 --metrics-cert-dir=/etc/metrics", Https, Https),
        ("--port=8080 --tls-curve-preferences=29", Https, Https),
        ("--port=8080 --health-probe-port=17472", Https, Https),
        // Ours.
        ("--port=9120 --metrics-scheme=http", Http, Http),
        ("--port=9120 --metrics-scheme=both", Both, Both),
        (
            "--port=7472 --config=c --metrics-scheme=https",
            Https,
            Https,
        ),
        ("--port=7472 --config=c --metrics-scheme=auto", Http, Http),
    ] {
        for (daemon, scheme) in [(Daemon::Controller, controller), (SPEAKER, speaker)] {
            let (_, planned) = plan(line, daemon).metrics.unwrap();
            assert_eq!(planned, scheme, "{line} {daemon:?}");
        }
    }
    let error = Plan::new(&shared("--metrics-scheme=ftp"), SPEAKER).unwrap_err();
    assert_eq!(error, FlagError::Scheme("ftp".to_owned()));
}

#[test]
fn the_ports_and_where_they_are_bound() {
    let place = |host, port, asked, flag| Place {
        host,
        port,
        asked,
        flag,
    };
    let none = plan("", Daemon::Controller);
    let (metrics, _) = none.metrics.unwrap();
    assert_eq!(metrics, place(None, 7472, false, "--port"));
    let health = place(None, 17472, false, "--health-probe-port");
    assert_eq!(none.health, Some(health));

    let old = plan("--port=80 --config=config", SPEAKER);
    let (metrics, _) = old.metrics.unwrap();
    assert_eq!(metrics, place(Some(HOST), 80, true, "--port"));
    let loopback = Some(Ipv4Addr::LOCALHOST.into());
    let health = place(loopback, 17472, false, "--health-probe-port");
    assert_eq!(old.health, Some(health), "served in addition");

    let new = plan("--port=9120 --health-probe-port=1", SPEAKER);
    let (metrics, _) = new.metrics.unwrap();
    let everywhere = place(None, 9120, true, "--port");
    assert_eq!(metrics, everywhere, "0.16 ignores --host");
    let health = place(loopback, 1, true, "--health-probe-port");
    assert_eq!(new.health, Some(health));

    let off = plan("--port=0 --health-probe-port=0", SPEAKER);
    assert!(off.metrics.is_none() && off.health.is_none());
}

/// A port nobody listens on at the moment.
async fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

fn local(line: &str) -> (Shared, Daemon) {
    let host = Some(Ipv4Addr::LOCALHOST.into());
    (shared(line), Daemon::Speaker { host })
}

fn registry() -> Registry {
    let registry = Registry::new();
    let gauge = prometheus::IntGauge::new("a_series", "For the test.").unwrap();
    registry.register(Box::new(gauge)).unwrap();
    registry
}

#[tokio::test]
async fn metrics_and_probes_as_the_old_and_the_new_manifests_ask_for_them() {
    let (port, health) = (free().await, free().await);
    let line = format!("--port={port} --health-probe-port={health} --config=c");
    let (flags, daemon) = local(&line);
    let endpoints = Endpoints::open(&flags, daemon).await.unwrap();
    let bound = endpoints.addresses().map(|address| address.unwrap().port());
    assert_eq!(bound, [port, health]);
    let ready = Ready::new();
    let lists = ready.wait_for("lists");
    let pulse = ready.pulse("responder", Duration::ZERO);
    let client = silent_client();
    tokio::spawn(endpoints.serve(registry(), ready.clone(), client));

    let metrics = ask_plain(port, "/metrics").await.unwrap();
    assert!(metrics.contains("\na_series 0\n"), "{metrics}");
    assert!(
        ask_plain(health, "/metrics")
            .await
            .unwrap()
            .contains(" 404 ")
    );
    tokio::time::sleep(Duration::from_millis(1)).await;
    for port in [port, health] {
        let waiting = ask_plain(port, "/readyz").await.unwrap();
        assert!(
            waiting.contains(" 503 ") && waiting.contains("for lists"),
            "{waiting}"
        );
        let silent = ask_plain(port, "/healthz").await.unwrap();
        assert!(
            silent.contains(" 503 ") && silent.contains("from responder"),
            "{silent}"
        );
    }
    drop((lists, pulse));
    for port in [port, health] {
        for path in ["/readyz", "/healthz"] {
            let fine = ask_plain(port, path).await.unwrap();
            assert!(
                fine.contains(" 200 ") && fine.ends_with("\r\n\r\nok"),
                "{fine}"
            );
        }
    }
}

#[tokio::test]
async fn https_says_nothing_without_a_token() {
    let port = free().await;
    let line = format!("--port={port} --health-probe-port=0 --metrics-scheme=https");
    let endpoints = Endpoints::open(&shared(&line), SPEAKER).await.unwrap();
    tokio::spawn(endpoints.serve(registry(), Ready::new(), silent_client()));
    let plain = ask_plain(port, "/metrics").await.unwrap();
    assert!(plain.contains(" 400 "), "{plain}");
    for path in ["/metrics", "/readyz", "/"] {
        let answer = ask_secure(port, path).await.unwrap();
        assert!(answer.contains(" 401 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_port_asked_for_must_be_had() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    for flag in ["--port", "--health-probe-port"] {
        let other = if flag == "--port" {
            "--health-probe-port"
        } else {
            "--port"
        };
        let (flags, daemon) = local(&format!("{flag}={port} {other}=0 --metrics-scheme=http"));
        let error = Endpoints::open(&flags, daemon)
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(flag) && error.contains(&port.to_string()),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_not_asked_for_is_had_as_soon_as_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Place {
        host: Some(Ipv4Addr::LOCALHOST.into()),
        port: taken.local_addr().unwrap().port(),
        asked: false,
        flag: "--health-probe-port",
    };
    let door = Door::open(place).await.unwrap();
    assert!(door.listener.is_none());
    let serving = tokio::spawn(door.serve(Site::plain(admin::probes(Ready::new()))));
    tokio::time::sleep(3 * AGAIN).await;
    drop(taken);
    tokio::time::sleep(AGAIN).await;
    // A clock that runs ahead whenever nothing happens would run into the server's patience.
    tokio::time::resume();
    let answer = ask_plain(place.port, "/healthz").await.unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
    serving.abort();
}

#[tokio::test]
async fn a_certificate_directory_must_hold_one() {
    let line = "--port=0 --health-probe-port=0 --metrics-cert-dir=/nowhere";
    let error = Endpoints::open(&shared(line), SPEAKER).await.err().unwrap();
    let error = error.to_string();
    assert!(
        error.contains("--metrics-cert-dir") && error.contains("tls.crt"),
        "{error}"
    );
}
