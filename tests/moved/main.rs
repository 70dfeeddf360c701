//! Every series of the metrics moves: a table names what moves each, and real packets through real workers and ports do it.
//! Root is needed for two of them: what a live capture of `lo` misses, and what an interface that is down refuses.

mod bench;
mod frames;
mod scenes;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use bench::Seen;
use dpdk::eal::{self, Eal};
use scenes::Stage;

/// A scene by its name, itself, and the families that it moves.
type Line = (&'static str, fn(&mut Stage<'_>), &'static [&'static str]);

/// What moves each family: the scene, and the families that it moves. Every one of their series must move in some scene.
const TABLE: &[Line] = &[
    (
        "recorded packets of every kind",
        scenes::recorded,
        &[
            "conntrack_entries",
            "conntrack_entries_assured",
            "conntrack_entries_reclaimable",
            "conntrack_inserts_total",
            "conntrack_invalid_packets_total",
            "conntrack_malformed_packets_total",
            "conntrack_untracked_frames_total",
            "conntrack_ignored_packets_total",
            "conntrack_icmp_errors_rejected_total",
            "conntrack_packets_total",
            "conntrack_lookups_total",
            "conntrack_received_packets_total",
            "conntrack_refused_packets_total",
            "conntrack_worker_burst_packets_bucket",
            "conntrack_worker_burst_packets_count",
            "conntrack_worker_burst_packets_sum",
            "conntrack_worker_busy_seconds_total",
            "conntrack_worker_idle_seconds_total",
            "conntrack_worker_entries",
            "conntrack_worker_polls_total",
            "conntrack_worker_up",
            "conntrack_packet_processing_seconds_bucket",
            "conntrack_packet_processing_seconds_count",
            "conntrack_packet_processing_seconds_sum",
            "conntrack_port_receive_packets_total",
            "conntrack_port_receive_bytes_total",
            "conntrack_port_transmit_packets_total",
            "conntrack_port_transmit_bytes_total",
            "node_nf_conntrack_entries",
            "node_nf_conntrack_stat_found",
            "node_nf_conntrack_stat_ignore",
            "node_nf_conntrack_stat_insert",
            "node_nf_conntrack_stat_invalid",
        ],
    ),
    ("a segment without flags, in the classic profile", scenes::classic, &["conntrack_entries"]),
    (
        "a policy that drops each state, and a frame without a zone",
        scenes::policy,
        &["conntrack_dropped_packets_total"],
    ),
    (
        "a full table that makes room, and a reader who is too slow",
        scenes::early_drop,
        &[
            "conntrack_evictions_total",
            "conntrack_table_full_total",
            "conntrack_events_dropped_total",
            "node_nf_conntrack_stat_early_drop",
        ],
    ),
    (
        "a full table that refuses",
        scenes::drop_new,
        &[
            "conntrack_insert_failures_total",
            "conntrack_table_full_total",
            "node_nf_conntrack_stat_drop",
            "node_nf_conntrack_stat_insert_failed",
        ],
    ),
    ("a full table that lets pass", scenes::pass_untracked, &["conntrack_table_full_total"]),
    (
        "a zone that is full, and an error about a tunnel",
        scenes::zones,
        &[
            "conntrack_zone_entries",
            "conntrack_zone_entries_limit",
            "conntrack_zone_refused_total",
            "conntrack_untracked_frames_total",
        ],
    ),
    (
        "a minute of fragments and expiry",
        scenes::time,
        &[
            "conntrack_fragments_total",
            "conntrack_fragments_waiting",
            "conntrack_datagrams_total",
            "conntrack_expiry_lag_seconds",
            "conntrack_evictions_total",
            "conntrack_mempool_available",
        ],
    ),
    (
        "two workers, one of which rests",
        scenes::hand_off,
        &[
            "conntrack_handed_off_packets_total",
            "conntrack_handed_in_packets_total",
            "conntrack_dropped_packets_total",
        ],
    ),
    (
        "datagrams whose fragments meet elsewhere than their flow",
        scenes::met_elsewhere,
        &["conntrack_handed_on_packets_total", "conntrack_fragments_again_total"],
    ),
    (
        "a port that is stopped",
        scenes::stopped,
        &["conntrack_transmit_dropped_packets_total", "conntrack_port_up"],
    ),
    ("an interface that is down", scenes::taken_down, &["conntrack_port_transmit_errors_total"]),
    (
        "drivers without buffers, and one that nobody asks",
        scenes::drivers,
        &[
            "conntrack_port_receive_nombuf_total",
            "conntrack_port_receive_errors_total",
            "conntrack_port_receive_missed_total",
        ],
    ),
    ("a flush", scenes::flush, &["conntrack_evictions_total"]),
    (
        "records for a disk that fills and a collector that goes away",
        scenes::exports,
        &["conntrack_export_records_total", "conntrack_events_dropped_total"],
    ),
    (
        "the program, told to read a wrong file and then one with other timeouts",
        scenes::reloads,
        &[
            "conntrack_timeout_seconds",
            "conntrack_config_last_reload_successful",
            "conntrack_config_last_reload_success_timestamp_seconds",
            "process_max_fds",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_threads",
            "process_virtual_memory_bytes",
        ],
    ),
];

/// What says how something is made: it is another one in another appliance, or the same in all.
const FACTS: &[&str] = &[
    "conntrack_build_info",
    "conntrack_port_info",
    "conntrack_entries_limit",
    "conntrack_mempool_objects",
    "node_nf_conntrack_entries_limit",
    "node_nf_conntrack_stat_search_restart",
    "process_start_time_seconds",
    // Hundredths of a second: one process has used more of them than another.
    "process_cpu_seconds_total",
];

fn family(series: &str) -> &str {
    series.split('{').next().unwrap()
}

#[test]
fn every_series_moves() {
    let folder = tempfile::tempdir().unwrap();
    let config = eal::Config { memory_mib: 1024, hugepages: false, ..eal::Config::default() };
    let eal = Eal::start(&config, |_, _| ()).unwrap();
    let (mut all, mut wrong) = (Seen::default(), Vec::new());
    for (number, (what, scene, moves)) in TABLE.iter().enumerate() {
        let mut stage = Stage::new(eal.handle(), folder.path(), number);
        scene(&mut stage);
        let still = stage.seen.still();
        for name in *moves {
            let moved = stage
                .seen
                .0
                .keys()
                .any(|series| family(series) == *name && !still.contains(&series.as_str()));
            if !moved {
                wrong.push(format!("{what}: does not move {name}"));
            }
        }
        for (series, values) in stage.seen.0 {
            all.0.entry(series).or_default().extend(values);
        }
    }
    wrong.extend(
        all.still()
            .iter()
            .filter(|series| !FACTS.contains(&family(series)))
            .map(|series| format!("nothing moves {series}")),
    );
    let mut named = BTreeMap::<&str, usize>::new();
    TABLE
        .iter()
        .flat_map(|(_, _, moves)| moves.iter())
        .chain(FACTS)
        .for_each(|name| *named.entry(name).or_default() += 1);
    let there: BTreeSet<&str> = all.0.keys().map(|series| family(series)).collect();
    wrong.extend(
        there
            .iter()
            .filter(|name| !named.contains_key(*name))
            .map(|name| format!("no line of the table is of {name}")),
    );
    wrong
        .extend(named.keys().filter(|name| !there.contains(*name)).map(|name| format!("there is no {name}")));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
