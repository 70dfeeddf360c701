//! UDP and UDP-Lite: no states, only how long to wait.

use super::timeout::TimeoutKey;
use super::{Context, Step};
use crate::table::entry::{Head, status};
use crate::tick::Ticks;

/// A UDP flow's variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UdpVars {
    /// Low tick of the flow's first packet; of a flow older than [`Ticks::MAX`], a tick just that old.
    pub first: u32,
}

/// What one UDP packet does to its flow.
pub fn step(head: &mut Head, vars: &mut UdpVars, ctx: &Context<'_>) -> Step {
    if ctx.first {
        vars.first = ctx.now;
    }
    // Silence never lasts longer than Ticks::MAX (90 days), so moving `first` along keeps the unsigned age below
    // its turnover at 198 days.
    let age = ctx.now.wrapping_sub(vars.first);
    if age > Ticks::MAX.0 {
        vars.first = ctx.now.wrapping_sub(Ticks::MAX.0);
    }
    // One question and one answer are no conversation, however slow the answer: a DNS lookup frees its entry soon.
    let lasting = match ctx.settings.udp_stream_after {
        Some(after) => age > after.0,
        None => true,
    };
    answered(head, ctx, lasting)
}

/// What one UDP-Lite packet does to its flow: a stream as soon as a reply was seen.
pub fn step_lite(head: &mut Head, ctx: &Context<'_>) -> Step {
    answered(head, ctx, true)
}

/// SEEN_REPLY comes after the step, so the first reply itself is never part of a stream.
fn answered(head: &mut Head, ctx: &Context<'_>, lasting: bool) -> Step {
    if head.status & status::SEEN_REPLY != 0 && lasting {
        head.status |= status::ASSURED;
        Step::refresh(TimeoutKey::UdpStream, ctx.settings)
    } else {
        Step::refresh(TimeoutKey::Udp, ctx.settings)
    }
}
