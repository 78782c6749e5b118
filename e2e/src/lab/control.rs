//! The control plane: etcd, API server, controller manager and scheduler on host `cp`.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use super::process::{Process, wait_for_end};
use super::state::{Host, Role};
use super::{Lab, MARK, Signal, network, wait_for, write};
use crate::steps::tail;

/// The host of the control plane.
pub(super) const HOST: &str = "cp";
/// The user with every right.
pub(super) const ADMIN: &str = "admin";
/// How long the API server may take to be ready.
const READY: Duration = Duration::from_mins(2);
/// What the API server writes down: who of the pods asked for what, and what it was told.
const AUDIT: &str = "audit.log";
/// The API server's name among the daemons.
const APISERVER: &str = "kube-apiserver";

/// Where a user's kubeconfig is.
pub(super) fn kubeconfig(directory: &Path, user: &str) -> PathBuf {
    directory.join("kubeconfig").join(user.replace(':', "-"))
}

/// Every answer to a service account of the load balancer's namespace, without what was sent.
fn audit_policy() -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        // A watch is told of when it begins, too: it may outlive the test.
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts:metallb-system"]}, {"level": "None"}],
    })
}

/// The user name of a node's kubelet, as the Node authorizer knows it.
pub(super) fn kubelet_user(node: &str) -> String {
    format!("system:node:{node}")
}

impl Lab {
    /// Starts the control plane and returns when its API server is ready and knows every node.
    pub(super) fn raise_control_plane(&self) -> Result<()> {
        let directory = self.directory();
        self.write_users()?;
        write(&directory.join("audit.json"), &audit_policy().to_string())?;
        let data = directory.join("etcd");
        self.start(
            HOST,
            "etcd",
            &[
                // The lab does not outlive the machine: no need to wait for the disk.
                "--unsafe-no-fsync",
                "--log-level=warn",
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                &format!("--data-dir={}", data.display()),
            ],
            || Ok(()),
        )?;
        self.apiserver_start()?;
        let pki = directory.join("pki");
        self.start(
            HOST,
            "kube-controller-manager",
            &[
                &format!(
                    "--kubeconfig={}",
                    kubeconfig(&directory, "system:kube-controller-manager").display()
                ),
                &format!(
                    "--service-account-private-key-file={}",
                    pki.join("apiserver.key").display()
                ),
                // What pods trust as the API server.
                &format!("--root-ca-file={}", pki.join("apiserver.crt").display()),
                "--use-service-account-credentials=true",
                "--leader-elect=false",
                // The nodes' networks are fixed beforehand.
                "--allocate-node-cidrs=false",
            ],
            || Ok(()),
        )?;
        self.start(
            HOST,
            "kube-scheduler",
            &[
                &format!(
                    "--kubeconfig={}",
                    kubeconfig(&directory, "system:kube-scheduler").display()
                ),
                "--leader-elect=false",
            ],
            || Ok(()),
        )?;
        self.apply(&self.node_objects()).map(drop)
    }

    /// Ends the API server at once with SIGKILL, and nothing else.
    pub fn apiserver_kill(&self) -> Result<()> {
        let process = self.daemon(HOST, APISERVER)?;
        process.signal(Signal::SIGKILL)?;
        wait_for_end(process, Duration::from_secs(10));
        Ok(())
    }

    /// Starts the API server as [`Lab::builder`] did and returns when it is ready. Does nothing to
    /// one that runs already but wait for it.
    pub fn apiserver_start(&self) -> Result<()> {
        if !self.daemon(HOST, APISERVER).is_ok_and(Process::is_alive) {
            self.start(HOST, APISERVER, &self.apiserver_flags()?, || Ok(()))?;
        }
        wait_for(&self.steps, "the API server", READY, || {
            if !self.daemon(HOST, APISERVER)?.is_alive() {
                return Ok(Some(Err(anyhow!(
                    "the API server ended:\n{}",
                    self.log(HOST, APISERVER)
                ))));
            }
            self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=3s"])?;
            Ok(Some(Ok(())))
        })?
    }

    fn apiserver_flags(&self) -> Result<Vec<String>> {
        let address = self.address(HOST)?;
        let directory = self.directory();
        let pki = directory.join("pki");
        // The API server makes itself a certificate and a key on its first start; the key also
        // signs the ServiceAccounts' tokens.
        let key = pki.join("apiserver.key");
        Ok(vec![
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--bind-address={address}"),
            format!("--advertise-address={address}"),
            "--secure-port=6443".to_owned(),
            format!("--cert-dir={}", pki.display()),
            format!(
                "--token-auth-file={}",
                directory.join("tokens.csv").display()
            ),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--service-cluster-ip-range={}", network::SERVICE_NETWORK),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", key.display()),
            format!("--service-account-signing-key-file={}", key.display()),
            // For logs and exec: the lab has no DNS to find a kubelet by its name.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!(
                "--audit-policy-file={}",
                directory.join("audit.json").display()
            ),
            format!("--audit-log-path={}", directory.join(AUDIT).display()),
            "--max-requests-inflight=2000".to_owned(),
            "--max-mutating-requests-inflight=1000".to_owned(),
        ])
    }

    /// What the service accounts of `metallb-system` asked of the API server since the lab was raised, and what it
    /// answered: audit events, one JSON object a line.
    pub fn audit_log(&self) -> Result<String> {
        let path = self.directory().join(AUDIT);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Writes the tokens file and a kubeconfig for every user.
    fn write_users(&self) -> Result<()> {
        let directory = self.directory();
        let mut users = vec![
            (ADMIN.to_owned(), "system:masters"),
            ("system:kube-controller-manager".to_owned(), ""),
            ("system:kube-scheduler".to_owned(), ""),
            ("system:kube-proxy".to_owned(), ""),
        ];
        users.extend(
            self.nodes()
                .iter()
                .map(|node| (kubelet_user(node), "system:nodes")),
        );
        let server = format!("https://{}:6443", self.address(HOST)?);
        let mut tokens = String::new();
        for (user, group) in users {
            // Good enough behind a bridge nobody else is plugged into.
            let token = format!("token-of-{}", user.replace(':', "-"));
            writeln!(tokens, "{token},{user},{user},{group}")?;
            let config = json!({
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "lab",
                "clusters": [{ "name": "lab", "cluster": {
                    "server": server,
                    "certificate-authority": directory.join("pki/apiserver.crt"),
                }}],
                "users": [{ "name": user, "user": { "token": token } }],
                "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": user } }],
            });
            write(&kubeconfig(&directory, &user), &config.to_string())?;
        }
        write(&directory.join("tokens.csv"), &tokens)
    }

    /// The Node objects, made before the kubelets register so that each states the pod networks its
    /// node really uses.
    fn node_objects(&self) -> String {
        let items: Vec<_> = self
            .hosts()
            .iter()
            .filter(|host| host.role == Role::Node)
            .map(|host: &Host| {
                let networks = host.pod_networks();
                json!({
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": { "name": host.name, "labels": { "kubernetes.io/hostname": host.name } },
                    "spec": { "podCIDR": networks.first(), "podCIDRs": networks },
                })
            })
            .collect();
        json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
    }

    /// Starts a program of Kubernetes on a host, its output in a log file, and remembers it.
    /// `enter` runs on the starting thread just before, inside the host's network namespace.
    pub(super) fn start(
        &self,
        host: &str,
        program: &str,
        arguments: &[impl AsRef<str>],
        enter: impl FnOnce() -> Result<()> + Send,
    ) -> Result<Process> {
        let mut command = Command::new(&self.state().kubernetes);
        command
            .arg(program)
            .args(arguments.iter().map(AsRef::as_ref));
        self.start_command(host, program, command, enter)
    }

    /// Like [`Lab::start`] for a program that is not part of Kubernetes.
    pub(super) fn start_command(
        &self,
        host: &str,
        program: &str,
        mut command: Command,
        enter: impl FnOnce() -> Result<()> + Send,
    ) -> Result<Process> {
        let directory = self.directory();
        let path = self.log_path(host, program);
        fs::create_dir_all(directory.join("logs"))?;
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        command
            .env(MARK, self.name())
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for the program that raises the lab, not for the lab.
            .process_group(0);
        let child = self.namespace(host)?.within(|| {
            enter()?;
            super::namespace::start(&mut command)
        })?;
        let pid = i32::try_from(child.id())?;
        let Some(process) = Process::of(pid) else {
            bail!(
                "{program} on {host} ended at once:\n{}",
                self.log(host, program)
            );
        };
        let mut state = self.state();
        state.remember(host, program, process);
        state.save(&directory)?;
        Ok(process)
    }

    /// The process of a daemon.
    pub(super) fn daemon(&self, host: &str, program: &str) -> Result<Process> {
        self.state()
            .daemon(host, program)
            .with_context(|| format!("no {program} was started on {host}"))
    }

    fn log_path(&self, host: &str, program: &str) -> PathBuf {
        self.directory()
            .join("logs")
            .join(format!("{host}-{program}.log"))
    }

    /// The end of a daemon's log.
    pub(super) fn log(&self, host: &str, program: &str) -> String {
        let text = fs::read(self.log_path(host, program)).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), 20)
    }
}
