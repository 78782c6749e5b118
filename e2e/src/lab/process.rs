//! Processes by number *and* start time, so that a number the kernel has given out again is never
//! taken for the process it once meant.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How long a killed process may take to disappear.
const DYING: Duration = Duration::from_secs(20);

/// One particular process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of /proc/PID/stat).
    pub start: u64,
}

impl Process {
    /// The process that has this number now; `None` if there is none or it is a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self {
            pid,
            start: start_time(&stat)?,
        })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends it a signal; does nothing if it has ended.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("cannot send {signal} to process {}", self.pid))
            }
        }
    }

    /// What it was started as, for messages.
    pub fn title(self) -> String {
        let words = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let title: String = String::from_utf8_lossy(&words)
            .replace('\0', " ")
            .chars()
            .take(120)
            .collect();
        format!("process {} {}", self.pid, title.trim())
    }

    /// The variable's value in the environment it was started with.
    pub fn environment(self, name: &str) -> Option<String> {
        let bytes = fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        let prefix = format!("{name}=");
        String::from_utf8_lossy(&bytes)
            .split('\0')
            .find_map(|word| word.strip_prefix(&prefix).map(str::to_owned))
    }

    /// Its control groups, one path per hierarchy.
    pub fn cgroups(self) -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .map(str::to_owned)
            .collect()
    }

    /// Whether its root file system comes from below this directory, as every container's of a node
    /// does.
    pub fn is_rooted_in(self, directory: &str) -> bool {
        let text = fs::read(format!("/proc/{}/mountinfo", self.pid)).unwrap_or_default();
        is_root_from(&String::from_utf8_lossy(&text), directory)
    }

    /// Which network namespace it is in.
    pub fn network(self) -> Option<(u64, u64)> {
        identity(Path::new(&format!("/proc/{}/ns/net", self.pid)))
    }

    /// Its parent's number.
    fn parent(self) -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        after_name(&stat)?.split_whitespace().nth(1)?.parse().ok()
    }
}

/// Device and inode of a file: what tells one namespace from another.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Every process except this one and those that wait for it.
pub(super) fn others() -> Vec<Process> {
    let mut own = BTreeSet::new();
    let mut next = i32::try_from(std::process::id()).ok();
    while let Some(pid) = next.filter(|&pid| pid > 0 && own.insert(pid)) {
        next = Process::of(pid).and_then(Process::parent);
    }
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| !own.contains(pid))
        .filter_map(Process::of)
        .collect()
}

/// Kills what `find` finds until it finds nothing more: what is killed may have been starting
/// something, so one look is not enough.
pub(super) fn kill_all(find: impl Fn() -> Vec<Process>) -> Result<()> {
    let begun = Instant::now();
    loop {
        let found = find();
        if found.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > DYING {
            let titles: Vec<String> = found.iter().map(|process| process.title()).collect();
            bail!("cannot end: {}", titles.join("; "));
        }
        for process in &found {
            process.signal(Signal::SIGKILL)?;
        }
        for process in found {
            wait_for_end(process, Duration::from_secs(2));
        }
    }
}

/// Waits for the end of a process that was killed; if it is a child of ours, takes its zombie away.
pub(super) fn wait_for_end(process: Process, patience: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        match waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG)) {
            // Ours; some thread of it has not ended yet.
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => return,
            // Not a child of ours: whoever started it takes the zombie.
            Err(_) if !process.is_alive() => return,
            Err(_) => {}
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the root in the text of /proc/PID/mountinfo comes from below this directory. The root
/// alone counts: a mount of the directory elsewhere would be seen by every process of the machine.
fn is_root_from(mountinfo: &str, directory: &str) -> bool {
    // Field 5 is the mount point (proc(5)).
    mountinfo
        .lines()
        .any(|line| line.split(' ').nth(4) == Some("/") && line.contains(directory))
}

/// What follows the program's name in /proc/PID/stat. The name may itself hold blanks and brackets.
fn after_name(stat: &str) -> Option<&str> {
    stat.rsplit_once(')').map(|(_, rest)| rest)
}

/// The start time in the text of /proc/PID/stat; `None` for a process that has already ended.
fn start_time(stat: &str) -> Option<u64> {
    let mut fields = after_name(stat)?.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // The state is field 3, the start time field 22 (proc(5)).
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 1 1";
        assert_eq!(start_time(stat), Some(987_654));
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let stat = "42 (a) Z 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 1 1";
        assert_eq!(start_time(stat), None);
    }

    #[test]
    fn only_the_root_tells_where_a_container_belongs() {
        let root =
            "198 161 0:47 / / ro - overlay overlay rw,upperdir=/var/lib/ferrolb-lab/a/n2/x/fs";
        let elsewhere = "30 1 254:0 / / rw - ext4 /dev/vda rw\n31 30 254:0 /ferrolb-lab/a/x /mnt rw - ext4 /dev/vda rw";
        assert!(is_root_from(root, "/ferrolb-lab/a/"));
        assert!(!is_root_from(root, "/ferrolb-lab/ab/"));
        assert!(!is_root_from(elsewhere, "/ferrolb-lab/a/"));
    }

    #[test]
    fn a_recycled_number_is_another_process() {
        let this = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(this.is_alive());
        assert!(
            !Process {
                start: this.start + 1,
                ..this
            }
            .is_alive()
        );
    }

    #[test]
    fn what_waits_for_us_is_never_among_the_others() {
        let this = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let others = others();
        assert!(!others.contains(&this));
        assert!(!others.iter().any(|other| Some(other.pid) == this.parent()));
    }

    #[test]
    fn a_child_is_killed_and_its_zombie_taken_away() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        kill_all(|| {
            if process.is_alive() {
                vec![process]
            } else {
                Vec::new()
            }
        })
        .unwrap();
        assert!(!Path::new(&format!("/proc/{}", process.pid)).exists());
        assert!(child.wait().is_err());
    }
}
