//! One HTTP request from a host of the lab: what a test asks the workload with.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Lab;

/// No more than this is read of an answer, in bytes.
const LIMIT: u64 = 1024 * 1024;

impl Lab {
    /// Sends one GET from a host on a new connection and returns the status and the body. Each of
    /// connecting, sending and receiving may take `timeout`.
    pub fn get(
        &self,
        host: &str,
        server: SocketAddr,
        path: &str,
        timeout: Duration,
    ) -> Result<(u16, String)> {
        let answer = self.within(host, || {
            let mut stream = TcpStream::connect_timeout(&server, timeout)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = Vec::new();
            stream.take(LIMIT).read_to_end(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.with_context(|| format!("GET http://{server}{path} from {host}"))?;
        let answer = String::from_utf8_lossy(&answer);
        parse(&answer).with_context(|| format!("http://{server}{path} answers no HTTP: {answer:?}"))
    }
}

/// Splits an answer that ends with its connection into status and body.
fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head
        .strip_prefix("HTTP/1.")?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_status_and_body() {
        assert_eq!(
            parse("HTTP/1.1 503 Lab\r\nA: b\r\n\r\nbody"),
            Some((503, "body".to_owned()))
        );
        assert_eq!(parse("HTTP/1.1 200 OK\r\nA: b"), None);
        assert_eq!(parse("SSH-2.0\r\n\r\n"), None);
    }
}
