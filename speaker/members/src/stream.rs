//! What a TCP stream holds: one message each way. Its length is not told before it unless it is sealed, so it is read
//! piece by piece until it is whole.

use crate::envelope::{Arrived, Closed, End, Envelope, MAX_STREAM};
use crate::message::{Alive, Message, Ping, RawNode, kind, read_ack, read_error};
use crate::msgpack::{Reader, Stop, Writer};
use crate::packet::unpack;

/// Most bytes a compressed stream may grow to.
const MAX_UNPACKED: usize = 2 * MAX_STREAM;
/// Most nodes one exchange may tell of.
pub const MAX_STATES: usize = 16_384;
/// Most bytes of application data that are passed over.
const MAX_USER: usize = MAX_STREAM;

/// What one node believes of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// It answers.
    Alive,
    /// It was silent, and has some time left to protest. MetalLB counts it among the living.
    Suspect,
    /// It was silent for too long.
    Dead,
    /// It said goodbye.
    Left,
}

impl Status {
    /// Alive, or not given up yet.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }

    fn byte(self) -> u8 {
        match self {
            Self::Alive => 0,
            Self::Suspect => 1,
            Self::Dead => 2,
            Self::Left => 3,
        }
    }

    fn of(value: u64) -> Option<Self> {
        [Self::Alive, Self::Suspect, Self::Dead, Self::Left]
            .into_iter()
            .find(|status| u64::from(status.byte()) == value)
    }
}

/// All that one node knows: sent by both sides of an exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Whether the sender wants to join us.
    pub join: bool,
    /// Every node it knows, itself included.
    pub states: Vec<(Status, Alive)>,
}

impl Exchange {
    /// The message with its type byte.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::after(vec![kind::PUSH_PULL]);
        writer.map(3).key("Join").truth(self.join);
        writer
            .key("Nodes")
            .uint(self.states.len() as u64)
            .key("UserStateLen")
            .uint(0);
        for (status, alive) in &self.states {
            alive.write(&mut writer, "Name", Some(status.byte()));
        }
        writer.finish()
    }
}

/// The message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamMessage {
    /// All the other side knows.
    Exchange(Exchange),
    /// A ping by TCP.
    Ping(Ping),
    /// The answer to it.
    Ack {
        /// The ping's number.
        seq: u32,
    },
    /// The other side refuses us and says why.
    Error(String),
    /// Something of the application's; MetalLB sends none.
    User,
}

/// Why a stream could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Label or seal.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// Not a message of the protocol.
    #[error("a stream of type {0} that cannot be read")]
    Malformed(u8),
    /// It ended before the message did.
    #[error("the stream ended inside a message")]
    Cut,
}

/// Reads the one message of a stream as it arrives.
#[derive(Debug)]
pub struct StreamReader<'e> {
    envelope: &'e Envelope,
    end: End,
    bytes: Vec<u8>,
    exchange: Option<Partial>,
}

impl<'e> StreamReader<'e> {
    /// For the message that comes to our `end`.
    pub fn new(envelope: &'e Envelope, end: End) -> Self {
        Self {
            envelope,
            end,
            bytes: Vec::new(),
            exchange: None,
        }
    }

    /// Takes the next bytes; the message once it is whole.
    ///
    /// # Errors
    /// The stream is of no use: close it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<StreamMessage>, StreamError> {
        if self.bytes.len() + bytes.len() > MAX_STREAM + 1024 {
            return Err(Closed::TooLong.into());
        }
        self.bytes.extend_from_slice(bytes);
        match self.envelope.open_stream(&self.bytes, self.end)? {
            Arrived::Part => Ok(None),
            Arrived::Opened(body) => whole(&body).map(Some),
            Arrived::Plain { start } => {
                let body = self.bytes.get(start..).unwrap_or_default();
                parse(body, &mut self.exchange, true)
            }
        }
    }
}

/// Reads a message that is all there.
///
/// # Errors
/// Not a message of the protocol, or a cut one.
pub fn whole(body: &[u8]) -> Result<StreamMessage, StreamError> {
    parse(body, &mut None, true)?.ok_or(StreamError::Cut)
}

/// `packed`: whether it may be compressed; compressed in compressed is not.
fn parse(
    body: &[u8],
    partial: &mut Option<Partial>,
    packed: bool,
) -> Result<Option<StreamMessage>, StreamError> {
    let Some((of, rest)) = body.split_first() else {
        return Ok(None);
    };
    let mut reader = Reader::new(rest);
    let read = match *of {
        kind::PUSH_PULL => partial.get_or_insert_default().feed(rest).map(|()| {
            partial
                .take()
                .map(|partial| StreamMessage::Exchange(partial.exchange))
        }),
        kind::PING => Ping::read(&mut reader).map(|ping| Some(StreamMessage::Ping(ping))),
        kind::ACK => read_ack(&mut reader).map(|seq| Some(StreamMessage::Ack { seq })),
        kind::ERR => read_error(&mut reader).map(|text| Some(StreamMessage::Error(text))),
        kind::USER => Ok(Some(StreamMessage::User)),
        kind::COMPRESS if packed => match reader.skip() {
            Ok(()) => match unpack(rest, MAX_UNPACKED) {
                Ok(inner) => {
                    let message = parse(&inner, &mut None, false)?;
                    return message.ok_or(StreamError::Cut).map(Some);
                }
                Err(stop) => Err(stop),
            },
            Err(stop) => Err(stop),
        },
        _ => Err(Stop::Bad),
    };
    match read {
        Ok(message) => Ok(message),
        Err(Stop::Short) => Ok(None),
        Err(Stop::Bad) => Err(StreamError::Malformed(*of)),
    }
}

/// An exchange of which a part has arrived: what was read once is not read again.
#[derive(Debug, Default)]
struct Partial {
    exchange: Exchange,
    /// Bytes behind the type byte that were used.
    used: usize,
    /// The states still to come and the bytes of application data behind them, once the head was read.
    left: Option<(usize, usize)>,
}

impl Partial {
    /// Goes on with all bytes that have arrived behind the type byte. `Ok`: that was all.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let (mut states, user) = match self.left {
            Some(left) => left,
            None => self.head(bytes)?,
        };
        while states > 0 {
            let rest = bytes.get(self.used..).unwrap_or_default();
            let mut reader = Reader::new(rest);
            let node = RawNode::read(&mut reader, b"Name")?;
            // A node we could not talk to is left out; the others are as good as before.
            if let Some(state) = Status::of(node.state).zip(node.alive) {
                self.exchange.states.push(state);
            }
            self.used += rest.len() - reader.rest().len();
            states -= 1;
            self.left = Some((states, user));
        }
        if bytes.len() < self.used.saturating_add(user) {
            Err(Stop::Short)
        } else {
            Ok(())
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<(usize, usize), Stop> {
        let (mut nodes, mut user, mut join) = (0, 0, false);
        let mut reader = Reader::new(bytes);
        reader.fields(|key, value| {
            match key {
                b"Nodes" => nodes = value.uint::<usize>()?,
                b"UserStateLen" => user = value.uint::<usize>()?,
                b"Join" => join = value.truth()?,
                _ => {}
            }
            Ok(())
        })?;
        if nodes > MAX_STATES || user > MAX_USER {
            return Err(Stop::Bad);
        }
        self.exchange.join = join;
        self.used = bytes.len() - reader.rest().len();
        self.left = Some((nodes, user));
        Ok((nodes, user))
    }
}

/// A ping by TCP.
pub fn ping(ping: Ping) -> Vec<u8> {
    Message::Ping(ping).encode()
}

/// The answer to a ping by TCP.
pub fn ack(seq: u32) -> Vec<u8> {
    Message::Ack { seq }.encode()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::message::Versions;

    fn exchange(nodes: u8) -> Exchange {
        let state = |n| Alive {
            incarnation: 300,
            node: format!("node-{n}"),
            addr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)),
            port: 7946,
            meta: vec![n],
            versions: Some(Versions::OURS),
        };
        let statuses = [Status::Alive, Status::Suspect, Status::Dead, Status::Left];
        Exchange {
            join: true,
            states: (0..nodes)
                .map(|n| (statuses[usize::from(n) % 4], state(n)))
                .collect(),
        }
    }

    #[test]
    fn an_exchange_comes_back_in_pieces_of_any_size() {
        let envelope = Envelope::default();
        let bytes = exchange(9).encode();
        for size in [1, 2, 7, 64, bytes.len()] {
            let mut reader = StreamReader::new(&envelope, End::Acceptor);
            let mut got = None;
            for piece in bytes.chunks(size) {
                assert_eq!(got, None, "whole before its last piece");
                got = reader.push(piece).unwrap();
            }
            assert_eq!(got, Some(StreamMessage::Exchange(exchange(9))));
        }
        assert_eq!(whole(&bytes[..bytes.len() - 1]), Err(StreamError::Cut));
    }

    #[test]
    fn application_data_is_passed_over() {
        let mut writer = Writer::after(vec![kind::PUSH_PULL]);
        writer
            .map(2)
            .key("Nodes")
            .uint(0)
            .key("UserStateLen")
            .uint(3);
        let mut bytes = writer.finish();
        assert_eq!(whole(&bytes), Err(StreamError::Cut));
        bytes.extend(b"abc");
        assert_eq!(
            whole(&bytes),
            Ok(StreamMessage::Exchange(Exchange::default()))
        );
    }

    #[test]
    fn absurd_announcements_are_refused_at_once() {
        for (nodes, user) in [
            (MAX_STATES as u64 + 1, 0),
            (1, MAX_USER as u64 + 1),
            (u64::MAX, 0),
        ] {
            let mut writer = Writer::after(vec![kind::PUSH_PULL]);
            writer
                .map(2)
                .key("Nodes")
                .uint(nodes)
                .key("UserStateLen")
                .uint(user);
            assert_eq!(
                whole(&writer.finish()),
                Err(StreamError::Malformed(kind::PUSH_PULL))
            );
        }
        let envelope = Envelope::default();
        let mut reader = StreamReader::new(&envelope, End::Acceptor);
        let mut writer = Writer::after(vec![kind::COMPRESS]);
        writer.map(2).key("Algo").uint(0).key("Buf");
        let mut flood = writer.finish();
        flood.extend([0xdb, 0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(reader.push(&flood), Ok(None));
        assert_eq!(
            reader.push(&vec![0; MAX_STREAM + 1024]),
            Err(Closed::TooLong.into())
        );
    }

    #[test]
    fn errors_are_read() {
        let text = crate::message::error("no");
        assert_eq!(whole(&text), Ok(StreamMessage::Error("no".to_owned())));
    }
}
