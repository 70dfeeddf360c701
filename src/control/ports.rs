//! Ports stopped and started while the appliance runs: first every worker leaves the port, then the device is stopped;
//! the other way round to start it. Owns that order, and what the drivers said last: to ask them is a system call or a
//! question to a card for each port, so that however many look, they are asked four times a second.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::FRESH;
use super::desk::{NoAnswer, Workers};
use super::schema::PortRow;
use crate::bus::command::Command;

/// A port's rows, with the driver's own counters or without.
type Rows = Box<dyn Fn(bool) -> Vec<PortRow> + Send + Sync>;

/// Does something to the port of this number, or says why it cannot.
type Change = Box<dyn Fn(usize) -> Result<(), String> + Send + Sync>;

/// What was said of all ports, and when.
type Kept = Mutex<Option<(Instant, Arc<Vec<PortRow>>)>>;

/// What control may do to ports; it sees none itself.
pub struct PortDoors {
    rows: Rows,
    plain: Kept,
    with_xstats: Kept,
    halt: Change,
    resume: Change,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
}

/// Why a port is not as it was asked to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error("{0}")]
    Device(String),
    #[error("worker {worker} cannot use the port: start it again, and see the log")]
    Refused { worker: usize },
}

impl PortDoors {
    /// `halt` may rely on it that no worker uses the port.
    pub fn new(rows: Rows, halt: Change, resume: Change) -> Self {
        let turn = tokio::sync::Mutex::new(());
        Self { rows, plain: Kept::default(), with_xstats: Kept::default(), halt, resume, turn }
    }

    /// Every port as its driver describes it now, with its own counters or without.
    pub(super) fn observe(&self, xstats: bool) -> Arc<Vec<PortRow>> {
        let rows = Arc::new((self.rows)(xstats));
        *self.kept(xstats).lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), Arc::clone(&rows)));
        rows
    }

    /// The same, at most [`FRESH`] old.
    pub(super) fn recent(&self, xstats: bool) -> Arc<Vec<PortRow>> {
        let kept = self.kept(xstats).lock().unwrap_or_else(PoisonError::into_inner).clone();
        match kept {
            Some((at, rows)) if at.elapsed() < FRESH => rows,
            _ => self.observe(xstats),
        }
    }

    fn kept(&self, xstats: bool) -> &Kept {
        if xstats { &self.with_xstats } else { &self.plain }
    }

    /// After a change: who asks next sees it.
    fn forget(&self) {
        for kept in [&self.plain, &self.with_xstats] {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Stops or starts the port of this number.
    pub(super) async fn set_running(
        &self,
        workers: &Workers,
        port: usize,
        running: bool,
    ) -> Result<(), PortError> {
        let _turn = self.turn.lock().await;
        let changed = self.change(workers, port, running).await;
        self.forget();
        changed
    }

    async fn change(&self, workers: &Workers, port: usize, running: bool) -> Result<(), PortError> {
        if running {
            (self.resume)(port).map_err(PortError::Device)?;
            return tell(workers, port, true).await;
        }
        let stopped = match tell(workers, port, false).await {
            Ok(()) => (self.halt)(port).map_err(PortError::Device),
            Err(error) => Err(error),
        };
        if stopped.is_err() {
            // It is as it was, as far as the workers still answer.
            let _ = tell(workers, port, true).await;
        }
        stopped
    }
}

async fn tell(workers: &Workers, port: usize, running: bool) -> Result<(), PortError> {
    let answers = workers.ask_all(|| Command::Port { port, running, done: false }).await;
    for (worker, answer) in answers.into_iter().enumerate() {
        match answer? {
            Command::Port { done: true, .. } => {}
            _ => return Err(PortError::Refused { worker }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::control::schema::{PortInfo, PortStats};

    #[tokio::test]
    async fn drivers_are_asked_once_however_many_look_and_again_after_a_change() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let rows = move |xstats: bool| {
            count.fetch_add(1, Ordering::Relaxed);
            vec![PortRow {
                info: PortInfo {
                    name: "lan".to_owned(),
                    device: String::new(),
                    driver: String::new(),
                    role: String::new(),
                    peer: None,
                },
                running: true,
                mbps: None,
                full_duplex: false,
                mac: String::new(),
                mtu: 1500,
                promiscuous: true,
                stats: PortStats::default(),
                xstats: xstats.then(|| ("rx_q0".to_owned(), 1)).into_iter().collect(),
            }]
        };
        let doors = PortDoors::new(Box::new(rows), Box::new(|_| Ok(())), Box::new(|_| Ok(())));
        let all = |times: usize, xstats| {
            for _ in 0..times {
                assert_eq!(doors.recent(xstats)[0].xstats.is_empty(), !xstats);
            }
            asked.swap(0, Ordering::Relaxed)
        };
        // On a machine that stands still for so long what was kept is old: then it is counted anew.
        let mut tries = 0..100;
        let counted = loop {
            tries.next().expect("a quarter of a second without a pause");
            doors.forget();
            let begun = Instant::now();
            let at_first = (all(9, false), all(9, true), all(9, false));
            doors.observe(false);
            let observed = all(9, false);
            doors.set_running(&Workers::new(Vec::new()), 0, false).await.unwrap();
            let changed = (all(9, false), all(9, true));
            if begun.elapsed() < FRESH {
                break (at_first, observed, changed);
            }
        };
        assert_eq!(counted, ((1, 1, 0), 1, (1, 1)));
        tokio::time::sleep(FRESH).await;
        assert!(all(9, false) > 0);
    }
}
