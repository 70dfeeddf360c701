//! The configuration: a text turned into the tracker's own types, every default with its reason.
//! Sees no packet and no DPDK; what it hands out is complete and has been checked across keys.

mod check;
mod control;
pub mod diff;
pub mod duration;
pub mod env;
mod error;
mod export;
mod file;
pub mod names;
pub(crate) mod print;
pub mod reload;
pub mod sysctl;
mod zones;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use conntrack::policy::{Action, Class, Policy, Role, Rule, TooManyRules};
use conntrack::track::settings::{Profile, Settings};
use conntrack::tracker::{ExpireBudget, OnFull};
use conntrack::zone::By;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;

pub use error::ConfigError;
pub use export::{Export, Ipfix};
pub use zones::{Zone, Zones};

/// Where `run` looks when no file is named.
pub const DEFAULT_PATH: &str = "/etc/dpdk-conntrack/config.toml";

/// Where the control socket is unless the file says otherwise; clients look here too.
pub const DEFAULT_SOCKET: &str = "/run/dpdk-conntrack/control.sock";

/// No configuration is longer: refused before it is read into memory.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Everything that the appliance is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The profile and every tracking switch and timeout.
    pub settings: Settings,
    pub mode: Mode,
    pub workers: Workers,
    pub rss: Rss,
    pub ports: Vec<Port>,
    pub policy: PolicyRows,
    pub table: Table,
    pub zones: Zones,
    /// Track what tunnels carry, and not the tunnels. Default false.
    pub tunnel_inner: bool,
    pub eal: Eal,
    pub worker: Worker,
    pub expiry: Expiry,
    pub control: Control,
    pub metrics: Metrics,
    pub export: Export,
    /// What the log tells at least. Default `info`: nothing in it comes per packet.
    pub log_level: LevelFilter,
}

/// What the appliance does with frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What enters a port leaves its peer, unless the policy drops it. The default: it is what guards.
    Inline,
    /// Receive and track only; nothing is ever sent and no policy applies.
    Mirror,
}

/// How many workers share the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// As many as have a core and a receive queue. The default: what the machine has is what it is for.
    Auto,
    Count(u16),
}

/// What keys the hash by which a card spreads frames over its receive queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rss {
    /// Random at each start. The default: nobody can choose which queue frames go to.
    Random,
    /// The well-known key with a period of 16 bits. Both directions of a flow come to one queue, and whoever chooses
    /// addresses and ports can send everything to one.
    SymmetricToeplitzWeak,
}

/// One DPDK port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The operator's word for it; the label in counters.
    pub name: String,
    pub device: Device,
    /// In mirror mode always `Inside`, which no policy then looks at.
    pub role: Role,
    /// Index in [`Config::ports`] of the port where frames of this one leave. `None` in mirror mode.
    pub peer: Option<usize>,
    /// Bytes of an IP packet at most. Default 1500.
    pub mtu: u16,
    /// Take frames for any address. Default true: the hosts' frames are addressed to each other and not to us.
    pub promiscuous: bool,
    /// Queues each way at most. Default `None`: one for each worker, as far as the device has them.
    pub queues: Option<u16>,
}

/// What DPDK attaches as a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A PCI function with its domain, perhaps with device arguments: `0000:03:00.0,arg=value`. EAL's `-a`.
    Pci(String),
    /// A virtual device with its arguments: `net_tap0,iface=x`. EAL's `--vdev`.
    Virtual(String),
}

impl Device {
    /// The text for EAL, arguments included.
    pub fn argument(&self) -> &str {
        let (Self::Pci(text) | Self::Virtual(text)) = self;
        text
    }

    /// The name by which DPDK knows the device: the text up to its arguments.
    pub fn name(&self) -> &str {
        self.argument().split(',').next().unwrap_or_default()
    }
}

/// The policy's rows in order, and what happens at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRows {
    pub rules: Vec<Rule>,
    pub otherwise: Action,
}

impl PolicyRows {
    /// What ships: the inside may open connections, the outside only answers, INVALID is dropped. What is not
    /// tracked (ARP, neighbour discovery, anything but IP) passes both ways, or the two sides never find each other.
    pub fn shipped() -> Self {
        let accept = |from, classes: &[Class]| Rule {
            from,
            classes: classes.iter().fold(0, |bits, &class| bits | 1 << class as u8),
            new_needs_syn: false,
            action: Action::Accept,
            mark: 0,
        };
        Self {
            rules: vec![
                accept(Some(Role::Inside), &[Class::New, Class::Established, Class::Related]),
                accept(Some(Role::Outside), &[Class::Established, Class::Related]),
                accept(None, &[Class::Untracked]),
            ],
            otherwise: Action::Drop,
        }
    }

    /// Everything passes: mirror ports and captures, where no frame is ours to drop.
    pub fn accept_all() -> Self {
        Self { rules: Vec::new(), otherwise: Action::Accept }
    }
}

/// The flow table's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Flows at most. Default 262,144: the kernel's own default on a machine with more than 4 GB, 32 MB of entries.
    pub max_entries: u32,
    /// Default `early_drop`, as the kernel.
    pub on_full: OnFull,
    /// Datagrams in reassembly at most. Default 1,024: about what the kernel's 4 MB for fragments hold.
    pub max_datagrams: u16,
}

impl Table {
    pub const DEFAULT: Self = Self { max_entries: 262_144, on_full: OnFull::EarlyDrop, max_datagrams: 1_024 };
}

/// What DPDK's environment is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eal {
    /// The cores of EAL (`-l`); the control thread runs on the first. Default `None`: every core that the process may use.
    pub cores: Option<Vec<u16>>,
    /// MiB of memory for EAL (`-m`). Default `None`: computed from the tables and pools, so that it always suffices.
    pub memory_mib: Option<u32>,
    /// Default true: without hugepages everything works at about half the speed.
    pub hugepages: bool,
    /// Answer `dpdk-telemetry.py`. Default true, as every DPDK program does; only its own user may ask.
    pub telemetry: bool,
    /// Words appended last to EAL's command line, so that they win.
    pub raw: Vec<String>,
}

/// The worker threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// The cores they are pinned to, one each. Default `None`: the last cores that the process may use, since the
    /// first ones take the machine's interrupts.
    pub cores: Option<Vec<u16>>,
    /// How the flows are divided over the workers. Default `None`: alike.
    pub shares: Option<Vec<u16>>,
    /// Default `poll`: a packet never waits for a thread to wake up.
    pub idle: Idle,
}

/// What a worker does when no packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Ask again at once; the core is always busy.
    Poll,
    /// Rest for some microseconds after a while without packets: for shared machines and virtual devices.
    Sleep,
}

/// How much expiry one turn of the worker's loop may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Flows looked at per turn. Default 64, one burst: expiry keeps up with any rate at which bursts make flows,
    /// and delays no packet by more than one burst's work.
    pub budget: u32,
}

impl Expiry {
    /// As the tracker takes it.
    pub fn budget(self) -> ExpireBudget {
        ExpireBudget { flows: self.budget }
    }
}

/// Where operators reach the appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The unix socket that the subcommands talk to.
    pub socket: PathBuf,
    /// Metrics, the API and the page over TCP. Default loopback, port 9477: nothing beyond the machine can reach it
    /// unasked. `None` is off.
    pub http: Option<SocketAddr>,
    /// What holds the secret that every write over TCP shows; made at the start if it is not there. Default `None`:
    /// over TCP nothing can be changed.
    pub token_file: Option<PathBuf>,
    /// Whether reads over TCP show it too. Default `open`; beyond loopback always `token`.
    pub reads: Reads,
    /// Names that the TCP door answers to beside its own address and `localhost`. Default none: a page whose name was
    /// made to lead here is refused.
    pub hosts: Vec<String>,
}

/// Who may read over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// Whoever reaches the door.
    Open,
    /// Who has the token.
    Token,
}

/// What `/metrics` has beside its own series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The `node_nf_conntrack_*` series of node_exporter. Default false: on a machine whose node_exporter tells of the
    /// kernel's own table there would be two of each.
    pub node_compat: bool,
}

impl Config {
    /// Reads and checks a file, and what the environment says over it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Ok(Self::load_told(path)?.0)
    }

    /// As [`Config::load`], with the keys that the environment has set.
    pub fn load_told(path: &Path) -> Result<(Self, Vec<env::Override>), ConfigError> {
        let name = path.display().to_string();
        let text = read(path).map_err(|error| error.in_file(&name))?;
        let mut config = Self::parse(&text).map_err(|error| error.in_file(&name))?;
        let set = env::apply(&mut config, env::given).map_err(|error| error.in_file("environment"))?;
        Ok((config, set))
    }

    /// Checks a text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file = toml::from_str(text).map_err(|error| ConfigError::from_toml(text, &error))?;
        check::config(&file).map_err(|problem| ConfigError::at(text, problem))
    }

    /// The policy as the tracker takes it; on mirror ports no frame is ours to drop.
    pub fn tracker_policy(&self) -> Result<Policy, TooManyRules> {
        match self.mode {
            Mode::Mirror => Ok(Policy::ACCEPT_ALL),
            Mode::Inline => Policy::new(&self.policy.rules, self.policy.otherwise),
        }
    }

    /// The whole configuration as a file that [`Config::parse`] reads back to the same, each key with its meaning.
    pub fn to_toml(&self) -> String {
        print::toml(self)
    }
}

/// The tracking options alone (profile, switches, timeouts, table size), as `replay` takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackingOptions {
    pub settings: Settings,
    pub table: Table,
    /// What tells zones apart. Default `vlan`.
    pub zones_by: By,
    pub tunnel_inner: bool,
}

impl TrackingOptions {
    /// The defaults of a profile.
    pub fn new(profile: Profile) -> Self {
        Self {
            settings: Settings::new(profile),
            table: Table::DEFAULT,
            zones_by: By::default(),
            tunnel_inner: false,
        }
    }

    /// Changes one key, named and written as in the file: `tcp.pickup` and `ack`. The value's quotes may be left out.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        if key.chars().any(char::is_control) || value.chars().any(char::is_control) {
            return Err(ConfigError::whole("an option is one line: write it as tcp.pickup=ack"));
        }
        let bare = format!("{key} = {value}");
        let quoted = format!("{key} = '{value}'");
        let (text, file) = match toml::from_str(&bare) {
            Ok(file) => (&bare, file),
            // The second error is told: it is about the word itself and not about missing quotes.
            Err(_) => (&quoted, toml::from_str(&quoted).map_err(|e| ConfigError::from_toml(&quoted, &e))?),
        };
        check::tracking_option(self, &file).map_err(|problem| ConfigError::at(text, problem))
    }
}

/// sun_path holds 108 bytes with its final zero: unix(7)
fn is_socket_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= 107 && !path.contains('\0')
}

fn read(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read;
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            ConfigError::whole("there is no such file: name one with --config FILE")
        }
        std::io::ErrorKind::PermissionDenied => {
            ConfigError::whole("it may not be read: run as root, or give this user the right to read it")
        }
        std::io::ErrorKind::InvalidData => ConfigError::whole("it is not UTF-8 text: save it as plain text"),
        _ => ConfigError::whole(format!("it cannot be read ({error}): check the path")),
    };
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::whole("it is longer than 1 MiB: that is no configuration"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
