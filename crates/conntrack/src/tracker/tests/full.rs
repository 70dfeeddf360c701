//! A full table is an answer: each way out of it is taken and counted.

use super::dialogue::*;
use crate::event::Events;
use crate::policy::{Action, Class, DropReason, Policy, Role, Rule};
use crate::tick::Tick;
use crate::track::settings::{Profile, Settings};
use crate::tracker::{Limits, OnFull, Outcome, Tracker, Verdict};
use crate::wire::proto;

const ROOM: u32 = 100;

fn send(tracker: &mut Tracker, role: Role, packet: &[u8]) -> Outcome {
    let mut outcomes = [Outcome::untold(Verdict::Forward)];
    tracker.on_burst(Tick(1), &[frame(packet, role)], &mut outcomes, &mut Events::none());
    outcomes[0]
}

fn host(number: u32) -> [u8; 4] {
    (0x0a00_0000 | number).to_be_bytes()
}

const SERVER: [u8; 4] = [198, 18, 0, 1];

fn syn(tracker: &mut Tracker, number: u32) -> Outcome {
    send(tracker, Role::Inside, &ipv4(proto::TCP, host(number), SERVER, &tcp((1000, 80), 1, 0, SYN, 1000, 0)))
}

/// A whole handshake: the flow is ASSURED.
fn connect(tracker: &mut Tracker, number: u32) {
    syn(tracker, number);
    let answer = ipv4(proto::TCP, SERVER, host(number), &tcp((80, 1000), 9, 2, SYN | ACK, 1000, 0));
    send(tracker, Role::Outside, &answer);
    let last = ipv4(proto::TCP, host(number), SERVER, &tcp((1000, 80), 2, 10, ACK, 1000, 0));
    send(tracker, Role::Inside, &last);
}

fn full_of(assured: u32, on_full: OnFull) -> Tracker {
    let mut tracker = tracker(Settings::new(Profile::Linux), Policy::ACCEPT_ALL, ROOM, on_full);
    for number in 0..assured {
        connect(&mut tracker, number);
    }
    for number in assured..ROOM {
        assert_eq!(syn(&mut tracker, number).verdict, Verdict::Forward);
    }
    assert_eq!(tracker.len(), ROOM);
    assert_eq!(tracker.states().assured, assured);
    tracker
}

#[test]
fn early_drop_makes_room_among_flows_that_are_not_assured() {
    let mut tracker = full_of(ROOM / 2, OnFull::EarlyDrop);
    let outcome = syn(&mut tracker, ROOM);
    assert_eq!(outcome.verdict, Verdict::Forward);
    assert_eq!(tracker.len(), ROOM);
    assert_eq!(tracker.states().assured, ROOM / 2);
    assert_eq!(tracker.counters().destroyed[crate::event::DestroyReason::EarlyDrop as usize], 1);
}

#[test]
fn early_drop_refuses_when_every_flow_is_assured() {
    let mut tracker = full_of(ROOM, OnFull::EarlyDrop);
    let outcome = syn(&mut tracker, ROOM);
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::TableFull));
    assert_eq!(tracker.counters().dropped[DropReason::TableFull.index()], 1);
    assert_eq!(tracker.states().assured, ROOM);
}

#[test]
fn drop_new_leaves_every_flow_in_peace() {
    let mut tracker = full_of(0, OnFull::DropNew);
    assert_eq!(syn(&mut tracker, ROOM).verdict, Verdict::Drop(DropReason::TableFull));
    assert_eq!(tracker.counters().dropped[DropReason::TableFull.index()], 1);
}

#[test]
fn pass_untracked_lets_the_packet_through_without_a_flow() {
    let mut tracker = full_of(0, OnFull::PassUntracked);
    let outcome = syn(&mut tracker, ROOM);
    assert_eq!((outcome.class, outcome.verdict), (Some(Class::New), Verdict::Forward));
    assert_eq!(tracker.len(), ROOM);
    assert_eq!(tracker.counters().full_untracked, 1);
}

#[test]
fn a_first_packet_that_policy_drops_leaves_no_entry() {
    let classes = Class::New.bit() | Class::Established.bit();
    let out =
        Rule { from: Some(Role::Inside), classes, new_needs_syn: false, action: Action::Accept, mark: 0 };
    let back = Rule { from: Some(Role::Outside), classes: Class::Established.bit(), ..out };
    let policy = Policy::new(&[out, back], Action::Drop).unwrap();
    let mut tracker = tracker(Settings::new(Profile::Classic), policy, ROOM, OnFull::EarlyDrop);

    let from_outside = ipv4(proto::TCP, SERVER, host(1), &tcp((5000, 22), 1, 0, SYN, 1000, 0));
    let outcome = send(&mut tracker, Role::Outside, &from_outside);
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::Policy { class: Class::New, row: None }));
    assert!(tracker.is_empty());

    connect(&mut tracker, 1);
    assert_eq!(tracker.states().replied, 1, "an answer from outside comes in");
}

#[test]
fn a_burst_with_two_first_packets_of_one_flow_makes_one_flow() {
    let mut tracker = tracker(Settings::new(Profile::Linux), Policy::ACCEPT_ALL, ROOM, OnFull::EarlyDrop);
    let packet = ipv4(proto::UDP, host(1), SERVER, &udp((1, 2), 0));
    let frames = [frame(&packet, Role::Inside); 2];
    let mut outcomes = [Outcome::untold(Verdict::Forward); 2];
    tracker.on_burst(Tick(1), &frames, &mut outcomes, &mut Events::none());
    assert_eq!(tracker.len(), 1);
    assert_eq!(tracker.counters().inserted(), 1);
}

#[test]
fn where_new_must_carry_a_syn_nothing_else_opens_a_flow() {
    let classes = Class::New.bit() | Class::Established.bit();
    let out =
        Rule { from: Some(Role::Inside), classes, new_needs_syn: true, action: Action::Accept, mark: 0 };
    let policy = Policy::new(&[out], Action::Drop).unwrap();
    let mut tracker = tracker(Settings::new(Profile::Classic), policy, ROOM, OnFull::EarlyDrop);

    for flags in [ACK, FIN | ACK, RST, SYN | ACK, 0] {
        let packet = ipv4(proto::TCP, host(1), SERVER, &tcp((1000, 80), 1, 1, flags, 1000, 0));
        let outcome = send(&mut tracker, Role::Inside, &packet);
        let refused = Verdict::Drop(DropReason::Policy { class: Class::New, row: None });
        assert_eq!((outcome.class, outcome.verdict), (Some(Class::New), refused), "{flags:#04x}");
        assert!(tracker.is_empty(), "{flags:#04x}");
    }
    assert_eq!(syn(&mut tracker, 1).verdict, Verdict::Forward);
    let datagram = ipv4(proto::UDP, host(1), SERVER, &udp((1, 2), 0));
    assert_eq!(send(&mut tracker, Role::Inside, &datagram).verdict, Verdict::Forward, "only TCP has a SYN");
    assert_eq!(tracker.len(), 2);
}

#[test]
fn a_large_table_takes_at_most_160_bytes_a_flow() {
    for max_entries in [1_000_000, 16_000_000, 100_000_000] {
        let limits = Limits { max_entries, max_datagrams: 0, hash_key: [0; 4] };
        let bytes = Tracker::memory_bytes(&limits).unwrap();
        let (flow, rest) = (bytes / max_entries as usize, bytes % max_entries as usize);
        assert!((flow, rest) <= (160, 0), "{max_entries} flows: {flow} bytes and {rest} over all");
    }
}
