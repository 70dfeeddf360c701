//! The configuration file's shape, as serde reads it: every key, none required that has a default, unknown ones
//! refused. What the values mean together is checked in [`super::check`].

use std::fmt;

use super::export::ExportFile;
use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use toml::Spanned;

use super::Reads;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) profile: Option<ProfileWord>,
    pub(super) mode: Option<Spanned<ModeWord>>,
    pub(super) workers: Option<Spanned<Leaf>>,
    pub(super) rss: Option<Spanned<RssWord>>,
    pub(super) policy_default: Option<Spanned<ActionWord>>,
    #[serde(default)]
    pub(super) port: Vec<Spanned<PortFile>>,
    #[serde(default)]
    pub(super) policy: Vec<Spanned<PolicyFile>>,
    #[serde(default)]
    pub(super) zone: Vec<Spanned<ZoneFile>>,
    #[serde(default)]
    pub(super) zones: ZonesFile,
    #[serde(default)]
    pub(super) tunnel: TunnelFile,
    #[serde(default)]
    pub(super) table: TableFile,
    #[serde(default)]
    pub(super) tracking: TrackingFile,
    #[serde(default)]
    pub(super) tcp: TcpFile,
    #[serde(default)]
    pub(super) udp: UdpFile,
    #[serde(default)]
    pub(super) timeouts: Names,
    #[serde(default)]
    pub(super) sysctl: Names,
    #[serde(default)]
    pub(super) eal: EalFile,
    #[serde(default)]
    pub(super) worker: WorkerFile,
    #[serde(default)]
    pub(super) expiry: ExpiryFile,
    #[serde(default)]
    pub(super) control: ControlFile,
    #[serde(default)]
    pub(super) export: ExportFile,
    #[serde(default)]
    pub(super) log: LogFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortFile {
    pub(super) name: Spanned<String>,
    pub(super) device: Spanned<String>,
    pub(super) role: Option<Spanned<RoleWord>>,
    pub(super) peer: Option<Spanned<String>>,
    pub(super) mtu: Option<Spanned<i64>>,
    pub(super) promiscuous: Option<bool>,
    pub(super) queues: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ZoneFile {
    pub(super) id: Spanned<i64>,
    pub(super) port: Option<Spanned<String>>,
    pub(super) vlan: Option<Spanned<Leaf>>,
    pub(super) limit: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ZonesFile {
    pub(super) by: Option<ByWord>,
    pub(super) limit: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TunnelFile {
    pub(super) inner: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyFile {
    pub(super) from: Option<FromWord>,
    pub(super) state: Option<Spanned<Vec<ClassWord>>>,
    #[serde(alias = "syn_only")]
    pub(super) new_needs_syn: Option<Spanned<bool>>,
    pub(super) mark: Option<Spanned<i64>>,
    pub(super) action: ActionWord,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableFile {
    pub(super) max_entries: Option<Spanned<i64>>,
    pub(super) on_full: Option<OnFullWord>,
    pub(super) max_datagrams: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrackingFile {
    pub(super) checksum: Option<Spanned<bool>>,
    pub(super) accounting: Option<Spanned<bool>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TcpFile {
    pub(super) pickup: Option<Spanned<PickupWord>>,
    pub(super) window_tracking: Option<bool>,
    pub(super) be_liberal: Option<Spanned<bool>>,
    pub(super) ignore_invalid_rst: Option<Spanned<bool>>,
    pub(super) max_retrans: Option<Spanned<Leaf>>,
    pub(super) unacknowledged_timer: Option<bool>,
    pub(super) assured_late: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UdpFile {
    pub(super) stream_after: Option<Spanned<Leaf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EalFile {
    pub(super) cores: Option<Spanned<String>>,
    pub(super) memory: Option<Spanned<String>>,
    pub(super) hugepages: Option<bool>,
    pub(super) raw: Option<Spanned<Vec<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkerFile {
    pub(super) core: Option<Spanned<i64>>,
    pub(super) cores: Option<Spanned<String>>,
    pub(super) shares: Option<Spanned<Vec<i64>>>,
    pub(super) idle: Option<Spanned<IdleWord>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpiryFile {
    pub(super) budget: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ControlFile {
    pub(super) socket: Option<Spanned<String>>,
    pub(super) http: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<String>>,
    pub(super) reads: Option<Spanned<Reads>>,
    #[serde(default)]
    pub(super) hosts: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogFile {
    pub(super) level: Option<LevelWord>,
}

macro_rules! words {
    ($($name:ident { $($word:ident),* })*) => {
        $(#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub(super) enum $name { $($word),* })*
    };
}

words! {
    ProfileWord { Classic, Linux }
    ModeWord { Inline, Mirror }
    ActionWord { Accept, Drop }
    RoleWord { Inside, Outside }
    FromWord { Inside, Outside, Any }
    ClassWord { New, Established, Related, Invalid, Untracked }
    OnFullWord { EarlyDrop, DropNew, PassUntracked }
    PickupWord { Any, Ack, Syn }
    IdleWord { Poll, Sleep }
    ByWord { None, Port, Vlan, PortVlan }
    LevelWord { Off, Error, Warn, Info, Debug, Trace }
}

/// A word with dashes, as the hash is called elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RssWord {
    Random,
    SymmetricToeplitzWeak,
}

/// A table whose keys are names that are looked up rather than listed here. TOML reads the dot in
/// `tcp.established` as nesting, so a value may be a table again; [`Names::flat`] undoes that.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(Spanned<String>, Spanned<Leaf>)>);

/// One value in [`Names`], or one that may be a number or a word.
#[derive(Debug)]
pub(super) enum Leaf {
    Number(i64),
    Text(String),
    Switch(bool),
    Table(Names),
}

impl Names {
    /// Every value with its dotted name.
    pub(super) fn flat(&self) -> Vec<(Spanned<String>, &Spanned<Leaf>)> {
        let mut found = Vec::new();
        self.walk("", &mut found);
        found
    }

    fn walk<'a>(&'a self, prefix: &str, found: &mut Vec<(Spanned<String>, &'a Spanned<Leaf>)>) {
        for (key, value) in &self.0 {
            let name =
                if prefix.is_empty() { key.get_ref().clone() } else { format!("{prefix}.{}", key.get_ref()) };
            match value.get_ref() {
                Leaf::Table(inner) => inner.walk(&name, found),
                _ => found.push((Spanned::new(key.span(), name), value)),
            }
        }
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of names and values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Names(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl<'de> Deserialize<'de> for Leaf {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Leaf;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a text in quotes")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Leaf, E> {
                Ok(Leaf::Switch(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Leaf, E> {
                Ok(Leaf::Number(value))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Leaf, E> {
                Ok(Leaf::Text(value.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Leaf, A::Error> {
                Names::deserialize(de::value::MapAccessDeserializer::new(map)).map(Leaf::Table)
            }
        }
        deserializer.deserialize_any(Any)
    }
}
