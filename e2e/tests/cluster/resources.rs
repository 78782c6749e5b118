//! What a test does with MetalLB's custom resources, where they are installed.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::deploy::{PATIENCE, resources};
use serde_json::{Value, json};

use crate::world::World;

impl World {
    /// Makes or changes an object; an error carries what refuses it.
    pub fn create(&self, kind: &str, name: &str, spec: Value) -> Result<()> {
        resources::submit(self, &resources::object(kind, name, &spec))
    }

    /// The same with labels.
    pub fn create_labelled(
        &self,
        kind: &str,
        name: &str,
        labels: Value,
        spec: Value,
    ) -> Result<()> {
        let mut object = resources::object(kind, name, &spec);
        *object
            .pointer_mut("/metadata")
            .and_then(Value::as_object_mut)
            .context("no metadata")?
            .entry("labels")
            .or_insert(Value::Null) = labels;
        resources::submit(self, &object)
    }

    /// What is said to an object that must be refused.
    pub fn refused(&self, kind: &str, name: &str, spec: Value) -> Result<String> {
        resources::refusal(self, &resources::object(kind, name, &spec))
    }

    /// Deletes an object.
    pub fn delete(&self, kind: &str, name: &str) -> Result<()> {
        resources::delete(self, kind, name)
    }

    /// An object, whole.
    pub fn object(&self, kind: &str, name: &str) -> Result<Value> {
        resources::get(self, kind, name)
    }

    /// All objects of a kind, by its plural.
    pub fn objects(&self, kind: &str) -> Result<Vec<Value>> {
        resources::list(self, kind)
    }

    /// Deletes every pool, advertisement and what else an operator writes.
    pub fn clear_configuration(&self) -> Result<()> {
        resources::clear(self)
    }

    /// Exactly these pools, one L2Advertisement of all of them, and nothing else; waits until the controller has counted
    /// every pool.
    pub(crate) fn configure_resources(&self, pools: &[(&str, &[&str])]) -> Result<()> {
        let wanted: BTreeSet<_> = pools.iter().map(|(name, _)| *name).collect();
        for kind in resources::CONFIGURATION {
            for object in self.objects(kind)? {
                let name = name(&object);
                let kept = match kind {
                    "ipaddresspools" => wanted.contains(name),
                    "l2advertisements" => name == "all",
                    _ => false,
                };
                if !kept {
                    self.delete(kind, name)?;
                }
            }
        }
        for (name, addresses) in pools {
            self.create("IPAddressPool", name, json!({"addresses": addresses}))?;
        }
        self.create("L2Advertisement", "all", json!({}))?;
        self.wait("every pool to be counted", PATIENCE, || {
            for pool in self.objects("ipaddresspools")? {
                ensure!(
                    pool.pointer("/status/availableIPv4").is_some(),
                    "{} is not",
                    name(&pool)
                );
            }
            Ok(true)
        })
    }
}

/// An object's name.
pub fn name(object: &Value) -> &str {
    object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}
