//! Room 8 ties 1 to 7: a burst of frames goes in, an outcome for each comes out.
//! One owner, one thread; the only allocation is in [`Tracker::new`].

use crate::event::{Count, DestroyReason, Events, FlowView};
use crate::key::Direction;
use crate::policy::{Class, DropReason, Policy, Role};
use crate::table::memory::Memory;
use crate::tick::{Tick, Ticks};
use crate::track::reason::Reason;
use crate::track::settings::Settings;
use crate::track::timeout::TimeoutKey;
use crate::wire::{Checksum, Link};

/// One frame of a burst, as a driver hands it in.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub bytes: &'a [u8],
    pub link: Link,
    /// The side that it entered by.
    pub role: Role,
    pub zone: u16,
    /// What the NIC said of the transport checksum.
    pub checksum: Checksum,
}

/// Names a datagram whose fragments are held; never used twice while frames are held under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeldId(pub u32);

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Forward,
    Drop(DropReason),
    /// Keep the frame, in order, until an outcome releases this id or [`Tracker::take_discarded`] names it.
    Hold(HeldId),
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
    /// The frames held under this id share this frame's verdict, and go before it.
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

/// Plain numbers that only grow, read by copying.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// By [`Class`] as index.
    pub packets: [u64; 5],
    pub invalid: [u64; Reason::ALL.len()],
    /// Malformed frames, by reason.
    pub malformed: [u64; Reason::ALL.len()],
    pub lookups_hit: u64,
    pub lookups_miss: u64,
    pub inserted: u64,
    /// By [`DestroyReason`] as index.
    pub destroyed: [u64; 4],
    /// By policy: dropped packets by [`Class`] as index.
    pub dropped_by_policy: [u64; 5],
    /// New flows that found the table full, by what became of them.
    pub full_early_drop: u64,
    pub full_dropped: u64,
    pub full_untracked: u64,
    pub fragments_held: u64,
    pub fragments_dropped: u64,
    pub icmp_error: u64,
    pub ignored: u64,
}

/// Why a tracker cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitsError {
    /// `max_entries` is outside 1..=100 million.
    MaxEntries(u32),
    /// The memory handed in is too small.
    Memory { have: usize, need: usize },
}

/// The tracker of one core.
#[derive(Debug)]
pub struct Tracker {}

impl Tracker {
    /// Bytes of [`Memory`] that `limits` need.
    pub fn memory_bytes(limits: &Limits) -> Result<usize, LimitsError> {
        let _ = limits;
        unimplemented!()
    }

    /// A tracker with an empty table.
    pub fn new(
        limits: Limits,
        settings: Settings,
        policy: Policy,
        on_full: OnFull,
        memory: Memory,
    ) -> Result<Self, LimitsError> {
        let _ = (limits, settings, policy, on_full, memory);
        unimplemented!()
    }

    /// Tracks `frames` (at most [`BURST`]) in order and writes one outcome for each.
    pub fn on_burst(
        &mut self,
        now: Tick,
        frames: &[Frame<'_>],
        outcomes: &mut [Outcome],
        events: &mut Events,
    ) {
        let _ = (now, frames, outcomes, events);
        unimplemented!()
    }

    /// Ends flows whose time has come and moves a running sweep on, within `budget`.
    pub fn on_tick(&mut self, now: Tick, budget: ExpireBudget, events: &mut Events) -> Expired {
        let _ = (now, budget, events);
        unimplemented!()
    }

    /// Copies live flows from `from` on into `out` until it is full (to its capacity); gives where to go on, or `None` at the end.
    pub fn page(&self, now: Tick, from: Cursor, out: &mut alloc::vec::Vec<FlowView>) -> Option<Cursor> {
        let _ = (now, from, out);
        unimplemented!()
    }

    /// Changes a timeout. Lowering one starts a sweep that cuts live flows to min(remaining, new); raising one acts
    /// from each flow's next packet.
    pub fn set_timeout(&mut self, key: TimeoutKey, value: Ticks) {
        let _ = (key, value);
        unimplemented!()
    }

    /// Changes the switches and the policy between bursts; timeouts that went down are swept as by [`Tracker::set_timeout`].
    pub fn configure(&mut self, settings: Settings, policy: Policy, on_full: OnFull) {
        let _ = (settings, policy, on_full);
        unimplemented!()
    }

    /// The present settings.
    pub fn settings(&self) -> &Settings {
        unimplemented!()
    }

    /// Ends up to `budget` flows from `from` on, with reason [`DestroyReason::Admin`]; gives where to go on.
    pub fn flush(&mut self, now: Tick, from: Cursor, budget: u32, events: &mut Events) -> Option<Cursor> {
        let _ = (now, from, budget, events, DestroyReason::Admin);
        unimplemented!()
    }

    /// Flows in the table, including those whose timeout has passed but that the wheel has not reached.
    pub fn len(&self) -> u32 {
        unimplemented!()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flows by protocol class and state: see [`StateCounts`].
    pub fn states(&self) -> &StateCounts {
        unimplemented!()
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        unimplemented!()
    }

    /// A held datagram that will never be completed: free its frames. Ask until `None` after each burst and tick.
    pub fn take_discarded(&mut self) -> Option<HeldId> {
        unimplemented!()
    }
}

/// The most frames in one burst.
pub const BURST: usize = 64;

/// Flows now in the table.
#[derive(Clone, Debug, Default)]
pub struct StateCounts {
    /// TCP, by state number.
    pub tcp: [u32; 16],
    pub udp: u32,
    pub udp_lite: u32,
    pub icmp: u32,
    pub icmpv6: u32,
    /// SCTP, by state number.
    pub sctp: [u32; 16],
    pub gre: u32,
    pub generic: u32,
    pub assured: u32,
}

const _: fn() = || {
    let _ = Count::default();
};
