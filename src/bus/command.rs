//! What control asks of a worker. A command travels to the worker, is filled in there and travels back as its own
//! answer, so that the worker allocates and frees nothing.

use std::sync::Arc;

use conntrack::event::{FlowView, Told};
use conntrack::policy::Policy;
use conntrack::tick::Tick;
use conntrack::track::settings::Settings;
use conntrack::track::timeout::Timeouts;
use conntrack::tracker::{Cursor, Edit, Forecast, OnFull};

use super::agreement::Agreement;
use super::report::Snapshot;
use crate::filter::Filter;

/// A command and the number by which its sender knows it again.
#[derive(Debug)]
pub struct Ticket {
    pub number: u64,
    pub command: Command,
}

/// What to do. The boxed ones carry room for the answer.
#[derive(Debug)]
pub enum Command {
    /// List flows, a slice between two bursts.
    Page(Box<Page>),
    /// End flows, a slice between two bursts.
    Flush(Flush),
    /// Delete or change flows, a slice between two bursts.
    Edit(Box<Edits>),
    /// Change every switch, every timeout and the policy at once, between two bursts, when all workers are to.
    Configure(Box<Change>),
    /// Say what other timeouts would do, a slice between two bursts.
    WhatIf(Box<WhatIf>),
    /// Copy the counters out.
    Snapshot(Box<Snapshot>),
    /// Choose the events that are sent from now on.
    Listen(Told),
    /// Follow these packets, or none any more; what was followed before comes back.
    Follow(Option<Box<Follow>>),
    /// Leave a port's queues alone, or use them again; `done` comes back false if they could not be used.
    Port { port: usize, running: bool, done: bool },
    /// Take a new reading of the boot clock: `tsc` and `boot_ns` were read together.
    Clock { tsc: u64, boot_ns: u64 },
}

/// A part of a listing.
#[derive(Debug)]
pub struct Page {
    /// Where to go on; `None` once the table's end was reached.
    pub from: Option<Cursor>,
    /// Filled up to its capacity; the worker never grows it.
    pub flows: Vec<FlowView>,
    /// When the last slice was filled.
    pub at: Tick,
}

impl Page {
    /// An empty page for up to `capacity` flows, from the table's start.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { from: Some(Cursor::default()), flows: Vec::with_capacity(capacity), at: Tick::default() }
    }
}

/// Flows to do one thing to. What was done stands in the places before [`Edits::done`], as copies made then; flows that
/// are gone are passed over.
#[derive(Debug)]
pub struct Edits {
    pub edit: Edit,
    /// As a page showed them.
    pub flows: Vec<FlowView>,
    /// The next one to look at.
    pub next: usize,
    pub done: usize,
}

impl Edits {
    /// Nothing done yet.
    pub fn new(edit: Edit, flows: Vec<FlowView>) -> Self {
        Self { edit, flows, next: 0, done: 0 }
    }
}

/// Packets to tell of as they pass.
#[derive(Debug)]
pub struct Follow {
    pub filter: Filter,
    /// No packet after this is told: an end that needs nobody to say so.
    pub until: Tick,
}

/// A part of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Where to go on; `None` once the table's end was reached.
    pub from: Option<Cursor>,
    pub ended: u64,
}

impl Flush {
    /// A flush that begins at the table's start.
    pub const fn new() -> Self {
        Self { from: Some(Cursor(0)), ended: 0 }
    }
}

impl Default for Flush {
    fn default() -> Self {
        Self::new()
    }
}

/// A part of a question about other timeouts.
#[derive(Debug)]
pub struct WhatIf {
    pub timeouts: Timeouts,
    /// Where to go on; `None` once the table's end was reached.
    pub from: Option<Cursor>,
    pub forecast: Forecast,
}

impl WhatIf {
    /// A question that begins at the table's start.
    pub fn new(timeouts: Timeouts) -> Self {
        Self { timeouts, from: Some(Cursor::default()), forecast: Forecast::default() }
    }
}

/// One worker's part in a change that all workers make, or none.
#[derive(Debug)]
pub struct Change {
    pub rules: Rules,
    /// Shared by all of them.
    pub agreement: Arc<Agreement>,
    /// Which one this is.
    pub worker: usize,
}

/// What decides about packets, swapped as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub settings: Settings,
    pub policy: Policy,
    pub on_full: OnFull,
}
