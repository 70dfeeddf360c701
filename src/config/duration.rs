//! Durations as operators write them: `5d`, `12h`, `1h30m`, `90s`, `500ms`, or a plain number of seconds.

use std::time::Duration;

use conntrack::tick::{PER_SECOND, Ticks};

/// The unit of a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// As today's sysctls and our own names.
    Seconds,
    /// As `ip_ct_*` of the 2.4 and 2.6 kernels.
    Hundredths,
}

/// Why a text is not a timeout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("`{0}` is not a duration: write it like 5d, 12h, 1h30m, 90s, or as plain {unit}", unit = plain_name(*.1))]
    Syntax(String, Plain),
    #[error("a timeout of {0} would forget every flow at once: the shortest is 4ms")]
    TooShort(String),
    #[error(
        "{0} is longer than 90d, the longest that the timer tells from one that has passed: give 90d or less"
    )]
    TooLong(String),
}

const fn plain_name(plain: Plain) -> &'static str {
    match plain {
        Plain::Seconds => "seconds",
        Plain::Hundredths => "hundredths of a second (this name's unit in the kernels that had it)",
    }
}

/// Reads a timeout. A plain number counts in `plain`; a unit in the text always wins. The span is rounded down to
/// the tracker's tick of 4 ms and lies within 4 ms and 90 days.
pub fn parse_timeout(text: &str, plain: Plain) -> Result<Ticks, DurationError> {
    let trimmed = text.trim();
    // All digits, with the underscores that TOML allows, is a plain number.
    let digits = trimmed.replace('_', "");
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let number: u64 = digits.parse().map_err(|_| DurationError::TooLong(text.to_owned()))?;
        return from_plain(number, plain);
    }
    let span =
        humantime::parse_duration(trimmed).map_err(|_| DurationError::Syntax(text.to_owned(), plain))?;
    from_millis(span.as_millis(), trimmed)
}

/// The timeout of a plain number; see [`parse_timeout`].
pub fn from_plain(number: u64, plain: Plain) -> Result<Ticks, DurationError> {
    let (factor, unit) = match plain {
        Plain::Seconds => (1000, "s"),
        Plain::Hundredths => (10, " hundredths of a second"),
    };
    from_millis(u128::from(number) * factor, &format!("{number}{unit}"))
}

fn from_millis(millis: u128, text: &str) -> Result<Ticks, DurationError> {
    let ticks = millis * u128::from(PER_SECOND) / 1000;
    match u32::try_from(ticks) {
        Ok(0) => Err(DurationError::TooShort(text.to_owned())),
        Ok(ticks) if ticks <= Ticks::MAX.0 => Ok(Ticks(ticks)),
        _ => Err(DurationError::TooLong(text.to_owned())),
    }
}

/// Reads a span of time that is not a timeout, such as `--until 3s`: any length, zero too.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text.trim()).map_err(|_| {
        format!("`{text}` is not a duration: write it like 3s, 5m, 12h, 5d, or as plain seconds")
    })
}

/// Writes a timeout so that [`parse_timeout`] reads it back: `5d`, `1h30m`, `500ms`.
pub fn print_timeout(ticks: Ticks) -> String {
    let mut millis = u64::from(ticks.0) * 1000 / u64::from(PER_SECOND);
    let mut text = String::new();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if millis >= size {
            text.push_str(&format!("{}{unit}", millis / size));
            millis %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Result<Ticks, DurationError> {
        parse_timeout(text, Plain::Seconds)
    }

    #[test]
    fn units_and_plain_seconds_are_read() {
        for (text, want) in [
            ("5d", 432_000),
            ("12h", 43_200),
            ("1h30m", 5_400),
            ("1h 30m", 5_400),
            ("90s", 90),
            ("3600", 3_600),
            ("432_000", 432_000),
            (" 30 ", 30),
            ("90d", 7_776_000),
        ] {
            assert_eq!(seconds(text), Ok(Ticks::from_secs(want)), "{text}");
        }
        assert_eq!(seconds("500ms"), Ok(Ticks(125)));
    }

    #[test]
    fn the_old_unit_is_a_hundredth_of_a_second_unless_a_unit_is_given() {
        assert_eq!(parse_timeout("3000", Plain::Hundredths), Ok(Ticks::from_secs(30)));
        assert_eq!(parse_timeout("50", Plain::Hundredths), Ok(Ticks(125)));
        assert_eq!(parse_timeout("30s", Plain::Hundredths), Ok(Ticks::from_secs(30)));
    }

    #[test]
    fn what_cannot_be_a_timeout_is_refused() {
        for text in ["", "five days", "-3", "3.5", "5 parsecs", "s"] {
            assert!(matches!(seconds(text), Err(DurationError::Syntax(..))), "{text}");
        }
        for text in ["0", "0s", "3ms"] {
            assert!(matches!(seconds(text), Err(DurationError::TooShort(_))), "{text}");
        }
        for text in ["91d", "7776001", "99999999999999999999999", "584y"] {
            assert!(matches!(seconds(text), Err(DurationError::TooLong(_))), "{text}");
        }
    }

    #[test]
    fn printing_reads_back() {
        for text in ["5d", "12h", "1h30m", "1m30s", "500ms", "90d", "1d1h1m1s4ms"] {
            assert_eq!(print_timeout(seconds(text).unwrap()), text);
        }
        assert_eq!(print_timeout(Ticks::from_secs(90)), "1m30s");
    }
}
