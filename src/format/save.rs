//! `-o save`: each flow as the words that make `conntrack -R` create it again.

use std::fmt;

use conntrack::event::{EventKind, FlowView, ProtoView, TupleIds};
use conntrack::wire::proto;

use super::{Deed, Style, event_timeout, operator, proto_name};

/// A flow of a listing, or of an event, as one line without its end. Marks are not among `conntrack`'s words here.
pub struct SaveLine<'a>(pub Option<EventKind>, pub &'a FlowView, pub Style);

impl fmt::Display for SaveLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(event, flow, style) = self;
        f.write_str(match event {
            None if style.done == Deed::Deleted => "-D",
            None | Some(EventKind::New) => "-A",
            Some(EventKind::Update | EventKind::Edited) => "-U",
            Some(EventKind::Destroy(_)) => "-D",
        })?;
        let left = event.map_or(Some(flow.timeout_secs), |kind| event_timeout(kind, flow));
        if let Some(seconds) = left {
            write!(f, " -t {seconds}")?;
        }
        f.write_str(match (flow.is_replied(), flow.is_assured()) {
            (false, false) => " -u UNSET",
            (true, false) => " -u SEEN_REPLY",
            (false, true) => " -u ASSURED",
            (true, true) => " -u SEEN_REPLY,ASSURED",
        })?;
        if flow.zone != 0 {
            write!(f, " -w {}", flow.zone)?;
        }
        let (there, back) = (&flow.original, &flow.reply);
        write!(f, " -s {} -d {} -r {} -q {}", there.src, there.dst, back.src, back.dst)?;
        match proto_name(flow.proto) {
            "unknown" => write!(f, " -p {}", flow.proto)?,
            name => write!(f, " -p {name}")?,
        }
        match (there.ids, back.ids) {
            (TupleIds::Ports { sport, dport }, TupleIds::Ports { sport: from, dport: to }) => {
                write!(f, " --sport {sport} --dport {dport} --reply-port-src {from} --reply-port-dst {to}")?;
            }
            (TupleIds::Icmp { icmp_type, code, id }, _) => {
                let name = if flow.proto == proto::ICMP { "icmp" } else { "icmpv6" };
                write!(f, " --{name}-type {icmp_type} --{name}-code {code} --{name}-id {id}")?;
            }
            (TupleIds::Gre { srckey, dstkey }, TupleIds::Gre { srckey: from, dstkey: to }) => {
                write!(
                    f,
                    " --srckey {srckey} --dstkey {dstkey} --reply-key-src {from} --reply-key-dst {to}"
                )?;
            }
            _ => {}
        }
        if let Some(state) = flow.state_name(false) {
            write!(f, " --state {state}")?;
        }
        // The kernel tells tags no more when a flow ends. conntrack prints them as they lie in the packet.
        if let (ProtoView::Sctp { vtag }, false) = (flow.vars, matches!(event, Some(EventKind::Destroy(_)))) {
            let [there, back] = vtag.map(|tag| u32::from_ne_bytes(tag.to_be_bytes()));
            write!(f, " --orig-vtag {there} --reply-vtag {back}")?;
        }
        event.map_or(Ok(()), |kind| operator(f, kind, *style))
    }
}
