//! Room 8: whole bursts through the tracker as a worker hands them in, with the wheel's turn after each. Profile `linux`,
//! window tracking, accounting, a policy and events. Each figure is for one packet; writing the frame is part of it.
//!
//! `scripts/bench` compares with others and goes to more flows; this tells which scenario a change has touched.

use conntrack::event::Events;
use conntrack::policy::{Action, Class, Policy, Role, Rule};
use conntrack::tick::{Tick, Ticks};
use conntrack::track::settings::{Profile, Settings};
use conntrack::track::timeout::TimeoutKey;
use conntrack::tracker::{BURST, ExpireBudget, Frame, Limits, OnFull, Outcome, Tracker, Verdict};
use conntrack::wire::{Checksum, Link};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dpdk_conntrack::memory::Mapping;

#[path = "traffic/mod.rs"]
mod traffic;
use traffic::{ACK, Kind, Random, SYN, Wire};

const SIZES: [(&str, u32); 3] = [("1k", 1024), ("64k", 65_536), ("1M", 1_000_000)];

/// Packets between two ticks of 4 ms: what a core gets at 30 million packets a second.
const PACKETS_PER_TICK: usize = 120_000;

/// Frames that are written before a scenario starts, and repeated; of other flows at 1 M than fit any cache.
const WRITTEN: usize = 1 << 18;

/// The appliance's default.
const BUDGET: ExpireBudget = ExpireBudget { flows: 64 };

struct Rig {
    tracker: Tracker,
    events: Events,
    now: Tick,
    packets: usize,
    packets_per_tick: usize,
}

impl Rig {
    fn new(capacity: u32) -> Self {
        let limits = Limits { max_entries: capacity, max_datagrams: 64, hash_key: [1, 2, 3, 4] };
        let bytes = Tracker::memory_bytes(&limits).expect("a capacity within its limits");
        let memory = Mapping::new(bytes, true).expect("memory for a table").into_memory();
        let answers = Class::Established.bit() | Class::Related.bit();
        let rules = [rule(Role::Inside, answers | Class::New.bit()), rule(Role::Outside, answers)];
        let policy = Policy::new(&rules, Action::Drop).expect("two rows");
        let settings = Settings { accounting: true, ..Settings::new(Profile::Linux) };
        let tracker =
            Tracker::new(limits, settings, policy, OnFull::EarlyDrop, memory).expect("memory enough");
        let events = Events::with_capacity(4 * BURST + BUDGET.flows as usize);
        Self { tracker, events, now: Tick(1000), packets: 0, packets_per_tick: PACKETS_PER_TICK }
    }

    /// One turn of a worker; gives how many frames may pass.
    #[inline(always)]
    fn turn(&mut self, burst: &[(Wire, Role)]) -> usize {
        const NONE: Outcome = Outcome::untold(Verdict::Forward);
        let mut outcomes = [NONE; BURST];
        let frames: [Frame<'_>; BURST] = std::array::from_fn(|at| Frame {
            bytes: burst[at].0.bytes(),
            link: Link::Ethernet,
            role: burst[at].1,
            zone: 0,
            checksum: Checksum::Good,
        });
        self.tracker.on_burst(self.now, &frames, &mut outcomes, &mut self.events);
        self.packets += BURST;
        if self.packets >= self.packets_per_tick {
            self.packets = 0;
            self.now.0 += 1;
        }
        self.tracker.on_tick(self.now, BUDGET, &mut self.events);
        self.events.clear();
        outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Forward).count()
    }

    /// Opens flows 0..`flows`, each by a handshake.
    fn open(&mut self, kind: Kind, flows: u32) {
        for first in (0..flows).step_by(BURST) {
            for (reply, flags) in [(false, SYN), (true, SYN | ACK), (false, ACK)] {
                let burst: Vec<_> = (first..first + BURST as u32)
                    .map(|id| from(Wire::segment(kind, id.min(flows - 1), reply, flags), reply))
                    .collect();
                self.turn(&burst);
            }
        }
    }
}

fn rule(from: Role, classes: u8) -> Rule {
    Rule { from: Some(from), classes, new_needs_syn: false, mark: 0, action: Action::Accept }
}

fn from(frame: Wire, reply: bool) -> (Wire, Role) {
    (frame, if reply { Role::Outside } else { Role::Inside })
}

/// Frames that `write` makes, by number.
fn written(mut write: impl FnMut(usize) -> (Wire, Role)) -> Vec<(Wire, Role)> {
    (0..WRITTEN).map(&mut write).collect()
}

fn measure(c: &mut Criterion, name: &str, size: &str, rig: &mut Rig, frames: &[(Wire, Role)]) {
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(BURST as u64));
    let mut bursts = frames.chunks_exact(BURST).cycle();
    group.bench_function(BenchmarkId::new(name, size), |b| {
        b.iter(|| {
            let passed = rig.turn(bursts.next().expect("a cycle has no end"));
            assert_eq!(passed, BURST, "this traffic passes");
        });
    });
    group.finish();
}

fn established(c: &mut Criterion, name: &str, size: &str, flows: u32, kind: Kind) {
    let mut rig = Rig::new(flows);
    rig.open(kind, flows);
    let mut random = Random::new();
    let frames = written(|_| {
        let reply = random.next() & 1 == 1;
        from(Wire::new(kind, random.below(flows), reply), reply)
    });
    measure(c, name, size, &mut rig, &frames);
    assert_eq!(rig.tracker.len(), flows);
}

/// A table full of connections that nobody answered, and ever new ones: each makes another one go.
fn flood(c: &mut Criterion, size: &str, flows: u32) {
    let mut rig = Rig::new(flows);
    // Twice as many flows as fit, so that a flow that comes again has gone meanwhile.
    let ids = (WRITTEN as u32).max(2 * flows);
    let mut next = 0;
    let frames = written(|_| {
        next = (next + ids / WRITTEN as u32) % ids;
        from(Wire::segment(Kind::Tcp, next, false, SYN), false)
    });
    for id in (0..flows).step_by(BURST) {
        let burst: Vec<_> = (id..id + BURST as u32)
            .map(|id| from(Wire::segment(Kind::Tcp, ids + id, false, SYN), false))
            .collect();
        rig.turn(&burst);
    }
    measure(c, "syn_flood", size, &mut rig, &frames);
    assert!(rig.tracker.len() + 64 >= flows, "it stays full: {}", rig.tracker.len());
}

/// Seven packets of established connections to one that opens another; as many expire as come.
fn churn(c: &mut Criterion, size: &str, flows: u32) {
    let stay = flows / 2;
    let mut rig = Rig::new(flows);
    // Four ticks of one new flow in eight packets, and up to eight until the wheel comes by: there is room for more.
    rig.tracker.set_timeout(TimeoutKey::TcpSynSent, Ticks(4));
    rig.open(Kind::Tcp, stay);
    rig.packets_per_tick = stay as usize / 2;
    let mut random = Random::new();
    let frames = written(|at| {
        if at % 8 == 0 {
            return from(Wire::segment(Kind::Tcp, stay + at as u32, false, SYN), false);
        }
        let reply = random.next() & 1 == 1;
        from(Wire::new(Kind::Tcp, random.below(stay), reply), reply)
    });
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(BURST as u64));
    let mut bursts = frames.chunks_exact(BURST).cycle();
    group.bench_function(BenchmarkId::new("churn", size), |b| {
        b.iter(|| rig.turn(bursts.next().expect("a cycle has no end")));
    });
    group.finish();
}

/// Of 16 packets ten are TCP, two of them IPv6's, three UDP, two echoes, and one opens a connection; few flows have most.
fn mixed(c: &mut Criterion, size: &str, flows: u32) {
    let mut rig = Rig::new(2 * flows);
    rig.open(Kind::Tcp, flows / 2);
    rig.open(Kind::Tcp6, flows / 4);
    let mut random = Random::new();
    let frames = written(|at| {
        let reply = random.next() & 1 == 1;
        match at % 16 {
            0..=7 => from(Wire::new(Kind::Tcp, random.zipf(flows / 2), reply), reply),
            8 | 9 => from(Wire::new(Kind::Tcp6, random.zipf(flows / 4), reply), reply),
            10..=12 => from(Wire::new(Kind::Udp, random.zipf(flows / 4), false), false),
            13 | 14 => from(Wire::new(Kind::Echo, random.zipf(flows / 4), false), false),
            _ => from(Wire::segment(Kind::Tcp, flows + at as u32, false, SYN), false),
        }
    });
    measure(c, "mixed_zipf", size, &mut rig, &frames);
}

fn benches(c: &mut Criterion) {
    for (size, flows) in SIZES {
        established(c, "established", size, flows, Kind::Tcp);
    }
    for (size, flows) in &SIZES[1..] {
        established(c, "established_v6", size, *flows, Kind::Tcp6);
        flood(c, size, *flows);
        churn(c, size, *flows);
        mixed(c, size, *flows);
    }
}

criterion_group!(all, benches);
criterion_main!(all);
