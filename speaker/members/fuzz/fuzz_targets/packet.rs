//! Any bytes at all, as an opened packet for a machine that then goes on.
#![no_main]

use std::time::{Duration, Instant};

use ferrolb_speaker_members::{Identity, Machine, Profile};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (now, addr) = (Instant::now(), std::net::Ipv4Addr::LOCALHOST.into());
    let me = Identity {
        name: "a".to_owned(),
        addr,
        port: 7946,
        meta: vec![],
    };
    let mut machine = Machine::new(me, Profile::lan(), 0, now, 1);
    machine.packet(now, (addr, 7946).into(), bytes);
    machine.tick(now + Duration::from_secs(3));
    while machine.output().is_some() {}
});
