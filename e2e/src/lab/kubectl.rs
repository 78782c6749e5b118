//! kubectl, and what is found out through it.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::namespace::{finish, run};
use super::{Lab, MARK, control, node};

impl Lab {
    /// kubectl with the administrator's rights and these arguments, not started yet. It must run in
    /// the namespace of `cp`: see [`Lab::spawn`].
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.state().kubernetes);
        command
            .arg("kubectl")
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.directory().join("kubectl-cache"))
            .env(MARK, self.name());
        command
    }

    /// Runs kubectl with the administrator's rights and returns its standard output; the error of
    /// one that fails carries its standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_stdin(arguments, "")
    }

    /// Like [`Lab::kubectl`], with text for its standard input.
    pub fn kubectl_stdin(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.kubectl_command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.namespace(control::HOST)?.spawn(&mut command)?;
        finish(child, input, &format!("kubectl {}", arguments.join(" ")))
    }

    /// Applies manifests, YAML or JSON, and returns what kubectl says of them.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.kubectl_stdin(&["apply", "-f", "-"], manifests)
    }

    /// The process number, as this machine counts, of a container's main process.
    pub fn container_pid(&self, namespace: &str, pod: &str, container: &str) -> Result<u32> {
        let path = format!(
            "jsonpath={{.spec.nodeName}} {{.status.containerStatuses[?(@.name==\"{container}\")].containerID}}"
        );
        let text = self.kubectl(&["get", "pod", "-n", namespace, pod, "-o", &path])?;
        let Some((host, id)) = text.trim().split_once(' ') else {
            bail!("container {container} of pod {namespace}/{pod} has not been started");
        };
        let id = id
            .strip_prefix("containerd://")
            .with_context(|| format!("unknown container ID {id:?}"))?;
        let tasks = run(node::ctr(&self.directory(), host).args(["tasks", "ls"]))?;
        pid_of_task(&tasks, id).with_context(|| {
            format!("container {container} of pod {namespace}/{pod} does not run on {host}")
        })
    }
}

/// Finds a running task in the table `ctr tasks ls` prints: `TASK PID STATUS`.
fn pid_of_task(table: &str, id: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (task, pid, status) = (words.next()?, words.next()?, words.next()?);
        if task == id && status == "RUNNING" {
            pid.parse().ok()
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_running_task_has_a_process() {
        let table = "TASK    PID      STATUS\nabc     4711     RUNNING\ndef     4712     STOPPED\n";
        assert_eq!(pid_of_task(table, "abc"), Some(4711));
        assert_eq!(pid_of_task(table, "def"), None);
        assert_eq!(pid_of_task(table, "ab"), None);
    }
}
