//! A file of the kernel's conntrack settings, as `sysctl -a` prints it or /etc/sysctl.d holds it, for a running tracker.
//! Every line that means something here is taken; what the kernel has and this tracker has not is passed over and told.

use super::names::{NameError, Switch, Sysctl, sysctl_named};
use super::{Profile, TrackingOptions};

/// One line that is to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub line: usize,
    pub name: String,
    pub value: String,
}

/// One line that means nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub line: usize,
    pub name: String,
    pub why: &'static str,
}

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    pub settings: Vec<Setting>,
    /// The conntrack settings among the lines that are passed over; others are nobody's business here.
    pub skipped: Vec<Skipped>,
}

/// Why a file is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct SysctlError {
    pub line: usize,
    pub message: String,
}

/// Reads a file and checks every line; nothing is taken unless all can be.
pub fn parse(text: &str) -> Result<Sysctls, SysctlError> {
    let mut file = Sysctls::default();
    // What is tried here must only be valid; it is applied where the present settings are.
    let mut trial = TrackingOptions::new(Profile::Linux);
    for (number, whole) in text.lines().enumerate() {
        let line = number + 1;
        let failed = |message: String| SysctlError { line, message };
        let text = whole.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        // Of scripts, and of files in /etc/sysctl.d, where a dash means that errors do not matter.
        let text = text.strip_prefix("sysctl -w ").unwrap_or(text);
        let text = text.strip_prefix('-').unwrap_or(text);
        let (name, value) = text
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()))
            .filter(|(name, value)| is_name(name) && !value.is_empty())
            .ok_or_else(|| failed(format!("`{text}` is no setting: write it as name = value")))?;
        if is_others(name) {
            continue;
        }
        let skipped = |why| Skipped { line, name: name.to_owned(), why };
        match sysctl_named(name) {
            Ok(Sysctl::Switch(Switch::Max)) => {
                file.skipped.push(skipped("the table's size is fixed at the start: set `table.max_entries`"));
            }
            Err(NameError::NoCounterpart(_, why)) => file.skipped.push(skipped(why)),
            Err(error) => return Err(failed(error.to_string())),
            Ok(_) => {
                set(&mut trial, name, value).map_err(failed)?;
                file.settings.push(Setting { line, name: name.to_owned(), value: value.to_owned() });
            }
        }
    }
    Ok(file)
}

/// Applies one setting, by its kernel name.
pub fn set(options: &mut TrackingOptions, name: &str, value: &str) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!("`{name}` is no name of a setting"));
    }
    if matches!(sysctl_named(name), Ok(Sysctl::Switch(Switch::Max))) {
        return Err(
            "the table's size is fixed at the start: set `table.max_entries` and start again".to_owned()
        );
    }
    let key = name.trim_start_matches('/').replace('/', ".");
    options.set(&format!("sysctl.{key}"), value).map_err(|error| error.message().to_owned())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b))
}

/// A setting that is not conntrack's, by its folder.
fn is_others(name: &str) -> bool {
    let name = name.trim_start_matches("/proc/sys/").replace('/', ".");
    let ours = ["net.netfilter.", "net.ipv4.netfilter.", "net.nf_conntrack", "net.ipv4.ip_conntrack"];
    name.contains('.') && !ours.iter().any(|folder| name.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(usize, String, String)> {
        let file = parse(text).unwrap_or_else(|error| panic!("{error}"));
        file.settings.into_iter().map(|s| (s.line, s.name, s.value)).collect()
    }

    #[test]
    fn what_sysctl_prints_is_understood_line_by_line() {
        let text = "# from the old box\n\nnet.netfilter.nf_conntrack_tcp_timeout_established = 3600\n\
                    net.ipv4.netfilter.ip_ct_tcp_timeout_last_ack=3000\nvm.swappiness = 10\n\
                    net/netfilter/nf_conntrack_udp_timeout = 7\n-net.netfilter.nf_conntrack_tcp_be_liberal = 1\n\
                    sysctl -w net.netfilter.nf_conntrack_tcp_loose=0\n";
        let lines: Vec<_> = values(text).into_iter().map(|(line, ..)| line).collect();
        assert_eq!(lines, [3, 4, 6, 7, 8]);
        let mut options = TrackingOptions::new(Profile::Linux);
        for (_, name, value) in values(text) {
            set(&mut options, &name, &value).unwrap();
        }
        use conntrack::tick::Ticks;
        use conntrack::track::settings::Pickup;
        use conntrack::track::timeout::TimeoutKey;
        let timeouts = &options.settings.timeouts;
        assert_eq!(timeouts.get(TimeoutKey::TcpEstablished), Ticks::from_secs(3600));
        assert_eq!(timeouts.get(TimeoutKey::TcpLastAck), Ticks::from_secs(30), "hundredths of a second");
        assert_eq!(timeouts.get(TimeoutKey::Udp), Ticks::from_secs(7));
        assert!(options.settings.tcp.be_liberal);
        assert_eq!(options.settings.tcp.pickup, Pickup::Syn);
    }

    #[test]
    fn the_whole_of_what_a_kernel_prints_is_taken_or_passed_over() {
        // `sysctl -a --pattern nf_conntrack` of Linux 6.18.
        let file = parse(include_str!("samples/sysctl.txt")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((file.settings.len(), file.skipped.len()), (31, 10));
    }

    #[test]
    fn what_has_no_counterpart_is_passed_over_and_told() {
        let file =
            parse("net.netfilter.nf_conntrack_count = 12\nnet.netfilter.nf_conntrack_max = 65536\n").unwrap();
        assert_eq!(file.settings, []);
        let told: Vec<_> = file.skipped.iter().map(|skipped| (skipped.line, skipped.why)).collect();
        assert_eq!(told[0].0, 1);
        assert!(told[1].1.contains("table.max_entries"), "{told:?}");
    }

    #[test]
    fn one_bad_line_refuses_the_file_and_is_named() {
        for (line, says) in [
            ("net.netfilter.nf_conntrack_tcp_timeout_close = soon", "line 2: "),
            ("net.netfilter.nf_conntrack_tcp_timeout_clos = 10", "did you mean"),
            ("net.netfilter.nf_conntrack_tcp_timeout_close = 0", "shortest"),
            ("net.netfilter.nf_conntrack_tcp_loose = 2", "line 2: "),
            ("nf_conntrack_tcp_timeout_close 10", "write it as name = value"),
            ("nf_conntrack_tcp_timeout_close =", "write it as name = value"),
            ("a b = 3", "write it as name = value"),
        ] {
            let text = format!("net.netfilter.nf_conntrack_udp_timeout = 7\n{line}\n");
            let error = parse(&text).unwrap_err();
            assert_eq!(error.line, 2, "{line}");
            assert!(error.to_string().contains(says), "{line}: {error}");
        }
    }
}
