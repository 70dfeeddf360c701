//! The wiring of `run`: configuration → doors → cores → EAL → ports → workers → control → wait → orderly stop.
//! Owns the order in which things come up and go down; everything else belongs to the rooms that it calls.

mod cores;
mod report;

use std::sync::Arc;
use std::time::{Duration, Instant};

use conntrack::policy::{Policy, TooManyRules};
use conntrack::tracker::{Limits, LimitsError, Tracker};
use dpdk::eal::{self, Eal};

use crate::bus::ControlEnd;
use crate::config::print::{mode_word, on_full_word, profile_word, role_word};
use crate::config::{Config, Mode};
use crate::control::schema::{Info, PortInfo, PortStats};
use crate::control::{self, Appliance, ControlError};
use crate::driver::dpdk::{OpenPort, Plan, PortSpec, Ports};
use crate::memory::{Mapping, MemoryError, Pages};
use crate::preflight::{self, Finding, Host, Needs, Status};
use crate::telemetry::log;
use crate::worker::clock::{self, Clock};
use crate::worker::{self, Idle, Parts, Running, ThreadError, Worker, held_frames};
use cores::Cores;

/// Workers of this appliance. The queues, the bus and the numbers are made for any number of them.
const WORKERS: u16 = 1;

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
    #[error("the policy has {} rows and may have {}: merge some", .0.0, conntrack::policy::MAX_RULES)]
    Policy(TooManyRules),
    #[error("the table cannot be made ({0:?}): set `table.max_entries` to a number from 1 to 100,000,000")]
    Table(LimitsError),
    #[error("the kernel gives no random numbers ({0}): it is needed as a secret against crafted traffic")]
    Random(std::io::Error),
    #[error("the control thread cannot start ({0}): the machine is out of memory or file descriptors")]
    Runtime(std::io::Error),
}

/// Runs the appliance until SIGINT or SIGTERM.
pub fn run(config: &Config, extra_eal: &[String]) -> Result<(), RunError> {
    let begun = Instant::now();
    let doors = control::claim(&config.control.socket, config.control.http)?;
    let http = doors.http_addr();
    let cores = Cores::choose(config)?;
    let specs = port_specs(config)?;
    let plan = plan(config, &specs);
    let findings = preflight::check(&Host::here(), &needs(config, &cores, &specs, &plan)?);
    // Words for EAL can change what is needed in ways that only EAL knows; whoever gives them is believed.
    let believed = !extra_eal.is_empty() || !config.eal.raw.is_empty();
    if !believed && preflight::worst(&findings) == Status::Fail {
        return Err(RunError::Host(findings));
    }
    let eal = Eal::start(&eal_config(config, &cores, &specs, &plan, extra_eal), log::from_dpdk)?;
    let Ports { ports, workers: queues, pool: _ } = Ports::open(eal.handle(), &specs, WORKERS, &plan)?;

    let (mut ends, mut ready, mut pages) = (Vec::new(), Vec::new(), Pages::Huge);
    for queues in queues {
        let (tracker, on) = tracker(config)?;
        let (end, bus) = crate::bus::pair();
        let with_peers = queues.into_iter().zip(&config.ports);
        ready.push(Worker::new(Parts {
            ports: with_peers.map(|(queues, port)| worker::Port { queues, peer: port.peer }).collect(),
            tracker,
            max_datagrams: config.table.max_datagrams,
            budget: config.expiry.budget(),
            idle: match config.worker.idle {
                crate::config::Idle::Poll => Idle::Poll,
                crate::config::Idle::Sleep => Idle::Sleep,
            },
            clock: Clock::new(clock::read(), eal.handle().cycles_per_second()),
            bus,
        }));
        ends.push(end);
        pages = on;
    }
    report::print(config, &cores, &findings, &ports, pages, http);

    let stoppers: Vec<_> = ends.iter().map(ControlEnd::stopper).collect();
    let mut running = Vec::new();
    for (number, worker) in ready.into_iter().enumerate() {
        running.push(worker::start(number, Box::new(worker), Some(cores.worker), eal.handle().clone())?);
    }
    report::ready(begun);
    let served = serve(config, ports, ends, doors, &running);

    tracing::info!("stopping");
    stoppers.iter().for_each(|stopper| stopper.stop());
    for worker in running {
        worker.join()?;
    }
    served
}

/// Looks at the host as [`run`] would, and starts nothing.
pub fn doctor(config: &Config) -> Result<Vec<Finding>, RunError> {
    let cores = Cores::choose(config)?;
    let specs = port_specs(config)?;
    let plan = plan(config, &specs);
    Ok(preflight::check(&Host::here(), &needs(config, &cores, &specs, &plan)?))
}

/// What must be mended, a line each.
fn sentences(findings: &[Finding]) -> String {
    let failed = findings.iter().filter(|finding| finding.status == Status::Fail);
    failed.map(|finding| format!("{}: {}", finding.what, finding.sentence)).collect::<Vec<_>>().join("\n")
}

fn plan(config: &Config, specs: &[PortSpec]) -> Plan {
    Plan::new(specs, WORKERS, u32::from(WORKERS) * held_frames(config.table.max_datagrams))
}

fn needs(config: &Config, cores: &Cores, specs: &[PortSpec], plan: &Plan) -> Result<Needs, RunError> {
    let table = Tracker::memory_bytes(&limits(config, [0; 4])).map_err(RunError::Table)?;
    Ok(Needs {
        hugepages: config.eal.hugepages,
        dpdk_mib: config.eal.memory_mib.unwrap_or(plan.memory_mib),
        table_bytes: usize::from(WORKERS) * table,
        devices: specs.iter().map(|spec| (spec.name.clone(), spec.device.clone())).collect(),
        worker_cpus: vec![cores.worker],
        control_cpus: cores.control.clone(),
    })
}

fn limits(config: &Config, hash_key: [u64; 4]) -> Limits {
    Limits { max_entries: config.table.max_entries, max_datagrams: config.table.max_datagrams, hash_key }
}

/// Answers operators until a signal comes, or a worker ends.
fn serve(
    config: &Config,
    ports: Vec<OpenPort>,
    ends: Vec<ControlEnd>,
    doors: control::Claimed,
    workers: &[Running],
) -> Result<(), RunError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let ports = Arc::new(ports);
    let appliance = Appliance {
        info: info(config, &ports),
        config: config.clone(),
        workers: ends,
        port_stats: Box::new(move || ports.iter().map(port_stats).collect()),
        read_clocks: || {
            let reading = clock::read();
            (reading.tsc, reading.boot_ns)
        },
        boot_unix_ms: clock::boot_unix_ms(),
    };
    runtime.block_on(async {
        let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
        let until = async {
            let mut look = tokio::time::interval(LOOK);
            loop {
                tokio::select! {
                    _ = interrupt.recv() => return,
                    _ = terminate.recv() => return,
                    _ = look.tick() => if workers.iter().any(Running::is_finished) { return },
                }
            }
        };
        Ok(control::serve(doors, appliance, until).await?)
    })
}

fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, RunError> {
    tokio::signal::unix::signal(kind).map_err(RunError::Runtime)
}

fn port_specs(config: &Config) -> Result<Vec<PortSpec>, RunError> {
    let spec = |port: &crate::config::Port| {
        Ok(PortSpec {
            name: port.name.clone(),
            device: port.device.argument().parse()?,
            role: port.role,
            zone: 0,
            mtu: 1500,
            promiscuous: true,
            mirror: config.mode == Mode::Mirror,
        })
    };
    config.ports.iter().map(spec).collect()
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
        memory_mib: config.eal.memory_mib.unwrap_or(plan.memory_mib),
        hugepages: config.eal.hugepages,
        devices: specs.iter().map(|spec| spec.device.clone()).collect(),
        extra: config.eal.raw.iter().chain(extra).cloned().collect(),
        ..eal::Config::default()
    }
}

/// A worker's tracker and what its table lies on.
fn tracker(config: &Config) -> Result<(Tracker, Pages), RunError> {
    let mut key = [0_u8; 32];
    rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| RunError::Random(error.into()))?;
    let mut hash_key = [0; 4];
    for (word, bytes) in hash_key.iter_mut().zip(key.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    let limits = limits(config, hash_key);
    let policy = match config.mode {
        Mode::Mirror => Policy::ACCEPT_ALL,
        Mode::Inline => {
            Policy::new(&config.policy.rules, config.policy.otherwise).map_err(RunError::Policy)?
        }
    };
    let mapping =
        Mapping::new(Tracker::memory_bytes(&limits).map_err(RunError::Table)?, config.eal.hugepages)?;
    let pages = mapping.pages();
    let tracker = Tracker::new(limits, config.settings, policy, config.table.on_full, mapping.into_memory())
        .map_err(RunError::Table)?;
    Ok((tracker, pages))
}

fn info(config: &Config, ports: &[OpenPort]) -> Info {
    let name = |index: usize| config.ports.get(index).map(|port| port.name.clone());
    let about = config.ports.iter().zip(ports).map(|(port, open)| PortInfo {
        name: port.name.clone(),
        device: port.device.argument().to_owned(),
        driver: open.info().driver.clone(),
        role: role_word(port.role).to_owned(),
        peer: port.peer.and_then(name),
    });
    Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        dpdk: eal::version(),
        profile: profile_word(config.settings.profile).to_owned(),
        mode: mode_word(config.mode).to_owned(),
        pid: std::process::id(),
        boot_unix_ms: 0,
        uptime_secs: 0,
        workers: u32::from(WORKERS),
        table_max_entries: u64::from(WORKERS) * u64::from(config.table.max_entries),
        table_on_full: on_full_word(config.table.on_full).to_owned(),
        ports: about.collect(),
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
