//! A burst goes through three stages, each over all of its frames, so that their cache misses overlap: what the frame is
//! and its key's hash; what the index says, and where the entry lies; the step. The frames that traffic consists of take
//! a short way through the third, everything else the general one in the room's head file.

use core::mem::MaybeUninit;

use arrayvec::ArrayVec;

use super::flows::{Flows, begin};
use super::{BURST, Came, Core, Frame, Outcome, Tracker, Verdict, is_notable};
use crate::event::Events;
use crate::fault::{Fault, planted};
use crate::key::owner::{Owners, WorkerId};
use crate::key::{Direction, FlowKey, Side, Words, key_of_plain};
use crate::policy::{Class, Policy, Role};
use crate::table::entry::{Entry, status};
use crate::table::{FlowIndex, Probe};
use crate::tick::{Tick, until};
use crate::track::settings::Settings;
use crate::track::tcp::TcpState;
use crate::track::timeout::TimeoutKey;
use crate::track::{Context, Step, tcp, udp};
use crate::wire::plain::{self, Plain, Take};
use crate::wire::{self, L4, Packet, Parsed, Segment, tunnel};

/// A key, the side that the packet came from, and the key's hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) key: FlowKey,
    pub(super) side: Side,
    pub(super) hash: u64,
}

/// How a frame goes through stage 3.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Lane {
    Tcp,
    Udp,
    /// The general way, with a key.
    Keyed,
    /// The general way: there is no key.
    Bare,
    /// Another worker's.
    Away,
}

/// One frame between the stages.
struct Work<'a> {
    key: Words,
    hash: u64,
    segment: Segment<'a>,
    ip_bytes: u32,
    role: Role,
    /// The slot of the slab that holds the flow, if it is in the table: the index's guess.
    flow: FlowIndex,
    side: Side,
    lane: Lane,
    /// The general ways: which of the burst's [`Parsed`]. [`Lane::Away`]: whose.
    general: u8,
}

/// Room for a burst between the stages.
type Room<'a> = [MaybeUninit<Work<'a>>; BURST];

/// The frames that are not plain, in order.
type General<'a> = ArrayVec<Parsed<'a>, BURST>;

/// No slot.
const NOWHERE: FlowIndex = FlowIndex(u32::MAX);

impl<'a> Work<'a> {
    /// Of a frame whose flow is another worker's.
    #[inline]
    fn away(owner: WorkerId) -> Self {
        Self {
            key: Words::default(),
            hash: 0,
            segment: Segment::NONE,
            ip_bytes: 0,
            role: Role::Inside,
            flow: NOWHERE,
            side: Side::Lo,
            lane: Lane::Away,
            general: owner.0,
        }
    }

    #[inline(always)]
    fn found(&self) -> Found {
        Found { key: *self.key.key(), side: self.side, hash: self.hash }
    }

    /// A plain packet, for the general way.
    #[inline(always)]
    fn packet(&self) -> Packet<'a> {
        let (Segment { sport, dport, .. }, key) = (self.segment, self.key.key());
        Packet {
            family: key.family(),
            src: *key.addr(self.side),
            dst: *key.addr(self.side.other()),
            proto: key.proto,
            ip_bytes: self.ip_bytes,
            l4: if self.lane == Lane::Tcp { L4::Tcp(self.segment) } else { L4::Udp { sport, dport } },
        }
    }
}

/// Up to [`BURST`] frames.
pub(super) fn on_chunk(
    tracker: &mut Tracker,
    now: Tick,
    frames: &[Frame<'_>],
    outcomes: &mut [Outcome],
    events: &mut Events,
    came: Came,
) {
    tracker.core.records.begin();
    let owners = (came == Came::ByPort && tracker.owners.are_several()).then_some(&tracker.owners);
    let mut room: Room<'_> = [const { MaybeUninit::uninit() }; BURST];
    let mut general = General::new();
    #[cfg(target_arch = "x86_64")]
    if tracker.core.cpu.is_wide() {
        // SAFETY: the processor has been seen to have the instructions of `wide`.
        #[allow(unsafe_code)]
        unsafe {
            let burst = wide::read(&tracker.core, owners, frames, &mut room, &mut general);
            wide::fetch(&tracker.core, burst);
            wide::step(tracker, now, frames, burst, &general, outcomes, events, came);
        }
        return;
    }
    let burst = narrow::read(&tracker.core, owners, frames, &mut room, &mut general);
    narrow::fetch(&tracker.core, burst);
    narrow::step(tracker, now, frames, burst, &general, outcomes, events, came);
}

/// The stages, each a function of its own so that the compiler has the registers for one of them.
macro_rules! stages {
    ($name:ident, $wide:literal $(, #[$features:meta])?) => {
        mod $name {
            use super::*;

            $(#[$features])?
            #[inline(never)]
            pub(super) fn read<'r, 'a>(
                core: &Core,
                owners: Option<&Owners>,
                frames: &[Frame<'a>],
                room: &'r mut Room<'a>,
                general: &mut General<'a>,
            ) -> &'r mut [Work<'a>] {
                core.read_all::<$wide>(owners, frames, room, general)
            }

            $(#[$features])?
            #[inline(never)]
            pub(super) fn fetch(core: &Core, burst: &mut [Work<'_>]) {
                core.fetch_all(burst);
            }

            $(#[$features])?
            #[inline(never)]
            #[expect(clippy::too_many_arguments, reason = "what a burst is")]
            pub(super) fn step(
                tracker: &mut Tracker,
                now: Tick,
                frames: &[Frame<'_>],
                burst: &[Work<'_>],
                general: &General<'_>,
                outcomes: &mut [Outcome],
                events: &mut Events,
                came: Came,
            ) {
                tracker.step_all(now, frames, burst, general, outcomes, events, came);
            }
        }
    };
}

stages!(narrow, false);
// x86-64-v3 with AES: the hash is part of stage 1 instead of a call for each packet.
#[cfg(target_arch = "x86_64")]
stages!(wide, true, #[target_feature(enable = "aes,avx2,bmi1,bmi2,fma,lzcnt,movbe,popcnt")]);

impl Tracker {
    /// Stage 3.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "what a burst is")]
    fn step_all(
        &mut self,
        now: Tick,
        frames: &[Frame<'_>],
        burst: &[Work<'_>],
        general: &General<'_>,
        outcomes: &mut [Outcome],
        events: &mut Events,
        came: Came,
    ) {
        let mut settled = 0;
        for (work, outcome) in burst.iter().zip(&mut *outcomes) {
            if self.core.on_settled(now, work, outcome) {
                settled += 1;
            } else if !self.core.on_first(now, work, events, outcome) {
                // Counting the frames would cost each of them what only these need.
                let at = (core::ptr::from_ref(work).addr() - burst.as_ptr().addr()) / size_of::<Work<'_>>();
                self.on_general(now, frames, at, work, general, events, came, outcome);
            }
        }
        self.core.flows.settle_pauses();
        if self.core.records.behind {
            self.core.record_behind(now, frames, burst, outcomes);
        }
        self.core.counters.lookups_hit += settled;
        self.core.counters.packets[Class::Established as usize] += settled;
    }

    /// Stage 3 of any frame.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "what a burst is")]
    fn on_general(
        &mut self,
        now: Tick,
        frames: &[Frame<'_>],
        at: usize,
        work: &Work<'_>,
        general: &General<'_>,
        events: &mut Events,
        came: Came,
        outcome: &mut Outcome,
    ) {
        let frame = &frames[at];
        self.core.records.place = at as u8;
        self.on_any(now, frame, work, general, events, came, outcome);
        if is_notable(outcome) {
            self.core.record_general(now, frame, work, general, outcome);
        }
    }

    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "what a burst is")]
    fn on_any(
        &mut self,
        now: Tick,
        frame: &Frame<'_>,
        work: &Work<'_>,
        general: &General<'_>,
        events: &mut Events,
        came: Came,
        outcome: &mut Outcome,
    ) {
        let parsed = match work.lane {
            Lane::Tcp | Lane::Udp => {
                return self.core.on_packet(now, frame, &work.packet(), Some(work.found()), events, outcome);
            }
            Lane::Away => {
                *outcome = Outcome::untold(Verdict::HandOff(WorkerId(work.general)));
                return;
            }
            Lane::Keyed | Lane::Bare => &general[usize::from(work.general)],
        };
        *outcome = match parsed {
            Parsed::Packet(packet) => {
                let found = (work.lane == Lane::Keyed).then(|| work.found());
                return self.core.on_packet(now, frame, packet, found, events, outcome);
            }
            Parsed::Fragment(fragment) => self.on_fragment(now, frame, fragment, events, came),
            Parsed::Untracked(kind) => self.core.untracked(frame, *kind),
            Parsed::Invalid(reason) => self.core.invalid(frame, *reason),
            Parsed::Malformed(reason) => self.core.malformed(*reason),
        };
    }
}

/// Makes a plain packet's [`Work`].
struct Enlist<'b, 'a, const WIDE: bool> {
    core: &'b Core,
    owners: Option<&'b Owners>,
    zone: u16,
    role: Role,
    place: &'b mut MaybeUninit<Work<'a>>,
}

impl<'a, const WIDE: bool> Take<'a> for Enlist<'_, 'a, WIDE> {
    #[inline(always)]
    fn take(self, plain: Plain<'a>) {
        let (key, side) = key_of_plain(&plain, self.zone);
        // Made where it stays, and hashed from there: moved, it would be read again before its parts have left the store
        // buffer.
        let work = self.place.write(Work {
            key,
            hash: 0,
            segment: plain.segment,
            ip_bytes: plain.ip_bytes,
            role: self.role,
            flow: NOWHERE,
            side,
            lane: if plain.tcp { Lane::Tcp } else { Lane::Udp },
            general: 0,
        });
        let hasher = &self.core.hasher;
        work.hash = if WIDE { hasher.hash_here(&work.key) } else { hasher.hash(work.key.key()) };
        match self.owners.and_then(|owners| owners.elsewhere(work.hash)) {
            Some(owner) => *work = Work::away(owner),
            None => self.core.flows.table.prefetch_bucket(work.hash),
        }
    }
}

impl Core {
    /// Stage 1: the frames' headers, keys and hashes; the index lines are on their way.
    #[inline(always)]
    fn read_all<'r, 'a, const WIDE: bool>(
        &self,
        owners: Option<&Owners>,
        frames: &[Frame<'a>],
        room: &'r mut Room<'a>,
        general: &mut General<'a>,
    ) -> &'r mut [Work<'a>] {
        let room = &mut room[..frames.len()];
        for (frame, place) in frames.iter().zip(room.iter_mut()) {
            if !self.read_plain::<WIDE>(owners, frame, frame.bytes, frame.zone, place) {
                self.read_general(owners, frame, place, general);
            }
        }
        // SAFETY: as many places as there are frames, and each was written: by `read_plain` where it gives true, or else by
        // `read_general`. A slice of MaybeUninit<T> lies as one of T.
        #[allow(unsafe_code)]
        unsafe {
            &mut *(core::ptr::from_mut(room) as *mut [Work<'a>])
        }
    }

    /// Writes the frame's place and gives true if it is plain from `bytes` on, and not to be looked into.
    #[inline(always)]
    fn read_plain<'a, const WIDE: bool>(
        &self,
        owners: Option<&Owners>,
        frame: &Frame<'a>,
        bytes: &'a [u8],
        zone: u16,
        place: &mut MaybeUninit<Work<'a>>,
    ) -> bool {
        if frame.link != wire::Link::Ethernet || (self.inner && tunnel::may_be_udp(bytes)) {
            return false;
        }
        // `take` is the only way for this to give true, and writes.
        let enlist = Enlist::<WIDE> { core: self, owners, zone, role: frame.role, place };
        plain::read(bytes, frame.checksum, self.settings.checksum, enlist)
    }

    /// Writes the place of a frame that is not plain, or is so only behind its tags.
    #[cold]
    fn read_general<'a>(
        &self,
        owners: Option<&Owners>,
        frame: &Frame<'a>,
        place: &mut MaybeUninit<Work<'a>>,
        general: &mut General<'a>,
    ) {
        let (checksum, verify) = (frame.checksum, self.settings.checksum);
        let (parsed, found) = match wire::parse_untagged(frame.bytes, frame.link, checksum, verify) {
            Ok(parsed) => self.find_place(frame, parsed, Some(frame.zone)),
            Err(tagged) => {
                let known = self.known_zone(frame.zone, tagged.tags);
                if known.is_some_and(|zone| {
                    self.read_plain::<false>(owners, frame, tagged.shifted(frame.bytes), zone, place)
                }) {
                    return;
                }
                self.find_tagged(frame, tagged.tags, tagged.parse(checksum, verify), known)
            }
        };
        let lane = if found.is_some() { Lane::Keyed } else { Lane::Bare };
        let Found { key, side, hash } =
            found.unwrap_or(Found { key: FlowKey::EMPTY, side: Side::Lo, hash: 0 });
        if lane == Lane::Keyed {
            if let Some(owner) = owners.and_then(|owners| owners.elsewhere(hash)) {
                place.write(Work::away(owner));
                return;
            }
            self.flows.table.prefetch_bucket(hash);
        }
        let number = general.len() as u8;
        general.push(parsed);
        place.write(Work {
            key: Words(*key.words()),
            hash,
            segment: Segment::NONE,
            ip_bytes: 0,
            role: frame.role,
            flow: NOWHERE,
            side,
            lane,
            general: number,
        });
    }

    /// Stage 2: the index says where the entry is, or will be; its lines are on their way. The few that live in their
    /// alternate bucket take a round more.
    #[inline(always)]
    fn fetch_all(&self, burst: &mut [Work<'_>]) {
        let table = &self.flows.table;
        let mut misses = 0;
        let mut elsewhere = 0_u64;
        for (at, work) in burst.iter_mut().enumerate() {
            if matches!(work.lane, Lane::Bare | Lane::Away) {
                continue;
            }
            match table.probe(work.hash) {
                Probe::Candidate(flow) => {
                    work.flow = flow;
                    table.prefetch_entry(flow);
                }
                Probe::Elsewhere => {
                    table.prefetch_alternate(work.hash);
                    elsewhere |= 1 << at;
                }
                Probe::Absent => {
                    table.prefetch_vacant(misses);
                    misses += 1;
                    if table.is_full() {
                        table.prefetch_victim(work.hash);
                    }
                }
            }
        }
        while elsewhere != 0 {
            let at = elsewhere.trailing_zeros() as usize;
            elsewhere &= elsewhere - 1;
            if let Some(flow) = table.probe_alternate(burst[at].hash) {
                burst[at].flow = flow;
                table.prefetch_entry(flow);
            }
        }
    }

    /// Stage 3 of a packet of a flow that is answered and ASSURED, where nothing but its timeout and its numbers can
    /// change. False, and nothing is changed, if it is not such a packet.
    #[inline(always)]
    fn on_settled(&mut self, now: Tick, work: &Work<'_>, outcome: &mut Outcome) -> bool {
        let Flows { table, cold, accounting, .. } = &mut self.flows;
        let Some(entry) = table.entry_of(work.flow, work.key.key()) else { return false };
        if until(entry.head.deadline, now.low()) <= 0 {
            return false;
        }
        let direction = entry.direction_of_settled(work.side);
        let step = match work.lane {
            Lane::Tcp if is_settled(entry, TcpState::Established as u8) => {
                tcp::step_established(entry.vars.tcp(), &work.segment, direction, &self.settled.rules)
            }
            Lane::Udp if is_settled(entry, 0) => {
                let ctx = Context { now: now.low(), direction, first: false, settings: &self.settings };
                step_udp(entry, &ctx)
            }
            _ => None,
        };
        let Some((key, span)) = step else { return false };
        let before = entry.head;
        entry.head.deadline = now.low().wrapping_add(span);
        entry.head.timeout_key = key as u8;
        if *accounting {
            cold.count(work.flow, entry, direction, work.ip_bytes);
        }
        if until(entry.head.deadline, entry.armed) < 0 {
            self.flows.settle(now, work.flow);
        }
        self.flows.heard(now, work.flow, before);
        *outcome = *self.settled.of(work.role, work.lane, direction);
        if let Verdict::Drop(reason) = outcome.verdict {
            self.counters.dropped[reason.index()] += 1;
            self.records.behind = true;
        }
        true
    }

    /// Stage 3 of a first packet, if it is a SYN or UDP. False, and nothing is changed, if it is not such a packet.
    #[inline(always)]
    fn on_first(&mut self, now: Tick, work: &Work<'_>, events: &mut Events, outcome: &mut Outcome) -> bool {
        if !matches!(work.lane, Lane::Tcp | Lane::Udp) {
            return false;
        }
        // Asked again: an earlier packet of the burst may have made the flow.
        let table = &self.flows.table;
        if table.probe(work.hash) != Probe::Absent && table.find(work.hash, work.key.key()).is_some() {
            return false;
        }
        let flow = self.flows.table.take_vacant();
        let entry = self.flows.table.entry_mut(flow);
        begin(entry, work.key.key(), work.side, now);
        let step = if work.lane == Lane::Tcp {
            let rules = &self.settled.opening;
            tcp::step_opening(&mut entry.head, entry.vars.tcp(), &work.segment, rules)
        } else {
            let (now, direction) = (now.low(), Direction::Original);
            step_udp(entry, &Context { now, direction, first: true, settings: &self.settings })
        };
        let Some((key, span)) = step else {
            self.flows.table.give_back(flow);
            return false;
        };
        entry.head.deadline = now.low().wrapping_add(span);
        entry.head.timeout_key = key as u8;
        self.counters.lookups_miss += 1;
        self.counters.packets[Class::New as usize] += 1;
        let (decided, mark) = self.settled.first[work.role as usize];
        *outcome = decided;
        match decided.verdict {
            Verdict::Drop(reason) => {
                self.counters.dropped[reason.index()] += 1;
                self.records.behind = true;
                self.flows.table.give_back(flow);
            }
            _ => self.enter(now, work.hash, flow, mark, work.ip_bytes, events, outcome),
        }
        true
    }
}

impl Core {
    /// Records a frame that went the general way.
    #[cold]
    fn record_general(
        &mut self,
        now: Tick,
        frame: &Frame<'_>,
        work: &Work<'_>,
        general: &General<'_>,
        outcome: &Outcome,
    ) {
        let found = matches!(work.lane, Lane::Tcp | Lane::Udp | Lane::Keyed).then(|| work.found());
        match work.lane {
            Lane::Tcp | Lane::Udp => {
                self.record(now, frame, &Parsed::Packet(work.packet()), found.as_ref(), outcome);
            }
            Lane::Keyed | Lane::Bare => {
                self.record(now, frame, &general[usize::from(work.general)], found.as_ref(), outcome);
            }
            Lane::Away => {}
        }
    }

    /// Records what the short ways have dropped; the rest of the burst has been recorded as it came.
    #[cold]
    #[inline(never)]
    fn record_behind(&mut self, now: Tick, frames: &[Frame<'_>], burst: &[Work<'_>], outcomes: &[Outcome]) {
        self.records.behind = false;
        for (at, ((work, frame), outcome)) in burst.iter().zip(frames).zip(outcomes).enumerate() {
            if matches!(work.lane, Lane::Tcp | Lane::Udp) && is_notable(outcome) {
                self.records.place = at as u8;
                self.record(now, frame, &Parsed::Packet(work.packet()), Some(&work.found()), outcome);
            }
        }
    }
}

/// What can be said before they come of packets of settled flows, and of first packets.
#[derive(Debug)]
pub(super) struct Settled {
    rules: tcp::EstablishedRules,
    opening: tcp::OpeningRules,
    /// By role, UDP or not, and direction: see [`Self::of`].
    outcomes: [Outcome; 8],
    /// Of first packets, by role: SYNs and UDP.
    first: [(Outcome, u32); 2],
}

impl Settled {
    pub(super) fn new(settings: &Settings, policy: &Policy) -> Self {
        let mut outcomes = [Outcome::untold(Verdict::Forward); 8];
        for role in Role::ALL {
            for lane in [Lane::Tcp, Lane::Udp] {
                for direction in [Direction::Original, Direction::Reply] {
                    let decision = policy.decide(role, Class::Established, lane == Lane::Tcp);
                    outcomes[Self::at(role, lane, direction)] =
                        Outcome::of(Class::Established, Some(direction), decision);
                }
            }
        }
        let first = Role::ALL.map(|role| {
            let decision = policy.decide(role, Class::New, false);
            (Outcome::of(Class::New, Some(Direction::Original), decision), policy.mark(role, false))
        });
        let (rules, opening) = (tcp::EstablishedRules::new(settings), tcp::OpeningRules::new(settings));
        Self { rules, opening, outcomes, first }
    }

    #[inline(always)]
    fn at(role: Role, lane: Lane, direction: Direction) -> usize {
        (role as usize & 1) << 2 | (lane as usize & 1) << 1 | direction.index()
    }

    /// Of a packet of a settled flow.
    #[inline(always)]
    fn of(&self, role: Role, lane: Lane, direction: Direction) -> &Outcome {
        &self.outcomes[Self::at(role, lane, direction)]
    }
}

/// Alive, answered, ASSURED, in this state, between two endpoints, and nothing waits to be told.
#[inline(always)]
fn is_settled(entry: &Entry, state: u8) -> bool {
    const WANT: u16 = status::LIVE | status::SEEN_REPLY | status::ASSURED;
    let want = if planted(Fault::LaneUnsettled) { WANT & !status::ASSURED } else { WANT };
    let mask = 0xff | u32::from(want | status::STATE_CHANGED | status::MIRROR) << 16;
    entry.head.facts() & mask == u32::from(state) | u32::from(want) << 16
}

#[inline(always)]
fn step_udp(entry: &mut Entry, ctx: &Context<'_>) -> Option<(TimeoutKey, u32)> {
    match udp::step(&mut entry.head, entry.vars.udp(), ctx) {
        Step::Refresh { key, span } => Some((key, span)),
        _ => None,
    }
}
