//! Any bytes at all, where sealed and labelled ones are expected.
#![no_main]

use ferrolb_speaker_members::{End, Envelope, Key};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let key = Key::new(b"0123456789abcdef0123456789abcdef").ok();
    let envelope = Envelope::new("blue", key, true, true).unwrap();
    let _ = envelope.open_packet(bytes);
    let _ = envelope.open_stream(bytes, End::Acceptor);
    let _ = envelope.open_stream(bytes, End::Dialer);
});
