//! Events from the workers' rings to every reader of `GET /v1/events`. Owns whether workers send events at all.
//! A slow reader loses events and is told how many; it slows nobody.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{Mutex, Notify, broadcast};

use super::desk::{NoAnswer, Workers};
use super::schema::EventLine;
use crate::bus::EVENTS;
use crate::bus::command::Command;
use conntrack::event::{EventKind, FlowView};

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
#[derive(Debug)]
pub(super) struct Hub {
    lines: broadcast::Sender<Line>,
    /// Whether the workers send events.
    listening: Mutex<bool>,
    wake: Notify,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self { lines: broadcast::Sender::new(BACKLOG), listening: Mutex::new(false), wake: Notify::new() }
    }

    /// A new reader; every event that happens after this returns will reach it or be counted as lost.
    pub(super) async fn subscribe(&self, workers: &Workers) -> Result<broadcast::Receiver<Line>, NoAnswer> {
        let mut listening = self.listening.lock().await;
        let reader = self.lines.subscribe();
        if !*listening {
            listen(workers, true).await?;
            *listening = true;
            self.wake.notify_one();
        }
        Ok(reader)
    }

    /// Moves events to the readers while there are any; runs as long as the control thread does.
    pub(super) async fn pump(self: Arc<Self>, workers: Arc<Workers>, classic: bool, boot_unix_ms: u64) {
        loop {
            self.wake.notified().await;
            let mut lost = workers.events_lost();
            loop {
                for worker in 0..workers.len() {
                    // Bounded by one ring's worth, so that a storm of events does not starve the other requests.
                    for _ in 0..EVENTS {
                        let Some(event) = workers.next_event(worker) else { break };
                        let line = EventLine::new(&event, classic, boot_unix_ms);
                        self.say(&line, Some(Arc::new((event.kind, event.flow()))));
                    }
                    tokio::task::yield_now().await;
                }
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

    fn say(&self, line: &EventLine, event: Option<Arc<(EventKind, FlowView)>>) {
        // Nobody may be left to hear it.
        let _ = self.lines.send(Line { json: json_line(line), event });
    }

    async fn stop_if_alone(&self, workers: &Workers) -> bool {
        let mut listening = self.listening.lock().await;
        if self.lines.receiver_count() > 0 || listen(workers, false).await.is_err() {
            return false;
        }
        *listening = false;
        // What is left over was for readers that are gone.
        for worker in 0..workers.len() {
            while workers.next_event(worker).is_some() {}
        }
        true
    }
}

async fn listen(workers: &Workers, on: bool) -> Result<(), NoAnswer> {
    for worker in 0..workers.len() {
        workers.ask(worker, Command::Listen(on)).await?;
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
