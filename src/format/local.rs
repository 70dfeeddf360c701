//! Wall-clock time in the reader's time zone, as C's `ctime` and `conntrack`'s XML write it.

use jiff::Timestamp;
use jiff::Zoned;
use jiff::tz::TimeZone;

fn zoned(unix_ms: u64) -> Zoned {
    let timestamp = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    // The clock reads what jiff can say until the year 9999.
    timestamp.unwrap_or(Timestamp::MAX).to_zoned(TimeZone::system())
}

/// `Sun Nov 22 15:21:35 2026`.
pub(super) fn date(unix_ms: u64) -> String {
    zoned(unix_ms).strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// The parts as XML elements; Sunday is day 1 of the week.
pub(super) fn when(unix_ms: u64) -> String {
    let at = zoned(unix_ms);
    format!(
        "<when><hour>{}</hour><min>{:02}</min><sec>{:02}</sec><wday>{}</wday><day>{}</day><month>{}</month>\
         <year>{}</year></when>",
        at.hour(),
        at.minute(),
        at.second(),
        at.weekday().to_sunday_one_offset(),
        at.day(),
        at.month(),
        at.year()
    )
}
