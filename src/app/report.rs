//! What the operator reads at the start: what was found, what was chosen, where to ask. Goes to standard error, where
//! the log goes too.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use conntrack::table::entry::Entry;

use super::Cores;
use crate::config::print::{mode_word, profile_word, role_word};
use crate::config::{Config, Idle};
use crate::driver::dpdk::OpenPort;
use crate::memory::Pages;
use crate::preflight::Finding;

/// Everything up to the workers' start.
pub(super) fn print(
    config: &Config,
    cores: &Cores,
    findings: &[Finding],
    ports: &[OpenPort],
    pages: Pages,
    http: Option<SocketAddr>,
) {
    say(&text(config, cores, findings, ports, pages, http));
}

/// The last line: packets flow.
pub(super) fn ready(begun: Instant) {
    say(&format!("ready in {:.2} s.  try: dpdk-conntrack list\n", begun.elapsed().as_secs_f64()));
}

fn say(text: &str) {
    // A terminal that has gone away is no reason not to forward packets.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn text(
    config: &Config,
    cores: &Cores,
    findings: &[Finding],
    ports: &[OpenPort],
    pages: Pages,
    http: Option<SocketAddr>,
) -> String {
    let mut out = String::new();
    let linking = if dpdk::eal::is_static() { "static" } else { "shared" };
    let control = cores.control.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let idle = match config.worker.idle {
        Idle::Poll => "polls",
        Idle::Sleep => "rests when idle",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "dpdk-conntrack {}, {} ({linking}), 1 worker on core {} ({idle}), control on {control}",
        env!("CARGO_PKG_VERSION"),
        dpdk::eal::version(),
        cores.worker,
    );
    if cores.crowded {
        let _ = writeln!(
            out,
            "  warn     the worker polls on the core that control needs: set `worker.idle = \"sleep\"`, or give more cores"
        );
    }
    for Finding { what, status, sentence } in findings {
        let _ = writeln!(out, "  {status:<8} {what}: {sentence}");
    }
    let entries = config.table.max_entries;
    let mib = (u64::from(entries) * size_of::<Entry>() as u64) >> 20;
    let on = match pages {
        Pages::Huge => "hugepages",
        Pages::Plain => "ordinary pages",
    };
    let _ = writeln!(out, "  table    {entries} entries x {} B = {mib} MiB on {on}", size_of::<Entry>());
    let _ = writeln!(
        out,
        "  tracking profile {}, mode {}",
        profile_word(config.settings.profile),
        mode_word(config.mode)
    );
    for (port, open) in config.ports.iter().zip(ports) {
        let link = open.link();
        let peer = port.peer.and_then(|peer| config.ports.get(peer));
        let way = peer.map_or_else(|| "listens only".to_owned(), |peer| format!("-> {}", peer.name));
        let speed = link.mbps.map_or_else(String::new, |mbps| format!(" {mbps} Mb/s"));
        let _ = writeln!(
            out,
            "  port     {} {way}  {} ({}), {}, link {}{speed}",
            port.name,
            port.device.argument(),
            open.info().driver,
            role_word(port.role),
            if link.up { "up" } else { "down" },
        );
    }
    let metrics = http.map_or_else(String::new, |addr| format!("   metrics http://{addr}/metrics"));
    let _ = writeln!(out, "  control  {}{metrics}", config.control.socket.display());
    out
}
