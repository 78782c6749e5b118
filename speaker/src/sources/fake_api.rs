//! An API server that says what a test wants, without a socket.

use std::convert::Infallible;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// What the API server does about a request.
pub enum Answer {
    /// Answers with this object.
    Is(Value),
    /// Refuses with this HTTP status.
    No(u16),
    /// Never answers, as a watch without changes.
    Silence,
}

/// A client of the API server that gives `answer(method, path and query, body)`.
pub fn client(
    answer: impl Fn(&str, &str, &[u8]) -> Answer + Clone + Send + Sync + 'static,
) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let uri = parts.uri.to_string();
            let (status, object) = match answer(parts.method.as_str(), &uri, &body) {
                Answer::Is(object) => (200, object),
                Answer::No(code) => (code, refusal(code)),
                Answer::Silence => std::future::pending().await,
            };
            let body = Body::from(object.to_string().into_bytes());
            let response = Response::builder().status(status).body(body).unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    Client::new(service, "default")
}

/// A complete list.
pub fn list(items: &[Value]) -> Answer {
    Answer::Is(json!({"metadata": {"resourceVersion": "1"}, "items": items}))
}

fn refusal(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "", "message": "", "code": code})
}
