//! Every other protocol: one flow per protocol and address pair, never ASSURED.

use super::timeout::TimeoutKey;
use super::{Context, Step};
use crate::table::entry::Head;

/// What one packet does to its flow: nothing but to keep it alive. Having no state, it leaves its head alone.
pub fn step(_head: &mut Head, ctx: &Context<'_>) -> Step {
    Step::refresh(TimeoutKey::Generic, ctx.settings)
}
