//! A configuration as the file that says all of it, for `config show`, and the file's words for what has few values.

use std::fmt::Write as _;

use conntrack::policy::{Action, Class, Role};
use conntrack::track::settings::{Pickup, Profile};
use conntrack::track::timeout::TimeoutKey;
use conntrack::tracker::OnFull;
use conntrack::wire::Tags;
use conntrack::zone::By;

use super::duration::print_timeout;
use super::{Config, Idle, Mode, Reads, Rss, Workers};

pub(super) fn toml(config: &Config) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let tcp = &config.settings.tcp;
    line(format!("profile = {}", quoted(profile_word(config.settings.profile))));
    line(format!("mode = {}", quoted(mode_word(config.mode))));
    line(match config.workers {
        Workers::Auto => "workers = \"auto\"".to_owned(),
        Workers::Count(count) => format!("workers = {count}"),
    });
    line(format!("rss = {}", quoted(rss_word(config.rss))));
    if config.mode == Mode::Inline {
        line(format!("policy_default = {}", quoted(action_word(config.policy.otherwise))));
    }

    for port in &config.ports {
        line(String::new());
        line("[[port]]".to_owned());
        line(format!("name = {}", quoted(&port.name)));
        line(format!("device = {}", quoted(port.device.argument())));
        if let Some(peer) = port.peer.and_then(|peer| config.ports.get(peer)) {
            line(format!("role = {}", quoted(role_word(port.role))));
            line(format!("peer = {}", quoted(&peer.name)));
        }
        line(format!("mtu = {}", port.mtu));
        line(format!("promiscuous = {}", port.promiscuous));
        if let Some(queues) = port.queues {
            line(format!("queues = {queues}"));
        }
    }

    for zone in &config.zones.listed {
        line(String::new());
        line("[[zone]]".to_owned());
        line(format!("id = {}", zone.id));
        if let Some(port) = zone.port.and_then(|port| config.ports.get(port)) {
            line(format!("port = {}", quoted(&port.name)));
        }
        if zone.tags != Tags::NONE {
            line(format!("vlan = {}", quoted(&vlan_word(zone.tags))));
        }
        if let Some(limit) = zone.limit {
            line(format!("limit = {limit}"));
        }
    }

    for rule in &config.policy.rules {
        line(String::new());
        line("[[policy]]".to_owned());
        let from = rule.from.map_or("any", role_word);
        line(format!("from = {}", quoted(from)));
        let states: Vec<String> = Class::ALL
            .iter()
            .filter(|&&class| rule.classes & 1 << class as u8 != 0)
            .map(|class| quoted(class.name()))
            .collect();
        line(format!("state = [{}]", states.join(", ")));
        if rule.new_needs_syn {
            line("new_needs_syn = true".to_owned());
        }
        if rule.mark != 0 {
            line(format!("mark = {}", rule.mark));
        }
        line(format!("action = {}", quoted(action_word(rule.action))));
    }

    line("\n[table]".to_owned());
    line(format!("max_entries = {}", config.table.max_entries));
    line(format!("on_full = {}", quoted(on_full_word(config.table.on_full))));
    line(format!("max_datagrams = {}", config.table.max_datagrams));

    line("\n[zones]".to_owned());
    line(format!("by = {}", quoted(by_word(config.zones.by))));
    line(format!("limit = {}", config.zones.limit));

    line("\n[tunnel]".to_owned());
    line(format!("inner = {}", config.tunnel_inner));

    line("\n[tracking]".to_owned());
    line(format!("checksum = {}", config.settings.checksum));
    line(format!("accounting = {}", config.settings.accounting));

    line("\n[tcp]".to_owned());
    let pickup = match tcp.pickup {
        Pickup::Any => "any",
        Pickup::Ack => "ack",
        Pickup::Syn => "syn",
    };
    line(format!("pickup = {}", quoted(pickup)));
    line(format!("window_tracking = {}", tcp.window_tracking));
    line(format!("be_liberal = {}", tcp.be_liberal));
    line(format!("ignore_invalid_rst = {}", tcp.ignore_invalid_rst));
    line(match tcp.max_retrans {
        None => "max_retrans = \"off\"".to_owned(),
        Some(number) => format!("max_retrans = {number}"),
    });
    line(format!("unacknowledged_timer = {}", tcp.unacknowledged_timer));
    line(format!("assured_late = {}", tcp.assured_late));

    line("\n[udp]".to_owned());
    line(match config.settings.udp_stream_after {
        None => "stream_after = \"off\"".to_owned(),
        Some(span) => format!("stream_after = {}", quoted(&print_timeout(span))),
    });

    line("\n[timeouts]".to_owned());
    for &key in TimeoutKey::ALL {
        let value = quoted(&print_timeout(config.settings.timeouts.get(key)));
        line(format!("{} = {value}  # {}", key.name(), key.explain()));
    }

    line("\n[eal]".to_owned());
    if let Some(cores) = &config.eal.cores {
        line(format!("cores = {}", quoted(&numbers(cores, ","))));
    }
    if let Some(mib) = config.eal.memory_mib {
        line(format!("memory = {}", quoted(&format!("{mib}M"))));
    }
    line(format!("hugepages = {}", config.eal.hugepages));
    let raw: Vec<String> = config.eal.raw.iter().map(|word| quoted(word)).collect();
    line(format!("raw = [{}]", raw.join(", ")));

    line("\n[worker]".to_owned());
    if let Some(cores) = &config.worker.cores {
        line(format!("cores = {}", quoted(&numbers(cores, ","))));
    }
    if let Some(shares) = &config.worker.shares {
        line(format!("shares = [{}]", numbers(shares, ", ")));
    }
    line(format!("idle = {}", quoted(if config.worker.idle == Idle::Poll { "poll" } else { "sleep" })));

    line("\n[expiry]".to_owned());
    line(format!("budget = {}", config.expiry.budget));

    line("\n[control]".to_owned());
    line(format!("socket = {}", quoted(&config.control.socket.display().to_string())));
    let http = config.control.http.map_or_else(|| "off".to_owned(), |address| address.to_string());
    line(format!("http = {}", quoted(&http)));
    if let Some(path) = &config.control.token_file {
        line(format!("token_file = {}", quoted(&path.display().to_string())));
    }
    line(format!("reads = {}", quoted(if config.control.reads == Reads::Open { "open" } else { "token" })));
    let hosts: Vec<String> = config.control.hosts.iter().map(|host| quoted(host)).collect();
    line(format!("hosts = [{}]", hosts.join(", ")));
    config.export.print(&mut line);

    line("\n[log]".to_owned());
    line(format!("level = {}", quoted(&config.log_level.to_string())));
    out
}

fn numbers(numbers: &[u16], between: &str) -> String {
    numbers.iter().map(u16::to_string).collect::<Vec<_>>().join(between)
}

pub(crate) const fn rss_word(rss: Rss) -> &'static str {
    match rss {
        Rss::Random => "random",
        Rss::SymmetricToeplitzWeak => "symmetric-toeplitz-weak",
    }
}

pub(crate) const fn profile_word(profile: Profile) -> &'static str {
    match profile {
        Profile::Classic => "classic",
        Profile::Linux => "linux",
    }
}

pub(crate) const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Inline => "inline",
        Mode::Mirror => "mirror",
    }
}

pub(crate) const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Inside => "inside",
        Role::Outside => "outside",
    }
}

pub(crate) const fn on_full_word(on_full: OnFull) -> &'static str {
    match on_full {
        OnFull::EarlyDrop => "early_drop",
        OnFull::DropNew => "drop_new",
        OnFull::PassUntracked => "pass_untracked",
    }
}

pub(crate) const fn by_word(by: By) -> &'static str {
    match by {
        By::Nothing => "none",
        By::Port => "port",
        By::Vlan => "vlan",
        By::PortVlan => "port_vlan",
    }
}

/// `100`, or `100.7` with the outer tag first.
pub(crate) fn vlan_word(tags: Tags) -> String {
    match tags.inner() {
        0 => tags.outer().to_string(),
        inner => format!("{}.{inner}", tags.outer()),
    }
}

const fn action_word(action: Action) -> &'static str {
    match action {
        Action::Accept => "accept",
        Action::Drop => "drop",
    }
}

/// A TOML basic string. https://toml.io/en/v1.0.0#string
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
