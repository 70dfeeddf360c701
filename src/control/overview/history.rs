//! A quarter of an hour of samples, one a second, so that who opens the page sees what led here. Owns the samples; all of
//! their memory is taken at the first one, because only then is it known how many series there are.

use crate::control::schema::overview::{History, Overview, Tally};

/// Samples that are kept: 15 minutes.
pub(super) const SAMPLES: usize = 900;

/// The samples.
#[derive(Debug, Default)]
pub(super) struct Ring {
    names: Vec<String>,
    /// One after the other, each with as many numbers as there are names. 32 bits hold 7 digits: enough for a curve.
    values: Vec<f32>,
    /// When each was taken: milliseconds since the machine booted, which go up whatever becomes of the wall clock.
    boot_ms: Vec<u64>,
    /// The place of the next sample.
    next: usize,
    len: usize,
    /// Samples taken since the start.
    taken: u64,
}

impl Ring {
    /// Keeps what a whole overview says, in the place of the oldest sample where there is no other.
    pub(super) fn keep(&mut self, overview: &Overview, boot_ms: u64) {
        if self.names.is_empty() {
            series(overview, &mut |name, _| self.names.push(name()));
            self.values = vec![0.0; self.names.len() * SAMPLES];
            self.boot_ms = vec![0; SAMPLES];
        }
        let width = self.names.len();
        let row = &mut self.values[self.next * width..(self.next + 1) * width];
        let mut column = row.iter_mut();
        // The series are the same each time: workers, ports and reasons are fixed at the start.
        series(overview, &mut |_, value| {
            if let Some(place) = column.next() {
                *place = rounded(value);
            }
        });
        self.boot_ms[self.next] = boot_ms;
        self.next = (self.next + 1) % SAMPLES;
        self.len = (self.len + 1).min(SAMPLES);
        self.taken += 1;
    }

    /// Samples taken since the start.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The places of the samples, the oldest first.
    fn places(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        let first = self.next + SAMPLES - self.len;
        (first..first + self.len).map(|place| place % SAMPLES)
    }

    /// One series' last numbers as (milliseconds since the machine booted, number), the oldest first.
    pub(super) fn last(&self, name: &str, samples: usize) -> Vec<(u64, f32)> {
        let Some(column) = self.names.iter().position(|known| known == name) else { return Vec::new() };
        let skip = self.len.saturating_sub(samples);
        let at = |place: usize| (self.boot_ms[place], self.values[place * self.names.len() + column]);
        self.places().skip(skip).map(at).collect()
    }

    /// All of it, without the series that are zero throughout. `boot_unix_ms` is the machine's boot by the wall clock.
    pub(super) fn tell(&self, boot_unix_ms: u64) -> History {
        let width = self.names.len();
        let column = |(column, name): (usize, &String)| {
            let values: Vec<f32> = self.places().map(|place| self.values[place * width + column]).collect();
            values.iter().any(|&value| value != 0.0).then(|| (name.clone(), values))
        };
        History {
            unix_ms: self.places().map(|place| boot_unix_ms + self.boot_ms[place]).collect(),
            series: self.names.iter().enumerate().filter_map(column).collect(),
        }
    }
}

/// Three places after the point: what a curve can show, and short as JSON.
fn rounded(value: f64) -> f32 {
    ((value * 1e3).round() / 1e3) as f32
}

/// Every series of a whole overview: its name, made only if it is wanted, and its number.
fn series(overview: &Overview, tell: &mut dyn FnMut(&dyn Fn() -> String, f64)) {
    tell(&|| "entries".to_owned(), overview.entries as f64);
    tell(&|| "opened".to_owned(), overview.opened.per_second);
    tell(&|| "closed".to_owned(), overview.closed.per_second);
    for row in &overview.states {
        let name = || match row.state.as_str() {
            "" => format!("states.{}", row.proto),
            state => format!("states.{}.{state}", row.proto),
        };
        tell(&name, row.entries as f64);
    }
    for (what, tallies) in [
        ("closed", &overview.closed_by),
        ("dropped", &overview.dropped),
        ("invalid", &overview.invalid),
        ("malformed", &overview.malformed),
        ("lost", &overview.lost),
    ] {
        for (reason, Tally { per_second, .. }) in tallies {
            tell(&|| format!("{what}.{reason}"), *per_second);
        }
    }
    for now in &overview.workers {
        for (what, value) in [
            ("busy", now.busy),
            ("rx_packets", now.rx_packets_per_second),
            ("tx_packets", now.tx_packets_per_second),
        ] {
            tell(&|| format!("workers.{}.{what}", now.worker), value);
        }
    }
    for now in &overview.ports {
        for (what, value) in [
            ("rx_packets", now.rx_packets_per_second),
            ("rx_bits", now.rx_bits_per_second),
            ("tx_packets", now.tx_packets_per_second),
            ("tx_bits", now.tx_bits_per_second),
        ] {
            tell(&|| format!("ports.{}.{what}", now.name), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(ring: &mut Ring, second: u64) {
        ring.keep(&Overview { entries: second * 10, ..Overview::default() }, second * 1000);
    }

    #[test]
    fn the_oldest_sample_gives_way_and_no_memory_is_taken_for_the_new_one() {
        let mut ring = Ring::default();
        keep(&mut ring, 1);
        let taken = (ring.values.capacity(), ring.boot_ms.capacity());
        for second in 2..=SAMPLES as u64 + 3 {
            keep(&mut ring, second);
        }
        assert_eq!((ring.values.capacity(), ring.boot_ms.capacity()), taken);
        let told = ring.tell(7);
        assert_eq!(told.unix_ms.len(), SAMPLES);
        assert_eq!((told.unix_ms[0], told.unix_ms[SAMPLES - 1]), (4_007, (SAMPLES as u64 + 3) * 1000 + 7));
        assert_eq!(told.series["entries"][0], 40.0);
        assert_eq!(ring.last("entries", 2), [(902_000, 9020.0), (903_000, 9030.0)]);
    }

    #[test]
    fn a_series_that_never_moved_is_not_sent() {
        let mut ring = Ring::default();
        keep(&mut ring, 1);
        let names: Vec<_> = ring.tell(0).series.into_keys().collect();
        assert_eq!(names, ["entries"]);
    }
}
