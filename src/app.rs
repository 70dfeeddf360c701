//! The wiring of `run`: configuration → doors → cores → EAL → ports → workers → control → wait → orderly stop.
//! Owns the order in which things come up and go down; everything else belongs to the rooms that it calls.

mod cores;
mod doors;
mod report;
mod running;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conntrack::event::Told;
use conntrack::fragment::{Distances, Meeting};
use conntrack::key::owner::{Owners, SLOTS, WorkerId};
use conntrack::policy::TooManyRules;
use conntrack::tracker::{Limits, LimitsError, Tracker};
use dpdk::eal::{self, Eal};
use dpdk::mempool::Mempool;
use dpdk::port::RSS_KEY_MAX;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind};
use tokio::sync::Notify;

use crate::bus::{ControlEnd, Stopper};
use crate::config::print::{mode_word, on_full_word, profile_word, role_word};
use crate::config::{Config, Mode, Rss, Workers};
use crate::control::schema::{Info, LastReload, PoolStats, PortInfo, PortRow, PortStats};
use crate::control::{self, Appliance, ControlError, PortDoors};
use crate::driver::dpdk::{OpenPort, Plan, PortSpec, Ports, Probed, QueuePair, preloaded};
use crate::export::{self, ExportError, Exports, Prepared};
use crate::memory::{Mapping, MemoryError, Pages};
use crate::preflight::{self, Finding, Host, Needs, Runner, Running as Taker, Status};
use crate::privileges::{self, PrivilegesError, User};
use crate::telemetry::socket::Board;
use crate::telemetry::{self, log, systemd};
use crate::worker::clock::{self, Clock};
use crate::worker::{self, Idle, Parts, Running, ThreadError, Worker, handoff, held_frames};
use crate::zones::Registry;
use cores::Cores;

pub use running::Answering;

/// How often it is looked whether a worker ended by itself.
const LOOK: Duration = Duration::from_millis(100);

/// Why the appliance does not run, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{}", sentences(.0))]
    Host(Vec<Finding>),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Dpdk(#[from] dpdk::Error),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Cores(#[from] cores::CoresError),
    #[error(transparent)]
    Thread(#[from] ThreadError),
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("the policy has {} rows and may have {}: merge some", .0.0, conntrack::policy::MAX_RULES)]
    Policy(TooManyRules),
    #[error("the table cannot be made ({0:?}): set `table.max_entries` to a number from 1 to 100,000,000")]
    Table(LimitsError),
    #[error("the kernel gives no random numbers ({0}): it is needed as a secret against crafted traffic")]
    Random(std::io::Error),
    #[error("the control thread cannot start ({0}): the machine is out of memory or file descriptors")]
    Runtime(std::io::Error),
}

/// Runs the appliance until SIGINT or SIGTERM, with a configuration that was read from `path`; as `user`, if one is
/// given, once it has what only root is given.
pub fn run(config: &Config, path: &Path, extra_eal: &[String], user: Option<&User>) -> Result<(), RunError> {
    let begun = Instant::now();
    // First of all: a signal that comes while ports and tables are made ends it as orderly as any other.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let signals = {
        let _entered = runtime.enter();
        Signals::new()?
    };
    let told = if config.export.is_off() { Told::Nothing } else { Told::Ends };
    let home = privileges::folder_to_make(&config.control.socket);
    let doors = control::claim(&config.control, user)?;
    if let Some(user) = user {
        // Who may take the socket away at the end.
        user.own([Some(config.control.socket.as_path()), home].into_iter().flatten())?;
    }
    let http = doors.http_addr();
    let specs = port_specs(config, &random()?)?;
    let mut cores = Cores::choose(config, &specs, &Host::here())?;
    let preloaded = preloaded(&specs);
    let (plan_before, mut findings) = fit(config, &specs, preloaded, &mut cores, None, &Host::here())?;
    // Words for EAL can change what is needed in ways that only EAL knows; whoever gives them is believed.
    let believed = !extra_eal.is_empty() || !config.eal.raw.is_empty();
    if !believed && preflight::worst(&findings) == Status::Fail {
        return Err(RunError::Host(findings));
    }
    findings.extend(
        doors::look(&config.control, &Runner::becoming(user))
            .into_iter()
            .filter(|found| found.status != Status::Ok),
    );
    let eal = Eal::start(&eal_config(config, &cores, &specs, &plan_before, extra_eal), log::from_dpdk)?;
    let probed = Probed::open(eal.handle(), &specs)?;
    if config.workers == Workers::Auto {
        cores.keep(usize::from(probed.workers_at_most()));
    }
    let workers = cores.workers.len() as u16;
    // For those workers that are really made.
    let plan = plan(config, &specs, preloaded, cores.workers.len());
    let Ports { ports, workers: queues, pool } = probed.start(eal.handle(), workers, &plan)?;

    let links = handoff::mesh(eal.handle(), workers)?;
    // One secret for all: they must agree on each flow's owner.
    let hash_key = words(&random()?);
    let shares = shares(config, cores.workers.len());
    let table_bytes = needs(config, &cores, &specs, &plan)?.table_bytes;
    report::print(config, &cores, &findings, &ports, table_bytes, http);
    let (mut ends, mut ready, mut pages) = (Vec::new(), Vec::new(), Pages::Huge);
    // Tunnels are told apart by a secret of their own.
    let zones = Registry::new(config, usize::from(workers), words(&random()?));
    let meeting = meeting(&ports);
    let waits = waiters(&meeting, &queues);
    let waiters = waits.iter().filter(|&&waits| waits).count();
    for (number, (queues, links)) in queues.into_iter().zip(links).enumerate() {
        let core = cores.workers.get(number).copied();
        let max_datagrams = datagrams_of(config.table.max_datagrams, waiters, waits[number]);
        let (max_entries, owners) = part(config, &shares, number);
        let limits = Limits { max_entries, max_datagrams, hash_key };
        let meeting = meeting.clone();
        let (mut tracker, on) = worker::on_core(core, || tracker(config, limits, owners, meeting))?;
        tracker.join(zones.member(number));
        let (end, bus) = crate::bus::pair();
        let with_peers = queues.into_iter().zip(&config.ports);
        let worker = Worker::new(Parts {
            ports: with_peers.map(|(queues, port)| worker::Port { queues, peer: port.peer }).collect(),
            links,
            tracker,
            max_datagrams,
            budget: config.expiry.budget(),
            idle: match config.worker.idle {
                crate::config::Idle::Poll => Idle::Poll,
                crate::config::Idle::Sleep => Idle::Sleep,
            },
            clock: Clock::new(clock::read(), eal.handle().cycles_per_second()),
            bus,
        });
        ready.push(worker.telling(told));
        ends.push(end);
        if on == Pages::Plain {
            pages = on;
        }
    }
    report::pages(pages);

    let board = Arc::new(Board::default());
    let _told = telemetry::socket::register(eal.handle(), &board)?;
    // Workers and control begin with what is left here.
    let drivers = ports.iter().map(|port| port.info().driver.as_str());
    privileges::give_up(user, privileges::needed_by(drivers))?;
    // With no more rights than later, so that what a rotation would meet is met now.
    let exports = Prepared::open(&config.export)?;
    let mut crew = Crew::default();
    for (number, (worker, end)) in ready.into_iter().zip(&ends).enumerate() {
        let core = cores.workers.get(number).copied();
        let running = worker::start(number, Box::new(worker), core, eal.handle().clone())?;
        crew.join(running, end.stopper());
    }
    report::ready(begun);
    let seen = Seen { ports, pool, zones, ends, board, exports: exports.start()? };
    let served = serve(config, path, seen, doors, &crew.running, (runtime, signals));

    tracing::info!("stopping");
    systemd::stopping();
    crew.end()?;
    served
}

/// The workers at work. However the appliance ends, none of them outlives it: EAL must not go while they use it.
#[derive(Debug, Default)]
struct Crew {
    running: Vec<Running>,
    stoppers: Vec<Stopper>,
}

impl Crew {
    fn join(&mut self, worker: Running, stopper: Stopper) {
        self.running.push(worker);
        self.stoppers.push(stopper);
    }

    /// Stops all and waits for each; the first complaint is told.
    fn end(&mut self) -> Result<(), ThreadError> {
        self.stoppers.iter().for_each(Stopper::stop);
        let mut first = Ok(());
        for worker in self.running.drain(..) {
            first = first.and(worker.join());
        }
        first
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Whatever brings us here is told already.
        let _ = self.end();
    }
}

/// Looks at the host as [`run`] would, and beyond that at what lasts; starts nothing. `answering` is who has the control
/// socket, if somebody does.
pub fn doctor(config: &Config, answering: Option<&Answering>) -> Result<Vec<Finding>, RunError> {
    let host = Host::here();
    let specs = port_specs(config, &random()?)?;
    let (taker, said) = answering.map(|answering| running::look(config, &specs, answering, &host)).unzip();
    let mut findings = Vec::from_iter(said);
    let mut cores = Cores::choose(config, &specs, &host)?;
    let (plan, found) = fit(config, &specs, preloaded(&specs), &mut cores, taker.as_ref(), &host)?;
    findings.extend(found);
    findings.extend(preflight::check_lasting(&host, &needs(config, &cores, &specs, &plan)?));
    let runner = Runner::find(taker.as_ref());
    findings.extend(export::doctor::look(&config.export, &runner));
    if answering.is_none() {
        findings.extend(doors::look_at_tcp(&config.control));
    }
    findings.extend(doors::look(&config.control, &runner));
    Ok(findings)
}

/// What is needed, and what the host says to it. How many queues a card has is known only once DPDK runs, so `auto` may
/// begin with more workers than there will be: memory that is not there for so many is no reason not to start with fewer.
fn fit(
    config: &Config,
    specs: &[PortSpec],
    preloaded: u32,
    cores: &mut Cores,
    taker: Option<&Taker>,
    host: &Host,
) -> Result<(Plan, Vec<Finding>), RunError> {
    let look = |cores: &Cores| -> Result<_, RunError> {
        let plan = plan(config, specs, preloaded, cores.workers.len());
        let needs = Needs { running: taker.cloned(), ..needs(config, cores, specs, &plan)? };
        let findings = preflight::check(host, &needs);
        Ok((plan, findings))
    };
    let wished = look(cores)?;
    if config.workers != Workers::Auto || preflight::worst(&wished.1) != Status::Fail {
        return Ok(wished);
    }
    let mut fewer = cores.clone();
    for count in (1..cores.workers.len()).rev() {
        fewer.keep(count);
        let (plan, mut findings) = look(&fewer)?;
        if preflight::worst(&findings) != Status::Fail {
            findings.push(preflight::fewer_workers(count, cores.workers.len()));
            *cores = fewer;
            return Ok((plan, findings));
        }
    }
    Ok(wished)
}

/// What must be mended, a line each.
fn sentences(findings: &[Finding]) -> String {
    let failed = findings.iter().filter(|finding| finding.status == Status::Fail);
    failed.map(|finding| format!("{}: {}", finding.what, finding.sentence)).collect::<Vec<_>>().join("\n")
}

fn plan(config: &Config, specs: &[PortSpec], preloaded: u32, workers: usize) -> Plan {
    let held: u32 =
        (0..workers).map(|worker| held_frames(datagrams_at_most(config.table.max_datagrams, worker))).sum();
    Plan::new(specs, workers as u16, held + handoff::frames(workers as u16) + preloaded)
}

fn needs(config: &Config, cores: &Cores, specs: &[PortSpec], plan: &Plan) -> Result<Needs, RunError> {
    let shares = shares(config, cores.workers.len());
    let mut table_bytes = 0;
    for worker in 0..shares.len() {
        let max_datagrams = datagrams_at_most(config.table.max_datagrams, worker);
        let limits = Limits { max_entries: part(config, &shares, worker).0, max_datagrams, hash_key: [0; 4] };
        table_bytes += Tracker::memory_bytes(&limits).map_err(RunError::Table)?;
    }
    Ok(Needs {
        hugepages: config.eal.hugepages,
        dpdk_mib: config.eal.memory_mib.unwrap_or(plan.mib(config.eal.hugepages)),
        table_bytes,
        devices: specs.iter().map(|spec| (spec.name.clone(), spec.device.clone())).collect(),
        worker_cpus: cores.workers.clone(),
        workers_rest: config.worker.idle == crate::config::Idle::Sleep,
        control_cpus: cores.control.clone(),
        running: None,
    })
}

/// How the flows are divided over the workers.
fn shares(config: &Config, workers: usize) -> Vec<u16> {
    config.worker.shares.clone().filter(|shares| shares.len() == workers).unwrap_or_else(|| vec![1; workers])
}

/// How many flows one of the workers may hold, and which it owns. The limit is the appliance's, divided as the flows are:
/// the hash fills the parts evenly.
fn part(config: &Config, shares: &[u16], worker: usize) -> (u32, Owners) {
    let me = WorkerId(worker as u8);
    let owners = Owners::shared(shares, me).unwrap_or(Owners::alone());
    let part = (u64::from(config.table.max_entries) * owners.slots_of(me) as u64).div_ceil(SLOTS as u64);
    ((part as u32).max(1), owners)
}

/// Datagrams that one of the workers puts together at once, where so many of them wait for fragments. Which one that is has
/// nothing to do with whose the flow is; each has some room, so that a few long ones do not push each other out. One that
/// waits for none puts together what others have found whole.
fn datagrams_of(all: u16, waiters: usize, waits: bool) -> u16 {
    let some = all.min(64);
    if waits { all.div_ceil(waiters.max(1) as u16).max(some) } else { some }
}

/// The same, so that the workers have room for it together, before it is known which of them wait.
fn datagrams_at_most(all: u16, worker: usize) -> u16 {
    datagrams_of(all, 1, worker == 0)
}

/// By worker, whether it waits for fragments. Where they meet as they enter, only those do that receive.
fn waiters(meeting: &Meeting, queues: &[Vec<QueuePair>]) -> Vec<bool> {
    let receives = |pairs: &Vec<QueuePair>| pairs.iter().any(|pair| pair.ingress.has_queue());
    queues.iter().map(|pairs| matches!(meeting, Meeting::Owner(_)) || receives(pairs)).collect()
}

/// Random bytes of the kernel.
fn random() -> Result<[u8; RSS_KEY_MAX], RunError> {
    let mut bytes = [0_u8; RSS_KEY_MAX];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| RunError::Random(error.into()))?;
    Ok(bytes)
}

fn words(bytes: &[u8; RSS_KEY_MAX]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// What control sees of the rest.
struct Seen {
    ports: Vec<OpenPort>,
    pool: Mempool,
    zones: Registry,
    ends: Vec<ControlEnd>,
    /// For DPDK's telemetry socket.
    board: Arc<Board>,
    exports: Exports,
}

/// Answers operators until a signal comes, or a worker ends.
fn serve(
    config: &Config,
    path: &Path,
    seen: Seen,
    doors: control::Claimed,
    workers: &[Running],
    (runtime, signals): (Runtime, Signals),
) -> Result<(), RunError> {
    let Seen { ports, pool, zones, ends, board, exports } = seen;
    let ports = Arc::new(ports);
    let hangup = Arc::new(Notify::new());
    let appliance = Appliance {
        info: info(config, &shares(config, workers.len()), &ports),
        config: config.clone(),
        // Whatever the working directory will be then.
        config_path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        hangup: Arc::clone(&hangup),
        zones,
        board,
        exports,
        ports: port_doors(config, &ports),
        pool_stats: Box::new(move || vec![pool_stats(&pool)]),
        read_clocks: || {
            let reading = clock::read();
            (reading.tsc, reading.boot_ns)
        },
        boot_unix_ms: clock::boot_unix_ms,
    };
    let served = runtime.block_on(async {
        let Signals { mut interrupt, mut terminate, mut hangups } = signals;
        let until = async {
            let mut look = tokio::time::interval(LOOK);
            loop {
                tokio::select! {
                    _ = interrupt.recv() => return,
                    _ = terminate.recv() => return,
                    _ = hangups.recv() => hangup.notify_one(),
                    _ = look.tick() => if workers.iter().any(Running::is_finished) { return },
                }
            }
        };
        Ok(control::serve(doors, appliance, ends, until).await?)
    });
    // A read from a disk that does not answer may be under way: the end waits for none of that.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// Those that mean something to the appliance, from now on.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangups: Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let of = |kind| tokio::signal::unix::signal(kind).map_err(RunError::Runtime);
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hangups: of(SignalKind::hangup())?,
        })
    }
}

/// The key of Woo and Park: the hash of both directions is the same, and depends on the exclusive or of the tuple's
/// words alone.
const SYMMETRIC_TOEPLITZ: [u8; 2] = [0x6d, 0x5a];

fn port_specs(config: &Config, random: &[u8; RSS_KEY_MAX]) -> Result<Vec<PortSpec>, RunError> {
    let rss_key = match config.rss {
        Rss::Random => *random,
        Rss::SymmetricToeplitzWeak => std::array::from_fn(|at| SYMMETRIC_TOEPLITZ[at % 2]),
    };
    let spec = |(number, port): (usize, &crate::config::Port)| {
        Ok(PortSpec {
            name: port.name.clone(),
            device: port.device.argument().parse()?,
            role: port.role,
            zone: config.port_zone(number),
            mtu: port.mtu,
            promiscuous: port.promiscuous,
            mirror: config.mode == Mode::Mirror,
            queues: port.queues,
            rss_key: Some(rss_key),
        })
    };
    config.ports.iter().enumerate().map(spec).collect()
}

fn eal_config(
    config: &Config,
    cores: &Cores,
    specs: &[PortSpec],
    plan: &Plan,
    extra: &[String],
) -> eal::Config {
    eal::Config {
        control_cpus: cores.control.clone(),
        memory_mib: config.eal.memory_mib.unwrap_or(plan.mib(config.eal.hugepages)),
        hugepages: config.eal.hugepages,
        telemetry: config.eal.telemetry,
        devices: specs.iter().map(|spec| spec.device.clone()).collect(),
        extra: config.eal.raw.iter().chain(extra).cloned().collect(),
    }
}

/// Where fragments meet. With one pair of ports, a queue on each, all that belong together come by one queue, and so does
/// all else of their flow: put together there, a datagram stays between the packets that it came between. Cards that have
/// several queues bring a flow's fragments and its whole packets by different ones, and nobody knows their order.
fn meeting(ports: &[OpenPort]) -> Meeting {
    if ports.len() <= 2 && ports.iter().all(|port| port.rx_queues() == 1) {
        Meeting::Entry
    } else {
        Meeting::Owner(Distances::new())
    }
}

/// A worker's tracker and what its table lies on.
fn tracker(
    config: &Config,
    limits: Limits,
    owners: Owners,
    meeting: Meeting,
) -> Result<(Tracker, Pages), RunError> {
    let policy = config.tracker_policy().map_err(RunError::Policy)?;
    let mapping =
        Mapping::new(Tracker::memory_bytes(&limits).map_err(RunError::Table)?, config.eal.hugepages)?;
    let pages = mapping.pages();
    let tracker = Tracker::new(limits, config.settings, policy, config.table.on_full, mapping.into_memory())
        .map_err(RunError::Table)?
        .among(owners, meeting);
    // What tunnels carry cannot be read without its bytes.
    let notes = config.mode == Mode::Mirror && !config.tunnel_inner;
    let tracker = if notes { tracker.without_payloads() } else { tracker };
    Ok((tracker, pages))
}

fn info(config: &Config, shares: &[u16], ports: &[OpenPort]) -> Info {
    let entries = |worker| {
        let (max_entries, owners) = part(config, shares, worker);
        if owners.slots_of(WorkerId(worker as u8)) == 0 { 0 } else { u64::from(max_entries) }
    };
    Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: crate::REVISION.to_owned(),
        dpdk: eal::version(),
        profile: profile_word(config.settings.profile).to_owned(),
        mode: mode_word(config.mode).to_owned(),
        pid: std::process::id(),
        boot_unix_ms: 0,
        uptime_secs: 0,
        workers: shares.len() as u32,
        table_max_entries: (0..shares.len()).map(entries).sum(),
        table_on_full: on_full_word(config.table.on_full).to_owned(),
        ports: port_infos(config, ports),
        last_reload: LastReload::default(),
    }
}

fn port_infos(config: &Config, ports: &[OpenPort]) -> Vec<PortInfo> {
    let name = |index: usize| config.ports.get(index).map(|port| port.name.clone());
    let about = config.ports.iter().zip(ports).map(|(port, open)| PortInfo {
        name: port.name.clone(),
        device: port.device.argument().to_owned(),
        driver: open.info().driver.clone(),
        role: role_word(port.role).to_owned(),
        peer: port.peer.and_then(name),
    });
    about.collect()
}

/// What control may do to ports.
fn port_doors(config: &Config, ports: &Arc<Vec<OpenPort>>) -> PortDoors {
    let infos = port_infos(config, ports);
    let of = |change: fn(&OpenPort) -> Result<(), dpdk::Error>| {
        let ports = Arc::clone(ports);
        move |port: usize| ports.get(port).map_or(Ok(()), change).map_err(|error| error.to_string())
    };
    let all = Arc::clone(ports);
    let rows = move |xstats: bool| {
        all.iter().zip(&infos).map(|(port, info)| port_row(port, info.clone(), xstats)).collect()
    };
    PortDoors::new(Box::new(rows), Box::new(of(OpenPort::halt)), Box::new(of(OpenPort::resume)))
}

fn port_row(port: &OpenPort, info: PortInfo, xstats: bool) -> PortRow {
    let link = port.link();
    let mac: Vec<String> = port.info().mac.iter().map(|byte| format!("{byte:02x}")).collect();
    PortRow {
        info,
        running: !port.is_halted(),
        mbps: link.mbps,
        full_duplex: link.full_duplex,
        mac: mac.join(":"),
        mtu: port.spec().mtu,
        promiscuous: port.spec().promiscuous,
        stats: port_stats(port),
        xstats: if xstats { port.xstats().into_iter().collect() } else { BTreeMap::new() },
    }
}

fn pool_stats(pool: &Mempool) -> PoolStats {
    let objects = u64::from(pool.mbufs());
    PoolStats {
        name: pool.name().to_owned(),
        objects,
        available: objects.saturating_sub(u64::from(pool.in_use())),
    }
}

fn port_stats(port: &OpenPort) -> PortStats {
    let stats = port.stats();
    PortStats {
        name: port.spec().name.clone(),
        up: port.link_up(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_datagrams_divides_them_and_no_division_needs_more_than_was_planned() {
        assert_eq!((datagrams_of(1024, 2, true), datagrams_of(1024, 2, false)), (512, 64));
        assert_eq!((datagrams_of(1024, 64, true), datagrams_of(5, 2, true)), (64, 5));
        for all in [1, 5, 64, 100, 1024, 32_768] {
            for workers in 1..=64 {
                let planned: u32 =
                    (0..workers).map(|worker| held_frames(datagrams_at_most(all, worker))).sum();
                for waiters in 1..=workers {
                    let taken: u32 = (0..workers)
                        .map(|worker| held_frames(datagrams_of(all, waiters, worker < waiters)))
                        .sum();
                    assert!(taken <= planned, "{waiters} of {workers} wait for {all}: {taken} > {planned}");
                }
            }
        }
    }
}
