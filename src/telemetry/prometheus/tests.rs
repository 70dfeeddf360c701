use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use conntrack::track::settings::{Profile, Settings};

use super::*;
use crate::control::schema::{PoolStats, PortInfo, PortStats, ZoneRow};
use crate::control::stats::{Observed, stats};

/// Everything that there is a series of, as it is at the start.
fn page(workers: usize) -> String {
    let info = Info {
        version: "0.1.0".into(),
        revision: "unknown".into(),
        dpdk: "DPDK 22.11.11".into(),
        profile: "linux".into(),
        mode: "inline".into(),
        pid: 1,
        boot_unix_ms: 0,
        uptime_secs: 0,
        workers: workers as u32,
        table_max_entries: 100,
        table_on_full: "early_drop".into(),
        last_reload: crate::control::schema::LastReload::default(),
        ports: vec![PortInfo {
            name: "lan".into(),
            device: "net_tap0".into(),
            driver: "net_tap".into(),
            role: "inside".into(),
            peer: None,
        }],
    };
    let ports = vec![PortStats { name: "lan".into(), up: Some(true), ..PortStats::default() }];
    let pools = vec![PoolStats { name: "frames".into(), objects: 8, available: 8 }];
    let zones = vec![ZoneRow { zone: 7, ..ZoneRow::default() }];
    let stats = stats(&vec![Observed::default(); workers], ports, pools, zones, 100, false);
    let timeouts = Settings::new(Profile::Linux).timeouts;
    text(Sources { info: &info, stats: &stats, timeouts: &timeouts, node_compat: true }).unwrap()
}

/// Name, labels, type and help of every family, in the order of the page.
fn families(page: &str) -> Vec<(String, BTreeSet<String>, String, String)> {
    let mut found: Vec<(String, BTreeSet<String>, String, String)> = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            found.push((name.into(), BTreeSet::new(), String::new(), help.into()));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            found.last_mut().unwrap().2 = rest.split_once(' ').unwrap().1.into();
        } else if let Some((_, labels)) = line.split_once('{') {
            let names = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
            let names = names.map(|(name, _)| name.to_owned()).filter(|name| name != "le");
            found.last_mut().unwrap().1.extend(names);
        }
    }
    found
}

#[test]
fn every_number_that_grows_begins_at_zero() {
    let page = page(2);
    let mut counters = 0;
    for line in page.lines().filter(|line| line.starts_with("conntrack_")) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        if name.ends_with("_total") || name.ends_with("_count") || name.ends_with("_bucket") {
            assert_eq!(value, "0", "{line}");
            counters += 1;
        }
    }
    assert!(counters > 150, "{counters} series of counters: {page}");
}

#[test]
fn a_series_has_no_labels_beside_the_bounded_ones() {
    let bounded = BTreeSet::from(
        [
            "ct", "device", "dpdk", "driver", "kind", "outcome", "pool", "port", "profile", "proto",
            "reason", "result", "revision", "sink", "state", "to", "version", "worker", "zone",
        ]
        .map(str::to_owned),
    );
    for (name, labels, ..) in families(&page(1)) {
        assert!(labels.is_subset(&bounded), "{name} {labels:?}");
    }
}

#[test]
fn promtool_has_nothing_to_say_about_our_own_series() {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("scripts/setup brings promtool");
    promtool.stdin.take().unwrap().write_all(page(2).as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(String::from_utf8_lossy(&said.stderr), "");
}

#[test]
fn the_documentation_lists_every_series_as_it_is() {
    let doc = include_str!("../../../docs/metrics.md");
    let documented: Vec<Vec<&str>> = doc
        .lines()
        .filter(|line| {
            ["conntrack", "node", "process"].iter().any(|word| line.starts_with(&format!("| `{word}_")))
        })
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let there: Vec<Vec<String>> = families(&page(1))
        .into_iter()
        .map(|(name, labels, kind, help)| {
            let labels = labels.into_iter().collect::<Vec<_>>().join(",");
            let series =
                if labels.is_empty() { format!("`{name}`") } else { format!("`{name}{{{labels}}}`") };
            vec![series, kind, help]
        })
        .collect();
    let absent = there.iter().filter(|row| !documented.iter().any(|documented| documented[..3] == row[..]));
    let absent: String = absent.map(|row| format!("| {} | unit | source |\n", row.join(" | "))).collect();
    assert_eq!(absent, "", "docs/metrics.md lacks these rows, each with its unit and source");
    assert_eq!(documented.len(), there.len(), "docs/metrics.md has rows of series that are not there");
    for row in documented {
        let [series, _, _, unit, source] = row[..] else { panic!("five cells: {row:?}") };
        for word in ["seconds", "bytes"] {
            let says = series.split('{').next().is_some_and(|name| name.contains(&format!("_{word}")));
            assert_eq!(says, unit == word, "{series} {unit}");
        }
        assert!(!source.is_empty(), "{series}");
    }
}
