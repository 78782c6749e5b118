//! Removes a lab, whole or in pieces: what a crash or `kill -9` left is found again by what the
//! processes are in and carry, not by anyone's memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use super::process::{Process, identity, kill_all, others};
use super::state::State;
use super::{MARK, ROOT, cgroup, check_name, directory, namespace};

/// Keeps two processes from raising or removing the same lab at once; ends with the returned file.
pub(super) fn lock(name: &str) -> Result<File> {
    check_name(name)?;
    fs::create_dir_all(ROOT).with_context(|| format!("cannot make {ROOT} (root is needed)"))?;
    let path = Path::new(ROOT).join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Removes everything of the lab.
pub(super) fn sweep(name: &str) -> Result<()> {
    kill_all(|| processes(name))?;
    for point in mounts(name) {
        umount2(&point, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    for namespace in namespaces(name) {
        if let Some(namespace) = namespace.file_name() {
            namespace::run(Command::new("ip").args(["netns", "del"]).arg(namespace))?;
        }
    }
    cgroup::remove(name)?;
    let directory = directory(name);
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

/// See [`super::Lab::leftovers`].
pub(super) fn leftovers(name: &str) -> Vec<String> {
    let processes = processes(name).into_iter().map(Process::title);
    let mounts = mounts(name)
        .into_iter()
        .map(|path| format!("mount {}", path.display()));
    let namespaces = namespaces(name)
        .into_iter()
        .map(|path| format!("namespace {}", path.display()));
    let cgroups = cgroup::directories(name)
        .into_iter()
        .map(|path| format!("cgroup {}", path.display()));
    let files = Some(directory(name))
        .filter(|path| path.exists())
        .map(|path| format!("directory {}", path.display()));
    processes
        .chain(mounts)
        .chain(namespaces)
        .chain(cgroups)
        .chain(files)
        .collect()
}

/// The lab's processes: those in one of its network namespaces (daemons, containerd's shims, pods of
/// the host network), in one of its cgroups or with a root below its directory (the other pods),
/// marked as its own in their environment (what was caught between two namespaces), and those its
/// state file names.
fn processes(name: &str) -> Vec<Process> {
    let rooms: BTreeSet<(u64, u64)> = namespaces(name)
        .iter()
        .filter_map(|path| identity(path))
        .collect();
    let remembered: BTreeSet<Process> = State::load(&directory(name))
        .map(|state| {
            state
                .daemons
                .into_iter()
                .map(|daemon| daemon.process)
                .collect()
        })
        .unwrap_or_default();
    // With the slash: lab `a` must not take the processes of lab `ab` for its own. Without what is
    // before the lab's part: a mount is shown by its path within its file system.
    let below = format!("/ferrolb-lab/{name}/");
    others()
        .into_iter()
        .filter(|&process| {
            process.network().is_some_and(|room| rooms.contains(&room))
                || remembered.contains(&process)
                || cgroup::holds(name, &process.cgroups())
                || process.is_rooted_in(&below)
                || process.environment(MARK).as_deref() == Some(name)
        })
        .collect()
}

/// The lab's named network namespaces.
fn namespaces(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(namespace::DIRECTORY)
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|file| is_host_of(file, name))
        })
        .map(|entry| entry.path())
        .collect()
}

/// Whether a namespace's name is that of a host of this lab: `LAB-sw`, `LAB-n2`. Somebody else's
/// namespace that only begins alike is left alone.
fn is_host_of(namespace: &str, lab: &str) -> bool {
    let host = namespace
        .strip_prefix(lab)
        .and_then(|rest| rest.strip_prefix('-'));
    let kind = host.map(|host| host.trim_end_matches(|letter: char| letter.is_ascii_digit()));
    matches!(kind, Some("sw" | "cp" | "n" | "client"))
}

/// What is mounted below the lab's directory, the deepest first. The nodes' own mounts are in their
/// mount namespaces and end with their processes.
fn mounts(name: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let directory = directory(name);
    let mut points: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(&directory))
        .collect();
    points.sort();
    points.reverse();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_labs_own_namespaces_are_its() {
        for own in ["a-sw", "a-cp", "a-n12", "a-client1"] {
            assert!(is_host_of(own, "a"), "{own}");
        }
        for other in ["ab-sw", "a-b", "a", "a-1f0e2d3c-4b5a", "a-n1-x", "b-n1"] {
            assert!(!is_host_of(other, "a"), "{other}");
        }
    }
}
