//! The messages of memberlist's protocol (its versions 1 to 5), each a type byte and a MessagePack struct.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::msgpack::{Reader, Stop, Writer};

/// The type bytes that open a message, a packet or a stream.
pub mod kind {
    /// Are you there?
    pub const PING: u8 = 0;
    /// Ask a third node for me.
    pub const INDIRECT_PING: u8 = 1;
    /// I am, or it is.
    pub const ACK: u8 = 2;
    /// A node may be dead.
    pub const SUSPECT: u8 = 3;
    /// A node is alive.
    pub const ALIVE: u8 = 4;
    /// A node is dead, or has left.
    pub const DEAD: u8 = 5;
    /// All that one node knows (streams only).
    pub const PUSH_PULL: u8 = 6;
    /// Several messages in one packet.
    pub const COMPOUND: u8 = 7;
    /// Something of the application's; MetalLB sends none.
    pub const USER: u8 = 8;
    /// A compressed message.
    pub const COMPRESS: u8 = 9;
    /// A sealed stream.
    pub const ENCRYPT: u8 = 10;
    /// The third node did not answer me either.
    pub const NACK: u8 = 11;
    /// A packet with its checksum before it.
    pub const HAS_CRC: u8 = 12;
    /// What went wrong with a stream (streams only).
    pub const ERR: u8 = 13;
    /// A label before a packet or a stream.
    pub const HAS_LABEL: u8 = 244;
}

/// Longest name of a node that is accepted, in bytes; Kubernetes' own limit is 253.
pub const MAX_NAME: usize = 512;
/// Most bytes of metadata of one node (memberlist's `MetaMaxSize`).
pub const MAX_META: usize = 512;
/// Longest text of an error that is kept, in bytes.
const MAX_ERROR: usize = 4096;

/// Where an answer should go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its address.
    pub addr: IpAddr,
    /// Its UDP port, never 0.
    pub port: u16,
    /// Its name.
    pub node: String,
}

impl Source {
    /// The socket address to answer to.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.addr.to_canonical(), self.port)
    }
}

/// Asks the receiver whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Chosen by the asker, comes back in the answer.
    pub seq: u32,
    /// Who is asked; empty for anyone at this address.
    pub node: String,
    /// Who asks. Without it the answer goes where the packet came from.
    pub source: Option<Source>,
}

/// Asks the receiver to ping another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndirectPing {
    /// Chosen by the asker, comes back in the answer.
    pub seq: u32,
    /// The address of the node to ping.
    pub target: IpAddr,
    /// Its UDP port; 0 for the usual one.
    pub port: u16,
    /// Its name.
    pub node: String,
    /// Whether a nack is wanted when it stays silent.
    pub nack: bool,
    /// Who asks.
    pub source: Option<Source>,
}

/// What one node says of another in a suspect or a dead message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The incarnation of the node that is spoken of.
    pub incarnation: u32,
    /// The node that is spoken of.
    pub node: String,
    /// Who says so. In a dead message, the node itself: it has left.
    pub from: String,
}

/// Protocol versions: least, greatest and spoken, then the same of the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions(pub [u8; 6]);

impl Versions {
    /// What MetalLB's speakers say of themselves.
    pub const OURS: Self = Self([1, 5, 2, 0, 0, 0]);
    /// Nothing known.
    pub const UNKNOWN: Self = Self([0; 6]);

    /// The greatest version the node understands: from 3 pings by TCP, from 4 nacks, from 5 checksums.
    pub fn greatest(self) -> u8 {
        let [_, greatest, ..] = self.0;
        greatest
    }

    /// Whether the protocol's versions make sense together.
    pub fn sane(self) -> bool {
        let [least, greatest, ..] = self.0;
        least > 0 && least <= greatest
    }
}

/// A node is alive, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Grows with each life and each refutation.
    pub incarnation: u32,
    /// The node's name.
    pub node: String,
    /// Its address as it was sent: an IPv4 address in 16 bytes stays an IPv6 one here, for it must be passed on as it came.
    pub addr: IpAddr,
    /// Its port, UDP and TCP; 0 for the usual one.
    pub port: u16,
    /// Its metadata.
    pub meta: Vec<u8>,
    /// The versions it understands, where it said so.
    pub versions: Option<Versions>,
}

/// What comes in packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Are you there?
    Ping(Ping),
    /// Ask a third node for me.
    IndirectPing(IndirectPing),
    /// The answer to ping `seq`.
    Ack {
        /// The ping's number.
        seq: u32,
    },
    /// No answer to the indirect ping `seq`.
    Nack {
        /// The indirect ping's number.
        seq: u32,
    },
    /// A node may be dead.
    Suspect(Claim),
    /// A node is alive.
    Alive(Alive),
    /// A node is dead or has left.
    Dead(Claim),
}

/// An address of 4 or 16 bytes.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(|v4| IpAddr::V4(Ipv4Addr::from(v4)))
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(|v6| IpAddr::V6(Ipv6Addr::from(v6))))
        .ok()
}

fn write_address(writer: &mut Writer, addr: IpAddr) {
    match addr {
        IpAddr::V4(v4) => writer.raw(&v4.octets()),
        IpAddr::V6(v6) => writer.raw(&v6.octets()),
    };
}

fn versions(bytes: &[u8]) -> Result<Option<Versions>, Stop> {
    if bytes.is_empty() {
        return Ok(None);
    }
    // More than six would be from a later memberlist; fewer make Go's own code panic.
    bytes
        .first_chunk()
        .map(|six| Some(Versions(*six)))
        .ok_or(Stop::Bad)
}

/// The three fields a ping tells of its sender, as they come in.
#[derive(Default)]
struct RawSource<'a> {
    addr: &'a [u8],
    port: u16,
    node: String,
}

impl<'a> RawSource<'a> {
    fn field(&mut self, key: &[u8], value: &mut Reader<'a>) -> Result<(), Stop> {
        match key {
            b"SourceAddr" => self.addr = value.bytes()?,
            b"SourcePort" => self.port = value.uint()?,
            b"SourceNode" => self.node = value.text(MAX_NAME)?,
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Option<Source> {
        let addr = address(self.addr)?;
        (self.port != 0).then_some(Source {
            addr,
            port: self.port,
            node: self.node,
        })
    }
}

impl Ping {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Stop> {
        let (mut seq, mut node, mut source) = (0, String::new(), RawSource::default());
        reader.fields(|key, value| {
            match key {
                b"SeqNo" => seq = value.uint()?,
                b"Node" => node = value.text(MAX_NAME)?,
                _ => source.field(key, value)?,
            }
            Ok(())
        })?;
        Ok(Self {
            seq,
            node,
            source: source.finish(),
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.map(if self.source.is_some() { 5 } else { 2 });
        writer
            .key("Node")
            .raw(self.node.as_bytes())
            .key("SeqNo")
            .uint(self.seq.into());
        if let Some(source) = &self.source {
            write_source(writer, source);
        }
    }
}

fn write_source(writer: &mut Writer, source: &Source) {
    writer.key("SourceAddr");
    write_address(writer, source.addr);
    writer.key("SourceNode").raw(source.node.as_bytes());
    writer.key("SourcePort").uint(source.port.into());
}

impl IndirectPing {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Stop> {
        let (mut seq, mut node, mut source) = (0, String::new(), RawSource::default());
        let (mut target, mut port, mut nack) = (None, 0, false);
        reader.fields(|key, value| {
            match key {
                b"SeqNo" => seq = value.uint()?,
                b"Target" => target = address(value.bytes()?),
                b"Port" => port = value.uint()?,
                b"Node" => node = value.text(MAX_NAME)?,
                b"Nack" => nack = value.truth()?,
                _ => source.field(key, value)?,
            }
            Ok(())
        })?;
        let target = target.ok_or(Stop::Bad)?;
        Ok(Self {
            seq,
            target,
            port,
            node,
            nack,
            source: source.finish(),
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.map(if self.source.is_some() { 8 } else { 5 });
        writer
            .key("Nack")
            .truth(self.nack)
            .key("Node")
            .raw(self.node.as_bytes());
        writer
            .key("Port")
            .uint(self.port.into())
            .key("SeqNo")
            .uint(self.seq.into());
        if let Some(source) = &self.source {
            write_source(writer, source);
        }
        writer.key("Target");
        write_address(writer, self.target);
    }
}

impl Claim {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Stop> {
        let mut claim = Self {
            incarnation: 0,
            node: String::new(),
            from: String::new(),
        };
        reader.fields(|key, value| {
            match key {
                b"Incarnation" => claim.incarnation = value.uint()?,
                b"Node" => claim.node = value.text(MAX_NAME)?,
                b"From" => claim.from = value.text(MAX_NAME)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(claim)
    }

    fn write(&self, writer: &mut Writer) {
        writer.map(3).key("From").raw(self.from.as_bytes());
        writer.key("Incarnation").uint(self.incarnation.into());
        writer.key("Node").raw(self.node.as_bytes());
    }
}

/// The fields an alive message and a state of an exchange share, and a state's own.
pub(crate) struct RawNode {
    pub alive: Option<Alive>,
    pub state: u64,
}

impl RawNode {
    /// `None` in `alive`: well-formed, but no node we could talk to (no address, no name, too much metadata).
    pub(crate) fn read(reader: &mut Reader<'_>, name: &[u8]) -> Result<Self, Stop> {
        let (mut incarnation, mut node, mut addr) = (0, None, None);
        let (mut port, mut meta, mut vsn, mut state) = (0, [].as_slice(), None, 0);
        reader.fields(|key, value| {
            match key {
                b"Incarnation" => incarnation = value.uint()?,
                key if key == name => node = value.text(MAX_NAME).ok(),
                b"Addr" => addr = address(value.bytes()?),
                b"Port" => port = value.uint()?,
                b"Meta" => meta = value.bytes()?,
                b"Vsn" => vsn = versions(value.bytes()?)?,
                b"State" => state = value.uint()?,
                _ => {}
            }
            Ok(())
        })?;
        let alive = node
            .filter(|node| !node.is_empty() && meta.len() <= MAX_META)
            .zip(addr)
            .map(|(node, addr)| Alive {
                incarnation,
                node,
                addr,
                port,
                meta: meta.to_vec(),
                versions: vsn,
            });
        Ok(Self { alive, state })
    }
}

impl Alive {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Stop> {
        RawNode::read(reader, b"Node")?.alive.ok_or(Stop::Bad)
    }

    pub(crate) fn write(&self, writer: &mut Writer, name: &str, state: Option<u8>) {
        writer.map(if state.is_some() { 7 } else { 6 }).key("Addr");
        write_address(writer, self.addr);
        writer.key("Incarnation").uint(self.incarnation.into());
        writer
            .key("Meta")
            .bytes(&self.meta)
            .key(name)
            .raw(self.node.as_bytes());
        writer.key("Port").uint(self.port.into());
        if let Some(state) = state {
            writer.key("State").uint(state.into());
        }
        writer.key("Vsn");
        match self.versions {
            Some(versions) => writer.raw(&versions.0),
            None => writer.nil(),
        };
    }
}

/// Reads the one field of an ack, a nack or an error that matters.
fn number(reader: &mut Reader<'_>) -> Result<u32, Stop> {
    let mut seq = 0;
    reader.fields(|key, value| {
        if key == b"SeqNo" {
            seq = value.uint()?;
        }
        Ok(())
    })?;
    Ok(seq)
}

pub(crate) fn read_ack(reader: &mut Reader<'_>) -> Result<u32, Stop> {
    number(reader)
}

pub(crate) fn read_error(reader: &mut Reader<'_>) -> Result<String, Stop> {
    let mut text = String::new();
    reader.fields(|key, value| {
        if key == b"Error" {
            let bytes = value.bytes()?;
            text = String::from_utf8_lossy(bytes.get(..MAX_ERROR).unwrap_or(bytes)).into_owned();
        }
        Ok(())
    })?;
    Ok(text)
}

/// The stream message that tells the other side why it is refused.
pub fn error(text: &str) -> Vec<u8> {
    let mut writer = Writer::after(vec![kind::ERR]);
    writer.map(1).key("Error").raw(text.as_bytes());
    writer.finish()
}

impl Message {
    /// Reads the message behind the type byte `of`. `Ok(None)`: a kind that has nothing to say to us.
    ///
    /// # Errors
    /// Bytes that are not such a message.
    pub fn decode(of: u8, body: &[u8]) -> Result<Option<Self>, Stop> {
        let mut reader = Reader::new(body);
        let reader = &mut reader;
        Ok(Some(match of {
            kind::PING => Self::Ping(Ping::read(reader)?),
            kind::INDIRECT_PING => Self::IndirectPing(IndirectPing::read(reader)?),
            kind::ACK => Self::Ack {
                seq: number(reader)?,
            },
            kind::NACK => Self::Nack {
                seq: number(reader)?,
            },
            kind::SUSPECT => Self::Suspect(Claim::read(reader)?),
            kind::ALIVE => Self::Alive(Alive::read(reader)?),
            kind::DEAD => Self::Dead(Claim::read(reader)?),
            kind::USER => return Ok(None),
            _ => return Err(Stop::Bad),
        }))
    }

    /// The message with its type byte.
    pub fn encode(&self) -> Vec<u8> {
        let of = match self {
            Self::Ping(_) => kind::PING,
            Self::IndirectPing(_) => kind::INDIRECT_PING,
            Self::Ack { .. } => kind::ACK,
            Self::Nack { .. } => kind::NACK,
            Self::Suspect(_) => kind::SUSPECT,
            Self::Alive(_) => kind::ALIVE,
            Self::Dead(_) => kind::DEAD,
        };
        let mut writer = Writer::after(vec![of]);
        match self {
            Self::Ping(ping) => ping.write(&mut writer),
            Self::IndirectPing(ping) => ping.write(&mut writer),
            Self::Ack { seq } => {
                writer
                    .map(2)
                    .key("Payload")
                    .nil()
                    .key("SeqNo")
                    .uint((*seq).into());
            }
            Self::Nack { seq } => {
                writer.map(1).key("SeqNo").uint((*seq).into());
            }
            Self::Suspect(claim) | Self::Dead(claim) => claim.write(&mut writer),
            Self::Alive(alive) => alive.write(&mut writer, "Node", None),
        }
        writer.finish()
    }
}
