//! What `/v1/overview` says: how the appliance does now, as aggregates only. No flow of its own is in it, so that its
//! size does not depend on how many there are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::StateEntries;

/// `GET /v1/overview`, and each event of `GET /v1/overview/stream`. Rates are over the second before `unix_ms`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Overview {
    /// When it was looked at: milliseconds since 1970.
    pub unix_ms: u64,
    pub uptime_secs: u64,
    pub entries: u64,
    pub entries_limit: u64,
    /// Flows that a full table does not drop.
    pub assured: u64,
    /// Flows that an answer was seen for.
    pub replied: u64,
    pub forecast: Forecast,
    /// The states that any flow is in.
    pub states: Vec<StateEntries>,
    /// Flows that entered the table.
    pub opened: Tally,
    /// Flows that left it.
    pub closed: Tally,
    /// The same by reason: `timeout`, `closed`, `early_drop`, `admin`.
    pub closed_by: BTreeMap<String, Tally>,
    pub rx_packets: Tally,
    pub rx_bytes: Tally,
    pub tx_packets: Tally,
    /// Dropped frames by reason, those that have occurred.
    pub dropped: BTreeMap<String, Tally>,
    /// INVALID packets by reason, those that have occurred.
    pub invalid: BTreeMap<String, Tally>,
    /// Frames without an IP header that a host would accept, by reason, those that have occurred.
    pub malformed: BTreeMap<String, Tally>,
    /// Frames lost in the loop: `tx_full`, `rx_refused`, `held_full`; see [`super::WorkerStats`].
    pub lost: BTreeMap<String, Tally>,
    /// New flows that passed without an entry because the table was full.
    pub full_untracked: Tally,
    pub workers: Vec<WorkerNow>,
    pub ports: Vec<PortNow>,
    /// Absent until somebody has asked for it and the table was looked through once; on the stream up to ten seconds old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<Top>,
}

/// A number that only grows, and how fast it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tally {
    /// Since the start.
    pub total: u64,
    pub per_second: f64,
}

/// Where the table's fill is going, by the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forecast {
    /// Flows a second that the table grew by; negative where it shrank.
    pub growth_per_second: f64,
    /// When it is full at that rate; 0 where it is. Absent where it does not grow, or would need longer than a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_in_secs: Option<u64>,
}

/// One worker of [`Overview`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerNow {
    pub worker: u32,
    /// False when it did not answer; then its numbers are its last known ones.
    pub responding: bool,
    pub entries: u64,
    /// The share of time in turns that found work, from 0 to 1.
    pub busy: f64,
    pub rx_packets_per_second: f64,
    pub tx_packets_per_second: f64,
    pub opened_per_second: f64,
    /// Frames given to the worker that owns their flow.
    pub handed_off_per_second: f64,
    /// How late the oldest due expiry is.
    pub expiry_lag_seconds: f64,
}

/// One port of [`Overview`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PortNow {
    pub name: String,
    /// Whether the link is up; `None` where that can't be seen.
    pub up: Option<bool>,
    pub rx_packets_per_second: f64,
    pub rx_bits_per_second: f64,
    pub tx_packets_per_second: f64,
    pub tx_bits_per_second: f64,
    /// Lost because the receive queue was full.
    pub rx_missed: Tally,
    /// Lost because the buffer pool was empty.
    pub rx_nombuf: Tally,
    pub rx_errors: Tally,
    pub tx_errors: Tally,
}

/// Who has the most flows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Top {
    /// When the table was looked through: milliseconds since 1970.
    pub unix_ms: u64,
    /// True where every flow was counted; else the numbers are estimates from [`Top::counted`] flows at random places.
    pub exact: bool,
    pub counted: u64,
    /// By the source of the flow's first packet; the most first.
    pub sources: Vec<Talker>,
    /// By its destination.
    pub destinations: Vec<Talker>,
}

/// One address of [`Top`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Talker {
    #[schema(value_type = String)]
    pub address: IpAddr,
    pub flows: u64,
}

/// `GET /v1/overview/history`: a sample each second, the oldest first, for the last quarter of an hour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    pub unix_ms: Vec<u64>,
    /// By name, as many numbers as there are times; series that were always zero are left out. Numbers of flows:
    /// `entries`, `states.PROTO.STATE`. A second: `opened`, `closed`, `closed.REASON`, `dropped.REASON`,
    /// `invalid.REASON`, `malformed.REASON`, `lost.REASON`, `workers.N.rx_packets`, `ports.NAME.rx_packets`,
    /// `ports.NAME.rx_bits` and `tx_` likewise. From 0 to 1: `workers.N.busy`.
    pub series: BTreeMap<String, Vec<f32>>,
}
