//! Events from the workers' rings to every reader of `GET /v1/events`, and flows' ends to the exports. Owns which events
//! workers send.
//! A slow reader loses events and is told how many; it slows nobody.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{Mutex, Notify, broadcast};

use super::desk::{NoAnswer, Workers};
use super::schema::EventLine;
use crate::bus::EVENTS;
use crate::bus::command::Command;
use crate::export::{Exports, Record};
use conntrack::event::{EventKind, FlowView, Told};
use conntrack::track::timeout::Timeouts;
use conntrack::wire::Tags;

/// Lines that a reader may be behind before it loses some.
const BACKLOG: usize = 2 * EVENTS;

/// How often the rings are emptied: an eighth of the time in which they fill at 100,000 events a second.
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
    /// Which events the workers send.
    listening: Mutex<Told>,
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

impl Hub {
    /// The workers already tell what `exports` need.
    pub(super) fn new(exports: Exports, words: Words) -> Self {
        let listening = Mutex::new(unread(&exports));
        Self { lines: broadcast::Sender::new(BACKLOG), listening, wake: Notify::new(), exports, words }
    }

    /// Where flow records go.
    pub(super) fn exports(&self) -> &Exports {
        &self.exports
    }

    /// A new reader; every event that happens after this returns will reach it or be counted as lost.
    pub(super) async fn subscribe(&self, workers: &Workers) -> Result<broadcast::Receiver<Line>, NoAnswer> {
        let mut listening = self.listening.lock().await;
        let reader = self.lines.subscribe();
        if *listening != Told::All {
            listen(workers, Told::All).await?;
            *listening = Told::All;
            self.wake.notify_one();
        }
        Ok(reader)
    }

    /// Moves events to the readers and records to the exports; runs as long as the control thread does.
    pub(super) async fn pump(self: Arc<Self>, workers: Arc<Workers>) {
        loop {
            if self.exports.is_empty() {
                self.wake.notified().await;
            }
            let mut lost = workers.events_lost();
            loop {
                for worker in 0..workers.len() {
                    self.drain(&workers, worker);
                    tokio::task::yield_now().await;
                }
                self.exports.lost_earlier(workers.ends_lost());
                let lost_now = workers.events_lost();
                if lost_now > lost {
                    self.say(&EventLine::Lost { count: lost_now - lost }, None);
                    lost = lost_now;
                }
                if self.lines.receiver_count() == 0 && self.stop_if_alone(&workers).await {
                    break;
                }
                tokio::time::sleep(PERIOD).await;
            }
        }
    }

    /// Takes what one worker has told. Bounded by one ring's worth, so that a storm of events does not starve requests.
    pub(super) fn drain(&self, workers: &Workers, worker: usize) {
        let timeouts = (self.words.timeouts)();
        let boot_unix_ms = (self.words.boot_unix_ms)();
        for _ in 0..EVENTS {
            let Some(event) = workers.next_event(worker) else { break };
            let Words { classic, community_id_seed, ref tags_of, .. } = self.words;
            if !self.exports.is_empty()
                && let Some(record) = Record::new(&event, &timeouts, boot_unix_ms, tags_of)
            {
                self.exports.tell(&record);
            }
            if self.lines.receiver_count() > 0 {
                let view = event.flow();
                let line = EventLine::new(&event, classic, boot_unix_ms).identified(&view, community_id_seed);
                self.say(&line, Some(Arc::new((event.kind, view))));
            }
        }
    }

    fn say(&self, line: &EventLine, event: Option<Arc<(EventKind, FlowView)>>) {
        // Nobody may be left to hear it.
        let _ = self.lines.send(Line { json: json_line(line), event });
    }

    /// Gives whether nothing is left to move.
    async fn stop_if_alone(&self, workers: &Workers) -> bool {
        let mut listening = self.listening.lock().await;
        let unread = unread(&self.exports);
        if self.lines.receiver_count() > 0 || *listening == unread {
            return false;
        }
        if listen(workers, unread).await.is_err() {
            return false;
        }
        *listening = unread;
        if unread != Told::Nothing {
            return false;
        }
        // What is left over was for readers that are gone.
        for worker in 0..workers.len() {
            while workers.next_event(worker).is_some() {}
        }
        true
    }
}

/// What workers tell while nobody reads events.
fn unread(exports: &Exports) -> Told {
    if exports.is_empty() { Told::Nothing } else { Told::Ends }
}

async fn listen(workers: &Workers, told: Told) -> Result<(), NoAnswer> {
    for worker in 0..workers.len() {
        workers.ask(worker, Command::Listen(told)).await?;
    }
    Ok(())
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
