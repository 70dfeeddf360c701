//! Room 3: key → flow. Index, slab, prefetch, eviction; one owner, preallocated, never resized.

pub mod entry;
pub mod memory;
