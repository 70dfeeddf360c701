//! One packet told for people: what it looks like, whose it is, which flow it met, what was made of it and why.
//! Reads the tracker before and after a packet and never changes a flow: what is told is what happened, not a second
//! opinion. Copies of fixed size, made only for packets that somebody asked about.

use super::burst::Found;
use super::{Core, Frame, Outcome, Tracker, lacks_syn};
use crate::event::{DestroyReason, FlowView};
use crate::key::Direction;
use crate::policy::{Decision, Role};
use crate::table::FlowIndex;
use crate::tick::{Tick, until};
use crate::track::reason::Reason;
use crate::track::tcp::{self, Missed};
use crate::wire::glance::{Glance, glance};
use crate::wire::{self, L4, Packet, Parsed, Tags};

/// A packet and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Explained {
    pub at: Tick,
    /// Its place among the frames that were handed in with it, by which the caller knows its port.
    pub place: u16,
    pub role: Role,
    pub zone: Option<u16>,
    pub seen: Glance,
    /// Its direction in the flow that it met, or made.
    pub direction: Option<Direction>,
    /// The flow that it met, as it was before. In [`Tracker::records`]: as it was after, and of a packet that was dropped
    /// on one of the short ways, as its burst left it, since such records are made at the burst's end.
    pub flow: Option<FlowView>,
    /// The number for which a TCP segment was refused or passed over.
    pub missed: Option<Missed>,
    pub outcome: Outcome,
    /// What policy said, where it was asked.
    pub decision: Option<Decision>,
    /// Of a packet that was followed.
    pub steps: Option<Steps>,
}

/// What a packet that was followed did to the table.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Another worker handed it over.
    pub handed: bool,
    pub entry: Lookup,
    /// The flow that it met ended before it, or by it.
    pub ended: Option<DestroyReason>,
    /// Another flow had to go for its own.
    pub made_room: bool,
    /// It belongs to its flow, and neither counts nor refreshes.
    pub ignored: bool,
    /// The flow as the packet left it.
    pub after: Option<FlowView>,
}

/// What the table had for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It was not asked: the packet has no key, or is not for this worker.
    NotSought,
    /// Nothing, and nothing was made.
    None,
    Found,
    Made,
}

/// A frame before it is tracked.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    pub seen: Glance,
    pub zone: Option<u16>,
    /// The flow that it will meet, if it is this worker's.
    pub flow: Option<FlowView>,
    /// Its direction there.
    pub direction: Option<Direction>,
    parsed: Parsed<'a>,
    found: Option<Found>,
    elsewhere: bool,
    handed: bool,
    counts: Counts,
}

/// Counters by whose growth it is known what a single packet did.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Counts {
    inserted: u64,
    found: u64,
    ignored: u64,
    timed_out: u64,
    closed: u64,
    early_drop: u64,
}

impl Counts {
    fn of(core: &Core) -> Self {
        let counters = &core.counters;
        let destroyed = |reason: DestroyReason| counters.destroyed[reason as usize];
        Self {
            inserted: counters.inserted(),
            found: counters.lookups_hit,
            ignored: counters.ignored,
            timed_out: destroyed(DestroyReason::Timeout),
            closed: destroyed(DestroyReason::Closed),
            early_drop: destroyed(DestroyReason::EarlyDrop),
        }
    }
}

impl Look<'_> {
    /// The flow, if there is one, is another worker's.
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }
}

impl Tracker {
    /// What can be said of a frame that is to be tracked next; `handed`: by [`Tracker::on_handed`].
    pub fn look<'a>(&self, now: Tick, frame: &Frame<'a>, handed: bool) -> Look<'a> {
        let core = &self.core;
        let (checksum, verify) = (frame.checksum, core.settings.checksum);
        let (zone, (parsed, found)) = match wire::parse_untagged(frame.bytes, frame.link, checksum, verify) {
            Ok(parsed) => (Some(frame.zone), core.find_place(frame, parsed, Some(frame.zone))),
            Err(tagged) => {
                let known = core.known_zone(frame.zone, tagged.tags);
                // Learns no more than tracking is about to.
                let place = core.find_tagged(frame, tagged.tags, tagged.parse(checksum, verify), known);
                (known.or_else(|| core.known_zone(frame.zone, tagged.tags)), place)
            }
        };
        let elsewhere = found.and_then(|found| self.owners.elsewhere(found.hash));
        let own = found.filter(|_| handed || elsewhere.is_none());
        let met = own.as_ref().and_then(|found| core.meet(now, found, &parsed));
        Look {
            seen: seen(frame, &parsed),
            zone: found.map_or(zone, |found| Some(found.key.zone)),
            flow: met.map(|(flow, _)| core.flows.view(now, flow)),
            direction: met.map(|(_, direction)| direction),
            parsed,
            found: own,
            elsewhere: own.is_none() && found.is_some(),
            handed,
            counts: Counts::of(core),
        }
    }

    /// What became of the frame that was looked at, and then tracked with no other in between.
    pub fn explain(&self, now: Tick, frame: &Frame<'_>, look: &Look<'_>, outcome: &Outcome) -> Explained {
        let (before, after) = (look.counts, Counts::of(&self.core));
        // Of fragments, the last one brings the key of their datagram.
        let whole = outcome.class.is_some() && matches!(look.parsed, Parsed::Fragment(_));
        let found = look.found.or(self.core.datagram.filter(|_| whole));
        let mut explained = self.core.explained(now, frame, &look.parsed, found.as_ref(), outcome);
        explained.zone = found.map_or(look.zone, |found| Some(found.key.zone));
        let entry = if after.inserted > before.inserted {
            Lookup::Made
        } else if after.found > before.found {
            Lookup::Found
        } else if found.is_some() {
            Lookup::None
        } else {
            Lookup::NotSought
        };
        let ended = if after.closed > before.closed {
            Some(DestroyReason::Closed)
        } else if after.timed_out > before.timed_out && found.is_some() {
            Some(DestroyReason::Timeout)
        } else {
            None
        };
        let ignored = after.ignored > before.ignored;
        explained.steps = Some(Steps {
            handed: look.handed,
            entry,
            ended,
            made_room: after.early_drop > before.early_drop,
            ignored,
            after: explained.flow,
        });
        explained.flow = look.flow;
        explained.direction = look.direction.or(explained.direction);
        // What lies beyond an edge without having been refused for it means nothing.
        explained.missed = explained.missed.filter(|_| ignored || outcome.reason.is_some());
        explained
    }
}

/// As it was understood, or else as far as it can be read.
fn seen(frame: &Frame<'_>, parsed: &Parsed<'_>) -> Glance {
    let tags = wire::tags(frame.bytes, frame.link);
    match parsed {
        // An error's type and code are on the frame alone.
        Parsed::Packet(Packet { l4: L4::IcmpError { .. }, .. }) => glance(frame.bytes, frame.link),
        Parsed::Packet(packet) => Glance::of_packet(packet, tags),
        Parsed::Fragment(fragment) => Glance::of_fragment(fragment, tags),
        Parsed::Untracked(_) | Parsed::Invalid(_) | Parsed::Malformed(_) => glance(frame.bytes, frame.link),
    }
}

impl Core {
    /// The live flow of this key, and the packet's direction in it.
    fn meet(&self, now: Tick, found: &Found, parsed: &Parsed<'_>) -> Option<(FlowIndex, Direction)> {
        let flow = self.flows.table.find(found.hash, &found.key)?;
        let entry = self.flows.table.entry(flow);
        if until(entry.head.deadline, now.low()) <= 0 {
            return None;
        }
        // An ICMP error travels against the packet that it quotes.
        let error = matches!(parsed, Parsed::Packet(Packet { l4: L4::IcmpError { .. }, .. }));
        Some((flow, entry.direction_of(if error { found.side.other() } else { found.side })))
    }

    /// A packet as the tracker stands now, right behind it.
    pub(super) fn explained(
        &self,
        now: Tick,
        frame: &Frame<'_>,
        parsed: &Parsed<'_>,
        found: Option<&Found>,
        outcome: &Outcome,
    ) -> Explained {
        let met = found.and_then(|found| self.meet(now, found, parsed));
        let lacks_syn = matches!(parsed, Parsed::Packet(packet) if lacks_syn(packet));
        Explained {
            at: now,
            place: 0,
            role: frame.role,
            zone: found.map(|found| found.key.zone).or_else(|| self.zone_if_known(frame)),
            seen: seen(frame, parsed),
            direction: met.map(|(_, direction)| direction).or(outcome.direction),
            flow: met.map(|(flow, _)| self.flows.view(now, flow)),
            missed: met.and_then(|(flow, direction)| self.missed(flow, direction, parsed, outcome.reason)),
            outcome: *outcome,
            decision: outcome.class.map(|class| self.policy.decide(frame.role, class, lacks_syn)),
            steps: None,
        }
    }

    /// The zone of a frame that has no key. Tags and tunnels that are new have none yet, and get none for being told.
    fn zone_if_known(&self, frame: &Frame<'_>) -> Option<u16> {
        (wire::tags(frame.bytes, frame.link) == Tags::NONE).then_some(frame.zone)
    }

    fn missed(
        &self,
        flow: FlowIndex,
        direction: Direction,
        parsed: &Parsed<'_>,
        reason: Option<Reason>,
    ) -> Option<Missed> {
        let Parsed::Packet(Packet { l4: L4::Tcp(segment), .. }) = parsed else { return None };
        let mut vars = self.flows.table.entry(flow).vars;
        tcp::missed(vars.tcp(), segment, direction, reason)
    }
}
