//! A flow that has ended, as every sink is told of it.

use conntrack::event::{DestroyReason, Event, EventKind, FlowView, ProtoView};
use conntrack::tick::{PER_SECOND, Ticks};
use conntrack::track::timeout::{TimeoutKey, Timeouts};
use conntrack::wire::Tags;

/// See the file's head. Moments are milliseconds since 1970, by the machine's wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub flow: FlowView,
    pub reason: DestroyReason,
    /// The first packet.
    pub start_unix_ms: u64,
    /// The last packet that started the flow's timer anew.
    pub end_unix_ms: u64,
    /// When the flow left the table.
    pub told_unix_ms: u64,
    /// The VLANs of its zone.
    pub tags: Tags,
}

impl Record {
    /// Of an event that tells of a flow's end, and of no other. `timeouts` are those of now; `boot_unix_ms` is the wall
    /// clock's reading when the machine booted.
    pub fn new(
        event: &Event,
        timeouts: &Timeouts,
        boot_unix_ms: u64,
        tags_of: impl Fn(u16) -> Tags,
    ) -> Option<Self> {
        let EventKind::Destroy(reason) = event.kind else { return None };
        let flow = event.flow();
        let (start, told) = (flow.created.as_millis(), event.at().as_millis());
        // Nobody writes down when a packet came: its deadline, less what it was given, says so. A timeout that was changed
        // meanwhile, or a time left that an operator set, shifts this, and never out of the flow's life.
        let given = given(&flow, timeouts);
        let last = event
            .snapshot
            .deadline()
            .as_millis()
            .saturating_sub(u64::from(given.0) * 1000 / u64::from(PER_SECOND));
        Some(Self {
            reason,
            start_unix_ms: boot_unix_ms + start,
            end_unix_ms: boot_unix_ms + last.min(told).max(start),
            told_unix_ms: boot_unix_ms + told,
            tags: tags_of(flow.zone),
            flow,
        })
    }
}

/// What the flow's timer was last started with.
fn given(flow: &FlowView, timeouts: &Timeouts) -> Ticks {
    match (flow.vars, flow.timeout_key) {
        (ProtoView::Gre { timeout_secs, .. }, TimeoutKey::Gre) => Ticks::from_secs(timeout_secs),
        (ProtoView::Gre { stream_timeout_secs, .. }, TimeoutKey::GreStream) => {
            Ticks::from_secs(stream_timeout_secs)
        }
        (_, key) => timeouts.get(key),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::IpAddr;

    use conntrack::event::{Count, Tuple, TupleIds};
    use conntrack::tick::Tick;

    use super::*;

    /// A flow between two addresses.
    pub(crate) fn flow(proto: u8, src: &str, dst: &str, ids: TupleIds) -> FlowView {
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        let back = match ids {
            TupleIds::Ports { sport, dport } => TupleIds::Ports { sport: dport, dport: sport },
            TupleIds::Icmp { code, id, .. } => TupleIds::Icmp { icmp_type: 0, code, id },
            other => other,
        };
        FlowView {
            id: 7,
            proto,
            zone: 3,
            state: 0,
            status: 0,
            original: Tuple { src, dst, ids },
            reply: Tuple { src: dst, dst: src, ids: back },
            count: Some([Count { packets: 2, bytes: 120 }, Count { packets: 1, bytes: 60 }]),
            mark: 9,
            timeout_secs: 0,
            timeout_key: TimeoutKey::Udp,
            created: Tick::from_millis(4_000),
            vars: ProtoView::None,
        }
    }

    /// A record of a flow that lived from 15:21:35 to 15:21:37 and was forgotten 30 seconds later.
    pub(crate) fn record(proto: u8, ids: TupleIds) -> Record {
        const START: u64 = 1_795_360_895_000;
        Record {
            flow: flow(proto, "198.18.0.1", "198.18.0.2", ids),
            reason: DestroyReason::Timeout,
            start_unix_ms: START,
            end_unix_ms: START + 2_004,
            told_unix_ms: START + 32_004,
            tags: Tags::NONE,
        }
    }
}
