//! Any chunks under any tags on one SCTP flow: an accepted packet leaves a state that has a name and a timeout, a
//! refused first packet leaves no flow, and what Linux overlooks (bytes behind the last chunk) changes nothing.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use conntrack::key::Direction;
use conntrack::table::entry::{Head, status};
use conntrack::track::sctp::{SctpState, SctpVars, step};
use conntrack::track::settings::{Profile, Settings};
use conntrack::track::{Context, Step};
use conntrack::wire::Sctp;
use conntrack_fuzz::input::{Many, Short};
use conntrack_fuzz::packet;
use libfuzzer_sys::fuzz_target;

#[derive(Debug)]
struct Packet {
    reply: bool,
    vtag: u32,
    chunks: Vec<u8>,
}

impl<'a> Arbitrary<'a> for Packet {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let choice = u8::arbitrary(u)?;
        let vtag = packet::tag(choice >> 1);
        let chunks = match choice >> 3 {
            0 => Short::arbitrary(u)?.0.to_vec(),
            count => {
                let mut chunks = Vec::new();
                for _ in 0..count & 7 {
                    packet::chunk(u, &mut chunks)?;
                }
                chunks
            }
        };
        Ok(Self { reply: choice & 1 != 0, vtag, chunks })
    }
}

fuzz_target!(|packets: Many<Packet>| {
    let settings = Settings::new(Profile::Linux);
    let (mut head, mut vars, mut live) = (Head::default(), SctpVars::default(), false);
    for packet in packets.0 {
        let direction = if packet.reply && live { Direction::Reply } else { Direction::Original };
        let ctx = Context { now: 0, direction, first: !live, settings: &settings };
        let (head_before, vars_before) = (head, vars);
        let sctp = Sctp { sport: 1, dport: 2, vtag: packet.vtag, chunks: &packet.chunks };
        let answer = step(&mut head, &mut vars, &sctp, &ctx);
        match answer {
            Step::Refresh { key, span } => {
                let state = SctpState::from_number(head.state);
                assert_ne!(state, SctpState::None);
                assert_eq!(key, state.timeout_key());
                assert_eq!(span, settings.timeouts.get(key).0);
                if state == SctpState::Established {
                    assert_ne!(head.status & status::ASSURED, 0);
                }
                live = true;
            }
            // Only a repeat of an INIT, or a strange HEARTBEAT, is ignored, and neither opens.
            Step::Ignore => assert!(live),
            Step::Invalid(_) => {}
            other => panic!("SCTP never answers {other:?}"),
        }
        if !live {
            // The tracker throws a refused flow's beginnings away.
            (head, vars) = Default::default();
        }

        // Less than a chunk header behind the last whole chunk is overlooked.
        if packet.chunks.len() % 4 == 0 && ends_with_a_chunk(&packet.chunks) {
            let (mut head_again, mut vars_again) = (head_before, vars_before);
            let longer = [&packet.chunks[..], &[1, 0, 0]].concat();
            let sctp = Sctp { chunks: &longer, ..sctp };
            assert_eq!(step(&mut head_again, &mut vars_again, &sctp, &ctx), answer);
            if live {
                assert_eq!((head_again, vars_again), (head, vars));
            }
        }
    }
});

/// Whether the chunks' stated lengths end where the bytes do.
fn ends_with_a_chunk(mut bytes: &[u8]) -> bool {
    while let Some((&[_, _, high, low], _)) = bytes.split_first_chunk() {
        let whole = usize::from(u16::from_be_bytes([high, low])).next_multiple_of(4);
        match bytes.get(whole..) {
            Some(rest) if whole > 0 => bytes = rest,
            _ => return false,
        }
    }
    bytes.is_empty()
}
