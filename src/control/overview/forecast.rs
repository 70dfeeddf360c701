//! When the table will be full. Owns the reckoning only; the samples are handed in.

use crate::control::schema::overview::Forecast;

/// Samples that the reckoning goes by: a minute. Shorter would follow every burst, longer would see a flood late.
pub(super) const SAMPLES: usize = 60;

/// With fewer samples nothing is said.
const AT_LEAST: usize = 5;

/// What lies further ahead is not foreseen: a day.
const HORIZON_SECS: f64 = 86_400.0;

/// From (milliseconds since some moment, flows), the oldest first.
pub(super) fn forecast(samples: &[(u64, f32)], entries: u64, limit: u64) -> Forecast {
    let growth = if samples.len() < AT_LEAST { 0.0 } else { slope(samples) };
    let room = limit.saturating_sub(entries) as f64;
    let secs = if room == 0.0 { Some(0.0) } else { (growth > 0.0).then(|| room / growth) };
    Forecast {
        growth_per_second: (growth * 10.0).round() / 10.0,
        full_in_secs: secs.filter(|&secs| secs <= HORIZON_SECS).map(|secs| secs as u64),
    }
}

/// Of the straight line that lies nearest to all samples, in flows a second: one odd sample moves it little.
fn slope(samples: &[(u64, f32)]) -> f64 {
    let Some(&(begin, _)) = samples.first() else { return 0.0 };
    let points = samples.iter().map(|&(at, y)| (at.saturating_sub(begin) as f64 / 1e3, f64::from(y)));
    let n = samples.len() as f64;
    let (sum_x, sum_y) = points.clone().fold((0.0, 0.0), |(xs, ys), (x, y)| (xs + x, ys + y));
    let (mean_x, mean_y) = (sum_x / n, sum_y / n);
    let (mut over, mut under) = (0.0, 0.0);
    for (x, y) in points {
        over += (x - mean_x) * (y - mean_y);
        under += (x - mean_x) * (x - mean_x);
    }
    // All samples at one moment have no slope.
    if under > 0.0 { over / under } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growing(by: f32) -> Vec<(u64, f32)> {
        (0..60_u16).map(|second| (u64::from(second) * 1000, 1000.0 + by * f32::from(second))).collect()
    }

    #[test]
    fn a_table_that_grows_evenly_is_full_when_its_room_is_used_up() {
        let told = forecast(&growing(100.0), 6_900, 24_900);
        assert_eq!(told, Forecast { growth_per_second: 100.0, full_in_secs: Some(180) });
    }

    #[test]
    fn nothing_is_foreseen_of_a_table_that_shrinks_or_stands_or_creeps() {
        for (by, growth) in [(-5.0, -5.0), (0.0, 0.0), (0.1, 0.1)] {
            let told = forecast(&growing(by), 1_000, 1_000_000);
            assert_eq!(told, Forecast { growth_per_second: growth, full_in_secs: None });
        }
    }

    #[test]
    fn a_full_table_is_full_now() {
        assert_eq!(forecast(&growing(-1.0), 50, 50).full_in_secs, Some(0));
    }

    #[test]
    fn too_few_samples_and_a_clock_that_stands_say_nothing() {
        assert_eq!(forecast(&growing(100.0)[..AT_LEAST - 1], 1, 10), Forecast::default());
        assert_eq!(forecast(&[(7, 1.0); 60], 1, 10), Forecast::default());
    }
}
