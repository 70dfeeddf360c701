//! A bounded queue between two threads. Full is an answer and is counted; nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;

/// A queue of fixed size; all of its memory is taken when it is made.
#[derive(Debug)]
pub struct Ring<T> {
    queue: ArrayQueue<T>,
    refused: AtomicU64,
}

impl<T> Ring<T> {
    /// Room for `capacity` items; at least one.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { queue: ArrayQueue::new(capacity.max(1)), refused: AtomicU64::new(0) }
    }

    /// Adds an item, or gives it back and counts it as refused.
    pub fn push(&self, item: T) -> Result<(), T> {
        self.queue.push(item).inspect_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Adds an item in any case: if there is no room the oldest goes, and is counted as refused.
    pub fn push_over(&self, item: T) {
        if self.queue.force_push(item).is_some() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the oldest item.
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Items waiting now.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Items that found the queue full, or had to leave a full one, since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_gives_the_item_back_and_counts_it() {
        let ring = Ring::with_capacity(2);
        assert_eq!(
            (ring.push(1), ring.push(2), ring.push(3), ring.push(4)),
            (Ok(()), Ok(()), Err(3), Err(4))
        );
        assert_eq!((ring.refused(), ring.len()), (2, 2));
        assert_eq!((ring.pop(), ring.pop(), ring.pop()), (Some(1), Some(2), None));
    }

    #[test]
    fn what_is_pushed_over_takes_the_oldest_ones_place() {
        let ring = Ring::with_capacity(2);
        (1..=5).for_each(|item| ring.push_over(item));
        assert_eq!((ring.pop(), ring.pop(), ring.pop()), (Some(4), Some(5), None));
        assert_eq!(ring.refused(), 3);
    }
}
