//! One program to the kernel and to the tracker, step by step, until they part.

use std::collections::BTreeMap;
use std::time::Duration;

use conntrack::tick::{PER_SECOND, Tick};
use conntrack::wire::Checksum;

use crate::compare::{Difference, Slack, agree, differences};
use crate::kernel::{Injected, Kernel, Watch, coarse_time};
use crate::play::{Fate, Player};
use crate::program::{Program, Step, describe};
use crate::settings::KernelSettings;
use crate::shown::{Entry, EventKind, Shown, class_text};

/// The tracker's clock at the start: its low 32 bits turn over while timed programs run. They have done so once before: a
/// flow is also shown as of some ticks before it began, and those go back a whole turn.
const START: Tick = Tick((2 << 32) - 1000);
/// A program in which no time passes must be over before any remaining time has lost its second second.
const UNTIMED_LIMIT: Duration = Duration::from_millis(900);
/// In ticks, how near a whole second's distance from an earlier burst a packet may come for what happens not to hang on
/// the moment: the kernel's tick (10 ms at most) and the tracker's may begin at different times, and each rounds to its own.
const TOO_CLOSE: u64 = 4;
/// No burst begins nearer than this, so that there is time for it.
const BEGIN_CLEAR: u64 = 2 * TOO_CLOSE;
/// How long a burst waits that would begin too near, and how often.
const NOT_NOW: Duration = Duration::from_millis(10);
const NOT_NOW_TIMES: u32 = 100;
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

/// What a program with gaps asks for.
#[derive(Debug)]
pub enum Next {
    /// Its next burst, that much after this one was due.
    Gap(Duration),
    /// To be asked again after that time: nothing was sent.
    NotNow(Duration),
    /// Nothing more.
    Over(End),
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

/// What the programs have met so far, so that a run that agrees can show that it asked.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    /// Adds what another lane has met.
    pub fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, count)| *self.0.entry(what.clone()).or_default() += count);
    }

    /// Each thing and how often, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(what, count)| (what.as_str(), *count))
    }

    fn meet(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// One packet: what was said of it, and the cell of TCP's or SCTP's table that it touched.
    fn packet(&mut self, bytes: &[u8], before: &[Entry], after: &Shown, reason: Option<&str>) {
        self.meet(format!("class {}", class_text(after.class, after.direction)));
        if let Some(reason) = reason {
            self.meet(format!("reason {reason}"));
        }
        // Which flow it belonged to is plain where there is only one.
        if let [flow] = before {
            let state = flow.state.unwrap_or("-");
            let kind = describe::kind(bytes);
            let class = class_text(after.class, after.direction);
            let new = match after.entries.as_slice() {
                [same] if same.n == flow.n => same.state.unwrap_or("-"),
                [_] => "a new flow",
                _ => "gone or joined",
            };
            self.meet(format!("{kind} in {state}: {class}, {new}"));
        }
    }
}

/// A program on its way.
pub struct Lane {
    coverage: Option<Coverage>,
    before: Vec<Entry>,
    program: Program,
    settings: KernelSettings,
    next: usize,
    watch: Watch,
    player: Player,
    kernel: Shown,
    ours: Shown,
    /// From before each burst's first packet until after its last.
    bursts: Vec<(Tick, Tick)>,
    /// How often the next burst was put off.
    put_off: u32,
}

impl Lane {
    /// Ready to run programs.
    pub fn new() -> Self {
        Self {
            coverage: None,
            before: Vec::new(),
            program: Program { seed: 0, index: 0, settings: Vec::new(), steps: Vec::new() },
            settings: KernelSettings::default(),
            next: 0,
            watch: Watch::default(),
            player: Player::new(MAX_FLOWS),
            kernel: Shown::default(),
            ours: Shown::default(),
            bursts: Vec::new(),
            put_off: 0,
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
        self.before.clear();
        self.bursts.clear();
        self.put_off = 0;
        Ok(())
    }

    /// From now on, notes what programs meet; gives what was met.
    pub fn coverage(&mut self) -> &Coverage {
        self.coverage.get_or_insert_default()
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
        let clock = Clock::start();
        let mut end = End::Agreed;
        while self.next < self.program.steps.len() {
            if let Some(parting) = self.untimed_step(kernel)? {
                end = End::Parted(Box::new(parting));
                break;
            }
        }
        self.leave(kernel)?;
        Ok(if clock.elapsed() > UNTIMED_LIMIT { End::Late } else { end })
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
                self.note(at);
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

    /// Runs the steps up to the next gap.
    pub fn burst(&mut self, kernel: &mut Kernel, clock: Clock) -> Result<Next, String> {
        let now = clock.tick();
        if too_close(&self.bursts, (now, now), BEGIN_CLEAR) {
            self.put_off += 1;
            let late = self.put_off > NOT_NOW_TIMES;
            return Ok(if late { Next::Over(End::Late) } else { Next::NotNow(NOT_NOW) });
        }
        self.put_off = 0;
        self.bursts.push((now, now));
        while let Some(step) = self.program.steps.get(self.next) {
            let at = self.next;
            self.next += 1;
            match step {
                Step::Wait(ms) => return Ok(Next::Gap(Duration::from_millis((*ms).into()))),
                Step::Set(name, value) => self.set(kernel, name, *value)?,
                Step::Packet { side, bytes, may_be_dropped } => {
                    let from = clock.tick();
                    let injected = kernel.inject(*side, bytes, *may_be_dropped);
                    kernel.show(&mut self.watch, &mut self.kernel)?;
                    let until = clock.tick();
                    if too_close(&self.bursts, (from, until), TOO_CLOSE) {
                        return Ok(Next::Over(End::Late));
                    }
                    if let Some((_, last)) = self.bursts.last_mut() {
                        *last = until;
                    }
                    let fate = fate(&self.kernel, &injected, *may_be_dropped);
                    self.player.packet(from, bytes, Checksum::Unknown, fate, &mut self.ours);
                    allow_for_clocks(&mut self.player, &self.kernel, &mut self.ours, (from, until));
                    let slack = Slack { below: 0, above: 0, skip_destroy: true };
                    if let Some(parting) = self.judge(at, slack) {
                        return Ok(Next::Over(End::Parted(Box::new(parting))));
                    }
                }
            }
        }
        Ok(Next::Over(End::Agreed))
    }

    /// Notes the last packet, if anybody wants to know.
    fn note(&mut self, step: usize) {
        if let (Some(coverage), Some(Step::Packet { bytes, .. })) =
            (&mut self.coverage, self.program.steps.get(step))
        {
            coverage.packet(bytes, &self.before, &self.ours, self.player.reason());
            self.before.clone_from(&self.ours.entries);
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

/// Whether something that happens between two moments, and `margin` ticks before and after, may be less than a whole
/// number of seconds after some packet of these bursts, or more: timeouts are whole seconds.
fn too_close(bursts: &[(Tick, Tick)], (from, until): (Tick, Tick), margin: u64) -> bool {
    bursts.iter().any(|(first, last)| {
        let (least, most) = ((from.0 - last.0).saturating_sub(margin), until.0 - first.0 + margin);
        least / u64::from(PER_SECOND) != most / u64::from(PER_SECOND)
    })
}

/// Takes the kernel's seconds over where they lie between what our clock gives at two moments: the kernel was asked
/// between them, and may begin its ticks at other times than we do.
pub fn allow_for_clocks(player: &mut Player, kernel: &Shown, ours: &mut Shown, (from, until): (Tick, Tick)) {
    let (mut early, mut late) = (Shown::default(), Shown::default());
    player.entries_at(Tick(from.0 - TOO_CLOSE), &mut early);
    player.entries_at(Tick(until.0 + TOO_CLOSE), &mut late);
    for entry in &mut ours.entries {
        // All three are sorted by number.
        let seconds = |shown: &Shown| {
            let at = shown.entries.binary_search_by_key(&entry.n, |other| other.n).ok()?;
            shown.entries.get(at).map(|other| other.timeout)
        };
        if let (Some(seen), Some(high), Some(low)) = (seconds(kernel), seconds(&early), seconds(&late)) {
            entry.timeout = if (low..=high).contains(&seen) { seen } else { high };
        }
    }
    let mut announced = kernel.events.iter().filter(|event| event.kind != EventKind::Destroy);
    for event in ours.events.iter_mut().filter(|event| event.kind != EventKind::Destroy) {
        if let (Some(seen), Some(own)) = (announced.next().and_then(|event| event.timeout), event.timeout)
            && seen.abs_diff(own) <= 1
        {
            event.timeout = Some(seen);
        }
    }
}

/// The kernel's time in the tracker's ticks. Timeouts go by jiffies, which stand still where a hypervisor takes cores
/// away and the timer's interrupt comes late, for tenths of a second at times.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Duration);

impl Clock {
    /// Starts now, shortly before the tick's low 32 bits turn over.
    pub fn start() -> Self {
        Self(coarse_time())
    }

    /// This moment.
    pub fn tick(&self) -> Tick {
        Tick(START.0 + Tick::from_nanos(self.elapsed().as_nanos() as u64).0)
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        coarse_time().saturating_sub(self.0)
    }
}

/// A first packet that the router dropped on its own account leaves no entry.
fn fate(kernel: &Shown, injected: &Injected, may_be_dropped: bool) -> Fate {
    let inserted = kernel.events.iter().any(|event| event.kind == EventKind::New);
    let new = kernel.class == Some(conntrack::policy::Class::New);
    if may_be_dropped && new && !inserted && !injected.left { Fate::DroppedIfNew } else { Fate::Forwarded }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::program::rng::Rng;

    const SECOND: u64 = PER_SECOND as u64;

    fn span(from: u64, until: u64) -> (Tick, Tick) {
        (Tick(START.0 + from), Tick(START.0 + until))
    }

    #[test]
    fn only_around_whole_seconds_after_a_burst_is_too_close() {
        let burst = [span(0, 0)];
        let close = |at| too_close(&burst, span(at, at), TOO_CLOSE);
        let found: Vec<u64> = (0..2 * SECOND + SECOND / 2).filter(|at| close(*at)).collect();
        let around = |whole: u64| whole - TOO_CLOSE..whole + TOO_CLOSE;
        assert_eq!(found, around(SECOND).chain(around(2 * SECOND)).collect::<Vec<_>>());
    }

    #[test]
    fn a_packet_that_took_so_long_that_a_second_ended_is_too_close() {
        let burst = [span(0, 0)];
        assert!(!too_close(&burst, span(10, 200), TOO_CLOSE));
        assert!(too_close(&burst, span(10, 260), TOO_CLOSE));
        assert!(too_close(&burst, span(260, 510), TOO_CLOSE));
        // Nor is it known when in such a burst the kernel's own timeout began.
        let long = [span(0, 190)];
        assert!(too_close(&long, span(300, 300), TOO_CLOSE));
        assert!(!too_close(&long, span(445, 445), TOO_CLOSE));
        // Its own burst may take less than a second.
        assert!(!too_close(&long, span(190, 240), TOO_CLOSE));
        assert!(too_close(&long, span(190, 250), TOO_CLOSE));
        assert!(!too_close(&[], span(190, 2000), TOO_CLOSE));
    }

    #[test]
    fn close_is_where_seconds_passed_may_be_two_numbers() {
        let mut rng = Rng::new(7, 0);
        let mut below = |limit: u64| u64::from(rng.below(limit as u32));
        for _ in 0..2000 {
            let (first, margin) = (below(300), below(8));
            let last = first + below(30);
            let from = last + below(600);
            let until = from + below(30);
            // Every moment of the burst, every one of the packet, and every error of the clocks.
            let numbers: BTreeSet<u64> = (first..=last)
                .flat_map(|begun| {
                    (from..=until + 2 * margin).map(move |now| now.saturating_sub(begun + margin))
                })
                .map(|passed| passed / SECOND)
                .collect();
            let close = too_close(&[span(first, last)], span(from, until), margin);
            assert_eq!(close, numbers.len() > 1, "{first}..{last} {from}..{until} {margin}");
        }
    }
}
