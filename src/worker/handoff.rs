//! Frames from one worker to another: to the owner of their flow, or to one that has a queue where they leave. Owns
//! this worker's ends of the rings; sees no byte of a frame. Bounded: a frame that finds no room comes back to the
//! caller, who frees and counts it. What goes one way stays in order.

use std::sync::atomic::{AtomicU32, Ordering};

use conntrack::key::owner::{WORKERS_MAX, WorkerId};
use dpdk::Error;
use dpdk::burst::{self, Burst};
use dpdk::eal::Handle;
use dpdk::mbuf::Mbuf;
use dpdk::ring::{self, Consumer, Producer};

/// Frames that may wait for one worker, in all of its rings; with two workers as many as in two of a port's queues.
const WAITING: u32 = 2048;

/// A ring is never smaller: some bursts fit, however many workers there are.
const RING_MIN: u32 = 4 * burst::CAPACITY as u32;

/// Frames in one of the rings between `workers` workers.
const fn ring_frames(workers: u16) -> u32 {
    let sources = if workers > 1 { workers as u32 - 1 } else { 1 };
    let share = (WAITING / sources).next_power_of_two();
    if share < RING_MIN { RING_MIN } else { share }
}

/// Frames in all rings between `workers` workers at most; the buffers' pool must have as many to spare.
pub const fn frames(workers: u16) -> u32 {
    let workers_32 = workers as u32;
    workers_32 * workers_32.saturating_sub(1) * (ring_frames(workers) + burst::CAPACITY as u32)
}

/// What is to be done with a frame by whoever gets it; written on the frame in the place of the port's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Track it: it came by this port.
    Track { port: usize },
    /// Track what it tells: a datagram that came by this port.
    Note { port: usize },
    /// Send it by this port.
    Send { port: usize },
}

/// Set in the number of a frame that is only to be sent.
const SEND: u16 = 0x8000;

/// Set in the number of a frame that is a note.
const NOTE: u16 = 0x4000;

impl Errand {
    fn number(self) -> u16 {
        match self {
            Self::Track { port } => port as u16 & !(SEND | NOTE),
            Self::Note { port } => port as u16 & !SEND | NOTE,
            Self::Send { port } => port as u16 & !NOTE | SEND,
        }
    }

    #[inline(always)]
    pub(super) fn of(frame: &Mbuf) -> Self {
        let number = frame.port();
        let port = usize::from(number & !(SEND | NOTE));
        match number & (SEND | NOTE) {
            0 => Self::Track { port },
            NOTE => Self::Note { port },
            _ => Self::Send { port },
        }
    }
}

/// The way to one worker.
#[derive(Debug)]
struct To {
    ring: Producer,
    staged: Burst,
    /// Frames that surely fit, beside those staged.
    room: usize,
}

/// One worker's ends of the rings to and from the others.
#[derive(Debug, Default)]
pub struct Links {
    /// By worker; `None` for itself.
    to: Vec<Option<To>>,
    from: Vec<Consumer>,
}

/// A ring from each of `workers` workers to each other; by worker.
pub fn mesh(eal: &Handle, workers: u16) -> Result<Vec<Links>, Error> {
    // Names are process-wide.
    static MESHES: AtomicU32 = AtomicU32::new(0);
    let mesh = MESHES.fetch_add(1, Ordering::Relaxed);
    debug_assert!(usize::from(workers) <= WORKERS_MAX);
    let mut links: Vec<Links> = (0..workers).map(|_| Links::default()).collect();
    for from in 0..usize::from(workers) {
        for to in 0..usize::from(workers) {
            if from == to {
                links[from].to.push(None);
                continue;
            }
            let (producer, consumer) =
                ring::channel(eal, &format!("handoff{mesh}.{from}.{to}"), ring_frames(workers))?;
            links[from].to.push(Some(To { ring: producer, staged: Burst::new(), room: 0 }));
            links[to].from.push(consumer);
        }
    }
    Ok(links)
}

impl Links {
    /// Rings that lead here.
    pub(super) fn sources(&self) -> usize {
        self.from.len()
    }

    /// Adds what waits in a ring to the end of `burst`; gives how many frames.
    #[inline]
    pub(super) fn receive(&mut self, source: usize, burst: &mut Burst) -> usize {
        self.from.get_mut(source).map_or(0, |ring| ring.receive(burst))
    }

    /// Whether `frames` frames fit on the way to `worker`; they will also fit later.
    pub(super) fn fit(&mut self, worker: WorkerId, frames: usize) -> bool {
        self.way(worker).is_some_and(|to| {
            to.look();
            to.room >= frames
        })
    }

    /// Sends a frame on its way, with the next [`Links::flush`] at the latest, or gives it back if the ring is full.
    #[inline]
    pub(super) fn give(&mut self, worker: WorkerId, mut frame: Mbuf, errand: Errand) -> Result<(), Mbuf> {
        let Some(to) = self.way(worker) else { return Err(frame) };
        if to.room == 0 {
            to.look();
            if to.room == 0 {
                return Err(frame);
            }
        }
        frame.set_port(errand.number());
        if to.staged.room() == 0 {
            to.flush();
        }
        to.staged.push(frame)?;
        to.room -= 1;
        Ok(())
    }

    /// What is staged enters the rings.
    #[inline]
    pub(super) fn flush(&mut self) {
        for to in self.to.iter_mut().flatten() {
            to.flush();
        }
    }

    fn way(&mut self, worker: WorkerId) -> Option<&mut To> {
        self.to.get_mut(usize::from(worker.0)).and_then(Option::as_mut)
    }
}

impl To {
    /// The other end may have taken frames out since.
    fn look(&mut self) {
        self.room = self.ring.room() - self.staged.len();
    }

    #[inline]
    fn flush(&mut self) {
        if !self.staged.is_empty() {
            self.ring.send(&mut self.staged);
            debug_assert!(self.staged.is_empty(), "as much was staged as fits");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_on_a_frame_is_read_as_it_was_meant() {
        for port in [0, 1, 31, 0x3fff] {
            assert_eq!(Errand::Track { port }.number(), port as u16);
            assert_eq!(Errand::Note { port }.number(), NOTE | port as u16);
            assert_eq!(Errand::Send { port }.number(), SEND | port as u16);
        }
    }

    #[test]
    fn rings_grow_smaller_as_they_grow_more_numerous() {
        assert_eq!((frames(0), frames(1)), (0, 0));
        for workers in 2..=WORKERS_MAX as u16 {
            assert!(ring_frames(workers) >= RING_MIN && ring_frames(workers) <= WAITING);
            assert!(u32::from(workers - 1) * ring_frames(workers) >= WAITING, "{workers}");
        }
        assert_eq!(ring_frames(2), 2048);
        assert_eq!(ring_frames(16), RING_MIN);
    }
}
