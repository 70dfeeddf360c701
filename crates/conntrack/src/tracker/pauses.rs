//! How long flows were silent before they spoke again: owns each flow's longest pause on the timeout that it last paused
//! on, and how many flows had a pause of which length. Told of each packet of a flow before its deadline moves; sees no packet.
//!
//! A flow is counted once for each timeout, by its longest pause there, because a shorter timeout would have cut it once:
//! what comes back after that is another flow.

use alloc::vec;
use alloc::vec::Vec;

use crate::table::entry::{Entry, Head, TIMEOUT_EDITED, status};
use crate::table::memory::{Memory, Region, Zeroed, bytes_of};
use crate::table::{FlowIndex, PrefetchHint, Table, prefetch};
use crate::tick::{PER_SECOND, Tick, Ticks};
use crate::track::tcp::TcpState;
use crate::track::timeout::{TimeoutKey, Timeouts};
use crate::wire::proto;

use super::BURST;

/// Pauses are kept by length, exact at these: the n-th begins at the n-th bound. Whole seconds up to a minute, and
/// every value that a timeout has by default or is likely to be given. (First, step, how many), in seconds.
const BOUNDS: [(u32, u32, usize); 11] = [
    (1, 1, 60),
    (65, 5, 12),
    (130, 10, 18),
    (330, 30, 10),
    (660, 60, 50),
    (4_500, 900, 20),
    (23_400, 1_800, 12),
    (46_800, 3_600, 12),
    (108_000, 21_600, 16),
    (518_400, 86_400, 25),
    (2_851_200, 259_200, 20),
];

/// Lengths that are told apart, and 0 for none.
const LENGTHS: usize = 256;

/// By length, the shortest pause of it, in ticks; of 0 there is none that is kept.
const SHORTEST: [u32; LENGTHS] = {
    let mut all = [0; LENGTHS];
    let mut part = 0;
    while part < PARTS.len() {
        let Part { first, step, how_many, number } = PARTS[part];
        let mut at = 0;
        while at < how_many {
            all[(number + at) as usize] = first + step * at;
            at += 1;
        }
        part += 1;
    }
    all
};

/// A row of [`BOUNDS`], in ticks, and the number of its first length.
#[derive(Clone, Copy)]
struct Part {
    first: u32,
    step: u32,
    how_many: u32,
    number: u32,
}

const PARTS: [Part; BOUNDS.len()] = {
    let mut parts = [Part { first: 0, step: 0, how_many: 0, number: 0 }; BOUNDS.len()];
    let (mut at, mut number) = (0, 1);
    while at < BOUNDS.len() {
        let (first, step, how_many) = BOUNDS[at];
        parts[at] =
            Part { first: first * PER_SECOND, step: step * PER_SECOND, how_many: how_many as u32, number };
        number += how_many as u32;
        at += 1;
    }
    assert!(number as usize == LENGTHS);
    parts
};

/// What a flow can be on: each timeout by itself, and those two that shorten others with the state that they shorten.
pub(super) const KINDS: usize = 64;
const UNACKNOWLEDGED: u8 = 32;
const MAX_RETRANS: u8 = 48;
const _: () = assert!(TimeoutKey::ALL.len() <= UNACKNOWLEDGED as usize);

/// Timeouts by [`crate::table::entry::Head::timeout_key`], with room for what its lower bits can say.
const SPANS: usize = 32;
const _: () = assert!(TimeoutKey::ALL.len() <= SPANS);

/// What a flow is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kind(u8);

impl Kind {
    pub(super) fn of(l4: u8, head: Head, key: TimeoutKey) -> Self {
        let state = head.state & 0xf;
        match key {
            TimeoutKey::TcpUnacknowledged if l4 == proto::TCP => Self(UNACKNOWLEDGED + state),
            TimeoutKey::TcpMaxRetrans if l4 == proto::TCP => Self(MAX_RETRANS + state),
            _ => Self(key as u8),
        }
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..KINDS as u8).map(Self).filter(|kind| kind.0 >= UNACKNOWLEDGED || kind.own().is_some())
    }

    fn own(self) -> Option<TimeoutKey> {
        TimeoutKey::ALL.get(usize::from(self.0)).copied()
    }

    /// The timeout that the flow is on.
    pub(super) fn key(self) -> TimeoutKey {
        match self.0 {
            MAX_RETRANS.. => TimeoutKey::TcpMaxRetrans,
            UNACKNOWLEDGED.. => TimeoutKey::TcpUnacknowledged,
            _ => self.own().unwrap_or(TimeoutKey::Generic),
        }
    }

    /// How long it would wait with these timeouts: one that shortens the state's own is used where it does.
    pub(super) fn span(self, timeouts: &Timeouts) -> Ticks {
        let span = timeouts.get(self.key());
        if self.0 < UNACKNOWLEDGED {
            return span;
        }
        let state = TcpState::from_number(self.0 & 0xf);
        span.min(timeouts.get(state.timeout_key()))
    }
}

/// A flow's longest pause on the timeout that it last paused on. One is enough: flows go from one timeout to the next and do
/// not come back, but for connections that data waits in.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Longest {
    kind: u8,
    length: u8,
}

// SAFETY: made of integers only.
#[allow(unsafe_code)]
unsafe impl Zeroed for Longest {}

/// A pause that a packet has ended.
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    flow: FlowIndex,
    pause: Longest,
}

/// The pauses of all flows, of those that have ended too.
#[derive(Debug)]
pub(super) struct Pauses {
    /// By slab index; means something only where [`status::PAUSED`] is set. Touched only for a pause of a second or more.
    longest: Region<Longest>,
    /// Pauses whose place in `longest` is on its way from memory: one after the other, each would be waited for.
    ended: [Ended; BURST],
    waiting: usize,
    /// Flows by kind and the length of their longest pause on it.
    flows: Vec<[u64; LENGTHS]>,
    /// The timeouts, in ticks.
    spans: [u32; SPANS],
    /// When each of them last changed: what a deadline that is older was made of is not known.
    changed: [Tick; TimeoutKey::ALL.len()],
    /// Times that a connection's pauses went to or from a timeout for data that waits, from where it may come back: those
    /// before are counted and no longer known.
    crowded: u64,
}

/// A number between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Between {
    pub at_least: u64,
    pub at_most: u64,
}

impl Pauses {
    pub(super) const fn memory_bytes(max_entries: u32) -> usize {
        bytes_of::<Longest>(max_entries as usize + 1)
    }

    /// Nothing recorded; `None` if `memory` has not [`Self::memory_bytes`] left.
    pub(super) fn new(max_entries: u32, timeouts: &Timeouts, memory: &mut Memory) -> Option<Self> {
        let mut pauses = Self {
            // One for each slot of the slab, which has one more than there may be flows.
            longest: memory.take(max_entries as usize + 1)?,
            ended: [Ended::default(); BURST],
            waiting: 0,
            flows: vec![[0; LENGTHS]; KINDS],
            spans: [0; SPANS],
            changed: [Tick(0); TimeoutKey::ALL.len()],
            crowded: 0,
        };
        pauses.set(Tick(0), timeouts);
        Some(pauses)
    }

    /// The timeouts are these from now on.
    pub(super) fn set(&mut self, now: Tick, timeouts: &Timeouts) {
        for &key in TimeoutKey::ALL {
            let span = timeouts.get(key).0;
            if self.spans[key as usize] != span {
                self.spans[key as usize] = span;
                self.changed[key as usize] = now;
            }
        }
    }

    /// Whether a packet comes after a pause that is kept, to a flow with this head before it.
    #[inline(always)]
    pub(super) fn ends(&self, now: Tick, head: Head) -> bool {
        let span = self.spans[usize::from(head.timeout_key) % SPANS];
        // A deadline that lies beyond the timeout makes this a large number, which is looked at as well.
        now.low().wrapping_add(span).wrapping_sub(head.deadline) >= PER_SECOND
    }

    /// Takes the pause that a packet has ended, of the flow with this protocol and this head before it. [`Self::settle`] it
    /// before the flow ends and before there are more than [`BURST`].
    pub(super) fn end(&mut self, now: Tick, flow: FlowIndex, l4: u8, head: Head) {
        let Some((key, silent)) = self.silence(now, head) else { return };
        let pause = Longest { kind: Kind::of(l4, head, key).0, length: length_of(silent) };
        let (Some(line), Some(place)) = (self.longest.get(flow.0 as usize), self.ended.get_mut(self.waiting))
        else {
            return;
        };
        if pause.length > 0 {
            prefetch(line, PrefetchHint::T0);
            *place = Ended { flow, pause };
            self.waiting += 1;
        }
    }

    /// Whether pauses wait for [`Self::settle`].
    #[inline(always)]
    pub(super) fn are_unsettled(&self) -> bool {
        self.waiting > 0
    }

    /// Whether no more can wait.
    pub(super) fn are_many(&self) -> bool {
        self.waiting == self.ended.len()
    }

    /// Keeps the pauses that were taken. `table` has their flows.
    pub(super) fn settle(&mut self, table: &mut Table) {
        for at in 0..core::mem::take(&mut self.waiting) {
            let Ended { flow, pause } = self.ended[at];
            self.keep(flow, table.entry_mut(flow), pause);
        }
    }

    fn keep(&mut self, flow: FlowIndex, entry: &mut Entry, Longest { kind, length }: Longest) {
        let Some(line) = self.longest.get_mut(flow.0 as usize) else { return };
        if entry.head.status & status::PAUSED == 0 {
            entry.head.status |= status::PAUSED;
            *line = Longest::default();
        }
        // What it did on another timeout stays counted.
        if line.length > 0 && line.kind != kind {
            self.crowded += u64::from(line.kind.max(kind) >= UNACKNOWLEDGED);
            line.length = 0;
        }
        let Some(flows) = self.flows.get_mut(usize::from(kind)).filter(|_| line.length < length) else {
            return;
        };
        if line.length > 0 {
            flows[usize::from(line.length)] -= 1;
        }
        flows[usize::from(length)] += 1;
        *line = Longest { kind, length };
    }

    /// How long the flow has been silent, in ticks, and on which timeout: since that last changed at most. `None` where an
    /// operator has moved the deadline.
    pub(super) fn silence(&self, now: Tick, head: Head) -> Option<(TimeoutKey, u32)> {
        if head.timeout_key & TIMEOUT_EDITED != 0 {
            return None;
        }
        let key = *TimeoutKey::ALL.get(usize::from(head.timeout_key))?;
        let silent = now.low().wrapping_add(self.spans[key as usize]).wrapping_sub(head.deadline) as i32;
        let known = now.0.saturating_sub(self.changed[key as usize].0);
        Some((key, u64::from(silent.max(0) as u32).min(known) as u32))
    }

    /// Flows of this kind that spoke again after `span` of silence or more.
    pub(super) fn reaching(&self, kind: Kind, span: Ticks) -> Between {
        let Some(flows) = self.flows.get(usize::from(kind.0)) else { return Between::default() };
        let from = |length: usize| flows.get(length.max(1)..).unwrap_or_default().iter().sum();
        let surely = SHORTEST[1..].partition_point(|&shortest| shortest < span.0) + 1;
        Between { at_least: from(surely), at_most: from(usize::from(length_of(span.0))) }
    }

    pub(super) fn crowded(&self) -> u64 {
        self.crowded
    }
}

/// The shortest pause that is kept.
pub const PAUSE_MIN: Ticks = Ticks(SHORTEST[1]);

/// The length that a pause of so many ticks has: the last whose bound it reaches.
fn length_of(silent: u32) -> u8 {
    // Each row is asked, and none is a branch: which length a pause has is as good as random.
    let begun = PARTS.iter().map(|part| usize::from(silent >= part.first)).sum::<usize>();
    let Some(part) = begun.checked_sub(1).and_then(|last| PARTS.get(last)) else { return 0 };
    (part.number + ((silent - part.first) / part.step).min(part.how_many - 1)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::settings::{Profile, Settings};

    #[test]
    fn lengths_rise_and_are_exact_at_every_default() {
        assert!(SHORTEST.windows(2).all(|pair| pair[0] < pair[1]));
        for profile in [Profile::Classic, Profile::Linux] {
            for &key in TimeoutKey::ALL {
                let span = Settings::new(profile).timeouts.get(key).0;
                assert_eq!(SHORTEST[usize::from(length_of(span))], span, "{key:?}");
                assert_eq!(length_of(span), length_of(span - 1) + 1, "{key:?}");
            }
        }
        assert_eq!((length_of(0), length_of(PER_SECOND - 1), length_of(PER_SECOND)), (0, 0, 1));
        assert_eq!(SHORTEST[LENGTHS - 1], Ticks::MAX.0, "no timeout is longer");
    }

    #[test]
    fn a_pause_has_the_last_length_that_it_reaches() {
        for silent in
            SHORTEST.iter().flat_map(|&bound| [bound.saturating_sub(1), bound, bound + 1]).chain([u32::MAX])
        {
            let reached = SHORTEST[1..].iter().filter(|&&bound| bound <= silent).count();
            assert_eq!(usize::from(length_of(silent)), reached, "{silent}");
        }
    }
}
