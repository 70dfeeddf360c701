//! Frames with numbers in them, through workers on threads of their own: each flow's leave in the order in which they
//! came, whichever worker owns the flow, tracks it or sends for it. One EAL for the whole program, hence one test.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conntrack::fragment::Meeting;
use conntrack::key::owner::{Owners, WorkerId};
use conntrack::policy::{Policy, Role};
use conntrack::table::memory::Memory;
use conntrack::track::settings::{Profile, Settings};
use conntrack::tracker::{ExpireBudget, Limits, OnFull, Tracker};
use dpdk::eal::{self, Eal, Handle};
use dpdk_conntrack::bus;
use dpdk_conntrack::driver::dpdk::{Plan, PortSpec, Ports};
use dpdk_conntrack::worker::clock::{self, Clock};
use dpdk_conntrack::worker::{Idle, Parts, Port, Worker, handoff, held_frames};
use support::{PATIENCE, cut, ipv4, read_pcap, snapshot, write_pcap};

const FLOWS: u16 = 16;
const MAX_DATAGRAMS: u16 = 64;

/// A number that looks random, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// The pieces of a datagram of `flow`: one, or three, each with its flow, its number and its place among the pieces.
fn datagram(flow: u16, number: u16, pieces: u16) -> Vec<Vec<u8>> {
    const PIECE: usize = 24;
    let body = |piece: u16| {
        let mut body = vec![0; 16];
        body[..2].copy_from_slice(&flow.to_be_bytes());
        body[2..4].copy_from_slice(&number.to_be_bytes());
        body[4..6].copy_from_slice(&piece.to_be_bytes());
        body
    };
    let length = (PIECE * usize::from(pieces)) as u16;
    (0..pieces)
        .map(|piece| {
            // Ports, length and no checksum; later pieces have eight bytes of nothing there.
            let mut payload = if piece == 0 { [1000 + flow, 53, length, 0] } else { [0; 4] }
                .iter()
                .flat_map(|word: &u16| word.to_be_bytes())
                .collect::<Vec<_>>();
            payload.extend(body(piece));
            // A source of its own: of one source, 64 fragments may come between two of a datagram and no more.
            let mut frame = ipv4(10 + flow as u8, 2, 17, &payload);
            if pieces > 1 {
                let more = if piece + 1 < pieces { 0x2000 } else { 0 };
                let place = (piece * (PIECE as u16 / 8)) | more;
                cut(&mut frame, flow * 256 + number, place);
            }
            frame
        })
        .collect()
}

/// Flow, number and place of what [`datagram`] made.
fn read(frame: &[u8]) -> (u16, u16, u16) {
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    (word(42), word(44), word(46))
}

/// Datagrams of all flows, their pieces among each other's; those of one flow are whole before the next begins.
fn traffic(frames: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut dice = Dice(seed);
    let mut waiting: Vec<Vec<Vec<u8>>> = (0..FLOWS).map(|_| Vec::new()).collect();
    let mut next = vec![0; usize::from(FLOWS)];
    let mut sent = Vec::new();
    while sent.len() < frames || waiting.iter().any(|flow| !flow.is_empty()) {
        let flow = dice.roll(u64::from(FLOWS)) as usize;
        if waiting[flow].is_empty() && sent.len() < frames {
            let pieces = if dice.roll(2) == 0 { 1 } else { 3 };
            waiting[flow] = datagram(flow as u16, next[flow], pieces);
            next[flow] += 1;
        }
        if !waiting[flow].is_empty() {
            sent.push(waiting[flow].remove(0));
        }
    }
    sent
}

/// Sends `frames` through as many workers as there are shares, and gives what came out, and how many were handed over.
fn pass(eal: &Handle, folder: &Path, run: usize, shares: &[u16], frames: &[Vec<u8>]) -> (Vec<Vec<u8>>, u64) {
    let (input, output) = (folder.join(format!("in{run}.pcap")), folder.join(format!("out{run}.pcap")));
    write_pcap(&input, frames);
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
    let lan = format!("net_pcap{},rx_pcap={},tx_pcap=/dev/null", 2 * run, input.display());
    let wan = format!("net_pcap{},tx_pcap={}", 2 * run + 1, output.display());
    let specs = [spec("lan", lan, Role::Inside), spec("wan", wan, Role::Outside)];
    let count = shares.len() as u16;
    let mut plan =
        Plan::new(&specs, count, u32::from(count) * held_frames(MAX_DATAGRAMS) + handoff::frames(count));
    // Pools live as long as EAL; these devices keep no buffer, and the frames are few.
    (plan.pool.name, plan.pool.mbufs, plan.pool.frame_room) = (format!("frames{run}"), 8191, 256);
    let mut ports = Ports::open(eal, &specs, count, &plan).unwrap();
    let limits = Limits { max_entries: 1024, max_datagrams: MAX_DATAGRAMS, hash_key: [run as u64, 2, 3, 4] };
    let mut workers = Vec::new();
    let mut ends = Vec::new();
    for ((pairs, links), me) in ports.workers.drain(..).zip(handoff::mesh(eal, count).unwrap()).zip(0..) {
        let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
        let settings = Settings::new(Profile::Linux);
        let tracker = Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::EarlyDrop, memory).unwrap();
        let owners = Owners::shared(shares, WorkerId(me)).unwrap();
        let (end, bus) = bus::pair();
        ends.push(end);
        let with_peers = pairs.into_iter().zip([1, 0]);
        workers.push(Worker::new(Parts {
            ports: with_peers.map(|(queues, peer)| Port { queues, peer: Some(peer) }).collect(),
            links,
            tracker: tracker.among(owners, Meeting::Entry),
            max_datagrams: MAX_DATAGRAMS,
            budget: ExpireBudget { flows: 64 },
            idle: Idle::Sleep,
            clock: Clock::new(clock::read(), eal.cycles_per_second()),
            bus,
        }));
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in &mut workers {
            let stop = &stop;
            scope.spawn(move || {
                let _registered = eal.register_thread().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    worker.turn();
                }
            });
        }
        let begun = Instant::now();
        while ports.ports[1].stats().tx_packets < frames.len() as u64 && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut handed = 0;
    for (end, worker) in ends.iter().zip(&mut workers) {
        handed += snapshot(end, worker).work.handed_off;
    }
    drop((workers, ports));
    (read_pcap(&output), handed)
}

#[test]
fn frames_of_a_flow_leave_in_the_order_in_which_they_came() {
    // No ring can be full, however long a worker waits for a core: none has room for fewer than 256.
    const FRAMES: usize = 240;
    const RUNS: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    let config = eal::Config { hugepages: false, memory_mib: 512, ..eal::Config::default() };
    let eal = Eal::start(&config, |_, _| ()).unwrap();
    // Half of the flows are another worker's; all are, and leave by a third; and each of four has some.
    let kinds: [&[u16]; 3] = [&[1, 1], &[0, 0, 1], &[1, 1, 1, 1]];
    for run in 0..RUNS * kinds.len() {
        let shares = kinds[run % kinds.len()];
        let frames = traffic(FRAMES, run as u64);
        let (came, handed) = pass(eal.handle(), folder.path(), run, shares, &frames);
        assert!(handed > 40, "{handed} handed over among {shares:?}");
        let of = |frames: &[Vec<u8>], flow: u16| -> Vec<_> {
            frames.iter().map(|frame| read(frame)).filter(|(of, ..)| *of == flow).collect()
        };
        for flow in 0..FLOWS {
            assert_eq!(of(&came, flow), of(&frames, flow), "flow {flow} among {shares:?}, seed {run}");
        }
        assert_eq!(came.len(), frames.len());
    }
}
