//! What `dpdk-telemetry.py` is told: our numbers as commands of DPDK's telemetry socket. Owns their names and shapes. It
//! reads the numbers that control wrote down last, at most a second old: no worker is asked for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use conntrack::track::timeout::{TimeoutKey, Timeouts};
use dpdk::Error;
use dpdk::eal::Handle;
use dpdk::telemetry::{Command, Commands, Value};

use crate::control::schema::{Info, PortStats, Stats, WorkerStats};

/// Everything that the commands tell of, at one moment.
#[derive(Debug)]
pub struct Moment {
    pub info: Info,
    pub stats: Arc<Stats>,
    pub timeouts: Timeouts,
}

/// Where control writes and DPDK's threads read; neither waits for more than the exchange of a pointer.
#[derive(Debug, Default)]
pub struct Board(Mutex<Option<Arc<Moment>>>);

impl Board {
    /// Replaces what was there.
    pub fn put(&self, moment: Moment) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(moment));
    }

    fn read(&self) -> Option<Arc<Moment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The commands' names, their help, and what each says of a moment and the words behind its comma.
type Row = (&'static str, &'static str, fn(&Moment, &str) -> Option<Value>);

const ROWS: [Row; 9] = [
    ("/conntrack/info", "What runs. Takes no parameters", |moment, _| Some(info(&moment.info))),
    ("/conntrack/stats", "Counters of all workers together. Takes no parameters", |moment, _| {
        Some(totals(&moment.stats))
    }),
    ("/conntrack/states", "Flows by protocol and state. Takes no parameters", |moment, _| {
        Some(states(&moment.stats))
    }),
    ("/conntrack/workers", "The numbers of the workers. Takes no parameters", |moment, _| {
        Some(Value::Numbers(moment.stats.workers.iter().map(|worker| u64::from(worker.worker)).collect()))
    }),
    ("/conntrack/worker", "Counters of one worker. Parameters: its number", |moment, words| {
        let number: u32 = words.trim().parse().ok()?;
        moment.stats.workers.iter().find(|worker| worker.worker == number).map(worker)
    }),
    ("/conntrack/limits", "The table's limit, and those of named zones. Takes no parameters", |moment, _| {
        Some(limits(&moment.stats))
    }),
    ("/conntrack/timeouts", "Every timeout, in milliseconds. Takes no parameters", |moment, _| {
        let row = |&key: &TimeoutKey| {
            (key.name().to_owned(), Value::Number((moment.timeouts.get(key).as_secs_f64() * 1e3) as u64))
        };
        Some(Value::Dict(TimeoutKey::ALL.iter().map(row).collect()))
    }),
    ("/conntrack/ports", "Counters of each port. Takes no parameters", |moment, _| {
        Some(Value::Dict(moment.stats.ports.iter().map(|row| (row.name.clone(), port(row))).collect()))
    }),
    ("/conntrack/pools", "Packet buffers. Takes no parameters", |moment, _| {
        let pools = moment.stats.pools.iter().map(|pool| {
            let numbers = [("objects", pool.objects), ("available", pool.available)];
            (pool.name.clone(), numbered(&numbers))
        });
        Some(Value::Dict(pools.collect()))
    }),
];

/// Has DPDK's telemetry socket answer from `board`, as long as the answer lives.
pub fn register(eal: &Handle, board: &Arc<Board>) -> Result<Commands, Error> {
    let command = |(name, help, say): Row| {
        let board = Arc::clone(board);
        Command { name, help, answer: Box::new(move |words| say(&*board.read()?, words)) }
    };
    Commands::register(eal, ROWS.map(command).into())
}

fn numbered(pairs: &[(&str, u64)]) -> Value {
    Value::Dict(pairs.iter().map(|&(name, number)| (name.to_owned(), Value::Number(number))).collect())
}

fn labelled(numbers: &BTreeMap<String, u64>) -> Value {
    Value::Dict(numbers.iter().map(|(name, &number)| (name.clone(), Value::Number(number))).collect())
}

fn dict(pairs: Vec<(&str, Value)>) -> Value {
    Value::Dict(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn info(info: &Info) -> Value {
    dict(vec![
        ("version", Value::Text(info.version.clone())),
        ("revision", Value::Text(info.revision.clone())),
        ("dpdk", Value::Text(info.dpdk.clone())),
        ("profile", Value::Text(info.profile.clone())),
        ("mode", Value::Text(info.mode.clone())),
        ("pid", Value::Number(u64::from(info.pid))),
        ("uptime_secs", Value::Number(info.uptime_secs)),
        ("workers", Value::Number(u64::from(info.workers))),
    ])
}

/// A number of each worker and its name.
type Count = (&'static str, fn(&WorkerStats) -> u64);

/// What is counted without labels.
const COUNTS: [Count; 22] = [
    ("rx_packets", |w| w.rx_packets),
    ("rx_bytes", |w| w.rx_bytes),
    ("tx_packets", |w| w.tx_packets),
    ("tx_full", |w| w.tx_full),
    ("rx_refused", |w| w.rx_refused),
    ("handed_off", |w| w.handed_off),
    ("handed_on", |w| w.handed_on),
    ("handed_in", |w| w.handed_in),
    ("sent_through", |w| w.sent_through),
    ("found", |w| w.found),
    ("missed", |w| w.missed),
    ("inserted", |w| w.inserted),
    ("full_untracked", |w| w.full_untracked),
    ("icmp_error", |w| w.icmp_error),
    ("ignored", |w| w.ignored),
    ("fragments_held", |w| w.fragments_held),
    ("fragments_again", |w| w.fragments_again),
    ("datagrams_completed", |w| w.datagrams_completed),
    ("datagrams_timed_out", |w| w.datagrams_timed_out),
    ("datagrams_evicted", |w| w.datagrams_evicted),
    ("held_full", |w| w.held_full),
    ("events_lost", |w| w.events_lost),
];

/// Numbers of each worker by label, and their name.
type Labelled = (&'static str, fn(&WorkerStats) -> &BTreeMap<String, u64>);

const LABELLED: [Labelled; 6] = [
    ("packets", |w| &w.packets),
    ("untracked", |w| &w.untracked),
    ("invalid", |w| &w.invalid),
    ("malformed", |w| &w.malformed),
    ("dropped", |w| &w.dropped),
    ("ended", |w| &w.destroyed),
];

fn totals(stats: &Stats) -> Value {
    let mut pairs = vec![
        ("entries", Value::Number(stats.entries)),
        ("entries_limit", Value::Number(stats.entries_limit)),
        ("assured", Value::Number(stats.assured)),
        ("replied", Value::Number(stats.replied)),
        ("events_missed", Value::Number(stats.events_missed)),
    ];
    pairs.extend(COUNTS.map(|(name, of)| (name, Value::Number(stats.workers.iter().map(of).sum()))));
    pairs.extend(LABELLED.map(|(name, of)| {
        let mut sums = BTreeMap::<String, u64>::new();
        for (label, number) in stats.workers.iter().flat_map(of) {
            *sums.entry(label.clone()).or_default() += number;
        }
        (name, labelled(&sums))
    }));
    dict(pairs)
}

fn worker(worker: &WorkerStats) -> Value {
    let millis = |seconds: f64| Value::Number((seconds * 1e3) as u64);
    let mut pairs = vec![
        ("responding", Value::Number(u64::from(worker.responding))),
        ("entries", Value::Number(worker.entries)),
        ("busy_ms", millis(worker.busy_seconds)),
        ("idle_ms", millis(worker.idle_seconds)),
        ("expiry_lag_ms", millis(worker.expiry_lag_seconds)),
        ("polls_empty", Value::Number(worker.polls_empty)),
        ("polls_packets", Value::Number(worker.polls_packets)),
        ("held_frames", Value::Number(worker.held_frames)),
    ];
    pairs.extend(COUNTS.map(|(name, of)| (name, Value::Number(of(worker)))));
    pairs.extend(LABELLED.map(|(name, of)| (name, labelled(of(worker)))));
    dict(pairs)
}

/// Protocols without states have one number.
fn states(stats: &Stats) -> Value {
    let mut protos: Vec<(String, Value)> = Vec::new();
    for row in &stats.states {
        let entries = Value::Number(row.entries);
        if row.state.is_empty() {
            protos.push((row.proto.clone(), entries));
            continue;
        }
        let state = (row.state.clone(), entries);
        match protos.last_mut() {
            Some((proto, Value::Dict(states))) if *proto == row.proto => states.push(state),
            _ => protos.push((row.proto.clone(), Value::Dict(vec![state]))),
        }
    }
    Value::Dict(protos)
}

fn limits(stats: &Stats) -> Value {
    let zones = stats.zones.iter().map(|row| {
        let numbers =
            [("limit", u64::from(row.limit)), ("count", u64::from(row.count)), ("refused", row.refused)];
        (row.zone.to_string(), numbered(&numbers))
    });
    dict(vec![
        ("limit", Value::Number(stats.entries_limit)),
        ("count", Value::Number(stats.entries)),
        ("zones", Value::Dict(zones.collect())),
    ])
}

fn port(port: &PortStats) -> Value {
    numbered(&[
        ("rx_packets", port.rx_packets),
        ("rx_bytes", port.rx_bytes),
        ("rx_missed", port.rx_missed),
        ("rx_errors", port.rx_errors),
        ("rx_nombuf", port.rx_nombuf),
        ("tx_packets", port.tx_packets),
        ("tx_bytes", port.tx_bytes),
        ("tx_errors", port.tx_errors),
    ])
}
