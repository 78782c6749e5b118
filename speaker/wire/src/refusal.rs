//! Why a received frame was dropped.

/// Why a received frame was dropped without an answer. Every variant has a stable label, so that an operator who sees
/// one counter rise knows what arrives on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The frame ends before its Ethernet header, its ARP packet or its IPv6 header does.
    Truncated,
    /// The kernel marked the frame as one this host sent.
    Outgoing,
    /// The frame belongs to a VLAN this interface is not the end of.
    VlanTagged,
    /// The Ethernet type is not ARP (0x0806).
    NotArp,
    /// The Ethernet destination is neither this interface nor where the protocol's questions to many go: broadcast for
    /// ARP, the destination group's own address for NDP.
    Destination,
    /// The ARP hardware type is not Ethernet (1).
    HardwareType,
    /// The ARP protocol type is not IPv4 (0x0800).
    ProtocolType,
    /// The ARP hardware address length is not 6.
    HardwareLength,
    /// The ARP protocol address length is not 4.
    ProtocolLength,
    /// The ARP operation is neither request (1) nor reply (2).
    Operation,
    /// The sender names a group address (broadcast or multicast) as its own hardware address, in the Ethernet header or
    /// in the packet: an answer would go to many (RFC 1812 section 3.3.2 forbids believing it).
    BroadcastOrMulticastSender,
    /// The sender names 00:00:00:00:00:00 as its hardware address: an answer would reach nobody.
    ZeroSenderMac,
    /// The sender names this interface's own hardware address: our own frame came back through a loop in the segment.
    OwnSender,
    /// The Ethernet type is not IPv6 (0x86dd).
    NdpEtherType,
    /// The IP version is not 6.
    NdpVersion,
    /// The IPv6 payload length is more than the frame holds.
    NdpPayloadLength,
    /// The IPv6 header is followed by something else than ICMPv6 (58): an extension header, a fragment.
    NdpNextHeader,
    /// The IPv6 hop limit is not 255: the packet may come from another network.
    NdpHopLimit,
    /// The ICMPv6 message is shorter than a solicitation (24 bytes).
    NdpLength,
    /// The ICMPv6 checksum is wrong.
    NdpChecksum,
    /// The ICMPv6 type is neither Neighbour Solicitation (135) nor, where those are listened to, Neighbour Advertisement
    /// (136).
    NdpType,
    /// The ICMPv6 code is not 0.
    NdpCode,
    /// The target is a group, which nobody has.
    NdpTarget,
    /// The IPv6 source is a group or the loopback address: an answer would go astray (RFC 4291). An advertisement from nobody.
    NdpSource,
    /// A question without source that is not sent to the solicited-node group of its target.
    NdpDestination,
    /// A question without source that names a source hardware address all the same.
    NdpUnspecifiedSource,
    /// An option is of length 0, ends after the packet, or names a hardware address that is not Ethernet's.
    NdpOptionLength,
    /// An advertisement that is sent to a group and says it answers a question (RFC 4861 section 7.1.2).
    NdpSolicitedToGroup,
}

impl DropReason {
    /// Every reason, in the order of the variants: `ALL[reason as usize] == reason`.
    pub const ALL: [Self; 28] = [
        Self::Truncated,
        Self::Outgoing,
        Self::VlanTagged,
        Self::NotArp,
        Self::Destination,
        Self::HardwareType,
        Self::ProtocolType,
        Self::HardwareLength,
        Self::ProtocolLength,
        Self::Operation,
        Self::BroadcastOrMulticastSender,
        Self::ZeroSenderMac,
        Self::OwnSender,
        Self::NdpEtherType,
        Self::NdpVersion,
        Self::NdpPayloadLength,
        Self::NdpNextHeader,
        Self::NdpHopLimit,
        Self::NdpLength,
        Self::NdpChecksum,
        Self::NdpType,
        Self::NdpCode,
        Self::NdpTarget,
        Self::NdpSource,
        Self::NdpDestination,
        Self::NdpUnspecifiedSource,
        Self::NdpOptionLength,
        Self::NdpSolicitedToGroup,
    ];

    /// The metric label, in `snake_case`. Never changes once released.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Outgoing => "outgoing",
            Self::VlanTagged => "vlan_tagged",
            Self::NotArp => "not_arp",
            Self::Destination => "destination",
            Self::HardwareType => "hardware_type",
            Self::ProtocolType => "protocol_type",
            Self::HardwareLength => "hardware_length",
            Self::ProtocolLength => "protocol_length",
            Self::Operation => "operation",
            Self::BroadcastOrMulticastSender => "broadcast_or_multicast_sender",
            Self::ZeroSenderMac => "zero_sender_mac",
            Self::OwnSender => "own_sender",
            Self::NdpEtherType => "ndp_ether_type",
            Self::NdpVersion => "ndp_version",
            Self::NdpPayloadLength => "ndp_payload_length",
            Self::NdpNextHeader => "ndp_next_header",
            Self::NdpHopLimit => "ndp_hop_limit",
            Self::NdpLength => "ndp_length",
            Self::NdpChecksum => "ndp_checksum",
            Self::NdpType => "ndp_type",
            Self::NdpCode => "ndp_code",
            Self::NdpTarget => "ndp_target",
            Self::NdpSource => "ndp_source",
            Self::NdpDestination => "ndp_destination",
            Self::NdpUnspecifiedSource => "ndp_unspecified_source",
            Self::NdpOptionLength => "ndp_option_length",
            Self::NdpSolicitedToGroup => "ndp_solicited_to_group",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::DropReason;

    #[test]
    fn all_is_in_variant_order_and_labels_are_distinct_snake_case() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        let labels: HashSet<_> = DropReason::ALL.into_iter().map(DropReason::label).collect();
        assert_eq!(labels.len(), DropReason::ALL.len());
        assert!(
            labels
                .iter()
                .all(|label| label.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        );
    }
}
