//! Any chunks under any tags on one SCTP flow: an accepted packet leaves a state that has a name and a timeout,
//! and the deadline is that state's.
#![no_main]

use arbitrary::Arbitrary;
use conntrack::key::Direction;
use conntrack::table::entry::Head;
use conntrack::track::sctp::{SctpState, SctpVars, step};
use conntrack::track::settings::{Profile, Settings};
use conntrack::track::{Context, Step};
use conntrack::wire::Sctp;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Packet<'a> {
    reply: bool,
    /// Few tags, so that some of them match.
    vtag: u8,
    chunks: &'a [u8],
}

fuzz_target!(|packets: Vec<Packet<'_>>| {
    let settings = Settings::new(Profile::Linux);
    let (mut head, mut vars, mut live) = (Head::default(), SctpVars::default(), false);
    for packet in packets {
        let direction = if packet.reply && live { Direction::Reply } else { Direction::Original };
        let ctx = Context { now: 0, direction, first: !live, settings: &settings };
        let sctp = Sctp { sport: 1, dport: 2, vtag: packet.vtag.into(), chunks: packet.chunks };
        match step(&mut head, &mut vars, &sctp, &ctx) {
            Step::Refresh { key, .. } => {
                let state = SctpState::from_number(head.state);
                assert_ne!(state, SctpState::None);
                assert_eq!(key, state.timeout_key());
                live = true;
            }
            // Only a repeat of an INIT, or a strange HEARTBEAT, is ignored, and neither opens.
            Step::Ignore => assert!(live),
            Step::Invalid(_) => {}
            other => panic!("SCTP never answers {other:?}"),
        }
    }
});
