//! Hierarchical timer wheel: holds one reference per flow and gives it back when the flow must be looked at.
//! Sees no entry, no packet and no clock: who moved is told, `now` is passed in.
//!
//! A slot is a chain of chunks of slab indices; references are appended and taken at its head, so that only the
//! head chunk is ever partly filled. Armings far ahead go into wide slots; when such a slot's time begins, its flows
//! are handed out as if they were due, and the caller, who knows their deadlines, arms them again, closer.
//! So a packet never touches the wheel: it stores its flow's deadline, and the visit finds it.

use crate::table::FlowIndex;
use crate::table::memory::{Memory, Region, bytes_of};
use crate::tick::{Tick, Ticks};

/// Ticks in a slot of level 0: 32 ms. A flow is looked at less than this after its deadline.
pub const SLOT_TICKS: u64 = 8;
/// Slots of level n span 256 slots of level n-1: 32 ms, 8 s, 35 min, 6 days; in all 4 years.
const LEVELS: usize = 4;
const LEVEL_BITS: usize = 8;
const SLOTS: usize = 1 << LEVEL_BITS;

/// Words of a chunk: four cache lines. Two are its header, the rest references.
const CHUNK: usize = 64;
const HEADER: usize = 2;
const REFS: usize = CHUNK - HEADER;
/// Header words: the next chunk of the slot (or of the free chunks), and the slot.
const NEXT: usize = 0;
const SLOT: usize = 1;

/// No chunk.
const NONE: u32 = u32::MAX;

/// The largest distance that [`Armed::at`] lies before a deadline, so that both fit the signed difference of two
/// 32-bit ticks: the widest slot.
const MAX_EARLY: u64 = SLOT_TICKS << (LEVEL_BITS * (LEVELS - 1));

// The longest timeout fits the wheel, with the slot that is being drained to spare.
const _: () = assert!((Ticks::MAX.0 as u64) < MAX_EARLY * (SLOTS as u64 - 2));

/// Where the wheel put a flow; the caller stores both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    /// What [`Wheel::remove`] takes; good until the flow is handed out or moved.
    pub pos: u32,
    /// Low tick of the earliest deadline that this place serves in time; never later than the deadline asked for.
    /// A deadline that moves before it wants [`Wheel::remove`] and [`Wheel::arm`].
    pub at: u32,
}

/// Another flow's reference moved into the hole that a removal left: its stored position is to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub flow: FlowIndex,
    pub pos: u32,
}

/// The wheel of one core.
#[derive(Debug)]
pub struct Wheel {
    /// Chunks of [`CHUNK`] words.
    pool: Region<u32>,
    /// Of each slot, level after level, the place behind its newest reference: every chunk but the head is full. 0 if the
    /// slot is empty.
    ends: Region<u32>,
    /// A bit for each slot that is not empty.
    occupied: [[u64; SLOTS / 64]; LEVELS],
    /// The slot of level 0, counted from tick 0, at which the last visit stopped: all before it are empty.
    next: u64,
    /// Chunks that were used and are free: a chain.
    free: u32,
    /// Chunks from here on were never used.
    fresh: u32,
    len: u32,
    capacity: u32,
}

/// Each non-empty slot has at most one chunk that is not full, so n references in m slots take at most
/// (n + m * (REFS - 1)) / REFS chunks, where m is bounded by n and by the number of slots.
const fn chunks_for(capacity: u32) -> usize {
    let refs = capacity as usize;
    let slots = if refs < LEVELS * SLOTS { refs } else { LEVELS * SLOTS };
    (refs + slots * (REFS - 1)) / REFS
}

impl Wheel {
    /// Bytes of [`Memory`] that hold `capacity` references, however they are spread.
    pub const fn memory_bytes(capacity: u32) -> usize {
        bytes_of::<u32>(chunks_for(capacity) * CHUNK) + bytes_of::<u32>(LEVELS * SLOTS)
    }

    /// An empty wheel; `None` if `memory` has not [`Self::memory_bytes`] left.
    pub fn new(capacity: u32, memory: &mut Memory) -> Option<Self> {
        Some(Self {
            pool: memory.take(chunks_for(capacity) * CHUNK)?,
            ends: memory.take(LEVELS * SLOTS)?,
            occupied: [[0; SLOTS / 64]; LEVELS],
            next: 0,
            free: NONE,
            fresh: 0,
            len: 0,
            capacity,
        })
    }

    /// References held.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds the one reference of a flow, to be handed out by the first [`Self::take_due`] at `due` or up to
    /// [`SLOT_TICKS`] - 1 ticks later, or earlier, when a wide slot's time begins. A `due` that has passed is
    /// handed out by the next call.
    ///
    /// # Panics
    /// Holding more references than the capacity is a broken promise of the caller's.
    #[inline(always)]
    pub fn arm(&mut self, now: Tick, due: Tick, flow: FlowIndex) -> Armed {
        if self.len == 0 {
            // Nothing is waiting, so nothing is passed over: distances count from now.
            self.next = self.next.max(now.0 / SLOT_TICKS);
        }
        assert!(self.len < self.capacity, "one reference per flow, {} flows", self.capacity);
        self.len += 1;
        let wanted = due.0.div_ceil(SLOT_TICKS).max(self.next);
        let farthest = self.next + ((SLOTS as u64 - 1) << (LEVEL_BITS * (LEVELS - 1)));
        let slot = wanted.min(farthest);
        let level = ((u64::BITS - ((slot - self.next) | 1).leading_zeros() - 1) as usize) / LEVEL_BITS;
        let first = slot >> (LEVEL_BITS * level) << (LEVEL_BITS * level);
        let within = (slot >> (LEVEL_BITS * level)) as usize % SLOTS;
        let pos = self.push(level * SLOTS + within, flow);
        // Every deadline after the slot before `first` is looked at in time.
        let serves = (first.saturating_sub(1) * SLOT_TICKS + 1).max(due.0.saturating_sub(MAX_EARLY));
        Armed { pos, at: serves.min(due.0) as u32 }
    }

    /// Takes a flow's reference out. The slot's newest reference fills the hole.
    #[inline]
    pub fn remove(&mut self, pos: u32) -> Option<Moved> {
        let chunk = pos as usize / CHUNK;
        let slot = self.pool[chunk * CHUNK + SLOT] as usize;
        let gone = self.pool[pos as usize];
        let newest = (self.ends[slot] as usize).saturating_sub(1);
        let flow = self.pop(slot);
        debug_assert!(pos as usize % CHUNK >= HEADER && newest != 0, "a position that `arm` gave");
        if newest == pos as usize {
            debug_assert!(flow.0 == gone);
            return None;
        }
        self.pool[pos as usize] = flow.0;
        Some(Moved { flow, pos })
    }

    /// Hands out flows to look at, at most as many as fit `out`, and gives their number. Each one's reference is gone:
    /// the caller ends the flow or arms it again before it does anything else that looks at the flow's position. Fewer
    /// than fit means that nothing more is due at `now`.
    ///
    /// Slots that passed since the last call are visited in order, each once; empty ones cost nothing.
    pub fn take_due(&mut self, now: Tick, out: &mut [FlowIndex]) -> usize {
        let last = now.0 / SLOT_TICKS;
        let mut taken = 0;
        while taken < out.len() {
            match self.first_waiting() {
                Some((at, slot)) if at <= last => {
                    self.next = self.next.max(at);
                    while taken < out.len() && self.ends[slot] != 0 {
                        out[taken] = self.pop(slot);
                        taken += 1;
                    }
                }
                _ => {
                    // Not the slot after it: a deadline that has passed is then looked at by the next call.
                    self.next = self.next.max(last);
                    break;
                }
            }
        }
        taken
    }

    /// How late the oldest slot is whose time has come; `None` if none is waiting.
    pub fn lag(&self, now: Tick) -> Option<Ticks> {
        let (at, _) = self.first_waiting()?;
        let late = now.0.checked_sub(at * SLOT_TICKS)?;
        Some(Ticks(u32::try_from(late).unwrap_or(u32::MAX)))
    }

    /// The non-empty slot whose time comes first: when, counted in slots of level 0, and which. Of two slots with one
    /// time the wider one, so that what it held can still go into the narrower.
    fn first_waiting(&self) -> Option<(u64, usize)> {
        let mut first = None;
        for level in (0..LEVELS).rev() {
            let width = LEVEL_BITS * level;
            // The first slot of this level that begins at `next` or later.
            let from = self.next.div_ceil(1 << width);
            let Some(ahead) = first_set(&self.occupied[level], from as usize % SLOTS) else { continue };
            let at = (from + ahead as u64) << width;
            if first.is_none_or(|(earliest, _)| at < earliest) {
                first = Some((at, level * SLOTS + (from as usize + ahead) % SLOTS));
            }
        }
        first
    }

    /// Appends a reference to a slot; gives its position.
    #[inline(always)]
    fn push(&mut self, slot: usize, flow: FlowIndex) -> u32 {
        let mut end = self.ends[slot];
        // Behind the last place of a chunk, or of an empty slot.
        if (end as usize).is_multiple_of(CHUNK) {
            end = self.push_chunk(slot);
        }
        self.pool[end as usize] = flow.0;
        self.ends[slot] = end + 1;
        end
    }

    /// Puts an empty chunk before a slot's chain; gives the position of its first reference.
    #[cold]
    fn push_chunk(&mut self, slot: usize) -> u32 {
        let chunk = if self.free == NONE {
            self.fresh += 1;
            self.fresh - 1
        } else {
            let chunk = self.free;
            self.free = self.pool[chunk as usize * CHUNK + NEXT];
            chunk
        };
        let header = chunk as usize * CHUNK;
        // A full chunk ends where the next one of the pool begins.
        let before = self.ends[slot];
        self.pool[header + NEXT] = if before == 0 { NONE } else { before / CHUNK as u32 - 1 };
        self.pool[header + SLOT] = slot as u32;
        self.occupied[slot / SLOTS][slot % SLOTS / 64] |= 1 << (slot % 64);
        (header + HEADER) as u32
    }

    /// Takes the newest reference of a slot that has one.
    #[inline(always)]
    fn pop(&mut self, slot: usize) -> FlowIndex {
        let newest = self.ends[slot] - 1;
        let flow = FlowIndex(self.pool[newest as usize]);
        self.len -= 1;
        self.ends[slot] = newest;
        if newest as usize % CHUNK == HEADER {
            self.pop_chunk(slot);
        }
        flow
    }

    /// Frees the head chunk of a slot, which is empty.
    #[cold]
    fn pop_chunk(&mut self, slot: usize) {
        let chunk = self.ends[slot] / CHUNK as u32;
        let next = &mut self.pool[chunk as usize * CHUNK + NEXT];
        let rest = core::mem::replace(next, self.free);
        self.free = chunk;
        if rest == NONE {
            self.ends[slot] = 0;
            self.occupied[slot / SLOTS][slot % SLOTS / 64] &= !(1 << (slot % 64));
        } else {
            self.ends[slot] = (rest + 1) * CHUNK as u32;
        }
    }

    /// Chunks in use or used before: bounded by the references ever held at once, never by how often they moved.
    #[cfg(test)]
    pub(crate) fn chunks_touched(&self) -> usize {
        self.fresh as usize
    }
}

/// How far the first set bit is from `from` on, round the ring.
fn first_set(bits: &[u64; SLOTS / 64], from: usize) -> Option<usize> {
    let words = bits.len();
    let (word, bit) = (from / 64, from % 64);
    let after = bits[word] >> bit;
    if after != 0 {
        return Some(after.trailing_zeros() as usize);
    }
    (1..=words).find_map(|step| {
        let there = bits[(word + step) % words];
        (there != 0).then(|| step * 64 - bit + there.trailing_zeros() as usize)
    })
}
