//! Real TCP connections through a forwarding kernel over bad wires, while the tracker is shown the same packets as if
//! by a mirror port; the two tables are compared throughout.

mod hosts;
mod link;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use agreement::compare::{Difference, Slack, differences};
use agreement::duel::{Clock, allow_for_clocks};
use agreement::kernel::{self, Kernel, Watch};
use agreement::play::{Fate, Player};
use agreement::program::rng::Rng;
use agreement::program::{Side, describe};
use agreement::settings::KernelSettings;
use agreement::shown::{Entry, EventKind, Shown};
use clap::Parser;
use conntrack::tick::{PER_SECOND, Tick};
use conntrack::wire::Checksum;
use hosts::Results;
use link::{Link, Quality};

/// Compare the tracker with the running kernel while real TCP stacks transfer data. Needs root.
#[derive(Parser)]
#[command(name = "shadow")]
struct Options {
    /// Connections to open
    #[arg(long, default_value_t = 1000)]
    connections: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Packets lost, in per mille, on each of the four stretches of wire
    #[arg(long, default_value_t = 8)]
    loss: u32,
    /// Packets delivered twice, in per mille
    #[arg(long, default_value_t = 8)]
    duplicate: u32,
    /// Packets delayed by up to 20 ms, and so overtaken, in per mille
    #[arg(long, default_value_t = 30)]
    reorder: u32,
    /// Stop after this many packets that differ
    #[arg(long, default_value_t = 5)]
    stop_after: u64,
}

/// Shorter than the kernel's own, so that flows also end while others live.
const SETTINGS: [(&str, u64); 6] = [
    ("nf_conntrack_tcp_timeout_time_wait", 7),
    ("nf_conntrack_tcp_timeout_close", 3),
    ("nf_conntrack_tcp_timeout_last_ack", 13),
    ("nf_conntrack_tcp_timeout_unacknowledged", 120),
    ("nf_conntrack_tcp_timeout_max_retrans", 90),
    ("nf_conntrack_tcp_timeout_established", 1000),
];
/// The whole tables are compared after so many packets, and at the end.
const WHOLE_EVERY: u64 = 500;
const MAX_FLOWS: u32 = 16_384;
/// What a dialogue tells of a flow's past.
const REMEMBERED: usize = 30;
/// Ticks: what the kernel was asked in so long a time is not compared. The machine took the core away meanwhile, and a
/// short timeout may have passed between the packet and the look at its flow, or between two looks.
const LATE: u64 = PER_SECOND as u64 / 4;
/// Of the packets and of the tables, one in so many at most may be left out so, or the run says too little.
const LATE_SHARE: u64 = 10;
/// How often whole tables are looked at again that took too long.
const LOOKS: u32 = 5;
/// No run takes longer.
const LIMIT: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    let options = Options::parse();
    let release = kernel::release();
    println!("kernel {release}, seed {}", options.seed);
    match run(&options) {
        Ok(disagreements) => {
            if disagreements == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("shadow: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<u64, String> {
    let results = Arc::new(Results::default());
    let mut shadow = Shadow::new(options)?;
    let host = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(work).map_err(|error| format!("{name}: {error}"))
    };
    let (server_wire, server_device) = channel();
    host("server", Box::new(move || hosts::serve(&server_wire)))?;
    let server = server_device.recv().map_err(|_| "the server's thread ended")??;
    let (client_wire, client_device) = channel();
    let (seed, count, shared) = (options.seed, options.connections, Arc::clone(&results));
    host("client", Box::new(move || hosts::connect(&client_wire, seed, count, &shared)))?;
    let client = client_device.recv().map_err(|_| "the client's thread ended")??;
    shadow.carry([client, server], &results, options)?;
    shadow.compare_all()?;

    let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    println!(
        "{} connections intact ({} bytes), {} broken off on purpose, {} given up, {} damaged",
        count(&results.intact),
        count(&results.bytes),
        count(&results.broken_off),
        count(&results.given_up),
        count(&results.damaged)
    );
    let tally = shadow.links.iter().map(|link| link.tally);
    let (sent, lost, twice, late) = tally.fold((0, 0, 0, 0), |sum, tally| {
        (sum.0 + tally.sent, sum.1 + tally.lost, sum.2 + tally.twice, sum.3 + tally.late)
    });
    println!("{sent} packets on the wires, {lost} lost, {twice} delivered twice, {late} delayed");
    println!(
        "{} tables of up to {} flows compared whole; {} entries were too close to their end to compare",
        shadow.tables, shadow.most_flows, shadow.too_close
    );
    println!(
        "{} packets and {} tables were not compared whole: the machine was late",
        shadow.late_packets, shadow.late_tables
    );
    println!(
        "shadow: {} connections, {} packets, {} disagreements, kernel {}",
        count(&results.done),
        shadow.packets,
        shadow.disagreements,
        kernel::release()
    );
    if count(&results.damaged) > 0 {
        return Err("data arrived damaged".into());
    }
    if shadow.late_packets > shadow.packets / LATE_SHARE
        || shadow.late_tables > shadow.tables / LATE_SHARE + 1
    {
        return Err("this machine stops too often: run it when less else runs".into());
    }
    Ok(shadow.disagreements)
}

/// The four stretches: client to router, router to server, server to router, router to client.
const TO_ROUTER: [usize; 2] = [0, 2];
const TO_HOST: [usize; 2] = [3, 1];

/// A packet's flow: its addresses, protocol and ports as on the wire.
type FlowId = Vec<u8>;

struct Shadow {
    kernel: Kernel,
    watch: Watch,
    player: Player,
    clock: Clock,
    links: [Link; 4],
    /// By the kernel's own tuples, both directions.
    numbers: HashMap<FlowId, u32>,
    past: HashMap<FlowId, VecDeque<String>>,
    packets: u64,
    disagreements: u64,
    tables: u64,
    most_flows: usize,
    too_close: u64,
    /// Not compared, or not with their entries, since the kernel was asked in too long a time.
    late_packets: u64,
    late_tables: u64,
    /// Ticks: the longest time that the kernel had a packet so far, by which its flow's timeout may have begun later than
    /// ours.
    slowest: u64,
}

impl Shadow {
    fn new(options: &Options) -> Result<Self, String> {
        let mut kernel = Kernel::enter()?;
        kernel.configure(&SETTINGS)?;
        let mut settings = KernelSettings::default();
        for (name, value) in SETTINGS {
            settings.set(name, value)?;
        }
        let mut player = Player::new(MAX_FLOWS);
        player.start(&settings);
        let quality = Quality { lost: options.loss, twice: options.duplicate, late: options.reorder };
        Ok(Self {
            kernel,
            watch: Watch::default(),
            player,
            clock: Clock::start(),
            links: std::array::from_fn(|at| Link::new(Rng::new(options.seed, u64::MAX - at as u64), quality)),
            numbers: HashMap::new(),
            past: HashMap::new(),
            packets: 0,
            disagreements: 0,
            tables: 0,
            most_flows: 0,
            too_close: 0,
            late_packets: 0,
            late_tables: 0,
            slowest: 0,
        })
    }

    /// Carries packets until all connections are over and the wires are empty.
    fn carry(&mut self, mut hosts: [File; 2], results: &Results, options: &Options) -> Result<(), String> {
        let started = Instant::now();
        let (mut quiet_since, mut over_since) = (started, started);
        let mut told = 0;
        let mut buffer = [0; 2048];
        loop {
            let mut moved = false;
            for (side, host) in hosts.iter_mut().enumerate() {
                while let Ok(length) = host.read(&mut buffer) {
                    let Some(packet) = buffer.get(..length).filter(|packet| is_tcp_or_icmp(packet)) else {
                        continue;
                    };
                    self.links[TO_ROUTER[side]].send(Instant::now(), packet);
                    moved = true;
                }
            }
            for side in [Side::A, Side::B] {
                while let Some(packet) = self.links[TO_ROUTER[side as usize]].take(Instant::now()) {
                    moved = true;
                    self.through_router(side, &packet)?;
                    if self.disagreements >= options.stop_after {
                        return Ok(());
                    }
                }
            }
            for (side, host) in hosts.iter_mut().enumerate() {
                while let Some(packet) = self.links[TO_HOST[side]].take(Instant::now()) {
                    moved = true;
                    // A host whose queue is full loses it, as hosts do.
                    let _ = host.write(&packet);
                }
            }
            let done = results.done.load(Ordering::Relaxed);
            if moved || !self.links.iter().all(Link::is_empty) || done < options.connections {
                quiet_since = Instant::now();
            }
            if done < options.connections {
                over_since = Instant::now();
            }
            // Some ends may go on asking each other for long; by then nothing new comes of it.
            if quiet_since.elapsed() > Duration::from_secs(2)
                || over_since.elapsed() > Duration::from_secs(15)
            {
                return Ok(());
            }
            if started.elapsed() > LIMIT {
                return Err(format!("only {done} connections were over after {} s", LIMIT.as_secs()));
            }
            let seconds = started.elapsed().as_secs();
            if seconds >= told + 10 {
                told = seconds;
                eprintln!("{seconds} s: {done} connections over, {} packets", self.packets);
            }
            if !moved {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// One packet into the router and, as its mirror port shows it, into the tracker.
    fn through_router(&mut self, side: Side, packet: &[u8]) -> Result<(), String> {
        let from = self.clock.tick();
        self.kernel.inject(side, packet, false);
        let held = self.clock.tick().0 - from.0;
        self.slowest = self.slowest.max(held);
        let (mut theirs, mut ours) = (Shown::default(), Shown::default());
        self.kernel.hear(&mut self.watch, &mut theirs)?;
        for number in theirs.events.iter().filter(|event| event.kind == EventKind::New).map(|event| event.n) {
            if let Some((there, back)) = flow_ids(packet) {
                self.numbers.insert(there, number);
                self.numbers.insert(back, number);
            }
        }
        let flow = flow_ids(packet).map(|(there, _)| there).unwrap_or_default();
        let number = self.numbers.get(&flow).copied();
        if let Some(number) = number {
            self.kernel.look_up(&self.watch, &[number], &mut theirs.entries)?;
        }
        let until = self.clock.tick();
        self.player.packet(from, packet, Checksum::Unknown, Fate::Forwarded, &mut ours);
        ours.entries.retain(|entry| Some(entry.n) == number);
        if until.0 - from.0 > LATE {
            // Class and events are of when the kernel had the packet; the entry was looked at later.
            self.late_packets += 1;
            theirs.entries.clear();
            ours.entries.clear();
        }
        allow_for_clocks(&mut self.player, &theirs, &mut ours, (Tick(from.0 - self.slowest), until));
        let slack = Slack { below: 0, above: 0, skip_destroy: true };
        let mut found = differences(&theirs, &ours, slack);
        self.forgive_the_dying(&mut found, &theirs, &ours);
        if held > LATE {
            // Nor is it known when the kernel had it.
            found.clear();
        }
        self.packets += 1;
        self.remember(side, packet, &flow, &found);

        let devices = self.kernel.devices();
        let mut buffer = [0; 2048];
        for (at, device) in devices.iter_mut().enumerate() {
            while let Ok(length) = device.read(&mut buffer) {
                self.links[TO_HOST[at]].send(Instant::now(), buffer.get(..length).unwrap_or_default());
            }
        }
        if self.packets.is_multiple_of(WHOLE_EVERY) {
            self.compare_all()?;
        }
        Ok(())
    }

    /// Compares the whole tables.
    fn compare_all(&mut self) -> Result<(), String> {
        let (mut theirs, mut ours) = (Shown::default(), Shown::default());
        let mut looks = 0;
        let (from, until) = loop {
            theirs.entries.clear();
            let from = self.clock.tick();
            self.kernel.look_all_up(&mut self.watch, &mut theirs.entries)?;
            let until = self.clock.tick();
            if until.0 - from.0 <= LATE {
                break (from, until);
            }
            looks += 1;
            if looks == LOOKS {
                self.late_tables += 1;
                return Ok(());
            }
        };
        theirs.entries.sort_by_key(|entry| entry.n);
        self.player.look(until, &mut ours);
        ours.events.clear();
        allow_for_clocks(&mut self.player, &theirs, &mut ours, (Tick(from.0 - self.slowest), until));
        let slack = Slack { below: 0, above: 0, skip_destroy: true };
        let mut found = differences(&theirs, &ours, slack);
        self.forgive_the_dying(&mut found, &theirs, &ours);
        self.tables += 1;
        self.most_flows = self.most_flows.max(ours.entries.len());
        if !found.is_empty() {
            self.disagreements += 1;
            println!("the whole tables, after {} packets", self.packets);
            print_differences(&found);
        }
        Ok(())
    }

    /// An entry in its last second may be gone on one side already; so may one whose timeout began later on the other.
    fn forgive_the_dying(&mut self, found: &mut Vec<Difference>, theirs: &Shown, ours: &Shown) {
        let last = (self.slowest + LATE) / u64::from(PER_SECOND);
        let dying = |shown: &Shown, place: &str| {
            let gone =
                |entry: &Entry| u64::from(entry.timeout) <= last && format!("entry {}", entry.n) == place;
            shown.entries.iter().any(gone)
        };
        let before = found.len();
        found.retain(|difference| match difference.field {
            "entry missing" => !dying(theirs, &difference.place),
            "entry too many" => !dying(ours, &difference.place),
            _ => true,
        });
        self.too_close += (before - found.len()) as u64;
    }

    fn remember(&mut self, side: Side, packet: &[u8], flow: &FlowId, found: &[Difference]) {
        let key = flow_ids(packet).map(|(there, back)| there.min(back)).unwrap_or_else(|| flow.clone());
        let past = self.past.entry(key).or_default();
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(format!("{side:?} {}", describe::packet(packet)));
        if !found.is_empty() {
            self.disagreements += 1;
            println!("packet {}:", self.packets);
            past.iter().for_each(|line| println!("  {line}"));
            print_differences(found);
        }
    }
}

fn print_differences(found: &[Difference]) {
    for difference in found {
        let what = format!("{} {}", difference.place, difference.field);
        println!("    {:<24} want {}", what.trim(), difference.kernel);
        println!("    {:<24} got  {}      <- here", "", difference.ours);
    }
}

/// Hosts also look for neighbours and routers; the wire has none.
fn is_tcp_or_icmp(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => matches!(packet.get(9), Some(1 | 6)),
        Some(6) => {
            packet.get(6) == Some(&6)
                || (packet.get(6) == Some(&58) && packet.get(40).is_some_and(|kind| *kind < 128))
        }
        _ => false,
    }
}

/// The flow of a TCP packet, there and back.
fn flow_ids(packet: &[u8]) -> Option<(FlowId, FlowId)> {
    let (proto, src, dst, ports) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet.first()? & 15) * 4;
            (packet.get(9)?, packet.get(12..16)?, packet.get(16..20)?, packet.get(header..header + 4)?)
        }
        6 => (packet.get(6)?, packet.get(8..24)?, packet.get(24..40)?, packet.get(40..44)?),
        _ => return None,
    };
    if *proto != 6 {
        return None;
    }
    let (sport, dport) = ports.split_at(2);
    Some(([src, sport, dst, dport].concat(), [dst, dport, src, sport].concat()))
}
