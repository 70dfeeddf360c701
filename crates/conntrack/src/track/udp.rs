//! UDP and UDP-Lite: no states, only how long to wait.

use super::timeout::TimeoutKey;
use super::{Context, Step};
use crate::fault::{Fault, planted, slip};
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
        Some(after) => age + slip(Fault::UdpStreamEdge) > after.0 || planted(Fault::UdpStreamAtOnce),
        None => !planted(Fault::UdpClassicWaits),
    };
    if planted(Fault::UdpAgeRenewed) {
        vars.first = ctx.now;
    }
    answered(head, ctx, lasting)
}

/// What one UDP-Lite packet does to its flow: a stream as soon as a reply was seen.
pub fn step_lite(head: &mut Head, ctx: &Context<'_>) -> Step {
    answered(head, ctx, !planted(Fault::UdpLiteWaits))
}

/// SEEN_REPLY comes after the step, so the first reply itself is never part of a stream.
fn answered(head: &mut Head, ctx: &Context<'_>, lasting: bool) -> Step {
    let answered = head.status & status::SEEN_REPLY != 0 || planted(Fault::UdpStreamUnanswered);
    if answered && lasting && !planted(Fault::UdpStreamNever) {
        head.status |= if planted(Fault::UdpStreamUnassured) { 0 } else { status::ASSURED };
        Step::refresh(TimeoutKey::UdpStream, ctx.settings)
    } else {
        Step::refresh(TimeoutKey::Udp, ctx.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Direction;
    use crate::tick::PER_SECOND;
    use crate::track::settings::{Profile, Settings};

    /// One flow, kept as the tracker keeps it.
    struct Flow {
        head: Head,
        vars: UdpVars,
        settings: Settings,
        live: bool,
    }

    impl Flow {
        fn new(profile: Profile) -> Self {
            Self {
                head: Head::default(),
                vars: UdpVars::default(),
                settings: Settings::new(profile),
                live: false,
            }
        }

        fn packet(&mut self, now: u32, direction: Direction) -> Step {
            let ctx = Context { now, direction, first: !self.live, settings: &self.settings };
            let step = step(&mut self.head, &mut self.vars, &ctx);
            self.live = true;
            self.replied(direction);
            step
        }

        fn lite_packet(&mut self, direction: Direction) -> Step {
            let ctx = Context { now: 0, direction, first: false, settings: &self.settings };
            let step = step_lite(&mut self.head, &ctx);
            self.replied(direction);
            step
        }

        fn replied(&mut self, direction: Direction) {
            self.head.status |= if direction == Direction::Reply { status::SEEN_REPLY } else { 0 };
        }

        fn is_assured(&self) -> bool {
            self.head.status & status::ASSURED != 0
        }

        fn short(&self) -> Step {
            Step::refresh(TimeoutKey::Udp, &self.settings)
        }

        fn long(&self) -> Step {
            Step::refresh(TimeoutKey::UdpStream, &self.settings)
        }
    }

    const TWO_SECONDS: u32 = 2 * PER_SECOND;

    #[test]
    fn a_flow_is_a_stream_when_it_lasts_more_than_two_seconds_after_its_first_packet() {
        // Starts just before the tick counter turns over.
        let start = u32::MAX - 10;
        let mut flow = Flow::new(Profile::Linux);
        assert_eq!(flow.packet(start, Direction::Original), flow.short());
        assert_eq!(flow.packet(start.wrapping_add(1), Direction::Reply), flow.short());
        assert_eq!(flow.packet(start.wrapping_add(TWO_SECONDS), Direction::Original), flow.short());
        assert!(!flow.is_assured());
        assert_eq!(flow.packet(start.wrapping_add(TWO_SECONDS + 1), Direction::Original), flow.long());
        assert!(flow.is_assured());
    }

    #[test]
    fn a_late_first_reply_makes_no_stream_but_the_packet_after_it_does() {
        let mut flow = Flow::new(Profile::Linux);
        flow.packet(0, Direction::Original);
        assert_eq!(flow.packet(5 * PER_SECOND, Direction::Reply), flow.short());
        assert!(!flow.is_assured());
        assert_eq!(flow.packet(5 * PER_SECOND, Direction::Reply), flow.long());
    }

    #[test]
    fn one_way_traffic_is_never_a_stream() {
        let mut flow = Flow::new(Profile::Linux);
        for second in 0..100 {
            assert_eq!(flow.packet(second * PER_SECOND, Direction::Original), flow.short());
        }
        assert!(!flow.is_assured());
    }

    #[test]
    fn a_flow_older_than_the_tick_counter_still_counts_as_old() {
        let mut flow = Flow::new(Profile::Linux);
        let mut now = 0u32;
        flow.packet(now, Direction::Original);
        flow.packet(now, Direction::Reply);
        // Packets 25 days apart; the eighth falls on the tick at which the counter has turned over.
        for _ in 0..10 {
            now = now.wrapping_add(1 << 29);
            assert_eq!(flow.packet(now, Direction::Original), flow.long());
        }
    }

    #[test]
    fn classic_makes_a_stream_of_the_packet_after_the_first_reply() {
        let mut flow = Flow::new(Profile::Classic);
        flow.packet(0, Direction::Original);
        assert_eq!(flow.packet(0, Direction::Reply), flow.short());
        assert_eq!(flow.packet(0, Direction::Original), flow.long());
        assert!(flow.is_assured());
    }

    #[test]
    fn udp_lite_has_no_two_second_rule() {
        let mut flow = Flow::new(Profile::Linux);
        assert_eq!(flow.lite_packet(Direction::Original), flow.short());
        assert_eq!(flow.lite_packet(Direction::Reply), flow.short());
        assert_eq!(flow.lite_packet(Direction::Original), flow.long());
        assert!(flow.is_assured());
    }
}
