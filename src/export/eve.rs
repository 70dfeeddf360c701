//! A record as one line of JSON, in the form of Suricata's eve log (`"event_type":"flow"`), so that what reads that
//! reads this. Field by field in docs/records.md.
//! https://docs.suricata.io/en/latest/output/eve/eve-json-format.html

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use conntrack::event::{DestroyReason, FlowView, TupleIds};
use conntrack::track::sctp::SctpState;
use conntrack::track::tcp::TcpState;
use conntrack::wire::proto;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::Record;
use super::community::community_id;

/// One line. Suricata's names, in its order.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: Stamp,
    flow_id: u32,
    event_type: &'a str,
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    vlan: &'a [u16],
    src_ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_port: Option<u16>,
    dest_ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest_port: Option<u16>,
    proto: Cow<'a, str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    icmp: Option<Icmp>,
    flow: Flow<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    community_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Tcp>,
    conntrack: Own<'a>,
}

#[derive(Serialize)]
struct Icmp {
    icmp_type: u8,
    icmp_code: u8,
    response_icmp_type: u8,
    response_icmp_code: u8,
}

#[derive(Serialize)]
struct Flow<'a> {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
    start: Stamp,
    end: Stamp,
    age: u64,
    state: &'a str,
    reason: &'a str,
    /// Nothing here raises alerts.
    alerted: bool,
}

#[derive(Serialize)]
struct Counts {
    pkts_toserver: u64,
    pkts_toclient: u64,
    bytes_toserver: u64,
    bytes_toclient: u64,
}

#[derive(Serialize)]
struct Tcp {
    state: &'static str,
}

/// What the eve log has no word for.
#[derive(Serialize)]
struct Own<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    reason: &'a str,
    timeout: &'a str,
    replied: bool,
    assured: bool,
    zone: u16,
    mark: u32,
}

/// `2026-11-22T15:21:35.123000+0000`, as Suricata writes it where the clock shows UTC.
#[derive(Clone, Copy)]
struct Stamp(u64);

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = i64::try_from(self.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        // The clock reads what can be said until the year 9999.
        write!(f, "{}", moment.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%S%.6f+0000"))
    }
}

/// Appends the record's line.
pub(super) fn write(out: &mut Vec<u8>, record: &Record, seed: u16) {
    let flow = &record.flow;
    let (src_port, dest_port) = match flow.original.ids {
        TupleIds::Ports { sport, dport } => (Some(sport), Some(dport)),
        _ => (None, None),
    };
    let tags = [record.tags.outer(), record.tags.inner()];
    let tagged = tags.iter().position(|&tag| tag == 0).unwrap_or(tags.len());
    let line = Line {
        timestamp: Stamp(record.told_unix_ms),
        flow_id: flow.id,
        event_type: "flow",
        vlan: &tags[..tagged],
        src_ip: flow.original.src,
        src_port,
        dest_ip: flow.original.dst,
        dest_port,
        proto: proto_name(flow.proto),
        icmp: icmp(flow),
        flow: Flow {
            counts: flow.count.map(|[original, reply]| Counts {
                pkts_toserver: original.packets,
                pkts_toclient: reply.packets,
                bytes_toserver: original.bytes,
                bytes_toclient: reply.bytes,
            }),
            start: Stamp(record.start_unix_ms),
            end: Stamp(record.end_unix_ms),
            age: (record.end_unix_ms - record.start_unix_ms) / 1000,
            state: state(flow),
            reason: reason(record.reason),
            alerted: false,
        },
        community_id: community_id(flow, seed),
        tcp: (flow.proto == proto::TCP).then(|| Tcp { state: tcp_state(flow.state) }),
        conntrack: Own {
            state: flow.state_name(false),
            reason: record.reason.label(),
            timeout: flow.timeout_key.name(),
            replied: flow.is_replied(),
            assured: flow.is_assured(),
            zone: flow.zone,
            mark: flow.mark,
        },
    };
    // Our own types have neither maps with odd keys nor failing serializers, and a Vec takes every byte.
    if serde_json::to_writer(&mut *out, &line).is_ok() {
        out.push(b'\n');
    }
}

fn icmp(flow: &FlowView) -> Option<Icmp> {
    let (
        TupleIds::Icmp { icmp_type, code, .. },
        TupleIds::Icmp { icmp_type: response_icmp_type, code: response_icmp_code, .. },
    ) = (flow.original.ids, flow.reply.ids)
    else {
        return None;
    };
    Some(Icmp { icmp_type, icmp_code: code, response_icmp_type, response_icmp_code })
}

/// IANA's words, as Suricata has them; other protocols by their number, in three digits.
fn proto_name(number: u8) -> Cow<'static, str> {
    Cow::Borrowed(match number {
        proto::ICMP => "ICMP",
        proto::TCP => "TCP",
        proto::UDP => "UDP",
        proto::GRE => "GRE",
        proto::ICMPV6 => "IPv6-ICMP",
        proto::SCTP => "SCTP",
        proto::UDPLITE => "UDPLite",
        2 => "IGMP",
        4 => "IP-ENCAP",
        41 => "IPv6",
        46 => "RSVP",
        50 => "ESP",
        51 => "AH",
        88 => "EIGRP",
        89 => "OSPFIGP",
        103 => "PIM",
        112 => "VRRP",
        other => return Cow::Owned(format!("{other:03}")),
    })
}

/// `new`, `established` or `closed`, by the rules that Suricata's stream engine has.
fn state(flow: &FlowView) -> &'static str {
    match flow.proto {
        proto::TCP => match TcpState::from_number(flow.state) {
            TcpState::None | TcpState::SynSent | TcpState::SynRecv | TcpState::SynSent2 => "new",
            TcpState::Established | TcpState::FinWait | TcpState::CloseWait => "established",
            TcpState::LastAck | TcpState::TimeWait | TcpState::Close => "closed",
        },
        proto::SCTP => match SctpState::from_number(flow.state) {
            SctpState::None | SctpState::CookieWait | SctpState::CookieEchoed | SctpState::HeartbeatSent => {
                "new"
            }
            SctpState::Established | SctpState::ShutdownSent | SctpState::ShutdownRecd => "established",
            SctpState::Closed | SctpState::ShutdownAckSent => "closed",
        },
        _ if flow.is_replied() => "established",
        _ => "new",
    }
}

/// Suricata's words where it has them: `forced` is for flows that had to go before their time.
const fn reason(reason: DestroyReason) -> &'static str {
    match reason {
        DestroyReason::Timeout => "timeout",
        DestroyReason::Closed => "closed",
        DestroyReason::EarlyDrop | DestroyReason::Admin => "forced",
    }
}

const fn tcp_state(number: u8) -> &'static str {
    match TcpState::from_number(number) {
        TcpState::None => "none",
        TcpState::SynSent | TcpState::SynSent2 => "syn_sent",
        TcpState::SynRecv => "syn_recv",
        TcpState::Established => "established",
        TcpState::FinWait => "fin_wait1",
        TcpState::CloseWait => "close_wait",
        TcpState::LastAck => "last_ack",
        TcpState::TimeWait => "time_wait",
        TcpState::Close => "closed",
    }
}
