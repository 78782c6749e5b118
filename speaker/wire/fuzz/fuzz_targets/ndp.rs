//! Any bytes at all, as a Neighbour Solicitation or Advertisement.
#![no_main]

use ferrolb_speaker_wire::{Delivery, Frame, MacAddr, Message, advertise, decode_ndp};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let us = MacAddr::new(2, 0, 0, 0, 0, 1);
    let other = MacAddr::new(2, 0, 0, 0, 0, 9);
    let frame = Frame { bytes, delivery: Delivery::Multicast, vlan: None };
    if let Ok(asked) = decode_ndp(&frame, us) {
        let _ = advertise(&asked, us);
    }
    if let Ok(heard) = Message::ndp(&frame, us) {
        let _ = (heard.about(), heard.location(), heard.asker(), heard.reply(other, us));
    }
});
