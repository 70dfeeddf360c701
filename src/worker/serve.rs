//! Commands between bursts: one slice of work a turn, in the order of asking. Owns the command in hand.
//! What takes long (a listing, a flush) is cut into slices, so that no packet waits for more than one of them.

use conntrack::event::{Events, FlowView};
use conntrack::tick::{PER_SECOND, Tick, Ticks};
use conntrack::tracker::Tracker;

use super::clock::{Clock, Reading};
use super::follow::Following;
use crate::bus::WorkerEnd;
use crate::bus::agreement::Decision;
use crate::bus::command::{Command, Edits, Page, Rules, Ticket};
use crate::bus::report::WorkCounters;

/// Flows copied out in one turn: about 3 us of work, less than a burst.
const PAGE_SLICE: usize = 32;

/// Flows ended in one turn; each may make an event.
pub(super) const FLUSH_SLICE: u32 = 64;

/// Flows looked up and changed in one turn; each may make an event.
const EDIT_SLICE: usize = 32;

/// Slices after which a part goes back, however much is left: control takes a worker that is silent for two seconds for
/// stuck, and a table may have 100 million slots. A full page takes half as many.
const SLICES: u32 = 256;

/// Packets for each slice of a listing, while packets come turn after turn: a slice costs as much as some 40 of them, so
/// that a listing takes one part in a hundred of a busy worker, however fast its reader is.
const PACKETS_PER_LISTED: u64 = 4096;

/// After so long a part of a listing goes back, however little is in it: see [`SLICES`].
const PART_TIME: Ticks = Ticks(PER_SECOND / 5);

/// What a command may look at and change.
pub(super) struct Desk<'a> {
    pub(super) now: Tick,
    pub(super) tracker: &'a mut Tracker,
    pub(super) clock: &'a mut Clock,
    pub(super) events: &'a mut Events,
    pub(super) work: &'a WorkCounters,
    pub(super) expiry_lag: Ticks,
    pub(super) following: &'a mut Following,
    /// Has this worker leave a port alone, or use it again; gives whether that could be done.
    pub(super) set_running: &'a mut dyn FnMut(usize, bool) -> bool,
}

/// The command in hand and where it stands.
#[derive(Debug)]
pub(super) struct Serve {
    in_hand: Option<Ticket>,
    /// Done of it.
    slices: u32,
    since: Tick,
    slice: Vec<FlowView>,
    /// Packets that had come at the last slice of a listing, and at the last turn with a listing in hand.
    listed_at: u64,
    looked_at: u64,
}

impl Serve {
    /// Nothing in hand; the room for slices is taken here.
    pub(super) fn new() -> Self {
        let slice = Vec::with_capacity(PAGE_SLICE);
        Self { in_hand: None, slices: 0, since: Tick(0), slice, listed_at: 0, looked_at: 0 }
    }

    /// Does one slice. Gives whether there was anything to do.
    pub(super) fn turn(&mut self, bus: &WorkerEnd, desk: Desk<'_>) -> bool {
        if self.in_hand.is_none() {
            self.in_hand = bus.next_command();
            self.slices = 0;
            self.since = desk.now;
        }
        let Some(mut ticket) = self.in_hand.take() else { return false };
        if matches!(ticket.command, Command::Page(_) | Command::WhatIf(_)) {
            let late = desk.now >= self.since.after(PART_TIME);
            if late && self.slices > 0 {
                bus.answer(ticket);
                return true;
            }
            if !self.may_list(desk.work) && !late {
                self.in_hand = Some(ticket);
                return false;
            }
        }
        self.slices += 1;
        if self.slice_of(&mut ticket.command, bus, desk) || self.slices >= SLICES {
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
                let Some(from) = flush.from else { return true };
                let before = desk.tracker.len();
                flush.from = desk.tracker.flush(desk.now, from, FLUSH_SLICE, desk.events);
                flush.ended += u64::from(before.saturating_sub(desk.tracker.len()));
                flush.from.is_none()
            }
            Command::Edit(edits) => edit(edits, desk),
            Command::Configure(change) => {
                // Until it is decided it stays in hand, however many turns that takes; control decides in time.
                self.slices = 0;
                match change.agreement.stand_by(change.worker) {
                    Decision::Open => return false,
                    Decision::Made => {
                        let Rules { settings, policy, on_full } = change.rules;
                        desk.tracker.configure(settings, policy, on_full);
                    }
                    Decision::Dropped => {}
                }
                true
            }
            Command::WhatIf(asked) => {
                let Some(from) = asked.from else { return true };
                asked.from = desk.tracker.what_if(desk.now, from, &asked.timeouts, &mut asked.forecast);
                asked.from.is_none()
            }
            Command::Snapshot(snapshot) => {
                snapshot.at = desk.now;
                snapshot.entries = desk.tracker.len();
                snapshot.listing_end = desk.tracker.listing_end();
                // These are arrays of numbers, so that cloning allocates nothing.
                snapshot.states.clone_from(desk.tracker.states());
                snapshot.tracker.clone_from(desk.tracker.counters());
                snapshot.work = *desk.work;
                snapshot.expiry_lag = desk.expiry_lag;
                snapshot.events_lost = bus.events_lost();
                true
            }
            Command::Listen(told) => {
                desk.events.set_told(*told);
                true
            }
            Command::Follow(follow) => {
                desk.following.set(follow);
                true
            }
            Command::Port { port, running, done } => {
                *done = (desk.set_running)(*port, *running);
                true
            }
            Command::Clock { tsc, boot_ns } => {
                desk.clock.correct(Reading { tsc: *tsc, boot_ns: *boot_ns });
                true
            }
        }
    }

    /// Whether packets leave time for a slice of a listing: none came since the last turn, or enough since the last slice.
    fn may_list(&mut self, work: &WorkCounters) -> bool {
        let packets = work.rx_packets + work.handed_in;
        let quiet = packets == self.looked_at;
        self.looked_at = packets;
        let may = quiet || packets - self.listed_at >= PACKETS_PER_LISTED;
        if may {
            self.listed_at = packets;
        }
        may
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

/// Gives whether every flow was looked at. A page's worth of flows is fewer than [`SLICES`] slices.
fn edit(edits: &mut Edits, desk: Desk<'_>) -> bool {
    let end = edits.flows.len().min(edits.next + EDIT_SLICE);
    for at in edits.next..end {
        if let Some(now) = desk.tracker.edit(desk.now, &edits.flows[at], edits.edit, desk.events) {
            edits.flows[edits.done] = now;
            edits.done += 1;
        }
    }
    edits.next = end;
    end == edits.flows.len()
}

#[cfg(test)]
mod tests {
    use conntrack::event::Events;
    use conntrack::policy::Policy;
    use conntrack::table::memory::Memory;
    use conntrack::track::settings::{Profile, Settings};
    use conntrack::tracker::{Cursor, Frame, Limits, OnFull, Outcome, Verdict};
    use conntrack::wire::{Checksum, Link};

    use super::*;
    use crate::bus;
    use crate::bus::command::{Edits, Flush};
    use conntrack::tracker::Edit;

    /// More than a part's worth of flows of a protocol without ports: the address tells them apart.
    const FLOWS: u32 = 2 * SLICES * FLUSH_SLICE;

    fn full() -> Tracker {
        let limits = Limits { max_entries: FLOWS, max_datagrams: 1, hash_key: [1, 2, 3, 4] };
        let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
        let settings = Settings::new(Profile::Linux);
        let mut tracker =
            Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::DropNew, memory).unwrap();
        for number in 0..FLOWS {
            let mut packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 0, 198, 18, 0, 1];
            packet[12..16].copy_from_slice(&(0x0a00_0000 | number).to_be_bytes());
            let sum: u32 = packet.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
            let sum = (sum & 0xffff) + (sum >> 16);
            packet[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
            let frame = Frame {
                bytes: &packet,
                link: Link::Ip,
                role: conntrack::policy::Role::Inside,
                zone: 0,
                checksum: Checksum::Unknown,
            };
            let mut outcomes = [Outcome::untold(Verdict::Forward)];
            tracker.on_burst(Tick(1), &[frame], &mut outcomes, &mut Events::none());
        }
        assert_eq!(tracker.len(), FLOWS);
        tracker
    }

    /// The command as it comes back, and the turns that it took.
    fn ask(serve: &mut Serve, tracker: &mut Tracker, command: Command) -> (Command, u32) {
        let (control, worker) = bus::pair();
        control.send(Ticket { number: 1, command }).unwrap();
        let mut clock = Clock::new(Reading { tsc: 0, boot_ns: 0 }, 1);
        let work = WorkCounters::default();
        for turn in 1.. {
            let events = &mut Events::none();
            let expiry_lag = Ticks::default();
            let set_running = &mut |_, _| true;
            let following = &mut Following::default();
            let desk = Desk {
                now: Tick(2),
                tracker,
                clock: &mut clock,
                events,
                work: &work,
                expiry_lag,
                following,
                set_running,
            };
            serve.turn(&worker, desk);
            if let Some(ticket) = control.next_answer() {
                return (ticket.command, turn);
            }
        }
        unreachable!("turns end with an answer")
    }

    #[test]
    fn a_large_table_is_flushed_in_parts_that_answer_in_time() {
        let (mut serve, mut tracker) = (Serve::new(), full());
        let (mut part, mut parts) = (Flush::new(), 0);
        while part.from.is_some() {
            let (answer, turns) = ask(&mut serve, &mut tracker, Command::Flush(part));
            assert!(turns <= SLICES, "{turns} turns without an answer");
            let Command::Flush(answer) = answer else { panic!("{answer:?}") };
            part = answer;
            parts += 1;
        }
        assert_eq!((part.ended, tracker.len(), parts), (u64::from(FLOWS), 0, 2));
        // Slots that once held flows are all that is left, and a listing passes them in parts too.
        let page = Command::Page(Box::new(Page::with_capacity(PAGE_SLICE)));
        let (Command::Page(page), _) = ask(&mut serve, &mut tracker, page) else { panic!("no page") };
        assert_eq!((page.flows.len(), page.from), (0, None::<Cursor>));
    }

    #[test]
    fn a_listing_waits_for_packets_to_be_served_and_comes_back_in_time_all_the_same() {
        let (mut serve, mut tracker) = (Serve::new(), full());
        let (control, worker) = bus::pair();
        let mut clock = Clock::new(Reading { tsc: 0, boot_ns: 0 }, 1);
        let mut work = WorkCounters::default();
        let page = || Command::Page(Box::new(Page::with_capacity(1024)));
        // Turns until the page is back, each with so many packets before it and so many ticks after the last.
        let mut ask = |packets: u64, ticks: u64| {
            control.send(Ticket { number: 1, command: page() }).unwrap();
            for turn in 1_u64.. {
                work.rx_packets += packets;
                let now = Tick(1000 + turn * ticks);
                let (events, expiry_lag) = (&mut Events::none(), Ticks::default());
                let (tracker, clock, work) = (&mut tracker, &mut clock, &work);
                let set_running = &mut |_, _| true;
                let following = &mut Following::default();
                let desk = Desk { now, tracker, clock, events, work, expiry_lag, following, set_running };
                serve.turn(&worker, desk);
                if let Some(Ticket { command: Command::Page(page), .. }) = control.next_answer() {
                    return (turn, page.flows.len());
                }
            }
            unreachable!("turns end with an answer")
        };
        let slices = 1024 / PAGE_SLICE as u64;
        let (turns, flows) = ask(0, 0);
        assert_eq!((turns, flows), (slices, 1024), "nothing else is to be done");
        let (turns, flows) = ask(64, 0);
        let between = PACKETS_PER_LISTED / 64;
        assert!(turns >= (slices - 1) * between && flows == 1024, "{turns} turns with a burst each");
        let (turns, flows) = ask(1, 1);
        assert!(
            turns <= u64::from(PART_TIME.0) + 2 && (PAGE_SLICE..1024).contains(&flows),
            "{turns} slow turns: {flows}"
        );
    }

    #[test]
    fn flows_are_deleted_in_slices_and_those_that_are_gone_are_passed_over() {
        let (mut serve, mut tracker) = (Serve::new(), full());
        let page = Command::Page(Box::new(Page::with_capacity(4 * EDIT_SLICE)));
        let (Command::Page(page), _) = ask(&mut serve, &mut tracker, page) else { panic!("no page") };
        let mut flows = page.flows;
        flows.insert(1, flows[0]);
        let edits = Command::Edit(Box::new(Edits::new(Edit::Delete, flows.clone())));
        let (Command::Edit(edits), turns) = ask(&mut serve, &mut tracker, edits) else { panic!("no edits") };
        assert_eq!((edits.done, turns), (flows.len() - 1, 5));
        assert_eq!((tracker.len(), edits.flows[1].id), (FLOWS - 4 * EDIT_SLICE as u32, flows[2].id));
    }
}
