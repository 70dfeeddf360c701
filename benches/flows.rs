//! The tracker as the appliance calls it, alone on a core: `on_burst` with the `linux` profile, window tracking,
//! accounting, policy and events on, over the frames and the schedule of the peers' programs (benches/peers/common.h).
//! Owns the traffic and the clock readings; the comparison is made by scripts/bench.
//!
//! Generating a packet is part of each figure, here as in the peers. The clock is the thread's CPU time.

use std::process::ExitCode;

use conntrack::event::Events;
use conntrack::policy::{Action, Class, Policy, Role, Rule};
use conntrack::tick::{Tick, Ticks};
use conntrack::track::settings::{Profile, Settings};
use conntrack::track::timeout::TimeoutKey;
use conntrack::tracker::{BURST, ExpireBudget, Frame, Limits, OnFull, Outcome, Tracker, Verdict};
use conntrack::wire::{Checksum, Link};
use conntrack::zone::{Rules, Zones};
use dpdk_conntrack::memory::{Mapping, Pages};

const USAGE: &str = "\
usage: flows WHAT FLOWS u|z ROUNDS

WHAT   established  packets of established TCP connections, either direction, in random order
       v6           the same over IPv6
       udp          the same for answered UDP flows
       new          first packets of TCP connections, while seven eighths of FLOWS stay; and their expiry
       flood        first packets that nobody answers, into a full table
       churn        one first packet among eight of established connections, and expiry at the same rate
       burst        how long single bursts of `churn` take
FLOWS  how many flows there are
u|z    every flow is as likely, or as in Zipf's law with exponent 1
ROUNDS rounds to take the median of
";

/// Places of the schedule, as in the peers.
const SCHEDULE: usize = 1 << 22;

/// Packets between two ticks of 4 ms: what a core gets at 30 million packets a second.
const PACKETS_PER_TICK: usize = 120_000;

/// As the appliance's default.
const BUDGET: ExpireBudget = ExpireBudget { flows: 64 };

fn main() -> ExitCode {
    // cargo passes `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if words.is_empty() {
        // `cargo bench` and `cargo test --benches` name no scenario: a round of each, small.
        for what in ["established", "v6", "udp", "new", "flood", "churn", "burst"] {
            run(what, 1024, false, 3);
        }
        return ExitCode::SUCCESS;
    }
    let [what, flows, order, rounds] = &words[..] else { return usage() };
    let (Ok(flows), Ok(rounds)) = (flows.parse(), rounds.parse()) else { return usage() };
    let zipf = match order.as_str() {
        "u" => false,
        "z" => true,
        _ => return usage(),
    };
    if !(1024..=64_000_000).contains(&flows) || rounds == 0 || !run(what, flows, zipf, rounds) {
        return usage();
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}

/// False if there is no such scenario.
fn run(what: &str, flows: u32, zipf: bool, rounds: usize) -> bool {
    let order = if zipf { "z" } else { "u" };
    let tag = format!("ours {what} N={flows} sched={order}");
    match what {
        "established" => established(&tag, Kind::V4, flows, zipf, rounds),
        "v6" => established(&tag, Kind::V6, flows, zipf, rounds),
        "udp" => established(&tag, Kind::Udp, flows, zipf, rounds),
        "new" => new_and_expire(&tag, flows, rounds),
        "flood" => flood(&tag, flows, rounds),
        "churn" => churn(&tag, flows, zipf, rounds, false),
        "burst" => churn(&tag, flows, zipf, rounds, true),
        _ => return false,
    }
    true
}

/// What the frames are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    V4,
    V6,
    Udp,
}

/// One core's tracker with its traffic.
struct Rig {
    tracker: Tracker,
    events: Events,
    frames: Box<[[u8; 128]; BURST]>,
    roles: [Role; BURST],
    kind: Kind,
    now: Tick,
    since_tick: usize,
    packets_per_tick: usize,
    outcomes: [Outcome; BURST],
}

const NONE: Outcome =
    Outcome { class: None, direction: None, reason: None, verdict: Verdict::Forward, releases: None };

impl Rig {
    fn new(kind: Kind, capacity: u32, tag: &str) -> Self {
        let limits = Limits { max_entries: capacity, max_datagrams: 64, hash_key: [1, 2, 3, 4] };
        let bytes = Tracker::memory_bytes(&limits).expect("a capacity within 1 to 100 million");
        let mapping = Mapping::new(bytes, true).expect("memory");
        println!(
            "# ours flows={capacity} bytes/flow={:.1} pages={}",
            mapping.len() as f64 / f64::from(capacity),
            if mapping.pages() == Pages::Huge { "huge" } else { "plain" },
        );
        let rules = [
            Rule {
                from: Some(Role::Inside),
                classes: ALL_BUT_INVALID,
                new_needs_syn: true,
                action: Action::Accept,
                mark: 0,
            },
            Rule {
                from: Some(Role::Outside),
                classes: Class::Established.bit() | Class::Related.bit(),
                new_needs_syn: false,
                action: Action::Accept,
                mark: 0,
            },
        ];
        let policy = Policy::new(&rules, Action::Drop).expect("two rules");
        let settings = Settings { accounting: true, ..Settings::new(Profile::Linux) };
        let mut tracker = Tracker::new(limits, settings, policy, OnFull::EarlyDrop, mapping.into_memory())
            .unwrap_or_else(|error| panic!("{tag}: {error:?}"));
        // As the appliance: each new flow is counted in its zone.
        tracker.join(Zones::new(&Rules::default(), 1, [5, 6, 7, 8]).member(0));
        let mut frames = Box::new([[0; 128]; BURST]);
        for frame in frames.iter_mut() {
            template(frame, kind);
        }
        Self {
            tracker,
            events: Events::with_capacity(4 * BURST + BUDGET.flows as usize),
            frames,
            roles: [Role::Inside; BURST],
            kind,
            now: Tick(1000),
            since_tick: 0,
            packets_per_tick: PACKETS_PER_TICK,
            outcomes: [NONE; BURST],
        }
    }

    /// Writes frame `at`: flow `scheduled >> 1`, in the direction of its lowest bit.
    #[inline(always)]
    fn write(&mut self, at: usize, scheduled: u32) {
        tuple(&mut self.frames[at], self.kind, scheduled);
        self.roles[at] = Role::ALL[scheduled as usize & 1];
    }

    #[inline(always)]
    fn segment(&mut self, at: usize, seq: u32, ack: u32, flags: u8) {
        let l4 = if self.kind == Kind::V6 { 54 } else { 34 };
        let frame = &mut self.frames[at];
        let numbers = u64::from(seq.swap_bytes()) | u64::from(ack.swap_bytes()) << 32;
        frame[l4 + 4..l4 + 12].copy_from_slice(&numbers.to_le_bytes());
        frame[l4 + 13] = flags;
    }

    /// One turn of a worker: a burst, its events, the wheel.
    #[inline(always)]
    fn turn(&mut self) {
        let len = match self.kind {
            Kind::V4 => 54,
            Kind::V6 => 74,
            Kind::Udp => 60,
        };
        let frames: [Frame<'_>; BURST] = core::array::from_fn(|at| Frame {
            bytes: &self.frames[at][..len],
            link: Link::Ethernet,
            role: self.roles[at],
            zone: 0,
            checksum: Checksum::AllGood,
        });
        self.tracker.on_burst(self.now, &frames, &mut self.outcomes, &mut self.events);
        self.events.clear();
        self.since_tick += BURST;
        if self.since_tick >= self.packets_per_tick {
            self.since_tick = 0;
            self.now.0 += 1;
        }
        self.tracker.on_tick(self.now, BUDGET, &mut self.events);
        self.events.clear();
    }

    /// Packets of established connections so far.
    fn passed(&self) -> u64 {
        self.tracker.counters().packets[Class::Established as usize]
    }

    /// Opens flows `ids`, each with a handshake, in bursts.
    fn open(&mut self, ids: std::ops::Range<u32>) {
        // (reply direction, seq, ack, flags)
        let handshake = [(0, 1000, 0, SYN), (1, 2000, 1001, SYN | ACK), (0, 1001, 2001, ACK)];
        let steps = if self.kind == Kind::Udp { &handshake[..2] } else { &handshake[..] };
        for first in ids.clone().step_by(BURST) {
            for &(reply, seq, ack, flags) in steps {
                for at in 0..BURST {
                    let id = (first + at as u32).min(ids.end - 1);
                    self.write(at, id << 1 | reply);
                    if self.kind != Kind::Udp {
                        self.segment(at, seq, ack, flags);
                    }
                }
                self.turn();
            }
        }
    }

    /// A burst of established packets from `schedule`.
    #[inline(always)]
    fn established(&mut self, schedule: &[u32], from: usize) {
        for at in 0..BURST {
            let scheduled = schedule[(from + at) & (SCHEDULE - 1)];
            self.write(at, scheduled);
            if self.kind != Kind::Udp {
                let seq = 1001 + 1000 * (scheduled & 1);
                self.segment(at, seq, 3002 - seq, ACK);
            }
        }
    }

    /// Ends half-open flows in random order, so that free slots lie in no order, as after days of traffic.
    fn reset(&mut self, mut ids: Vec<u32>, random: &mut Random) {
        for at in (1..ids.len()).rev() {
            ids.swap(at, random.below(at as u32 + 1) as usize);
        }
        for burst in ids.chunks(BURST) {
            for at in 0..BURST {
                self.write(at, burst[at.min(burst.len() - 1)] << 1);
                self.segment(at, 1001, 0, RST);
            }
            self.turn();
        }
    }

    /// A burst of first packets of flows `from` on.
    #[inline(always)]
    fn first_packets(&mut self, from: u32) {
        for at in 0..BURST {
            self.write(at, (from + at as u32) << 1);
            self.segment(at, 1000, 0, SYN);
        }
    }

    /// Lets `ticks` pass and does what is due.
    fn pass(&mut self, ticks: u64) {
        self.now.0 += ticks;
        while self.tracker.on_tick(self.now, BUDGET, &mut self.events).more {
            self.events.clear();
        }
        self.events.clear();
    }
}

const ALL_BUT_INVALID: u8 = Class::New.bit() | Class::Established.bit() | Class::Related.bit();

fn established(tag: &str, kind: Kind, flows: u32, zipf: bool, rounds: usize) {
    let mut random = Random::new();
    let schedule = schedule(&mut random, flows, zipf);
    let mut rig = Rig::new(kind, flows, tag);
    rig.open(0..flows);
    let bursts = if flows >= 1_000_000 { 12_500 } else { 25_000 };
    let (mut position, mut figures) = (0, Vec::new());
    let before = rig.passed();
    for _ in 0..=rounds {
        let begun = cpu_ns();
        for _ in 0..bursts {
            rig.established(&schedule, position);
            position += BURST;
            rig.turn();
        }
        figures.push((cpu_ns() - begun) / (bursts * BURST) as f64);
    }
    report(tag, &mut figures[1..]);
    let packets = (rounds as u64 + 1) * (bursts * BURST) as u64;
    println!(
        "  established {:.4} live {}",
        (rig.passed() - before) as f64 / packets as f64,
        rig.tracker.len()
    );
}

/// Seven eighths of the flows stay; an eighth comes and goes, an expiry later.
fn new_and_expire(tag: &str, flows: u32, rounds: usize) {
    let mut random = Random::new();
    let share = (flows / 8) as usize / BURST * BURST;
    let stay = flows - share as u32;
    let mut rig = Rig::new(Kind::V4, flows, tag);
    rig.open(0..stay);
    let mut next = stay;
    for first in (0..share as u32).step_by(BURST) {
        rig.first_packets(next + first);
        rig.turn();
    }
    rig.reset((next..next + share as u32).collect(), &mut random);
    let (mut new, mut expiry) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        next += share as u32;
        let live = rig.tracker.len();
        let begun = cpu_ns();
        for first in (0..share as u32).step_by(BURST) {
            rig.first_packets(next + first);
            rig.turn();
        }
        new.push((cpu_ns() - begun) / share as f64);
        assert_eq!(rig.tracker.len(), live + share as u32, "every first packet makes a flow");
        let wait = u64::from(Ticks::from_secs(121).0);
        let begun = cpu_ns();
        rig.pass(wait);
        expiry.push((cpu_ns() - begun) / share as f64);
        assert_eq!(rig.tracker.len(), live, "every half-open flow expires");
        // The slots of a burst of expiries are used again in that order; a few resets mix them.
        let some = share as u32 / 4 / BURST as u32 * BURST as u32;
        for first in (0..some).step_by(BURST) {
            rig.first_packets(next + first);
            rig.turn();
        }
        rig.reset((next..next + some).collect(), &mut random);
    }
    report(&tag.replace("new", "new flow"), &mut new[1..]);
    report(&tag.replace("new", "expiry"), &mut expiry[1..]);
}

/// The table is full of flows that may go: every first packet ends another flow.
fn flood(tag: &str, flows: u32, rounds: usize) {
    let mut rig = Rig::new(Kind::V4, flows, tag);
    let mut next = 0;
    let mut figures = Vec::new();
    let bursts = 12_500;
    for first in (0..flows).step_by(BURST) {
        rig.first_packets(first);
        rig.turn();
        next = first + BURST as u32;
    }
    for _ in 0..=rounds {
        let begun = cpu_ns();
        for _ in 0..bursts {
            rig.first_packets(next);
            next = (next + BURST as u32) & 0x7fff_ffff;
            rig.turn();
        }
        figures.push((cpu_ns() - begun) / (bursts * BURST) as f64);
    }
    report(tag, &mut figures[1..]);
}

/// Seven packets of established connections to one that opens another; as many flows expire as come.
fn churn(tag: &str, flows: u32, zipf: bool, rounds: usize, single: bool) {
    let mut random = Random::new();
    let share = (flows / 8).next_multiple_of(BURST as u32);
    let stay = flows - share;
    let schedule = schedule(&mut random, stay, zipf);
    let mut rig = Rig::new(Kind::V4, flows, tag);
    // So short that the clock can go as fast as for the other traffic, and connections do not end of their pauses.
    rig.tracker.set_timeout(TimeoutKey::TcpSynSent, Ticks(4));
    rig.open(0..stay);
    let bursts = 25_000;
    // Four ticks of one new flow in eight packets, and up to eight until the wheel comes by: it fits.
    rig.packets_per_tick = share as usize / 2;
    let passed = rig.passed();
    let (mut next, mut position, mut figures, mut times) = (stay, 0, Vec::new(), Vec::new());
    for round in 0..=rounds {
        let begun = cpu_ns();
        for burst in 0..bursts {
            rig.established(&schedule, position);
            position += BURST;
            for at in (0..BURST).step_by(8) {
                rig.write(at, next << 1);
                rig.segment(at, 1000, 0, SYN);
                next = if next == u32::MAX >> 1 { stay } else { next + 1 };
            }
            let from = if single { tsc() } else { 0 };
            rig.turn();
            if single && round > 0 {
                times.push(tsc() - from);
            }
            std::hint::black_box(burst);
        }
        figures.push((cpu_ns() - begun) / (bursts * BURST) as f64);
    }
    report(tag, &mut figures[1..]);
    let established = (rig.passed() - passed) as f64 / ((rounds + 1) * bursts * BURST) as f64;
    assert!((0.874..0.876).contains(&established), "established {established:.4} instead of seven eighths");
    println!("  live {} of {flows}", rig.tracker.len());
    if single {
        let ns = ns_per_cycle();
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] as f64 * ns;
        println!(
            "  bursts {} ns: p50 {:.0} p99 {:.0} p99.9 {:.0} p99.99 {:.0} max {:.0}",
            times.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(0.9999),
            at(1.0)
        );
    }
}

/// In the manner of the peers' programs.
fn report(tag: &str, figures: &mut [f64]) {
    figures.sort_by(f64::total_cmp);
    let [first, .., last] = *figures else {
        let only = figures[0];
        println!("{tag:<58} median {only:8.2} ns  [{only:8.2} .. {only:8.2}]  {:7.2} Mpps  n=1", 1e3 / only);
        return;
    };
    let median = figures[figures.len() / 2];
    println!(
        "{tag:<58} median {median:8.2} ns  [{first:8.2} .. {last:8.2}]  {:7.2} Mpps  n={}",
        1e3 / median,
        figures.len()
    );
}

/// CPU time of this thread.
fn cpu_ns() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours to write; the clock exists since Linux 2.6.12.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0, "a thread has a CPU clock");
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// The processor's counter.
fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has it, and reading it changes nothing.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        cpu_ns() as u64
    }
}

fn ns_per_cycle() -> f64 {
    let (begun, from) = (std::time::Instant::now(), tsc());
    std::thread::sleep(std::time::Duration::from_millis(50));
    begun.elapsed().as_nanos() as f64 / (tsc() - from) as f64
}

// ---- The traffic of benches/peers/common.h, bit for bit.

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

struct Random([u64; 2]);

impl Random {
    fn new() -> Self {
        Self([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03])
    }

    fn next(&mut self) -> u64 {
        let [mut a, b] = self.0;
        a ^= a << 23;
        self.0 = [b, a ^ b ^ (a >> 17) ^ (b >> 26)];
        self.0[1].wrapping_add(b)
    }

    fn below(&mut self, n: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u32
    }
}

/// Flow << 1 | direction, place after place.
fn schedule(random: &mut Random, flows: u32, zipf: bool) -> Vec<u32> {
    const GAMMA: f64 = 0.577_215_664_9;
    let mut places = vec![0; SCHEDULE];
    let h = f64::from(flows).ln() + GAMMA;
    for place in &mut places {
        let r = random.next();
        let flow = if zipf {
            let u = (r >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0) * h;
            let rank = ((u - GAMMA).exp() as u64).min(u64::from(flows) - 1);
            ((rank.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % u64::from(flows)) as u32
        } else {
            ((u128::from(r) * u128::from(flows)) >> 64) as u32
        };
        *place = flow << 1 | (r & 1) as u32;
    }
    places
}

fn template(frame: &mut [u8; 128], kind: Kind) {
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    let l4 = match kind {
        Kind::V4 => {
            frame[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6]);
            34
        }
        Kind::Udp => {
            frame[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
            frame[38..40].copy_from_slice(&26_u16.to_be_bytes());
            return;
        }
        Kind::V6 => {
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            frame[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 20, 6, 64]);
            frame[22..26].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
            frame[38..42].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
            54
        }
    };
    frame[l4 + 12] = 0x50;
    frame[l4 + 13] = ACK;
    frame[l4 + 14..l4 + 16].copy_from_slice(&[0xff, 0xff]);
}

/// One flow per id, and no two with the same tuple.
#[inline(always)]
fn tuple(frame: &mut [u8; 128], kind: Kind, scheduled: u32) {
    let id = scheduled >> 1;
    let m = id.wrapping_mul(0x9e37_79b1);
    let src = u64::from((0x0a00_0000 | m & 0x00ff_ffff).swap_bytes());
    let dst = u64::from((0xac10_0000 | id.wrapping_mul(0x85eb_ca6b) >> 16).swap_bytes());
    let sport = u32::from((1024u32.wrapping_add((m >> 24) * 251) as u16).swap_bytes());
    let dport = u32::from(443_u16.swap_bytes());
    // Without a branch, as in the peers: directions come at random.
    let reply = 0_u64.wrapping_sub(u64::from(scheduled & 1));
    let turned = (src ^ dst) & reply;
    let (near, far) = (src ^ turned, dst ^ turned);
    let turned = (sport ^ dport) & reply as u32;
    let ports = (sport ^ turned) | (dport ^ turned) << 16;
    if kind == Kind::V6 {
        frame[30..38].copy_from_slice(&near.to_le_bytes());
        frame[46..54].copy_from_slice(&far.to_le_bytes());
        frame[54..58].copy_from_slice(&ports.to_le_bytes());
    } else {
        frame[26..34].copy_from_slice(&(near | far << 32).to_le_bytes());
        frame[34..38].copy_from_slice(&ports.to_le_bytes());
    }
}
