//! Time as the tracker sees it: a count of 4 ms ticks since some start that the caller chose.
//! Nothing here reads a clock; `now` is always an argument.

/// A moment, in ticks of 4 ms (250 a second, as the kernel's jiffies on which the recorded facts rest).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

/// A span of time, in ticks. At most [`Ticks::MAX`], so that the signed difference of two 32-bit tick counts
/// is always right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u32);

/// Ticks in one second.
pub const PER_SECOND: u32 = 250;

impl Tick {
    /// The moment `ms` milliseconds after the start, rounded down to a tick.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * PER_SECOND as u64 / 1000)
    }

    /// The moment `ns` nanoseconds after the start, rounded down to a tick.
    pub const fn from_nanos(ns: u64) -> Self {
        Self(ns / (1_000_000_000 / PER_SECOND as u64))
    }

    /// Milliseconds since the start.
    pub const fn as_millis(self) -> u64 {
        self.0 * 1000 / PER_SECOND as u64
    }

    /// The low 32 bits, which entries store; compare two of them with [`until`].
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// This moment plus `span`.
    pub const fn after(self, span: Ticks) -> Self {
        Self(self.0 + span.0 as u64)
    }
}

impl Ticks {
    /// The longest span that can be told from one that has passed: 90 days.
    pub const MAX: Self = Self::from_secs(90 * 86_400);

    /// A span of whole seconds.
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds * PER_SECOND)
    }

    /// Whole seconds, rounded down.
    pub const fn as_secs(self) -> u32 {
        self.0 / PER_SECOND
    }

    /// Seconds with their fraction.
    pub fn as_secs_f64(self) -> f64 {
        f64::from(self.0) / f64::from(PER_SECOND)
    }
}

/// Ticks from `now` until `deadline`, both low 32 bits; zero or less means that it has passed.
/// Serial arithmetic: right while the true distance is below 2^31 ticks (99 days).
#[inline(always)]
pub const fn until(deadline: u32, now: u32) -> i32 {
    deadline.wrapping_sub(now) as i32
}
