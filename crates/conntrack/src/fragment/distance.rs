//! How many fragments each source has sent, counted over all workers: whichever of them puts a datagram together learns
//! how many others of its source came between two of its pieces. Sees hashes, no address.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

/// Sources that can be told apart; 256 KiB. Two that share a number count each other's fragments: at a million fragments
/// a second from everywhere, four seconds pass before a datagram is given up for 64 that were not its source's.
const SOURCES: usize = 65_536;

/// The counts, shared by all workers of an appliance.
#[derive(Clone, Debug)]
pub struct Distances(Arc<[AtomicU32]>);

impl Distances {
    /// Nothing has come yet: the only allocation.
    pub fn new() -> Self {
        Self((0..SOURCES).map(|_| AtomicU32::new(0)).collect::<Vec<_>>().into())
    }

    /// Counts one more of the source that hashes to `hash`; gives its number, which wraps.
    pub fn count(&self, hash: u64) -> u32 {
        let place = hash as usize % SOURCES;
        self.0.get(place).map_or(0, |count| count.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }
}

impl Default for Distances {
    fn default() -> Self {
        Self::new()
    }
}
