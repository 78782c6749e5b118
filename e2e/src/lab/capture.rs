//! Listening to a host's wire with tcpdump.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::process::{Process, wait_for_end};
use super::{Lab, Signal, network};

/// How long tcpdump may take until it listens.
const READY: Duration = Duration::from_secs(20);

/// A running capture. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    lines: Option<JoinHandle<Vec<String>>>,
}

impl Lab {
    /// Starts to listen on a host's `eth0` (for `sw`: on its bridge) and returns once every frame
    /// is seen. The filter is tcpdump's, as `["arp"]`.
    pub fn capture(&self, host: &str, filter: &[&str]) -> Result<Capture> {
        let interface = if host == network::SWITCH {
            network::BRIDGE
        } else {
            "eth0"
        };
        let mut command = Command::new("tcpdump");
        command
            // Ethernet header, no names, seconds since 1970, each line at once.
            .args(["-e", "-n", "-tt", "-l", "--immediate-mode", "-i", interface])
            .args(filter)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.spawn(host, &mut command)?;
        let output = child
            .stdout
            .take()
            .context("tcpdump has no standard output")?;
        let errors = child
            .stderr
            .take()
            .context("tcpdump has no standard error")?;
        let process = i32::try_from(child.id())
            .ok()
            .and_then(Process::of)
            .context("tcpdump ended at once")?;
        let capture = Capture {
            process,
            lines: Some(thread::spawn(move || {
                BufReader::new(output)
                    .lines()
                    .map_while(Result::ok)
                    .collect()
            })),
        };
        let (told, heard) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                // Nobody listens any more once tcpdump does; its pipe must be emptied all the same.
                let _ = told.send(line);
            }
        });
        let mut said = Vec::new();
        loop {
            match heard.recv_timeout(READY) {
                Ok(line) if line.contains("listening on") => return Ok(capture),
                Ok(line) => said.push(line),
                Err(_) => {
                    return Err(anyhow!(
                        "tcpdump on {host} does not listen: {}",
                        said.join("; ")
                    ));
                }
            }
        }
    }
}

impl Capture {
    /// Ends the capture and returns what was seen, one line per frame as `tcpdump -e -n -tt` writes.
    pub fn stop(mut self) -> Result<Vec<String>> {
        self.process.signal(Signal::SIGINT)?;
        let lines = self.lines.take().context("the capture has ended")?;
        lines
            .join()
            .map_err(|_| anyhow!("what tcpdump wrote was lost"))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the process ends with the lab at the latest.
        let _ = self.process.signal(Signal::SIGINT);
        wait_for_end(self.process, Duration::from_secs(5));
    }
}
