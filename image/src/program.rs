//! Which program a container is meant to run, by what its manifest gives it.
//!
//! MetalLB's manifests give a container arguments and variables but no command: the image is expected to know. One image
//! for both daemons has to tell them apart by what differs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use clap::{Arg, Command};

/// What this program can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Gives addresses.
    Controller,
    /// Answers for them.
    Speaker,
    /// What operators do by hand.
    Tool,
}

/// The flags only one of the daemons has.
#[derive(Debug)]
pub struct Flags {
    controller: BTreeSet<String>,
    speaker: BTreeSet<String>,
}

impl Flags {
    /// Those by which the two command lines differ.
    pub fn new(controller: &Command, speaker: &Command) -> Self {
        let (controller, speaker) = (names(controller), names(speaker));
        Self {
            controller: controller.difference(&speaker).cloned().collect(),
            speaker: speaker.difference(&controller).cloned().collect(),
        }
    }
}

/// The names of a command line's flags, without hyphens.
fn names(command: &Command) -> BTreeSet<String> {
    command
        .get_arguments()
        .filter_map(Arg::get_long_and_visible_aliases)
        .flatten()
        .map(str::to_owned)
        .collect()
}

/// Chooses by `words`, the command line with the program's name first, and by the variable `METALLB_NODE_NAME`.
///
/// The first that says anything decides:
/// 1. the name the program is called by: `controller` or `speaker`;
/// 2. the first word: `convert` or `help` is for the tool, as no daemon has words other than flags;
/// 3. a flag that only one of the daemons has;
/// 4. the variable, which every manifest gives the speaker and none the controller; an empty one is none;
/// 5. nothing: the controller, to which the manifests of MetalLB 0.7 to 0.9 give nothing of its own.
pub fn choose(words: &[String], node_name: Option<&OsStr>, flags: &Flags) -> Program {
    let called = words.first().map(Path::new).and_then(Path::file_name);
    match called.and_then(OsStr::to_str) {
        Some("controller") => return Program::Controller,
        Some("speaker") => return Program::Speaker,
        _ => {}
    }
    if matches!(words.get(1).map(String::as_str), Some("convert" | "help")) {
        return Program::Tool;
    }
    let given = || words.iter().skip(1).filter_map(|word| flag(word));
    if given().any(|name| flags.speaker.contains(name)) {
        return Program::Speaker;
    }
    if given().any(|name| flags.controller.contains(name)) {
        return Program::Controller;
    }
    if node_name.is_some_and(|name| !name.is_empty()) {
        return Program::Speaker;
    }
    Program::Controller
}

/// The name of a flag, written as Go's `flag` package allows: one hyphen or two, its value behind `=` or apart.
fn flag(word: &str) -> Option<&str> {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    Some(name.split_once('=').map_or(name, |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::Program::{Controller, Speaker, Tool};
    use super::*;

    /// What is chosen for a command line; `environment` is what the manifest sets, as `NAME=value`.
    fn chosen(line: &str, environment: &[&str]) -> Program {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let node_name = environment
            .iter()
            .find_map(|pair| pair.strip_prefix("METALLB_NODE_NAME="))
            .map(OsStr::new);
        let flags = Flags::new(&ferrolb_controller::command(), &ferrolb_speaker::command());
        choose(&words, node_name, &flags)
    }

    const SECRET: [&str; 2] = [
        "METALLB_ML_SECRET_NAME=memberlist",
        "METALLB_DEPLOYMENT=controller",
    ];
    const MEMBERS: [&str; 4] = [
        "METALLB_NODE_NAME=n1",
        "METALLB_HOST=192.168.49.2",
        "METALLB_ML_BIND_ADDR=192.168.49.2",
        "METALLB_ML_LABELS=app=metallb,component=speaker",
    ];

    /// Every container of every era, as its manifest starts it: arguments and variables, no command.
    #[test]
    fn the_manifests_of_every_era_get_the_daemon_they_mean() {
        for (manifest, arguments, controller, speaker) in [
            (
                "0.7",
                "--port=7472 --config=config",
                &[][..],
                &["METALLB_NODE_NAME=n1"][..],
            ),
            (
                "minikube's addon",
                "--port=7472 --config=config",
                &[],
                &["METALLB_NODE_NAME=minikube", "METALLB_HOST=192.168.49.2"],
            ),
            ("0.9", "--port=7472 --config=config", &SECRET, &MEMBERS),
            (
                "0.12",
                "--port=7472 --config=config --log-level=info",
                &SECRET,
                &MEMBERS,
            ),
            ("0.13", "--port=7472 --log-level=info", &SECRET, &MEMBERS),
            (
                "0.15.3",
                "--port=7472 --log-level=info --tls-min-version=VersionTLS12",
                &SECRET,
                &MEMBERS,
            ),
            ("0.16", "--port=9120 --log-level=info", &SECRET, &MEMBERS),
        ] {
            let line = format!("/ferrolb {arguments}");
            assert_eq!(chosen(&line, controller), Controller, "{manifest}");
            assert_eq!(chosen(&line, speaker), Speaker, "{manifest}");
        }
    }

    #[test]
    fn a_flag_of_one_daemon_says_which_is_meant() {
        for line in [
            "--node-name=n1",
            "-node-name n1",
            "--port 7472 --host 192.168.99.11",
            "--ml-bindaddr=192.168.99.11 --ml-bindport=7946",
            "--ml-labels app=metallb",
            "--ml-namespace=metallb-system",
            "--ml-secret-key=s",
            "--ml-secret-key-path=/etc/ml_secret_key",
            "--ml-wan-config",
            "--ignore-exclude-lb=true",
            "--frrk8s-namespace=frr-k8s-system",
            "--bgp-debounce-timeout=1000",
        ] {
            assert_eq!(chosen(&format!("/ferrolb {line}"), &[]), Speaker, "{line}");
        }
        for line in [
            "--webhook-mode=disabled",
            "-webhook-mode onlywebhook",
            "--ml-secret-name=memberlist",
            "--deployment=controller",
            "--cert-service-name=metallb-webhook-service",
            "--disable-cert-rotation",
        ] {
            let set = ["METALLB_NODE_NAME=n1"];
            assert_eq!(chosen(&format!("/ferrolb {line}"), &set), Controller);
        }
    }

    #[test]
    fn flags_of_both_and_of_neither_say_nothing() {
        let line = "/ferrolb --port=7472 --config=config --log-level=debug --namespace=ns --lb-class=c --pod-name=p \
                    --health-probe-port=17472 --metrics-cert-dir=/c --enable-pprof --kubeconfig=k --config-ns=ns \
                    --disable-epslices --never-heard-of";
        assert_eq!(chosen(line, &[]), Controller);
        assert_eq!(chosen(line, &["METALLB_NODE_NAME=n1"]), Speaker);
    }

    #[test]
    fn a_name_says_all() {
        let set = ["METALLB_NODE_NAME=n1"];
        assert_eq!(chosen("/controller --port=7472", &set), Controller);
        assert_eq!(chosen("controller --node-name=n1", &set), Controller);
        assert_eq!(chosen("/speaker --port=7472", &[]), Speaker);
        assert_eq!(chosen("speaker --webhook-mode=disabled", &[]), Speaker);
        assert_eq!(chosen("/speaker convert", &[]), Speaker);
    }

    #[test]
    fn words_are_for_the_tool() {
        assert_eq!(chosen("/ferrolb convert --stdout", &[]), Tool);
        assert_eq!(chosen("/ferrolb help convert", &[]), Tool);
        let set = ["METALLB_NODE_NAME=n1"];
        assert_eq!(chosen("/ferrolb convert --source -", &set), Tool);
        // A value, not a word.
        assert_eq!(chosen("/ferrolb -config convert", &[]), Controller);
    }

    #[test]
    fn what_says_nothing_is_the_controller() {
        assert_eq!(chosen("", &[]), Controller);
        assert_eq!(chosen("/ferrolb", &[]), Controller);
        assert_eq!(chosen("/ferrolb", &["METALLB_NODE_NAME="]), Controller);
        assert_eq!(chosen("/ferrolb", &["METALLB_NODE_NAME=n1"]), Speaker);
        assert_eq!(chosen("/", &[]), Controller);
    }
}
