//! How closely speakers watch each other, and when addresses come back.

use std::time::Duration;

use clap::{Args, ValueEnum};
use ferrolb_speaker_arbiter::{Failback, Profile};

/// Profiles of `docs/failover.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Watch {
    /// A lost address is answered again within 500 ms.
    Default,
    /// Within 150 ms, for quiet networks and nodes with cores to spare.
    Fast,
    /// Within 4 s, for switches that police ARP: a node sends 5 frames a second.
    Quiet,
}

/// What becomes of the addresses of a node that is cordoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cordoned {
    /// They are handed over to other nodes: a drain mostly follows.
    Leave,
    /// They stay.
    Stay,
}

/// Flags of the failover, none of which MetalLB has.
#[derive(Clone, Debug, Args)]
pub struct Failover {
    /// How closely nodes watch each other.
    #[arg(
        long = "failover-profile",
        env = "FERROLB_FAILOVER_PROFILE",
        value_name = "PROFILE",
        value_enum,
        default_value = "default"
    )]
    pub watch: Watch,

    /// Instead of the profile's: from one probe of a node to the next, 20ms to 10s.
    #[arg(long = "failover-interval", env = "FERROLB_FAILOVER_INTERVAL", value_name = "TIME", value_parser = time)]
    pub interval: Option<Duration>,

    /// Instead of the profile's: how long the answer may take before the node is suspected, 10ms to 2s.
    #[arg(long = "failover-timeout", env = "FERROLB_FAILOVER_TIMEOUT", value_name = "TIME", value_parser = time)]
    pub timeout: Option<Duration>,

    /// Instead of the profile's: further probes of a suspect, 1 to 10.
    #[arg(
        long = "failover-retries",
        env = "FERROLB_FAILOVER_RETRIES",
        value_name = "COUNT"
    )]
    pub retries: Option<u32>,

    /// Instead of the profile's: from one of those to the next, 5ms to 1s.
    #[arg(long = "failover-retry", env = "FERROLB_FAILOVER_RETRY", value_name = "TIME", value_parser = time)]
    pub retry: Option<Duration>,

    /// Instead of the profile's: silence after which a node is down whose kernel is silent, too, 50ms to 10s.
    #[arg(long = "failover-patience", env = "FERROLB_FAILOVER_PATIENCE", value_name = "TIME", value_parser = time)]
    pub patience: Option<Duration>,

    /// Instead of the profile's: silence after which a node is down at the soonest whose kernel still answers, up to 10s.
    #[arg(long = "failover-starved", env = "FERROLB_FAILOVER_STARVED", value_name = "TIME", value_parser = time)]
    pub starved: Option<Duration>,

    /// Instead of the profile's: how many nodes watch each node, 1 to 8.
    #[arg(
        long = "failover-watchers",
        env = "FERROLB_FAILOVER_WATCHERS",
        value_name = "COUNT"
    )]
    pub watchers: Option<usize>,

    /// When a better placed node that is back takes an address back: after that long without fault, or never.
    #[arg(long, env = "FERROLB_FAILBACK", value_name = "TIME|never", default_value = "5m", value_parser = failback)]
    pub failback: Failback,

    /// What becomes of the addresses of a node that is cordoned.
    #[arg(
        long,
        env = "FERROLB_CORDONED_NODES",
        value_name = "WHAT",
        value_enum,
        default_value = "leave"
    )]
    pub cordoned_nodes: Cordoned,
}

impl Failover {
    /// The profile, every value within its limits.
    pub fn profile(&self) -> Profile {
        let base = match self.watch {
            Watch::Default => Profile::DEFAULT,
            Watch::Fast => Profile::FAST,
            Watch::Quiet => Profile::QUIET,
        };
        let asked = Profile {
            interval: self.interval.unwrap_or(base.interval),
            timeout: self.timeout.unwrap_or(base.timeout),
            retries: self.retries.unwrap_or(base.retries),
            retry: self.retry.unwrap_or(base.retry),
            patience: self.patience.unwrap_or(base.patience),
            starved: self.starved.unwrap_or(base.starved),
            watchers: self.watchers.unwrap_or(base.watchers),
            failback: self.failback,
            calm: match self.failback {
                // Who wants addresses back sooner does not want them to wait between moves.
                Failback::After(wait) => base.calm.min(wait),
                Failback::Never => base.calm,
            },
            ..base
        };
        let limited = asked.limited();
        if limited != asked {
            tracing::warn!(op = "flags", asked = ?asked, used = ?limited, "values of the failover beyond their limits");
        }
        limited
    }
}

/// A duration as `100ms`, `5s` or `1m30s`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no length of time; write it as 100ms, 5s or 1m30s");
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(span).map_err(|_| wrong())
}

fn failback(text: &str) -> Result<Failback, String> {
    match text {
        "never" => Ok(Failback::Never),
        text => time(text).map(Failback::After),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        failover: Failover,
    }

    fn parse(arguments: &[&str]) -> Result<Failover, clap::Error> {
        let arguments = std::iter::once("speaker").chain(arguments.iter().copied());
        Only::try_parse_from(arguments).map(|only| only.failover)
    }

    #[test]
    fn nothing_said_is_the_default_profile() {
        assert_eq!(parse(&[]).unwrap().profile(), Profile::DEFAULT);
    }

    #[test]
    fn single_values_stand_in_for_the_profiles() {
        let said = parse(&[
            "--failover-profile=fast",
            "--failover-retries=5",
            "--failback=never",
        ]);
        let expected = Profile {
            retries: 5,
            failback: Failback::Never,
            ..Profile::FAST
        };
        assert_eq!(said.unwrap().profile(), expected);
    }

    #[test]
    fn values_beyond_their_limits_are_moved_to_them() {
        let said = parse(&["--failover-interval=1ms", "--failback=0s"]).unwrap();
        let profile = said.profile();
        assert_eq!(profile.interval, Duration::from_millis(20));
        assert_eq!(profile.timeout, Duration::from_millis(20));
        assert_eq!(profile.failback, Failback::After(Duration::ZERO));
        assert_eq!(profile.calm, Duration::ZERO);
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        for wrong in ["soon", "5", "-5s", ""] {
            let error = parse(&[&format!("--failback={wrong}")]).unwrap_err();
            assert!(error.to_string().contains("1m30s"), "{error}");
        }
    }
}
