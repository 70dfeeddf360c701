//! ICMP (RFC 792) and ICMPv6 (RFC 4443). Owns which types are queries, errors, or not tracked at all, and what an
//! error quotes; sees no flow.

use super::checksum::Sum;
use super::{
    Family, Ip, L4, Parsed, Quoted, QuotedIds, Sums, Untracked, be16, gre, ipv4, ipv6, ports, proto,
};
use crate::fault::{Fault, planted};
use crate::track::reason::Reason;

/// The request's type, for a query or its answer; `None` for types without a pair.
/// v4: echo, timestamp, information, address mask. v6: echo, node information.
#[inline]
pub const fn request_type(family: Family, icmp_type: u8) -> Option<u8> {
    match (family, icmp_type) {
        (Family::V4, 8 | 0) => Some(8),
        (Family::V4, 13 | 14) => Some(13),
        (Family::V4, 15 | 16) => Some(15),
        (Family::V4, 17 | 18) => Some(17),
        (Family::V6, 128 | 129) => Some(128),
        (Family::V6, 139 | 140) => Some(139),
        (Family::V4 | Family::V6, _) => None,
    }
}

/// The answer's type for a request's type. Types that are no request give themselves.
#[inline]
pub const fn answer_type(family: Family, request: u8) -> u8 {
    match (family, request) {
        (Family::V4, 8) => 0,
        (Family::V4, 13 | 15 | 17) | (Family::V6, 128 | 139) => request + 1,
        (Family::V4 | Family::V6, other) => other,
    }
}

pub(super) fn parse_v4<'a>(ip: Ip, payload: &'a [u8], sums: Sums) -> Parsed<'a> {
    let Some((&[icmp_type, code, _, _, id0, id1, _, _], quote)) = payload.split_first_chunk::<8>() else {
        return Parsed::Invalid(Reason::L4Truncated);
    };
    let sums = sums.unless(Fault::SumIcmp);
    if !sums.pass(|| Sum::ZERO.add(payload).is_right()) {
        return Parsed::Invalid(Reason::L4Checksum);
    }
    match icmp_type {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        3 | 4 | 5 | 11 | 12 => error(ip, proto::ICMP, quote),
        _ if request_type(Family::V4, icmp_type).is_some() => {
            ip.packet(proto::ICMP, L4::IcmpQuery { icmp_type, code, id: be16([id0, id1]) })
        }
        _ => Parsed::Invalid(Reason::IcmpType),
    }
}

pub(super) fn parse_v6<'a>(ip: Ip, payload: &'a [u8], sums: Sums) -> Parsed<'a> {
    let Some((&[icmp_type, code, _, _, id0, id1, _, _], body)) = payload.split_first_chunk::<8>() else {
        return Parsed::Invalid(Reason::L4Truncated);
    };
    let sums = sums.unless(Fault::SumIcmpv6);
    if !sums.pass(|| ip.pseudo(proto::ICMPV6, payload.len()).add(payload).is_right()) {
        return Parsed::Invalid(Reason::L4Checksum);
    }
    match icmp_type {
        0..128 => error(ip, proto::ICMPV6, body),
        // Multicast listener discovery, router and neighbour discovery, MLDv2, and multicast router discovery.
        130..=136 | 143 | 151 | 152 if !planted(Fault::DiscoveryTracked) => {
            Parsed::Untracked(Untracked::NeighbourDiscovery)
        }
        137 => redirect(ip, code, body),
        _ if request_type(Family::V6, icmp_type).is_some() => {
            ip.packet(proto::ICMPV6, L4::IcmpQuery { icmp_type, code, id: be16([id0, id1]) })
        }
        _ => Parsed::Invalid(Reason::IcmpType),
    }
}

/// An error that quotes the start of a packet of its own family.
fn error<'a>(ip: Ip, icmp: u8, quote: &[u8]) -> Parsed<'a> {
    match quoted(ip.family, quote) {
        Some(inner) => ip.packet(icmp, L4::IcmpError { inner }),
        None => Parsed::Invalid(Reason::IcmpErrorQuote),
    }
}

/// A redirect counts as an error if it can only come from a router on this link, and quotes the packet in its
/// redirected-header option. RFC 4861 section 8.1
fn redirect<'a>(ip: Ip, code: u8, body: &[u8]) -> Parsed<'a> {
    const REDIRECTED_HEADER: u8 = 4;
    let link_local = ip.src.0[0] == 0xfe && ip.src.0[1] & 0xc0 == 0x80;
    let one_hop = ip.hop_limit == 255 || planted(Fault::RedirectHops);
    if !link_local || !one_hop || code != 0 {
        return Parsed::Invalid(Reason::Icmpv6Redirect);
    }
    // Behind target and destination address stands the option; the kernel looks at the first one only.
    let option = body.get(32..).unwrap_or_default();
    match option.first_chunk::<2>() {
        Some(&[REDIRECTED_HEADER, 1..=u8::MAX]) => {
            error(ip, proto::ICMPV6, option.get(8..).unwrap_or_default())
        }
        _ => Parsed::Invalid(Reason::Icmpv6Redirect),
    }
}

/// What a quoted packet's start says of its flow. Its checksums and lengths are not looked at: what was quoted is
/// usually cut.
pub(super) fn quoted(family: Family, bytes: &[u8]) -> Option<Quoted> {
    let (src, dst, proto, payload) = match family {
        Family::V4 => ipv4::quoted(bytes)?,
        Family::V6 => ipv6::quoted(bytes)?,
    };
    let ids = match (proto, family) {
        (proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP, _) => {
            let (sport, dport) = ports(payload.first_chunk()?);
            QuotedIds::Ports { sport, dport }
        }
        (proto::ICMP, Family::V4) | (proto::ICMPV6, Family::V6) => {
            let &[icmp_type, code, _, _, id0, id1, _, _] = payload.first_chunk::<8>()?;
            // An error about an error refers to no flow.
            request_type(family, icmp_type)?;
            QuotedIds::Icmp { icmp_type, code, id: be16([id0, id1]) }
        }
        (proto::ICMP, Family::V6) | (proto::ICMPV6, Family::V4) => return None,
        (proto::GRE, _) => {
            let (version, call_id) = gre::ids(payload)?;
            QuotedIds::Gre { version, call_id }
        }
        _ => QuotedIds::None,
    };
    Some(Quoted { family, src, dst, proto, ids })
}
