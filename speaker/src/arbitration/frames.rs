//! The arbiter's frames as ARP and NDP carry them, and what it is told of received ones.

use std::net::IpAddr;
use std::time::Instant;

use ferrolb_speaker_arbiter::{Form, Frame, Input, Key, Mac};
use ferrolb_speaker_wire::{FrameBuf, MacAddr, Message, Station, announcement, answer, question};

/// The bytes of an arbiter's frame to one node or to all, onto `out`. `asker`: the address the one had that asked, where
/// it is known.
pub(super) fn encode(
    frame: &Frame,
    to: Option<Mac>,
    asker: Option<IpAddr>,
    here: &Station,
    key: &Key,
    out: &mut Vec<FrameBuf>,
) {
    let tag = key.tag(frame);
    let to = to.map(MacAddr::from);
    match (frame.form(), to) {
        (Form::Question, to) => out.push(question(frame.address, to, here, Some(&tag))),
        (Form::Answer, Some(to)) => out.push(answer(frame.address, to, asker, here, Some(&tag))),
        // An answer to all is what is said unasked.
        (Form::Answer | Form::Gratuitous, to) => {
            out.extend(announcement(frame.address, to, here, Some(&tag)));
        }
    }
}

/// What a message that was read `at` that time means to the arbiter; `mine` tells this node's own hardware addresses.
pub(super) fn input(
    message: &Message<'_>,
    at: Instant,
    key: &Key,
    mine: impl Fn(MacAddr) -> bool,
) -> Option<Input> {
    let opened = message.tag.and_then(|tag| key.open(tag, message.about()));
    if let Some(frame) = opened {
        return Some(Input::Frame(frame, message.sender().octets()));
    }
    if mine(message.sender()) || mine(message.source) {
        // Came back through a loop, or from another interface of this node on the same segment.
        return None;
    }
    Some(
        message
            .location()
            .map_or(Input::Heard(at), |location| Input::Plain {
                address: location.address,
                mac: location.mac.octets(),
                unasked: location.unasked,
                at,
            }),
    )
}
