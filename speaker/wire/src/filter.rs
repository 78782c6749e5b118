//! Classic BPF programs: what the kernel lets through to our sockets.
//!
//! A program is data here; the socket's crate hands it to the kernel (`SO_ATTACH_FILTER`, Linux
//! `Documentation/networking/filter.rst`). Malformed and tagged ARP frames pass on purpose: they are to be counted, by
//! reason, and not to vanish.

/// One instruction, field for field the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand: an offset, a value to compare with, or the number of bytes to let through.
    pub k: u32,
}

/// `BPF_LD | BPF_B | BPF_ABS`: load the byte at `k`. Past the end of the frame: drop it.
const LOAD_BYTE: u16 = 0x30;
/// `BPF_LD | BPF_H | BPF_ABS`: load the big-endian half-word at `k`. Past the end of the frame: drop it.
const LOAD_HALF: u16 = 0x28;
/// `BPF_LD | BPF_W | BPF_ABS`: load the big-endian word at `k`. Past the end of the frame: drop it.
const LOAD_WORD: u16 = 0x20;
/// `BPF_LD | BPF_W | BPF_LEN`: load the length of the frame.
const LOAD_LENGTH: u16 = 0x80;
/// `BPF_ALU | BPF_AND | BPF_K`: keep the bits of `k`.
const KEEP_BITS: u16 = 0x54;
/// `BPF_JMP | BPF_JGE | BPF_K`: the same or more than `k`?
const JUMP_IF_AT_LEAST: u16 = 0x35;
/// `BPF_JMP | BPF_JEQ | BPF_K`: compare with `k`.
const JUMP_IF_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JEQ | BPF_X`: compare with what was kept.
const JUMP_IF_SAME: u16 = 0x1d;
/// `BPF_MISC | BPF_TAX`: keep what was loaded, to compare with.
const KEEP: u16 = 0x07;
/// `BPF_RET | BPF_K`: let `k` bytes through, 0 to drop.
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: the negative offset at which the kernel shows whom a frame is for.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// `PACKET_OUTGOING`: a frame this host sent.
const OUTGOING: u32 = 4;
/// `PACKET_HOST`: a frame to this interface's own hardware address.
const TO_US: u32 = 0;
/// The shortest Ethernet frame, which an ARP frame with a tag fills.
const SHORTEST: u32 = 60;
/// Where an ARP packet behind an Ethernet header says what it is, where its sender's and its target's address are, and where the
/// tag begins that pads it.
const ARP_OPERATION: u32 = 14 + 6;
const ARP_SENDER: u32 = 14 + 14;
const ARP_TARGET: u32 = 14 + 24;
const ARP_TAG: u32 = 14 + 28;
/// `ARPOP_REPLY`.
const ARP_REPLY: u32 = 2;
/// Where an Ethernet frame names its type.
const ETHER_TYPE: u32 = 12;
/// `ETH_P_ARP`.
const ARP: u32 = 0x0806;
/// `ETH_P_IPV6`.
const IPV6: u32 = 0x86dd;
/// Where an IPv6 header behind an Ethernet header names what follows it.
const NEXT_HEADER: u32 = 14 + 6;
/// `IPPROTO_ICMPV6`.
const ICMPV6: u32 = 58;
/// Where an ICMPv6 message right behind that header names its type.
const ICMPV6_TYPE: u32 = 14 + 40;
/// `ND_NEIGHBOR_SOLICIT`.
const NEIGHBOUR_SOLICITATION: u32 = 135;
/// `ND_NEIGHBOR_ADVERT`.
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;
/// The shortest solicitation with a tag: Ethernet, IPv6, the message, and a Nonce option of 24 bytes.
const TAGGED_SOLICITATION: u32 = 14 + 40 + 24 + 24;
/// Longer than any frame: let all of it through.
const WHOLE_FRAME: u32 = 0x0004_0000;

/// Incoming ARP frames, whole. Frames of this host are not seen: without that, every gratuitous frame we send would
/// wake us up.
pub const INCOMING_ARP: [Instruction; 6] = [
    step(LOAD_BYTE, PACKET_TYPE),
    branch(JUMP_IF_EQUAL, OUTGOING, 3, 0), // ours: to the last line
    step(LOAD_HALF, ETHER_TYPE),
    branch(JUMP_IF_EQUAL, ARP, 0, 1), // anything else: to the last line
    step(RETURN, WHOLE_FRAME),
    step(RETURN, 0),
];

/// Incoming ARP frames, whole, but for what one speaker says to another's face: a reply, or a question from nobody, to this
/// interface's own hardware address, whose tag begins with `mark` in these `bits`. Who answers the questions
/// of clients is not woken by these, which come all the time. No client asks so: who asks whether an address is free asks
/// all (RFC 5227 section 2.1.1), and no padding is made of such bits but a tag.
pub const fn questions_of_clients(bits: u8, mark: u8) -> [Instruction; 17] {
    [
        step(LOAD_BYTE, PACKET_TYPE),
        branch(JUMP_IF_EQUAL, OUTGOING, 14, 0), // ours: to the last line
        step(LOAD_HALF, ETHER_TYPE),
        branch(JUMP_IF_EQUAL, ARP, 0, 12), // anything else: to the last line
        step(LOAD_BYTE, PACKET_TYPE),
        branch(JUMP_IF_EQUAL, TO_US, 0, 9), // to many, here and below: to the last but one
        step(LOAD_LENGTH, 0),
        branch(JUMP_IF_AT_LEAST, SHORTEST, 0, 7),
        step(LOAD_BYTE, ARP_TAG),
        step(KEEP_BITS, bits as u32),
        branch(JUMP_IF_EQUAL, mark as u32, 0, 4),
        step(LOAD_HALF, ARP_OPERATION),
        branch(JUMP_IF_EQUAL, ARP_REPLY, 3, 0), // to the last line
        step(LOAD_WORD, ARP_SENDER),
        branch(JUMP_IF_EQUAL, 0, 1, 0), // to the last line
        step(RETURN, WHOLE_FRAME),
        step(RETURN, 0),
    ]
}

/// Incoming Neighbour Solicitations, whole. All other IPv6 traffic of the node stays in the kernel, so that the packets of
/// its pods never wake us up; what hides a solicitation behind an extension header goes unanswered uncounted.
pub const INCOMING_SOLICITATIONS: [Instruction; 10] = [
    step(LOAD_BYTE, PACKET_TYPE),
    branch(JUMP_IF_EQUAL, OUTGOING, 7, 0), // ours: to the last line
    step(LOAD_HALF, ETHER_TYPE),
    branch(JUMP_IF_EQUAL, IPV6, 0, 5), // anything else, here and below: to the last line
    step(LOAD_BYTE, NEXT_HEADER),
    branch(JUMP_IF_EQUAL, ICMPV6, 0, 3),
    step(LOAD_BYTE, ICMPV6_TYPE),
    branch(JUMP_IF_EQUAL, NEIGHBOUR_SOLICITATION, 0, 1),
    step(RETURN, WHOLE_FRAME),
    step(RETURN, 0),
];

/// What neighbours say of themselves, and what speakers say to each other, whole: ARP replies, requests of a host for its own
/// address and those whose tag begins with `mark` in these `bits`; Neighbour Advertisements, and Solicitations that have room
/// for a tag. What else clients ask wakes who answers, and nobody else. It fits a socket for either protocol.
pub const fn statements(bits: u8, mark: u8) -> [Instruction; 25] {
    [
        step(LOAD_BYTE, PACKET_TYPE),
        branch(JUMP_IF_EQUAL, OUTGOING, 22, 0), // ours: to the last line
        step(LOAD_HALF, ETHER_TYPE),
        branch(JUMP_IF_EQUAL, ARP, 8, 0), // to where ARP is looked at
        branch(JUMP_IF_EQUAL, IPV6, 0, 19), // anything else, here and below: to the last line
        step(LOAD_BYTE, NEXT_HEADER),
        branch(JUMP_IF_EQUAL, ICMPV6, 0, 17),
        step(LOAD_BYTE, ICMPV6_TYPE),
        branch(JUMP_IF_EQUAL, NEIGHBOUR_ADVERTISEMENT, 14, 0), // to the last but one
        branch(JUMP_IF_EQUAL, NEIGHBOUR_SOLICITATION, 0, 14),
        step(LOAD_LENGTH, 0),
        branch(JUMP_IF_AT_LEAST, TAGGED_SOLICITATION, 11, 12), // to one of the last two
        // ARP.
        step(LOAD_HALF, ARP_OPERATION),
        branch(JUMP_IF_EQUAL, ARP_REPLY, 9, 0), // to the last but one
        step(LOAD_WORD, ARP_SENDER),
        step(KEEP, 0),
        step(LOAD_WORD, ARP_TARGET),
        branch(JUMP_IF_SAME, 0, 5, 0), // to the last but one
        step(LOAD_LENGTH, 0),
        branch(JUMP_IF_AT_LEAST, SHORTEST, 0, 4), // to the last line
        step(LOAD_BYTE, ARP_TAG),
        step(KEEP_BITS, bits as u32),
        branch(JUMP_IF_EQUAL, mark as u32, 0, 1),
        step(RETURN, WHOLE_FRAME),
        step(RETURN, 0),
    ]
}

/// Incoming ARP frames, and incoming Neighbour Solicitations and Advertisements, whole: all that neighbours say. It fits a
/// socket for either protocol.
pub const INCOMING_NEIGHBOURS: [Instruction; 12] = [
    step(LOAD_BYTE, PACKET_TYPE),
    branch(JUMP_IF_EQUAL, OUTGOING, 9, 0), // ours: to the last line
    step(LOAD_HALF, ETHER_TYPE),
    branch(JUMP_IF_EQUAL, ARP, 6, 0),  // to the last but one
    branch(JUMP_IF_EQUAL, IPV6, 0, 6), // anything else, here and below: to the last line
    step(LOAD_BYTE, NEXT_HEADER),
    branch(JUMP_IF_EQUAL, ICMPV6, 0, 4),
    step(LOAD_BYTE, ICMPV6_TYPE),
    branch(JUMP_IF_EQUAL, NEIGHBOUR_SOLICITATION, 1, 0), // to the last but one
    branch(JUMP_IF_EQUAL, NEIGHBOUR_ADVERTISEMENT, 0, 1),
    step(RETURN, WHOLE_FRAME),
    step(RETURN, 0),
];

const fn step(code: u16, k: u32) -> Instruction {
    branch(code, k, 0, 0)
}

const fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::{
        INCOMING_ARP, INCOMING_NEIGHBOURS, INCOMING_SOLICITATIONS, Instruction, JUMP_IF_AT_LEAST,
        JUMP_IF_EQUAL, JUMP_IF_SAME, KEEP, KEEP_BITS, LOAD_BYTE, LOAD_HALF, LOAD_LENGTH, LOAD_WORD,
        PACKET_TYPE, RETURN, questions_of_clients, statements,
    };

    /// Runs a program as the kernel would, for the operations used here.
    fn run(program: &[Instruction], frame: &[u8], packet_type: u8) -> u32 {
        let (mut at, mut accumulator, mut kept) = (0, 0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                LOAD_BYTE if k == PACKET_TYPE => accumulator = u32::from(packet_type),
                LOAD_BYTE => match frame.get(k as usize) {
                    Some(byte) => accumulator = u32::from(*byte),
                    None => return 0,
                },
                LOAD_HALF => match frame.get(k as usize..k as usize + 2) {
                    Some(half) => accumulator = u32::from(u16::from_be_bytes([half[0], half[1]])),
                    None => return 0,
                },
                LOAD_WORD => match frame.get(k as usize..k as usize + 4) {
                    Some(word) => accumulator = u32::from_be_bytes(word.try_into().unwrap()),
                    None => return 0,
                },
                LOAD_LENGTH => accumulator = u32::try_from(frame.len()).unwrap(),
                KEEP_BITS => accumulator &= k,
                JUMP_IF_AT_LEAST => at += usize::from(if accumulator >= k { jt } else { jf }),
                JUMP_IF_EQUAL => at += usize::from(if accumulator == k { jt } else { jf }),
                JUMP_IF_SAME => at += usize::from(if accumulator == kept { jt } else { jf }),
                KEEP => kept = accumulator,
                RETURN => return k,
                other => panic!("operation {other:#x} is not in this interpreter"),
            }
        }
    }

    #[test]
    fn lets_incoming_arp_through_and_nothing_else() {
        let arp = crate::gratuitous([10, 0, 0, 1].into(), crate::MacAddr::new(2, 0, 0, 0, 0, 1))[0];
        let mut ip = arp;
        ip[12..14].copy_from_slice(&[0x08, 0x00]);
        let (host, broadcast, other_host, outgoing) = (0, 1, 3, 4);
        for packet_type in [host, broadcast, other_host] {
            assert!(run(&INCOMING_ARP, &arp, packet_type) >= 60);
            assert_eq!(run(&INCOMING_ARP, &ip, packet_type), 0);
        }
        assert_eq!(run(&INCOMING_ARP, &arp, outgoing), 0);
        assert_eq!(run(&INCOMING_ARP, &arp[..13], broadcast), 0);
        // Cut short after its header: to be counted, so it must pass.
        assert!(run(&INCOMING_ARP, &arp[..14], broadcast) > 0);
    }

    /// Input: a speaker's question and answer to another's face, then the same with one thing different each time.
    /// Output: these are kept out, all else passes that is ARP and not ours.
    #[test]
    fn keeps_out_what_speakers_say_to_each_others_face_and_nothing_else() {
        let [us, peer] = [1, 2].map(|last| crate::MacAddr::new(2, 0, 0, 0, 0, last));
        let station = crate::Station {
            mac: peer,
            link_local: None,
        };
        let address = [10, 0, 0, 1].into();
        let mut tag = [0xa5; crate::TAG_LEN];
        tag[0] = 0x31;
        let asked = crate::question(address, Some(us), &station, Some(&tag))
            .as_ref()
            .to_vec();
        let said = crate::answer(address, us, None, &station, Some(&tag))
            .as_ref()
            .to_vec();
        let filter = questions_of_clients(0xe0, 0x20);
        let (host, broadcast, other_host, outgoing) = (0, 1, 3, 4);
        let with = |frame: &[u8], offset: usize, value: u8| {
            let mut frame = frame.to_vec();
            frame[offset] = value;
            frame
        };
        for frame in [&asked, &said] {
            assert_eq!(run(&filter, frame, host), 0);
            for packet_type in [broadcast, other_host] {
                assert!(run(&filter, frame, packet_type) >= 60);
            }
            assert_eq!(run(&filter, frame, outgoing), 0);
            // Another version, padding of zeros; something else than ARP; cut short, to be counted.
            for first in [0x51, 0] {
                assert!(run(&filter, &with(frame, 42, first), host) >= 60);
            }
            assert_eq!(run(&filter, &with(frame, 12, 0x86), host), 0);
            for length in [14, 30, 42, 59] {
                assert!(run(&filter, &frame[..length], host) > 0);
            }
        }
        // Who asks has an address, as a client has that asks again where it knows.
        assert!(run(&filter, &with(&asked, 31, 7), host) >= 60);
    }

    #[test]
    fn lets_incoming_solicitations_through_and_nothing_else() {
        let [us, peer] = [1, 2].map(|last| crate::MacAddr::new(2, 0, 0, 0, 0, last));
        let target = [0xfd; 16].into();
        let good = crate::solicit(target, [0xfe; 16].into(), peer);
        let (host, multicast, other_host, outgoing) = (0, 2, 3, 4);
        for packet_type in [host, multicast, other_host] {
            assert!(run(&INCOMING_SOLICITATIONS, &good, packet_type) >= 86);
            // IPv4, an extension header, another message.
            for (offset, value) in [(12, 0x08), (20, 0), (54, 136)] {
                let mut other = good;
                other[offset] = value;
                assert_eq!(run(&INCOMING_SOLICITATIONS, &other, packet_type), 0);
            }
        }
        let advertised = crate::unsolicited(target, us);
        assert_eq!(run(&INCOMING_SOLICITATIONS, &advertised, multicast), 0);
        assert_eq!(run(&INCOMING_SOLICITATIONS, &good, outgoing), 0);
        assert_eq!(run(&INCOMING_SOLICITATIONS, &good[..54], multicast), 0);
        // Cut short, or wrong in any other way: to be counted, so it must pass.
        assert!(run(&INCOMING_SOLICITATIONS, &good[..55], multicast) > 0);
    }

    /// Input: what clients ask, what neighbours say of themselves, and what speakers say, of both protocols.
    /// Output: the first is kept out, the others pass, with as little of each as tells which it is.
    #[test]
    fn keeps_out_what_clients_ask_and_lets_statements_through() {
        let [us, peer] = [1, 2].map(|last| crate::MacAddr::new(2, 0, 0, 0, 0, last));
        let station = crate::Station {
            mac: peer,
            link_local: Some([0xfe; 16].into()),
        };
        let (address, target) = ([10, 0, 0, 1].into(), [0xfd; 16].into());
        let mut tag = [0xa5; crate::TAG_LEN];
        tag[0] = 0x31;
        let filter = statements(0xe0, 0x20);
        let (host, broadcast, multicast, outgoing) = (0, 1, 2, 4);

        let client = [10, 0, 0, 7].into();
        let asked = crate::request(address, client, peer).to_vec();
        let probe = crate::request(address, [0; 4].into(), peer).to_vec();
        let solicited = crate::solicit(target, [0xfe; 16].into(), peer).to_vec();
        let mut padded = asked.clone();
        padded.resize(60, 0);
        for question in [&asked, &probe, &padded, &solicited] {
            for packet_type in [host, broadcast, multicast, outgoing] {
                assert_eq!(run(&filter, question, packet_type), 0, "{question:x?}");
            }
        }

        let packet = crate::decode(
            &crate::Frame {
                bytes: &asked,
                delivery: crate::Delivery::Broadcast,
                vlan: None,
            },
            us,
        );
        let mut said = vec![
            crate::reply(&packet.unwrap(), us).to_vec(),
            crate::unsolicited(target, peer).to_vec(),
        ];
        said.extend(crate::gratuitous(address, peer).map(|frame| frame.to_vec()));
        let nobody = crate::Station {
            link_local: None,
            ..station
        };
        for (from, about) in [
            (&station, address.into()),
            (&station, target.into()),
            (&nobody, target.into()),
        ] {
            said.push(
                crate::question(about, None, from, Some(&tag))
                    .as_ref()
                    .to_vec(),
            );
            said.push(
                crate::answer(about, us, None, from, Some(&tag))
                    .as_ref()
                    .to_vec(),
            );
        }
        for frame in &said {
            for packet_type in [host, broadcast, multicast] {
                assert!(run(&filter, frame, packet_type) >= 60, "{frame:x?}");
            }
            assert_eq!(run(&filter, frame, outgoing), 0);
            assert_eq!(run(&filter, &frame[..13], broadcast), 0);
            let mut ip = frame.clone();
            ip[12..14].copy_from_slice(&[0x08, 0x00]);
            assert_eq!(run(&filter, &ip, broadcast), 0);
        }
        // A tag of another version is no tag; router discovery and an echo are none of ours.
        let mut other = said.get(4).unwrap().clone();
        other[42] = 0x51;
        assert_eq!(run(&filter, &other, broadcast), 0);
        for kind in [133, 134, 137, 128] {
            let mut other = said.get(1).unwrap().clone();
            other[54] = kind;
            assert_eq!(run(&filter, &other, multicast), 0);
        }
    }

    #[test]
    fn lets_neighbours_of_both_protocols_through_and_nothing_else() {
        let [us, peer] = [1, 2].map(|last| crate::MacAddr::new(2, 0, 0, 0, 0, last));
        let target = [0xfd; 16].into();
        let asked = crate::solicit(target, [0xfe; 16].into(), peer).to_vec();
        let said = crate::unsolicited(target, peer).to_vec();
        let probe = crate::request([10, 0, 0, 1].into(), [0; 4].into(), peer);
        let packet = crate::decode(
            &crate::Frame {
                bytes: &probe,
                delivery: crate::Delivery::Broadcast,
                vlan: None,
            },
            us,
        );
        let answer = crate::reply(&packet.unwrap(), us).to_vec();
        let (host, broadcast, multicast, other_host, outgoing) = (0, 1, 2, 3, 4);
        for frame in [&asked, &said, &probe.to_vec(), &answer] {
            for packet_type in [host, broadcast, multicast, other_host] {
                assert!(run(&INCOMING_NEIGHBOURS, frame, packet_type) >= 86);
                assert_eq!(run(&INCOMING_NEIGHBOURS, &frame[..13], packet_type), 0);
                let mut ip = frame.clone();
                ip[12..14].copy_from_slice(&[0x08, 0x00]);
                assert_eq!(run(&INCOMING_NEIGHBOURS, &ip, packet_type), 0);
            }
            assert_eq!(run(&INCOMING_NEIGHBOURS, frame, outgoing), 0);
        }
        // An extension header; router discovery, a redirect, an echo.
        for (offset, value) in [(20, 0), (54, 133), (54, 134), (54, 137), (54, 128)] {
            let mut other = asked.clone();
            other[offset] = value;
            assert_eq!(run(&INCOMING_NEIGHBOURS, &other, multicast), 0);
        }
        // Cut short: to be counted, so it must pass.
        assert!(run(&INCOMING_NEIGHBOURS, &said[..55], multicast) > 0);
        assert_eq!(run(&INCOMING_NEIGHBOURS, &said[..54], multicast), 0);
        assert!(run(&INCOMING_NEIGHBOURS, &probe[..14], broadcast) > 0);
    }
}
