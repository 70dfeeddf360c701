//! The loop, one stage a line. It allocates nothing, locks nothing, makes no system call and logs nothing; drivers
//! that stand on the kernel (tap, af_packet) make calls of their own, and so does [`Idle::Sleep`], if asked for.

use std::time::Duration;

use conntrack::event::{Events, Told};
use conntrack::fragment;
use conntrack::key::owner::WorkerId;
use conntrack::policy::DropReason;
use conntrack::tick::{Tick, Ticks};
use conntrack::tracker::{BURST, ExpireBudget, Explained, Outcome, Tracker, Verdict};
use dpdk::burst::Burst;
use dpdk::eal::cycles;
use dpdk::mbuf::Mbuf;

use super::clock::Clock;
use super::follow::{Followed, Following};
use super::handoff::{Errand, Links};
use super::held::Held;
use super::serve::{Desk, FLUSH_SLICE, Serve};
use crate::bus::WorkerEnd;
use crate::bus::report::{Sighting, WorkCounters};
use crate::driver::dpdk::{Egress, Exit, Ingress, QueuePair, Scratch, frames_of};

/// Frames that a worker keeps back at most; the buffers' pool must have as many to spare.
pub const fn held_frames(max_datagrams: u16) -> u32 {
    // Those of a discarded datagram come on top until the end of their burst.
    (fragment::frames_max(max_datagrams) + BURST) as u32
}

/// Datagrams that those frames belong to at most.
const fn held_lists(max_datagrams: u16) -> usize {
    max_datagrams as usize + BURST
}

/// Events that one frame can make: the old flow's DESTROY, and NEW and UPDATE of the one that takes its place.
const EVENTS_PER_FRAME: usize = 3;

/// One of so many bursts from a port is timed; the other ones pay a decrement.
const TIMED: u32 = 64;

/// Turns without work before a worker rests, and before it rests long.
const TURNS_TO_REST: u32 = 256;
const TURNS_TO_REST_LONG: u32 = 1024;

/// The rests of [`Idle::Sleep`]: what a packet may wait at most, when there was little and when there was no traffic.
const REST: Duration = Duration::from_micros(50);
const LONG_REST: Duration = Duration::from_micros(500);

/// What a worker does while there is no work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Asks again at once.
    Poll,
    /// Rests for up to half a millisecond, for machines that have no core to spare.
    Sleep,
}

/// A port as one worker sees it.
#[derive(Debug)]
pub struct Port {
    pub queues: QueuePair,
    /// Where what enters here leaves, as an index of [`Parts::ports`]; `None`: nowhere (mirror).
    pub peer: Option<usize>,
}

/// What a worker is made of.
#[derive(Debug)]
pub struct Parts {
    pub ports: Vec<Port>,
    /// To and from the other workers.
    pub links: Links,
    pub tracker: Tracker,
    /// As the tracker was told.
    pub max_datagrams: u16,
    pub budget: ExpireBudget,
    pub idle: Idle,
    pub clock: Clock,
    pub bus: WorkerEnd,
}

/// The way out of one port.
#[derive(Debug)]
enum Out {
    /// Frames gather for a queue of this worker's own.
    Queue(Box<Staged>),
    /// Another worker sends them.
    Through(WorkerId),
    /// Nothing leaves there.
    Nowhere,
}

/// Frames on their way out of one queue.
#[derive(Debug)]
struct Staged {
    egress: Egress,
    burst: Burst,
}

/// Where the frames of a burst came from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Port(usize),
    /// Another worker; each frame tells its port.
    Ring,
}

impl Source {
    #[inline(always)]
    fn port_of(self, frame: &Mbuf) -> usize {
        match self {
            Self::Port(port) => port,
            Self::Ring => match Errand::of(frame) {
                Errand::Track { port } | Errand::Note { port } | Errand::Send { port } => port,
            },
        }
    }

    #[inline(always)]
    fn came(self, frame: &Mbuf) -> Came {
        Came { port: self.port_of(frame), by_ring: matches!(self, Self::Ring) }
    }
}

/// A frame that waits for the rest of its datagram.
#[derive(Debug)]
struct Waiting {
    frame: Mbuf,
    came: Came,
}

/// How a frame came to this worker.
#[derive(Clone, Copy, Debug)]
struct Came {
    port: usize,
    /// Another worker gave it.
    by_ring: bool,
}

/// A worker between two turns.
#[derive(Debug)]
pub struct Worker {
    inputs: Vec<Input>,
    outs: Vec<Out>,
    links: Links,
    burst: Burst,
    /// What came by a ring, before it is known what for.
    handed: Burst,
    scratch: Scratch,
    /// Frames to free together at the end of a turn's stage.
    dead: Burst,
    outcomes: [Outcome; BURST],
    held: Held<Waiting>,
    /// Fragments' frames are held; else they are done with as they come.
    holds: bool,
    tracker: Tracker,
    events: Events,
    budget: ExpireBudget,
    idle: Idle,
    idle_turns: u32,
    worked: bool,
    clock: Clock,
    expiry_lag: Ticks,
    /// [`Tracker::untold`] as control knows it.
    untold: u64,
    work: WorkCounters,
    /// Bursts until one is timed.
    untimed: u32,
    serve: Serve,
    following: Following,
    bus: WorkerEnd,
}

#[derive(Debug)]
struct Input {
    ingress: Ingress,
    peer: Option<usize>,
}

/// The parts of a worker that a frame's end needs, apart from those that its caller holds.
macro_rules! way {
    ($worker:ident) => {
        Way {
            inputs: &$worker.inputs,
            outs: &mut $worker.outs,
            links: &mut $worker.links,
            dead: &mut $worker.dead,
            work: &mut $worker.work,
            lost: 0,
        }
    };
}

impl Worker {
    /// A worker that is ready to turn; everything that it will ever need is allocated here.
    pub fn new(parts: Parts) -> Self {
        let Parts { ports, links, mut tracker, max_datagrams, budget, idle, clock, bus } = parts;
        let (mut inputs, mut outs) = (Vec::new(), Vec::new());
        for Port { queues: QueuePair { ingress, exit }, peer } in ports {
            inputs.push(Input { ingress, peer });
            outs.push(match exit {
                Exit::Queue(egress) => Out::Queue(Box::new(Staged { egress, burst: Burst::new() })),
                Exit::Through(worker) => Out::Through(WorkerId(worker as u8)),
                Exit::Nowhere => Out::Nowhere,
            });
        }
        let sends = links.sources() > 0 || inputs.iter().any(|input: &Input| input.peer.is_some());
        let room = BURST * EVENTS_PER_FRAME + FLUSH_SLICE as usize + budget.flows as usize;
        let mut events = Events::with_capacity(room);
        events.set_told(Told::Nothing);
        tracker.keep_records();
        Self {
            inputs,
            outs,
            links,
            burst: Burst::new(),
            handed: Burst::new(),
            scratch: Scratch::new(),
            dead: Burst::new(),
            outcomes: [NO_OUTCOME; BURST],
            held: Held::with_capacity(held_frames(max_datagrams), held_lists(max_datagrams)),
            holds: tracker.keeps_payloads() && sends,
            tracker,
            events,
            budget,
            idle,
            idle_turns: 0,
            worked: false,
            clock,
            expiry_lag: Ticks::default(),
            untold: 0,
            work: WorkCounters::default(),
            untimed: 0,
            serve: Serve::new(),
            following: Following::default(),
            bus,
        }
    }

    /// The events that are sent from the first packet on, before control chooses.
    pub fn telling(mut self, told: Told) -> Self {
        self.events.set_told(told);
        self
    }

    /// Turns until control says stop.
    pub fn run(&mut self) {
        while !self.bus.stopped() {
            self.turn();
        }
    }

    /// One turn: a slice of control's work, some bursts from each other worker, one from each port, a slice of expiry.
    #[inline]
    pub fn turn(&mut self) {
        let now = self.read_clock();
        self.worked = self.serve(now);
        // What another worker has begun comes first: a frame lost here has cost more than one lost in a port's queue.
        for ring in 0..self.links.sources() {
            // As many as another worker receives in one turn.
            for _ in 0..self.inputs.len() {
                if !self.take_handed(ring) {
                    break;
                }
                self.track(Source::Ring, now);
                self.finish(Source::Ring);
            }
        }
        for port in 0..self.inputs.len() {
            if self.receive(port) {
                let timed = self.begin_timed();
                self.track(Source::Port(port), now);
                self.finish(Source::Port(port));
                if let Some((begun, packets)) = timed {
                    self.work.latency.add(self.clock.since(begun), packets);
                }
            }
        }
        self.expire(now);
        self.tell();
        self.rest();
    }

    /// The counter's reading and the packets in the burst, if it is one of those that are timed.
    #[inline(always)]
    fn begin_timed(&mut self) -> Option<(u64, u64)> {
        if self.untimed > 0 {
            self.untimed -= 1;
            return None;
        }
        self.untimed = TIMED - 1;
        Some((cycles(), self.burst.len() as u64))
    }

    fn read_clock(&mut self) -> Tick {
        let counter = cycles();
        let spent = self.clock.lap(counter);
        // What lies between two readings belongs to the turn that lies there.
        if self.worked {
            self.work.busy_ns += spent;
        } else {
            self.work.idle_ns += spent;
        }
        self.clock.now(counter)
    }

    fn serve(&mut self, now: Tick) -> bool {
        self.work.held_frames = u64::from(self.held.len());
        self.work.rx_refused = self.inputs.iter().map(|input| refused(&input.ingress)).sum();
        let (inputs, outs) = (&mut self.inputs, &mut self.outs);
        let mut set_running = |port: usize, running: bool| {
            let ingress = inputs.get_mut(port).map(|input| input.ingress.set_running(running));
            let egress = match outs.get_mut(port) {
                Some(Out::Queue(staged)) => staged.egress.set_running(running),
                // Whoever sends for this worker is asked as well.
                Some(Out::Through(_) | Out::Nowhere) | None => true,
            };
            ingress.unwrap_or(false) && egress
        };
        let desk = Desk {
            now,
            tracker: &mut self.tracker,
            clock: &mut self.clock,
            events: &mut self.events,
            work: &self.work,
            expiry_lag: self.expiry_lag,
            following: &mut self.following,
            set_running: &mut set_running,
        };
        self.serve.turn(&self.bus, desk)
    }

    /// What follows the verdicts.
    #[inline(always)]
    fn finish(&mut self, source: Source) {
        self.deal(source);
        self.send();
        self.tell();
    }

    /// Takes what the port has; gives whether there is anything to track.
    fn receive(&mut self, port: usize) -> bool {
        let Some(input) = self.inputs.get_mut(port) else { return false };
        if !input.ingress.has_queue() {
            return false;
        }
        let came = input.ingress.receive(&mut self.burst);
        if came == 0 {
            self.work.polls_empty += 1;
            return false;
        }
        self.worked = true;
        self.work.polls_packets += 1;
        self.work.rx_packets += came as u64;
        // Up to 1, 2, 4, ... frames: the number of bits of one less.
        let size = (usize::BITS - (came - 1).leading_zeros()) as usize;
        if let Some(bursts) = self.work.bursts.get_mut(size) {
            *bursts += 1;
        }
        self.work.rx_bytes += self.burst.iter().map(|frame| frame.len() as u64).sum::<u64>();
        true
    }

    /// Takes a burst that another worker handed over, and stages what is only to be sent; gives whether there was any.
    fn take_handed(&mut self, ring: usize) -> bool {
        let came = self.links.receive(ring, &mut self.handed);
        if came == 0 {
            return false;
        }
        self.worked = true;
        self.work.handed_in += came as u64;
        // Every line of these frames lies in the other worker's cache: all are on their way before the first is read.
        self.handed.iter().for_each(Mbuf::prefetch);
        let mut way = way!(self);
        for frame in self.handed.drain() {
            match Errand::of(&frame) {
                Errand::Track { .. } | Errand::Note { .. } => {
                    frame.prefetch_data();
                    if let Err(frame) = self.burst.push(frame) {
                        way.free(frame);
                    }
                }
                Errand::Send { port } => way.leave(port, frame),
            }
        }
        true
    }

    fn track(&mut self, source: Source, now: Tick) {
        if self.following.is_on() {
            return self.follow(source, now);
        }
        let events = &mut self.events;
        match source {
            Source::Port(port) => {
                let Some(input) = self.inputs.get(port) else { return };
                let frames = input.ingress.frames(&self.burst, &mut self.scratch);
                self.tracker.on_burst(now, &frames, &mut self.outcomes[..frames.len()], events);
            }
            Source::Ring => {
                let (inputs, last) = (&self.inputs, self.inputs.len().saturating_sub(1));
                let came = |frame| {
                    let is_note = matches!(Errand::of(frame), Errand::Note { .. });
                    (&inputs[source.port_of(frame).min(last)].ingress, is_note)
                };
                let frames = frames_of(&self.burst, &mut self.scratch, came);
                self.tracker.on_handed(now, &frames, &mut self.outcomes[..frames.len()], events);
            }
        }
        if !self.tracker.records().is_empty() || self.tracker.untold() != self.untold {
            self.record(source);
        }
    }

    /// As [`Worker::track`], with those packets told that somebody follows.
    #[cold]
    fn follow(&mut self, source: Source, now: Tick) {
        let (inputs, last) = (&self.inputs, self.inputs.len().saturating_sub(1));
        let handed = matches!(source, Source::Ring);
        let came = |frame| {
            let is_note = handed && matches!(Errand::of(frame), Errand::Note { .. });
            (&inputs[source.port_of(frame).min(last)].ingress, is_note)
        };
        let frames = frames_of(&self.burst, &mut self.scratch, came);
        let (burst, bus) = (&self.burst, &self.bus);
        let told = |explained: &Explained| Sighting {
            port: burst.get(usize::from(explained.place)).map_or(0, |frame| source.port_of(frame)) as u16,
            explained: *explained,
        };
        let (tracker, events) = (&mut self.tracker, &mut self.events);
        let mut followed = |explained: &Explained| bus.follow(told(explained));
        let mut recorded = |explained: &Explained| bus.record(told(explained));
        let burst =
            Followed { now, frames: &frames, handed, followed: &mut followed, recorded: &mut recorded };
        let left = self.following.track(burst, tracker, &mut self.outcomes, events);
        bus.leave_unfollowed(left);
        bus.leave_unrecorded(self.tracker.untold());
    }

    /// Records of INVALID and dropped packets to control, and how many of them there are no records of.
    #[cold]
    fn record(&mut self, source: Source) {
        for explained in self.tracker.records() {
            let frame = self.burst.get(usize::from(explained.place));
            let port = frame.map_or(0, |frame| source.port_of(frame)) as u16;
            self.bus.record(Sighting { port, explained: *explained });
        }
        self.tracker.clear_records();
        self.untold = self.tracker.untold();
        self.bus.leave_unrecorded(self.untold);
    }

    /// Frames to where their verdicts send them.
    fn deal(&mut self, source: Source) {
        let mut way = way!(self);
        for (mut frame, outcome) in self.burst.drain().zip(&self.outcomes) {
            let came = source.came(&frame);
            let end = match outcome.verdict {
                // Where nothing is sent on, the tracker's copy is all that is needed, or what it has noted.
                Verdict::Hold(_) if !self.holds => {
                    way.free(frame);
                    continue;
                }
                Verdict::Hold(id) => {
                    if let Err(Waiting { frame, .. }) = self.held.keep(id, Waiting { frame, came }) {
                        way.work.held_full += 1;
                        way.free(frame);
                    }
                    continue;
                }
                Verdict::Forward => End::Forward,
                Verdict::Drop(_) => End::Drop,
                Verdict::HandOff(owner) if !self.holds && outcome.releases.is_some() => {
                    let note = outcome.releases.and_then(|id| self.tracker.note(id));
                    if note.is_some_and(|note| frame.replace(note)) && way.links.fit(owner, 1) {
                        self.tracker.count_told();
                        way.end(came, frame, End::Tell(owner));
                    } else {
                        way.end(came, frame, End::Lose);
                    }
                    continue;
                }
                Verdict::HandOff(owner) => {
                    // A datagram goes whole or not at all: what is left of it would wait in vain.
                    let frames = 1 + outcome.releases.map_or(0, |id| self.held.count(id));
                    match frames == 1 || way.links.fit(owner, frames) {
                        true => End::HandOff(owner),
                        false => End::Lose,
                    }
                }
            };
            if let Some(id) = outcome.releases {
                self.held.release(id, |Waiting { frame, came }| way.end(came, frame, end));
            }
            way.end(came, frame, end);
        }
        while let Some(id) = self.tracker.take_discarded() {
            self.held.release(id, |Waiting { frame, .. }| way.free(frame));
        }
        if way.lost > 0 {
            self.tracker.count_dropped(DropReason::HandOffFull, way.lost);
        }
        self.dead.clear();
    }

    /// What is staged leaves.
    fn send(&mut self) {
        for out in &mut self.outs {
            if let Out::Queue(staged) = out {
                flush(staged, &mut self.work);
            }
        }
        self.links.flush();
    }

    /// Events to control.
    fn tell(&mut self) {
        // None is lost but beside a full buffer.
        if self.events.lines().is_empty() {
            return;
        }
        self.bus.tell(self.events.lines());
        self.events.clear();
        self.bus.lost_earlier(self.events.lost());
    }

    fn expire(&mut self, now: Tick) {
        let expired = self.tracker.on_tick(now, self.budget, &mut self.events);
        self.expiry_lag = expired.lag;
        // There may be more: a table that is being emptied is no time to rest.
        self.worked |= expired.visited > 0;
        while let Some(id) = self.tracker.take_discarded() {
            let dead = &mut self.dead;
            self.held.release(id, |Waiting { frame, .. }| free(dead, frame));
        }
        self.dead.clear();
    }

    fn rest(&mut self) {
        if self.worked {
            self.idle_turns = 0;
            return;
        }
        self.idle_turns = self.idle_turns.saturating_add(1);
        if self.idle == Idle::Poll || self.idle_turns < TURNS_TO_REST {
            return std::hint::spin_loop();
        }
        std::thread::sleep(if self.idle_turns < TURNS_TO_REST_LONG { REST } else { LONG_REST });
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug)]
enum End {
    Forward,
    Drop,
    HandOff(WorkerId),
    /// As a note of its datagram.
    Tell(WorkerId),
    /// The ring to its owner is full.
    Lose,
}

/// Where frames go at the end of a burst.
struct Way<'a> {
    inputs: &'a [Input],
    outs: &'a mut [Out],
    links: &'a mut Links,
    dead: &'a mut Burst,
    work: &'a mut WorkCounters,
    /// Frames that a full ring did not take.
    lost: u64,
}

impl Way<'_> {
    /// What `end` says for a frame that came so.
    #[inline(always)]
    fn end(&mut self, Came { port, by_ring }: Came, frame: Mbuf, end: End) {
        match end {
            End::Forward => match self.inputs.get(port).and_then(|input| input.peer) {
                Some(peer) => self.leave(peer, frame),
                None => self.free(frame),
            },
            End::Drop => self.free(frame),
            End::HandOff(owner) => self.hand(owner, frame, Errand::Track { port }, by_ring),
            End::Tell(owner) => self.hand(owner, frame, Errand::Note { port }, by_ring),
            End::Lose => self.lose(frame),
        }
    }

    #[inline(always)]
    fn hand(&mut self, owner: WorkerId, frame: Mbuf, errand: Errand, by_ring: bool) {
        match self.links.give(owner, frame, errand) {
            // What was handed in counts as handed off already.
            Ok(()) if by_ring => self.work.handed_on += 1,
            Ok(()) => self.work.handed_off += 1,
            Err(frame) => self.lose(frame),
        }
    }

    /// Sends a frame by `port`.
    #[inline(always)]
    fn leave(&mut self, port: usize, frame: Mbuf) {
        match self.outs.get_mut(port) {
            Some(Out::Queue(staged)) => {
                if staged.burst.room() == 0 {
                    flush(staged, self.work);
                }
                if let Err(frame) = staged.burst.push(frame) {
                    free(self.dead, frame);
                }
            }
            Some(&mut Out::Through(worker)) => match self.links.give(worker, frame, Errand::Send { port }) {
                Ok(()) => self.work.sent_through += 1,
                Err(frame) => self.lose(frame),
            },
            Some(Out::Nowhere) | None => self.free(frame),
        }
    }

    #[cold]
    fn lose(&mut self, frame: Mbuf) {
        self.lost += 1;
        self.free(frame);
    }

    fn free(&mut self, frame: Mbuf) {
        free(self.dead, frame);
    }
}

/// Frees a frame together with others.
#[inline(always)]
fn free(dead: &mut Burst, frame: Mbuf) {
    if dead.room() == 0 {
        dead.clear();
    }
    // There is room now; were there none, dropping the frame would free it too.
    let _ = dead.push(frame);
}

/// Sends what is staged; what the port does not take is freed and counted: a link that is slower than its peer must
/// lose frames somewhere, and waiting would lose them on every port.
fn flush(staged: &mut Staged, work: &mut WorkCounters) {
    let frames = staged.burst.len();
    if frames == 0 {
        return;
    }
    let sent = staged.egress.send(&mut staged.burst);
    work.tx_packets += sent as u64;
    work.tx_full += (frames - sent) as u64;
}

/// Frames that were freed as they came in.
fn refused(ingress: &Ingress) -> u64 {
    ingress.refused().total()
}

const NO_OUTCOME: Outcome =
    Outcome { class: None, direction: None, reason: None, verdict: Verdict::Forward, releases: None };

#[cfg(test)]
mod tests {
    use conntrack::policy::{Policy, Role};
    use conntrack::table::memory::Memory;
    use conntrack::track::settings::{Profile, Settings};
    use conntrack::tracker::{Frame, Limits, OnFull};
    use conntrack::wire::{Checksum, Link};

    use super::*;

    /// Eight bytes of a datagram that go on, at `place` times eight bytes.
    fn fragment(id: u16, place: u16) -> [u8; 28] {
        let mut packet = [0; 28];
        packet[..10].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17]);
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6..8].copy_from_slice(&(0x2000 | place).to_be_bytes());
        packet[12..20].copy_from_slice(&[198, 18, 0, 1, 198, 18, 0, 2]);
        let sum: u32 = packet[..20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        packet[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        packet
    }

    #[test]
    fn every_frame_that_the_tracker_holds_finds_room() {
        for max_datagrams in [1, 2, 16, 200] {
            let limits = Limits { max_entries: 16, max_datagrams, hash_key: [1, 2, 3, 4] };
            let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
            let settings = Settings::new(Profile::Linux);
            let mut tracker =
                Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::EarlyDrop, memory).unwrap();
            let mut held = Held::with_capacity(held_frames(max_datagrams), held_lists(max_datagrams));
            // Long datagrams first, then ever new ones that push each other out within one burst.
            let long = (0..max_datagrams).flat_map(|id| (0..60).map(move |place| (id, place)));
            let short = (0..2_000).map(|id| (10_000 + id, 0));
            let packets: Vec<_> = long.chain(short).map(|(id, place)| fragment(id, place)).collect();
            for burst in packets.chunks(BURST) {
                let frames: Vec<_> = burst
                    .iter()
                    .map(|bytes| Frame {
                        bytes,
                        link: Link::Ip,
                        role: Role::Inside,
                        zone: 0,
                        checksum: Checksum::Unknown,
                    })
                    .collect();
                let mut outcomes = [NO_OUTCOME; BURST];
                tracker.on_burst(Tick(1), &frames, &mut outcomes, &mut Events::none());
                for outcome in &outcomes[..frames.len()] {
                    let Verdict::Hold(id) = outcome.verdict else { continue };
                    assert!(
                        held.keep(id, ()).is_ok(),
                        "{max_datagrams} datagrams, {} frames held",
                        held.len()
                    );
                }
                while let Some(id) = tracker.take_discarded() {
                    held.release(id, |()| ());
                }
                assert_eq!(held.len() as usize, tracker.fragments().frames());
            }
            assert!(tracker.fragments().evicted() > 0);
        }
    }
}
