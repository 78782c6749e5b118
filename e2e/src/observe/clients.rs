//! Clients over the real network stack of a host: new connections at a steady pace, HTTP requests on new connections, and
//! connections that stay open.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, anyhow};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::prober::now;
use crate::Lab;

/// The port of every Service asked.
const PORT: u16 = 80;
/// An attempt to connect ends before the kernel would repeat its SYN, which it does after a second.
const ATTEMPT: Duration = Duration::from_millis(900);
/// A request that is not answered by then is lost.
const REQUEST: Duration = Duration::from_secs(2);
/// A request that took longer than that met with trouble, even if it was served.
const SLOW: Duration = Duration::from_millis(250);
/// How often each open connection is used.
const USE: Duration = Duration::from_millis(50);
/// How many connections are kept open.
pub const OPEN: usize = 4;

/// One attempt to connect.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// When it began.
    pub at: Duration,
    /// When the SYN/ACK was there; `None` if it was not in time.
    pub done: Option<Duration>,
}

/// One HTTP request on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// When it began.
    pub at: Duration,
    /// How long it took; `None` if it was lost.
    pub took: Option<Duration>,
}

/// What a [`Client`] saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The attempts to connect, by the time of their end.
    pub attempts: Vec<Attempt>,
    /// The requests, by the time of their end.
    pub requests: Vec<Request>,
    /// Why connections that were open broke, and when.
    pub broken: Vec<(Duration, String)>,
}

impl Seen {
    /// Requests that began.
    pub fn sent(&self) -> usize {
        self.requests.len()
    }

    /// Requests that were not answered with 200 within two seconds.
    pub fn lost(&self) -> usize {
        let lost = self
            .requests
            .iter()
            .filter(|request| request.took.is_none());
        lost.count()
    }

    /// Requests that were served, but only after more than 250 ms.
    pub fn slow(&self) -> usize {
        let served = self.requests.iter().filter_map(|request| request.took);
        served.filter(|took| *took > SLOW).count()
    }

    /// The beginnings of all attempts and the ends of the successful ones, each in order.
    pub fn connections(&self) -> (Vec<Duration>, Vec<Duration>) {
        let mut begun: Vec<_> = self.attempts.iter().map(|attempt| attempt.at).collect();
        let mut done: Vec<_> = self
            .attempts
            .iter()
            .filter_map(|attempt| attempt.done)
            .collect();
        begun.sort_unstable();
        done.sort_unstable();
        (begun, done)
    }

    /// When the first attempt that began after `moment` succeeded.
    pub fn first_after(&self, moment: Duration) -> Option<Duration> {
        let after = self.attempts.iter().filter(|attempt| attempt.at > moment);
        after.filter_map(|attempt| attempt.done).min()
    }
}

/// A client on a host, until told to stop.
#[derive(Debug)]
pub struct Client {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    worker: JoinHandle<Result<()>>,
}

impl Client {
    /// Starts a new connection to port 80 of `address` once in every `period`, each closed as soon as it is made.
    ///
    /// # Errors
    /// There is no such host.
    pub fn connecting(lab: &Lab, host: &str, address: Ipv4Addr, period: Duration) -> Result<Self> {
        Self::start(lab, host, move |seen, stop| async move {
            steadily(period, &stop, || {
                let seen = seen.clone();
                async move {
                    let at = now();
                    let done = connect(address, ATTEMPT).await.ok().map(|_| now());
                    note(&seen, |seen| seen.attempts.push(Attempt { at, done }));
                }
            })
            .await;
            sleep(ATTEMPT).await;
        })
    }

    /// Starts an HTTP request on a new connection once in every `period`, and uses [`OPEN`] connections that stay open
    /// every 50 ms.
    ///
    /// # Errors
    /// There is no such host.
    pub fn requesting(lab: &Lab, host: &str, address: Ipv4Addr, period: Duration) -> Result<Self> {
        Self::start(lab, host, move |seen, stop| async move {
            for _ in 0..OPEN {
                tokio::spawn(stay(address, seen.clone(), stop.clone()));
            }
            steadily(period, &stop, || {
                let seen = seen.clone();
                async move {
                    let (at, begun) = (now(), Instant::now());
                    let served = matches!(timeout(REQUEST, once(address)).await, Ok(Ok(())));
                    let took = served.then(|| begun.elapsed());
                    note(&seen, |seen| seen.requests.push(Request { at, took }));
                }
            })
            .await;
            sleep(REQUEST).await;
        })
    }

    fn start<F>(
        lab: &Lab,
        host: &str,
        work: impl FnOnce(Arc<Mutex<Seen>>, Arc<AtomicBool>) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = ()>,
    {
        let namespace = lab.namespace(host)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (told, result) = (stop.clone(), seen.clone());
        let worker = std::thread::spawn(move || {
            namespace.within(|| {
                // All on this thread: another would be in another namespace.
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(work(result, told));
                Ok(())
            })
        });
        Ok(Self { stop, seen, worker })
    }

    /// What was seen so far.
    pub fn look(&self) -> Seen {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// Stops, and waits for what is under way.
    ///
    /// # Errors
    /// The client could not run.
    pub fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.worker
            .join()
            .map_err(|_| anyhow!("a client stopped by itself"))??;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(seen.clone())
    }
}

fn note(seen: &Mutex<Seen>, change: impl FnOnce(&mut Seen)) {
    change(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Starts what `work` makes once in every `period`, whether or not what it made before has ended.
async fn steadily<F>(period: Duration, stop: &AtomicBool, work: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        tokio::spawn(work());
    }
}

/// A new connection. It ends with a reset, so that thousands of them leave nothing behind.
async fn connect(address: Ipv4Addr, patience: Duration) -> io::Result<TcpStream> {
    let target = SocketAddr::from((address, PORT));
    let stream = timeout(patience, TcpStream::connect(target)).await??;
    stream.set_zero_linger()?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request on a connection of its own.
async fn once(address: Ipv4Addr) -> io::Result<()> {
    exchange(&mut connect(address, REQUEST).await?).await
}

/// One request on a connection that stays open.
async fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    while !is_whole(&answer) {
        let length = stream.read(&mut part).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(part.get(..length).unwrap_or_default());
    }
    if answer.starts_with(b"HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Whether an answer with a `Content-Length` is there to its end.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    length.is_none_or(|length| body.len() >= length)
}

/// Keeps one connection in use until told to stop; one that breaks is told of and replaced.
async fn stay(address: Ipv4Addr, seen: Arc<Mutex<Seen>>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = connect(address, ATTEMPT).await else {
            sleep(USE).await;
            continue;
        };
        let why = loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            match timeout(REQUEST, exchange(&mut stream)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => break error.to_string(),
                Err(_) => break "no answer in two seconds".to_owned(),
            }
            sleep(USE).await;
        };
        note(&seen, |seen| seen.broken.push((now(), why)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        let head = "HTTP/1.1 200 Lab\r\ncontent-length: 3\r\n\r\n";
        assert!(!is_whole(head.trim_end().as_bytes()));
        assert!(!is_whole(format!("{head}ab").as_bytes()));
        assert!(is_whole(format!("{head}abc").as_bytes()));
    }

    #[test]
    fn an_attempt_before_the_moment_does_not_count_after_it() {
        let ms = Duration::from_millis;
        let attempt = |at, done: Option<u64>| Attempt {
            at: ms(at),
            done: done.map(ms),
        };
        let seen = Seen {
            attempts: vec![
                attempt(10, Some(70)),
                attempt(60, None),
                attempt(70, Some(80)),
            ],
            ..Seen::default()
        };
        assert_eq!(seen.first_after(ms(50)), Some(ms(80)));
        assert_eq!(seen.connections().1, [ms(70), ms(80)]);
    }
}
