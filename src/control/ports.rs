//! Ports stopped and started while the appliance runs: first every worker leaves the port, then the device is stopped;
//! the other way round to start it. Owns that order.

use super::desk::{NoAnswer, Workers};
use super::schema::PortRow;
use crate::bus::command::Command;

/// A port's rows, with the driver's own counters or without.
type Rows = Box<dyn Fn(bool) -> Vec<PortRow> + Send + Sync>;

/// Does something to the port of this number, or says why it cannot.
type Change = Box<dyn Fn(usize) -> Result<(), String> + Send + Sync>;

/// What control may do to ports; it sees none itself.
pub struct PortDoors {
    pub(super) rows: Rows,
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
        Self { rows, halt, resume, turn: tokio::sync::Mutex::new(()) }
    }

    /// Stops or starts the port of this number.
    pub(super) async fn set_running(
        &self,
        workers: &Workers,
        port: usize,
        running: bool,
    ) -> Result<(), PortError> {
        let _turn = self.turn.lock().await;
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
