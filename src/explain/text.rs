//! The words for a packet: one line of a record, and the story of a packet that was followed, a line for each room that it
//! went through.

use std::fmt::{self, Write};

use super::{Edge, EntryWord, Ip, Packet, PolicyWord, StepWords, VerdictWord};
use crate::control::schema::{Flow, FlowTuple};
use conntrack::track::reason::Reason;

/// A record of an INVALID or dropped packet, as one line without its end.
pub struct RecordLine<'a>(pub &'a Packet);

/// A packet that was followed, as some lines, the last without its end.
pub struct Story<'a>(pub &'a Packet);

impl fmt::Display for RecordLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(packet) = self;
        time(f, packet)?;
        f.write_str(if packet.verdict == VerdictWord::Forward { " [PASS] " } else { " [DROP] " })?;
        match &packet.ip {
            Some(ip) => numbers(f, ip)?,
            None => f.write_str("no IP packet")?,
        }
        if let VerdictWord::Drop { reason } = &packet.verdict {
            write!(f, " drop={reason}")?;
        }
        if let Some(reason) = &packet.reason {
            write!(f, " reason={reason}")?;
        }
        if let Some(Edge { number, value, edge, by }) = &packet.missed {
            write!(f, " missed={number} value={value} edge={edge} by={by}")?;
        }
        if let Some(flow) = &packet.flow {
            write!(f, " state={}", state(flow))?;
        }
        if let (Some(_), Some(direction)) = (&packet.flow, &packet.direction) {
            write!(f, " dir={direction}")?;
        }
        if let Some(PolicyWord { row, .. }) = &packet.policy {
            match row {
                Some(row) => write!(f, " policy={row}")?,
                None => f.write_str(" policy=end")?,
            }
        }
        if let Some(zone) = packet.zone {
            write!(f, " zone={zone}")?;
        }
        vlans(f, packet)?;
        match &packet.port {
            Some(port) => write!(f, " port={port}")?,
            None => write!(f, " from={}", packet.from)?,
        }
        write!(f, " worker={}", packet.worker)
    }
}

fn time(f: &mut fmt::Formatter<'_>, packet: &Packet) -> fmt::Result {
    // As `conntrack -E -o timestamp` begins, with as many digits as there are.
    write!(f, "[{}.{:03}]", packet.unix_ms / 1000, packet.unix_ms % 1000)
}

fn vlans(f: &mut fmt::Formatter<'_>, packet: &Packet) -> fmt::Result {
    match packet.vlans {
        [0, 0] => Ok(()),
        [outer, 0] => write!(f, " vlan={outer}"),
        [outer, inner] => write!(f, " vlan={outer}.{inner}"),
    }
}

/// Protocol, tuple and numbers, in `conntrack`'s manner.
fn numbers(f: &mut fmt::Formatter<'_>, ip: &Ip) -> fmt::Result {
    write!(f, "{:<8} {} ", ip.proto_name, ip.proto)?;
    tuple(f, &ip.tuple)?;
    if let Some(fragment) = ip.fragment {
        write!(f, " fragment={}:{}{}", fragment.id, fragment.offset, if fragment.more { "+" } else { "" })?;
    }
    if let Some(tcp) = &ip.tcp {
        let super::Numbers { flags, seq, ack, window, payload_bytes } = tcp;
        write!(f, " flags={flags} seq={seq} ack={ack} win={window} len={payload_bytes}")?;
    } else {
        write!(f, " bytes={}", ip.bytes)?;
    }
    if let Some(quoted) = &ip.quoted {
        write!(f, " quotes [{} ", quoted.proto_name)?;
        tuple(f, &quoted.tuple)?;
        f.write_char(']')?;
    }
    Ok(())
}

fn tuple(f: &mut fmt::Formatter<'_>, tuple: &FlowTuple) -> fmt::Result {
    if let (Some(src), Some(dst)) = (tuple.src, tuple.dst) {
        write!(f, "src={src} dst={dst}")?;
    }
    if let (Some(sport), Some(dport)) = (tuple.sport, tuple.dport) {
        write!(f, " sport={sport} dport={dport}")?;
    }
    if let (Some(icmp_type), Some(code), Some(id)) = (tuple.icmp_type, tuple.icmp_code, tuple.icmp_id) {
        write!(f, " type={icmp_type} code={code} id={id}")?;
    }
    if let (Some(srckey), Some(dstkey)) = (tuple.srckey, tuple.dstkey) {
        write!(f, " srckey={srckey:#x} dstkey={dstkey:#x}")?;
    }
    Ok(())
}

fn state(flow: &Flow) -> &str {
    match &flow.state {
        Some(state) => state,
        None if flow.seen_reply => "REPLIED",
        None => "UNREPLIED",
    }
}

/// The column in which a room's words begin.
macro_rules! room {
    ($f:ident, $name:literal, $($words:tt)*) => {{
        write!($f, "\n  {:<9}", $name)?;
        write!($f, $($words)*)?;
    }};
}

impl fmt::Display for Story<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(packet) = self;
        time(f, packet)?;
        match &packet.port {
            Some(port) => write!(f, " {port} ({}), ", packet.from)?,
            None => f.write_char(' ')?,
        }
        match &packet.ip {
            Some(ip) => numbers(f, ip)?,
            None => f.write_str("no IP packet")?,
        }
        let Some(steps) = &packet.steps else { return Ok(()) };
        let parsed = packet.reason.is_none() || steps.entry != EntryWord::NotSought;
        parse(f, packet, parsed)?;
        if parsed {
            if packet.class.as_deref() != Some("untracked") {
                owner(f, packet, steps)?;
            }
            entry(f, packet, steps)?;
            step(f, packet, steps)?;
        }
        verdict(f, packet)
    }
}

/// As far as the packet could be understood without a flow.
fn parse(f: &mut fmt::Formatter<'_>, packet: &Packet, parsed: bool) -> fmt::Result {
    match &packet.ip {
        Some(ip) => room!(f, "parse", "IPv{}, {} bytes", ip.version, ip.bytes),
        None => room!(f, "parse", "nothing that could be read as IP"),
    }
    if packet.ip.as_ref().is_some_and(|ip| ip.fragment.is_some()) {
        f.write_str(", a fragment")?;
    }
    match packet.vlans {
        [0, 0] => {}
        [outer, 0] => write!(f, ", VLAN {outer}")?,
        [outer, inner] => write!(f, ", VLAN {inner} in {outer}")?,
    }
    match packet.zone {
        Some(zone) => write!(f, ", zone {zone}")?,
        None => f.write_str(", of no zone")?,
    }
    if !parsed {
        let what = if packet.class.is_some() { "INVALID" } else { "malformed" };
        write!(f, ": {what}, ")?;
        reason(f, packet)?;
    }
    Ok(())
}

fn reason(f: &mut fmt::Formatter<'_>, packet: &Packet) -> fmt::Result {
    let label = packet.reason.as_deref().unwrap_or("unknown");
    f.write_str(label)?;
    match Reason::ALL.iter().find(|reason| reason.label() == label) {
        Some(reason) => write!(f, " ({})", reason.explain().trim_end_matches('.')),
        None => Ok(()),
    }
}

fn owner(f: &mut fmt::Formatter<'_>, packet: &Packet, steps: &StepWords) -> fmt::Result {
    match (&packet.verdict, steps.handed) {
        (VerdictWord::HandOff { worker }, _) => {
            room!(f, "owner", "worker {worker}, to which worker {} hands it", packet.worker);
        }
        (_, true) => room!(f, "owner", "worker {}, this one; another handed it over", packet.worker),
        (_, false) => room!(f, "owner", "worker {}, this one", packet.worker),
    }
    Ok(())
}

fn entry(f: &mut fmt::Formatter<'_>, packet: &Packet, steps: &StepWords) -> fmt::Result {
    let why = steps.ended.as_deref();
    match (steps.entry, &packet.flow) {
        (EntryWord::NotSought, _) => return Ok(()),
        (EntryWord::Found, Some(flow)) => {
            room!(
                f,
                "entry",
                "found, id {}: {}{}, ",
                flow.id,
                state(flow),
                if flow.assured { " [ASSURED]" } else { "" }
            );
            write!(f, "{} s left of {}", flow.timeout_secs, flow.timeout)?;
        }
        (EntryWord::Found, None) => room!(f, "entry", "found"),
        (EntryWord::Made, Some(flow)) => {
            room!(f, "entry", "found in {}, over: it ends, and a new one is made", state(flow));
        }
        (EntryWord::Made, None) if why == Some("timeout") => {
            room!(f, "entry", "the old one's time has passed: a new one is made");
        }
        (EntryWord::Made, None) => room!(f, "entry", "none: a new one is made"),
        (EntryWord::None, _) => room!(f, "entry", "none, and none is made"),
    }
    if steps.made_room {
        f.write_str("; another flow had to go for it")?;
    }
    Ok(())
}

fn step(f: &mut fmt::Formatter<'_>, packet: &Packet, steps: &StepWords) -> fmt::Result {
    let Some(class) = &packet.class else { return Ok(()) };
    room!(f, "step", "{class}");
    if let Some(direction) = &packet.direction {
        write!(f, ", {direction} direction")?;
    }
    if packet.reason.is_some() {
        f.write_str(": ")?;
        reason(f, packet)?;
    }
    if let Some(edge) = &packet.missed {
        f.write_str("; ")?;
        missed(f, edge)?;
    }
    let after = steps.after.as_deref();
    match (&packet.flow, after) {
        (Some(before), Some(after)) if state(before) != state(after) && before.id == after.id => {
            write!(f, ", {} -> {}", state(before), state(after))?;
        }
        (_, Some(after)) if packet.reason.is_some() => write!(f, "; the flow stays in {}", state(after))?,
        (_, Some(after)) => write!(f, ", {}", state(after))?,
        (Some(_), None) if steps.ended.is_some() => f.write_str(", the flow ends")?,
        _ => {}
    }
    match after {
        _ if steps.ignored => f.write_str(", passed over: neither counts nor refreshes"),
        // An error about a packet of the flow, which has a life of its own.
        Some(_) if class == "related" || packet.reason.is_some() => Ok(()),
        Some(after) => write!(f, ", {} s by {}", after.timeout_secs, after.timeout),
        None => Ok(()),
    }
}

fn missed(f: &mut fmt::Formatter<'_>, edge: &Edge) -> fmt::Result {
    let Edge { number, value, edge, by } = edge;
    let (what, side) = match number.as_str() {
        "seq_above" => ("sequence number", "above"),
        "end_below" => ("end", "below"),
        "ack_above" => ("acknowledgment", "above"),
        "ack_below" => ("acknowledgment", "below"),
        "reset_below" => ("sequence number", "below"),
        other => (other, "beyond"),
    };
    write!(f, "its {what} {value} lies {by} {side} {edge}")
}

fn verdict(f: &mut fmt::Formatter<'_>, packet: &Packet) -> fmt::Result {
    match &packet.verdict {
        VerdictWord::Forward => room!(f, "verdict", "forward"),
        VerdictWord::Drop { reason } => room!(f, "verdict", "drop, {reason}"),
        VerdictWord::Hold => room!(f, "verdict", "held until its datagram is whole"),
        VerdictWord::HandOff { worker } => room!(f, "verdict", "handed over to worker {worker}"),
    }
    let Some(PolicyWord { action, row }) = &packet.policy else { return Ok(()) };
    // What policy let through may still have found no room.
    let against = action == "accept" && matches!(packet.verdict, VerdictWord::Drop { .. });
    f.write_str(if against { ", though accepted" } else { "," })?;
    match row {
        Some(row) => write!(f, " by row {row} of the policy"),
        None => f.write_str(" by the policy's end"),
    }
}
