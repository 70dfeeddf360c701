//! INVALID and dropped packets are recorded with what an operator needs to know why, and a flood costs bounded work.

use std::vec::Vec;

use super::dialogue::*;
use crate::event::Events;
use crate::key::Direction;
use crate::policy::{Action, Class, DropReason, Policy, Role, Rule};
use crate::table::memory::Memory;
use crate::tick::{PER_SECOND, Tick};
use crate::track::reason::Reason;
use crate::track::settings::{Profile, Settings};
use crate::track::tcp::{Missed, Number};
use crate::tracker::{
    BURST, Explained, Frame, Limits, OnFull, Outcome, RECORDS_PER_SECOND, Tracker, Verdict,
};
use crate::wire::glance::IpGlance;
use crate::wire::{Addr, Checksum, QuotedIds, proto};
use crate::zone::{Rules, Zones};

const A: [u8; 4] = [198, 18, 0, 1];
const B: [u8; 4] = [198, 18, 0, 2];

/// Inside may begin, what belongs to a flow passes, the rest is dropped.
fn guarded() -> Policy {
    let row = |from, classes| Rule { from, classes, new_needs_syn: false, action: Action::Accept, mark: 0 };
    let rows = [
        row(None, Class::Established.bit() | Class::Related.bit()),
        row(Some(Role::Inside), Class::New.bit()),
        Rule { action: Action::Drop, ..row(Some(Role::Outside), Class::New.bit()) },
    ];
    Policy::new(&rows, Action::Drop).unwrap()
}

fn recording(policy: Policy, entries: u32, on_full: OnFull) -> Tracker {
    let mut tracker = tracker(Settings::new(Profile::Linux), policy, entries, on_full);
    tracker.keep_records();
    tracker
}

fn feed_at(tracker: &mut Tracker, now: Tick, frames: &[Frame<'_>]) -> Vec<Explained> {
    let mut outcomes = [Outcome::untold(Verdict::Forward); BURST];
    tracker.on_burst(now, frames, &mut outcomes[..frames.len()], &mut Events::none());
    let records = tracker.records().to_vec();
    tracker.clear_records();
    records
}

fn feed(tracker: &mut Tracker, frames: &[Frame<'_>]) -> Vec<Explained> {
    feed_at(tracker, Tick(1000), frames)
}

fn inside(packet: &[u8]) -> Frame<'static> {
    frame(packet, Role::Inside)
}

fn outside(packet: &[u8]) -> Frame<'static> {
    frame(packet, Role::Outside)
}

#[track_caller]
fn only(records: &[Explained]) -> Explained {
    let [record] = records else { panic!("one record is expected: {records:#?}") };
    *record
}

fn ip(record: &Explained) -> IpGlance {
    record.seen.ip.expect("an IP packet")
}

fn handshake(tracker: &mut Tracker) {
    let there = |seq, ack, flags| inside(&ipv4(proto::TCP, A, B, &tcp((1000, 80), seq, ack, flags, 500, 0)));
    let back = |seq, ack, flags| outside(&ipv4(proto::TCP, B, A, &tcp((80, 1000), seq, ack, flags, 700, 0)));
    let frames = [there(100, 0, SYN), back(9_000, 101, SYN | ACK), there(101, 9_001, ACK)];
    assert_eq!(feed(tracker, &frames).len(), 0, "nothing is wrong with a handshake");
}

#[test]
fn a_sequence_number_over_the_window_is_told_with_the_edge_it_missed() {
    let mut tracker = recording(guarded(), 100, OnFull::DropNew);
    handshake(&mut tracker);
    // The client may go as far as the server's window of 700.
    let far = tcp((1000, 80), 101 + 5_000, 9_001, ACK, 500, 10);
    let record = only(&feed(&mut tracker, &[inside(&ipv4(proto::TCP, A, B, &far))]));
    assert_eq!(record.outcome.reason, Some(Reason::TcpSeqOverMaxEnd));
    assert_eq!(record.missed, Some(Missed { number: Number::SeqAbove, value: 5_101, edge: 801 }));
    assert_eq!(record.missed.unwrap().by(), 4_300);
    assert_eq!(record.flow.unwrap().state_name(false), Some("ESTABLISHED"));
    assert_eq!((record.direction, record.role), (Some(Direction::Original), Role::Inside));
    assert_eq!(
        record.outcome.verdict,
        Verdict::Drop(DropReason::Policy { class: Class::Invalid, row: None }),
        "by the policy's end"
    );
    let seen = ip(&record).tcp.unwrap();
    assert_eq!((seen.flags, seen.seq, seen.ack, seen.payload_bytes), (ACK, 5_101, 9_001, 10));
}

#[test]
fn an_acknowledgment_and_a_reset_are_told_with_theirs() {
    let mut tracker = recording(guarded(), 100, OnFull::DropNew);
    handshake(&mut tracker);
    let early = tcp((80, 1000), 9_001, 300, ACK, 700, 0);
    let record = only(&feed(&mut tracker, &[outside(&ipv4(proto::TCP, B, A, &early))]));
    assert_eq!(record.outcome.reason, Some(Reason::TcpAckOverEnd));
    assert_eq!(record.missed, Some(Missed { number: Number::AckAbove, value: 300, edge: 101 }));
    assert_eq!(record.direction, Some(Direction::Reply));
    let old = tcp((80, 1000), 8_000, 0, RST, 0, 0);
    let record = only(&feed(&mut tracker, &[outside(&ipv4(proto::TCP, B, A, &old))]));
    assert_eq!(record.outcome.reason, Some(Reason::TcpRstUnderAck));
    assert_eq!(record.missed, Some(Missed { number: Number::ResetBelow, value: 8_000, edge: 9_001 }));
    assert_eq!(record.missed.unwrap().by(), 1_001);
}

#[test]
fn a_wrong_checksum_hides_no_address() {
    let mut tracker = recording(guarded(), 100, OnFull::DropNew);
    let segment = tcp((7, 53), 1, 0, SYN, 5, 0);
    let bad = Frame { checksum: Checksum::Bad, ..inside(&ipv4(proto::TCP, A, B, &segment)) };
    let record = only(&feed(&mut tracker, &[bad]));
    assert_eq!((record.outcome.reason, record.zone), (Some(Reason::L4Checksum), Some(0)));
    assert_eq!(ip(&record).ids, QuotedIds::Ports { sport: 7, dport: 53 });
    assert_eq!((ip(&record).src, ip(&record).dst), (Addr::v4(A), Addr::v4(B)));
}

#[test]
fn impossible_flags_and_a_segment_that_may_open_nothing_are_told() {
    let mut tracker = recording(guarded(), 100, OnFull::DropNew);
    let strange = inside(&ipv4(proto::TCP, A, B, &tcp((1000, 80), 1, 2, SYN | FIN, 5, 0)));
    let record = only(&feed(&mut tracker, &[strange]));
    assert_eq!(record.outcome.reason, Some(Reason::TcpFlags));
    assert_eq!(ip(&record).tcp.unwrap().flags, SYN | FIN);
    let stray = inside(&ipv4(proto::TCP, A, B, &tcp((1000, 80), 1, 2, FIN | ACK, 5, 0)));
    let record = only(&feed(&mut tracker, &[stray]));
    assert_eq!((record.outcome.reason, record.flow), (Some(Reason::TcpNoOpen), None));
}

#[test]
fn an_icmp_error_is_told_with_the_packet_that_it_quotes() {
    let mut tracker = recording(guarded(), 100, OnFull::DropNew);
    let mut error = Vec::from([3, 1, 0, 0, 0, 0, 0, 0]);
    error.extend(ipv4(proto::UDP, B, A, &udp((53, 7), 0)));
    let record = only(&feed(&mut tracker, &[inside(&ipv4(proto::ICMP, A, B, &error))]));
    assert_eq!(record.outcome.reason, Some(Reason::IcmpErrorNoFlow));
    assert_eq!(ip(&record).ids, QuotedIds::Icmp { icmp_type: 3, code: 1, id: 0 });
    let quoted = ip(&record).quoted.unwrap();
    assert_eq!((quoted.src, quoted.ids), (Addr::v4(B), QuotedIds::Ports { sport: 53, dport: 7 }));
    let answer = inside(&ipv4(proto::ICMP, A, B, &[0, 0, 0, 0, 0, 9, 0, 1]));
    let record = only(&feed(&mut tracker, &[answer]));
    assert_eq!(record.outcome.reason, Some(Reason::IcmpNoRequest));
    assert_eq!(ip(&record).ids, QuotedIds::Icmp { icmp_type: 0, code: 0, id: 9 });
}

/// A fragment of UDP from A to B.
fn piece(place: u16, more: bool, payload: &[u8]) -> Frame<'static> {
    let mut packet = ipv4(proto::UDP, A, B, payload);
    packet[6..8].copy_from_slice(&((place / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
    Frame { checksum: Checksum::AllGood, ..inside(&packet) }
}

#[test]
fn a_fragment_that_came_twice_and_a_bad_datagram_are_told() {
    let mut tracker = recording(guarded(), 100, OnFull::DropNew);
    assert_eq!(feed(&mut tracker, &[piece(8, true, &[1; 8])]).len(), 0);
    let record = only(&feed(&mut tracker, &[piece(8, true, &[1; 8])]));
    assert_eq!(record.outcome.verdict, Verdict::Drop(DropReason::Fragment));
    let told = ip(&record).piece.unwrap();
    assert_eq!((told.offset, told.more, ip(&record).proto), (8, true, proto::UDP));

    // The whole datagram says that it is longer than it is.
    let mut tracker = recording(guarded(), 100, OnFull::DropNew);
    let mut head = udp((7, 53), 0);
    head[4..6].copy_from_slice(&400_u16.to_be_bytes());
    assert_eq!(feed(&mut tracker, &[piece(0, true, &head)]).len(), 0);
    let record = only(&feed(&mut tracker, &[piece(8, false, &[1; 8])]));
    assert_eq!(record.outcome.reason, Some(Reason::L4Length));
}

#[test]
fn the_policy_row_that_dropped_is_named_whichever_way_the_packet_took() {
    let mut tracker = recording(guarded(), 100, OnFull::DropNew);
    let syn = |n| outside(&ipv4(proto::TCP, [203, 0, 113, n], A, &tcp((1, 22), 1, 0, SYN, 5, 0)));
    let generic = outside(&ipv4(99, B, A, &[0; 20]));
    let records = feed(&mut tracker, &[syn(1), generic, syn(2)]);
    let mut places: Vec<_> = records.iter().map(|record| record.place).collect();
    places.sort_unstable();
    assert_eq!(places, [0, 1, 2], "each once: {records:#?}");
    for record in &records {
        let dropped = DropReason::Policy { class: Class::New, row: Some(2) };
        assert_eq!(record.outcome.verdict, Verdict::Drop(dropped));
        assert_eq!((record.role, record.flow.is_none()), (Role::Outside, true));
    }
}

#[test]
fn a_full_table_and_a_full_zone_are_told() {
    let mut tracker = recording(Policy::ACCEPT_ALL, 1, OnFull::DropNew);
    let datagram = |port| inside(&ipv4(proto::UDP, A, B, &udp((port, 53), 0)));
    assert_eq!(feed(&mut tracker, &[datagram(1)]).len(), 0);
    let record = only(&feed(&mut tracker, &[datagram(2)]));
    assert_eq!(record.outcome.verdict, Verdict::Drop(DropReason::TableFull));
    assert_eq!(ip(&record).ids, QuotedIds::Ports { sport: 2, dport: 53 });

    let limits = Limits { max_entries: 10, max_datagrams: 1, hash_key: [1, 2, 3, 4] };
    let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
    let settings = Settings::new(Profile::Linux);
    let mut tracker = Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::DropNew, memory).unwrap();
    let zones = Zones::new(&Rules { default_limit: 1, ..Rules::default() }, 1, [5, 6, 7, 8]);
    tracker.join(zones.member(0));
    tracker.keep_records();
    assert_eq!(feed(&mut tracker, &[datagram(1)]).len(), 0);
    let record = only(&feed(&mut tracker, &[datagram(2)]));
    assert_eq!(record.outcome.verdict, Verdict::Drop(DropReason::ZoneLimit));
    assert_eq!(record.zone, Some(0));
}

#[test]
fn a_malformed_header_is_told_as_far_as_it_can_be_read() {
    let mut tracker = recording(guarded(), 100, OnFull::DropNew);
    let mut packet = ipv4(proto::UDP, A, B, &udp((7, 53), 0));
    packet[10] ^= 1;
    let record = only(&feed(&mut tracker, &[inside(&packet)]));
    assert_eq!(record.outcome.reason, Some(Reason::IpChecksum));
    assert_eq!(ip(&record).src, Addr::v4(A));
    let record = only(&feed(&mut tracker, &[inside(&packet[..12])]));
    assert_eq!((record.outcome.reason, record.seen.ip), (Some(Reason::IpTruncated), None));
}

#[test]
fn a_flood_is_sampled_and_hides_no_other_kind() {
    let mut tracker = recording(guarded(), 100, OnFull::DropNew);
    let stray = inside(&ipv4(proto::TCP, A, B, &tcp((1000, 80), 1, 2, FIN | ACK, 5, 0)));
    let refused = outside(&ipv4(proto::TCP, B, A, &tcp((1, 22), 1, 0, SYN, 5, 0)));
    let burst = [stray; BURST - 1];
    let (mut told, mut others, mut sent) = (0, 0, 0);
    for tick in 0..u64::from(PER_SECOND) {
        for _ in 0..10 {
            told += feed_at(&mut tracker, Tick(1_000 + tick), &burst).len() as u64;
            sent += burst.len() as u64;
        }
        if tick % 25 == 24 {
            others += feed_at(&mut tracker, Tick(1_000 + tick), &[refused]).len();
            sent += 1;
        }
    }
    assert!(told < u64::from(RECORDS_PER_SECOND) / 2, "{told} of one kind in a second");
    assert!(told >= 40, "{told}: the flood itself is told too");
    assert_eq!(others, 10, "one kind's flood leaves room for another");
    assert_eq!(told + others as u64 + tracker.untold(), sent, "each is told, or counted as not told");
}

#[test]
fn nothing_is_recorded_or_counted_where_nobody_keeps_records() {
    let mut tracker = tracker(Settings::new(Profile::Linux), guarded(), 10, OnFull::DropNew);
    let stray = inside(&ipv4(proto::TCP, A, B, &tcp((1000, 80), 1, 2, FIN | ACK, 5, 0)));
    assert_eq!((feed(&mut tracker, &[stray]).len(), tracker.untold()), (0, 0));
    assert_eq!(tracker.counters().invalid[Reason::TcpNoOpen as usize], 1);
}
