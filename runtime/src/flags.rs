//! Command lines written for Go's `flag` package: `-x` equals `--x`, booleans take `=true`, the last of two wins, an
//! empty variable is none; and flags or variables nobody here knows are named, not fatal.

mod shared;

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, error::ErrorKind};

pub use self::shared::{FlagError, Shared};

/// The variables that have no flag, of every MetalLB release. `FRR_*` and the BGP type choose how BGP is spoken, which is
/// not done here; the controller's webhooks look at the type.
const WITHOUT_FLAG: [&str; 5] = [
    BGP_TYPE,
    "FRR_CONFIG_FILE",
    "FRR_RELOADER_PID_FILE",
    "FRR_LOGGING_LEVEL",
    "FRRK8S_NAMESPACE",
];

const BGP_TYPE: &str = "METALLB_BGP_TYPE";

/// What a command line and its environment came to.
pub struct Parsed<A> {
    /// The flags' values.
    pub args: A,
    /// Flags and variables without a meaning here, as they were written: for a warning once logging runs.
    pub unknown: Vec<String>,
}

/// Parses the process's own command line and environment.
///
/// Prints usage (status 0) or what is wrong (status 2) and ends the process where Go's package would.
pub fn parse<A: CommandFactory + FromArgMatches>() -> Parsed<A> {
    // A variable that is not UTF-8 is none of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    read(arguments, &environment).unwrap_or_else(|error| error.exit())
}

/// How MetalLB is told to speak BGP (`METALLB_BGP_TYPE`): `native` if nothing is said, `frr` or `frr-k8s`. Only the
/// checks of its webhooks depend on it here.
pub fn bgp_type() -> String {
    std::env::var(BGP_TYPE)
        .ok()
        .filter(|kind| !kind.is_empty())
        .unwrap_or_else(|| "native".to_owned())
}

/// Reads a command line (program name first) in an environment.
///
/// # Errors
/// What clap says of a value that is none, of a missing one, or of a call for help.
pub fn read<A: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = String>,
    environment: &BTreeMap<String, String>,
) -> Result<Parsed<A>, clap::Error> {
    let described = A::command();
    let (line, mut unknown) = split(&described, arguments)?;
    unknown.extend(unknown_variables(&described, environment));
    // clap reads variables by itself, but takes an empty one for a value: they are put in front of the flags instead.
    let mut known: Vec<String> = line.first().cloned().into_iter().collect();
    if !line.iter().any(|word| word == "--help") {
        known.extend(described.get_arguments().filter_map(|flag| {
            let value = environment.get(variable(flag)?)?;
            (!value.is_empty())
                .then(|| format!("--{}={value}", flag.get_long().unwrap_or_default()))
        }));
    }
    known.extend(line.into_iter().skip(1));
    let command = described.args_override_self(true).mut_args(|flag| {
        let shown = known.iter().any(|word| word == "--help");
        if shown {
            flag
        } else {
            flag.env(None::<&'static str>)
        }
    });
    let args = A::from_arg_matches(&command.try_get_matches_from(known)?)?;
    Ok(Parsed { args, unknown })
}

/// The variable a flag's default comes from.
fn variable(flag: &Arg) -> Option<&str> {
    flag.get_env()?.to_str()
}

/// Brings `arguments` into clap's form and takes out what `command` does not know.
fn split(
    command: &Command,
    arguments: impl IntoIterator<Item = String>,
) -> Result<(Vec<String>, Vec<String>), clap::Error> {
    let mut arguments = arguments.into_iter().peekable();
    let mut known: Vec<String> = arguments.next().into_iter().collect();
    let mut unknown = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            // The end of the flags in Go; neither daemon has other arguments.
            unknown.push(argument);
            unknown.extend(arguments.by_ref());
            break;
        }
        let Some(word) = argument
            .strip_prefix("--")
            .or_else(|| argument.strip_prefix('-'))
            .filter(|word| !word.is_empty())
        else {
            // Go stops reading flags here. We go on: a stray word should not switch off what stands behind it.
            unknown.push(argument);
            continue;
        };
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let defined = command.get_arguments().find(|flag| {
            flag.get_long_and_visible_aliases()
                .is_some_and(|names| names.contains(&name))
        });
        match defined {
            Some(flag) if matches!(flag.get_action(), ArgAction::SetTrue) => {
                if boolean(command, name, value)? {
                    known.push(format!("--{name}"));
                }
            }
            // In one word, so that a value may begin with a hyphen, as in Go.
            Some(_) => known.push(
                match value.map(str::to_owned).or_else(|| arguments.next()) {
                    Some(value) => format!("--{name}={value}"),
                    None => format!("--{name}"),
                },
            ),
            None if matches!(name, "h" | "help") => known.push("--help".to_owned()),
            None if name == "version" => known.push("--version".to_owned()),
            None => {
                unknown.push(argument.clone());
                // Its value, where that stands apart: neither daemon has positional arguments.
                if value.is_none() && arguments.peek().is_some_and(|next| !next.starts_with('-')) {
                    unknown.extend(arguments.next());
                }
            }
        }
    }
    Ok((known, unknown))
}

/// Go's `strconv.ParseBool`.
fn boolean(command: &Command, name: &str, value: Option<&str>) -> Result<bool, clap::Error> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(command.clone().error(
            ErrorKind::InvalidValue,
            format!("invalid boolean value {other:?} for --{name}: true or false is expected"),
        )),
    }
}

/// Variables that look as if they were for us and that nobody here reads.
fn unknown_variables(command: &Command, environment: &BTreeMap<String, String>) -> Vec<String> {
    // Kubernetes describes the Services of the namespace to each pod, and MetalLB's own are called metallb-*.
    let of_a_service = |name: &str| {
        name.contains("_SERVICE_") || name.ends_with("_PORT") || name.contains("_PORT_")
    };
    environment
        .keys()
        .filter(|name| name.starts_with("METALLB_") || name.starts_with("FRR"))
        .filter(|name| !WITHOUT_FLAG.contains(&name.as_str()) && !of_a_service(name))
        .filter(|name| {
            !command
                .get_arguments()
                .any(|flag| variable(flag) == Some(name))
        })
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
