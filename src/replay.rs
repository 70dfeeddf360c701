//! A capture through the tracker, by the capture's own clock. No policy, no device, no root.
//! Owns the virtual clock; what is printed and where is the caller's.

use std::io::{self, Write};
use std::time::Duration;

use conntrack::event::{DestroyReason, Event, Events, FlowView};
use conntrack::policy::{Class, DropReason, Policy};
use conntrack::table::memory::Memory;
use conntrack::tick::{PER_SECOND, Tick};
use conntrack::track::reason::Reason;
use conntrack::track::timeout::Timeouts;
use conntrack::tracker::{
    Counters, Cursor, ExpireBudget, Explained, Forecast, Frame, Limits, Outcome, Tracker, Verdict,
};
use conntrack::zone;

use crate::config::TrackingOptions;
use crate::driver::capture::{Capture, CaptureError};

/// Events between two emptyings of the buffer: more than one packet or one step of the clock makes.
const EVENTS: usize = 4096;

/// Flows looked at in one step of expiry; fewer than the events that fit.
const BUDGET: ExpireBudget = ExpireBudget { flows: 1024 };

/// Flows copied out of the table at once.
const PAGE: usize = 1024;

/// With somebody listening, the clock stops this often while flows live, so that an end is told at its second.
const STEP: u64 = PER_SECOND as u64;

/// Without, it must only stay within what 32-bit ticks can compare.
const STRIDE: u64 = 86_400 * PER_SECOND as u64;

/// The table's hash key. A fixed one: the same capture always gives the same result, and nobody is attacked by a file
/// that a person chose to replay on a machine of their own.
const HASH_KEY: [u64; 4] =
    [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89];

/// Why a replay stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{0}")]
    Capture(#[from] CaptureError),
    #[error(
        "a table for {entries} flows needs {need} bytes, which this machine does not give: lower table.max_entries"
    )]
    Memory { entries: u32, need: usize },
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// What a replay saw.
#[derive(Debug, Default)]
pub struct Summary {
    pub packets: u64,
    /// Frames that are not IP by a link header that the tracker does not read.
    pub not_ip: u64,
    /// From the first packet to the last one that was played.
    pub span: Duration,
    pub counters: Counters,
}

/// What a replay tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    Event(&'a Event),
    /// One packet and what became of it; only of a replay that explains.
    Packet(&'a Explained),
}

/// One run of the tracker through a capture.
pub struct Replay {
    tracker: Tracker,
    events: Events,
    now: Tick,
    /// The capture's time at tick 0.
    start_ns: Option<u64>,
    summary: Summary,
    explains: bool,
}

impl Replay {
    /// An empty table. `listening` says whether [`Replay::run`]'s caller wants events.
    pub fn new(options: &TrackingOptions, listening: bool) -> Result<Self, ReplayError> {
        let limits = Limits {
            max_entries: options.table.max_entries,
            max_datagrams: options.table.max_datagrams,
            hash_key: HASH_KEY,
        };
        let memory_error = |need| ReplayError::Memory { entries: options.table.max_entries, need };
        let need = Tracker::memory_bytes(&limits).map_err(|_| memory_error(usize::MAX))?;
        let memory = Memory::heap(need).ok_or_else(|| memory_error(need))?;
        let mut tracker =
            Tracker::new(limits, options.settings, Policy::ACCEPT_ALL, options.table.on_full, memory)
                .map_err(|_| memory_error(need))?;
        let rules =
            zone::Rules { by: options.zones_by, inner: options.tunnel_inner, ..zone::Rules::default() };
        tracker.join(zone::Zones::new(&rules, 1, HASH_KEY).member(0));
        let mut events = Events::with_capacity(EVENTS);
        events.set_enabled(listening);
        Ok(Self {
            tracker,
            events,
            now: Tick(0),
            start_ns: None,
            summary: Summary::default(),
            explains: false,
        })
    }

    /// Has every packet told with what the tracker made of it.
    pub fn explain(&mut self) {
        self.explains = true;
    }

    /// The capture's time at tick 0, in milliseconds since 1970.
    pub fn start_unix_ms(&self) -> u64 {
        self.start_ns.unwrap_or(0) / 1_000_000
    }

    /// The clock as it stands, in milliseconds since 1970.
    pub fn now_unix_ms(&self) -> u64 {
        self.start_unix_ms().saturating_add(self.now.as_millis())
    }

    /// Plays packets up to `until` after the first one (all without it), then sets the clock to `until`. Each event, and
    /// each packet if that was asked for, is told with the capture's start in milliseconds since 1970; `progress` hears
    /// how much of the file is done.
    /// After an error the table is as the packets before it left it.
    pub fn run(
        &mut self,
        capture: &mut Capture,
        until: Option<Duration>,
        mut hear: impl FnMut(u64, Heard<'_>) -> io::Result<()>,
        mut progress: impl FnMut(u64),
    ) -> Result<(), ReplayError> {
        let until_ns = until.map(|until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
        let played = loop {
            let done = capture.consumed();
            let captured = match capture.next_frame() {
                Ok(Some(captured)) => captured,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            // Interfaces merged into one file, and clocks that were set, make time stamps that go back; the
            // tracker's time never does.
            let start = *self.start_ns.get_or_insert(captured.at_ns);
            let since = captured.at_ns.saturating_sub(start);
            if until_ns.is_some_and(|until| since > until) {
                break Ok(());
            }
            self.advance(Tick::from_nanos(since), &mut hear)?;
            self.summary.packets += 1;
            self.summary.span = self.summary.span.max(Duration::from_nanos(since));
            match captured.frame {
                Some(frame) => self.track(&frame, &mut hear)?,
                None => self.summary.not_ip += 1,
            }
            progress(done);
        };
        if let Some(until) = until_ns {
            self.advance(Tick::from_nanos(until), &mut hear)?;
        }
        self.summary.counters = self.tracker.counters().clone();
        Ok(played?)
    }

    fn track(
        &mut self,
        frame: &Frame<'_>,
        hear: &mut impl FnMut(u64, Heard<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let look = self.explains.then(|| self.tracker.look(self.now, frame, false));
        let mut outcomes = [Outcome::untold(Verdict::Forward)];
        self.tracker.on_burst(self.now, &[*frame], &mut outcomes, &mut self.events);
        // Frames held for reassembly belong to the file; there is nothing to free.
        while self.tracker.take_discarded().is_some() {}
        if let Some(look) = look {
            let mut explained = self.tracker.explain(self.now, frame, &look, &outcomes[0]);
            // Nobody has a policy here.
            explained.decision = None;
            hear(self.start_unix_ms(), Heard::Packet(&explained))?;
        }
        self.tell(hear)
    }

    /// Moves the clock on, ending the flows whose time comes on the way.
    fn advance(
        &mut self,
        to: Tick,
        hear: &mut impl FnMut(u64, Heard<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        while self.now < to {
            let step = match (self.tracker.is_empty(), self.events.enabled()) {
                (true, _) => u64::MAX,
                (false, true) => STEP,
                (false, false) => STRIDE,
            };
            self.now = Tick(self.now.0.saturating_add(step).min(to.0));
            loop {
                let done = self.tracker.on_tick(self.now, BUDGET, &mut self.events);
                self.tell(hear)?;
                if !done.more || done.visited == 0 {
                    break;
                }
            }
            while self.tracker.take_discarded().is_some() {}
        }
        Ok(())
    }

    fn tell(&mut self, hear: &mut impl FnMut(u64, Heard<'_>) -> io::Result<()>) -> io::Result<()> {
        let start_unix_ms = self.start_unix_ms();
        for event in self.events.iter() {
            hear(start_unix_ms, Heard::Event(&event))?;
        }
        self.events.clear();
        Ok(())
    }

    /// Every flow that is alive now.
    pub fn each_flow<E>(&self, mut on_flow: impl FnMut(&FlowView) -> Result<(), E>) -> Result<(), E> {
        let mut page = Vec::with_capacity(PAGE);
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            page.clear();
            from = self.tracker.page(self.now, cursor, &mut page);
            page.iter().try_for_each(&mut on_flow)?;
        }
        Ok(())
    }

    /// What other timeouts would have done, as the table stands now.
    pub fn what_if(&self, timeouts: &Timeouts) -> Forecast {
        let mut forecast = Forecast::default();
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            from = self.tracker.what_if(self.now, cursor, timeouts, &mut forecast);
        }
        forecast
    }

    /// What was seen.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }
}

impl Summary {
    /// One line for people.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let counters = &self.counters;
        write!(out, "{} packets in {:.3} s", self.packets, self.span.as_secs_f64())?;
        let parts = [
            (counters.packets[Class::Untracked as usize] + self.not_ip, "untracked", None),
            (counters.packets[Class::Invalid as usize], "INVALID", Some(&counters.invalid)),
            (counters.malformed.iter().sum(), "malformed", Some(&counters.malformed)),
            (
                counters.destroyed[DestroyReason::EarlyDrop as usize]
                    + counters.dropped[DropReason::TableFull.index()]
                    + counters.full_untracked,
                "met a full table",
                None,
            ),
        ];
        for (number, what, reasons) in parts {
            if number == 0 {
                continue;
            }
            write!(out, ", {number} {what}")?;
            let reasons: Vec<String> = reasons
                .into_iter()
                .flat_map(|counts| Reason::ALL.iter().zip(counts))
                .filter(|(_, count)| **count > 0)
                .map(|(reason, count)| format!("{} {count}", reason.label()))
                .collect();
            if !reasons.is_empty() {
                write!(out, " ({})", reasons.join(", "))?;
            }
        }
        writeln!(out)
    }

    /// Whether so many checksums are wrong that the capture was likely taken on a sender whose NIC fills them in.
    pub fn looks_offloaded(&self) -> bool {
        let wrong = self.counters.invalid[Reason::L4Checksum as usize];
        wrong >= 3 && wrong * 4 >= self.packets
    }
}
