//! TCP. `step` takes one segment of one flow through, in this order: the flags, the state table ([`steps`]), the special
//! cases of ignored segments and resets ([`reset`]), the window ([`window`]), and the timeout.
//! Rules and numbers: conntrack as Linux 6.18 behaves; the classic profile's differences are switches.

mod established;
mod missed;
mod opening;
mod options;
mod reset;
mod state;
mod steps;
mod window;

pub use established::{Rules as EstablishedRules, step_established};
pub use missed::{Missed, Number, missed};
pub use opening::{OpeningRules, step_opening};
pub use state::{Mark, Peer, TcpState, TcpVars};

use super::reason::Reason;
use super::settings::{Pickup, Settings};
use super::timeout::TimeoutKey;
use super::{Context, Step};
use crate::fault::{Fault, planted, slip};
use crate::key::Direction;
use crate::table::entry::{Head, status};
use crate::tick::{Ticks, until};
use crate::wire::{Segment, tcp_flags};
use options::{Options, highest_sack};
use state::{Index, Noted};
use steps::Cell;
use window::Fit;

/// Takes one segment of one flow. On the first segment `head` and `vars` are all zero.
#[inline]
pub fn step(head: &mut Head, vars: &mut TcpVars, segment: &Segment<'_>, ctx: &Context<'_>) -> Step {
    let tcp = &ctx.settings.tcp;
    let index = Index::of(segment.flags);
    let old = TcpState::from_number(head.state);
    let flagless_pickup = tcp.pickup == Pickup::Any && old == TcpState::None && segment.is_flagless();
    if !segment.legal_flags() && !flagless_pickup && !planted(Fault::FlagScreen) {
        return Step::Invalid(Reason::TcpFlags);
    }
    if ctx.first && !open(vars, segment, index, tcp.pickup) {
        return Step::Invalid(Reason::TcpNoOpen);
    }

    let from = ctx.direction;
    let mut turn = Turn { old, new: old, resync: false };
    match steps::cell(tcp.pickup, old, from, index) {
        Cell::Invalid => return Step::Invalid(Reason::TcpState),
        Cell::Move(new) if new == TcpState::SynSent && old.is_over() => {
            if may_reopen(vars, from) {
                return Step::Reopen;
            }
            if !ignore(vars, segment, index, from, &mut turn) {
                return Step::Ignore;
            }
        }
        Cell::Ignore => {
            if !ignore(vars, segment, index, from, &mut turn) {
                return Step::Ignore;
            }
        }
        Cell::Move(new) => turn.new = new,
    }

    let mut checked = tcp.window_tracking;
    match turn.new {
        TcpState::TimeWait if is_challenge_ack(vars, old, index, from) => {
            if !planted(Fault::ChallengeTwice) {
                vars.last_flags &= !Mark::CHALLENGE;
            }
            return Step::Ignore;
        }
        TcpState::SynSent2 if !planted(Fault::SimultaneousNotMarked) => vars.last_flags |= Mark::SIMULTANEOUS,
        TcpState::SynRecv if simultaneous_open_answered(vars, index, from) => {
            turn.new = TcpState::Established
        }
        TcpState::Close if index == Index::Rst && (checked || planted(Fault::RstWindowOff)) => {
            match reset::judge(head, vars, segment, old, from, tcp.ignore_invalid_rst) {
                reset::Judgement::Accept => checked = false,
                reset::Judgement::CheckWindow => {}
                reset::Judgement::KeepStateAndCheckWindow => turn.new = old,
                reset::Judgement::KeepStateAndAccept => {
                    turn.new = old;
                    checked = false;
                }
                reset::Judgement::Invalid => return Step::Invalid(Reason::TcpRstUnderAck),
            }
        }
        _ => {}
    }

    if checked {
        let permitted = vars.flags[from.other().index()] & Mark::SACK_OK != 0 || planted(Fault::SackUnasked);
        let sack = if permitted && !planted(Fault::SackIgnored) {
            highest_sack(segment.options, segment.ack)
        } else {
            segment.ack
        };
        match window::check(vars, segment, index, old, from, sack, tcp.be_liberal) {
            Fit::Accept => {}
            Fit::Ignore => return Step::Ignore,
            Fit::Invalid(reason) => {
                after_invalid(head, vars, index, from, ctx);
                return Step::Invalid(reason);
            }
        }
    }
    accept(head, vars, segment, index, turn, ctx)
}

/// Whether a FIN or a reset was seen.
const fn is_closing(state: TcpState) -> bool {
    matches!(
        state,
        TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck | TcpState::TimeWait | TcpState::Close
    )
}

/// A segment's way through the table.
#[derive(Clone, Copy)]
struct Turn {
    /// The state that the rules for ASSURED and the timeout count from.
    old: TcpState,
    new: TcpState,
    /// Both hosts agreed on a connection that had been ignored here: told as a change whatever the stored state.
    resync: bool,
}

/// Starts the variables of a new flow; false if the segment may not open one.
fn open(vars: &mut TcpVars, segment: &Segment<'_>, index: Index, pickup: Pickup) -> bool {
    let opens = match pickup {
        Pickup::Any => true,
        Pickup::Ack if !planted(Fault::PickupLoose) => matches!(index, Index::Syn | Index::Ack),
        Pickup::Syn if planted(Fault::PickupStrict) => matches!(index, Index::Syn | Index::Ack),
        Pickup::Ack | Pickup::Syn => index == Index::Syn,
    };
    if !opens {
        return false;
    }
    let end = segment.end();
    let window = u32::from(segment.window).max(1);
    let peer = &mut vars.peers[Direction::Original.index()];
    peer.end = end;
    peer.maxwin = window;
    peer.maxend = end;
    if index == Index::Syn {
        vars.learn_options(Direction::Original, segment.options);
    } else {
        // The connection's history is unknown: what the options were, and what was sent before.
        peer.maxend = if planted(Fault::PickupWindow) { end } else { end.wrapping_add(window) };
        vars.flags = [Mark::SACK_OK | Mark::LIBERAL; 2];
    }
    true
}

/// A connection that ended may start again on the same tuple if its end was proper: one side had sent a FIN
/// first, or this side has just reset it.
fn may_reopen(vars: &TcpVars, from: Direction) -> bool {
    let proper = (vars.flags[0] | vars.flags[1]) & Mark::CLOSE_INIT != 0 || planted(Fault::ReopenAlways);
    let reset = vars.noted.direction() == from && vars.noted.index() == Index::Rst;
    (proper || (reset && !planted(Fault::ReopenAfterReset))) && !planted(Fault::ReopenNever)
}

/// A segment that our state has no place for may still be right: what it says is noted, and it passes.
/// True if the segment is a SYN/ACK that fits a SYN noted before: then both hosts are in step and we follow.
fn ignore(vars: &mut TcpVars, segment: &Segment<'_>, index: Index, from: Direction, turn: &mut Turn) -> bool {
    let noted = vars.noted;
    if index == Index::SynAck
        && noted.index() == Index::Syn
        && noted.direction() != from
        && (segment.ack == vars.last_end || planted(Fault::ResyncAnyAck))
        && !planted(Fault::ResyncNever)
    {
        let opener = noted.direction().index();
        vars.peers[opener] = Peer {
            end: vars.last_end,
            maxend: vars.last_end,
            maxwin: u32::from(vars.last_window).max(1),
            // Not part of what was noted; it stays.
            maxack: vars.peers[opener].maxack,
        };
        vars.last_flags &= !Mark::CHALLENGE;
        vars.flags[opener] = vars.last_flags;
        vars.set_scale(noted.direction(), if planted(Fault::ResyncScale) { 0 } else { noted.wscale() });
        if !planted(Fault::ResyncKeepsPeer) {
            vars.peers[from.index()] = Peer::default();
        }
        vars.flags[from.index()] &= Mark::LIBERAL;
        vars.set_scale(from, 0);
        *turn = Turn { old: TcpState::SynSent, new: TcpState::SynRecv, resync: true };
        return true;
    }

    if planted(Fault::IgnoredNotNoted) {
        return false;
    }
    vars.noted.set(index, from);
    vars.last_seq = segment.seq;
    vars.last_end = segment.end();
    vars.last_window = segment.window;
    if index == Index::Syn && from == Direction::Original {
        let options = Options::read(segment.options).unwrap_or_default();
        vars.last_flags = options.marks;
        vars.noted.set_wscale(options.wscale);
        // The answer may be a challenge, which must not be taken for the acknowledgment of the last FIN. RFC 5961 section 4
        if turn.old == TcpState::LastAck && !planted(Fault::ChallengeNotExpected) {
            vars.last_flags |= Mark::CHALLENGE;
        }
    }
    let challenge = turn.old == TcpState::SynSent && index == Index::Ack && from == Direction::Reply;
    if challenge && !planted(Fault::ChallengeSynSent) {
        vars.last_ack = segment.ack;
    }
    false
}

fn is_challenge_ack(vars: &TcpVars, old: TcpState, index: Index, from: Direction) -> bool {
    old == TcpState::LastAck
        && index == Index::Ack
        && vars.noted.direction() != from
        && vars.noted.index() == Index::Syn
        && vars.last_flags & Mark::CHALLENGE != 0
        && !planted(Fault::ChallengeTaken)
}

fn simultaneous_open_answered(vars: &TcpVars, index: Index, from: Direction) -> bool {
    from == Direction::Reply
        && index == Index::Ack
        && vars.last_flags & Mark::SIMULTANEOUS != 0
        && !planted(Fault::SimultaneousNotDone)
}

/// A FIN or RST out of window, answered by another from the other side, is the sign of a connection that is over
/// but that we have lost track of: it need not stay for days.
fn after_invalid(head: &mut Head, vars: &mut TcpVars, index: Index, from: Direction, ctx: &Context<'_>) {
    const KEEP: Ticks = Ticks::from_secs(120);
    let lasting = head.status & status::ASSURED != 0 || planted(Fault::InvalidCutUnassured);
    if !lasting || !matches!(index, Index::Fin | Index::Rst) || planted(Fault::InvalidCutNever) {
        return;
    }
    let noted = vars.noted;
    let answers = noted.direction() != from && matches!(noted.index(), Index::Fin | Index::Rst);
    if !answers && !planted(Fault::InvalidCutAtOnce) {
        vars.noted.set(index, from);
        return;
    }
    let left = until(head.deadline, ctx.now);
    let unacknowledged = ctx.settings.timeouts.get(TimeoutKey::TcpUnacknowledged).0;
    let enough = left >= KEEP.0 as i32 || planted(Fault::InvalidCutEdge);
    let applies = ctx.settings.tcp.unacknowledged_timer && enough;
    if applies && left as u32 > unacknowledged {
        head.deadline = ctx.now.wrapping_add(unacknowledged);
        head.timeout_key = TimeoutKey::TcpUnacknowledged as u8;
    }
}

/// The segment belongs to the connection: take its state, then find the timeout.
#[inline(always)]
fn accept(
    head: &mut Head,
    vars: &mut TcpVars,
    segment: &Segment<'_>,
    index: Index,
    turn: Turn,
    ctx: &Context<'_>,
) -> Step {
    let Turn { old, new, resync } = turn;
    vars.noted.set(index, ctx.direction);
    head.state = new as u8;
    if new == TcpState::FinWait && old != new && !planted(Fault::CloseInitNotMarked) {
        vars.flags[ctx.direction.index()] |= Mark::CLOSE_INIT;
    }
    if resync && !planted(Fault::ResyncUntold) {
        head.status |= status::STATE_CHANGED;
    }

    let mut key = timeout_of(vars, index, new, ctx.settings);
    let timeouts = &ctx.settings.timeouts;
    if head.status & status::SEEN_REPLY == 0 {
        if segment.flags & tcp_flags::RST != 0 && !ctx.first && !planted(Fault::RstUnanswered) {
            return Step::Destroy;
        }
        // Were it renewed, a client that reuses the port could keep a dead entry alive for ever.
        if index == Index::Syn && old == TcpState::SynSent && !planted(Fault::SynRenews) {
            return Step::Ignore;
        }
        // Picked up, and nothing came back yet: not worth days.
        if new == TcpState::Established
            && ctx.settings.tcp.unacknowledged_timer
            && timeouts.get(key) > timeouts.get(TimeoutKey::TcpUnacknowledged)
            && !planted(Fault::PickupCap)
        {
            key = TimeoutKey::TcpUnacknowledged;
        }
    } else if new == TcpState::Established {
        let assured = match old {
            TcpState::Established => !planted(Fault::AssuredNotByData),
            TcpState::SynRecv if planted(Fault::AssuredNotByHandshake) => false,
            TcpState::SynRecv => !ctx.settings.tcp.assured_late || planted(Fault::AssuredLate),
            _ => false,
        };
        if assured {
            head.status |= status::ASSURED;
        }
    }
    Step::refresh(key, ctx.settings)
}

/// Which timeout an accepted segment puts the flow on; the first rule that matches wins.
#[inline(always)]
fn timeout_of(vars: &TcpVars, index: Index, new: TcpState, settings: &Settings) -> TimeoutKey {
    let timeouts = &settings.timeouts;
    let tcp = &settings.tcp;
    let own = new.timeout_key();
    let shorter = |key: TimeoutKey| timeouts.get(own) > timeouts.get(key);
    let retrans = tcp.max_retrans.filter(|_| tcp.window_tracking);
    let too_often = |max| u32::from(vars.retrans) >= u32::from(max) + slip(Fault::MaxRetransEdge);
    let unacked =
        (vars.flags[0] | if planted(Fault::UnackedOneSide) { 0 } else { vars.flags[1] }) & Mark::UNACKED != 0;
    if retrans.is_some_and(too_often)
        && !planted(Fault::MaxRetransNever)
        && (shorter(TimeoutKey::TcpMaxRetrans) || planted(Fault::MaxRetransLonger))
    {
        TimeoutKey::TcpMaxRetrans
    } else if index == Index::Rst && !planted(Fault::RstTimeout) {
        TimeoutKey::TcpClose
    } else if (tcp.unacknowledged_timer || planted(Fault::UnackedSwitch))
        && unacked
        && !planted(Fault::UnackedNever)
        && (shorter(TimeoutKey::TcpUnacknowledged) || planted(Fault::UnackedLonger))
    {
        TimeoutKey::TcpUnacknowledged
    } else if retrans.is_some()
        && vars.last_window == 0
        && !planted(Fault::ZeroWindowNever)
        && (shorter(TimeoutKey::TcpMaxRetrans) || planted(Fault::ZeroWindowLonger))
    {
        TimeoutKey::TcpMaxRetrans
    } else {
        own
    }
}

impl Segment<'_> {
    /// The sequence number behind this segment's last byte; SYN and FIN take one each.
    #[inline(always)]
    pub fn end(&self) -> u32 {
        let syn = u32::from(self.flags & tcp_flags::SYN != 0);
        let fin = u32::from(self.flags & tcp_flags::FIN != 0);
        self.seq.wrapping_add(self.payload_bytes).wrapping_add(syn + fin)
    }

    /// No SYN, FIN, RST, ACK or URG; PSH and the ECN bits say nothing of a connection.
    fn is_flagless(&self) -> bool {
        use tcp_flags::{ACK, FIN, RST, SYN, URG};
        self.flags & (SYN | FIN | RST | ACK | URG) == 0
    }
}

impl TcpVars {
    /// Takes the options of a SYN or SYN/ACK over for its sender. Without any option nothing changes.
    fn learn_options(&mut self, from: Direction, bytes: &[u8]) {
        if let Some(options) = Options::read(bytes) {
            let flags = &mut self.flags[from.index()];
            *flags = (*flags & Mark::LIBERAL) | options.marks;
            self.set_scale(from, options.wscale);
        }
    }
}

#[cfg(test)]
mod tests;

// Keeps the order in which a reader meets the types.
const _: () = assert!(size_of::<Noted>() == 1 && size_of::<TcpVars>() == 52);
