//! Drives a tracker packet by packet, with the clock and the bookkeeping of whoever recorded the kernel:
//! entries are numbered by their making, and everything is shown after every packet. Or several trackers that share
//! the flows, as an appliance's workers do: packets enter anywhere, and what is shown must be the same.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::HashMap;
use std::ptr::NonNull;

use conntrack::event::{
    Event as TrackerEvent, EventKind as TrackerEventKind, Events, FlowView, ProtoView, Tuple,
};
use conntrack::fragment::{Distances, Meeting};
use conntrack::key::owner::{Owners, WorkerId};
use conntrack::policy::{Action, Class, Policy, Role, Rule};
use conntrack::table::entry::status as flow_status;
use conntrack::table::memory::Memory;
use conntrack::tick::Tick;
use conntrack::track::reason::Reason;
use conntrack::track::settings::Settings;
use conntrack::tracker::{Cursor, ExpireBudget, Frame, HeldId, Limits, OnFull, Outcome, Tracker, Verdict};
use conntrack::wire::{Checksum, Link};

use crate::settings::KernelSettings;
use crate::shown::{self, Entry, Event, EventKind, Shown, Tcp};

const MAX_DATAGRAMS: u16 = 64;

/// What becomes of a packet behind the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on its way.
    Forwarded,
    /// It is dropped before it leaves: if it is the first of a flow, the flow is not inserted.
    DroppedIfNew,
}

/// One worker's tracker and the memory below it, emptied for each scenario.
struct Worker {
    region: Region,
    tracker: Option<Tracker>,
}

impl Worker {
    fn tracker(&mut self) -> &mut Tracker {
        self.tracker.as_mut().expect("`start` comes first")
    }
}

/// A packet on its way between workers.
#[derive(Clone, Copy)]
struct Sent<'a> {
    bytes: &'a [u8],
    role: Role,
    checksum: Checksum,
}

/// The frames of a datagram that waits, kept for the worker that may get it.
type Kept = Vec<(Vec<u8>, Role, Checksum)>;

/// Flows whose making was announced, and their numbers, by worker and its tracker's id.
type Live = HashMap<(usize, u32), Vec<(Tuple, u16, u32)>>;

/// One tracker, or several.
pub struct Player {
    workers: Vec<Worker>,
    events: Events,
    /// What happened since the last showing, and where.
    told: Vec<(usize, TrackerEvent)>,
    views: Vec<FlowView>,
    /// A packet as a frame.
    wire: Vec<u8>,
    live: Live,
    distances: Distances,
    held: HashMap<(usize, HeldId), Kept>,
    /// Chooses where the next packet enters.
    entry: u64,
    /// Fragments are put together where they enter, and all packets of one source enter at one worker.
    at_entry: bool,
    handed_off: u64,
    created: u32,
    announced: bool,
    reason: Option<&'static str>,
    max_flows: u32,
}

/// More flows than any scenario makes.
pub const SCENARIO_FLOWS: u32 = 1024;

impl Player {
    /// Takes all the memory that scenarios of at most `max_flows` flows need; it is cleared for each.
    pub fn new(max_flows: u32) -> Self {
        Self::with_workers(max_flows, 1)
    }

    /// As [`Player::new`], with so many trackers that share the flows.
    pub fn with_workers(max_flows: u32, workers: usize) -> Self {
        let need = Tracker::memory_bytes(&limits(max_flows)).expect("the callers' limits are constants");
        Self {
            workers: (0..workers).map(|_| Worker { region: Region::zeroed(need), tracker: None }).collect(),
            told: Vec::new(),
            held: HashMap::new(),
            entry: 0,
            at_entry: false,
            handed_off: 0,
            // One packet makes a few events, and a clock that jumps ends every flow.
            events: Events::with_capacity(4 * max_flows as usize),
            views: Vec::with_capacity(max_flows as usize),
            wire: Vec::new(),
            live: HashMap::new(),
            distances: Distances::new(),
            created: 0,
            announced: true,
            reason: None,
            max_flows,
        }
    }

    /// As where each port has one queue: what a source sends enters at one worker, which puts its datagrams together.
    pub fn meeting_at_entry(mut self) -> Self {
        self.at_entry = true;
        self
    }

    /// Starts again with an empty table.
    pub fn start(&mut self, settings: &KernelSettings) {
        let shares = vec![1; self.workers.len()];
        for (me, worker) in self.workers.iter_mut().enumerate() {
            worker.tracker = None;
            worker.region.clear();
            // SAFETY: the region is zeroed, aligned to 128 bytes and this worker's own; it outlives the tracker,
            // which is dropped before the region is cleared or freed, and there is only one tracker at a time.
            let memory = unsafe { Memory::mapped(worker.region.base, worker.region.layout.size()) };
            let tracker =
                Tracker::new(limits(self.max_flows), settings.tracker, policy(), OnFull::DropNew, memory)
                    .expect("the memory is as large as the limits need");
            let owners = Owners::shared(&shares, WorkerId(me as u8)).expect("few workers");
            let meeting = match self.at_entry {
                true => Meeting::Entry,
                false => Meeting::Owner(self.distances.clone()),
            };
            worker.tracker = Some(tracker.among(owners, meeting));
        }
        self.held.clear();
        self.told.clear();
        self.events.clear();
        self.events.set_enabled(settings.events);
        self.announced = settings.events;
        self.live.clear();
        self.created = 0;
    }

    /// Changes the settings between two packets.
    pub fn configure(&mut self, settings: Settings) {
        for worker in &mut self.workers {
            worker.tracker().configure(settings, policy(), OnFull::DropNew);
        }
    }

    /// Moves the clock to `now`, hands in one packet (no link header) and shows what came of it.
    pub fn packet(&mut self, now: Tick, bytes: &[u8], checksum: Checksum, fate: Fate, out: &mut Shown) {
        out.clear();
        self.advance(now);
        let role = match fate {
            Fate::Forwarded => Role::Inside,
            Fate::DroppedIfNew => Role::Outside,
        };
        let first = self.enters_at(bytes);
        let outcome = self.deliver(now, first, Sent { bytes, role, checksum }, false);
        out.class = outcome.class;
        out.direction = outcome.direction;
        self.reason = outcome.reason.map(Reason::explain);
        self.show(now, out);
    }

    /// The worker that a packet comes to: any, or the one of its source. A multiplier of L'Ecuyer's tables.
    fn enters_at(&mut self, bytes: &[u8]) -> usize {
        const SPREAD: u64 = 0xd134_2543_de82_ef95;
        let chosen = if self.at_entry {
            let source = match bytes.first().map(|first| first >> 4) {
                Some(4) => bytes.get(12..16),
                Some(6) => bytes.get(8..24),
                _ => None,
            };
            let add = |sum: u64, byte: &u8| sum.wrapping_add(u64::from(*byte) + 1).wrapping_mul(SPREAD);
            source.unwrap_or_default().iter().fold(0, add)
        } else {
            self.entry = self.entry.wrapping_mul(SPREAD).wrapping_add(1);
            self.entry
        };
        (chosen >> 33) as usize % self.workers.len()
    }

    /// Gives a packet to a worker, by a port or by a ring, and follows it until it is where it stays.
    fn deliver(&mut self, now: Tick, worker: usize, sent: Sent<'_>, by_ring: bool) -> Outcome {
        let Sent { bytes, role, checksum } = sent;
        // As on a wire, so that packets take the ways that they take through the appliance.
        let ethertype = match bytes.first().map(|first| first >> 4) {
            Some(4) => Some([0x08, 0x00]),
            Some(6) => Some([0x86, 0xdd]),
            _ => None,
        };
        let mut wire = core::mem::take(&mut self.wire);
        wire.clear();
        let frame = match ethertype {
            Some(ethertype) => {
                for part in [[0; 12].as_slice(), &ethertype, bytes] {
                    wire.extend_from_slice(part);
                }
                Frame { bytes: &wire, link: Link::Ethernet, role, zone: 0, checksum }
            }
            None => Frame { bytes, link: Link::Ip, role, zone: 0, checksum },
        };
        let mut outcomes = [Outcome::untold(Verdict::Forward)];
        let tracker = self.workers[worker].tracker();
        if by_ring {
            tracker.on_handed(now, &[frame], &mut outcomes, &mut self.events);
        } else {
            tracker.on_burst(now, &[frame], &mut outcomes, &mut self.events);
        }
        for _ in 0..MAX_DATAGRAMS {
            let Some(id) = tracker.take_discarded() else { break };
            self.held.remove(&(worker, id));
        }
        self.wire = wire;
        self.gather(worker);
        let [outcome] = outcomes;
        let released = outcome.releases.and_then(|id| self.held.remove(&(worker, id))).unwrap_or_default();
        match outcome.verdict {
            Verdict::HandOff(WorkerId(to)) => {
                self.handed_off += 1;
                for (bytes, role, checksum) in &released {
                    let sent = Sent { bytes, role: *role, checksum: *checksum };
                    let held = self.deliver(now, to.into(), sent, true).verdict;
                    assert!(matches!(held, Verdict::Hold(_)), "a piece of a whole datagram met {held:?}");
                }
                self.deliver(now, to.into(), sent, true)
            }
            Verdict::Hold(id) => {
                if self.workers.len() > 1 {
                    self.held.entry((worker, id)).or_default().push((bytes.to_vec(), role, checksum));
                }
                outcome
            }
            Verdict::Forward | Verdict::Drop(_) => outcome,
        }
    }

    /// Packets that went from one worker to another, since the start of all.
    pub fn handed_off(&self) -> u64 {
        self.handed_off
    }

    fn gather(&mut self, worker: usize) {
        self.told.extend(self.events.iter().map(|event| (worker, event)));
        self.events.clear();
    }

    /// Moves the clock to `now` and shows the table.
    pub fn look(&mut self, now: Tick, out: &mut Shown) {
        out.clear();
        self.advance(now);
        self.show(now, out);
    }

    /// Why the last packet was INVALID or malformed, in words.
    pub fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    fn advance(&mut self, now: Tick) {
        for worker in 0..self.workers.len() {
            self.advance_one(worker, now);
            self.gather(worker);
        }
    }

    fn advance_one(&mut self, worker: usize, now: Tick) {
        let (tracker, events) = (self.workers[worker].tracker(), &mut self.events);
        // The clock may have jumped over days: each turn moves the wheel, and the number of turns has an end.
        for _ in 0..1_000_000 {
            if !tracker.on_tick(now, ExpireBudget { flows: 4 * self.max_flows }, events).more {
                return;
            }
        }
        panic!("the wheel did not come to rest at {now:?}");
    }

    fn show(&mut self, now: Tick, out: &mut Shown) {
        for (worker, event) in self.told.drain(..) {
            let flow = &event.flow();
            let (kind, n) = match event.kind {
                TrackerEventKind::New => {
                    self.created += 1;
                    let same_id = self.live.entry((worker, flow.id)).or_default();
                    same_id.push((flow.original, flow.zone, self.created));
                    (EventKind::New, self.created)
                }
                TrackerEventKind::Update | TrackerEventKind::Edited => {
                    (EventKind::Update, number(&self.live, worker, flow))
                }
                TrackerEventKind::Destroy(_) => {
                    let n = number(&self.live, worker, flow);
                    if let Some(same_id) = self.live.get_mut(&(worker, flow.id)) {
                        same_id.retain(|(_, _, other)| *other != n);
                    }
                    (EventKind::Destroy, n)
                }
            };
            let alive = kind != EventKind::Destroy;
            out.events.push(Event {
                kind,
                n,
                timeout: alive.then_some(flow.timeout_secs),
                state: if alive { flow.state_name(false) } else { None },
                status: alive.then(|| kernel_status(flow.status)),
            });
        }
        self.entries_at(now, out);
    }

    /// Shows the entries as they stand at `now`, without moving the clock.
    pub fn entries_at(&mut self, now: Tick, out: &mut Shown) {
        out.entries.clear();
        // Who announces nothing is also shown nothing: entries are found by their announcement.
        if !self.announced {
            return;
        }
        for (worker, Worker { tracker, .. }) in self.workers.iter().enumerate() {
            let tracker = tracker.as_ref().expect("`start` comes first");
            let mut cursor = Some(Cursor::default());
            while let Some(from) = cursor {
                self.views.clear();
                cursor = tracker.page(now, from, &mut self.views);
                out.entries
                    .extend(self.views.iter().map(|view| entry(view, number(&self.live, worker, view))));
            }
        }
        out.entries.sort_by_key(|entry| entry.n);
    }
}

fn limits(max_flows: u32) -> Limits {
    Limits {
        max_entries: max_flows,
        max_datagrams: MAX_DATAGRAMS,
        hash_key: [
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
            0x082e_fa98_ec4e_6c89,
        ],
    }
}

/// Everything passes, but what would open a flow from outside: see [`Fate::DroppedIfNew`].
fn policy() -> Policy {
    let new = Rule {
        from: Some(Role::Outside),
        classes: 1 << Class::New as u8,
        new_needs_syn: false,
        action: Action::Drop,
        mark: 0,
    };
    Policy::new(&[new], Action::Accept).expect("one rule fits")
}

fn number(live: &Live, worker: usize, view: &FlowView) -> u32 {
    let same_id = live.get(&(worker, view.id)).map(Vec::as_slice).unwrap_or_default();
    let found = same_id.iter().find(|(original, zone, _)| *original == view.original && *zone == view.zone);
    found.map_or(0, |(_, _, n)| *n)
}

fn kernel_status(bits: u16) -> u32 {
    let seen = if bits & flow_status::SEEN_REPLY != 0 { shown::status::SEEN_REPLY } else { 0 };
    let assured = if bits & flow_status::ASSURED != 0 { shown::status::ASSURED } else { 0 };
    seen | assured | shown::status::CONFIRMED
}

fn entry(view: &FlowView, n: u32) -> Entry {
    let (tcp, vtag) = match view.vars {
        ProtoView::Tcp { wscale, flags } => (Some(Tcp { wscale, flags }), None),
        ProtoView::Sctp { vtag } => (None, Some(vtag)),
        ProtoView::Gre { .. } | ProtoView::None => (None, None),
    };
    Entry {
        n,
        proto: view.proto,
        timeout: view.timeout_secs,
        state: view.state_name(false),
        status: kernel_status(view.status),
        original: view.original,
        reply: view.reply,
        count: view.count,
        tcp,
        vtag,
        mark: 0,
        zone: view.zone,
    }
}

/// Zeroed memory of the alignment that trackers ask for.
struct Region {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the region is plain memory that only its owner reaches.
unsafe impl Send for Region {}

impl Region {
    fn zeroed(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(128), 128).expect("the limits are small");
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Self { base, layout }
    }

    fn clear(&mut self) {
        // SAFETY: `base` is valid for `layout.size()` bytes, and no tracker uses it now.
        unsafe { self.base.as_ptr().write_bytes(0, self.layout.size()) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `zeroed`, freed once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}
