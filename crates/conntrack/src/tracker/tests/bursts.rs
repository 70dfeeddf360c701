//! However frames are cut into bursts, and whatever the processor can do, the same comes out.

use std::vec;
use std::vec::Vec;

use super::dialogue::*;
use crate::event::{EventKind, Events, FlowView};
use crate::policy::{Action, Class, Policy, Role, Rule};
use crate::table::memory::Memory;
use crate::tick::{Tick, Ticks};
use crate::track::settings::{Profile, Settings};
use crate::track::timeout::TimeoutKey;
use crate::tracker::{Cursor, ExpireBudget, Forecast, Limits, OnFull, Outcome, Tracker, Verdict};
use crate::wire::proto;

/// xorshift64: the same traffic on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }
}

/// A packet between few hosts and ports, so that flows meet their answers, resets and successors within a burst.
fn packet(random: &mut Random) -> (Vec<u8>, Role) {
    let (client, server) = ([10, 0, 0, random.below(3) as u8], [192, 0, 2, random.below(2) as u8]);
    let ports = (1000 + random.below(4) as u16, 80);
    let back = random.below(2) == 1;
    let (src, dst) = if back { (server, client) } else { (client, server) };
    let (from, to) = if back { (ports.1, ports.0) } else { ports };
    let role = if back { Role::Outside } else { Role::Inside };
    let (seq, ack) = if back { (2000, 1001) } else { (1000, 2001) };
    let near = |random: &mut Random, base: u32| base.wrapping_add(random.below(5) as u32);
    let packet = match random.below(10) {
        0..7 => {
            let flags = [SYN, SYN | ACK, ACK, ACK, ACK, ACK | PSH, FIN | ACK, RST, 0][random.below(9)];
            let window = [0, 500, 60_000][random.below(3)];
            let (seq, ack, bytes) = (near(random, seq), near(random, ack), random.below(3));
            ipv4(proto::TCP, src, dst, &tcp((from, to), seq, ack, flags, window, bytes))
        }
        7..9 => ipv4(proto::UDP, src, dst, &udp((from, to), random.below(9))),
        _ => ipv4(89, src, dst, &[0; 8]),
    };
    (packet, role)
}

/// One tracker, and all that it has said.
struct Side {
    tracker: Tracker,
    events: Events,
    outcomes: Vec<Outcome>,
    told: Vec<(Tick, EventKind, FlowView)>,
}

impl Side {
    /// Few places, so that the table is full now and then.
    fn new(portable: bool) -> Self {
        let row =
            |from, classes| Rule { from, classes, new_needs_syn: false, action: Action::Accept, mark: 3 };
        let all = Class::New.bit() | Class::Established.bit();
        let rows = [row(Some(Role::Inside), all), row(Some(Role::Outside), Class::Established.bit())];
        let policy = Policy::new(&rows, Action::Drop).unwrap();
        let limits = Limits { max_entries: 24, max_datagrams: 8, hash_key: [1, 2, 3, 4] };
        let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
        let settings = Settings::new(Profile::Linux);
        let tracker = Tracker::new(limits, settings, policy, OnFull::EarlyDrop, memory).unwrap();
        let tracker = if portable { tracker.narrow() } else { tracker };
        Self { tracker, events: Events::with_capacity(1000), outcomes: Vec::new(), told: Vec::new() }
    }

    fn send(&mut self, now: Tick, packets: &[(Vec<u8>, Role)]) {
        let frames: Vec<_> = packets.iter().map(|(packet, role)| frame(packet, *role)).collect();
        let mut outcomes = vec![Outcome::untold(Verdict::Forward); frames.len()];
        self.tracker.on_burst(now, &frames, &mut outcomes, &mut self.events);
        self.outcomes.extend(outcomes);
        self.gather();
    }

    fn gather(&mut self) {
        let told = self.events.iter().map(|event| (event.at(), event.kind, event.flow()));
        self.told.extend(told);
        self.events.clear();
    }

    /// What shorter timeouts would do: of the table as it is, and of all pauses so far.
    fn forecast(&self, now: Tick) -> Forecast {
        let mut timeouts = self.tracker.settings().timeouts;
        TimeoutKey::ALL.iter().for_each(|&key| timeouts.set(key, Ticks(600)));
        let mut forecast = Forecast::default();
        assert_eq!(self.tracker.what_if(now, Cursor::default(), &timeouts, &mut forecast), None);
        forecast
    }

    fn flows(&self, now: Tick) -> Vec<FlowView> {
        let mut flows = Vec::with_capacity(100);
        assert_eq!(self.tracker.page(now, Cursor::default(), &mut flows), None);
        flows
    }
}

#[test]
fn bursts_of_any_size_on_any_processor_give_what_single_packets_give() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut single = Side::new(false);
    let mut others = [Side::new(false), Side::new(true)];
    let mut now = Tick(1);
    for _ in 0..if cfg!(miri) { 5 } else { 400 } {
        let burst: Vec<_> = (0..1 + random.below(150)).map(|_| packet(&mut random)).collect();
        for one in &burst {
            single.send(now, core::slice::from_ref(one));
        }
        for side in &mut others {
            side.send(now, &burst);
            assert_eq!(side.outcomes, single.outcomes);
            assert_eq!(side.told, single.told);
            assert_eq!(side.flows(now), single.flows(now));
            assert_eq!(side.tracker.counters().packets, single.tracker.counters().packets);
            assert_eq!(side.tracker.counters().lookups_hit, single.tracker.counters().lookups_hit);
            assert_eq!(side.tracker.counters().lookups_miss, single.tracker.counters().lookups_miss);
            assert_eq!(side.tracker.counters().dropped, single.tracker.counters().dropped);
            assert_eq!(side.tracker.states(), single.tracker.states());
            assert_eq!(side.forecast(now), single.forecast(now));
        }
        // Now and then so long that some, or most, expire: some found by their next packet, some by the wheel.
        now = Tick(now.0 + [0, 1, 500, 20_000, 90_000][random.below(5)]);
        if random.below(2) == 0 {
            for side in others.iter_mut().chain([&mut single]) {
                while side.tracker.on_tick(now, ExpireBudget { flows: 7 }, &mut side.events).more {}
                side.gather();
            }
        }
        for side in others.iter_mut().chain([&mut single]) {
            side.outcomes.clear();
            side.told.clear();
        }
    }
    let counters = single.tracker.counters();
    assert!(cfg!(miri) || counters.destroyed.iter().take(3).all(|&ended| ended > 100), "{counters:?}");
    let cut = single.forecast(now).cut;
    assert!(cfg!(miri) || cut.at_least > 10, "{cut:?}");
}

#[test]
fn two_first_packets_of_one_flow_in_a_burst_make_one_flow_and_an_expired_one_makes_room() {
    let mut side = Side::new(false);
    let syn =
        (ipv4(proto::TCP, [10, 0, 0, 1], [10, 0, 0, 2], &tcp((1, 2), 1, 0, SYN, 1000, 0)), Role::Inside);
    side.send(Tick(1), &[syn.clone(), syn.clone()]);
    assert_eq!(side.tracker.len(), 1);
    let later = Tick(1 + 121 * 250);
    side.send(later, &[syn]);
    assert_eq!(side.tracker.len(), 1);
    let kinds: Vec<_> = side.told.iter().map(|(_, kind, _)| *kind).collect();
    let timeout = crate::event::DestroyReason::Timeout;
    assert_eq!(kinds, [EventKind::New, EventKind::Destroy(timeout), EventKind::New]);
}

#[test]
fn an_established_flow_that_is_over_ends_by_its_next_packet_before_the_wheel_comes() {
    let mut side = Side::new(false);
    let from = |client: bool, seq, ack, flags| {
        let (src, dst, ports) = ([10, 0, 0, 1], [10, 0, 0, 2], (1, 2));
        let (src, dst, ports) = if client { (src, dst, ports) } else { (dst, src, (2, 1)) };
        let role = if client { Role::Inside } else { Role::Outside };
        (ipv4(proto::TCP, src, dst, &tcp(ports, seq, ack, flags, 1000, 0)), role)
    };
    let handshake = [from(true, 1, 0, SYN), from(false, 9, 2, SYN | ACK), from(true, 2, 10, ACK)];
    side.send(Tick(1), &handshake);
    side.send(Tick(2), &[from(false, 10, 2, ACK), from(true, 2, 10, ACK)]);
    let days = 432_000 * 250;
    side.send(Tick(1 + days), &[from(true, 2, 10, ACK)]);
    assert_eq!(side.outcomes.last().and_then(|outcome| outcome.class), Some(Class::Established));
    side.told.clear();
    side.send(Tick(1 + 2 * days), &[from(true, 2, 10, ACK)]);
    assert_eq!(side.outcomes.last().and_then(|outcome| outcome.class), Some(Class::New));
    let kinds: Vec<_> = side.told.iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(kinds, [EventKind::Destroy(crate::event::DestroyReason::Timeout), EventKind::New]);
}
