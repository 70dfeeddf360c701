//! From the file's shape to [`Config`]: what the values mean, alone and together.

use std::collections::HashMap;

use conntrack::fragment::MAX_DATAGRAMS;
use conntrack::key::owner::WORKERS_MAX;
use conntrack::policy::{Action, Class, MAX_RULES, Role, Rule};
use conntrack::track::settings::{Pickup, Profile, Settings};
use conntrack::track::timeout::TimeoutKey;
use conntrack::tracker::OnFull;
use conntrack::zone::By;
use toml::Spanned;
use tracing::level_filters::LevelFilter;

use super::duration::{Plain, from_plain, parse_timeout};
use super::error::Problem;
use super::file::*;
use super::names::{self, Switch, Sysctl};
use super::{
    Config, Device, Eal, Expiry, Idle, Metrics, Mode, PolicyRows, Port, Rss, Table, TrackingOptions, Worker,
    Workers, control, export, zones,
};

pub(super) type Checked<T> = Result<T, Problem>;

pub(super) fn problem<T, S>(at: &Spanned<S>, message: impl Into<String>) -> Checked<T> {
    Err(Problem::new(Some(at.span()), message))
}

pub(super) fn config(file: &File) -> Checked<Config> {
    let mut options = TrackingOptions::new(profile(file).unwrap_or(Profile::Classic));
    apply(&mut options, file)?;
    let mode = match file.mode.as_ref().map(Spanned::get_ref) {
        None | Some(ModeWord::Inline) => Mode::Inline,
        Some(ModeWord::Mirror) => Mode::Mirror,
    };
    let ports = ports(file, mode)?;
    let config = Config {
        zones: zones::check(file, options.zones_by, &ports)?,
        tunnel_inner: options.tunnel_inner,
        settings: options.settings,
        mode,
        workers: workers(file)?,
        rss: match file.rss.as_ref().map(Spanned::get_ref) {
            None | Some(RssWord::Random) => Rss::Random,
            Some(RssWord::SymmetricToeplitzWeak) => Rss::SymmetricToeplitzWeak,
        },
        ports,
        policy: policy(file, mode)?,
        table: options.table,
        eal: eal(&file.eal)?,
        worker: worker(&file.worker)?,
        expiry: expiry(&file.expiry)?,
        metrics: Metrics { node_compat: file.metrics.node_compat.unwrap_or(false) },
        control: control::check(&file.control)?,
        export: export::check(&file.export)?,
        log_level: file.log.level.map_or(LevelFilter::INFO, log_level),
    };
    cores(&config, file)?;
    Ok(config)
}

/// Applies a file that holds a single option, of those that concern tracking.
pub(super) fn tracking_option(options: &mut TrackingOptions, file: &File) -> Checked<()> {
    if has_foreign_keys(file) {
        return Err(Problem::new(
            None,
            "this key does nothing here: only profile, tracking, tcp, udp, timeouts, sysctl and table keys, zones.by \
             and tunnel.inner do",
        ));
    }
    if let Some(profile) = profile(file) {
        options.settings = Settings::new(profile);
    }
    apply(options, file)
}

/// Whether a file has a key that means nothing to a tracker without ports. Each field is named here, so that a new one does
/// not build before it has its place.
fn has_foreign_keys(file: &File) -> bool {
    let File {
        profile: _,
        tunnel: _,
        table: _,
        tracking: _,
        tcp: _,
        udp: _,
        timeouts: _,
        sysctl: _,
        zones: ZonesFile { by: _, limit },
        mode,
        workers,
        rss,
        policy_default,
        port,
        policy,
        zone,
        eal: EalFile { cores: eal_cores, memory, hugepages, telemetry, raw },
        worker: WorkerFile { core, cores, shares, idle },
        expiry: ExpiryFile { budget },
        control: ControlFile { socket, http, token_file, reads, hosts },
        metrics: MetricsFile { node_compat },
        export,
        log: LogFile { level },
    } = file;
    limit.is_some()
        || mode.is_some()
        || workers.is_some()
        || rss.is_some()
        || policy_default.is_some()
        || !port.is_empty()
        || !policy.is_empty()
        || !zone.is_empty()
        || eal_cores.is_some()
        || memory.is_some()
        || hugepages.is_some()
        || telemetry.is_some()
        || raw.is_some()
        || core.is_some()
        || cores.is_some()
        || shares.is_some()
        || idle.is_some()
        || budget.is_some()
        || socket.is_some()
        || http.is_some()
        || token_file.is_some()
        || reads.is_some()
        || !hosts.is_empty()
        || node_compat.is_some()
        || export.is_given()
        || level.is_some()
}

fn profile(file: &File) -> Option<Profile> {
    file.profile.map(|word| match word {
        ProfileWord::Classic => Profile::Classic,
        ProfileWord::Linux => Profile::Linux,
    })
}

/// The tracking keys of a file, over what `options` hold. One thing set by two of its names is refused.
fn apply(options: &mut TrackingOptions, file: &File) -> Checked<()> {
    let TrackingOptions { settings, table, zones_by, tunnel_inner } = options;
    let mut taken: HashMap<Switch, &'static str> = HashMap::new();
    let mut take = |switch, name| {
        taken.insert(switch, name);
    };

    if let Some(value) = &file.tcp.pickup {
        take(Switch::TcpLoose, "tcp.pickup");
        settings.tcp.pickup = match value.get_ref() {
            PickupWord::Any => Pickup::Any,
            PickupWord::Ack => Pickup::Ack,
            PickupWord::Syn => Pickup::Syn,
        };
    }
    if let Some(value) = file.tcp.window_tracking {
        settings.tcp.window_tracking = value;
    }
    if let Some(value) = &file.tcp.be_liberal {
        take(Switch::TcpBeLiberal, "tcp.be_liberal");
        settings.tcp.be_liberal = *value.get_ref();
    }
    if let Some(value) = &file.tcp.ignore_invalid_rst {
        take(Switch::TcpIgnoreInvalidRst, "tcp.ignore_invalid_rst");
        settings.tcp.ignore_invalid_rst = *value.get_ref();
    }
    if let Some(value) = &file.tcp.max_retrans {
        take(Switch::TcpMaxRetrans, "tcp.max_retrans");
        settings.tcp.max_retrans = max_retrans(value)?;
    }
    if let Some(value) = file.tcp.unacknowledged_timer {
        settings.tcp.unacknowledged_timer = value;
    }
    if let Some(value) = file.tcp.assured_late {
        settings.tcp.assured_late = value;
    }
    if let Some(value) = &file.udp.stream_after {
        settings.udp_stream_after = match value.get_ref() {
            Leaf::Text(word) if word == "off" => None,
            _ => Some(span(value, Plain::Seconds)?),
        };
    }
    if let Some(value) = &file.tracking.checksum {
        take(Switch::Checksum, "tracking.checksum");
        settings.checksum = *value.get_ref();
    }
    if let Some(value) = &file.tracking.accounting {
        take(Switch::Acct, "tracking.accounting");
        settings.accounting = *value.get_ref();
    }
    if let Some(word) = file.zones.by {
        *zones_by = match word {
            ByWord::None => By::Nothing,
            ByWord::Port => By::Port,
            ByWord::Vlan => By::Vlan,
            ByWord::PortVlan => By::PortVlan,
        };
    }
    if let Some(value) = file.tunnel.inner {
        *tunnel_inner = value;
    }
    if let Some(value) = &file.table.max_entries {
        take(Switch::Max, "table.max_entries");
        table.max_entries = max_entries(value, *value.get_ref())?;
    }
    if let Some(value) = file.table.on_full {
        table.on_full = match value {
            OnFullWord::EarlyDrop => OnFull::EarlyDrop,
            OnFullWord::DropNew => OnFull::DropNew,
            OnFullWord::PassUntracked => OnFull::PassUntracked,
        };
    }
    if let Some(value) = &file.table.max_datagrams {
        table.max_datagrams = match u16::try_from(*value.get_ref()) {
            Ok(number @ 1..=MAX_DATAGRAMS) => number,
            _ => {
                return problem(
                    value,
                    format!("table.max_datagrams is a number from 1 to {MAX_DATAGRAMS}: give 1024 if unsure"),
                );
            }
        };
    }

    let mut timeouts_taken: HashMap<TimeoutKey, String> = HashMap::new();
    for (name, value) in file.timeouts.flat() {
        let named = match names::timeout_named(name.get_ref()) {
            Ok(named) => named,
            Err(error) => return problem(&name, error.to_string()),
        };
        once(&mut timeouts_taken, named.key, &name)?;
        settings.timeouts.set(named.key, span(value, named.plain)?);
    }
    for (name, value) in file.sysctl.flat() {
        match names::sysctl_named(name.get_ref()) {
            Err(error) => return problem(&name, error.to_string()),
            Ok(Sysctl::Timeout(named)) => {
                once(&mut timeouts_taken, named.key, &name)?;
                settings.timeouts.set(named.key, span(value, named.plain)?);
            }
            Ok(Sysctl::Switch(switch)) => {
                if let Some(other) = taken.insert(switch, switch.kernel_name()) {
                    return problem(
                        &name,
                        format!("`{}` sets what `{other}` has set already: keep one of them", name.get_ref()),
                    );
                }
                apply_switch(settings, table, switch, value)?;
            }
        }
    }
    Ok(())
}

fn once(taken: &mut HashMap<TimeoutKey, String>, key: TimeoutKey, name: &Spanned<String>) -> Checked<()> {
    match taken.insert(key, name.get_ref().clone()) {
        None => Ok(()),
        Some(other) => problem(
            name,
            format!("`{}` sets what `{other}` has set already: keep one of them", name.get_ref()),
        ),
    }
}

fn apply_switch(
    settings: &mut Settings,
    table: &mut Table,
    switch: Switch,
    value: &Spanned<Leaf>,
) -> Checked<()> {
    match switch {
        // The kernel knows only these two; `any` has no sysctl.
        Switch::TcpLoose => {
            settings.tcp.pickup = if on(value)? { Pickup::Ack } else { Pickup::Syn };
        }
        Switch::TcpBeLiberal => settings.tcp.be_liberal = on(value)?,
        Switch::TcpIgnoreInvalidRst => settings.tcp.ignore_invalid_rst = on(value)?,
        Switch::TcpMaxRetrans => settings.tcp.max_retrans = max_retrans(value)?,
        Switch::Checksum => settings.checksum = on(value)?,
        Switch::Acct => settings.accounting = on(value)?,
        Switch::Max => table.max_entries = max_entries(value, number(value)?)?,
    }
    Ok(())
}

fn on(value: &Spanned<Leaf>) -> Checked<bool> {
    match value.get_ref() {
        Leaf::Switch(on) => Ok(*on),
        Leaf::Number(0) => Ok(false),
        Leaf::Number(1) => Ok(true),
        Leaf::Text(word) if word == "0" => Ok(false),
        Leaf::Text(word) if word == "1" => Ok(true),
        _ => problem(value, "this switch is on or off: write 1 or 0"),
    }
}

fn number(value: &Spanned<Leaf>) -> Checked<i64> {
    let parsed = match value.get_ref() {
        Leaf::Number(number) => Some(*number),
        Leaf::Text(word) => word.parse().ok(),
        _ => None,
    };
    parsed.map_or_else(|| problem(value, "this is not a number: write digits alone"), Ok)
}

fn span(value: &Spanned<Leaf>, plain: Plain) -> Checked<conntrack::tick::Ticks> {
    let read = match value.get_ref() {
        Leaf::Number(number) => match u64::try_from(*number) {
            Ok(number) => from_plain(number, plain).map_err(|error| error.to_string()),
            Err(_) => Err("a timeout is not negative: write it like 5d, 12h, 90s".to_owned()),
        },
        Leaf::Text(text) => parse_timeout(text, plain).map_err(|error| error.to_string()),
        Leaf::Switch(_) | Leaf::Table(_) => {
            Err("this is not a duration: write it like \"5d\", \"12h\", \"90s\", or as a plain number"
                .to_owned())
        }
    };
    read.or_else(|message| problem(value, message))
}

/// The kernel keeps this count in eight bits.
fn max_retrans(value: &Spanned<Leaf>) -> Checked<Option<u8>> {
    match value.get_ref() {
        Leaf::Text(word) if word == "off" => Ok(None),
        _ => match number(value).ok().and_then(|number| u8::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => problem(
                value,
                "max_retrans is a number from 0 to 255, or \"off\": give 3, the kernel's value",
            ),
        },
    }
}

fn max_entries<S>(at: &Spanned<S>, number: i64) -> Checked<u32> {
    match u32::try_from(number) {
        Ok(number @ 1..=100_000_000) => Ok(number),
        _ => {
            problem(at, "table.max_entries is a number from 1 to 100000000: give the most flows at one time")
        }
    }
}

/// RTE_MAX_ETHPORTS of DPDK as distributions build it.
const MAX_PORTS: usize = 32;

fn ports(file: &File, mode: Mode) -> Checked<Vec<Port>> {
    if let Some(port) = file.port.get(MAX_PORTS) {
        return problem(
            port,
            format!("there are more than {MAX_PORTS} ports, which is what DPDK has room for: remove some"),
        );
    }
    let mut ports = Vec::with_capacity(file.port.len());
    for port in &file.port {
        let file = port.get_ref();
        let name = file.name.get_ref();
        if !is_port_name(name) {
            return problem(
                &file.name,
                format!("`{name}` is no port name: use 1 to 32 letters, digits, `-` and `_`"),
            );
        }
        let device = device(&file.device)?;
        for other in &ports {
            let other: &Port = other;
            if other.name == *name {
                return problem(&file.name, format!("two ports are called `{name}`: rename one of them"));
            }
            if other.device.name() == device.name() {
                return problem(
                    &file.device,
                    format!(
                        "`{}` is already the device of port `{}`: give each port its own",
                        device.name(),
                        other.name
                    ),
                );
            }
        }
        let role = match (mode, &file.role) {
            (Mode::Inline, Some(role)) => match role.get_ref() {
                RoleWord::Inside => Role::Inside,
                RoleWord::Outside => Role::Outside,
            },
            (Mode::Inline, None) => {
                return problem(
                    port,
                    format!("port `{name}` has no role: add role = \"inside\" or role = \"outside\""),
                );
            }
            (Mode::Mirror, Some(role)) => {
                return problem(
                    role,
                    "a mirror port has no side to guard: remove role, or set mode = \"inline\"",
                );
            }
            (Mode::Mirror, None) => Role::Inside,
        };
        if let (Mode::Mirror, Some(peer)) = (mode, &file.peer) {
            return problem(peer, "a mirror port never sends: remove peer, or set mode = \"inline\"");
        }
        let mtu = match &file.mtu {
            None => 1500,
            // The least that IPv6 works with, and what a buffer can hold beside the headers before it.
            Some(value) => match u16::try_from(*value.get_ref()) {
                Ok(mtu @ 1280..=65_000) => mtu,
                _ => {
                    return problem(
                        value,
                        "mtu is a number of bytes from 1280 to 65000: give 1500, or 9000 for jumbo frames",
                    );
                }
            },
        };
        let promiscuous = file.promiscuous.unwrap_or(true);
        ports.push(Port {
            name: name.clone(),
            device,
            role,
            peer: None,
            queues: queues(&file.queues)?,
            mtu,
            promiscuous,
        });
    }
    if mode == Mode::Mirror {
        if ports.is_empty() {
            return Err(Problem::new(
                None,
                "there is no [[port]]: name the device that receives the mirrored traffic",
            ));
        }
        return Ok(ports);
    }
    pair(file, &mut ports)?;
    Ok(ports)
}

/// Fills in the peers. Two ports that name none are each other's.
fn pair(file: &File, ports: &mut [Port]) -> Checked<()> {
    if ports.len() < 2 || ports.len() % 2 == 1 {
        let have = ports.len();
        return Err(Problem::new(
            None,
            format!(
                "inline mode joins pairs of ports and there {} {have} [[port]]: add one, or set mode = \"mirror\"",
                if have == 1 { "is" } else { "are" }
            ),
        ));
    }
    if ports.len() == 2 && file.port.iter().all(|port| port.get_ref().peer.is_none()) {
        ports[0].peer = Some(1);
        ports[1].peer = Some(0);
    }
    for (own, port) in file.port.iter().enumerate() {
        let Some(peer) = &port.get_ref().peer else { continue };
        let name = &port.get_ref().name;
        let Some(other) = ports.iter().position(|port| port.name == *peer.get_ref()) else {
            let names = ports.iter().map(|port| port.name.as_str());
            let hint = names::closest(peer.get_ref(), names)
                .map(|name| format!("did you mean `{name}`?"))
                .unwrap_or_else(|| "name one of the [[port]] tables".to_owned());
            return problem(peer, format!("no port is called `{}`: {hint}", peer.get_ref()));
        };
        if other == own {
            return problem(peer, format!("port `{}` is its own peer: name the other port", name.get_ref()));
        }
        // One of the two naming the other is enough; naming different ones is a mistake.
        for (from, to) in [(own, other), (other, own)] {
            match ports[from].peer {
                Some(already) if already != to => {
                    return problem(
                        peer,
                        format!(
                            "port `{}` already has the peer `{}`: give every port exactly one",
                            ports[from].name, ports[already].name
                        ),
                    );
                }
                _ => ports[from].peer = Some(to),
            }
        }
    }
    for (own, port) in ports.iter().enumerate() {
        let at = &file.port[own];
        let Some(peer) = port.peer else {
            return problem(at, format!("port `{}` has no peer: add peer = \"NAME\"", port.name));
        };
        if port.mtu != ports[peer].mtu {
            return problem(
                at,
                format!(
                    "ports `{}` and `{}` are peers with an MTU of {} and {}, and what is too long for one could not leave \
                     by it: give both the same mtu",
                    port.name, ports[peer].name, port.mtu, ports[peer].mtu
                ),
            );
        }
        if port.role == ports[peer].role {
            return problem(
                at,
                format!(
                    "ports `{}` and `{}` are peers on the same side: make one of them inside and the other outside",
                    port.name, ports[peer].name
                ),
            );
        }
    }
    Ok(())
}

fn queues(file: &Option<Spanned<i64>>) -> Checked<Option<u16>> {
    let Some(number) = file else { return Ok(None) };
    match u16::try_from(*number.get_ref()) {
        Ok(queues) if (1..=WORKERS_MAX).contains(&usize::from(queues)) => Ok(Some(queues)),
        _ => problem(
            number,
            format!("a port uses from 1 to {WORKERS_MAX} queues: leave it out for one a worker"),
        ),
    }
}

fn is_port_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn device(text: &Spanned<String>) -> Checked<Device> {
    let value = text.get_ref();
    let (name, arguments) = match value.split_once(',') {
        Some((name, arguments)) => (name, Some(arguments)),
        None => (value.as_str(), None),
    };
    let one_word = !value.chars().any(|c| c.is_whitespace() || c.is_control());
    if let Some(address) = pci_address(name).filter(|_| one_word) {
        let arguments = arguments.map(|text| format!(",{text}")).unwrap_or_default();
        return Ok(Device::Pci(format!("{address}{arguments}")));
    }
    // EAL splits its arguments by itself, but a blank or a dash in front would make it another argument.
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') && one_word;
    let known = ["net_", "virtio_user", "eth_"].iter().any(|prefix| name.starts_with(prefix));
    if plain && known {
        return Ok(Device::Virtual(value.clone()));
    }
    let hint = if plain && !name.is_empty() && name.len() < 16 {
        format!(": a kernel interface is reached as `net_af_packet0,iface={name}`")
    } else {
        String::new()
    };
    problem(
        text,
        format!(
            "`{value}` is neither a PCI address such as `0000:03:00.0` nor a virtual device such as \
             `net_tap0,iface=x`{hint}"
        ),
    )
}

/// The address in full, `dddd:bb:dd.f`, from that or the short form without a domain.
fn pci_address(text: &str) -> Option<String> {
    let hex = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = text.split(':').collect();
    let (domain, bus, rest) = match parts.as_slice() {
        [bus, rest] => ("0000", *bus, *rest),
        [domain, bus, rest] => (*domain, *bus, *rest),
        _ => return None,
    };
    let (slot, function) = rest.split_once('.')?;
    let fits = hex(domain, 4) && hex(bus, 2) && hex(slot, 2) && matches!(function.as_bytes(), [b'0'..=b'7']);
    fits.then(|| format!("{domain}:{bus}:{slot}.{function}").to_ascii_lowercase())
}

fn policy(file: &File, mode: Mode) -> Checked<PolicyRows> {
    if mode == Mode::Mirror {
        if let Some(row) = file.policy.first() {
            return problem(row, "a mirror port drops nothing: remove the policy, or set mode = \"inline\"");
        }
        if let Some(value) = &file.policy_default {
            return problem(
                value,
                "a mirror port drops nothing: remove policy_default, or set mode = \"inline\"",
            );
        }
        return Ok(PolicyRows::accept_all());
    }
    let mut rows = PolicyRows::shipped();
    if let Some(value) = &file.policy_default {
        rows.otherwise = action(*value.get_ref());
    }
    if file.policy.is_empty() {
        return Ok(rows);
    }
    if let Some(row) = file.policy.get(MAX_RULES) {
        return problem(
            row,
            format!("the policy has more than {MAX_RULES} rows: join rows that differ in state only"),
        );
    }
    rows.rules.clear();
    // Bits by side of what the rows so far have decided for good.
    let mut decided = [0_u8; 2];
    for (number, row) in file.policy.iter().enumerate() {
        let rule = rule(row)?;
        let sides: &[usize] = match rule.from {
            Some(Role::Inside) => &[0],
            Some(Role::Outside) => &[1],
            None => &[0, 1],
        };
        if sides.iter().all(|&side| rule.classes & !decided[side] == 0) {
            return problem(
                row,
                format!(
                    "policy row {} never matches, the rows above decide all of it: move it up or remove it",
                    number + 1
                ),
            );
        }
        // A row that wants a SYN passes the rest of NEW on to the next row.
        let left_open = if rule.new_needs_syn { 1 << Class::New as u8 } else { 0 };
        for &side in sides {
            decided[side] |= rule.classes & !left_open;
        }
        rows.rules.push(rule);
    }
    Ok(rows)
}

fn rule(row: &Spanned<PolicyFile>) -> Checked<Rule> {
    let row = row.get_ref();
    let classes = match &row.state {
        None => Class::ALL.iter().fold(0, |bits, &class| bits | 1 << class as u8),
        Some(words) if words.get_ref().is_empty() => {
            return problem(
                words,
                "an empty list of states matches nothing: name states, or leave `state` out for all",
            );
        }
        Some(words) => words.get_ref().iter().fold(0, |bits, word| bits | 1 << class(*word) as u8),
    };
    let action = action(row.action);
    if let Some(wanted) = &row.new_needs_syn
        && *wanted.get_ref()
    {
        if classes & 1 << Class::New as u8 == 0 {
            return problem(
                wanted,
                "new_needs_syn is about the state new: add \"new\" to `state`, or remove it",
            );
        }
        if action == Action::Drop {
            return problem(
                wanted,
                "new_needs_syn says what may be accepted: set action = \"accept\", and drop the rest in a later row",
            );
        }
    }
    let mark = row.mark.as_ref().map_or(Ok(0), |mark| flow_mark(mark, classes, action))?;
    Ok(Rule {
        from: match row.from {
            None | Some(FromWord::Any) => None,
            Some(FromWord::Inside) => Some(Role::Inside),
            Some(FromWord::Outside) => Some(Role::Outside),
        },
        classes,
        new_needs_syn: row.new_needs_syn.as_ref().is_some_and(|wanted| *wanted.get_ref()),
        action,
        mark,
    })
}

/// A mark is given once, to the flow that a packet begins.
fn flow_mark(mark: &Spanned<i64>, classes: u8, action: Action) -> Checked<u32> {
    let Ok(value) = u32::try_from(*mark.get_ref()) else {
        return problem(mark, "a mark has 32 bits: give a number from 0 to 4294967295 (0xffffffff)");
    };
    if classes & Class::New.bit() == 0 {
        return problem(
            mark,
            "a connection gets its mark with its first packet: add \"new\" to `state`, or remove mark",
        );
    }
    if action == Action::Drop {
        return problem(
            mark,
            "what is dropped leaves no connection to mark: set action = \"accept\", or remove mark",
        );
    }
    Ok(value)
}

fn class(word: ClassWord) -> Class {
    match word {
        ClassWord::New => Class::New,
        ClassWord::Established => Class::Established,
        ClassWord::Related => Class::Related,
        ClassWord::Invalid => Class::Invalid,
        ClassWord::Untracked => Class::Untracked,
    }
}

fn action(word: ActionWord) -> Action {
    match word {
        ActionWord::Accept => Action::Accept,
        ActionWord::Drop => Action::Drop,
    }
}

fn eal(file: &EalFile) -> Checked<Eal> {
    let cores = file.cores.as_ref().map(core_list).transpose()?;
    let memory_mib = file.memory.as_ref().map(mebibytes).transpose()?;
    let raw = file.raw.as_ref().map(|raw| raw.get_ref().clone()).unwrap_or_default();
    if let Some(at) = &file.raw
        && raw.iter().any(|word| word.is_empty() || word.contains('\0'))
    {
        return problem(
            at,
            "eal.raw holds an empty word: write each argument of EAL as one text, and its value as the next",
        );
    }
    Ok(Eal {
        cores,
        memory_mib,
        hugepages: file.hugepages.unwrap_or(true),
        telemetry: file.telemetry.unwrap_or(true),
        raw,
    })
}

/// `1-3`, `0,2,4-6`: as EAL's `-l`.
fn core_list(text: &Spanned<String>) -> Checked<Vec<u16>> {
    let core = |word: &str| word.trim().parse::<u16>().ok().filter(|&core| core < MAX_CORE);
    let mut cores = Vec::new();
    for part in text.get_ref().split(',') {
        let ends = match part.split_once('-') {
            Some((first, last)) => core(first).zip(core(last)),
            None => core(part).map(|core| (core, core)),
        };
        match ends {
            // More than there are numbers names one twice, and is told below.
            Some((first, last)) if first <= last && cores.len() <= usize::from(MAX_CORE) => {
                cores.extend(first..=last);
            }
            Some((first, last)) if first <= last => break,
            _ => {
                return problem(
                    text,
                    format!("`{}` is no list of cores: write it like 1-3 or 0,2,4", text.get_ref()),
                );
            }
        }
    }
    let mut seen = cores.clone();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() != cores.len() {
        return problem(text, "a core is listed twice: name each once");
    }
    Ok(cores)
}

/// One above the highest core number that Linux builds for x86 and arm64 have (CONFIG_NR_CPUS at most 8192).
const MAX_CORE: u16 = 8192;

fn mebibytes(text: &Spanned<String>) -> Checked<u32> {
    let value = text.get_ref().trim();
    let (digits, factor) = match value.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (value.strip_suffix(['M', 'm']).unwrap_or(""), 1),
    };
    match digits.parse::<u32>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(mib @ 1..) => Ok(mib),
        _ => problem(text, format!("`{value}` is no amount of memory: write it like 512M or 4G")),
    }
}

/// `"auto"` or a number.
fn workers(file: &File) -> Checked<Workers> {
    let Some(value) = &file.workers else { return Ok(Workers::Auto) };
    match value.get_ref() {
        Leaf::Text(word) if word == "auto" => return Ok(Workers::Auto),
        Leaf::Number(number) => {
            if let Ok(count) = u16::try_from(*number)
                && (1..=WORKERS_MAX).contains(&usize::from(count))
            {
                return Ok(Workers::Count(count));
            }
        }
        _ => {}
    }
    problem(
        value,
        format!("workers is a number from 1 to {WORKERS_MAX}, or \"auto\": give \"auto\" if unsure"),
    )
}

fn worker(file: &WorkerFile) -> Checked<Worker> {
    let cores = match (&file.core, &file.cores) {
        (None, None) => None,
        (Some(_), Some(cores)) => {
            return problem(cores, "worker.core has said it already: keep one of them");
        }
        (None, Some(cores)) => Some(core_list(cores)?),
        (Some(core), None) => match u16::try_from(*core.get_ref()) {
            Ok(number) if number < MAX_CORE => Some(vec![number]),
            _ => return problem(core, "worker.core is the number of a core: `lscpu -e` lists them"),
        },
    };
    let shares = match &file.shares {
        None => None,
        Some(shares) => {
            let numbers = shares.get_ref().iter().map(|&share| u16::try_from(share));
            match numbers.collect::<Result<Vec<u16>, _>>() {
                Ok(numbers) if numbers.iter().any(|&share| share > 0) => Some(numbers),
                _ => {
                    return problem(
                        shares,
                        "shares are numbers from 0 to 65535, one for each worker and one of them above 0: [1, 1] for \
                         two workers that do alike",
                    );
                }
            }
        }
    };
    let idle = match file.idle.as_ref().map(Spanned::get_ref) {
        None | Some(IdleWord::Poll) => Idle::Poll,
        Some(IdleWord::Sleep) => Idle::Sleep,
    };
    Ok(Worker { cores, shares, idle })
}

fn expiry(file: &ExpiryFile) -> Checked<Expiry> {
    let Some(budget) = &file.budget else { return Ok(Expiry { budget: 64 }) };
    match u32::try_from(*budget.get_ref()) {
        // More than this per turn holds back packets for about a millisecond.
        Ok(number @ 1..=10_000) => Ok(Expiry { budget: number }),
        _ => {
            problem(budget, "expiry.budget is a number of flows per turn from 1 to 10000: give 64 if unsure")
        }
    }
}

const fn log_level(word: LevelWord) -> LevelFilter {
    match word {
        LevelWord::Off => LevelFilter::OFF,
        LevelWord::Error => LevelFilter::ERROR,
        LevelWord::Warn => LevelFilter::WARN,
        LevelWord::Info => LevelFilter::INFO,
        LevelWord::Debug => LevelFilter::DEBUG,
        LevelWord::Trace => LevelFilter::TRACE,
    }
}

/// Cores, workers and shares must fit each other. A polling worker never leaves its core; the control thread would
/// starve beside it.
fn cores(config: &Config, file: &File) -> Checked<()> {
    let named =
        |what: usize, singular: &str| format!("{what} {singular}{}", if what == 1 { "" } else { "s" });
    if let Some(at) = &file.worker.shares {
        let shares = config.worker.shares.as_ref().map_or(0, Vec::len);
        match config.workers {
            Workers::Count(workers) if usize::from(workers) == shares => {}
            Workers::Count(workers) => {
                return problem(
                    at,
                    format!(
                        "there are {} for {}: give each worker one",
                        named(shares, "share"),
                        named(workers.into(), "worker")
                    ),
                );
            }
            Workers::Auto => {
                return problem(
                    at,
                    format!("shares are for workers whose number is known: set workers = {shares}"),
                );
            }
        }
    }
    let Some(cores) = &config.worker.cores else { return Ok(()) };
    let problem_here = |message: String| match (&file.worker.core, &file.worker.cores) {
        (Some(at), _) => problem(at, message),
        (None, Some(at)) => problem(at, message),
        (None, None) => Ok(()),
    };
    if let Workers::Count(workers) = config.workers
        && usize::from(workers) != cores.len()
    {
        return problem_here(format!(
            "there are {} for {}: name a core for each in worker.cores, or leave it out",
            named(cores.len(), "core"),
            named(workers.into(), "worker")
        ));
    }
    if let Some(pool) = &config.eal.cores
        && config.worker.idle == Idle::Poll
        && pool.iter().all(|core| cores.contains(core))
    {
        return problem_here(format!(
            "workers poll on {}, all that eal.cores has, and leave nothing to the control thread: give it another \
             core, or set worker.idle = \"sleep\"",
            list(cores)
        ));
    }
    Ok(())
}

fn list(cores: &[u16]) -> String {
    cores.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}
