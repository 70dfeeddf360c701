//! What other timeouts would do, before they are set: how many flows would go now, and how many would have gone that
//! spoke again later. Reads the table and what [`super::pauses`] has recorded; changes nothing.

use super::pauses::{Kind, PAUSE_MIN};
use super::{Between, Cursor, Tracker};
use crate::tick::{Tick, until};
use crate::track::timeout::{TimeoutKey, Timeouts};

/// The answer, from one worker or added up over all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Flows in the table.
    pub entries: u64,
    /// Flows that spoke again after a silence for which the new timeouts would have ended them.
    pub cut: Between,
    /// By the timeout that the flows are on, as [`TimeoutKey::ALL`].
    pub rows: [Row; TimeoutKey::ALL.len()],
    /// How often connections went from pauses with data waiting to pauses without, or back: they may be counted twice.
    pub crowded: u64,
    /// A timeout is asked about that is shorter than the shortest pause that is recorded: more flows than `cut` says may
    /// have had one.
    pub partial: bool,
}

/// The flows that are on one timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub flows: u64,
    /// Those that have been silent for as long as they would be given, or longer.
    pub would_go: u64,
    pub cut: Between,
}

impl Between {
    /// Both at once; who is in one is not in the other.
    pub fn add(&mut self, other: Self) {
        self.at_least += other.at_least;
        self.at_most += other.at_most;
    }

    /// Either; who is in one may be in the other.
    fn join(&mut self, other: Self) {
        self.at_least = self.at_least.max(other.at_least);
        self.at_most += other.at_most;
    }
}

impl Forecast {
    /// Adds what another worker says, whose flows are others.
    pub fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.cut.add(other.cut);
        self.crowded += other.crowded;
        self.partial |= other.partial;
        for (row, more) in self.rows.iter_mut().zip(&other.rows) {
            row.flows += more.flows;
            row.would_go += more.would_go;
            row.cut.add(more.cut);
        }
    }

    /// Flows that would go now.
    pub fn would_go(&self) -> u64 {
        self.rows.iter().map(|row| row.would_go).sum()
    }
}

/// Slots of the table that one slice of a forecast looks at: some 4 us, less than a burst.
const WHAT_IF_SLOTS: u32 = 256;

impl Tracker {
    /// Says what `timeouts` would do, a slice of the table a call: [`WHAT_IF_SLOTS`] slots from `from` on. Gives where to go
    /// on, or `None` at the end. Call it first with the default cursor and an empty forecast.
    pub fn what_if(
        &self,
        now: Tick,
        from: Cursor,
        timeouts: &Timeouts,
        forecast: &mut Forecast,
    ) -> Option<Cursor> {
        let (flows, present) = (&self.core.flows, &self.core.settings.timeouts);
        if from == Cursor::default() {
            for kind in Kind::all().filter(|kind| kind.span(timeouts) < kind.span(present)) {
                let cut = flows.pauses.reaching(kind, kind.span(timeouts));
                forecast.partial |= kind.span(timeouts) < PAUSE_MIN;
                forecast.rows[kind.key() as usize].cut.join(cut);
                forecast.cut.join(cut);
            }
            forecast.crowded += flows.pauses.crowded();
        }
        let end = from.0.saturating_add(WHAT_IF_SLOTS);
        for (_, entry) in flows.table.live(from.0..end) {
            if until(entry.head.deadline, now.low()) <= 0 {
                continue;
            }
            forecast.entries += 1;
            let Some(&key) = TimeoutKey::ALL.get(usize::from(entry.head.timeout())) else { continue };
            let row = &mut forecast.rows[key as usize];
            row.flows += 1;
            let kind = Kind::of(entry.key.proto, entry.head, key);
            let shorter = kind.span(timeouts) < kind.span(present);
            let silent = flows.pauses.silence(now, entry.head).map_or(0, |(_, silent)| silent);
            row.would_go += u64::from(shorter && silent >= kind.span(timeouts).0);
        }
        (end < flows.table.used_slots()).then_some(Cursor(end))
    }
}
