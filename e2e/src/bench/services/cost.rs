//! What the daemons take of memory and processor time, by the kernel's own books.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{
    Lab,
    deploy::{self, NAMESPACE},
};

/// A daemon's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// `controller`, or `speaker` and its node.
    pub name: String,
    /// Its process, as this machine numbers it.
    pub pid: u32,
}

/// What the daemons took.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// `VmRSS` of the controller, in KiB.
    pub controller: u64,
    /// The same of the speaker that has the most.
    pub speaker: u64,
    /// Memory of the controller's control group, in KiB.
    pub controller_group: u64,
    /// The same of the speaker that has the most.
    pub speaker_group: u64,
    /// The greatest `VmRSS` ever of the controller, in KiB.
    pub controller_peak: u64,
    /// The same of the speaker that had the most.
    pub speaker_peak: u64,
    /// Processor time of the controller, as a part of one core.
    pub controller_cpu: f64,
    /// The same of all speakers together.
    pub speakers_cpu: f64,
}

/// The controller and every speaker, which must all be running.
///
/// # Errors
/// One of them is not.
pub fn daemons(lab: &Lab) -> Result<Vec<Daemon>> {
    let pod = deploy::controller_pod(lab)?;
    let mut found = vec![Daemon {
        name: "controller".to_owned(),
        pid: lab.container_pid(NAMESPACE, &pod, "controller")?,
    }];
    for node in lab.nodes() {
        let pod = deploy::speaker_pod(lab, &node)?;
        found.push(Daemon {
            name: format!("speaker on {node}"),
            pid: lab.container_pid(NAMESPACE, &pod, "speaker")?,
        });
    }
    Ok(found)
}

/// Looks at memory now, and at processor time over `window`.
///
/// # Errors
/// A daemon is not running, or ends meanwhile.
pub fn measure(lab: &Lab, window: Duration) -> Result<Cost> {
    let daemons = daemons(lab)?;
    let begun = Instant::now();
    let before: Vec<Duration> = daemons
        .iter()
        .map(|daemon| processor(daemon.pid))
        .collect::<Result<_>>()?;
    thread::sleep(window);
    let elapsed = begun.elapsed().as_secs_f64();
    let mut cost = Cost {
        controller: 0,
        speaker: 0,
        controller_group: 0,
        speaker_group: 0,
        controller_peak: 0,
        speaker_peak: 0,
        controller_cpu: 0.0,
        speakers_cpu: 0.0,
    };
    for (daemon, before) in daemons.iter().zip(before) {
        let cpu = processor(daemon.pid)?.saturating_sub(before).as_secs_f64() / elapsed;
        let resident = status(daemon.pid, "VmRSS")?;
        let peak = status(daemon.pid, "VmHWM")?;
        let group = group(daemon.pid)?;
        if daemon.name == "controller" {
            cost.controller = resident;
            cost.controller_group = group;
            cost.controller_peak = peak;
            cost.controller_cpu = cpu;
        } else {
            cost.speaker = cost.speaker.max(resident);
            cost.speaker_group = cost.speaker_group.max(group);
            cost.speaker_peak = cost.speaker_peak.max(peak);
            cost.speakers_cpu += cpu;
        }
    }
    Ok(cost)
}

/// Processor time of all its threads: to the nanosecond where the kernel keeps it so, else in ticks.
fn processor(pid: u32) -> Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(&tasks).with_context(|| format!("no process {pid}"))? {
        let path = task?.path();
        // One that has just ended is left out.
        let text = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let ran = text
            .split_whitespace()
            .next()
            .and_then(|ran| ran.parse().ok());
        sum += Duration::from_nanos(ran.unwrap_or_default());
    }
    Ok(sum)
}

/// A line of `/proc/PID/status` in KiB.
fn status(pid: u32, name: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {name} in {path}"))
}

/// Memory that the process's control group is charged with, the page cache it has touched included, in KiB.
fn group(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let mut files = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let group = group.trim_start_matches('/');
        let top = Path::new("/sys/fs/cgroup");
        match controllers {
            "memory" => Some(top.join("memory").join(group).join("memory.usage_in_bytes")),
            "" => Some(top.join(group).join("memory.current")),
            _ => None,
        }
    });
    let bytes: Option<u64> =
        files.find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    bytes
        .map(|bytes| bytes / 1024)
        .with_context(|| format!("no memory controller in {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_uses_the_processor() {
        let us = std::process::id();
        let now = status(us, "VmRSS").unwrap();
        assert!(now > 100);
        // Read after it, for other tests make the process grow meanwhile; the kernel counts to some pages for each processor.
        assert!(status(us, "VmHWM").unwrap() + 1024 >= now);
        assert!(status(us, "None").is_err());
        assert!(processor(us).unwrap() > Duration::ZERO);
    }
}
