//! How fast addresses are answered for: one question at a time, and many at once.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::errno::Errno;
use serde::Serialize;
use socket2::Socket;

use crate::{
    Lab,
    bench::{milliseconds, report::Spread},
    observe::{
        prober::{self, now, parse_mac},
        trace::Mac,
    },
};

/// For how long is asked each way.
const TIME: Duration = Duration::from_secs(4);
/// Questions out at once, where it is many.
const OUTSTANDING: usize = 64;
/// From one address to the next that is asked for: a prime, so that all get their turn, far from each other.
const STRIDE: usize = 7919;

/// How fast some addresses are answered for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Asked {
    /// How many there are.
    pub addresses: usize,
    /// Microseconds from a question to its answer, one at a time: the middle and the 99th percentile.
    pub p50: f64,
    /// See `p50`.
    pub p99: f64,
    /// Answers a second with 64 questions out.
    pub per_second: f64,
}

/// Asks from `host` for each of these addresses in turn, which must all be answered for.
///
/// # Errors
/// There is no such host, hardly any question is answered, or the kernel refuses the packet socket.
pub fn ask(lab: &Lab, host: &str, addresses: &[Ipv4Addr]) -> Result<Asked> {
    let us = lab.host(host)?;
    let mac = parse_mac(&us.mac)?;
    let questions: Vec<_> = addresses
        .iter()
        .map(|&address| prober::request(mac, us.ipv4, address))
        .collect();
    ensure!(!questions.is_empty(), "no address to ask for");
    let socket = lab.namespace(host)?.within(prober::open)?;
    let times = one_at_a_time(&socket, mac, &questions)?;
    let count = times.len();
    let Some(spread) = Spread::of(times) else {
        anyhow::bail!("no question was answered");
    };
    ensure!(count > 100, "only {count} answers in {TIME:?}");
    Ok(Asked {
        addresses: addresses.len(),
        p50: spread.p50 * 1000.0,
        p99: spread.p99 * 1000.0,
        per_second: window(&socket, mac, &questions)?,
    })
}

/// The milliseconds each answer took.
fn one_at_a_time(socket: &Socket, us: Mac, questions: &[[u8; 60]]) -> Result<Vec<f64>> {
    let begun = Instant::now();
    let mut times = Vec::new();
    for number in (0..).step_by(STRIDE) {
        if begun.elapsed() >= TIME {
            break;
        }
        let Some(question) = questions.get(number % questions.len()) else {
            continue;
        };
        let asked = now();
        socket.send(question)?;
        while let Some((address, at)) = answer(socket, us)? {
            if question.get(38..42) == Some(address.octets().as_slice()) {
                times.push(milliseconds(at.saturating_sub(asked)));
                break;
            }
        }
    }
    Ok(times)
}

/// Answers a second with [`OUTSTANDING`] questions out.
fn window(socket: &Socket, us: Mac, questions: &[[u8; 60]]) -> Result<f64> {
    let begun = Instant::now();
    let (mut number, mut out, mut answered) = (0_usize, 0_usize, 0_u32);
    while begun.elapsed() < TIME {
        while out < OUTSTANDING {
            if let Some(question) = questions.get(number % questions.len()) {
                socket.send(question)?;
            }
            number += STRIDE;
            out += 1;
        }
        match answer(socket, us)? {
            Some(_) => {
                answered += 1;
                out -= 1;
            }
            // Those that are out by now are lost.
            None => out = 0,
        }
    }
    Ok(f64::from(answered) / begun.elapsed().as_secs_f64())
}

/// The next answer, and when the kernel took it from the interface; none if there is none for a while.
fn answer(socket: &Socket, us: Mac) -> Result<Option<(Ipv4Addr, Duration)>> {
    let mut frame = [0; 64];
    loop {
        match prober::stamped(socket, &mut frame) {
            Ok((length, at)) => {
                if let Some((address, _)) =
                    prober::reply(frame.get(..length).unwrap_or_default(), us)
                {
                    return Ok(Some((address, at)));
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
