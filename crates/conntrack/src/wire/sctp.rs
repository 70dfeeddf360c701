//! The SCTP common header (RFC 9260 section 3.1) and its CRC32c. Chunks are the tracker's to judge.

use super::checksum::crc32c;
use super::{Ip, L4, Parsed, Sctp, Sums, be16, proto};
use crate::fault::Fault;
use crate::track::reason::Reason;

pub(super) fn parse<'a>(ip: Ip, payload: &'a [u8], sums: Sums) -> Parsed<'a> {
    let Some((&[sp0, sp1, dp0, dp1, v0, v1, v2, v3, c0, c1, c2, c3], chunks)) =
        payload.split_first_chunk::<12>()
    else {
        return Parsed::Invalid(Reason::L4Truncated);
    };
    // Computed with the field zero, and stored lowest byte first. RFC 9260 appendix A
    let head = [sp0, sp1, dp0, dp1, v0, v1, v2, v3, 0, 0, 0, 0];
    let sums = sums.unless(Fault::SumSctp);
    if !sums.pass(|| crc32c(&[&head, chunks]) == u32::from_le_bytes([c0, c1, c2, c3])) {
        return Parsed::Invalid(Reason::L4Checksum);
    }
    let sctp = Sctp {
        sport: be16([sp0, sp1]),
        dport: be16([dp0, dp1]),
        vtag: u32::from_be_bytes([v0, v1, v2, v3]),
        chunks,
    };
    ip.packet(proto::SCTP, L4::Sctp(sctp))
}
