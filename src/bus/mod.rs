//! All that crosses threads: commands to a worker and back, events out of it.
//! Every queue is bounded, and full is counted. Nothing here blocks or makes a system call.

pub mod agreement;
pub mod command;
pub mod report;
pub mod ring;

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use command::Ticket;
use conntrack::event::{Event, EventKind, Line};
use report::Sighting;
use ring::Ring;
use rtrb::{Consumer, Producer, RingBuffer};

/// Commands on their way to one worker, and as many answers on their way back.
pub const COMMANDS: usize = 16;

/// Lines of events on their way out of one worker, of which an event takes one or two: at 100,000 events a second of two
/// lines each, what gathers in 80 ms.
pub const EVENT_LINES: usize = 16_384;

/// Records of INVALID and dropped packets that one worker keeps: the last ones, read or not.
pub const RECORDS: usize = 512;

/// Followed packets on their way out of one worker: what may gather in a second.
pub const FOLLOWED: usize = 1024;

/// The queues between control and one worker.
#[derive(Debug)]
struct Queues {
    commands: Ring<Ticket>,
    answers: Ring<Ticket>,
    /// Events that found no room.
    refused: AtomicU64,
    /// Those of them that told of a flow's end.
    ends_refused: AtomicU64,
    /// Events lost before they came here.
    lost_earlier: AtomicU64,
    records: Ring<Sighting>,
    /// INVALID and dropped packets of which there is no record.
    unrecorded: AtomicU64,
    followed: Ring<Sighting>,
    /// Packets that passed without a look, because too many had been followed.
    unfollowed: AtomicU64,
    stop: AtomicBool,
}

impl Queues {
    fn events_lost(&self) -> u64 {
        self.refused.load(Ordering::Relaxed) + self.lost_earlier.load(Ordering::Relaxed)
    }
}

/// Control's end.
#[derive(Debug)]
pub struct ControlEnd {
    queues: Arc<Queues>,
    events: Consumer<Line>,
}

/// The worker's end. Events go by another kind of ring than the rest: `docs/decisions/0011-events-cross-cores-in-batches.md`.
#[derive(Debug)]
pub struct WorkerEnd {
    queues: Arc<Queues>,
    events: Producer<Line>,
}

/// Both ends of a new set of queues; all of their memory is taken here.
pub fn pair() -> (ControlEnd, WorkerEnd) {
    let queues = Arc::new(Queues {
        commands: Ring::with_capacity(COMMANDS),
        // The control side never has more tickets out than this, so an answer always finds room.
        answers: Ring::with_capacity(COMMANDS),
        refused: AtomicU64::new(0),
        ends_refused: AtomicU64::new(0),
        lost_earlier: AtomicU64::new(0),
        records: Ring::with_capacity(RECORDS),
        unrecorded: AtomicU64::new(0),
        followed: Ring::with_capacity(FOLLOWED),
        unfollowed: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let (mut into, out_of) = RingBuffer::new(EVENT_LINES);
    take_memory(&mut into);
    (ControlEnd { queues: Arc::clone(&queues), events: out_of }, WorkerEnd { queues, events: into })
}

/// Writes to every place of an empty ring, which has only reserved its memory: else the worker would wait for the kernel to
/// give it, page by page.
fn take_memory<T>(ring: &mut Producer<T>) {
    if let Ok(mut places) = ring.write_chunk_uninit(ring.slots()) {
        let (first, second) = places.as_mut_slices();
        first.iter_mut().chain(second).for_each(|place| *place = MaybeUninit::zeroed());
    }
}

impl ControlEnd {
    /// Sends a command, or gives it back when [`COMMANDS`] wait already.
    pub fn send(&self, ticket: Ticket) -> Result<(), Ticket> {
        self.queues.commands.push(ticket)
    }

    /// The next command that came back with its answer.
    pub fn next_answer(&self) -> Option<Ticket> {
        self.queues.answers.pop()
    }

    /// Moves the oldest events to the end of `taken`, as many as it has room for. Their places are free again all at once, so
    /// that a worker that waits for room does not look after each.
    pub fn take_events(&mut self, taken: &mut Vec<Event>) {
        let waiting = self.events.slots();
        let Ok(chunk) = self.events.read_chunk(waiting) else { return };
        let (first, second) = chunk.as_slices();
        let mut read = 0;
        let mut lines = first.iter().chain(second).inspect(|_| read += 1);
        while taken.len() < taken.capacity()
            && let Some(event) = Event::read(&mut lines)
        {
            taken.push(event);
        }
        chunk.commit(read);
    }

    /// Events lost on their way out, since the start.
    pub fn events_lost(&self) -> u64 {
        self.queues.events_lost()
    }

    /// Those of [`ControlEnd::events_lost`] that told, or may have told, of a flow's end.
    pub fn ends_lost(&self) -> u64 {
        self.queues.ends_refused.load(Ordering::Relaxed) + self.queues.lost_earlier.load(Ordering::Relaxed)
    }

    /// The oldest record of an INVALID or dropped packet that has not been taken.
    pub fn next_record(&self) -> Option<Sighting> {
        self.queues.records.pop()
    }

    /// INVALID and dropped packets of which there is no record, or none any more, since the start.
    pub fn unrecorded(&self) -> u64 {
        self.queues.records.refused() + self.queues.unrecorded.load(Ordering::Relaxed)
    }

    /// The next packet that was followed.
    pub fn next_followed(&self) -> Option<Sighting> {
        self.queues.followed.pop()
    }

    /// Packets that were not followed, or not looked at, because there were too many, since the start.
    pub fn unfollowed(&self) -> u64 {
        self.queues.followed.refused() + self.queues.unfollowed.load(Ordering::Relaxed)
    }

    /// Whether the worker has ended: what is in the rings is all.
    pub fn is_alone(&self) -> bool {
        self.events.is_abandoned()
    }

    /// Something by which the worker can be told to end after its present turn.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.queues))
    }
}

/// Ends a worker; see [`ControlEnd::stopper`].
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Queues>);

impl Stopper {
    /// The worker ends after its present turn.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

impl WorkerEnd {
    /// The next command to serve.
    #[inline]
    pub fn next_command(&self) -> Option<Ticket> {
        self.queues.commands.pop()
    }

    /// Sends a served command back.
    pub fn answer(&self, ticket: Ticket) {
        let sent = self.queues.answers.push(ticket);
        debug_assert!(sent.is_ok(), "more tickets out than answers have room for");
    }

    /// Sends events, which are these lines; those that find no room are counted as refused.
    #[inline]
    pub fn tell(&mut self, lines: &[Line]) {
        if self.events.push_entire_slice(lines).is_err() {
            self.tell_first(lines);
        }
    }

    /// Sends as many of the first as there is room for: a slow reader loses, and is told how many.
    #[cold]
    fn tell_first(&mut self, lines: &[Line]) {
        let room = self.events.slots();
        let mut told = 0;
        while let Some(line) = lines.get(told) {
            let end = told + 1 + usize::from(line.has_rest());
            if end > room {
                break;
            }
            told = end;
        }
        let (told, lost) = lines.split_at(told);
        let sent = self.events.push_entire_slice(told);
        debug_assert!(sent.is_ok(), "room goes away");
        let mut lost = lost.iter();
        let (mut events, mut ends) = (0, 0);
        while let Some(event) = Event::read(&mut lost) {
            events += 1;
            ends += u64::from(matches!(event.kind, EventKind::Destroy(_)));
        }
        self.queues.refused.fetch_add(events, Ordering::Relaxed);
        self.queues.ends_refused.fetch_add(ends, Ordering::Relaxed);
    }

    /// Says how many events were lost before [`WorkerEnd::tell`], since the start.
    #[inline]
    pub fn lost_earlier(&self, total: u64) {
        self.queues.lost_earlier.store(total, Ordering::Relaxed);
    }

    /// Keeps a record of an INVALID or dropped packet, in the place of the oldest if need be.
    pub fn record(&self, told: Sighting) {
        self.queues.records.push_over(told);
    }

    /// Says how many INVALID and dropped packets were not recorded, since the start.
    pub fn leave_unrecorded(&self, total: u64) {
        self.queues.unrecorded.store(total, Ordering::Relaxed);
    }

    /// Tells of a packet that was followed, or counts it.
    pub fn follow(&self, told: Sighting) {
        let _ = self.queues.followed.push(told);
    }

    /// Counts packets that passed without a look, because too many had been followed.
    pub fn leave_unfollowed(&self, packets: u64) {
        self.queues.unfollowed.fetch_add(packets, Ordering::Relaxed);
    }

    /// See [`ControlEnd::events_lost`].
    pub fn events_lost(&self) -> u64 {
        self.queues.events_lost()
    }

    /// Whether this worker has been told to end.
    #[inline]
    pub fn stopped(&self) -> bool {
        self.queues.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use conntrack::event::{DestroyReason, Events};
    use conntrack::policy::{Policy, Role};
    use conntrack::table::memory::Memory;
    use conntrack::tick::Tick;
    use conntrack::track::settings::{Profile, Settings};
    use conntrack::tracker::{Frame, Limits, OnFull, Outcome, Tracker, Verdict};
    use conntrack::wire::{Checksum, Link};

    use super::*;

    /// What a tracker tells of the beginning of an IPv4 flow.
    pub(crate) fn event() -> Event {
        told_of(&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0xa9, 0xd9, 10, 0, 0, 1, 198, 18, 0, 1])
    }

    /// The same of an IPv6 flow, which takes two lines.
    fn long_event() -> Event {
        let mut packet = [0; 40];
        (packet[0], packet[6], packet[7]) = (0x60, 253, 64);
        (packet[8], packet[23], packet[24], packet[39]) = (0x20, 1, 0x20, 2);
        told_of(&packet)
    }

    /// These events, as a worker has them.
    pub(crate) fn lines(events: &[Event]) -> Vec<Line> {
        let lines =
            |event: &Event| event.lines().into_iter().take(1 + usize::from(event.lines()[0].has_rest()));
        events.iter().flat_map(lines).collect()
    }

    fn told_of(bytes: &[u8]) -> Event {
        let limits = Limits { max_entries: 1, max_datagrams: 1, hash_key: [1, 2, 3, 4] };
        let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
        let settings = Settings::new(Profile::Linux);
        let mut tracker =
            Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::DropNew, memory).unwrap();
        let frame = Frame { bytes, link: Link::Ip, role: Role::Inside, zone: 0, checksum: Checksum::Unknown };
        let mut events = Events::with_capacity(1);
        tracker.on_burst(Tick(1), &[frame], &mut [Outcome::untold(Verdict::Forward)], &mut events);
        events.iter().next().unwrap()
    }

    #[test]
    fn events_that_find_no_room_are_counted_and_those_of_ends_apart() {
        let (mut control, mut worker) = pair();
        let begins = event();
        let ends = Event { kind: EventKind::Destroy(DestroyReason::Closed), ..begins };
        worker.tell(&lines(&vec![begins; EVENT_LINES - 3]));
        worker.tell(&lines(&[ends, ends, ends, begins, ends, ends]));
        worker.tell(&lines(&[begins]));
        worker.lost_earlier(5);
        assert_eq!((control.events_lost(), worker.events_lost(), control.ends_lost()), (4 + 5, 4 + 5, 2 + 5));

        let mut taken = Vec::with_capacity(EVENT_LINES - 1);
        control.take_events(&mut taken);
        assert!(taken.len() == EVENT_LINES - 1 && taken[EVENT_LINES - 2].kind == ends.kind);
        worker.tell(&lines(&[begins; 2]));
        control.take_events(&mut taken);
        assert_eq!(taken.len(), EVENT_LINES - 1, "there is room for no more");
        taken.clear();
        control.take_events(&mut taken);
        let kinds: Vec<_> = taken.iter().map(|event| event.kind).collect();
        assert_eq!((kinds, control.events_lost()), (vec![ends.kind, begins.kind, begins.kind], 4 + 5));
    }

    #[test]
    fn an_event_of_two_lines_finds_room_for_both_or_none() {
        let (mut control, mut worker) = pair();
        let (short, long) = (event(), long_event());
        let mut taken = Vec::with_capacity(EVENT_LINES);
        // The second time from the ring's last place, so that the two lie at its end and its beginning.
        for before in [1, 0, 2] {
            worker.tell(&lines(&vec![short; before]));
            worker.tell(&lines(&vec![long; EVENT_LINES / 2]));
            let told = EVENT_LINES / 2 - before.div_ceil(2);
            // With less room than it needs, as control takes them.
            let mut some = Vec::with_capacity(7);
            while {
                some.clear();
                control.take_events(&mut some);
                !some.is_empty()
            } {
                taken.append(&mut some);
            }
            assert!(taken[..before].iter().all(|event| *event == short));
            assert!(taken[before..].iter().all(|event| *event == long));
            assert_eq!(taken.len(), before + told);
            taken.clear();
        }
        assert_eq!(control.events_lost(), 2);

        worker.tell(&lines(&vec![short; EVENT_LINES - 1]));
        worker.tell(&lines(&[long, short]));
        assert_eq!(control.events_lost(), 4, "none overtakes one that was lost with it");
        worker.tell(&lines(&[short]));
        control.take_events(&mut taken);
        assert_eq!((taken.len(), control.events_lost()), (EVENT_LINES, 4));
    }

    /// Pages that the kernel has given to this thread when it first touched them.
    fn faults() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, numbers) = stat.rsplit_once(')').unwrap();
        numbers.split_ascii_whitespace().nth(7).unwrap().parse().unwrap()
    }

    #[test]
    fn a_worker_that_tells_waits_for_no_page() {
        let (_control, mut worker) = pair();
        let burst = lines(&[event(); 64]);
        let before = faults();
        (0..EVENT_LINES / burst.len()).for_each(|_| worker.tell(&burst));
        let (faults, pages) = (faults() - before, (EVENT_LINES * size_of::<Line>()) as u64 / 4096);
        assert_eq!(worker.events_lost(), 0);
        assert!(faults < pages / 8, "{faults} faults in a ring of {pages} pages");
    }
}
