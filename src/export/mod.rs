//! Flow records for other programs: each flow that ended, as a line in Suricata's eve form and as an IPFIX record.
//! Owns the queues to those who write, and what is counted of them. Sees no packet, no worker and no request.
//!
//! Whoever hands a record over never waits: a full queue loses it and counts it. Files and collectors have a thread each,
//! so that a disk or a network that is slow holds up nothing else.

pub mod community;
pub mod doctor;
mod eve;
mod file;
mod ipfix;
mod record;
mod sink;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Export;
use file::EveFile;
use ipfix::collector::Collector;
use sink::Sink;

pub use record::Record;

/// Every sink that there can be, by its name in counters.
pub const NAMES: [&str; 2] = ["eve", "ipfix"];

/// How long the sinks may take at the end for what is still queued.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why records cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(
        "the flow records' file {path} cannot be opened ({error}): make its folder, let user {me} write there and own the file, \
         or change `export.eve.path`"
    )]
    File { path: PathBuf, error: io::Error, me: u32 },
    #[error("{0} is not a regular file: set `export.eve.path` to one, or to a path where none is yet")]
    NotAFile(PathBuf),
    #[error("no socket for the collector can be made ({0}): the system is out of resources")]
    Socket(io::Error),
    #[error("no thread for the flow records can be started ({0}): the system is out of resources")]
    Thread(io::Error),
}

/// What the configuration asks for, open and not yet written to.
#[derive(Debug, Default)]
pub struct Prepared {
    eve: Option<EveFile>,
    ipfix: Option<Collector>,
    reopen: Arc<AtomicBool>,
}

/// The sinks at work.
#[derive(Debug, Default)]
pub struct Exports {
    sinks: Vec<Sink>,
    reopen: Arc<AtomicBool>,
}

/// One sink's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    pub name: &'static str,
    /// In the file, or sent to the collector.
    pub written: u64,
    /// Not written, for whatever reason.
    pub lost: u64,
}

impl Prepared {
    /// Opens what `export` names, so that what cannot be is told at the start.
    pub fn open(export: &Export) -> Result<Self, ExportError> {
        let reopen = Arc::new(AtomicBool::new(false));
        let file = |path: &PathBuf| EveFile::open(path, export.community_id_seed, Arc::clone(&reopen));
        Ok(Self {
            eve: export.eve.as_ref().map(file).transpose()?,
            ipfix: export.ipfix.as_ref().map(Collector::new).transpose()?,
            reopen,
        })
    }

    /// Starts the threads; they run where the caller's thread may.
    pub fn start(self) -> Result<Exports, ExportError> {
        let mut sinks = Vec::new();
        if let Some(file) = self.eve {
            sinks.push(Sink::start(NAMES[0], file)?);
        }
        if let Some(collector) = self.ipfix {
            sinks.push(Sink::start(NAMES[1], collector)?);
        }
        Ok(Exports { sinks, reopen: self.reopen })
    }
}

impl Exports {
    /// Whether there is nobody to tell.
    pub fn is_empty(&self) -> bool {
        self.sinks.is_empty()
    }

    /// Hands a record to every sink, or counts it as lost where the queue is full.
    pub fn tell(&self, record: &Record) {
        self.sinks.iter().for_each(|sink| sink.tell(record));
    }

    /// So many flows ended unseen since the start, on their way here.
    pub fn lost_earlier(&self, total: u64) {
        self.sinks.iter().for_each(|sink| sink.lost_earlier(total));
    }

    /// Has files opened again by their names: a signal came.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    /// Each sink's counters as they are now.
    pub fn counted(&self) -> Vec<Tally> {
        self.sinks.iter().map(Sink::counted).collect()
    }

    /// Lets the sinks write what is queued, for a moment at most, and ends them.
    pub fn finish(&self) {
        let deadline = std::time::Instant::now() + LAST_WORDS;
        self.sinks.iter().for_each(|sink| sink.end(deadline));
        self.sinks.iter().for_each(|sink| sink.wait(deadline));
    }
}
