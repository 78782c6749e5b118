//! Any bytes at all, as a Neighbour Solicitation.
#![no_main]

use ferrolb_speaker_wire::{Delivery, Frame, MacAddr, advertise, decode_ndp};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let us = MacAddr::new(2, 0, 0, 0, 0, 1);
    if let Ok(asked) = decode_ndp(&Frame { bytes, delivery: Delivery::Multicast, vlan: None }, us) {
        let _ = advertise(&asked, us);
    }
});
