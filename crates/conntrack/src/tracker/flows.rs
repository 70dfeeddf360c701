//! The flows of one core: table, wheel and cold part kept in step. A flow is made, moved and ended only here.

use crate::event::{DestroyReason, Event, EventKind, Events, FlowView, Snapshot};
use crate::fault::{Fault, planted};
use crate::key::{Direction, FlowKey, Side};
use crate::table::cold::Cold;
use crate::table::entry::{Entry, Head, Vars, status};
use crate::table::memory::Memory;
use crate::table::{FlowIndex, Full, PrefetchHint, Table};
use crate::tick::{Tick, until};
use crate::timer::wheel::Wheel;
use crate::track::settings::Settings;
use crate::zone::Member;

use super::pauses::Pauses;
use super::{Counters, StateCounts};

/// The flows of one core.
#[derive(Debug)]
pub(super) struct Flows {
    pub(super) table: Table,
    pub(super) wheel: Wheel,
    pub(super) cold: Cold,
    pub(super) pauses: Pauses,
    pub(super) states: StateCounts,
    pub(super) accounting: bool,
    /// Who counts flows by zone; without it there are no limits.
    pub(super) zones: Option<Member>,
    /// Told apart: two flows that follow each other in one slot within a tick.
    incarnation: u8,
}

/// Why a flow was not made.
pub(super) type Refused = Full;

/// How a flow looked before a step, to see afterwards what has changed.
#[derive(Clone, Copy)]
pub(super) struct Before {
    state: u8,
    status: u16,
}

impl Flows {
    pub(super) fn memory_bytes(max_entries: u32) -> usize {
        <Table>::memory_bytes(max_entries)
            + Wheel::memory_bytes(max_entries)
            + Cold::memory_bytes(max_entries)
            + Pauses::memory_bytes(max_entries)
    }

    pub(super) fn new(
        max_entries: u32,
        settings: &Settings,
        hint: PrefetchHint,
        memory: &mut Memory,
    ) -> Option<Self> {
        Some(Self {
            table: Table::new(max_entries, hint, memory)?,
            wheel: Wheel::new(max_entries, memory)?,
            cold: Cold::new(max_entries, memory)?,
            pauses: Pauses::new(max_entries, &settings.timeouts, memory)?,
            states: StateCounts::default(),
            accounting: settings.accounting,
            zones: None,
            incarnation: 0,
        })
    }

    /// Counts a flow that is about to be made; false if its zone is full.
    #[inline(always)]
    pub(super) fn admit(&self, zone: u16) -> bool {
        self.zones.as_ref().is_none_or(|zones| zones.admit(zone))
    }

    /// Forgets a flow that has ended, or was not made after all.
    #[inline(always)]
    pub(super) fn leave(&self, zone: u16) {
        if let Some(zones) = &self.zones {
            zones.leave(zone);
        }
    }

    /// Puts the flow that was made in a slot of the table in. Where there is no room the slot stays taken.
    #[inline(always)]
    pub(super) fn make(&mut self, now: Tick, hash: u64, flow: FlowIndex) -> Result<(), Refused> {
        self.table.commit(hash, flow)?;
        self.incarnation = self.incarnation.wrapping_add(1);
        let entry = self.table.entry_mut(flow);
        entry.head.status |= u16::from(self.incarnation) << status::INCARNATION_SHIFT;
        self.states.add(entry);
        self.arm(now, flow);
        Ok(())
    }

    /// Takes a flow out and tells of it.
    pub(super) fn end(
        &mut self,
        now: Tick,
        hash: u64,
        flow: FlowIndex,
        reason: DestroyReason,
        counters: &mut Counters,
        events: &mut Events,
    ) {
        self.disarm(flow);
        self.bury(now, hash, flow, reason, counters, events);
    }

    /// As [`Flows::end`], for a flow that the wheel holds no reference to any more.
    pub(super) fn bury(
        &mut self,
        now: Tick,
        hash: u64,
        flow: FlowIndex,
        reason: DestroyReason,
        counters: &mut Counters,
        events: &mut Events,
    ) {
        self.settle_pauses();
        counters.destroyed[reason as usize] += 1;
        if events.ends_told() && !planted(Fault::DestroyUntold) {
            self.say(now, flow, EventKind::Destroy(reason), events);
        }
        self.leave(self.table.entry(flow).key.zone);
        self.states.remove(self.table.entry(flow));
        self.cold.forget(flow, self.table.entry_mut(flow));
        let found = self.table.remove(hash, flow);
        debug_assert!(found, "a live flow is in the index under its own hash");
    }

    /// Has the wheel look at the flow at its deadline; it holds no reference to it now.
    #[inline]
    pub(super) fn arm(&mut self, now: Tick, flow: FlowIndex) {
        let entry = self.table.entry_mut(flow);
        let left = until(entry.head.deadline, now.low()).max(0);
        let armed = self.wheel.arm(now, Tick(now.0 + left as u64), flow);
        entry.armed = armed.at;
        entry.wheel_pos = armed.pos;
    }

    fn disarm(&mut self, flow: FlowIndex) {
        let position = self.table.entry(flow).wheel_pos;
        if let Some(moved) = self.wheel.remove(position) {
            self.table.entry_mut(moved.flow).wheel_pos = moved.pos;
        }
    }

    /// After the deadline moved: the wheel must not look later than that.
    #[inline(always)]
    pub(super) fn settle(&mut self, now: Tick, flow: FlowIndex) {
        let entry = self.table.entry(flow);
        if until(entry.head.deadline, entry.armed) < 0 && !planted(Fault::WheelNotSettled) {
            self.disarm(flow);
            self.arm(now, flow);
        }
    }

    /// A packet came to this flow, which had this head before it.
    #[inline(always)]
    pub(super) fn heard(&mut self, now: Tick, flow: FlowIndex, before: Head) {
        if self.pauses.ends(now, before) {
            self.end_pause(now, flow, before);
        }
    }

    #[cold]
    #[inline(never)]
    fn end_pause(&mut self, now: Tick, flow: FlowIndex, before: Head) {
        if self.pauses.are_many() {
            self.pauses.settle(&mut self.table);
        }
        self.pauses.end(now, flow, self.table.entry(flow).key.proto, before);
    }

    /// Keeps the pauses that have ended since; after each burst.
    #[inline(always)]
    pub(super) fn settle_pauses(&mut self) {
        if self.pauses.are_unsettled() {
            self.pauses.settle(&mut self.table);
        }
    }

    /// Counts one packet of `bytes` bytes.
    #[inline(always)]
    pub(super) fn count(&mut self, flow: FlowIndex, direction: Direction, bytes: u32) {
        let bytes = if planted(Fault::BytesOfPayload) { bytes.saturating_sub(20) } else { bytes };
        if self.accounting || planted(Fault::AccountingSwitch) {
            self.cold.count(flow, self.table.entry_mut(flow), direction, bytes);
        }
    }

    /// Gives the flow a mark; 0 takes it away.
    #[inline]
    pub(super) fn set_mark(&mut self, flow: FlowIndex, mark: u32) {
        self.cold.set_mark(flow, self.table.entry_mut(flow), mark);
    }

    pub(super) fn before(entry: &Entry) -> Before {
        Before { state: entry.head.state, status: entry.head.status }
    }

    /// Tells what a step has changed, and what an earlier one left untold.
    #[inline(always)]
    pub(super) fn tell(&mut self, now: Tick, flow: FlowIndex, before: Before, events: &mut Events) {
        let head = self.table.entry(flow).head;
        if head.state != before.state
            || head.status != before.status
            || head.status & status::STATE_CHANGED != 0
            || planted(Fault::UpdateToldTwice)
        {
            self.tell_change(now, flow, before, events);
        }
    }

    #[cold]
    fn tell_change(&mut self, now: Tick, flow: FlowIndex, before: Before, events: &mut Events) {
        let changed = self.recount(flow, before);
        self.table.entry_mut(flow).head.status &= !status::STATE_CHANGED;
        if (changed || planted(Fault::UpdateToldTwice)) && events.enabled() && !planted(Fault::UpdateUntold) {
            self.say(now, flow, EventKind::Update, events);
        }
    }

    /// What a step has changed although its packet was INVALID is told with the flow's next packet.
    #[inline(always)]
    pub(super) fn keep_for_later(&mut self, flow: FlowIndex, before: Before) {
        if self.recount(flow, before) && !planted(Fault::LateChangeUntold) {
            self.table.entry_mut(flow).head.status |= status::STATE_CHANGED;
        }
    }

    /// Counts the flow under its present state; true if there is something to tell.
    fn recount(&mut self, flow: FlowIndex, before: Before) -> bool {
        const FACTS: u16 = status::SEEN_REPLY | status::ASSURED;
        let entry = self.table.entry(flow);
        let (l4, head) = (entry.key.proto, entry.head);
        self.states.shift(l4, (before.state, before.status), (head.state, head.status));
        head.status & status::STATE_CHANGED != 0
            || head.state != before.state
            || (head.status ^ before.status) & FACTS != 0
    }

    /// A copy of the flow for people and machines to read.
    pub(super) fn view(&self, now: Tick, flow: FlowIndex) -> FlowView {
        self.snapshot(now, flow).view()
    }

    /// Tells of the flow as it is now.
    #[inline(always)]
    pub(super) fn say(&self, now: Tick, flow: FlowIndex, kind: EventKind, events: &mut Events) {
        events.tell(&Event { kind, snapshot: self.snapshot(now, flow) });
    }

    #[inline(always)]
    fn snapshot(&self, now: Tick, flow: FlowIndex) -> Snapshot {
        Snapshot::of(now, flow, self.table.entry(flow), &self.cold, self.accounting)
    }
}

/// Makes a slot's entry one of a flow that has just been seen, before its first step.
#[inline(always)]
pub(super) fn begin(entry: &mut Entry, key: &FlowKey, side: Side, now: Tick) {
    let original = if side == Side::Hi { status::ORIGINAL_HI } else { 0 };
    let mirror = if key.is_mirror() && !planted(Fault::KeyMirror) { status::MIRROR } else { 0 };
    entry.key = *key;
    entry.head = Head { status: original | mirror, ..Head::default() };
    (entry.packets, entry.bytes) = ([0; 2], [0; 2]);
    (entry.armed, entry.wheel_pos) = (0, 0);
    entry.created = now.low();
    entry.vars = Vars::ZERO;
}
