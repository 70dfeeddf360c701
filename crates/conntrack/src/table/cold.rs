//! What few flows need: the carries of counters that passed 32 bits, sparse, and marks, one place for each slot of the
//! slab, because a policy may mark every flow. Preallocated; never sees a key or a packet.

use super::FlowIndex;
use super::entry::{Entry, status};
use super::memory::{Memory, Region, Zeroed, bytes_of};
use crate::key::Direction;

/// A flow needs a line once it has carried 4 GB or 4 thousand million packets one way: one in 64 is plenty.
const FLOWS_PER_LINE: usize = 64;
const MIN_LINES: usize = 1024;
/// Slots per line: half of them stay empty, so that probes are short.
const SPARE: usize = 2;
/// Slots that a search looks at, at most.
const PROBES: usize = 32;

/// Which counter wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Packets,
    Bytes,
}

/// No line is free for one more flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLine;

/// The sparse part of all flows.
#[derive(Debug)]
pub struct Cold {
    lines: Region<Line>,
    /// By slab index; means something only where [`status::MARKED`] is set, so that ending a flow touches nothing here.
    marks: Region<u32>,
    len: usize,
    max: usize,
    saturated: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Line {
    /// Slab index + 1; 0: empty.
    owner: u32,
    /// High words, by direction.
    packets: [u32; 2],
    bytes: [u32; 2],
}

// SAFETY: made of integers only.
#[allow(unsafe_code)]
unsafe impl Zeroed for Line {}

const fn max_lines(max_entries: u32) -> usize {
    let lines = max_entries as usize / FLOWS_PER_LINE;
    if lines < MIN_LINES { MIN_LINES } else { lines }
}

impl Cold {
    /// Bytes of [`Memory`] for a table of this capacity.
    pub const fn memory_bytes(max_entries: u32) -> usize {
        bytes_of::<Line>(max_lines(max_entries) * SPARE) + bytes_of::<u32>(max_entries as usize + 1)
    }

    /// No line in use; `None` if `memory` has not [`Self::memory_bytes`] left.
    pub fn new(max_entries: u32, memory: &mut Memory) -> Option<Self> {
        let max = max_lines(max_entries);
        Some(Self {
            lines: memory.take(max * SPARE)?,
            // One for each slot of the slab, which has one more than there may be flows.
            marks: memory.take(max_entries as usize + 1)?,
            len: 0,
            max,
            saturated: 0,
        })
    }

    /// Counts one packet of `bytes` bytes. A counter that would pass 32 bits while no line is free stays at
    /// 2^32 - 1 and [`Self::saturated`] grows; it goes on once a line is free again.
    #[inline(always)]
    pub fn count(&mut self, flow: FlowIndex, entry: &mut Entry, direction: Direction, bytes: u32) {
        let way = direction.index();
        let (packets, packets_wrapped) = entry.packets[way].overflowing_add(1);
        let (bytes, bytes_wrapped) = entry.bytes[way].overflowing_add(bytes);
        entry.packets[way] = packets;
        entry.bytes[way] = bytes;
        if packets_wrapped {
            self.carry_or_saturate(flow, entry, direction, Which::Packets);
        }
        if bytes_wrapped {
            self.carry_or_saturate(flow, entry, direction, Which::Bytes);
        }
    }

    #[cold]
    fn carry_or_saturate(&mut self, flow: FlowIndex, entry: &mut Entry, direction: Direction, which: Which) {
        if self.add_carry(flow, entry, direction, which).is_err() {
            self.saturated += 1;
            match which {
                Which::Packets => entry.packets[direction.index()] = u32::MAX,
                Which::Bytes => entry.bytes[direction.index()] = u32::MAX,
            }
        }
    }

    /// Adds 2^32 to a counter whose low word, in the entry, has wrapped.
    pub fn add_carry(
        &mut self,
        flow: FlowIndex,
        entry: &mut Entry,
        direction: Direction,
        which: Which,
    ) -> Result<(), NoLine> {
        let at = match self.find(flow) {
            Ok(at) => {
                if entry.head.status & status::COLD == 0 {
                    // Left by an earlier flow in this slot that was not forgotten.
                    self.lines[at] = Line { owner: flow.0 + 1, ..Line::default() };
                }
                at
            }
            Err(Some(at)) if self.len < self.max => {
                self.lines[at] = Line { owner: flow.0 + 1, ..Line::default() };
                self.len += 1;
                at
            }
            Err(_) => return Err(NoLine),
        };
        entry.head.status |= status::COLD;
        let line = &mut self.lines[at];
        let high = match which {
            Which::Packets => &mut line.packets[direction.index()],
            Which::Bytes => &mut line.bytes[direction.index()],
        };
        *high = high.wrapping_add(1);
        Ok(())
    }

    /// The high words of the flow's counters: of its packets and of its bytes, by [`Direction::index`].
    #[inline(always)]
    pub fn high(&self, flow: FlowIndex, entry: &Entry) -> [[u32; 2]; 2] {
        if entry.head.status & status::COLD == 0 { [[0; 2]; 2] } else { self.high_words(flow) }
    }

    #[cold]
    fn high_words(&self, flow: FlowIndex) -> [[u32; 2]; 2] {
        self.find(flow).map_or([[0; 2]; 2], |at| [self.lines[at].packets, self.lines[at].bytes])
    }

    /// Frees the line of a flow that ends, if it has one.
    #[inline(always)]
    pub fn forget(&mut self, flow: FlowIndex, entry: &mut Entry) {
        if entry.head.status & status::COLD != 0 {
            entry.head.status &= !status::COLD;
            self.free(flow);
        }
    }

    #[cold]
    fn free(&mut self, flow: FlowIndex) {
        let Ok(mut hole) = self.find(flow) else { return };
        // Close the gap, so that a search may stop at the first empty slot: each following line moves into the
        // hole unless that would put it before its home. Knuth, TAOCP volume 3, section 6.4, algorithm R
        let slots = self.lines.len();
        let distance = |from: usize, to: usize| (to + slots - from) % slots;
        let mut at = hole;
        // A cluster is never longer than the slots in use.
        for _ in 0..self.len {
            at = (at + 1) % slots;
            let owner = self.lines[at].owner;
            if owner == 0 {
                break;
            }
            let home = self.home(owner - 1);
            if distance(home, hole) <= distance(home, at) {
                self.lines[hole] = self.lines[at];
                hole = at;
            }
        }
        self.lines[hole] = Line::default();
        self.len -= 1;
    }

    /// The flow's mark; 0 unless it was given one.
    pub fn mark(&self, flow: FlowIndex, entry: &Entry) -> u32 {
        if entry.head.status & status::MARKED == 0 { 0 } else { self.marks[flow.0 as usize] }
    }

    /// Gives the flow a mark.
    pub fn set_mark(&mut self, flow: FlowIndex, entry: &mut Entry, mark: u32) {
        entry.head.status &= !status::MARKED;
        if mark != 0 {
            entry.head.status |= status::MARKED;
            self.marks[flow.0 as usize] = mark;
        }
    }

    /// Flows that have a line.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no flow has a line.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Carries that were lost because no line was free: the counters they belong to stood still at 2^32 - 1.
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    fn home(&self, index: u32) -> usize {
        let mixed = index.wrapping_mul(0x9e37_79b1);
        ((u64::from(mixed) * self.lines.len() as u64) >> 32) as usize
    }

    /// The slot of a flow's line; if it has none, the slot where one may be put.
    fn find(&self, flow: FlowIndex) -> Result<usize, Option<usize>> {
        let slots = self.lines.len();
        let mut at = self.home(flow.0);
        for _ in 0..PROBES {
            match self.lines[at].owner {
                0 => return Err(Some(at)),
                owner if owner - 1 == flow.0 => return Ok(at),
                _ => at = if at + 1 == slots { 0 } else { at + 1 },
            }
        }
        Err(None)
    }
}
