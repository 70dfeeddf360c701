//! The one place that reads time: the CPU's time stamp counter, set by the machine's boot clock.
//! A reading costs no system call. Everything else gets `now` as an argument.

use conntrack::tick::Tick;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The most that one reading moves time on. A worker that was stopped (a paused machine, a debugger) comes back
/// with packets waiting that refresh their flows; time that catches up a second a turn lets them be seen before
/// their flows expire.
const STRIDE_NS: u64 = SECOND;

/// The shortest span between two readings of the boot clock from which a rate is taken: reading both clocks is
/// uncertain by some 100 ns, which is 1 part in 10 million of it.
const RATE_SPAN_NS: u64 = SECOND;

/// The two clocks, read at (nearly) the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub tsc: u64,
    /// Nanoseconds since the machine booted, suspended time included (CLOCK_BOOTTIME).
    pub boot_ns: u64,
}

/// Reads the counter and the boot clock together: the best of a few tries, since the thread may lose its core
/// between the two.
pub fn read() -> Reading {
    let once = || {
        let before = dpdk::eal::cycles();
        let boot_ns = boot_ns();
        let after = dpdk::eal::cycles();
        (after.saturating_sub(before), Reading { tsc: before + after.saturating_sub(before) / 2, boot_ns })
    };
    let first = once();
    (0..4).map(|_| once()).fold(first, |best, other| if other.0 < best.0 { other } else { best }).1
}

fn boot_ns() -> u64 {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    boot.tv_sec.unsigned_abs() * SECOND + boot.tv_nsec.unsigned_abs()
}

/// Milliseconds since 1970 at which the machine booted, by the wall clock as it is now. Asked anew for whatever is told:
/// the clock is often set only after the start, by NTP on a machine that has none of its own.
pub fn boot_unix_ms() -> u64 {
    let once = || {
        let before = boot_ns();
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let after = boot_ns();
        let unix_ns = u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX);
        (after.saturating_sub(before), unix_ns.saturating_sub(before.midpoint(after)))
    };
    let first = once();
    let (_, boot_unix_ns) =
        (0..2).map(|_| once()).fold(first, |best, other| if other.0 < best.0 { other } else { best });
    // To the nearest, so that what is left of the span between two readings seldom moves it.
    boot_unix_ns.saturating_add(500_000) / 1_000_000
}

/// Turns counter readings into boot time. Never goes back.
#[derive(Clone, Debug)]
pub struct Clock {
    anchor: Reading,
    /// Nanoseconds per count, in 32.32 fixed point.
    rate: u64,
    last_ns: u64,
    last_tsc: u64,
}

impl Clock {
    /// A clock that starts at `anchor` and counts `tsc_hz` to the second.
    pub fn new(anchor: Reading, tsc_hz: u64) -> Self {
        let rate = ((u128::from(SECOND) << 32) / u128::from(tsc_hz.max(1))) as u64;
        Self { anchor, rate, last_ns: anchor.boot_ns, last_tsc: anchor.tsc }
    }

    /// Boot time at counter reading `tsc`.
    #[inline]
    pub fn now(&mut self, tsc: u64) -> Tick {
        let elapsed = tsc.saturating_sub(self.anchor.tsc);
        let ns = self.anchor.boot_ns.saturating_add(self.nanos(elapsed));
        self.last_ns = ns.clamp(self.last_ns, self.last_ns.saturating_add(STRIDE_NS));
        Tick::from_nanos(self.last_ns)
    }

    /// Nanoseconds between the last call and this one.
    #[inline]
    pub fn lap(&mut self, tsc: u64) -> u64 {
        let elapsed = tsc.saturating_sub(self.last_tsc);
        self.last_tsc = tsc;
        self.nanos(elapsed)
    }

    /// Nanoseconds since counter reading `tsc`, as it is when this is called.
    pub fn since(&self, tsc: u64) -> u64 {
        self.nanos(dpdk::eal::cycles().saturating_sub(tsc))
    }

    /// Corrects the clock by a newer reading of both: its rate by the span since the last one, and where it stands.
    pub fn correct(&mut self, reading: Reading) {
        let counts = reading.tsc.saturating_sub(self.anchor.tsc);
        let ns = reading.boot_ns.saturating_sub(self.anchor.boot_ns);
        if counts == 0 || ns < RATE_SPAN_NS {
            return;
        }
        self.rate = u64::try_from((u128::from(ns) << 32) / u128::from(counts)).unwrap_or(u64::MAX);
        self.anchor = reading;
    }

    #[inline]
    fn nanos(&self, counts: u64) -> u64 {
        ((u128::from(counts) * u128::from(self.rate)) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Reading = Reading { tsc: 5_000, boot_ns: 10 * SECOND };

    #[test]
    fn a_second_of_counts_is_a_second_of_ticks() {
        let mut clock = Clock::new(START, 2_000_000_000);
        assert_eq!(clock.now(5_000), Tick(2_500));
        assert_eq!(clock.now(5_000 + 1_000_000_000), Tick(2_625));
        assert_eq!(clock.now(5_000 + 2_000_000_000), Tick(2_750));
    }

    #[test]
    fn five_days_are_right_to_a_tick() {
        let hz = 2_599_998_123;
        let mut clock = Clock::new(Reading { tsc: 0, boot_ns: 0 }, hz);
        let seconds = 5 * 86_400;
        let mut now = Tick(0);
        for second in 0..=seconds {
            now = clock.now(second * hz);
        }
        assert!(now.0.abs_diff(seconds * 250) <= 1, "{now:?}");
    }

    #[test]
    fn a_wrong_rate_is_corrected_and_time_never_goes_back() {
        // The counter is said to be 1 % slower than it is.
        let mut clock = Clock::new(START, 990_000_000);
        let mut last = Tick(0);
        for second in 1..=120 {
            let tsc = START.tsc + second * SECOND;
            let now = clock.now(tsc);
            assert!(now >= last);
            last = now;
            if second % 30 == 0 {
                clock.correct(Reading { tsc, boot_ns: START.boot_ns + second * SECOND });
            }
        }
        assert_eq!(last, Tick((10 + 120) * 250));
    }

    #[test]
    fn a_paused_machine_catches_up_one_second_a_turn() {
        let mut clock = Clock::new(START, SECOND);
        let after = START.tsc + 600 * SECOND;
        assert_eq!(clock.now(after), Tick(2_750));
        assert_eq!(clock.now(after), Tick(3_000));
        for _ in 0..600 {
            clock.now(after);
        }
        assert_eq!(clock.now(after), Tick(610 * 250));
    }

    #[test]
    fn a_counter_that_jumps_back_stops_time_only() {
        let mut clock = Clock::new(START, SECOND);
        let before = clock.now(START.tsc + SECOND);
        assert_eq!(clock.now(0), before);
        assert_eq!(clock.lap(0), 0);
    }
}
