//! ICMP and ICMPv6 queries: a request opens, an answer must find it. Errors never come here; they are looked up
//! by what they quote.

use super::reason::Reason;
use super::timeout::TimeoutKey;
use super::{Context, Step};
use crate::fault::{Fault, planted};
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
    if ctx.first && !is_request(family, icmp_type) && !planted(Fault::IcmpLoneAnswer) {
        return Step::Invalid(Reason::IcmpNoRequest);
    }
    let key = match family {
        Family::V4 => TimeoutKey::Icmp,
        Family::V6 => TimeoutKey::Icmpv6,
    };
    Step::refresh(key, ctx.settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Direction;
    use crate::track::settings::{Profile, Settings};

    fn first(family: Family, icmp_type: u8) -> Step {
        let settings = Settings::new(Profile::Linux);
        let ctx = Context { now: 0, direction: Direction::Original, first: true, settings: &settings };
        step(&mut Head::default(), family, icmp_type, &ctx)
    }

    #[test]
    fn only_requests_open_a_flow() {
        let opens = |family| {
            (0..=u8::MAX)
                .filter(|&icmp_type| first(family, icmp_type) != Step::Invalid(Reason::IcmpNoRequest))
                .collect::<std::vec::Vec<u8>>()
        };
        assert_eq!(opens(Family::V4), [8, 13, 15, 17]);
        assert_eq!(opens(Family::V6), [128, 139]);
    }

    #[test]
    fn an_answer_renews_its_flow_and_never_assures_it() {
        let settings = Settings::new(Profile::Linux);
        let mut head = Head { status: crate::table::entry::status::SEEN_REPLY, ..Head::default() };
        let before = head;
        let ctx = Context { now: 0, direction: Direction::Reply, first: false, settings: &settings };
        assert_eq!(step(&mut head, Family::V4, 0, &ctx), Step::refresh(TimeoutKey::Icmp, &settings));
        assert_eq!(step(&mut head, Family::V6, 129, &ctx), Step::refresh(TimeoutKey::Icmpv6, &settings));
        assert_eq!(head, before);
    }
}
