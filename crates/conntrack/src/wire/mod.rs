//! Room 1: bytes → views. Total: every input gives a packet, a fragment, something not tracked, or a named
//! malformation. Owns the layout of headers and their checks; never sees a flow.

use crate::track::reason::Reason;

/// Where the frame's first byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header, with up to two VLAN tags.
    Ethernet,
    /// An IPv4 or IPv6 header, as the version nibble says.
    Ip,
}

/// What the NIC said of a frame's checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing: verify in software, if verification is on.
    #[default]
    Unknown,
    /// The transport checksum was verified, or the frame comes from a local stack that has not filled it in yet.
    Good,
    /// The transport checksum is known to be wrong.
    Bad,
}

/// An address in wire order: IPv6 whole; IPv4 in the first four bytes, the rest zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Addr(pub [u8; 16]);

/// The address family of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// IP protocol numbers that have a handler of their own (IANA "Assigned Internet Protocol Numbers").
pub mod proto {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const GRE: u8 = 47;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
    pub const UDPLITE: u8 = 136;
}

/// TCP flag bits as they lie in byte 13 of the header. RFC 9293 section 3.1
pub mod tcp_flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;
}

/// One whole IP packet whose headers were understood.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub family: Family,
    pub src: Addr,
    pub dst: Addr,
    /// The transport protocol, behind any IPv6 extension headers.
    pub proto: u8,
    /// Bytes from the start of the IP header to the end of the datagram: what accounting counts.
    pub ip_bytes: u32,
    pub l4: L4<'a>,
}

/// The transport part. Every check that needs no flow (lengths, flags, checksums) has passed.
#[derive(Clone, Copy, Debug)]
pub enum L4<'a> {
    Tcp(Segment<'a>),
    Udp { sport: u16, dport: u16 },
    UdpLite { sport: u16, dport: u16 },
    /// An ICMP or ICMPv6 query or answer of a type that has a pair.
    IcmpQuery { icmp_type: u8, code: u8, id: u16 },
    /// An ICMP or ICMPv6 error; `inner` is the quoted packet's start.
    IcmpError { inner: Quoted },
    Sctp(Sctp<'a>),
    Gre { version: u8, call_id: u16 },
    Generic,
}

/// A TCP segment's header, in host order.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
    pub ack: u32,
    /// As on the wire, unscaled.
    pub window: u16,
    /// See [`tcp_flags`].
    pub flags: u8,
    /// Bytes behind the TCP header.
    pub payload_bytes: u32,
    pub options: &'a [u8],
}

/// An SCTP packet: the common header and everything behind it (chunks not yet checked).
#[derive(Clone, Copy, Debug)]
pub struct Sctp<'a> {
    pub sport: u16,
    pub dport: u16,
    pub vtag: u32,
    pub chunks: &'a [u8],
}

/// What an ICMP error quotes, as far as a flow key needs it. The ids are what the key room wants: ports, or
/// the ICMP type/code/id, or the GRE call id.
#[derive(Clone, Copy, Debug)]
pub struct Quoted {
    pub src: Addr,
    pub dst: Addr,
    pub proto: u8,
    pub ids: QuotedIds,
}

/// The transport identifiers inside a [`Quoted`] packet.
#[derive(Clone, Copy, Debug)]
pub enum QuotedIds {
    Ports { sport: u16, dport: u16 },
    Icmp { icmp_type: u8, code: u8, id: u16 },
    Gre { version: u8, call_id: u16 },
    None,
}

/// One IP fragment, before reassembly.
#[derive(Clone, Copy, Debug)]
pub struct Fragment<'a> {
    pub family: Family,
    pub src: Addr,
    pub dst: Addr,
    /// The identification that ties a datagram's fragments together (16 bits in IPv4).
    pub id: u32,
    /// IPv4: the protocol, part of what ties fragments together. IPv6: the header that follows the fragment header.
    pub proto: u8,
    /// Bytes before this piece in the datagram's fragmentable part.
    pub offset: u32,
    pub more: bool,
    /// This piece, without any IP or fragment header.
    pub payload: &'a [u8],
    /// The headers before the piece (unfragmentable part), as they came.
    pub header: &'a [u8],
    /// Bytes of the whole IP packet.
    pub ip_bytes: u32,
}

/// What one frame turned out to be.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<'a> {
    Packet(Packet<'a>),
    Fragment(Fragment<'a>),
    /// Passes untracked: not IP, or a message that is never tracked (neighbour discovery).
    Untracked(Untracked),
    /// Understood as IP, but no flow can be found for it: INVALID with this reason.
    Invalid(Reason),
    /// Not even an IP header that a host would accept: it never reaches tracking.
    Malformed(Reason),
}

/// Why a frame is not tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untracked {
    /// ARP, LLDP, MPLS, ... any ethertype but IPv4 and IPv6.
    NotIp,
    /// ICMPv6 neighbour discovery and multicast listener messages.
    NeighbourDiscovery,
}
