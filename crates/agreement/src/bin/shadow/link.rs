//! A bad wire: it loses packets, delays them so that they overtake each other, and delivers some twice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use agreement::program::rng::Rng;

/// How bad, in per mille of packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    pub(crate) lost: u32,
    pub(crate) twice: u32,
    pub(crate) late: u32,
}

/// What happened to packets so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) late: u64,
}

/// One direction of a wire.
pub(crate) struct Link {
    rng: Rng,
    quality: Quality,
    queue: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    pub(crate) tally: Tally,
}

/// Packets on the wire at most; more are lost, as in any queue.
const QUEUE_MAX: usize = 20_000;

impl Link {
    pub(crate) fn new(rng: Rng, quality: Quality) -> Self {
        Self { rng, quality, queue: BinaryHeap::new(), tally: Tally::default() }
    }

    /// Takes a packet in.
    pub(crate) fn send(&mut self, now: Instant, packet: &[u8]) {
        self.tally.sent += 1;
        if self.rng.below(1000) < self.quality.lost || self.queue.len() >= QUEUE_MAX {
            self.tally.lost += 1;
            return;
        }
        let copies = if self.rng.below(1000) < self.quality.twice { 2 } else { 1 };
        self.tally.twice += copies - 1;
        for _ in 0..copies {
            let mut delay = Duration::from_micros(500);
            if self.rng.below(1000) < self.quality.late {
                self.tally.late += 1;
                delay += Duration::from_micros(u64::from(self.rng.below(20_000)));
            }
            // The number keeps packets of equal time in order.
            self.queue.push(Reverse((now + delay, self.tally.sent, packet.to_vec())));
        }
    }

    /// The next packet whose time has come.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.queue.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            return self.queue.pop().map(|Reverse((.., packet))| packet);
        }
        None
    }

    /// Nothing is on the wire.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
