//! Any bytes at all, as an ARP frame.
#![no_main]

use ferrolb_speaker_wire::{Delivery, Frame, MacAddr, decode, reply};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let us = MacAddr::new(2, 0, 0, 0, 0, 1);
    if let Ok(packet) = decode(&Frame { bytes, delivery: Delivery::Broadcast, vlan: None }, us) {
        let _ = reply(&packet, us);
    }
});
