//! A mount namespace for each node's daemons, in which the paths that programs of a node take for
//! granted are the node's own: nodes and labs side by side, and the machine itself, stay apart, and
//! every mount ends with the last process of the node.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::process::Process;

/// Paths of the machine and the directory of the node that takes their place.
const PLACES: [(&str, &str); 5] = [
    ("/run/containerd", "run-containerd"),
    ("/run/netns", "run-netns"),
    ("/var/lib/cni", "cni-results"),
    ("/var/lib/kubelet", "kubelet"),
    ("/var/log", "var-log"),
];

/// Kernel settings kubelet insists on writing, with the values it wants. The lab shows it files that
/// already hold them: they are the machine's, not the namespace's, and the lab changes nothing there.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Moves the calling thread, and what it starts from now on, into a new mount namespace in which
/// the node's directories are in place.
pub(super) fn unshare_for(node: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    propagation(MsFlags::MS_PRIVATE)?;
    // Copies of the machine's named network namespaces would keep those alive. More than one mount
    // may lie on the directory.
    for _ in 0..8 {
        if umount2("/run/netns", MntFlags::MNT_DETACH).is_err() {
            break;
        }
    }
    for (path, own) in PLACES {
        let own = node.join(own);
        for directory in [Path::new(path), &own] {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        bind(&own, Path::new(path))?;
    }
    for (setting, value) in SETTINGS {
        let path = Path::new("/proc/sys").join(setting);
        if path.exists() {
            let own = node.join("kernel").join(setting.replace('/', "."));
            super::write(&own, &format!("{value}\n"))?;
            bind(&own, &path)?;
        }
    }
    // As systemd has it, so that pods may ask for mountPropagation.
    propagation(MsFlags::MS_SHARED)
}

/// Moves the calling thread, and what it starts from now on, into the mount namespace of a process.
pub(super) fn join(process: Process) -> Result<()> {
    let path = format!("/proc/{}/ns/mnt", process.pid);
    let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    // A thread that shares its working directory with others may not change mount namespaces.
    unshare(CloneFlags::CLONE_FS).context("cannot unshare the working directory")?;
    setns(file, CloneFlags::CLONE_NEWNS).with_context(|| format!("cannot enter {path}"))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("cannot bind {} to {}", from.display(), to.display()))
}

fn propagation(kind: MsFlags) -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | kind,
        None::<&str>,
    )
    .context("cannot set the mounts' propagation")
}
