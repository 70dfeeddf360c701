//! Table and cold lines against plain maps, under random operations.

use super::cold::{Cold, NoLine, Which};
use super::entry::{Entry, Head, Vars, status};
use super::memory::Memory;
use super::{FlowIndex, Full, PrefetchHint, Probe, Table, VICTIM_WINDOW};
use crate::event::Count;
use crate::key::{Direction, FlowKey, kind};
use crate::wire::Addr;
use std::collections::HashMap;
use std::vec::Vec;

/// xorshift64: the same operations on every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: u32) -> u32 {
        ((self.next() >> 32) * u64::from(n) >> 32) as u32
    }

    /// Ticks from none to 90 days, short and long ones alike.
    pub(crate) fn span(&mut self) -> u64 {
        let bits = self.below(25);
        u64::from(self.below(1 << bits)).min(u64::from(crate::tick::Ticks::MAX.0))
    }
}

/// Operations of each model test: MODEL_OPS, else a million (a few thousand under Miri).
pub(crate) fn operations() -> u64 {
    let default = if cfg!(miri) { 3_000 } else { 1_000_000 };
    std::env::var("MODEL_OPS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
