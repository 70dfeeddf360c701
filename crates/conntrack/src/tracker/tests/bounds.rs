//! The work of one burst is bounded: how often it reaches into the tables' memory depends neither on how many flows there
//! are nor on what an attacker sends.

use std::vec;
use std::vec::Vec;

use super::dialogue::*;
use crate::event::Events;
use crate::policy::{Policy, Role};
use crate::table::memory::reached;
use crate::tick::{Tick, Ticks};
use crate::track::settings::{Profile, Settings};
use crate::tracker::{BURST, ExpireBudget, OnFull, Outcome, Tracker, Verdict};
use crate::wire::proto;

/// Times that the tables' memory is reached into for one packet, all in all; the worst below is 71. It is a first packet into
/// a table where nothing may make room: its two buckets, their flows, and a window of [`crate::table::VICTIM_WINDOW`] flows
/// more are looked at, and that is all.
const EACH: u64 = 80;

fn frames_of(packets: &[(Vec<u8>, Role)], tracker: &mut Tracker, now: Tick) -> u64 {
    let frames: Vec<_> = packets.iter().map(|(packet, role)| frame(packet, *role)).collect();
    let mut outcomes = vec![Outcome::untold(Verdict::Forward); frames.len()];
    let mut events = Events::with_capacity(4 * BURST);
    reached::times();
    tracker.on_burst(now, &frames, &mut outcomes, &mut events);
    reached::times()
}

fn host(number: u32) -> [u8; 4] {
    (0x0a00_0000 | number).to_be_bytes()
}

const SERVER: [u8; 4] = [198, 18, 0, 1];

fn segment(number: u32, back: bool, seq: u32, ack: u32, flags: u8) -> (Vec<u8>, Role) {
    let (src, dst, ports, role) = match back {
        false => (host(number), SERVER, (1000, 80), Role::Inside),
        true => (SERVER, host(number), (80, 1000), Role::Outside),
    };
    (ipv4(proto::TCP, src, dst, &tcp(ports, seq, ack, flags, 1000, 0)), role)
}

/// The most that any burst has cost, and the most that any tick has.
fn worst(room: u32, on_full: OnFull) -> (u64, u64) {
    let mut tracker = tracker(Settings::new(Profile::Linux), Policy::ACCEPT_ALL, room, on_full);
    let mut now = Tick(1);
    let (mut burst, mut tick) = (0, 0);
    let bursts = |numbers: core::ops::Range<u32>, back, seq, ack, flags| -> Vec<Vec<(Vec<u8>, Role)>> {
        let packets: Vec<_> = numbers.map(|number| segment(number, back, seq, ack, flags)).collect();
        packets.chunks(BURST).map(<[_]>::to_vec).collect()
    };
    let steps = [
        // Half of the table is ASSURED, the other half and as many again are SYNs that nobody answers.
        bursts(0..room / 2, false, 1, 0, SYN),
        bursts(0..room / 2, true, 9, 2, SYN | ACK),
        bursts(0..room / 2, false, 2, 10, ACK),
        bursts(room / 2..2 * room, false, 1, 0, SYN),
        // These end, one burst after the other, and come again.
        bursts(0..room / 2, false, 2, 10, RST),
        bursts(0..room / 2, false, 3, 0, SYN),
        // All that is left is answered, so that nothing may make room for what comes then.
        bursts(0..2 * room, true, 9, 4, SYN | ACK),
        bursts(0..2 * room, false, 4, 10, ACK),
        bursts(2 * room..3 * room, false, 1, 0, SYN),
    ];
    for packets in steps.iter().flatten() {
        burst = burst.max(frames_of(packets, &mut tracker, now));
        now = now.after(Ticks(1));
    }
    // Long after, everything is due at once.
    now = now.after(Ticks::from_secs(6 * 86_400));
    let mut events = Events::with_capacity(4 * BURST);
    // The clock's leap ends most of them; the rest goes by the budget.
    for _ in 0..2 * room {
        reached::times();
        let done = tracker.on_tick(now, ExpireBudget { flows: BURST as u32 }, &mut events);
        tick = tick.max(reached::times());
        events.clear();
        if !done.more {
            break;
        }
    }
    assert!(tracker.is_empty());
    (burst, tick)
}

#[test]
fn a_burst_reaches_into_memory_a_bounded_number_of_times_whatever_the_table_holds() {
    for on_full in [OnFull::EarlyDrop, OnFull::DropNew, OnFull::PassUntracked] {
        for room in [256, 16_384] {
            let (burst, tick) = worst(room, on_full);
            assert!(burst <= EACH * BURST as u64, "{room} flows, {on_full:?}: {burst} in a burst of {BURST}");
            assert!(tick <= EACH * BURST as u64, "{room} flows, {on_full:?}: {tick} in a tick of {BURST}");
        }
    }
}
