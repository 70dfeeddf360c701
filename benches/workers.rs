//! What several workers give and what handing frames over costs, in one run:
//!
//!     cargo bench --bench workers
//!
//! First the question alone: a packet that stays, with and without other workers. Then whole workers between a capture
//! that never ends and a port that swallows everything: one worker; two whose queues bring each its own flows, as RSS
//! that fits would; two whose queues bring anything; two whose queues bring the other's flows. Rounds are interleaved
//! and medians shown, with the quartiles around them. Needs two cores and some 220 hugepages of 2 MB (without them it
//! says so and is slower).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conntrack::event::Events;
use conntrack::fragment::Meeting;
use conntrack::key::hash::{Cpu, Hasher};
use conntrack::key::key_of;
use conntrack::key::owner::{Owners, WorkerId};
use conntrack::policy::{Policy, Role};
use conntrack::table::memory::Memory;
use conntrack::tick::Tick;
use conntrack::track::settings::{Profile, Settings};
use conntrack::tracker::{BURST, ExpireBudget, Frame, Limits, OnFull, Outcome, Tracker, Verdict};
use conntrack::wire::{self, Checksum, Link, Parsed};
use dpdk::eal::{self, Eal, Handle};
use dpdk_conntrack::bus::command::{Command, Ticket};
use dpdk_conntrack::bus::report::Snapshot;
use dpdk_conntrack::bus::{self, ControlEnd};
use dpdk_conntrack::driver::dpdk::{Plan, PortSpec, Ports, preloaded};
use dpdk_conntrack::worker::clock::{self, Clock};
use dpdk_conntrack::worker::{Idle, Parts, Port, Worker, handoff};

/// Flows of each worker, where there are two.
const FLOWS: usize = 8192;
const HASH_KEY: [u64; 4] = [1, 2, 3, 4];
const MAX_DATAGRAMS: u16 = 64;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(300);

/// Rounds of the question, which is a small one.
const SMALL_ROUNDS: usize = 1001;

fn main() {
    // `cargo test` builds and starts this too; there is nothing to pass or fail.
    if !std::env::args().any(|word| word == "--bench") {
        return;
    }
    question();
    workers();
}

/// A UDP datagram in an Ethernet frame of 60 bytes, of flow `number`, from one side or the other.
fn frame(number: u32, back: bool) -> Vec<u8> {
    let client = (0x0a00_0000 + number / 500).to_be_bytes();
    let server = [198, 18, 0, 1];
    let (sport, dport) = (1024 + (number % 500) as u16, 53);
    let (src, dst) = if back { (server, client) } else { (client, server) };
    let (sport, dport) = if back { (dport, sport) } else { (sport, dport) };
    let mut ip = vec![0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip.extend(src);
    ip.extend(dst);
    let sum: u32 = ip.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    ip.extend(sport.to_be_bytes());
    ip.extend(dport.to_be_bytes());
    ip.extend([0, 26, 0, 0]);
    ip.resize(46, 0);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend(ip);
    frame
}

fn owner(bytes: &[u8], owners: &Owners, hasher: &Hasher) -> usize {
    let Parsed::Packet(packet) = wire::parse(bytes, Link::Ethernet, Checksum::Good, true) else {
        panic!("a packet of our own")
    };
    usize::from(owners.of(hasher.hash(&key_of(&packet, 0).expect("UDP has a key").key)).0)
}

/// Frames of [`FLOWS`] flows of each of two workers, both directions, shuffled.
fn frames_by_owner() -> [Vec<Vec<u8>>; 2] {
    let owners = Owners::shared(&[1, 1], WorkerId(0)).expect("two shares");
    let hasher = Hasher::new(HASH_KEY, Cpu::detect());
    let mut by_owner = [Vec::new(), Vec::new()];
    let mut number = 0;
    while by_owner.iter().any(|frames| frames.len() < 2 * FLOWS) {
        let frames = &mut by_owner[owner(&frame(number, false), &owners, &hasher)];
        if frames.len() < 2 * FLOWS {
            frames.extend([frame(number, false), frame(number, true)]);
        }
        number += 1;
    }
    for frames in &mut by_owner {
        shuffle(frames);
    }
    by_owner
}

/// Fisher and Yates, by a linear congruential generator: the same order each time.
fn shuffle<T>(items: &mut [T]) {
    let mut state = 1_u64;
    for last in (1..items.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (state >> 33) as usize % (last + 1));
    }
}

fn tracker(owners: Owners) -> Tracker {
    let limits = Limits { max_entries: 65_536, max_datagrams: MAX_DATAGRAMS, hash_key: HASH_KEY };
    let memory = Memory::heap(Tracker::memory_bytes(&limits).expect("limits")).expect("memory");
    Tracker::new(limits, Settings::new(Profile::Linux), Policy::ACCEPT_ALL, OnFull::EarlyDrop, memory)
        .expect("limits")
        .among(owners, Meeting::Entry)
}

/// Quartiles, the median in the middle.
fn quartiles(numbers: &mut [f64]) -> [f64; 3] {
    numbers.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| numbers[numbers.len() * quarter / 4])
}

fn question() {
    let [mine, _] = frames_by_owner();
    let frame =
        |bytes| Frame { bytes, link: Link::Ethernet, role: Role::Inside, zone: 0, checksum: Checksum::Good };
    let frames: Vec<Frame<'_>> = mine.iter().map(|bytes| frame(bytes)).collect();
    // One table for both: where in memory it lies makes more than the question does.
    let mut asked = Some(tracker(Owners::alone()));
    let sides = [Owners::alone(), Owners::shared(&[1, 1], WorkerId(0)).expect("two shares")];
    let mut outcomes = [Outcome::untold(Verdict::Forward); BURST];
    let mut pass = |side: &Owners, now: Tick| {
        let mut tracker = asked.take().expect("put back each time").among(side.clone(), Meeting::Entry);
        let begun = Instant::now();
        for burst in frames.chunks(BURST) {
            tracker.on_burst(now, burst, &mut outcomes[..burst.len()], &mut Events::none());
            assert!(outcomes.iter().all(|outcome| outcome.verdict == Verdict::Forward), "all stay");
        }
        let time = begun.elapsed().as_secs_f64() * 1e9 / frames.len() as f64;
        asked = Some(tracker);
        time
    };
    // A conversation of more than two seconds is ASSURED, as most of traffic is.
    let lived = Tick(1000);
    for now in [Tick(1), Tick(900), lived] {
        pass(&sides[0], now);
    }
    let mut times = [Vec::new(), Vec::new()];
    let mut differences = Vec::new();
    for round in 0..SMALL_ROUNDS {
        for which in [round % 2, 1 - round % 2] {
            times[which].push(pass(&sides[which], lived));
        }
        differences.push(times[1][round] - times[0][round]);
    }
    println!("whose flow is it? for a packet that stays: ns a packet, quartiles of {SMALL_ROUNDS} rounds");
    let [alone, one_of_two] = &mut times;
    for (what, numbers) in [("alone", alone), ("one of two", one_of_two), ("difference", &mut differences)] {
        let [low, median, high] = quartiles(numbers);
        println!("  {what:<12} {median:6.2}   ({low:.2} to {high:.2})");
    }
}

/// Workers on their ports, standing still between rounds.
struct Rig {
    what: &'static str,
    ends: Vec<ControlEnd>,
    workers: Vec<Worker>,
    _ports: Ports,
    /// Millions of packets a second.
    rates: Vec<f64>,
    /// Nanoseconds of a core for each frame.
    costs: Vec<f64>,
    sums: Sums,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    packets: u64,
    handed: u64,
    lost: u64,
}

impl Rig {
    fn new(eal: &Handle, number: usize, what: &'static str, queues: &[Vec<Vec<u8>>]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut device = format!("net_pcap{number}");
        for (queue, frames) in queues.iter().enumerate() {
            let path = folder.path().join(format!("{queue}.pcap"));
            write_pcap(&path, frames);
            device += &format!(",rx_pcap={}", path.display());
        }
        device += ",infinite_rx=1";
        let spec = |name: &str, device: String, role| PortSpec {
            name: name.into(),
            device: device.parse().expect("a device"),
            role,
            zone: 0,
            mtu: 1500,
            promiscuous: true,
            mirror: false,
            queues: None,
            rss_key: None,
        };
        let sink = format!("net_null{number},no-rx=1");
        let specs = [spec("in", device, Role::Inside), spec("out", sink, Role::Outside)];
        let workers = queues.len() as u16;
        let mut plan = Plan::new(&specs, workers, preloaded(&specs));
        plan.pool.frame_room = 512;
        plan.pool.name = format!("bench{number}");
        let mut ports = Ports::open(eal, &specs, workers, &plan).expect("ports");
        let links = handoff::mesh(eal, workers).expect("rings");
        let (mut ends, mut made) = (Vec::new(), Vec::new());
        for ((pairs, links), me) in ports.workers.drain(..).zip(links).zip(0..) {
            let (end, bus) = bus::pair();
            let owners = Owners::shared(&vec![1; queues.len()], WorkerId(me)).expect("shares");
            let with_peers = pairs.into_iter().zip([1, 0]);
            made.push(Worker::new(Parts {
                ports: with_peers.map(|(queues, peer)| Port { queues, peer: Some(peer) }).collect(),
                links,
                tracker: tracker(owners),
                max_datagrams: MAX_DATAGRAMS,
                budget: ExpireBudget { flows: 64 },
                idle: Idle::Poll,
                clock: Clock::new(clock::read(), eal.cycles_per_second()),
                bus,
            }));
            ends.push(end);
        }
        Self {
            what,
            ends,
            workers: made,
            _ports: ports,
            rates: Vec::new(),
            costs: Vec::new(),
            sums: Sums::default(),
        }
    }

    fn seen(&mut self) -> Sums {
        let mut sums = Sums::default();
        for (end, worker) in self.ends.iter().zip(&mut self.workers) {
            let Snapshot { tracker, work, .. } = ask(end, worker);
            sums.packets += tracker.packets.iter().sum::<u64>();
            sums.handed += work.handed_off;
            sums.lost += tracker.dropped.iter().sum::<u64>() + work.tx_full;
        }
        sums
    }

    /// Lets every worker turn on a core of its own for a while.
    fn round(&mut self, eal: &Handle, count: bool) {
        let stop = AtomicBool::new(false);
        let before = self.seen();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for (core, worker) in self.workers.iter_mut().enumerate() {
                let stop = &stop;
                scope.spawn(move || {
                    core_affinity::set_for_current(core_affinity::CoreId { id: core });
                    let _registered = eal.register_thread().expect("a thread of DPDK");
                    while !stop.load(Ordering::Relaxed) {
                        worker.turn();
                    }
                });
            }
            std::thread::sleep(ROUND);
            stop.store(true, Ordering::Relaxed);
        });
        let spent = begun.elapsed().as_secs_f64();
        let after = self.seen();
        if count {
            let packets = after.packets - before.packets;
            self.rates.push(packets as f64 / spent / 1e6);
            // A frame that a full ring lost has cost its worker something too.
            self.costs
                .push(self.workers.len() as f64 * spent * 1e9 / (packets + after.lost - before.lost) as f64);
            self.sums.packets += packets;
            self.sums.handed += after.handed - before.handed;
            self.sums.lost += after.lost - before.lost;
        }
    }
}

/// A worker's numbers; it turns here until it has told them.
fn ask(end: &ControlEnd, worker: &mut Worker) -> Snapshot {
    let command = Command::Snapshot(Box::default());
    end.send(Ticket { number: 0, command }).expect("room for a command");
    loop {
        worker.turn();
        if let Some(Ticket { command: Command::Snapshot(seen), .. }) = end.next_answer() {
            return *seen;
        }
    }
}

/// A pcap file (version 2.4, Ethernet) of `frames`.
fn write_pcap(path: &std::path::Path, frames: &[Vec<u8>]) {
    let mut file: Vec<u8> = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend(word.to_le_bytes());
    }
    for bytes in frames {
        for word in [0, 0, bytes.len() as u32, bytes.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(bytes);
    }
    std::fs::write(path, file).expect("a file in a temporary folder");
}

fn workers() {
    let config = |hugepages| eal::Config { hugepages, memory_mib: 440, ..eal::Config::default() };
    let eal = Eal::start(&config(true), |_, _| ()).unwrap_or_else(|error| {
        println!("without hugepages, which is slower ({error})");
        Eal::start(&config(false), |_, _| ()).expect("DPDK starts without hugepages")
    });
    let [first, second] = frames_by_owner();
    let mut all = [first.clone(), second.clone()].concat();
    shuffle(&mut all);
    let (left, right) = all.split_at(2 * FLOWS);
    let kinds = [
        ("1 worker", vec![all.clone()]),
        ("2 workers, each its own flows", vec![first.clone(), second.clone()]),
        ("2 workers, any flows", vec![left.to_vec(), right.to_vec()]),
        ("2 workers, the other's flows", vec![second, first]),
    ];
    let mut rigs: Vec<_> = kinds
        .iter()
        .enumerate()
        .map(|(number, (what, queues))| Rig::new(eal.handle(), number, what, queues))
        .collect();
    for round in 0..=ROUNDS {
        for rig in &mut rigs {
            // The first one fills tables and caches.
            rig.round(eal.handle(), round > 0);
        }
    }
    println!();
    println!("whole workers: {} flows of UDP both ways, 60-byte frames, {ROUNDS} rounds", 2 * FLOWS);
    println!(
        "{:<30} {:>8} {:>18} {:>10} {:>14} {:>8}",
        "", "Mpps", "(quartiles)", "against 1", "core-ns/frame", "handed"
    );
    let mut one = f64::NAN;
    for Rig { what, workers, rates, costs, sums, .. } in &mut rigs {
        let [low, median, high] = quartiles(rates);
        if workers.len() == 1 {
            one = median;
        }
        println!(
            "{what:<30} {median:8.2} {:>18} {:9.2}x {:14.1} {:7.1}%{}",
            format!("({low:.2} to {high:.2})"),
            median / one,
            quartiles(costs)[1],
            100.0 * sums.handed as f64 / sums.packets as f64,
            if sums.lost > 0 {
                format!("  {:.1}% lost", 100.0 * sums.lost as f64 / (sums.packets + sums.lost) as f64)
            } else {
                String::new()
            },
        );
    }
}
