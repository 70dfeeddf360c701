//! `-o xml`: one `<flow>` a line, as libnetfilter_conntrack 1.0.9 writes it.

use std::fmt::{self, Write};

use conntrack::event::{Count, EventKind, FlowView, Tuple, TupleIds};
use conntrack::track::tcp::TcpState;
use conntrack::wire::proto;

use super::{Deed, Style, event_count, event_timeout, local, operator, proto_name, tells_mark};

/// What stands before the first flow.
pub const XML_HEAD: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>";
/// What stands behind the last one.
pub const XML_END: &str = "</conntrack>";

/// A flow of a listing, or of an event, as one line without its end. The id is always there.
pub struct XmlFlow<'a>(pub Option<EventKind>, pub &'a FlowView, pub Style);

impl fmt::Display for XmlFlow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(event, flow, style) = self;
        f.write_str(match event {
            None => "<flow>",
            Some(EventKind::New) => "<flow type=\"new\">",
            Some(EventKind::Update | EventKind::Edited) => "<flow type=\"update\">",
            Some(EventKind::Destroy(_)) => "<flow type=\"destroy\">",
        })?;
        let count = match event {
            None => flow.count,
            Some(kind) => event_count(*kind, flow),
        };
        direction(f, flow.proto, "original", &flow.original, count.map(|both| both[0]))?;
        direction(f, flow.proto, "reply", &flow.reply, count.map(|both| both[1]))?;
        f.write_str("<meta direction=\"independent\">")?;
        // The library looks an SCTP state's number up among TCP's names.
        if matches!(flow.proto, proto::TCP | proto::SCTP) {
            write!(f, "<state>{}</state>", TcpState::from_number(flow.state).name(false))?;
        }
        let left = event.map_or(Some(flow.timeout_secs), |kind| event_timeout(kind, flow));
        if let Some(seconds) = left {
            write!(f, "<timeout>{seconds}</timeout>")?;
        }
        if event.is_none_or(|kind| tells_mark(kind, flow)) {
            write!(f, "<mark>{}</mark>", flow.mark)?;
        }
        if flow.zone != 0 {
            write!(f, "<zone>{}</zone>", flow.zone)?;
        }
        if event.is_none() {
            f.write_str(if style.done == Deed::Updated { "<use>2</use>" } else { "<use>1</use>" })?;
        }
        write!(f, "<id>{}</id>", flow.id)?;
        if flow.is_assured() {
            f.write_str("<assured/>")?;
        }
        if !flow.is_replied() {
            f.write_str("<unreplied/>")?;
        }
        since(f, *event, flow, *style)?;
        f.write_str("</meta>")?;
        if let (Some(_), Some(unix_ms)) = (event, style.when) {
            f.write_str(&local::when(unix_ms))?;
        }
        f.write_str("</flow>")?;
        event.map_or(Ok(()), |kind| operator(f, kind, *style))
    }
}

/// Nanoseconds since 1970, and whole seconds between.
fn since(f: &mut impl Write, event: Option<EventKind>, flow: &FlowView, style: Style) -> fmt::Result {
    let ended = matches!(event, Some(EventKind::Destroy(_)));
    let Some(since) = style.since.filter(|_| event.is_none() || ended) else { return Ok(()) };
    let (start, now) = (since.start_ms(flow), since.now_unix_ms);
    write!(f, "<timestamp><start>{start}000000</start>")?;
    if ended {
        write!(f, "<stop>{now}000000</stop>")?;
    }
    let delta = if ended { now.saturating_sub(start) / 1000 } else { since.delta_secs(flow) };
    write!(f, "</timestamp><deltatime>{delta}</deltatime>")
}

fn direction(f: &mut impl Write, number: u8, name: &str, tuple: &Tuple, count: Option<Count>) -> fmt::Result {
    // AF_INET and AF_INET6.
    let (family, word) = if tuple.src.is_ipv4() { (2, "ipv4") } else { (10, "ipv6") };
    write!(
        f,
        "<meta direction=\"{name}\"><layer3 protonum=\"{family}\" protoname=\"{word}\"><src>{}</src><dst>{}</dst></layer3>\
         <layer4 protonum=\"{number}\" protoname=\"{}\">",
        tuple.src,
        tuple.dst,
        proto_name(number)
    )?;
    match tuple.ids {
        TupleIds::Ports { sport, dport } => write!(f, "<sport>{sport}</sport><dport>{dport}</dport>")?,
        TupleIds::Gre { srckey, dstkey } => {
            write!(f, "<srckey>{srckey:#x}</srckey><dstkey>{dstkey:#x}</dstkey>")?;
        }
        // The library writes nothing of an ICMP query.
        TupleIds::Icmp { .. } | TupleIds::None => {}
    }
    f.write_str("</layer4>")?;
    if let Some(Count { packets, bytes }) = count {
        write!(f, "<counters><packets>{packets}</packets><bytes>{bytes}</bytes></counters>")?;
    }
    f.write_str("</meta>")
}
