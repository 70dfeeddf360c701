//! Room 2: view → FlowKey + side, and the key's hash. One key serves both directions.

use crate::wire::Addr;

/// The direction-free key of a flow: its two endpoints in sorted order. 40 bytes without padding, so that it
/// can be hashed and compared as words.
///
/// An endpoint's id is its port. ICMP queries: the asking side's id is the ICMP id, the answering side's is
/// the request's type and code; GRE version 1: the call id at the destination, 0 at the source; others: 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FlowKey {
    pub lo: Addr,
    pub hi: Addr,
    pub lo_id: u16,
    pub hi_id: u16,
    pub zone: u16,
    pub proto: u8,
    /// See [`kind`].
    pub kind: u8,
}

/// Bits of [`FlowKey::kind`].
pub mod kind {
    /// The addresses are IPv6.
    pub const V6: u8 = 1;
    /// ICMP queries: the asking side is `hi`. Keeps A's requests to B apart from B's requests to A.
    pub const ASKER_HI: u8 = 2;
    /// Set in every key of a live entry, so that an all-zero key never matches.
    pub const LIVE: u8 = 0x80;
}

/// Which endpoint of the key a packet came from. `Lo` when both endpoints are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Lo,
    Hi,
}

impl Side {
    /// The other endpoint.
    pub const fn other(self) -> Self {
        match self {
            Self::Lo => Self::Hi,
            Self::Hi => Self::Lo,
        }
    }
}

/// Relative to the first packet seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Original,
    Reply,
}

impl Direction {
    /// 0 for the original direction, 1 for the reply: the index of per-direction arrays.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The opposite direction.
    pub const fn other(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

impl FlowKey {
    /// Both endpoints are the same, as with a packet sent to oneself: its tuple equals its reply's tuple.
    pub fn is_mirror(&self) -> bool {
        self.lo == self.hi && self.lo_id == self.hi_id
    }
}
