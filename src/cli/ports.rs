//! `ports`: each port with its link and counters, in the words of testpmd's `show port stats`.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use hyper::Method;

use super::client::Client;
use super::stats::Form;
use super::{Ask, Done, Failure};
use crate::control::schema::{PortRow, SetPort};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct PortsWords {
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    ask: Ask,
    /// The driver's own counters too
    #[arg(long)]
    xstats: bool,
    /// text or json
    #[arg(short, long, value_name = "WORD", default_value = "text")]
    output: Form,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Stop a port: its link goes down where the device can do that, nothing comes in by it, and what would leave by
    /// it is dropped. The table stays as it is
    Stop {
        #[command(flatten)]
        ask: Ask,
        name: String,
    },
    /// Start a stopped port
    Start {
        #[command(flatten)]
        ask: Ask,
        name: String,
    },
}

impl PortsWords {
    pub(super) fn run(self) -> Done {
        let (ask, asked) = match self.change {
            None => return show(&self.ask, self.xstats, self.output),
            Some(Change::Stop { ask, name }) => (ask, SetPort { name, running: false }),
            Some(Change::Start { ask, name }) => (ask, SetPort { name, running: true }),
        };
        let row: PortRow = Client::new(&ask.socket)?.send(Method::PUT, "/v1/ports", &asked)?;
        Ok(writeln!(
            io::stdout(),
            "port {} is {}",
            row.info.name,
            if row.running { "running" } else { "stopped" }
        )?)
    }
}

fn show(ask: &Ask, xstats: bool, form: Form) -> Done {
    let path = if xstats { "/v1/ports?xstats=true" } else { "/v1/ports" };
    let rows: Vec<PortRow> = Client::new(&ask.socket)?.get(path)?;
    let mut out = io::stdout().lock();
    if form == Form::Json {
        serde_json::to_writer_pretty(&mut out, &rows).map_err(|error| Failure::Output(error.into()))?;
        return Ok(writeln!(out)?);
    }
    rows.iter().try_for_each(|row| print(&mut out, row))?;
    Ok(())
}

fn print(out: &mut impl Write, row: &PortRow) -> io::Result<()> {
    let PortRow { info, running, mbps, full_duplex, mac, mtu, promiscuous, stats, xstats } = row;
    let peer = info.peer.as_ref().map_or_else(String::new, |peer| format!(" -> {peer}"));
    writeln!(out, "port {}{peer}  {} ({}), {}", info.name, info.device, info.driver, info.role)?;
    let link = match (running, stats.up) {
        (false, _) => "stopped",
        (true, Some(true)) => "up",
        (true, Some(false)) => "down",
        (true, None) => "unseen",
    };
    let speed = mbps.map_or_else(String::new, |mbps| {
        format!(" {mbps} Mb/s {}-duplex", if *full_duplex { "full" } else { "half" })
    });
    let promiscuous = if *promiscuous { "on" } else { "off" };
    writeln!(out, "  link {link}{speed}, mac {mac}, mtu {mtu}, promiscuous {promiscuous}")?;
    // Three to a line and each in its column, as testpmd has them.
    for columns in [
        [("RX-packets", stats.rx_packets), ("RX-missed", stats.rx_missed), ("RX-bytes", stats.rx_bytes)],
        [("RX-errors", stats.rx_errors), ("RX-nombuf", stats.rx_nombuf), ("", 0)],
        [("TX-packets", stats.tx_packets), ("TX-errors", stats.tx_errors), ("TX-bytes", stats.tx_bytes)],
    ] {
        let cells: Vec<String> = columns
            .iter()
            .filter(|(word, _)| !word.is_empty())
            .map(|(word, number)| format!("{:<11} {number:<20}", format!("{word}:")))
            .collect();
        writeln!(out, "  {}", cells.join(" ").trim_end())?;
    }
    for (name, number) in xstats {
        writeln!(out, "  {name}: {number}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::schema::{PortInfo, PortStats};

    #[test]
    fn counters_have_testpmds_words() {
        let info = PortInfo {
            name: "lan".into(),
            device: "0000:03:00.0".into(),
            driver: "net_ixgbe".into(),
            role: "inside".into(),
            peer: Some("wan".into()),
        };
        let stats = PortStats { up: Some(true), rx_packets: 12, tx_bytes: 900, ..PortStats::default() };
        let row = PortRow {
            info,
            running: true,
            mbps: Some(10_000),
            full_duplex: true,
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            promiscuous: true,
            stats,
            xstats: [("rx_crc_errors".to_owned(), 3)].into(),
        };
        let mut out = Vec::new();
        print(&mut out, &row).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "port lan -> wan  0000:03:00.0 (net_ixgbe), inside\n  \
             link up 10000 Mb/s full-duplex, mac 02:00:00:00:00:01, mtu 1500, promiscuous on\n  \
             RX-packets: 12                   RX-missed:  0                    RX-bytes:   0\n  \
             RX-errors:  0                    RX-nombuf:  0\n  \
             TX-packets: 0                    TX-errors:  0                    TX-bytes:   900\n  \
             rx_crc_errors: 3\n"
        );
    }
}
