//! Room 3: key → flow. Index, slab, prefetch, eviction; one owner, preallocated, never resized.
//!
//! A flow has a home bucket, by its hash, and one alternate, by its tag. Half of the slots stay empty at full
//! capacity, so that nearly every flow lives at home and a lookup is one line of the index and the flow's own
//! two. Every operation looks at a number of lines that does not depend on how many flows there are.

mod bucket;
pub mod cold;
pub mod entry;
pub mod memory;
#[cfg(test)]
pub(crate) mod model;

use bucket::{Bucket, SLOTS};
use core::fmt;
use core::ops::Range;
use entry::{Entry, status};
use memory::{Memory, Region, Zeroed, bytes_of};

use crate::key::FlowKey;

/// Flows per bucket when the table is full: half of its slots, above which second buckets begin to cost.
const LOAD: usize = SLOTS / 2;
/// Fewer buckets would make home and alternate coincide too often.
const MIN_BUCKETS: usize = 16;
/// Flows for which neither bucket had room, even after one move.
const STASH: usize = 64;
/// Entries that [`Table::victim`] looks at besides the new flow's two buckets.
pub const VICTIM_WINDOW: u32 = 32;

/// Names a slot of the slab; a live flow's name until it is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct FlowIndex(pub u32);

/// Into which cache a prefetch brings a line. Measure: on AMD Zen 4, T0 is limited by the L1 miss buffers and
/// T1 carries twice as many lines a second; on Intel T1 may occupy the same buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrefetchHint {
    T0,
    #[default]
    T1,
}

/// Why an entry could not be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// As many flows as the table was made for.
    Entries,
    /// Room in the slab, but none in the flow's two buckets, one move away from them, or in the stash.
    Buckets,
}

/// What the home bucket alone says of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Its tag is here; the key is not compared yet.
    Candidate(FlowIndex),
    /// Its tag is not here, but some flows of this bucket live elsewhere: prefetch the alternate.
    Elsewhere,
    /// It is not in the table.
    Absent,
}

/// The flows of one core. `PORTABLE` matches tags without the CPU's vector instructions.
#[derive(Debug)]
pub struct Table<const PORTABLE: bool = false> {
    /// One slot more than there may be flows, so that there is always one to make the next flow in.
    slab: Region<Entry>,
    buckets: Region<Bucket>,
    /// A stack of the indices below `fresh` that hold no flow.
    free: Region<u32>,
    free_len: usize,
    /// Indices from here on were never used.
    fresh: u32,
    len: u32,
    stash: Region<Stashed>,
    stash_len: usize,
    /// Where the next search for a victim starts.
    hand: u32,
    hint: PrefetchHint,
}

/// A flow outside the buckets.
#[derive(Clone, Copy)]
#[repr(C)]
struct Stashed {
    home: Home,
    index: u32,
}

// SAFETY: made of integers only.
#[allow(unsafe_code)]
unsafe impl Zeroed for Stashed {}

/// Where a hash belongs, and what stands for it there.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Home {
    bucket: u32,
    tag: u16,
}

fn buckets_for(max_entries: u32) -> usize {
    (max_entries as usize).div_ceil(LOAD).max(MIN_BUCKETS)
}

/// `x` spread over 0..n without a division: the high half of a product.
/// Lemire, "Fast Random Integer Generation in an Interval", section 4
#[inline(always)]
fn spread(x: u32, n: usize) -> u32 {
    ((u64::from(x) * n as u64) >> 32) as u32
}

impl<const PORTABLE: bool> Table<PORTABLE> {
    /// Bytes of [`Memory`] that a table of this capacity takes.
    pub const fn memory_bytes(max_entries: u32) -> usize {
        let n = max_entries as usize;
        let buckets = n.div_ceil(LOAD);
        let buckets = if buckets < MIN_BUCKETS { MIN_BUCKETS } else { buckets };
        bytes_of::<Entry>(n + 1)
            + bytes_of::<Bucket>(buckets)
            + bytes_of::<u32>(n + 1)
            + bytes_of::<Stashed>(STASH)
    }

    /// An empty table; `None` if `memory` has not [`Self::memory_bytes`] left.
    pub fn new(max_entries: u32, hint: PrefetchHint, memory: &mut Memory) -> Option<Self> {
        Some(Self {
            slab: memory.take(max_entries as usize + 1)?,
            buckets: memory.take(buckets_for(max_entries))?,
            free: memory.take(max_entries as usize + 1)?,
            free_len: 0,
            fresh: 0,
            len: 0,
            stash: memory.take(STASH)?,
            stash_len: 0,
            hand: 0,
            hint,
        })
    }

    /// Flows in the table.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most flows it can hold.
    pub fn capacity(&self) -> u32 {
        self.slab.len() as u32 - 1
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> Home {
        let bucket = spread(hash as u32, self.buckets.len());
        Home { bucket, tag: ((hash >> 48) as u16).max(1) }
    }

    /// The other bucket of an entry with this tag. The alternate of the alternate is the bucket itself, so that an
    /// entry can be moved by its tag, without its hash.
    #[inline(always)]
    fn other_bucket(&self, bucket: u32, tag: u16) -> u32 {
        // 2^32 / golden ratio: neighbouring tags lie far apart. Knuth, TAOCP volume 3, section 6.4
        let pivot = spread(u32::from(tag).wrapping_mul(0x9e37_79b1), self.buckets.len());
        if pivot >= bucket { pivot - bucket } else { pivot + self.buckets.len() as u32 - bucket }
    }

    /// Starts bringing the home bucket's line.
    #[inline(always)]
    pub fn prefetch_bucket(&self, hash: u64) {
        prefetch(&self.buckets[self.home(hash).bucket as usize], self.hint);
    }

    /// Starts bringing the alternate bucket's line, for [`Probe::Elsewhere`].
    #[inline(always)]
    pub fn prefetch_alternate(&self, hash: u64) {
        let home = self.home(hash);
        prefetch(&self.buckets[self.other_bucket(home.bucket, home.tag) as usize], self.hint);
    }

    /// Starts bringing both lines of an entry.
    #[inline(always)]
    pub fn prefetch_entry(&self, flow: FlowIndex) {
        prefetch_pair(&self.slab[flow.0 as usize], self.hint);
    }

    /// Starts bringing both lines of the entry that the `ahead`-th insertion from now will use (0: the next), if
    /// nothing is removed until then.
    #[inline(always)]
    pub fn prefetch_vacant(&self, ahead: u32) {
        let index = match self.free_len.checked_sub(ahead as usize + 1) {
            Some(top) => self.free[top],
            None => self.fresh.saturating_add(ahead - self.free_len as u32),
        };
        if let Some(entry) = self.slab.get(index as usize) {
            prefetch_pair(entry, self.hint);
        }
    }

    /// Starts bringing the flow that [`Self::victim`] will look at first for a new one with this hash, whose home bucket's
    /// line is there: for a table where each first packet ends another flow.
    #[inline]
    pub fn prefetch_victim(&self, hash: u64) {
        let bucket = &self.buckets[self.home(hash).bucket as usize];
        if let Some(slot) = (0..SLOTS).find(|&slot| bucket.tag(slot) != 0) {
            self.prefetch_entry(FlowIndex(bucket.index(slot)));
        }
    }

    /// Whether every entry is in use.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.len == self.capacity()
    }

    /// What the home bucket says; touches no entry. Holds until the next insertion or removal.
    #[inline(always)]
    pub fn probe(&self, hash: u64) -> Probe {
        let home = self.home(hash);
        let bucket = &self.buckets[home.bucket as usize];
        match bucket.matches::<PORTABLE>(home.tag).next() {
            Some(slot) => Probe::Candidate(FlowIndex(bucket.index(slot))),
            None if bucket.overflow == 0 => Probe::Absent,
            None => Probe::Elsewhere,
        }
    }

    /// The flow with this key, whose hash is `hash`.
    #[inline(always)]
    pub fn find(&self, hash: u64, key: &FlowKey) -> Option<FlowIndex> {
        let home = self.home(hash);
        let bucket = &self.buckets[home.bucket as usize];
        let found = self.find_in(bucket, home.tag, key);
        if found.is_some() || bucket.overflow == 0 {
            return found;
        }
        self.find_elsewhere(home, key)
    }

    /// The slot's entry, if it has this key. It may be of a flow that has ended: see [`status::LIVE`].
    #[inline(always)]
    pub fn entry_of(&mut self, flow: FlowIndex, key: &FlowKey) -> Option<&mut Entry> {
        let at = flow.0 as usize;
        // Not `get_mut` and `filter`: of those the compiler keeps two copies of the reference through all that follows.
        if at >= self.slab.len() || !same_key(&self.slab[at].key, key) {
            return None;
        }
        Some(&mut self.slab[at])
    }

    /// What the alternate bucket says, after [`Probe::Elsewhere`]; touches no entry.
    #[inline(always)]
    pub fn probe_alternate(&self, hash: u64) -> Option<FlowIndex> {
        let home = self.home(hash);
        let bucket = &self.buckets[self.other_bucket(home.bucket, home.tag) as usize];
        bucket.matches::<PORTABLE>(home.tag).next().map(|slot| FlowIndex(bucket.index(slot)))
    }

    #[inline(always)]
    fn find_in(&self, bucket: &Bucket, tag: u16, key: &FlowKey) -> Option<FlowIndex> {
        bucket
            .matches::<PORTABLE>(tag)
            .map(|slot| bucket.index(slot))
            .find(|&index| same_key(&self.slab[index as usize].key, key))
            .map(FlowIndex)
    }

    #[cold]
    fn find_elsewhere(&self, home: Home, key: &FlowKey) -> Option<FlowIndex> {
        let alternate = &self.buckets[self.other_bucket(home.bucket, home.tag) as usize];
        self.find_in(alternate, home.tag, key).or_else(|| {
            self.stash[..self.stash_len]
                .iter()
                .find(|stashed| stashed.home == home && same_key(&self.slab[stashed.index as usize].key, key))
                .map(|stashed| FlowIndex(stashed.index))
        })
    }

    /// Takes a slot to make a flow in. It goes into the table by [`Self::commit`], or else back by
    /// [`Self::give_back`], before another is taken.
    #[inline(always)]
    pub fn take_vacant(&mut self) -> FlowIndex {
        match self.free_len.checked_sub(1) {
            Some(top) => {
                self.free_len = top;
                FlowIndex(self.free[top])
            }
            None => {
                self.fresh += 1;
                FlowIndex(self.fresh - 1)
            }
        }
    }

    /// Gives back a slot that [`Self::take_vacant`] gave.
    #[inline(always)]
    pub fn give_back(&mut self, flow: FlowIndex) {
        self.slab[flow.0 as usize].head.status = 0;
        self.free[self.free_len] = flow.0;
        self.free_len += 1;
    }

    /// Puts the flow that was made in this slot into the index, where it is not yet, and marks it live. Where there is
    /// no room the slot stays taken.
    #[inline(always)]
    pub fn commit(&mut self, hash: u64, flow: FlowIndex) -> Result<(), Full> {
        if self.is_full() {
            return Err(Full::Entries);
        }
        let home = self.home(hash);
        let bucket = &mut self.buckets[home.bucket as usize];
        match bucket.vacant::<PORTABLE>() {
            Some(slot) => bucket.put(slot, home.tag, flow.0, false),
            None => self.insert_elsewhere(home, flow.0)?,
        }
        self.len += 1;
        self.slab[flow.0 as usize].head.status |= status::LIVE;
        Ok(())
    }

    /// Puts a flow in that is not there yet, and marks it live.
    pub fn insert(&mut self, hash: u64, entry: Entry) -> Result<FlowIndex, Full> {
        let flow = self.take_vacant();
        *self.entry_mut(flow) = entry;
        match self.commit(hash, flow) {
            Ok(()) => Ok(flow),
            Err(full) => {
                self.give_back(flow);
                Err(full)
            }
        }
    }

    /// The home bucket is full: the alternate, else one move out of either, else the stash.
    #[cold]
    fn insert_elsewhere(&mut self, home: Home, index: u32) -> Result<(), Full> {
        if self.buckets[home.bucket as usize].overflow == u16::MAX {
            return Err(Full::Buckets);
        }
        let other = self.other_bucket(home.bucket, home.tag);
        if other != home.bucket
            && let Some(slot) = self.buckets[other as usize].vacant::<PORTABLE>()
        {
            self.buckets[other as usize].put(slot, home.tag, index, true);
            self.buckets[home.bucket as usize].overflow += 1;
        } else if let Some(slot) = self.make_room(home.bucket) {
            self.buckets[home.bucket as usize].put(slot, home.tag, index, false);
        } else if other != home.bucket
            && let Some(slot) = self.make_room(other)
        {
            self.buckets[other as usize].put(slot, home.tag, index, true);
            self.buckets[home.bucket as usize].overflow += 1;
        } else if self.stash_len < STASH {
            self.stash[self.stash_len] = Stashed { home, index };
            self.stash_len += 1;
            self.buckets[home.bucket as usize].overflow += 1;
        } else {
            return Err(Full::Buckets);
        }
        Ok(())
    }

    /// Moves one entry of a full bucket to its other bucket; gives the slot that it left. Looks at [`SLOTS`]
    /// buckets at most.
    fn make_room(&mut self, full: u32) -> Option<usize> {
        for slot in 0..SLOTS {
            let Bucket { overflow, .. } = self.buckets[full as usize];
            let (tag, index, away) = {
                let bucket = &self.buckets[full as usize];
                (bucket.tag(slot), bucket.index(slot), bucket.is_away(slot))
            };
            let other = self.other_bucket(full, tag);
            if other == full || (!away && overflow == u16::MAX) {
                continue;
            }
            let Some(vacant) = self.buckets[other as usize].vacant::<PORTABLE>() else { continue };
            self.buckets[other as usize].put(vacant, tag, index, !away);
            self.buckets[full as usize].clear(slot);
            if away {
                self.buckets[other as usize].overflow -= 1;
            } else {
                self.buckets[full as usize].overflow += 1;
            }
            return Some(slot);
        }
        None
    }

    /// Takes a flow out. False, and nothing is changed, if it is not in the table under this hash.
    #[inline(always)]
    pub fn remove(&mut self, hash: u64, flow: FlowIndex) -> bool {
        let home = self.home(hash);
        let bucket = &mut self.buckets[home.bucket as usize];
        let slot = bucket.matches::<PORTABLE>(home.tag).find(|&slot| bucket.index(slot) == flow.0);
        match slot {
            Some(slot) => {
                bucket.clear(slot);
                if self.stash_len > 0 {
                    self.unstash(home.bucket, slot);
                }
            }
            None => {
                if !self.remove_elsewhere(home, flow) {
                    return false;
                }
            }
        }
        self.give_back(flow);
        self.len -= 1;
        true
    }

    #[cold]
    fn remove_elsewhere(&mut self, home: Home, flow: FlowIndex) -> bool {
        let other = self.other_bucket(home.bucket, home.tag);
        let bucket = &mut self.buckets[other as usize];
        let slot = bucket.matches::<PORTABLE>(home.tag).find(|&slot| bucket.index(slot) == flow.0);
        if let Some(slot) = slot {
            bucket.clear(slot);
            self.buckets[home.bucket as usize].overflow -= 1;
            self.unstash(other, slot);
            return true;
        }
        let stashed = &self.stash[..self.stash_len];
        let Some(at) = stashed.iter().position(|s| s.index == flow.0 && s.home == home) else { return false };
        self.unstash_at(at);
        self.buckets[home.bucket as usize].overflow -= 1;
        true
    }

    /// Moves a stashed flow whose bucket this is into the slot that became free, so that the stash empties again.
    #[cold]
    fn unstash(&mut self, bucket: u32, slot: usize) {
        for at in 0..self.stash_len {
            let Stashed { home, index } = self.stash[at];
            let away = home.bucket != bucket;
            if away && self.other_bucket(home.bucket, home.tag) != bucket {
                continue;
            }
            self.buckets[bucket as usize].put(slot, home.tag, index, away);
            if !away {
                self.buckets[bucket as usize].overflow -= 1;
            }
            self.unstash_at(at);
            return;
        }
    }

    fn unstash_at(&mut self, at: usize) {
        self.stash_len -= 1;
        self.stash[at] = self.stash[self.stash_len];
    }

    /// A slot of the slab. What it holds is a flow only if [`Self::is_live`].
    #[inline(always)]
    pub fn entry(&self, flow: FlowIndex) -> &Entry {
        &self.slab[flow.0 as usize]
    }

    /// As [`Self::entry`]. The key and [`status::LIVE`] are the table's own.
    #[inline(always)]
    pub fn entry_mut(&mut self, flow: FlowIndex) -> &mut Entry {
        &mut self.slab[flow.0 as usize]
    }

    /// Whether this slot holds a flow.
    pub fn is_live(&self, flow: FlowIndex) -> bool {
        self.slab.get(flow.0 as usize).is_some_and(|entry| entry.head.status & status::LIVE != 0)
    }

    /// Slots from here on were never used: where a walk over the slab ends.
    pub fn used_slots(&self) -> u32 {
        self.fresh
    }

    /// The live flows among these slots, in order. The range is the caller's budget.
    pub fn live(&self, slots: Range<u32>) -> impl Iterator<Item = (FlowIndex, &Entry)> {
        let end = slots.end.min(self.fresh);
        let start = slots.start.min(end);
        let entries = &self.slab[start as usize..end as usize];
        (start..end)
            .zip(entries)
            .filter(|(_, entry)| entry.head.status & status::LIVE != 0)
            .map(|(index, entry)| (FlowIndex(index), entry))
    }

    /// A flow that may make room for a new one with this hash: looks at the flows in the new one's two buckets,
    /// and, if it is entries that are lacking, at [`VICTIM_WINDOW`] slots that the next call will not look at.
    /// The one given is still in the table. Once it is removed, an insertion that was `full` succeeds, except that
    /// one that lacked entries may then lack buckets.
    #[cold]
    pub fn victim(
        &mut self,
        hash: u64,
        full: Full,
        mut accept: impl FnMut(&Entry) -> bool,
    ) -> Option<FlowIndex> {
        let home = self.home(hash);
        for bucket in [home.bucket, self.other_bucket(home.bucket, home.tag)] {
            let bucket = &self.buckets[bucket as usize];
            for slot in 0..SLOTS {
                if bucket.tag(slot) != 0 && accept(&self.slab[bucket.index(slot) as usize]) {
                    return Some(FlowIndex(bucket.index(slot)));
                }
            }
        }
        if full == Full::Buckets {
            return None;
        }
        for _ in 0..VICTIM_WINDOW.min(self.fresh) {
            let index = self.hand;
            self.hand = if index + 1 >= self.fresh { 0 } else { index + 1 };
            let entry = &self.slab[index as usize];
            if entry.head.status & status::LIVE != 0 && accept(entry) {
                return Some(FlowIndex(index));
            }
        }
        None
    }
}

/// Without a branch for each word: nearly every comparison after a tag match is of equal keys.
#[inline(always)]
fn same_key(a: &FlowKey, b: &FlowKey) -> bool {
    let (a, b) = (a.words(), b.words());
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) == 0
}

/// Starts bringing the first line of `what`.
#[inline(always)]
pub(crate) fn prefetch<T>(what: &T, hint: PrefetchHint) {
    prefetch_line(core::ptr::from_ref(what).cast(), hint);
}

/// Starts bringing both lines of an entry.
#[inline(always)]
fn prefetch_pair(entry: &Entry, hint: PrefetchHint) {
    let first = core::ptr::from_ref(entry).cast::<u8>();
    prefetch_line(first, hint);
    prefetch_line(first.wrapping_add(64), hint);
}

#[inline(always)]
#[allow(unsafe_code)]
fn prefetch_line(at: *const u8, hint: PrefetchHint) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see and faults at no address.
        unsafe {
            match hint {
                PrefetchHint::T0 => _mm_prefetch::<_MM_HINT_T0>(at.cast()),
                PrefetchHint::T1 => _mm_prefetch::<_MM_HINT_T1>(at.cast()),
            }
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (at, hint);
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entries => "every entry is in use",
            Self::Buckets => "both buckets of the flow and the stash are full",
        })
    }
}
