//! `[export]`: where records of ended flows go.

use std::net::SocketAddr;
use std::path::PathBuf;

use conntrack::tick::Ticks;
use serde::Deserialize;
use toml::Spanned;

use super::check::{Checked, problem};
use super::duration::{Plain, parse_timeout, print_timeout};
use super::file::Leaf;
use super::print::quoted;

/// Flow records for other programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Default 0, as in other programs, so that their IDs are the same.
    pub community_id_seed: u16,
    /// The file of JSON lines. `None` is off, the default.
    pub eve: Option<PathBuf>,
    /// The collector. `None` is off, the default.
    pub ipfix: Option<Ipfix>,
}

impl Export {
    /// Whether nobody is told of flows that ended.
    pub const fn is_off(&self) -> bool {
        self.eve.is_none() && self.ipfix.is_none()
    }
}

/// Records over the network. RFC 7011
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipfix {
    pub collector: SocketAddr,
    /// Tells appliances apart at the collector. Default 1: 0 means none in particular (RFC 7011 section 3.1).
    pub domain: u32,
    /// How often templates are sent again. Default one minute: a collector that was restarted soon reads records again.
    pub templates_every: Ticks,
    /// Bytes of an IP packet at most. Default 1500.
    pub mtu: u16,
}

impl Ipfix {
    const DOMAIN: u32 = 1;
    const TEMPLATES_EVERY: Ticks = Ticks::from_secs(60);
    const MTU: u16 = 1500;
    /// What every IPv4 host takes, less than which no path has (RFC 791); every template fits.
    const MTU_MIN: u16 = 576;
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportFile {
    community_id_seed: Option<Spanned<i64>>,
    #[serde(default)]
    eve: EveFile,
    #[serde(default)]
    ipfix: IpfixFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EveFile {
    path: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct IpfixFile {
    collector: Option<Spanned<String>>,
    observation_domain: Option<Spanned<i64>>,
    templates_every: Option<Spanned<Leaf>>,
    mtu: Option<Spanned<i64>>,
}

impl ExportFile {
    pub(super) fn is_given(&self) -> bool {
        let Self { community_id_seed, eve, ipfix } = self;
        let IpfixFile { collector, observation_domain, templates_every, mtu } = ipfix;
        community_id_seed.is_some()
            || eve.path.is_some()
            || collector.is_some()
            || observation_domain.is_some()
            || templates_every.is_some()
            || mtu.is_some()
    }
}

pub(super) fn check(file: &ExportFile) -> Checked<Export> {
    let seed = match &file.community_id_seed {
        None => 0,
        Some(value) => match u16::try_from(*value.get_ref()) {
            Ok(seed) => seed,
            Err(_) => {
                return problem(
                    value,
                    "export.community_id_seed is a number from 0 to 65535: give the one that your other programs have, mostly 0",
                );
            }
        },
    };
    Ok(Export { community_id_seed: seed, eve: path(&file.eve)?, ipfix: ipfix(&file.ipfix)? })
}

fn path(file: &EveFile) -> Checked<Option<PathBuf>> {
    let Some(value) = &file.path else { return Ok(None) };
    let path = PathBuf::from(value.get_ref());
    if !path.is_absolute() || value.get_ref().ends_with('/') {
        return problem(
            value,
            "this is no file's whole path: write it like \"/var/log/dpdk-conntrack/eve.json\"",
        );
    }
    Ok(Some(path))
}

fn ipfix(file: &IpfixFile) -> Checked<Option<Ipfix>> {
    let IpfixFile { collector, observation_domain, templates_every, mtu } = file;
    let Some(collector) = collector else {
        let idle = [
            observation_domain.as_ref().map(Spanned::span),
            templates_every.as_ref().map(Spanned::span),
            mtu.as_ref().map(Spanned::span),
        ];
        return match idle.into_iter().flatten().next() {
            None => Ok(None),
            Some(at) => problem(
                &Spanned::new(at, ()),
                "without a collector this does nothing: add collector = \"ADDRESS:PORT\" to [export.ipfix]",
            ),
        };
    };
    let address: SocketAddr = match collector.get_ref().parse() {
        Ok(address) => address,
        Err(_) => {
            return problem(
                collector,
                "a collector is an IP address with a port: write it like \"192.0.2.1:4739\" or \"[2001:db8::1]:4739\"",
            );
        }
    };
    if address.port() == 0 || address.ip().is_unspecified() {
        return problem(
            collector,
            "nobody can be reached at this address: name the collector's own, and the port it listens on",
        );
    }
    Ok(Some(Ipfix {
        collector: address,
        domain: domain(observation_domain.as_ref())?,
        templates_every: span(templates_every.as_ref())?,
        mtu: bytes(mtu.as_ref())?,
    }))
}

fn domain(value: Option<&Spanned<i64>>) -> Checked<u32> {
    let Some(value) = value else { return Ok(Ipfix::DOMAIN) };
    match u32::try_from(*value.get_ref()) {
        Ok(domain @ 1..) => Ok(domain),
        _ => {
            problem(value, "observation_domain is a number from 1 to 4294967295: give each appliance its own")
        }
    }
}

fn span(value: Option<&Spanned<Leaf>>) -> Checked<Ticks> {
    let Some(value) = value else { return Ok(Ipfix::TEMPLATES_EVERY) };
    let text = match value.get_ref() {
        Leaf::Number(number) => number.to_string(),
        Leaf::Text(text) => text.clone(),
        Leaf::Switch(_) | Leaf::Table(_) => String::new(),
    };
    match parse_timeout(&text, Plain::Seconds) {
        Ok(span) if span >= Ticks::from_secs(1) && span <= Ticks::from_secs(86_400) => Ok(span),
        _ => problem(
            value,
            "templates_every is a time from 1s to 24h: give \"60s\", so that a restarted collector soon reads again",
        ),
    }
}

fn bytes(value: Option<&Spanned<i64>>) -> Checked<u16> {
    let Some(value) = value else { return Ok(Ipfix::MTU) };
    match u16::try_from(*value.get_ref()) {
        Ok(bytes) if bytes >= Ipfix::MTU_MIN => Ok(bytes),
        _ => problem(
            value,
            "mtu is a number from 576 to 65535: give that of the smallest link on the way to the collector",
        ),
    }
}

impl Export {
    /// As the file that says all of it. What is off has no keys.
    pub(super) fn print(&self, line: &mut impl FnMut(String)) {
        line("\n[export]".to_owned());
        line(format!("community_id_seed = {}", self.community_id_seed));
        if let Some(path) = &self.eve {
            line("\n[export.eve]".to_owned());
            line(format!("path = {}", quoted(&path.display().to_string())));
        }
        if let Some(Ipfix { collector, domain, templates_every, mtu }) = &self.ipfix {
            line("\n[export.ipfix]".to_owned());
            line(format!("collector = {}", quoted(&collector.to_string())));
            line(format!("observation_domain = {domain}"));
            line(format!("templates_every = {}", quoted(&print_timeout(*templates_every))));
            line(format!("mtu = {mtu}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};

    fn parse(export: &str) -> Result<Config, ConfigError> {
        Config::parse(&format!("mode = \"mirror\"\n[[port]]\nname = \"m\"\ndevice = \"net_tap0\"\n{export}"))
    }

    #[test]
    fn records_go_nowhere_unless_told() {
        assert_eq!(parse("").unwrap().export, super::Export::default());
        assert_eq!(parse("[export.eve]\n[export.ipfix]").unwrap().export, super::Export::default());
    }

    #[test]
    fn all_of_it_is_printed_and_read_back() {
        let config = parse(
            "[export]\ncommunity_id_seed = 7\n[export.eve]\npath = \"/var/log/eve.json\"\n\
             [export.ipfix]\ncollector = \"[2001:db8::1]:4739\"\nobservation_domain = 4294967295\ntemplates_every = 10\nmtu = 9000",
        )
        .unwrap();
        let ipfix = config.export.ipfix.as_ref().unwrap();
        assert_eq!(
            (config.export.community_id_seed, ipfix.domain, ipfix.templates_every.as_secs(), ipfix.mtu),
            (7, u32::MAX, 10, 9000)
        );
        assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_way_out() {
        for (text, words) in [
            ("[exprot]", "did you mean `export`?"),
            ("[export.ipifx]", "did you mean `ipfix`?"),
            ("[export.ipfix]\ncolector = \"192.0.2.1:4739\"", "did you mean `collector`?"),
            ("[export.eve]\nfile = \"x\"", "the keys here are `path`"),
            ("[export]\ncommunity_id_seed = 65536", "from 0 to 65535"),
            ("[export.eve]\npath = \"eve.json\"", "whole path"),
            ("[export.eve]\npath = \"/var/log/\"", "whole path"),
            ("[export.ipfix]\ncollector = \"localhost\"", "192.0.2.1:4739"),
            ("[export.ipfix]\ncollector = \"0.0.0.0:4739\"", "collector's own"),
            ("[export.ipfix]\ncollector = \"192.0.2.1:0\"", "collector's own"),
            ("[export.ipfix]\nmtu = 1400", "add collector"),
            ("[export.ipfix]\ncollector = \"192.0.2.1:4739\"\nmtu = 575", "from 576"),
            ("[export.ipfix]\ncollector = \"192.0.2.1:4739\"\nobservation_domain = 0", "from 1"),
            ("[export.ipfix]\ncollector = \"192.0.2.1:4739\"\ntemplates_every = \"500ms\"", "from 1s"),
            ("[export.ipfix]\ncollector = \"192.0.2.1:4739\"\ntemplates_every = true", "from 1s"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.message().contains(words), "{text}: {refused}");
            assert!(refused.place().is_some(), "{text}: {refused}");
        }
    }
}
