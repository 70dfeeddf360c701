//! Series of each worker.

use super::{Distribution, Page};
use crate::bus::report::{BURST_SIZES, LATENCY_US};
use crate::control::schema::{Stats, WorkerStats};

/// A number of each worker under a label's value.
type OfWorker = (&'static str, fn(&WorkerStats) -> u64);

/// A number of each worker.
type Of = fn(&WorkerStats) -> f64;

pub(super) fn series(page: &mut Page, stats: &Stats) {
    let numbers: Vec<_> = stats.workers.iter().map(|worker| worker.worker.to_string()).collect();
    let each = || numbers.iter().map(String::as_str).zip(&stats.workers);
    let one = |of: Of| each().map(move |(name, w)| (vec![("worker", name)], of(w)));
    let two = |label: &'static str, values: [OfWorker; 2]| {
        each().flat_map(move |(name, w)| {
            values.map(|(value, of)| (vec![("worker", name), (label, value)], of(w) as f64))
        })
    };
    let gauges: [(_, _, Of); 3] = [
        ("conntrack_worker_up", "Whether the worker answers.", |w| f64::from(u8::from(w.responding))),
        ("conntrack_worker_entries", "Flows that the worker owns.", |w| w.entries as f64),
        ("conntrack_expiry_lag_seconds", "How late the oldest due expiry is.", |w| w.expiry_lag_seconds),
    ];
    for (name, help, of) in gauges {
        page.gauge(name, help, one(of));
    }
    let counters: [(_, _, Of); 8] = [
        ("conntrack_worker_busy_seconds_total", "Time in turns that found work.", |w| w.busy_seconds),
        ("conntrack_worker_idle_seconds_total", "Time in turns that found none.", |w| w.idle_seconds),
        ("conntrack_received_packets_total", "Frames that the worker took from its ports.", |w| {
            w.rx_packets as f64
        }),
        ("conntrack_handed_in_packets_total", "Frames that other workers gave to this one.", |w| {
            w.handed_in as f64
        }),
        (
            "conntrack_handed_on_packets_total",
            "Fragments that were handed in, put together here, and given on to the owner of their flow.",
            |w| w.handed_on as f64,
        ),
        (
            "conntrack_fragments_again_total",
            "Fragments that the owner of their flow took in once more, from the worker that put them together.",
            |w| w.fragments_again as f64,
        ),
        (
            "conntrack_transmit_dropped_packets_total",
            "Frames lost because the leaving port's queue was full.",
            |w| w.tx_full as f64,
        ),
        (
            "conntrack_refused_packets_total",
            "Frames lost as they came in: too long, or described by the driver in a way that contradicts itself.",
            |w| w.rx_refused as f64,
        ),
    ];
    for (name, help, of) in counters {
        page.counter(name, help, one(of));
    }
    page.counter(
        "conntrack_handed_off_packets_total",
        "Frames given to another worker: to the owner of their flow, or to one that has a queue where they leave.",
        two("to", [("owner", |w| w.handed_off), ("sender", |w| w.sent_through)]),
    );
    page.counter(
        "conntrack_lookups_total",
        "Lookups in the table.",
        two("result", [("hit", |w| w.found), ("miss", |w| w.missed)]),
    );
    page.counter(
        "conntrack_worker_polls_total",
        "Bursts asked for, by whether they held packets.",
        two("result", [("empty", |w| w.polls_empty), ("packets", |w| w.polls_packets)]),
    );
    page.counter(
        "conntrack_packets_total",
        "Packets by connection state.",
        each().flat_map(|(name, w)| {
            let classes = w.packets.iter();
            classes.map(move |(class, n)| (vec![("worker", name), ("ct", class.as_str())], *n as f64))
        }),
    );
    page.histogram(
        "conntrack_worker_burst_packets",
        "Packets in a burst that held any.",
        each().map(|(name, w)| {
            let bounds = BURST_SIZES.iter().map(|&size| size as f64).collect();
            (vec![("worker", name)], Distribution { bounds, counts: &w.bursts, sum: w.rx_packets as f64 })
        }),
    );
    page.histogram(
        "conntrack_packet_processing_seconds",
        "How long packets were here, from being taken from the port until being sent: those of one burst in 64.",
        each().map(|(name, w)| {
            let bounds = LATENCY_US.iter().map(|&us| us as f64 / 1e6).collect();
            (vec![("worker", name)], Distribution { bounds, counts: &w.latency, sum: w.latency_seconds })
        }),
    );
}
