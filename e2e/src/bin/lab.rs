//! `lab`: raises, uses and removes a real Kubernetes cluster in network namespaces.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use ferrolb_e2e::Lab;
use ferrolb_e2e::deploy::setup::{self, Setup};
use ferrolb_e2e::docs;
use ferrolb_e2e::lab::DEFAULT_NAME;

/// A real Kubernetes cluster in network namespaces on this machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The lab's name: several may be up side by side.
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Raise the lab; one of the same name is removed first.
    Up {
        /// How many nodes: n1, n2...
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// How many clients: client1, client2...
        #[arg(long, default_value_t = 1)]
        clients: u8,
        /// Another address for a host, as n1=192.168.99.100.
        #[arg(long, value_parser = host_address)]
        node_address: Vec<(String, Ipv4Addr)>,
    },
    /// Remove the lab, or what a crash left of it.
    Down,
    /// Show hosts, daemons and nodes.
    Status,
    /// Run kubectl as the administrator.
    Kubectl {
        /// kubectl's arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a command in a host's network namespace.
    Exec {
        /// cp, n1, client1..., or sw for the switch.
        host: String,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Take a host off the switch.
    Unplug {
        /// The host.
        host: String,
    },
    /// Put a host back on the switch.
    Plug {
        /// The host.
        host: String,
    },
    /// Show the frames on a host's wire.
    Capture {
        /// cp, n1, client1..., or sw for the whole bridge.
        host: String,
        /// How long to listen.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// tcpdump's filter.
        #[arg(trailing_var_arg = true)]
        filter: Vec<String>,
    },
    /// Load an image archive on every node.
    Load {
        /// A docker-archive tar.
        archive: PathBuf,
    },
    /// Build FerroLB's images and load them on every node.
    Deploy,
    /// Install FerroLB or MetalLB in place of what is installed; FerroLB's images must be loaded.
    Install {
        /// What to install.
        setup: Choice,
    },
    /// Run a part of a document's commands, as the tests do (e2e/src/docs.rs).
    Follow {
        /// The document's file name, as install.md.
        document: String,
        /// The part that the marks of its blocks name.
        part: String,
    },
}

/// See [`Setup`].
#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    /// FerroLB by its own files, configured by a ConfigMap.
    Configmap,
    /// FerroLB on MetalLB's newest manifest.
    Crds,
    /// FerroLB by its chart.
    Chart,
    /// MetalLB by that manifest.
    Metallb,
    /// FerroLB on the objects of minikube's addon.
    Minikube,
    /// MetalLB 0.9 on them.
    MinikubeMetallb,
}

impl From<Choice> for Setup {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Configmap => Self::ConfigMap,
            Choice::Crds => Self::Crds,
            Choice::Chart => Self::Chart,
            Choice::Metallb => Self::MetalLb,
            Choice::Minikube => Self::Minikube,
            Choice::MinikubeMetallb => Self::MinikubeMetalLb,
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let name = arguments.name;
    match arguments.verb {
        Verb::Up {
            nodes,
            clients,
            node_address,
        } => {
            let mut builder = Lab::builder(&name).nodes(nodes).clients(clients);
            for (host, address) in node_address {
                builder = builder.node_address(&host, address);
            }
            builder.up()?;
        }
        Verb::Down => {
            Lab::remove(&name)?;
            let leftovers = Lab::leftovers(&name);
            if !leftovers.is_empty() {
                bail!("still there:\n  {}", leftovers.join("\n  "));
            }
        }
        Verb::Status => {
            let lab = Lab::open(&name)?;
            let nodes = lab.kubectl(&["get", "nodes", "-o", "wide", "--request-timeout=5s"])?;
            show(&format!("{}\n{nodes}", lab.status()));
        }
        Verb::Kubectl { arguments } => {
            let lab = Lab::open(&name)?;
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            return foreground(&lab, "cp", &mut lab.kubectl_command(&words));
        }
        Verb::Exec { host, command } => {
            let (program, arguments) = command.split_first().context("no command")?;
            return foreground(
                &Lab::open(&name)?,
                &host,
                Command::new(program).args(arguments),
            );
        }
        Verb::Unplug { host } => Lab::open(&name)?.unplug(&host)?,
        Verb::Plug { host } => Lab::open(&name)?.plug(&host)?,
        Verb::Capture {
            host,
            seconds,
            filter,
        } => {
            let filter: Vec<&str> = filter.iter().map(String::as_str).collect();
            let capture = Lab::open(&name)?.capture(&host, &filter)?;
            eprintln!("listening on {host} for {seconds} s");
            thread::sleep(Duration::from_secs(seconds));
            show(&(capture.stop()?.join("\n") + "\n"));
        }
        Verb::Load { archive } => Lab::open(&name)?.load_image(&archive)?,
        Verb::Deploy => Lab::open(&name)?.deploy()?,
        Verb::Install { setup } => {
            let (lab, setup) = (Lab::open(&name)?, Setup::from(setup));
            setup::remove(&lab)?;
            setup
                .release()
                .map_or(Ok(()), |release| lab.deploy_metallb(release))?;
            setup.install(&lab)?;
        }
        Verb::Follow { document, part } => {
            show(&docs::follow(&Lab::open(&name)?, &document, &part)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command on the terminal of this one and returns its exit code.
fn foreground(lab: &Lab, host: &str, command: &mut Command) -> Result<ExitCode> {
    let status: ExitStatus = lab.spawn(host, command)?.wait()?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Prints; a reader that goes away early (`| head`) is no failure.
fn show(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Reads HOST=ADDRESS.
fn host_address(text: &str) -> Result<(String, Ipv4Addr)> {
    let (host, address) = text.split_once('=').context("expected HOST=ADDRESS")?;
    Ok((
        host.to_owned(),
        address
            .parse()
            .with_context(|| format!("{address} is not an IPv4 address"))?,
    ))
}
