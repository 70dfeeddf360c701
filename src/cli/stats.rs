//! `stats` and `count`: what the appliance counted.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::ValueEnum;

use super::client::Client;
use super::{Ask, Done};
use crate::control::schema::{Counted, ExportStats, PoolStats, PortStats, Stats, WorkerStats};
use crate::filter::Filter;

/// How counters are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    Text,
    Json,
}

pub(super) fn count(ask: &Ask, filter: &Filter) -> Done {
    let client = Client::new(&ask.socket)?;
    let flows = if filter.is_empty() {
        client.get::<Stats>("/v1/stats")?.entries
    } else {
        client.get::<Counted>(&format!("/v1/count{}", filter.query()))?.flows
    };
    Ok(writeln!(io::stdout(), "{flows}")?)
}

pub(super) fn stats(ask: &Ask, form: Form) -> Done {
    let stats: Stats = Client::new(&ask.socket)?.get("/v1/stats")?;
    let mut out = io::stdout().lock();
    if form == Form::Json {
        serde_json::to_writer_pretty(&mut out, &stats).map_err(io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    Ok(print(&mut out, &stats)?)
}

fn print(out: &mut impl Write, stats: &Stats) -> io::Result<()> {
    let Stats {
        entries,
        entries_limit,
        assured,
        replied,
        states,
        workers,
        ports,
        pools,
        zones,
        exports,
        events_missed,
        observed_boot_ms: _,
    } = stats;
    writeln!(out, "table      entries={entries} limit={entries_limit} replied={replied} assured={assured}")?;
    for row in states.iter().filter(|row| row.entries > 0) {
        let name = [row.proto.as_str(), row.state.as_str()].join(" ");
        writeln!(out, "  {:<24} {}", name.trim_end(), row.entries)?;
    }
    if workers.len() > 1 {
        let sum = |of: fn(&WorkerStats) -> u64| workers.iter().map(of).sum::<u64>();
        let (received, handed) = (sum(|worker| worker.rx_packets), sum(|worker| worker.handed_off));
        let full = sum(|worker| worker.dropped.get("hand_off_full").copied().unwrap_or_default());
        let share = 100.0 * handed as f64 / received.max(1) as f64;
        writeln!(out, "hand-off   off={handed} ({share:.1}% of rx_packets={received}) dropped={full}")?;
    }
    for worker in workers {
        print_worker(out, worker)?;
    }
    for row in zones {
        writeln!(out, "{}", super::limits::line(row))?;
    }
    for PoolStats { name, objects, available } in pools {
        writeln!(out, "pool {name}  objects={objects} available={available}")?;
    }
    for ExportStats { sink, records, lost } in exports {
        writeln!(out, "export {sink}  records={records} lost={lost}")?;
    }
    if *events_missed > 0 {
        writeln!(out, "events     missed_by_readers={events_missed}")?;
    }
    for port in ports {
        let PortStats {
            name,
            up,
            rx_packets,
            rx_bytes,
            rx_missed,
            rx_errors,
            rx_nombuf,
            tx_packets,
            tx_bytes,
            tx_errors,
        } = port;
        let link = match up {
            Some(true) => "up",
            Some(false) => "down",
            None => "unseen",
        };
        writeln!(
            out,
            "port {name}  link={link} rx_packets={rx_packets} rx_bytes={rx_bytes} rx_missed={rx_missed} rx_errors={rx_errors} \
             rx_nombuf={rx_nombuf} tx_packets={tx_packets} tx_bytes={tx_bytes} tx_errors={tx_errors}"
        )?;
    }
    Ok(())
}

fn print_worker(out: &mut impl Write, worker: &WorkerStats) -> io::Result<()> {
    let busy = worker.busy_seconds;
    let load = if busy > 0.0 { 100.0 * busy / (busy + worker.idle_seconds) } else { 0.0 };
    writeln!(
        out,
        "worker {}{}  entries={} rx_packets={} rx_bytes={} tx_packets={} tx_full={} rx_refused={} busy={load:.1}%",
        worker.worker,
        if worker.responding { "" } else { " (not responding; last known)" },
        worker.entries,
        worker.rx_packets,
        worker.rx_bytes,
        worker.tx_packets,
        worker.tx_full,
        worker.rx_refused,
    )?;
    if worker.handed_off + worker.handed_on + worker.sent_through + worker.handed_in > 0 {
        let share = 100.0 * worker.handed_off as f64 / worker.rx_packets.max(1) as f64;
        writeln!(
            out,
            "  hand-off   off={} ({share:.1}% of rx) in={} on={} sent_through={}",
            worker.handed_off, worker.handed_in, worker.handed_on, worker.sent_through,
        )?;
    }
    writeln!(
        out,
        "  flows      found={} missed={} insert={} full_untracked={} ignored={} icmp_error={} expiry_lag={:.3}s events_lost={}",
        worker.found,
        worker.missed,
        worker.inserted,
        worker.full_untracked,
        worker.ignored,
        worker.icmp_error,
        worker.expiry_lag_seconds,
        worker.events_lost,
    )?;
    named(out, "packets", &worker.packets, true)?;
    named(out, "untracked", &worker.untracked, false)?;
    named(out, "invalid", &worker.invalid, false)?;
    named(out, "malformed", &worker.malformed, false)?;
    named(out, "dropped", &worker.dropped, false)?;
    named(out, "ended", &worker.destroyed, true)?;
    let given_up = worker.datagrams_timed_out + worker.datagrams_evicted + worker.held_full;
    if worker.fragments_held + worker.fragments_again + worker.held_frames + given_up > 0 {
        writeln!(
            out,
            "  fragments  held={} again={} completed={} timed_out={} evicted={} held_now={} held_full={}",
            worker.fragments_held,
            worker.fragments_again,
            worker.datagrams_completed,
            worker.datagrams_timed_out,
            worker.datagrams_evicted,
            worker.held_frames,
            worker.held_full,
        )?;
    }
    Ok(())
}

/// One line of names and numbers; those that are zero are left out unless `all`.
fn named(out: &mut impl Write, what: &str, numbers: &BTreeMap<String, u64>, all: bool) -> io::Result<()> {
    let shown: Vec<String> = numbers
        .iter()
        .filter(|(_, number)| all || **number > 0)
        .map(|(name, number)| format!("{name}={number}"))
        .collect();
    if shown.is_empty() { Ok(()) } else { writeln!(out, "  {what:<10} {}", shown.join(" ")) }
}
