//! Fragments among several workers: where they are put together, and who may track what comes of them.

use super::zones::frame;
use crate::event::Events;
use crate::fragment::Meeting;
use crate::key::owner::{Owners, WorkerId};
use crate::policy::{Class, DropReason, Policy, Role};
use crate::table::memory::Memory;
use crate::tick::Tick;
use crate::track::settings::{Profile, Settings};
use crate::tracker::{Frame, Limits, OnFull, Outcome, Tracker, Verdict};
use crate::wire::{Checksum, Link};

/// One of two workers that put datagrams together where they enter.
fn worker(me: u8) -> Tracker {
    let limits = Limits { max_entries: 64, max_datagrams: 16, hash_key: [1, 2, 3, 4] };
    let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
    let settings = Settings::new(Profile::Linux);
    Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::DropNew, memory)
        .unwrap()
        .among(Owners::shared(&[1, 1], WorkerId(me)).unwrap(), Meeting::Entry)
}

/// A piece of a UDP datagram from this port; all datagrams have one identification.
fn piece(port: u8, last: bool) -> std::vec::Vec<u8> {
    let first = [3, port, 0, 53, 0, 16, 0, 0];
    if last { frame(&[], 1, 2, 17, 1, &[9; 8]) } else { frame(&[], 1, 2, 17, 0x2000, &first) }
}

fn send(tracker: &mut Tracker, bytes: &[u8], by_ring: bool) -> Outcome {
    let (role, checksum) = (Role::Inside, Checksum::Unknown);
    let frames = [Frame { bytes, link: Link::Ethernet, role, zone: 0, checksum }];
    let mut outcomes = [Outcome::untold(Verdict::Forward)];
    if by_ring {
        tracker.on_handed(Tick(1), &frames, &mut outcomes, &mut Events::none());
    } else {
        tracker.on_burst(Tick(1), &frames, &mut outcomes, &mut Events::none());
    }
    outcomes[0]
}

/// Ports whose flows are worker 0's, and worker 1's.
fn ports() -> [u8; 2] {
    let handed = |port: u8| {
        let mut entry = worker(0);
        send(&mut entry, &piece(port, false), false);
        send(&mut entry, &piece(port, true), false).verdict == Verdict::HandOff(WorkerId(1))
    };
    let find = |is_handed: bool| (0..=255).find(|&port| handed(port) == is_handed).unwrap();
    [find(false), find(true)]
}

#[test]
fn pieces_that_were_handed_here_are_not_put_together_with_those_that_entered_here() {
    let [others, own] = ports();
    let mut owner = worker(1);
    // The first piece of another's datagram enters here, while all of one of ours comes by the ring.
    assert!(matches!(send(&mut owner, &piece(others, false), false).verdict, Verdict::Hold(_)));
    assert!(matches!(send(&mut owner, &piece(own, false), true).verdict, Verdict::Hold(_)));
    assert_eq!(send(&mut owner, &piece(own, true), true).class, Some(Class::New));
    assert_eq!(owner.len(), 1);
    // The other one still waits for its own last piece.
    assert_eq!(send(&mut owner, &piece(others, true), false).verdict, Verdict::HandOff(WorkerId(0)));
    assert_eq!(owner.len(), 1);
}

#[test]
fn a_datagram_that_was_handed_to_the_wrong_worker_is_dropped_and_counted() {
    let [others, _] = ports();
    let mut wrong = worker(1);
    assert!(matches!(send(&mut wrong, &piece(others, false), true).verdict, Verdict::Hold(_)));
    let outcome = send(&mut wrong, &piece(others, true), true);
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::Fragment));
    assert!(outcome.releases.is_some(), "the piece that was held goes with it");
    assert_eq!(wrong.counters().dropped[DropReason::Fragment.index()], 1);
    assert!(wrong.is_empty());
}
