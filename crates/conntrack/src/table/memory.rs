//! Memory handed in by the caller, carved once at start.

use core::ptr::NonNull;

/// A zeroed region that the tracker's structures live in.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    len: usize,
}

#[allow(unsafe_code)]
impl Memory {
    /// A region from the heap, zeroed: for tests, captures and machines without hugepages. Lives as long as the process.
    pub fn heap(len: usize) -> Option<Self> {
        let _ = len;
        unimplemented!()
    }

    /// A region that the caller mapped.
    ///
    /// # Safety
    /// `base..base + len` is zeroed, readable, writable, aligned to 128 bytes, and nobody else's for as long as
    /// the tracker lives.
    pub unsafe fn mapped(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }
}
