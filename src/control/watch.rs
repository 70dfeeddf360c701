//! What is looked at without being asked: how full the tables are, whether workers answer, and the clocks.
//! Owns no state of the tracker; speaks through the log and to systemd.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::State;
use crate::bus::command::Command;
use crate::telemetry::log::Watchman;
use crate::telemetry::systemd::Service;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(1);

/// How often the workers' clocks are set by the boot clock. Between two settings a counter that is wrong by 100
/// parts in a million strays by 6 ms, little more than a tick.
const CLOCK_PERIOD: Duration = Duration::from_secs(60);

/// The first setting comes early: until then a clock runs by the rate that the machine states.
const FIRST_CLOCK: Duration = Duration::from_secs(2);

/// How often one line says how things stand.
const STATUS_PERIOD: Duration = Duration::from_secs(60);

/// Runs as long as the control thread does.
pub(super) async fn run(state: Arc<State>) {
    let mut watchman = Watchman::default();
    let mut service = Service::default();
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = Instant::now();
    let mut clock_due = start + FIRST_CLOCK;
    let mut status_due = start + STATUS_PERIOD;
    loop {
        let now = tick.tick().await;
        let stats = state.stats().await;
        watchman.look(&stats, now.into_std());
        service.look(&stats);
        if now >= status_due {
            status_due = now + STATUS_PERIOD;
            watchman.status(&stats);
        }
        if now >= clock_due {
            clock_due = now + CLOCK_PERIOD;
            let reading = || {
                let (tsc, boot_ns) = (state.appliance.read_clocks)();
                Command::Clock { tsc, boot_ns }
            };
            // A worker that does not answer has been noticed above; its clock keeps its rate.
            let _ = state.workers.ask_all(reading).await;
        }
    }
}
