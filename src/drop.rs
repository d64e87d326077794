//! Why a frame or a segment was not used.
//!
//! Every frame that ends without having had its effect is counted under exactly one of these reasons, and its
//! buffer goes back to the port's pool. The names are the values of the `reason` label of
//! `finwheel_drops_total`.

/// One reason a frame was dropped; the order is the order of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// The frame ends before a header that it announces.
    Truncated,
    /// Neither IPv4, IPv6 nor a VLAN tag before one of them.
    NotIp,
    /// IP, but neither TCP nor an ICMP error about TCP.
    NotTcp,
    /// IPv4 header with a wrong version, header length or total length.
    BadIpHeader,
    /// IPv4 header checksum is wrong.
    BadIpChecksum,
    /// An IP fragment: finwheel does not reassemble.
    Fragment,
    /// IPv6 extension headers beyond the bound or running past the frame.
    BadExtensionHeader,
    /// TCP data offset below 5 or beyond the segment.
    BadDataOffset,
    /// TCP checksum is wrong (and not a veth peer's unfinished one).
    BadTcpChecksum,
    /// SYN together with FIN or RST, or no flag at all.
    BadFlags,
    /// Source equals destination (LAND), or a source or destination that cannot hold a TCP connection.
    BadAddress,
    /// Source or destination port 0.
    BadPort,
    /// Malformed ICMP error.
    BadIcmp,
    /// ICMP error that quotes no connection of ours or a sequence number not in flight.
    IcmpNotOurs,
    /// No connection, and not a SYN for a listener.
    NoConnection,
    /// RST for no connection: never answered.
    StrayReset,
    /// RST outside the exact sequence number (RFC 5961 §3).
    BadReset,
    /// SYN on a synchronized connection (RFC 5961 §4).
    SynInWindow,
    /// ACK outside the range that RFC 5961 §5 accepts.
    BadAck,
    /// Segment outside the receive window.
    OutOfWindow,
    /// Timestamp older than the last one (PAWS, RFC 7323 §5).
    Paws,
    /// A synchronized connection received a segment without ACK.
    NoAck,
    /// The half-open table is full, and SYN cookies are off or cannot do (a pair re-opened from `TIME_WAIT`).
    SynTableFull,
    /// The connection table is full.
    ConnTableFull,
    /// A SYN while no new connections are taken.
    Draining,
    /// No chunk left to keep out-of-order or unread bytes.
    NoChunk,
    /// More out-of-order ranges than a connection may hold.
    OutOfOrderLimit,
    /// Data beyond the peer's FIN, or for a connection whose receive side is over.
    AfterFin,
    /// RST answered to nothing: RFC 1337 in TIME_WAIT.
    ResetInTimeWait,
    /// Passed on between workers beyond the budget.
    MisdirectedBudget,
    /// The mailbox of the next worker was full.
    MailboxFull,
    /// No frame to write an answer into.
    NoFrame,
    /// The transmit ring was full, or, for an answer to a SYN, as full as those may make it.
    TxRingFull,
    /// A RST or challenge ACK over its budget.
    ReplyBudget,
}

impl DropReason {
    /// All reasons in counter order.
    pub const ALL: [Self; 34] = [
        Self::Truncated,
        Self::NotIp,
        Self::NotTcp,
        Self::BadIpHeader,
        Self::BadIpChecksum,
        Self::Fragment,
        Self::BadExtensionHeader,
        Self::BadDataOffset,
        Self::BadTcpChecksum,
        Self::BadFlags,
        Self::BadAddress,
        Self::BadPort,
        Self::BadIcmp,
        Self::IcmpNotOurs,
        Self::NoConnection,
        Self::StrayReset,
        Self::BadReset,
        Self::SynInWindow,
        Self::BadAck,
        Self::OutOfWindow,
        Self::Paws,
        Self::NoAck,
        Self::SynTableFull,
        Self::ConnTableFull,
        Self::Draining,
        Self::NoChunk,
        Self::OutOfOrderLimit,
        Self::AfterFin,
        Self::ResetInTimeWait,
        Self::MisdirectedBudget,
        Self::MailboxFull,
        Self::NoFrame,
        Self::TxRingFull,
        Self::ReplyBudget,
    ];
    /// How many reasons there are: the length of the counters' array.
    pub const COUNT: usize = Self::ALL.len();

    /// The value of the `reason` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::NotIp => "not_ip",
            Self::NotTcp => "not_tcp",
            Self::BadIpHeader => "bad_ip_header",
            Self::BadIpChecksum => "bad_ip_checksum",
            Self::Fragment => "fragment",
            Self::BadExtensionHeader => "bad_extension_header",
            Self::BadDataOffset => "bad_data_offset",
            Self::BadTcpChecksum => "bad_tcp_checksum",
            Self::BadFlags => "bad_flags",
            Self::BadAddress => "bad_address",
            Self::BadPort => "bad_port",
            Self::BadIcmp => "bad_icmp",
            Self::IcmpNotOurs => "icmp_not_ours",
            Self::NoConnection => "no_connection",
            Self::StrayReset => "stray_reset",
            Self::BadReset => "bad_reset",
            Self::SynInWindow => "syn_in_window",
            Self::BadAck => "bad_ack",
            Self::OutOfWindow => "out_of_window",
            Self::Paws => "paws",
            Self::NoAck => "no_ack",
            Self::SynTableFull => "syn_table_full",
            Self::ConnTableFull => "conn_table_full",
            Self::Draining => "draining",
            Self::NoChunk => "no_chunk",
            Self::OutOfOrderLimit => "out_of_order_limit",
            Self::AfterFin => "after_fin",
            Self::ResetInTimeWait => "reset_in_time_wait",
            Self::MisdirectedBudget => "misdirected_budget",
            Self::MailboxFull => "mailbox_full",
            Self::NoFrame => "no_frame",
            Self::TxRingFull => "tx_ring_full",
            Self::ReplyBudget => "reply_budget",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_counter_order_and_names_are_distinct() {
        let mut names = std::collections::HashSet::new();
        for (i, r) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*r as usize, i);
            assert!(names.insert(r.as_str()));
        }
    }
}
