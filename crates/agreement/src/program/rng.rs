//! Random numbers that depend on the seed alone. SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to
//! choose packets with.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of one program: equal for equal arguments, unrelated otherwise.
    pub fn new(seed: u64, index: u64) -> Self {
        let mut first = Self(seed);
        let key = first.next();
        let mut second = Self(key ^ index.wrapping_mul(0xd134_2543_de82_ef95));
        second.next();
        second
    }

    /// 64 random bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 32 random bits.
    pub fn word(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.word()) * u64::from(bound)) >> 32) as u32
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below((high - low).saturating_add(1))
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// One of `items`.
    pub fn pick<T: Copy, const N: usize>(&mut self, items: [T; N]) -> T {
        const { assert!(N > 0) };
        items[self.below(N as u32) as usize]
    }

    /// One of `items`, if there is any.
    pub fn pick_from<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u32) as usize)
    }

    /// The index of one weight, chosen in proportion.
    pub fn weighted<const N: usize>(&mut self, weights: [u32; N]) -> usize {
        let mut at = self.below(weights.iter().sum());
        for (index, weight) in weights.into_iter().enumerate() {
            if at < weight {
                return index;
            }
            at -= weight;
        }
        N - 1
    }
}
