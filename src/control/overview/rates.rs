//! From two readings to what happened between them, a second. Owns no state.

use std::collections::BTreeMap;

use crate::control::schema::overview::{Forecast, Overview, PortNow, Tally, WorkerNow};
use crate::control::schema::{PortStats, Stats, WorkerStats};

/// A number of each worker by label.
type Labelled = fn(&WorkerStats) -> &BTreeMap<String, u64>;

/// Two readings of everything, `seconds` apart.
#[derive(Clone, Copy)]
struct Between<'a> {
    before: &'a Stats,
    now: &'a Stats,
    seconds: f64,
}

/// A whole overview: every reason has its row, whether it has occurred or not. What is not in the readings is left
/// empty.
pub(super) fn whole(before: &Stats, now: &Stats, seconds: f64) -> Overview {
    let between = Between { before, now, seconds };
    Overview {
        unix_ms: 0,
        uptime_secs: 0,
        entries: now.entries,
        entries_limit: now.entries_limit,
        assured: now.assured,
        replied: now.replied,
        forecast: Forecast::default(),
        states: now.states.clone(),
        opened: between.sum(|worker| worker.inserted),
        closed: between.sum(|worker| worker.destroyed.values().sum()),
        closed_by: between.by_label(|worker| &worker.destroyed),
        rx_packets: between.sum(|worker| worker.rx_packets),
        rx_bytes: between.sum(|worker| worker.rx_bytes),
        tx_packets: between.sum(|worker| worker.tx_packets),
        dropped: between.by_label(|worker| &worker.dropped),
        invalid: between.by_label(|worker| &worker.invalid),
        malformed: between.by_label(|worker| &worker.malformed),
        lost: BTreeMap::from([
            ("tx_full".to_owned(), between.sum(|worker| worker.tx_full)),
            ("rx_refused".to_owned(), between.sum(|worker| worker.rx_refused)),
            ("held_full".to_owned(), between.sum(|worker| worker.held_full)),
        ]),
        full_untracked: between.sum(|worker| worker.full_untracked),
        workers: between.pairs(&before.workers, &now.workers, Between::worker),
        ports: between.pairs(&before.ports, &now.ports, Between::port),
        top: None,
    }
}

/// Without what is zero since the start: most reasons never occur, and nobody can be in most states.
pub(super) fn shorten(overview: &mut Overview) {
    overview.states.retain(|row| row.entries > 0);
    for tallies in [&mut overview.dropped, &mut overview.invalid, &mut overview.malformed, &mut overview.lost]
    {
        tallies.retain(|_, tally| tally.total > 0);
    }
}

impl Between<'_> {
    fn tally(&self, before: u64, now: u64) -> Tally {
        Tally { total: now, per_second: self.per_second(before, now) }
    }

    /// A tenth is exact enough, and short as JSON. A port's counters may have been set back by its driver.
    fn per_second(&self, before: u64, now: u64) -> f64 {
        if self.seconds <= 0.0 {
            return 0.0;
        }
        (now.saturating_sub(before) as f64 / self.seconds * 10.0).round() / 10.0
    }

    fn sum(&self, of: fn(&WorkerStats) -> u64) -> Tally {
        let sum = |stats: &Stats| stats.workers.iter().map(of).sum();
        self.tally(sum(self.before), sum(self.now))
    }

    fn by_label(&self, of: Labelled) -> BTreeMap<String, Tally> {
        let mut sums = BTreeMap::<&str, (u64, u64)>::new();
        for (label, number) in self.before.workers.iter().flat_map(of) {
            sums.entry(label).or_default().0 += number;
        }
        for (label, number) in self.now.workers.iter().flat_map(of) {
            sums.entry(label).or_default().1 += number;
        }
        sums.into_iter().map(|(label, (before, now))| (label.to_owned(), self.tally(before, now))).collect()
    }

    fn pairs<T, U>(&self, before: &[T], now: &[T], one: fn(&Self, &T, &T) -> U) -> Vec<U> {
        before.iter().zip(now).map(|(before, now)| one(self, before, now)).collect()
    }

    fn worker(&self, before: &WorkerStats, now: &WorkerStats) -> WorkerNow {
        let busy = now.busy_seconds - before.busy_seconds;
        let all = busy + now.idle_seconds - before.idle_seconds;
        WorkerNow {
            worker: now.worker,
            responding: now.responding,
            entries: now.entries,
            busy: if all > 0.0 { (busy / all * 1e4).round() / 1e4 } else { 0.0 },
            rx_packets_per_second: self.per_second(before.rx_packets, now.rx_packets),
            tx_packets_per_second: self.per_second(before.tx_packets, now.tx_packets),
            opened_per_second: self.per_second(before.inserted, now.inserted),
            handed_off_per_second: self.per_second(before.handed_off, now.handed_off),
            expiry_lag_seconds: now.expiry_lag_seconds,
        }
    }

    fn port(&self, before: &PortStats, now: &PortStats) -> PortNow {
        PortNow {
            name: now.name.clone(),
            up: now.up,
            rx_packets_per_second: self.per_second(before.rx_packets, now.rx_packets),
            rx_bits_per_second: 8.0 * self.per_second(before.rx_bytes, now.rx_bytes),
            tx_packets_per_second: self.per_second(before.tx_packets, now.tx_packets),
            tx_bits_per_second: 8.0 * self.per_second(before.tx_bytes, now.tx_bytes),
            rx_missed: self.tally(before.rx_missed, now.rx_missed),
            rx_nombuf: self.tally(before.rx_nombuf, now.rx_nombuf),
            rx_errors: self.tally(before.rx_errors, now.rx_errors),
            tx_errors: self.tally(before.tx_errors, now.tx_errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(inserted: u64, invalid: u64, busy: f64, idle: f64) -> Stats {
        let worker = |share| WorkerStats {
            inserted: inserted * share,
            invalid: BTreeMap::from([("tcp_bad_flags".to_owned(), invalid), ("never".to_owned(), 0)]),
            busy_seconds: busy,
            idle_seconds: idle,
            ..WorkerStats::default()
        };
        Stats { workers: vec![worker(1), worker(3)], ..Stats::default() }
    }

    #[test]
    fn rates_are_the_workers_sums_over_the_time_between() {
        let told = whole(&stats(100, 5, 10.0, 10.0), &stats(300, 6, 10.5, 11.5), 2.0);
        assert_eq!(told.opened, Tally { total: 1200, per_second: 400.0 });
        assert_eq!(told.invalid["tcp_bad_flags"], Tally { total: 12, per_second: 1.0 });
        assert_eq!((told.workers.len(), told.workers[1].busy), (2, 0.25));
    }

    #[test]
    fn what_never_occurred_has_a_row_only_in_the_whole() {
        let mut told = whole(&stats(1, 1, 0.0, 0.0), &stats(1, 1, 0.0, 0.0), 1.0);
        assert_eq!(told.invalid.len(), 2);
        shorten(&mut told);
        assert_eq!(told.invalid.keys().collect::<Vec<_>>(), ["tcp_bad_flags"]);
    }

    #[test]
    fn counters_that_were_set_back_and_no_time_at_all_give_no_rate() {
        let (old, new) = (stats(100, 5, 1.0, 1.0), stats(10, 0, 1.0, 1.0));
        assert_eq!(whole(&old, &new, 1.0).opened.per_second, 0.0);
        assert_eq!(whole(&new, &old, 0.0).opened.per_second, 0.0);
    }
}
