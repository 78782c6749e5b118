//! How fast and how patient the gossip is: memberlist's profiles, and MetalLB's file that replaces them.

use std::time::Duration;

use serde_json::{Map, Value};

/// The tuning of a member. Field names are memberlist's; values without a unit are counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// How long a TCP stream may take, connecting included.
    pub tcp_timeout: Duration,
    /// How many other nodes are asked to ping one that is silent.
    pub indirect_checks: u32,
    /// A message is told `retransmit_mult` × ⌈log10(nodes + 1)⌉ times.
    pub retransmit_mult: u32,
    /// A suspect has at least `suspicion_mult` × max(1, log10(nodes)) × `probe_interval` to protest.
    pub suspicion_mult: u32,
    /// And at most this many times as long, while no other node confirms the suspicion.
    pub suspicion_max_timeout_mult: u32,
    /// Between two full exchanges with a random node; longer from 33 nodes on. Zero: none.
    pub push_pull_interval: Duration,
    /// How long an answer to a ping is awaited before others are asked.
    pub probe_timeout: Duration,
    /// Between two probes, each of another node. Zero: none.
    pub probe_interval: Duration,
    /// Whether a node that is silent by UDP is not tried by TCP.
    pub disable_tcp_pings: bool,
    /// One more than the greatest score of our own ill health; the probe interval is multiplied by the score + 1.
    pub awareness_max_multiplier: u32,
    /// How many random nodes are told the news at a time. Zero: none.
    pub gossip_nodes: u32,
    /// Between two such rounds, while there is news. Zero: none.
    pub gossip_interval: Duration,
    /// How long a dead node is still told the news and remembered.
    pub gossip_to_the_dead_time: Duration,
    /// Whether plain messages are refused when there is a key.
    pub gossip_verify_incoming: bool,
    /// Whether messages are sealed when there is a key.
    pub gossip_verify_outgoing: bool,
    /// Most bytes of a packet, label and seal included.
    pub udp_buffer_size: usize,
}

/// Why a tuning file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON, or not an object.
    #[error("not a JSON object: {0}")]
    NotAnObject(String),
    /// A duration is not there; MetalLB requires all six.
    #[error("{0} is missing: every duration must be given, for example \"500ms\"")]
    Missing(&'static str),
    /// A value of the wrong kind.
    #[error("{field}: {value} is not {expected}")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// What it held, as JSON.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
}

impl Profile {
    /// memberlist's defaults for local networks, MetalLB's as well.
    pub fn lan() -> Self {
        Self {
            tcp_timeout: Duration::from_secs(10),
            indirect_checks: 3,
            retransmit_mult: 4,
            suspicion_mult: 4,
            suspicion_max_timeout_mult: 6,
            push_pull_interval: Duration::from_secs(30),
            probe_timeout: Duration::from_millis(500),
            probe_interval: Duration::from_secs(1),
            disable_tcp_pings: false,
            awareness_max_multiplier: 8,
            gossip_nodes: 3,
            gossip_interval: Duration::from_millis(200),
            gossip_to_the_dead_time: Duration::from_secs(30),
            gossip_verify_incoming: true,
            gossip_verify_outgoing: true,
            udp_buffer_size: 1400,
        }
    }

    /// memberlist's defaults for wide networks: MetalLB's `--ml-wan-config`.
    pub fn wan() -> Self {
        Self {
            tcp_timeout: Duration::from_secs(30),
            suspicion_mult: 6,
            push_pull_interval: Duration::from_mins(1),
            probe_timeout: Duration::from_secs(3),
            probe_interval: Duration::from_secs(5),
            gossip_nodes: 4,
            gossip_interval: Duration::from_millis(500),
            gossip_to_the_dead_time: Duration::from_mins(1),
            ..Self::lan()
        }
    }

    /// MetalLB 0.16's `/etc/metallb/memberlist/config.json`, which replaces either profile. Every duration must be there
    /// (Go's syntax); a missing number is 0 and a missing switch off, as MetalLB has it; names are compared as Go does,
    /// without regard to case, and unknown ones passed over. `EnableCompression`, `HandoffQueueDepth` and
    /// `QueueCheckInterval` are checked and have no effect: what we send is not compressed, and nothing waits in a queue.
    ///
    /// # Errors
    /// No JSON object, a missing duration, a value of the wrong kind or below zero.
    pub fn from_json(text: &str) -> Result<Self, ProfileError> {
        let object: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| ProfileError::NotAnObject(e.to_string()))?;
        let file = File { object };
        file.duration("QueueCheckInterval")?;
        file.count("HandoffQueueDepth")?;
        file.switch("EnableCompression")?;
        Ok(Self {
            tcp_timeout: file.duration("TCPTimeout")?,
            indirect_checks: file.count("IndirectChecks")?,
            retransmit_mult: file.count("RetransmitMult")?,
            suspicion_mult: file.count("SuspicionMult")?,
            suspicion_max_timeout_mult: file.count("SuspicionMaxTimeoutMult")?,
            push_pull_interval: file.duration("PushPullInterval")?,
            probe_timeout: file.duration("ProbeTimeout")?,
            probe_interval: file.duration("ProbeInterval")?,
            disable_tcp_pings: file.switch("DisableTcpPings")?,
            awareness_max_multiplier: file.count("AwarenessMaxMultiplier")?,
            gossip_nodes: file.count("GossipNodes")?,
            gossip_interval: file.duration("GossipInterval")?,
            gossip_to_the_dead_time: file.duration("GossipToTheDeadTime")?,
            gossip_verify_incoming: file.switch("GossipVerifyIncoming")?,
            gossip_verify_outgoing: file.switch("GossipVerifyOutgoing")?,
            udp_buffer_size: file.count("UDPBufferSize")? as usize,
        })
    }
}

struct File {
    object: Map<String, Value>,
}

impl File {
    fn value(&self, field: &str) -> Option<&Value> {
        let mut all = self.object.iter();
        self.object.get(field).or_else(|| {
            all.find_map(|(name, value)| name.eq_ignore_ascii_case(field).then_some(value))
        })
    }

    fn invalid(field: &'static str, value: &Value, expected: &'static str) -> ProfileError {
        ProfileError::Invalid {
            field,
            value: value.to_string(),
            expected,
        }
    }

    fn duration(&self, field: &'static str) -> Result<Duration, ProfileError> {
        let value = self.value(field).ok_or(ProfileError::Missing(field))?;
        value.as_str().and_then(go_duration).ok_or_else(|| {
            Self::invalid(
                field,
                value,
                "a duration like \"1s\" or \"500ms\", up to a day",
            )
        })
    }

    fn count(&self, field: &'static str) -> Result<u32, ProfileError> {
        let Some(value) = self.value(field).filter(|value| !value.is_null()) else {
            return Ok(0);
        };
        value
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| *count <= MAX_COUNT)
            .ok_or_else(|| Self::invalid(field, value, "a whole number from 0 to 65535"))
    }

    fn switch(&self, field: &'static str) -> Result<bool, ProfileError> {
        let Some(value) = self.value(field).filter(|value| !value.is_null()) else {
            return Ok(false);
        };
        value
            .as_bool()
            .ok_or_else(|| Self::invalid(field, value, "true or false"))
    }
}

/// Large enough for every field, small enough to multiply without care.
const MAX_COUNT: u32 = 65_535;
/// Longest duration that is accepted.
const MAX_DURATION: Duration = Duration::from_hours(24);

/// A duration as Go's `time.ParseDuration` reads it: numbers with units, one after the other. Not below zero.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at_checked(digits)?;
        let letters = behind
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(letters)?;
        rest = behind;
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * unit;
    }
    // Whole nanoseconds, so that 0.1 s is 100 ms.
    let nanos = (sum * 1e9).round() / 1e9;
    Duration::try_from_secs_f64(nanos)
        .ok()
        .filter(|duration| *duration <= MAX_DURATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("500ms", Some(ms(500))),
            ("1s", Some(ms(1000))),
            ("1.5s", Some(ms(1500))),
            (".5s", Some(ms(500))),
            ("1m30s", Some(ms(90_000))),
            ("2h", Some(ms(7_200_000))),
            ("100us", Some(Duration::from_micros(100))),
            ("100µs", Some(Duration::from_micros(100))),
            ("7ns", Some(Duration::from_nanos(7))),
            ("0", Some(Duration::ZERO)),
            ("+3s", Some(ms(3000))),
            ("", None),
            ("5", None),
            ("-1s", None),
            ("1 s", None),
            ("s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("1e3s", None),
            ("25h", None),
        ] {
            assert_eq!(go_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn the_documented_file_is_the_lan_profile() {
        let text = include_str!("../inputs/config-lan.json");
        assert_eq!(Profile::from_json(text), Ok(Profile::lan()));
    }

    #[test]
    fn what_is_missing_is_zero_but_for_durations() {
        let only_durations = r#"{"TCPTimeout":"1s","PushPullInterval":"2s","ProbeTimeout":"3s","probeinterval":"4s",
            "GossipInterval":"5s","GossipToTheDeadTime":"6s","QueueCheckInterval":"7s","SomethingNew":[1]}"#;
        let profile = Profile::from_json(only_durations).unwrap();
        assert_eq!(profile.probe_interval, Duration::from_secs(4));
        assert_eq!(
            (profile.indirect_checks, profile.gossip_verify_incoming),
            (0, false)
        );

        let without = only_durations.replace("QueueCheckInterval", "Other");
        assert_eq!(
            Profile::from_json(&without),
            Err(ProfileError::Missing("QueueCheckInterval"))
        );
        for (from, to) in [
            ("\"1s\"", "1"),
            ("\"1s\"", "\"soon\""),
            ("[1]", "1,\"GossipNodes\":-1"),
            ("[1]", "1,\"GossipNodes\":70000"),
            ("[1]", "1,\"DisableTcpPings\":\"yes\""),
        ] {
            let error = Profile::from_json(&only_durations.replace(from, to)).unwrap_err();
            assert!(
                matches!(error, ProfileError::Invalid { .. }),
                "{to}: {error}"
            );
        }
        assert!(matches!(
            Profile::from_json("[]"),
            Err(ProfileError::NotAnObject(_))
        ));
    }

    #[test]
    fn the_wan_profile_is_slower() {
        let (lan, wan) = (Profile::lan(), Profile::wan());
        assert!(wan.probe_interval > lan.probe_interval && wan.suspicion_mult > lan.suspicion_mult);
    }
}
