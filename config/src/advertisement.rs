//! How the addresses of a pool are announced on layer 2, and to whom a pool gives them.

use std::collections::BTreeSet;

use crate::labels::{Labels, Selector, any_matches};

/// A checked `L2Advertisement`, or what a layer-2 pool of the ConfigMap says by being one: every node, every interface,
/// every Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertisement {
    pub(crate) name: String,
    pub(crate) nodes: Vec<Selector>,
    pub(crate) services: Vec<Selector>,
    pub(crate) interfaces: BTreeSet<String>,
    pub(crate) preferred: Vec<(u32, Selector)>,
}

impl Advertisement {
    /// `metadata.name`; empty for what a pool of the ConfigMap says itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a node with these labels may announce: `spec.nodeSelectors`, of which one must match; without any, every
    /// node may.
    pub fn selects_node(&self, labels: &Labels) -> bool {
        self.nodes.is_empty() || any_matches(&self.nodes, labels)
    }

    /// Whether a Service with these labels is announced: `spec.serviceSelectors` (MetalLB 0.16), of which one must match;
    /// without any, every Service is.
    pub fn selects_service(&self, labels: &Labels) -> bool {
        self.services.is_empty() || any_matches(&self.services, labels)
    }

    /// `spec.interfaces`: exact names; empty means every interface.
    pub fn interfaces(&self) -> &BTreeSet<String> {
        &self.interfaces
    }

    /// How much a node with these labels is preferred: the sum of the weights (1–100 each) of the matching entries of
    /// `spec.preferredNodeSelectors` (MetalLB after 0.16.1).
    pub fn preference(&self, labels: &Labels) -> u64 {
        let matching = self
            .preferred
            .iter()
            .filter(|(_, preference)| preference.matches(labels));
        matching.map(|(weight, _)| u64::from(*weight)).sum()
    }
}

/// To whom a pool gives addresses: `spec.serviceAllocation` of an `IPAddressPool`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    pub(crate) priority: Option<i64>,
    pub(crate) namespaces: BTreeSet<String>,
    pub(crate) namespace_selectors: Vec<Selector>,
    pub(crate) service_selectors: Vec<Selector>,
}

impl Allocation {
    /// `priority`: pools with a lower number are taken first; without one (absent or 0) a pool comes last.
    pub fn priority(&self) -> Option<i64> {
        self.priority
    }

    /// Whether a Service with these labels in this namespace may have addresses of the pool. The namespace is named or
    /// selected, if anything is said of namespaces; one of the Service selectors matches, if there is one.
    ///
    /// A namespace whose labels are not known (`None`) is selected by none. MetalLB lets everybody in when namespaces are
    /// selected and none matches; here nobody is.
    pub fn admits(
        &self,
        namespace: &str,
        namespace_labels: Option<&Labels>,
        service_labels: &Labels,
    ) -> bool {
        let selected = || {
            namespace_labels.is_some_and(|labels| any_matches(&self.namespace_selectors, labels))
        };
        (self.names(namespace) || selected()) && self.selects_service(service_labels)
    }

    /// Whether [`admits`](Self::admits) says yes for some labels of the namespace: what a Service has, it need not lose
    /// because they are not known.
    pub fn may_admit(&self, namespace: &str, service_labels: &Labels) -> bool {
        let selects = !self.namespace_selectors.is_empty();
        (self.names(namespace) || selects) && self.selects_service(service_labels)
    }

    /// Whether the namespace is let in whatever its labels are.
    fn names(&self, namespace: &str) -> bool {
        let anywhere = self.namespaces.is_empty() && self.namespace_selectors.is_empty();
        anywhere || self.namespaces.contains(namespace)
    }

    fn selects_service(&self, labels: &Labels) -> bool {
        self.service_selectors.is_empty() || any_matches(&self.service_selectors, labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Requirement;

    fn labels(text: &str) -> Labels {
        Labels::from([("k".to_string(), text.to_string())])
    }

    fn is(value: &str) -> Selector {
        Selector {
            requirements: [Requirement::In("k".into(), [value.to_string()].into())].into(),
        }
    }

    #[test]
    fn an_advertisement_without_selectors_selects_everything() {
        let all = Advertisement::default();
        assert!(all.selects_node(&labels("a")) && all.selects_service(&labels("a")));
        assert_eq!(all.preference(&labels("a")), 0);
        let some = Advertisement {
            nodes: vec![is("a"), is("b")],
            services: vec![is("c")],
            preferred: vec![(60, is("a")), (50, Selector::default())],
            ..Advertisement::default()
        };
        assert!(some.selects_node(&labels("b")) && !some.selects_node(&labels("c")));
        assert!(some.selects_service(&labels("c")) && !some.selects_service(&labels("a")));
        assert_eq!(some.preference(&labels("a")), 110);
        assert_eq!(some.preference(&labels("b")), 50);
    }

    #[test]
    fn an_allocation_admits_by_namespace_and_by_service() {
        let everybody = Allocation::default();
        assert!(everybody.admits("n", Some(&labels("a")), &labels("a")));
        let named = Allocation {
            namespaces: ["n".to_string()].into(),
            namespace_selectors: vec![is("a")],
            service_selectors: vec![is("s")],
            ..Allocation::default()
        };
        assert!(named.admits("n", Some(&labels("b")), &labels("s")));
        assert!(named.admits("m", Some(&labels("a")), &labels("s")));
        assert!(!named.admits("m", Some(&labels("b")), &labels("s")));
        assert!(!named.admits("n", Some(&labels("a")), &labels("t")));
    }

    #[test]
    fn a_namespace_whose_labels_are_not_known_is_selected_by_none() {
        let selected = Allocation {
            namespace_selectors: vec![Selector::default()],
            ..Allocation::default()
        };
        assert!(selected.admits("n", Some(&Labels::new()), &Labels::new()));
        assert!(!selected.admits("n", None, &Labels::new()));
    }

    #[test]
    fn only_namespace_labels_that_are_not_known_leave_a_doubt() {
        let selected = Allocation {
            namespaces: ["n".to_string()].into(),
            namespace_selectors: vec![is("a")],
            service_selectors: vec![is("s")],
            ..Allocation::default()
        };
        assert!(selected.may_admit("n", &labels("s")) && selected.may_admit("m", &labels("s")));
        assert!(!selected.may_admit("n", &labels("t")) && !selected.may_admit("m", &labels("t")));
        let named = Allocation {
            namespace_selectors: Vec::new(),
            ..selected
        };
        assert!(named.may_admit("n", &labels("s")) && !named.may_admit("m", &labels("s")));
        assert!(Allocation::default().may_admit("m", &Labels::new()));
    }
}
