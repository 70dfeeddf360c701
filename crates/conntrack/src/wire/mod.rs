//! Room 1: bytes → views. Total: every input gives a packet, a fragment, something not tracked, or a named
//! malformation. Owns the layout of headers and their checks; never sees a flow.
//!
//! What passes here has every length and checksum right that can be judged without a flow. Which TCP flags may
//! occur together is left to [`Segment::legal_flags`], because one profile lets flagless segments open flows.

pub mod checksum;
mod ethernet;
pub mod glance;
mod gre;
pub mod icmp;
mod ipv4;
mod ipv6;
pub mod noted;
pub mod plain;
mod sctp;
mod tcp;
#[cfg(test)]
mod tests;
pub mod tunnel;
mod udp;

use crate::fault::{Fault, planted};
use crate::track::reason::Reason;

/// Where the frame's first byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header, with up to two VLAN tags.
    Ethernet,
    /// An IPv4 or IPv6 header, as the version nibble says.
    Ip,
    /// Another worker's note of a datagram: see [`noted`]. Never what a device delivered.
    Note,
}

/// What the NIC said of a frame's checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Checksum {
    /// Nothing: verify in software, if verification is on.
    #[default]
    Unknown,
    /// The transport checksum was verified, or the frame comes from a local stack that has not filled it in yet.
    Good,
    /// The transport checksum is known to be wrong.
    Bad,
    /// The IPv4 header's checksum was verified too.
    AllGood,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The transport part. Every check that needs no flow (lengths, checksums) has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4<'a> {
    Tcp(Segment<'a>),
    Udp {
        sport: u16,
        dport: u16,
    },
    UdpLite {
        sport: u16,
        dport: u16,
    },
    /// An ICMP or ICMPv6 query or answer of a type that has a pair.
    IcmpQuery {
        icmp_type: u8,
        code: u8,
        id: u16,
    },
    /// An ICMP or ICMPv6 error; `inner` is the quoted packet's start.
    IcmpError {
        inner: Quoted,
    },
    Sctp(Sctp<'a>),
    /// Version 1 has a call id; of every other version, and of a header cut short, both are 0: one flow per
    /// pair of addresses.
    Gre {
        version: u8,
        call_id: u16,
    },
    Generic,
}

/// A TCP segment's header, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Segment<'a> {
    pub seq: u32,
    pub ack: u32,
    /// Bytes behind the TCP header.
    pub payload_bytes: u32,
    /// As on the wire, unscaled.
    pub window: u16,
    /// See [`tcp_flags`].
    pub flags: u8,
    pub sport: u16,
    pub dport: u16,
    pub options: &'a [u8],
}

/// An SCTP packet: the common header and everything behind it (chunks not yet checked).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sctp<'a> {
    pub sport: u16,
    pub dport: u16,
    pub vtag: u32,
    pub chunks: &'a [u8],
}

/// What an ICMP error quotes, as far as a flow key needs it. The ids are what the key room wants: ports, or
/// the ICMP type/code/id, or the GRE call id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    pub family: Family,
    pub src: Addr,
    pub dst: Addr,
    pub proto: u8,
    pub ids: QuotedIds,
}

/// The transport identifiers inside a [`Quoted`] packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// TTL in IPv4.
    pub hop_limit: u8,
    /// Bytes before this piece in the datagram's fragmentable part.
    pub offset: u32,
    pub more: bool,
    /// This piece, without any IP or fragment header.
    pub payload: &'a [u8],
    /// Bytes of the IP header and, in IPv6, the extension headers before the fragment header: what accounting
    /// counts besides the payload. At least 20 or 40.
    pub header_bytes: u32,
}

/// A datagram put together from its fragments. Address, hop limit and header length are those of its first piece.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    pub family: Family,
    pub src: Addr,
    pub dst: Addr,
    /// IPv6: the header that follows the fragment header, which may be another extension header.
    pub proto: u8,
    pub hop_limit: u8,
    /// What accounting counts: headers without the fragment header, plus payload.
    pub ip_bytes: u32,
    /// All of it, or its start where there is a `rest`.
    pub payload: &'a [u8],
    pub rest: Option<noted::Rest>,
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
    /// An ethertype that has no word of its own here.
    NotIp,
    Arp,
    /// Labels; what is behind them is not looked at.
    Mpls,
    /// PPP over Ethernet, discovery and session.
    Pppoe,
    Lldp,
    /// A length in the ethertype's place: spanning tree and other LLC.
    Llc,
    /// A third VLAN tag.
    MoreTags,
    /// ICMPv6 neighbour discovery and multicast listener messages.
    NeighbourDiscovery,
    /// An ICMP error about a tunnel's own packet, where only what tunnels carry is tracked.
    TunnelError,
    /// It has tags or a tunnel without a zone, and gets none: see [`crate::zone`]. It is dropped.
    NoZone,
}

impl Untracked {
    /// Every kind that passes, in order.
    pub const ALL: [Self; 9] = [
        Self::NotIp,
        Self::Arp,
        Self::Mpls,
        Self::Pppoe,
        Self::Lldp,
        Self::Llc,
        Self::MoreTags,
        Self::NeighbourDiscovery,
        Self::TunnelError,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotIp => "other",
            Self::Arp => "arp",
            Self::Mpls => "mpls",
            Self::Pppoe => "pppoe",
            Self::Lldp => "lldp",
            Self::Llc => "llc",
            Self::MoreTags => "more_tags",
            Self::NeighbourDiscovery => "neighbour_discovery",
            Self::TunnelError => "tunnel_error",
            Self::NoZone => "no_zone",
        }
    }
}

/// The VLANs that a frame is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tags {
    outer: u16,
    inner: u16,
}

impl Tags {
    /// No VLAN.
    pub const NONE: Self = Self { outer: 0, inner: 0 };

    /// From the tags' VLAN numbers, outer first. A 0 names no VLAN (IEEE 802.1Q-2018 table 9-2) and counts as no tag, so
    /// that a priority which only one direction carries does not part a flow.
    pub const fn new(ids: [u16; 2]) -> Self {
        match ids {
            [0, only] => Self { outer: only, inner: 0 },
            [outer, inner] => Self { outer, inner },
        }
    }

    /// 0 where there is no tag.
    pub const fn outer(self) -> u16 {
        self.outer
    }

    /// 0 where there is only one tag.
    pub const fn inner(self) -> u16 {
        self.inner
    }
}

/// An IP packet behind VLAN tags, not read yet: its zone comes first.
#[derive(Clone, Copy, Debug)]
pub struct Tagged<'a> {
    pub tags: Tags,
    ip: ethernet::Ip,
    body: &'a [u8],
}

impl<'a> Tagged<'a> {
    /// The frame from so far on that its ethertype stands where it would without tags; nothing before that is right.
    /// `frame` is the one that this was read from.
    pub fn shifted<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        let tags = frame.len().saturating_sub(self.body.len() + UNTAGGED_BYTES);
        frame.get(tags..).unwrap_or_default()
    }

    /// Reads the packet, as [`parse`] would.
    pub fn parse(&self, checksum: Checksum, verify: bool) -> Parsed<'a> {
        let sums = Sums::new(checksum, verify);
        match self.ip {
            ethernet::Ip::V4 => ipv4::parse(self.body, checksum == Checksum::AllGood, sums),
            ethernet::Ip::V6 => ipv6::parse(self.body, sums),
        }
    }
}

/// Addresses and ethertype.
const UNTAGGED_BYTES: usize = 14;

/// The VLAN tags before a frame's IP packet.
pub fn tags(bytes: &[u8], link: Link) -> Tags {
    match link {
        Link::Ethernet => match ethernet::payload(bytes) {
            Err(ethernet::Other::Tagged(tagged)) => tagged.tags,
            Ok(_) | Err(ethernet::Other::Answer(_)) => Tags::NONE,
        },
        Link::Ip | Link::Note => Tags::NONE,
    }
}

impl Addr {
    /// From the four bytes of an IPv4 address in wire order.
    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self((u32::from_le_bytes(bytes) as u128).to_le_bytes())
    }
}

/// Reads one frame. `checksum` is what the NIC said of it; `verify` off accepts every transport checksum, as
/// `nf_conntrack_checksum` = 0 does. The IPv4 header's checksum is verified here unless the NIC has done it.
#[inline]
pub fn parse(bytes: &[u8], link: Link, checksum: Checksum, verify: bool) -> Parsed<'_> {
    match parse_untagged(bytes, link, checksum, verify) {
        Ok(parsed) => parsed,
        Err(tagged) => tagged.parse(checksum, verify),
    }
}

/// As [`parse`], but gives a packet behind VLAN tags back, for its zone to be found first.
#[inline]
pub fn parse_untagged(
    bytes: &[u8],
    link: Link,
    checksum: Checksum,
    verify: bool,
) -> Result<Parsed<'_>, Tagged<'_>> {
    let sums = Sums::new(checksum, verify);
    let header_good = checksum == Checksum::AllGood;
    Ok(match link {
        Link::Ethernet => match ethernet::payload(bytes) {
            Ok((ethernet::Ip::V4, ip)) => ipv4::parse(ip, header_good, sums),
            Ok((ethernet::Ip::V6, ip)) => ipv6::parse(ip, sums),
            Err(ethernet::Other::Tagged(tagged)) => return Err(tagged),
            Err(ethernet::Other::Answer(answer)) => answer,
        },
        Link::Ip => match bytes.first().map(|first| first >> 4) {
            Some(4) => ipv4::parse(bytes, header_good, sums),
            Some(6) => ipv6::parse(bytes, sums),
            Some(_) => Parsed::Malformed(Reason::IpHeader),
            None => Parsed::Malformed(Reason::IpTruncated),
        },
        Link::Note => noted::read(bytes, Sums::new(Checksum::Unknown, verify)),
    })
}

/// Reads a datagram that was put together from fragments; never gives [`Parsed::Fragment`] or
/// [`Parsed::Malformed`]. No NIC has seen its transport checksum whole, so `verify` alone decides.
pub fn parse_datagram<'a>(datagram: &Datagram<'a>, verify: bool) -> Parsed<'a> {
    let ip = Ip {
        family: datagram.family,
        src: datagram.src,
        dst: datagram.dst,
        hop_limit: datagram.hop_limit,
        ip_bytes: datagram.ip_bytes,
    };
    let sums = Sums::new(Checksum::Unknown, verify);
    if let Some(rest) = datagram.rest {
        return noted::parse(ip, datagram.proto, datagram.payload, rest, sums);
    }
    match datagram.family {
        Family::V4 => transport(ip, datagram.proto, datagram.payload, sums),
        Family::V6 => match ipv6::skip_extensions(datagram.proto, datagram.payload) {
            Ok((proto, payload)) => transport(ip, proto, payload, sums),
            Err(reason) => Parsed::Invalid(reason),
        },
    }
}

/// Reads a fragment that is not held, as it stands: only a first one can show its transport header. Never gives
/// [`Parsed::Fragment`] or [`Parsed::Malformed`].
pub fn parse_unheld<'a>(fragment: &Fragment<'a>, checksum: Checksum, verify: bool) -> Parsed<'a> {
    if fragment.offset != 0 {
        return Parsed::Invalid(Reason::FragmentMalformed);
    }
    let Fragment { family, src, dst, hop_limit, proto, payload, header_bytes, .. } = *fragment;
    // The fragment header stays in the packet, and counts.
    let ip_bytes = header_bytes + FRAGMENT_HEADER_BYTES + payload.len() as u32;
    let verify = Sums::new(checksum, verify) != Sums::Accept;
    parse_datagram(&Datagram { family, src, dst, proto, hop_limit, ip_bytes, payload, rest: None }, verify)
}

/// The IPv6 fragment header. RFC 8200 section 4.5
const FRAGMENT_HEADER_BYTES: u32 = 8;

/// What to do about a transport checksum.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sums {
    Verify,
    Accept,
    Refuse,
}

impl Sums {
    #[inline(always)]
    fn new(checksum: Checksum, verify: bool) -> Self {
        match (verify || planted(Fault::SumSwitch), checksum) {
            (true, Checksum::Good | Checksum::AllGood) if planted(Fault::SumNicGood) => Self::Verify,
            (true, Checksum::Bad) if planted(Fault::SumNicBad) => Self::Accept,
            (false, _) | (true, Checksum::Good | Checksum::AllGood) => Self::Accept,
            (true, Checksum::Unknown) => Self::Verify,
            (true, Checksum::Bad) => Self::Refuse,
        }
    }

    /// Never mind the checksum where this fault is planted.
    #[inline(always)]
    fn unless(self, fault: Fault) -> Self {
        if planted(fault) { Self::Accept } else { self }
    }

    /// Whether the checksum passes; `right` computes it, only if that is needed.
    #[inline(always)]
    fn pass(self, right: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Accept => true,
            Self::Verify => right(),
            Self::Refuse => false,
        }
    }
}

/// The IP header's part of a [`Packet`].
#[derive(Clone, Copy)]
struct Ip {
    family: Family,
    src: Addr,
    dst: Addr,
    hop_limit: u8,
    ip_bytes: u32,
}

impl Ip {
    #[inline(always)]
    fn packet<'a>(self, proto: u8, l4: L4<'a>) -> Parsed<'a> {
        let Self { family, src, dst, hop_limit: _, ip_bytes } = self;
        Parsed::Packet(Packet { family, src, dst, proto, ip_bytes, l4 })
    }

    /// The sum of the pseudo header of `proto` over `bytes` of transport data.
    #[inline(always)]
    fn pseudo(&self, proto: u8, bytes: usize) -> checksum::Sum {
        checksum::pseudo(&self.src, &self.dst, proto, bytes)
    }
}

/// Reads the transport header of `proto` at the start of `payload`, the whole rest of the datagram.
#[inline]
fn transport<'a>(ip: Ip, proto: u8, payload: &'a [u8], sums: Sums) -> Parsed<'a> {
    match (proto, ip.family) {
        (proto::TCP, _) => tcp::parse(ip, payload, sums),
        (proto::UDP, _) => udp::parse(ip, payload, sums),
        (proto::UDPLITE, _) => udp::parse_lite(ip, payload, sums),
        (proto::ICMP, Family::V4) => icmp::parse_v4(ip, payload, sums),
        (proto::ICMPV6, Family::V6) => icmp::parse_v6(ip, payload, sums),
        (proto::ICMP, Family::V6) | (proto::ICMPV6, Family::V4) => Parsed::Invalid(Reason::ProtocolFamily),
        (proto::SCTP, _) => sctp::parse(ip, payload, sums),
        (proto::GRE, _) => gre::parse(ip, payload),
        _ => ip.packet(proto, L4::Generic),
    }
}

/// Two bytes in network order.
#[inline(always)]
fn be16(bytes: [u8; 2]) -> u16 {
    u16::from_be_bytes(bytes)
}

/// The two ports at the start of a TCP, UDP, UDP-Lite or SCTP header.
#[inline(always)]
fn ports(head: &[u8; 4]) -> (u16, u16) {
    let [a, b, c, d] = *head;
    (be16([a, b]), be16([c, d]))
}
