//! Commands between bursts: one slice of work a turn, in the order of asking. Owns the command in hand.
//! What takes long (a listing, a flush) is cut into slices, so that no packet waits for more than one of them.

use conntrack::event::{Events, FlowView};
use conntrack::tick::{Tick, Ticks};
use conntrack::tracker::{Cursor, Tracker};

use super::clock::{Clock, Reading};
use crate::bus::WorkerEnd;
use crate::bus::command::{Command, Page, Ticket};
use crate::bus::report::WorkCounters;

/// Flows copied out in one turn: about 3 us of work, less than a burst.
const PAGE_SLICE: usize = 32;

/// Flows ended in one turn; each may make an event.
pub(super) const FLUSH_SLICE: u32 = 64;

/// What a command may look at and change.
pub(super) struct Desk<'a> {
    pub(super) now: Tick,
    pub(super) tracker: &'a mut Tracker,
    pub(super) clock: &'a mut Clock,
    pub(super) events: &'a mut Events,
    pub(super) work: &'a WorkCounters,
    pub(super) expiry_lag: Ticks,
}

/// The command in hand and where it stands.
#[derive(Debug)]
pub(super) struct Serve {
    in_hand: Option<Ticket>,
    flush_from: Cursor,
    slice: Vec<FlowView>,
}

impl Serve {
    /// Nothing in hand; the room for slices is taken here.
    pub(super) fn new() -> Self {
        Self { in_hand: None, flush_from: Cursor::default(), slice: Vec::with_capacity(PAGE_SLICE) }
    }

    /// Does one slice. Gives whether there was anything to do.
    pub(super) fn turn(&mut self, bus: &WorkerEnd, desk: Desk<'_>) -> bool {
        if self.in_hand.is_none() {
            self.in_hand = bus.next_command();
            self.flush_from = Cursor::default();
        }
        let Some(mut ticket) = self.in_hand.take() else { return false };
        if self.slice_of(&mut ticket.command, bus, desk) {
            bus.answer(ticket);
        } else {
            self.in_hand = Some(ticket);
        }
        true
    }

    /// Gives whether the command is done.
    fn slice_of(&mut self, command: &mut Command, bus: &WorkerEnd, desk: Desk<'_>) -> bool {
        match command {
            Command::Page(page) => self.page(page, &desk),
            Command::Flush(flush) => {
                let before = desk.tracker.len();
                let next = desk.tracker.flush(desk.now, self.flush_from, FLUSH_SLICE, desk.events);
                flush.ended += u64::from(before.saturating_sub(desk.tracker.len()));
                self.flush_from = next.unwrap_or_default();
                next.is_none()
            }
            Command::SetTimeout { key, value } => {
                desk.tracker.set_timeout(*key, *value);
                true
            }
            Command::Configure(rules) => {
                desk.tracker.configure(rules.settings, rules.policy, rules.on_full);
                true
            }
            Command::Snapshot(snapshot) => {
                snapshot.at = desk.now;
                snapshot.entries = desk.tracker.len();
                // These are arrays of numbers, so that cloning allocates nothing.
                snapshot.states.clone_from(desk.tracker.states());
                snapshot.tracker.clone_from(desk.tracker.counters());
                snapshot.work = *desk.work;
                snapshot.expiry_lag = desk.expiry_lag;
                snapshot.events_lost = bus.events_lost();
                true
            }
            Command::Listen(on) => {
                desk.events.set_enabled(*on);
                true
            }
            Command::Clock { tsc, boot_ns } => {
                desk.clock.correct(Reading { tsc: *tsc, boot_ns: *boot_ns });
                true
            }
        }
    }

    fn page(&mut self, page: &mut Page, desk: &Desk<'_>) -> bool {
        let Some(from) = page.from else { return true };
        let room = page.flows.capacity() - page.flows.len();
        if room < PAGE_SLICE {
            return true;
        }
        self.slice.clear();
        page.from = desk.tracker.page(desk.now, from, &mut self.slice);
        page.at = desk.now;
        page.flows.extend_from_slice(&self.slice);
        page.from.is_none() || room - self.slice.len() < PAGE_SLICE
    }
}
