//! The worker's loop on real ports, under an allocator that counts. One test, since EAL starts once a process.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use conntrack::event::Told;
use conntrack::fragment::{Distances, Meeting};
use conntrack::key::owner::{Owners, WorkerId};
use conntrack::policy::{Policy, Role};
use conntrack::table::memory::Memory;
use conntrack::tick::{Tick, Ticks};
use conntrack::track::settings::{Profile, Settings};
use conntrack::track::timeout::TimeoutKey;
use conntrack::tracker::{ExpireBudget, Limits, OnFull, Tracker};
use dpdk::eal::{self, Eal, Handle};
use dpdk_conntrack::bus::command::{Command, Flush, Follow, Page, Ticket};
use dpdk_conntrack::bus::{self, ControlEnd};
use dpdk_conntrack::driver::dpdk::{Plan, PortSpec, Ports};
use dpdk_conntrack::filter::Filter;
use dpdk_conntrack::worker::clock::{self, Clock};
use dpdk_conntrack::worker::{Idle, Parts, Port, Worker, handoff, held_frames};
use support::{udp, write_pcap};

/// Counts what this thread takes from the heap and gives back.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as for this function.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many calls of the allocator `body` makes.
fn calls_of(body: impl FnOnce()) -> u64 {
    let before = CALLS.load(Ordering::Relaxed);
    body();
    CALLS.load(Ordering::Relaxed) - before
}

fn ask(end: &ControlEnd, worker: &mut Worker, command: Command) -> (Command, u64) {
    end.send(Ticket { number: 1, command }).unwrap();
    let mut calls = 0;
    for _ in 0..100_000 {
        calls += calls_of(|| worker.turn());
        if let Some(ticket) = end.next_answer() {
            return (ticket.command, calls);
        }
    }
    panic!("no answer within 100,000 turns");
}

const MAX_DATAGRAMS: u16 = 1024;

/// Longer than this test takes on any machine: flows end when the clock is set.
const TIMEOUT_SECS: u32 = 600;

/// `workers` workers between a capture file, which has one queue, and a port that swallows everything.
fn appliance(eal: &Handle, dir: &str, number: usize, workers: u8) -> (Vec<ControlEnd>, Vec<Worker>, Ports) {
    let spec = |name: &str, device: String, role| PortSpec {
        name: name.into(),
        device: device.parse().unwrap(),
        role,
        zone: 0,
        mtu: 1500,
        promiscuous: true,
        mirror: false,
        queues: Some(1),
        rss_key: None,
    };
    let pcap = format!("net_pcap{number},rx_pcap={dir}/in.pcap,tx_pcap={dir}/back{number}.pcap");
    let specs =
        [spec("in", pcap, Role::Inside), spec("out", format!("net_null{number},no-rx=1"), Role::Outside)];
    let count = u16::from(workers);
    let held = u32::from(workers) * held_frames(MAX_DATAGRAMS) + handoff::frames(count);
    let mut plan = Plan::new(&specs, count, held);
    plan.pool.name += &number.to_string();
    let mut ports = Ports::open(eal, &specs, count, &plan).unwrap();

    let limits = Limits { max_entries: 4096, max_datagrams: MAX_DATAGRAMS, hash_key: [1, 2, 3, 4] };
    let mut settings = Settings::new(Profile::Linux);
    settings.timeouts.set(TimeoutKey::Udp, Ticks::from_secs(TIMEOUT_SECS));
    let (mut ends, mut made) = (Vec::new(), Vec::new());
    let links = handoff::mesh(eal, count).unwrap();
    let distances = Distances::new();
    for ((pairs, links), me) in ports.workers.drain(..).zip(links).zip(0..) {
        let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
        let tracker = Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::EarlyDrop, memory).unwrap();
        let owners = Owners::shared(&vec![1; usize::from(workers)], WorkerId(me)).unwrap();
        let (end, bus) = bus::pair();
        made.push(Worker::new(Parts {
            ports: pairs
                .into_iter()
                .zip([1, 0])
                .map(|(queues, peer)| Port { queues, peer: Some(peer) })
                .collect(),
            links,
            tracker: tracker.among(owners, Meeting::Owner(distances.clone())),
            max_datagrams: MAX_DATAGRAMS,
            budget: ExpireBudget { flows: 64 },
            idle: Idle::Poll,
            clock: Clock::new(clock::read(), eal.cycles_per_second()),
            bus,
        }));
        ends.push(end);
    }
    (ends, made, ports)
}

#[test]
fn new_flows_events_listings_and_expiry_allocate_nothing() {
    const FLOWS: u16 = 12_000;
    const INVALID: u64 = 50;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let mut frames: Vec<_> = (0..FLOWS).flat_map(|port| [udp(1, 2, port, 53), udp(1, 2, port, 53)]).collect();
    // First fragments whose end never comes: held, and given up when their time is over or the worker ends.
    for id in 0..50 {
        let mut fragment = udp(3, 4, id, 53);
        fragment.truncate(14 + 20 + 8);
        fragment[16..18].copy_from_slice(&28_u16.to_be_bytes());
        fragment[18..20].copy_from_slice(&id.to_be_bytes());
        fragment[20..22].copy_from_slice(&0x2000_u16.to_be_bytes());
        fragment[24..26].copy_from_slice(&[0, 0]);
        let sum: u32 = fragment[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        fragment[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        frames.push(fragment);
    }
    // And some that are INVALID: the datagram is shorter than it says.
    for id in 0..INVALID as u16 {
        let mut short = udp(5, 6, id, 53);
        short[38..40].copy_from_slice(&400_u16.to_be_bytes());
        frames.push(short);
    }
    write_pcap(&folder.path().join("in.pcap"), &frames);

    let config = eal::Config { memory_mib: 256, hugepages: false, ..eal::Config::default() };
    let eal = Eal::start(&config, |_, _| ()).unwrap();
    let (mut ends, mut workers, ports) = appliance(eal.handle(), dir, 0, 1);
    let (mut end, mut worker) = (ends.pop().unwrap(), workers.pop().unwrap());
    let (_, calls) = ask(&end, &mut worker, Command::Listen(Told::All));
    assert_eq!(calls, 0, "starting events");

    // More flows than the table holds: early drop is part of it.
    let calls = calls_of(|| (0..1_000).for_each(|_| worker.turn()));
    assert_eq!(calls, 0, "traffic");
    let Command::Snapshot(seen) = ask(&end, &mut worker, Command::Snapshot(Box::default())).0 else {
        panic!()
    };
    assert_eq!(seen.work.rx_packets, frames.len() as u64);
    assert_eq!(seen.tracker.inserted(), u64::from(FLOWS));
    assert_eq!(seen.work.tx_packets, 2 * u64::from(FLOWS) + INVALID, "fragments are held, the rest has left");
    assert_eq!(seen.entries, 4096);
    assert!(seen.events_lost > 0, "a ring that nobody reads was filled");
    let mut events = Vec::with_capacity(2 * bus::EVENT_LINES);
    end.take_events(&mut events);
    assert_eq!(events.len(), bus::EVENT_LINES);

    let (mut page, mut listed) = (Box::new(Page::with_capacity(8192)), 0);
    while page.from.is_some() {
        // A part goes back early where the machine stood still.
        page.flows.clear();
        let (answer, calls) = ask(&end, &mut worker, Command::Page(page));
        let Command::Page(part) = answer else { panic!() };
        assert_eq!(calls, 0, "a listing");
        listed += part.flows.len();
        page = part;
    }
    assert_eq!(listed, 4096);

    // Time catches up a second a turn, until every flow is over.
    let clock::Reading { tsc, boot_ns } = clock::read();
    let set = Command::Clock { tsc, boot_ns: boot_ns + u64::from(TIMEOUT_SECS + 400) * 1_000_000_000 };
    assert_eq!(ask(&end, &mut worker, set).1, 0, "setting the clock");
    let calls = calls_of(|| (0..2 * TIMEOUT_SECS).for_each(|_| worker.turn()));
    assert_eq!(calls, 0, "expiry");
    let (answer, calls) = ask(&end, &mut worker, Command::Snapshot(Box::default()));
    let Command::Snapshot(seen) = answer else { panic!() };
    assert_eq!((seen.entries, seen.tracker.destroyed[0], calls), (0, 4096, 0), "all have timed out");

    let (_, calls) = ask(&end, &mut worker, Command::Flush(Flush::default()));
    assert_eq!(calls, 0, "a flush");
    let records = std::iter::from_fn(|| end.next_record()).count() as u64;
    assert!(
        records > 0 && records + end.unrecorded() == INVALID,
        "{records} INVALID packets were recorded, {} were not",
        end.unrecorded()
    );
    // Dropping the worker frees what it holds; EAL ends after its ports.
    drop(worker);
    drop(ports);

    // The first worker has the capture's queue, the second the way out: half of the frames are handed off to be
    // tracked, and those that stay are handed off to be sent.
    let (ends, mut workers, ports) = appliance(eal.handle(), dir, 1, 2);
    for (end, worker) in ends.iter().zip(&mut workers) {
        ask(end, worker, Command::Listen(Told::All));
    }
    let everything = |until| Some(Box::new(Follow { filter: Filter::default(), until }));
    for (end, worker) in ends.iter().zip(&mut workers) {
        let (_, calls) = ask(end, worker, Command::Follow(everything(Tick(u64::MAX))));
        assert_eq!(calls, 0, "following packets");
    }
    let calls = calls_of(|| (0..2_000).for_each(|_| workers.iter_mut().for_each(Worker::turn)));
    assert_eq!(calls, 0, "traffic between workers");
    for end in &ends {
        let told = std::iter::from_fn(|| end.next_followed()).count() as u64;
        assert!(told > 0 && told + end.unfollowed() >= u64::from(FLOWS) / 2, "{told} packets were followed");
    }
    let mut seen = Vec::new();
    for (end, worker) in ends.iter().zip(&mut workers) {
        let Command::Snapshot(numbers) = ask(end, worker, Command::Snapshot(Box::default())).0 else {
            panic!()
        };
        seen.push(*numbers);
    }
    let [first, second] = &seen[..] else { panic!() };
    assert_eq!((first.work.rx_packets, second.work.rx_packets), (frames.len() as u64, 0));
    assert_eq!(first.tracker.inserted() + second.tracker.inserted(), u64::from(FLOWS));
    assert!(first.work.handed_off > u64::from(FLOWS) / 2 && first.work.sent_through > u64::from(FLOWS) / 2);
    assert_eq!((first.work.tx_packets, second.work.tx_packets), (0, 2 * u64::from(FLOWS) + INVALID));
    assert_eq!(first.tracker.fragments_held + second.tracker.fragments_held, 50);
    assert_eq!(first.work.handed_off + first.work.handed_on + first.work.sent_through, second.work.handed_in);
    drop(workers);
    drop(ports);
}
