//! Packets that somebody follows: told one by one as they go through the tracker, among others that are not. Owns what is
//! meant and how many may be told: once these are used up no packet is looked at. Nothing of it runs while nobody follows.

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

    /// Tracks the burst; gives how many packets came when no more might be told.
    pub(super) fn track(
        &mut self,
        mut burst: Followed<'_>,
        tracker: &mut Tracker,
        outcomes: &mut [Outcome],
        events: &mut Events,
    ) -> u64 {
        let Followed { now, frames, handed, .. } = burst;
        self.over = self.follow.as_deref().is_none_or(|follow| now > follow.until);
        self.fill_up(now);
        let (mut from, mut untold) = (0, 0);
        for (at, frame) in frames.iter().enumerate() {
            // A look costs a packet as much as its tracking does. Where it can lead to nothing the rest goes as fast as ever.
            if self.over || self.left == 0 {
                untold = if self.over { 0 } else { (frames.len() - at) as u64 };
                break;
            }
            let look = tracker.look(now, frame, handed);
            if !self.means(|follow| follow.filter.may_mean(&look)) {
                continue;
            }
            self.left -= 1;
            burst.pass(from..at, tracker, outcomes, events);
            // Those before it may have made its flow, or changed it.
            let look = tracker.look(now, frame, handed);
            burst.pass(at..at + 1, tracker, outcomes, events);
            if self.means(|follow| follow.filter.means(&look)) {
                let explained = tracker.explain(now, frame, &look, &outcomes[at]);
                (burst.followed)(&Explained { place: at as u16, ..explained });
            }
            from = at + 1;
        }
        burst.pass(from..frames.len(), tracker, outcomes, events);
        untold
    }

    fn means(&self, means: impl FnOnce(&Follow) -> bool) -> bool {
        self.follow.as_deref().is_some_and(means)
    }

    fn fill_up(&mut self, now: Tick) {
        let window = now.0 / u64::from(PER_SECOND / WINDOWS_PER_SECOND);
        if window != self.window {
            (self.window, self.left) = (window, PER_WINDOW);
        }
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

#[cfg(test)]
mod tests {
    use conntrack::policy::{Policy, Role};
    use conntrack::table::memory::Memory;
    use conntrack::track::settings::{Profile, Settings};
    use conntrack::tracker::{Limits, OnFull, Verdict};
    use conntrack::wire::{Checksum, Link};

    use super::*;
    use crate::filter::Filter;

    /// Of a protocol without ports, from 10.0.0.`host`.
    fn packet(host: u8) -> [u8; 20] {
        let mut packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, host, 198, 18, 0, 1];
        let sum: u32 = packet.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        packet[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        packet
    }

    struct Bench {
        tracker: Tracker,
        following: Following,
    }

    impl Bench {
        /// Follows what comes from 10.0.0.1, until 20 s.
        fn new() -> Self {
            let limits = Limits { max_entries: 64, max_datagrams: 1, hash_key: [1, 2, 3, 4] };
            let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
            let settings = Settings::new(Profile::Linux);
            let tracker =
                Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::DropNew, memory).unwrap();
            let filter = Filter { src: Some("10.0.0.1".parse().unwrap()), ..Filter::default() };
            let mut following = Following::default();
            following.set(&mut Some(Box::new(Follow { filter, until: Tick(20 * u64::from(PER_SECOND)) })));
            Self { tracker, following }
        }

        /// A burst of packets of these hosts: those told of, and how many came when none might be.
        fn burst(&mut self, now: Tick, hosts: &[u8]) -> (usize, u64) {
            let packets: Vec<_> = hosts.iter().map(|&host| packet(host)).collect();
            let frame = |bytes| Frame {
                bytes,
                link: Link::Ip,
                role: Role::Inside,
                zone: 0,
                checksum: Checksum::Unknown,
            };
            let frames: Vec<_> = packets.iter().map(|packet| frame(packet.as_slice())).collect();
            let mut outcomes =
                vec![Outcome::untold(Verdict::HandOff(conntrack::key::owner::WorkerId(9))); frames.len()];
            let mut told = 0;
            let burst = Followed {
                now,
                frames: &frames,
                handed: false,
                followed: &mut |_| told += 1,
                recorded: &mut |_| (),
            };
            let untold = self.following.track(burst, &mut self.tracker, &mut outcomes, &mut Events::none());
            assert!(outcomes.iter().all(|outcome| outcome.verdict == Verdict::Forward), "each is tracked");
            (told, untold)
        }
    }

    #[test]
    fn who_may_tell_nothing_more_looks_at_no_packet_until_the_next_tenth_of_a_second() {
        let mut bench = Bench::new();
        let start = Tick(10 * u64::from(PER_SECOND));
        let told: usize = (0..3).map(|_| bench.burst(start, &[1; 32]).0).sum();
        assert_eq!(told, 96);
        // Not meant and looked at, then meant until the last that may be told; what is behind it is not known to be meant.
        assert_eq!(bench.burst(start, &[2, 1, 2, 1, 1, 1, 2, 1, 2]), (4, 3));
        assert_eq!(bench.burst(start, &[2; 32]), (0, 32), "nobody meant them, and nobody looked");
        let next = Tick(start.0 + u64::from(PER_SECOND / WINDOWS_PER_SECOND));
        assert_eq!(bench.burst(next, &[2, 1, 2]), (1, 0));
        assert!(bench.following.is_on());
    }

    #[test]
    fn after_its_time_nothing_is_told_or_counted() {
        let mut bench = Bench::new();
        assert_eq!(bench.burst(Tick(20 * u64::from(PER_SECOND)), &[1, 2]), (1, 0));
        assert_eq!(bench.burst(Tick(20 * u64::from(PER_SECOND) + 1), &[1; 32]), (0, 0));
        assert!(!bench.following.is_on());
    }
}
