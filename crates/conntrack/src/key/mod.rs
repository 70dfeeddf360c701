//! Room 2: view → FlowKey + side, the key's hash, and who owns the flow. One key serves both directions.

pub mod hash;
pub mod owner;

use core::hint::select_unpredictable;

use crate::fault::{Fault, planted};
use crate::wire::icmp::request_type;
use crate::wire::plain::Plain;
use crate::wire::{Addr, Family, L4, Packet, Quoted, QuotedIds, Segment, proto};

/// The direction-free key of a flow: its two endpoints in sorted order (some total order; it means nothing else).
/// 40 bytes without padding, so that it can be made, hashed and compared as words.
///
/// An endpoint's id is its port. ICMP queries: the asking side's id is the ICMP id, the answering side's is
/// the request's type and code; GRE version 1: the call id at the destination, 0 at the source; others: 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FlowKey {
    pub lo: Addr,
    pub hi: Addr,
    pub lo_id: u16,
    pub hi_id: u16,
    pub zone: u16,
    pub proto: u8,
    /// See [`kind`].
    pub kind: u8,
}

/// Bits of [`FlowKey::kind`].
pub mod kind {
    /// The addresses are IPv6.
    pub const V6: u8 = 1;
    /// ICMP queries: the asking side is `hi`. Keeps A's requests to B apart from B's requests to A.
    pub const ASKER_HI: u8 = 2;
    /// Set in every key of a live entry, so that an all-zero key never matches.
    pub const LIVE: u8 = 0x80;
}

/// Which endpoint of the key a packet came from. `Lo` when both endpoints are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Lo,
    Hi,
}

impl Side {
    /// The other endpoint.
    pub const fn other(self) -> Self {
        match self {
            Self::Lo => Self::Hi,
            Self::Hi => Self::Lo,
        }
    }
}

/// Relative to the first packet seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Original,
    Reply,
}

impl Direction {
    /// 0 for the original direction, 1 for the reply: the index of per-direction arrays.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The opposite direction.
    pub const fn other(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

impl FlowKey {
    /// Both endpoints are the same, as with a packet sent to oneself: its tuple equals its reply's tuple. An ICMP
    /// query's never does, because the answer has another type.
    #[inline]
    pub fn is_mirror(&self) -> bool {
        self.lo == self.hi && self.lo_id == self.hi_id && !matches!(self.proto, proto::ICMP | proto::ICMPV6)
    }
}

/// A packet's key, and which endpoint it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed {
    pub key: FlowKey,
    pub side: Side,
}

/// The key of the flow to which `packet` belongs; `None` for an ICMP error, which belongs to the flow of what it
/// quotes: see [`key_of_quoted`].
#[inline]
pub fn key_of(packet: &Packet<'_>, zone: u16) -> Option<Keyed> {
    let Packet { family, ref src, ref dst, proto, .. } = *packet;
    Some(match packet.l4 {
        L4::Tcp(ref segment) => sorted(family, proto, zone, (src, segment.sport), (dst, segment.dport)),
        L4::Udp { sport, dport } | L4::UdpLite { sport, dport } => {
            sorted(family, proto, zone, (src, sport), (dst, dport))
        }
        L4::Sctp(ref sctp) => sorted(family, proto, zone, (src, sctp.sport), (dst, sctp.dport)),
        L4::Gre { .. } if planted(Fault::KeyCallId) => sorted(family, proto, zone, (src, 0), (dst, 0)),
        L4::Gre { call_id, .. } => sorted(family, proto, zone, (src, 0), (dst, call_id)),
        L4::Generic => sorted(family, proto, zone, (src, 0), (dst, 0)),
        L4::IcmpQuery { icmp_type, code, id } => {
            query(family, zone, src, dst, request_type(family, icmp_type)?, icmp_type, code, id)
        }
        L4::IcmpError { .. } => return None,
    })
}

/// The key of the flow to which the packet quoted by an ICMP error belongs, and the endpoint that sent it. The
/// error itself travels the other way.
pub fn key_of_quoted(quoted: &Quoted, zone: u16) -> Option<Keyed> {
    let Quoted { family, ref src, ref dst, proto, ids } = *quoted;
    Some(match ids {
        QuotedIds::Ports { sport, dport } => sorted(family, proto, zone, (src, sport), (dst, dport)),
        QuotedIds::Gre { call_id, .. } => sorted(family, proto, zone, (src, 0), (dst, call_id)),
        QuotedIds::None => sorted(family, proto, zone, (src, 0), (dst, 0)),
        QuotedIds::Icmp { icmp_type, code, id } => {
            query(family, zone, src, dst, request_type(family, icmp_type)?, icmp_type, code, id)
        }
    })
}

/// Both endpoints in order.
#[inline(always)]
fn sorted(family: Family, proto: u8, zone: u16, src: (&Addr, u16), dst: (&Addr, u16)) -> Keyed {
    let (a, b) = (u128::from_ne_bytes(src.0.0), u128::from_ne_bytes(dst.0.0));
    let (words, side) = sorted_words(family, proto, zone, (a, src.1), (b, dst.1));
    Keyed { key: *words.key(), side }
}

/// Both endpoints in order, without a branch: addresses of a flow are as good as random to a branch predictor.
#[inline(always)]
fn sorted_words(family: Family, proto: u8, zone: u16, src: (u128, u16), dst: (u128, u16)) -> (Words, Side) {
    let (lo, hi, lo_id, hi_id, swap);
    match family {
        // Of an IPv4 address only four bytes are not zero, so an endpoint is one number.
        Family::V4 => {
            let (a, b) = ((src.0 as u64) << 16 | u64::from(src.1), (dst.0 as u64) << 16 | u64::from(dst.1));
            swap = a > b;
            let (first, last) = (a.min(b), a.max(b));
            (lo, hi) = (u128::from(first >> 16), u128::from(last >> 16));
            (lo_id, hi_id) = (first as u16, last as u16);
        }
        Family::V6 => {
            swap = (src.0 > dst.0) | ((src.0 == dst.0) & (src.1 > dst.1));
            let pick = |a: u128, b: u128| select_unpredictable(swap, b, a);
            (lo, hi) = (pick(src.0, dst.0), pick(dst.0, src.0));
            lo_id = select_unpredictable(swap, dst.1, src.1);
            hi_id = select_unpredictable(swap, src.1, dst.1);
        }
    }
    let tail = u64::from(lo_id)
        | u64::from(hi_id) << 16
        | u64::from(zone) << 32
        | u64::from(proto) << 48
        | u64::from(family_bit(family) | kind::LIVE) << 56;
    let high = |word: u128| (word >> 64) as u64;
    (Words([lo as u64, high(lo), hi as u64, high(hi), tail]), Side::hi_if(swap))
}

/// As [`key_of`].
#[inline(always)]
pub fn key_of_plain(plain: &Plain<'_>, zone: u16) -> (Words, Side) {
    let proto = if plain.tcp { proto::TCP } else { proto::UDP };
    let Segment { sport, dport, .. } = plain.segment;
    sorted_words(plain.family, proto, zone, (plain.src, sport), (plain.dst, dport))
}

/// An ICMP query or its answer. Only the addresses are sorted; where they are equal, the asker is `lo`.
#[expect(
    clippy::too_many_arguments,
    reason = "one caller's fields, spread to serve packets and quotes alike"
)]
#[inline]
fn query(
    family: Family,
    zone: u16,
    src: &Addr,
    dst: &Addr,
    request: u8,
    icmp_type: u8,
    code: u8,
    id: u16,
) -> Keyed {
    let asks = icmp_type == request;
    let (asker, answerer) = if asks { (src, dst) } else { (dst, src) };
    let what = u16::from_be_bytes([request, if planted(Fault::KeyIcmpCode) { 0 } else { code }]);
    let asker_hi = u128::from_ne_bytes(asker.0) > u128::from_ne_bytes(answerer.0);
    let (lo, hi, lo_id, hi_id) =
        if asker_hi { (answerer, asker, what, id) } else { (asker, answerer, id, what) };
    let proto = match family {
        Family::V4 => proto::ICMP,
        Family::V6 => proto::ICMPV6,
    };
    let asker_bit = if asker_hi && !planted(Fault::KeyAsker) { kind::ASKER_HI } else { 0 };
    let kind = family_bit(family) | kind::LIVE | asker_bit;
    Keyed {
        key: FlowKey { lo: *lo, hi: *hi, lo_id, hi_id, zone, proto, kind },
        side: Side::hi_if(asks == asker_hi),
    }
}

#[inline(always)]
fn family_bit(family: Family) -> u8 {
    match family {
        Family::V4 => 0,
        Family::V6 => kind::V6,
    }
}

impl Side {
    #[inline(always)]
    fn hi_if(hi: bool) -> Self {
        if hi { Self::Hi } else { Self::Lo }
    }
}

impl FlowKey {
    /// All zero: no live flow's key.
    pub const EMPTY: Self =
        Self { lo: Addr([0; 16]), hi: Addr([0; 16]), lo_id: 0, hi_id: 0, zone: 0, proto: 0, kind: 0 };

    /// All of it, as five words in the machine's order.
    #[inline(always)]
    pub(crate) fn words(&self) -> &[u64; 5] {
        words::of(self)
    }

    /// The family of both addresses.
    pub const fn family(&self) -> Family {
        if self.kind & kind::V6 == 0 { Family::V4 } else { Family::V6 }
    }

    /// The address of one endpoint.
    #[inline]
    pub const fn addr(&self, side: Side) -> &Addr {
        match side {
            Side::Lo => &self.lo,
            Side::Hi => &self.hi,
        }
    }

    /// The id of one endpoint.
    #[inline]
    pub const fn id(&self, side: Side) -> u16 {
        match side {
            Side::Lo => self.lo_id,
            Side::Hi => self.hi_id,
        }
    }

    /// ICMP queries: the endpoint that asks. Means nothing for other protocols.
    pub const fn asker(&self) -> Side {
        if self.kind & kind::ASKER_HI == 0 { Side::Lo } else { Side::Hi }
    }
}

#[cfg(target_endian = "big")]
compile_error!("a flow's key is made of words as little-endian machines lay them out");

/// A key as it is made: in registers. Copied as a key it would go through memory, where its words are read back as
/// wider ones before they have left the store buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Words(pub(crate) [u64; 5]);

/// A key is five words and nothing else.
#[allow(unsafe_code)]
mod words {
    use super::{FlowKey, Words};

    // 16 + 16 + 2 + 2 + 2 + 1 + 1: no padding.
    const _: () = assert!(size_of::<FlowKey>() == 40 && align_of::<FlowKey>() == 8);

    impl Words {
        /// The same, as a key.
        #[inline(always)]
        pub fn key(&self) -> &FlowKey {
            // SAFETY: a FlowKey is made of integers only and has no padding, so any five aligned words are one.
            unsafe { &*core::ptr::from_ref(self).cast() }
        }
    }

    #[inline(always)]
    pub(super) fn of(key: &FlowKey) -> &[u64; 5] {
        // SAFETY: a FlowKey is 40 bytes of integers without padding, aligned to 8.
        unsafe { &*core::ptr::from_ref(key).cast() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Addr = Addr::v4([10, 0, 0, 1]);
    const B: Addr = Addr::v4([9, 255, 0, 2]);

    fn packet(src: Addr, dst: Addr, proto: u8, l4: L4<'static>) -> Packet<'static> {
        Packet { family: Family::V4, src, dst, proto, ip_bytes: 40, l4 }
    }

    fn udp(src: Addr, sport: u16, dst: Addr, dport: u16) -> Keyed {
        key_of(&packet(src, dst, proto::UDP, L4::Udp { sport, dport }), 0).unwrap()
    }

    fn echo(src: Addr, dst: Addr, icmp_type: u8, id: u16) -> Keyed {
        key_of(&packet(src, dst, proto::ICMP, L4::IcmpQuery { icmp_type, code: 0, id }), 0).unwrap()
    }

    fn gre(src: Addr, dst: Addr, call_id: u16) -> Keyed {
        key_of(&packet(src, dst, proto::GRE, L4::Gre { version: 1, call_id }), 0).unwrap()
    }

    #[test]
    fn one_host_talking_to_itself_is_told_apart_by_ports() {
        let (there, back) = (udp(A, 1, A, 2), udp(A, 2, A, 1));
        assert_eq!(there.key, back.key);
        assert_eq!(there.side.other(), back.side);
        assert!(!there.key.is_mirror());
        let mirror = udp(A, 7, A, 7);
        assert!(mirror.key.is_mirror());
        assert_eq!(mirror.side, Side::Lo);
    }

    #[test]
    fn an_echo_and_its_answer_share_a_key_that_the_opposite_echo_does_not() {
        for (asker, answerer) in [(A, B), (B, A), (A, A)] {
            let (request, answer) = (echo(asker, answerer, 8, 7), echo(answerer, asker, 0, 7));
            assert_eq!(request.key, answer.key);
            assert_eq!(request.side, request.key.asker());
            assert_eq!(request.side.other(), answer.side);
            assert_eq!(request.key.id(request.key.asker()), 7);
        }
        assert_ne!(echo(A, B, 8, 7).key, echo(B, A, 8, 7).key);
        assert_ne!(echo(A, B, 8, 7).key, echo(A, B, 13, 7).key);
        assert_ne!(echo(A, B, 8, 7).key, echo(A, B, 8, 8).key);
    }

    #[test]
    fn a_gre_call_is_one_way_unless_its_id_is_0() {
        assert_ne!(gre(A, B, 5).key, gre(B, A, 5).key);
        assert_ne!(gre(A, B, 5).key, gre(B, A, 0).key);
        assert_eq!(gre(A, B, 0).key, gre(B, A, 0).key);
        assert_eq!(gre(A, B, 5).key.id(gre(A, B, 5).side.other()), 5);
    }

    #[test]
    fn zone_protocol_and_family_are_part_of_the_key() {
        let base = packet(A, B, proto::UDP, L4::Udp { sport: 1, dport: 2 });
        let key = |packet: &Packet<'_>, zone| key_of(packet, zone).unwrap().key;
        assert_ne!(key(&base, 0), key(&base, 1));
        assert_ne!(key(&base, 0), key(&Packet { proto: proto::UDPLITE, ..base }, 0));
        assert_ne!(key(&base, 0), key(&Packet { family: Family::V6, ..base }, 0));
        assert_ne!(key(&base, 0).kind & kind::LIVE, 0);
    }

    proptest! {
        #[test]
        fn both_directions_share_a_key_and_a_quote_finds_it(
            a: [u8; 16], b: [u8; 16], sport: u16, dport: u16, zone: u16, v6: bool,
        ) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let addr = |bytes: [u8; 16]| match family {
                Family::V4 => Addr::v4([bytes[0], bytes[1], bytes[2], bytes[3]]),
                Family::V6 => Addr(bytes),
            };
            let (src, dst) = (addr(a), addr(b));
            let there = Packet { family, ..packet(src, dst, proto::UDP, L4::Udp { sport, dport }) };
            let back = Packet { family, ..packet(dst, src, proto::UDP, L4::Udp { sport: dport, dport: sport }) };
            let (there, back) = (key_of(&there, zone).unwrap(), key_of(&back, zone).unwrap());
            prop_assert_eq!(there.key, back.key);
            prop_assert_eq!(there.key.addr(there.side), &src);
            prop_assert_eq!(there.key.id(there.side), sport);
            prop_assert_eq!(there.key.addr(there.side.other()), &dst);
            prop_assert_eq!(there.key.id(there.side.other()), dport);
            prop_assert!(there.side != back.side || there.key.is_mirror());
            let quoted = Quoted { family, src, dst, proto: proto::UDP, ids: QuotedIds::Ports { sport, dport } };
            prop_assert_eq!(key_of_quoted(&quoted, zone), Some(there));
        }
    }
}
