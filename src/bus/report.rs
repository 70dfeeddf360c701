//! What a worker tells of itself: a copy of its plain numbers, made between bursts.

use conntrack::tick::{Tick, Ticks};
use conntrack::tracker::{Counters, Cursor, Explained, StateCounts};

/// A worker's numbers at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub at: Tick,
    /// Flows in the table.
    pub entries: u32,
    /// Where a listing ends.
    pub listing_end: Cursor,
    pub states: StateCounts,
    pub tracker: Counters,
    pub work: WorkCounters,
    /// How late the oldest due expiry was at the last look.
    pub expiry_lag: Ticks,
    /// Events lost on their way to control.
    pub events_lost: u64,
}

/// A packet that is told of, and where it came in.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// The port's number.
    pub port: u16,
    pub explained: Explained,
}

/// What the loop itself counts; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkCounters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    /// Frames that came by a port of this worker and were given to the worker that owns their flow or datagram.
    pub handed_off: u64,
    /// Frames of datagrams that were handed in and put together here, given on to the worker that owns their flow.
    pub handed_on: u64,
    /// Frames given to a worker that has a queue where they leave.
    pub sent_through: u64,
    /// Frames that other workers gave to this one, to track or to send.
    pub handed_in: u64,
    /// Frames freed because the leaving port's queue stayed full.
    pub tx_full: u64,
    /// Frames freed as they came in: too long, or described by the driver in a way that contradicts itself.
    pub rx_refused: u64,
    /// Bursts that found nothing.
    pub polls_empty: u64,
    /// Bursts that found at least one frame.
    pub polls_packets: u64,
    /// Bursts by size: up to 1, 2, 4, 8, 16, 32 and 64 frames.
    pub bursts: [u64; 7],
    /// Time in turns that found work, and in turns that found none.
    pub busy_ns: u64,
    pub idle_ns: u64,
    /// Fragments freed because the store of held frames was full.
    pub held_full: u64,
    /// Fragments held now.
    pub held_frames: u64,
}

/// The upper bounds of [`WorkCounters::bursts`].
pub const BURST_SIZES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
