//! One line of the index: eight tags, eight slab indices, and what is known of entries that live elsewhere.
//! Never sees a key.

use super::memory::Zeroed;

/// Entries that one bucket holds.
pub(crate) const SLOTS: usize = 8;

/// 64 bytes, so that a lookup that misses costs one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    /// 0: the slot is empty.
    tags: [u16; SLOTS],
    index: [u32; SLOTS],
    /// Entries whose home is this bucket but that live in their alternate or in the stash. 0: who is not here is
    /// nowhere.
    pub(crate) overflow: u16,
    /// Bit i: slot i holds an entry whose home is another bucket.
    away: u8,
}

const _: () = assert!(size_of::<Bucket>() == 64);

// SAFETY: made of integers only.
#[allow(unsafe_code)]
unsafe impl Zeroed for Bucket {}

/// The slots of a bucket as a bit each; gives them in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots(pub(crate) u8);

impl Iterator for Slots {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

impl Bucket {
    /// The slots whose tag is `tag`.
    #[inline(always)]
    pub(crate) fn matches<const PORTABLE: bool>(&self, tag: u16) -> Slots {
        #[cfg(target_arch = "x86_64")]
        if !PORTABLE {
            return Slots(matches_sse2(&self.tags, tag));
        }
        Slots(matches_portable(&self.tags, tag))
    }

    /// The first free slot.
    #[inline(always)]
    pub(crate) fn vacant<const PORTABLE: bool>(&self) -> Option<usize> {
        self.matches::<PORTABLE>(0).next()
    }

    #[inline(always)]
    pub(crate) fn index(&self, slot: usize) -> u32 {
        self.index[slot]
    }

    pub(crate) fn tag(&self, slot: usize) -> u16 {
        self.tags[slot]
    }

    pub(crate) fn is_away(&self, slot: usize) -> bool {
        self.away & 1 << slot != 0
    }

    #[inline(always)]
    pub(crate) fn put(&mut self, slot: usize, tag: u16, index: u32, away: bool) {
        self.tags[slot] = tag;
        self.index[slot] = index;
        self.away = self.away & !(1 << slot) | u8::from(away) << slot;
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self, slot: usize) {
        self.put(slot, 0, 0, false);
    }
}

/// For every CPU.
#[inline(always)]
fn matches_portable(tags: &[u16; SLOTS], tag: u16) -> u8 {
    let mut mask = 0;
    for (slot, &other) in tags.iter().enumerate() {
        mask |= u8::from(other == tag) << slot;
    }
    mask
}

/// One compare for the whole line. SSE2 is part of every x86_64.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(unsafe_code)]
fn matches_sse2(tags: &[u16; SLOTS], tag: u16) -> u8 {
    use core::arch::x86_64::*;
    // SAFETY: the target has SSE2 and the load reads the array's own 16 bytes, whatever their alignment.
    unsafe {
        let all = _mm_loadu_si128(tags.as_ptr().cast());
        let equal = _mm_cmpeq_epi16(all, _mm_set1_epi16(tag.cast_signed()));
        // 16-bit lanes of all ones or none become bytes, one bit each.
        _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_matching_find_exactly_the_equal_tags() {
        let values = [0, 1, 0x00ff, 0x7fff, 0x8000, 0xffff];
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..if cfg!(miri) { 50 } else { 20_000 } {
            let tags: [u16; SLOTS] = core::array::from_fn(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                values[(random >> 32) as usize % values.len()]
            });
            let bucket = Bucket { tags, index: [0; SLOTS], overflow: 0, away: 0 };
            for tag in values {
                let want: std::vec::Vec<_> = (0..SLOTS).filter(|&slot| tags[slot] == tag).collect();
                assert_eq!(
                    bucket.matches::<false>(tag).collect::<std::vec::Vec<_>>(),
                    want,
                    "{tags:?} {tag}"
                );
                assert_eq!(bucket.matches::<true>(tag).collect::<std::vec::Vec<_>>(), want, "{tags:?} {tag}");
            }
        }
    }
}
