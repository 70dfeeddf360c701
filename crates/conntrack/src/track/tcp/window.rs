//! The window: which sequence and acknowledgment numbers a segment may carry, and what it teaches.
//! After Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001), as conntrack applies it.

use super::state::{Index, Mark, TcpState, TcpVars, after, before};
use crate::fault::{Fault, planted, shift, slip};
use crate::key::Direction;
use crate::track::reason::Reason;
use crate::wire::{Segment, tcp_flags};

/// How far an acknowledgment may lag behind, at least: the largest unscaled window and some.
pub(super) const ACK_LAG_BYTES: u32 = 66_000;

/// What the window says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Accept,
    /// Old, or a little too far: passes, and teaches nothing.
    Ignore,
    Invalid(Reason),
}

/// Checks one segment and, if it fits, learns from it. `state` is the flow's state before the segment; `sack` the
/// highest acknowledged number including selective blocks.
#[inline]
pub(super) fn check(
    vars: &mut TcpVars,
    segment: &Segment<'_>,
    index: Index,
    state: TcpState,
    from: Direction,
    sack: u32,
    be_liberal: bool,
) -> Fit {
    use tcp_flags::{ACK, RST, SYN};
    let (s, r) = (from.index(), from.other().index());
    let has_ack = segment.flags & ACK != 0;
    let is_syn = segment.flags & SYN != 0;
    let is_rst = segment.flags & RST != 0;
    let window = u32::from(segment.window);
    let (mut seq, mut ack, mut sack) = (segment.seq, segment.ack, sack);
    let mut end = segment.end();

    if vars.peers[s].maxwin == 0 {
        if is_syn {
            start_side(vars, segment, from, end, window);
            if !has_ack && !planted(Fault::SimultaneousSynChecked) {
                return Fit::Accept; // simultaneous open
            }
        } else {
            // The side's history is unknown; take what this segment says.
            let scaled = (window << vars.scale(from)).max(1);
            let sender = &mut vars.peers[s];
            sender.end = end;
            sender.maxwin = scaled;
            sender.maxend = if planted(Fault::PickupSideClosed) { end } else { end.wrapping_add(scaled) };
            let receiver = &mut vars.peers[r];
            if receiver.maxwin == 0 {
                receiver.end = sack;
                receiver.maxend = sack;
            } else if sack == receiver.end.wrapping_add(1) && !planted(Fault::KeepAliveAnswer) {
                receiver.end = sack; // the answer to a keep-alive probe
            }
        }
    } else if is_syn
        && !planted(Fault::NewerSynNever)
        && (after(end, vars.peers[s].end) || planted(Fault::NewerSynAlways))
        && (matches!(state, TcpState::SynSent | TcpState::SynRecv) || planted(Fault::NewerSynAnyState))
    {
        // Opened anew, with a later number and perhaps other options.
        start_side(vars, segment, from, end, window);
        if from == Direction::Reply && !has_ack {
            return Fit::Accept;
        }
    }

    let liberal = (be_liberal && !planted(Fault::LiberalSwitch))
        || (vars.flags[s] & Mark::LIBERAL != 0 && !planted(Fault::LiberalMark));
    let unless_liberal = |fit| if liberal { Fit::Accept } else { fit };
    let [sender, receiver] = vars.pair(from);
    let says_nothing = !has_ack && !planted(Fault::AcklessZero);
    if says_nothing || (is_rst && ack == 0 && !planted(Fault::RstZeroAck)) {
        ack = receiver.end;
        sack = receiver.end;
    }
    if is_rst && seq == 0 && state == TcpState::SynSent && !planted(Fault::RstZeroSeqSynSent) {
        seq = sender.end;
        end = sender.end;
    }

    let granted = if planted(Fault::AckLagNotGranted) { 0 } else { ACK_LAG_BYTES };
    let maxwin = if planted(Fault::AckLagNotMore) { 0 } else { sender.maxwin };
    let ack_floor = receiver.end.wrapping_sub(maxwin.max(granted)).wrapping_sub(1);
    let ack_floor = ack_floor.wrapping_add_signed(-shift(Fault::AckLowerEdgeWide, Fault::AckLowerEdgeTight));
    let seq_floor = sender.end.wrapping_sub(receiver.maxwin).wrapping_sub(1);
    let seq_floor = seq_floor.wrapping_add_signed(-shift(Fault::SeqLowerEdgeWide, Fault::SeqLowerEdgeTight));
    let ack_ceiling = receiver.end.wrapping_add(1);
    let ack_ceiling =
        ack_ceiling.wrapping_add_signed(shift(Fault::AckUpperEdgeWide, Fault::AckUpperEdgeTight));
    let ack_seen = before(sack, ack_ceiling);
    let seq_ceiling = sender.maxend.wrapping_add(1);
    let seq_ceiling =
        seq_ceiling.wrapping_add_signed(shift(Fault::SeqUpperEdgeWide, Fault::SeqUpperEdgeTight));
    if !before(seq, seq_ceiling) {
        let over = end.wrapping_sub(sender.maxend).wrapping_add(1);
        let over = over.wrapping_add_signed(-shift(Fault::OverWindowWide, Fault::OverWindowTight));
        let only_seq_fails = receiver.maxwin != 0
            && after(end, seq_floor)
            && after(sack, ack_floor)
            && over <= receiver.maxwin
            && (ack_seen || planted(Fault::OverWindowAnyAck));
        if only_seq_fails && planted(Fault::OverWindowNotNoted) {
            return unless_liberal(Fit::Ignore);
        }
        if only_seq_fails {
            // If the receiver takes it after all, its acknowledgment must not look like one of unseen data.
            sender.end = end;
            vars.flags[s] |= Mark::UNACKED;
            return unless_liberal(Fit::Ignore);
        }
        return unless_liberal(Fit::Invalid(Reason::TcpSeqOverMaxEnd));
    }
    if !ack_seen {
        return unless_liberal(Fit::Invalid(Reason::TcpAckOverEnd));
    }
    if (receiver.maxwin != 0 || planted(Fault::SeqLowerEdgeUnknownSide)) && !after(end, seq_floor) {
        return unless_liberal(Fit::Ignore);
    }
    if !after(sack, ack_floor) {
        return unless_liberal(Fit::Ignore);
    }

    let plain = (is_syn && !planted(Fault::SynWindowScaled)) || planted(Fault::WindowNotScaled);
    let window = if plain { window } else { window << vars.scale(from) };
    let [sender, receiver] = vars.pair(from);
    let beyond = if planted(Fault::MaxwinWithoutSack) { 0 } else { sack.wrapping_sub(ack) };
    let reach = window.wrapping_add(beyond);
    sender.maxwin = if planted(Fault::MaxwinShrinks) { reach } else { sender.maxwin.max(reach) };
    let mut unacked = false;
    if after(end, sender.end) && !planted(Fault::EndNotMoved) {
        sender.end = end;
        unacked = !planted(Fault::UnackedNotMarked);
    }
    if receiver.maxwin != 0 && after(end, sender.maxend) && !planted(Fault::MaxwinNotGrown) {
        receiver.maxwin = receiver.maxwin.wrapping_add(end.wrapping_sub(sender.maxend));
    }
    let maxend = receiver.maxend.wrapping_sub(1).wrapping_add(slip(Fault::MaxendEdge));
    if after(sack.wrapping_add(window), maxend) && !planted(Fault::MaxendNotMoved) {
        let probe = u32::from(window == 0 && !planted(Fault::ZeroWindowByte));
        receiver.maxend = sack.wrapping_add(window).wrapping_add(probe);
    }
    let all_acknowledged = (ack == receiver.end && !planted(Fault::UnackedNotCleared))
        || (has_ack && planted(Fault::UnackedClearedEarly));
    if has_ack {
        let higher = (after(ack, vars.peers[s].maxack) && !planted(Fault::MaxackNotMoved))
            || planted(Fault::MaxackFollows);
        if vars.flags[s] & Mark::MAXACK_SET == 0 || higher {
            vars.peers[s].maxack = ack;
        }
        vars.flags[s] |= Mark::MAXACK_SET;
    }
    if unacked {
        vars.flags[s] |= Mark::UNACKED;
    }
    if all_acknowledged {
        vars.flags[r] &= !Mark::UNACKED;
    }

    if index == Index::Ack || planted(Fault::RetransEverySegment) {
        note(vars, segment, from, seq, ack, end);
    }
    Fit::Accept
}

/// A side's first SYN or SYN/ACK, or a newer one in its place.
fn start_side(vars: &mut TcpVars, segment: &Segment<'_>, from: Direction, end: u32, window: u32) {
    let sender = &mut vars.peers[from.index()];
    sender.end = end;
    sender.maxend = end;
    sender.maxwin = window.max(1 - slip(Fault::SynWindowZero));
    vars.learn_options(from, segment.options);
    // Scaling holds only if both sides offered it. RFC 7323 section 2.2
    let both = vars.flags[0] & vars.flags[1] & Mark::WSCALE != 0 || planted(Fault::ScaleOneSided);
    if from == Direction::Reply && !both {
        vars.set_scale(Direction::Original, 0);
        vars.set_scale(Direction::Reply, 0);
    }
}

/// Counts the same segment coming again, or notes another.
#[inline(always)]
fn note(vars: &mut TcpVars, segment: &Segment<'_>, from: Direction, seq: u32, ack: u32, end: u32) {
    let again = vars.noted.direction() == from
        && vars.last_seq == seq
        && vars.last_ack == ack
        && vars.last_end == end
        && (vars.last_window == segment.window || planted(Fault::RetransAnyWindow));
    if again {
        vars.retrans = vars.retrans.wrapping_add(1);
    } else {
        vars.last_seq = seq;
        vars.last_ack = ack;
        vars.last_end = end;
        vars.last_window = segment.window;
        vars.retrans = if planted(Fault::RetransNotReset) { vars.retrans } else { 0 };
    }
}
