//! Any bytes at all, as a stream that arrives in two pieces.
#![no_main]

use ferrolb_speaker_members::{End, Envelope, StreamReader};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let envelope = Envelope::default();
    let mut reader = StreamReader::new(&envelope, End::Acceptor);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    if let Ok(None) = reader.push(first) {
        let _ = reader.push(second);
    }
});
