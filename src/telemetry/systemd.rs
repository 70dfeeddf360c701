//! What systemd is told over its notify socket (sd_notify(3)): that packets flow, that the appliance lives, how full it
//! is, that it stops. Without such a socket nothing is said. Called by the control side alone.

use sd_notify::NotifyState;

use crate::control::schema::Stats;

/// Looks between two status lines: systemd tells each to whoever watches it.
const STATUS_EVERY: u32 = 5;

/// What systemd knows by now.
#[derive(Debug, Default)]
pub struct Service {
    /// READY was said.
    ready: bool,
    looks: u32,
}

impl Service {
    /// One look, every second. Ready is when every worker has answered once, and the watchdog is fed only while all of
    /// them do: a worker that hangs has the service started anew after the unit's `WatchdogSec=`.
    pub fn look(&mut self, stats: &Stats) {
        let turning = stats.workers.iter().all(|worker| worker.responding);
        let status = status(stats);
        let mut states = Vec::with_capacity(3);
        if turning && !self.ready {
            self.ready = true;
            states.push(NotifyState::Ready);
        }
        if turning {
            states.push(NotifyState::Watchdog);
        }
        if self.looks.is_multiple_of(STATUS_EVERY) || !turning {
            states.push(NotifyState::Status(&status));
        }
        self.looks = self.looks.wrapping_add(1);
        tell(&states);
    }
}

/// The configuration is being read again; [`reloaded`] ends that.
pub fn reloading() {
    // A clock that cannot be read leaves out what only later systemd asks for (Type=notify-reload, 253).
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The configuration was read again, whether it was taken or refused.
pub fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// The last packets are on their way.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn status(stats: &Stats) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{} of {} connections", stats.entries, stats.entries_limit);
    for worker in stats.workers.iter().filter(|worker| !worker.responding) {
        // Writing to a String cannot fail.
        let _ = write!(text, "; worker {} does not answer", worker.worker);
    }
    for port in &stats.ports {
        let link = match port.up {
            Some(true) => "up",
            Some(false) => "down",
            None => "link unknown",
        };
        let _ = write!(text, "; {} {link}", port.name);
    }
    text
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        // systemd went away or its socket is not ours: packets flow without it.
        tracing::debug!("systemd cannot be told: {error}");
    }
}
