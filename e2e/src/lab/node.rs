//! A node: containerd, kubelet and kube-proxy in one network namespace and one mount namespace.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::json;

use super::control::{kubeconfig, kubelet_user};
use super::namespace::run;
use super::state::Host;
use super::{Lab, cgroup, mounts, network, preconditions, runtime, wait_for, write};

/// How long containerd may take to listen.
const READY: Duration = Duration::from_mins(1);

/// A node's own directory.
fn directory(lab: &Path, node: &str) -> PathBuf {
    lab.join(node)
}

/// Where a node's containerd listens.
fn socket(lab: &Path, node: &str) -> PathBuf {
    directory(lab, node).join("containerd.sock")
}

/// `ctr` for Kubernetes' images and containers of a node.
pub(super) fn ctr(lab: &Path, node: &str) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(socket(lab, node))
        .args(["--namespace", "k8s.io"]);
    command
}

/// Imports an image archive on a node.
pub(super) fn import(lab: &Path, node: &str, archive: &Path) -> Result<()> {
    run(ctr(lab, node).args(["images", "import"]).arg(archive)).map(drop)
}

impl Lab {
    /// Starts a node's containerd and loads these images.
    pub(super) fn raise_runtime(&self, host: &Host, images: &[PathBuf]) -> Result<()> {
        let lab = self.directory();
        let node = directory(&lab, &host.name);
        let plugins = preconditions::cni_plugins()?;
        write(
            &node.join("cni/10-pods.conflist"),
            &runtime::pod_network(host, &node),
        )?;
        let configuration = node.join("containerd.toml");
        write(
            &configuration,
            &runtime::configuration(runtime::version()?, &node, &plugins),
        )?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&configuration);
        let process = self.start_command(&host.name, "containerd", command, || {
            mounts::unshare_for(&node)
        })?;
        let socket = socket(&lab, &host.name);
        wait_for(
            &self.steps,
            &format!("containerd on {}", host.name),
            READY,
            || {
                if !process.is_alive() {
                    let log = self.log(&host.name, "containerd");
                    return Ok(Some(Err(anyhow!(
                        "containerd on {} ended:\n{log}",
                        host.name
                    ))));
                }
                UnixStream::connect(&socket)?;
                Ok(Some(Ok(())))
            },
        )??;
        images
            .iter()
            .try_for_each(|image| import(&lab, &host.name, image))
    }

    /// Starts a node's kubelet and kube-proxy; the API server must be there.
    pub(super) fn raise_kubelet(&self, host: &Host) -> Result<()> {
        let lab = self.directory();
        let node = directory(&lab, &host.name);
        let name = host.name.as_str();
        let containerd = self.daemon(name, "containerd")?;
        cgroup::create(&self.name(), name)?;
        let configuration = node.join("kubelet.yaml");
        write(&configuration, &self.kubelet_configuration(host, &node))?;
        self.start(
            name,
            "kubelet",
            &[
                format!("--config={}", configuration.display()),
                format!(
                    "--kubeconfig={}",
                    kubeconfig(&lab, &kubelet_user(name)).display()
                ),
                format!("--hostname-override={name}"),
                format!("--node-ip={},{}", host.ipv4, host.ipv6),
                format!("--cert-dir={}", node.join("pki").display()),
            ],
            || mounts::join(containerd),
        )?;
        self.start(
            name,
            "kube-proxy",
            &[
                format!(
                    "--kubeconfig={}",
                    kubeconfig(&lab, "system:kube-proxy").display()
                ),
                format!("--hostname-override={name}"),
                "--proxy-mode=nftables".to_owned(),
                format!("--cluster-cidr={}", network::POD_NETWORK),
                // The size of the connection table belongs to the machine, not to a namespace.
                "--conntrack-max-per-core=0".to_owned(),
                "--oom-score-adj=0".to_owned(),
            ],
            || mounts::join(containerd),
        )?;
        Ok(())
    }

    /// KubeletConfiguration; JSON is YAML too.
    fn kubelet_configuration(&self, host: &Host, node: &Path) -> String {
        let mut configuration = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": host.ipv4,
            "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
            "authorization": { "mode": "AlwaysAllow" },
            "containerRuntimeEndpoint": format!("unix://{}", node.join("containerd.sock").display()),
            "volumePluginDir": node.join("volume-plugins"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("{}/{}", cgroup::root(&self.name()), host.name),
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            "clusterDNS": [],
            "resolvConf": "",
            "nodeStatusUpdateFrequency": "2s",
            // Lowering it needs CAP_SYS_RESOURCE.
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": false,
            // The nodes share one disk and one memory: no node evicts over what the others use.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "0%",
                "nodefs.available": "0%",
                "imagefs.available": "0%",
                "nodefs.inodesFree": "0%",
            },
        });
        if let (false, Some(fields)) = (cgroup::unified(), configuration.as_object_mut()) {
            // Kubernetes 1.35 refuses cgroup v1 unless told otherwise.
            fields.insert("failCgroupV1".to_owned(), json!(false));
        }
        configuration.to_string()
    }
}
