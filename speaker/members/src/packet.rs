//! What a UDP packet holds once its label and its seal are off: a checksum, several messages, compression.

use weezl::{BitOrder, LzwStatus, decode::Decoder};

use crate::message::{Message, kind};
use crate::msgpack::{Reader, Stop};

/// Most messages one compound packet can carry: their count is one byte.
pub const MAX_PARTS: usize = 255;
/// Bytes a compound packet needs beside its parts.
pub const COMPOUND_OVERHEAD: usize = 2;
/// Bytes a compound packet needs for each part beside the part.
pub const PART_OVERHEAD: usize = 2;
/// Bytes of a checksum and its type byte.
const CRC_OVERHEAD: usize = 5;
/// Packets in packets: as deep as any sender goes, and one more.
const MAX_DEPTH: u8 = 4;
/// Most bytes that come out of everything compressed in one packet.
const MAX_UNPACKED: usize = 256 * 1024;

/// Why a packet, or a part of it, could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// No byte at all.
    #[error("an empty message")]
    Empty,
    /// The checksum does not fit.
    #[error("a wrong checksum")]
    Checksum,
    /// A message that cannot be read.
    #[error("a message of type {0} that cannot be read")]
    Malformed(u8),
    /// A type nobody sends in packets.
    #[error("a message of unknown type {0}")]
    Unknown(u8),
    /// More packed into each other than anyone sends.
    #[error("too much packed into one packet")]
    TooDeep,
}

/// What was in a packet: the messages in order, and the first thing that could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The messages that could be read.
    pub messages: Vec<Message>,
    /// Why others could not, if any.
    pub trouble: Option<Unreadable>,
}

impl Contents {
    fn refuse(&mut self, why: Unreadable) {
        self.trouble.get_or_insert(why);
    }
}

/// Takes a packet apart.
pub fn decode(packet: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut budget = MAX_UNPACKED;
    if let [kind::HAS_CRC, c3, c2, c1, c0, body @ ..] = packet {
        if crc32fast::hash(body) == u32::from_be_bytes([*c3, *c2, *c1, *c0]) {
            part(body, MAX_DEPTH, &mut budget, &mut contents);
        } else {
            contents.refuse(Unreadable::Checksum);
        }
    } else {
        part(packet, MAX_DEPTH, &mut budget, &mut contents);
    }
    contents
}

fn part(message: &[u8], depth: u8, budget: &mut usize, contents: &mut Contents) {
    let Some((of, body)) = message.split_first() else {
        return contents.refuse(Unreadable::Empty);
    };
    let Some(deeper) = depth.checked_sub(1) else {
        return contents.refuse(Unreadable::TooDeep);
    };
    match *of {
        kind::COMPOUND => {
            if compound(body, |piece| part(piece, deeper, budget, contents)).is_err() {
                contents.refuse(Unreadable::Malformed(*of));
            }
        }
        kind::COMPRESS => match unpack(body, *budget) {
            Ok(unpacked) => {
                *budget -= unpacked.len().min(*budget);
                part(&unpacked, deeper, budget, contents);
            }
            Err(_) => contents.refuse(Unreadable::Malformed(*of)),
        },
        kind::PUSH_PULL | kind::ENCRYPT | kind::HAS_CRC | kind::ERR => {
            contents.refuse(Unreadable::Unknown(*of));
        }
        _ => match Message::decode(*of, body) {
            Ok(Some(message)) => contents.messages.push(message),
            Ok(None) => {}
            Err(_) if *of > kind::ERR => contents.refuse(Unreadable::Unknown(*of)),
            Err(_) => contents.refuse(Unreadable::Malformed(*of)),
        },
    }
}

/// Calls `each` with every part that is whole; fails when the last ones are cut off.
fn compound(body: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Stop> {
    let (count, rest) = body.split_first().ok_or(Stop::Short)?;
    let (lengths, mut parts) = rest
        .split_at_checked(usize::from(*count) * 2)
        .ok_or(Stop::Short)?;
    for length in lengths.chunks_exact(2) {
        let length = length
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let (piece, rest) = parts.split_at_checked(length).ok_or(Stop::Short)?;
        parts = rest;
        each(piece);
    }
    Ok(())
}

/// Undoes the compression of the struct at the start of `body`: LZW as in GIF, 8 bits wide. At most `limit` bytes.
///
/// # Errors
/// Another algorithm, broken codes, or more bytes than `limit`.
pub(crate) fn unpack(body: &[u8], limit: usize) -> Result<Vec<u8>, Stop> {
    let (mut algorithm, mut packed) = (0u8, [].as_slice());
    Reader::new(body).fields(|key, value| {
        match key {
            b"Algo" => algorithm = value.uint()?,
            b"Buf" => packed = value.bytes()?,
            _ => {}
        }
        Ok(())
    })?;
    if algorithm != 0 {
        return Err(Stop::Bad);
    }
    let mut decoder = Decoder::new(BitOrder::Lsb, 8);
    let mut unpacked = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let result = decoder.decode_bytes(packed, &mut piece);
        packed = packed.get(result.consumed_in..).unwrap_or_default();
        unpacked.extend_from_slice(piece.get(..result.consumed_out).unwrap_or_default());
        if unpacked.len() > limit {
            return Err(Stop::Bad);
        }
        match result.status {
            Ok(LzwStatus::Done) => return Ok(unpacked),
            Ok(LzwStatus::Ok) if result.consumed_in + result.consumed_out > 0 => {}
            Ok(_) | Err(_) => return Err(Stop::Bad),
        }
    }
}

/// One packet of several messages, or the message itself if it is alone. Parts that do not fit the format's lengths are
/// left out; no message of ours comes near them.
pub fn join(messages: &[Vec<u8>]) -> Vec<u8> {
    if let [only] = messages {
        return only.clone();
    }
    let parts: Vec<(&Vec<u8>, u16)> = messages
        .iter()
        .filter_map(|part| u16::try_from(part.len()).ok().map(|length| (part, length)))
        .take(MAX_PARTS)
        .collect();
    let mut packet = vec![kind::COMPOUND, u8::try_from(parts.len()).unwrap_or(u8::MAX)];
    for (_, length) in &parts {
        packet.extend(length.to_be_bytes());
    }
    for (part, _) in &parts {
        packet.extend_from_slice(part);
    }
    packet
}

/// The packet with its checksum before it, for receivers that understand protocol version 5.
pub fn with_checksum(packet: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(packet.len() + CRC_OVERHEAD);
    out.push(kind::HAS_CRC);
    out.extend(crc32fast::hash(packet).to_be_bytes());
    out.extend_from_slice(packet);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_joined_and_come_apart() {
        let acks: Vec<Message> = (0..3).map(|seq| Message::Ack { seq }).collect();
        let parts: Vec<Vec<u8>> = acks.iter().map(Message::encode).collect();
        let packet = with_checksum(&join(&parts));
        assert_eq!(
            decode(&packet),
            Contents {
                messages: acks.clone(),
                trouble: None
            }
        );
        assert_eq!(join(&parts[..1]), parts[0], "one message needs no compound");

        let mut broken = packet.clone();
        *broken.last_mut().unwrap() ^= 1;
        assert_eq!(decode(&broken).trouble, Some(Unreadable::Checksum));
        // What is whole in a cut packet is used.
        let joined = join(&parts);
        let cut = decode(&joined[..joined.len() - 1]);
        assert_eq!(cut.messages, acks[..2]);
        assert_eq!(cut.trouble, Some(Unreadable::Malformed(kind::COMPOUND)));
    }

    #[test]
    fn nesting_ends_somewhere() {
        let mut packet = Message::Ack { seq: 1 }.encode();
        for _ in 0..MAX_DEPTH {
            let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
            packet = [vec![kind::COMPOUND, 1, length[0], length[1]], packet].concat();
        }
        assert_eq!(decode(&packet).trouble, Some(Unreadable::TooDeep));
        assert_eq!(decode(&packet[4..]).messages.len(), 1);
    }

    #[test]
    fn a_compressed_bomb_is_refused() {
        let zeros = weezl::encode::Encoder::new(BitOrder::Lsb, 8)
            .encode(&vec![0; 4 * MAX_UNPACKED])
            .unwrap();
        let mut writer = crate::msgpack::Writer::after(vec![kind::COMPRESS]);
        writer.map(2).key("Algo").uint(0).key("Buf").raw(&zeros);
        let packet = writer.finish();
        assert!(packet.len() < 32 * 1024, "{}", packet.len());
        assert_eq!(
            decode(&packet).trouble,
            Some(Unreadable::Malformed(kind::COMPRESS))
        );
    }
}
