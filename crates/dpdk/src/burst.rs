//! Up to 64 frames, in order, without allocation: what a queue fills and another empties.

use std::mem::MaybeUninit;
use std::ops::Deref;
use std::{fmt, ptr, slice};

use dpdk_sys as sys;

use crate::mbuf::Mbuf;

/// The most frames in one burst.
pub const CAPACITY: usize = 64;

/// Frames in order. Dereferences to a slice; those left when it is dropped or cleared are freed in bulk.
pub struct Burst {
    /// The first `len` hold frames.
    slots: [MaybeUninit<Mbuf>; CAPACITY],
    len: usize,
}

impl Burst {
    /// An empty burst.
    pub const fn new() -> Self {
        Self { slots: [const { MaybeUninit::uninit() }; CAPACITY], len: 0 }
    }

    /// Frees every frame, in one call.
    #[inline]
    pub fn clear(&mut self) {
        let n = self.len;
        self.len = 0;
        if n > 0 {
            // SAFETY: the first n slots held frames that this burst owned and has just forgotten. An Mbuf is
            // transparently a pointer to its chain.
            unsafe { sys::rte_pktmbuf_free_bulk(self.slots.as_mut_ptr().cast(), n as u32) }
        }
    }

    /// How many more frames fit.
    #[inline]
    pub fn room(&self) -> usize {
        CAPACITY - self.len
    }

    /// Adds a frame at the end, or gives it back if the burst is full.
    #[inline]
    pub fn push(&mut self, frame: Mbuf) -> Result<(), Mbuf> {
        match self.slots.get_mut(self.len) {
            Some(slot) => {
                slot.write(frame);
                self.len += 1;
                Ok(())
            }
            None => Err(frame),
        }
    }

    /// Takes every frame out, in order; those that the iterator does not reach are freed.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_> {
        let end = self.len;
        self.len = 0;
        Drain { burst: self, next: 0, end }
    }

    /// Keeps the frames for which `keep` says so, in order, and frees the others.
    #[inline]
    pub fn retain(&mut self, mut keep: impl FnMut(&mut Mbuf) -> bool) {
        let end = self.len;
        // A panic in `keep` leaks frames instead of freeing some twice.
        self.len = 0;
        let mut kept = 0;
        for at in 0..end {
            // SAFETY: slots 0..end held frames; each is read once here, and written back once if it is kept.
            let mut frame = unsafe { self.slots[at].assume_init_read() };
            if keep(&mut frame) {
                self.slots[kept].write(frame);
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// Lets `fill` write up to [`Burst::room`] pointers behind the frames that are here; gives how many came, and
    /// how many of them were null (left out).
    ///
    /// # Safety
    /// `fill(at, n)` writes the pointers of live, owned mbuf chains (or null) from `at` on and gives how many, at
    /// most `n`.
    #[inline(always)]
    pub(crate) unsafe fn fill(
        &mut self,
        fill: impl FnOnce(*mut *mut sys::rte_mbuf, usize) -> usize,
    ) -> (usize, usize) {
        let room = self.room();
        let at: *mut *mut sys::rte_mbuf = self.slots[self.len..].as_mut_ptr().cast();
        let came = fill(at, room).min(room);
        // SAFETY: fill wrote the first `came` of these pointers.
        let pointers = unsafe { slice::from_raw_parts_mut(at, came) };
        let mut kept = came;
        if pointers.iter().any(|p| p.is_null()) {
            kept = 0;
            for i in 0..came {
                if !pointers[i].is_null() {
                    pointers[kept] = pointers[i];
                    kept += 1;
                }
            }
        }
        self.len += kept;
        (kept, came - kept)
    }

    /// Lets `take` take frames from the front; gives how many it took. The rest move up.
    ///
    /// # Safety
    /// `take(at, n)` takes ownership of the first so many of the `n` chains at `at` and gives how many.
    #[inline(always)]
    pub(crate) unsafe fn empty(
        &mut self,
        take: impl FnOnce(*mut *mut sys::rte_mbuf, usize) -> usize,
    ) -> usize {
        let at: *mut *mut sys::rte_mbuf = self.slots.as_mut_ptr().cast();
        let taken = take(at, self.len).min(self.len);
        let left = self.len - taken;
        if left > 0 && taken > 0 {
            // SAFETY: both ranges lie in the first `len` slots.
            unsafe { ptr::copy(at.add(taken), at, left) }
        }
        self.len = left;
        taken
    }
}

impl Deref for Burst {
    type Target = [Mbuf];

    #[inline(always)]
    fn deref(&self) -> &[Mbuf] {
        // SAFETY: the first `len` slots hold frames.
        unsafe { slice::from_raw_parts(self.slots.as_ptr().cast(), self.len) }
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// See [`Burst::drain`].
#[derive(Debug)]
pub struct Drain<'a> {
    burst: &'a mut Burst,
    next: usize,
    end: usize,
}

impl Iterator for Drain<'_> {
    type Item = Mbuf;

    #[inline(always)]
    fn next(&mut self) -> Option<Mbuf> {
        if self.next == self.end {
            return None;
        }
        let slot = &self.burst.slots[self.next];
        self.next += 1;
        // SAFETY: slots next..end hold frames that the burst no longer counts as its own; each is read once.
        Some(unsafe { slot.assume_init_read() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
