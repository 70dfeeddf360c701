//! Frames from one thread to another: a bounded ring with one producer and one consumer. Full is an answer.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys as sys;

use crate::burst::Burst;
use crate::eal::Handle;
use crate::error::{self, Error};

/// The ring itself; the last end to go frees it and the frames in it.
#[derive(Debug)]
struct Ring {
    raw: NonNull<sys::rte_ring>,
    eal: Handle,
}

// SAFETY: used through one producer and one consumer, which is what the ring was made for.
unsafe impl Send for Ring {}
// SAFETY: as for Send.
unsafe impl Sync for Ring {}

/// Where frames enter. One, for one thread at a time.
#[derive(Debug)]
pub struct Producer {
    ring: Arc<Ring>,
    _one_thread: PhantomData<Cell<()>>,
}

/// Where frames leave. One, for one thread at a time.
#[derive(Debug)]
pub struct Consumer {
    ring: Arc<Ring>,
    _one_thread: PhantomData<Cell<()>>,
}

/// A ring for `capacity` frames. The name (at most 28 letters) is no other ring's.
pub fn channel(eal: &Handle, name: &str, capacity: u32) -> Result<(Producer, Consumer), Error> {
    let c_name = error::c_string(name)?;
    let flags = sys::RING_F_SP_ENQ | sys::RING_F_SC_DEQ | sys::RING_F_EXACT_SZ;
    let raw = {
        let _control = eal.control();
        // SAFETY: EAL runs; the name is NUL-terminated and copied; -1 is SOCKET_ID_ANY.
        unsafe { sys::rte_ring_create(c_name.as_ptr(), capacity, -1, flags) }
    };
    let Some(raw) = NonNull::new(raw) else {
        return Err(Error::Ring { name: name.to_owned(), capacity, why: error::words(error::last()) });
    };
    let ring = Arc::new(Ring { raw, eal: eal.clone() });
    let producer = Producer { ring: Arc::clone(&ring), _one_thread: PhantomData };
    Ok((producer, Consumer { ring, _one_thread: PhantomData }))
}

impl Producer {
    /// Moves frames from the front of `burst` into the ring; gives how many fitted. The others stay.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        let ring = self.ring.raw.as_ptr();
        // SAFETY: the only producer, borrowed mutably; the ring takes the pointers that it says it took.
        unsafe { burst.empty(|at, n| sys::dpdk_ring_enqueue(ring, at, n as u32) as usize) }
    }

    /// Frames that fit now. Nobody else adds any, so as many will fit later, or more.
    #[inline]
    pub fn room(&self) -> usize {
        // SAFETY: the ring lives as long as this end, and reading its two counters needs no more.
        unsafe { sys::dpdk_ring_room(self.ring.raw.as_ptr()) as usize }
    }
}

impl Consumer {
    /// Moves frames from the ring to the end of `burst`; gives how many.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        let ring = self.ring.raw.as_ptr();
        // SAFETY: the only consumer, borrowed mutably; the ring holds chains that producers gave up.
        unsafe { burst.fill(|at, n| sys::dpdk_ring_dequeue(ring, at, n as u32) as usize) }.0
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut left = Burst::new();
        // SAFETY: both ends are gone, so this thread is the only consumer.
        while unsafe { left.fill(|at, n| sys::dpdk_ring_dequeue(self.raw.as_ptr(), at, n as u32) as usize) }.0
            > 0
        {
            left.clear();
        }
        let _control = self.eal.control();
        // SAFETY: made by rte_ring_create, empty, and no end is left.
        unsafe { sys::rte_ring_free(self.raw.as_ptr()) }
    }
}
