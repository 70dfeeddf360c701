//! The first segment that there mostly is: a SYN. What the general way ([`super::step`]) makes of it on a flow that has just
//! begun, with all that cannot apply left out.

use super::state::{Index, TcpState, TcpVars};
use crate::fault::{Fault, planted};
use crate::key::Direction;
use crate::table::entry::Head;
use crate::tick::Ticks;
use crate::track::settings::Settings;
use crate::track::timeout::TimeoutKey;
use crate::track::{Context, Step};
use crate::wire::{Segment, tcp_flags};

/// What the switches and timeouts come to for a first SYN, worked out when they change.
#[derive(Clone, Copy, Debug)]
pub struct OpeningRules {
    /// `None`: such a segment goes the general way.
    timeout: Option<(TimeoutKey, Ticks)>,
    window_tracking: bool,
}

impl OpeningRules {
    /// From the settings as they are now: asks the general way.
    pub fn new(settings: &Settings) -> Self {
        let mut head = Head::default();
        let mut vars = TcpVars::default();
        let syn = Segment { flags: tcp_flags::SYN, window: 1, ..Segment::NONE };
        let ctx = Context { now: 0, direction: Direction::Original, first: true, settings };
        let timeout = match super::step(&mut head, &mut vars, &syn, &ctx) {
            Step::Refresh { key, span } if head.state == TcpState::SynSent as u8 => Some((key, Ticks(span))),
            _ => None,
        };
        Self { timeout, window_tracking: settings.tcp.window_tracking }
    }
}

/// Takes the first segment of a flow, if it is a SYN. Head and variables are as at a flow's beginning.
#[inline(always)]
pub fn step_opening(
    head: &mut Head,
    vars: &mut TcpVars,
    segment: &Segment<'_>,
    rules: &OpeningRules,
) -> Option<(TimeoutKey, u32)> {
    use tcp_flags::{ACK, FIN, RST, SYN};
    let (key, span) = rules.timeout?;
    if segment.flags & (SYN | ACK | FIN | RST) != SYN {
        return None;
    }
    head.state = TcpState::SynSent as u8;
    let end = segment.end();
    let window = u32::from(segment.window).max(1);
    let peer = &mut vars.peers[Direction::Original.index()];
    (peer.end, peer.maxend, peer.maxwin) = (end, end, window);
    if !segment.options.is_empty() && !planted(Fault::LaneOpeningOptions) {
        vars.learn_options(Direction::Original, segment.options);
    }
    if rules.window_tracking {
        // How far the other side may send: nothing is acknowledged yet, so from 0 on.
        let reach = u32::from(segment.window);
        vars.peers[Direction::Reply.index()].maxend = reach + u32::from(reach == 0);
    }
    vars.noted.set(Index::Syn, Direction::Original);
    Some((key, span.0))
}
