//! The name of a namespaced Kubernetes object.

use std::{cell::RefCell, fmt, ops::Deref, sync::Arc};

/// `metadata.namespace` and `metadata.name` of a Kubernetes object. Displayed as `namespace/name`.
///
/// One name is the key of a dozen maps in each daemon, so copies of it share their text, and names that are made one after the
/// other share that of their namespace: a list of objects is in its order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<Parts>);

/// What an [`ObjectName`] consists of.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Parts {
    /// `metadata.namespace`; empty for what belongs to the whole cluster.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectName {
    /// The object `name` in `namespace`.
    pub fn new(namespace: impl AsRef<str>, name: impl Into<String>) -> Self {
        let parts = Parts {
            namespace: shared(namespace.as_ref()),
            name: name.into(),
        };
        Self(Arc::new(parts))
    }
}

thread_local! {
    /// The namespace of the name that this thread made last.
    static LAST: RefCell<Arc<str>> = RefCell::new(Arc::from(""));
}

/// The text of a namespace, be it that of the name before.
fn shared(namespace: &str) -> Arc<str> {
    LAST.with_borrow_mut(|last| {
        if **last != *namespace {
            *last = Arc::from(namespace);
        }
        last.clone()
    })
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

    /// Input: names of two namespaces, one after the other.
    /// Output: those that follow one another in a namespace share its text; all are what they were made of.
    #[test]
    fn names_of_a_list_share_the_text_of_their_namespace() {
        let listed = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("a", "3")];
        let names = listed.map(|(namespace, name)| ObjectName::new(namespace, name));
        for ((namespace, name), made) in listed.into_iter().zip(&names) {
            assert_eq!((&*made.namespace, made.name.as_str()), (namespace, name));
        }
        let share = |a: usize, b: usize| Arc::ptr_eq(&names[a].namespace, &names[b].namespace);
        assert!(share(0, 1) && share(2, 3) && !share(1, 2));
        assert_eq!(names[0], ObjectName::new(String::from("a"), "1"));
    }
}
