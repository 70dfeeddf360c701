//! Memory for the tracker's tables: mapped at start, on hugepages where enough are free, each page taken before
//! traffic comes. Mappings of its own, outside DPDK. Never sees what is put there.

use std::io;
use std::ptr::NonNull;

use conntrack::table::memory::Memory;

use crate::preflight::Host;

/// The pages that tables want: 2 MB, which cost 45 to 150 ns less per random access than 4 KB ones.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error(
        "no memory for {mib} MiB of tables ({why}): lower `table.max_entries`, or reserve {pages} hugepages with \
         `echo {pages} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`"
    )]
    Refused { mib: usize, pages: usize, why: io::Error },
    #[error("{bytes} bytes of tables cannot be addressed: lower `table.max_entries`")]
    TooMuch { bytes: usize },
}

/// What a mapping lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Reserved 2 MB pages.
    Huge,
    /// Ordinary memory; the kernel was asked to use large pages where it can. Slower under many flows.
    Plain,
}

/// A zeroed region, resident, aligned to 2 MB. Unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    pages: Pages,
}

// SAFETY: the region belongs to whoever holds the mapping; pages have no thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// At least `bytes`, from reserved hugepages if `huge` and enough are free, else from ordinary memory.
    pub fn new(bytes: usize, huge: bool) -> Result<Self, MemoryError> {
        let len = bytes
            .max(1)
            .checked_next_multiple_of(HUGE_PAGE_BYTES)
            .filter(|len| *len <= isize::MAX as usize - HUGE_PAGE_BYTES)
            .ok_or(MemoryError::TooMuch { bytes })?;
        if huge && let Ok(mapping) = Self::huge(len) {
            return Ok(mapping);
        }
        Self::plain(len).map_err(|why| MemoryError::Refused {
            mib: len >> 20,
            pages: len / HUGE_PAGE_BYTES,
            why,
        })
    }

    fn huge(len: usize) -> io::Result<Self> {
        let base = map(len, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)?;
        let mapping = Self { base, len, pages: Pages::Huge };
        // A page promised but not there (a cgroup's limit) would end the process at its first use.
        mapping.populate()?;
        Ok(mapping)
    }

    fn plain(len: usize) -> io::Result<Self> {
        // Taking pages that are not there would have the kernel end some process to make room.
        if Host::here().available_bytes().is_some_and(|available| len as u64 > available) {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        // One page more, so that a part of it starts at a multiple of 2 MB; the ends are given back.
        let wide = map(len + HUGE_PAGE_BYTES, 0)?;
        let skip = wide.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: skip is below one page of 2 MB, so skip..skip + len lies in the mapping, and both ends outside it
        // are whole pages of it that nobody uses.
        let mapping = unsafe {
            let base = wide.add(skip);
            if skip > 0 {
                libc::munmap(wide.as_ptr().cast(), skip);
            }
            libc::munmap(base.add(len).as_ptr().cast(), HUGE_PAGE_BYTES - skip);
            Self { base, len, pages: Pages::Plain }
        };
        // SAFETY: the region is ours. A kernel without large pages refuses, and nothing is lost.
        unsafe { libc::madvise(mapping.base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        mapping.populate()?;
        Ok(mapping)
    }

    /// Has the kernel put a page behind every address now (Linux 5.14 and later).
    fn populate(&self) -> io::Result<()> {
        // SAFETY: the region is ours and writable; the call changes no byte of it.
        match unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_POPULATE_WRITE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Where it starts.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its bytes; a multiple of 2 MB.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a mapping has at least one page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// What it lies on.
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// Hands the region to a tracker, for as long as the process lives.
    pub fn into_memory(self) -> Memory {
        let (base, len) = (self.base, self.len);
        std::mem::forget(self);
        // SAFETY: zeroed by the kernel, readable and writable, aligned to 2 MB; nothing unmaps it or knows of it.
        unsafe { Memory::mapped(base, len) }
    }
}

/// A private mapping of zeroes.
fn map(len: usize, flags: i32) -> io::Result<NonNull<u8>> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping where the kernel likes touches nothing that exists.
    let at =
        unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole region is ours, and this runs once.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(mapping: &Mapping) -> &[u8] {
        // SAFETY: the region is readable and nobody writes to it.
        unsafe { std::slice::from_raw_parts(mapping.base().as_ptr(), mapping.len()) }
    }

    #[test]
    fn a_plain_mapping_is_zeroed_aligned_and_rounded_up() {
        let mapping = Mapping::new(HUGE_PAGE_BYTES + 1, false).unwrap();
        assert_eq!((mapping.pages(), mapping.len()), (Pages::Plain, 2 * HUGE_PAGE_BYTES));
        assert_eq!(mapping.base().as_ptr() as usize % HUGE_PAGE_BYTES, 0);
        assert!(bytes_of(&mapping).iter().all(|byte| *byte == 0));
    }

    #[test]
    fn every_page_is_there_before_the_first_use() {
        let mapping = Mapping::new(8 * HUGE_PAGE_BYTES, false).unwrap();
        let mut resident = vec![0_u8; mapping.len() / 4096];
        // SAFETY: one byte for each page of 4 KB of our own region.
        let result =
            unsafe { libc::mincore(mapping.base().as_ptr().cast(), mapping.len(), resident.as_mut_ptr()) };
        assert_eq!(result, 0);
        assert!(resident.iter().all(|page| page & 1 == 1));
    }

    #[test]
    fn more_than_the_machine_has_is_refused_with_the_fix() {
        let error = Mapping::new(1 << 46, true).unwrap_err().to_string();
        assert!(error.contains("lower `table.max_entries`") && error.contains("nr_hugepages"), "{error}");
        let error = Mapping::new(usize::MAX - 5, true).unwrap_err().to_string();
        assert!(error.contains("lower `table.max_entries`"), "{error}");
    }

    #[test]
    fn without_enough_hugepages_plain_memory_is_used_and_said() {
        let free: usize = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
            .map_or(0, |text| text.trim().parse().unwrap());
        // Beyond any reservation that other tests take or leave meanwhile.
        let mapping = Mapping::new((free + 40) * HUGE_PAGE_BYTES, true).unwrap();
        assert_eq!(mapping.pages(), Pages::Plain);
        let one = Mapping::new(1, true).unwrap();
        assert_eq!(one.len(), HUGE_PAGE_BYTES);
        assert!(free < 8 || one.pages() == Pages::Huge, "{free} hugepages were free");
    }
}
