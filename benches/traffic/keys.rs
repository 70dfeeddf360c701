//! The keys of the benchmarks' flows, as the tracker makes them of their frames.

use conntrack::key::{FlowKey, key_of};
use conntrack::wire::{Checksum, Link, Parsed, parse};

use crate::traffic::{Kind, Wire};

/// The key of flow `id`.
pub(crate) fn of(kind: Kind, id: u32) -> FlowKey {
    let frame = Wire::new(kind, id, false);
    let Parsed::Packet(packet) = parse(frame.bytes(), Link::Ethernet, Checksum::Good, true) else {
        panic!("a frame of the benchmarks is a packet");
    };
    key_of(&packet, 0).expect("and has a key").key
}
