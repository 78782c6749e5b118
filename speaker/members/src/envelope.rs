//! What is around a packet or a stream: the label in clear text, then the seal that vouches for it.

use crate::key::{Key, NonceBytes, NotOpened, SEAL_OVERHEAD};
use crate::message::kind;

/// Longest label, in bytes: its length is one byte.
pub const MAX_LABEL: usize = 255;
/// Most bytes of one incoming stream. 10 000 nodes need less, and this many can wait in memory for each stream that is
/// open (memberlist itself allows 20 MiB).
pub const MAX_STREAM: usize = 2 * 1024 * 1024;
/// The type byte and the length before a sealed stream; both are vouched for.
const STREAM_HEAD: usize = 5;

/// Why an envelope stays closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The bytes end inside the label.
    #[error("the label is cut off or empty")]
    LabelCut,
    /// A label other than ours.
    #[error("meant for label {0:?}")]
    OtherLabel(String),
    /// Not sealed as it should be.
    #[error("{0}")]
    Seal(#[from] NotOpened),
    /// A plain stream where we have a key.
    #[error("not encrypted, and a secret key is configured here")]
    Plain,
    /// A sealed stream where we have none.
    #[error("encrypted, and no secret key is configured here")]
    NoKey,
    /// More than [`MAX_STREAM`].
    #[error("more than {MAX_STREAM} bytes")]
    TooLong,
}

/// Which end of a stream one is: only who dials says the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one who opened the connection.
    Dialer,
    /// The one who accepted it.
    Acceptor,
}

/// A label too long for its length byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a label of {0} bytes: at most {MAX_LABEL} are possible")]
pub struct LabelTooLong(pub usize);

/// Closes and opens what goes over the wire.
#[derive(Debug, Default)]
pub struct Envelope {
    label: Vec<u8>,
    key: Option<Key>,
    verify_incoming: bool,
    verify_outgoing: bool,
}

impl Envelope {
    /// With `label` (MetalLB uses none: empty) and, if speakers share a secret, `key`. The two switches are memberlist's
    /// for changing over to a key: whether to refuse what is not sealed, and whether to seal. Both are on by default.
    ///
    /// # Errors
    /// A label of more than [`MAX_LABEL`] bytes.
    pub fn new(
        label: &str,
        key: Option<Key>,
        verify_incoming: bool,
        verify_outgoing: bool,
    ) -> Result<Self, LabelTooLong> {
        if label.len() > MAX_LABEL {
            return Err(LabelTooLong(label.len()));
        }
        Ok(Self {
            label: label.as_bytes().to_vec(),
            key,
            verify_incoming,
            verify_outgoing,
        })
    }

    /// Bytes a packet grows by.
    pub fn overhead(&self) -> usize {
        let label = if self.label.is_empty() {
            0
        } else {
            2 + self.label.len()
        };
        label
            + if self.sealing().is_some() {
                SEAL_OVERHEAD
            } else {
                0
            }
    }

    fn sealing(&self) -> Option<&Key> {
        self.key.as_ref().filter(|_| self.verify_outgoing)
    }

    fn label_head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        if let (false, Ok(length)) = (self.label.is_empty(), u8::try_from(self.label.len())) {
            head.extend([kind::HAS_LABEL, length]);
            head.extend_from_slice(&self.label);
        }
        head
    }

    /// A packet as it goes over the wire.
    pub fn close_packet(&self, body: &[u8], nonce: NonceBytes) -> Vec<u8> {
        let mut packet = self.label_head();
        match self.sealing() {
            Some(key) => packet.extend(key.seal(body, nonce, &self.label)),
            None => packet.extend_from_slice(body),
        }
        packet
    }

    /// What is in a packet from the wire.
    ///
    /// # Errors
    /// Another label, another key, or none where there should be one.
    pub fn open_packet(&self, packet: &[u8]) -> Result<Vec<u8>, Closed> {
        let body = match split_label(packet)? {
            Some((label, body)) => self.check(label).map(|()| body)?,
            None => return Err(Closed::LabelCut),
        };
        let Some(key) = &self.key else {
            return Ok(body.to_vec());
        };
        match key.open(body, &self.label) {
            Err(_) if !self.verify_incoming => Ok(body.to_vec()),
            opened => Ok(opened?),
        }
    }

    fn check(&self, label: &[u8]) -> Result<(), Closed> {
        if label == self.label {
            return Ok(());
        }
        Err(Closed::OtherLabel(
            String::from_utf8_lossy(label).into_owned(),
        ))
    }

    /// A stream's one message as it goes over the wire.
    pub fn close_stream(&self, body: &[u8], nonce: NonceBytes, end: End) -> Vec<u8> {
        let mut stream = if end == End::Dialer {
            self.label_head()
        } else {
            Vec::new()
        };
        let Some(key) = self.sealing() else {
            stream.extend_from_slice(body);
            return stream;
        };
        let length = u32::try_from(body.len() + SEAL_OVERHEAD).unwrap_or(u32::MAX);
        let mut head = vec![kind::ENCRYPT];
        head.extend(length.to_be_bytes());
        let sealed = key.seal(body, nonce, &[&head, &self.label[..]].concat());
        stream.extend(head);
        stream.extend(sealed);
        stream
    }

    /// What has arrived of a stream's one message, the `end` being ours.
    ///
    /// # Errors
    /// As for packets, and a message longer than [`MAX_STREAM`].
    pub fn open_stream(&self, stream: &[u8], end: End) -> Result<Arrived, Closed> {
        let mut start = 0;
        if end == End::Acceptor && !stream.is_empty() {
            match split_label(stream)? {
                Some((label, body)) => {
                    self.check(label)?;
                    start = stream.len() - body.len();
                }
                None => return Ok(Arrived::Part),
            }
        }
        let rest = stream.get(start..).unwrap_or_default();
        let Some(first) = rest.first() else {
            return Ok(Arrived::Part);
        };
        if *first != kind::ENCRYPT {
            return match self.key {
                Some(_) if self.verify_incoming => Err(Closed::Plain),
                _ => Ok(Arrived::Plain { start }),
            };
        }
        let Some(key) = &self.key else {
            return Err(Closed::NoKey);
        };
        let Some((head, sealed)) = rest.split_first_chunk::<STREAM_HEAD>() else {
            return Ok(Arrived::Part);
        };
        let [_, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_STREAM {
            return Err(Closed::TooLong);
        }
        let Some(sealed) = sealed.get(..length) else {
            return Ok(Arrived::Part);
        };
        Ok(Arrived::Opened(
            key.open(sealed, &[&head[..], &self.label[..]].concat())?,
        ))
    }
}

/// How much of a stream's message there is.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Too little to tell.
    Part,
    /// It is not sealed and begins at `start`; where it ends only its content tells.
    Plain {
        /// Bytes of the label before it.
        start: usize,
    },
    /// All of it, opened.
    Opened(Vec<u8>),
}

/// A label (or none) and what follows it.
type Labelled<'a> = (&'a [u8], &'a [u8]);

/// Takes the label off; `None` while it is not whole.
fn split_label(bytes: &[u8]) -> Result<Option<Labelled<'_>>, Closed> {
    match bytes {
        [kind::HAS_LABEL, 0, ..] => Err(Closed::LabelCut),
        [kind::HAS_LABEL, length, rest @ ..] => Ok(rest.split_at_checked(usize::from(*length))),
        [kind::HAS_LABEL] => Ok(None),
        plain => Ok(Some((&[], plain))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(label: &str, key: Option<u8>) -> Envelope {
        Envelope::new(
            label,
            key.map(|byte| Key::new(&[byte; 32]).unwrap()),
            true,
            true,
        )
        .unwrap()
    }

    #[test]
    fn packets_open_only_for_the_same_label_and_key() {
        let all = [
            ("", None),
            ("", Some(1)),
            ("", Some(2)),
            ("blue", None),
            ("blue", Some(1)),
            ("red", Some(1)),
        ];
        for from in all {
            let closed = envelope(from.0, from.1).close_packet(b"\x02body", [4; 12]);
            assert_eq!(closed.len(), 5 + envelope(from.0, from.1).overhead());
            for to in all {
                let opened = envelope(to.0, to.1).open_packet(&closed);
                // Without a key nothing is checked: the body then makes no sense, which the next layer says.
                if from == to {
                    assert_eq!(opened.unwrap(), b"\x02body");
                } else if to.1.is_some() || from.0 != to.0 {
                    assert!(opened.is_err(), "{from:?} -> {to:?}");
                } else {
                    assert_ne!(opened.unwrap(), b"\x02body", "{from:?} -> {to:?}");
                }
            }
        }
        assert_eq!(
            envelope("", None).open_packet(&[kind::HAS_LABEL, 9, 1]),
            Err(Closed::LabelCut)
        );
        assert_eq!(
            envelope("", None).open_packet(&[kind::HAS_LABEL, 0]),
            Err(Closed::LabelCut)
        );
        assert_eq!(
            Envelope::new(&"x".repeat(256), None, true, true).unwrap_err(),
            LabelTooLong(256)
        );
    }

    #[test]
    fn streams_arrive_byte_by_byte() {
        for (label, key) in [("", Some(1)), ("blue", Some(1))] {
            let envelope = envelope(label, key);
            let closed = envelope.close_stream(b"\x06all of it", [4; 12], End::Dialer);
            for length in 0..closed.len() {
                assert_eq!(
                    envelope.open_stream(&closed[..length], End::Acceptor),
                    Ok(Arrived::Part)
                );
            }
            let opened = envelope.open_stream(&closed, End::Acceptor);
            assert_eq!(opened, Ok(Arrived::Opened(b"\x06all of it".to_vec())));
            // The answer on the same connection says no label, yet is bound to it.
            let answer = envelope.close_stream(b"\x06yes", [5; 12], End::Acceptor);
            assert_eq!(answer[0], kind::ENCRYPT);
            assert_eq!(
                envelope.open_stream(&answer, End::Dialer),
                Ok(Arrived::Opened(b"\x06yes".to_vec()))
            );
        }
        let plain = envelope("blue", None);
        let closed = plain.close_stream(b"\x06all", [0; 12], End::Dialer);
        assert_eq!(
            plain.open_stream(&closed, End::Acceptor),
            Ok(Arrived::Plain { start: 6 })
        );
        assert_eq!(
            envelope("blue", Some(1)).open_stream(&closed, End::Acceptor),
            Err(Closed::Plain)
        );
        let sealed = envelope("", Some(1)).close_stream(b"\x06all", [0; 12], End::Dialer);
        assert_eq!(
            envelope("", None).open_stream(&sealed, End::Acceptor),
            Err(Closed::NoKey)
        );
        assert_eq!(
            envelope("", Some(2)).open_stream(&sealed, End::Acceptor),
            Err(Closed::Seal(NotOpened::Key))
        );
        let long = [kind::ENCRYPT, 0xff, 0, 0, 0];
        assert_eq!(
            envelope("", Some(1)).open_stream(&long, End::Acceptor),
            Err(Closed::TooLong)
        );
    }

    #[test]
    fn the_switches_let_plain_packets_through_while_a_key_is_rolled_out() {
        let key = || Key::new(&[1; 32]).ok();
        let lenient = Envelope::new("", key(), false, false).unwrap();
        assert_eq!(lenient.overhead(), 0);
        assert_eq!(lenient.close_packet(b"\x02x", [0; 12]), b"\x02x");
        assert_eq!(lenient.open_packet(b"\x02x").unwrap(), b"\x02x");
        let sealed = envelope("", Some(1)).close_packet(b"\x02x", [0; 12]);
        assert_eq!(lenient.open_packet(&sealed).unwrap(), b"\x02x");
        assert_eq!(
            lenient.open_stream(b"\x06", End::Acceptor),
            Ok(Arrived::Plain { start: 0 })
        );
    }
}
