//! Flows and events as text, byte for byte as the kernel and `conntrack` (conntrack-tools 1.4.7) write them.
//! Owns the line forms; sees views only, wherever they come from.

mod local;
mod output;
mod save;
mod table;
mod xml;

use std::fmt::{self, Write};
use std::net::IpAddr;

use conntrack::event::{Count, EventKind, FlowView, ProtoView, Tuple, TupleIds};
use conntrack::wire::proto;

pub use output::{Layout, Output, OutputError};
pub use save::SaveLine;
pub use table::{TABLE_HEAD, TableLine};
pub use xml::{XML_END, XML_HEAD, XmlFlow};

/// Which program's line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The 2.4 kernel's `/proc/net/ip_conntrack`: no counters, and a mark only where there is one.
    Classic,
    /// `conntrack -L`.
    Conntrack,
    /// `/proc/net/nf_conntrack`: with the address family, the zone and IPv6 addresses in full.
    Proc,
}

/// A line's form and the columns that were asked for besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub form: Form,
    /// The address family in front (`-o extended`); [`Form::Proc`] always has it.
    pub family: bool,
    /// The flow's id at the end (`-o id`).
    pub id: bool,
    /// The profile calls the TCP state SYN_SENT2 LISTEN.
    pub listen: bool,
    /// What was done to the flow for the line to be printed.
    pub done: Deed,
    /// Who did what an operator did, as a process id: `conntrack -E` names the program behind an event.
    pub operator: Option<u32>,
    /// When the flow began (`-o ktimestamp`).
    pub since: Option<Since>,
    /// When an event happened, in milliseconds since 1970; XML has it inside (`-o xml,timestamp`).
    pub when: Option<u64>,
}

/// Why a flow is printed, outside of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Listed,
    /// `conntrack` then holds a second reference to the flow, and shows it.
    Updated,
    Deleted,
}

/// What turns a flow's start into a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// When the machine booted, in milliseconds since 1970.
    pub boot_unix_ms: u64,
    /// Now, or when the event happened.
    pub now_unix_ms: u64,
}

impl Since {
    fn start_ms(self, flow: &FlowView) -> u64 {
        self.boot_unix_ms.saturating_add(flow.created.as_millis())
    }

    /// As conntrack reckons: from the second that the flow began in to this one.
    fn delta_secs(self, flow: &FlowView) -> u64 {
        (self.now_unix_ms / 1000).saturating_sub(self.start_ms(flow) / 1000)
    }
}

impl Style {
    /// Without any column besides.
    pub const fn new(form: Form) -> Self {
        Self {
            form,
            family: false,
            id: false,
            listen: false,
            done: Deed::Listed,
            operator: None,
            since: None,
            when: None,
        }
    }
}

/// The protocol's name as `conntrack` and the kernel print it; `unknown` where it has none.
pub fn proto_name(number: u8) -> &'static str {
    match number {
        proto::ICMP => "icmp",
        proto::TCP => "tcp",
        proto::UDP => "udp",
        proto::GRE => "gre",
        proto::ICMPV6 => "icmpv6",
        proto::SCTP => "sctp",
        proto::UDPLITE => "udplite",
        _ => "unknown",
    }
}

/// One flow of a listing, as one line without its end.
pub struct FlowLine<'a>(pub &'a FlowView, pub Style);

/// One event, as one line without its end.
pub struct EventLine<'a>(pub EventKind, pub &'a FlowView, pub Style);

impl fmt::Display for FlowLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(flow, style) = self;
        let proc = style.form == Form::Proc;
        head(f, flow, *style, Some(flow.timeout_secs))?;
        let count = flow.count.filter(|_| style.form != Form::Classic);
        tuples(f, flow, count, proc)?;
        if flow.is_assured() {
            f.write_str("[ASSURED] ")?;
        }
        match style.form {
            Form::Classic => {
                if flow.mark != 0 {
                    write!(f, "mark={} ", flow.mark)?;
                }
                zone_unless_0(f, flow)?;
            }
            Form::Conntrack => {
                write!(f, "mark={} ", flow.mark)?;
                zone_unless_0(f, flow)?;
            }
            Form::Proc => write!(f, "mark={} zone={} ", flow.mark, flow.zone)?,
        }
        since(f, flow, *style, None)?;
        // Nobody counts references here: it is the value that a flow has where only the table refers to it, so that
        // scripts which cut at this column keep working.
        f.write_str(if proc || style.done == Deed::Updated { "use=2" } else { "use=1" })?;
        id(f, flow, *style)
    }
}

impl fmt::Display for EventLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kind, flow, style) = self;
        f.write_str(match kind {
            EventKind::New => "    [NEW] ",
            EventKind::Update | EventKind::Edited => " [UPDATE] ",
            EventKind::Destroy(_) => "[DESTROY] ",
        })?;
        let mut line = String::new();
        head(&mut line, flow, *style, event_timeout(*kind, flow))?;
        let count = event_count(*kind, flow).filter(|_| style.form != Form::Classic);
        tuples(&mut line, flow, count, style.form == Form::Proc)?;
        if flow.is_assured() {
            line.push_str("[ASSURED] ");
        }
        if tells_mark(*kind, flow) {
            write!(line, "mark={} ", flow.mark)?;
        }
        zone_unless_0(&mut line, flow)?;
        since(&mut line, flow, *style, Some(*kind))?;
        f.write_str(line.trim_end())?;
        id(f, flow, *style)?;
        operator(f, *kind, *style)
    }
}

/// A flow that ended by its timeout has no time left, and ctnetlink leaves a zero out.
fn event_timeout(kind: EventKind, flow: &FlowView) -> Option<u32> {
    let ended = matches!(kind, EventKind::Destroy(_));
    Some(flow.timeout_secs).filter(|&left| !ended || left > 0)
}

/// Counters are told once, at the end.
fn event_count(kind: EventKind, flow: &FlowView) -> Option<[Count; 2]> {
    flow.count.filter(|_| matches!(kind, EventKind::Destroy(_)))
}

/// An event tells a mark that is there, or that has just been changed.
fn tells_mark(kind: EventKind, flow: &FlowView) -> bool {
    flow.mark != 0 || kind == EventKind::Edited
}

/// The program behind an event, as `conntrack -E` names it.
fn operator(f: &mut impl Write, kind: EventKind, style: Style) -> fmt::Result {
    use conntrack::event::DestroyReason::Admin;
    match (style.operator, kind) {
        (Some(pid), EventKind::Edited | EventKind::Destroy(Admin)) => {
            write!(f, " [USERSPACE] portid={pid} progname=dpdk-conntrack")
        }
        _ => Ok(()),
    }
}

/// The start's columns, each with a blank behind. An event has them at the flow's end only.
fn since(f: &mut impl Write, flow: &FlowView, style: Style, event: Option<EventKind>) -> fmt::Result {
    let ended = matches!(event, Some(EventKind::Destroy(_)));
    let Some(since) = style.since.filter(|_| event.is_none() || ended) else { return Ok(()) };
    let start = local::date(since.start_ms(flow));
    write!(f, "delta-time={} [start={start}] ", since.delta_secs(flow))?;
    if ended { write!(f, "[stop={}] ", local::date(since.now_unix_ms)) } else { Ok(()) }
}

/// Everything before the tuples.
fn head(f: &mut impl Write, flow: &FlowView, style: Style, left: Option<u32>) -> fmt::Result {
    if style.family || style.form == Form::Proc {
        // The numbers are AF_INET and AF_INET6.
        f.write_str(if flow.original.src.is_ipv4() { "ipv4     2 " } else { "ipv6     10 " })?;
    }
    write!(f, "{:<8} {} ", proto_name(flow.proto), flow.proto)?;
    if let Some(seconds) = left {
        write!(f, "{seconds} ")?;
    }
    if let Some(state) = flow.state_name(style.listen) {
        write!(f, "{state} ")?;
    }
    match flow.vars {
        ProtoView::Gre { timeout_secs, stream_timeout_secs } if style.form == Form::Proc => {
            write!(f, "timeout={timeout_secs}, stream_timeout={stream_timeout_secs} ")
        }
        _ => Ok(()),
    }
}

/// Both tuples, each with its counters and a blank behind.
fn tuples(f: &mut impl Write, flow: &FlowView, count: Option<[Count; 2]>, full_v6: bool) -> fmt::Result {
    tuple(f, &flow.original, count.map(|both| both[0]), full_v6)?;
    if !flow.is_replied() {
        f.write_str("[UNREPLIED] ")?;
    }
    tuple(f, &flow.reply, count.map(|both| both[1]), full_v6)
}

fn tuple(f: &mut impl Write, tuple: &Tuple, count: Option<Count>, full_v6: bool) -> fmt::Result {
    for (side, address) in [("src", tuple.src), ("dst", tuple.dst)] {
        match address {
            IpAddr::V6(v6) if full_v6 => {
                let s = v6.segments();
                write!(
                    f,
                    "{side}={:04x}:{:04x}:{:04x}:{:04x}:{:04x}:{:04x}:{:04x}:{:04x} ",
                    s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
                )?;
            }
            _ => write!(f, "{side}={address} ")?,
        }
    }
    match tuple.ids {
        TupleIds::Ports { sport, dport } => write!(f, "sport={sport} dport={dport} ")?,
        TupleIds::Icmp { icmp_type, code, id } => write!(f, "type={icmp_type} code={code} id={id} ")?,
        TupleIds::Gre { srckey, dstkey } => write!(f, "srckey={srckey:#x} dstkey={dstkey:#x} ")?,
        TupleIds::None => {}
    }
    match count {
        Some(Count { packets, bytes }) => write!(f, "packets={packets} bytes={bytes} "),
        None => Ok(()),
    }
}

fn zone_unless_0(f: &mut impl Write, flow: &FlowView) -> fmt::Result {
    if flow.zone == 0 { Ok(()) } else { write!(f, "zone={} ", flow.zone) }
}

fn id(f: &mut impl Write, flow: &FlowView, style: Style) -> fmt::Result {
    if style.id { write!(f, " id={}", flow.id) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
