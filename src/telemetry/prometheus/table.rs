//! Series of the table and of what became of packets, over all workers, and of zones.

use std::collections::BTreeMap;

use conntrack::track::reason::Reason;

use super::{Labels, Page, of, sum};
use crate::control::schema::{ExportStats, Stats, WorkerStats, ZoneRow};

/// Numbers of a worker by label.
type ByLabel = fn(&WorkerStats) -> &BTreeMap<String, u64>;

pub(super) fn series(page: &mut Page, stats: &Stats) {
    entries(page, stats);
    inserts(page, stats);
    by_reason(page, stats);
    datagrams(page, stats);
    zones(page, stats);
    page.counter(
        "conntrack_icmp_errors_rejected_total",
        "ICMP errors that belong to no flow.",
        [(vec![], sum(stats, |worker| worker.icmp_error))],
    );
    page.counter(
        "conntrack_ignored_packets_total",
        "Packets of a flow that neither counted nor refreshed it.",
        [(vec![], sum(stats, |worker| worker.ignored))],
    );
    page.counter(
        "conntrack_events_dropped_total",
        "Events lost because a buffer was full or a reader too slow, by who missed them.",
        [(vec![("sink", "stream")], sum(stats, |worker| worker.events_lost) + stats.events_missed as f64)]
            .into_iter()
            .chain(exports(stats, |row| row.lost)),
    );
    page.counter(
        "conntrack_export_records_total",
        "Flow records written, by where to.",
        exports(stats, |row| row.records),
    );
}

/// A number of each sink of flow records; 0 of those that are off.
fn exports(stats: &Stats, of: fn(&ExportStats) -> u64) -> impl Iterator<Item = (Labels<'static>, f64)> {
    crate::export::NAMES.into_iter().map(move |name| {
        let row = stats.exports.iter().find(|row| row.sink == name);
        (vec![("sink", name)], row.map_or(0, of) as f64)
    })
}

fn entries(page: &mut Page, stats: &Stats) {
    let rows = stats
        .states
        .iter()
        // No packet is accepted into SCTP's NONE.
        .filter(|row| (row.proto.as_str(), row.state.as_str()) != ("sctp", "NONE"))
        .map(|row| (vec![("proto", row.proto.as_str()), ("state", &row.state)], row.entries as f64));
    page.gauge("conntrack_entries", "Flows in the table.", rows);
    for (name, help, flows) in [
        ("conntrack_entries_limit", "Flows that the table holds at most.", stats.entries_limit),
        ("conntrack_entries_assured", "Flows in the table that are ASSURED.", stats.assured),
        (
            "conntrack_entries_reclaimable",
            "Flows in the table that are not ASSURED: by early_drop they make room for new ones.",
            stats.entries.saturating_sub(stats.assured),
        ),
    ] {
        page.gauge(name, help, [(vec![], flows as f64)]);
    }
}

fn inserts(page: &mut Page, stats: &Stats) {
    let rows = sums(stats, |worker| &worker.inserts);
    page.counter(
        "conntrack_inserts_total",
        "Flows that entered the table.",
        rows.into_iter().map(|(proto, flows)| (vec![("proto", proto)], flows as f64)),
    );
    let refused = sum(stats, |worker| of(&worker.dropped, "table_full"));
    let untracked = sum(stats, |worker| worker.full_untracked);
    page.counter(
        "conntrack_insert_failures_total",
        "New flows that did not enter the table, by reason.",
        [
            (vec![("reason", "table_full")], refused + untracked),
            (vec![("reason", "zone_limit")], sum(stats, |worker| of(&worker.dropped, "zone_limit"))),
        ],
    );
    page.counter(
        "conntrack_table_full_total",
        "New flows that found the table full, by what became of them.",
        [
            (vec![("outcome", "early_drop")], sum(stats, |worker| of(&worker.destroyed, "early_drop"))),
            (vec![("outcome", "dropped")], refused),
            (vec![("outcome", "untracked")], untracked),
        ],
    );
}

/// A metric's name, its label, its help, its numbers, and which of the label's values can occur there.
type Family<'a> = (&'static str, &'static str, &'static str, ByLabel, &'a dyn Fn(&str) -> bool);

fn by_reason(page: &mut Page, stats: &Stats) {
    // Reasons that cannot occur in a place have no series there.
    let of_packets = |label: &str| reason(label).is_none_or(Reason::is_of_packets);
    let of_frames = |label: &str| reason(label).is_none_or(Reason::is_of_frames);
    let any = |_: &str| true;
    let families: [Family<'_>; 5] = [
        (
            "conntrack_evictions_total",
            "reason",
            "Flows that left the table, by reason.",
            |worker| &worker.destroyed,
            &any,
        ),
        (
            "conntrack_untracked_frames_total",
            "kind",
            "Frames that are not tracked, by what they are.",
            |worker| &worker.untracked,
            &any,
        ),
        (
            "conntrack_invalid_packets_total",
            "reason",
            "INVALID packets, by reason.",
            |worker| &worker.invalid,
            &of_packets,
        ),
        (
            "conntrack_malformed_packets_total",
            "reason",
            "Frames without an IP header that a host would accept, by reason.",
            |worker| &worker.malformed,
            &of_frames,
        ),
        (
            "conntrack_dropped_packets_total",
            "reason",
            "Frames that were dropped, by reason.",
            |worker| &worker.dropped,
            &any,
        ),
    ];
    for (metric, label, help, numbers, exists) in families {
        let rows = sums(stats, numbers).into_iter().filter(|(value, _)| exists(value));
        page.counter(metric, help, rows.map(|(value, n)| (vec![(label, value)], n as f64)));
    }
}

fn reason(label: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.label() == label)
}

/// Over all workers.
fn sums(stats: &Stats, numbers: ByLabel) -> BTreeMap<&str, u64> {
    let mut sums = BTreeMap::new();
    for (label, number) in stats.workers.iter().flat_map(numbers) {
        *sums.entry(label.as_str()).or_default() += number;
    }
    sums
}

fn datagrams(page: &mut Page, stats: &Stats) {
    page.counter(
        "conntrack_fragments_total",
        "Fragments that were held for their datagram, or found no room.",
        [
            (vec![("result", "held")], sum(stats, |worker| worker.fragments_held)),
            (vec![("result", "no_room")], sum(stats, |worker| worker.held_full)),
        ],
    );
    page.counter(
        "conntrack_datagrams_total",
        "Fragmented datagrams, by what became of them.",
        [
            (vec![("result", "completed")], sum(stats, |worker| worker.datagrams_completed)),
            (vec![("result", "timed_out")], sum(stats, |worker| worker.datagrams_timed_out)),
            (vec![("result", "evicted")], sum(stats, |worker| worker.datagrams_evicted)),
        ],
    );
    page.gauge(
        "conntrack_fragments_waiting",
        "Frames that wait for the rest of their datagram.",
        [(vec![], sum(stats, |worker| worker.held_frames))],
    );
}

/// Only the zones that an operator has named, and at most [`crate::zones::SERIES_MAX`] of those.
fn zones(page: &mut Page, stats: &Stats) {
    let names: Vec<_> = stats.zones.iter().map(|row| row.zone.to_string()).collect();
    let one = |of: fn(&ZoneRow) -> f64| {
        names.iter().zip(&stats.zones).map(move |(name, row)| (vec![("zone", name.as_str())], of(row)))
    };
    page.gauge("conntrack_zone_entries", "Flows in a zone.", one(|row| f64::from(row.count)));
    page.gauge(
        "conntrack_zone_entries_limit",
        "Flows that a zone may hold; 0 for no limit.",
        one(|row| f64::from(row.limit)),
    );
    page.counter(
        "conntrack_zone_refused_total",
        "New flows refused because their zone was full.",
        one(|row| row.refused as f64),
    );
}
