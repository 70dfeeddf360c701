//! Room 8 ties 1 to 7: a burst of frames goes in, an outcome for each comes out.
//! One owner, one thread; the only allocation is in [`Tracker::new`].

mod burst;
mod counters;
mod edit;
mod explain;
mod flows;
mod pauses;
mod places;
mod records;
mod sweep;
#[cfg(test)]
mod tests;
mod what_if;

pub use counters::{Counters, PROTOS, StateCounts};
pub use edit::{Edit, NewMark};
pub use explain::{Explained, Look, Lookup, Steps};
pub use pauses::{Between, PAUSE_MIN};
pub use records::RECORDS_PER_SECOND;
pub use what_if::{Forecast, Row};

use alloc::vec::Vec;

use crate::event::{DestroyReason, EventKind, Events, FlowView};
use crate::fault::{Fault, planted, slip};
use crate::fragment::{Fragments, Meeting, Reassembly};
use crate::key::hash::{Cpu, Hasher};
use crate::key::owner::{Owners, WorkerId};
use crate::key::{Direction, FlowKey, Keyed, Side, key_of, key_of_quoted};
use crate::policy::{Action, Class, Decision, DropReason, Policy, Role};
use crate::table::entry::{Entry, Head, Vars, status};
use crate::table::memory::Memory;
use crate::table::{FlowIndex, Full, PrefetchHint};
use crate::tick::{Tick, Ticks, until};
use crate::track::reason::Reason;
use crate::track::settings::Settings;
use crate::track::timeout::TimeoutKey;
use crate::track::{Context, Step, generic, gre, icmp, sctp, tcp, udp};
use crate::wire::{self, Checksum, L4, Link, Packet, Parsed, Untracked, noted, tcp_flags};
use crate::zone::Member;
use burst::Found;
use flows::{Flows, Refused};
use records::Records;
use sweep::Sweep;

/// One frame of a burst, as a driver hands it in.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub bytes: &'a [u8],
    pub link: Link,
    /// The side that it entered by.
    pub role: Role,
    /// That of the port's untagged frames.
    pub zone: u16,
    /// What the NIC said of the transport checksum.
    pub checksum: Checksum,
}

pub use crate::fragment::HeldId;

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Forward,
    Drop(DropReason),
    /// Keep the frame, in order, until an outcome releases this id or [`Tracker::take_discarded`] names it.
    Hold(HeldId),
    /// Another worker's tracker owns the flow, or the datagram: give the frame to its [`Tracker::on_handed`], behind
    /// those that came before it.
    HandOff(WorkerId),
}

/// What the tracker says of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The connection state; `None` if the frame never reached tracking (a held fragment, a malformed header).
    pub class: Option<Class>,
    /// `None` for INVALID and untracked packets.
    pub direction: Option<Direction>,
    /// Why it is INVALID or malformed.
    pub reason: Option<Reason>,
    pub verdict: Verdict,
    /// The frames held under this id share this frame's verdict, and go before it. If that is to hand off, hand off
    /// all of them or none. Where payloads are not kept, see [`Tracker::note`].
    pub releases: Option<HeldId>,
}

/// What happens to a new flow when the table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// A flow that is not ASSURED makes room; if there is none near, the packet is dropped.
    EarlyDrop,
    /// The packet is dropped.
    DropNew,
    /// The packet passes as NEW by policy, without an entry.
    PassUntracked,
}

/// Sizes, fixed for the tracker's life.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Flows at most; 1 to 100 million.
    pub max_entries: u32,
    /// Datagrams being reassembled at most.
    pub max_datagrams: u16,
    /// Random per boot: keys the table's hash.
    pub hash_key: [u64; 4],
}

/// How much [`Tracker::on_tick`] may do.
#[derive(Clone, Copy, Debug)]
pub struct ExpireBudget {
    /// References of the wheel, and entries of a running sweep, to visit at most.
    pub flows: u32,
}

/// What one [`Tracker::on_tick`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    pub visited: u32,
    pub expired: u32,
    /// Work that is due is left for the next call.
    pub more: bool,
    /// How late the oldest due work is.
    pub lag: Ticks,
}

/// Where a listing goes on; start with the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub u32);

/// Why a tracker cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitsError {
    /// `max_entries` is outside 1..=100 million.
    MaxEntries(u32),
    /// The memory handed in is too small.
    Memory { have: usize, need: usize },
}

/// The most frames that are worked on together, so that their cache misses overlap.
pub const BURST: usize = 64;

/// The most slots of the table that one page looks at, so that a listing of a table that was full once does not
/// stop the packets.
pub const PAGE_SLOTS: u32 = 1024;

/// The longest step of the clock that is taken at once: a flow on the longest timeout that is due at its start is
/// still seen to be due at its end.
const STEP: Ticks = Ticks::from_secs(8 * 86_400);
const _: () = assert!(STEP.0 + Ticks::MAX.0 < i32::MAX as u32);

/// The most flows a tracker holds.
pub const MAX_ENTRIES: u32 = 100_000_000;

/// The tracker of one core.
#[derive(Debug)]
pub struct Tracker {
    core: Core,
    fragments: Fragments,
    sweep: Sweep,
    owners: Owners,
    /// Fragments are put together where they enter, not where their hash says.
    meet_at_entry: bool,
    /// Of the last [`BURST`] datagrams that were handed off, where payloads are not kept.
    notes: Vec<Note>,
    next_note: usize,
    /// The latest moment heard of.
    last: Tick,
}

/// One worker's word to another of a datagram.
#[derive(Debug)]
struct Note {
    bytes: [u8; noted::NOTE_BYTES],
    length: usize,
}

/// Everything that a packet meets once it is whole.
#[derive(Debug)]
struct Core {
    settings: Settings,
    policy: Policy,
    on_full: OnFull,
    /// Track what tunnels carry.
    inner: bool,
    flows: Flows,
    hasher: Hasher,
    cpu: Cpu,
    /// From the settings and the policy.
    settled: burst::Settled,
    counters: Counters,
    records: Records,
    /// The key of the datagram that was put together last.
    datagram: Option<Found>,
}

/// How a burst came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// From a port: whose flows they are has not been asked.
    ByPort,
    /// From another worker.
    ByRing,
}

impl Tracker {
    /// Bytes of [`Memory`] that `limits` need.
    pub fn memory_bytes(limits: &Limits) -> Result<usize, LimitsError> {
        match limits.max_entries {
            1..=MAX_ENTRIES => Ok(Flows::memory_bytes(limits.max_entries)),
            other => Err(LimitsError::MaxEntries(other)),
        }
    }

    /// A tracker with an empty table.
    pub fn new(
        limits: Limits,
        settings: Settings,
        policy: Policy,
        on_full: OnFull,
        mut memory: Memory,
    ) -> Result<Self, LimitsError> {
        let need = Self::memory_bytes(&limits)?;
        let have = memory.left();
        let cpu = Cpu::detect();
        let hint = if cpu.prefetches_to_second_cache() { PrefetchHint::T1 } else { PrefetchHint::T0 };
        let flows = Flows::new(limits.max_entries, &settings, hint, &mut memory)
            .ok_or(LimitsError::Memory { have, need })?;
        let hasher = Hasher::new(limits.hash_key, cpu);
        Ok(Self {
            core: Core {
                settings,
                policy,
                on_full,
                inner: false,
                flows,
                hasher,
                cpu,
                settled: burst::Settled::new(&settings, &policy),
                counters: Counters::default(),
                records: Records::default(),
                datagram: None,
            },
            fragments: Fragments::new(limits.max_datagrams, hasher),
            sweep: Sweep::default(),
            owners: Owners::alone(),
            meet_at_entry: true,
            notes: Vec::new(),
            next_note: 0,
            last: Tick(0),
        })
    }

    /// Has zones chosen by tags and tunnels, and flows counted by zone. Without it a frame's zone is its port's.
    pub fn join(&mut self, zones: Member) {
        debug_assert!(self.is_empty(), "flows are here that no zone counts");
        self.core.inner = zones.zones().inner();
        self.core.flows.zones = Some(zones);
    }

    /// The tracker of one of several workers, which all have the same hash key: it tracks the flows that it owns and
    /// hands off the others. All of them have the same `meeting`.
    pub fn among(mut self, owners: Owners, meeting: Meeting) -> Self {
        self.owners = owners;
        self.meet_at_entry = matches!(meeting, Meeting::Entry);
        if let Meeting::Owner(distances) = meeting
            && self.owners.are_several()
        {
            self.fragments.count_with(distances);
        }
        self
    }

    /// For one that listens only: of fragments no more is kept than their metadata, and their frames are done with at once.
    /// With several workers a whole datagram goes to the owner of its flow as a note: see [`Tracker::note`].
    pub fn without_payloads(mut self) -> Self {
        let max_datagrams = self.fragments.max_datagrams();
        self.fragments = Fragments::without_payloads(max_datagrams, self.core.hasher);
        self.notes = (0..BURST).map(|_| Note { bytes: [0; noted::NOTE_BYTES], length: 0 }).collect();
        self
    }

    /// Whether [`Verdict::Hold`] means that the frame is to be kept; else it is done with.
    pub fn keeps_payloads(&self) -> bool {
        self.fragments.keeps_payloads()
    }

    /// Where payloads are not kept: what a frame that is handed off is to say instead of what it says, if its outcome
    /// releases this. Good until [`BURST`] more notes have been written. It comes in as
    /// [`Link::Note`], in the zone that [`noted::zone`] reads. Whoever hands it over says so by [`Tracker::count_told`].
    pub fn note(&self, id: HeldId) -> Option<&[u8]> {
        let note = self.notes.get(id.0 as usize)?;
        note.bytes.get(..note.length)
    }

    /// Has INVALID and dropped packets recorded, at most [`RECORDS_PER_SECOND`]; see [`Tracker::records`].
    pub fn keep_records(&mut self) {
        self.core.records = Records::with_room();
    }

    /// INVALID and dropped packets since the last [`Tracker::clear_records`], a sample if there are many.
    #[inline(always)]
    pub fn records(&self) -> &[Explained] {
        self.core.records.as_slice()
    }

    /// Forgets the records that were read; keeps the room.
    pub fn clear_records(&mut self) {
        self.core.records.clear();
    }

    /// INVALID and dropped packets that were not recorded because there were too many, since the start.
    pub fn untold(&self) -> u64 {
        self.core.records.untold()
    }

    /// As on a processor that has nothing beyond what every one has; hashes stay as they are.
    #[doc(hidden)]
    pub fn narrow(mut self) -> Self {
        self.core.cpu = Cpu::portable();
        self
    }

    /// Tracks `frames` in order and writes one outcome for each. The result is the same as with one frame a call.
    pub fn on_burst(
        &mut self,
        now: Tick,
        frames: &[Frame<'_>],
        outcomes: &mut [Outcome],
        events: &mut Events,
    ) {
        self.on_frames(now, frames, outcomes, events, Came::ByPort);
    }

    /// As [`Tracker::on_burst`], for frames that other workers handed off. Only a datagram that was put together here
    /// is ever handed on, to the owner of its flow, which keeps it.
    pub fn on_handed(
        &mut self,
        now: Tick,
        frames: &[Frame<'_>],
        outcomes: &mut [Outcome],
        events: &mut Events,
    ) {
        self.on_frames(now, frames, outcomes, events, Came::ByRing);
    }

    /// Counts frames that were lost behind the tracker, among those that it dropped itself.
    pub fn count_dropped(&mut self, reason: DropReason, frames: u64) {
        self.core.counters.dropped[reason.index()] += frames;
    }

    /// Counts a datagram of which the owner of its flow gets a [`Tracker::note`]: it is whole, and was not lost on the way.
    pub fn count_told(&mut self) {
        self.core.counters.datagrams_completed += 1;
    }

    fn on_frames(
        &mut self,
        now: Tick,
        frames: &[Frame<'_>],
        outcomes: &mut [Outcome],
        events: &mut Events,
        came: Came,
    ) {
        self.catch_up(now, events);
        for (frames, outcomes) in frames.chunks(BURST).zip(outcomes.chunks_mut(BURST)) {
            burst::on_chunk(self, now, frames, outcomes, events, came);
        }
    }

    /// A deadline of 32 bits can be told from one long past for 99 days only. A clock that jumps (a capture with a gap
    /// of years) is followed in steps short enough that every flow still meets its deadline.
    #[inline(always)]
    fn catch_up(&mut self, now: Tick, events: &mut Events) {
        if now.0.saturating_sub(self.last.0) > u64::from(STEP.0) {
            self.step_to(now, events);
        }
        self.last = self.last.max(now);
    }

    #[cold]
    fn step_to(&mut self, now: Tick, events: &mut Events) {
        let mut due = [FlowIndex(0); BURST];
        while !self.is_empty() && now.0 - self.last.0 > u64::from(STEP.0) {
            self.last = self.last.after(STEP);
            loop {
                let taken = self.core.flows.wheel.take_due(self.last, &mut due);
                if taken == 0 {
                    break;
                }
                self.core.visit(self.last, &due[..taken], events);
            }
        }
    }

    /// A fragment is held until its datagram is whole; then the datagram is tracked as one packet, and all of its
    /// fragments share the verdict. With several workers one of them, by [`Meeting`], puts the datagram together; if the
    /// flow is another's, that one gets all of it and does the same again.
    fn on_fragment(
        &mut self,
        now: Tick,
        frame: &Frame<'_>,
        fragment: &wire::Fragment<'_>,
        events: &mut Events,
        came: Came,
    ) -> Outcome {
        let Some(zone) = self.core.zone_of(frame) else { return self.core.dropped(DropReason::NoZone) };
        let ingress = frame.role as u8;
        let several = self.owners.are_several();
        let again = several
            && match (self.meet_at_entry, came) {
                (true, _) => came == Came::ByRing,
                (false, Came::ByPort) => match self.meeting_of(fragment, zone, ingress) {
                    Some(owner) => return Outcome::untold(Verdict::HandOff(owner)),
                    None => false,
                },
                // From anybody but us: whoever puts such datagrams together has done so, and found that the flow is ours.
                (false, Came::ByRing) => self.meeting_of(fragment, zone, ingress).is_some(),
            };
        let owners = several.then_some(&self.owners);
        let answer = match again {
            true => self.fragments.add_again(now, fragment, zone, ingress),
            false => self.fragments.add(now, fragment, zone, ingress),
        };
        match answer {
            Reassembly::Held(id) => {
                self.core.counters.fragments_held += u64::from(!again);
                self.core.counters.fragments_again += u64::from(again);
                Outcome::untold(Verdict::Hold(id))
            }
            Reassembly::Redundant | Reassembly::Discarded => self.core.dropped(DropReason::Fragment),
            Reassembly::NotHeld => {
                let parsed = wire::parse_unheld(fragment, frame.checksum, self.core.settings.checksum);
                let outcome = self.core.on_datagram(now, frame, zone, &parsed, owners, events);
                self.core.keep_handed(again, outcome)
            }
            Reassembly::Complete { held, datagram } => {
                let (parsed, zone) = self.core.read_datagram(frame.role, &datagram, zone);
                let outcome = self.core.on_datagram(now, frame, zone, &parsed, owners, events);
                let mut outcome = self.core.keep_handed(again, outcome);
                outcome.releases = held;
                let stays = !matches!(outcome.verdict, Verdict::HandOff(_));
                if let Some(rest) = datagram.rest.filter(|_| !stays) {
                    outcome.releases = self.notes.get_mut(self.next_note).map(|note| {
                        note.length = noted::write(&datagram, rest, zone, &mut note.bytes);
                        HeldId(self.next_note as u32)
                    });
                    // A burst may come in parts, and makes no more of them than there is room for.
                    self.next_note = (self.next_note + 1) % BURST;
                }
                self.core.counters.datagrams_completed += u64::from(stays);
                outcome
            }
        }
    }

    /// Who puts a fragment's datagram together, if that is somebody else.
    fn meeting_of(&self, fragment: &wire::Fragment<'_>, zone: u16, ingress: u8) -> Option<WorkerId> {
        self.owners.elsewhere(self.fragments.hash(fragment, zone, ingress))
    }

    /// Ends flows whose time has come and moves a running sweep on, within `budget`.
    pub fn on_tick(&mut self, now: Tick, budget: ExpireBudget, events: &mut Events) -> Expired {
        self.catch_up(now, events);
        let mut done = Expired::default();
        let mut due = [FlowIndex(0); BURST];
        while done.visited < budget.flows {
            let room = due.len().min((budget.flows - done.visited) as usize);
            let taken = self.core.flows.wheel.take_due(now, &mut due[..room]);
            if taken == 0 {
                break;
            }
            done.visited += taken as u32;
            done.expired += self.core.visit(now, &due[..taken], events);
        }
        let left = budget.flows.saturating_sub(done.visited);
        if self.sweep.is_running() {
            done.visited += self.core.sweep(now, left, &mut self.sweep);
        }
        self.fragments.expire(now, BURST as u32);
        self.core.counters.datagrams_timed_out = self.fragments.timed_out();
        self.core.counters.datagrams_evicted = self.fragments.evicted();
        let late = self.core.flows.wheel.lag(now);
        done.more = self.sweep.is_running() || late.is_some();
        done.lag = late.unwrap_or_default();
        done
    }

    /// Copies live flows from `from` on into `out` until its capacity is reached or [`PAGE_SLOTS`] were looked at;
    /// gives where to go on, or `None` at the end. A flow that is there from the first page to the last is listed
    /// once.
    pub fn page(&self, now: Tick, from: Cursor, out: &mut Vec<FlowView>) -> Option<Cursor> {
        let flows = &self.core.flows;
        let end = from.0.saturating_add(PAGE_SLOTS);
        for (flow, entry) in flows.table.live(from.0..end) {
            if until(entry.head.deadline, now.low()) <= 0 && !planted(Fault::ListingLate) {
                continue;
            }
            if out.len() == out.capacity() {
                return Some(Cursor(flow.0));
            }
            out.push(flows.view(now, flow));
        }
        (end < flows.table.used_slots()).then_some(Cursor(end))
    }

    /// Changes a timeout. Lowering one starts a sweep that cuts live flows to min(remaining, new); raising one acts
    /// from each flow's next packet.
    pub fn set_timeout(&mut self, key: TimeoutKey, value: Ticks) {
        let mut settings = self.core.settings;
        settings.timeouts.set(key, value.min(Ticks::MAX));
        self.set_settings(settings);
    }

    /// Changes every switch and timeout at once; see [`Tracker::configure`].
    pub fn set_settings(&mut self, settings: Settings) {
        self.configure(settings, self.core.policy, self.core.on_full);
    }

    /// Changes the switches and the policy between bursts; timeouts that went down are swept as by
    /// [`Tracker::set_timeout`].
    pub fn configure(&mut self, settings: Settings, policy: Policy, on_full: OnFull) {
        self.sweep.start(&self.core.settings.timeouts, &settings.timeouts);
        self.core.settings = settings;
        self.core.settled = burst::Settled::new(&settings, &policy);
        self.core.flows.accounting = settings.accounting;
        self.core.flows.pauses.set(self.last, &settings.timeouts);
        self.core.policy = policy;
        self.core.on_full = on_full;
    }

    /// The present settings.
    pub fn settings(&self) -> &Settings {
        &self.core.settings
    }

    /// Looks at up to `budget` slots from `from` on and ends the flows in them; gives where to go on.
    pub fn flush(&mut self, now: Tick, from: Cursor, budget: u32, events: &mut Events) -> Option<Cursor> {
        let core = &mut self.core;
        let end = from.0.saturating_add(budget).min(core.flows.table.used_slots());
        for flow in (from.0..end).map(FlowIndex) {
            if core.flows.table.is_live(flow) {
                core.end(now, flow, DestroyReason::Admin, events);
            }
        }
        (end < core.flows.table.used_slots()).then_some(Cursor(end))
    }

    /// Flows in the table, including those whose timeout has passed but that the wheel has not reached.
    pub fn len(&self) -> u32 {
        self.core.flows.table.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flows at most.
    pub fn capacity(&self) -> u32 {
        self.core.flows.table.capacity()
    }

    /// Where a listing ends: no flow ever lay at this place or behind it.
    pub fn listing_end(&self) -> Cursor {
        Cursor(self.core.flows.table.used_slots())
    }

    /// Flows by protocol and state.
    pub fn states(&self) -> &StateCounts {
        &self.core.flows.states
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// The datagrams that are being put together.
    pub fn fragments(&self) -> &Fragments {
        &self.fragments
    }

    /// A held datagram that will never be completed: free its frames. Ask until `None` after each burst and tick.
    pub fn take_discarded(&mut self) -> Option<HeldId> {
        self.fragments.take_discarded()
    }
}

impl Core {
    /// Stage 3 of a datagram that was put together, or that never will be. With `owners` it may be another worker's.
    fn on_datagram(
        &mut self,
        now: Tick,
        frame: &Frame<'_>,
        zone: u16,
        parsed: &Parsed<'_>,
        owners: Option<&Owners>,
        events: &mut Events,
    ) -> Outcome {
        let mut keyed = None;
        let outcome = match parsed {
            Parsed::Packet(packet) => {
                keyed = self.key(packet, zone);
                let owner = owners.zip(keyed).and_then(|(owners, found)| owners.elsewhere(found.hash));
                if let Some(owner) = owner {
                    return Outcome::untold(Verdict::HandOff(owner));
                }
                let mut outcome = Outcome::untold(Verdict::Forward);
                self.on_packet(now, frame, packet, keyed, events, &mut outcome);
                outcome
            }
            Parsed::Untracked(kind) => self.untracked(frame, *kind),
            Parsed::Invalid(reason) => self.invalid(frame, *reason),
            Parsed::Malformed(reason) => self.malformed(*reason),
            Parsed::Fragment(_) => self.dropped(DropReason::Fragment),
        };
        self.datagram = keyed;
        if is_notable(&outcome) {
            self.record(now, frame, parsed, keyed.as_ref(), &outcome);
        }
        outcome
    }

    /// What was handed here to be put together `again` is not handed on: were it another's flow, pieces of different
    /// datagrams would have met, and it is nobody's.
    fn keep_handed(&mut self, again: bool, outcome: Outcome) -> Outcome {
        match outcome.verdict {
            Verdict::HandOff(_) if again => self.dropped(DropReason::Fragment),
            _ => outcome,
        }
    }

    fn key(&self, packet: &Packet<'_>, zone: u16) -> Option<Found> {
        let zone = if planted(Fault::KeyZone) { 0 } else { zone };
        let keyed = match &packet.l4 {
            L4::IcmpError { inner } => key_of_quoted(inner, zone),
            _ => key_of(packet, zone),
        };
        keyed.map(|Keyed { key, side }| Found { key, side, hash: self.hasher.hash(&key) })
    }

    /// Stage 3 in general: one whole packet.
    #[inline(always)]
    fn on_packet(
        &mut self,
        now: Tick,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
        found: Option<Found>,
        events: &mut Events,
        outcome: &mut Outcome,
    ) {
        let Some(found) = found else {
            *outcome = self.invalid(frame, Reason::IcmpErrorQuote);
            return;
        };
        let flow = self.find(now, found.hash, &found.key, events);
        if let L4::IcmpError { inner } = &packet.l4 {
            *outcome = self.on_icmp_error(now, frame, packet, inner, found.side, flow, events);
            return;
        }
        match flow {
            Some(flow) => self.on_known(now, frame, packet, &found, flow, events, outcome),
            None => self.on_new(now, frame, packet, &found, events, outcome),
        }
    }

    /// The live flow with this key. One whose time has passed ends here, however late the wheel is.
    #[inline(always)]
    fn find(&mut self, now: Tick, hash: u64, key: &FlowKey, events: &mut Events) -> Option<FlowIndex> {
        let found = self.flows.table.find(hash, key);
        if let Some(flow) = found {
            let left = until(self.flows.table.entry(flow).head.deadline, now.low());
            if left + slip(Fault::ExpiryLate) as i32 > slip(Fault::ExpiryEarly) as i32 {
                self.counters.lookups_hit += 1;
                return found;
            }
            self.flows.end(now, hash, flow, DestroyReason::Timeout, &mut self.counters, events);
        }
        self.counters.lookups_miss += 1;
        None
    }

    #[allow(clippy::too_many_arguments)]
    fn on_known(
        &mut self,
        now: Tick,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
        found: &Found,
        flow: FlowIndex,
        events: &mut Events,
        outcome: &mut Outcome,
    ) {
        self.flows.heard(now, flow, self.flows.table.entry(flow).head);
        let entry = self.flows.table.entry_mut(flow);
        let direction = entry.direction_of(found.side);
        let replied = entry.head.status & status::SEEN_REPLY != 0;
        let before = Flows::before(entry);
        let ctx = Context { now: now.low(), direction, first: false, settings: &self.settings };
        let step = step(&mut entry.head, &mut entry.vars, packet, &ctx);
        match step {
            Step::Refresh { key, span } => {
                entry.head.deadline = now.low().wrapping_add(span);
                entry.head.timeout_key = key as u8;
                self.flows.count(flow, direction, packet.ip_bytes);
                self.flows.settle(now, flow);
            }
            Step::Ignore => {
                self.counters.ignored += 1;
                if planted(Fault::IgnoredCounted) {
                    self.flows.count(flow, direction, packet.ip_bytes);
                }
            }
            Step::Invalid(reason) => {
                if planted(Fault::InvalidCounted) {
                    self.flows.count(flow, direction, packet.ip_bytes);
                }
                self.flows.settle(now, flow);
                self.flows.keep_for_later(flow, before);
                *outcome = self.invalid(frame, reason);
                return;
            }
            Step::Destroy => {
                self.flows.count(flow, direction, packet.ip_bytes);
                self.flows.keep_for_later(flow, before);
                self.flows.end(now, found.hash, flow, DestroyReason::Closed, &mut self.counters, events);
                let class = if direction == Direction::Reply { Class::Established } else { Class::New };
                *outcome = self.classify(frame, class, Some(direction), lacks_syn(packet));
                return;
            }
            Step::Reopen => {
                self.flows.end(now, found.hash, flow, DestroyReason::Closed, &mut self.counters, events);
                return self.on_new(now, frame, packet, found, events, outcome);
            }
        }
        let class = match direction {
            Direction::Original if !replied && !planted(Fault::ClassUnanswered) => Class::New,
            Direction::Original if planted(Fault::ClassReplied) => Class::New,
            Direction::Original => Class::Established,
            Direction::Reply => {
                self.flows.table.entry_mut(flow).head.status |= status::SEEN_REPLY;
                Class::Established
            }
        };
        self.flows.tell(now, flow, before, events);
        *outcome = self.classify(frame, class, Some(direction), lacks_syn(packet));
    }

    /// The first packet of a flow, which is made where it will stay, and tentative until policy has let it through.
    fn on_new(
        &mut self,
        now: Tick,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
        found: &Found,
        events: &mut Events,
        outcome: &mut Outcome,
    ) {
        let direction = Direction::Original;
        let flow = self.flows.table.take_vacant();
        let entry = self.flows.table.entry_mut(flow);
        flows::begin(entry, &found.key, found.side, now);
        let ctx = Context { now: now.low(), direction, first: true, settings: &self.settings };
        match step(&mut entry.head, &mut entry.vars, packet, &ctx) {
            Step::Refresh { key, span } => {
                entry.head.deadline = now.low().wrapping_add(span);
                entry.head.timeout_key = key as u8;
            }
            Step::Invalid(reason) => {
                self.flows.table.give_back(flow);
                *outcome = self.invalid(frame, reason);
                return;
            }
            // No protocol answers so to a first packet; were one to, the packet would pass without a flow.
            Step::Ignore | Step::Destroy | Step::Reopen => {
                self.flows.table.give_back(flow);
                *outcome = self.classify(frame, Class::New, Some(direction), lacks_syn(packet));
                return;
            }
        }
        *outcome = self.classify(frame, Class::New, Some(direction), lacks_syn(packet));
        if outcome.verdict != Verdict::Forward && !planted(Fault::PolicyNewKept) {
            return self.flows.table.give_back(flow);
        }
        let mark = self.policy.mark(frame.role, lacks_syn(packet));
        self.enter(now, found.hash, flow, mark, packet.ip_bytes, events, outcome);
    }

    /// Puts a flow in that was made in a slot and that policy let through, with its first packet.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    fn enter(
        &mut self,
        now: Tick,
        hash: u64,
        flow: FlowIndex,
        mark: u32,
        ip_bytes: u32,
        events: &mut Events,
        outcome: &mut Outcome,
    ) {
        let zone = self.flows.table.entry(flow).key.zone;
        if !self.flows.admit(zone) {
            self.flows.table.give_back(flow);
            self.counters.dropped[DropReason::ZoneLimit.index()] += 1;
            self.records.behind = true;
            outcome.verdict = Verdict::Drop(DropReason::ZoneLimit);
            return;
        }
        if self.make(now, hash, flow, events).is_err() {
            self.flows.table.give_back(flow);
            self.flows.leave(zone);
            if self.on_full == OnFull::PassUntracked {
                self.counters.full_untracked += 1;
            } else {
                self.counters.dropped[DropReason::TableFull.index()] += 1;
                self.records.behind = true;
                outcome.verdict = Verdict::Drop(DropReason::TableFull);
            }
            return;
        }
        self.counters.count_inserted(self.flows.table.entry(flow).key.proto);
        if mark != 0 {
            self.flows.set_mark(flow, mark);
        }
        if !planted(Fault::FirstUncounted) {
            self.flows.count(flow, Direction::Original, ip_bytes);
        }
        if events.enabled() && !planted(Fault::NewUntold) {
            self.flows.say(now, flow, EventKind::New, events);
        }
    }

    /// Puts a flow in, making room as the operator wants it.
    #[inline(always)]
    fn make(&mut self, now: Tick, hash: u64, flow: FlowIndex, events: &mut Events) -> Result<(), Refused> {
        let Err(full) = self.flows.make(now, hash, flow) else { return Ok(()) };
        self.make_room(now, hash, full, events)?;
        self.flows.make(now, hash, flow)
    }

    /// A flow whose time has passed goes first; else, by `early_drop`, one that is not ASSURED.
    #[cold]
    fn make_room(&mut self, now: Tick, hash: u64, full: Full, events: &mut Events) -> Result<(), Refused> {
        let early_drop = self.on_full == OnFull::EarlyDrop || planted(Fault::EarlyDropAlways);
        let low = now.low();
        let may_go = |entry: &Entry| {
            let assured = entry.head.status & status::ASSURED != 0 && !planted(Fault::EarlyDropAssured);
            until(entry.head.deadline, low) <= 0 || (early_drop && !assured)
        };
        let victim = self.flows.table.victim(hash, full, may_go).ok_or(full)?;
        let expired = until(self.flows.table.entry(victim).head.deadline, low) <= 0;
        let reason = if expired { DestroyReason::Timeout } else { DestroyReason::EarlyDrop };
        self.end(now, victim, reason, events);
        Ok(())
    }

    /// An ICMP error is RELATED to the flow of the packet that it quotes: it travels against that packet, and it must
    /// be addressed to that packet's sender. It neither counts nor refreshes.
    #[allow(clippy::too_many_arguments)]
    fn on_icmp_error(
        &mut self,
        now: Tick,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
        inner: &wire::Quoted,
        quoted_side: Side,
        flow: Option<FlowIndex>,
        events: &mut Events,
    ) -> Outcome {
        let Some(flow) = flow else {
            self.counters.icmp_error += 1;
            if planted(Fault::IcmpErrorNoFlow) {
                return self.classify(frame, Class::Related, Some(Direction::Original), false);
            }
            return self.invalid(frame, Reason::IcmpErrorNoFlow);
        };
        if packet.dst != inner.src && !planted(Fault::IcmpErrorDestination) {
            self.counters.icmp_error += 1;
            return self.invalid(frame, Reason::IcmpErrorDestination);
        }
        let entry = self.flows.table.entry(flow);
        let side = if planted(Fault::IcmpErrorDirection) { quoted_side } else { quoted_side.other() };
        let direction = entry.direction_of(side);
        // It changes nothing, but what an INVALID packet left untold is told with it.
        let before = Flows::before(entry);
        if !planted(Fault::LateChangeByError) {
            self.flows.tell(now, flow, before, events);
        }
        self.classify(frame, Class::Related, Some(direction), false)
    }

    /// Looks at flows that the wheel handed out: ends those whose time has passed, arms the others again.
    fn visit(&mut self, now: Tick, due: &[FlowIndex], events: &mut Events) -> u32 {
        for &flow in due {
            self.flows.table.prefetch_entry(flow);
        }
        // Of the flows that end; the others are not looked up.
        let mut hashes = [None; BURST];
        for (&flow, hash) in due.iter().zip(&mut hashes) {
            let entry = self.flows.table.entry(flow);
            if until(entry.head.deadline, now.low()) <= 0 {
                let keyed = self.hasher.hash(&entry.key);
                self.flows.table.prefetch_bucket(keyed);
                *hash = Some(keyed);
            }
        }
        let mut expired = 0;
        for (&flow, hash) in due.iter().zip(hashes) {
            if let Some(hash) = hash {
                self.flows.bury(now, hash, flow, DestroyReason::Timeout, &mut self.counters, events);
                expired += 1;
            } else {
                self.flows.arm(now, flow);
            }
        }
        expired
    }

    /// Moves a sweep on by at most `budget` slots; gives how many it looked at.
    fn sweep(&mut self, now: Tick, budget: u32, sweep: &mut Sweep) -> u32 {
        let used = self.flows.table.used_slots();
        let end = sweep.next.saturating_add(budget).min(used);
        let visited = end - sweep.next.min(end);
        for flow in (sweep.next..end).map(FlowIndex) {
            if self.flows.table.is_live(flow)
                && !planted(Fault::SweepNever)
                && sweep.apply(self.flows.table.entry_mut(flow), now.low(), &self.settings)
            {
                self.flows.settle(now, flow);
            }
        }
        sweep.next = end;
        if end == used {
            sweep.finish();
        }
        visited
    }

    fn end(&mut self, now: Tick, flow: FlowIndex, reason: DestroyReason, events: &mut Events) {
        let hash = self.hasher.hash(&self.flows.table.entry(flow).key);
        self.flows.end(now, hash, flow, reason, &mut self.counters, events);
    }

    /// The packet's class is known: policy decides.
    #[inline(always)]
    fn classify(
        &mut self,
        frame: &Frame<'_>,
        class: Class,
        direction: Option<Direction>,
        lacks_syn: bool,
    ) -> Outcome {
        self.counters.packets[class as usize] += 1;
        let outcome = Outcome::of(class, direction, self.policy.decide(frame.role, class, lacks_syn));
        if let Verdict::Drop(reason) = outcome.verdict {
            self.counters.dropped[reason.index()] += 1;
        }
        outcome
    }

    fn untracked(&mut self, frame: &Frame<'_>, kind: Untracked) -> Outcome {
        match self.counters.untracked.get_mut(kind as usize) {
            Some(counter) => *counter += 1,
            // Of the kinds, the one that does not pass.
            None => return self.dropped(DropReason::NoZone),
        }
        self.classify(frame, Class::Untracked, None, false)
    }

    fn invalid(&mut self, frame: &Frame<'_>, reason: Reason) -> Outcome {
        self.counters.invalid[reason as usize] += 1;
        Outcome { reason: Some(reason), ..self.classify(frame, Class::Invalid, None, false) }
    }

    fn malformed(&mut self, reason: Reason) -> Outcome {
        self.counters.malformed[reason as usize] += 1;
        Outcome { reason: Some(reason), ..self.dropped(DropReason::Malformed(reason)) }
    }

    fn dropped(&mut self, reason: DropReason) -> Outcome {
        self.counters.dropped[reason.index()] += 1;
        Outcome::untold(Verdict::Drop(reason))
    }
}

impl Outcome {
    /// Of a packet whose state is known, as policy decided.
    const fn of(class: Class, direction: Option<Direction>, decision: Decision) -> Self {
        let verdict = match decision.action {
            Action::Accept => Verdict::Forward,
            Action::Drop => Verdict::Drop(DropReason::Policy { class, row: decision.row }),
        };
        Self { class: Some(class), direction, reason: None, verdict, releases: None }
    }

    /// Nothing is known of the frame but what to do with it.
    pub const fn untold(verdict: Verdict) -> Self {
        Self { class: None, direction: None, reason: None, verdict, releases: None }
    }
}

/// One packet of one flow, by its protocol.
#[inline(always)]
fn step(head: &mut Head, vars: &mut Vars, packet: &Packet<'_>, ctx: &Context<'_>) -> Step {
    match &packet.l4 {
        L4::Tcp(segment) => tcp::step(head, vars.tcp(), segment, ctx),
        L4::Udp { .. } => udp::step(head, vars.udp(), ctx),
        L4::UdpLite { .. } => udp::step_lite(head, ctx),
        L4::IcmpQuery { icmp_type, .. } => icmp::step(head, packet.family, *icmp_type, ctx),
        L4::Sctp(sctp) => sctp::step(head, vars.sctp(), sctp, ctx),
        L4::Gre { .. } => gre::step(head, vars.gre(), ctx),
        L4::Generic => generic::step(head, ctx),
        L4::IcmpError { .. } => Step::Invalid(Reason::IcmpErrorQuote),
    }
}

/// It is INVALID, or dropped.
#[inline(always)]
fn is_notable(outcome: &Outcome) -> bool {
    outcome.reason.is_some() || matches!(outcome.verdict, Verdict::Drop(_))
}

/// A TCP packet that is not a plain SYN.
#[inline(always)]
fn lacks_syn(packet: &Packet<'_>) -> bool {
    use tcp_flags::{ACK, FIN, RST, SYN};
    match &packet.l4 {
        L4::Tcp(segment) => segment.flags & (SYN | ACK | RST | FIN) != SYN,
        _ => false,
    }
}
