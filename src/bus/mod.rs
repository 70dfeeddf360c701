//! All that crosses threads: commands to a worker and back, events out of it.
//! Every queue is bounded, and full is counted. Nothing here blocks or makes a system call.

pub mod agreement;
pub mod command;
pub mod report;
pub mod ring;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use command::Ticket;
use conntrack::event::{Event, EventKind};
use report::Sighting;
use ring::Ring;

/// Commands on their way to one worker, and as many answers on their way back.
pub const COMMANDS: usize = 16;

/// Events on their way out of one worker: at 100,000 events a second, what gathers in 80 ms.
pub const EVENTS: usize = 8192;

/// Records of INVALID and dropped packets that one worker keeps: the last ones, read or not.
pub const RECORDS: usize = 512;

/// Followed packets on their way out of one worker: what may gather in a second.
pub const FOLLOWED: usize = 1024;

/// The queues between control and one worker.
#[derive(Debug)]
struct Queues {
    commands: Ring<Ticket>,
    answers: Ring<Ticket>,
    events: Ring<Event>,
    /// Events lost before they reached `events`.
    lost_earlier: AtomicU64,
    records: Ring<Sighting>,
    /// INVALID and dropped packets of which there is no record.
    unrecorded: AtomicU64,
    followed: Ring<Sighting>,
    /// Packets that passed without a look, because too many had been followed.
    unfollowed: AtomicU64,
    /// Those of the events that `events` refused that told of a flow's end.
    ends_refused: AtomicU64,
    stop: AtomicBool,
}

/// Control's end.
#[derive(Debug)]
pub struct ControlEnd(Arc<Queues>);

/// The worker's end.
#[derive(Debug)]
pub struct WorkerEnd(Arc<Queues>);

/// Both ends of a new set of queues; all of their memory is taken here.
pub fn pair() -> (ControlEnd, WorkerEnd) {
    let queues = Arc::new(Queues {
        commands: Ring::with_capacity(COMMANDS),
        // The control side never has more tickets out than this, so an answer always finds room.
        answers: Ring::with_capacity(COMMANDS),
        events: Ring::with_capacity(EVENTS),
        lost_earlier: AtomicU64::new(0),
        records: Ring::with_capacity(RECORDS),
        unrecorded: AtomicU64::new(0),
        followed: Ring::with_capacity(FOLLOWED),
        unfollowed: AtomicU64::new(0),
        ends_refused: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    (ControlEnd(Arc::clone(&queues)), WorkerEnd(queues))
}

impl ControlEnd {
    /// Sends a command, or gives it back when [`COMMANDS`] wait already.
    pub fn send(&self, ticket: Ticket) -> Result<(), Ticket> {
        self.0.commands.push(ticket)
    }

    /// The next command that came back with its answer.
    pub fn next_answer(&self) -> Option<Ticket> {
        self.0.answers.pop()
    }

    /// The next event.
    pub fn next_event(&self) -> Option<Event> {
        self.0.events.pop()
    }

    /// Events lost on their way out, since the start.
    pub fn events_lost(&self) -> u64 {
        self.0.events.refused() + self.0.lost_earlier.load(Ordering::Relaxed)
    }

    /// Those of [`ControlEnd::events_lost`] that told, or may have told, of a flow's end.
    pub fn ends_lost(&self) -> u64 {
        self.0.ends_refused.load(Ordering::Relaxed) + self.0.lost_earlier.load(Ordering::Relaxed)
    }

    /// The oldest record of an INVALID or dropped packet that has not been taken.
    pub fn next_record(&self) -> Option<Sighting> {
        self.0.records.pop()
    }

    /// INVALID and dropped packets of which there is no record, or none any more, since the start.
    pub fn unrecorded(&self) -> u64 {
        self.0.records.refused() + self.0.unrecorded.load(Ordering::Relaxed)
    }

    /// The next packet that was followed.
    pub fn next_followed(&self) -> Option<Sighting> {
        self.0.followed.pop()
    }

    /// Packets that were not followed, or not looked at, because there were too many, since the start.
    pub fn unfollowed(&self) -> u64 {
        self.0.followed.refused() + self.0.unfollowed.load(Ordering::Relaxed)
    }

    /// Something by which the worker can be told to end after its present turn.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.0))
    }
}

/// Ends a worker; see [`ControlEnd::stopper`].
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Queues>);

impl Stopper {
    /// The worker ends after its present turn.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

impl WorkerEnd {
    /// The next command to serve.
    #[inline]
    pub fn next_command(&self) -> Option<Ticket> {
        self.0.commands.pop()
    }

    /// Sends a served command back.
    pub fn answer(&self, ticket: Ticket) {
        let sent = self.0.answers.push(ticket);
        debug_assert!(sent.is_ok(), "more tickets out than answers have room for");
    }

    /// Sends an event, or counts it as refused.
    #[inline]
    pub fn tell(&self, event: Event) {
        // A slow reader loses and is told how many; the ring has counted it.
        if let Err(lost) = self.0.events.push(event)
            && matches!(lost.kind, EventKind::Destroy(_))
        {
            self.0.ends_refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says how many events were lost before [`WorkerEnd::tell`], since the start.
    #[inline]
    pub fn lost_earlier(&self, total: u64) {
        self.0.lost_earlier.store(total, Ordering::Relaxed);
    }

    /// Keeps a record of an INVALID or dropped packet, in the place of the oldest if need be.
    pub fn record(&self, told: Sighting) {
        self.0.records.push_over(told);
    }

    /// Says how many INVALID and dropped packets were not recorded, since the start.
    pub fn leave_unrecorded(&self, total: u64) {
        self.0.unrecorded.store(total, Ordering::Relaxed);
    }

    /// Tells of a packet that was followed, or counts it.
    pub fn follow(&self, told: Sighting) {
        let _ = self.0.followed.push(told);
    }

    /// Counts packets that passed without a look, because too many had been followed.
    pub fn leave_unfollowed(&self, packets: u64) {
        self.0.unfollowed.fetch_add(packets, Ordering::Relaxed);
    }

    /// See [`ControlEnd::events_lost`].
    pub fn events_lost(&self) -> u64 {
        self.0.events.refused() + self.0.lost_earlier.load(Ordering::Relaxed)
    }

    /// Whether this worker has been told to end.
    #[inline]
    pub fn stopped(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }
}
