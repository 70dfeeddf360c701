//! `timeout list`, `timeout set` and `timeout load`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use conntrack::tick::{PER_SECOND, Ticks};
use hyper::Method;

use super::client::Client;
use super::{Ask, Done, Failure, Voice};
use crate::config::diff::Difference;
use crate::config::duration::print_timeout;
use crate::config::names::parse_setting;
use crate::config::sysctl::{self, Setting, Skipped};
use crate::control::schema::{SetSysctls, SetTimeout, TimeoutRow};

#[derive(Debug, Subcommand)]
pub(super) enum Timeout {
    /// Print every timeout as it is now
    List {
        #[command(flatten)]
        ask: Ask,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change a timeout now, also for flows in the table: a lower value cuts what they have left, a higher one acts
    /// from each flow's next packet
    Set {
        #[command(flatten)]
        ask: Ask,
        /// tcp.established, nf_conntrack_tcp_timeout_established, or ip_ct_tcp_timeout_established
        name: String,
        /// 5d, 12h, 90s, or a plain number: seconds, with ip_ct_* names hundredths of a second
        value: String,
    },
    /// Change what a file of the kernel's settings says, all of it or nothing: lines of `sysctl -a` with
    /// net.netfilter.nf_conntrack_* in seconds, net.ipv4.netfilter.ip_ct_* in hundredths of a second, and the switches
    Load {
        #[command(flatten)]
        ask: Ask,
        /// The file; - reads standard input
        file: PathBuf,
    },
}

/// What the appliance says in seconds, as a span. Nothing is longer than [`Ticks::MAX`].
fn ticks(seconds: f64) -> Ticks {
    Ticks((seconds * f64::from(PER_SECOND)).round() as u32)
}

/// Said of a timeout that no flow can be on.
const UNUSED: &str = " (not used: see `profile` and `[tcp]` in the configuration)";

/// No file of settings is longer.
const FILE_BYTES: u64 = 1 << 20;

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        io::stdin().lock().take(FILE_BYTES).read_to_string(&mut text)
    } else {
        File::open(file).and_then(|file| file.take(FILE_BYTES).read_to_string(&mut text))
    };
    let name = file.display();
    read.map_err(|error| Failure::Usage(format!("{name} cannot be read ({error}): check the path")))?;
    Ok(text)
}

fn load(ask: &Ask, file: &Path) -> Done {
    let name = file.display();
    let sysctls = sysctl::parse(&read(file)?)
        .map_err(|error| Failure::Usage(format!("{name}: {error}; nothing was changed")))?;
    for Skipped { line, name: setting, why } in &sysctls.skipped {
        writeln!(io::stderr(), "dpdk-conntrack: {name}: line {line}: {setting} is passed over: {why}")?;
    }
    let mut settings: Vec<SetTimeout> = Vec::new();
    for Setting { name, value, .. } in sysctls.settings {
        // As with the kernel, the last line counts.
        settings.retain(|earlier| earlier.name != name);
        settings.push(SetTimeout { name, value });
    }
    let lines = settings.len();
    let body = SetSysctls { settings };
    let changed: Vec<Difference> = Client::new(&ask.socket)?.send(Method::PUT, "/v1/sysctls", &body)?;
    let mut out = io::stdout().lock();
    let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".to_owned());
    for difference in &changed {
        writeln!(out, "{}: {} -> {}", difference.key, word(&difference.here), word(&difference.there))?;
    }
    Voice::Own.say(&format!("{lines} settings read, {} changed.", changed.len()))
}

impl Timeout {
    pub(super) fn run(self) -> Done {
        let mut out = io::stdout().lock();
        match self {
            Self::List { ask, json } => {
                let rows: Vec<TimeoutRow> = Client::new(&ask.socket)?.get("/v1/timeouts")?;
                if json {
                    serde_json::to_writer_pretty(&mut out, &rows).map_err(io::Error::from)?;
                    return Ok(writeln!(out)?);
                }
                for row in rows {
                    writeln!(
                        out,
                        "{:<24} {:>8}  {:<8} {}{}",
                        row.name,
                        row.seconds,
                        print_timeout(ticks(row.seconds)),
                        row.explain,
                        if row.used { "" } else { UNUSED }
                    )?;
                }
                Ok(())
            }
            Self::Load { ask, file } => {
                drop(out);
                load(&ask, &file)
            }
            Self::Set { ask, name, value } => {
                // Refused here as the appliance would, so that a typing error is told even while nothing runs.
                parse_setting(&name, &value).map_err(|error| Failure::Usage(error.to_string()))?;
                let row: TimeoutRow = Client::new(&ask.socket)?.send(
                    Method::PUT,
                    "/v1/timeouts",
                    &SetTimeout { name, value },
                )?;
                let unused = if row.used { "" } else { UNUSED };
                Ok(writeln!(out, "{} = {} s{unused}", row.name, row.seconds)?)
            }
        }
    }
}
