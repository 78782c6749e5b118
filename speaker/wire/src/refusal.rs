//! Why a received frame was dropped.

/// Why a received frame was dropped without an answer. Every variant has a stable label, so that an operator who sees
/// one counter rise knows what arrives on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The frame ends before its Ethernet header or its ARP packet does.
    Truncated,
    /// The kernel marked the frame as one this host sent.
    Outgoing,
    /// The frame belongs to a VLAN this interface is not the end of.
    VlanTagged,
    /// The Ethernet type is not ARP (0x0806).
    NotArp,
    /// The Ethernet destination is neither broadcast nor this interface.
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
    /// in the ARP packet: an answer would go to many (RFC 1812 section 3.3.2 forbids believing it).
    BroadcastOrMulticastSender,
    /// The sender names 00:00:00:00:00:00 as its hardware address: an answer would reach nobody.
    ZeroSenderMac,
    /// The sender names this interface's own hardware address: our own frame came back through a loop in the segment.
    OwnSender,
}

impl DropReason {
    /// Every reason, in the order of the variants: `ALL[reason as usize] == reason`.
    pub const ALL: [Self; 13] = [
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
