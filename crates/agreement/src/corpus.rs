//! Recorded scenarios: one JSON object a line, plain or gzipped, as `tests/oracle` writes them.
//! Gives what was sent and what the kernel showed; never sees the tracker.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::settings::KernelSettings;
use crate::shown::{self, Entry, Event, EventKind, Shown, Tcp};
use conntrack::event::{Count, Tuple, TupleIds};
use conntrack::key::Direction;
use conntrack::policy::Class;
use serde::Deserialize;

/// One scenario, checked.
pub struct Scenario {
    pub name: String,
    pub settings: KernelSettings,
    /// The recorder gave flows to the kernel's helpers.
    pub helpers: bool,
    /// The machine that recorded it was too slow for its clock to be trusted.
    pub late: bool,
    pub steps: Vec<Step>,
}

/// One packet, or a look at the table, and what the kernel showed.
pub struct Step {
    /// Seconds since the scenario's start.
    pub at: f64,
    /// `A` or `B`: where it entered; `-`: nothing was sent.
    pub side: char,
    pub bytes: Vec<u8>,
    pub note: String,
    pub fate: String,
    /// The kernel's own words, which are not compared.
    pub reason: String,
    /// Packets that the router itself answered with.
    pub sent_back: Vec<Vec<u8>>,
    /// Some entry was made by a helper's expectation.
    pub expected_child: bool,
    pub kernel: Shown,
}

impl Scenario {
    /// Time passes in it.
    pub fn is_timed(&self) -> bool {
        self.steps.iter().any(|step| step.at != 0.0)
    }

    /// Packets in it, without the looks.
    pub fn packets(&self) -> usize {
        self.steps.iter().filter(|step| step.side != '-').count()
    }

    /// Reads one line of a corpus file.
    pub fn parse(line: &str) -> Result<Self, String> {
        let raw: RawScenario<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let name = raw.name.clone().into_owned();
        raw.check().map_err(|error| format!("scenario {name}: {error}"))
    }
}

/// The corpus files of a folder, sorted by name.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let list = std::fs::read_dir(folder).map_err(|error| {
        format!("{}: {error}; CONFORMANCE_CORPUS must name a folder of .jsonl files", folder.display())
    })?;
    let mut files = Vec::new();
    for item in list {
        let path = item.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("{}: no .jsonl or .jsonl.gz file in it", folder.display()));
    }
    Ok(files)
}

/// Calls `each` with every line that is not empty, and its number from 1.
pub fn lines(path: &Path, mut each: impl FnMut(usize, String)) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(wrong)?;
    let unpacked: Box<dyn Read> = if path.extension().is_some_and(|end| end == "gz") {
        Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file)))
    } else {
        Box::new(file)
    };
    for (index, line) in BufReader::with_capacity(1 << 20, unpacked).lines().enumerate() {
        let line = line.map_err(wrong)?;
        if !line.trim().is_empty() {
            each(index + 1, line);
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct RawScenario<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    settings: RawSettings,
    packets: Vec<RawPacket<'a>>,
    observed: Vec<RawObserved<'a>>,
    #[serde(default)]
    late: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
struct RawSettings {
    #[serde(default)]
    sysctl: std::collections::BTreeMap<String, u64>,
    #[serde(default)]
    helpers: bool,
}

#[derive(Deserialize)]
struct RawPacket<'a> {
    #[serde(default)]
    t: f64,
    #[serde(borrow)]
    dir: Cow<'a, str>,
    #[serde(borrow, default)]
    hex: Cow<'a, str>,
    #[serde(borrow, default)]
    note: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawObserved<'a> {
    #[serde(borrow)]
    fate: Cow<'a, str>,
    #[serde(borrow)]
    state: Option<Cow<'a, str>>,
    #[serde(borrow)]
    dir: Option<Cow<'a, str>>,
    #[serde(default)]
    reason: Option<Words>,
    #[serde(borrow, default)]
    router_sent_back: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    events: Vec<RawEvent<'a>>,
    #[serde(borrow)]
    entries: Vec<RawEntry<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    n: Option<u32>,
    timeout: Option<u32>,
    #[serde(borrow)]
    state: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Option<Vec<Cow<'a, str>>>,
}

#[derive(Deserialize)]
struct RawEntry<'a> {
    n: u32,
    proto: u8,
    timeout: u32,
    #[serde(borrow)]
    state: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    orig: RawTuple<'a>,
    #[serde(borrow)]
    reply: RawTuple<'a>,
    count: Option<RawCount>,
    tcp: Option<RawTcp>,
    sctp: Option<RawSctp>,
    #[serde(default)]
    mark: u32,
    #[serde(default)]
    zone: u16,
    master: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct RawTuple<'a> {
    #[serde(borrow)]
    src: Cow<'a, str>,
    #[serde(borrow)]
    dst: Cow<'a, str>,
    sport: Option<u16>,
    dport: Option<u16>,
    #[serde(rename = "type")]
    icmp_type: Option<u8>,
    code: Option<u8>,
    id: Option<u16>,
    srckey: Option<u16>,
    dstkey: Option<u16>,
}

#[derive(Deserialize)]
struct RawCount {
    orig: (u64, u64),
    reply: (u64, u64),
}

#[derive(Deserialize)]
struct RawTcp {
    wscale: [u8; 2],
    flags: [u8; 2],
}

#[derive(Deserialize)]
struct RawSctp {
    vtag: [u32; 2],
}

impl RawScenario<'_> {
    fn check(self) -> Result<Scenario, String> {
        if self.packets.len() != self.observed.len() {
            return Err(format!(
                "{} packets but {} observations; record it again",
                self.packets.len(),
                self.observed.len()
            ));
        }
        let mut settings = KernelSettings::default();
        for (name, value) in &self.settings.sysctl {
            settings.set(name, *value)?;
        }
        let steps = self
            .packets
            .into_iter()
            .zip(self.observed)
            .enumerate()
            .map(|(index, (packet, observed))| {
                step(packet, observed).map_err(|error| format!("packet {}: {error}", index + 1))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut before = 0.0;
        for (index, step) in steps.iter().enumerate() {
            if !step.at.is_finite() || step.at < before {
                return Err(format!("packet {}: its time {} is before the last one's", index + 1, step.at));
            }
            before = step.at;
        }
        Ok(Scenario {
            name: self.name.into_owned(),
            settings,
            helpers: self.settings.helpers,
            late: self.late.is_some(),
            steps,
        })
    }
}

fn step(packet: RawPacket<'_>, observed: RawObserved<'_>) -> Result<Step, String> {
    let side = match packet.dir.as_ref() {
        "A" => 'A',
        "B" => 'B',
        "-" => '-',
        other => return Err(format!("dir {other:?} is none of A, B and -")),
    };
    let expected_child = observed.entries.iter().any(|entry| entry.master.is_some());
    let kernel = Shown {
        class: observed.state.as_deref().map(class).transpose()?,
        direction: match observed.dir.as_deref() {
            None => None,
            Some("original") => Some(Direction::Original),
            Some("reply") => Some(Direction::Reply),
            Some(other) => return Err(format!("direction {other:?} is neither original nor reply")),
        },
        events: observed.events.iter().filter_map(|raw| event(raw).transpose()).collect::<Result<_, _>>()?,
        entries: observed.entries.iter().map(entry).collect::<Result<_, _>>()?,
    };
    Ok(Step {
        at: packet.t,
        side,
        bytes: unhex(&packet.hex)?,
        note: packet.note.into_owned(),
        fate: observed.fate.into_owned(),
        reason: match observed.reason {
            None => String::new(),
            Some(Words::One(text)) => text,
            Some(Words::Many(texts)) => texts.join("; "),
        },
        sent_back: observed.router_sent_back.iter().map(|text| unhex(text)).collect::<Result<_, _>>()?,
        expected_child,
        kernel,
    })
}

fn class(name: &str) -> Result<Class, String> {
    Class::ALL
        .into_iter()
        .find(|class| class.name() == name)
        .ok_or_else(|| format!("no connection state is {name:?}"))
}

/// `None` for an expectation's event, which has no entry.
fn event(raw: &RawEvent<'_>) -> Result<Option<Event>, String> {
    let kind = match raw.event.as_ref() {
        "NEW" => EventKind::New,
        "UPDATE" => EventKind::Update,
        "DESTROY" => EventKind::Destroy,
        "EXP_NEW" | "EXP_DESTROY" => return Ok(None),
        other => return Err(format!("no event is called {other:?}")),
    };
    Ok(Some(Event {
        kind,
        n: raw.n.unwrap_or(0),
        timeout: raw.timeout,
        state: raw.state.as_deref().map(state).transpose()?,
        status: raw.status.as_deref().map(status).transpose()?,
    }))
}

fn entry(raw: &RawEntry<'_>) -> Result<Entry, String> {
    let count = |(packets, bytes)| Count { packets, bytes };
    Ok(Entry {
        n: raw.n,
        proto: raw.proto,
        timeout: raw.timeout,
        state: raw.state.as_deref().map(state).transpose()?,
        status: status(&raw.status)?,
        original: tuple(&raw.orig)?,
        reply: tuple(&raw.reply)?,
        count: raw.count.as_ref().map(|both| [count(both.orig), count(both.reply)]),
        tcp: raw.tcp.as_ref().map(|tcp| Tcp { wscale: tcp.wscale, flags: tcp.flags }),
        vtag: raw.sctp.as_ref().map(|sctp| sctp.vtag),
        mark: raw.mark,
        zone: raw.zone,
    })
}

fn state(name: &str) -> Result<&'static str, String> {
    let known = shown::TCP_STATES.iter().chain(&shown::SCTP_STATES).find(|known| **known == name);
    known.copied().ok_or_else(|| format!("no TCP or SCTP state is {name:?}"))
}

fn status(names: &[Cow<'_, str>]) -> Result<u32, String> {
    let mut bits = 0;
    for name in names {
        let bit = shown::status::NAMES.iter().position(|known| known == name);
        bits |= 1 << bit.ok_or_else(|| format!("no status is called {name:?}"))?;
    }
    Ok(bits)
}

fn tuple(raw: &RawTuple<'_>) -> Result<Tuple, String> {
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("{text:?} is no address"));
    let ids = match (raw.sport, raw.dport, raw.icmp_type, raw.code, raw.id, raw.srckey, raw.dstkey) {
        (Some(sport), Some(dport), None, None, None, None, None) => TupleIds::Ports { sport, dport },
        (None, None, Some(icmp_type), Some(code), Some(id), None, None) => {
            TupleIds::Icmp { icmp_type, code, id }
        }
        (None, None, None, None, None, Some(srckey), Some(dstkey)) => TupleIds::Gre { srckey, dstkey },
        (None, None, None, None, None, None, None) => TupleIds::None,
        _ => return Err("a tuple has the ids of two protocols, or half of one's".into()),
    };
    Ok(Tuple { src: address(&raw.src)?, dst: address(&raw.dst)?, ids })
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digit = |byte: u8| {
        (byte as char)
            .to_digit(16)
            .map(|digit| digit as u8)
            .ok_or_else(|| "hex holds what is no hex digit".to_owned())
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err("hex has an odd number of digits".into());
    }
    pairs.iter().map(|[high, low]| Ok(digit(*high)? << 4 | digit(*low)?)).collect()
}
