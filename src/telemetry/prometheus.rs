//! Metrics in Prometheus' text form. Owns names, help and labels; the numbers come from [`Stats`].
//! Every series exists from the start, at zero. Labels are of bounded sets only: no address, port number or id.

use std::collections::{BTreeMap, HashMap};

use conntrack::track::timeout::{TimeoutKey, Timeouts};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, Registry, TextEncoder};

use crate::bus::report::BURST_SIZES;
use crate::control::schema::{ExportStats, Info, PortStats, Stats, WorkerStats, ZoneRow};

/// What [`text`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A number of each port.
type OfPort = fn(&PortStats) -> u64;

/// A number of each worker under a label's value.
type OfWorker = (&'static str, fn(&WorkerStats) -> u64);

/// One series' labels.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// All metrics, as one page.
pub fn text(info: &Info, stats: &Stats, timeouts: &Timeouts) -> prometheus::Result<String> {
    let registry = Registry::new();
    registry.register(Box::new(Reading::new(info, stats, timeouts)?))?;
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let mut page = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The numbers of one moment, as a collector.
struct Reading {
    descs: Vec<Desc>,
    families: Vec<MetricFamily>,
}

impl Collector for Reading {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.families.clone()
    }
}

impl Reading {
    fn new(info: &Info, stats: &Stats, timeouts: &Timeouts) -> prometheus::Result<Self> {
        let mut page = Page { families: Vec::new() };
        table(&mut page, stats);
        zones(&mut page, stats);
        workers(&mut page, stats);
        ports(&mut page, info, stats);
        rest(&mut page, info, timeouts);
        let desc = |family: &MetricFamily| {
            Desc::new(family.name().to_owned(), family.help().to_owned(), Vec::new(), HashMap::new())
        };
        let descs = page.families.iter().map(desc).collect::<Result<_, _>>()?;
        Ok(Self { descs, families: page.families })
    }
}

struct Page {
    families: Vec<MetricFamily>,
}

impl Page {
    fn family(&mut self, name: &str, help: &str, of: MetricType, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(of);
        family.set_metric(metrics);
        self.families.push(family);
    }

    fn gauge<'a>(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = (Labels<'a>, f64)>) {
        let metric = |(labels, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = Metric::from_label(pairs(labels));
            metric.set_gauge(gauge);
            metric
        };
        self.family(name, help, MetricType::GAUGE, series.into_iter().map(metric).collect());
    }

    fn counter<'a>(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = (Labels<'a>, f64)>) {
        let metric = |(labels, value)| {
            let mut counter = Counter::default();
            counter.set_value(value);
            let mut metric = Metric::from_label(pairs(labels));
            metric.set_counter(counter);
            metric
        };
        self.family(name, help, MetricType::COUNTER, series.into_iter().map(metric).collect());
    }
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    labels.into_iter().map(pair).collect()
}

fn table(page: &mut Page, stats: &Stats) {
    let entries = stats
        .states
        .iter()
        .map(|row| (vec![("proto", row.proto.as_str()), ("state", &row.state)], row.entries as f64));
    page.gauge("conntrack_entries", "Flows in the table.", entries);
    page.gauge(
        "conntrack_entries_assured",
        "Flows in the table that are ASSURED.",
        [(vec![], stats.assured as f64)],
    );
    page.gauge(
        "conntrack_entries_limit",
        "Flows that the table holds at most.",
        [(vec![], stats.entries_limit as f64)],
    );
    let sum = |of: fn(&WorkerStats) -> u64| stats.workers.iter().map(of).sum::<u64>() as f64;
    let by_label = |of: fn(&WorkerStats) -> &BTreeMap<String, u64>| {
        let mut sums = BTreeMap::<&str, u64>::new();
        for worker in &stats.workers {
            for (label, number) in of(worker) {
                *sums.entry(label).or_default() += number;
            }
        }
        sums
    };
    for (metric, label, help, sums) in [
        (
            "conntrack_evictions_total",
            "reason",
            "Flows that ended, by reason.",
            by_label(|worker| &worker.destroyed),
        ),
        (
            "conntrack_untracked_frames_total",
            "kind",
            "Frames that are not tracked, by what they are.",
            by_label(|worker| &worker.untracked),
        ),
        (
            "conntrack_invalid_packets_total",
            "reason",
            "INVALID packets, by reason.",
            by_label(|worker| &worker.invalid),
        ),
        (
            "conntrack_malformed_packets_total",
            "reason",
            "Frames without an IP header that a host would accept, by reason.",
            by_label(|worker| &worker.malformed),
        ),
        (
            "conntrack_dropped_packets_total",
            "reason",
            "Frames that were dropped, by reason.",
            by_label(|worker| &worker.dropped),
        ),
    ] {
        page.counter(metric, help, sums.into_iter().map(|(value, n)| (vec![(label, value)], n as f64)));
    }
    let refused = sum(|worker| of(&worker.dropped, "table_full"));
    page.counter(
        "conntrack_table_full_total",
        "New flows that found the table full, by what became of them.",
        [
            (vec![("outcome", "early_drop")], sum(|worker| of(&worker.destroyed, "early_drop"))),
            (vec![("outcome", "dropped")], refused),
            (vec![("outcome", "untracked")], sum(|worker| worker.full_untracked)),
        ],
    );
    page.counter(
        "conntrack_fragments_total",
        "Fragments that were held for their datagram, or found no room.",
        [
            (vec![("result", "held")], sum(|worker| worker.fragments_held)),
            (vec![("result", "no_room")], sum(|worker| worker.held_full)),
        ],
    );
    page.counter(
        "conntrack_datagrams_total",
        "Fragmented datagrams, by what became of them.",
        [
            (vec![("result", "completed")], sum(|worker| worker.datagrams_completed)),
            (vec![("result", "timed_out")], sum(|worker| worker.datagrams_timed_out)),
            (vec![("result", "evicted")], sum(|worker| worker.datagrams_evicted)),
        ],
    );
    page.gauge(
        "conntrack_fragments_waiting",
        "Frames that wait for the rest of their datagram.",
        [(vec![], sum(|worker| worker.held_frames))],
    );
    page.counter(
        "conntrack_icmp_errors_rejected_total",
        "ICMP errors that belong to no flow.",
        [(vec![], sum(|worker| worker.icmp_error))],
    );
    page.counter(
        "conntrack_ignored_packets_total",
        "Packets of a flow that neither counted nor refreshed it.",
        [(vec![], sum(|worker| worker.ignored))],
    );
    page.counter(
        "conntrack_events_dropped_total",
        "Events lost because a buffer was full, by who missed them.",
        [(vec![("sink", "stream")], sum(|worker| worker.events_lost))]
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

/// Only the zones that an operator has named, and at most 64 of those.
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

/// The number under a label.
fn of(numbers: &BTreeMap<String, u64>, label: &str) -> u64 {
    numbers.get(label).copied().unwrap_or_default()
}

fn workers(page: &mut Page, stats: &Stats) {
    let numbers: Vec<_> = stats.workers.iter().map(|worker| worker.worker.to_string()).collect();
    let each = || numbers.iter().map(String::as_str).zip(&stats.workers);
    let one = |of: fn(&WorkerStats) -> f64| each().map(move |(name, w)| (vec![("worker", name)], of(w)));
    let two = |label: &'static str, values: [OfWorker; 2]| {
        each().flat_map(move |(name, w)| {
            values.map(|(value, of)| (vec![("worker", name), (label, value)], of(w) as f64))
        })
    };
    page.gauge(
        "conntrack_worker_up",
        "Whether the worker answers.",
        one(|w| f64::from(u8::from(w.responding))),
    );
    page.counter("conntrack_inserts_total", "Flows that entered the table.", one(|w| w.inserted as f64));
    page.counter(
        "conntrack_worker_busy_seconds_total",
        "Time in turns that found work.",
        one(|w| w.busy_seconds),
    );
    page.counter(
        "conntrack_worker_idle_seconds_total",
        "Time in turns that found none.",
        one(|w| w.idle_seconds),
    );
    page.gauge(
        "conntrack_expiry_lag_seconds",
        "How late the oldest due expiry is.",
        one(|w| w.expiry_lag_seconds),
    );
    page.counter(
        "conntrack_received_packets_total",
        "Frames that the worker took from its ports.",
        one(|w| w.rx_packets as f64),
    );
    page.counter(
        "conntrack_handed_off_packets_total",
        "Frames given to another worker: to the owner of their flow, or to one that has a queue where they leave.",
        two("to", [("owner", |w| w.handed_off), ("sender", |w| w.sent_through)]),
    );
    page.counter(
        "conntrack_handed_in_packets_total",
        "Frames that other workers gave to this one.",
        one(|w| w.handed_in as f64),
    );
    page.counter(
        "conntrack_transmit_dropped_packets_total",
        "Frames lost because the leaving port's queue was full.",
        one(|w| w.tx_full as f64),
    );
    page.counter(
        "conntrack_refused_packets_total",
        "Frames lost as they came in: too long, or described by the driver in a way that contradicts itself.",
        one(|w| w.rx_refused as f64),
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
            w.packets
                .iter()
                .map(move |(class, n)| (vec![("worker", name), ("ct", class.as_str())], *n as f64))
        }),
    );
    let bursts = each().map(|(name, worker)| {
        let mut metric = Metric::from_label(pairs(vec![("worker", name)]));
        metric.set_histogram(histogram(worker));
        metric
    });
    page.family(
        "conntrack_worker_burst_packets",
        "Packets in a burst that held any.",
        MetricType::HISTOGRAM,
        bursts.collect(),
    );
}

fn histogram(worker: &WorkerStats) -> Histogram {
    let mut count = 0;
    let buckets = BURST_SIZES.iter().zip(&worker.bursts).map(|(&bound, n)| {
        count += n;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound as f64);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(count);
    histogram.set_sample_sum(worker.rx_packets as f64);
    histogram
}

fn ports(page: &mut Page, info: &Info, stats: &Stats) {
    let one = |of: OfPort| {
        stats.ports.iter().map(move |port| (vec![("port", port.name.as_str())], of(port) as f64))
    };
    let links = stats.ports.iter().filter_map(|port| Some((vec![("port", port.name.as_str())], port.up?)));
    let links = links.map(|(labels, up)| (labels, f64::from(u8::from(up))));
    page.gauge("conntrack_port_up", "Whether the port's link is up; absent where that can't be seen.", links);
    for (name, help, of) in [
        ("receive_packets", "Packets received.", (|port| port.rx_packets) as OfPort),
        ("receive_bytes", "Bytes received.", |port| port.rx_bytes),
        ("receive_missed", "Packets lost because the receive queue was full.", |port| port.rx_missed),
        ("receive_errors", "Packets received with an error.", |port| port.rx_errors),
        ("receive_nombuf", "Packets lost because the buffer pool was empty.", |port| port.rx_nombuf),
        ("transmit_packets", "Packets sent.", |port| port.tx_packets),
        ("transmit_bytes", "Bytes sent.", |port| port.tx_bytes),
        ("transmit_errors", "Packets that could not be sent.", |port| port.tx_errors),
    ] {
        page.counter(&format!("conntrack_port_{name}_total"), help, one(of));
    }
    let about = info.ports.iter().map(|port| {
        (vec![("port", port.name.as_str()), ("device", &port.device), ("driver", &port.driver)], 1.0)
    });
    page.gauge("conntrack_port_info", "What each port is.", about);
}

fn rest(page: &mut Page, info: &Info, timeouts: &Timeouts) {
    let spans = TimeoutKey::ALL.iter().map(|&key| {
        let (proto, state) = key.name().split_once('.').unwrap_or((key.name(), ""));
        (vec![("proto", proto), ("state", state)], timeouts.get(key).as_secs_f64())
    });
    page.gauge("conntrack_timeout_seconds", "Each timeout as it is now.", spans);
    page.gauge(
        "conntrack_build_info",
        "What runs.",
        [(vec![("version", info.version.as_str()), ("dpdk", &info.dpdk), ("profile", &info.profile)], 1.0)],
    );
}
