//! What the operator reads at the start: what was found, what was chosen, where to ask. Goes to standard error, where
//! the log goes too.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use super::Cores;
use crate::config::print::{mode_word, profile_word, role_word};
use crate::config::{Config, Idle, Rss, Workers};
use crate::driver::dpdk::OpenPort;
use crate::memory::Pages;
use crate::preflight::Finding;

/// What was chosen and what will be taken, before the tables are taken: large ones take a while.
pub(super) fn print(
    config: &Config,
    cores: &Cores,
    findings: &[Finding],
    ports: &[OpenPort],
    table_bytes: usize,
    http: Option<SocketAddr>,
) {
    say(&text(config, cores, findings, ports, table_bytes, http));
}

/// What the tables lie on, now that they are there.
pub(super) fn pages(pages: Pages) {
    say(match pages {
        Pages::Huge => "  memory   the table lies on hugepages\n",
        Pages::Plain => "  memory   the table lies on ordinary pages\n",
    });
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
    table_bytes: usize,
    http: Option<SocketAddr>,
) -> String {
    let mut out = String::new();
    let linking = if dpdk::eal::is_static() { "static" } else { "shared" };
    let list = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let control = list(&cores.control);
    let auto = match config.workers {
        Workers::Auto => "; auto: as many as have a core and a queue",
        Workers::Count(_) => "",
    };
    let idle = match config.worker.idle {
        Idle::Poll => "polls",
        Idle::Sleep => "rests when idle",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "dpdk-conntrack {}, {} ({linking}), {} {} ({idle}{auto}), control on {control}",
        env!("CARGO_PKG_VERSION"),
        dpdk::eal::version(),
        if cores.workers.len() == 1 {
            "1 worker on core".to_owned()
        } else {
            format!("{} workers on cores", cores.workers.len())
        },
        list(&cores.workers),
    );
    if cores.crowded {
        let _ = writeln!(
            out,
            "  warn     a worker polls on the core that control needs: set `worker.idle = \"sleep\"`, lower `workers`, or give more cores"
        );
    }
    if config.rss == Rss::SymmetricToeplitzWeak {
        let _ = writeln!(
            out,
            "  warn     rss is symmetric-toeplitz-weak: whoever chooses addresses and ports can send all packets to one \
             queue, whatever the key; rss = \"random\" does not allow that"
        );
    }
    for Finding { what, status, sentence } in findings {
        let _ = writeln!(out, "  {status:<8} {what}: {sentence}");
    }
    let entries = config.table.max_entries;
    let _ = writeln!(out, "  table    {entries} entries take {} MiB", table_bytes.div_ceil(1 << 20));
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
            "  port     {} {way}  {} ({}), {}, {}, link {}{speed}",
            port.name,
            port.device.argument(),
            open.info().driver,
            role_word(port.role),
            queues(open.rx_queues(), cores.workers.len()),
            if link.up { "up" } else { "down" },
        );
    }
    let tcp = http.map_or_else(String::new, |addr| format!("   http://{addr}/  (metrics at /metrics)"));
    let _ = writeln!(out, "  control  {}{tcp}", config.control.socket.display());
    out
}

/// How a port's frames reach the workers.
fn queues(queues: u16, workers: usize) -> String {
    match (queues, workers) {
        (1, 1) => "1 queue".to_owned(),
        (1, _) => "1 queue: frames of other workers' flows are handed to them".to_owned(),
        (queues, workers) if usize::from(queues) == workers => {
            format!("{queues} queues, one for each worker")
        }
        (queues, workers) => format!("{queues} queues for {workers} workers"),
    }
}
