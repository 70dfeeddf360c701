//! One packet told for people and machines: the shape that the API sends and the words of the command line, the same for a
//! running appliance and for a capture. Owns names and words; sees copies only.

mod text;

use conntrack::event::{DestroyReason, Tuple, TupleIds, tuple_of, tuple_of_quoted};
use conntrack::key::Direction;
use conntrack::policy::{Action, Role};
use conntrack::tracker::{Explained, Lookup, Steps, Verdict};
use conntrack::wire::tcp_flags;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::control::schema::{Flow, FlowTuple};
use crate::format::proto_name;

pub use text::{RecordLine, Story};

/// One JSON line of `GET /v1/dropped` and of `GET /v1/trace`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum PacketLine {
    Packet(Box<Packet>),
    /// So many packets are not told, because there were too many to tell each. Of a trace these are all that passed meanwhile:
    /// which of them were meant was not looked at.
    Untold {
        count: u64,
    },
    /// So many lines were lost before the next one, because the reader was too slow.
    Lost {
        count: u64,
    },
}

/// A packet and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Packet {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    pub worker: u32,
    /// The name of the port that it came by; absent in a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The port's role: `inside` or `outside`.
    pub from: String,
    /// Absent where it has none: its tags, or its tunnel, are of no zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<u16>,
    /// Outer and inner VLAN; 0 is none.
    #[serde(default, skip_serializing_if = "no_vlan")]
    pub vlans: [u16; 2],
    /// Absent if it is no IP packet, or not enough of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ip>,
    /// `new`, `established`, `related`, `invalid` or `untracked`; absent if it never reached tracking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// `original` or `reply`, in the flow that it met or made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// Why it is INVALID or malformed: see the list of reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Edge>,
    /// The flow that it met: as it was before, or of a record as the packet left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<Box<Flow>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyWord>,
    pub verdict: VerdictWord,
    /// Of a packet that was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<StepWords>,
}

fn no_vlan(vlans: &[u16; 2]) -> bool {
    *vlans == [0; 2]
}

/// The IP packet as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ip {
    pub version: u8,
    pub proto: u8,
    pub proto_name: String,
    pub tuple: FlowTuple,
    /// From the IP header on.
    pub bytes: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragment: Option<Fragment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Numbers>,
    /// The packet that an ICMP error quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quoted: Option<Quoted>,
}

/// Where a fragment lies in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fragment {
    pub id: u32,
    pub offset: u32,
    pub more: bool,
}

/// A TCP segment's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    /// Names with commas between, such as `SYN,ACK`.
    pub flags: String,
    pub seq: u32,
    pub ack: u32,
    /// As on the wire, unscaled.
    pub window: u16,
    pub payload_bytes: u32,
}

/// A packet that an ICMP error quotes, as that one travelled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quoted {
    pub proto: u8,
    pub proto_name: String,
    pub tuple: FlowTuple,
}

/// The number for which a TCP segment was refused or passed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// `seq_above`, `end_below`, `ack_above`, `ack_below` or `reset_below`.
    pub number: String,
    pub value: u32,
    /// The last value that would have been right.
    pub edge: u32,
    pub by: u32,
}

/// What policy said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyWord {
    /// `accept` or `drop`.
    pub action: String,
    /// The row that decided, counted from 1; absent: the policy's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<u32>,
}

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum VerdictWord {
    Forward,
    /// See the metrics' label of dropped packets.
    Drop {
        reason: String,
    },
    /// Until its datagram is whole.
    Hold,
    HandOff {
        worker: u32,
    },
}

/// What a packet that was followed did to the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StepWords {
    /// Another worker handed it over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handed: bool,
    pub entry: EntryWord,
    /// Why the flow that it met ended before it, or by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Another flow had to go for its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made_room: bool,
    /// It belongs to its flow, and neither counts nor refreshes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
    /// The flow as the packet left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Box<Flow>>,
}

/// What the table had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryWord {
    NotSought,
    None,
    Found,
    Made,
}

impl From<Lookup> for EntryWord {
    fn from(entry: Lookup) -> Self {
        match entry {
            Lookup::NotSought => Self::NotSought,
            Lookup::None => Self::None,
            Lookup::Found => Self::Found,
            Lookup::Made => Self::Made,
        }
    }
}

impl Packet {
    /// `explained` as worker `worker` saw it; `boot_unix_ms` is the wall clock's reading at tick 0.
    pub fn new(
        explained: &Explained,
        worker: u32,
        port: Option<String>,
        classic: bool,
        boot_unix_ms: u64,
    ) -> Self {
        let flow = |view| Box::new(Flow::new(view, classic));
        let outcome = &explained.outcome;
        Self {
            unix_ms: boot_unix_ms.saturating_add(explained.at.as_millis()),
            worker,
            port,
            from: match explained.role {
                Role::Inside => "inside".to_owned(),
                Role::Outside => "outside".to_owned(),
            },
            zone: explained.zone,
            vlans: [explained.seen.tags.outer(), explained.seen.tags.inner()],
            ip: explained.seen.ip.as_ref().map(Ip::new),
            class: outcome.class.map(|class| class.name().to_owned()),
            direction: explained.direction.map(|direction| match direction {
                Direction::Original => "original".to_owned(),
                Direction::Reply => "reply".to_owned(),
            }),
            reason: outcome.reason.map(|reason| reason.label().to_owned()),
            missed: explained.missed.map(|missed| Edge {
                number: missed.number.label().to_owned(),
                value: missed.value,
                edge: missed.edge,
                by: missed.by(),
            }),
            flow: explained.flow.as_ref().map(flow),
            policy: explained.decision.map(|decision| PolicyWord {
                action: match decision.action {
                    Action::Accept => "accept".to_owned(),
                    Action::Drop => "drop".to_owned(),
                },
                row: decision.row.map(|row| u32::from(row) + 1),
            }),
            verdict: match outcome.verdict {
                Verdict::Forward => VerdictWord::Forward,
                Verdict::Drop(reason) => VerdictWord::Drop { reason: reason.label().to_owned() },
                Verdict::Hold(_) => VerdictWord::Hold,
                Verdict::HandOff(owner) => VerdictWord::HandOff { worker: u32::from(owner.0) },
            },
            steps: explained.steps.as_ref().map(|steps| StepWords::new(steps, classic)),
        }
    }
}

impl StepWords {
    fn new(steps: &Steps, classic: bool) -> Self {
        Self {
            handed: steps.handed,
            entry: steps.entry.into(),
            ended: steps.ended.map(|reason: DestroyReason| reason.label().to_owned()),
            made_room: steps.made_room,
            ignored: steps.ignored,
            after: steps.after.as_ref().map(|view| Box::new(Flow::new(view, classic))),
        }
    }
}

impl Ip {
    fn new(ip: &conntrack::wire::glance::IpGlance) -> Self {
        Self {
            version: match ip.family {
                conntrack::wire::Family::V4 => 4,
                conntrack::wire::Family::V6 => 6,
            },
            proto: ip.proto,
            proto_name: proto_name(ip.proto).to_owned(),
            tuple: tuple_words(&tuple_of(ip)),
            bytes: ip.bytes,
            fragment: ip.piece.map(|piece| Fragment { id: piece.id, offset: piece.offset, more: piece.more }),
            tcp: ip.tcp.map(|tcp| Numbers {
                flags: flag_names(tcp.flags),
                seq: tcp.seq,
                ack: tcp.ack,
                window: tcp.window,
                payload_bytes: tcp.payload_bytes,
            }),
            quoted: ip.quoted.map(|quoted| Quoted {
                proto: quoted.proto,
                proto_name: proto_name(quoted.proto).to_owned(),
                tuple: tuple_words(&tuple_of_quoted(&quoted)),
            }),
        }
    }
}

fn tuple_words(tuple: &Tuple) -> FlowTuple {
    let mut words = FlowTuple { src: Some(tuple.src), dst: Some(tuple.dst), ..FlowTuple::default() };
    match tuple.ids {
        TupleIds::None => {}
        TupleIds::Ports { sport, dport } => (words.sport, words.dport) = (Some(sport), Some(dport)),
        TupleIds::Icmp { icmp_type, code, id } => {
            (words.icmp_type, words.icmp_code, words.icmp_id) = (Some(icmp_type), Some(code), Some(id));
        }
        TupleIds::Gre { srckey, dstkey } => (words.srckey, words.dstkey) = (Some(srckey), Some(dstkey)),
    }
    words
}

/// As tcpdump's long form would name them.
fn flag_names(flags: u8) -> String {
    use tcp_flags::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
    const NAMES: [(u8, &str); 8] = [
        (SYN, "SYN"),
        (FIN, "FIN"),
        (RST, "RST"),
        (ACK, "ACK"),
        (PSH, "PSH"),
        (URG, "URG"),
        (ECE, "ECE"),
        (CWR, "CWR"),
    ];
    let names: Vec<&str> = NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|&(_, name)| name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}
