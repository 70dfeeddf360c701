//! Memory handed in by the caller, carved once at start into typed slices. Owns the bytes' life and their
//! borders; never sees what they mean.

#![allow(unsafe_code)]

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::sync::Arc;
use core::alloc::Layout;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// Every slice starts on a pair of cache lines: an entry's size, and what the adjacent-line prefetcher fetches.
const ALIGN: usize = 128;

/// The page size that keeps a table of many gigabytes within the TLB.
pub const HUGE_PAGE: usize = 2 << 20;

// 100 million flows are 15 GB; sizes are counted in usize throughout.
const _: () = assert!(usize::BITS >= 64);

/// A zeroed region that the tracker's structures live in. It goes back where it came from when the last slice
/// carved from it is dropped.
#[derive(Debug)]
pub struct Memory {
    backing: Arc<Backing>,
    /// Bytes already carved off; a multiple of [`ALIGN`].
    taken: usize,
}

#[derive(Debug)]
struct Backing {
    base: NonNull<u8>,
    len: usize,
    /// What to give back to the heap; `None` for a caller's mapping.
    owned: Option<(NonNull<u8>, Layout)>,
}

// SAFETY: a Backing only frees its bytes; it never reads or writes them. All access goes through regions, which
// are disjoint and carry the Send and Sync of their elements.
unsafe impl Send for Backing {}
// SAFETY: as for Send; a shared Backing has no method that touches anything.
unsafe impl Sync for Backing {}

impl Drop for Backing {
    fn drop(&mut self) {
        if let Some((start, layout)) = self.owned {
            // SAFETY: `start` came from `alloc_zeroed` with this layout, and the last region is gone.
            unsafe { dealloc(start.as_ptr(), layout) }
        }
    }
}

impl Memory {
    /// A region from the heap, zeroed: for tests, captures and machines without hugepages. Freed on drop.
    /// `None` if there is not so much.
    pub fn heap(len: usize) -> Option<Self> {
        let align = if len >= HUGE_PAGE { HUGE_PAGE } else { ALIGN };
        // Asked for with a small alignment and aligned here: an allocator zeroes a large, loosely aligned block
        // by taking fresh pages, so that memory which no flow ever uses is never touched.
        let layout = Layout::from_size_align(len.max(1).checked_add(align)?, 16).ok()?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let skip = start.as_ptr().align_offset(align);
        assert!(skip <= align, "an address aligned to {align} lies within {align} bytes");
        // SAFETY: `skip` is at most `align`, and the block has `align` bytes more than `len`.
        let base = unsafe { start.add(skip) };
        Some(Self { backing: Arc::new(Backing { base, len, owned: Some((start, layout)) }), taken: 0 })
    }

    /// A region that the caller mapped. It is never unmapped here.
    ///
    /// # Safety
    /// `base..base + len` is zeroed, readable, writable, aligned to 128 bytes, and nobody else's for as long as
    /// the tracker lives.
    pub unsafe fn mapped(base: NonNull<u8>, len: usize) -> Self {
        assert!(base.as_ptr().align_offset(ALIGN) == 0, "a mapping starts on a page");
        Self { backing: Arc::new(Backing { base, len, owned: None }), taken: 0 }
    }

    /// Bytes not yet carved off.
    pub fn left(&self) -> usize {
        self.backing.len.saturating_sub(self.taken)
    }

    /// Carves off `len` elements, all zero. `None` if there is no room left.
    pub(crate) fn take<T: Zeroed>(&mut self, len: usize) -> Option<Region<T>> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let bytes = bytes_of::<T>(len);
        if bytes > self.left() {
            return None;
        }
        // SAFETY: `taken + bytes <= len`, so the sum stays inside the backing's one allocation.
        let base = unsafe { self.backing.base.add(self.taken) }.cast();
        self.taken += bytes;
        Some(Region { base, len, _backing: Arc::clone(&self.backing) })
    }
}

/// Bytes of [`Memory`] that `len` elements take.
pub(crate) const fn bytes_of<T>(len: usize) -> usize {
    (len * size_of::<T>()).next_multiple_of(ALIGN)
}

/// Types that are whole when all of their bytes are zero.
///
/// # Safety
/// All-zero bytes are a value of the type, and it needs no drop.
pub(crate) unsafe trait Zeroed: Copy {}

// SAFETY: zero is a u32.
unsafe impl Zeroed for u32 {}

/// A slice of [`Memory`] with one owner; keeps the memory alive.
pub(crate) struct Region<T> {
    base: NonNull<T>,
    len: usize,
    _backing: Arc<Backing>,
}

// SAFETY: a Region owns its elements as a Box<[T]> would.
unsafe impl<T: Send> Send for Region<T> {}
// SAFETY: as for Send.
unsafe impl<T: Sync> Sync for Region<T> {}

impl<T> Deref for Region<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        #[cfg(all(test, not(feature = "planted-faults")))]
        reached::count();
        // SAFETY: `take` cut `len` elements of zeroed, aligned memory off for this region alone, T is whole when
        // zero, and the backing lives as long as `self`.
        unsafe { NonNull::slice_from_raw_parts(self.base, self.len).as_ref() }
    }
}

impl<T> DerefMut for Region<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        #[cfg(all(test, not(feature = "planted-faults")))]
        reached::count();
        // SAFETY: as for `deref`, and `&mut self` is the only way in.
        unsafe { NonNull::slice_from_raw_parts(self.base, self.len).as_mut() }
    }
}

/// Says how long it is; a table's contents fill no log line.
impl<T> fmt::Debug for Region<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({})", self.len)
    }
}

/// How often the tables' memory is reached into, for the tests that bound it.
#[cfg(all(test, not(feature = "planted-faults")))]
pub(crate) mod reached {
    use std::cell::Cell;

    std::thread_local!(static TIMES: Cell<u64> = const { Cell::new(0) });

    pub(super) fn count() {
        TIMES.set(TIMES.get() + 1);
    }

    /// So many times by this thread since this was last asked.
    pub(crate) fn times() -> u64 {
        TIMES.replace(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_zero_aligned_and_do_not_overlap() {
        let mut memory = Memory::heap(bytes_of::<u32>(3) + bytes_of::<u32>(100)).unwrap();
        let mut a = memory.take::<u32>(3).unwrap();
        let mut b = memory.take::<u32>(100).unwrap();
        assert!(a.iter().chain(b.iter()).all(|&word| word == 0));
        assert_eq!(b.as_ptr().align_offset(ALIGN), 0);
        a.fill(1);
        b.fill(2);
        assert!(a.iter().all(|&word| word == 1));
        assert_eq!(memory.left(), 0);
        assert!(memory.take::<u32>(1).is_none());
    }

    #[test]
    fn a_slice_outlives_the_memory_it_came_from() {
        let mut memory = Memory::heap(4096).unwrap();
        let mut slice = memory.take::<u32>(1024).unwrap();
        drop(memory);
        slice.fill(7);
        assert_eq!(slice.iter().sum::<u32>(), 7 * 1024);
    }

    #[test]
    fn a_large_region_starts_on_a_huge_page() {
        let mut memory = Memory::heap(HUGE_PAGE).unwrap();
        let slice = memory.take::<u32>(1).unwrap();
        assert_eq!(slice.as_ptr().align_offset(HUGE_PAGE), 0);
    }

    #[test]
    fn a_mapping_is_carved_but_not_freed() {
        #[repr(align(128))]
        struct Pages([u8; 256]);
        let mut pages = Pages([0; 256]);
        let base = NonNull::new(pages.0.as_mut_ptr()).unwrap();
        // SAFETY: zeroed, aligned, and only read again once the region is gone.
        let mut memory = unsafe { Memory::mapped(base, 256) };
        let mut slice = memory.take::<u32>(33).unwrap();
        slice[32] = u32::MAX;
        drop((slice, memory));
        assert_eq!(pages.0[128..132], [255; 4]);
    }
}
