//! GRE: no states, only how long to wait.

use super::timeout::TimeoutKey;
use super::{Context, Step};
use crate::table::entry::{Head, status};

/// A GRE flow's variables: its timeouts, in ticks, as they were when it was made. `conntrack` prints them with
/// each flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GreVars {
    pub timeout: u32,
    pub stream_timeout: u32,
}

/// What one GRE packet does to its flow. SEEN_REPLY comes after the step, so the first reply itself still gets
/// the short timeout.
pub fn step(head: &mut Head, vars: &mut GreVars, ctx: &Context<'_>) -> Step {
    if ctx.first {
        vars.timeout = ctx.settings.timeouts.get(TimeoutKey::Gre).0;
        vars.stream_timeout = ctx.settings.timeouts.get(TimeoutKey::GreStream).0;
    }
    if head.status & status::SEEN_REPLY != 0 {
        head.status |= status::ASSURED;
        Step::Refresh { key: TimeoutKey::GreStream, span: vars.stream_timeout }
    } else {
        Step::Refresh { key: TimeoutKey::Gre, span: vars.timeout }
    }
}
