//! The groups that questions for IPv6 addresses are sent to.
//!
//! A Neighbour Solicitation goes to the target's solicited-node group, which its holder has to join in two ways: with the
//! packet socket, so that the network card lets the frames through; and as a host does, so that the kernel reports the
//! membership (MLD, RFC 3810) and a switch that follows those reports forwards the frames at all. The second needs an
//! ordinary socket, on which nothing is ever received, and no privilege. The kernel limits what one socket may remember
//! (`net.core.optmem_max`), so there are as many as it takes: 10 000 groups need five where the limit is 128 KiB.
//!
//! The kernel searches its lists for every group that is joined, which takes it a tenth of a millisecond where there are a
//! thousand and half of one where there are ten thousand. Who joins many and has something else to do meanwhile plans them
//! and joins a few at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;

use ferrolb_speaker_wire::{multicast_mac, solicited_node};
use socket2::{Domain, Socket, Type};

use crate::PacketSocket;

/// The groups of the addresses held on one interface. All are left when it is dropped.
#[derive(Debug)]
pub struct Groups {
    frames: Arc<PacketSocket>,
    members: HashMap<Ipv6Addr, Member>,
    /// Groups that could not be joined in both ways.
    missing: HashSet<Ipv6Addr>,
    /// Groups not tried yet; some may be needed no more, or twice.
    planned: VecDeque<Ipv6Addr>,
    reporting: Vec<Reporter>,
}

/// One group. Addresses that end alike share it.
#[derive(Debug, Default)]
struct Member {
    /// How many held addresses need it.
    holders: usize,
    /// The packet socket has joined it.
    let_through: bool,
    /// Which of the reporting sockets has joined it.
    reported_by: Option<usize>,
}

#[derive(Debug)]
struct Reporter {
    socket: Socket,
    /// It refused a group because it may not remember more.
    full: bool,
}

impl Groups {
    /// No groups yet, on the interface of `frames`.
    pub fn new(frames: Arc<PacketSocket>) -> Self {
        Self {
            frames,
            members: HashMap::new(),
            missing: HashSet::new(),
            planned: VecDeque::new(),
            reporting: Vec::new(),
        }
    }

    /// `address` is held: joins its group, if no other held address needs it already. If that fails, wholly or in part,
    /// [`join_missing`](Self::join_missing) tries again.
    pub fn take(&mut self, address: Ipv6Addr) -> io::Result<()> {
        let group = solicited_node(address);
        let member = self.members.entry(group).or_default();
        member.holders += 1;
        if member.holders == 1 {
            return self.join(group);
        }
        Ok(())
    }

    /// As [`take`](Self::take), but leaves the joining to [`join_planned`](Self::join_planned).
    pub fn plan(&mut self, address: Ipv6Addr) {
        let group = solicited_node(address);
        let member = self.members.entry(group).or_default();
        member.holders += 1;
        if member.holders == 1 {
            self.planned.push_back(group);
        }
    }

    /// Joins the next `most` groups of addresses that were planned, in that order, and tells how many are left. If one
    /// fails, wholly or in part, the others are joined all the same, and [`join_missing`](Self::join_missing) tries it again.
    pub fn join_planned(&mut self, most: usize) -> (usize, io::Result<()>) {
        let mut result = Ok(());
        for group in self
            .planned
            .drain(..most.min(self.planned.len()))
            .collect::<Vec<_>>()
        {
            result = result.and(self.join(group));
        }
        (self.planned.len(), result)
    }

    /// `address`, which was taken or planned, is no longer held: leaves its group with the last address that needs it.
    pub fn release(&mut self, address: Ipv6Addr) {
        let group = solicited_node(address);
        let Some(member) = self.members.get_mut(&group) else {
            return;
        };
        member.holders -= 1;
        if member.holders > 0 {
            return;
        }
        // Leaving fails only where the interface is gone, and the membership with it.
        if member.let_through {
            let _gone = self.frames.leave(multicast_mac(group));
        }
        if let Some(reporter) = member.reported_by.and_then(|at| self.reporting.get_mut(at)) {
            let index = self.frames.interface.get();
            let _gone = reporter.socket.leave_multicast_v6(&group, index);
            reporter.full = false;
        }
        self.members.remove(&group);
        self.missing.remove(&group);
    }

    /// Tries again what failed; says why the last of it failed again.
    pub fn join_missing(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for group in std::mem::take(&mut self.missing) {
            result = self.join(group).and(result);
        }
        result
    }

    /// Joins in the ways not joined yet. One that fails does not keep the other from being tried.
    fn join(&mut self, group: Ipv6Addr) -> io::Result<()> {
        let Some(member) = self.members.get_mut(&group) else {
            return Ok(());
        };
        let mut result = Ok(());
        if !member.let_through {
            result = self.frames.join(multicast_mac(group));
            member.let_through = result.is_ok();
        }
        if member.reported_by.is_none() {
            match report(&mut self.reporting, group, self.frames.interface.get()) {
                Ok(at) => member.reported_by = Some(at),
                Err(error) => result = Err(error),
            }
        }
        if result.is_err() {
            self.missing.insert(group);
        }
        result
    }
}

/// Joins with the first socket that has room, and tells which.
fn report(reporting: &mut Vec<Reporter>, group: Ipv6Addr, interface: u32) -> io::Result<usize> {
    for (at, reporter) in reporting.iter_mut().enumerate() {
        if reporter.full {
            continue;
        }
        match reporter.socket.join_multicast_v6(&group, interface) {
            Err(error) if is_full(&error) => reporter.full = true,
            result => return result.map(|()| at),
        }
    }
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    socket.join_multicast_v6(&group, interface)?;
    reporting.push(Reporter {
        socket,
        full: false,
    });
    Ok(reporting.len() - 1)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}
