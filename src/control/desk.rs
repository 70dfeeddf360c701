//! Asks workers and waits for answers, never longer than a deadline. Owns the tickets that are out.
//! A worker cannot wake this thread (that would be a system call), so waiting is looking again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::bus::command::{Command, Ticket};
use crate::bus::report::Told;
use crate::bus::{COMMANDS, ControlEnd};
use conntrack::event::Event;

/// How long a worker may take for one command. A polling worker needs microseconds and a resting one a millisecond;
/// a worker that is silent for so long is stuck.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// How often to look again at once, before resting between looks.
const EAGER_LOOKS: u32 = 200;

/// The rest between two looks: the timer's resolution.
const REST: Duration = Duration::from_millis(1);

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("worker {worker} did not answer within {} s: see its core with `top -H`", DEADLINE.as_secs())]
    Silent { worker: usize },
    #[error("worker {worker} has {COMMANDS} commands waiting: try again")]
    Busy { worker: usize },
    #[error("there is no worker {worker}")]
    NoWorker { worker: usize },
}

/// Every worker, as control sees them.
#[derive(Debug)]
pub(super) struct Workers(Vec<Mutex<Line>>);

#[derive(Debug)]
struct Line {
    end: ControlEnd,
    next: u64,
    /// Tickets that the worker has not given back, whether or not somebody still waits.
    out: usize,
    waiting: HashMap<u64, oneshot::Sender<Command>>,
}

impl Line {
    fn take_answers(&mut self) {
        while let Some(ticket) = self.end.next_answer() {
            self.out -= 1;
            if let Some(waiter) = self.waiting.remove(&ticket.number) {
                // Whoever asked may have given up; then the answer is nobody's.
                let _ = waiter.send(ticket.command);
            }
        }
    }
}

impl Workers {
    pub(super) fn new(ends: Vec<ControlEnd>) -> Self {
        let line = |end| Mutex::new(Line { end, next: 0, out: 0, waiting: HashMap::new() });
        Self(ends.into_iter().map(line).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Sends `command` and waits for it to come back with its answer.
    pub(super) async fn ask(&self, worker: usize, command: Command) -> Result<Command, NoAnswer> {
        let line = self.0.get(worker).ok_or(NoAnswer::NoWorker { worker })?;
        let lock = || line.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + DEADLINE;
        let (number, mut answer) = {
            let mut line = lock();
            line.take_answers();
            if line.out >= COMMANDS {
                return Err(NoAnswer::Busy { worker });
            }
            let number = line.next;
            if line.end.send(Ticket { number, command }).is_err() {
                return Err(NoAnswer::Busy { worker });
            }
            line.next += 1;
            line.out += 1;
            let (waiter, answer) = oneshot::channel();
            line.waiting.insert(number, waiter);
            (number, answer)
        };
        let mut looks = 0;
        loop {
            lock().take_answers();
            if let Ok(command) = answer.try_recv() {
                return Ok(command);
            }
            if Instant::now() >= deadline {
                lock().waiting.remove(&number);
                return Err(NoAnswer::Silent { worker });
            }
            looks += 1;
            if looks < EAGER_LOOKS {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(REST).await;
            }
        }
    }

    /// The next event of a worker.
    pub(super) fn next_event(&self, worker: usize) -> Option<Event> {
        self.0.get(worker)?.lock().unwrap_or_else(PoisonError::into_inner).end.next_event()
    }

    /// The oldest record of an INVALID or dropped packet that a worker keeps; it keeps it no longer.
    pub(super) fn next_record(&self, worker: usize) -> Option<Told> {
        self.0.get(worker)?.lock().unwrap_or_else(PoisonError::into_inner).end.next_record()
    }

    /// INVALID and dropped packets of which there is no record, since the start.
    pub(super) fn unrecorded(&self) -> u64 {
        let count = |line: &Mutex<Line>| line.lock().unwrap_or_else(PoisonError::into_inner).end.unrecorded();
        self.0.iter().map(count).sum()
    }

    /// The next packet that a worker followed.
    pub(super) fn next_followed(&self, worker: usize) -> Option<Told> {
        self.0.get(worker)?.lock().unwrap_or_else(PoisonError::into_inner).end.next_followed()
    }

    /// Packets that were meant and not followed, since the start.
    pub(super) fn unfollowed(&self) -> u64 {
        let count = |line: &Mutex<Line>| line.lock().unwrap_or_else(PoisonError::into_inner).end.unfollowed();
        self.0.iter().map(count).sum()
    }

    /// Events that workers lost on their way here, since the start.
    pub(super) fn events_lost(&self) -> u64 {
        let lost = |line: &Mutex<Line>| line.lock().unwrap_or_else(PoisonError::into_inner).end.events_lost();
        self.0.iter().map(lost).sum()
    }
}
