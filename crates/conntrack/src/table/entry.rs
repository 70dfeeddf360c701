//! One flow: 128 bytes, two adjacent cache lines, IPv4 and IPv6 alike.
//! The key is fixed at insertion; each group of the rest that must be consistent is one aligned word.

use crate::key::{Direction, FlowKey, Side};
use crate::table::memory::Zeroed;
use crate::track::{gre::GreVars, sctp::SctpVars, tcp::TcpVars, udp::UdpVars};
use crate::wire::proto;

/// A live flow. The words that carry its counters beyond 32 bits are in [`crate::table::cold`].
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub struct Entry {
    pub key: FlowKey,
    pub head: Head,
    /// Low words of the per-direction counters, indexed by [`Direction::index`].
    pub packets: [u32; 2],
    pub bytes: [u32; 2],
    /// Low tick of the earliest deadline that the flow's place in the wheel serves in time; never later than the
    /// deadline. See [`crate::timer::wheel::Armed::at`].
    pub armed: u32,
    /// Where the wheel holds this flow's only reference.
    pub wheel_pos: u32,
    /// Low tick of the flow's making. 198 days of it are enough for everything but showing it: see
    /// [`crate::event::FlowView::created`].
    pub created: u32,
    /// The protocol's own variables; see [`crate::track`].
    pub vars: Vars,
}

const _: () = assert!(size_of::<Entry>() == 128);

// SAFETY: made of integers and of `Vars`, all of whose members are integers.
#[allow(unsafe_code)]
unsafe impl Zeroed for Entry {}

/// What must change together: one aligned word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Head {
    /// Low tick at which the flow is dead.
    pub deadline: u32,
    /// The protocol's state, as its own enum's number; 0 for protocols without states.
    pub state: u8,
    /// The [`crate::track::timeout::TimeoutKey`] that the deadline came from, and perhaps [`TIMEOUT_EDITED`].
    pub timeout_key: u8,
    /// See [`status`].
    pub status: u16,
}

/// In [`Head::timeout_key`]: an operator has moved the deadline since it was made of the timeout.
pub const TIMEOUT_EDITED: u8 = 0x80;

impl Head {
    /// The number of the timeout alone.
    #[inline(always)]
    pub const fn timeout(self) -> u8 {
        self.timeout_key & !TIMEOUT_EDITED
    }

    /// All of it but the deadline, as one number: state, timeout, status from the lowest byte up.
    #[inline(always)]
    pub const fn facts(self) -> u32 {
        self.state as u32 | (self.timeout_key as u32) << 8 | (self.status as u32) << 16
    }

    /// Of a deadline and [`Head::facts`].
    pub const fn of(deadline: u32, facts: u32) -> Self {
        let [state, timeout_key, low, high] = facts.to_le_bytes();
        Self { deadline, state, timeout_key, status: u16::from_le_bytes([low, high]) }
    }
}

/// Bits of [`Head::status`].
pub mod status {
    pub const SEEN_REPLY: u16 = 1;
    pub const ASSURED: u16 = 2;
    /// The original direction's sender is the key's `hi` endpoint.
    pub const ORIGINAL_HI: u16 = 4;
    /// The slot holds a live flow. The table sets and clears it.
    pub const LIVE: u16 = 8;
    /// [`crate::table::cold`] holds a line for this flow; it sets and clears this.
    pub const COLD: u16 = 16;
    /// A change waits to be told: the stored state is what it was, or the packet that changed it was INVALID.
    pub const STATE_CHANGED: u16 = 32;
    /// Both endpoints are equal: every packet is a reply. See [`crate::key::FlowKey::is_mirror`].
    pub const MIRROR: u16 = 64;
    /// The flow's mark is not 0 and lies in [`crate::table::cold`], which sets and clears this.
    pub const MARKED: u16 = 128;
    /// The longest pause of this flow is kept; who keeps the pauses sets it.
    pub const PAUSED: u16 = 256;
    /// The upper bits tell flows apart that follow each other in one slot.
    pub const INCARNATION_SHIFT: u32 = 9;
}

/// 52 bytes that the flow's protocol interprets. All-zero is every protocol's start, and every bit pattern is a
/// value of every member, so that reading the wrong one gives wrong numbers but nothing worse.
#[derive(Clone, Copy)]
#[repr(C)]
pub union Vars {
    pub raw: [u32; 13],
    pub tcp: TcpVars,
    pub udp: UdpVars,
    pub sctp: SctpVars,
    pub gre: GreVars,
}

impl core::fmt::Debug for Vars {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.raw().fmt(f)
    }
}

#[allow(unsafe_code)]
impl Vars {
    /// Every protocol's start.
    pub const ZERO: Self = Self { raw: [0; 13] };

    /// All 52 bytes.
    pub fn raw(&self) -> &[u32; 13] {
        // SAFETY: every member is made of integers only, so every bit pattern is a valid `[u32; 13]`.
        unsafe { &self.raw }
    }

    /// Those two of the words that people are shown, for this protocol.
    #[inline(always)]
    pub fn shown(&self, l4: u8) -> [u32; 2] {
        let (raw, at) = (self.raw(), Self::shown_at(l4));
        [raw[at], raw[at + 1]]
    }

    /// Variables of which only those words are known.
    pub fn of_shown(l4: u8, words: [u32; 2]) -> Self {
        let (mut raw, at) = ([0; 13], Self::shown_at(l4));
        (raw[at], raw[at + 1]) = (words[0], words[1]);
        Self { raw }
    }

    #[inline(always)]
    const fn shown_at(l4: u8) -> usize {
        const _: () =
            assert!(size_of::<TcpVars>() <= 4 * (TcpVars::SHOWN_AT + 2) && TcpVars::SHOWN_AT + 2 <= 13);
        const _: () = assert!(size_of::<GreVars>() == 8 && core::mem::offset_of!(SctpVars, vtag) == 0);
        if l4 == proto::TCP { TcpVars::SHOWN_AT } else { 0 }
    }

    /// The variables of a TCP flow.
    #[inline(always)]
    pub fn tcp(&mut self) -> &mut TcpVars {
        // SAFETY: TcpVars is made of integers only, so every bit pattern is valid.
        unsafe { &mut self.tcp }
    }

    /// The variables of a UDP or UDP-Lite flow.
    #[inline(always)]
    pub fn udp(&mut self) -> &mut UdpVars {
        // SAFETY: as for `tcp`.
        unsafe { &mut self.udp }
    }

    /// The variables of an SCTP flow.
    #[inline(always)]
    pub fn sctp(&mut self) -> &mut SctpVars {
        // SAFETY: as for `tcp`.
        unsafe { &mut self.sctp }
    }

    /// The variables of a GRE flow.
    #[inline(always)]
    pub fn gre(&mut self) -> &mut GreVars {
        // SAFETY: as for `tcp`.
        unsafe { &mut self.gre }
    }
}

impl Entry {
    /// As [`Self::direction_of`], of a flow whose endpoints are not equal.
    #[inline(always)]
    pub fn direction_of_settled(&self, side: Side) -> Direction {
        let original_hi = self.head.status & status::ORIGINAL_HI != 0;
        if (side == Side::Hi) ^ original_hi { Direction::Reply } else { Direction::Original }
    }

    /// The direction of a packet that came from `side`. A packet to oneself (both endpoints equal) matches the
    /// reply tuple first, as the kernel finds it.
    #[inline(always)]
    pub fn direction_of(&self, side: Side) -> Direction {
        let original_hi = self.head.status & status::ORIGINAL_HI != 0;
        let mirror = self.head.status & status::MIRROR != 0;
        // Without a branch: which side a packet comes from is as good as random to a branch predictor.
        if ((side == Side::Hi) ^ original_hi) | mirror { Direction::Reply } else { Direction::Original }
    }
}
