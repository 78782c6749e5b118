//! The gate against an API server that says what the test wants.

use std::sync::atomic::AtomicUsize;

use axum::{body::Body, routing::get};
use kube::client::Body as KubeBody;
use serde_json::{Value, json};
use tower::{ServiceExt as _, service_fn};

use super::*;

/// An API server that knows the tokens `reader` and `stranger`, of whom only the first may read `/metrics`.
#[derive(Clone, Default)]
struct Fake {
    /// What our own role does not grant.
    forbidden: &'static str,
    /// It answers nothing but 500.
    broken: bool,
    /// It never answers.
    mute: bool,
    reviews: Arc<AtomicUsize>,
}

impl Fake {
    fn client(self) -> Client {
        let answer = move |request: axum::http::Request<KubeBody>| {
            let fake = self.clone();
            async move {
                let (parts, body) = request.into_parts();
                let object: Value = serde_json::from_slice(&body.collect_bytes().await?)?;
                let (code, answer) = fake.answer(parts.uri.path(), object).await;
                let answer = Body::from(answer.to_string());
                let answer = axum::http::Response::builder().status(code).body(answer)?;
                Ok::<_, tower::BoxError>(answer)
            }
        };
        Client::new(service_fn(answer), "default")
    }

    async fn answer(&self, path: &str, mut object: Value) -> (u16, Value) {
        self.reviews.fetch_add(1, Ordering::Relaxed);
        if self.mute {
            std::future::pending::<()>().await;
        }
        let refusal = |code: u16| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "reason": "x", "message": "x", "code": code});
            (code, status)
        };
        if self.broken {
            return refusal(400);
        }
        if !self.forbidden.is_empty() && path.ends_with(self.forbidden) {
            return refusal(403);
        }
        let spec = object["spec"].clone();
        object["status"] = match path {
            "/apis/authentication.k8s.io/v1/tokenreviews" => match spec["token"].as_str() {
                Some(token @ ("reader" | "stranger")) => json!({"authenticated": true,
                    "user": {"username": format!("u:{token}"), "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}}}),
                _ => json!({"authenticated": false, "error": "who?"}),
            },
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                assert_eq!(
                    spec["nonResourceAttributes"],
                    json!({"path": "/metrics", "verb": "get"})
                );
                assert_eq!(spec["groups"], json!(["g"]));
                assert_eq!(spec["uid"], "1");
                assert_eq!(spec["extra"], json!({"k": ["v"]}));
                json!({"allowed": spec["user"] == "u:reader"})
            }
            other => panic!("nobody asked for {other}"),
        };
        (201, object)
    }
}

fn guarded(fake: Fake) -> Router {
    let metrics = Router::new().route("/metrics", get(|| async { "series" }));
    Arc::new(Gate::new(fake.client())).protect(metrics)
}

async fn status(router: &Router, authorization: Option<&str>) -> u16 {
    let mut request = Request::builder().uri("/metrics");
    if let Some(words) = authorization {
        request = request.header(header::AUTHORIZATION, words);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    response.status().as_u16()
}

#[tokio::test]
async fn only_who_may_gets_through() {
    let reviews = Arc::<AtomicUsize>::default();
    let router = guarded(Fake {
        reviews: reviews.clone(),
        ..Fake::default()
    });
    for nobody in [
        None,
        Some("Basic cmVhZGVyOg=="),
        Some("Bearer "),
        Some("Bearer"),
    ] {
        assert_eq!(status(&router, nobody).await, 401, "{nobody:?}");
    }
    let long = format!("Bearer {}", "a".repeat(LONGEST_TOKEN + 1));
    assert_eq!(status(&router, Some(&long)).await, 401);
    assert_eq!(reviews.load(Ordering::Relaxed), 0, "nothing to ask about");
    assert_eq!(status(&router, Some("Bearer wrong")).await, 401);
    assert_eq!(status(&router, Some("Bearer stranger")).await, 403);
    assert_eq!(status(&router, Some("Bearer reader")).await, 200);
    assert_eq!(status(&router, Some("bearer reader")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_for_a_while() {
    let reviews = Arc::<AtomicUsize>::default();
    let router = guarded(Fake {
        reviews: reviews.clone(),
        ..Fake::default()
    });
    for _ in 0..3 {
        assert_eq!(status(&router, Some("Bearer reader")).await, 200);
        assert_eq!(status(&router, Some("Bearer wrong")).await, 401);
    }
    assert_eq!(reviews.load(Ordering::Relaxed), 3, "two for the reader");
    tokio::time::advance(REFUSED).await;
    status(&router, Some("Bearer wrong")).await;
    status(&router, Some("Bearer reader")).await;
    assert_eq!(reviews.load(Ordering::Relaxed), 4);
    tokio::time::advance(PERMITTED).await;
    status(&router, Some("Bearer reader")).await;
    assert_eq!(reviews.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn many_bad_tokens_take_no_memory_and_push_nobody_out() {
    let gate = Gate::new(Fake::default().client());
    let question = |token: String| (token, "get".to_owned(), "/metrics".to_owned());
    for n in 0..2 * KEPT {
        gate.keep(&question(n.to_string()), &Answer::Unknown);
    }
    assert_eq!(gate.answers.lock().unwrap().len(), KEPT);
    gate.keep(&question("good".to_owned()), &Answer::Allowed);
    let kept = gate.kept(&question("good".to_owned()));
    assert_eq!(kept, Some(Answer::Allowed));
}

#[tokio::test]
async fn a_role_that_does_not_let_us_ask_lets_nobody_in() {
    for (forbidden, code) in [("tokenreviews", 401), ("subjectaccessreviews", 403)] {
        let gate = Arc::new(Gate::new(
            Fake {
                forbidden,
                ..Fake::default()
            }
            .client(),
        ));
        let router = gate
            .clone()
            .protect(Router::new().route("/metrics", get(|| async { "series" })));
        assert!(!gate.told.load(Ordering::Relaxed));
        assert_eq!(status(&router, Some("Bearer reader")).await, code);
        assert!(gate.told.load(Ordering::Relaxed));
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_no_permission() {
    for fake in [
        Fake {
            broken: true,
            ..Fake::default()
        },
        Fake {
            mute: true,
            ..Fake::default()
        },
    ] {
        let router = guarded(fake);
        assert_eq!(status(&router, Some("Bearer reader")).await, 503);
    }
}
