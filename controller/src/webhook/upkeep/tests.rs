use std::time::Duration;

use ferrolb_config::ObjectName;

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

const NAMESPACE: &str = "metallb-system";
const SERVICE: &str = "metallb-webhook-service";
const HOOKS: &str = "metallb-webhook-configuration";
const PATH: &str = "/validate-metallb-io-v1beta1-ipaddresspool";

fn hosts() -> Vec<String> {
    vec![format!("{SERVICE}.{NAMESPACE}.svc")]
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn client(service: &str, namespace: &str, path: &str, bundle: &str) -> Value {
    json!({"caBundle": bundle, "service": {"namespace": namespace, "name": service, "path": path}})
}

/// As MetalLB registers its webhooks, and what others may have registered beside them.
fn hooks(service: &str, bundle: &str) -> Registration {
    let entry = |name: &str, client: Value| json!({"name": name, "clientConfig": client});
    let hooks = object(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": HOOKS, "resourceVersion": "7"},
        "webhooks": [
            entry("a.metallb.io", client(service, NAMESPACE, PATH, bundle)),
            entry("elsewhere.metallb.io", client(service, "elsewhere", PATH, "")),
            entry("frr-k8s", client("frr-k8s-webhook-service", NAMESPACE, "/validate-frrk8s-metallb-io-v1beta1-frrconfiguration", "")),
            entry("url", json!({"url": "https://x"})),
            entry("d.metallb.io", client(service, NAMESPACE, PATH, bundle)),
        ],
    }));
    Registration::of_hooks(&hooks, NAMESPACE)
}

fn definition(bundle: &str) -> Registration {
    let client = client(SERVICE, NAMESPACE, "/convert", bundle);
    let definition = object(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": DEFINITION, "resourceVersion": "8"},
        "spec": {"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": client}}},
    }));
    Registration::of_definition(&definition, NAMESPACE)
}

fn unconverted() -> Registration {
    let definition = object(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": DEFINITION}, "spec": {"conversion": {"strategy": "None"}},
    }));
    Registration::of_definition(&definition, NAMESPACE)
}

/// What the watch of a kind has told: a list, with or without the one object.
fn told(name: &str, registration: Option<Registration>) -> Callers {
    let mut callers = Callers::default();
    if let Some(registration) = registration {
        let name = ObjectName::new("", name);
        callers.take(Change::Applied(name, registration));
    }
    callers.take(Change::Synced);
    callers
}

fn unseen(why: Unavailable) -> Callers {
    let mut callers = Callers::default();
    callers.take(Change::Unavailable(why));
    callers
}

fn view() -> View {
    View::new(NAMESPACE.to_owned(), "metallb-webhook-cert".to_owned())
}

fn called() -> View {
    View {
        hooks: told(HOOKS, Some(hooks(SERVICE, "Cg=="))),
        definition: told(DEFINITION, Some(definition("Cg=="))),
        ..view()
    }
}

fn secret(kept: &Kept) -> Box<Secret> {
    let mut secret = Secret {
        data: Some(kept.to_data()),
        ..Secret::default()
    };
    secret.metadata.resource_version = Some("9".to_owned());
    secret.metadata.labels = Some([("app".to_owned(), "metallb".to_owned())].into());
    Box::new(secret)
}

fn good() -> Kept {
    Kept::default().renewed(&hosts(), now()).unwrap()
}

fn bundle(kept: &Kept) -> String {
    let text = serde_json::to_value(ByteString(kept.authority.clone())).unwrap();
    text.as_str().unwrap().to_owned()
}

fn idle(view: &View) -> Idle {
    view.next(now()).unwrap().unwrap_err()
}

fn steps(view: &View) -> Vec<Step> {
    view.next(now()).unwrap().unwrap()
}

#[test]
fn nothing_happens_where_nothing_calls_us() {
    assert_eq!(idle(&view()), Idle::Waiting);
    for (hooks, definition, expected) in [
        (told(HOOKS, None), Callers::default(), Idle::Waiting),
        (told(HOOKS, None), told(DEFINITION, None), Idle::NotCalled),
        (
            told(HOOKS, None),
            told(DEFINITION, Some(unconverted())),
            Idle::NotCalled,
        ),
        // The ConfigMap era: no right to see either, and a cluster without definitions.
        (
            unseen(Unavailable::Forbidden),
            unseen(Unavailable::Forbidden),
            Idle::Blind,
        ),
        (
            unseen(Unavailable::Forbidden),
            unseen(Unavailable::Unknown),
            Idle::Blind,
        ),
        (
            told(
                HOOKS,
                Some(Registration::of_hooks(
                    &object(json!({"webhooks": []})),
                    NAMESPACE,
                )),
            ),
            told(DEFINITION, None),
            Idle::NotCalled,
        ),
    ] {
        let view = View {
            hooks,
            definition,
            secret: Known::There(secret(&good())),
            ..view()
        };
        assert_eq!(idle(&view), expected, "{view:?}");
    }
}

#[test]
fn the_secret_is_waited_for_made_or_asked_for() {
    assert_eq!(idle(&called()), Idle::Waiting);
    let unseen = View {
        secret: Known::Unseen(Unavailable::Forbidden),
        ..called()
    };
    assert_eq!(idle(&unseen), Idle::NoSecret);
    let absent = View {
        secret: Known::Absent,
        ..called()
    };
    let steps = steps(&absent);
    let [Step::Create(made)] = steps.as_slice() else {
        panic!("the Secret is made first, alone: {steps:?}");
    };
    assert_eq!(made.metadata.name.as_deref(), Some("metallb-webhook-cert"));
    assert_eq!(made.metadata.namespace.as_deref(), Some("metallb-system"));
    let kept = Kept::from_data(made.data.as_ref());
    assert_eq!(kept.flaw(&hosts(), now()), None);
}

#[test]
fn an_empty_secret_is_filled_against_the_version_that_was_seen() {
    let mut empty = secret(&Kept::default());
    let extra = ByteString(b"kept".to_vec());
    empty.data = Some(
        [
            ("extra".to_owned(), extra.clone()),
            ("ca.key".to_owned(), extra.clone()),
        ]
        .into(),
    );
    let view = View {
        secret: Known::There(empty),
        ..called()
    };
    let steps = steps(&view);
    let [Step::Replace(filled)] = steps.as_slice() else {
        panic!("the Secret is filled first, alone: {steps:?}");
    };
    assert_eq!(filled.metadata.resource_version.as_deref(), Some("9"));
    assert_eq!(filled.metadata.labels.as_ref().unwrap().len(), 1);
    let data = filled.data.clone().unwrap();
    assert_eq!(data.get("extra"), Some(&extra));
    assert!(
        !data.contains_key("ca.key"),
        "a key of no authority is gone"
    );
    assert_eq!(Kept::from_data(Some(&data)).flaw(&hosts(), now()), None);
}

#[test]
fn callers_are_told_whom_to_trust_before_the_certificate_is_shown() {
    let kept = good();
    let view = View {
        secret: Known::There(secret(&kept)),
        ..called()
    };
    let trust = bundle(&kept);
    let entry = |name| json!({"name": name, "clientConfig": {"caBundle": trust}});
    assert_eq!(
        steps(&view),
        [
            Step::PatchHooks(
                HOOKS.to_owned(),
                json!({"metadata": {"resourceVersion": "7"},
                "webhooks": [entry("a.metallb.io"), entry("d.metallb.io")]})
            ),
            Step::PatchDefinition(json!({"metadata": {"resourceVersion": "8"},
                "spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": trust}}}}})),
            Step::Show(kept.clone()),
        ]
    );
    let all_told = View {
        hooks: told(HOOKS, Some(hooks(SERVICE, &trust))),
        definition: told(DEFINITION, Some(definition(&trust))),
        ..view.clone()
    };
    assert_eq!(steps(&all_told), [Step::Show(kept.clone())]);
    // One of the two is enough to be called.
    for (hooks, definition) in [
        (all_told.hooks.clone(), Callers::default()),
        (told(HOOKS, None), all_told.definition.clone()),
    ] {
        let view = View {
            hooks,
            definition,
            ..view.clone()
        };
        assert_eq!(steps(&view), [Step::Show(kept.clone())]);
    }
}

#[test]
fn the_certificate_is_for_whatever_names_are_called() {
    // MetalLB 0.13.2: another name for the registration, and for the Service up to 0.14.3.
    let old = View {
        hooks: told(
            "validating-webhook-configuration",
            Some(hooks("webhook-service", "")),
        ),
        secret: Known::There(secret(&good())),
        ..called()
    };
    let steps = steps(&old);
    let [Step::Replace(secret)] = steps.as_slice() else {
        panic!("one name is not in the certificate: {steps:?}");
    };
    let both = [hosts(), vec![format!("webhook-service.{NAMESPACE}.svc")]].concat();
    let kept = Kept::from_data(secret.data.as_ref());
    assert_eq!(kept.flaw(&both, now()), None);
}

#[test]
fn what_vanishes_or_no_longer_calls_us_is_forgotten() {
    let name = || ObjectName::new("", HOOKS);
    for change in [
        Change::Deleted(name()),
        Change::Applied(
            name(),
            Registration::of_hooks(&object(json!({"webhooks": []})), NAMESPACE),
        ),
    ] {
        let mut callers = told(HOOKS, Some(hooks(SERVICE, "")));
        callers.take(Change::Unavailable(Unavailable::Forbidden));
        assert_eq!(callers.there.len(), 1, "a refusal changes nothing");
        callers.take(change);
        assert_eq!(callers.there.len(), 0);
    }
}

#[test]
fn the_secret_is_known_by_what_is_told() {
    let name = || ObjectName::new(NAMESPACE, "metallb-webhook-cert");
    let there = || Change::Applied(name(), secret(&Kept::default()));
    let mut known = Known::NotYet;
    for (change, expected) in [
        (
            Change::Unavailable(Unavailable::Forbidden),
            Known::Unseen(Unavailable::Forbidden),
        ),
        (Change::Synced, Known::Absent),
        (there(), Known::There(secret(&Kept::default()))),
        (Change::Synced, Known::There(secret(&Kept::default()))),
        (
            Change::Unavailable(Unavailable::Forbidden),
            Known::There(secret(&Kept::default())),
        ),
        (Change::Deleted(name()), Known::Absent),
    ] {
        known.take(change);
        assert_eq!(known, expected);
    }
}

#[test]
fn two_controllers_end_with_one_certificate() {
    // Both see the empty Secret; the API server takes one of the two writes.
    let empty = View {
        secret: Known::There(secret(&Kept::default())),
        ..called()
    };
    let written = |view: &View| match steps(view).as_slice() {
        [Step::Replace(secret)] => secret.clone(),
        other => panic!("{other:?}"),
    };
    let (one, other) = (written(&empty), written(&empty));
    assert_ne!(one.data, other.data);
    let both_see = View {
        secret: Known::There(Box::new(one.clone())),
        ..called()
    };
    let kept = Kept::from_data(one.data.as_ref());
    assert_eq!(steps(&both_see).last(), Some(&Step::Show(kept)));
}

#[test]
fn a_certificate_that_is_about_to_end_is_replaced_in_time() {
    let view = View {
        secret: Known::There(secret(&good())),
        ..called()
    };
    let later = now() + Duration::from_hours(24 * 276);
    let Ok(steps) = view.next(later).unwrap() else {
        panic!("there is something to do");
    };
    assert!(matches!(steps.as_slice(), [Step::Replace(_)]), "{steps:?}");
}
