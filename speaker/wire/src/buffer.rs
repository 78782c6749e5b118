//! A frame to be sent, of any of the lengths built here.

use std::fmt;

use pnet::util::MacAddr;

/// Bytes of the longest frame built here: a Neighbour Solicitation or Advertisement with a hardware address and a tag.
pub(crate) const LONGEST: usize = 14 + 40 + 24 + 8 + 24;

/// A whole Ethernet frame ready to be sent, without allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FrameBuf {
    bytes: [u8; LONGEST],
    length: usize,
}

impl FrameBuf {
    /// A frame of `length` bytes, at most [`LONGEST`], which `fill` is to write.
    pub(crate) fn filled(length: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        debug_assert!(length <= LONGEST, "no frame of {length} bytes is built");
        let mut bytes = [0; LONGEST];
        let length = length.min(LONGEST);
        fill(bytes.get_mut(..length).unwrap_or_default());
        Self { bytes, length }
    }

    /// The same from bytes that are already there.
    pub(crate) fn of<const N: usize>(frame: &[u8; N]) -> Self {
        const { assert!(N <= LONGEST) };
        let mut bytes = [0; LONGEST];
        if let Some(start) = bytes.first_chunk_mut() {
            *start = *frame;
        }
        Self { bytes, length: N }
    }

    /// The bytes, from the Ethernet header on.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The hardware address the frame goes to.
    pub fn destination(&self) -> MacAddr {
        self.bytes
            .first_chunk::<6>()
            .copied()
            .map_or_else(MacAddr::zero, MacAddr::from)
    }
}

impl AsRef<[u8]> for FrameBuf {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for FrameBuf {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice()
            .iter()
            .try_for_each(|byte| write!(to, "{byte:02x}"))
    }
}

/// Fills `bytes` with `parts`, which are exactly as long.
pub(crate) fn write(mut bytes: &mut [u8], parts: &[&[u8]]) {
    debug_assert_eq!(bytes.len(), parts.iter().copied().map(<[u8]>::len).sum());
    for part in parts {
        let Some((to, rest)) = bytes.split_at_mut_checked(part.len()) else {
            return;
        };
        to.copy_from_slice(part);
        bytes = rest;
    }
}
