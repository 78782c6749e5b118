//! Requests by a real `curl` on a host of the lab.

use anyhow::{Context as _, Result, ensure};

use crate::Lab;

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Everything after the headers.
    pub body: String,
    /// From the start of the request to the end of the answer, in seconds.
    pub seconds: f64,
}

impl Response {
    /// The first header with this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(is, _)| is == name)
            .map(|(_, value)| value.as_str())
    }
}

/// `curl` with these words on `host`.
///
/// # Errors
/// There is no answer within 20 s, or no HTTP.
pub fn curl(lab: &Lab, host: &str, words: &[&str]) -> Result<Response> {
    let mut all = vec![
        "curl",
        "-sS",
        "-i",
        "--max-time",
        "20",
        "-w",
        "\n%{time_total}",
    ];
    all.extend(words);
    let told = lab.read(host, &all)?;
    parse(&told).with_context(|| format!("curl {} got no HTTP: {told}", words.join(" ")))
}

/// The same until the status is `status`: a configuration takes a moment to reach every proxy.
///
/// # Errors
/// It is not within [`crate::deploy::PATIENCE`].
pub fn until(lab: &Lab, host: &str, status: u16, words: &[&str]) -> Result<Response> {
    let what = format!("{status} from curl {}", words.join(" "));
    lab.wait_for(&what, crate::deploy::PATIENCE, || {
        let response = curl(lab, host, words)?;
        ensure!(response.status == status, "status {}", response.status);
        Ok(Some(response))
    })
}

/// Splits what curl prints: head, body, and the time on a line of its own.
fn parse(told: &str) -> Option<Response> {
    let (answer, seconds) = told.rsplit_once('\n')?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines
        .next()?
        .strip_prefix("HTTP/")?
        .split_whitespace()
        .nth(1)?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Some(Response {
        status: status.parse().ok()?,
        headers: headers.collect(),
        body: body.to_owned(),
        seconds: seconds.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_curl_prints_is_head_body_and_time() {
        let told = "HTTP/2 418 \r\nServer: istio-envoy\r\na: b: c\r\n\r\nI am\n\na teapot\n\n2.004";
        let response = parse(told).unwrap();
        assert_eq!(response.status, 418);
        assert_eq!(response.header("server"), Some("istio-envoy"));
        assert_eq!(response.header("a"), Some("b: c"));
        assert_eq!(response.body, "I am\n\na teapot\n");
        assert!((response.seconds - 2.004).abs() < 1e-9);
        assert!(parse("curl: (7) refused\n0.1").is_none());
    }
}
