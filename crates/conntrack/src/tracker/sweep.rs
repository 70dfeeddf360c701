//! A lowered timeout holds for flows already in the table: a walk over the slab, a few entries a loop, that cuts
//! what remains. Raised ones need no walk.

use crate::fault::{Fault, planted};
use crate::table::entry::Entry;
use crate::tick::until;
use crate::track::settings::Settings;
use crate::track::timeout::{TimeoutKey, Timeouts};
use crate::wire::proto;

/// A walk, if one is under way.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Bit per [`TimeoutKey`] that this walk applies.
    keys: u64,
    /// The slab index that comes next.
    pub(super) next: u32,
}

const _: () = assert!(TimeoutKey::ALL.len() <= 64);

impl Sweep {
    /// Starts over for the timeouts that differ in a way that flows in the table must learn: lowered ones, and
    /// GRE's, which each flow keeps a copy of.
    pub(super) fn start(&mut self, old: &Timeouts, new: &Timeouts) {
        let learns = |key: TimeoutKey| {
            let copied = matches!(key, TimeoutKey::Gre | TimeoutKey::GreStream);
            new.get(key) < old.get(key) || (copied && new.get(key) != old.get(key))
        };
        let keys =
            TimeoutKey::ALL.iter().filter(|key| learns(**key)).fold(0, |keys, key| keys | bit(*key as u8));
        if keys != 0 {
            self.keys |= keys;
            self.next = 0;
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.keys != 0
    }

    pub(super) fn finish(&mut self) {
        *self = Self::default();
    }

    /// Cuts one flow's remaining time to the timeout that it is on; true if the deadline moved.
    pub(super) fn apply(&self, entry: &mut Entry, now: u32, settings: &Settings) -> bool {
        if entry.key.proto == proto::GRE && !planted(Fault::SweepGre) {
            let vars = entry.vars.gre();
            vars.timeout = settings.timeouts.get(TimeoutKey::Gre).0;
            vars.stream_timeout = settings.timeouts.get(TimeoutKey::GreStream).0;
        }
        let Some(&key) = TimeoutKey::ALL.get(usize::from(entry.head.timeout())) else { return false };
        let span = settings.timeouts.get(key).0;
        let shorter = until(entry.head.deadline, now) <= span as i32 && !planted(Fault::SweepShorter);
        if self.keys & bit(key as u8) == 0 || shorter {
            return false;
        }
        entry.head.deadline = now.wrapping_add(span);
        true
    }
}

const fn bit(key: u8) -> u64 {
    1 << key
}
