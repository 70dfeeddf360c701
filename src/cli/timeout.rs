//! `timeout list` and `timeout set`.

use std::io::{self, Write};

use clap::Subcommand;
use conntrack::tick::{PER_SECOND, Ticks};
use hyper::Method;

use super::client::Client;
use super::{Ask, Done, Failure};
use crate::config::duration::print_timeout;
use crate::config::names::parse_setting;
use crate::control::schema::{SetTimeout, TimeoutRow};

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
}

/// What the appliance says in seconds, as a span. Nothing is longer than [`Ticks::MAX`].
fn ticks(seconds: f64) -> Ticks {
    Ticks((seconds * f64::from(PER_SECOND)).round() as u32)
}

/// Said of a timeout that no flow can be on.
const UNUSED: &str = " (not used: see `profile` and `[tcp]` in the configuration)";

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
