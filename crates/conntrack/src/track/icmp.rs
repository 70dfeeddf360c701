//! ICMP and ICMPv6 queries: a request opens, an answer must find it. Errors never come here; they are looked up
//! by what they quote.

use super::reason::Reason;
use super::timeout::TimeoutKey;
use super::{Context, Step};
use crate::table::entry::Head;
use crate::wire::Family;

/// Echo, timestamp, information and address mask request. RFC 792, RFC 950
const REQUESTS_V4: [u8; 4] = [8, 13, 15, 17];
/// Echo request and node information query. RFC 4443 section 4.1, RFC 4620
const REQUESTS_V6: [u8; 2] = [128, 139];

/// Whether a query of this type may open a flow.
pub fn is_request(family: Family, icmp_type: u8) -> bool {
    match family {
        Family::V4 => REQUESTS_V4.contains(&icmp_type),
        Family::V6 => REQUESTS_V6.contains(&icmp_type),
    }
}

/// What one query or answer does to its flow. The flow stays after the answer, for the next request, and is
/// never ASSURED; having no state, it leaves its head alone.
pub fn step(_head: &mut Head, family: Family, icmp_type: u8, ctx: &Context<'_>) -> Step {
    if ctx.first && !is_request(family, icmp_type) {
        return Step::Invalid(Reason::IcmpNoRequest);
    }
    let key = match family {
        Family::V4 => TimeoutKey::Icmp,
        Family::V6 => TimeoutKey::Icmpv6,
    };
    Step::refresh(key, ctx.settings)
}
