//! The control side: answers operators on a unix socket and over TCP. Never sees a packet.
//! One thread; it waits for workers only up to a deadline, and no worker ever waits for it.

mod api;
mod desk;
mod flows;
mod guard;
mod hub;
mod overview;
mod packets;
mod page;
mod places;
mod ports;
mod reclaim;
mod reload;
mod routes;
pub mod schema;
mod scrape;
mod server;
pub mod stats;
mod token;
mod watch;
pub mod what_if;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conntrack::track::settings::{Profile, Settings};
use conntrack::tracker::Cursor;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::bus::ControlEnd;
use crate::bus::command::Command;
use crate::config::Config;
use crate::config::print::on_full_word;
use crate::export::Exports;
use crate::telemetry::socket::{Board, Moment};
use crate::zones::Registry;
use desk::Workers;
use hub::{Hub, Words};
use overview::Overviews;
use packets::Packets;
use schema::{ExportStats, Info, LastReload, PoolStats, Stats};
use scrape::Scrape;
use stats::Observed;

pub use desk::NoAnswer;
pub use ports::PortDoors;
pub use server::{Claimed, ControlError, check_http, claim};
pub use token::{TokenError, check_token};

/// How old numbers may be that are handed out again: however many scrape, workers are asked four times a second.
const FRESH: Duration = Duration::from_millis(250);

/// What control is told at the start, and the doors to what it may not see.
pub struct Appliance {
    /// `uptime_secs`, `boot_unix_ms` and `last_reload` are filled in at each reading.
    pub info: Info,
    /// As it was read at the start.
    pub config: Config,
    /// Where it was read, and is read again.
    pub config_path: PathBuf,
    /// Told when the file is to be read again (SIGHUP).
    pub hangup: Arc<Notify>,
    pub zones: Registry,
    pub exports: Exports,
    /// Asks the drivers.
    pub ports: PortDoors,
    /// Where the numbers are written down for DPDK's telemetry socket.
    pub board: Arc<Board>,
    /// Counts the buffers of every pool.
    pub pool_stats: Box<dyn Fn() -> Vec<PoolStats> + Send + Sync>,
    /// Reads the worker's counter and the boot clock (nanoseconds) together.
    pub read_clocks: fn() -> (u64, u64),
    /// Asks what the wall clock, as it is set now, would have read when the machine booted: milliseconds since 1970.
    pub boot_unix_ms: fn() -> u64,
}

/// What every request sees.
struct State {
    appliance: Appliance,
    classic: bool,
    workers: Arc<Workers>,
    hub: Arc<Hub>,
    /// The configuration as it is now.
    running: Arc<Mutex<Config>>,
    /// Held while the configuration changes, so that two changes follow each other.
    changing: tokio::sync::Mutex<()>,
    /// Its moments are milliseconds since the machine booted.
    last_reload: Mutex<LastReload>,
    observed: tokio::sync::Mutex<Option<(Instant, Arc<Stats>)>>,
    last: Mutex<Vec<Observed>>,
    scrape: Scrape,
    overviews: Overviews,
    packets: Packets,
    started: Instant,
}

/// Serves until `until` is done; then the socket's file is gone. `ends` has one for each worker, in order.
pub async fn serve(
    claimed: Claimed,
    mut appliance: Appliance,
    ends: Vec<ControlEnd>,
    until: impl Future<Output = ()>,
) -> Result<(), ControlError> {
    let workers = Arc::new(Workers::new(ends));
    let classic = appliance.config.settings.profile == Profile::Classic;
    let running = Arc::new(Mutex::new(appliance.config.clone()));
    let now = Arc::clone(&running);
    let words = Words {
        classic,
        boot_unix_ms: appliance.boot_unix_ms,
        community_id_seed: appliance.config.export.community_id_seed,
        timeouts: Box::new(move || now.lock().unwrap_or_else(PoisonError::into_inner).settings.timeouts),
        tags_of: Box::new(appliance.zones.tags()),
    };
    let hub = Arc::new(Hub::new(std::mem::take(&mut appliance.exports), words));
    let pump = tokio::spawn(Arc::clone(&hub).pump(Arc::clone(&workers)));
    let at_start = reload::at_start(boot_ms(&appliance));
    let state = Arc::new(State {
        classic,
        hub: Arc::clone(&hub),
        running,
        changing: tokio::sync::Mutex::default(),
        last_reload: Mutex::new(at_start),
        observed: tokio::sync::Mutex::new(None),
        last: Mutex::new(vec![Observed::default(); workers.len()]),
        scrape: Scrape::default(),
        overviews: Overviews::new(),
        packets: Packets::new(),
        started: Instant::now(),
        workers: Arc::clone(&workers),
        appliance,
    });
    let watch = tokio::spawn(watch::run(Arc::clone(&state)));
    let hangups = tokio::spawn(reload::on_hangup(Arc::clone(&state)));
    let overviews = tokio::spawn(overview::run(Arc::clone(&state)));
    let reclaim = tokio::spawn(reclaim::run(Arc::clone(&state)));
    let packets = tokio::spawn(packets::pump(Arc::clone(&state)));
    let result = server::run(claimed, Arc::clone(&state), until).await;
    for task in [pump, watch, hangups, overviews, reclaim, packets] {
        task.abort();
    }
    // What ends between here and the workers' end is told as well.
    workers.end().await;
    hub.drain(&workers);
    hub.exports().finish();
    result
}

fn boot_ms(appliance: &Appliance) -> u64 {
    (appliance.read_clocks)().1 / 1_000_000
}

impl State {
    /// Everybody's numbers, at most [`FRESH`] old.
    async fn stats(&self) -> Arc<Stats> {
        self.observe().await.1
    }

    /// The same, and when it was so.
    async fn observe(&self) -> (Instant, Arc<Stats>) {
        let mut observed = self.observed.lock().await;
        if let Some((at, stats)) = observed.as_ref()
            && at.elapsed() < FRESH
        {
            return (*at, Arc::clone(stats));
        }
        let answers = self.workers.ask_all(|| Command::Snapshot(Box::default())).await;
        let last = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            for (known, answer) in last.iter_mut().zip(answers) {
                match answer {
                    Ok(Command::Snapshot(snapshot)) => {
                        *known = Observed { snapshot: *snapshot, responding: true };
                    }
                    _ => known.responding = false,
                }
            }
            last.clone()
        };
        let limit = self.appliance.info.table_max_entries;
        let ports = self.appliance.ports.observe(false).iter().map(|row| row.stats.clone()).collect();
        let pools = (self.appliance.pool_stats)();
        let zones = self.appliance.zones.series();
        let mut stats = stats::stats(&last, ports, pools, zones, limit, self.classic);
        stats.exports = self.hub.exports().counted().iter().map(ExportStats::new).collect();
        stats.events_missed = self.hub.missed();
        stats.observed_boot_ms = (self.appliance.read_clocks)().1 / 1_000_000;
        let stats = Arc::new(stats);
        let at = Instant::now();
        *observed = Some((at, Arc::clone(&stats)));
        let timeouts = self.settings().timeouts;
        self.appliance.board.put(Moment { info: self.info(), stats: Arc::clone(&stats), timeouts });
        (at, stats)
    }

    /// Every worker's number of flows, and where a listing of them ends.
    async fn tables(&self) -> Vec<(u32, Cursor)> {
        self.stats().await;
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().map(|known| (known.snapshot.entries, known.snapshot.listing_end)).collect()
    }

    /// After an operator's change: who asks next sees it.
    async fn ask_afresh(&self) {
        *self.observed.lock().await = None;
    }

    fn info(&self) -> Info {
        let boot_unix_ms = (self.appliance.boot_unix_ms)();
        let mut last_reload = self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last_reload.unix_ms += boot_unix_ms;
        last_reload.success_unix_ms += boot_unix_ms;
        Info {
            uptime_secs: self.uptime_secs(),
            boot_unix_ms,
            last_reload,
            table_on_full: on_full_word(self.config().table.on_full).to_owned(),
            ..self.appliance.info.clone()
        }
    }

    fn uptime_secs(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Milliseconds since the machine booted. What is kept is kept by this clock, which nobody sets.
    fn boot_ms(&self) -> u64 {
        boot_ms(&self.appliance)
    }

    /// The wall clock: milliseconds since 1970.
    fn unix_ms(&self) -> u64 {
        (self.appliance.boot_unix_ms)() + self.boot_ms()
    }

    fn settings(&self) -> Settings {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).settings
    }

    /// As it runs now: switches and timeouts may have been changed since the file was read.
    fn config(&self) -> Config {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
