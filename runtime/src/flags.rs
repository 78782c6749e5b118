//! Command lines written for Go's `flag` package: `-x` equals `--x`, booleans take `=true`, and flags
//! of other MetalLB releases are named, not fatal.

use clap::{ArgAction, CommandFactory, FromArgMatches};

/// Parses the process's own command line.
///
/// Prints usage or an error and ends the process where clap would. Returns the flags that were not
/// known, for a warning once logging runs.
pub fn parse<A: CommandFactory + FromArgMatches>() -> (A, Vec<String>) {
    let (known, unknown) = split::<A>(std::env::args());
    let matches = A::command().get_matches_from(known);
    match A::from_arg_matches(&matches) {
        Ok(args) => (args, unknown),
        Err(error) => error.exit(),
    }
}

/// Brings `arguments` (program name first) into clap's form and takes out what `A` does not know.
fn split<A: CommandFactory>(
    arguments: impl IntoIterator<Item = String>,
) -> (Vec<String>, Vec<String>) {
    let command = A::command();
    let mut arguments = arguments.into_iter().peekable();
    let mut known: Vec<String> = arguments.next().into_iter().collect();
    let mut unknown = Vec::new();
    while let Some(argument) = arguments.next() {
        let Some(word) = argument
            .strip_prefix("--")
            .or_else(|| argument.strip_prefix('-'))
            .filter(|word| !word.is_empty())
        else {
            unknown.push(argument);
            continue;
        };
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let defined = command
            .get_arguments()
            .find(|defined| defined.get_long() == Some(name));
        match defined {
            Some(flag) if matches!(flag.get_action(), ArgAction::SetTrue) => {
                // Go's strconv.ParseBool: everything but these words is true or an error.
                if !value.is_some_and(|value| {
                    matches!(value, "0" | "f" | "F" | "false" | "FALSE" | "False")
                }) {
                    known.push(format!("--{name}"));
                }
            }
            Some(_) => {
                known.push(format!("--{name}"));
                known.extend(value.map(str::to_owned).or_else(|| arguments.next()));
            }
            None if matches!(name, "h" | "help" | "version") => known.push(format!("--{name}")),
            None => {
                unknown.push(argument.clone());
                // Its value, where that stands apart: neither daemon has positional arguments.
                if value.is_none() && arguments.peek().is_some_and(|next| !next.starts_with('-')) {
                    unknown.extend(arguments.next());
                }
            }
        }
    }
    (known, unknown)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Args {
        #[arg(long, default_value_t = 7472)]
        port: u16,
        #[arg(long, default_value = "config")]
        config: String,
        #[arg(long)]
        enable_pprof: bool,
    }

    fn read(line: &str) -> (Args, Vec<String>) {
        let (known, unknown) = split::<Args>(line.split_whitespace().map(str::to_owned));
        (Args::try_parse_from(known).expect(line), unknown)
    }

    #[test]
    fn go_spellings_of_one_thing() {
        for line in [
            "x --port=1 --config=c",
            "x -port=1 -config c",
            "x --port 1 --config c",
        ] {
            let (args, unknown) = read(line);
            assert_eq!((args.port, args.config.as_str()), (1, "c"), "{line}");
            assert!(unknown.is_empty(), "{line}");
        }
    }

    #[test]
    fn booleans_take_a_value_only_after_an_equals_sign() {
        assert!(read("x --enable-pprof").0.enable_pprof);
        assert!(read("x -enable-pprof=true").0.enable_pprof);
        assert!(!read("x --enable-pprof=false").0.enable_pprof);
    }

    #[test]
    fn flags_of_other_releases_are_named_and_survived() {
        let (args, unknown) = read("x --lb-class=y --webhook-mode enabled --port=9 -z");
        assert_eq!(args.port, 9);
        assert_eq!(unknown, ["--lb-class=y", "--webhook-mode", "enabled", "-z"]);
    }
}
