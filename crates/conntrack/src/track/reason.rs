//! The one list of reasons for INVALID: it makes the enum, the metric label, the log severity and the
//! documentation.

/// How loudly a reason is told to an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Happens on healthy networks.
    Info,
    /// A misbehaving host, an asymmetric path, or an attack.
    Warning,
}

macro_rules! reasons {
    ($($variant:ident $label:literal $severity:ident $doc:literal;)*) => {
        /// Why a packet is INVALID.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $(#[doc = $doc] $variant,)* }

        impl Reason {
            /// Every reason, in order.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];
            /// The metric label.
            pub const fn label(self) -> &'static str { match self { $(Reason::$variant => $label,)* } }
            /// One sentence for people.
            pub const fn explain(self) -> &'static str { match self { $(Reason::$variant => $doc,)* } }
            /// How loudly to tell it.
            pub const fn severity(self) -> Severity { match self { $(Reason::$variant => Severity::$severity,)* } }
        }
    };
}

impl Reason {
    /// Whether a packet that reaches tracking can be INVALID for it.
    pub const fn is_of_packets(self) -> bool {
        !matches!(self, Self::IpTruncated | Self::IpHeader | Self::IpChecksum)
    }

    /// Whether a frame can be too malformed for it to reach tracking.
    pub const fn is_of_frames(self) -> bool {
        matches!(self, Self::Ipv6Extension | Self::FragmentMalformed) || !self.is_of_packets()
    }
}

reasons! {
    IpTruncated "ip_truncated" Warning "The frame ends inside the IP header, or before the length that the header states.";
    IpHeader "ip_header" Warning "The IP version or header length is impossible.";
    IpChecksum "ip_checksum" Warning "The IPv4 header checksum is wrong.";
    Ipv6Extension "ipv6_extension" Warning "The chain of IPv6 extension headers is broken, or ends without a transport header.";
    FragmentMalformed "fragment_malformed" Warning "The fragment's length or place is impossible, or its first piece lacks the transport header.";
    L4Truncated "l4_truncated" Warning "The packet ends inside its transport header.";
    L4Length "l4_length" Warning "The transport header states a length that the packet does not have.";
    L4Checksum "l4_checksum" Warning "The transport checksum is wrong.";
    TcpFlags "tcp_flags" Warning "The TCP flags do not occur together in any real segment.";
    TcpNoOpen "tcp_no_open" Info "No flow matches and the segment may not open one.";
    TcpState "tcp_state" Warning "The segment does not fit the connection's state.";
    TcpSeqOverMaxEnd "tcp_seq_over_max_end" Info "The sequence number lies beyond the window that the receiver has offered.";
    TcpAckOverEnd "tcp_ack_over_end" Info "The acknowledgment, or a SACK block, covers data that was never seen.";
    TcpRstUnderAck "tcp_rst_under_ack" Warning "The reset's sequence number lies below what its receiver has already acknowledged.";
    IcmpType "icmp_type" Info "The ICMP type can neither open a flow nor refer to one.";
    IcmpNoRequest "icmp_no_request" Info "An ICMP answer without a request.";
    IcmpErrorQuote "icmp_error_quote" Info "The ICMP error quotes too little, or a packet that has no flow key.";
    IcmpErrorNoFlow "icmp_error_no_flow" Info "The ICMP error quotes a packet of no known flow.";
    IcmpErrorDestination "icmp_error_destination" Warning "The ICMP error is not addressed to the sender of the packet that it quotes.";
    Icmpv6Redirect "icmpv6_redirect" Warning "The ICMPv6 redirect is not from a link-local router one hop away, or lacks the redirected header.";
    SctpChunks "sctp_chunks" Warning "The SCTP chunks are malformed, or bundled as they may not be.";
    SctpNoOpen "sctp_no_open" Info "No flow matches and the SCTP chunk may not open one.";
    SctpVtag "sctp_vtag" Warning "The SCTP verification tag is not the association's.";
    SctpState "sctp_state" Info "The SCTP chunk does not fit the association's state.";
    GreVersion "gre_version" Warning "GRE version 1 that does not carry PPP.";
    ProtocolFamily "protocol_family" Warning "A protocol of the other address family: ICMP over IPv6 or ICMPv6 over IPv4.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    const HEAD: &str = "\
# Why a packet is INVALID

Every INVALID packet, and every frame too malformed to be tracked, has one of these reasons. The name is the value of the metrics'
label `reason` and what `dpdk-conntrack stats` prints; the log tells each at most once a minute, as loudly as the last column says.

| reason | meaning | log |
|---|---|---|
";

    #[test]
    fn the_documentation_lists_every_reason() {
        let rows = Reason::ALL.iter().map(|reason| {
            let log = match reason.severity() {
                Severity::Info => "info",
                Severity::Warning => "warning",
            };
            format!("| `{}` | {} | {log} |\n", reason.label(), reason.explain())
        });
        let page = String::from(HEAD) + &rows.collect::<String>();
        assert_eq!(page, include_str!("../../../../docs/reasons.md"), "docs/reasons.md should be:\n{page}");
    }
}
