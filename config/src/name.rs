//! The name of a namespaced Kubernetes object.

use std::{fmt, ops::Deref, sync::Arc};

/// `metadata.namespace` and `metadata.name` of a Kubernetes object. Displayed as `namespace/name`.
///
/// One name is the key of a dozen maps in each daemon, so copies of it share their text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<Parts>);

/// What an [`ObjectName`] consists of.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Parts {
    /// `metadata.namespace`; empty for what belongs to the whole cluster.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectName {
    /// The object `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        let parts = Parts {
            namespace: namespace.into(),
            name: name.into(),
        };
        Self(Arc::new(parts))
    }
}

impl Deref for ObjectName {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_namespace_slash_name() {
        assert_eq!(
            ObjectName::new("default", "nginx").to_string(),
            "default/nginx"
        );
    }
}
