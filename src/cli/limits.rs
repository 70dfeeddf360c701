//! `limits`: how many flows each zone holds and may hold, in the words of `ovs-appctl dpctl/ct-get-limits`.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use hyper::Method;

use super::client::Client;
use super::stats::Form;
use super::{Ask, Done, Failure};
use crate::control::schema::{Limits, SetLimit, ZoneRow};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct LimitsWords {
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    ask: Ask,
    /// text or json
    #[arg(short, long, value_name = "WORD", default_value = "text")]
    output: Form,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Limit zones: zone=5,limit=1000, or default=1000 for all that have no limit of their own; 0 is no limit. Flows
    /// that are there stay; new ones are dropped while there are as many
    Set {
        #[command(flatten)]
        ask: Ask,
        #[arg(required = true, value_name = "zone=N,limit=L", value_parser = set)]
        limits: Vec<SetLimit>,
    },
    /// Have zones follow the default again: zone=5
    Delete {
        #[command(flatten)]
        ask: Ask,
        #[arg(required = true, value_name = "zone=N", value_parser = delete)]
        zones: Vec<SetLimit>,
    },
}

/// `default=L` or `zone=N,limit=L`.
fn set(text: &str) -> Result<SetLimit, String> {
    let limit = |digits: &str| digits.parse::<u32>().ok().filter(|limit| *limit < u32::MAX);
    let asked = match text.split_once(',') {
        None => text
            .strip_prefix("default=")
            .and_then(limit)
            .map(|limit| SetLimit { zone: None, limit: Some(limit) }),
        Some((zone, rest)) => zone
            .strip_prefix("zone=")
            .and_then(|digits| digits.parse().ok())
            .zip(rest.strip_prefix("limit=").and_then(limit))
            .map(|(zone, limit)| SetLimit { zone: Some(zone), limit: Some(limit) }),
    };
    asked.ok_or_else(|| "write it as zone=5,limit=1000, or default=1000".to_owned())
}

/// `zone=N`.
fn delete(text: &str) -> Result<SetLimit, String> {
    let zone = text.strip_prefix("zone=").and_then(|digits| digits.parse().ok());
    zone.map(|zone| SetLimit { zone: Some(zone), limit: None }).ok_or_else(|| "write it as zone=5".to_owned())
}

/// A zone as Open vSwitch prints it, and behind that what it refused and where it comes from.
pub(super) fn line(row: &ZoneRow) -> String {
    let ZoneRow { zone, limit, count, refused, vlan, tunnel, within, own_limit: _ } = row;
    let mut line = format!("zone={zone},limit={limit},count={count} refused={refused}");
    for (word, value) in [("vlan", vlan), ("tunnel", tunnel)] {
        if let Some(value) = value {
            line += &format!(" {word}={value}");
        }
    }
    if let Some(zone) = within {
        line += &format!(" within={zone}");
    }
    line
}

impl LimitsWords {
    pub(super) fn run(self) -> Done {
        let (ask, changes) = match self.change {
            None => return show(&self.ask, self.output),
            Some(Change::Set { ask, limits }) => (ask, limits),
            Some(Change::Delete { ask, zones }) => (ask, zones),
        };
        let client = Client::new(&ask.socket)?;
        let mut out = io::stdout().lock();
        for change in changes {
            let now: Limits = client.send(Method::PUT, "/v1/limits", &change)?;
            match change.zone {
                None => writeln!(out, "default limit={}", now.default_limit)?,
                Some(_) => now.zones.iter().try_for_each(|row| writeln!(out, "{}", line(row)))?,
            }
        }
        Ok(())
    }
}

fn show(ask: &Ask, form: Form) -> Done {
    let limits: Limits = Client::new(&ask.socket)?.get("/v1/limits")?;
    let mut out = io::stdout().lock();
    if form == Form::Json {
        serde_json::to_writer_pretty(&mut out, &limits).map_err(|error| Failure::Output(error.into()))?;
        return Ok(writeln!(out)?);
    }
    writeln!(out, "default limit={}", limits.default_limit)?;
    limits.zones.iter().try_for_each(|row| writeln!(out, "{}", line(row)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_open_vswitch_writes_them() {
        let limit = |zone, limit| SetLimit { zone, limit: Some(limit) };
        assert_eq!(set("zone=5,limit=1000"), Ok(limit(Some(5), 1000)));
        assert_eq!(set("default=0"), Ok(limit(None, 0)));
        assert_eq!(delete("zone=65535"), Ok(SetLimit { zone: Some(65535), limit: None }));
        for text in
            ["", "zone=5", "zone=70000,limit=1", "zone=5,limit=-1", "limit=1,zone=5", "default=4294967295"]
        {
            assert!(set(text).is_err(), "{text}");
        }
        assert!(delete("5").is_err());
    }

    #[test]
    fn a_line_begins_with_the_three_columns() {
        let row =
            ZoneRow { zone: 1, limit: 3, count: 3, refused: 2, vlan: Some("1".into()), ..ZoneRow::default() };
        assert_eq!(line(&row), "zone=1,limit=3,count=3 refused=2 vlan=1");
        let row =
            ZoneRow { zone: 5000, tunnel: Some("vxlan.7".into()), within: Some(2), ..ZoneRow::default() };
        assert_eq!(line(&row), "zone=5000,limit=0,count=0 refused=0 tunnel=vxlan.7 within=2");
    }
}
