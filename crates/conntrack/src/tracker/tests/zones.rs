//! Frames with VLAN tags, through the whole tracker.

use std::sync::Arc;
use std::vec::Vec;

use crate::event::{Events, FlowView};
use crate::key::Direction;
use crate::policy::{Action, Class, DropReason, Policy, Role, Rule};
use crate::table::memory::Memory;
use crate::tick::Tick;
use crate::track::settings::{Profile, Settings};
use crate::tracker::{Cursor, ExpireBudget, Frame, Limits, OnFull, Outcome, Tracker, Verdict};
use crate::wire::{Checksum, Link, Tags, Untracked};
use crate::zone::{By, LEARNED_FIRST, Rules, Zones};

const PLACES: [&[u16]; 5] = [&[], &[10], &[20], &[10, 20], &[20, 10]];

/// Ethernet, tags, IPv4 without options from 198.18.0.`src` to 198.18.0.`dst`.
pub(super) fn frame(tags: &[u16], src: u8, dst: u8, proto: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::from([2; 12]);
    for tag in tags {
        frame.extend_from_slice(&[0x81, 0]);
        frame.extend_from_slice(&tag.to_be_bytes());
    }
    frame.extend_from_slice(&[8, 0]);
    let start = frame.len();
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 7]);
    frame.extend_from_slice(&fragment.to_be_bytes());
    frame.extend_from_slice(&[64, proto, 0, 0, 198, 18, 0, src, 198, 18, 0, dst]);
    let sum: u32 = frame[start..].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[start + 10..start + 12].copy_from_slice(&(!sum as u16).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// From port 1000 to port 53, or back.
fn udp(tags: &[u16], back: bool) -> Vec<u8> {
    let ports = [[3, 232], [0, 53]];
    let [from, to] = if back { [ports[1], ports[0]] } else { ports };
    let payload = [from[0], from[1], to[0], to[1], 0, 8, 0, 0];
    if back { frame(tags, 2, 1, 17, 0, &payload) } else { frame(tags, 1, 2, 17, 0, &payload) }
}

struct Bench {
    tracker: Tracker,
    zones: Arc<Zones>,
}

impl Bench {
    fn new(rules: &Rules) -> Self {
        let limits = Limits { max_entries: 64, max_datagrams: 16, hash_key: [1, 2, 3, 4] };
        let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
        let settings = Settings::new(Profile::Linux);
        let mut tracker =
            Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::DropNew, memory).unwrap();
        let zones = Zones::new(rules, 1, [5, 6, 7, 8]);
        tracker.join(zones.member(0));
        Self { tracker, zones }
    }

    fn send(&mut self, bytes: &[u8]) -> Outcome {
        self.send_by(bytes, 0)
    }

    fn send_by(&mut self, bytes: &[u8], zone: u16) -> Outcome {
        self.send_from(bytes, zone, Role::Inside)
    }

    fn send_from(&mut self, bytes: &[u8], zone: u16, role: Role) -> Outcome {
        let frame = Frame { bytes, link: Link::Ethernet, role, zone, checksum: Checksum::Unknown };
        let mut outcomes = [Outcome::untold(Verdict::Forward)];
        self.tracker.on_burst(Tick(1), &[frame], &mut outcomes, &mut Events::none());
        outcomes[0]
    }

    fn flows(&self) -> Vec<FlowView> {
        let mut flows = Vec::with_capacity(64);
        self.tracker.page(Tick(1), Cursor::default(), &mut flows);
        flows.sort_by_key(|flow| flow.zone);
        flows
    }
}

#[test]
fn equal_tuples_in_two_vlans_are_two_flows() {
    let mut bench = Bench::new(&Rules::default());
    for tags in PLACES {
        assert_eq!(bench.send(&udp(tags, false)).class, Some(Class::New), "{tags:?}");
    }
    for tags in PLACES {
        let outcome = bench.send(&udp(tags, true));
        let reply = (Some(Class::Established), Some(Direction::Reply));
        assert_eq!((outcome.class, outcome.direction), reply, "{tags:?}");
    }
    let zones: Vec<u16> = bench.flows().iter().map(|flow| flow.zone).collect();
    assert_eq!(zones[..3], [0, 10, 20]);
    assert!(zones.len() == 5 && zones[3] >= LEARNED_FIRST && zones[3] != zones[4], "{zones:?}");
    assert!(zones.iter().all(|zone| bench.zones.usage(*zone).count == 1));
}

#[test]
fn a_priority_tag_on_one_direction_does_not_part_a_flow() {
    let mut bench = Bench::new(&Rules::default());
    bench.send(&udp(&[0xe000], false));
    assert_eq!(bench.send(&udp(&[], true)).class, Some(Class::Established));
    bench.send(&udp(&[0xe000, 0x200a], false));
    assert_eq!(bench.send(&udp(&[10], true)).class, Some(Class::Established));
}

#[test]
fn without_zones_tags_are_looked_behind() {
    let mut bench = Bench::new(&Rules { by: By::Nothing, ..Rules::default() });
    bench.send(&udp(&[10], false));
    assert_eq!(bench.send(&udp(&[20, 30], true)).class, Some(Class::Established));
}

#[test]
fn ports_and_vlans_together_make_zones_that_two_ports_of_one_zone_share() {
    let mut bench = Bench::new(&Rules { by: By::PortVlan, reserved: [4096].into(), ..Rules::default() });
    bench.send_by(&udp(&[10], false), 0);
    assert_eq!(bench.send_by(&udp(&[10], false), 4096).class, Some(Class::New));
    assert_eq!(bench.send_by(&udp(&[10], true), 4096).class, Some(Class::Established));
    assert_eq!(bench.tracker.len(), 2);
}

#[test]
fn fragments_of_two_vlans_are_not_put_together() {
    let mut bench = Bench::new(&Rules::default());
    // A datagram of two pieces, and its identification is the same in both VLANs.
    let piece = |tags: &[u16], last: bool| {
        let first = [3, 232, 0, 53, 0, 16, 0, 0];
        let place = if last { 1 } else { 0x2000 };
        frame(tags, 1, 2, 17, place, if last { &[9; 8] } else { &first })
    };
    assert!(matches!(bench.send(&piece(&[10], false)).verdict, Verdict::Hold(_)));
    assert!(matches!(bench.send(&piece(&[20], true)).verdict, Verdict::Hold(_)));
    let outcome = bench.send(&piece(&[10], true));
    assert_eq!((outcome.class, outcome.releases.is_some()), (Some(Class::New), true));
    assert_eq!(bench.flows()[0].zone, 10);
}

#[test]
fn an_icmp_error_is_related_in_its_own_vlan_alone() {
    let mut bench = Bench::new(&Rules::default());
    bench.send(&udp(&[10], false));
    let quoted = &udp(&[], false)[14..];
    let mut error = Vec::from([3, 1, 0, 0, 0, 0, 0, 0]);
    error.extend_from_slice(quoted);
    let sum: u32 = error.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    error[2..4].copy_from_slice(&(!sum as u16).to_be_bytes());
    assert_eq!(bench.send(&frame(&[10], 2, 1, 1, 0, &error)).class, Some(Class::Related));
    assert_eq!(bench.send(&frame(&[20], 2, 1, 1, 0, &error)).class, Some(Class::Invalid));
    assert_eq!(bench.send(&frame(&[], 2, 1, 1, 0, &error)).class, Some(Class::Invalid));
}

#[test]
fn a_full_zone_drops_its_new_flows_and_no_other_zones() {
    let mut bench = Bench::new(&Rules::default());
    bench.zones.set_limit(10, Some(2));
    let from = |src: u8, tags: &[u16]| frame(tags, src, 2, 17, 0, &[3, 232, 0, 53, 0, 8, 0, 0]);
    for src in [1, 3] {
        assert_eq!(bench.send(&from(src, &[10])).verdict, Verdict::Forward);
    }
    let refused = bench.send(&from(4, &[10]));
    assert_eq!((refused.class, refused.verdict), (Some(Class::New), Verdict::Drop(DropReason::ZoneLimit)));
    assert_eq!(bench.send(&from(1, &[10])).verdict, Verdict::Forward, "a flow that is there goes on");
    assert_eq!(bench.send(&from(4, &[20])).verdict, Verdict::Forward);
    assert_eq!(bench.tracker.counters().dropped[DropReason::ZoneLimit.index()], 1);
    // An ended flow makes room.
    bench.tracker.on_tick(Tick(1 << 20), ExpireBudget { flows: 64 }, &mut Events::none());
    assert_eq!((bench.tracker.len(), bench.zones.usage(10).count), (0, 0));
    assert_eq!(bench.zones.usage(10).refused, 1);
}

#[test]
fn a_flow_that_the_full_table_refuses_is_not_counted_in_its_zone() {
    let mut bench = Bench::new(&Rules { default_limit: 1000, ..Rules::default() });
    for src in 1..=80 {
        bench.send(&frame(&[10], src, 2, 17, 0, &[3, 232, 0, 53, 0, 8, 0, 0]));
    }
    assert_eq!((bench.tracker.len(), bench.zones.usage(10).count), (64, 64));
}

#[test]
fn a_frame_without_a_zone_is_dropped_and_counted() {
    let mut bench = Bench::new(&Rules::default());
    let taken = (1..400).flat_map(|outer| (1..100).map(move |inner| Tags::new([outer, inner])));
    let refused: Vec<Tags> = taken.filter(|tags| bench.zones.of_tags(0, *tags, true).is_none()).collect();
    let refused = refused[0];
    let tags = [refused.outer(), refused.inner()];
    let dropped = Verdict::Drop(DropReason::NoZone);
    assert_eq!(bench.send(&udp(&tags, false)).verdict, dropped);
    assert_eq!(bench.send(&frame(&tags, 1, 2, 17, 0x2000, &[0; 8])).verdict, dropped, "a fragment");
    assert_eq!(bench.tracker.counters().dropped[DropReason::NoZone.index()], 2);
    assert_eq!(bench.send(&udp(&[10], false)).verdict, Verdict::Forward);
}

#[test]
fn no_zone_is_given_out_to_a_side_that_may_open_nothing() {
    let mut bench = Bench::new(&Rules { inner: true, ..Rules::default() });
    let inside = Rule {
        from: Some(Role::Inside),
        classes: Class::New.bit(),
        new_needs_syn: false,
        action: Action::Accept,
        mark: 0,
    };
    let others = Rule {
        from: None,
        classes: Class::Established.bit() | Class::Untracked.bit(),
        new_needs_syn: false,
        action: Action::Accept,
        mark: 0,
    };
    let policy = Policy::new(&[inside, others], Action::Drop).unwrap();
    bench.tracker.configure(Settings::new(Profile::Linux), policy, OnFull::DropNew);
    let from_outside = |bench: &mut Bench, bytes: &[u8]| bench.send_from(bytes, 0, Role::Outside);
    for bytes in [udp(&[10, 20], true), in_overlay(4789, 1, true)] {
        assert_eq!(from_outside(&mut bench, &bytes).verdict, Verdict::Drop(DropReason::NoZone));
    }
    assert_eq!(bench.zones.learned(), 0);
    // Neighbour discovery (a solicitation without options) needs no zone.
    let mut solicitation = Vec::from([2; 12]);
    solicitation
        .extend_from_slice(&[0x81, 0, 0, 10, 0x81, 0, 0, 20, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255]);
    solicitation.extend_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    solicitation.extend_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    // The pseudo header's sum and 0x8700, complemented.
    let sum = !((0xfe80_u32 + 1 + 0xfe80 + 2 + 8 + 58 + 0x8700) % 0xffff) as u16;
    solicitation.extend_from_slice(&[0x87, 0]);
    solicitation.extend_from_slice(&sum.to_be_bytes());
    solicitation.extend_from_slice(&[0; 4]);
    assert_eq!(from_outside(&mut bench, &solicitation).class, Some(Class::Untracked));
    // Once the inside has opened something there, the outside may answer.
    for (there, back) in [
        (udp(&[10, 20], false), udp(&[10, 20], true)),
        (in_overlay(4789, 1, false), in_overlay(4789, 1, true)),
    ] {
        assert_eq!(bench.send(&there).verdict, Verdict::Forward);
        assert_eq!(from_outside(&mut bench, &back).class, Some(Class::Established));
    }
}

#[test]
fn looking_at_a_frame_that_needs_no_zone_learns_none() {
    let mut bench = Bench::new(&Rules::default());
    let look = |bench: &Bench, bytes: &[u8]| {
        let checksum = Checksum::Unknown;
        let frame = Frame { bytes, link: Link::Ethernet, role: Role::Inside, zone: 0, checksum };
        bench.tracker.look(Tick(1), &frame, false).zone
    };
    // Of a UDP header that is cut short nothing is tracked.
    let cut = frame(&[10, 20], 1, 2, 17, 0, &[3, 232, 0, 53]);
    assert_eq!((look(&bench, &cut), bench.zones.learned()), (None, 0));
    assert_eq!(bench.send(&cut).class, Some(Class::Invalid));
    assert_eq!(bench.zones.learned(), 0);
    // One that has a flow is about to learn its zone, which is then known of all.
    let zone = look(&bench, &udp(&[10, 20], false));
    assert!(zone.is_some_and(|zone| zone >= LEARNED_FIRST), "{zone:?}");
    assert_eq!((look(&bench, &cut), bench.zones.learned()), (zone, 1));
    bench.send(&udp(&[10, 20], false));
    assert_eq!((bench.flows()[0].zone, bench.zones.learned()), (zone.unwrap(), 1));
}

#[test]
fn what_is_not_tracked_is_counted_by_kind() {
    let mut bench = Bench::new(&Rules::default());
    for ethertype in [0x0806_u16, 0x8847, 0x8848, 0x88cc, 0x0026, 0x1234] {
        let mut bytes = Vec::from([2; 12]);
        bytes.extend_from_slice(&ethertype.to_be_bytes());
        bytes.resize(60, 0);
        assert_eq!(bench.send(&bytes).class, Some(Class::Untracked), "{ethertype:x}");
    }
    let counted = bench.tracker.counters().untracked;
    let of = |kind: Untracked| counted[kind as usize];
    assert_eq!((of(Untracked::Arp), of(Untracked::Mpls), of(Untracked::Lldp)), (1, 2, 1));
    assert_eq!((of(Untracked::Llc), of(Untracked::NotIp)), (1, 1));
    assert_eq!(bench.tracker.counters().packets[Class::Untracked as usize], 6);
}

/// A frame from `src` to `dst` that carries `inner` behind `header`.
fn tunnelled(src: u8, dst: u8, proto: u8, header: &[u8], inner: &[u8]) -> Vec<u8> {
    frame(&[], src, dst, proto, 0, &[header, inner].concat())
}

/// VXLAN's and GENEVE's UDP header without a checksum, and behind it their own for network `id`.
fn overlay(port: u16, id: u8, inner: usize) -> Vec<u8> {
    let length = (16 + inner) as u16;
    let mut header = Vec::from([0xc0, 0]);
    header.extend_from_slice(&port.to_be_bytes());
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(&[0, 0]);
    header.extend_from_slice(if port == 4789 { &[8, 0, 0, 0] } else { &[0, 0, 0x65, 0x58] });
    header.extend_from_slice(&[0, 0, id, 0]);
    header
}

fn in_overlay(port: u16, id: u8, back: bool) -> Vec<u8> {
    let inner = udp(&[], back);
    let (src, dst) = if back { (9, 8) } else { (8, 9) };
    tunnelled(src, dst, 17, &overlay(port, id, inner.len()), &inner)
}

#[test]
fn a_tunnel_is_one_flow_unless_what_it_carries_is_wanted() {
    let mut outer = Bench::new(&Rules::default());
    outer.send(&in_overlay(4789, 1, false));
    outer.send(&in_overlay(4789, 2, false));
    assert_eq!((outer.tracker.len(), outer.flows()[0].zone), (1, 0));

    let mut inner = Bench::new(&Rules { inner: true, ..Rules::default() });
    for (port, id) in [(4789, 1), (4789, 2), (6081, 1)] {
        assert_eq!(inner.send(&in_overlay(port, id, false)).class, Some(Class::New), "{port} {id}");
        assert_eq!(inner.send(&in_overlay(port, id, true)).class, Some(Class::Established), "{port} {id}");
    }
    let flows = inner.flows();
    assert!(flows.len() == 3 && flows.iter().all(|flow| flow.zone >= LEARNED_FIRST));
    assert_eq!(std::format!("{}", flows[0].original.src), "198.18.0.1");
    assert_eq!(inner.send(&udp(&[], false)).class, Some(Class::New), "without a tunnel it is another flow");
}

#[test]
fn gre_and_ip_in_ip_carry_flows_of_their_own_ends() {
    let mut bench = Bench::new(&Rules { inner: true, ..Rules::default() });
    for (proto, header) in [(47, &[0, 0, 8, 0][..]), (47, &[0x20, 0, 8, 0, 0, 0, 0, 7]), (4, &[])] {
        for other in [9, 10] {
            let there = tunnelled(8, other, proto, header, &udp(&[], false)[14..]);
            let back = tunnelled(other, 8, proto, header, &udp(&[], true)[14..]);
            assert_eq!(bench.send(&there).class, Some(Class::New), "{proto} {other}");
            assert_eq!(bench.send(&back).class, Some(Class::Established), "{proto} {other}");
        }
    }
    assert_eq!(bench.tracker.len(), 6);
}

#[test]
fn one_level_is_looked_behind_and_what_is_broken_in_a_tunnel_is_no_flow() {
    let mut bench = Bench::new(&Rules { inner: true, ..Rules::default() });
    let twice = tunnelled(5, 6, 4, &[], &tunnelled(8, 9, 4, &[], &udp(&[], false)[14..])[14..]);
    assert_eq!(bench.send(&twice).class, Some(Class::New));
    assert_eq!((bench.tracker.len(), bench.flows()[0].proto), (1, 4), "the inner tunnel is what is tracked");
    let mut arp = udp(&[], false);
    arp[12..14].copy_from_slice(&[8, 6]);
    let arp = tunnelled(8, 9, 17, &overlay(4789, 1, arp.len()), &arp);
    assert_eq!(bench.send(&arp).class, Some(Class::Untracked));
    let mut broken = udp(&[], false);
    broken[24] ^= 1;
    let broken = tunnelled(8, 9, 17, &overlay(4789, 1, broken.len()), &broken);
    assert!(matches!(bench.send(&broken).verdict, Verdict::Drop(DropReason::Malformed(_))));
    assert_eq!(bench.tracker.len(), 1);
}

#[test]
fn tunnels_in_vlans_and_vlans_in_tunnels_have_zones_of_their_own() {
    let mut bench = Bench::new(&Rules { inner: true, ..Rules::default() });
    for inner_tags in [&[][..], &[10], &[20]] {
        let inner = udp(inner_tags, false);
        let payload = [&overlay(4789, 1, inner.len())[..], &inner].concat();
        for tags in PLACES {
            assert_eq!(bench.send(&frame(tags, 8, 9, 17, 0, &payload)).class, Some(Class::New), "{tags:?}");
        }
    }
    let mut zones: Vec<u16> = bench.flows().iter().map(|flow| flow.zone).collect();
    zones.dedup();
    assert_eq!(zones.len(), 15);
}

#[test]
fn fragments_are_put_together_inside_and_outside_of_a_tunnel() {
    let mut bench = Bench::new(&Rules { inner: true, ..Rules::default() });
    let first = frame(&[], 1, 2, 17, 0x2000, &[3, 232, 0, 53, 0, 16, 0, 0]);
    let last = frame(&[], 1, 2, 17, 1, &[9; 8]);
    let wrap = |id: u8, inner: &[u8]| tunnelled(8, 9, 17, &overlay(4789, id, inner.len()), inner);
    assert!(matches!(bench.send(&wrap(1, &first)).verdict, Verdict::Hold(_)));
    assert!(matches!(bench.send(&wrap(2, &last)).verdict, Verdict::Hold(_)), "another network's");
    assert_eq!(bench.send(&wrap(1, &last)).class, Some(Class::New));

    // The tunnel's own packet in two pieces.
    let inner = udp(&[], true);
    let whole = [&overlay(4789, 1, inner.len())[..], &inner].concat();
    let (head, tail) = whole.split_at(32);
    assert!(matches!(bench.send(&frame(&[], 9, 8, 17, 0x2000, head)).verdict, Verdict::Hold(_)));
    assert_eq!(bench.send(&frame(&[], 9, 8, 17, 4, tail)).class, Some(Class::Established));
    assert_eq!(bench.tracker.len(), 1);
}

#[test]
fn an_error_about_a_tunnel_passes_untracked_where_tunnels_are_not_tracked() {
    let mut bench = Bench::new(&Rules { inner: true, ..Rules::default() });
    let mut error = Vec::from([3, 4, 0, 0, 0, 0, 5, 0]);
    error.extend_from_slice(&in_overlay(4789, 1, false)[14..]);
    let sum: u32 =
        error.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    error[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    assert_eq!(bench.send(&frame(&[], 9, 8, 1, 0, &error)).class, Some(Class::Untracked));
    assert_eq!(bench.tracker.counters().untracked[Untracked::TunnelError as usize], 1);
}
