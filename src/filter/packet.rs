//! A filter of flows applied to packets: by the flow that a packet met, or where there is none as the first of one.

use conntrack::event::{FlowView, ProtoView, Tuple, TupleIds, tuple_of, tuple_of_quoted};
use conntrack::tick::Tick;
use conntrack::track::timeout::TimeoutKey;
use conntrack::tracker::{Explained, Look};
use conntrack::wire::glance::Glance;

use super::Filter;

impl Filter {
    /// Whether an INVALID or dropped packet is meant.
    pub fn matches_packet(&self, packet: &Explained) -> bool {
        match &packet.flow {
            Some(flow) => self.matches(flow),
            None => self.matches_stray(&packet.seen, packet.zone, false),
        }
    }

    /// Whether a packet that is to be tracked is of a flow that is meant.
    pub fn means(&self, look: &Look<'_>) -> bool {
        match &look.flow {
            Some(flow) => self.matches(flow),
            None if look.is_elsewhere() => self.may_mean(look),
            None => self.matches_stray(&look.seen, look.zone, true),
        }
    }

    /// Whether a packet may be, by all that does not change while its flow lives.
    pub fn may_mean(&self, look: &Look<'_>) -> bool {
        let lasting = Self { state: None, status: None, mark: None, ..*self };
        match &look.flow {
            Some(flow) => lasting.matches(flow),
            None => lasting.matches_stray(&look.seen, look.zone, true),
        }
    }

    /// A packet without a flow is taken for the first of one; with `both_ways` also for an answer.
    fn matches_stray(&self, seen: &Glance, zone: Option<u16>, both_ways: bool) -> bool {
        let Some(ip) = &seen.ip else { return self.is_empty() };
        // A fragment has no ports: those that other pieces of its datagram have are not known.
        let stripped = ip.piece.map(|_| self.without_ids());
        let filter = stripped.as_ref().unwrap_or(self);
        let own = stray(ip.proto, tuple_of(ip), zone);
        let about = ip.quoted.map(|quoted| stray(quoted.proto, tuple_of_quoted(&quoted), zone));
        [Some(own), about].into_iter().flatten().any(|view| {
            let turned = FlowView { original: view.reply, reply: view.original, ..view };
            filter.matches(&view) || (both_ways && filter.matches(&turned))
        })
    }

    fn without_ids(&self) -> Self {
        Self {
            sport: None,
            dport: None,
            reply_sport: None,
            reply_dport: None,
            icmp_type: None,
            icmp_code: None,
            icmp_id: None,
            srckey: None,
            dstkey: None,
            reply_srckey: None,
            reply_dstkey: None,
            ..*self
        }
    }
}

/// The flow that a packet would begin.
fn stray(proto: u8, original: Tuple, zone: Option<u16>) -> FlowView {
    let ids = match original.ids {
        TupleIds::Ports { sport, dport } => TupleIds::Ports { sport: dport, dport: sport },
        TupleIds::Gre { srckey, dstkey } => TupleIds::Gre { srckey: dstkey, dstkey: srckey },
        other => other,
    };
    let reply = Tuple { src: original.dst, dst: original.src, ids };
    FlowView {
        id: 0,
        proto,
        zone: zone.unwrap_or(0),
        state: 0,
        status: 0,
        original,
        reply,
        count: None,
        mark: 0,
        timeout_secs: 0,
        timeout_key: TimeoutKey::Generic,
        created: Tick(0),
        vars: ProtoView::None,
    }
}
