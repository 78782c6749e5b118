//! What is counted.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Instant;

use ferrolb_speaker_arbiter::Key;
use ferrolb_speaker_responder::{
    AddressMetrics, Held, Interface, Protocol, Replies, Table, WireMetrics,
};
use ferrolb_speaker_socket::{BATCH, Received};
use ferrolb_speaker_wire::{Delivery, Frame, MacAddr, request, solicit};

/// Addresses in the table.
const HELD: u32 = 10_000;

const US: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
const PEER: MacAddr = MacAddr(2, 0, 0, 0, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, 1);

/// Something to be counted.
pub struct Case {
    pub name: &'static str,
    /// How often one run does it.
    pub times: u64,
    /// Does everything that is not counted.
    pub prepare: fn() -> Work,
}

/// What is left to be done, and to be counted.
pub struct Work(Box<dyn FnMut()>);

impl Work {
    pub fn run(mut self) {
        counted(&mut self.0);
    }
}

/// Callgrind counts what is done in here.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

/// All cases. A frame is one of a whole batch, as they come while many ask.
pub const CASES: [Case; 7] = [
    Case {
        name: "arp_request",
        times: BATCH as u64,
        prepare: || questions(Protocol::Arp, scattered, |_| ()),
    },
    Case {
        name: "arp_request_for_others",
        times: BATCH as u64,
        prepare: || questions(Protocol::Arp, |number| HELD + number, |_| ()),
    },
    Case {
        name: "arp_malformed",
        times: BATCH as u64,
        // Its hardware is no Ethernet.
        prepare: || questions(Protocol::Arp, scattered, |frame| frame[15] = 6),
    },
    Case {
        name: "ndp_solicitation",
        times: BATCH as u64,
        prepare: || questions(Protocol::Ndp, scattered, |_| ()),
    },
    Case {
        name: "ndp_malformed",
        times: BATCH as u64,
        // Its checksum is wrong.
        prepare: || questions(Protocol::Ndp, scattered, |frame| frame[57] ^= 1),
    },
    Case {
        name: "address_taken",
        times: HELD as u64,
        prepare: || changes(Table::default()),
    },
    Case {
        name: "address_changed",
        times: HELD as u64,
        prepare: || changes(full(Protocol::Arp)),
    },
];

/// The addresses of a batch, far from each other.
fn scattered(number: u32) -> u32 {
    number * 7919 % HELD
}

/// A batch of questions, each changed, is answered.
fn questions(protocol: Protocol, which: fn(u32) -> u32, change: fn(&mut [u8])) -> Work {
    let table = full(protocol);
    let registry = prometheus::Registry::new();
    let metrics = WireMetrics::new(&registry).expect("nothing is registered");
    let key = Key::new(b"secret").expect("a key");
    let near = Interface {
        index: NonZeroU32::MIN,
        name: "near".to_owned(),
        mac: US,
        running: true,
        arp: true,
        ndp: None,
    };
    let delivery = match protocol {
        Protocol::Arp => Delivery::Broadcast,
        Protocol::Ndp => Delivery::Multicast,
    };
    let frames: Vec<Vec<u8>> = (0..)
        .take(BATCH)
        .map(|number| {
            let mut frame = match address(protocol, which(number)) {
                IpAddr::V4(target) => request(target, CLIENT, PEER).to_vec(),
                IpAddr::V6(target) => solicit(target, CLIENT6, PEER).to_vec(),
            };
            change(&mut frame);
            frame
        })
        .collect();
    let mut replies = Replies::default();
    let mut answer = move || {
        let received = frames.iter().map(|bytes| Received {
            frame: Frame {
                bytes,
                delivery,
                vlan: None,
            },
            at: None,
        });
        let now = Instant::now();
        replies.make(protocol, received, now, &near, &table, &key, &metrics);
        table.overheard().wake(now);
        black_box(replies.frames().len());
    };
    // The first batch finds no memory to be used again.
    answer();
    Work(Box::new(answer))
}

/// Every address is taken, one by one.
fn changes(table: Table) -> Work {
    let mut all = held(Protocol::Arp);
    Work(Box::new(move || {
        for (address, held) in all.drain(..) {
            table.insert(address, held);
        }
    }))
}

fn full(protocol: Protocol) -> Table {
    let table = Table::default();
    for (address, held) in held(protocol) {
        table.insert(address, held);
    }
    table
}

fn held(protocol: Protocol) -> Vec<(IpAddr, Held)> {
    let registry = prometheus::Registry::new();
    let metrics = AddressMetrics::new(&registry).expect("nothing is registered");
    let held = |number| {
        let address = address(protocol, number);
        let counters = metrics.of(address);
        (address, Held { at: None, counters })
    };
    (0..HELD).map(held).collect()
}

fn address(protocol: Protocol, number: u32) -> IpAddr {
    match protocol {
        Protocol::Arp => Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
        Protocol::Ndp => Ipv6Addr::from_bits(0xfd99 << 112 | u128::from(number)).into(),
    }
}
