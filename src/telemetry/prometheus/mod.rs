//! Metrics in Prometheus' text form. Owns names, help and labels; the numbers come from [`Stats`].
//! Every series exists from the start, at zero. Labels are of bounded sets only: no address, port number or id.

mod node;
mod port;
mod table;
mod worker;

use std::collections::{BTreeMap, HashMap};

use conntrack::track::timeout::{TimeoutKey, Timeouts};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, Registry, TextEncoder};

use crate::control::schema::{Info, Stats, WorkerStats};

/// What [`text`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One series' labels.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// What metrics tell of.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    pub info: &'a Info,
    pub stats: &'a Stats,
    /// As they are now.
    pub timeouts: &'a Timeouts,
    /// The series of node_exporter as well.
    pub node_compat: bool,
}

/// All metrics, as one page.
pub fn text(sources: Sources<'_>) -> prometheus::Result<String> {
    let registry = Registry::new();
    registry.register(Box::new(Reading::new(sources)?))?;
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
    fn new(sources: Sources<'_>) -> prometheus::Result<Self> {
        let Sources { info, stats, timeouts, node_compat } = sources;
        let mut page = Page { families: Vec::new() };
        table::series(&mut page, stats);
        worker::series(&mut page, stats);
        port::series(&mut page, info, stats);
        about(&mut page, info, timeouts);
        if node_compat {
            node::series(&mut page, stats);
        }
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

    fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, Distribution<'a>)>,
    ) {
        let metric = |(labels, distribution): (_, Distribution<'_>)| {
            let mut metric = Metric::from_label(pairs(labels));
            metric.set_histogram(distribution.histogram());
            metric
        };
        self.family(name, help, MetricType::HISTOGRAM, series.into_iter().map(metric).collect());
    }
}

/// How often each size was met.
struct Distribution<'a> {
    /// Upper bounds, growing.
    bounds: Vec<f64>,
    /// By bound; one more for what lies beyond the last.
    counts: &'a [u64],
    /// Of all sizes.
    sum: f64,
}

impl Distribution<'_> {
    fn histogram(&self) -> Histogram {
        let mut below = 0;
        let buckets = self.bounds.iter().zip(self.counts).map(|(&bound, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(self.counts.iter().sum());
        histogram.set_sample_sum(self.sum);
        histogram
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

/// The number under a label.
fn of(numbers: &BTreeMap<String, u64>, label: &str) -> u64 {
    numbers.get(label).copied().unwrap_or_default()
}

/// What all workers have of something.
fn sum(stats: &Stats, of: impl Fn(&WorkerStats) -> u64) -> f64 {
    stats.workers.iter().map(of).sum::<u64>() as f64
}

fn about(page: &mut Page, info: &Info, timeouts: &Timeouts) {
    let spans = TimeoutKey::ALL.iter().map(|&key| {
        let (proto, state) = key.name().split_once('.').unwrap_or((key.name(), ""));
        (vec![("proto", proto), ("state", state)], timeouts.get(key).as_secs_f64())
    });
    page.gauge("conntrack_timeout_seconds", "Each timeout as it is now.", spans);
    let reload = &info.last_reload;
    page.gauge(
        "conntrack_config_last_reload_successful",
        "Whether the configuration was taken over when it was last read.",
        [(vec![], f64::from(u8::from(reload.success)))],
    );
    page.gauge(
        "conntrack_config_last_reload_success_timestamp_seconds",
        "When a configuration was last taken over, since 1970.",
        [(vec![], reload.success_unix_ms as f64 / 1e3)],
    );
    page.gauge(
        "conntrack_build_info",
        "What runs.",
        [(
            vec![
                ("version", info.version.as_str()),
                ("revision", &info.revision),
                ("dpdk", &info.dpdk),
                ("profile", &info.profile),
            ],
            1.0,
        )],
    );
}

#[cfg(test)]
mod tests;
