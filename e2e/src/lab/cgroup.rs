//! The control groups of a lab: `/ferrolb-lab-NAME/NODE/…` in every hierarchy.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a cgroup may stay busy after its last process was killed.
const BUSY: Duration = Duration::from_secs(10);

/// The cgroup all of a lab's pods are below, as a path from the root of a hierarchy.
pub(super) fn root(lab: &str) -> String {
    format!("/ferrolb-lab-{lab}")
}

/// Whether this machine has cgroup v2 alone. Proven is v1 (hybrid); v2 follows its documentation.
pub(super) fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Makes a node's cgroup in every hierarchy: kubelet wants to find it.
pub(super) fn create(lab: &str, node: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let mut path = hierarchy.clone();
        for part in ["", root(lab).trim_start_matches('/'), node] {
            path.push(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
            if unified() {
                // On v2 each level must pass the controllers on to the next.
                let controllers =
                    fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
                for controller in controllers.split_whitespace() {
                    // Some cannot be passed on (cpu with real-time processes about); kubelet says
                    // which one it misses.
                    let _ = fs::write(
                        path.join("cgroup.subtree_control"),
                        format!("+{controller}"),
                    );
                }
            }
        }
    }
    weigh(lab)
}

/// Gives the lab's group as much weight as those of its nodes' pods would have on machines of their own, where kubelet gives
/// each 1024 shares a core beside the rest of the machine. Without it the pods of all nodes together would weigh as
/// much as one of the control plane's processes beside them, and be without a processor for a tenth of a second and more.
fn weigh(lab: &str) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for directory in directories(lab) {
        let nodes = fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .count();
        let cores = nodes.max(1) * cores;
        // The kernel's own bounds.
        let values = [
            ("cpu.shares", (1024 * cores).min(262_144)),
            ("cpu.weight", (100 * cores).min(10_000)),
        ];
        for (file, value) in values {
            let path = directory.join(file);
            if path.exists() {
                fs::write(&path, value.to_string())
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// The lab's directory in every hierarchy that has one: on v1 one per controller and one in the
/// unified hierarchy beside them, on v2 the one there is.
pub(super) fn directories(lab: &str) -> Vec<PathBuf> {
    let name = root(lab);
    hierarchies()
        .into_iter()
        .map(|hierarchy| hierarchy.join(name.trim_start_matches('/')))
        .filter(|path| path.is_dir())
        .collect()
}

/// Where the hierarchies are mounted.
fn hierarchies() -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (point, kind) = (fields.nth(1)?, fields.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(point))
        })
        .collect()
}

/// The directory of the group that limits a process's CPU time.
///
/// # Errors
/// The process has ended, or the machine has no hierarchy with the `cpu` controller.
pub(super) fn of_cpu(pid: u32) -> Result<PathBuf> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let (top, group) = text
        .lines()
        .find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
            if unified() {
                return Some((PathBuf::from("/sys/fs/cgroup"), group));
            }
            controllers
                .split(',')
                .any(|name| name == "cpu")
                .then(|| (Path::new("/sys/fs/cgroup").join(controllers), group))
        })
        .with_context(|| format!("no CPU controller in {path}: {text}"))?;
    let group = top.join(group.trim_start_matches('/'));
    if !group.is_dir() {
        bail!("no group {}", group.display());
    }
    Ok(group)
}

/// Whether a process with these cgroups belongs to the lab.
pub(super) fn holds(lab: &str, cgroups: &[String]) -> bool {
    let name = root(lab);
    cgroups.iter().any(|path| {
        path.match_indices(&name).any(|(at, _)| {
            // The whole path component: lab `a` must not take the pods of lab `ab` for its own.
            matches!(path.as_bytes().get(at + name.len()), None | Some(b'/'))
        })
    })
}

/// Removes the lab's cgroups, the deepest first.
pub(super) fn remove(lab: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let directories = directories(lab);
        for directory in &directories {
            remove_tree(directory);
        }
        if !directories.iter().any(|directory| directory.exists()) {
            return Ok(());
        }
        if begun.elapsed() > BUSY {
            bail!("cgroups stay busy: {directories:?}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Removes what can be removed: a cgroup is an empty directory to rmdir(2) whatever files it shows.
fn remove_tree(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    // A busy one is tried again by the caller.
    let _ = fs::remove_dir(directory);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_does_not_take_anothers_pods_for_its_own() {
        let pods = |path: &str| vec!["/".to_owned(), path.to_owned()];
        assert!(holds("a", &pods("/ferrolb-lab-a/n1/x")));
        assert!(holds("a", &pods("/machine/ferrolb-lab-a")));
        assert!(!holds("a", &pods("/ferrolb-lab-ab/n1/x")));
        assert!(!holds("ab", &pods("/ferrolb-lab-a/n1/x")));
    }
}
