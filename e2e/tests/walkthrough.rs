//! The script that leads a person through the first walkthrough on minikube, run with stand-ins for the programs it calls:
//! what it calls, in which order, and what it says when something is not as it should be.

#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use ferrolb_e2e::deploy::project;

/// Each stand-in writes down how it was called, with what it read, and answers what the real one would.
const STAND_IN: &str = r#"#!/bin/sh
name=$(basename "$0")
echo "$name $*" >> "$STAGE/calls"
case "$name $*" in
  "minikube "*" ip") echo "$NODE" ;;
  "minikube "*" addons configure metallb") { read -r a; read -r b; echo "$a-$b" > "$STAGE/pool"; } ;;
  "kubectl "*" get configmap config "*) cat "$STAGE/pool" ;;
  "kubectl "*" get service istio-ingressgateway "*) echo "$ADDRESS" ;;
  "docker image inspect "*) exit 1 ;;
  "curl "*/headers) printf 404 ;;
  "curl "*/status/418) printf 418 ;;
  "curl "*) printf 200 ;;
  "uname -s") echo "$SYSTEM" ;;
esac
"#;

/// What the script calls of the world; `sleep` so that nothing waits.
const PROGRAMS: [&str; 7] = [
    "minikube", "kubectl", "istioctl", "curl", "docker", "sleep", "uname",
];

struct Stage {
    room: PathBuf,
}

impl Stage {
    fn new(name: &str) -> Self {
        let room = std::env::temp_dir().join(format!("ferrolb-walk-{name}-{}", std::process::id()));
        fs::create_dir_all(room.join("bin")).unwrap();
        for program in PROGRAMS {
            let path = room.join("bin").join(program);
            fs::write(&path, STAND_IN).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(room.join("calls"), "").unwrap();
        Self { room }
    }

    fn run(&self, verb: &str, settings: &[(&str, &str)]) -> Output {
        let path = std::env::var("PATH").unwrap();
        Command::new(project().join("e2e/minikube/walkthrough.sh"))
            .arg(verb)
            .env(
                "PATH",
                format!("{}:{path}", self.room.join("bin").display()),
            )
            .env("STAGE", &self.room)
            .env("NODE", "192.168.99.100")
            .env("ADDRESS", "192.168.99.96")
            .env("SYSTEM", "Linux")
            .envs(settings.iter().copied())
            .output()
            .unwrap()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.room.join("calls")).unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is left is in the machine's temporary directory.
        let _ = fs::remove_dir_all(&self.room);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_steps_come_in_order() {
    let stage = Stage::new("order");
    let output = stage.run("up", &[]);
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}{}", text(&output.stderr));
    assert!(
        told.contains("everything of the walkthrough works"),
        "{told}"
    );
    let calls = stage.calls();
    let mut rest = calls.as_str();
    for step in [
        "minikube --profile ferrolb start --driver docker --memory 4096 --cpus 2 --static-ip 192.168.99.100",
        "docker build --target controller --tag docker.io/ferrolb/controller:0.1.0 ",
        "minikube --profile ferrolb image load docker.io/ferrolb/controller:0.1.0",
        "minikube --profile ferrolb image load docker.io/ferrolb/speaker:0.1.0",
        "minikube --profile ferrolb addons enable metallb \
         --images=Controller=docker.io/ferrolb/controller:0.1.0,Speaker=docker.io/ferrolb/speaker:0.1.0",
        "minikube --profile ferrolb addons configure metallb",
        "istioctl install --context ferrolb --set profile=default --skip-confirmation",
        "kubectl --context ferrolb apply --filename ",
        "get service istio-ingressgateway",
        "Host: httpbin.example.com http://192.168.99.96/status/200",
        "http://192.168.99.96/delay/2",
    ] {
        let (_, after) = rest
            .split_once(step)
            .unwrap_or_else(|| panic!("no {step:?} in what is left of:\n{calls}"));
        rest = after;
    }
    let pool = fs::read_to_string(stage.room.join("pool")).unwrap();
    assert_eq!(pool.trim(), "192.168.99.96-192.168.99.111");
}

#[test]
fn the_images_and_the_network_may_be_others() {
    let stage = Stage::new("others");
    let settings = [
        ("DRIVER", "kvm2"),
        ("NODE", "192.168.39.12"),
        ("ADDRESS", "192.168.39.96"),
        ("CONTROLLER", "registry.example/one:2"),
        ("SPEAKER", "registry.example/one:2"),
    ];
    let output = stage.run("up", &settings);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let calls = stage.calls();
    assert!(!calls.contains("--static-ip"), "{calls}");
    assert!(!calls.contains("docker build"), "{calls}");
    assert!(
        calls.contains("--images=Controller=registry.example/one:2,Speaker=registry.example/one:2"),
        "{calls}"
    );
    let pool = fs::read_to_string(stage.room.join("pool")).unwrap();
    assert_eq!(pool.trim(), "192.168.39.96-192.168.39.111");
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_made() {
    for (settings, said) in [
        ([("SYSTEM", "Darwin"), ("DRIVER", "docker")], "cannot reach"),
        (
            [("SYSTEM", "Linux"), ("DRIVER", "qemu2")],
            "docs/minikube.md",
        ),
        // The pool would be of the machine's own network, where others may have its addresses.
        (
            [("SYSTEM", "Linux"), ("DRIVER", "none")],
            "docs/minikube.md",
        ),
    ] {
        let stage = Stage::new(settings[1].1);
        let output = stage.run("up", &settings);
        assert!(!output.status.success());
        let told = text(&output.stderr);
        assert!(told.contains(said), "{told}");
        assert!(!stage.calls().contains("minikube"), "{}", stage.calls());
    }
}

#[test]
fn another_address_or_answer_is_a_failure_that_says_where_to_look() {
    for (settings, said) in [
        (("ADDRESS", "192.168.99.97"), "it should be 192.168.99.96"),
        (("ADDRESS", ""), "describe service istio-ingressgateway"),
    ] {
        let stage = Stage::new(&format!("address{}", settings.1.len()));
        let output = stage.run("check", &[settings]);
        assert!(!output.status.success());
        let told = text(&output.stderr);
        assert!(told.contains(said), "{told}");
    }
    let stage = Stage::new("answer");
    let curl = stage.room.join("bin/curl");
    fs::write(&curl, "#!/bin/sh\nprintf 503\n").unwrap();
    let output = stage.run("check", &[]);
    assert!(!output.status.success());
    let told = text(&output.stderr);
    assert!(told.contains("answers '503', not 200"), "{told}");
}

#[test]
fn it_cleans_up_its_own_profile_only() {
    let stage = Stage::new("down");
    assert!(stage.run("down", &[("PROFILE", "mine")]).status.success());
    assert_eq!(stage.calls(), "minikube --profile mine delete\n");
    let unsaid = stage.run("", &[]);
    assert_eq!(unsaid.status.code(), Some(2));
    assert!(text(&unsaid.stdout).contains("walkthrough.sh up"));
}
