//! Every name that a timeout or a switch goes by: our own, today's kernel's, and the 2.4 and 2.6 kernels'.
//! Configuration, command line and control API all ask here.

use conntrack::tick::Ticks;
use conntrack::track::timeout::TimeoutKey;

use super::duration::{self, DurationError, Plain};

/// A timeout that a name stands for, and the unit of a plain number given with that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedTimeout {
    pub key: TimeoutKey,
    pub plain: Plain,
}

/// A kernel switch that is not a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Switch {
    TcpLoose,
    TcpBeLiberal,
    TcpIgnoreInvalidRst,
    TcpMaxRetrans,
    Checksum,
    Acct,
    Max,
}

impl Switch {
    /// Every switch with its name today and in the kernels that had `ip_ct_*`; an empty name means that there was none.
    pub const ALL: [(Switch, &'static str, &'static str); 7] = [
        (Switch::TcpLoose, "nf_conntrack_tcp_loose", "ip_ct_tcp_loose"),
        (Switch::TcpBeLiberal, "nf_conntrack_tcp_be_liberal", "ip_ct_tcp_be_liberal"),
        (Switch::TcpIgnoreInvalidRst, "nf_conntrack_tcp_ignore_invalid_rst", ""),
        (Switch::TcpMaxRetrans, "nf_conntrack_tcp_max_retrans", "ip_ct_tcp_max_retrans"),
        (Switch::Checksum, "nf_conntrack_checksum", "ip_conntrack_checksum"),
        (Switch::Acct, "nf_conntrack_acct", ""),
        (Switch::Max, "nf_conntrack_max", "ip_conntrack_max"),
    ];

    /// The name below `net.netfilter.`.
    pub fn kernel_name(self) -> &'static str {
        Self::ALL.iter().find(|(switch, ..)| *switch == self).map_or("", |(_, name, _)| name)
    }
}

/// Why a name or a value is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("no timeout is called `{0}`: `dpdk-conntrack timeout list` shows the names{hint}", hint = did_you_mean(.1))]
    UnknownTimeout(String, Option<String>),
    #[error("no switch or timeout of the tracker is called `{0}`: remove it{hint}", hint = did_you_mean(.1))]
    UnknownSysctl(String, Option<String>),
    #[error("`{0}` has no counterpart here ({1}): remove it")]
    NoCounterpart(String, &'static str),
    #[error("{0}: {1}")]
    Value(String, DurationError),
}

fn did_you_mean(guess: &Option<String>) -> String {
    guess.as_ref().map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

/// The name without the folders of /proc/sys that it may carry, `.` or `/` between them.
fn bare(name: &str) -> &str {
    let name = name.trim();
    let name = name.strip_prefix("/proc/sys/").unwrap_or(name);
    ["net.netfilter.", "net/netfilter/", "net.ipv4.netfilter.", "net/ipv4/netfilter/", "net.", "net/"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name)
}

/// The timeout called `name`: `tcp.established`, `nf_conntrack_tcp_timeout_established` (seconds) or
/// `ip_ct_tcp_timeout_established` (hundredths of a second), the last two also with their sysctl folders.
pub fn timeout_named(name: &str) -> Result<NamedTimeout, NameError> {
    let wanted = bare(name);
    let seconds = |key| NamedTimeout { key, plain: Plain::Seconds };
    for &key in TimeoutKey::ALL {
        if wanted == key.name() || is_name(key.kernel_name(), wanted) || is_suffix(key.kernel_name(), wanted)
        {
            return Ok(seconds(key));
        }
        if is_name(key.old_name(), wanted) {
            return Ok(NamedTimeout { key, plain: Plain::Hundredths });
        }
    }
    // What the kernel calls SYN_SENT2 our classic profile calls LISTEN; `syn_sent2` is welcome in both.
    if wanted == "tcp.syn_sent2" {
        return Ok(seconds(TimeoutKey::TcpListen));
    }
    if let Some(why) = no_counterpart(wanted) {
        return Err(NameError::NoCounterpart(name.to_owned(), why));
    }
    let all = TimeoutKey::ALL.iter().flat_map(|key| [key.name(), key.kernel_name(), key.old_name()]);
    Err(NameError::UnknownTimeout(name.to_owned(), closest(wanted, all)))
}

/// The kernel's name with `nf_conntrack_` left out, as `conntrack` users shorten it: `tcp_timeout_established`.
fn is_suffix(kernel_name: &str, wanted: &str) -> bool {
    kernel_name.strip_prefix("nf_conntrack_").is_some_and(|suffix| suffix == wanted)
}

fn is_name(name: &str, wanted: &str) -> bool {
    !name.is_empty() && name == wanted
}

/// What a sysctl of the kernel's conntrack stands for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sysctl {
    Timeout(NamedTimeout),
    Switch(Switch),
}

/// The sysctl called `name`, with or without its folders.
pub fn sysctl_named(name: &str) -> Result<Sysctl, NameError> {
    let wanted = bare(name);
    if let Some((switch, ..)) = Switch::ALL
        .iter()
        .find(|(_, today, old)| is_name(today, wanted) || is_name(old, wanted) || is_suffix(today, wanted))
    {
        return Ok(Sysctl::Switch(*switch));
    }
    match timeout_named(name) {
        // Our own names have a table of their own; here they would only hide which unit is meant.
        Ok(named) if named.key.name() != wanted => Ok(Sysctl::Timeout(named)),
        Err(NameError::NoCounterpart(name, why)) => Err(NameError::NoCounterpart(name, why)),
        _ => {
            let switches = Switch::ALL.iter().flat_map(|&(_, today, old)| [today, old]);
            let timeouts = TimeoutKey::ALL.iter().flat_map(|key| [key.kernel_name(), key.old_name()]);
            Err(NameError::UnknownSysctl(name.to_owned(), closest(wanted, switches.chain(timeouts))))
        }
    }
}

/// Why a name that the kernel does have means nothing to this tracker.
fn no_counterpart(name: &str) -> Option<&'static str> {
    let reasons = [
        ("nf_conntrack_dccp_", "DCCP is tracked as any other protocol, by the timeout `generic`"),
        ("nf_conntrack_frag6_", "fragments have the limit `table.max_datagrams`"),
        ("nf_conntrack_helper", "there are no helpers"),
        ("nf_conntrack_expect_max", "there are no expectations"),
        ("nf_conntrack_buckets", "the index is sized from `table.max_entries`"),
        ("nf_conntrack_count", "it is a reading, shown by `dpdk-conntrack count`"),
        ("nf_conntrack_events", "events are made whenever somebody listens"),
        ("nf_conntrack_log_invalid", "INVALID packets are counted by reason"),
        ("nf_conntrack_timestamp", "every flow keeps its start time"),
        ("nf_flowtable_", "there is no flow table beside the tracker"),
        ("nf_hooks_lwtunnel", "there are no tunnel hooks"),
    ];
    reasons.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, why)| *why)
}

/// Reads a timeout's name and value together, as `timeout set` takes them.
pub fn parse_setting(name: &str, value: &str) -> Result<(TimeoutKey, Ticks), NameError> {
    let named = timeout_named(name)?;
    let span = duration::parse_timeout(value, named.plain)
        .map_err(|error| NameError::Value(name.to_owned(), error))?;
    Ok((named.key, span))
}

/// The name nearest to what was typed, if any is near enough to be meant.
pub(crate) fn closest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // No name is as long, and comparing takes the product of the lengths.
    if typed.len() > 128 {
        return None;
    }
    names
        .into_iter()
        .filter(|name| !name.is_empty())
        .map(|name| (strsim::jaro_winkler(typed, name), name))
        // Below this, pairs with nothing in common but a prefix are offered (tried on the names of this file).
        .filter(|(likeness, _)| *likeness > 0.84)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timeout_is_found_by_every_name_it_has() {
        for &key in TimeoutKey::ALL {
            assert_eq!(timeout_named(key.name()).unwrap().key, key);
            if !key.kernel_name().is_empty() {
                for folder in ["", "net.netfilter.", "net/netfilter/", "/proc/sys/net/netfilter/"] {
                    let named = timeout_named(&format!("{folder}{}", key.kernel_name())).unwrap();
                    assert_eq!(named, NamedTimeout { key, plain: Plain::Seconds });
                }
            }
            if !key.old_name().is_empty() {
                for folder in ["", "net.ipv4.netfilter."] {
                    let named = timeout_named(&format!("{folder}{}", key.old_name())).unwrap();
                    assert_eq!(named, NamedTimeout { key, plain: Plain::Hundredths });
                }
            }
        }
    }

    #[test]
    fn old_names_count_in_hundredths_and_new_ones_in_seconds() {
        let set = |name, value| parse_setting(name, value).unwrap();
        let thirty = Ticks::from_secs(30);
        assert_eq!(set("ip_ct_tcp_timeout_last_ack", "3000"), (TimeoutKey::TcpLastAck, thirty));
        assert_eq!(set("nf_conntrack_tcp_timeout_last_ack", "30"), (TimeoutKey::TcpLastAck, thirty));
        assert_eq!(set("tcp.last_ack", "30s"), (TimeoutKey::TcpLastAck, thirty));
        assert_eq!(set("nf_conntrack_tcp_timeout_syn_sent2", "30").0, TimeoutKey::TcpListen);
        assert_eq!(set("tcp.syn_sent2", "30").0, TimeoutKey::TcpListen);
    }

    #[test]
    fn a_near_miss_is_answered_with_the_name_that_was_meant() {
        let error = timeout_named("tcp.establisched").unwrap_err().to_string();
        assert!(error.contains("did you mean `tcp.established`?"), "{error}");
        let error = sysctl_named("nf_conntrack_tcp_be_liberl").unwrap_err().to_string();
        assert!(error.contains("did you mean `nf_conntrack_tcp_be_liberal`?"), "{error}");
        assert!(!timeout_named("banana").unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn kernel_names_without_a_counterpart_say_why() {
        for name in [
            "nf_conntrack_frag6_timeout",
            "nf_conntrack_dccp_timeout_open",
            "net.netfilter.nf_conntrack_buckets",
        ] {
            assert!(matches!(sysctl_named(name), Err(NameError::NoCounterpart(..))), "{name}");
        }
    }
}
