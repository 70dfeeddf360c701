//! Which number of a segment lies beyond which edge of the window: the judgement of [`super::window`] and
//! [`super::reset`] as a person wants to read it. Asked after the segment was judged, and only for packets that are told.

use super::options::highest_sack;
use super::state::{Mark, TcpVars, after, before};
use super::window::ACK_LAG_BYTES;
use crate::key::Direction;
use crate::track::reason::Reason;
use crate::wire::{Segment, tcp_flags};

/// A number of a segment and the edge beyond which it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    pub number: Number,
    pub value: u32,
    /// The last value that would have been right.
    pub edge: u32,
}

/// Which number, and on which side of its edge it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// The sequence number, above what the receiver has offered.
    SeqAbove,
    /// The segment's end, below what the receiver can still want.
    EndBelow,
    /// The acknowledgment (or the end of a SACK block), above what was sent.
    AckAbove,
    /// The acknowledgment, further behind than any window.
    AckBelow,
    /// A reset's sequence number, below what its receiver has acknowledged.
    ResetBelow,
}

impl Number {
    /// Every one, in order.
    pub const ALL: [Self; 5] =
        [Self::SeqAbove, Self::EndBelow, Self::AckAbove, Self::AckBelow, Self::ResetBelow];

    /// One word for machines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SeqAbove => "seq_above",
            Self::EndBelow => "end_below",
            Self::AckAbove => "ack_above",
            Self::AckBelow => "ack_below",
            Self::ResetBelow => "reset_below",
        }
    }
}

impl Missed {
    /// How far beyond.
    pub const fn by(self) -> u32 {
        match self.number {
            Number::SeqAbove | Number::AckAbove => self.value.wrapping_sub(self.edge),
            Number::EndBelow | Number::AckBelow | Number::ResetBelow => self.edge.wrapping_sub(self.value),
        }
    }
}

/// The number that made a segment INVALID by `reason`, or with `None` one that made it be passed over, if one did. `vars`
/// are the flow's after the segment.
pub fn missed(
    vars: &TcpVars,
    segment: &Segment<'_>,
    from: Direction,
    reason: Option<Reason>,
) -> Option<Missed> {
    let sender = &vars.peers[from.index()];
    let receiver = &vars.peers[from.other().index()];
    let says =
        segment.flags & tcp_flags::ACK != 0 && !(segment.flags & tcp_flags::RST != 0 && segment.ack == 0);
    let permitted = vars.flags[from.other().index()] & Mark::SACK_OK != 0;
    let ack = match (says, permitted) {
        (false, _) => receiver.end,
        (true, true) => highest_sack(segment.options, segment.ack),
        (true, false) => segment.ack,
    };
    let above = |number, value, edge| after(value, edge).then_some(Missed { number, value, edge });
    let below = |number, value, edge| before(value, edge).then_some(Missed { number, value, edge });
    match reason {
        Some(Reason::TcpSeqOverMaxEnd) => above(Number::SeqAbove, segment.seq, sender.maxend),
        Some(Reason::TcpAckOverEnd) => above(Number::AckAbove, ack, receiver.end),
        Some(Reason::TcpRstUnderAck) => below(Number::ResetBelow, segment.seq, receiver.maxack),
        Some(_) => None,
        None => above(Number::SeqAbove, segment.seq, sender.maxend)
            .or_else(|| {
                let floor = sender.end.wrapping_sub(receiver.maxwin);
                below(Number::EndBelow, segment.end(), floor).filter(|_| receiver.maxwin != 0)
            })
            .or_else(|| {
                let floor = receiver.end.wrapping_sub(sender.maxwin.max(ACK_LAG_BYTES));
                below(Number::AckBelow, ack, floor)
            }),
    }
}
