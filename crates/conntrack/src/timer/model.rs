//! The wheel against a sorted list.

use super::wheel::{Armed, SLOT_TICKS, Wheel};
use crate::table::FlowIndex;
use crate::table::memory::Memory;
use crate::table::model::{Random, operations};
use crate::tick::{PER_SECOND, Tick};
use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;

const DAY: u64 = 86_400 * PER_SECOND as u64;

fn wheel(capacity: u32) -> Wheel {
    let mut memory = Memory::heap(Wheel::memory_bytes(capacity)).unwrap();
    let wheel = Wheel::new(capacity, &mut memory).unwrap();
    assert_eq!(memory.left(), 0, "memory_bytes is what new takes");
    wheel
}

/// The caller's part, as plainly as it can be put: where each flow's reference is and when the flow is due.
struct Flows {
    wheel: Wheel,
    armed: BTreeMap<u32, (Armed, u64)>,
    dues: BTreeSet<(u64, u32)>,
}

impl Flows {
    fn new(capacity: u32) -> Self {
        Self { wheel: wheel(capacity), armed: BTreeMap::new(), dues: BTreeSet::new() }
    }

    fn arm(&mut self, now: u64, due: u64, flow: u32) {
        let armed = self.wheel.arm(Tick(now), Tick(due), FlowIndex(flow));
        let early = (due as u32).wrapping_sub(armed.at);
        assert!(early <= 1 << 27, "at {} is after the deadline {due}, or too far before it", armed.at);
        assert!(self.armed.insert(flow, (armed, due)).is_none(), "flow {flow} has two references");
        self.dues.insert((due, flow));
    }

    fn remove(&mut self, flow: u32) {
        let (armed, due) = self.armed.remove(&flow).unwrap();
        self.dues.remove(&(due, flow));
        if let Some(moved) = self.wheel.remove(armed.pos) {
            assert_ne!(moved.flow.0, flow);
            self.armed.get_mut(&moved.flow.0).expect("a flow that is armed").0.pos = moved.pos;
        }
    }

    /// Takes what is due with a buffer of this size, once. Ends what is dead and arms the rest again.
    fn look(&mut self, now: u64, size: usize, ended: &mut Vec<u32>) -> usize {
        let mut out = vec![FlowIndex(u32::MAX); size];
        let taken = self.wheel.take_due(Tick(now), &mut out);
        let mut again = Vec::new();
        for flow in &out[..taken] {
            let (_, due) = self.armed.remove(&flow.0).expect("a flow that is armed, once");
            self.dues.remove(&(due, flow.0));
            if due <= now { ended.push(flow.0) } else { again.push((due, flow.0)) }
        }
        for (due, flow) in again {
            self.arm(now, due, flow);
        }
        taken
    }

    /// All that is due, in bites; at the end nothing that had to be looked at is left.
    fn catch_up(&mut self, now: u64, size: usize) -> (Vec<u32>, usize) {
        let (mut ended, mut visits) = (Vec::new(), 0);
        loop {
            let taken = self.look(now, size, &mut ended);
            visits += taken;
            if taken < size {
                break;
            }
        }
        assert_eq!(self.wheel.lag(Tick(now)), None, "caught up");
        assert_eq!(self.wheel.len() as usize, self.armed.len());
        if let Some(&(due, flow)) = self.dues.first() {
            let by = due.div_ceil(SLOT_TICKS) * SLOT_TICKS;
            assert!(by > now, "flow {flow}, due at {due}, is not looked at by {now}");
        }
        (ended, visits)
    }
}

#[test]
fn wheel_agrees_with_a_sorted_list() {
    const FLOWS: u32 = 5_000;
    let mut random = Random::new(0x7ee1);
    let mut flows = Flows::new(FLOWS);
    // Not at a slot's border, and so that the low 32 bits wrap on the way.
    let mut now = (1u64 << 32) - 3 * DAY - 5;
    let mut peak = 0;
    for _ in 0..operations() {
        let flow = random.below(FLOWS);
        match random.below(2_000) {
            0..1_200 => {
                let span = random.span();
                if let Some(&(armed, due)) = flows.armed.get(&flow) {
                    // A packet: later deadlines are only noted, earlier ones move the reference.
                    let deadline = now + span;
                    if ((deadline as u32).wrapping_sub(armed.at) as i32) < 0 {
                        flows.remove(flow);
                        flows.arm(now, deadline, flow);
                    } else {
                        flows.dues.remove(&(due, flow));
                        flows.dues.insert((deadline, flow));
                        flows.armed.insert(flow, (armed, deadline));
                    }
                } else {
                    flows.arm(now, now + span, flow);
                }
            }
            1_200..1_240 if !flows.armed.contains_key(&flow) => {
                flows.arm(now, now - random.span().min(now), flow);
            }
            1_200..1_400 => {
                if flows.armed.contains_key(&flow) {
                    flows.remove(flow);
                }
            }
            1_400..1_700 => {
                let size = 1 + random.below(64) as usize;
                flows.look(now, size, &mut Vec::new());
            }
            1_700..1_998 => now += u64::from(random.below(20)),
            _ => {
                // Away for a while: a tick, hours, now and then a hundred days.
                now += if random.below(20) == 0 { 100 * DAY } else { random.span() };
                flows.catch_up(now, 1 + random.below(300) as usize);
            }
        }
        peak = peak.max(flows.wheel.len());
        assert_eq!(flows.wheel.len() as usize, flows.armed.len());
    }
    assert!(cfg!(miri) || peak > FLOWS / 4, "the test fills the wheel: {peak}");
}
