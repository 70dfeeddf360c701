//! SCTP: tags, states, steps. Linux's rules, which follow RFC 9260 and forgive more.

mod chunk;
mod state;
#[cfg(test)]
mod tests;

use super::reason::Reason;
use super::{Context, Step};
use crate::fault::{Fault, planted};
use crate::key::Direction;
use crate::table::entry::{Head, status};
use crate::wire;
use chunk::{Chunk, Chunks, Mover, Present, shape};
pub use state::SctpState;

/// An SCTP flow's variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SctpVars {
    /// The tag that packets of each direction must carry, in host order; 0 while unknown. Indexed by
    /// [`Direction::index`].
    pub vtag: [u32; 2],
    /// See [`mark`].
    marks: u32,
}

/// Bits of [`SctpVars::marks`].
mod mark {
    /// An INIT came from the original side, and no COOKIE_ACK since. The reply side's bit is the next one.
    pub(super) const INIT: u32 = 1;
    /// A HEARTBEAT carried the wrong tag: a matching HEARTBEAT_ACK may move the flow to its own tag.
    pub(super) const HEARTBEAT_FAILED: u32 = 4;
    /// That HEARTBEAT came from the reply side.
    pub(super) const HEARTBEAT_FAILED_REPLY: u32 = 8;
}

impl SctpVars {
    fn saw_init(&self, from: Direction) -> bool {
        self.marks & (mark::INIT << from.index()) != 0
    }

    fn set_init(&mut self, from: Direction) {
        self.marks |= mark::INIT << from.index();
    }

    fn clear_init(&mut self, from: Direction) {
        self.marks &= !(mark::INIT << from.index());
    }

    /// The side whose HEARTBEAT carried the wrong tag, if one did.
    fn heartbeat_failed(&self) -> Option<Direction> {
        match self.marks & (mark::HEARTBEAT_FAILED | mark::HEARTBEAT_FAILED_REPLY) {
            mark::HEARTBEAT_FAILED => Some(Direction::Original),
            both if both & mark::HEARTBEAT_FAILED != 0 => Some(Direction::Reply),
            _ => None,
        }
    }

    fn set_heartbeat_failed(&mut self, from: Option<Direction>) {
        self.marks &= !(mark::HEARTBEAT_FAILED | mark::HEARTBEAT_FAILED_REPLY);
        self.marks |= match from {
            None => 0,
            Some(Direction::Original) => mark::HEARTBEAT_FAILED,
            Some(Direction::Reply) => mark::HEARTBEAT_FAILED | mark::HEARTBEAT_FAILED_REPLY,
        };
    }
}

/// Notes the tags that a flow's first packet tells, or refuses to open the flow.
fn open(vars: &mut SctpVars, packet: &wire::Sctp<'_>, present: Present) -> Result<(), Reason> {
    // Out of the blue, these are answered by nothing or by an ABORT. RFC 9260 section 8.4
    let abort = present.any([Mover::Abort]) && !planted(Fault::SctpOpenAbort);
    if abort || present.any([Mover::ShutdownComplete, Mover::CookieAck]) {
        return Err(Reason::SctpNoOpen);
    }
    *vars = SctpVars::default();
    for chunk in Chunks(packet.chunks) {
        match Mover::of(chunk.chunk_type) {
            None if planted(Fault::SctpOpenOther) => {}
            None => return Err(Reason::SctpNoOpen),
            Some(Mover::Init) => {
                vars.vtag[Direction::Reply.index()] = chunk.init_tag().ok_or(Reason::SctpChunks)?;
            }
            Some(Mover::Heartbeat) => vars.vtag[Direction::Original.index()] = packet.vtag,
            // The SHUTDOWN_COMPLETE that answers it reflects its tag. RFC 9260 section 8.4
            Some(Mover::ShutdownAck) if !planted(Fault::SctpOpenShutdownAck) => {
                vars.vtag[Direction::Reply.index()] = packet.vtag
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The chunks whose presence leaves the packet's tag to the rules of [`check_tag`]. RFC 9260 section 8.5.1
const TAGGED_BY_CHUNK: [Mover; 7] = [
    Mover::Init,
    Mover::ShutdownComplete,
    Mover::CookieEcho,
    Mover::Abort,
    Mover::ShutdownAck,
    Mover::Heartbeat,
    Mover::HeartbeatAck,
];

/// What a chunk with rules of its own makes of the packet's tag.
enum Tag {
    Right,
    /// The chunk neither moves the flow nor fails the packet.
    Pass,
}

/// Checks the packet's tag as this chunk wants it, and learns from it. RFC 9260 section 8.5.1
fn check_tag(
    vars: &mut SctpVars,
    tag: u32,
    mover: Mover,
    chunk: &Chunk<'_>,
    present: Present,
    direction: Direction,
    passed: bool,
) -> Result<Tag, Reason> {
    let own = direction.index();
    let peer = direction.other().index();
    let right = match mover {
        Mover::Init => tag == 0 || planted(Fault::SctpInitTag),
        Mover::Abort | Mover::ShutdownComplete => {
            let reflected = chunk.is_reflected() && !planted(Fault::SctpAbortReflected);
            tag == vars.vtag[if reflected { peer } else { own }] || planted(Fault::SctpAbortTag)
        }
        Mover::CookieEcho => tag == vars.vtag[own] || planted(Fault::SctpCookieEchoTag),
        // The handshake is over, and with it any collision.
        Mover::CookieAck if planted(Fault::SctpCookieAckKeeps) => true,
        Mover::CookieAck => {
            vars.clear_init(direction);
            vars.clear_init(direction.other());
            true
        }
        Mover::Heartbeat if vars.vtag[own] == 0 && !planted(Fault::SctpHeartbeatLearns) => {
            vars.vtag[own] = tag;
            true
        }
        Mover::Heartbeat if tag == vars.vtag[own] => {
            vars.set_heartbeat_failed(None);
            true
        }
        // Perhaps the association was restarted on a path that we do not see: only the peer's answer can tell.
        // Data under an unknown tag is refused all the same.
        Mover::Heartbeat if planted(Fault::SctpHeartbeatFails) => false,
        Mover::Heartbeat if (!present.data || planted(Fault::SctpHeartbeatData)) && !passed => {
            vars.set_heartbeat_failed(Some(direction));
            return Ok(Tag::Pass);
        }
        Mover::Heartbeat => false,
        Mover::HeartbeatAck if vars.vtag[own] == 0 => {
            vars.vtag[own] = tag;
            true
        }
        Mover::HeartbeatAck if tag == vars.vtag[own] => {
            vars.set_heartbeat_failed(None);
            true
        }
        Mover::HeartbeatAck if planted(Fault::SctpHeartbeatAckMoves) => false,
        Mover::HeartbeatAck
            if !present.data
                && (vars.heartbeat_failed() == Some(direction.other())
                    || planted(Fault::SctpHeartbeatAckUnasked)) =>
        {
            vars.set_heartbeat_failed(None);
            vars.vtag[own] = tag;
            vars.vtag[peer] = 0;
            true
        }
        Mover::HeartbeatAck => false,
        // A SHUTDOWN_ACK to a host that has forgotten the association may carry any tag. The others were checked
        // with the packet, if no chunk with rules of its own came along.
        Mover::ShutdownAck | Mover::InitAck | Mover::Shutdown | Mover::Error => true,
    };
    if right { Ok(Tag::Right) } else { Err(Reason::SctpVtag) }
}

/// Takes an INIT's tag.
fn on_init(vars: &mut SctpVars, init_tag: u32, direction: Direction, state: SctpState) {
    let peer = direction.other();
    // A repeat of a known INIT, perhaps stale, is no sign of a collision.
    let another = vars.vtag[peer.index()] != init_tag || planted(Fault::SctpInitRepeats);
    if state == SctpState::None || another {
        if vars.saw_init(direction) && vars.saw_init(peer) {
            vars.clear_init(peer);
        }
        vars.set_init(direction);
    }
    vars.vtag[peer.index()] = init_tag;
}

/// Takes an INIT_ACK's tag, unless it contradicts what is known.
fn on_init_ack(vars: &mut SctpVars, init_tag: u32, direction: Direction) -> Result<(), Reason> {
    let peer = direction.other();
    let known = vars.vtag[peer.index()];
    let unasked = !vars.saw_init(peer) && known != 0;
    // In a collision the answer must agree with the INIT of the same side. RFC 9260 section 5.2.4
    let collision = vars.saw_init(direction) && vars.saw_init(peer) && !planted(Fault::SctpInitAckCollision);
    if (unasked || collision) && known != init_tag && !planted(Fault::SctpInitAckAny) {
        return Err(Reason::SctpVtag);
    }
    vars.vtag[peer.index()] = init_tag;
    Ok(())
}

/// What one SCTP packet does to its flow. What earlier chunks changed stays, even if a later one makes the packet
/// INVALID.
pub fn step(head: &mut Head, vars: &mut SctpVars, packet: &wire::Sctp<'_>, ctx: &Context<'_>) -> Step {
    match walk(head, vars, packet, ctx) {
        Ok(step) => step,
        Err(reason) => Step::Invalid(reason),
    }
}

fn walk(
    head: &mut Head,
    vars: &mut SctpVars,
    packet: &wire::Sctp<'_>,
    ctx: &Context<'_>,
) -> Result<Step, Reason> {
    let present = shape(packet.chunks)?;
    let direction = ctx.direction;
    if ctx.first {
        open(vars, packet, present)?;
        head.state = SctpState::None as u8;
    }
    // A first packet is no exception: a lone SHUTDOWN, say, opens only under tag 0, which no association has.
    let tagged = packet.vtag == vars.vtag[direction.index()] || planted(Fault::SctpPacketTag);
    if !present.any(TAGGED_BY_CHUNK) && !tagged {
        return Err(Reason::SctpVtag);
    }

    let mut ignore = false;
    for chunk in Chunks(packet.chunks) {
        let Some(mover) = Mover::of(chunk.chunk_type) else { continue };
        match check_tag(vars, packet.vtag, mover, &chunk, present, direction, ignore)? {
            Tag::Right => {}
            Tag::Pass => {
                ignore = true;
                continue;
            }
        }
        let old = SctpState::from_number(head.state);
        let new = state::next(mover, direction, old).ok_or(Reason::SctpState)?;
        match mover {
            Mover::Init => {
                on_init(vars, chunk.init_tag().ok_or(Reason::SctpChunks)?, direction, old);
                // Whoever repeats INITs, or reuses the port, must not keep a dead entry alive for ever.
                let repeated = !ctx.first && old == SctpState::Closed && new == SctpState::Closed;
                ignore |= repeated && !planted(Fault::SctpInitRenews);
            }
            Mover::InitAck => {
                on_init_ack(vars, chunk.init_tag().ok_or(Reason::SctpChunks)?, direction)?;
            }
            _ => {}
        }
        head.state = new as u8;
        if new == SctpState::Established && !planted(Fault::SctpUnassured) {
            head.status |= status::ASSURED;
        }
    }
    if ignore {
        return Ok(Step::Ignore);
    }
    Ok(Step::refresh(SctpState::from_number(head.state).timeout_key(), ctx.settings))
}
