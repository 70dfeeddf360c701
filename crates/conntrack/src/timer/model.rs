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

const SECOND: u64 = PER_SECOND as u64;

#[test]
fn five_days_and_one_second_side_by_side_end_at_their_time() {
    for start in [0, 7, 1_000_003, (1 << 32) - 1, 1_700_000_000 * SECOND] {
        let mut flows = Flows::new(2);
        flows.arm(start, start + 5 * DAY, 0);
        let (mut visits, mut renewed) = (0, 0);
        let mut now = start;
        // One second's worth of flow, made anew each time it ends, for five days; looked at every 20 ms for the
        // first and last ten seconds, every minute between.
        while flows.armed.contains_key(&0) {
            assert!(now < start + 5 * DAY + SLOT_TICKS, "alive at {}", now - start);
            if !flows.armed.contains_key(&1) {
                flows.arm(now, now + SECOND, 1);
                renewed += 1;
            }
            let close = now < start + 10 * SECOND || now + 70 * SECOND > start + 5 * DAY;
            now += if close { 5 } else { 60 * SECOND };
            let (ended, visited) = flows.catch_up(now, 3);
            visits += visited;
            if ended.contains(&0) {
                assert!(now >= start + 5 * DAY, "dead at {}", now - start);
            }
        }
        // The long one: once for each level that it comes down.
        assert!(visits - renewed <= 3, "{visits} visits, {renewed} of them ends of the short flow");
    }
}

#[test]
fn a_flow_is_looked_at_within_a_slot_of_its_deadline() {
    let spans =
        [0, 1, 7, 8, 9, 2_047, 2_048, 2_049, 524_287, 524_288, 524_289, DAY, 5 * DAY, 7 * DAY, 90 * DAY];
    for start in [0, 3, 2_040, 524_280, 77_777_777] {
        for span in spans {
            let (mut flows, due) = (Flows::new(1), start + span);
            flows.arm(start, due, 0);
            // A visit for every time the wheel names, and one tick before it: never dead before its time.
            let by = due.div_ceil(SLOT_TICKS) * SLOT_TICKS;
            let mut now = start;
            let mut jumps = 0;
            while now < by {
                now = (now + (by - now).div_ceil(2)).min(by);
                let (ended, _) = flows.catch_up(now, 1);
                assert!(ended.is_empty() || now >= due, "span {span} from {start}: dead at {now}");
                jumps += 1;
            }
            let (ended, _) = flows.catch_up(by, 1);
            assert!(jumps > 0 && flows.armed.is_empty() || ended == [0], "span {span} from {start}");
        }
    }
}

#[test]
fn stall_longer_than_a_level_ends_all_that_passed_and_nothing_else() {
    const FLOWS: u32 = 3_000;
    for stall in [SECOND, 9 * SECOND, 70 * SECOND, 3_600 * SECOND, DAY, 20 * DAY, 100 * DAY, 150 * DAY] {
        let mut flows = Flows::new(FLOWS);
        let mut random = Random::new(stall);
        let start = 123_456_789;
        let count = if cfg!(miri) { 100 } else { FLOWS };
        for flow in 0..count {
            let span = random.span();
            flows.arm(start, start + span, flow);
        }
        flows.catch_up(start, 64);
        let now = start + stall;
        let due_by =
            |by: u64| flows.dues.iter().filter(|(due, _)| *due <= by).map(|&(_, flow)| flow).collect();
        let dead: BTreeSet<u32> = due_by(now);
        let passed: BTreeSet<u32> = due_by(now / SLOT_TICKS * SLOT_TICKS);
        let oldest = flows.dues.first().unwrap().0;
        let lag = flows.wheel.lag(Tick(now)).map_or(0, |lag| u64::from(lag.0));
        assert!(oldest > now || lag + SLOT_TICKS > (now - oldest), "lag {lag}, oldest {}", now - oldest);
        let held = flows.armed.len();
        let (ended, visits) = flows.catch_up(now, 64);
        let ended: BTreeSet<u32> = ended.into_iter().collect();
        assert!(ended.is_superset(&passed), "{stall}: not ended {:?}", passed.difference(&ended));
        assert!(ended.is_subset(&dead), "{stall}: alive, but ended {:?}", ended.difference(&dead));
        assert!(visits <= held, "each at most once: {visits} visits of {held}");
    }
}

/// What a peer who opens and closes at will can do: every second packet shortens the timeout.
#[test]
fn alternating_short_and_long_timeouts_never_grow_the_wheel() {
    const FLOWS: u32 = 1_000;
    let mut flows = Flows::new(FLOWS);
    let rounds = if cfg!(miri) { 2 } else { 100 };
    for round in 0..rounds {
        let now = round * 3;
        for flow in 0..FLOWS {
            if flows.armed.contains_key(&flow) {
                flows.remove(flow);
            }
            let span = if round % 2 == 0 { 5 * DAY } else { 10 * SECOND };
            flows.arm(now, now + span, flow);
        }
        assert_eq!(flows.wheel.len(), FLOWS);
    }
    // Two slots that fill and empty in turn, and their partial chunks.
    assert!(flows.wheel.chunks_touched() <= FLOWS as usize / 62 + 6, "{}", flows.wheel.chunks_touched());
}

/// One reference in every slot, then the rest in one: no spread takes more chunks.
#[test]
fn the_pool_holds_the_capacity_in_the_worst_spread() {
    for capacity in [1, 2, 61, 62, 63, 1_024, 1_025, 5_000] {
        if cfg!(miri) && capacity > 63 {
            break;
        }
        let mut flows = Flows::new(capacity);
        let mut flow = 0;
        'all: for level in 0..4u32 {
            for slot in 1..=255u64 {
                if flow == capacity {
                    break 'all;
                }
                flows.arm(0, (slot << (8 * level)) * SLOT_TICKS, flow);
                flow += 1;
            }
        }
        for flow in flow..capacity {
            flows.arm(0, 1, flow);
        }
        assert_eq!(flows.wheel.len(), capacity);
        // Emptied from within and filled again, in any order, it still fits.
        let mut random = Random::new(u64::from(capacity));
        for _ in 0..5 * capacity.min(1_000) {
            let flow = random.below(capacity);
            flows.remove(flow);
            let due = u64::from(random.below(1 << 30));
            flows.arm(0, due, flow);
        }
        flows.catch_up(1 << 36, 7);
        assert!(flows.wheel.is_empty());
    }
}

#[test]
fn a_deadline_that_has_passed_is_looked_at_by_the_next_call() {
    let mut flows = Flows::new(3);
    flows.arm(1_000, 5_000_000, 0);
    flows.catch_up(100_000, 8);
    for due in [0, 50_000, 99_999, 100_000] {
        flows.arm(100_000, due, 1);
        assert_eq!(flows.catch_up(100_000, 1).0, [1], "due {due}");
    }
}

#[test]
#[should_panic(expected = "one reference per flow")]
fn a_second_reference_is_a_broken_promise() {
    let mut wheel = wheel(1);
    wheel.arm(Tick(0), Tick(1), FlowIndex(0));
    wheel.arm(Tick(0), Tick(1), FlowIndex(0));
}
