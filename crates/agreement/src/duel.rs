//! One program to the kernel and to the tracker, step by step, until they part.

use std::time::{Duration, Instant};

use conntrack::tick::Tick;
use conntrack::wire::Checksum;

use crate::compare::{Difference, Slack, agree, differences};
use crate::kernel::{Injected, Kernel, Watch};
use crate::play::{Fate, Player};
use crate::program::{Program, Step};
use crate::settings::KernelSettings;
use crate::shown::{EventKind, Shown};

/// The tracker's clock at the start: its low 32 bits turn over while timed programs run.
const START: Tick = Tick((1 << 32) - 1000);
/// A program in which no time passes must be over before any remaining time has lost its second second.
const UNTIMED_LIMIT: Duration = Duration::from_millis(900);
/// Nearer than this to a whole second's distance from an earlier burst, what happens hangs on the clocks' phase.
const TOO_CLOSE_MS: f64 = 25.0;
/// Flows that a program makes at most, with room to spare.
const MAX_FLOWS: u32 = 256;

/// How a program ended.
#[derive(Clone, Debug)]
pub enum End {
    Agreed,
    Parted(Box<Parting>),
    /// The machine was too slow for the comparison to mean anything.
    Late,
}

/// Where the two part.
#[derive(Clone, Debug)]
pub struct Parting {
    pub step: usize,
    pub kernel: Shown,
    pub ours: Shown,
    pub reason: Option<&'static str>,
    pub differences: Vec<Difference>,
}

/// A program on its way.
pub struct Lane {
    program: Program,
    settings: KernelSettings,
    next: usize,
    watch: Watch,
    player: Player,
    kernel: Shown,
    ours: Shown,
    /// Milliseconds since the clock's start at which each burst was sent.
    bursts: Vec<f64>,
}

impl Lane {
    /// Ready to run programs.
    pub fn new() -> Self {
        Self {
            program: Program { seed: 0, index: 0, settings: Vec::new(), steps: Vec::new() },
            settings: KernelSettings::default(),
            next: 0,
            watch: Watch::default(),
            player: Player::new(MAX_FLOWS),
            kernel: Shown::default(),
            ours: Shown::default(),
            bursts: Vec::new(),
        }
    }

    /// Starts a program: an empty table on the tracker's side. The kernel's is emptied by [`Lane::leave`].
    pub fn start(&mut self, program: Program) -> Result<(), String> {
        self.settings = KernelSettings::default();
        for (name, value) in &program.settings {
            self.settings.set(name, *value)?;
        }
        self.player.start(&self.settings);
        self.program = program;
        self.next = 0;
        self.bursts.clear();
        Ok(())
    }

    /// The program that runs.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Deletes what the program has made in the kernel.
    pub fn leave(&mut self, kernel: &mut Kernel) -> Result<(), String> {
        kernel.clear(&mut self.watch)
    }

    /// Runs a whole program in which no time passes.
    pub fn run(&mut self, kernel: &mut Kernel, program: Program) -> Result<End, String> {
        self.start(program)?;
        kernel.configure(&self.program.settings)?;
        let started = Instant::now();
        let mut end = End::Agreed;
        while self.next < self.program.steps.len() {
            if let Some(parting) = self.untimed_step(kernel)? {
                end = End::Parted(Box::new(parting));
                break;
            }
        }
        self.leave(kernel)?;
        Ok(if started.elapsed() > UNTIMED_LIMIT { End::Late } else { end })
    }

    fn untimed_step(&mut self, kernel: &mut Kernel) -> Result<Option<Parting>, String> {
        let at = self.next;
        self.next += 1;
        // A tick may end between a packet and its lookup: the kernel then shows a second less.
        let slack = Slack { below: 1, above: 0, skip_destroy: false };
        match self.program.steps.get(at) {
            Some(Step::Packet { side, bytes, may_be_dropped }) => {
                let injected = kernel.inject(*side, bytes, *may_be_dropped);
                kernel.show(&mut self.watch, &mut self.kernel)?;
                let fate = fate(&self.kernel, &injected, *may_be_dropped);
                self.player.packet(START, bytes, Checksum::Unknown, fate, &mut self.ours);
                Ok(self.judge(at, slack))
            }
            Some(Step::Set(name, value)) => {
                self.set(kernel, name, *value)?;
                Ok(None)
            }
            Some(Step::Wait(_)) | None => Ok(None),
        }
    }

    fn set(&mut self, kernel: &mut Kernel, name: &'static str, value: u64) -> Result<(), String> {
        kernel.set(name, value)?;
        self.settings.set(name, value)?;
        self.player.configure(self.settings.tracker);
        Ok(())
    }

    /// Runs the steps up to the next gap; gives the gap, or `None` at the program's end.
    pub fn burst(&mut self, kernel: &mut Kernel, clock: Instant) -> Result<Result<Option<u32>, End>, String> {
        let now_ms = clock.elapsed().as_secs_f64() * 1000.0;
        let too_close = self.bursts.iter().any(|earlier| {
            let phase = (now_ms - earlier) % 1000.0;
            phase.min(1000.0 - phase) < TOO_CLOSE_MS
        });
        if too_close {
            return Ok(Err(End::Late));
        }
        self.bursts.push(now_ms);
        while let Some(step) = self.program.steps.get(self.next) {
            let at = self.next;
            self.next += 1;
            match step {
                Step::Wait(ms) => return Ok(Ok(Some(*ms))),
                Step::Set(name, value) => self.set(kernel, name, *value)?,
                Step::Packet { side, bytes, may_be_dropped } => {
                    let injected = kernel.inject(*side, bytes, *may_be_dropped);
                    kernel.show(&mut self.watch, &mut self.kernel)?;
                    let shown_at = Instant::now();
                    if shown_at - injected.from > Duration::from_millis(15) {
                        return Ok(Err(End::Late));
                    }
                    let fate = fate(&self.kernel, &injected, *may_be_dropped);
                    let now = tick(injected.from - clock);
                    self.player.packet(now, bytes, Checksum::Unknown, fate, &mut self.ours);
                    // Both clocks round to ticks of their own, and the kernel's stood still at some moment in between.
                    let doubt = 3 + tick(shown_at - injected.from).0 - START.0;
                    self.allow_for_clocks(tick(shown_at - clock), doubt);
                    let slack = Slack { below: 0, above: 0, skip_destroy: true };
                    if let Some(parting) = self.judge(at, slack) {
                        return Ok(Err(End::Parted(Box::new(parting))));
                    }
                }
            }
        }
        Ok(Ok(None))
    }

    /// Takes the kernel's seconds over where they lie between what our clock gives `doubt` ticks earlier and later.
    fn allow_for_clocks(&mut self, now: Tick, doubt: u64) {
        let mut views = [Shown::default(), Shown::default()];
        self.player.entries_at(Tick(now.0 - doubt), &mut views[0]);
        self.player.entries_at(Tick(now.0 + doubt), &mut views[1]);
        for entry in &mut self.ours.entries {
            let seen = self.kernel.entries.iter().find(|other| other.n == entry.n).map(|other| other.timeout);
            let bound = |view: &Shown| {
                view.entries.iter().find(|other| other.n == entry.n).map(|other| other.timeout)
            };
            if let (Some(seen), Some(high), Some(low)) = (seen, bound(&views[0]), bound(&views[1])) {
                entry.timeout = if (low..=high).contains(&seen) { seen } else { high };
            }
        }
        let announced = |shown: &Shown| -> Vec<usize> {
            (0..shown.events.len()).filter(|at| shown.events[*at].kind != EventKind::Destroy).collect()
        };
        for (theirs, ours) in announced(&self.kernel).into_iter().zip(announced(&self.ours)) {
            let seen = self.kernel.events[theirs].timeout;
            let timeout = &mut self.ours.events[ours].timeout;
            if let (Some(seen), Some(own)) = (seen, *timeout)
                && seen.abs_diff(own) <= 1
            {
                *timeout = Some(seen);
            }
        }
    }

    fn judge(&self, step: usize, slack: Slack) -> Option<Parting> {
        if agree(&self.kernel, &self.ours, slack) {
            return None;
        }
        let differences = differences(&self.kernel, &self.ours, slack);
        let (kernel, ours) = (self.kernel.clone(), self.ours.clone());
        Some(Parting { step, kernel, ours, reason: self.player.reason(), differences })
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self::new()
    }
}

fn tick(since_start: Duration) -> Tick {
    Tick(START.0 + Tick::from_nanos(since_start.as_nanos() as u64).0)
}

/// A first packet that the router dropped on its own account leaves no entry.
fn fate(kernel: &Shown, injected: &Injected, may_be_dropped: bool) -> Fate {
    let inserted = kernel.events.iter().any(|event| event.kind == EventKind::New);
    let new = kernel.class == Some(conntrack::policy::Class::New);
    if may_be_dropped && new && !inserted && !injected.left { Fate::DroppedIfNew } else { Fate::Forwarded }
}
