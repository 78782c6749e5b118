//! Any bytes at all, as an ARP frame.
#![no_main]

use ferrolb_speaker_wire::{Delivery, Frame, MacAddr, Message, decode, reply};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let us = MacAddr::new(2, 0, 0, 0, 0, 1);
    let other = MacAddr::new(2, 0, 0, 0, 0, 9);
    let frame = Frame { bytes, delivery: Delivery::Broadcast, vlan: None };
    if let Ok(packet) = decode(&frame, us) {
        let _ = reply(&packet, us);
    }
    if let Ok(heard) = Message::arp(&frame, us) {
        let _ = (heard.about(), heard.location(), heard.asker(), heard.reply(other, us));
    }
});
