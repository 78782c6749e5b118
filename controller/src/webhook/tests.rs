//! The upkeep against an API server that keeps a Secret and two registrations.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::http::{Request, Response};
use ferrolb_runtime::ready::Ready;
use kube::client::Body;
use serde_json::json;
use tokio::sync::Semaphore;

use super::*;
use crate::webhook::certificate::Kept;

const SECRETS: &str = "/api/v1/namespaces/metallb-system/secrets";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// What was written: the verb with its content type, the path, and the body.
type Written = (String, String, Value);

#[derive(Clone)]
struct Cluster {
    /// The objects of each kind.
    objects: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
    written: Arc<Mutex<Vec<Written>>>,
    /// One permit for each change of the Secret the watch is to tell.
    changes: Arc<Semaphore>,
}

impl Cluster {
    fn new(secrets: Vec<Value>) -> Self {
        let hooks = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "metallb-webhook-configuration", "resourceVersion": "5"}, "webhooks": [{"name": "a",
                "clientConfig": {"caBundle": "Cg==", "service": {"namespace": "metallb-system",
                    "name": "metallb-webhook-service", "path": "/validate-metallb-io-v1beta1-ipaddresspool"}}}]});
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "bgppeers.metallb.io", "resourceVersion": "6"}, "spec": {"conversion": {"webhook": {
                "clientConfig": {"caBundle": "Cg==", "service": {"namespace": "metallb-system",
                    "name": "metallb-webhook-service", "path": "/convert"}}}}}});
        let objects = [
            (SECRETS.to_owned(), secrets),
            (HOOKS.to_owned(), vec![hooks]),
            (DEFINITIONS.to_owned(), vec![definition]),
        ];
        Self {
            objects: Arc::new(Mutex::new(objects.into())),
            written: Arc::default(),
            changes: Arc::new(Semaphore::new(0)),
        }
    }

    fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        Client::new(service, "metallb-system")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let watches = parts.uri.query().unwrap_or_default().contains("watch=true");
        let answer = match parts.method.as_str() {
            "GET" if watches && path == SECRETS => {
                self.changes.acquire().await.unwrap().forget();
                let secret = self.objects.lock().unwrap()[SECRETS][0].clone();
                json!({"type": "MODIFIED", "object": secret})
            }
            "GET" if watches => std::future::pending().await,
            "GET" => {
                let items = self.objects.lock().unwrap()[&path].clone();
                json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "10"}, "items": items})
            }
            verb => {
                let kind = parts.headers.get("content-type");
                let kind = kind.map_or("", |kind| kind.to_str().unwrap());
                let body = body.collect_bytes().await.unwrap();
                let mut body: Value = serde_json::from_slice(&body).unwrap();
                let written = (format!("{verb} {kind}"), path.clone(), body.clone());
                self.written.lock().unwrap().push(written);
                if path.starts_with(SECRETS) {
                    body["metadata"]["resourceVersion"] = json!("11");
                    let mut objects = self.objects.lock().unwrap();
                    objects.insert(SECRETS.to_owned(), vec![body.clone()]);
                    self.changes.add_permits(1);
                }
                body
            }
        };
        let mut text = serde_json::to_vec(&answer).unwrap();
        text.push(b'\n');
        Response::new(Body::from(text))
    }
}

fn options() -> Options {
    Options {
        namespace: "metallb-system".to_owned(),
        service: "metallb-webhook-service".to_owned(),
        secret: "metallb-webhook-cert".to_owned(),
        given: None,
        tls: tls::Options::default(),
        bgp: "native".to_owned(),
    }
}

/// Keeps things in order until there is a certificate to show, and tells what was written by then.
async fn kept(cluster: &Cluster) -> Vec<Written> {
    let (options, signals) = (options(), Signals::default());
    let keeping = Box::pin(keep(
        cluster.client(),
        &options,
        Arc::new(Identity::empty()),
        &signals,
    ));
    tokio::select! {
        () = keeping => panic!("upkeep never ends"),
        () = signals.first.notified() => {}
        () = tokio::time::sleep(Duration::from_mins(1)) => panic!("no certificate is shown"),
    }
    let mut written = cluster.written.lock().unwrap();
    std::mem::take(&mut *written)
}

#[tokio::test]
async fn an_empty_secret_is_filled_and_everybody_told_before_anything_is_shown() {
    let empty = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "metallb-webhook-cert",
        "namespace": "metallb-system", "resourceVersion": "9", "labels": {"app": "metallb"}}});
    let cluster = Cluster::new(vec![empty]);
    let written = kept(&cluster).await;
    let calls: Vec<_> = written
        .iter()
        .map(|(verb, path, _)| (verb.as_str(), path.as_str()))
        .collect();
    assert_eq!(
        calls,
        [
            (
                "PUT application/json",
                &*format!("{SECRETS}/metallb-webhook-cert")
            ),
            (
                "PATCH application/strategic-merge-patch+json",
                &*format!("{HOOKS}/metallb-webhook-configuration")
            ),
            (
                "PATCH application/merge-patch+json",
                &*format!("{DEFINITIONS}/bgppeers.metallb.io")
            ),
        ]
    );
    let [(_, _, secret), (_, _, hooks), (_, _, definition)] = written.as_slice() else {
        panic!("three writes");
    };
    assert_eq!(secret["metadata"]["resourceVersion"], "9");
    assert_eq!(secret["metadata"]["labels"]["app"], "metallb");
    let trust = &secret["data"]["ca.crt"];
    assert!(trust.as_str().unwrap().len() > 100);
    assert_eq!(&hooks["webhooks"][0]["clientConfig"]["caBundle"], trust);
    let client = &definition["spec"]["conversion"]["webhook"]["clientConfig"];
    assert_eq!(&client["caBundle"], trust);

    // The next controller finds it all as it should be, but for the registrations, which this one does not store.
    let written = kept(&cluster).await;
    assert!(
        written.iter().all(|(verb, _, _)| verb.starts_with("PATCH")),
        "{written:?}"
    );
}

#[tokio::test]
async fn without_a_secret_one_is_made() {
    let written = kept(&Cluster::new(Vec::new())).await;
    let (verb, path, secret) = &written[0];
    assert_eq!(
        (verb.as_str(), path.as_str()),
        ("POST application/json", SECRETS)
    );
    let data = serde_json::from_value(secret["data"].clone()).unwrap();
    let host = "metallb-webhook-service.metallb-system.svc".to_owned();
    let flaw = Kept::from_data(Some(&data)).flaw(&[host], SystemTime::now());
    assert_eq!(flaw, None);
}

#[test]
fn served_are_they_unless_disabled() {
    let of = |line: &str| {
        let words = ["controller"].into_iter().chain(line.split_whitespace());
        let args = flags::read::<Args>(words.map(str::to_owned), &BTreeMap::new())
            .unwrap()
            .args;
        Options::of(&args, "n").map(|options| options.map(|options| options.given.is_some()))
    };
    for (line, expected) in [
        ("--port=9120", Some(false)),
        ("--port=9120 --disable-cert-rotation", Some(true)),
        ("--port=9120 --webhook-mode=disabled", None),
        ("--port=7472 --config=config", Some(false)),
        ("--config=config --webhook-mode=enabled", Some(false)),
        ("--config=config --webhook-mode=disabled", None),
        ("--config=config --webhook-mode=onlywebhook", Some(false)),
    ] {
        assert_eq!(of(line).unwrap(), expected, "{line}");
    }
    of("--webhook-mode=off").unwrap_err();
}

#[tokio::test]
async fn a_roll_out_waits_for_the_webhooks_and_addresses_do_not() {
    // Nobody calls: known at once.
    let cluster = Cluster::new(Vec::new());
    for kind in [HOOKS, DEFINITIONS] {
        cluster
            .objects
            .lock()
            .unwrap()
            .insert(kind.to_owned(), Vec::new());
    }
    let ready = Ready::new();
    let starting = ready.wait_for("webhooks");
    let stop = CancellationToken::new();
    let running = Box::pin(run(cluster.client(), options(), starting, stop));
    let waiting = async {
        while !ready.pending().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = running => panic!("never ends"),
        () = waiting => {}
        () = tokio::time::sleep(ROLL_OUT) => panic!("it is known that nobody calls"),
    }
    assert!(
        cluster.written.lock().unwrap().is_empty(),
        "nothing is written where nobody calls"
    );
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_never_answers_keeps_nobody_unready_for_ever() {
    let silent = tower::service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, Infallible>>()
    });
    let ready = Ready::new();
    let starting = ready.wait_for("webhooks");
    let stop = CancellationToken::new();
    let running = Box::pin(run(Client::new(silent, "n"), options(), starting, stop));
    assert_eq!(ready.pending(), ["webhooks"]);
    timeout(ROLL_OUT + PAUSE, running).await.unwrap_err();
    assert!(ready.pending().is_empty());
}

/// Counts warnings and errors.
#[derive(Clone, Default)]
struct Loud(Arc<AtomicUsize>);

impl tracing::Subscriber for Loud {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        // The log leaves out what the client library warns of.
        let loud = if metadata.target().starts_with("kube") {
            tracing::Level::ERROR
        } else {
            tracing::Level::WARN
        };
        *metadata.level() <= loud
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// An API server that grants nothing, and how often it was asked.
fn forbidding() -> (Client, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let service = tower::service_fn(move |_: Request<Body>| {
        count.fetch_add(1, Ordering::Relaxed);
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden",
            "message": "no", "code": 403});
        let answer = Response::builder().status(403);
        let answer = answer.body(Body::from(serde_json::to_vec(&status).unwrap()));
        async move { Ok::<_, Infallible>(answer.unwrap()) }
    });
    (Client::new(service, "metallb-system"), asked)
}

/// The rights of MetalLB 0.7 to 0.12 let us see none of it.
#[tokio::test(start_paused = true)]
async fn where_nothing_may_be_seen_little_is_asked_and_nothing_complained_of() {
    let loud = Loud::default();
    let logged = tracing::subscriber::set_default(loud.clone());
    tracing::warn!("heard");
    assert_eq!(loud.0.swap(0, Ordering::Relaxed), 1);
    let (client, asked) = forbidding();
    warn_of_callers(client.clone(), "metallb-system".to_owned()).await;
    let ready = Ready::new();
    let starting = ready.wait_for("webhooks");
    let mut running = Box::pin(run(client, options(), starting, CancellationToken::new()));
    timeout(Duration::from_mins(5), &mut running)
        .await
        .unwrap_err();
    assert!(ready.pending().is_empty(), "nobody is known to call");
    asked.store(0, Ordering::Relaxed);
    timeout(Duration::from_mins(10), &mut running)
        .await
        .unwrap_err();
    // The Secret, the registrations and the definition, each every half minute.
    let asked = asked.load(Ordering::Relaxed);
    assert!((3..=3 * 21).contains(&asked), "asked {asked} times");
    assert_eq!(loud.0.load(Ordering::Relaxed), 0);
    drop(logged);
}

#[tokio::test]
async fn who_calls_although_nobody_answers_is_told() {
    let loud = Loud::default();
    let logged = tracing::subscriber::set_default(loud.clone());
    let cluster = Cluster::new(Vec::new());
    let names = callers(cluster.client(), "metallb-system").await.unwrap();
    assert_eq!(names, ["metallb-webhook-configuration"]);
    warn_of_callers(cluster.client(), "metallb-system".to_owned()).await;
    warn_of_callers(cluster.client(), "elsewhere".to_owned()).await;
    assert_eq!(loud.0.load(Ordering::Relaxed), 1, "only what calls us");
    drop(logged);
}
