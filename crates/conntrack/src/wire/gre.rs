//! GRE (RFC 2784) and its version 1 of PPTP (RFC 2637 section 4.1).

use super::{Ip, L4, Parsed, be16, proto};
use crate::fault::{Fault, planted};
use crate::track::reason::Reason;

const PROTOCOL_PPP: u16 = 0x880b;

pub(super) fn parse<'a>(ip: Ip, payload: &'a [u8]) -> Parsed<'a> {
    match ids(payload) {
        Some((version, call_id)) => ip.packet(proto::GRE, L4::Gre { version, call_id }),
        None => Parsed::Invalid(Reason::GreVersion),
    }
}

/// Version and call id, both 0 where there is no call id: in any other version, and in a version 1 header that is
/// cut short. `None` for version 1 that carries anything but PPP.
pub(super) fn ids(payload: &[u8]) -> Option<(u8, u16)> {
    match payload.first_chunk::<8>() {
        Some(&[_, flags, proto0, proto1, _, _, id0, id1]) if flags & 7 == 1 => {
            let is_ppp = be16([proto0, proto1]) == PROTOCOL_PPP || planted(Fault::GreNotPpp);
            is_ppp.then_some((1, be16([id0, id1])))
        }
        _ => Some((0, 0)),
    }
}
