//! Lines as Go's package reads them.

use clap::Parser;

use super::*;
use crate::log::LogLevel;

#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    shared: Shared,
    #[arg(long, env = "METALLB_ONE", default_value = "none")]
    one: String,
}

fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn tried(line: &str, variables: &[(&str, &str)]) -> Result<Parsed<Args>, clap::Error> {
    let words = line.split(' ').map(str::to_owned);
    read(words, &environment(variables))
}

fn shared(line: &str) -> Shared {
    tried(line, &[]).expect(line).args.shared
}

#[test]
fn go_spellings_of_one_thing() {
    for line in [
        "x --port=1 --config=c",
        "x -port=1 -config c",
        "x --port 1 --config c",
        "x --port=2 --port=1 --config= --config=c",
    ] {
        let parsed = tried(line, &[]).expect(line);
        let flags = parsed.args.shared;
        assert_eq!(flags.port, Some(1), "{line}");
        assert_eq!(flags.config.as_deref(), Some("c"), "{line}");
        assert_eq!(parsed.unknown, [""; 0], "{line}");
    }
}

#[test]
fn a_value_may_begin_with_a_hyphen_or_be_empty() {
    assert_eq!(shared("x --lb-class -port=1").class(), Some("-port=1"));
    assert_eq!(shared("x --lb-class=").class(), None);
    assert_eq!(shared("x --config=").config_name(), "config");
    assert_eq!(shared("x --lb-class a=b").class(), Some("a=b"));
}

#[test]
fn booleans_take_a_value_only_after_an_equals_sign() {
    for yes in ["", "=true", "=1", "=t", "=T", "=TRUE", "=True"] {
        assert!(shared(&format!("x -enable-pprof{yes}")).enable_pprof);
    }
    for no in ["false", "0", "f", "F", "FALSE", "False"] {
        assert!(!shared(&format!("x --enable-pprof={no}")).enable_pprof);
    }
    let parsed = tried("x --enable-pprof false --port=1", &[]).unwrap();
    assert!(parsed.args.shared.enable_pprof);
    assert_eq!(parsed.unknown, ["false"]);
    assert_eq!(parsed.args.shared.port, Some(1));
}

#[test]
fn values_that_are_none_end_it_with_status_2_and_help_with_0() {
    for line in [
        "x --port=a",
        "x --port=65536",
        "x --port",
        "x --enable-pprof=yes",
    ] {
        let error = tried(line, &[]).err().expect(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.use_stderr(), "{line}");
    }
    for line in ["x -h", "x --help", "x --port=1 -help", "x --version"] {
        let error = tried(line, &[("METALLB_ONE", "1")]).err().expect(line);
        assert_eq!(error.exit_code(), 0, "{line}");
        let text = error.to_string();
        let names_variables = text.contains("METALLB_ONE");
        assert_eq!(names_variables, line.contains('h'), "{text}");
    }
}

#[test]
fn flags_nobody_knows_are_named_and_survived() {
    let parsed = tried(
        "x --future=y --mode enabled --port=9 -z stray - -- --port=1",
        &[],
    )
    .unwrap();
    assert_eq!(parsed.args.shared.port, Some(9));
    assert_eq!(
        parsed.unknown,
        [
            "--future=y",
            "--mode",
            "enabled",
            "-z",
            "stray",
            "-",
            "--",
            "--port=1"
        ]
    );
}

#[test]
fn a_flag_wins_over_a_variable_and_an_empty_variable_is_none() {
    let one = |line, variables: &[_]| tried(line, variables).unwrap().args.one;
    assert_eq!(one("x", &[]), "none");
    assert_eq!(one("x", &[("METALLB_ONE", "")]), "none");
    assert_eq!(one("x", &[("METALLB_ONE", "-v=1 2")]), "-v=1 2");
    assert_eq!(one("x --one=f", &[("METALLB_ONE", "v")]), "f");
    assert_eq!(one("x --one=", &[("METALLB_ONE", "v")]), "");
}

#[test]
fn variables_nobody_knows_are_named() {
    let variables = [
        ("METALLB_ONE", "1"),
        ("METALLB_NAMESPACE", "ns"),
        ("METALLB_BGP_TYPE", "frr"),
        ("METALLB_FUTURE", "1"),
        ("FRR_FUTURE", "1"),
        ("PATH", "/bin"),
        // What Kubernetes tells every pod beside the Service metallb-webhook-service.
        ("METALLB_WEBHOOK_SERVICE_SERVICE_HOST", "10.0.0.1"),
        ("METALLB_WEBHOOK_SERVICE_SERVICE_PORT", "443"),
        ("METALLB_WEBHOOK_SERVICE_PORT", "tcp://10.0.0.1:443"),
        ("METALLB_WEBHOOK_SERVICE_PORT_443_TCP_ADDR", "10.0.0.1"),
    ];
    let parsed = tried("x", &variables).unwrap();
    assert_eq!(parsed.unknown, ["FRR_FUTURE", "METALLB_FUTURE"]);
    assert_eq!(parsed.args.shared.namespace.as_deref(), Some("ns"));
}

#[test]
fn the_namespace_as_each_era_says_it() {
    for line in ["x --namespace=ns", "x --config-ns=ns"] {
        assert_eq!(shared(line).namespace.as_deref(), Some("ns"), "{line}");
    }
}

#[test]
fn levels_by_metallbs_words() {
    for (word, level) in [
        ("all", LogLevel::All),
        ("debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("warn", LogLevel::Warn),
        ("error", LogLevel::Error),
        ("none", LogLevel::None),
    ] {
        assert_eq!(shared(&format!("x --log-level={word}")).level(), Ok(level));
    }
    assert_eq!(shared("x").level(), Ok(LogLevel::Info));
    let error = shared("x --log-level=INFO").level().unwrap_err();
    assert_eq!(
        error.to_string(),
        "--log-level=\"INFO\": must be one of all, debug, info, warn, error, none"
    );
}

#[test]
fn tls_flags_are_checked_together() {
    shared("x").tls().unwrap();
    shared("x --tls-min-version=VersionTLS12 --tls-curve-preferences=29")
        .tls()
        .unwrap();
    let suites = "x --tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    let error = shared(suites).tls().unwrap_err().to_string();
    assert!(error.contains("TLS 1.3"), "{error}");
}

#[test]
fn what_does_nothing_is_named() {
    let none: [&str; 0] = [];
    assert_eq!(shared("x --pprof-bind-address=").without_effect(), none);
    let line = "x --enable-pprof --pprof-bind-address=:6060";
    assert_eq!(
        shared(line).without_effect(),
        ["enable-pprof", "pprof-bind-address"]
    );
}
