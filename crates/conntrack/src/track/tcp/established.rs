//! The commonest segment there is: an ACK, with or without data, of an ASSURED connection in state ESTABLISHED. What the
//! general way ([`super::step`]) makes of it when it fits the window, with all that cannot apply left out, and nearly
//! without branches: which side speaks, and whether it brings data, is as good as random to a branch predictor.
//! Where the segment does not fit, nothing is changed and nothing is said; the general way judges it.

use super::options::highest_sack;
use super::state::{Index, Mark, TcpVars, after};
use super::window::ACK_LAG_BYTES;
use crate::fault::{Fault, planted, slip};
use crate::key::Direction;
use crate::track::settings::Settings;
use crate::track::timeout::TimeoutKey;
use crate::wire::{Segment, tcp_flags};

/// What the switches and timeouts come to for these segments, worked out when they change.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Windows are tracked: without that the general way is as short.
    open: bool,
    /// This often the same segment is too often; more than can be counted: never.
    max_retrans: u16,
    /// The timeout, by the bits [`CLOSED`], [`UNACKED`] and [`TOO_OFTEN`].
    timeouts: [(TimeoutKey, u32); 8],
}

/// The sender's window is closed.
const CLOSED: usize = 1;
/// Some data waits for its acknowledgment.
const UNACKED: usize = 2;
/// The same segment came too often.
const TOO_OFTEN: usize = 4;

impl Rules {
    /// From the settings as they are now. The order of the rules is [`super::timeout_of`]'s.
    pub fn new(settings: &Settings) -> Self {
        let (timeouts, tcp) = (&settings.timeouts, &settings.tcp);
        let own = TimeoutKey::TcpEstablished;
        let shorter = |key: TimeoutKey| timeouts.get(own) > timeouts.get(key);
        let choose = |bits: usize| {
            if bits & TOO_OFTEN != 0 && tcp.max_retrans.is_some() && shorter(TimeoutKey::TcpMaxRetrans) {
                TimeoutKey::TcpMaxRetrans
            } else if bits & UNACKED != 0
                && tcp.unacknowledged_timer
                && shorter(TimeoutKey::TcpUnacknowledged)
            {
                TimeoutKey::TcpUnacknowledged
            } else if bits & CLOSED != 0 && tcp.max_retrans.is_some() && shorter(TimeoutKey::TcpMaxRetrans) {
                TimeoutKey::TcpMaxRetrans
            } else {
                own
            }
        };
        Self {
            open: tcp.window_tracking,
            max_retrans: tcp.max_retrans.map_or(u16::MAX, u16::from),
            timeouts: core::array::from_fn(|bits| (choose(bits), timeouts.get(choose(bits)).0)),
        }
    }
}

/// Takes one segment of an ASSURED flow in state ESTABLISHED. The flow's new timeout and its length, if the segment was
/// taken.
#[inline(always)]
pub fn step_established(
    vars: &mut TcpVars,
    segment: &Segment<'_>,
    from: Direction,
    rules: &Rules,
) -> Option<(TimeoutKey, u32)> {
    use tcp_flags::{ACK, FIN, RST, SYN, URG};
    let fin = if planted(Fault::LaneFin) { 0 } else { FIN };
    if segment.flags & (SYN | fin | RST | URG | ACK) != ACK || !rules.open {
        return None;
    }

    let (s, r) = (from.index(), from.other().index());
    let (seq, ack, end) = (segment.seq, segment.ack, segment.seq.wrapping_add(segment.payload_bytes));
    let mut sack = ack;
    if !segment.options.is_empty() && vars.flags[r] & Mark::SACK_OK != 0 && !planted(Fault::LaneSack) {
        sack = highest_sack(segment.options, ack);
    }
    let window = u32::from(segment.window) << if planted(Fault::LaneScale) { 0 } else { vars.scale(from) };
    let (sender, receiver) = (vars.peers[s], vars.peers[r]);

    // Negative if seq <= maxend, sack <= end, end >= end - maxwin and sack >= end - lag, each modulo 2^32.
    let over_seq = seq.wrapping_sub(sender.maxend).wrapping_sub(1 + slip(Fault::LaneSeqUpperEdge));
    let over_ack = sack.wrapping_sub(receiver.end).wrapping_sub(1 + slip(Fault::LaneAckUpperEdge));
    let seq_floor = sender.end.wrapping_sub(receiver.maxwin);
    let under_seq = seq_floor.wrapping_sub(end).wrapping_sub(1 + slip(Fault::LaneSeqLowerEdge));
    let ack_floor = receiver.end.wrapping_sub(sender.maxwin.max(ACK_LAG_BYTES));
    let under_ack = ack_floor.wrapping_sub(sack).wrapping_sub(1 + slip(Fault::LaneAckLowerEdge));
    let fits = ((over_seq & over_ack & under_seq & under_ack) as i32) < 0;
    // Of a side that was not heard yet nothing is known.
    if !fits || sender.maxwin.min(receiver.maxwin) == 0 {
        return None;
    }

    let unacked = {
        let (own, other) = (vars.flags[s], vars.flags[r]);
        let data = after(end, sender.end);
        let to = &mut vars.peers[s];
        to.end = if data && !planted(Fault::LaneEnd) { end } else { sender.end };
        to.maxwin = sender.maxwin.max(window.wrapping_add(sack.wrapping_sub(ack)));
        let higher = (own & Mark::MAXACK_SET == 0) | after(ack, sender.maxack);
        to.maxack = if higher && !planted(Fault::LaneMaxack) { ack } else { sender.maxack };
        let to = &mut vars.peers[r];
        let beyond = end.wrapping_sub(sender.maxend);
        to.maxwin = receiver.maxwin.wrapping_add(if after(end, sender.maxend) { beyond } else { 0 });
        let reach = sack.wrapping_add(window);
        let farther = after(reach, receiver.maxend.wrapping_sub(1)) && !planted(Fault::LaneMaxend);
        to.maxend = if farther { reach.wrapping_add(u32::from(window == 0)) } else { receiver.maxend };
        let waits = u8::from(data && !planted(Fault::LaneUnacked)) * Mark::UNACKED;
        let heard = u8::from(ack == receiver.end && !planted(Fault::LaneAcknowledged)) * Mark::UNACKED;
        let (own, other) = (own | Mark::MAXACK_SET | waits, other & !heard);
        vars.flags[s] = own;
        vars.flags[r] = other;
        (own | other) & Mark::UNACKED != 0
    };

    // The same segment again is counted; another is noted. Of the same one noting changes nothing.
    let both = |seq, ack| u64::from(seq) | u64::from(ack) << 32;
    let again = (vars.noted.direction() == from)
        & (both(vars.last_seq, vars.last_ack) == both(seq, ack))
        & (vars.last_end == end)
        & (vars.last_window == segment.window);
    let again = again && !planted(Fault::LaneRetrans);
    vars.retrans = if again { vars.retrans.wrapping_add(1) } else { 0 };
    (vars.last_seq, vars.last_ack, vars.last_end, vars.last_window) = (seq, ack, end, segment.window);
    vars.noted.set(Index::Ack, from);

    let closed = segment.window == 0 && !planted(Fault::LaneZeroWindow);
    let too_often = u16::from(vars.retrans) >= rules.max_retrans;
    let bits =
        usize::from(closed) * CLOSED + usize::from(unacked) * UNACKED + usize::from(too_often) * TOO_OFTEN;
    Some(rules.timeouts[bits])
}
