//! Every timeout by its names, and the two profiles' values. The one table that configuration, command line,
//! listing and metrics read.

use crate::tick::Ticks;

macro_rules! timeouts {
    ($($variant:ident $name:literal $kernel:literal $old:literal $classic:literal $linux:literal $doc:literal;)*) => {
        /// One tunable timeout.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum TimeoutKey { $(#[doc = $doc] $variant,)* }

        impl TimeoutKey {
            /// Every timeout, in order.
            pub const ALL: &'static [TimeoutKey] = &[$(TimeoutKey::$variant,)*];
            /// The name in our own configuration, such as `tcp.established`.
            pub const fn name(self) -> &'static str { match self { $(TimeoutKey::$variant => $name,)* } }
            /// The name below `net.netfilter.`, in seconds; empty where the kernel has none.
            pub const fn kernel_name(self) -> &'static str { match self { $(TimeoutKey::$variant => $kernel,)* } }
            /// The name in 2.4 and 2.6 kernels (`net.ipv4.netfilter.`), in hundredths of a second; empty where
            /// they had none.
            pub const fn old_name(self) -> &'static str { match self { $(TimeoutKey::$variant => $old,)* } }
            /// One sentence for people.
            pub const fn explain(self) -> &'static str { match self { $(TimeoutKey::$variant => $doc,)* } }
            const fn default_secs(self, classic: bool) -> u32 {
                match self { $(TimeoutKey::$variant => if classic { $classic } else { $linux },)* }
            }
        }
    };
}

timeouts! {
    TcpNone "tcp.none" "" "ip_ct_tcp_timeout_none" 1800 1800 "A flow that a flagless segment opened (pick-up `any`).";
    TcpSynSent "tcp.syn_sent" "nf_conntrack_tcp_timeout_syn_sent" "ip_ct_tcp_timeout_syn_sent" 120 120 "A SYN was seen, no answer yet.";
    TcpSynRecv "tcp.syn_recv" "nf_conntrack_tcp_timeout_syn_recv" "ip_ct_tcp_timeout_syn_recv" 60 60 "The SYN was answered by SYN/ACK.";
    TcpEstablished "tcp.established" "nf_conntrack_tcp_timeout_established" "ip_ct_tcp_timeout_established" 432000 432000 "The handshake is complete.";
    TcpFinWait "tcp.fin_wait" "nf_conntrack_tcp_timeout_fin_wait" "ip_ct_tcp_timeout_fin_wait" 120 120 "The first FIN was seen.";
    TcpCloseWait "tcp.close_wait" "nf_conntrack_tcp_timeout_close_wait" "ip_ct_tcp_timeout_close_wait" 43200 60 "The first FIN was acknowledged.";
    TcpLastAck "tcp.last_ack" "nf_conntrack_tcp_timeout_last_ack" "ip_ct_tcp_timeout_last_ack" 30 30 "The second FIN was seen.";
    TcpTimeWait "tcp.time_wait" "nf_conntrack_tcp_timeout_time_wait" "ip_ct_tcp_timeout_time_wait" 120 120 "Both FINs were acknowledged.";
    TcpClose "tcp.close" "nf_conntrack_tcp_timeout_close" "ip_ct_tcp_timeout_close" 10 10 "The connection was reset.";
    TcpListen "tcp.listen" "nf_conntrack_tcp_timeout_syn_sent2" "ip_ct_tcp_timeout_listen" 120 120 "Both sides sent a SYN (LISTEN; the kernel's SYN_SENT2).";
    TcpMaxRetrans "tcp.max_retrans" "nf_conntrack_tcp_timeout_max_retrans" "ip_ct_tcp_timeout_max_retrans" 300 300 "The same segment came too often, or a window was closed.";
    TcpUnacknowledged "tcp.unacknowledged" "nf_conntrack_tcp_timeout_unacknowledged" "" 300 300 "Data waits for its acknowledgment, or a picked-up flow for its first reply.";
    Udp "udp.unreplied" "nf_conntrack_udp_timeout" "ip_ct_udp_timeout" 30 30 "UDP without a reply, or too young to be a stream.";
    UdpStream "udp.stream" "nf_conntrack_udp_timeout_stream" "ip_ct_udp_timeout_stream" 180 120 "A UDP conversation.";
    Icmp "icmp" "nf_conntrack_icmp_timeout" "ip_ct_icmp_timeout" 30 30 "ICMP queries.";
    Icmpv6 "icmpv6" "nf_conntrack_icmpv6_timeout" "" 30 30 "ICMPv6 queries.";
    Gre "gre.unreplied" "nf_conntrack_gre_timeout" "" 30 30 "GRE without a reply.";
    GreStream "gre.stream" "nf_conntrack_gre_timeout_stream" "" 180 180 "GRE in both directions.";
    SctpClosed "sctp.closed" "nf_conntrack_sctp_timeout_closed" "" 10 10 "SCTP CLOSED.";
    SctpCookieWait "sctp.cookie_wait" "nf_conntrack_sctp_timeout_cookie_wait" "" 3 3 "SCTP COOKIE_WAIT.";
    SctpCookieEchoed "sctp.cookie_echoed" "nf_conntrack_sctp_timeout_cookie_echoed" "" 3 3 "SCTP COOKIE_ECHOED.";
    SctpEstablished "sctp.established" "nf_conntrack_sctp_timeout_established" "" 210 210 "SCTP ESTABLISHED.";
    SctpShutdownSent "sctp.shutdown_sent" "nf_conntrack_sctp_timeout_shutdown_sent" "" 3 3 "SCTP SHUTDOWN_SENT.";
    SctpShutdownRecd "sctp.shutdown_recd" "nf_conntrack_sctp_timeout_shutdown_recd" "" 3 3 "SCTP SHUTDOWN_RECD.";
    SctpShutdownAckSent "sctp.shutdown_ack_sent" "nf_conntrack_sctp_timeout_shutdown_ack_sent" "" 3 3 "SCTP SHUTDOWN_ACK_SENT.";
    SctpHeartbeatSent "sctp.heartbeat_sent" "nf_conntrack_sctp_timeout_heartbeat_sent" "" 30 30 "SCTP HEARTBEAT_SENT.";
    Generic "generic" "nf_conntrack_generic_timeout" "ip_ct_generic_timeout" 600 600 "Any other protocol.";
}

/// The value of every timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts([Ticks; TimeoutKey::ALL.len()]);

impl Timeouts {
    /// The well-known table of the `classic` profile.
    pub const CLASSIC: Self = Self::defaults(true);
    /// Today's kernel defaults.
    pub const LINUX: Self = Self::defaults(false);

    const fn defaults(classic: bool) -> Self {
        let mut all = [Ticks(0); TimeoutKey::ALL.len()];
        let mut i = 0;
        while i < all.len() {
            all[i] = Ticks::from_secs(TimeoutKey::ALL[i].default_secs(classic));
            i += 1;
        }
        Self(all)
    }

    /// The timeout's present value.
    #[inline(always)]
    pub const fn get(&self, key: TimeoutKey) -> Ticks {
        self.0[key as usize]
    }

    /// Changes one value; the caller has checked it against [`Ticks::MAX`].
    pub const fn set(&mut self, key: TimeoutKey, value: Ticks) {
        self.0[key as usize] = value;
    }
}
