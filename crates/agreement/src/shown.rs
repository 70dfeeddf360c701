//! What a conntrack shows after one packet, in the kernel's own terms: the class, the events and every entry.
//! Filled from a recording, from ctnetlink or from the tracker; none of them is seen here.

use conntrack::event::{Count, Tuple, TupleIds};
use conntrack::key::Direction;
use conntrack::policy::Class;

/// Everything that can be compared after one packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// `None`: the packet never reached tracking (a held fragment, a malformed header).
    pub class: Option<Class>,
    /// `None` for INVALID and untracked packets.
    pub direction: Option<Direction>,
    pub events: Vec<Event>,
    /// Oldest first.
    pub entries: Vec<Entry>,
}

impl Shown {
    /// Nothing yet; keeps the room.
    pub fn clear(&mut self) {
        self.class = None;
        self.direction = None;
        self.events.clear();
        self.entries.clear();
    }
}

/// One live entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 1, 2, ...: the n-th entry made since the start. 0: its making was never announced.
    pub n: u32,
    pub proto: u8,
    /// Whole seconds left.
    pub timeout: u32,
    /// TCP and SCTP only.
    pub state: Option<&'static str>,
    /// The kernel's bits; see [`status`].
    pub status: u32,
    pub original: Tuple,
    pub reply: Tuple,
    /// (original, reply); `None` when accounting is off.
    pub count: Option<[Count; 2]>,
    pub tcp: Option<Tcp>,
    /// Verification tags as (original, reply).
    pub vtag: Option<[u32; 2]>,
    pub mark: u32,
    pub zone: u16,
}

/// TCP variables as (original, reply).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub wscale: [u8; 2],
    pub flags: [u8; 2],
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// As [`Entry::n`].
    pub n: u32,
    /// Absent in DESTROY, as are the next two.
    pub timeout: Option<u32>,
    /// Absent also where the kernel leaves the protocol's part out.
    pub state: Option<&'static str>,
    pub status: Option<u32>,
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    New,
    Update,
    Destroy,
}

impl EventKind {
    /// As `conntrack -E` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Update => "UPDATE",
            Self::Destroy => "DESTROY",
        }
    }
}

/// Status bits. Linux include/uapi/linux/netfilter/nf_conntrack_common.h, `enum ip_conntrack_status`
pub mod status {
    pub const EXPECTED: u32 = 1;
    pub const SEEN_REPLY: u32 = 2;
    pub const ASSURED: u32 = 4;
    pub const CONFIRMED: u32 = 8;
    pub const HELPER: u32 = 1 << 13;

    /// Every bit's name, by position.
    pub const NAMES: [&str; 16] = [
        "EXPECTED",
        "SEEN_REPLY",
        "ASSURED",
        "CONFIRMED",
        "SRC_NAT",
        "DST_NAT",
        "SEQ_ADJUST",
        "SRC_NAT_DONE",
        "DST_NAT_DONE",
        "DYING",
        "FIXED_TIMEOUT",
        "TEMPLATE",
        "NAT_CLASH",
        "HELPER",
        "OFFLOAD",
        "HW_OFFLOAD",
    ];
}

/// TCP states by ctnetlink's number.
pub const TCP_STATES: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];

/// SCTP states by ctnetlink's number.
pub const SCTP_STATES: [&str; 9] = [
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
];

/// A tuple on one line, as `conntrack` prints it.
pub fn tuple_text(tuple: &Tuple) -> String {
    let ids = match tuple.ids {
        TupleIds::Ports { sport, dport } => format!(" sport={sport} dport={dport}"),
        TupleIds::Icmp { icmp_type, code, id } => format!(" type={icmp_type} code={code} id={id}"),
        TupleIds::Gre { srckey, dstkey } => format!(" srckey={srckey:#x} dstkey={dstkey:#x}"),
        TupleIds::None => String::new(),
    };
    format!("src={} dst={}{ids}", tuple.src, tuple.dst)
}

/// Status bits by name, joined by `+`.
pub fn status_text(bits: u32) -> String {
    let names: Vec<_> = status::NAMES
        .iter()
        .enumerate()
        .filter(|(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect();
    if names.is_empty() { "none".into() } else { names.join("+") }
}

impl core::fmt::Display for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "[{}] proto {} {}s", self.n, self.proto, self.timeout)?;
        if let Some(state) = self.state {
            write!(f, " {state}")?;
        }
        write!(f, " {} {}", status_text(self.status), tuple_text(&self.original))?;
        if let Some([original, reply]) = self.count {
            write!(
                f,
                " packets={}/{} bytes={}/{}",
                original.packets, reply.packets, original.bytes, reply.bytes
            )?;
        }
        if let Some(tcp) = self.tcp {
            write!(f, " wscale={}/{} flags={}/{}", tcp.wscale[0], tcp.wscale[1], tcp.flags[0], tcp.flags[1])?;
        }
        if let Some([original, reply]) = self.vtag {
            write!(f, " vtag={original}/{reply}")?;
        }
        Ok(())
    }
}

impl core::fmt::Display for Event {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} [{}]", self.kind.name(), self.n)?;
        if let Some(timeout) = self.timeout {
            write!(f, " {timeout}s")?;
        }
        if let Some(state) = self.state {
            write!(f, " {state}")?;
        }
        if let Some(bits) = self.status {
            write!(f, " {}", status_text(bits))?;
        }
        Ok(())
    }
}

/// Class and direction on one line.
pub fn class_text(class: Option<Class>, direction: Option<Direction>) -> String {
    let class = class.map_or("not tracked yet", Class::name);
    match direction {
        Some(Direction::Original) => format!("{class} original"),
        Some(Direction::Reply) => format!("{class} reply"),
        None => class.into(),
    }
}
