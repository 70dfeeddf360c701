//! One sink: a bounded queue, the thread behind it, and the counters of both. Knows nothing of forms or files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};

use super::{ExportError, Record, Tally};

/// Records that may wait for the thread: at 100,000 ended flows a second, what gathers in two thirds of a second; 14 MB.
const QUEUE: usize = 65_536;

/// Records written at once.
const BATCH: usize = 256;

/// How long the thread sleeps when no record comes.
const REST: Duration = Duration::from_millis(250);

/// How often the log tells of losses that go on.
const COMPLAINTS: Duration = Duration::from_secs(60);

/// Where records go. Called by one thread, which it may hold up.
pub(super) trait Out: Send + 'static {
    /// Takes records. Each is counted once, now or later: as written or as lost.
    fn take(&mut self, records: &[Record], counts: &Counts);

    /// Called a few times a second, whether or not records come.
    fn turn(&mut self, counts: &Counts);

    /// Called last: what is still held is written or counted as lost.
    fn end(&mut self, counts: &Counts);
}

/// What became of records, and why some were lost.
#[derive(Debug, Default)]
pub(super) struct Counts {
    written: AtomicU64,
    /// Records that the queue refused, or that could not be written.
    lost: AtomicU64,
    /// Flows whose end was never told here.
    lost_earlier: AtomicU64,
    /// Why writing failed the last time.
    why: std::sync::Mutex<Option<String>>,
}

impl Counts {
    pub(super) fn written(&self, records: u64) {
        self.written.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn lost(&self, records: u64, why: impl std::fmt::Display) {
        if records > 0 {
            self.lost.fetch_add(records, Ordering::Relaxed);
            *self.why.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(why.to_string());
        }
    }

    fn all_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed) + self.lost_earlier.load(Ordering::Relaxed)
    }
}

/// A queue with its thread.
#[derive(Debug)]
pub(super) struct Sink {
    name: &'static str,
    /// `None` ends the thread.
    queue: Sender<Option<Record>>,
    counts: Arc<Counts>,
    /// Closed when the thread has ended.
    done: Receiver<()>,
}

impl Sink {
    pub(super) fn start(name: &'static str, mut out: impl Out) -> Result<Self, ExportError> {
        let (queue, records) = channel::bounded(QUEUE);
        let (ended, done) = channel::bounded(0);
        let counts = Arc::new(Counts::default());
        let told = Arc::clone(&counts);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                write_all(name, &records, &mut out, &told);
                drop(ended);
            })
            .map_err(ExportError::Thread)?;
        Ok(Self { name, queue, counts, done })
    }

    pub(super) fn tell(&self, record: &Record) {
        if self.queue.try_send(Some(*record)).is_err() {
            self.counts.lost(1, "the queue is full: what writes is slower than flows end");
        }
    }

    pub(super) fn lost_earlier(&self, total: u64) {
        self.counts.lost_earlier.store(total, Ordering::Relaxed);
    }

    pub(super) fn counted(&self) -> Tally {
        Tally {
            name: self.name,
            written: self.counts.written.load(Ordering::Relaxed),
            lost: self.counts.all_lost(),
        }
    }

    /// No more records come: the thread is to write what is queued, and to end.
    pub(super) fn end(&self, deadline: Instant) {
        // A queue that stays full until then is told of below.
        let _ = self.queue.send_deadline(None, deadline);
    }

    /// Waits for the thread's end.
    pub(super) fn wait(&self, deadline: Instant) {
        // It sends nothing; that its sender is gone is the answer.
        if self.done.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            let left = self.queue.len();
            tracing::warn!(
                sink = self.name,
                left,
                "flow records that were still queued are lost: writing them hangs"
            );
        }
    }
}

/// The thread.
fn write_all(name: &'static str, queue: &Receiver<Option<Record>>, out: &mut impl Out, counts: &Counts) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut complaint = Complaint::new();
    let mut turned = Instant::now();
    let mut ended = false;
    while !ended {
        match queue.recv_timeout(REST) {
            Ok(first) => {
                let more = queue.try_iter().take(BATCH - 1);
                let told = std::iter::once(first).chain(more).take_while(|item| {
                    ended = item.is_none();
                    !ended
                });
                batch.extend(told.flatten());
                out.take(&batch, counts);
                batch.clear();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => ended = true,
        }
        let now = Instant::now();
        if now.duration_since(turned) >= REST {
            turned = now;
            out.turn(counts);
            complaint.look(name, now, counts);
        }
    }
    out.end(counts);
}

/// What the log was told of losses.
struct Complaint {
    told: u64,
    at: Option<Instant>,
}

impl Complaint {
    const fn new() -> Self {
        Self { told: 0, at: None }
    }

    /// Tells of losses at once when they begin, then at most once in [`COMPLAINTS`].
    fn look(&mut self, name: &str, now: Instant, counts: &Counts) {
        let lost = counts.all_lost();
        if lost == self.told || self.at.is_some_and(|at| now.duration_since(at) < COMPLAINTS) {
            return;
        }
        let why = counts.why.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let why = why.unwrap_or_else(|| "flows end faster than control reads the workers' events".to_owned());
        tracing::warn!(
            sink = name,
            lost = lost - self.told,
            lost_since_start = lost,
            "flow records were lost: {why}"
        );
        (self.told, self.at) = (lost, Some(now));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use conntrack::event::TupleIds;

    use super::*;
    use crate::export::record::tests::record;

    /// Takes one batch whenever it is let to, and counts all of it as written.
    struct Slow {
        go: mpsc::Receiver<()>,
    }

    impl Out for Slow {
        fn take(&mut self, records: &[Record], counts: &Counts) {
            let _ = self.go.recv();
            counts.written(records.len() as u64);
        }

        fn turn(&mut self, _: &Counts) {}

        fn end(&mut self, _: &Counts) {}
    }

    #[test]
    fn a_sink_that_hangs_loses_what_its_queue_cannot_hold_and_no_more() {
        let (let_go, go) = mpsc::channel();
        let sink = Sink::start("slow", Slow { go }).unwrap();
        let record = record(17, TupleIds::Ports { sport: 1, dport: 2 });
        let told = 2 * QUEUE as u64;
        let begun = Instant::now();
        (0..told).for_each(|_| sink.tell(&record));
        assert!(begun.elapsed() < Duration::from_secs(60), "telling does not wait for writing");
        let lost = sink.counted().lost;
        // One batch is in the thread's hands.
        assert!((QUEUE - BATCH..=QUEUE).contains(&(lost as usize)), "{lost}");
        drop(let_go);
        let deadline = Instant::now() + Duration::from_secs(60);
        sink.end(deadline);
        sink.wait(deadline);
        let Tally { written, lost, .. } = sink.counted();
        assert_eq!(written + lost, told, "each is one or the other");
    }
}
