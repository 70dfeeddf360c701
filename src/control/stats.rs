//! From the workers' numbers to what the outside reads. Owns no state; every label comes from the tracker's own lists.

use std::collections::BTreeMap;

use conntrack::event::DestroyReason;
use conntrack::policy::{Class, DropReason};
use conntrack::track::reason::Reason;
use conntrack::track::sctp::SctpState;
use conntrack::track::tcp::TcpState;
use conntrack::tracker::{PROTOS, StateCounts};
use conntrack::wire::Untracked;

use super::schema::{PoolStats, PortStats, StateEntries, Stats, WorkerStats, ZoneRow};
use crate::bus::report::Snapshot;

/// A worker's last numbers, and whether they are fresh.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub snapshot: Snapshot,
    pub responding: bool,
}

/// The whole, from its parts.
pub fn stats(
    workers: &[Observed],
    ports: Vec<PortStats>,
    pools: Vec<PoolStats>,
    zones: Vec<ZoneRow>,
    limit: u64,
    classic: bool,
) -> Stats {
    let mut total = StateCounts::default();
    for worker in workers {
        add(&mut total, &worker.snapshot.states);
    }
    let states = states(&total, classic)
        .into_iter()
        .map(|(proto, state, entries)| StateEntries {
            proto: proto.to_owned(),
            state: state.to_owned(),
            entries: u64::from(entries),
        })
        .collect();
    Stats {
        observed_boot_ms: 0,
        entries: workers.iter().map(|worker| u64::from(worker.snapshot.entries)).sum(),
        entries_limit: limit,
        assured: u64::from(total.assured),
        replied: u64::from(total.replied),
        states,
        workers: workers.iter().enumerate().map(|(number, observed)| worker(number, observed)).collect(),
        ports,
        pools,
        zones,
        exports: Vec::new(),
        events_missed: 0,
    }
}

fn add(total: &mut StateCounts, more: &StateCounts) {
    let StateCounts { tcp, udp, udp_lite, icmp, icmpv6, sctp, gre, generic, assured, replied } = more;
    for (sum, part) in total.tcp.iter_mut().zip(tcp).chain(total.sctp.iter_mut().zip(sctp)) {
        *sum += part;
    }
    total.udp += udp;
    total.udp_lite += udp_lite;
    total.icmp += icmp;
    total.icmpv6 += icmpv6;
    total.gre += gre;
    total.generic += generic;
    total.assured += assured;
    total.replied += replied;
}

/// Every (protocol, state) with its number of flows, always the same rows in the same order.
fn states(counts: &StateCounts, classic: bool) -> Vec<(&'static str, &'static str, u32)> {
    let mut rows = Vec::new();
    for (state, entries) in TcpState::ALL.into_iter().zip(counts.tcp) {
        rows.push(("tcp", state.name(classic), entries));
    }
    rows.push(("udp", "", counts.udp));
    rows.push(("udplite", "", counts.udp_lite));
    rows.push(("icmp", "", counts.icmp));
    rows.push(("icmpv6", "", counts.icmpv6));
    for (state, entries) in SctpState::ALL.into_iter().zip(counts.sctp) {
        rows.push(("sctp", state.name(), entries));
    }
    rows.push(("gre", "", counts.gre));
    rows.push(("unknown", "", counts.generic));
    rows
}

fn worker(number: usize, observed: &Observed) -> WorkerStats {
    let snapshot = &observed.snapshot;
    let (tracker, work) = (&snapshot.tracker, &snapshot.work);
    let by_class = |numbers: &[u64; 5]| labelled(Class::ALL.iter().map(|class| class.name()), numbers);
    let by_reason = |numbers: &[u64]| labelled(Reason::ALL.iter().map(|reason| reason.label()), numbers);
    WorkerStats {
        worker: u32::try_from(number).unwrap_or(u32::MAX),
        responding: observed.responding,
        entries: u64::from(snapshot.entries),
        rx_packets: work.rx_packets,
        rx_bytes: work.rx_bytes,
        tx_packets: work.tx_packets,
        handed_off: work.handed_off,
        handed_on: work.handed_on,
        sent_through: work.sent_through,
        handed_in: work.handed_in,
        tx_full: work.tx_full,
        rx_refused: work.rx_refused,
        polls_empty: work.polls_empty,
        polls_packets: work.polls_packets,
        bursts: work.bursts.to_vec(),
        latency: work.latency.packets.to_vec(),
        latency_seconds: work.latency.total_ns as f64 / 1e9,
        busy_seconds: work.busy_ns as f64 / 1e9,
        idle_seconds: work.idle_ns as f64 / 1e9,
        packets: by_class(&tracker.packets),
        untracked: labelled(Untracked::ALL.iter().map(|kind| kind.label()), &tracker.untracked),
        invalid: by_reason(&tracker.invalid),
        malformed: by_reason(&tracker.malformed),
        found: tracker.lookups_hit,
        missed: tracker.lookups_miss,
        inserted: tracker.inserted(),
        inserts: labelled(PROTOS.into_iter(), &tracker.inserted),
        destroyed: labelled(DestroyReason::ALL.iter().map(|reason| reason.label()), &tracker.destroyed),
        dropped: labelled(DropReason::LABELS.into_iter(), &tracker.dropped),
        full_untracked: tracker.full_untracked,
        fragments_held: tracker.fragments_held,
        fragments_again: tracker.fragments_again,
        datagrams_completed: tracker.datagrams_completed,
        datagrams_timed_out: tracker.datagrams_timed_out,
        datagrams_evicted: tracker.datagrams_evicted,
        held_frames: work.held_frames,
        held_full: work.held_full,
        icmp_error: tracker.icmp_error,
        ignored: tracker.ignored,
        expiry_lag_seconds: snapshot.expiry_lag.as_secs_f64(),
        events_lost: snapshot.events_lost,
    }
}

fn labelled<'a>(labels: impl Iterator<Item = &'a str>, numbers: &[u64]) -> BTreeMap<String, u64> {
    labels.map(str::to_owned).zip(numbers.iter().copied()).collect()
}
