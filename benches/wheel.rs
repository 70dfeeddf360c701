//! Room 6: the wheel. Each figure is for one flow: armed, handed out for good, and handed out and armed again, which is
//! what a flow that lives costs once per timeout.

use std::cell::RefCell;
use std::hint::black_box;

use conntrack::table::FlowIndex;
use conntrack::tick::{Tick, Ticks};
use conntrack::timer::wheel::{SLOT_TICKS, Wheel};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dpdk_conntrack::memory::Mapping;

#[path = "traffic/mod.rs"]
mod traffic;
use traffic::{BURST, Random};

const SIZES: [(&str, u32); 2] = [("64k", 65_536), ("1M", 1_000_000)];

/// Half-open connections' timeout: most flows that end are on one like it.
const LIFE: Ticks = Ticks::from_secs(120);

struct Rig {
    wheel: Wheel,
    now: Tick,
    /// When the present deadlines were drawn.
    since: Tick,
    /// Each flow's deadline, as ticks from then.
    due: Vec<u32>,
}

/// What a flow does whose deadline has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Ends,
    /// It had a packet just now.
    Lives,
}

impl Rig {
    fn new(flows: u32) -> Self {
        let mut random = Random::new();
        let mapping = Mapping::new(Wheel::memory_bytes(flows), true).expect("memory for a wheel");
        let wheel = Wheel::new(flows, &mut mapping.into_memory()).expect("as much memory as it asked for");
        let now = Tick(1000);
        Self { wheel, now, since: now, due: (0..flows).map(|_| 1 + random.below(LIFE.0)).collect() }
    }

    fn deadline(&self, flow: FlowIndex) -> Tick {
        self.since.after(Ticks(self.due[flow.0 as usize]))
    }

    fn arm_all(&mut self) {
        self.since = self.now;
        for flow in (0..self.due.len() as u32).map(FlowIndex) {
            black_box(self.wheel.arm(self.now, self.deadline(flow), flow));
        }
    }

    /// A timeout goes by. A flow that a wide slot hands out early is armed again, closer, as the tracker does it.
    fn pass(&mut self, then: Then) {
        let mut out = [FlowIndex(0); BURST];
        let end = self.now.after(LIFE).0 + SLOT_TICKS;
        while self.now.0 < end {
            self.now.0 += SLOT_TICKS;
            loop {
                let taken = self.wheel.take_due(self.now, &mut out);
                for &flow in &out[..taken] {
                    let deadline = match then {
                        Then::Lives => self.now.after(LIFE),
                        Then::Ends => self.deadline(flow),
                    };
                    if deadline > self.now {
                        black_box(self.wheel.arm(self.now, deadline, flow));
                    }
                }
                if taken < out.len() {
                    break;
                }
            }
        }
    }
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel");
    group.sample_size(10);
    for (name, flows) in SIZES {
        group.throughput(Throughput::Elements(u64::from(flows)));
        let rig = RefCell::new(Rig::new(flows));
        group.bench_function(BenchmarkId::new("arm", name), |b| {
            b.iter_batched(
                || rig.borrow_mut().pass(Then::Ends),
                |()| rig.borrow_mut().arm_all(),
                BatchSize::PerIteration,
            );
        });
        rig.borrow_mut().pass(Then::Ends);
        assert!(rig.borrow().wheel.is_empty());
        group.bench_function(BenchmarkId::new("expire", name), |b| {
            b.iter_batched(
                || rig.borrow_mut().arm_all(),
                |()| rig.borrow_mut().pass(Then::Ends),
                BatchSize::PerIteration,
            );
        });
        rig.borrow_mut().arm_all();
        group.bench_function(BenchmarkId::new("rearm", name), |b| {
            b.iter(|| rig.borrow_mut().pass(Then::Lives))
        });
        assert_eq!(rig.borrow().wheel.len(), flows);
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
