//! What a test does with Services beyond making one: other namespaces, labels and annotations, changes in place, and
//! labels of nodes and namespaces. A name is `name` in namespace `default`, or `namespace/name`.

use anyhow::{Result, ensure};
use ferrolb_e2e::{deploy::PATIENCE, observe::service};
use serde_json::{Value, json};

use crate::world::World;

impl World {
    /// Makes or changes a Service of `type: LoadBalancer` with these annotations and labels; `spec` is merged into its
    /// spec.
    pub fn dressed(
        &self,
        name: &str,
        labels: Value,
        annotations: Value,
        spec: Value,
    ) -> Result<()> {
        let (namespace, name) = split(name);
        let mut object = service::balancer(name, &labels, &spec);
        if let Some(metadata) = object
            .pointer_mut("/metadata")
            .and_then(Value::as_object_mut)
        {
            metadata.insert("namespace".to_owned(), json!(namespace));
            metadata.insert("annotations".to_owned(), annotations);
            if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
                labels.insert("e2e".to_owned(), json!("yes"));
            }
        }
        self.apply(&object.to_string()).map(drop)
    }

    /// Changes fields of a Service (RFC 7386).
    pub fn patch(&self, name: &str, patch: &Value) -> Result<()> {
        let (namespace, name) = split(name);
        let patch = patch.to_string();
        let words = ["-n", namespace, "patch", "service", name];
        self.kubectl(&[&words[..], &["--type=merge", "-p", &patch]].concat())
            .map(drop)
    }

    /// A Service, whole.
    pub fn service(&self, name: &str) -> Result<Value> {
        let (namespace, name) = split(name);
        let text = self.kubectl(&["-n", namespace, "get", "service", name, "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Deletes Services and waits until they are gone.
    pub fn forget(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let (namespace, name) = split(name);
            self.kubectl(&["-n", namespace, "delete", "service", name])?;
        }
        Ok(())
    }

    /// The addresses of a Service, in order.
    pub fn held(&self, name: &str) -> Result<Vec<String>> {
        let service = self.service(name)?;
        let ingress = service.pointer("/status/loadBalancer/ingress");
        let entries = ingress.and_then(Value::as_array).into_iter().flatten();
        Ok(entries
            .filter_map(|entry| entry.get("ip")?.as_str().map(str::to_owned))
            .collect())
    }

    /// Waits until a Service has exactly these addresses.
    pub fn gets(&self, name: &str, expected: &[&str]) -> Result<()> {
        self.wait(&format!("{name} to have {expected:?}"), PATIENCE, || {
            let held = self.held(name)?;
            ensure!(held == expected, "it has {held:?}");
            Ok(true)
        })
    }

    /// Fails where a Service does not have, or does not keep, exactly these addresses for as long as a decision could
    /// take many times over.
    pub fn keeps(&self, name: &str, expected: &[&str]) -> Result<()> {
        for _ in 0..10 {
            let held = self.held(name)?;
            ensure!(held == expected, "{name} has {held:?}, not {expected:?}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        Ok(())
    }

    /// Gives a namespace to `test`, and takes it away with its Services.
    pub fn with_namespace(&self, name: &str, test: impl FnOnce() -> Result<()>) -> Result<()> {
        self.kubectl(&["create", "namespace", name])?;
        let result = test();
        // The namespace takes its time to go; what holds addresses goes now.
        self.kubectl(&["-n", name, "delete", "services", "--all"])?;
        self.kubectl(&["delete", "namespace", name, "--wait=false"])?;
        result
    }

    /// Labels a node, `key=value`, for as long as `test` takes.
    pub fn with_label(
        &self,
        node: &str,
        label: &str,
        test: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.kubectl(&["label", "--overwrite", "node", node, label])?;
        let result = test();
        let key = label.split('=').next().unwrap_or_default();
        self.kubectl(&["label", "node", node, &format!("{key}-")])?;
        result
    }

    /// Waits until this node, and no other, answers for `address`.
    pub fn answers(&self, node: &str, address: impl Into<std::net::IpAddr>) -> Result<()> {
        let address = address.into();
        self.wait(&format!("{node} to answer for {address}"), PATIENCE, || {
            let heard = ferrolb_e2e::observe::answerers(self, crate::world::CLIENT, address)?;
            ensure!(heard.iter().eq([node]), "answered by {heard:?}");
            Ok(true)
        })
    }

    /// Waits for an event that says that the Service `name` of `default` is announced from `node`.
    pub fn said_of(&self, name: &str, node: &str) -> Result<()> {
        let words = format!("announcing from node \"{node}\"");
        service::wait_event(self, "default", "Service", name, "nodeAssigned", &words)
    }
}

fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("default", name))
}
