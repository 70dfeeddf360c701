//! Frames in and out of a port: one receive or transmit queue, for one thread at a time.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use dpdk_sys as sys;

use crate::burst::Burst;
use crate::mbuf::{Lie, Mbuf};
use crate::port::Started;

/// Frames that a driver delivered but that contradict themselves; they were freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lies {
    /// By [`Lie`] as index.
    pub by_kind: [u64; Lie::ALL.len()],
    /// Null instead of a frame.
    pub null: u64,
}

impl Lies {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.by_kind.iter().sum::<u64>() + self.null
    }
}

/// A queue's right to touch the device. The port can only be halted while no queue has it.
#[derive(Debug)]
struct Seat {
    started: Arc<Started>,
    /// Whether this queue is counted among those that may.
    awake: bool,
}

impl Seat {
    fn new(started: &Arc<Started>) -> Self {
        Self { started: Arc::clone(started), awake: started.take_seat() }
    }

    fn park(&mut self) {
        if self.awake {
            self.awake = false;
            self.started.leave_seat();
        }
    }

    fn wake(&mut self) -> bool {
        if !self.awake {
            self.awake = self.started.take_seat();
        }
        self.awake
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.park();
    }
}

/// A receive queue. The port runs while any of its queues lives.
#[derive(Debug)]
pub struct RxQueue {
    seat: Seat,
    port: u16,
    queue: u16,
    lies: Lies,
    _one_thread: PhantomData<Cell<()>>,
}

/// A transmit queue. The port runs while any of its queues lives.
#[derive(Debug)]
pub struct TxQueue {
    seat: Seat,
    port: u16,
    queue: u16,
    _one_thread: PhantomData<Cell<()>>,
}

impl RxQueue {
    /// Made once for each queue that [`crate::port::Port::start`] set up.
    pub(crate) fn new(started: &Arc<Started>, queue: u16) -> Self {
        let port = started.port_id();
        Self { seat: Seat::new(started), port, queue, lies: Lies::default(), _one_thread: PhantomData }
    }

    /// Adds what has arrived to the end of `burst`, up to its room; gives how many frames. Each was checked: its
    /// lengths agree with its buffers. Hand in an empty burst: vector drivers give nothing for less than four
    /// places.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        if !self.seat.awake {
            return 0;
        }
        let (port, queue) = (self.port, self.queue);
        let before = burst.len();
        // SAFETY: the port was started, and stops only when no queue is awake or left; this is the queue's only handle,
        // borrowed mutably. Drivers give chains of their pool's buffers, which nobody else owns.
        let (_, null) = unsafe { burst.fill(|at, n| usize::from(sys::rx_burst(port, queue, at, n as u16))) };
        self.lies.null += null as u64;
        if !burst[before..].iter().all(Mbuf::is_plain) {
            self.drop_lies(burst, before);
        }
        burst.len() - before
    }

    #[cold]
    fn drop_lies(&mut self, burst: &mut Burst, from: usize) {
        let mut at = 0;
        burst.retain(|frame| {
            at += 1;
            if at <= from {
                return true;
            }
            frame.check().map_err(|lie| self.lies.by_kind[lie as usize] += 1).is_ok()
        });
    }

    /// What was freed at the door so far.
    pub fn lies(&self) -> Lies {
        self.lies
    }

    /// Leaves the device alone from now on, so that the port can be halted: nothing is received.
    pub fn park(&mut self) {
        self.seat.park();
    }

    /// Uses the device again; false while the port is halted.
    pub fn wake(&mut self) -> bool {
        self.seat.wake()
    }
}

impl TxQueue {
    /// Made once for each queue that [`crate::port::Port::start`] set up.
    pub(crate) fn new(started: &Arc<Started>, queue: u16) -> Self {
        Self { seat: Seat::new(started), port: started.port_id(), queue, _one_thread: PhantomData }
    }

    /// Sends from the front of `burst`; gives how many frames the device took. The others stay.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        if !self.seat.awake {
            return 0;
        }
        let (port, queue) = (self.port, self.queue);
        // SAFETY: as for RxQueue::receive; the driver owns what it took.
        unsafe { burst.empty(|at, n| usize::from(sys::tx_burst(port, queue, at, n as u16))) }
    }

    /// Leaves the device alone from now on, so that the port can be halted: nothing is taken to be sent.
    pub fn park(&mut self) {
        self.seat.park();
    }

    /// Uses the device again; false while the port is halted.
    pub fn wake(&mut self) -> bool {
        self.seat.wake()
    }
}
