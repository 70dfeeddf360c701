//! What happened, as plain numbers on the tracker's own lines; readers get copies.

use crate::event::DestroyReason;
use crate::policy::{Class, DropReason};
use crate::table::entry::{Entry, status};
use crate::track::reason::Reason;
use crate::wire::{Untracked, proto};

/// The protocols that are counted apart, as they are called; the last is every other one.
pub const PROTOS: [&str; 8] = ["tcp", "udp", "udplite", "icmp", "icmpv6", "sctp", "gre", "unknown"];

/// The place in [`PROTOS`] by protocol number.
const PROTO_PLACES: [u8; 256] = {
    let mut places = [PROTOS.len() as u8 - 1; 256];
    places[proto::TCP as usize] = 0;
    places[proto::UDP as usize] = 1;
    places[proto::UDPLITE as usize] = 2;
    places[proto::ICMP as usize] = 3;
    places[proto::ICMPV6 as usize] = 4;
    places[proto::SCTP as usize] = 5;
    places[proto::GRE as usize] = 6;
    places
};

/// Numbers that only grow.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Packets by [`Class`] as index.
    pub packets: [u64; Class::ALL.len()],
    /// Untracked frames by [`Untracked`] as index.
    pub untracked: [u64; Untracked::ALL.len()],
    /// INVALID packets by [`Reason`] as index.
    pub invalid: [u64; Reason::ALL.len()],
    /// Frames that never reached tracking, by [`Reason`] as index.
    pub malformed: [u64; Reason::ALL.len()],
    /// Lookups that found a live flow.
    pub lookups_hit: u64,
    pub lookups_miss: u64,
    /// Flows made, by [`PROTOS`] as index.
    pub inserted: [u64; PROTOS.len()],
    /// Flows ended by [`DestroyReason`] as index.
    pub destroyed: [u64; DestroyReason::ALL.len()],
    /// Dropped frames by [`DropReason::index`].
    pub dropped: [u64; DropReason::LABELS.len()],
    /// New flows that passed without an entry because the table was full.
    pub full_untracked: u64,
    /// Fragments taken in for reassembly.
    pub fragments_held: u64,
    /// Fragments taken in once more, of datagrams that another worker has found whole.
    pub fragments_again: u64,
    /// Datagrams put together again.
    pub datagrams_completed: u64,
    /// Datagrams given up because their time ran out.
    pub datagrams_timed_out: u64,
    /// Datagrams given up because the room was needed for another.
    pub datagrams_evicted: u64,
    /// ICMP errors that matched no flow, or not well enough.
    pub icmp_error: u64,
    /// Packets that belong to a flow but neither count nor refresh.
    pub ignored: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            packets: [0; Class::ALL.len()],
            untracked: [0; Untracked::ALL.len()],
            invalid: [0; Reason::ALL.len()],
            malformed: [0; Reason::ALL.len()],
            lookups_hit: 0,
            lookups_miss: 0,
            inserted: [0; PROTOS.len()],
            destroyed: [0; DestroyReason::ALL.len()],
            dropped: [0; DropReason::LABELS.len()],
            full_untracked: 0,
            fragments_held: 0,
            fragments_again: 0,
            datagrams_completed: 0,
            datagrams_timed_out: 0,
            datagrams_evicted: 0,
            icmp_error: 0,
            ignored: 0,
        }
    }
}

impl Counters {
    /// Flows made, of all protocols.
    pub fn inserted(&self) -> u64 {
        self.inserted.iter().sum()
    }

    /// Counts a flow of protocol `l4` that was made.
    #[inline(always)]
    pub(super) fn count_inserted(&mut self, l4: u8) {
        self.inserted[usize::from(PROTO_PLACES[usize::from(l4)]) & (PROTOS.len() - 1)] += 1;
    }
}

/// Flows now in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// TCP, by state number ([`crate::track::tcp::TcpState`]).
    pub tcp: [u32; 16],
    pub udp: u32,
    pub udp_lite: u32,
    pub icmp: u32,
    pub icmpv6: u32,
    /// SCTP, by state number ([`crate::track::sctp::SctpState`]).
    pub sctp: [u32; 16],
    pub gre: u32,
    pub generic: u32,
    pub assured: u32,
    /// Flows that an answer was seen for.
    pub replied: u32,
}

impl StateCounts {
    fn place(&mut self, l4: u8, state: u8) -> &mut u32 {
        match l4 {
            proto::TCP => &mut self.tcp[usize::from(state & 0xf)],
            proto::UDP => &mut self.udp,
            proto::UDPLITE => &mut self.udp_lite,
            proto::ICMP => &mut self.icmp,
            proto::ICMPV6 => &mut self.icmpv6,
            proto::SCTP => &mut self.sctp[usize::from(state & 0xf)],
            proto::GRE => &mut self.gre,
            _ => &mut self.generic,
        }
    }

    /// Counts a flow that has just come.
    pub(super) fn add(&mut self, entry: &Entry) {
        *self.place(entry.key.proto, entry.head.state) += 1;
        self.assured += u32::from(entry.head.status & status::ASSURED != 0);
        self.replied += u32::from(entry.head.status & status::SEEN_REPLY != 0);
    }

    /// Forgets a flow that goes.
    pub(super) fn remove(&mut self, entry: &Entry) {
        *self.place(entry.key.proto, entry.head.state) -= 1;
        self.assured -= u32::from(entry.head.status & status::ASSURED != 0);
        self.replied -= u32::from(entry.head.status & status::SEEN_REPLY != 0);
    }

    /// Moves a flow of protocol `l4` from one state to another.
    pub(super) fn shift(&mut self, l4: u8, from: (u8, u16), to: (u8, u16)) {
        *self.place(l4, from.0) -= 1;
        *self.place(l4, to.0) += 1;
        let gained = |bit: u16| u32::from(to.1 & bit != 0).wrapping_sub(u32::from(from.1 & bit != 0));
        self.assured = self.assured.wrapping_add(gained(status::ASSURED));
        self.replied = self.replied.wrapping_add(gained(status::SEEN_REPLY));
    }

    /// All of them.
    pub fn total(&self) -> u32 {
        let Self { tcp, udp, udp_lite, icmp, icmpv6, sctp, gre, generic, assured: _, replied: _ } = self;
        tcp.iter().sum::<u32>() + sctp.iter().sum::<u32>() + udp + udp_lite + icmp + icmpv6 + gre + generic
    }
}
