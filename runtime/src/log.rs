//! Logs as MetalLB writes them: one JSON object a line on standard output, keys in alphabetical
//! order, a key given twice keeping the last value, with `ts`, `level`, `caller` and `msg` (MetalLB 0.11 and newer).
//!
//! `ts` is RFC 3339 in UTC with fractions of a second, as in 0.7 to 0.13.1: whoever reads the whole seconds with a zone
//! that later releases write reads this, too, and lines of one second keep their order. Lines of libraries carry
//! `component`, the library's name, as MetalLB's of its member list do.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde_json::Value;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// The words of MetalLB's `--log-level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything, the libraries' inner life included.
    All,
    /// Our own decisions in detail.
    Debug,
    /// What changes.
    Info,
    /// What an operator should look at.
    Warn,
    /// What does not work.
    Error,
    /// Nothing.
    None,
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "all" => Self::All,
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            "none" => Self::None,
            _ => {
                return Err("must be one of all, debug, info, warn, error, none".to_owned());
            }
        })
    }
}

impl LogLevel {
    fn filter(self) -> EnvFilter {
        // The client libraries repeat at "info" what our own lines already say.
        EnvFilter::new(match self {
            Self::All => "trace",
            Self::Debug => "debug,kube=info,hyper=info,tower=info,rustls=info",
            Self::Info => "info,kube=error,hyper=warn,tower=warn",
            Self::Warn => "warn,kube=error",
            Self::Error => "error",
            Self::None => "off",
        })
    }
}

/// Starts logging to standard output for the whole process.
///
/// # Errors
/// Logging was started before.
pub fn init(level: LogLevel) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(level.filter())
        .event_format(Line)
        .with_writer(std::io::stdout)
        .try_init()
        .map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// How the names of our own crates begin.
const OURS: [&str; 3] = ["ferrolb_", "controller", "speaker"];

struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut keys = Keys::default();
        event.record(&mut keys);
        let metadata = event.metadata();
        let file = metadata.file().unwrap_or("unknown");
        let file = file.rsplit('/').next().unwrap_or(file);
        let caller = format!("{file}:{}", metadata.line().unwrap_or(0));
        let library = metadata.target().split("::").next().unwrap_or_default();
        if !OURS.iter().any(|ours| library.starts_with(ours)) {
            keys.put("component", library.into());
        }
        keys.put("caller", caller.into());
        keys.put("level", level_word(*metadata.level()).into());
        keys.put("ts", jiff::Timestamp::now().to_string().into());
        let line = serde_json::to_string(&keys.0).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// The fields of one event; a `BTreeMap` because MetalLB's lines have their keys sorted.
#[derive(Default)]
struct Keys(BTreeMap<&'static str, Value>);

impl Keys {
    fn put(&mut self, key: &'static str, value: Value) {
        self.0
            .insert(if key == "message" { "msg" } else { key }, value);
    }
}

impl Visit for Keys {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        /// What `work` logs where `level` is asked for.
        fn of(level: LogLevel, work: impl FnOnce()) -> Vec<BTreeMap<String, Value>> {
            let text = Self::text_of(level, work);
            text.lines()
                .map(|line| serde_json::from_str(line).expect(line))
                .collect()
        }

        fn text_of(level: LogLevel, work: impl FnOnce()) -> String {
            let sink = Self::default();
            let writer = sink.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(level.filter())
                .event_format(Line)
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, work);
            let bytes = sink.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap()
        }
    }

    #[test]
    fn a_line_is_one_json_object_with_sorted_keys() {
        let work = || tracing::info!(service = "a\nb/c", count = 3, "say \"it\"");
        let text = Sink::text_of(LogLevel::Info, work);
        assert_eq!(text.lines().count(), 1, "{text}");
        let value: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(value["msg"], "say \"it\"");
        assert_eq!(value["service"], "a\nb/c");
        assert_eq!(value["count"], 3);
        assert_eq!(value["level"], "info");
        let mut at = 0;
        for key in ["caller", "count", "level", "msg", "service", "ts"] {
            let found = text[at..].find(&format!("\"{key}\":"));
            at += found.expect("keys are sorted");
        }
    }

    #[test]
    fn the_keys_metallbs_readers_look_for() {
        let lines = Sink::of(LogLevel::Info, || {
            tracing::warn!(op = "setBalancer", error = %"no", "first");
            tracing::error!(target: "kube_client::client", level = "mine", "second");
        });
        let [ours, theirs] = &lines[..] else {
            panic!("{lines:?}")
        };
        let caller = ours["caller"].as_str().unwrap();
        let line = caller.strip_prefix("log.rs:").expect(caller);
        line.parse::<u32>().unwrap();
        let ts = ours["ts"].as_str().unwrap();
        ts.parse::<jiff::Timestamp>().unwrap();
        assert!(ts.ends_with('Z') && ts.contains('T'), "{ts}");
        assert_eq!(ours["level"], "warn");
        assert_eq!(ours["op"], "setBalancer");
        assert_eq!(ours["error"], "no");
        assert!(!ours.contains_key("component"));
        assert_eq!(theirs["component"], "kube_client");
        assert_eq!(theirs["level"], "error", "a key given twice keeps the last");
    }

    #[test]
    fn levels_keep_what_is_below_them_out() {
        let work = || {
            tracing::trace!("trace");
            tracing::debug!("debug");
            tracing::info!("info");
            tracing::warn!("warn");
            tracing::error!("error");
        };
        for (level, kept) in [
            (LogLevel::All, 5),
            (LogLevel::Debug, 4),
            (LogLevel::Info, 3),
            (LogLevel::Warn, 2),
            (LogLevel::Error, 1),
            (LogLevel::None, 0),
        ] {
            assert_eq!(Sink::of(level, work).len(), kept, "{level:?}");
        }
    }
}
