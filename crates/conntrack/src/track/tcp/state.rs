//! What is remembered of a TCP connection: 52 bytes.

use crate::key::Direction;
use crate::track::timeout::TimeoutKey;
use crate::wire::tcp_flags;

/// The states, numbered as the kernel numbers them (`enum tcp_conntrack`, uapi).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum TcpState {
    None = 0,
    SynSent = 1,
    SynRecv = 2,
    Established = 3,
    FinWait = 4,
    CloseWait = 5,
    LastAck = 6,
    TimeWait = 7,
    Close = 8,
    /// Both sides sent a SYN. The classic profile calls it LISTEN.
    SynSent2 = 9,
}

impl TcpState {
    /// Every state, by number.
    pub const ALL: [Self; 10] = [
        Self::None,
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::SynSent2,
    ];

    /// The state with this number; a number that is none is `None`.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        if (number as usize) < Self::ALL.len() { Self::ALL[number as usize] } else { Self::None }
    }

    /// As `conntrack` prints it; the classic profile calls SYN_SENT2 LISTEN.
    pub const fn name(self, classic: bool) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 if classic => "LISTEN",
            Self::SynSent2 => "SYN_SENT2",
        }
    }

    /// The timeout that the state has when nothing special applies.
    #[inline(always)]
    pub const fn timeout_key(self) -> TimeoutKey {
        const KEYS: [TimeoutKey; 10] = [
            TimeoutKey::TcpNone,
            TimeoutKey::TcpSynSent,
            TimeoutKey::TcpSynRecv,
            TimeoutKey::TcpEstablished,
            TimeoutKey::TcpFinWait,
            TimeoutKey::TcpCloseWait,
            TimeoutKey::TcpLastAck,
            TimeoutKey::TcpTimeWait,
            TimeoutKey::TcpClose,
            TimeoutKey::TcpListen,
        ];
        KEYS[self as usize]
    }

    /// Nothing more is expected: a SYN may start a new connection.
    pub(super) const fn is_over(self) -> bool {
        matches!(self, Self::TimeWait | Self::Close)
    }
}

/// What kind of segment it is: the column of the state table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Index {
    /// Also "nothing noted yet".
    None = 0,
    Syn = 1,
    SynAck = 2,
    Fin = 3,
    Ack = 4,
    Rst = 5,
}

impl Index {
    pub(super) const ALL: [Self; 6] = [Self::None, Self::Syn, Self::SynAck, Self::Fin, Self::Ack, Self::Rst];

    /// FIN for SYN and SYN for FIN: what a row of the state table with a planted fault takes it for.
    pub(super) const fn swapped(self) -> Self {
        match self {
            Self::Syn => Self::Fin,
            Self::Fin => Self::Syn,
            other => other,
        }
    }

    #[inline(always)]
    pub(super) const fn of(flags: u8) -> Self {
        use tcp_flags::{ACK, FIN, RST, SYN};
        if flags & RST != 0 {
            Self::Rst
        } else if flags & SYN != 0 {
            if flags & ACK != 0 { Self::SynAck } else { Self::Syn }
        } else if flags & FIN != 0 {
            Self::Fin
        } else if flags & ACK != 0 {
            Self::Ack
        } else {
            Self::None
        }
    }
}

/// Marks of a side, and of the last noted segment, as ctnetlink shows them.
#[derive(Debug)]
pub struct Mark;

impl Mark {
    /// The side offered a window scale.
    pub const WSCALE: u8 = 1;
    /// The side allows selective acknowledgments.
    pub const SACK_OK: u8 = 2;
    /// The side sent the first FIN.
    pub const CLOSE_INIT: u8 = 4;
    /// The side's windows are not held against it.
    pub const LIBERAL: u8 = 8;
    /// The side sent data that the other has not acknowledged.
    pub const UNACKED: u8 = 16;
    /// `maxack` is known.
    pub const MAXACK_SET: u8 = 32;
    /// The next ACK may be a challenge. RFC 5961 section 4
    pub const CHALLENGE: u8 = 64;
    /// Both sides sent a SYN.
    pub const SIMULTANEOUS: u8 = 128;
}

/// One side's numbers, all modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Peer {
    /// Behind the highest byte that the side has sent.
    pub end: u32,
    /// Behind the highest byte that the other side's window has allowed.
    pub maxend: u32,
    /// The largest window that the side has offered, scaled.
    pub maxwin: u32,
    /// The highest acknowledgment that the side has sent.
    pub maxack: u32,
}

/// The kind and direction of the last noted segment, and the window scale of a noted SYN, in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Noted(u8);

impl Noted {
    const INDEX: u8 = 0b0000_0111;
    const REPLY: u8 = 0b0000_1000;
    const WSCALE_SHIFT: u32 = 4;

    #[inline(always)]
    pub(super) fn index(self) -> Index {
        Index::ALL.get(usize::from(self.0 & Self::INDEX)).copied().unwrap_or(Index::None)
    }

    #[inline(always)]
    pub(super) fn direction(self) -> Direction {
        if self.0 & Self::REPLY != 0 { Direction::Reply } else { Direction::Original }
    }

    pub(super) fn wscale(self) -> u8 {
        self.0 >> Self::WSCALE_SHIFT
    }

    #[inline(always)]
    pub(super) fn set(&mut self, index: Index, from: Direction) {
        let reply = if from == Direction::Reply { Self::REPLY } else { 0 };
        self.0 = (self.0 & !(Self::INDEX | Self::REPLY)) | index as u8 | reply;
    }

    pub(super) fn set_wscale(&mut self, wscale: u8) {
        self.0 = (self.0 & (Self::INDEX | Self::REPLY)) | wscale << Self::WSCALE_SHIFT;
    }
}

/// A TCP flow's variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TcpVars {
    /// By [`Direction::index`] of the sender.
    pub peers: [Peer; 2],
    /// The last noted segment. `last_end` is compared with later acknowledgments and resets.
    pub last_seq: u32,
    pub last_ack: u32,
    pub last_end: u32,
    /// As on the wire, unscaled.
    pub last_window: u16,
    /// See [`Mark`]; by [`Direction::index`] of the side.
    pub flags: [u8; 2],
    scales: u8,
    pub(super) noted: Noted,
    /// See [`Mark`]; of the last noted SYN.
    pub last_flags: u8,
    /// How often in a row the last noted segment came again.
    pub retrans: u8,
}

impl TcpVars {
    /// The first of the two words of four bytes that hold `flags` and `scales`.
    pub(crate) const SHOWN_AT: usize = core::mem::offset_of!(TcpVars, flags) / 4;

    /// The window scale of a side, 0 to 14.
    #[inline(always)]
    pub const fn scale(&self, side: Direction) -> u8 {
        self.scales >> (4 * side.index()) & 0xf
    }

    /// The sender's and the receiver's numbers of a segment from `from`.
    #[inline(always)]
    pub(super) fn pair(&mut self, from: Direction) -> [&mut Peer; 2] {
        let [original, reply] = &mut self.peers;
        match from {
            Direction::Original => [original, reply],
            Direction::Reply => [reply, original],
        }
    }

    #[inline(always)]
    pub(super) fn set_scale(&mut self, side: Direction, scale: u8) {
        let shift = 4 * side.index();
        self.scales = (self.scales & !(0xf << shift)) | (scale & 0xf) << shift;
    }
}

/// `a` comes before `b` on the circle of sequence numbers. RFC 9293 section 3.4
#[inline(always)]
pub(super) const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// `a` comes after `b`.
#[inline(always)]
pub(super) const fn after(a: u32, b: u32) -> bool {
    before(b, a)
}
