//! Workers on real ports that turn when the test says so, and the page of metrics that control would make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use conntrack::fragment::{Distances, Meeting};
use conntrack::key::owner::{Owners, WorkerId};
use conntrack::policy::{Policy, Role};
use conntrack::table::memory::Memory;
use conntrack::track::settings::{Profile, Settings};
use conntrack::tracker::{ExpireBudget, Limits, OnFull, Tracker};
use dpdk::eal::Handle;
use dpdk::port::Stats;
use dpdk_conntrack::bus::command::{Command, Ticket};
use dpdk_conntrack::bus::{self, ControlEnd};
use dpdk_conntrack::config::Config;
use dpdk_conntrack::control::schema::{Info, LastReload, PoolStats, PortInfo, PortStats};
use dpdk_conntrack::control::stats::{Observed, stats};
use dpdk_conntrack::driver::dpdk::{Plan, PortSpec, Ports};
use dpdk_conntrack::telemetry::prometheus::{Sources, text};
use dpdk_conntrack::worker::clock::{self, Clock};
use dpdk_conntrack::worker::{Idle, Parts, Port, Worker, handoff, held_frames};
use dpdk_conntrack::zones::Registry;

use crate::support::write_pcap;

/// The values that each series has had. A series is known by its name and by those of its labels that say what is
/// counted, not where.
#[derive(Default)]
pub(crate) struct Seen(pub(crate) BTreeMap<String, BTreeSet<String>>);

impl Seen {
    /// Takes a page in.
    pub(crate) fn add(&mut self, page: &str) {
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let where_ = |pair: &&str| {
                !["worker=", "port=", "pool=", "zone=", "le=", "device=", "driver="]
                    .iter()
                    .any(|label| pair.starts_with(label))
            };
            let labels: Vec<_> = labels.trim_end_matches('}').split(',').filter(where_).collect();
            self.0.entry(format!("{name}{{{}}}", labels.join(","))).or_default().insert(value.to_owned());
        }
    }

    /// The series that had one value all the time.
    pub(crate) fn still(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, values)| values.len() < 2).map(|(series, _)| series.as_str()).collect()
    }
}

/// Where what leaves outside goes.
#[derive(Default)]
pub(crate) enum Way {
    #[default]
    IntoAFile,
    /// By a device that can be stopped.
    Nowhere,
    /// To an interface of this machine, made with this name.
    Interface(String),
}

/// What a bench is made with.
pub(crate) struct Setup {
    /// What each side sends.
    pub(crate) inside: Vec<Vec<u8>>,
    pub(crate) outside: Vec<Vec<u8>>,
    pub(crate) profile: Profile,
    pub(crate) workers: u8,
    pub(crate) max_entries: u32,
    pub(crate) max_datagrams: u16,
    /// Those that the worker, and not the tracker, has room for.
    pub(crate) held_datagrams: u16,
    pub(crate) on_full: OnFull,
    pub(crate) policy: Policy,
    /// More of the configuration, for its zones.
    pub(crate) more: &'static str,
    pub(crate) way: Way,
    /// A second passes with each turn.
    pub(crate) hurried: bool,
    /// Flows that expiry looks at in a turn.
    pub(crate) budget: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            inside: Vec::new(),
            outside: Vec::new(),
            profile: Profile::Linux,
            workers: 1,
            max_entries: 4096,
            max_datagrams: 64,
            held_datagrams: 64,
            on_full: OnFull::EarlyDrop,
            policy: Policy::ACCEPT_ALL,
            more: "",
            way: Way::default(),
            hurried: false,
            budget: 64,
        }
    }
}

pub(crate) struct Bench {
    pub(crate) workers: Vec<Worker>,
    pub(crate) ends: Vec<ControlEnd>,
    pub(crate) ports: Ports,
    pub(crate) zones: Registry,
    settings: Settings,
    classic: bool,
    limit: u64,
    seen: Vec<Observed>,
    /// In the place of the first port's own.
    pub(crate) first_port: Option<Stats>,
}

impl Bench {
    pub(crate) fn new(eal: &Handle, dir: &Path, number: usize, setup: Setup) -> Self {
        let spec = |name: &str, side: usize, frames: &[Vec<u8>], role| {
            let (from, device) = (dir.join(format!("{number}-{name}.pcap")), 2 * number + side);
            write_pcap(&from, frames);
            let device = match &setup.way {
                Way::Nowhere if side == 1 => format!("net_null{device},no-rx=1"),
                Way::Interface(name) if side == 1 => format!("net_tap{device},iface={name}"),
                _ => format!("net_pcap{device},rx_pcap={},tx_pcap=/dev/null", from.display()),
            };
            PortSpec {
                name: name.into(),
                device: device.parse().unwrap(),
                role,
                zone: 0,
                mtu: 1500,
                promiscuous: true,
                mirror: false,
                queues: Some(1),
                rss_key: None,
            }
        };
        let specs =
            [spec("in", 0, &setup.inside, Role::Inside), spec("out", 1, &setup.outside, Role::Outside)];
        let count = u16::from(setup.workers);
        let held = u32::from(count) * held_frames(setup.max_datagrams) + handoff::frames(count);
        let mut plan = Plan::new(&specs, count, held);
        plan.pool.name += &number.to_string();
        let mut ports = Ports::open(eal, &specs, count, &plan).unwrap();

        let text = "[[port]]\nname = \"in\"\ndevice = \"net_null0\"\nrole = \"inside\"\n\
                    [[port]]\nname = \"out\"\ndevice = \"net_null1\"\nrole = \"outside\"\n";
        let config =
            Config::parse(&format!("{}\n{text}", setup.more)).unwrap_or_else(|error| panic!("{error}"));
        let zones = Registry::new(&config, usize::from(count), [5, 6, 7, 8]);
        let limits = Limits {
            max_entries: setup.max_entries,
            max_datagrams: setup.max_datagrams,
            hash_key: [1, 2, 3, 4],
        };
        let settings = Settings::new(setup.profile);
        let (mut ends, mut workers) = (Vec::new(), Vec::new());
        let links = handoff::mesh(eal, count).unwrap();
        let distances = Distances::new();
        let hz = eal.cycles_per_second() / if setup.hurried { 1_000_000 } else { 1 };
        for ((pairs, links), me) in ports.workers.drain(..).zip(links).zip(0..) {
            let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
            let mut tracker = Tracker::new(limits, settings, setup.policy, setup.on_full, memory).unwrap();
            tracker.join(zones.member(usize::from(me)));
            let owners = Owners::shared(&vec![1; usize::from(setup.workers)], WorkerId(me)).unwrap();
            let (end, bus) = bus::pair();
            workers.push(Worker::new(Parts {
                ports: pairs
                    .into_iter()
                    .zip([1, 0])
                    .map(|(queues, peer)| Port { queues, peer: Some(peer) })
                    .collect(),
                links,
                tracker: tracker.among(owners, Meeting::Owner(distances.clone())),
                max_datagrams: setup.held_datagrams,
                budget: ExpireBudget { flows: setup.budget },
                idle: Idle::Poll,
                clock: Clock::new(clock::read(), hz),
                bus,
            }));
            ends.push(end);
        }
        let seen = vec![Observed::default(); usize::from(count)];
        Self {
            workers,
            ends,
            ports,
            zones,
            settings,
            classic: setup.profile == Profile::Classic,
            limit: u64::from(setup.max_entries),
            seen,
            first_port: None,
        }
    }

    /// So many turns of every worker.
    pub(crate) fn turn(&mut self, turns: usize) {
        for _ in 0..turns {
            self.workers.iter_mut().for_each(Worker::turn);
        }
    }

    /// Has one worker serve a command; nobody else turns.
    pub(crate) fn ask(&mut self, worker: usize, command: Command) -> Command {
        self.ends[worker].send(Ticket { number: 1, command }).unwrap();
        for _ in 0..100_000 {
            self.workers[worker].turn();
            if let Some(ticket) = self.ends[worker].next_answer() {
                return ticket.command;
            }
        }
        panic!("no answer within 100,000 turns");
    }

    /// Asks `worker` for its numbers, as control does before it makes a page.
    pub(crate) fn observe(&mut self, worker: usize) {
        let Command::Snapshot(snapshot) = self.ask(worker, Command::Snapshot(Box::default())) else {
            panic!()
        };
        self.seen[worker] = Observed { snapshot: *snapshot, responding: true };
    }

    /// The page as it would be scraped, with what was observed so far.
    pub(crate) fn page(&self) -> String {
        let names = ["in", "out"];
        let port = |(at, name): (usize, &str)| {
            let port = &self.ports.ports[at];
            let stats = self.first_port.filter(|_| at == 0).unwrap_or_else(|| port.stats());
            port_stats(name, port.link_up(), &stats)
        };
        let ports = names.into_iter().enumerate().map(port).collect();
        let (objects, in_use) = (u64::from(self.ports.pool.mbufs()), u64::from(self.ports.pool.in_use()));
        let pools = vec![PoolStats { name: "frames".into(), objects, available: objects - in_use }];
        let stats = stats(&self.seen, ports, pools, self.zones.series(), self.limit, self.classic);
        let about = |name: &str| PortInfo {
            name: name.into(),
            device: "net_pcap0".into(),
            driver: "net_pcap".into(),
            role: "inside".into(),
            peer: None,
        };
        let info = Info {
            version: "0.1.0".into(),
            revision: "unknown".into(),
            dpdk: dpdk::eal::version(),
            profile: "linux".into(),
            mode: "inline".into(),
            pid: std::process::id(),
            boot_unix_ms: 0,
            uptime_secs: 0,
            workers: self.workers.len() as u32,
            table_max_entries: self.limit,
            table_on_full: "early_drop".into(),
            last_reload: LastReload::default(),
            ports: names.map(about).into(),
        };
        text(Sources { info: &info, stats: &stats, timeouts: &self.settings.timeouts, node_compat: true })
            .unwrap()
    }

    /// Every worker's numbers, as a page.
    pub(crate) fn scrape(&mut self, seen: &mut Seen) {
        (0..self.workers.len()).for_each(|worker| self.observe(worker));
        seen.add(&self.page());
    }
}

fn port_stats(name: &str, up: Option<bool>, stats: &Stats) -> PortStats {
    PortStats {
        name: name.into(),
        up,
        rx_packets: stats.rx_packets,
        rx_bytes: stats.rx_bytes,
        rx_missed: stats.rx_missed,
        rx_errors: stats.rx_errors,
        rx_nombuf: stats.rx_nombuf,
        tx_packets: stats.tx_packets,
        tx_bytes: stats.tx_bytes,
        tx_errors: stats.tx_errors,
    }
}
