//! A change that all workers make or none: each says that it stands between two bursts and has the change in hand, and
//! control decides once for all. Nobody waits here: a worker looks once a turn, and tracks in the meantime.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// One change's state, shared by control and every worker.
#[derive(Debug, Default)]
pub struct Agreement {
    /// Bit per worker that has the change in hand.
    ready: AtomicU64,
    /// A [`Decision`] as a number.
    decision: AtomicU8,
}

// A bit for each worker there can be.
const _: () = assert!(conntrack::key::owner::WORKERS_MAX <= u64::BITS as usize);

/// What control has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Decision {
    /// Nothing yet: the change is kept in hand.
    Open = 0,
    Made = 1,
    Dropped = 2,
}

impl Agreement {
    /// A worker has the change in hand; gives what it is to do with it. Cheap enough for every turn.
    #[inline]
    pub fn stand_by(&self, worker: usize) -> Decision {
        let bit = 1_u64.checked_shl(worker as u32).unwrap_or(0);
        if self.ready.load(Ordering::Relaxed) & bit == 0 {
            self.ready.fetch_or(bit, Ordering::AcqRel);
        }
        match self.decision.load(Ordering::Acquire) {
            1 => Decision::Made,
            2 => Decision::Dropped,
            _ => Decision::Open,
        }
    }

    /// The first of `workers` that has not said that it is ready.
    pub fn missing(&self, workers: usize) -> Option<usize> {
        let ready = self.ready.load(Ordering::Acquire);
        (0..workers).find(|&worker| ready & 1_u64.checked_shl(worker as u32).unwrap_or(0) == 0)
    }

    /// Decides for all; the first decision stays. Gives which one that was.
    pub fn decide(&self, decision: Decision) -> Decision {
        let open = Decision::Open as u8;
        match self.decision.compare_exchange(open, decision as u8, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => decision,
            Err(1) => Decision::Made,
            Err(_) => Decision::Dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_decided_before_control_decides_and_the_first_decision_stays() {
        let agreement = Agreement::default();
        assert_eq!(agreement.missing(2), Some(0));
        assert_eq!(agreement.stand_by(0), Decision::Open);
        assert_eq!(agreement.missing(2), Some(1));
        assert_eq!(agreement.stand_by(1), Decision::Open);
        assert_eq!(agreement.missing(2), None);
        assert_eq!(agreement.decide(Decision::Dropped), Decision::Dropped);
        assert_eq!(agreement.decide(Decision::Made), Decision::Dropped);
        assert_eq!(agreement.stand_by(1), Decision::Dropped);
    }

    #[test]
    fn every_worker_there_can_be_has_a_bit() {
        let agreement = Agreement::default();
        let workers = conntrack::key::owner::WORKERS_MAX;
        for worker in 0..workers {
            assert_eq!(agreement.missing(workers), Some(worker));
            agreement.stand_by(worker);
        }
        assert_eq!(agreement.missing(workers), None);
    }
}
