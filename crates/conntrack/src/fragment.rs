//! Between rooms 1 and 2: fragments → datagrams, as Linux puts them together before tracking. Owns copies of the
//! fragments' bytes and the names under which the caller holds the frames themselves; never sees a flow.
//!
//! Everything is taken at start: slots for datagrams, pages for their bytes, room for the list of each one's runs. When
//! any of them is used up, the oldest datagram makes room.

mod distance;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::fault::{Fault, planted, slip};
use crate::key::hash::Hasher;
use crate::key::{FlowKey, kind};
use crate::tick::{PER_SECOND, Tick, Ticks};
use crate::wire::checksum::Sum;
use crate::wire::{Addr, Datagram, Family, Fragment, noted};

pub use distance::Distances;

/// Where the fragments of a datagram meet, if there are several workers.
#[derive(Clone, Debug)]
pub enum Meeting {
    /// At the worker that receives them: whatever may belong together comes to one. The datagram then goes to the owner
    /// of its flow by the same way as the flow's whole packets, and behind those that came before it.
    Entry,
    /// At the owner of what ties them together, wherever they enter. The counts are the same for all workers.
    Owner(Distances),
}

/// Names a datagram whose fragments are held; never used twice while frames are held under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeldId(pub u32);

/// What to do with a fragment's frame.
#[derive(Clone, Copy, Debug)]
pub enum Reassembly<'a> {
    /// Keep the frame under this name; where payloads are not kept, do not.
    Held(HeldId),
    /// The last piece: the datagram is whole. The frames held under `held`, if there are any, go where this frame goes,
    /// and before it.
    Complete { held: Option<HeldId>, datagram: Datagram<'a> },
    /// All of its bytes are held already, or it has none: drop the frame; the datagram goes on waiting.
    Redundant,
    /// It contradicts its datagram, or there is no room for it: drop the frame. If frames of the datagram were held,
    /// [`Fragments::take_discarded`] names them.
    Discarded,
    /// It cannot be part of a datagram; the kernel tracks it as it stands: see [`crate::wire::parse_unheld`]. If frames
    /// of its datagram were held, [`Fragments::take_discarded`] names them.
    NotHeld,
}

/// How long an incomplete datagram waits, from its first fragment on: `ipfrag_time` and
/// `nf_conntrack_frag6_timeout`.
const TIMEOUT_V4: Ticks = Ticks::from_secs(30);
const TIMEOUT_V6: Ticks = Ticks::from_secs(60);

/// The largest IPv4 packet, and the largest IPv6 payload. RFC 791 section 3.1, RFC 8200 section 3
const LENGTH_MAX: u32 = 65_535;

/// So many fragments of one source may come between two of the same IPv4 datagram; after more, what is held is taken
/// for an older datagram with the same identification: `ipfrag_max_dist`.
const DISTANCE_MAX: u32 = 64;

/// Bytes of a page of a datagram's payload: one page holds a usual fragment.
const PAGE_BYTES: usize = 2048;
const PAGES_PER_DATAGRAM: usize = (LENGTH_MAX as usize).div_ceil(PAGE_BYTES);

/// Pages for each slot, on average: 4 KiB a datagram, as many as the kernel's 4 MiB give 1024 of them.
const PAGES_PER_SLOT: usize = 2;

/// Frames held for each slot, on average: an 8 KB datagram over an MTU of 1500 has six, one of 3 KB has three. The
/// oldest datagrams make room when most are longer.
const FRAMES_PER_SLOT: usize = 4;

/// The most frames held for datagrams that wait, of at most `max_datagrams`; whoever holds them needs room for so many.
pub const fn frames_max(max_datagrams: u16) -> usize {
    let frames = max_datagrams as usize * FRAMES_PER_SLOT;
    if frames < RUNS_MAX { RUNS_MAX } else { frames }
}

/// Runs of one datagram: pieces that came out of order. A datagram of 65535 bytes is 119 pieces on the smallest IPv4
/// path that every host must serve (576 bytes); one cut smaller and shuffled more is discarded.
const RUNS_MAX: usize = 128;

/// Names of discarded datagrams beyond one for each slot: what a burst can add to them.
const DISCARDED_EXTRA: usize = 64;

/// Datagrams that each new fragment ends at most for their age, besides its own.
const EXPIRE_PER_FRAGMENT: u32 = 4;

/// No slot, page or peer.
const NONE: u16 = u16::MAX;

/// Consecutive bytes of a datagram, `start` to `end`, as they came one behind the other.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    start: u32,
    end: u32,
}

/// In [`FlowKey::kind`] of a [`DatagramKey`], above the bits of an ingress: handed here piece by piece.
const AGAIN: u8 = 0x40;

/// What ties fragments together: source, destination, identification, zone and, in IPv4, the protocol; in the form of a
/// flow key, for its hash.
type DatagramKey = FlowKey;

#[derive(Clone, Debug)]
struct Slot {
    key: DatagramKey,
    /// Goes up with each use, so that a [`HeldId`] is not used twice.
    generation: u16,
    runs: u16,
    frames: u32,
    pages: [u16; PAGES_PER_DATAGRAM],
    /// Bytes from the first to the end of the farthest piece.
    len: u32,
    /// Bytes that are there.
    have: u32,
    /// The last piece has come, so `len` is the datagram's length.
    has_last: bool,
    /// Of the payload, where that is not kept.
    sum: Sum,
    /// From the first piece.
    proto: u8,
    hop_limit: u8,
    header_bytes: u32,
    opened: Tick,
    /// IPv4: who counts the source's fragments, and the count at this datagram's latest one.
    peer: u16,
    seen: u32,
    /// The next slot of the same bucket, or the next free one.
    next: u16,
    /// Age order within the family.
    older: u16,
    newer: u16,
}

/// Counts a source's fragments while datagrams of it wait.
#[derive(Clone, Copy, Debug)]
struct Peer {
    src: Addr,
    seen: u32,
    datagrams: u16,
    next: u16,
}

/// The waiting datagrams of one family, oldest first. Each family has one timeout, so this is their deadlines' order
/// too.
#[derive(Clone, Copy, Debug)]
struct Age {
    oldest: u16,
    newest: u16,
}

/// The datagrams that are being put together.
#[derive(Debug)]
pub struct Fragments {
    hasher: Hasher,
    slots: Box<[Slot]>,
    runs: Box<[Run]>,
    buckets: Box<[u16]>,
    /// Where several workers put datagrams of one source together; else the peers count.
    distances: Option<Distances>,
    peers: Box<[Peer]>,
    peer_buckets: Box<[u16]>,
    /// Where payloads are not kept: the start of each slot's.
    heads: Option<Box<[[u8; noted::HEAD_BYTES]]>>,
    pages: Box<[u8]>,
    free_pages: Vec<u16>,
    free_slots: u16,
    free_peers: u16,
    /// Indexed by [`age`].
    ages: [Age; 2],
    /// Not taken yet. With those that wait, never more than its capacity, so that no name is ever lost.
    discarded: Vec<HeldId>,
    /// Held for datagrams that wait.
    frames: usize,
    waiting: usize,
    evicted: u64,
    timed_out: u64,
    /// A whole datagram, for the caller to read.
    whole: Box<[u8]>,
}

/// The most datagrams that can wait at once: the numbers of their slots leave one for [`NONE`].
pub const MAX_DATAGRAMS: u16 = 32_768;

impl Fragments {
    /// Room for `max_datagrams` at once, at least 1 and at most [`MAX_DATAGRAMS`]: the only allocation. About 6 KiB each.
    pub fn new(max_datagrams: u16, hasher: Hasher) -> Self {
        Self::with_pages(max_datagrams, hasher, PAGES_PER_SLOT)
    }

    /// As [`Fragments::new`], but of the payloads no more is kept than [`noted`] needs, and no frame is to be held. About
    /// 2 KiB each.
    pub fn without_payloads(max_datagrams: u16, hasher: Hasher) -> Self {
        let mut all = Self::with_pages(max_datagrams, hasher, 0);
        all.heads = Some(vec![[0; noted::HEAD_BYTES]; all.slots.len()].into_boxed_slice());
        all
    }

    fn with_pages(max_datagrams: u16, hasher: Hasher, pages_per_slot: usize) -> Self {
        let slots = usize::from(max_datagrams.clamp(1, MAX_DATAGRAMS));
        let buckets = (slots * 2).next_power_of_two();
        // A single datagram of the greatest length always fits; page numbers stay below `NONE`.
        let least = if pages_per_slot == 0 { 0 } else { PAGES_PER_DATAGRAM };
        let pages = (slots * pages_per_slot).max(least).min(usize::from(NONE) - 1);
        let slot = |next: usize| Slot { next: link(next, slots), ..Slot::EMPTY };
        let peer =
            |next: usize| Peer { src: Addr::default(), seen: 0, datagrams: 0, next: link(next, slots) };
        Self {
            hasher,
            slots: (1..=slots).map(slot).collect(),
            runs: vec![Run::default(); slots * RUNS_MAX].into_boxed_slice(),
            buckets: vec![NONE; buckets].into_boxed_slice(),
            distances: None,
            peers: (1..=slots).map(peer).collect(),
            peer_buckets: vec![NONE; buckets].into_boxed_slice(),
            heads: None,
            pages: vec![0; pages * PAGE_BYTES].into_boxed_slice(),
            free_pages: (0..pages as u16).rev().collect(),
            free_slots: 0,
            free_peers: 0,
            ages: [Age { oldest: NONE, newest: NONE }; 2],
            discarded: Vec::with_capacity(slots + DISCARDED_EXTRA),
            frames: 0,
            waiting: 0,
            evicted: 0,
            timed_out: 0,
            whole: vec![0; PAGES_PER_DATAGRAM * PAGE_BYTES].into_boxed_slice(),
        }
    }

    /// Has the distance between fragments of one source counted together with others who put its datagrams together.
    pub fn count_with(&mut self, distances: Distances) {
        self.distances = Some(distances);
    }

    /// Whether payloads are kept, and frames are to be held.
    pub fn keeps_payloads(&self) -> bool {
        self.heads.is_none()
    }

    /// Datagrams at most.
    pub fn max_datagrams(&self) -> u16 {
        self.slots.len() as u16
    }

    /// The most frames held for datagrams that wait. Those of discarded datagrams come on top until they are taken: at
    /// most as many as fragments were added since.
    pub fn frames_max(&self) -> usize {
        frames_max(self.slots.len() as u16)
    }

    /// Datagrams that wait for more.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Frames that are held for them.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Datagrams that made room for others, since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Datagrams whose time ran out, since the start.
    pub fn timed_out(&self) -> u64 {
        self.timed_out
    }

    /// Takes one fragment, which came at `now` in `zone` from the side `ingress`. The side tells fragments apart only
    /// where the destination means another host on each link: link-local and multicast in IPv6.
    pub fn add(&mut self, now: Tick, fragment: &Fragment<'_>, zone: u16, ingress: u8) -> Reassembly<'_> {
        self.expire(now, EXPIRE_PER_FRAGMENT);
        let key = key_of(fragment, zone, ingress);
        self.take(now, key, fragment, true)
    }

    /// As [`Fragments::add`], of a datagram that another worker has found whole and handed here piece by piece. Its
    /// pieces meet no others than such: with those that [`Fragments::add`] was given they could make up a datagram
    /// that nobody sent, of a flow that is another worker's.
    pub fn add_again(
        &mut self,
        now: Tick,
        fragment: &Fragment<'_>,
        zone: u16,
        ingress: u8,
    ) -> Reassembly<'_> {
        self.expire(now, EXPIRE_PER_FRAGMENT);
        let key = key_of(fragment, zone, ingress);
        let key = DatagramKey { kind: key.kind | AGAIN, ..key };
        // Other fragments of the source may come by other rings between its pieces; the distance was counted where
        // the datagram was found whole.
        self.take(now, key, fragment, false)
    }

    /// The hash of what ties a fragment to others: whoever owns it puts the datagram together. Keyed, so that nobody
    /// chooses who that is. Without the identification: a flow's datagrams meet at one place, and keep their order.
    pub fn hash(&self, fragment: &Fragment<'_>, zone: u16, ingress: u8) -> u64 {
        self.hasher.hash(&DatagramKey { lo_id: 0, hi_id: 0, ..key_of(fragment, zone, ingress) })
    }

    fn take(
        &mut self,
        now: Tick,
        key: DatagramKey,
        fragment: &Fragment<'_>,
        count_distance: bool,
    ) -> Reassembly<'_> {
        let mut slot = self.find(&key);
        if let Some(late) = slot.filter(|&slot| self.slots[usize::from(slot)].is_late(now)) {
            self.timed_out += 1;
            self.discard(late);
            slot = None;
        }
        let mut seen = 0;
        if count_distance {
            (slot, seen) = self.count_distance(fragment, slot);
        }
        let (place, slot) = match Place::of(fragment) {
            Ok(place) => (place, slot),
            Err(refusal) => return self.refuse(slot, refusal),
        };
        let Some(slot) = slot.or_else(|| self.open(now, key, fragment, seen)) else {
            return Reassembly::Discarded;
        };
        if let Err(refusal) = self.extend(slot, place, fragment) {
            return self.refuse(Some(slot), refusal);
        }
        if let Err(refusal) = self.insert(slot, place) {
            return self.refuse(Some(slot), refusal);
        }
        if self.store(slot, place, fragment.payload).is_err() {
            return Reassembly::Discarded;
        }
        let entry = &mut self.slots[usize::from(slot)];
        entry.have += place.end - place.start;
        if place.start == 0 {
            entry.proto = fragment.proto;
            entry.hop_limit = fragment.hop_limit;
            entry.header_bytes = fragment.header_bytes;
        }
        if entry.has_last && entry.have == entry.len {
            return self.complete(slot);
        }
        match self.hold(slot) {
            Ok(id) => Reassembly::Held(id),
            Err(Full) => Reassembly::Discarded,
        }
    }

    /// Ends up to `budget` datagrams whose time has passed; gives how many. Ask [`Fragments::take_discarded`] afterwards.
    pub fn expire(&mut self, now: Tick, budget: u32) -> u32 {
        let mut expired = 0;
        for age in [V4, V6] {
            while expired < budget {
                let oldest = self.ages[age].oldest;
                match self.slots.get(usize::from(oldest)) {
                    Some(slot) if slot.is_late(now) => self.discard(oldest),
                    _ => break,
                }
                self.timed_out += 1;
                expired += 1;
            }
        }
        expired
    }

    /// A datagram that will never be completed: free its frames. Ask until `None` after each burst and tick: while
    /// names wait here, fewer new datagrams are taken.
    pub fn take_discarded(&mut self) -> Option<HeldId> {
        self.discarded.pop()
    }

    fn refuse(&mut self, slot: Option<u16>, refusal: Refusal) -> Reassembly<'_> {
        let (ends, answer) = match refusal {
            Refusal::Redundant => (false, Reassembly::Redundant),
            Refusal::Contradiction => (true, Reassembly::Discarded),
            Refusal::NotHeld => (true, Reassembly::NotHeld),
        };
        if ends && let Some(slot) = slot {
            self.discard(slot);
        }
        answer
    }

    /// Counts an IPv4 fragment of its source, and ends a datagram whose latest fragment lies too far back. Gives the
    /// datagram that is left, and the count.
    fn count_distance(&mut self, fragment: &Fragment<'_>, slot: Option<u16>) -> (Option<u16>, u32) {
        if fragment.family == Family::V6 {
            return (slot, 0);
        }
        let seen = match &self.distances {
            Some(distances) => distances.count(self.hasher.hash(&peer_key(&fragment.src))),
            None => self.find_peer(&fragment.src).map_or(0, |peer| {
                let peer = &mut self.peers[usize::from(peer)];
                peer.seen = peer.seen.wrapping_add(1);
                peer.seen
            }),
        };
        let Some(at) = slot else { return (None, seen) };
        let entry = &mut self.slots[usize::from(at)];
        let far = seen.wrapping_sub(entry.seen) > DISTANCE_MAX && !planted(Fault::FragmentDistance);
        if far && entry.runs > 0 {
            self.discard(at);
            return (None, seen);
        }
        entry.seen = seen;
        (slot, seen)
    }

    /// Lets the datagram's length grow with a fragment, which may also contradict it.
    fn extend(&mut self, slot: u16, place: Place, fragment: &Fragment<'_>) -> Result<(), Refusal> {
        let entry = &mut self.slots[usize::from(slot)];
        // IPv4 gives the datagram up where IPv6 only passes over the fragment.
        let refusal = match fragment.family {
            Family::V4 => Refusal::Contradiction,
            Family::V6 => Refusal::Redundant,
        };
        if fragment.more {
            if place.end > entry.len {
                if entry.has_last && !planted(Fault::FragmentBeyondLast) {
                    return Err(refusal);
                }
                entry.len = place.end;
            }
        } else {
            if place.end < entry.len || (entry.has_last && place.end != entry.len) {
                return Err(refusal);
            }
            entry.has_last = true;
            entry.len = place.end;
        }
        if place.start == place.end { Err(refusal) } else { Ok(()) }
    }

    /// Notes which bytes have come. Only a piece that follows directly on the farthest one joins it; a repetition is
    /// recognised within one run, and any other overlap ends the datagram (RFC 8200 section 4.5, and Linux for IPv4).
    fn insert(&mut self, slot: u16, place: Place) -> Result<(), Refusal> {
        let Place { start, end } = place;
        let base = usize::from(slot) * RUNS_MAX;
        let runs = &mut self.runs[base..base + RUNS_MAX];
        let entry = &mut self.slots[usize::from(slot)];
        let count = usize::from(entry.runs);
        let at = match runs[..count].last_mut() {
            Some(last) if last.end < end => {
                if start < last.end && !planted(Fault::FragmentOverlap) {
                    return Err(Refusal::Contradiction);
                }
                if start <= last.end {
                    last.end = end;
                    return Ok(());
                }
                count
            }
            _ => {
                let at = runs[..count].partition_point(|run| run.end <= start);
                match runs[..count].get(at) {
                    Some(run)
                        if run.start <= start && end <= run.end && !planted(Fault::FragmentRepeated) =>
                    {
                        return Err(Refusal::Redundant);
                    }
                    Some(run) if run.start < end => return Err(Refusal::Contradiction),
                    _ => at,
                }
            }
        };
        if count == RUNS_MAX {
            return Err(Refusal::Contradiction);
        }
        runs.copy_within(at..count, at + 1);
        runs[at] = Run { start, end };
        entry.runs += 1;
        Ok(())
    }

    /// Copies a piece's bytes into the datagram's pages. Bytes beyond the greatest length are left out: such a
    /// datagram is never read.
    fn store(&mut self, slot: u16, place: Place, payload: &[u8]) -> Result<(), Full> {
        if let Some(heads) = &mut self.heads {
            let payload = &payload[..(place.end - place.start) as usize];
            // Every piece starts at a multiple of eight, and only the last has an odd end.
            let entry = &mut self.slots[usize::from(slot)];
            entry.sum = entry.sum.add(payload);
            if let Some(to) = heads[usize::from(slot)].get_mut(place.start as usize..) {
                let kept = to.len().min(payload.len());
                to[..kept].copy_from_slice(&payload[..kept]);
            }
            return Ok(());
        }
        let start = place.start as usize;
        let end = (place.end as usize).min(PAGES_PER_DATAGRAM * PAGE_BYTES);
        let mut payload = payload;
        let mut at = start;
        while at < end {
            let index = at / PAGE_BYTES;
            if self.slots[usize::from(slot)].pages[index] == NONE {
                let page = self.take_page(slot)?;
                self.slots[usize::from(slot)].pages[index] = page;
            }
            let page = usize::from(self.slots[usize::from(slot)].pages[index]) * PAGE_BYTES;
            let within = at % PAGE_BYTES;
            let bytes = (PAGE_BYTES - within).min(end - at);
            let (piece, rest) = payload.split_at(bytes);
            self.pages[page + within..page + within + bytes].copy_from_slice(piece);
            payload = rest;
            at += bytes;
        }
        Ok(())
    }

    /// A free page for `slot`; others make room. `Err` if `slot` is itself the oldest, and gone.
    fn take_page(&mut self, slot: u16) -> Result<u16, Full> {
        loop {
            if let Some(page) = self.free_pages.pop() {
                return Ok(page);
            }
            self.evict_for(slot)?;
        }
    }

    fn hold(&mut self, slot: u16) -> Result<HeldId, Full> {
        if self.heads.is_some() {
            return Ok(self.held_id(slot));
        }
        while self.frames >= self.frames_max() {
            self.evict_for(slot)?;
        }
        self.frames += 1;
        self.slots[usize::from(slot)].frames += 1;
        Ok(self.held_id(slot))
    }

    /// Ends the oldest datagram, to the good of `slot`.
    fn evict_for(&mut self, slot: u16) -> Result<(), Full> {
        let oldest = self.oldest().unwrap_or(slot);
        self.evicted += 1;
        self.discard(oldest);
        if oldest == slot { Err(Full) } else { Ok(()) }
    }

    fn oldest(&self) -> Option<u16> {
        let [v4, v6] = self.ages.map(|age| age.oldest);
        let opened = |slot: u16| self.slots.get(usize::from(slot)).map(|slot| slot.opened);
        match (opened(v4), opened(v6)) {
            (Some(a), Some(b)) => Some(if a <= b { v4 } else { v6 }),
            (Some(_), None) => Some(v4),
            (None, Some(_)) => Some(v6),
            (None, None) => None,
        }
    }

    /// All of it is there: reads it as one, and frees its place.
    fn complete(&mut self, slot: u16) -> Reassembly<'_> {
        let entry = &self.slots[usize::from(slot)];
        let header_bytes = if planted(Fault::FragmentBytes) { 0 } else { entry.header_bytes };
        let ip_bytes = header_bytes + entry.len;
        // What IPv6's length field counts starts behind the fixed header.
        let counted = match family_of(&entry.key) {
            Family::V4 => ip_bytes,
            Family::V6 => ip_bytes.saturating_sub(40),
        };
        if counted > LENGTH_MAX {
            self.discard(slot);
            return Reassembly::Discarded;
        }
        let len = entry.len as usize;
        let rest = self.heads.is_some().then_some(noted::Rest { bytes: entry.len, sum: entry.sum });
        let kept = if rest.is_some() { 0 } else { len };
        for (to, page) in self.whole[..kept].chunks_mut(PAGE_BYTES).zip(&entry.pages) {
            let from = usize::from(*page) * PAGE_BYTES;
            to.copy_from_slice(&self.pages[from..from + to.len()]);
        }
        let held = (entry.frames > 0).then(|| self.held_id(slot));
        let (key, proto, hop_limit) = (entry.key, entry.proto, entry.hop_limit);
        self.free(slot);
        let datagram = Datagram {
            family: family_of(&key),
            src: key.lo,
            dst: key.hi,
            proto,
            hop_limit,
            ip_bytes,
            payload: match &self.heads {
                Some(heads) => &heads[usize::from(slot)][..len.min(noted::HEAD_BYTES)],
                None => &self.whole[..len],
            },
            rest,
        };
        Reassembly::Complete { held, datagram }
    }

    fn held_id(&self, slot: u16) -> HeldId {
        HeldId(u32::from(self.slots[usize::from(slot)].generation) << 16 | u32::from(slot))
    }

    /// Ends a datagram; its frames' name waits to be taken.
    fn discard(&mut self, slot: u16) {
        if self.slots[usize::from(slot)].frames > 0 {
            debug_assert!(
                self.discarded.len() < self.discarded.capacity(),
                "a slot was opened without room for its name"
            );
            self.discarded.push(self.held_id(slot));
        }
        self.free(slot);
    }

    /// Starts a datagram; the oldest makes room.
    fn open(&mut self, now: Tick, key: DatagramKey, fragment: &Fragment<'_>, seen: u32) -> Option<u16> {
        if self.free_slots == NONE {
            let oldest = self.oldest()?;
            self.evicted += 1;
            self.discard(oldest);
        }
        if self.discarded.len() + self.waiting >= self.discarded.capacity() {
            return None;
        }
        let slot = self.free_slots;
        let (peer, seen) = match fragment.family {
            Family::V4 if self.distances.is_none() => self.join_peer(&fragment.src),
            Family::V4 | Family::V6 => (NONE, seen),
        };
        let age = age(fragment.family);
        let older = self.ages[age].newest;
        let bucket = self.bucket(&key);
        let entry = &mut self.slots[usize::from(slot)];
        self.free_slots = entry.next;
        *entry = Slot {
            key,
            generation: entry.generation.wrapping_add(1),
            opened: now,
            peer,
            seen,
            next: self.buckets[bucket],
            older,
            ..Slot::EMPTY
        };
        self.buckets[bucket] = slot;
        self.ages[age].newest = slot;
        match self.slots.get_mut(usize::from(older)) {
            Some(older) => older.newer = slot,
            None => self.ages[age].oldest = slot,
        }
        self.waiting += 1;
        Some(slot)
    }

    /// Gives a datagram's slot and pages back.
    fn free(&mut self, slot: u16) {
        let entry = &self.slots[usize::from(slot)];
        let (key, peer, older, newer, next) = (entry.key, entry.peer, entry.older, entry.newer, entry.next);
        let age = age(family_of(&key));
        match self.slots.get_mut(usize::from(older)) {
            Some(older) => older.newer = newer,
            None => self.ages[age].oldest = newer,
        }
        match self.slots.get_mut(usize::from(newer)) {
            Some(newer) => newer.older = older,
            None => self.ages[age].newest = older,
        }
        let bucket = self.bucket(&key);
        let mut at = self.buckets[bucket];
        if at == slot {
            self.buckets[bucket] = next;
        } else {
            while let Some(before) = self.slots.get_mut(usize::from(at)) {
                at = before.next;
                if at == slot {
                    before.next = next;
                    break;
                }
            }
        }
        self.leave_peer(peer);
        let entry = &mut self.slots[usize::from(slot)];
        self.free_pages.extend(entry.pages.iter().filter(|&&page| page != NONE));
        self.frames -= entry.frames as usize;
        *entry = Slot { generation: entry.generation, next: self.free_slots, ..Slot::EMPTY };
        self.free_slots = slot;
        self.waiting -= 1;
    }

    fn find(&self, key: &DatagramKey) -> Option<u16> {
        let mut at = self.buckets[self.bucket(key)];
        while let Some(slot) = self.slots.get(usize::from(at)) {
            if slot.key == *key {
                return Some(at);
            }
            at = slot.next;
        }
        None
    }

    fn bucket(&self, key: &DatagramKey) -> usize {
        self.hasher.hash(key) as usize & (self.buckets.len() - 1)
    }

    fn peer_bucket(&self, src: &Addr) -> usize {
        self.bucket(&peer_key(src))
    }

    fn find_peer(&self, src: &Addr) -> Option<u16> {
        let mut at = self.peer_buckets[self.peer_bucket(src)];
        while let Some(peer) = self.peers.get(usize::from(at)) {
            if peer.src == *src {
                return Some(at);
            }
            at = peer.next;
        }
        None
    }

    /// The source's counter, with one more datagram, and its count. There is one for each slot, so a free slot means
    /// a free counter.
    fn join_peer(&mut self, src: &Addr) -> (u16, u32) {
        if let Some(at) = self.find_peer(src) {
            let peer = &mut self.peers[usize::from(at)];
            peer.datagrams += 1;
            return (at, peer.seen);
        }
        let at = self.free_peers;
        let bucket = self.peer_bucket(src);
        let peer = &mut self.peers[usize::from(at)];
        self.free_peers = peer.next;
        *peer = Peer { src: *src, seen: 0, datagrams: 1, next: self.peer_buckets[bucket] };
        self.peer_buckets[bucket] = at;
        (at, 0)
    }

    fn leave_peer(&mut self, at: u16) {
        let Some(peer) = self.peers.get_mut(usize::from(at)) else { return };
        peer.datagrams -= 1;
        if peer.datagrams > 0 {
            return;
        }
        let (src, next) = (peer.src, peer.next);
        peer.next = self.free_peers;
        self.free_peers = at;
        let bucket = self.peer_bucket(&src);
        let mut before = self.peer_buckets[bucket];
        if before == at {
            self.peer_buckets[bucket] = next;
            return;
        }
        while let Some(peer) = self.peers.get_mut(usize::from(before)) {
            before = peer.next;
            if before == at {
                peer.next = next;
                return;
            }
        }
    }
}

impl Slot {
    /// Its time has passed.
    fn is_late(&self, now: Tick) -> bool {
        let (timeout, short) = match family_of(&self.key) {
            Family::V4 => (TIMEOUT_V4, slip(Fault::FragmentTimeV4)),
            Family::V6 => (TIMEOUT_V6, slip(Fault::FragmentTimeV6)),
        };
        self.opened.after(Ticks(timeout.0 - short * PER_SECOND)) <= now
    }

    const EMPTY: Self = Self {
        key: FlowKey::EMPTY,
        generation: 0,
        runs: 0,
        frames: 0,
        pages: [NONE; PAGES_PER_DATAGRAM],
        len: 0,
        have: 0,
        has_last: false,
        sum: Sum::ZERO,
        proto: 0,
        hop_limit: 0,
        header_bytes: 0,
        opened: Tick(0),
        peer: NONE,
        seen: 0,
        next: NONE,
        older: NONE,
        newer: NONE,
    };
}

/// There is no room, and the datagram is gone.
struct Full;

/// Why a fragment is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Only the fragment is dropped.
    Redundant,
    /// The datagram goes with it.
    Contradiction,
    /// The datagram goes, the fragment passes.
    NotHeld,
}

/// Where a fragment's bytes belong in its datagram.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    end: u32,
}

impl Place {
    fn of(fragment: &Fragment<'_>) -> Result<Self, Refusal> {
        let start = fragment.offset;
        let end = start + fragment.payload.len() as u32;
        match fragment.family {
            // All but the last are cut to a multiple of eight bytes.
            Family::V4 if fragment.more => Ok(Self { start, end: end & !7 }),
            Family::V4 => Ok(Self { start, end }),
            Family::V6 if end > LENGTH_MAX => Err(Refusal::Redundant),
            Family::V6 if fragment.more && end & 7 != 0 => Err(Refusal::NotHeld),
            Family::V6 => Ok(Self { start, end }),
        }
    }
}

const V4: usize = 0;
const V6: usize = 1;

fn age(family: Family) -> usize {
    match family {
        Family::V4 => V4,
        Family::V6 => V6,
    }
}

fn family_of(key: &DatagramKey) -> Family {
    key.family()
}

fn key_of(fragment: &Fragment<'_>, zone: u16, ingress: u8) -> DatagramKey {
    let [hi0, hi1, lo0, lo1] = fragment.id.to_be_bytes();
    let (proto, kind) = match fragment.family {
        Family::V4 => (fragment.proto, 0),
        // The protocol may differ from piece to piece; the first one's counts.
        Family::V6 if is_scoped(&fragment.dst) => (0, kind::V6 | ingress << 2),
        Family::V6 => (0, kind::V6),
    };
    DatagramKey {
        lo: fragment.src,
        hi: fragment.dst,
        lo_id: u16::from_be_bytes([lo0, lo1]),
        hi_id: u16::from_be_bytes([hi0, hi1]),
        zone,
        proto,
        kind: kind | kind::LIVE,
    }
}

/// A source alone, in the form of a flow key.
fn peer_key(src: &Addr) -> DatagramKey {
    DatagramKey { lo: *src, ..DatagramKey::default() }
}

/// Link-local or multicast.
fn is_scoped(addr: &Addr) -> bool {
    addr.0[0] == 0xff || (addr.0[0] == 0xfe && addr.0[1] & 0xc0 == 0x80)
}

/// The free list's link to `next`, of `len` in all.
fn link(next: usize, len: usize) -> u16 {
    if next < len { next as u16 } else { NONE }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::key::hash::Cpu;
    use crate::wire::proto;

    const SRC: Addr = Addr::v4([10, 1, 0, 1]);
    const DST: Addr = Addr::v4([10, 2, 0, 2]);

    fn fragments(max_datagrams: u16) -> Fragments {
        Fragments::new(max_datagrams, Hasher::new([1, 2, 3, 4], Cpu::portable()))
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 7 + n / 256) as u8).collect()
    }

    fn piece(family: Family, id: u32, whole: &[u8], start: usize, end: usize, more: bool) -> Fragment<'_> {
        let header_bytes = match family {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        Fragment {
            family,
            src: SRC,
            dst: DST,
            id,
            proto: proto::UDP,
            hop_limit: 64,
            offset: start as u32,
            more,
            payload: &whole[start..end],
            header_bytes,
        }
    }

    /// What [`Reassembly`] says, without what it lends.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Said {
        Held,
        Complete,
        Redundant,
        Discarded,
        NotHeld,
    }

    use Said::*;

    fn said(answer: Reassembly<'_>) -> Said {
        match answer {
            Reassembly::Held(_) => Held,
            Reassembly::Complete { .. } => Complete,
            Reassembly::Redundant => Redundant,
            Reassembly::Discarded => Discarded,
            Reassembly::NotHeld => NotHeld,
        }
    }

    /// Adds the pieces (start, end, more) of one datagram of 264 bytes in order.
    #[track_caller]
    fn dialogue(family: Family, pieces: &[((usize, usize, bool), Said)]) {
        let whole = bytes(400);
        let mut fragments = fragments(4);
        for (n, &((start, end, more), want)) in pieces.iter().enumerate() {
            let got = said(fragments.add(Tick(0), &piece(family, 1, &whole, start, end, more), 0, 0));
            assert_eq!(got, want, "{family:?}, piece {n}: {start}..{end} more={more}");
        }
    }

    const BOTH: [Family; 2] = [Family::V4, Family::V6];

    #[test]
    fn pieces_complete_a_datagram_in_any_order() {
        let whole = bytes(264);
        let pieces = [(0, 64, true), (64, 128, true), (128, 264, false)];
        for family in BOTH {
            for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                let mut fragments = fragments(1);
                let mut names = HashSet::new();
                for (n, &i) in order.iter().enumerate() {
                    let (start, end, more) = pieces[i];
                    match fragments.add(Tick(0), &piece(family, 9, &whole, start, end, more), 0, 0) {
                        Reassembly::Held(id) if n < 2 => _ = names.insert(id),
                        Reassembly::Complete { held, datagram } if n == 2 => {
                            assert!(names.contains(&held.unwrap()));
                            assert_eq!(datagram.payload, whole);
                            assert_eq!(datagram.ip_bytes, if family == Family::V4 { 284 } else { 304 });
                        }
                        other => panic!("{order:?} {n}: {other:?}"),
                    }
                }
                assert_eq!(names.len(), 1);
                assert_eq!((fragments.waiting(), fragments.frames()), (0, 0));
                assert_eq!(fragments.take_discarded(), None);
            }
        }
    }

    // The dialogues below were recorded on Linux 6.18.

    #[test]
    fn a_repetition_within_one_run_is_passed_over() {
        for family in BOTH {
            dialogue(
                family,
                &[
                    ((0, 64, true), Held),
                    ((0, 64, true), Redundant),
                    ((64, 128, true), Held),
                    ((32, 96, true), Redundant),
                    ((128, 264, false), Complete),
                ],
            );
        }
    }

    #[test]
    fn any_other_overlap_ends_the_datagram() {
        for family in BOTH {
            dialogue(family, &[((0, 128, true), Held), ((64, 192, true), Discarded), ((0, 128, true), Held)]);
            dialogue(
                family,
                &[((64, 128, true), Held), ((0, 192, true), Discarded), ((128, 264, false), Held)],
            );
            dialogue(
                family,
                &[((64, 128, true), Held), ((0, 72, true), Discarded), ((128, 264, false), Held)],
            );
            // Two runs that touch are still two.
            dialogue(
                family,
                &[((128, 192, true), Held), ((64, 128, true), Held), ((96, 160, true), Discarded)],
            );
        }
    }

    #[test]
    fn a_contradicting_length_ends_an_ipv4_datagram_and_spares_an_ipv6_one() {
        let stories = [
            [((128, 264, false), Held), ((128, 192, false), Discarded), ((0, 128, true), Held)],
            [((128, 264, false), Held), ((264, 328, true), Discarded), ((0, 128, true), Held)],
            [((0, 128, true), Held), ((128, 128, true), Discarded), ((128, 264, false), Held)],
        ];
        for story in stories {
            dialogue(Family::V4, &story);
            let [first, (second, _), (third, _)] = story;
            dialogue(Family::V6, &[first, (second, Redundant), (third, Complete)]);
        }
        dialogue(
            Family::V6,
            &[((128, 192, false), Held), ((128, 264, false), Redundant), ((0, 128, true), Complete)],
        );
    }

    #[test]
    fn an_uneven_middle_is_cut_in_ipv4_and_not_held_in_ipv6() {
        dialogue(Family::V4, &[((0, 65, true), Held), ((64, 264, false), Complete)]);
        dialogue(
            Family::V4,
            &[((0, 128, true), Held), ((128, 132, true), Discarded), ((128, 264, false), Held)],
        );
        dialogue(
            Family::V6,
            &[((0, 128, true), Held), ((128, 193, true), NotHeld), ((128, 264, false), Held)],
        );
    }

    #[test]
    fn protocol_and_zone_tell_datagrams_apart_and_the_side_only_for_scoped_destinations() {
        let whole = bytes(264);
        for family in BOTH {
            let first = piece(family, 1, &whole, 0, 128, true);
            let last = piece(family, 1, &whole, 128, 264, false);
            let answer = |last: Fragment<'_>, first: Fragment<'_>, zone, ingress| {
                let mut fragments = fragments(4);
                assert_eq!(said(fragments.add(Tick(0), &first, 0, 0)), Held);
                said(fragments.add(Tick(0), &last, zone, ingress))
            };
            assert_eq!(answer(last, first, 0, 1), Complete);
            assert_eq!(answer(last, first, 1, 0), Held);
            assert_eq!(answer(Fragment { id: 2, ..last }, first, 0, 0), Held);
            assert_eq!(answer(Fragment { id: 0x0001_0001, ..last }, first, 0, 0), Held);
            let other_protocol = answer(Fragment { proto: proto::TCP, ..last }, first, 0, 0);
            assert_eq!(other_protocol, if family == Family::V4 { Held } else { Complete });
        }
        let multicast = Addr([0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let link_local = Addr([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        for dst in [multicast, link_local] {
            let mut fragments = fragments(4);
            let first = Fragment { dst, ..piece(Family::V6, 1, &whole, 0, 128, true) };
            let last = Fragment { dst, ..piece(Family::V6, 1, &whole, 128, 264, false) };
            assert_eq!(said(fragments.add(Tick(0), &first, 0, 0)), Held);
            assert_eq!(said(fragments.add(Tick(0), &last, 0, 1)), Held);
            assert_eq!(said(fragments.add(Tick(0), &last, 0, 0)), Complete);
        }
    }

    #[test]
    fn an_ipv4_datagram_is_given_up_when_more_than_64_fragments_of_its_source_lie_between() {
        let whole = bytes(264);
        for (between, want) in [(63, Complete), (64, Held)] {
            for family in BOTH {
                let mut fragments = fragments(100);
                let mut add = |id, start, end, more| {
                    said(fragments.add(Tick(0), &piece(family, id, &whole, start, end, more), 0, 0))
                };
                assert_eq!(add(1, 0, 128, true), Held);
                for id in 0..between {
                    assert_eq!(add(1000 + id, 0, 8, true), Held);
                }
                let want = if family == Family::V6 { Complete } else { want };
                assert_eq!(add(1, 128, 264, false), want, "{family:?}, {between} between");
            }
        }
    }

    #[test]
    fn the_distance_is_the_same_whoever_puts_the_datagrams_between_together() {
        let whole = bytes(264);
        let distances = Distances::new();
        for (between, want) in [(63, Complete), (64, Held)] {
            let mut workers = [fragments(100), fragments(100), fragments(100)];
            workers.iter_mut().for_each(|worker| worker.count_with(distances.clone()));
            let mut add = |worker: usize, id, start, end, more| {
                let fragment = piece(Family::V4, id, &whole, start, end, more);
                said(workers[worker].add(Tick(0), &fragment, 0, 0))
            };
            assert_eq!(add(0, 1, 0, 128, true), Held);
            for id in 0..between {
                assert_eq!(add(id as usize % 3, 1000 + id, 0, 8, true), Held);
            }
            assert_eq!(add(0, 1, 128, 264, false), want, "{between} between");
        }
    }

    #[test]
    fn fragments_of_many_hosts_load_no_worker_more_than_twice_its_share() {
        use crate::key::owner::{Owners, WorkerId};
        let whole = bytes(8);
        for secret in 0..20 {
            let fragments = Fragments::new(1, Hasher::new([secret, 2, 3, 4], Cpu::portable()));
            for (workers, family) in [(2, Family::V4), (16, Family::V4), (16, Family::V6)] {
                let owners = Owners::shared(&vec![1; workers], WorkerId(0)).unwrap();
                let mut load = vec![0; workers];
                for host in 0..4096_u16 {
                    let [hi, lo] = host.to_be_bytes();
                    let src = Addr::v4([10, 3, hi, lo]);
                    let fragment = Fragment { src, ..piece(family, 1, &whole, 0, 8, true) };
                    load[usize::from(owners.of(fragments.hash(&fragment, 0, 0)).0)] += 1;
                }
                let worst = load.iter().max().unwrap() * workers;
                assert!(worst <= 2 * 4096, "{family:?}, {workers} workers: {load:?}");
            }
        }
    }

    #[test]
    fn all_datagrams_of_a_pair_of_hosts_meet_at_one_place() {
        let whole = bytes(8);
        let fragments = Fragments::new(1, Hasher::new([1, 2, 3, 4], Cpu::portable()));
        for family in BOTH {
            let mut met: Vec<_> =
                (0..64).map(|id| fragments.hash(&piece(family, id, &whole, 0, 8, true), 0, 0)).collect();
            met.dedup();
            assert_eq!(met.len(), 1, "{family:?}");
            let back = Fragment { src: DST, dst: SRC, ..piece(family, 1, &whole, 0, 8, true) };
            assert_ne!(fragments.hash(&back, 0, 0), met[0], "{family:?}");
        }
    }

    #[test]
    fn time_runs_out_after_30_and_60_seconds_from_the_first_piece() {
        let whole = bytes(264);
        for (family, seconds) in [(Family::V4, 30), (Family::V6, 60)] {
            let end = Tick(0).after(Ticks::from_secs(seconds));
            let mut fragments = fragments(4);
            let Reassembly::Held(id) = fragments.add(Tick(0), &piece(family, 1, &whole, 0, 64, true), 0, 0)
            else {
                panic!("not held");
            };
            fragments.add(Tick(end.0 / 2), &piece(family, 1, &whole, 64, 128, true), 0, 0);
            assert_eq!(fragments.expire(Tick(end.0 - 1), 10), 0);
            assert_eq!(fragments.expire(end, 10), 1);
            assert_eq!(fragments.take_discarded(), Some(id));
            assert_eq!(fragments.take_discarded(), None);
            assert_eq!((fragments.timed_out(), fragments.frames()), (1, 0));
        }
    }

    #[test]
    fn a_late_piece_starts_anew_even_if_nobody_expired_the_old_ones() {
        let whole = bytes(264);
        let mut fragments = fragments(20);
        for id in 0..10 {
            fragments.add(Tick(0), &piece(Family::V4, id, &whole, 0, 128, true), 0, 0);
        }
        let late = Tick(0).after(TIMEOUT_V4);
        assert_eq!(said(fragments.add(late, &piece(Family::V4, 9, &whole, 128, 264, false), 0, 0)), Held);
        assert_eq!(said(fragments.add(late, &piece(Family::V4, 9, &whole, 0, 128, true), 0, 0)), Complete);
    }

    #[test]
    fn the_greatest_datagrams_pass_and_greater_ones_do_not() {
        let whole = bytes(65_536);
        let cut = |family, len: usize, header_bytes| {
            let mut fragments = fragments(1);
            let mut last = Held;
            for start in (0..len).step_by(1480) {
                let end = (start + 1480).min(len);
                let fragment = Fragment { header_bytes, ..piece(family, 1, &whole, start, end, end < len) };
                let answer = fragments.add(Tick(0), &fragment, 0, 0);
                if let Reassembly::Complete { datagram, .. } = &answer {
                    assert_eq!(datagram.payload, &whole[..len]);
                }
                last = said(answer);
            }
            last
        };
        assert_eq!(cut(Family::V4, 65_515, 20), Complete);
        assert_eq!(cut(Family::V4, 65_516, 20), Discarded);
        assert_eq!(cut(Family::V4, 65_515, 24), Discarded);
        assert_eq!(cut(Family::V6, 65_535, 40), Complete);
        assert_eq!(cut(Family::V6, 65_535, 48), Discarded);
        assert_eq!(cut(Family::V6, 65_536, 40), Redundant);
    }

    #[test]
    fn the_oldest_datagram_makes_room_and_is_named_once() {
        let whole = bytes(264);
        let mut fragments = fragments(3);
        let mut ids = Vec::new();
        for id in 0..5 {
            let family = BOTH[id as usize % 2];
            match fragments.add(Tick(u64::from(id)), &piece(family, id, &whole, 0, 128, true), 0, 0) {
                Reassembly::Held(held) => ids.push(held),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((fragments.waiting(), fragments.evicted()), (3, 2));
        let taken: HashSet<_> = core::iter::from_fn(|| fragments.take_discarded()).collect();
        assert_eq!(taken, HashSet::from([ids[0], ids[1]]));
        let last = piece(BOTH[1], 3, &whole, 128, 264, false);
        assert_eq!(said(fragments.add(Tick(9), &last, 0, 0)), Complete);
    }

    #[test]
    fn a_flood_that_is_never_drained_loses_no_name() {
        let whole = bytes(264);
        let mut fragments = fragments(8);
        let mut held = HashSet::new();
        for id in 0..1000 {
            if let Reassembly::Held(name) =
                fragments.add(Tick(0), &piece(Family::V6, id, &whole, 0, 128, true), 0, 0)
            {
                assert!(held.insert(name), "a name was given twice while frames are held under it");
            }
        }
        let mut named = 0;
        while let Some(name) = fragments.take_discarded() {
            assert!(held.remove(&name));
            named += 1;
        }
        assert!(named > 8);
        assert_eq!(held.len(), fragments.waiting());
    }

    #[test]
    fn more_runs_than_the_list_holds_end_the_datagram() {
        let whole = bytes(16 * (RUNS_MAX + 1));
        let mut fragments = fragments(64);
        for n in 0..=RUNS_MAX {
            let got =
                said(fragments.add(Tick(0), &piece(Family::V6, 1, &whole, n * 16, n * 16 + 8, true), 0, 0));
            assert_eq!(got, if n < RUNS_MAX { Held } else { Discarded }, "run {n}");
        }
    }

    proptest! {
        /// Against a plain model: frames by name, as a driver keeps them.
        #[test]
        fn every_held_frame_is_released_or_named_exactly_once(
            steps in prop::collection::vec(
                (0u32..6, 0usize..40, 1usize..40, any::<bool>(), any::<bool>(), 0u64..2000, 0u8..8), 1..400),
            max_datagrams in 1u16..5,
        ) {
            let whole = bytes(65_535);
            let mut fragments = fragments(max_datagrams);
            let mut model: HashMap<HeldId, usize> = HashMap::new();
            let mut now = 0;
            for (id, start, len, more, v6, wait, kind) in steps {
                now += wait;
                // Now and then pieces large enough to use up the pages.
                let scale = if kind == 0 { 800 } else { 8 };
                let (start, end) = (start * scale, ((start + len) * scale).min(65_535));
                let family = if v6 { Family::V6 } else { Family::V4 };
                let fragment = piece(family, id, &whole, start.min(end & !7), end, more);
                match fragments.add(Tick(now), &fragment, 0, 0) {
                    Reassembly::Held(name) => *model.entry(name).or_default() += 1,
                    Reassembly::Complete { held, datagram } => {
                        prop_assert_eq!(datagram.payload, &whole[..datagram.payload.len()]);
                        if let Some(name) = held {
                            prop_assert!(model.remove(&name).is_some());
                        }
                    }
                    Reassembly::Redundant | Reassembly::Discarded | Reassembly::NotHeld => {}
                }
                while let Some(name) = fragments.take_discarded() {
                    prop_assert!(model.remove(&name).is_some());
                }
                prop_assert_eq!(fragments.frames(), model.values().sum::<usize>());
                prop_assert!(fragments.frames() <= fragments.frames_max());
                prop_assert!(fragments.waiting() <= usize::from(max_datagrams));
            }
            while fragments.expire(Tick(u64::MAX / 2), 1) == 1 {}
            while let Some(name) = fragments.take_discarded() {
                prop_assert!(model.remove(&name).is_some());
            }
            prop_assert!(model.is_empty());
            prop_assert_eq!(fragments.free_pages.len() * PAGE_BYTES, fragments.pages.len());
            prop_assert!(fragments.buckets.iter().chain(&fragments.peer_buckets).all(|&at| at == NONE));
        }
    }
}
