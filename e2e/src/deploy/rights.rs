//! What the daemons are allowed to do, and what they do: RBAC compared with the API server's audit log.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::NAMESPACE;
use crate::Lab;

/// One thing somebody may do, or has asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Whose: the name of the ServiceAccount.
    pub account: String,
    /// As in a rule: `list`.
    pub verb: String,
    /// The resource with its group and subresource: `services/status`, `ipaddresspools.metallb.io/status`.
    pub resource: String,
    /// The one object it is about, if it is about one.
    pub name: Option<String>,
    /// Only in this namespace.
    pub namespace: Option<String>,
}

impl Right {
    /// Whether this right is one to do what was asked for.
    pub fn covers(&self, asked: &Self) -> bool {
        self.account == asked.account
            && self.verb == asked.verb
            && self.resource == asked.resource
            && (self.name.is_none() || self.name == asked.name)
            && (self.namespace.is_none() || self.namespace == asked.namespace)
    }

    /// `controller list services`: enough to tell it by where names and namespaces do not matter.
    pub fn short(&self) -> String {
        format!("{} {} {}", self.account, self.verb, self.resource)
    }
}

/// What the accounts of [`NAMESPACE`] have asked for.
#[derive(Debug, Default)]
pub struct Asked {
    /// What they were told.
    pub answered: BTreeSet<Right>,
    /// What RBAC has refused, and never granted.
    pub refused: BTreeSet<Right>,
}

impl Asked {
    /// Reads audit events, one a line; those before `since` (RFC 3339) are of others.
    pub fn read(log: &str, since: &str) -> Self {
        let mut asked = Self::default();
        for line in log.lines() {
            // The last line may be half written.
            let Ok(event) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let at = text(&event, "/requestReceivedTimestamp").unwrap_or_default();
            // One notation, one time zone: the order of the texts is that of the times. Parts of a second come after it.
            if at.as_str() < since.trim_end_matches('Z') {
                continue;
            }
            if let Some(right) = of_event(&event) {
                let decision = event.pointer("/annotations/authorization.k8s.io~1decision");
                if decision.and_then(Value::as_str) == Some("forbid") {
                    asked.refused.insert(right);
                } else {
                    asked.answered.insert(right);
                }
            }
        }
        // An API server that has just started refuses everything for a moment.
        let kind = |right: &Right| (right.short(), right.namespace.clone());
        let granted: BTreeSet<_> = asked.answered.iter().map(kind).collect();
        asked
            .refused
            .retain(|right| !granted.contains(&kind(right)));
        asked
    }

    /// Everything asked for since [`NAMESPACE`] was made.
    ///
    /// # Errors
    /// There is no such namespace, or no audit log.
    pub fn since_installed(lab: &Lab) -> Result<Self> {
        let path = "jsonpath={.metadata.creationTimestamp}";
        let since = lab.kubectl(&["get", "namespace", NAMESPACE, "-o", path])?;
        Ok(Self::read(&lab.audit_log()?, since.trim()))
    }
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

/// What an audit event asks for, if a ServiceAccount of [`NAMESPACE`] asks for a resource.
fn of_event(event: &Value) -> Option<Right> {
    let user = text(event, "/user/username")?;
    let prefix = format!("system:serviceaccount:{NAMESPACE}:");
    let subject = |field: &str| text(event, &format!("/objectRef/{field}"));
    Some(Right {
        account: user.strip_prefix(&prefix)?.to_owned(),
        verb: text(event, "/verb")?,
        resource: resource(
            &subject("apiGroup").unwrap_or_default(),
            &subject("resource")?,
            subject("subresource").as_deref(),
        ),
        name: subject("name"),
        namespace: subject("namespace"),
    })
}

fn resource(group: &str, plural: &str, part: Option<&str>) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    let part = part.map(|part| format!("/{part}")).unwrap_or_default();
    format!("{plural}{dot}{group}{part}")
}

/// Every right that these objects give to ServiceAccounts of [`NAMESPACE`]: Roles and ClusterRoles with their bindings.
///
/// # Errors
/// A binding names a role that is not among them.
pub fn granted(objects: &[Value]) -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for binding in objects {
        let kind = text(binding, "/kind").unwrap_or_default();
        if !kind.ends_with("RoleBinding") {
            continue;
        }
        let accounts: Vec<_> = list(binding, "/subjects")
            .filter(|subject| text(subject, "/kind").as_deref() == Some("ServiceAccount"))
            .filter(|subject| {
                text(subject, "/namespace").is_none_or(|namespace| namespace == NAMESPACE)
            })
            .filter_map(|subject| text(subject, "/name"))
            .collect();
        if accounts.is_empty() {
            continue;
        }
        let (role_kind, role) = (
            text(binding, "/roleRef/kind"),
            text(binding, "/roleRef/name"),
        );
        let found = objects.iter().find(|object| {
            text(object, "/kind") == role_kind && text(object, "/metadata/name") == role
        });
        let found =
            found.with_context(|| format!("{kind} of the unknown {role_kind:?} {role:?}"))?;
        let namespace = (kind == "RoleBinding").then(|| NAMESPACE.to_owned());
        for account in &accounts {
            for rule in list(found, "/rules") {
                rights.extend(of_rule(rule, account, namespace.as_ref()));
            }
        }
    }
    Ok(rights)
}

fn of_rule(rule: &Value, account: &str, namespace: Option<&String>) -> Vec<Right> {
    let words = |field: &str| -> Vec<String> {
        list(rule, field)
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    };
    let mut names: Vec<_> = words("/resourceNames").into_iter().map(Some).collect();
    if names.is_empty() {
        names.push(None);
    }
    let mut rights = Vec::new();
    for group in words("/apiGroups") {
        for plural in words("/resources") {
            let (plural, part) = match plural.split_once('/') {
                Some((plural, part)) => (plural, Some(part)),
                None => (plural.as_str(), None),
            };
            for verb in words("/verbs") {
                rights.extend(names.iter().map(|name| Right {
                    account: account.to_owned(),
                    verb: verb.clone(),
                    resource: resource(&group, plural, part),
                    name: name.clone(),
                    namespace: namespace.cloned(),
                }));
            }
        }
    }
    rights
}

fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The rights in force on a lab.
///
/// # Errors
/// `kubectl` cannot list them.
pub fn in_force(lab: &Lab) -> Result<BTreeSet<Right>> {
    let cluster = ["get", "clusterroles,clusterrolebindings", "-o", "json"];
    let own = ["get", "roles,rolebindings", "-n", NAMESPACE, "-o", "json"];
    let mut objects = Vec::new();
    for words in [&cluster[..], &own[..]] {
        let mut answer: Value = serde_json::from_str(&lab.kubectl(words)?)?;
        if let Some(Value::Array(items)) = answer.get_mut("items").map(Value::take) {
            objects.extend(items);
        }
    }
    granted(&objects)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(at: &str, account: &str, verb: &str, subject: &Value, decision: &str) -> String {
        json!({
            "requestReceivedTimestamp": at,
            "user": {"username": format!("system:serviceaccount:{account}")},
            "verb": verb,
            "objectRef": subject,
            "annotations": {"authorization.k8s.io/decision": decision},
        })
        .to_string()
    }

    #[test]
    fn events_of_our_accounts_since_then_are_what_was_asked() {
        let status = json!({"resource": "services", "subresource": "status", "namespace": "default", "name": "a"});
        let pools = json!({"resource": "ipaddresspools", "apiGroup": "metallb.io", "namespace": "metallb-system"});
        let log = [
            event(
                "2026-01-01T00:00:00.5Z",
                "metallb-system:speaker",
                "list",
                &pools,
                "allow",
            ),
            event(
                "2026-01-02T00:00:00.5Z",
                "metallb-system:controller",
                "patch",
                &status,
                "allow",
            ),
            event(
                "2026-01-02T00:00:01.5Z",
                "metallb-system:speaker",
                "watch",
                &pools,
                "forbid",
            ),
            event(
                "2026-01-02T00:00:02.5Z",
                "elsewhere:speaker",
                "list",
                &pools,
                "forbid",
            ),
            event(
                "2026-01-02T00:00:03.5Z",
                "metallb-system:speaker",
                "get",
                &Value::Null,
                "allow",
            ),
            "{\"half".to_owned(),
        ]
        .join("\n");
        let asked = Asked::read(&log, "2026-01-02T00:00:00Z");
        let short = |rights: &BTreeSet<Right>| rights.iter().map(Right::short).collect::<Vec<_>>();
        assert_eq!(short(&asked.answered), ["controller patch services/status"]);
        assert_eq!(
            short(&asked.refused),
            ["speaker watch ipaddresspools.metallb.io"]
        );
    }

    #[test]
    fn rules_and_bindings_give_rights() {
        let objects = [
            json!({"kind": "ClusterRole", "metadata": {"name": "c"}, "rules": [
                {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]}]}),
            json!({"kind": "Role", "metadata": {"name": "r"}, "rules": [
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": ["list"]}]}),
            json!({"kind": "ClusterRoleBinding", "roleRef": {"kind": "ClusterRole", "name": "c"}, "subjects": [
                {"kind": "ServiceAccount", "name": "speaker", "namespace": NAMESPACE},
                {"kind": "ServiceAccount", "name": "speaker", "namespace": "elsewhere"}]}),
            json!({"kind": "RoleBinding", "roleRef": {"kind": "Role", "name": "r"}, "subjects": [
                {"kind": "ServiceAccount", "name": "controller"}]}),
        ];
        let rights = granted(&objects).unwrap();
        let short: Vec<_> = rights.iter().map(Right::short).collect();
        assert_eq!(
            short,
            [
                "controller list secrets",
                "speaker list services",
                "speaker watch services"
            ]
        );
        let secret = rights.first().unwrap();
        let mut asked = secret.clone();
        assert!(secret.covers(&asked));
        asked.name = Some("another".to_owned());
        assert!(!secret.covers(&asked), "only the one Secret");
        asked.name.clone_from(&secret.name);
        asked.namespace = None;
        assert!(!secret.covers(&asked), "only in its namespace");
        assert!(
            granted(objects.get(1..).unwrap()).is_err(),
            "a role is missing"
        );
    }
}
