//! `summary` and `workers`: the table and the workers at a glance. Owns the columns; the numbers are `stats`'s.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use conntrack::track::sctp::SctpState;
use conntrack::track::tcp::TcpState;

use super::client::Client;
use super::stats::Form;
use super::{Ask, Done, Failure};
use crate::control::schema::{StateEntries, Stats, WorkerStats};

/// The columns of the matrix, by the names that `stats` uses, and what stands above them.
const PROTOS: [(&str, &str); 8] = [
    ("tcp", "tcp"),
    ("udp", "udp"),
    ("udplite", "udplite"),
    ("icmp", "icmp"),
    ("icmpv6", "icmpv6"),
    ("sctp", "sctp"),
    ("gre", "gre"),
    ("unknown", "other"),
];

/// How flows stand, as numbers only: the table is not listed.
pub(super) fn summary(ask: &Ask, form: Form) -> Done {
    let stats: Stats = Client::new(&ask.socket)?.get("/v1/stats")?;
    let mut out = io::stdout().lock();
    if form == Form::Json {
        serde_json::to_writer_pretty(&mut out, &stats.states).map_err(io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    write!(out, "{}", matrix(&stats.states))?;
    let share = 100.0 * stats.entries as f64 / (stats.entries_limit.max(1)) as f64;
    Ok(writeln!(
        out,
        "{} of {} entries ({share:.1} %), {} replied, {} assured",
        stats.entries, stats.entries_limit, stats.replied, stats.assured
    )?)
}

/// A row for each state that a flow is in, in the order in which flows pass through them, a column for each protocol.
fn matrix(states: &[StateEntries]) -> String {
    let mut cells: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut rows: Vec<&str> = Vec::new();
    for entry in states {
        *cells.entry((&entry.state, &entry.proto)).or_default() += entry.entries;
        if entry.entries > 0 && !rows.contains(&entry.state.as_str()) {
            rows.push(&entry.state);
        }
    }
    let place = |state: &str| {
        let tcp = TcpState::ALL.iter().position(|s| s.name(false) == state || s.name(true) == state);
        let sctp = SctpState::ALL.iter().position(|s| s.name() == state);
        tcp.or(sctp.map(|place| TcpState::ALL.len() + place)).unwrap_or(usize::MAX)
    };
    rows.sort_by_key(|state| place(state));
    let mut text = line("state", PROTOS.iter().map(|(_, head)| (*head).to_owned()), "total".to_owned());
    let mut sums = [0; PROTOS.len()];
    for state in rows {
        let row = PROTOS.map(|(proto, _)| cells.get(&(state, proto)).copied().unwrap_or_default());
        for (sum, cell) in sums.iter_mut().zip(row) {
            *sum += cell;
        }
        // Protocols without states have one row together.
        let name = if state.is_empty() { "-" } else { state };
        text += &line(name, row.iter().map(u64::to_string), row.iter().sum::<u64>().to_string());
    }
    text + &line("total", sums.iter().map(u64::to_string), sums.iter().sum::<u64>().to_string())
}

fn line(name: &str, cells: impl Iterator<Item = String>, total: String) -> String {
    let cells: String = cells.map(|cell| format!("{cell:>10}")).collect();
    format!("{name:<18}{cells}{total:>10}\n")
}

/// How soon to ask again for numbers that are not there yet, and how often.
const AGAIN: (Duration, u32) = (Duration::from_millis(50), 40);

/// Numbers that are younger than `before`, and by how many milliseconds. Between two looks at the workers the appliance
/// tells the same ones again, for a quarter of a second.
fn later(client: &Client, before: &Stats) -> Result<(Stats, u64), Failure> {
    let (rest, times) = AGAIN;
    for _ in 0..times {
        let after: Stats = client.get("/v1/stats")?;
        match after.observed_boot_ms.saturating_sub(before.observed_boot_ms) {
            0 => std::thread::sleep(rest),
            millis => return Ok((after, millis)),
        }
    }
    let said = "the appliance tells the same numbers again and again: are this program and the appliance of the same version?";
    Err(Failure::Failed(said.to_owned()))
}

/// What each worker does, over `span` or a little longer: as long as the numbers lie apart.
pub(super) fn workers(ask: &Ask, span: Duration, form: Form) -> Done {
    let client = Client::new(&ask.socket)?;
    let before: Stats = client.get("/v1/stats")?;
    let mut out = io::stdout().lock();
    if form == Form::Json {
        serde_json::to_writer_pretty(&mut out, &before.workers).map_err(io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    std::thread::sleep(span);
    let (after, millis) = later(&client, &before)?;
    let seconds = millis as f64 / 1e3;
    writeln!(
        out,
        "{:<8}{:>10}{:>8}{:>12}{:>12}{:>12}{:>12}{:>12}{:>10}",
        "worker", "flows", "busy", "rx/s", "rx Mbit/s", "tx/s", "new/s", "dropped/s", "lag"
    )?;
    for (before, after) in before.workers.iter().zip(&after.workers) {
        writeln!(out, "{}", worker_line(before, after, seconds))?;
    }
    Ok(())
}

fn worker_line(before: &WorkerStats, after: &WorkerStats, seconds: f64) -> String {
    let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
    let dropped =
        |stats: &WorkerStats| stats.dropped.values().sum::<u64>() + stats.tx_full + stats.rx_refused;
    let busy = after.busy_seconds - before.busy_seconds;
    let whole = busy + after.idle_seconds - before.idle_seconds;
    let share = if whole > 0.0 { 100.0 * busy / whole } else { 0.0 };
    format!(
        "{:<8}{:>10}{share:>7.1}%{:>12.0}{:>12.1}{:>12.0}{:>12.0}{:>12.0}{:>9.3}s{}",
        after.worker,
        after.entries,
        rate(before.rx_packets, after.rx_packets),
        rate(before.rx_bytes, after.rx_bytes) * 8.0 / 1e6,
        rate(before.tx_packets, after.tx_packets),
        rate(before.inserted, after.inserted),
        rate(dropped(before), dropped(after)),
        after.expiry_lag_seconds,
        if after.responding { "" } else { "  not responding; last known" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(proto: &str, state: &str, entries: u64) -> StateEntries {
        StateEntries { proto: proto.to_owned(), state: state.to_owned(), entries }
    }

    #[test]
    fn the_matrix_adds_up_and_leaves_empty_states_out() {
        let text = matrix(&[
            entry("tcp", "SYN_SENT", 0),
            entry("tcp", "TIME_WAIT", 2),
            entry("tcp", "ESTABLISHED", 3),
            entry("udp", "", 5),
            entry("unknown", "", 1),
            entry("sctp", "ESTABLISHED", 7),
        ]);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows,
            [
                "state tcp udp udplite icmp icmpv6 sctp gre other total",
                "ESTABLISHED 3 0 0 0 0 7 0 0 10",
                "TIME_WAIT 2 0 0 0 0 0 0 0 2",
                "- 0 5 0 0 0 0 0 1 6",
                "total 5 5 0 0 0 7 0 1 18",
            ]
            .map(|row| row.split(' ').collect::<Vec<_>>())
        );
        let widths: Vec<_> = text.lines().map(str::len).collect();
        assert!(widths.iter().all(|&width| width == widths[0]), "{text}");
    }

    #[test]
    fn rates_are_per_second_of_the_span() {
        let before =
            WorkerStats { rx_packets: 100, busy_seconds: 1.0, idle_seconds: 5.0, ..Default::default() };
        let mut after =
            WorkerStats { rx_packets: 300, busy_seconds: 1.5, idle_seconds: 6.5, ..Default::default() };
        after.dropped = [("policy_new".to_owned(), 8)].into();
        after.tx_full = 2;
        let line = worker_line(&before, &after, 2.0);
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[..8], ["0", "0", "25.0%", "100", "0.0", "0", "0", "5"], "{line}");
        assert!(line.ends_with("not responding; last known"), "{line}");
    }
}
