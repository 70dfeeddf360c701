//! Packets that somebody follows: told one by one as they go through the tracker, among others that are not. Owns what is
//! meant and how many may be told. Nothing of it runs while nobody follows.

use conntrack::event::Events;
use conntrack::tick::{PER_SECOND, Tick};
use conntrack::tracker::{Explained, Frame, Outcome, Tracker};

use crate::bus::command::Follow;

/// The budget is filled up this often, for so many packets.
const WINDOWS_PER_SECOND: u32 = 10;
const PER_WINDOW: u32 = 100;

/// What is followed now.
#[derive(Debug, Default)]
pub(super) struct Following {
    follow: Option<Box<Follow>>,
    /// Its time is over; whoever asked takes it away.
    over: bool,
    window: u64,
    left: u32,
}

/// A burst, and who hears of its packets.
pub(super) struct Followed<'a> {
    pub(super) now: Tick,
    pub(super) frames: &'a [Frame<'a>],
    /// They came from another worker.
    pub(super) handed: bool,
    pub(super) followed: &'a mut dyn FnMut(&Explained),
    /// INVALID and dropped packets.
    pub(super) recorded: &'a mut dyn FnMut(&Explained),
}

impl Following {
    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        self.follow.is_some() && !self.over
    }

    /// Takes what is to be followed from now on, and leaves what was in its place.
    pub(super) fn set(&mut self, follow: &mut Option<Box<Follow>>) {
        std::mem::swap(&mut self.follow, follow);
        self.over = false;
    }

    /// Tracks the burst; gives how many packets were meant and not told.
    pub(super) fn track(
        &mut self,
        mut burst: Followed<'_>,
        tracker: &mut Tracker,
        outcomes: &mut [Outcome],
        events: &mut Events,
    ) -> u64 {
        let Followed { now, frames, handed, .. } = burst;
        self.over = self.follow.as_deref().is_none_or(|follow| now > follow.until);
        let (mut from, mut untold) = (0, 0);
        for (at, frame) in frames.iter().enumerate() {
            let look = tracker.look(now, frame, handed);
            if !self.means(now, |follow| follow.filter.may_mean(&look)) {
                continue;
            }
            if !self.allow(now) {
                untold += 1;
                continue;
            }
            burst.pass(from..at, tracker, outcomes, events);
            // Those before it may have made its flow, or changed it.
            let look = tracker.look(now, frame, handed);
            burst.pass(at..at + 1, tracker, outcomes, events);
            if self.means(now, |follow| follow.filter.means(&look)) {
                let explained = tracker.explain(now, frame, &look, &outcomes[at]);
                (burst.followed)(&Explained { place: at as u16, ..explained });
            }
            from = at + 1;
        }
        burst.pass(from..frames.len(), tracker, outcomes, events);
        untold
    }

    fn means(&self, now: Tick, means: impl FnOnce(&Follow) -> bool) -> bool {
        self.follow.as_deref().is_some_and(|follow| now <= follow.until && means(follow))
    }

    fn allow(&mut self, now: Tick) -> bool {
        let window = now.0 / u64::from(PER_SECOND / WINDOWS_PER_SECOND);
        if window != self.window {
            (self.window, self.left) = (window, PER_WINDOW);
        }
        let allowed = self.left > 0;
        self.left -= u32::from(allowed);
        allowed
    }
}

impl Followed<'_> {
    /// Tracks some of the frames together.
    fn pass(
        &mut self,
        range: std::ops::Range<usize>,
        tracker: &mut Tracker,
        outcomes: &mut [Outcome],
        events: &mut Events,
    ) {
        if range.is_empty() {
            return;
        }
        let (frames, outcomes) = (&self.frames[range.clone()], &mut outcomes[range.clone()]);
        if self.handed {
            tracker.on_handed(self.now, frames, outcomes, events);
        } else {
            tracker.on_burst(self.now, frames, outcomes, events);
        }
        for explained in tracker.records() {
            let place = explained.place + range.start as u16;
            (self.recorded)(&Explained { place, ..*explained });
        }
        tracker.clear_records();
    }
}
