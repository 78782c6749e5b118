//! containerd's configuration, for the versions people have.
//!
//! Proven is 1.6 (Debian 12); 1.7 and 2.x follow containerd's documentation.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::namespace::run;
use super::state::Host;
use crate::artifact::PAUSE_IMAGE;

/// The version of the containerd installed here, as (1, 6).
pub(super) fn version() -> Result<(u32, u32)> {
    let text = run(Command::new("containerd").arg("--version"))?;
    parse_version(&text).with_context(|| format!("cannot understand containerd's version: {text}"))
}

/// Finds `1.6.20~ds1` in `containerd github.com/containerd/containerd 1.6.20~ds1 REVISION`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text.split_whitespace().nth(2)?.trim_start_matches('v');
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The configuration file of a node's containerd. `node` is the node's directory, `plugins` the
/// directory of the CNI plugins.
pub(super) fn configuration(version: (u32, u32), node: &Path, plugins: &Path) -> String {
    let node = node.display();
    let plugins = plugins.display();
    // Everything global moves below the node's directory. restrict_oom_score_adj: a process without
    // CAP_SYS_RESOURCE may not lower the score, and runc fails over it. disable_apparmor: a profile
    // would be loaded into the machine's kernel and stay there.
    let common = format!(
        r#"root = "{node}/containerd"
state = "{node}/containerd-run"
[grpc]
  address = "{node}/containerd.sock"
[ttrpc]
  address = "{node}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{node}/opt"
"#
    );
    let quiet = if version >= (1, 7) {
        "[plugins.\"io.containerd.nri.v1.nri\"]\n  disable = true\n"
    } else {
        ""
    };
    if version.0 >= 2 {
        format!(
            r#"version = 3
{common}{quiet}[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dir = "{plugins}"
    conf_dir = "{node}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#
        )
    } else {
        format!(
            r#"version = 2
{common}{quiet}[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{node}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"#
        )
    }
}

/// The CNI configuration of a node: every pod has its own wire to the node and is routed, so that a
/// pod reaching itself or its neighbour through a Service needs no filtering of bridged frames.
pub(super) fn pod_network(host: &Host, node: &Path) -> String {
    let [ipv4, ipv6] = host.pod_networks();
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": ipv4 }], [{ "subnet": ipv6 }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                "dataDir": node.join("addresses"),
            },
        }],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_debian_and_of_upstream_are_understood() {
        let debian = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3";
        assert_eq!(parse_version(debian), Some((1, 6)));
        let upstream = "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4";
        assert_eq!(parse_version(upstream), Some((2, 1)));
        assert_eq!(parse_version("containerd"), None);
    }

    #[test]
    fn each_major_version_gets_its_own_layout() {
        let text = |version| configuration(version, Path::new("/d"), Path::new("/c"));
        assert!(text((1, 6)).starts_with("version = 2\n") && !text((1, 6)).contains("nri"));
        assert!(text((1, 7)).starts_with("version = 2\n") && text((1, 7)).contains("nri"));
        assert!(
            text((2, 1)).starts_with("version = 3\n") && text((2, 1)).contains("cri.v1.runtime")
        );
    }
}
