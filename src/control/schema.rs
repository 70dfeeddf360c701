//! What the control socket says, as types: the server writes them, the command line reads them.
//! Owns names and shapes only; it sees no socket and no worker.

pub mod overview;

use std::collections::BTreeMap;
use std::net::IpAddr;

use conntrack::event::{Count, DestroyReason, EventKind, FlowView, ProtoView, Tuple, TupleIds};
use conntrack::table::entry::status;
use conntrack::tick::Tick;
use conntrack::track::timeout::TimeoutKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::diff::Difference;
use crate::export::Tally;
use crate::export::community::community_id;
use crate::filter::MaskedMark;
use crate::format::proto_name;

/// One flow of `GET /v1/flows`, one JSON line each; also inside [`EventLine`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    pub id: u32,
    /// Protocol number (IANA "Assigned Internet Protocol Numbers").
    pub proto: u8,
    pub proto_name: String,
    pub zone: u16,
    /// As `conntrack` prints it; absent for protocols without states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    pub state_number: u8,
    pub seen_reply: bool,
    pub assured: bool,
    pub timeout_secs: u32,
    /// The timeout that the deadline came from, such as `tcp.established`.
    pub timeout: String,
    /// Milliseconds since the machine booted. It is known for 198 days (2^32 ticks of 4 ms); a flow older than that
    /// seems so many days younger.
    pub created_boot_ms: u64,
    pub original: FlowTuple,
    pub reply: FlowTuple,
    #[serde(default)]
    pub mark: u32,
    /// Version 1, with the seed of `export.community_id_seed`; see [`crate::export::community`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub community_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<SctpFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gre: Option<GreFacts>,
}

/// One direction of a [`Flow`]; only the identifiers that its protocol has are present.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowTuple {
    #[schema(value_type = Option<String>)]
    pub src: Option<IpAddr>,
    #[schema(value_type = Option<String>)]
    pub dst: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_id: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srckey: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dstkey: Option<u16>,
    /// Absent when accounting is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// TCP variables as (original, reply); see [`ProtoView::Tcp`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpFacts {
    pub wscale: [u8; 2],
    pub flags: [u8; 2],
}

/// SCTP verification tags as (original, reply); see [`ProtoView::Sctp`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SctpFacts {
    pub vtag: [u32; 2],
}

/// The timeouts that a GRE flow copied at creation; see [`ProtoView::Gre`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GreFacts {
    pub timeout_secs: u32,
    pub stream_timeout_secs: u32,
}

/// One JSON line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum EventLine {
    New {
        /// Milliseconds since 1970, by the machine's wall clock.
        unix_ms: u64,
        flow: Box<Flow>,
    },
    Update {
        unix_ms: u64,
        /// An operator made the change, not a packet.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        operator: bool,
        flow: Box<Flow>,
    },
    Destroy {
        unix_ms: u64,
        /// See [`DestroyReason::label`].
        reason: String,
        flow: Box<Flow>,
    },
    /// So many events were lost before the next line, because the reader or the buffers were too slow.
    Lost { count: u64 },
}

/// What became of the configuration file when it was last read: at the start, by SIGHUP or by request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LastReload {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Whether it was taken over.
    pub success: bool,
    /// When one was last taken over.
    pub success_unix_ms: u64,
    /// Files that were taken over and refused since the start, the first one included.
    pub taken: u64,
    pub refused: u64,
    /// Why the last one was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The answer to `GET /v1/timeouts/what-if`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhatIf {
    /// For how long pauses have been recorded.
    pub recorded_secs: f64,
    /// Flows now.
    pub entries: u64,
    /// Flows that have been silent for as long as they would be given, or longer: the entries that are saved.
    pub would_go: u64,
    /// Entries that would be left.
    pub entries_then: u64,
    /// Flows, ended ones too, that spoke again after a silence for which they would have been ended. One number where both are
    /// equal.
    pub cut_at_least: u64,
    pub cut_at_most: u64,
    /// The timeouts that change, and those that flows stand on that would end.
    pub rows: Vec<WhatIfRow>,
    /// What is not known, a sentence each.
    pub notes: Vec<String>,
}

/// The flows on one timeout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhatIfRow {
    pub name: String,
    pub seconds: f64,
    pub seconds_then: f64,
    /// Flows that stand on it now.
    pub flows: u64,
    pub would_go: u64,
    pub cut_at_least: u64,
    pub cut_at_most: u64,
}

/// The body of `POST /v1/config/reload`: an empty object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reload {}

/// The answer to `POST /v1/config/reload`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// Every key whose value is another one now.
    pub changed: Vec<Difference>,
}

/// `GET /v1/info`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    pub version: String,
    /// The commit that it was built from; `unknown` of a debug build, and where there was no git.
    #[serde(default)]
    pub revision: String,
    pub dpdk: String,
    /// `classic` or `linux`.
    pub profile: String,
    /// `inline` or `mirror`.
    pub mode: String,
    pub pid: u32,
    /// The wall clock's reading when the machine booted, in milliseconds since 1970: add a flow's `created_boot_ms`.
    #[serde(default)]
    pub boot_unix_ms: u64,
    pub uptime_secs: u64,
    pub workers: u32,
    pub table_max_entries: u64,
    pub table_on_full: String,
    pub ports: Vec<PortInfo>,
    #[serde(default)]
    pub last_reload: LastReload,
}

/// One port of [`Info`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PortInfo {
    pub name: String,
    pub device: String,
    pub driver: String,
    /// `inside` or `outside`.
    pub role: String,
    /// The port that its frames leave by; absent for a mirror port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// `GET /v1/stats`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// When the workers were asked: milliseconds since the machine booted. Who asks again soon gets the same numbers again.
    #[serde(default)]
    pub observed_boot_ms: u64,
    pub entries: u64,
    pub entries_limit: u64,
    pub assured: u64,
    /// Flows that an answer was seen for.
    pub replied: u64,
    pub states: Vec<StateEntries>,
    pub workers: Vec<WorkerStats>,
    pub ports: Vec<PortStats>,
    pub pools: Vec<PoolStats>,
    /// The zones that the configuration names or that were given a limit, at most 64: see `/v1/limits` for all.
    pub zones: Vec<ZoneRow>,
    /// Where flow records go, if anywhere.
    #[serde(default)]
    pub exports: Vec<ExportStats>,
    /// Events that readers of `/v1/events` were too slow for, those of each reader together.
    #[serde(default)]
    pub events_missed: u64,
}

/// What one sink of flow records counted since the start. Together with what is still queued, it is every flow that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExportStats {
    /// `eve` or `ipfix`.
    pub sink: String,
    /// Records in the file, or sent to the collector and not refused.
    pub records: u64,
    /// Flows that ended without a record there: a queue was full, the disk was, or the collector refused.
    pub lost: u64,
}

/// How many flows of one protocol are in one state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StateEntries {
    pub proto: String,
    /// Empty for protocols without states.
    pub state: String,
    pub entries: u64,
}

/// What one worker counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStats {
    pub worker: u32,
    /// False when the worker did not answer; then the numbers are its last known ones.
    pub responding: bool,
    /// Flows now in this worker's table.
    pub entries: u64,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    /// Frames given to the worker that owns their flow; over `rx_packets`: the share that came to the wrong one.
    pub handed_off: u64,
    /// Fragments that were handed in, put together here, and given on to the worker that owns their flow.
    #[serde(default)]
    pub handed_on: u64,
    /// Frames given to a worker that has a queue where they leave.
    pub sent_through: u64,
    /// Frames that other workers gave to this one, to track or to send.
    pub handed_in: u64,
    /// Frames freed because the leaving port's queue was full.
    pub tx_full: u64,
    /// Frames freed as they came in: too long, or described by the driver in a way that contradicts itself.
    pub rx_refused: u64,
    /// Bursts by what they found.
    pub polls_empty: u64,
    pub polls_packets: u64,
    /// Bursts by size: up to 1, 2, 4, 8, 16, 32 and 64 frames.
    pub bursts: Vec<u64>,
    /// Packets of the bursts that were timed, by how long they were here: up to 1, 2, 4, ... 8192 microseconds, and longer.
    pub latency: Vec<u64>,
    /// Of those packets together.
    pub latency_seconds: f64,
    pub busy_seconds: f64,
    pub idle_seconds: f64,
    /// By connection state: `new`, `established`, ...
    pub packets: BTreeMap<String, u64>,
    /// Untracked frames by what they are: see [`conntrack::wire::Untracked::label`].
    pub untracked: BTreeMap<String, u64>,
    /// INVALID packets by reason.
    pub invalid: BTreeMap<String, u64>,
    /// Frames that never reached tracking, by reason.
    pub malformed: BTreeMap<String, u64>,
    pub found: u64,
    pub missed: u64,
    pub inserted: u64,
    /// The same by protocol.
    pub inserts: BTreeMap<String, u64>,
    /// Ended flows by reason.
    pub destroyed: BTreeMap<String, u64>,
    /// Dropped frames by reason: see [`conntrack::policy::DropReason::label`].
    pub dropped: BTreeMap<String, u64>,
    /// New flows that passed without an entry because the table was full.
    pub full_untracked: u64,
    pub fragments_held: u64,
    /// Fragments of datagrams that another worker had found whole, taken in once more by the owner of their flow.
    #[serde(default)]
    pub fragments_again: u64,
    pub datagrams_completed: u64,
    pub datagrams_timed_out: u64,
    pub datagrams_evicted: u64,
    /// Fragments held now.
    pub held_frames: u64,
    /// Fragments freed because the store of held frames was full.
    pub held_full: u64,
    pub icmp_error: u64,
    pub ignored: u64,
    pub expiry_lag_seconds: f64,
    pub events_lost: u64,
}

/// What one port counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PortStats {
    pub name: String,
    /// Whether the link is up; `None` where that can't be seen: a tap whose interface is in another network namespace.
    pub up: Option<bool>,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_missed: u64,
    pub rx_errors: u64,
    pub rx_nombuf: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
}

/// One pool of packet buffers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolStats {
    pub name: String,
    /// Buffers in all.
    pub objects: u64,
    /// Those that no queue, ring or worker has.
    pub available: u64,
}

/// One port of `GET /v1/ports`; with `?xstats=true` it has the driver's own counters too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PortRow {
    pub info: PortInfo,
    /// False after it was stopped.
    pub running: bool,
    /// Megabits a second; absent where the device does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mbps: Option<u32>,
    pub full_duplex: bool,
    /// The device's own address, which no frame that passes gets.
    pub mac: String,
    /// Bytes of an IP packet at most.
    pub mtu: u16,
    pub promiscuous: bool,
    pub stats: PortStats,
    /// The driver's own counters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xstats: BTreeMap<String, u64>,
}

/// The body of `PUT /v1/ports`: a port is stopped or started. The answer is the [`PortRow`] as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPort {
    pub name: String,
    pub running: bool,
}

/// One row of `GET /v1/timeouts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimeoutRow {
    pub name: String,
    /// With a fraction: the tracker's tick is 4 ms.
    pub seconds: f64,
    /// Whether any flow can be on it, as the profile and the switches stand.
    pub used: bool,
    pub explain: String,
}

/// The body of `PUT /v1/timeouts`: a name and a value as the configuration file takes them, the kernel's names and
/// durations such as `5d` included. The answer is the [`TimeoutRow`] as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTimeout {
    pub name: String,
    pub value: String,
}

/// `GET /v1/limits`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    /// For every zone without a limit of its own; 0 for none.
    pub default_limit: u32,
    /// Zones that pairs of VLAN tags and tunnels were given as they were met, and how many there can be.
    pub learned: u32,
    pub learned_max: u32,
    /// Those that have flows, have refused some, or were named.
    pub zones: Vec<ZoneRow>,
}

/// One zone of [`Limits`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ZoneRow {
    pub zone: u16,
    /// Flows at most; 0 for no limit.
    pub limit: u32,
    /// The limit is its own and not the default.
    pub own_limit: bool,
    /// Flows now.
    pub count: u32,
    /// New flows refused at the limit.
    pub refused: u64,
    /// Its VLAN, `100`, or `100.7` with the outer tag first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<String>,
    /// Its tunnel, such as `vxlan.5001`: kind and network or key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// The zone in which VLAN or tunnel was met, unless it is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<u16>,
}

/// The body of `PUT /v1/limits`. Without a zone the default is set; without a limit the zone follows the default
/// again. The answer is [`Limits`] as they are now, with the one zone or with none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLimit {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<u16>,
    // As u32 it would be described as of 31 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 4_294_967_295_i64)]
    pub limit: Option<u32>,
}

/// The body of `PATCH /v1/flows`: what becomes of every flow that the query's filter takes. What is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// As `conntrack -U -m`: `9`, or `0x10/0xf0`, which clears the mask's bits and XORs the value in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})(/(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}))?$")]
    pub mark: Option<MaskedMark>,
    /// The time left, such as `90s`, until the flow's next packet sets it anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

/// The answer of `GET /v1/count`: how many flows the query's filter takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Counted {
    pub flows: u64,
}

/// The body of `PUT /v1/sysctls`: settings by their kernel names, all of them applied or none. The answer is a list of
/// [`crate::config::diff::Difference`]s between before and after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSysctls {
    pub settings: Vec<SetTimeout>,
}

/// The body of `POST /v1/flush`: an empty object. What is not JSON a hostile page could send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Flush {}

/// The answer of `POST /v1/flush`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Flushed {
    pub flows: u64,
}

/// The body of every answer that is not a success: one sentence with the fix in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    pub error: String,
}

/// A flow that cannot be turned back into a [`FlowView`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("flow {id}: {what}: the daemon and this program are of different versions")]
pub struct Strange {
    id: u32,
    what: &'static str,
}

impl ExportStats {
    /// A copy of `tally`.
    pub fn new(tally: &Tally) -> Self {
        Self { sink: tally.name.to_owned(), records: tally.written, lost: tally.lost }
    }
}

impl Flow {
    /// A copy of `view`; `classic` chooses the name of the TCP state LISTEN.
    pub fn new(view: &FlowView, classic: bool) -> Self {
        let mut flow = Self {
            id: view.id,
            proto: view.proto,
            proto_name: proto_name(view.proto).to_owned(),
            zone: view.zone,
            state: view.state_name(classic).map(str::to_owned),
            state_number: view.state,
            seen_reply: view.status & status::SEEN_REPLY != 0,
            assured: view.status & status::ASSURED != 0,
            timeout_secs: view.timeout_secs,
            timeout: view.timeout_key.name().to_owned(),
            created_boot_ms: view.created.as_millis(),
            original: FlowTuple::new(&view.original, view.count.map(|both| both[0])),
            reply: FlowTuple::new(&view.reply, view.count.map(|both| both[1])),
            mark: view.mark,
            community_id: None,
            tcp: None,
            sctp: None,
            gre: None,
        };
        match view.vars {
            ProtoView::None => {}
            ProtoView::Tcp { wscale, flags } => flow.tcp = Some(TcpFacts { wscale, flags }),
            ProtoView::Sctp { vtag } => flow.sctp = Some(SctpFacts { vtag }),
            ProtoView::Gre { timeout_secs, stream_timeout_secs } => {
                flow.gre = Some(GreFacts { timeout_secs, stream_timeout_secs });
            }
        }
        flow
    }

    /// With its Community ID; `view` is the flow that this one was made from.
    pub fn identified(mut self, view: &FlowView, seed: u16) -> Self {
        self.community_id = community_id(view, seed);
        self
    }

    /// The view that this flow was made from, so that one formatter prints both.
    pub fn to_view(&self) -> Result<FlowView, Strange> {
        let strange = |what| Strange { id: self.id, what };
        let timeout_key = TimeoutKey::ALL
            .iter()
            .copied()
            .find(|key| key.name() == self.timeout)
            .ok_or_else(|| strange("its timeout has an unknown name"))?;
        let (original, original_count) =
            self.original.to_tuple().ok_or_else(|| strange("its original tuple is incomplete"))?;
        let (reply, reply_count) =
            self.reply.to_tuple().ok_or_else(|| strange("its reply tuple is incomplete"))?;
        let vars = match (self.tcp, self.sctp, self.gre) {
            (Some(TcpFacts { wscale, flags }), _, _) => ProtoView::Tcp { wscale, flags },
            (_, Some(SctpFacts { vtag }), _) => ProtoView::Sctp { vtag },
            (_, _, Some(GreFacts { timeout_secs, stream_timeout_secs })) => {
                ProtoView::Gre { timeout_secs, stream_timeout_secs }
            }
            (None, None, None) => ProtoView::None,
        };
        let mut bits = 0;
        if self.seen_reply {
            bits |= status::SEEN_REPLY;
        }
        if self.assured {
            bits |= status::ASSURED;
        }
        Ok(FlowView {
            id: self.id,
            proto: self.proto,
            zone: self.zone,
            state: self.state_number,
            status: bits,
            original,
            reply,
            count: original_count.zip(reply_count).map(|(original, reply)| [original, reply]),
            mark: self.mark,
            timeout_secs: self.timeout_secs,
            timeout_key,
            created: Tick::from_millis(self.created_boot_ms),
            vars,
        })
    }
}

impl FlowTuple {
    fn new(tuple: &Tuple, count: Option<Count>) -> Self {
        let mut out = Self {
            src: Some(tuple.src),
            dst: Some(tuple.dst),
            packets: count.map(|count| count.packets),
            bytes: count.map(|count| count.bytes),
            ..Self::default()
        };
        match tuple.ids {
            TupleIds::None => {}
            TupleIds::Ports { sport, dport } => (out.sport, out.dport) = (Some(sport), Some(dport)),
            TupleIds::Icmp { icmp_type, code, id } => {
                (out.icmp_type, out.icmp_code, out.icmp_id) = (Some(icmp_type), Some(code), Some(id));
            }
            TupleIds::Gre { srckey, dstkey } => (out.srckey, out.dstkey) = (Some(srckey), Some(dstkey)),
        }
        out
    }

    fn to_tuple(&self) -> Option<(Tuple, Option<Count>)> {
        let ids = if let (Some(sport), Some(dport)) = (self.sport, self.dport) {
            TupleIds::Ports { sport, dport }
        } else if let (Some(icmp_type), Some(code), Some(id)) = (self.icmp_type, self.icmp_code, self.icmp_id)
        {
            TupleIds::Icmp { icmp_type, code, id }
        } else if let (Some(srckey), Some(dstkey)) = (self.srckey, self.dstkey) {
            TupleIds::Gre { srckey, dstkey }
        } else {
            TupleIds::None
        };
        let count = self.packets.zip(self.bytes).map(|(packets, bytes)| Count { packets, bytes });
        Some((Tuple { src: self.src?, dst: self.dst?, ids }, count))
    }
}

impl EventLine {
    /// What happened to `flow`, at that moment of the wall clock.
    pub fn new(kind: EventKind, unix_ms: u64, flow: Flow) -> Self {
        let flow = Box::new(flow);
        match kind {
            EventKind::New => Self::New { unix_ms, flow },
            EventKind::Update => Self::Update { unix_ms, operator: false, flow },
            EventKind::Edited => Self::Update { unix_ms, operator: true, flow },
            EventKind::Destroy(reason) => Self::Destroy { unix_ms, reason: reason.label().to_owned(), flow },
        }
    }

    /// The kind of a line about a flow; `None` for [`EventLine::Lost`] and reasons of another version.
    pub fn kind(&self) -> Option<EventKind> {
        match self {
            Self::New { .. } => Some(EventKind::New),
            Self::Update { operator: false, .. } => Some(EventKind::Update),
            Self::Update { operator: true, .. } => Some(EventKind::Edited),
            Self::Destroy { reason, .. } => {
                DestroyReason::ALL.into_iter().find(|known| known.label() == reason).map(EventKind::Destroy)
            }
            Self::Lost { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(ids: TupleIds, vars: ProtoView, count: Option<[Count; 2]>) -> FlowView {
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        FlowView {
            id: 7,
            proto: 6,
            zone: 3,
            state: 3,
            status: status::SEEN_REPLY | status::ASSURED,
            original: Tuple { src: a, dst: b, ids },
            reply: Tuple { src: b, dst: a, ids },
            count,
            mark: u32::MAX,
            timeout_secs: 432_000,
            timeout_key: TimeoutKey::TcpEstablished,
            created: Tick::from_millis(4_000),
            vars,
        }
    }

    #[test]
    fn a_flow_comes_back_from_json_as_it_went() {
        let counts = Some([Count { packets: 1, bytes: 60 }, Count { packets: 2, bytes: u64::MAX }]);
        let cases = [
            (TupleIds::Ports { sport: 1, dport: 65535 }, ProtoView::Tcp { wscale: [7, 14], flags: [1, 3] }),
            (TupleIds::Icmp { icmp_type: 8, code: 0, id: 9 }, ProtoView::None),
            (
                TupleIds::Gre { srckey: 0, dstkey: 5 },
                ProtoView::Gre { timeout_secs: 30, stream_timeout_secs: 180 },
            ),
            (TupleIds::Ports { sport: 5, dport: 6 }, ProtoView::Sctp { vtag: [1, u32::MAX] }),
            (TupleIds::None, ProtoView::None),
        ];
        for (ids, vars) in cases {
            for count in [counts, None] {
                let before = view(ids, vars, count);
                let line = serde_json::to_string(&Flow::new(&before, true)).unwrap();
                let flow: Flow = serde_json::from_str(&line).unwrap();
                assert_eq!(flow.to_view(), Ok(before), "{line}");
            }
        }
    }

    #[test]
    fn a_flow_of_another_version_is_an_error_not_a_guess() {
        let mut flow = Flow::new(&view(TupleIds::None, ProtoView::None, None), true);
        flow.timeout = "tcp.nonsense".to_owned();
        assert!(flow.to_view().is_err());
    }
}
