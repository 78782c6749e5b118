//! The secret that speakers share, and the seal it puts on packets: AES-GCM with a version byte and a nonce before it.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// The first bytes of SHA-256 of nothing, which MetalLB appends to a secret before it cuts the key out.
const FILLING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];
/// Version byte of sealed bytes that were padded to AES blocks (protocol version 1).
const PADDED: u8 = 0;
/// Version byte of sealed bytes without padding.
const UNPADDED: u8 = 1;
const TAG_LEN: usize = 16;
const BLOCK_LEN: u8 = 16;

/// Bytes a seal adds: version, nonce and tag.
pub const SEAL_OVERHEAD: usize = 1 + NONCE_LEN + TAG_LEN;

/// A nonce. Never use one twice with the same key, not even in another process: take it from the system's randomness.
pub type NonceBytes = [u8; NONCE_LEN];

/// How long a key MetalLB cuts out of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyLength {
    /// 16 bytes, AES-128: MetalLB 0.9 to 0.13 and early 0.14.
    Old,
    /// 32 bytes, AES-256: MetalLB from 0.14.2.
    New,
}

/// Why bytes make no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key of {0} bytes: AES needs 16 or 32")]
pub struct WrongLength(pub usize);

/// Why sealed bytes were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// Fewer bytes than any seal has.
    #[error("too short to be sealed")]
    TooShort,
    /// A version byte other than 0 and 1; plain messages look like this too.
    #[error("not sealed, or by an unknown version of the seal ({0})")]
    Version(u8),
    /// Another key, another label, or bytes changed on the way.
    #[error("sealed with another key, or damaged")]
    Key,
}

/// An AES key, 16 or 32 bytes.
pub struct Key {
    aead: LessSafeKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A key of these very bytes.
    ///
    /// # Errors
    /// Neither 16 nor 32 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, WrongLength> {
        let algorithm = match bytes.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            other => return Err(WrongLength(other)),
        };
        let key = UnboundKey::new(algorithm, bytes).map_err(|_| WrongLength(bytes.len()))?;
        Ok(Self {
            aead: LessSafeKey::new(key),
        })
    }

    /// The key MetalLB makes of the text in `METALLB_ML_SECRET_KEY`: its first bytes, filled up with those of the SHA-256
    /// of nothing. `None` for an empty secret: then nothing is sealed.
    pub fn from_secret(secret: &[u8], length: KeyLength) -> Option<Self> {
        if secret.is_empty() {
            return None;
        }
        Self::new(&derived(secret, length)).ok()
    }

    /// `plain` sealed, with `also` vouched for.
    pub fn seal(&self, plain: &[u8], nonce: NonceBytes, also: &[u8]) -> Vec<u8> {
        let mut text = plain.to_vec();
        let sealed = self.aead.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(also),
            &mut text,
        );
        let mut out = Vec::with_capacity(plain.len() + SEAL_OVERHEAD);
        // ring refuses only texts of more than 2^36 bytes: nothing leaves then, least of all unsealed.
        if let Ok(tag) = sealed {
            out.push(UNPADDED);
            out.extend(nonce);
            out.extend(text);
            out.extend(tag.as_ref());
        }
        out
    }

    /// What was sealed.
    ///
    /// # Errors
    /// Sealed by another key, or not at all.
    pub fn open(&self, sealed: &[u8], also: &[u8]) -> Result<Vec<u8>, NotOpened> {
        let (version, rest) = sealed.split_first().ok_or(NotOpened::TooShort)?;
        if *version > UNPADDED {
            return Err(NotOpened::Version(*version));
        }
        let (nonce, text) = rest
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(NotOpened::TooShort)?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self
            .aead
            .open_in_place(nonce, Aad::from(also), &mut text)
            .map_err(|_| NotOpened::Key)?
            .len();
        text.truncate(length);
        if *version == PADDED {
            // PKCS #7: every byte of the padding tells how long it is.
            let padding = text.last().copied().filter(|n| (1..=BLOCK_LEN).contains(n));
            let kept = padding.and_then(|n| text.len().checked_sub(usize::from(n)));
            text.truncate(kept.ok_or(NotOpened::Key)?);
        }
        Ok(text)
    }
}

fn derived(secret: &[u8], length: KeyLength) -> Vec<u8> {
    let length = match length {
        KeyLength::Old => 16,
        KeyLength::New => 32,
    };
    secret
        .iter()
        .chain(&FILLING)
        .take(length)
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_s_keys_are_derived() {
        let secret = [b'A'; 22];
        assert_eq!(derived(&secret, KeyLength::Old), [0x41; 16]);
        let filled = [
            &[0x41; 22][..],
            &[0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb],
        ]
        .concat();
        assert_eq!(derived(&secret, KeyLength::New), filled);
        assert_eq!(
            derived(&[b'B'; 128], KeyLength::New),
            [0x42; 32],
            "only the first bytes of a long one"
        );
        assert!(Key::from_secret(b"", KeyLength::New).is_none());
    }

    #[test]
    fn only_the_same_key_and_label_open() {
        let key = Key::new(&[1; 32]).unwrap();
        let sealed = key.seal(b"alive", [9; 12], b"label");
        assert_eq!(sealed.len(), 5 + SEAL_OVERHEAD);
        assert_eq!(key.open(&sealed, b"label").unwrap(), b"alive");
        assert_eq!(key.open(&sealed, b""), Err(NotOpened::Key));
        assert_eq!(
            Key::new(&[1; 16]).unwrap().open(&sealed, b"label"),
            Err(NotOpened::Key)
        );
        assert_eq!(
            key.open(&sealed[..SEAL_OVERHEAD - 1], b"label"),
            Err(NotOpened::Key)
        );
        assert_eq!(key.open(&sealed[..5], b"label"), Err(NotOpened::TooShort));
        assert_eq!(key.open(&[], b""), Err(NotOpened::TooShort));
        assert_eq!(key.open(&[2; 64], b""), Err(NotOpened::Version(2)));
        assert_eq!(Key::new(&[1; 24]).unwrap_err(), WrongLength(24));
    }

    #[test]
    fn padding_that_lies_is_refused() {
        let key = Key::new(&[1; 16]).unwrap();
        for (text, opens) in [
            (
                &b"ping\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c"[..],
                Ok(b"ping".to_vec()),
            ),
            (b"ping\x00", Err(NotOpened::Key)),
            (b"ping\x11", Err(NotOpened::Key)),
            (b"\x02", Err(NotOpened::Key)),
            (b"", Err(NotOpened::Key)),
        ] {
            // Sealed as version 0: only the version byte differs, and that one is not vouched for.
            let mut sealed = key.seal(text, [3; 12], b"");
            sealed[0] = PADDED;
            assert_eq!(key.open(&sealed, b""), opens, "{text:?}");
        }
    }
}
