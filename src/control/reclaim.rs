//! Zones that nobody uses any more, taken back now and then. Owns the order: hand none out, wait until every worker has
//! ended what it was at, take back, hand out again. Without it whoever sends ever new tags would use all of them up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::State;
use super::desk::NoAnswer;
use crate::bus::command::Command;

/// Twice as long as a fragment waits for its datagram (60 s in IPv6): nothing that has the number of a zone is left then.
const PERIOD: Duration = Duration::from_secs(120);

/// Runs as long as the control thread does.
pub(super) async fn run(state: Arc<State>) {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let zones = state.appliance.zones.all();
        if zones.learned() == 0 {
            continue;
        }
        if zones.any_faded() {
            zones.freeze();
            // A worker that does not answer may still be at work with what it has found: the next round, then.
            if everybody_has_moved_on(&state).await.is_ok() {
                let taken_back = zones.reap();
                tracing::debug!(
                    taken_back,
                    learned = zones.learned(),
                    "zones that nobody used are free again"
                );
            }
            zones.thaw();
        }
        zones.fade();
    }
}

/// Workers answer between bursts.
async fn everybody_has_moved_on(state: &State) -> Result<(), NoAnswer> {
    let answers = state.workers.ask_all(|| Command::Snapshot(Box::default())).await;
    answers.into_iter().try_for_each(|answer| answer.map(drop))
}
