//! Events from the workers' rings to every reader of `GET /v1/events`, and flows' ends to the exports. Owns which events
//! workers send.
//! A slow reader loses events and is told how many; it slows nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Mutex, Notify, broadcast};

use super::desk::{NoAnswer, Workers};
use super::schema::{EventLine, Flow};
use crate::bus::EVENT_LINES;
use crate::bus::command::Command;
use crate::export::{Exports, Record};
use conntrack::event::{Event, EventKind, FlowView, Told};
use conntrack::track::timeout::Timeouts;
use conntrack::wire::Tags;

/// Lines that a reader may be behind before it loses some: at 100,000 events a second, what gathers in 160 ms.
const BACKLOG: usize = 16_384;

/// Events that are taken out of a ring together.
const TOGETHER: usize = 256;

/// As many of those as a ring holds at most.
const BATCHES: usize = EVENT_LINES / TOGETHER;

/// How often the rings are emptied: an eighth of the time in which they fill at 100,000 events a second of two lines each.
const PERIOD: Duration = Duration::from_millis(10);

/// One line of JSON, made once for all readers.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) json: Bytes,
    /// What each reader's filter looks at; `None` for lines that every reader gets.
    pub(super) event: Option<Arc<(EventKind, FlowView)>>,
}

/// The readers.
pub(super) struct Hub {
    lines: broadcast::Sender<Line>,
    /// Which events the workers send; `None` where they were asked and not all have answered, or nobody waited for it.
    listening: Mutex<Option<Told>>,
    /// Lines that readers were too slow for, each reader's together.
    missed: AtomicU64,
    wake: Notify,
    exports: Exports,
    words: Words,
}

/// What is said of events beside what they hold.
pub(super) struct Words {
    pub(super) classic: bool,
    /// What the wall clock, as it is set now, would have read when the machine booted.
    pub(super) boot_unix_ms: fn() -> u64,
    pub(super) community_id_seed: u16,
    /// The timeouts as they are now.
    pub(super) timeouts: Box<dyn Fn() -> Timeouts + Send + Sync>,
    /// The VLANs of a zone.
    pub(super) tags_of: Box<dyn Fn(u16) -> Tags + Send + Sync>,
}

/// One who reads every line from now on.
pub(super) struct Reader {
    lines: broadcast::Receiver<Line>,
    hub: Arc<Hub>,
}

impl Reader {
    /// The next line, or that some were missed; `None` at the end of all.
    pub(super) async fn next(&mut self) -> Option<Line> {
        match self.lines.recv().await {
            Ok(line) => Some(line),
            Err(RecvError::Lagged(count)) => Some(self.hub.miss(count)),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next line, if it is there already.
    pub(super) fn next_now(&mut self) -> Option<Line> {
        match self.lines.try_recv() {
            Ok(line) => Some(line),
            Err(TryRecvError::Lagged(count)) => Some(self.hub.miss(count)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

impl Hub {
    /// The workers already tell what `exports` need.
    pub(super) fn new(exports: Exports, words: Words) -> Self {
        let listening = Mutex::new(Some(unread(&exports)));
        let missed = AtomicU64::new(0);
        Self {
            lines: broadcast::Sender::new(BACKLOG),
            listening,
            missed,
            wake: Notify::new(),
            exports,
            words,
        }
    }

    /// Where flow records go.
    pub(super) fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Lines that readers were too slow for, since the start.
    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    fn miss(&self, count: u64) -> Line {
        self.missed.fetch_add(count, Ordering::Relaxed);
        Line { json: json_line(&EventLine::Lost { count }), event: None }
    }

    /// A new reader; every event that happens after this returns will reach it or be counted as lost.
    pub(super) async fn subscribe(self: &Arc<Self>, workers: &Workers) -> Result<Reader, NoAnswer> {
        let mut listening = self.listening.lock().await;
        let reader = Reader { lines: self.lines.subscribe(), hub: Arc::clone(self) };
        if *listening != Some(Told::All) {
            // The pump is awake before the first worker is told, and stays so until all are quiet again: whoever asks may
            // go away in the middle of this, and a worker may not answer.
            *listening = None;
            self.wake.notify_one();
            listen(workers, Told::All).await?;
            *listening = Some(Told::All);
        }
        Ok(reader)
    }

    /// Moves events to the readers and records to the exports; runs as long as the control thread does.
    pub(super) async fn pump(self: Arc<Self>, workers: Arc<Workers>) {
        loop {
            // While all are quiet this stands still. Read after the wake, it would hide what is lost before we run.
            let mut lost = workers.events_lost();
            if self.exports.is_empty() {
                self.wake.notified().await;
            }
            loop {
                self.drain_all(&workers).await;
                self.exports.lost_earlier(workers.ends_lost());
                let lost_now = workers.events_lost();
                if lost_now > lost {
                    self.say(&EventLine::Lost { count: lost_now - lost }, None);
                    lost = lost_now;
                }
                if self.lines.receiver_count() == 0 && self.alone(&workers).await {
                    break;
                }
                tokio::time::sleep(PERIOD).await;
            }
        }
    }

    /// [`Hub::stop_if_alone`], while rings are emptied on: a worker that does not answer must not cost the others' records.
    async fn alone(&self, workers: &Workers) -> bool {
        let mut stopped = std::pin::pin!(self.stop_if_alone(workers));
        loop {
            tokio::select! {
                stopped = &mut stopped => return stopped,
                () = tokio::time::sleep(PERIOD) => self.drain_all(workers).await,
            }
        }
    }

    async fn drain_all(&self, workers: &Workers) {
        let mut taken = Vec::with_capacity(TOGETHER);
        for worker in 0..workers.len() {
            // One ring's worth, so that a storm of one worker's events does not starve the others.
            for _ in 0..BATCHES {
                let more = self.take(workers, worker, &mut taken);
                tokio::task::yield_now().await;
                if !more {
                    break;
                }
            }
        }
    }

    /// Takes what the workers told before they ended, and what they say of the rest.
    pub(super) fn drain(&self, workers: &Workers) {
        let mut taken = Vec::with_capacity(TOGETHER);
        for worker in 0..workers.len() {
            let mut left = BATCHES;
            while left > 0 && self.take(workers, worker, &mut taken) {
                left -= 1;
            }
        }
        self.exports.lost_earlier(workers.ends_lost());
    }

    /// Passes on the oldest of what one worker has told. Gives whether there may be more of it.
    fn take(&self, workers: &Workers, worker: usize, taken: &mut Vec<Event>) -> bool {
        let timeouts = (self.words.timeouts)();
        let boot_unix_ms = (self.words.boot_unix_ms)();
        let Words { classic, community_id_seed, ref tags_of, .. } = self.words;
        taken.clear();
        workers.take_events(worker, taken);
        for event in &*taken {
            if !self.exports.is_empty()
                && let Some(record) = Record::new(event, &timeouts, boot_unix_ms, tags_of)
            {
                self.exports.tell(&record);
            }
            if self.lines.receiver_count() > 0 {
                let view = event.flow();
                let unix_ms = boot_unix_ms + event.at().as_millis();
                let flow = Flow::new(&view, classic).identified(&view, community_id_seed);
                self.say(&EventLine::new(event.kind, unix_ms, flow), Some(Arc::new((event.kind, view))));
            }
        }
        taken.len() == taken.capacity()
    }

    fn say(&self, line: &EventLine, event: Option<Arc<(EventKind, FlowView)>>) {
        // Nobody may be left to hear it.
        let _ = self.lines.send(Line { json: json_line(line), event });
    }

    /// Gives whether nothing is left to move.
    async fn stop_if_alone(&self, workers: &Workers) -> bool {
        let mut listening = self.listening.lock().await;
        if self.lines.receiver_count() > 0 {
            return false;
        }
        let unread = unread(&self.exports);
        if *listening != Some(unread) {
            *listening = None;
            if listen(workers, unread).await.is_err() {
                return false;
            }
            *listening = Some(unread);
        }
        if unread != Told::Nothing {
            return false;
        }
        // What is left over was for readers that are gone.
        let mut taken = Vec::with_capacity(EVENT_LINES);
        for worker in 0..workers.len() {
            workers.take_events(worker, &mut taken);
            taken.clear();
        }
        true
    }
}

/// What workers tell while nobody reads events.
fn unread(exports: &Exports) -> Told {
    if exports.is_empty() { Told::Nothing } else { Told::Ends }
}

async fn listen(workers: &Workers, told: Told) -> Result<(), NoAnswer> {
    let answers = workers.ask_all(|| Command::Listen(told)).await;
    answers.into_iter().try_for_each(|answer| answer.map(drop))
}

/// A value as one line of JSON.
pub(super) fn json_line<T: serde::Serialize>(value: &T) -> Bytes {
    let mut line = Vec::with_capacity(512);
    write_line(&mut line, value);
    Bytes::from(line)
}

/// Appends a value as one line of JSON.
pub(super) fn write_line<T: serde::Serialize>(out: &mut Vec<u8>, value: &T) {
    // Our own types have neither maps with odd keys nor failing serializers, and a Vec takes every byte.
    if serde_json::to_writer(&mut *out, value).is_ok() {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use conntrack::track::settings::{Profile, Settings};

    use super::*;
    use crate::bus::{self, WorkerEnd, pair};

    fn hub() -> Arc<Hub> {
        let words = Words {
            classic: false,
            boot_unix_ms: || 0,
            community_id_seed: 0,
            timeouts: Box::new(|| Settings::new(Profile::Linux).timeouts),
            tags_of: Box::new(|_| Tags::NONE),
        };
        Arc::new(Hub::new(Exports::default(), words))
    }

    /// Answers the next command; gives what the worker is to tell from now on.
    async fn obey(worker: &WorkerEnd) -> Told {
        loop {
            if let Some(ticket) = worker.next_command() {
                let Command::Listen(told) = ticket.command else { panic!("{ticket:?}") };
                worker.answer(ticket);
                return told;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_reader_that_goes_before_all_workers_tell_leaves_none_of_them_telling() {
        let ((first, one), (second, two)) = (pair(), pair());
        let (hub, workers) = (hub(), Arc::new(Workers::new(vec![first, second])));
        let pump = tokio::spawn(Arc::clone(&hub).pump(Arc::clone(&workers)));
        tokio::select! {
            _ = hub.subscribe(&workers) => panic!("the second worker has not answered"),
            told = obey(&one) => assert_eq!(told, Told::All),
        }
        let patience = Duration::from_secs(60);
        let both = async { [obey(&one).await, obey(&two).await, obey(&two).await] };
        let told = tokio::time::timeout(patience, both).await.expect("the pump has them be quiet again");
        assert_eq!(told, [Told::Nothing, Told::All, Told::Nothing]);
        assert_eq!(hub.lines.receiver_count(), 0);

        // The next one is told by both.
        let begins = async { tokio::join!(hub.subscribe(&workers), obey(&one), obey(&two)) };
        let (reader, one, two) = tokio::time::timeout(patience, begins).await.unwrap();
        assert!(reader.is_ok());
        assert_eq!((one, two), (Told::All, Told::All));
        pump.abort();
    }

    #[tokio::test]
    async fn rings_are_emptied_while_a_worker_does_not_say_that_it_is_quiet() {
        let ((first, mut one), (second, _silent)) = (pair(), pair());
        let (hub, workers) = (hub(), Workers::new(vec![first, second]));
        *hub.listening.lock().await = Some(Told::All);
        let events = bus::tests::lines(&[bus::tests::event(); EVENT_LINES / 2]);
        let tells = async {
            for _ in 0..4 {
                one.tell(&events);
                tokio::time::sleep(5 * PERIOD).await;
            }
        };
        let (alone, ()) = tokio::join!(hub.alone(&workers), tells);
        assert!(!alone, "the second worker may still tell");
        assert_eq!(workers.events_lost(), 0);
    }

    #[tokio::test]
    async fn what_is_lost_before_the_pump_is_awake_is_told() {
        let (first, mut one) = pair();
        let (hub, workers) = (hub(), Arc::new(Workers::new(vec![first])));
        let pump = tokio::spawn(Arc::clone(&hub).pump(Arc::clone(&workers)));
        tokio::task::yield_now().await;
        one.tell(&bus::tests::lines(&[bus::tests::event(); EVENT_LINES + 5]));
        let lost = workers.events_lost();
        assert!(lost > 0);
        let mut reader = Reader { lines: hub.lines.subscribe(), hub: Arc::clone(&hub) };
        hub.wake.notify_one();
        let told = async {
            loop {
                let line = reader.next().await.unwrap();
                if line.event.is_none() {
                    return line.json;
                }
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(60), told).await.expect("a loss is told");
        assert_eq!(told, json_line(&EventLine::Lost { count: lost }));
        pump.abort();
    }

    #[tokio::test]
    async fn what_a_worker_tells_as_it_ends_is_told_and_one_that_is_stuck_costs_one_deadline() {
        let ((first, mut one), (second, _stuck)) = (pair(), pair());
        let (hub, workers) = (hub(), Workers::new(vec![first, second]));
        let mut reader = Reader { lines: hub.lines.subscribe(), hub: Arc::clone(&hub) };
        let ends = async move {
            while !one.stopped() {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            one.tell(&bus::tests::lines(&[bus::tests::event()]));
        };
        let stops = async {
            workers.end().await;
            hub.drain(&workers);
        };
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(stops, ends) })
            .await
            .expect("an end");
        assert!(reader.next_now().is_some_and(|line| line.event.is_some()));
    }

    #[tokio::test]
    async fn what_a_slow_reader_missed_is_told_to_it_and_counted() {
        let (hub, workers) = (hub(), Workers::new(Vec::new()));
        let mut slow = hub.subscribe(&workers).await.unwrap();
        let mut fast = hub.subscribe(&workers).await.unwrap();
        for number in 0..BACKLOG as u64 + 7 {
            hub.say(&EventLine::Lost { count: number }, None);
            assert!(fast.next_now().is_some());
        }
        let first = slow.next().await.unwrap();
        assert_eq!(first.json, json_line(&EventLine::Lost { count: 7 }));
        assert_eq!(hub.missed(), 7);
        // After that come those that it did not miss.
        assert_eq!(slow.next_now().unwrap().json, json_line(&EventLine::Lost { count: 7 }));
        assert_eq!(slow.next_now().unwrap().json, json_line(&EventLine::Lost { count: 8 }));
        assert_eq!(hub.missed(), 7);
    }
}
