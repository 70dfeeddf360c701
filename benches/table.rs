//! Room 3: the table, in bursts of 64 and in the tracker's stages (prefetch, probe, prefetch, compare), at several
//! sizes and loads. `load` is flows over capacity: at 1.0 half of the buckets' slots are taken, as in a full table.

use std::hint::black_box;
use std::time::{Duration, Instant};

use conntrack::key::FlowKey;
use conntrack::key::hash::{Cpu, Hasher};
use conntrack::table::entry::{Entry, Head, Vars};
use conntrack::table::memory::Memory;
use conntrack::table::{FlowIndex, PrefetchHint, Probe, Table};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dpdk_conntrack::memory::Mapping;

#[path = "traffic/mod.rs"]
mod traffic;
use traffic::{BURST, Kind, Random};

#[path = "traffic/keys.rs"]
mod keys;

const SIZES: [(&str, u32); 3] = [("1k", 1024), ("64k", 65_536), ("1M", 1_000_000)];
const LOADS: [f64; 2] = [0.5, 1.0];

/// Keys and hashes of flows, ready, so that only the table is measured.
#[derive(Clone, Copy)]
struct Named {
    hash: u64,
    key: FlowKey,
}

/// Places of a schedule; beyond any cache at 1 M flows.
const PLACES: usize = 1 << 20;

struct Rig<const PORTABLE: bool> {
    table: Table<PORTABLE>,
    flows: Vec<Named>,
    schedule: Vec<u32>,
    at: usize,
}

fn memory(bytes: usize) -> Memory {
    Mapping::new(bytes, true).expect("memory for a table").into_memory()
}

fn named(hasher: &Hasher, id: u32) -> Named {
    let key = keys::of(Kind::Tcp, id);
    Named { hash: hasher.hash(&key), key }
}

fn entry(key: FlowKey) -> Entry {
    Entry {
        key,
        head: Head::default(),
        packets: [0; 2],
        bytes: [0; 2],
        armed: 0,
        wheel_pos: 0,
        created: 0,
        vars: Vars::ZERO,
    }
}

impl<const PORTABLE: bool> Rig<PORTABLE> {
    /// `load` of `capacity` flows in the table; as many names again of flows that are not.
    fn new(capacity: u32, load: f64) -> Self {
        let hasher = Hasher::new([1, 2, 3, 4], Cpu::detect());
        let mut random = Random::new();
        let live = (f64::from(capacity) * load) as u32;
        let mut table = Table::new(
            capacity,
            PrefetchHint::default(),
            &mut memory(Table::<PORTABLE>::memory_bytes(capacity)),
        )
        .expect("as much memory as it asked for");
        let flows: Vec<Named> = (0..2 * live).map(|id| named(&hasher, id)).collect();
        for &id in &random.shuffled(live) {
            let Named { hash, key } = flows[id as usize];
            table.insert(hash, entry(key)).expect("room");
        }
        let schedule = (0..PLACES).map(|_| random.below(live)).collect();
        Self { table, flows, schedule, at: 0 }
    }

    fn live(&self) -> u32 {
        (self.flows.len() / 2) as u32
    }

    /// The names of the next 64 flows of the schedule, `from` on.
    #[inline(always)]
    fn next(&mut self, from: u32) -> [Named; BURST] {
        let at = self.at & (PLACES - 1);
        self.at += BURST;
        std::array::from_fn(|i| self.flows[(from + self.schedule[at + i]) as usize])
    }

    #[inline(always)]
    fn look_up(&self, burst: &[Named; BURST]) -> u32 {
        for name in burst {
            self.table.prefetch_bucket(name.hash);
        }
        for name in burst {
            match self.table.probe(name.hash) {
                Probe::Candidate(flow) => self.table.prefetch_entry(flow),
                Probe::Elsewhere => self.table.prefetch_alternate(name.hash),
                Probe::Absent => {}
            }
        }
        burst.iter().filter(|name| self.table.find(name.hash, &name.key).is_some()).count() as u32
    }
}

fn look_ups<const PORTABLE: bool>(c: &mut Criterion, way: &str, name: &str, capacity: u32, load: f64) {
    let mut group = c.benchmark_group("table");
    group.throughput(Throughput::Elements(BURST as u64));
    let mut rig = Rig::<PORTABLE>::new(capacity, load);
    let misses = rig.live();
    let parameter = format!("{name}/load_{load}");
    group.bench_function(BenchmarkId::new(format!("{way}hit"), &parameter), |b| {
        b.iter(|| {
            let burst = rig.next(0);
            let found = rig.look_up(black_box(&burst));
            assert_eq!(found, BURST as u32);
        });
    });
    group.bench_function(BenchmarkId::new(format!("{way}miss"), &parameter), |b| {
        b.iter(|| {
            let burst = rig.next(misses);
            let found = rig.look_up(black_box(&burst));
            assert_eq!(found, 0);
        });
    });
    group.finish();
}

/// Takes bursts of flows out and puts them in again, in another order than they lie in; each half is timed alone.
fn insert_and_remove(c: &mut Criterion, name: &str, capacity: u32, load: f64) {
    let mut group = c.benchmark_group("table");
    group.throughput(Throughput::Elements(BURST as u64));
    let mut rig = Rig::<false>::new(capacity, load);
    let order = Random::new().shuffled(rig.live());
    let parameter = format!("{name}/load_{load}");
    for (what, timed) in [("insert", 1), ("delete", 0)] {
        // As many bursts are out at once as free slots come back in another order than they were taken.
        let bursts: Vec<&[u32]> = order.chunks_exact(BURST).collect();
        let out = bursts.len().min(64);
        let mut next = 0;
        group.bench_function(BenchmarkId::new(what, &parameter), |b| {
            b.iter_custom(|bursts_wanted| {
                let (mut done, mut spent) = (0, [Duration::ZERO; 2]);
                while done < bursts_wanted {
                    let some = out.min((bursts_wanted - done) as usize);
                    let chosen: Vec<&[u32]> = (0..some).map(|i| bursts[(next + i) % bursts.len()]).collect();
                    next = (next + some) % bursts.len();
                    let begun = Instant::now();
                    for ids in &chosen {
                        remove(&mut rig, ids);
                    }
                    spent[0] += begun.elapsed();
                    let begun = Instant::now();
                    for ids in chosen.iter().rev() {
                        insert(&mut rig, ids);
                    }
                    spent[1] += begun.elapsed();
                    done += some as u64;
                }
                spent[timed]
            });
        });
        assert_eq!(rig.table.len(), rig.live());
    }
    group.finish();
}

#[inline(always)]
fn remove(rig: &mut Rig<false>, ids: &[u32]) {
    for &id in ids {
        rig.table.prefetch_bucket(rig.flows[id as usize].hash);
    }
    let mut found = [FlowIndex(0); BURST];
    for (flow, &id) in found.iter_mut().zip(ids) {
        let Named { hash, key } = rig.flows[id as usize];
        *flow = rig.table.find(hash, &key).expect("it is there");
    }
    for (flow, &id) in found.iter().zip(ids) {
        let removed = rig.table.remove(rig.flows[id as usize].hash, *flow);
        debug_assert!(removed);
    }
}

#[inline(always)]
fn insert(rig: &mut Rig<false>, ids: &[u32]) {
    for (ahead, &id) in ids.iter().enumerate() {
        rig.table.prefetch_bucket(rig.flows[id as usize].hash);
        rig.table.prefetch_vacant(ahead as u32);
    }
    for &id in ids {
        let Named { hash, key } = rig.flows[id as usize];
        let put = rig.table.insert(hash, entry(key));
        debug_assert!(put.is_ok());
    }
}

fn benches(c: &mut Criterion) {
    for (name, capacity) in SIZES {
        for load in LOADS {
            look_ups::<false>(c, "", name, capacity, load);
            insert_and_remove(c, name, capacity, load);
        }
    }
    look_ups::<true>(c, "portable_", "64k", 65_536, 1.0);
}

criterion_group!(all, benches);
criterion_main!(all);
