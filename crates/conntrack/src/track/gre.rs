//! GRE: no states, only how long to wait.

use super::timeout::TimeoutKey;
use super::{Context, Step};
use crate::fault::{Fault, planted, short_timeout};
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
    let (key, span) = if head.status & status::SEEN_REPLY != 0 && !planted(Fault::GreStreamNever) {
        head.status |= if planted(Fault::GreUnassured) { 0 } else { status::ASSURED };
        (TimeoutKey::GreStream, vars.stream_timeout)
    } else {
        (TimeoutKey::Gre, vars.timeout)
    };
    Step::Refresh { key, span: span.saturating_sub(short_timeout(key)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Direction;
    use crate::tick::Ticks;
    use crate::track::settings::{Profile, Settings};

    #[test]
    fn a_flow_keeps_the_timeouts_of_its_birth_and_is_a_stream_after_a_reply() {
        let mut settings = Settings::new(Profile::Linux);
        let (mut head, mut vars) = (Head::default(), GreVars::default());
        let (short, long) = (Ticks::from_secs(30).0, Ticks::from_secs(180).0);

        let ctx = Context { now: 0, direction: Direction::Original, first: true, settings: &settings };
        assert_eq!(step(&mut head, &mut vars, &ctx), Step::Refresh { key: TimeoutKey::Gre, span: short });

        settings.timeouts.set(TimeoutKey::Gre, Ticks::from_secs(7));
        settings.timeouts.set(TimeoutKey::GreStream, Ticks::from_secs(8));
        let ctx = Context { now: 0, direction: Direction::Reply, first: false, settings: &settings };
        assert_eq!(step(&mut head, &mut vars, &ctx), Step::Refresh { key: TimeoutKey::Gre, span: short });
        assert_eq!(head.status & status::ASSURED, 0);

        head.status |= status::SEEN_REPLY;
        assert_eq!(
            step(&mut head, &mut vars, &ctx),
            Step::Refresh { key: TimeoutKey::GreStream, span: long }
        );
        assert_ne!(head.status & status::ASSURED, 0);
    }
}
