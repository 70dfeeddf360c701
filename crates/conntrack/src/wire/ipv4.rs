//! The IPv4 header (RFC 791). Owns its checks, the same that a host makes before anything else sees a packet;
//! options are not looked at, as tracking comes before them.

use super::checksum::Sum;
use super::{Addr, Family, Fragment, Ip, Parsed, Sums, be16, transport};
use crate::fault::{Fault, planted};
use crate::track::reason::Reason;

/// More fragments, and the fragment's place; the don't-fragment bit is left out.
const FRAGMENT_BITS: u16 = 0x3fff;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_BITS: u16 = 0x1fff;

#[inline]
pub(super) fn parse(bytes: &[u8], header_good: bool, sums: Sums) -> Parsed<'_> {
    let Some(&head) = bytes.first_chunk::<20>() else {
        return Parsed::Malformed(Reason::IpTruncated);
    };
    let [first, _, len0, len1, id0, id1, frag0, frag1, hop_limit, proto, _, _, addrs @ ..] = head;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addrs;
    let header_bytes = usize::from(first & 0x0f) * 4;
    let total = usize::from(be16([len0, len1]));
    // Version 4 and at least five words of header, in one comparison.
    if !(0x45..=0x4f).contains(&first) || total < header_bytes {
        return Parsed::Malformed(Reason::IpHeader);
    }
    // What follows the stated length is padding of the link.
    let Some((header, payload)) =
        bytes.get(..total).and_then(|datagram| datagram.split_at_checked(header_bytes))
    else {
        return Parsed::Malformed(Reason::IpTruncated);
    };
    if !header_good
        && !Sum::ZERO.add(&head).add(header.get(20..).unwrap_or_default()).is_right()
        && !planted(Fault::SumIpv4)
    {
        return Parsed::Malformed(Reason::IpChecksum);
    }
    let (src, dst) = (Addr::v4([s0, s1, s2, s3]), Addr::v4([d0, d1, d2, d3]));
    let place = be16([frag0, frag1]);
    if place & FRAGMENT_BITS != 0 {
        return Parsed::Fragment(Fragment {
            family: Family::V4,
            src,
            dst,
            id: u32::from(be16([id0, id1])),
            proto,
            hop_limit,
            offset: u32::from(place & OFFSET_BITS) * 8,
            more: place & MORE_FRAGMENTS != 0,
            payload,
            header_bytes: header_bytes as u32,
        });
    }
    let ip = Ip { family: Family::V4, src, dst, hop_limit, ip_bytes: total as u32 };
    transport(ip, proto, payload, sums)
}

/// What a quoted packet's header says, without the checks that only a packet on the wire must pass (version, lengths,
/// checksum): addresses, protocol and the quoted transport bytes. `None` if it ends too early, or belongs to a later
/// fragment.
pub(super) fn quoted(bytes: &[u8]) -> Option<(Addr, Addr, u8, &[u8])> {
    let &head = bytes.first_chunk::<20>()?;
    let [first, _, _, _, _, _, frag0, frag1, _, proto, _, _, addrs @ ..] = head;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addrs;
    if be16([frag0, frag1]) & OFFSET_BITS != 0 {
        return None;
    }
    let payload = bytes.get(usize::from(first & 0x0f) * 4..)?;
    Some((Addr::v4([s0, s1, s2, s3]), Addr::v4([d0, d1, d2, d3]), proto, payload))
}
