//! Table and cold lines against plain maps, under random operations.

use super::cold::{Cold, NoLine, Which};
use super::entry::{Entry, Head, Vars, status};
use super::memory::Memory;
use super::{FlowIndex, Full, PrefetchHint, Probe, Table, VICTIM_WINDOW};
use crate::event::{Count, Snapshot};
use crate::key::{Direction, FlowKey, kind};
use crate::tick::Tick;
use crate::wire::Addr;
use std::collections::HashMap;
use std::vec::Vec;

/// xorshift64: the same operations on every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: u32) -> u32 {
        (((self.next() >> 32) * u64::from(n)) >> 32) as u32
    }

    /// Ticks from none to 90 days, short and long ones alike.
    pub(crate) fn span(&mut self) -> u64 {
        let bits = self.below(25);
        u64::from(self.below(1 << bits)).min(u64::from(crate::tick::Ticks::MAX.0))
    }
}

/// Operations of each model test: MODEL_OPS, else a million (a few hundred under Miri).
pub(crate) fn operations() -> u64 {
    let default = if cfg!(miri) { 300 } else { 1_000_000 };
    std::env::var("MODEL_OPS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The n-th key; unequal for unequal n, alike in all but one word.
fn key(n: u64) -> FlowKey {
    let mut lo = [0; 16];
    lo[4..12].copy_from_slice(&n.to_be_bytes());
    FlowKey { lo: Addr(lo), hi: Addr([9; 16]), lo_id: 1, hi_id: 2, zone: 0, proto: 6, kind: kind::LIVE }
}

/// A stand-in for the keyed hash: two rounds of multiply and fold.
fn hash(n: u64) -> u64 {
    [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93].iter().fold(n ^ 0x5bd1_e995, |x, &odd| {
        let wide = u128::from(x ^ odd) * u128::from(odd);
        wide as u64 ^ (wide >> 64) as u64
    })
}

fn entry(key: FlowKey, mark: u32) -> Entry {
    Entry {
        key,
        head: Head::default(),
        packets: [0; 2],
        bytes: [0; 2],
        armed: 0,
        wheel_pos: 0,
        created: mark,
        vars: Vars::ZERO,
    }
}

fn table<const PORTABLE: bool>(max_entries: u32) -> Table<PORTABLE> {
    let mut memory = Memory::heap(Table::<PORTABLE>::memory_bytes(max_entries)).unwrap();
    let table = Table::new(max_entries, PrefetchHint::T1, &mut memory).unwrap();
    assert_eq!(memory.left(), 0, "memory_bytes is what new takes");
    table
}

/// Random insertions, removals and look-ups against a map; `hash` decides how crowded the buckets are.
fn agrees_with_a_map<const PORTABLE: bool>(seed: u64, capacity: u32, hash: impl Fn(u64) -> u64) {
    let mut random = Random::new(seed);
    let mut table = table::<PORTABLE>(capacity);
    let mut model: HashMap<u64, FlowIndex> = HashMap::new();
    let (mut refused, mut peak) = (0, 0);
    for step in 0..operations() {
        let n = u64::from(random.below(capacity * 5 / 4));
        let key = key(n);
        // A look-up goes before everything, as it does for a packet.
        let found = table.find(hash(n), &key);
        assert_eq!(found, model.get(&n).copied(), "key {n}");
        match (table.probe(hash(n)), found) {
            (Probe::Absent, Some(_)) => panic!("key {n} is said to be absent"),
            (Probe::Elsewhere, Some(_)) => table.prefetch_alternate(hash(n)),
            _ => table.prefetch_bucket(hash(n)),
        }
        // Grows for a while, then shrinks, so that the table is often full and often empty.
        let grow = step / u64::from(capacity * 4) % 2 == 0;
        match found {
            Some(flow) if random.below(10) < if grow { 1 } else { 7 } => {
                assert!(table.remove(hash(n), flow));
                assert!(!table.is_live(flow));
                assert!(!table.remove(hash(n), flow), "removed once");
                model.remove(&n);
            }
            Some(flow) => {
                table.prefetch_entry(flow);
                assert_eq!(table.entry(flow).key, key);
                assert_eq!(table.entry(flow).created, n as u32);
                table.entry_mut(flow).packets[0] = table.entry(flow).packets[0].wrapping_add(1);
            }
            None if grow || random.below(10) < 2 => {
                table.prefetch_vacant(random.below(64));
                match table.insert(hash(n), entry(key, n as u32)) {
                    Ok(flow) => {
                        assert!(table.is_live(flow));
                        assert!(model.insert(n, flow).is_none());
                    }
                    Err(Full::Entries) => assert_eq!(model.len() as u32, capacity),
                    Err(Full::Buckets) => refused += 1,
                }
            }
            None => {}
        }
        assert_eq!(table.len() as usize, model.len());
        peak = peak.max(table.len());
        if step % 100_000 == 0 {
            let mut want: Vec<_> = model.values().copied().collect();
            want.sort();
            let got: Vec<_> = table.live(0..u32::MAX).map(|(flow, _)| flow).collect();
            assert_eq!(got, want);
        }
    }
    std::println!("capacity {capacity}, portable {PORTABLE}: peak {peak}, refused for buckets {refused}");
    // Emptied, nothing of it may remain: no overflow count, no stashed flow.
    for (n, flow) in model {
        assert!(table.remove(hash(n), flow));
    }
    assert!(table.is_empty());
    assert_eq!(table.stash_len, 0);
    assert!(
        table.buckets.iter().all(|bucket| bucket.overflow == 0 && bucket.vacant::<PORTABLE>() == Some(0))
    );
    assert_eq!(table.live(0..u32::MAX).count(), 0);
}

#[test]
fn table_agrees_with_a_map() {
    agrees_with_a_map::<false>(1, 1_000, hash);
}

#[test]
fn table_agrees_with_a_map_without_vector_instructions() {
    agrees_with_a_map::<true>(2, 1_000, hash);
}

/// Few buckets and few tags: second buckets, moves and the stash are everyday here.
#[test]
fn crowded_table_agrees_with_a_map() {
    let crowded = |n| {
        let hash = hash(n);
        hash & 0x0003_0000_0000_0000 | hash << 28 & 0xf000_0000
    };
    agrees_with_a_map::<false>(3, 400, crowded);
    agrees_with_a_map::<true>(4, 400, crowded);
}

#[test]
fn a_capacity_of_one_holds_one() {
    agrees_with_a_map::<false>(5, 1, hash);
}

#[test]
fn random_keys_fill_the_table_to_its_capacity() {
    for (capacity, rounds) in if cfg!(miri) { [(64, 1), (100, 1)] } else { [(1_000, 300), (200_000, 3)] } {
        for round in 0..rounds {
            let mut table = table::<false>(capacity);
            let first = round << 32;
            for n in first..first + u64::from(capacity) {
                assert!(table.insert(hash(n), entry(key(n), 0)).is_ok(), "flow {n} of {capacity}");
            }
            let more = first + u64::from(capacity);
            assert_eq!(table.insert(hash(more), entry(key(more), 0)), Err(Full::Entries));
            let home = |n| table.home(hash(n)).bucket as usize;
            let away: u32 = table.buckets.iter().map(|bucket| u32::from(bucket.overflow)).sum();
            assert!(away <= capacity / 50 + 10, "{away} of {capacity} flows live elsewhere");
            assert!(
                (first..more)
                    .all(|n| table.find(hash(n), &key(n)).is_some() && home(n) < table.buckets.len())
            );
        }
    }
}

#[test]
fn flows_of_one_hash_fill_two_buckets_and_the_stash_and_no_more() {
    let mut table = table::<false>(10_000);
    let bound = 2 * super::SLOTS as u64 + super::STASH as u64;
    let one = 0x1234_5678_9abc_def0;
    for n in 0..bound {
        assert!(table.insert(one, entry(key(n), 0)).is_ok(), "flow {n}");
    }
    assert_eq!(table.insert(one, entry(key(bound), 0)), Err(Full::Buckets));
    assert_eq!(table.len() as u64, bound);
    for n in 0..bound {
        assert!(table.find(one, &key(n)).is_some(), "flow {n}");
    }
    assert_eq!(table.find(one, &key(bound)), None);
    // A victim from the two buckets makes room, whatever slab slots are free.
    assert_eq!(table.victim(one, Full::Buckets, |_| false), None);
    let victim = table.victim(one, Full::Buckets, |entry| entry.key == key(3)).unwrap();
    assert!(table.remove(one, victim));
    assert_eq!(table.stash_len, super::STASH - 1, "a slot that becomes free empties the stash");
    assert!(table.insert(one, entry(key(bound), 0)).is_ok());
}

/// All in one home bucket with every tag there is: the overflow count must stop before it wraps.
#[test]
#[cfg_attr(miri, ignore = "no unsafe code that the others do not run")]
fn one_home_bucket_is_never_overfull() {
    let mut table = table::<false>(600_000);
    let same_home = |n: u64| n << 48 | 0x8000_0000;
    let mut inserted = Vec::new();
    for n in 0..140_000 {
        match table.insert(same_home(n), entry(key(n), 0)) {
            Ok(flow) => inserted.push((n, flow)),
            Err(full) => assert_eq!(full, Full::Buckets),
        }
    }
    let home = table.home(same_home(1)).bucket as usize;
    assert_eq!(table.buckets[home].overflow, u16::MAX);
    for &(n, flow) in &inserted {
        assert_eq!(table.find(same_home(n), &key(n)), Some(flow));
    }
    for (n, flow) in inserted {
        assert!(table.remove(same_home(n), flow));
    }
    assert!(table.buckets.iter().all(|bucket| bucket.overflow == 0));
}

#[test]
#[cfg_attr(miri, ignore = "no unsafe code that the others do not run")]
fn victim_looks_at_a_bounded_number_of_entries_and_goes_on_from_there() {
    let mut table = table::<false>(1_000);
    for n in 0..1_000 {
        table.insert(hash(n), entry(key(n), n as u32)).unwrap();
    }
    let mut looked = 0;
    assert_eq!(
        table.victim(hash(5_000), Full::Entries, |_| {
            looked += 1;
            false
        }),
        None
    );
    assert!(looked <= VICTIM_WINDOW + 2 * super::SLOTS as u32, "{looked}");
    assert!(looked >= VICTIM_WINDOW);
    // Turn after turn the hand reaches any flow.
    let calls =
        (1..100).find(|_| table.victim(hash(5_000), Full::Entries, |entry| entry.created == 777).is_some());
    assert!(calls.is_some_and(|calls| calls <= 1_000 / VICTIM_WINDOW as usize + 1));
    // Once it is out, the new flow goes in.
    let victim = table.victim(hash(5_000), Full::Entries, |_| true).unwrap();
    let n = u64::from(table.entry(victim).created);
    assert!(table.remove(hash(n), victim));
    assert!(table.insert(hash(5_000), entry(key(5_000), 0)).is_ok());
}

#[test]
fn victim_is_always_live() {
    let mut table = table::<false>(100);
    for n in 0..100 {
        table.insert(hash(n), entry(key(n), n as u32)).unwrap();
    }
    for n in 0..90 {
        let flow = table.find(hash(n), &key(n)).unwrap();
        assert!(table.remove(hash(n), flow));
    }
    for n in 0..50 {
        let victim = table.victim(hash(1_000 + n), Full::Entries, |_| true);
        assert!(victim.is_none_or(|flow| table.is_live(flow)));
    }
}

#[test]
fn a_zero_key_finds_nothing() {
    let mut table = table::<false>(100);
    let flow = table.insert(hash(1), entry(key(1), 0)).unwrap();
    assert!(table.remove(hash(1), flow));
    for hash in [0, 1, 1 << 48, u64::MAX, hash(1)] {
        assert_eq!(table.find(hash, &FlowKey::default()), None);
    }
}

fn cold(max_entries: u32) -> Cold {
    let mut memory = Memory::heap(Cold::memory_bytes(max_entries)).unwrap();
    let cold = Cold::new(max_entries, &mut memory).unwrap();
    assert_eq!(memory.left(), 0, "memory_bytes is what new takes");
    cold
}

/// More flows than lines, packets of up to 4 GB: carries at every turn.
#[test]
fn cold_counts_as_64_bits_do() {
    const FLOWS: u32 = 1_500;
    let mut random = Random::new(0xc01d);
    let mut cold = cold(FLOWS);
    let mut entries: Vec<_> = (0..FLOWS).map(|n| entry(key(n.into()), n)).collect();
    let mut model: HashMap<u32, [Count; 2]> = HashMap::new();
    let (mut full, mut carried) = (0, 0);
    for step in 0..operations() {
        // Fills every line, then frees most of them.
        let few = step / 20_000 % 2 == 0;
        let n = random.below(FLOWS);
        let (flow, entry) = (FlowIndex(n), &mut entries[n as usize]);
        let want = model.entry(n).or_default();
        let direction = if random.below(2) == 0 { Direction::Original } else { Direction::Reply };
        let way = direction.index();
        match random.below(100) {
            0..3 => {
                // As if 2^32 packets had passed.
                entry.packets[way] = u32::MAX;
                want[way].packets |= u64::from(u32::MAX);
            }
            3..6 if few => {}
            3..6 => {
                cold.forget(flow, entry);
                *entry = super::model::entry(key(n.into()), n);
                *want = Default::default();
            }
            _ => {
                let bytes = random.next() as u32;
                let lost = cold.saturated();
                cold.count(flow, entry, direction, bytes);
                if cold.saturated() == lost {
                    want[way].packets += 1;
                    want[way].bytes += u64::from(bytes);
                } else {
                    full += 1;
                    assert_eq!(cold.len(), 1024, "lost only when full");
                    assert!(entry.bytes[way] == u32::MAX || entry.packets[way] == u32::MAX);
                    *want = totals(&cold, flow, entry);
                }
            }
        }
        assert_eq!(totals(&cold, flow, &entries[n as usize]), *want, "flow {n}");
        carried = carried.max(cold.len());
    }
    assert!(cfg!(miri) || full > 0 && carried == 1024, "full {full}, carried {carried}");
    for (n, entry) in entries.iter_mut().enumerate() {
        cold.forget(FlowIndex(n as u32), entry);
    }
    assert!(cold.is_empty());
}

/// Both directions' counters in full.
fn totals(cold: &Cold, flow: FlowIndex, entry: &Entry) -> [Count; 2] {
    Snapshot::of(Tick(0), flow, entry, cold, true).counts()
}

#[test]
fn a_line_left_by_an_earlier_flow_is_not_inherited() {
    let mut cold = cold(1);
    let (flow, way) = (FlowIndex(0), Direction::Reply);
    let mut old = entry(key(1), 0);
    for _ in 0..3 {
        assert_eq!(cold.add_carry(flow, &mut old, way, Which::Bytes), Ok(()));
    }
    assert_eq!(totals(&cold, flow, &old)[1].bytes, 3 << 32);
    let mut new = entry(key(2), 0);
    assert_eq!(totals(&cold, flow, &new)[1].bytes, 0);
    assert_eq!(cold.add_carry(flow, &mut new, way, Which::Packets), Ok(()));
    assert_eq!(totals(&cold, flow, &new), [Count::default(), Count { packets: 1 << 32, bytes: 0 }]);
    assert_eq!(new.head.status, status::COLD);
}

#[test]
#[cfg_attr(miri, ignore = "no unsafe code that the others do not run")]
fn without_a_free_line_a_counter_stands_still_at_32_bits() {
    let mut cold = cold(1);
    let mut flows: Vec<_> = (0..=1024).map(|n| entry(key(n), 0)).collect();
    for (n, entry) in flows.iter_mut().enumerate().take(1024) {
        assert_eq!(cold.add_carry(FlowIndex(n as u32), entry, Direction::Original, Which::Bytes), Ok(()));
    }
    let last = &mut flows[1024];
    assert_eq!(cold.add_carry(FlowIndex(1024), last, Direction::Original, Which::Bytes), Err(NoLine));
    last.bytes[0] = u32::MAX - 10;
    cold.count(FlowIndex(1024), last, Direction::Original, 1500);
    assert_eq!(totals(&cold, FlowIndex(1024), last)[0], Count { packets: 1, bytes: u64::from(u32::MAX) });
    assert_eq!(cold.saturated(), 1);
    let freed = &mut flows[0];
    cold.forget(FlowIndex(0), freed);
    let last = &mut flows[1024];
    cold.count(FlowIndex(1024), last, Direction::Original, 1);
    assert_eq!(totals(&cold, FlowIndex(1024), last)[0], Count { packets: 2, bytes: 1 << 32 });
}
