//! Records of packets that were INVALID or dropped: a sample of fixed size, whatever comes. Owns the budget and the buffer
//! between two visits of whoever takes the records away. A packet that is neither costs nothing here.

use alloc::vec::Vec;

use super::burst::Found;
use super::explain::Explained;
use super::{BURST, Core, Frame, Outcome, Verdict};
use crate::policy::DropReason;
use crate::tick::{PER_SECOND, Tick};
use crate::track::reason::Reason;
use crate::wire::Parsed;

/// The budget is filled up this often.
const WINDOWS_PER_SECOND: u32 = 10;

/// Records in one window, and of one kind, so that a flood of one kind hides no other.
const PER_WINDOW: u8 = 20;
const OF_A_KIND: u8 = 5;

/// The most records that a tracker makes in a second.
pub const RECORDS_PER_SECOND: u32 = PER_WINDOW as u32 * WINDOWS_PER_SECOND;

const _: () = assert!(BURST <= u64::BITS as usize, "a bit for each frame of a burst");

/// Why a packet is recorded: by its reason, or else by what dropped it.
const KINDS: usize = Reason::ALL.len() + DropReason::LABELS.len();

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Without room nothing is recorded or counted.
    buffer: Vec<Explained>,
    window: u64,
    left: u8,
    left_of: LeftOf,
    untold: u64,
    /// The frame that is being tracked, by its place in the burst.
    pub(super) place: u8,
    /// Frames of this burst that were recorded, or counted as not told: a bit each.
    done: u64,
    /// A frame was dropped on one of the short ways, and waits for the burst's end.
    pub(super) behind: bool,
}

#[derive(Debug)]
struct LeftOf([u8; KINDS]);

impl Default for LeftOf {
    fn default() -> Self {
        Self([OF_A_KIND; KINDS])
    }
}

fn kind(outcome: &Outcome) -> Option<usize> {
    match (outcome.reason, outcome.verdict) {
        (Some(reason), _) => Some(reason as usize),
        (None, Verdict::Drop(reason)) => Some(Reason::ALL.len() + reason.index()),
        (None, _) => None,
    }
}

impl Records {
    pub(super) fn with_room() -> Self {
        Self { buffer: Vec::with_capacity(usize::from(PER_WINDOW)), ..Self::default() }
    }

    fn are_kept(&self) -> bool {
        self.buffer.capacity() > 0
    }

    /// Whether there is budget for one more of this kind; if not, it is counted.
    fn allow(&mut self, now: Tick, kind: usize) -> bool {
        let window = now.0 / u64::from(PER_SECOND / WINDOWS_PER_SECOND);
        if window != self.window {
            (self.window, self.left, self.left_of) = (window, PER_WINDOW, LeftOf::default());
        }
        let left_of = self.left_of.0.get_mut(kind).filter(|left| **left > 0);
        match left_of {
            Some(left) if self.left > 0 && self.buffer.len() < self.buffer.capacity() => {
                *left -= 1;
                self.left -= 1;
                true
            }
            _ => {
                self.untold += 1;
                false
            }
        }
    }

    pub(super) fn as_slice(&self) -> &[Explained] {
        &self.buffer
    }

    pub(super) fn clear(&mut self) {
        self.buffer.clear();
    }

    pub(super) fn untold(&self) -> u64 {
        self.untold
    }

    /// A new burst begins.
    #[inline(always)]
    pub(super) fn begin(&mut self) {
        self.done = 0;
    }
}

impl Core {
    /// Records the packet that is at [`Records::place`], once, if it is INVALID or dropped.
    #[cold]
    #[inline(never)]
    pub(super) fn record(
        &mut self,
        now: Tick,
        frame: &Frame<'_>,
        parsed: &Parsed<'_>,
        found: Option<&Found>,
        outcome: &Outcome,
    ) {
        let bit = 1_u64.checked_shl(u32::from(self.records.place)).unwrap_or(0);
        if !self.records.are_kept() || self.records.done & bit != 0 {
            return;
        }
        self.records.done |= bit;
        let Some(kind) = kind(outcome) else { return };
        if self.records.allow(now, kind) {
            let place = u16::from(self.records.place);
            let explained = self.explained(now, frame, parsed, found, outcome);
            self.records.buffer.push(Explained { place, ..explained });
        }
    }
}
