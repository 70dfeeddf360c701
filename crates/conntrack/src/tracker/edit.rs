//! What an operator does to one flow: ends it, marks it, moves its deadline. The flow is named by its tuple and id, as
//! a listing showed it, so that a flow that came later on the same tuple is left alone.

use core::net::IpAddr;

use super::Tracker;
use crate::event::{DestroyReason, EventKind, Events, FlowView, TupleIds};
use crate::key::key_of_quoted;
use crate::table::entry::TIMEOUT_EDITED;
use crate::tick::{Tick, Ticks, until};
use crate::wire::{Addr, Family, Quoted, QuotedIds};

/// What to do to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// End it, as by [`DestroyReason::Admin`].
    Delete,
    /// Change what is given; the rest stays.
    Change {
        mark: Option<NewMark>,
        /// The time left from now on, until the flow's next packet sets it anew; at most [`Ticks::MAX`].
        timeout: Option<Ticks>,
    },
}

/// A mark for flows that may have one: the bits of `mask` are cleared, then `value` is XORed in, as `conntrack -U -m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewMark {
    pub value: u32,
    pub mask: u32,
}

impl NewMark {
    /// What becomes of `old`.
    pub const fn apply(self, old: u32) -> u32 {
        (old & !self.mask) ^ self.value
    }
}

impl Tracker {
    /// Does `edit` to the flow that `named` was copied from, and tells of it. Gives the flow as it was deleted or as it
    /// is now; `None` if it is not there any more.
    pub fn edit(&mut self, now: Tick, named: &FlowView, edit: Edit, events: &mut Events) -> Option<FlowView> {
        let core = &mut self.core;
        let key = key_of_quoted(&first_packet(named)?, named.zone)?.key;
        let hash = core.hasher.hash(&key);
        let flow = core.flows.table.find(hash, &key)?;
        let view = core.flows.view(now, flow);
        let gone = until(core.flows.table.entry(flow).head.deadline, now.low()) <= 0;
        if gone || view.id != named.id {
            return None;
        }
        match edit {
            Edit::Delete => {
                core.flows.end(now, hash, flow, DestroyReason::Admin, &mut core.counters, events);
                Some(view)
            }
            Edit::Change { mark, timeout } => {
                if let Some(mark) = mark {
                    core.flows.set_mark(flow, mark.apply(view.mark));
                }
                if let Some(span) = timeout {
                    let deadline = now.after(span.min(Ticks::MAX)).low();
                    let head = &mut core.flows.table.entry_mut(flow).head;
                    head.deadline = deadline;
                    head.timeout_key |= TIMEOUT_EDITED;
                    core.flows.settle(now, flow);
                }
                if events.enabled() {
                    core.flows.say(now, flow, EventKind::Edited, events);
                }
                Some(core.flows.view(now, flow))
            }
        }
    }
}

/// The identifiers of the flow's first packet, from which its key can be made again.
fn first_packet(flow: &FlowView) -> Option<Quoted> {
    let original = &flow.original;
    let (family, src, dst) = match (original.src, original.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => (Family::V4, Addr::v4(src.octets()), Addr::v4(dst.octets())),
        (IpAddr::V6(src), IpAddr::V6(dst)) => (Family::V6, Addr(src.octets()), Addr(dst.octets())),
        _ => return None,
    };
    let ids = match original.ids {
        TupleIds::Ports { sport, dport } => QuotedIds::Ports { sport, dport },
        TupleIds::Icmp { icmp_type, code, id } => QuotedIds::Icmp { icmp_type, code, id },
        // A call id stands at its destination only: crate::key.
        TupleIds::Gre { dstkey, .. } => QuotedIds::Gre { version: 1, call_id: dstkey },
        TupleIds::None => QuotedIds::None,
    };
    Some(Quoted { family, src, dst, proto: flow.proto, ids })
}
