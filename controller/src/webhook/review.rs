//! The letters an API server and a webhook exchange: `admission.k8s.io/v1` AdmissionReview.
//!
//! Only the fields that are used. The objects stay untyped here, so that a request whose object makes no sense can
//! still be answered by its uid (`kube`'s own types read both in one go or not at all).

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is to be done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object.
    Update,
    /// The object is to go.
    Delete,
    /// CONNECT, or what a later API server may ask: none of our business.
    #[serde(other)]
    Other,
}

/// The question.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// To be given back.
    pub uid: String,
    /// What is to be done.
    pub operation: Operation,
    /// The namespace of the request.
    #[serde(default)]
    pub namespace: String,
    /// The object as it would be; null on deletion.
    #[serde(default)]
    pub object: Value,
    /// The object as it is; null on creation.
    #[serde(default)]
    pub old_object: Value,
}

/// What the webhook thinks of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Let it pass, and show these lines to whoever asked.
    Allowed(Vec<String>),
    /// Refuse it with this text (HTTP 403).
    Refused(String),
    /// The object cannot be read (HTTP 400).
    Undecodable(String),
    /// Nothing can be said now, for this reason (HTTP 500).
    Unable(String),
}

#[derive(Deserialize)]
struct Incoming {
    request: Request,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outgoing<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Status<'a> {
    code: u16,
    reason: &'static str,
    message: &'a str,
}

/// The request in a review.
///
/// # Errors
/// The text is no AdmissionReview with a request; what is wrong with it.
pub fn read(body: &[u8]) -> Result<Request, String> {
    let incoming: Incoming = serde_json::from_slice(body)
        .map_err(|error| format!("not an AdmissionReview of admission.k8s.io/v1: {error}"))?;
    let request = incoming.request;
    Ok(Request {
        object: without_nulls(request.object),
        old_object: without_nulls(request.old_object),
        ..request
    })
}

/// A field that is null is as good as none, as Go reads it.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// The review that answers the request `uid` (empty where it could not be read).
pub fn write(uid: &str, answer: &Answer) -> Value {
    let refusal = |code, reason, message| {
        Some(Status {
            code,
            reason,
            message,
        })
    };
    let (status, warnings): (_, &[String]) = match answer {
        Answer::Allowed(warnings) => (None, warnings),
        Answer::Refused(message) => (refusal(403, "Forbidden", message), &[]),
        Answer::Undecodable(message) => (refusal(400, "BadRequest", message), &[]),
        Answer::Unable(message) => (refusal(500, "InternalError", message), &[]),
    };
    let review = Outgoing {
        api_version: "admission.k8s.io/v1",
        kind: "AdmissionReview",
        response: Response {
            uid,
            allowed: status.is_none(),
            status,
            warnings,
        },
    };
    // Texts and numbers always have a JSON form; were it not so, null refuses.
    serde_json::to_value(review).unwrap_or_default()
}
