//! Resets: a forged one can land inside the window, so only the exact number closes an established flow.
//! RFC 5961 section 3.2; what the numbers are compared with is conntrack's own.

use super::state::{Index, Mark, TcpState, TcpVars, before};
use crate::key::Direction;
use crate::table::entry::{Head, status};
use crate::wire::Segment;

/// What a reset is worth before the window is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Closes; no window applies.
    Accept,
    /// Closes if it is in the window.
    CheckWindow,
    /// A near miss: passes if it is in the window, for the host to challenge.
    KeepStateAndCheckWindow,
    /// As above, and no window applies.
    KeepStateAndAccept,
    /// Below what its receiver has acknowledged.
    Invalid,
}

/// Judges a reset that the table would take to CLOSE.
pub(super) fn judge(
    head: &Head,
    vars: &TcpVars,
    segment: &Segment<'_>,
    old: TcpState,
    from: Direction,
    ignore_invalid: bool,
) -> Judgement {
    // Once a FIN was seen the tuple may be in use again already, and every number here out of date.
    if super::is_closing(old) {
        return Judgement::Accept;
    }
    let assured = head.status & status::ASSURED != 0;
    let established = old == TcpState::Established && assured;
    let noted = vars.noted;
    let receiver = from.other().index();
    let mut keep_state = false;

    // The highest acknowledgment may be out of date if a SYN was let through.
    if vars.flags[receiver] & Mark::MAXACK_SET != 0 && noted.index() != Index::Syn {
        let maxack = vars.peers[receiver].maxack;
        if segment.seq == 0 && !established {
            // Most likely the answer to a SYN that was let through.
            return Judgement::CheckWindow;
        }
        if before(segment.seq, maxack) && !ignore_invalid {
            return Judgement::Invalid;
        }
        if !established || segment.seq == maxack {
            return Judgement::CheckWindow;
        }
        // Right behind data of the same side.
        if noted.index() == Index::Ack && noted.direction() == from && segment.seq == vars.last_end {
            return Judgement::CheckWindow;
        }
        keep_state = true;
    }

    let from_other_side = noted.direction() != from;
    let answers_ignored =
        (head.status & status::SEEN_REPLY != 0 && noted.index() == Index::Syn && from_other_side)
            || (!assured && noted.index() == Index::Ack);
    let answers_challenge = old == TcpState::SynSent
        && noted.index() == Index::Ack
        && noted.direction() == Direction::Reply
        && segment.seq == vars.last_ack;
    let accept = (answers_ignored && segment.ack == vars.last_end) || answers_challenge;
    match (accept, keep_state) {
        (true, false) => Judgement::Accept,
        (true, true) => Judgement::KeepStateAndAccept,
        (false, false) => Judgement::CheckWindow,
        (false, true) => Judgement::KeepStateAndCheckWindow,
    }
}
