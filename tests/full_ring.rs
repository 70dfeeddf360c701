//! A mirror whose owner of all flows does not take what it is told: each datagram is either told or lost, and counted so.
//! One EAL for the whole program, hence one test.

mod support;

use conntrack::fragment::Meeting;
use conntrack::key::owner::{Owners, WorkerId};
use conntrack::policy::{DropReason, Policy, Role};
use conntrack::table::memory::Memory;
use conntrack::track::settings::{Profile, Settings};
use conntrack::tracker::{ExpireBudget, Limits, OnFull, Tracker};
use dpdk::eal::{self, Eal};
use dpdk_conntrack::bus;
use dpdk_conntrack::driver::dpdk::{Plan, PortSpec, Ports};
use dpdk_conntrack::worker::clock::{self, Clock};
use dpdk_conntrack::worker::{Idle, Parts, Port, Worker, handoff, held_frames};
use support::{cut, ipv4, snapshot, write_pcap};

/// More than a ring between two workers has room for.
const DATAGRAMS: u16 = 3000;
const MAX_DATAGRAMS: u16 = 64;

/// A datagram of two fragments; each is a flow of its own.
fn datagram(number: u16) -> [Vec<u8>; 2] {
    let header: Vec<u8> =
        [1000 + number, 53, 48, 0].iter().flat_map(|word: &u16| word.to_be_bytes()).collect();
    let mut first = ipv4(1, 2, 17, &[&header[..], &[0; 16]].concat());
    let mut last = ipv4(1, 2, 17, &[0; 24]);
    cut(&mut first, number, 0x2000);
    cut(&mut last, number, 3);
    [first, last]
}

#[test]
fn a_note_that_finds_its_ring_full_is_dropped_by_reason_and_no_datagram_is_called_complete_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.pcap");
    let frames: Vec<_> = (0..DATAGRAMS).flat_map(datagram).collect();
    write_pcap(&input, &frames);
    let config = eal::Config { hugepages: false, memory_mib: 256, ..eal::Config::default() };
    let eal = Eal::start(&config, |_, _| ()).unwrap();
    let spec = PortSpec {
        name: "tap".into(),
        device: format!("net_pcap0,rx_pcap={}", input.display()).parse().unwrap(),
        role: Role::Inside,
        zone: 0,
        mtu: 1500,
        promiscuous: true,
        mirror: true,
        queues: Some(1),
        rss_key: None,
    };
    let specs = [spec];
    let mut plan = Plan::new(&specs, 2, 2 * held_frames(MAX_DATAGRAMS) + handoff::frames(2));
    plan.pool.frame_room = 256;
    let mut ports = Ports::open(eal.handle(), &specs, 2, &plan).unwrap();
    let limits = Limits { max_entries: 8192, max_datagrams: MAX_DATAGRAMS, hash_key: [1, 2, 3, 4] };
    let links = handoff::mesh(eal.handle(), 2).unwrap();
    let (mut workers, mut ends) = (Vec::new(), Vec::new());
    for ((pairs, links), me) in ports.workers.drain(..).zip(links).zip(0..) {
        let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
        let settings = Settings::new(Profile::Linux);
        let tracker = Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::EarlyDrop, memory).unwrap();
        // The other worker owns every flow.
        let owners = Owners::shared(&[0, 1], WorkerId(me)).unwrap();
        let (end, bus) = bus::pair();
        ends.push(end);
        workers.push(Worker::new(Parts {
            ports: pairs.into_iter().map(|queues| Port { queues, peer: None }).collect(),
            links,
            tracker: tracker.among(owners, Meeting::Entry).without_payloads(),
            max_datagrams: MAX_DATAGRAMS,
            budget: ExpireBudget { flows: 64 },
            idle: Idle::Sleep,
            clock: Clock::new(clock::read(), eal.handle().cycles_per_second()),
            bus,
        }));
    }
    let [listener, owner] = &mut workers[..] else { panic!("two workers") };
    while ports.ports[0].stats().rx_packets < frames.len() as u64 {
        listener.turn();
    }
    let listened = snapshot(&ends[0], listener);
    let told = listened.tracker.datagrams_completed;
    let lost = listened.tracker.dropped[DropReason::HandOffFull.index()];
    assert_eq!(told, listened.work.handed_off);
    assert_eq!(told + lost, u64::from(DATAGRAMS), "{told} told");
    assert!(told > 1000 && lost > 500, "{told} told and {lost} lost");
    // All that was told is there for the owner to read.
    for _ in 0..1000 {
        owner.turn();
    }
    let owned = snapshot(&ends[1], owner);
    assert_eq!((owned.work.handed_in, u64::from(owned.entries)), (told, told));
    drop((workers, ports));
}
