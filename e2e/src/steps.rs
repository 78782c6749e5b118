//! What the lab tells the person who waits for it: each step with the time since the start, and a
//! sign of life every few seconds from anything that takes long.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a step that takes long says that it is still alive.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// How many of a failed command's last lines are shown.
const TAIL: usize = 40;

/// A clock that prints steps on standard error.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    start: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self::start()
    }
}

impl Steps {
    /// Starts the clock.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Prints one step with the seconds since the start.
    pub fn say(&self, what: &str) {
        eprintln!("[{:6.1} s] {what}", self.start.elapsed().as_secs_f64());
    }

    /// Runs a build command to its end and returns its standard output. Prints every five seconds
    /// how long it has been running and the last line it wrote; on failure the error carries the
    /// last forty lines of its standard error.
    pub fn run(&self, what: &str, command: &mut Command) -> Result<String> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{what}: cannot start {}", command.get_program().display()))?;
        let lines = Arc::new(Mutex::new(Vec::<String>::new()));
        let output = child.stdout.take().context("no standard output")?;
        let errors = child.stderr.take().context("no standard error")?;
        let seen = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        let answer = thread::spawn(move || {
            let mut text = String::new();
            let mut output = output;
            output.read_to_string(&mut text).map(|_| text)
        });
        let begun = Instant::now();
        let mut shown = begun;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if shown.elapsed() >= SIGN_OF_LIFE {
                shown = Instant::now();
                let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                let last = lines.last().map_or("", |line| line.trim());
                self.say(&format!(
                    "{what}: {} s so far  {last}",
                    begun.elapsed().as_secs()
                ));
            }
            thread::sleep(Duration::from_millis(50));
        };
        // The threads end with the pipes; a panic in them would only lose text.
        let _ = reader.join();
        let text = answer
            .join()
            .map_err(|_| anyhow::anyhow!("{what}: output lost"))??;
        if status.success() {
            return Ok(text);
        }
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = lines.iter().skip(lines.len().saturating_sub(TAIL));
        bail!(
            "{what}: {status}\n{}",
            tail.cloned().collect::<Vec<_>>().join("\n")
        )
    }
}

/// The last lines of a text, for an error message.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(count);
    lines.into_iter().skip(start).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_shows_what_it_said() {
        let error = Steps::start()
            .run(
                "try",
                Command::new("sh").args(["-c", "echo reason >&2; exit 3"]),
            )
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("try") && error.contains("reason") && error.contains('3'),
            "{error}"
        );
    }

    #[test]
    fn a_command_that_works_returns_its_output() {
        assert_eq!(
            Steps::start()
                .run("try", Command::new("echo").arg("yes"))
                .unwrap(),
            "yes\n"
        );
    }

    #[test]
    fn tail_keeps_the_end() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
    }
}
