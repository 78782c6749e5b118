//! HTTP from a host of the lab: one request, or a steady stream of new connections with its gaps.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::Lab;

/// No more than this is read of an answer, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Everything after the headers.
    pub body: String,
}

/// One `GET` on a connection of its own, from `host` of the lab; each step of it may take `timeout`.
///
/// # Errors
/// No connection, no answer, or not HTTP.
pub fn get(
    lab: &Lab,
    host: &str,
    address: IpAddr,
    port: u16,
    path: &str,
    timeout: Duration,
) -> Result<Answer> {
    lab.within(host, || {
        request(SocketAddr::from((address, port)), path, timeout)
    })
}

fn request(server: SocketAddr, path: &str, timeout: Duration) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(LIMIT).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    parse(&answer).with_context(|| format!("http://{server}{path} answers no HTTP: {answer:?}"))
}

/// Splits an answer that ends with its connection.
fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?;
    Some(Answer {
        status: status.parse().ok()?,
        body: body.to_owned(),
    })
}

/// The value of a series in a Prometheus text, `name{labels}` as it stands there; `None` where it is absent.
pub fn series(text: &str, name: &str) -> Option<f64> {
    text.lines()
        .filter_map(|line| line.rsplit_once(' '))
        .find(|(series, _)| *series == name)
        .and_then(|(_, value)| value.parse().ok())
}

/// New connections, one after the other, from a client until told to stop.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    worker: JoinHandle<Result<Vec<(Instant, bool)>>>,
}

/// What became of the connections of a [`Stream`].
#[derive(Clone, Debug)]
pub struct Seen {
    /// Requests that were answered with 200.
    pub served: usize,
    /// Requests that were not, within 200 ms each.
    pub lost: usize,
    /// The longest time from one served request to the next.
    pub longest_gap: Duration,
}

impl Stream {
    /// Starts asking `http://address:port/` every 20 ms from `host`, each time on a new connection.
    ///
    /// # Errors
    /// There is no such host.
    pub fn start(lab: &Lab, host: &str, address: IpAddr, port: u16) -> Result<Self> {
        let namespace = lab.namespace(host)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let target = SocketAddr::from((address, port));
        let worker = std::thread::spawn(move || {
            namespace.within(|| {
                let mut seen = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let answer = request(target, "/", Duration::from_millis(200));
                    seen.push((
                        Instant::now(),
                        answer.is_ok_and(|answer| answer.status == 200),
                    ));
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(seen)
            })
        });
        Ok(Self { stop, worker })
    }

    /// Stops and counts.
    ///
    /// # Errors
    /// Not two requests were served, so there is no gap to speak of.
    pub fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self
            .worker
            .join()
            .map_err(|_| anyhow!("the client stopped"))??;
        let served: Vec<_> = seen
            .iter()
            .filter(|(_, ok)| *ok)
            .map(|(at, _)| *at)
            .collect();
        ensure!(
            served.len() > 1,
            "only {} of {} requests were served",
            served.len(),
            seen.len()
        );
        let gaps = served
            .iter()
            .zip(served.iter().skip(1))
            .map(|(a, b)| *b - *a);
        Ok(Seen {
            served: served.len(),
            lost: seen.len() - served.len(),
            longest_gap: gaps.max().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_status_and_body() {
        let answer = parse("HTTP/1.1 503 Lab\r\nA: b\r\n\r\nbody").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "body"));
        assert!(parse("HTTP/1.1 200 OK\r\nA: b").is_none());
        assert!(parse("SSH-2.0\r\n\r\n").is_none());
    }

    #[test]
    fn a_series_is_found_by_its_whole_name() {
        let text = "# HELP a b\na_total 3\na{pool=\"x y\"} 2\n";
        assert_eq!(series(text, "a_total"), Some(3.0));
        assert_eq!(series(text, "a{pool=\"x y\"}"), Some(2.0));
        assert_eq!(series(text, "a"), None);
    }
}
