//! `timeout list`, `timeout set`, `timeout what-if` and `timeout load`.

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
use crate::control::schema::{SetSysctls, SetTimeout, TimeoutRow, WhatIf};

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
    /// Say what timeouts would do if they were set: how many flows would go now, how many would have gone that spoke again
    /// later. Nothing is changed
    WhatIf {
        #[command(flatten)]
        ask: Ask,
        /// tcp.close_wait=60s, or any other name and value that `timeout set` takes; several are set together
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = pair)]
        settings: Vec<(String, String)>,
        /// Print JSON
        #[arg(long)]
        json: bool,
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
        io::stdin().lock().take(FILE_BYTES + 1).read_to_string(&mut text)
    } else {
        File::open(file).and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut text))
    };
    let name = file.display();
    read.map_err(|error| Failure::Usage(format!("{name} cannot be read ({error}): check the path")))?;
    if text.len() as u64 > FILE_BYTES {
        return Err(Failure::Usage(format!(
            "{name} has more than {FILE_BYTES} bytes: give the settings alone"
        )));
    }
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
    let is_end_of_counts =
        |change: &Difference| change.key == "tracking.accounting" && change.there.as_deref() == Some("false");
    if changed.iter().any(is_end_of_counts) {
        // The kernel's default: whoever brings a kernel's settings has mostly not chosen it.
        writeln!(
            io::stderr(),
            "dpdk-conntrack: {name}: nf_conntrack_acct is 0 there: packets and bytes are no longer counted, in lists and \
             in flow records; load nf_conntrack_acct = 1 to have them counted again"
        )?;
    }
    Voice::Own.say(&format!("{lines} settings read, {} changed.", changed.len()))
}

/// NAME=VALUE.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// What other timeouts would do, for people.
pub(super) fn print_what_if(out: &mut impl Write, answer: &WhatIf) -> io::Result<()> {
    let between = |least: u64, most: u64| {
        if least == most { least.to_string() } else { format!("{least} to {most}") }
    };
    for row in &answer.rows {
        let spans = if row.seconds == row.seconds_then {
            print_timeout(ticks(row.seconds))
        } else {
            format!("{} -> {}", print_timeout(ticks(row.seconds)), print_timeout(ticks(row.seconds_then)))
        };
        let cut = between(row.cut_at_least, row.cut_at_most);
        writeln!(
            out,
            "{:<24} {spans:<16} {:>9} flows  {:>9} would go  {cut:>9} cut",
            row.name, row.flows, row.would_go
        )?;
    }
    writeln!(
        out,
        "now: {} of {} flows would go, {} entries are left",
        answer.would_go, answer.entries, answer.entries_then
    )?;
    let cut = between(answer.cut_at_least, answer.cut_at_most);
    let recorded =
        print_timeout(Ticks::from_secs(answer.recorded_secs.min(f64::from(Ticks::MAX.as_secs())) as u32));
    writeln!(
        out,
        "so far: {cut} flows would have been cut that spoke again later (recorded for {recorded})"
    )?;
    answer.notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))
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
            Self::WhatIf { ask, settings, json } => {
                let mut set = Vec::new();
                for (name, value) in &settings {
                    let (key, span) =
                        parse_setting(name, value).map_err(|error| Failure::Usage(error.to_string()))?;
                    // Our own spelling has nothing that a query would have to escape.
                    set.push(format!("{}={}", key.name(), print_timeout(span)));
                }
                let answer: WhatIf =
                    Client::new(&ask.socket)?.get(&format!("/v1/timeouts/what-if?set={}", set.join(",")))?;
                if json {
                    serde_json::to_writer_pretty(&mut out, &answer).map_err(io::Error::from)?;
                    return Ok(writeln!(out)?);
                }
                Ok(print_what_if(&mut out, &answer)?)
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
