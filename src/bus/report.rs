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
    pub latency: Latency,
}

/// How long the packets of some bursts were here: from the moment that the burst was taken from its port until what
/// leaves of it was given to the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Packets by time: up to [`LATENCY_US`] each, and those that took longer.
    pub packets: [u64; LATENCY_US.len() + 1],
    /// Of all those packets together.
    pub total_ns: u64,
}

impl Latency {
    /// Counts `packets` packets that were here for `ns` nanoseconds.
    pub fn add(&mut self, ns: u64, packets: u64) {
        // Up to 1, 2, 4, ... microseconds: the number of bits of one less.
        let above = ns.div_ceil(1_000).saturating_sub(1);
        let place = (u64::BITS - above.leading_zeros()) as usize;
        self.packets[place.min(LATENCY_US.len())] += packets;
        self.total_ns += ns * packets;
    }
}

/// The upper bounds of [`Latency::packets`] in microseconds. A burst takes some; a worker that lost its core for a while
/// takes milliseconds.
pub const LATENCY_US: [u64; 14] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192];

/// The upper bounds of [`WorkCounters::bursts`].
pub const BURST_SIZES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_below_the_nearest_bound_that_it_does_not_pass() {
        for (place, &us) in LATENCY_US.iter().enumerate() {
            let mut latency = Latency::default();
            latency.add(us * 1_000, 3);
            latency.add(us * 1_000 + 1, 1);
            assert_eq!((latency.packets[place], latency.packets[place + 1]), (3, 1), "{us} us");
            assert_eq!(latency.total_ns, us * 4_000 + 1);
        }
        let mut latency = Latency::default();
        latency.add(0, 1);
        latency.add(u64::from(u32::MAX) * 1_000, 1);
        assert_eq!((latency.packets[0], latency.packets[LATENCY_US.len()]), (1, 1));
    }
}
