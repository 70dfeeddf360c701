//! UDP (RFC 768) and UDP-Lite (RFC 3828) headers.

use super::{Ip, L4, Parsed, Sums, be16, proto};
use crate::fault::{Fault, planted};
use crate::track::reason::Reason;

#[inline]
pub(super) fn parse<'a>(ip: Ip, payload: &'a [u8], sums: Sums) -> Parsed<'a> {
    let Some(&[sp0, sp1, dp0, dp1, len0, len1, sum0, sum1]) = payload.first_chunk::<8>() else {
        return Parsed::Invalid(Reason::L4Truncated);
    };
    let stated = usize::from(be16([len0, len1]));
    if (stated < 8 || stated > payload.len()) && !planted(Fault::UdpLength) {
        return Parsed::Invalid(Reason::L4Length);
    }
    // The kernel sums the whole IP payload even where the UDP length says less, and takes a zero checksum for "none"
    // in IPv6 too.
    let none = sum0 | sum1 == 0 && !planted(Fault::SumUdpZero);
    let sums = sums.unless(Fault::SumUdp);
    if !(none || sums.pass(|| ip.pseudo(proto::UDP, payload.len()).add(payload).is_right())) {
        return Parsed::Invalid(Reason::L4Checksum);
    }
    ip.packet(proto::UDP, L4::Udp { sport: be16([sp0, sp1]), dport: be16([dp0, dp1]) })
}

pub(super) fn parse_lite<'a>(ip: Ip, payload: &'a [u8], sums: Sums) -> Parsed<'a> {
    let Some(&[sp0, sp1, dp0, dp1, cov0, cov1, sum0, sum1]) = payload.first_chunk::<8>() else {
        return Parsed::Invalid(Reason::L4Truncated);
    };
    let covered = match be16([cov0, cov1]) {
        0 => Some(payload),
        1..8 => None,
        _ if planted(Fault::SumUdpLiteCover) => Some(payload),
        bytes => payload.get(..usize::from(bytes)),
    };
    let Some(covered) = covered else {
        return Parsed::Invalid(Reason::L4Length);
    };
    // A checksum is mandatory. The kernel computes the pseudo header with UDP's protocol number, so that a datagram
    // summed as RFC 3828 says is INVALID there, and so here.
    let missing = sum0 | sum1 == 0;
    let sums = sums.unless(Fault::SumUdpLite);
    if missing || !sums.pass(|| ip.pseudo(proto::UDP, payload.len()).add(covered).is_right()) {
        return Parsed::Invalid(Reason::L4Checksum);
    }
    ip.packet(proto::UDPLITE, L4::UdpLite { sport: be16([sp0, sp1]), dport: be16([dp0, dp1]) })
}
