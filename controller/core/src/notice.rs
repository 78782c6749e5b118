//! What is told to the Service's owner: the content of a Kubernetes Event.

/// Kubernetes `Event.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

/// One Event for a Service. Reasons and texts are MetalLB's where it has one for the case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The Event's `type`.
    pub level: Level,
    /// The Event's `reason`.
    pub reason: &'static str,
    /// The Event's `message`.
    pub message: String,
}

/// A list as Go's `%q` prints it: `["10.0.0.1" "fc00::1"]`. MetalLB's texts have lists in this form.
pub(crate) fn quoted<T: ToString>(items: &[T]) -> String {
    let quoted: Vec<String> = items
        .iter()
        .map(|item| format!("{:?}", item.to_string()))
        .collect();
    format!("[{}]", quoted.join(" "))
}
