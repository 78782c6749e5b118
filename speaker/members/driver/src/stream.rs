//! TCP streams, one message each way: exchanges of everything, and pings where UDP is not answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrolb_speaker_members::{End, StreamError, StreamMessage, StreamReader, error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout, timeout_at};

use crate::task::{Request, Streams};

/// Streams of others that are served at a time; further ones wait in the kernel's queue. Each may hold
/// [`MAX_STREAM`](ferrolb_speaker_members::MAX_STREAM) bytes.
const ACCEPTED: usize = 32;
/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;
/// After a failure to accept (no more file descriptors, say).
const REST: Duration = Duration::from_millis(100);

/// What can go wrong with a stream; all of it is the other side's, the network's, or the end of the task.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the other side refuses us: {0}")]
    Refused(String),
    #[error("an answer of the wrong kind")]
    Unexpected,
    #[error("the gossip has ended")]
    Ended,
}

/// Serves everyone who connects; never ends by itself.
pub(crate) async fn accept(listener: TcpListener, streams: Streams) -> Option<SocketAddr> {
    let seats = Arc::new(Semaphore::new(ACCEPTED));
    let mut serving = JoinSet::new();
    loop {
        while serving.try_join_next().is_some() {}
        let seat = seats.clone().acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, from)) => {
                let streams = streams.clone();
                serving.spawn(async move {
                    let work = timeout(streams.timeout, serve(stream, &streams));
                    report(&streams, from, work.await).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "gossip: cannot accept a stream");
                sleep(REST).await;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, streams: &Streams) -> Result<(), Failure> {
    let message = match read(&mut stream, streams, End::Acceptor).await {
        Err(Failure::Stream(why)) => {
            // Say why; that they cannot read it either does not matter.
            write(
                &mut stream,
                streams,
                &error(&why.to_string()),
                End::Acceptor,
            )
            .await?;
            return Err(why.into());
        }
        other => other?,
    };
    match message {
        StreamMessage::Exchange(theirs) => {
            let ours = ask(streams, |answer| Request::Exchange(false, answer)).await?;
            write(&mut stream, streams, &ours, End::Acceptor).await?;
            tell(streams, Request::Merge(theirs)).await
        }
        StreamMessage::Ping(ping) => {
            match ask(streams, |answer| Request::Ping(ping, answer)).await? {
                Some(ack) => write(&mut stream, streams, &ack, End::Acceptor).await,
                None => Ok(()),
            }
        }
        StreamMessage::User => Ok(()),
        StreamMessage::Ack { .. } | StreamMessage::Error(_) => Err(Failure::Unexpected),
    }
}

/// Exchanges everything with `to`.
pub(crate) async fn exchange(streams: Streams, to: SocketAddr, join: bool) {
    let work = async {
        let mut stream = TcpStream::connect(to).await?;
        let ours = ask(&streams, |answer| Request::Exchange(join, answer)).await?;
        write(&mut stream, &streams, &ours, End::Dialer).await?;
        match read(&mut stream, &streams, End::Dialer).await? {
            StreamMessage::Exchange(theirs) => tell(&streams, Request::Merge(theirs)).await,
            StreamMessage::Error(why) => Err(Failure::Refused(why)),
            _ => Err(Failure::Unexpected),
        }
    };
    report(&streams, to, timeout(streams.timeout, work).await).await;
}

/// Keys and labels that differ are worth a warning, which the task gives with restraint.
async fn report(streams: &Streams, peer: SocketAddr, result: Result<Result<(), Failure>, Elapsed>) {
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error @ (Failure::Refused(_) | Failure::Stream(StreamError::Closed(_))))) => {
            // If the task is gone, so is who would be warned.
            drop(tell(streams, Request::Refused(peer, error.to_string())).await);
        }
        Ok(Err(error)) => {
            tracing::debug!(event = "stream", %peer, %error, "gossip: a stream failed");
        }
        Err(_) => tracing::debug!(event = "stream", %peer, "gossip: a stream took too long"),
    }
}

/// Pings `to` by TCP and reports the answer.
pub(crate) async fn ping(
    streams: Streams,
    to: SocketAddr,
    body: Vec<u8>,
    seq: u32,
    deadline: Instant,
) {
    let work = async {
        let mut stream = TcpStream::connect(to).await?;
        write(&mut stream, &streams, &body, End::Dialer).await?;
        match read(&mut stream, &streams, End::Dialer).await? {
            StreamMessage::Ack { seq: answered } if answered == seq => {
                tell(&streams, Request::Pong(seq)).await
            }
            _ => Err(Failure::Unexpected),
        }
    };
    // Nobody there is what a dead node looks like: no reason for noise.
    if let Ok(Err(error)) = timeout_at(deadline.into(), work).await {
        tracing::debug!(%to, %error, "gossip: a ping by TCP failed");
    }
}

async fn read(
    stream: &mut TcpStream,
    streams: &Streams,
    end: End,
) -> Result<StreamMessage, Failure> {
    let mut reader = StreamReader::new(&streams.seal.envelope, end);
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = stream.read(&mut chunk).await?;
        if length == 0 {
            return Err(StreamError::Cut.into());
        }
        if let Some(message) = reader.push(chunk.get(..length).unwrap_or_default())? {
            return Ok(message);
        }
    }
}

async fn write(
    stream: &mut TcpStream,
    streams: &Streams,
    body: &[u8],
    end: End,
) -> Result<(), Failure> {
    let nonce = streams.seal.nonce().ok_or(Failure::Ended)?;
    stream
        .write_all(&streams.seal.envelope.close_stream(body, nonce, end))
        .await?;
    Ok(())
}

async fn ask<T>(
    streams: &Streams,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Failure> {
    let (answer, answered) = oneshot::channel();
    tell(streams, request(answer)).await?;
    answered.await.map_err(|_| Failure::Ended)
}

async fn tell(streams: &Streams, request: Request) -> Result<(), Failure> {
    streams
        .requests
        .send(request)
        .await
        .map_err(|_| Failure::Ended)
}
