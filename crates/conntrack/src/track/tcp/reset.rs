//! Resets: a forged one can land inside the window, so only the exact number closes an established flow.
//! RFC 5961 section 3.2; what the numbers are compared with is conntrack's own.

use super::state::{Index, Mark, TcpState, TcpVars, before};
use crate::fault::{Fault, planted, shift};
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
    if super::is_closing(old) && !planted(Fault::RstClosing) {
        return Judgement::Accept;
    }
    let assured = head.status & status::ASSURED != 0;
    let established = old == TcpState::Established && assured;
    let noted = vars.noted;
    let receiver = from.other().index();
    let mut keep_state = false;

    // The highest acknowledgment may be out of date if a SYN was let through.
    let known = vars.flags[receiver] & Mark::MAXACK_SET != 0 || planted(Fault::RstMaxackUnknown);
    if known && (noted.index() != Index::Syn || planted(Fault::RstAfterSyn)) {
        let maxack = vars.peers[receiver].maxack;
        if segment.seq == 0 && !established && !planted(Fault::RstZeroSeq) {
            // Most likely the answer to a SYN that was let through.
            return Judgement::CheckWindow;
        }
        let floor =
            maxack.wrapping_add_signed(-shift(Fault::RstUnderMaxackEdgeWide, Fault::RstUnderMaxackEdgeTight));
        let switched_off = ignore_invalid && !planted(Fault::RstIgnoreSwitch);
        if before(segment.seq, floor) && !switched_off && !planted(Fault::RstUnderMaxack) {
            return Judgement::Invalid;
        }
        let exact = segment.seq == maxack && !planted(Fault::RstExact);
        if (!established && !planted(Fault::RstExactUnassured)) || exact {
            return Judgement::CheckWindow;
        }
        // Right behind data of the same side.
        let same_side = noted.direction() == from || planted(Fault::RstBehindOther);
        let behind_data = noted.index() == Index::Ack && same_side && segment.seq == vars.last_end;
        if behind_data && !planted(Fault::RstBehindData) {
            return Judgement::CheckWindow;
        }
        keep_state = !planted(Fault::RstNearMiss);
    }

    let from_other_side = noted.direction() != from || planted(Fault::RstAnswersOneself);
    let answers_syn = head.status & status::SEEN_REPLY != 0 && noted.index() == Index::Syn && from_other_side;
    let either_side = !planted(Fault::RstAnswersAckAcross) || noted.direction() != from;
    let answers_ack = !assured && noted.index() == Index::Ack && either_side;
    let answers_ignored =
        (answers_syn && !planted(Fault::RstAnswersSyn)) || (answers_ack && !planted(Fault::RstAnswersAck));
    let answers_challenge = old == TcpState::SynSent
        && noted.index() == Index::Ack
        && noted.direction() == Direction::Reply
        && segment.seq == vars.last_ack
        && !planted(Fault::RstAnswersChallenge);
    let names_it = segment.ack == vars.last_end || planted(Fault::RstAnswersAnything);
    let accept = (answers_ignored && names_it) || answers_challenge;
    match (accept, keep_state) {
        (true, false) => Judgement::Accept,
        (true, true) => Judgement::KeepStateAndAccept,
        (false, false) => Judgement::CheckWindow,
        (false, true) => Judgement::KeepStateAndCheckWindow,
    }
}
