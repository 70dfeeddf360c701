//! The series by which node_exporter tells of the kernel's table, for the alerts and dashboards that were made for it.
//! Names, types (all are gauges there) and help are node_exporter's:
//! https://github.com/prometheus/node_exporter/blob/master/collector/conntrack_linux.go

use super::{Page, of, sum};
use crate::control::schema::Stats;

pub(super) fn series(page: &mut Page, stats: &Stats) {
    let refused = sum(stats, |w| of(&w.dropped, "table_full") + of(&w.dropped, "zone_limit"));
    let untracked = sum(stats, |w| w.full_untracked);
    for (name, help, value) in [
        (
            "entries",
            "Number of currently allocated flow entries for connection tracking.",
            stats.entries as f64,
        ),
        ("entries_limit", "Maximum size of connection tracking table.", stats.entries_limit as f64),
        ("stat_found", "Number of searched entries which were successful.", sum(stats, |w| w.found)),
        (
            "stat_invalid",
            "Number of packets seen which can not be tracked.",
            sum(stats, |w| of(&w.packets, "invalid")),
        ),
        (
            "stat_ignore",
            "Number of packets seen which are already connected to a conntrack entry.",
            sum(stats, |w| of(&w.packets, "untracked")),
        ),
        ("stat_insert", "Number of entries inserted into the list.", sum(stats, |w| w.inserted)),
        (
            "stat_insert_failed",
            "Number of entries for which list insertion was attempted but failed.",
            refused + untracked,
        ),
        ("stat_drop", "Number of packets dropped due to conntrack failure.", refused),
        (
            "stat_early_drop",
            "Number of dropped conntrack entries to make room for new ones, if maximum table size was reached.",
            sum(stats, |w| of(&w.destroyed, "early_drop")),
        ),
        // The table has its size from the start: nothing ever looks again because it was resized.
        (
            "stat_search_restart",
            "Number of conntrack table lookups which had to be restarted due to hashtable resizes.",
            0.0,
        ),
    ] {
        page.gauge(&format!("node_nf_conntrack_{name}"), help, [(vec![], value)]);
    }
}
