//! What each role answers.

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::Request;

/// The longest delay `httpbin` grants, in seconds, as httpbin's own.
const LONGEST_DELAY: f64 = 10.0;

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Says who asks and who answers; `/status/NNN` sets the status.
    Echo,
    /// `/status/NNN`, `/headers`, `/delay/SECONDS`, `/get` and `/ip` as httpbin has them.
    Httpbin,
    /// The name of the pod, whatever is asked.
    HostnameEcho,
}

/// An answer to be sent.
#[derive(Debug)]
pub struct Answer {
    /// How long to wait before it is sent.
    pub delay: Duration,
    status: u16,
    content: &'static str,
    body: String,
}

impl Role {
    /// The role with this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "echo" => Some(Self::Echo),
            "httpbin" => Some(Self::Httpbin),
            "hostname-echo" => Some(Self::HostnameEcho),
            _ => None,
        }
    }

    /// What it answers.
    pub fn answer(self, request: &Request, client: SocketAddr) -> Answer {
        match self {
            Self::Echo => echo(request, client),
            Self::Httpbin => httpbin(request, client),
            Self::HostnameEcho => Answer::text(200, told("HOSTNAME") + "\n"),
        }
    }
}

impl Answer {
    fn text(status: u16, body: String) -> Self {
        Self {
            delay: Duration::ZERO,
            status,
            content: "text/plain",
            body,
        }
    }

    fn json(value: &Value) -> Self {
        Self {
            content: "application/json",
            ..Self::text(200, format!("{value:#}\n"))
        }
    }

    /// The whole answer to this request, as sent.
    pub fn bytes(&self, request: &Request) -> Vec<u8> {
        let connection = if request.close { "close" } else { "keep-alive" };
        let mut answer = format!(
            "HTTP/1.1 {} Lab\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            self.status,
            self.content,
            self.body.len(),
        );
        if request.method != "HEAD" {
            answer.push_str(&self.body);
        }
        answer.into_bytes()
    }
}

/// A variable of the environment, empty where there is none.
fn told(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// The status that a path `/status/NNN` asks for.
fn status(path: &str) -> Option<u16> {
    let code = path.strip_prefix("/status/")?.parse().ok()?;
    (200..=599).contains(&code).then_some(code)
}

fn echo(request: &Request, client: SocketAddr) -> Answer {
    let body = format!(
        "pod: {}\nnode: {}\nclient: {}\nport: {}\npath: {}\n",
        told("HOSTNAME"),
        told("NODE_NAME"),
        client.ip().to_canonical(),
        client.port(),
        request.path,
    );
    Answer::text(status(&request.path).unwrap_or(200), body)
}

fn httpbin(request: &Request, client: SocketAddr) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    let headers: BTreeMap<_, _> = request
        .headers
        .iter()
        .map(|(name, value)| (capitalised(name), value))
        .collect();
    let origin = client.ip().to_canonical();
    let all = || json!({"headers": headers, "origin": origin, "url": request.path});
    if let Some(code) = status(path) {
        let body = if code == 418 { "I am a teapot.\n" } else { "" };
        return Answer::text(code, body.to_owned());
    }
    if let Some(seconds) = path
        .strip_prefix("/delay/")
        .and_then(|seconds| seconds.parse::<f64>().ok())
        .filter(|seconds| *seconds >= 0.0)
    {
        return Answer {
            delay: Duration::from_secs_f64(seconds.min(LONGEST_DELAY)),
            ..Answer::json(&all())
        };
    }
    match path {
        "/" => Answer::text(200, "httpbin\n".to_owned()),
        "/headers" => Answer::json(&json!({"headers": headers})),
        "/get" => Answer::json(&all()),
        "/ip" => Answer::json(&json!({"origin": origin})),
        _ => Answer::text(404, "not found\n".to_owned()),
    }
}

/// `x-forwarded-for` as httpbin shows it: `X-Forwarded-For`.
fn capitalised(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_ascii_uppercase().to_string() + &letters.as_str().to_ascii_lowercase()
        })
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str) -> Request {
        Request {
            method: "GET".into(),
            path: path.into(),
            headers: vec![("x-forwarded-FOR".into(), "192.0.2.7".into())],
            close: true,
        }
    }

    fn client() -> SocketAddr {
        "[::ffff:192.0.2.1]:9".parse().unwrap()
    }

    #[test]
    fn echo_names_the_client_and_sets_the_status() {
        let request = request("/status/503");
        let answer = Role::Echo.answer(&request, client());
        let text = String::from_utf8(answer.bytes(&request)).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.contains("client: 192.0.2.1\n"), "{text}");
    }

    #[test]
    fn httpbin_answers_what_its_paths_say() {
        let answer = |path| Role::Httpbin.answer(&request(path), client());
        assert_eq!(answer("/status/418").status, 418);
        assert_eq!(answer("/nowhere").status, 404);
        assert_eq!(answer("/delay/2").delay, Duration::from_secs(2));
        assert_eq!(answer("/delay/99").delay, Duration::from_secs(10));
        let shown: Value = serde_json::from_str(&answer("/headers?a=b").body).unwrap();
        assert_eq!(shown["headers"]["X-Forwarded-For"], "192.0.2.7");
        assert_eq!(answer("/ip").body, "{\n  \"origin\": \"192.0.2.1\"\n}\n");
    }
}
