//! What the world is told: copies of flows as NEW, UPDATE and DESTROY, into a buffer of fixed size.
//! A full buffer loses events and counts them; it never waits.

mod line;
mod snapshot;
mod tuple;

pub use line::Line;
pub use snapshot::Snapshot;
pub use tuple::{tuple_of, tuple_of_quoted, tuples};

use alloc::boxed::Box;
use alloc::vec;
use core::net::IpAddr;

use crate::table::entry::status;
use crate::tick::Tick;
use crate::track::sctp::SctpState;
use crate::track::tcp::TcpState;
use crate::wire::proto;

/// One direction's tuple, as `conntrack` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ids: TupleIds,
}

/// The transport part of a [`Tuple`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TupleIds {
    Ports { sport: u16, dport: u16 },
    Icmp { icmp_type: u8, code: u8, id: u16 },
    Gre { srckey: u16, dstkey: u16 },
    None,
}

/// One direction's counters. Bytes count from the IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// A copy of one flow, complete enough to print or export it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowView {
    /// Differs between incarnations of the same tuple.
    pub id: u32,
    pub proto: u8,
    pub zone: u16,
    /// The protocol's state number; see [`FlowView::state_name`].
    pub state: u8,
    /// See [`crate::table::entry::status`].
    pub status: u16,
    pub original: Tuple,
    pub reply: Tuple,
    /// Indexed by [`crate::key::Direction::index`]; `None` when accounting is off.
    pub count: Option<[Count; 2]>,
    /// 0 unless a policy row or an operator gave it one.
    pub mark: u32,
    /// Whole seconds left, rounded down, not below 0.
    pub timeout_secs: u32,
    pub timeout_key: crate::track::timeout::TimeoutKey,
    /// The last moment at which it may have been made: flows keep 32 bits of it, which come again after 198 days.
    pub created: Tick,
    pub vars: ProtoView,
}

/// Protocol variables that ctnetlink shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtoView {
    None,
    /// Window scale and flags as (original, reply). Flag bits as in ctnetlink: 1 window scale, 2 SACK permitted,
    /// 4 sent FIN first, 8 liberal, 16 data unacknowledged, 32 highest ack known, 64 challenge ack expected,
    /// 128 simultaneous open.
    Tcp {
        wscale: [u8; 2],
        flags: [u8; 2],
    },
    /// Verification tags as (original, reply), in host order.
    Sctp {
        vtag: [u32; 2],
    },
    /// Timeouts copied at creation, in seconds.
    Gre {
        timeout_secs: u32,
        stream_timeout_secs: u32,
    },
}

/// What happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    New,
    Update,
    /// As `Update`, by an operator.
    Edited,
    Destroy(DestroyReason),
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DestroyReason {
    /// Its timeout passed.
    Timeout,
    /// A reset of an unanswered flow, or a new connection on the same tuple.
    Closed,
    /// It made room in a full table.
    EarlyDrop,
    /// An operator deleted it.
    Admin,
}

impl DestroyReason {
    /// Every reason, in order.
    pub const ALL: [Self; 4] = [Self::Timeout, Self::Closed, Self::EarlyDrop, Self::Admin];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::EarlyDrop => "early_drop",
            Self::Admin => "admin",
        }
    }
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub snapshot: Snapshot,
}

impl Event {
    /// When it happened.
    pub fn at(&self) -> Tick {
        self.snapshot.at()
    }

    /// The flow as it was then.
    pub fn flow(&self) -> FlowView {
        self.snapshot.view()
    }
}

/// Which events are made. The others cost nothing and are not counted as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Nothing,
    /// [`EventKind::Destroy`] alone.
    Ends,
    All,
}

/// A bounded buffer of events between two visits of whoever takes them away.
#[derive(Debug)]
pub struct Events {
    /// As long as it will ever be, so that an event is written where it lies.
    buffer: Box<[Line]>,
    /// Lines of it that are in use.
    len: usize,
    /// Events in them.
    told: usize,
    enabled: bool,
    ends: bool,
    lost: u64,
}

impl Events {
    /// Room for `capacity` events: the only allocation.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            buffer: vec![Line::NONE; 2 * capacity].into(),
            len: 0,
            told: 0,
            enabled: true,
            ends: true,
            lost: 0,
        }
    }

    /// A buffer that nobody listens to.
    pub fn none() -> Self {
        Self { enabled: false, ends: false, ..Self::with_capacity(0) }
    }

    /// Whether anybody listens; while nobody does, events are neither made nor counted as lost.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.set_told(if enabled { Told::All } else { Told::Nothing });
    }

    /// What somebody listens to.
    pub fn set_told(&mut self, told: Told) {
        (self.enabled, self.ends) = (told == Told::All, told != Told::Nothing);
    }

    /// Whether every event is told.
    #[inline(always)]
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Whether a flow's end is told.
    #[inline(always)]
    pub fn ends_told(&self) -> bool {
        self.ends
    }

    /// Keeps it, or counts it as lost.
    #[inline(always)]
    pub(crate) fn tell(&mut self, event: &Event) {
        // Each has room for two lines, whatever the others took.
        let has_room = 2 * self.told < self.buffer.len();
        let Some(place) = self.buffer.get_mut(self.len..self.len + 2).filter(|_| has_room) else {
            self.lost += 1;
            return;
        };
        let lines = event.lines();
        place.copy_from_slice(&lines);
        self.len += 1 + usize::from(lines[0].has_rest());
        self.told += 1;
    }

    /// The events since the last [`Events::clear`], oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Event> {
        let mut lines = self.lines().iter();
        core::iter::from_fn(move || Event::read(&mut lines))
    }

    /// The same, as lines.
    pub fn lines(&self) -> &[Line] {
        &self.buffer[..self.len]
    }

    /// Forgets the events that were read; keeps the room.
    pub fn clear(&mut self) {
        (self.len, self.told) = (0, 0);
    }

    /// Events lost because the buffer was full, since the start.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl FlowView {
    /// The state as `conntrack` prints it (TCP and SCTP), with `LISTEN` for SYN_SENT2 in the classic profile.
    pub fn state_name(&self, classic: bool) -> Option<&'static str> {
        match self.proto {
            proto::TCP => Some(TcpState::from_number(self.state).name(classic)),
            proto::SCTP => Some(SctpState::from_number(self.state).name()),
            _ => None,
        }
    }

    /// An answer was seen: the absence of `[UNREPLIED]`.
    pub const fn is_replied(&self) -> bool {
        self.status & status::SEEN_REPLY != 0
    }

    /// `[ASSURED]`: a full table does not drop it.
    pub const fn is_assured(&self) -> bool {
        self.status & status::ASSURED != 0
    }
}
