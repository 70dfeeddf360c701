//! The log: set up once, written by the control side, and never more than a few lines for one condition. DPDK's own
//! words come as DPDK says them, from whichever thread called it: when ports start, stop or fail, never for a packet.
//! Owns what was said already, so that a condition that lasts is told once and not every second.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use conntrack::track::reason::{Reason, Severity};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::control::schema::{Stats, WorkerStats};

/// Shares of the table, in percent, at which an operator is warned. Named in the documentation.
const OCCUPANCY: [u64; 3] = [80, 90, 95];

/// A share must fall this far below a mark, in percent of the table, before passing the mark is told again: a table
/// that hovers at 80 % is one condition.
const OCCUPANCY_BAND: u64 = 2;

/// How often a condition that lasts may be told.
const REPEAT: Duration = Duration::from_secs(60);

/// The way to change the level of the log that [`init`] has set up.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Lines go to standard error, where systemd and terminals both find them.
pub fn init(level: LevelFilter) {
    let (filter, handle) = reload::Layer::new(level);
    // Whoever sets it to anything wants none. https://no-color.org
    let plain = std::env::var_os("NO_COLOR").is_some_and(|word| !word.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !plain)
        .with_target(false);
    // A second call in one process (tests) finds the first one's subscriber and keeps it.
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Changes what is told from now on; nothing where [`init`] was not called.
pub fn set_level(level: LevelFilter) {
    if let Some(handle) = LEVEL.get() {
        // It fails only when the subscriber is gone, and then nothing is told anyway.
        let _ = handle.reload(level);
    }
}

/// DPDK's own messages, as they come from any thread that calls it. Its information is for whoever develops drivers.
pub fn from_dpdk(level: dpdk::log::Level, message: &str) {
    match level {
        dpdk::log::Level::Error => tracing::error!("DPDK: {message}"),
        dpdk::log::Level::Warn => tracing::warn!("DPDK: {message}"),
        dpdk::log::Level::Info | dpdk::log::Level::Debug => tracing::debug!("DPDK: {message}"),
    }
}

/// Which of the marks a table's share has passed, and which of them were told.
#[derive(Debug, Default)]
struct Occupancy {
    /// Marks that were passed and told; a prefix of [`OCCUPANCY`].
    told: usize,
}

impl Occupancy {
    /// The mark to warn of, if `entries` of `limit` pass one that they had not passed before.
    fn passed(&mut self, entries: u64, limit: u64) -> Option<u64> {
        let reaches = |percent: u64| u128::from(entries) * 100 >= u128::from(limit) * u128::from(percent);
        while self.told > 0 && !reaches(OCCUPANCY[self.told - 1] - OCCUPANCY_BAND) {
            self.told -= 1;
        }
        let marks = OCCUPANCY.iter().take_while(|&&mark| reaches(mark)).count();
        if marks > self.told {
            self.told = marks;
            return Some(OCCUPANCY[marks - 1]);
        }
        None
    }
}

/// A number that grows while something is wrong: told when it first grows, then at most once a [`REPEAT`], with
/// how much it grew.
#[derive(Debug, Default)]
struct Growing {
    told: u64,
    at: Option<Instant>,
}

impl Growing {
    fn grew(&mut self, total: u64, now: Instant) -> Option<u64> {
        let more = total.saturating_sub(self.told);
        let quiet = self.at.is_some_and(|at| now.duration_since(at) < REPEAT);
        if more == 0 || quiet {
            return None;
        }
        self.told = total;
        self.at = Some(now);
        Some(more)
    }
}

/// Looks at the numbers and says what an operator must know.
#[derive(Debug, Default)]
pub struct Watchman {
    occupancy: Occupancy,
    refused: Growing,
    early_dropped: Growing,
    untracked: Growing,
    tx_full: Growing,
    held_full: Growing,
    hand_off_full: Growing,
    /// By [`Reason`].
    invalid: Vec<Growing>,
    silent: Vec<bool>,
}

impl Watchman {
    /// One look; called every second.
    pub fn look(&mut self, stats: &Stats, now: Instant) {
        let (entries, limit) = (stats.entries, stats.entries_limit);
        if let Some(mark) = self.occupancy.passed(entries, limit) {
            tracing::warn!(
                entries,
                limit,
                "table {mark} % full: raise `table.max_entries`, or lower timeouts (`dpdk-conntrack timeout list`)"
            );
        }
        let sum = |of: fn(&WorkerStats) -> u64| stats.workers.iter().map(of).sum();
        if let Some(flows) = self.refused.grew(sum(|worker| counted(&worker.dropped, "table_full")), now) {
            tracing::error!(flows, entries, limit, "table full: new flows were refused");
        }
        if let Some(flows) =
            self.early_dropped.grew(sum(|worker| counted(&worker.destroyed, "early_drop")), now)
        {
            tracing::warn!(flows, entries, limit, "table full: flows that were not assured made room");
        }
        if let Some(flows) = self.untracked.grew(sum(|worker| worker.full_untracked), now) {
            tracing::warn!(flows, entries, limit, "table full: packets of new flows passed untracked");
        }
        if let Some(frames) = self.tx_full.grew(sum(|worker| worker.tx_full), now) {
            // A link that is down takes nothing; that is not a port too slow for its peer.
            match stats.ports.iter().find(|port| port.up == Some(false)) {
                Some(port) => {
                    tracing::warn!(frames, port = port.name, "frames were lost: the port's link is down")
                }
                None => tracing::warn!(
                    frames,
                    "frames were lost: the port that they leave by is down, or slower than what comes"
                ),
            }
        }
        if let Some(frames) = self.held_full.grew(sum(|worker| worker.held_full), now) {
            tracing::warn!(frames, "fragments were lost: more wait for their datagram than may be held");
        }
        let handed = sum(|worker| counted(&worker.dropped, "hand_off_full"));
        if let Some(frames) = self.hand_off_full.grew(handed, now) {
            tracing::warn!(frames, "frames were lost: the worker that they were handed to is overloaded");
        }
        self.invalid.resize_with(Reason::ALL.len(), Growing::default);
        for (reason, growing) in Reason::ALL.iter().zip(&mut self.invalid) {
            let label = reason.label();
            let packets = stats.workers.iter();
            let packets = packets.map(|of| counted(&of.invalid, label) + counted(&of.malformed, label)).sum();
            let Some(packets) = growing.grew(packets, now) else { continue };
            match reason.severity() {
                Severity::Warning => tracing::warn!(packets, reason = label, "INVALID: {}", reason.explain()),
                Severity::Info => tracing::info!(packets, reason = label, "INVALID: {}", reason.explain()),
            }
        }
        self.silent.resize(stats.workers.len(), false);
        for (was_silent, worker) in self.silent.iter_mut().zip(&stats.workers) {
            if *was_silent == worker.responding {
                *was_silent = !worker.responding;
                if worker.responding {
                    tracing::info!(worker = worker.worker, "worker answers again");
                } else {
                    tracing::error!(
                        worker = worker.worker,
                        "worker does not answer: its core may be taken by something else"
                    );
                }
            }
        }
    }

    /// One line on how things stand; called every minute.
    pub fn status(&self, stats: &Stats) {
        let rx: u64 = stats.workers.iter().map(|worker| worker.rx_packets).sum();
        let tx: u64 = stats.workers.iter().map(|worker| worker.tx_packets).sum();
        tracing::info!(
            entries = stats.entries,
            limit = stats.entries_limit,
            assured = stats.assured,
            rx_packets = rx,
            tx_packets = tx,
            "running"
        );
    }
}

fn counted(numbers: &BTreeMap<String, u64>, label: &str) -> u64 {
    numbers.get(label).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_told_once_until_the_table_fell_below_it() {
        let mut occupancy = Occupancy::default();
        let told: Vec<_> = [79, 80, 81, 90, 94, 95, 100, 96, 94, 95, 92, 95, 79, 80, 77, 80]
            .into_iter()
            .map(|entries| occupancy.passed(entries, 100))
            .collect();
        let (n, s) = (None, Some);
        assert_eq!(told, [n, s(80), n, s(90), n, s(95), n, n, n, n, n, s(95), n, n, n, s(80)]);
    }

    #[test]
    fn a_table_that_fills_at_once_is_told_once() {
        let mut occupancy = Occupancy::default();
        assert_eq!(occupancy.passed(100, 100), Some(95));
        assert_eq!(occupancy.passed(100, 100), None);
    }

    #[test]
    fn a_condition_that_lasts_is_told_once_a_minute_with_what_was_added() {
        let (mut growing, start) = (Growing::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(growing.grew(0, at(0)), None);
        assert_eq!(growing.grew(5, at(1)), Some(5));
        assert_eq!(growing.grew(9, at(2)), None);
        assert_eq!(growing.grew(10, at(61)), Some(5));
        assert_eq!(growing.grew(10, at(200)), None);
    }
}
