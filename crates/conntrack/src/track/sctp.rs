//! SCTP: chunks, verification tags and states. Owns the walk over a packet's chunks; sees neither the table nor
//! the clock. RFC 9260; where Linux differs, Linux is followed.

use super::reason::Reason;
use super::timeout::TimeoutKey;
use super::{Context, Step};
use crate::key::Direction;
use crate::table::entry::{Head, status};
use crate::wire;

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

/// Where an association stands, with the kernel's numbers (`SCTP_CONNTRACK_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SctpState {
    /// Only while the first packet is looked at.
    None,
    Closed,
    CookieWait,
    CookieEchoed,
    Established,
    ShutdownSent,
    ShutdownRecd,
    ShutdownAckSent,
    HeartbeatSent,
}

impl SctpState {
    /// Every state, in the order of its number.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Closed,
        Self::CookieWait,
        Self::CookieEchoed,
        Self::Established,
        Self::ShutdownSent,
        Self::ShutdownRecd,
        Self::ShutdownAckSent,
        Self::HeartbeatSent,
    ];

    /// The state that [`Head::state`] holds; [`SctpState::None`] for a number that is none.
    pub fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::None)
    }

    /// As `conntrack` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Closed => "CLOSED",
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "SHUTDOWN_SENT",
            Self::ShutdownRecd => "SHUTDOWN_RECD",
            Self::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            Self::HeartbeatSent => "HEARTBEAT_SENT",
        }
    }

    /// How long an association may be silent in this state.
    pub const fn timeout_key(self) -> TimeoutKey {
        match self {
            // No packet is accepted into NONE; the shortest-lived neighbour stands in for it.
            Self::None | Self::Closed => TimeoutKey::SctpClosed,
            Self::CookieWait => TimeoutKey::SctpCookieWait,
            Self::CookieEchoed => TimeoutKey::SctpCookieEchoed,
            Self::Established => TimeoutKey::SctpEstablished,
            Self::ShutdownSent => TimeoutKey::SctpShutdownSent,
            Self::ShutdownRecd => TimeoutKey::SctpShutdownRecd,
            Self::ShutdownAckSent => TimeoutKey::SctpShutdownAckSent,
            Self::HeartbeatSent => TimeoutKey::SctpHeartbeatSent,
        }
    }
}

/// The chunk types that move an association; all others (DATA, SACK, ...) keep the state. RFC 9260 section 3.2
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Mover {
    Init,
    InitAck,
    Abort,
    Shutdown,
    ShutdownAck,
    Error,
    CookieEcho,
    CookieAck,
    ShutdownComplete,
    Heartbeat,
    HeartbeatAck,
}

/// Chunk type DATA.
const DATA: u8 = 0;

impl Mover {
    const fn of(chunk_type: u8) -> Option<Self> {
        match chunk_type {
            1 => Some(Self::Init),
            2 => Some(Self::InitAck),
            4 => Some(Self::Heartbeat),
            5 => Some(Self::HeartbeatAck),
            6 => Some(Self::Abort),
            7 => Some(Self::Shutdown),
            8 => Some(Self::ShutdownAck),
            9 => Some(Self::Error),
            10 => Some(Self::CookieEcho),
            11 => Some(Self::CookieAck),
            14 => Some(Self::ShutdownComplete),
            _ => None,
        }
    }
}

mod cells {
    use super::SctpState;

    pub(super) type Cell = Option<SctpState>;
    pub(super) const CL: Cell = Some(SctpState::Closed);
    pub(super) const CW: Cell = Some(SctpState::CookieWait);
    pub(super) const CE: Cell = Some(SctpState::CookieEchoed);
    pub(super) const ES: Cell = Some(SctpState::Established);
    pub(super) const SS: Cell = Some(SctpState::ShutdownSent);
    pub(super) const SR: Cell = Some(SctpState::ShutdownRecd);
    pub(super) const SA: Cell = Some(SctpState::ShutdownAckSent);
    pub(super) const HS: Cell = Some(SctpState::HeartbeatSent);
    /// The chunk does not fit the state.
    pub(super) const XX: Cell = None;
}

/// The state that a chunk leads to, by [`Mover`], direction, present state. The array's lengths make it total.
#[rustfmt::skip]
const NEXT: [[[cells::Cell; 9]; 2]; 11] = {
    use cells::{CL, CW, CE, ES, SS, SR, SA, HS, XX};
    [
    //    now NONE CL  CW  CE  ES  SS  SR  SA  HS
        // An INIT opens. On a live association it is a restart or a forgery, and the answer will tell: keep.
        [/*o*/[CL, CL, CW, CE, ES, CL, CL, SA, CW],
         /*r*/[XX, CL, CW, CE, ES, SS, SR, SA, XX]],
        // An INIT_ACK answers an INIT: the originator owes the cookie. The originator's own is for a collision.
        [/*o*/[CL, CL, CW, CE, ES, SS, SR, SA, CL],
         /*r*/[XX, CW, CW, CE, ES, SS, SR, SA, XX]],
        // An ABORT ends everything.
        [/*o*/[CL, CL, CL, CL, CL, CL, CL, CL, CL],
         /*r*/[XX, CL, CL, CL, CL, CL, CL, CL, XX]],
        // A SHUTDOWN says who began to close; before the association stands it means nothing.
        [/*o*/[CL, CL, CW, CE, SS, SS, SR, SA, CL],
         /*r*/[XX, CL, CW, CE, SR, SS, SR, SA, XX]],
        // A SHUTDOWN_ACK answers a SHUTDOWN. One without any may follow an outage: SHUTDOWN_COMPLETE will come.
        [/*o*/[SA, CL, CW, CE, ES, SA, SA, SA, SA],
         /*r*/[XX, CL, CW, CE, ES, SA, SA, SA, XX]],
        // An ERROR is a stale cookie when it answers COOKIE_ECHO: back to the start. Else a mere report.
        [/*o*/[CL, CL, CW, CE, ES, SS, SR, SA, CL],
         /*r*/[XX, CL, CW, CL, ES, SS, SR, SA, XX]],
        // A COOKIE_ECHO hands the cookie over, from either side if their INITs crossed.
        [/*o*/[CL, CL, CE, CE, ES, SS, SR, SA, CL],
         /*r*/[XX, CL, CE, CE, ES, SS, SR, SA, XX]],
        // A COOKIE_ACK completes the handshake.
        [/*o*/[CL, CL, CW, ES, ES, SS, SR, SA, CL],
         /*r*/[XX, CL, CW, ES, ES, SS, SR, SA, XX]],
        // A SHUTDOWN_COMPLETE ends a shutdown that was acknowledged.
        [/*o*/[CL, CL, CW, CE, ES, SS, SR, CL, CL],
         /*r*/[XX, CL, CW, CE, ES, SS, SR, CL, XX]],
        // A HEARTBEAT opens a further path of an association that was set up on another one.
        [/*o*/[HS, CL, CW, CE, ES, SS, SR, SA, HS],
         /*r*/[XX, CL, CW, CE, ES, SS, SR, SA, HS]],
        // The peer's HEARTBEAT_ACK says that the path works.
        [/*o*/[CL, CL, CW, CE, ES, SS, SR, SA, HS],
         /*r*/[XX, CL, CW, CE, ES, SS, SR, SA, ES]],
    ]
};

/// The state after `chunk` from `direction`; `None` if the chunk does not fit the state.
fn next(chunk: Mover, direction: Direction, state: SctpState) -> Option<SctpState> {
    NEXT[chunk as usize][direction.index()][state as usize]
}

/// One chunk's header, and what follows it. RFC 9260 section 3.2
#[derive(Clone, Copy, Debug)]
struct Chunk<'a> {
    chunk_type: u8,
    flags: u8,
    /// As stated: header and value, without padding.
    length: u16,
    /// Everything behind the chunk header to the packet's end: Linux reads an INIT's tag by its place, whatever
    /// length the chunk states.
    behind: &'a [u8],
}

impl Chunk<'_> {
    /// The T bit: the sender had no association and reflected the tag. RFC 9260 section 8.5.1
    fn is_reflected(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The initiate tag of an INIT or INIT_ACK; `None` if its 16 fixed bytes are not all there.
    fn init_tag(&self) -> Option<u32> {
        let fixed: &[u8; 16] = self.behind.first_chunk()?;
        fixed.first_chunk().copied().map(u32::from_be_bytes)
    }
}

/// Walks the chunks of a packet. Every turn takes at least four bytes, so there are at most `bytes / 4` of them.
#[derive(Clone, Copy, Debug)]
struct Chunks<'a>(&'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        // Fewer than four bytes at the end are no chunk, and no error either.
        let (&[chunk_type, flags, high, low], behind) = self.0.split_first_chunk()?;
        let length = u16::from_be_bytes([high, low]);
        // A length of zero leads nowhere. The chunk is still given, for `shape` to refuse.
        let whole = if length == 0 { self.0.len() } else { usize::from(length).next_multiple_of(4) };
        // The last chunk may state more than there is.
        self.0 = self.0.get(whole..).unwrap_or(&[]);
        Some(Chunk { chunk_type, flags, length, behind })
    }
}

/// Which chunk types a packet holds.
#[derive(Clone, Copy, Debug, Default)]
struct Present {
    data: bool,
    /// Bit per [`Mover`].
    movers: u16,
}

impl Present {
    fn any<const N: usize>(self, of: [Mover; N]) -> bool {
        of.into_iter().any(|mover| self.movers & (1 << mover as u8) != 0)
    }
}

/// Whether the chunks may stand together; which ones there are. RFC 9260 section 6.10
fn shape(packet: &wire::Sctp<'_>) -> Result<Present, Reason> {
    let mut present = Present::default();
    let mut alone = false;
    let mut empty = true;
    for chunk in Chunks(packet.chunks) {
        let mover = Mover::of(chunk.chunk_type);
        alone |= matches!(mover, Some(Mover::Init | Mover::InitAck | Mover::ShutdownComplete));
        let first_only = matches!(mover, Some(Mover::CookieEcho | Mover::CookieAck));
        if chunk.length == 0 || (!empty && (alone || first_only)) {
            return Err(Reason::SctpChunks);
        }
        empty = false;
        present.data |= chunk.chunk_type == DATA;
        present.movers |= mover.map_or(0, |mover| 1 << mover as u8);
    }
    if empty { Err(Reason::SctpChunks) } else { Ok(present) }
}

/// Notes the tags that a flow's first packet tells, or refuses to open the flow.
fn open(vars: &mut SctpVars, packet: &wire::Sctp<'_>, present: Present) -> Result<(), Reason> {
    // Out of the blue, these are answered by nothing or by an ABORT. RFC 9260 section 8.4
    if present.any([Mover::Abort, Mover::ShutdownComplete, Mover::CookieAck]) {
        return Err(Reason::SctpNoOpen);
    }
    *vars = SctpVars::default();
    for chunk in Chunks(packet.chunks) {
        match Mover::of(chunk.chunk_type) {
            None => return Err(Reason::SctpNoOpen),
            Some(Mover::Init) => {
                vars.vtag[Direction::Reply.index()] = chunk.init_tag().ok_or(Reason::SctpChunks)?;
            }
            Some(Mover::Heartbeat) => vars.vtag[Direction::Original.index()] = packet.vtag,
            // The answer to an out of the blue packet reflects its tag. RFC 9260 section 8.4
            Some(_) => vars.vtag[Direction::Reply.index()] = packet.vtag,
        }
    }
    Ok(())
}

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
        Mover::Init => tag == 0,
        Mover::Abort | Mover::ShutdownComplete => {
            tag == vars.vtag[if chunk.is_reflected() { peer } else { own }]
        }
        Mover::CookieEcho => tag == vars.vtag[own],
        // The handshake is over, and with it any collision.
        Mover::CookieAck => {
            vars.clear_init(direction);
            vars.clear_init(direction.other());
            true
        }
        Mover::Heartbeat if vars.vtag[own] == 0 => {
            vars.vtag[own] = tag;
            true
        }
        Mover::Heartbeat if tag == vars.vtag[own] => {
            vars.set_heartbeat_failed(None);
            true
        }
        // Perhaps the association was restarted on a path that we do not see: only the peer's answer can tell.
        // Data under an unknown tag is refused all the same.
        Mover::Heartbeat if !present.data && !passed => {
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
        Mover::HeartbeatAck if vars.heartbeat_failed() == Some(direction.other()) => {
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
    if state == SctpState::None || vars.vtag[peer.index()] != init_tag {
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
    let collision = vars.saw_init(direction) && vars.saw_init(peer);
    if (unasked || collision) && known != init_tag {
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
    let present = shape(packet)?;
    let direction = ctx.direction;
    if ctx.first {
        open(vars, packet, present)?;
        head.state = SctpState::None as u8;
    } else if !present.any([
        Mover::Init,
        Mover::ShutdownComplete,
        Mover::CookieEcho,
        Mover::Abort,
        Mover::ShutdownAck,
        Mover::Heartbeat,
        Mover::HeartbeatAck,
    ]) && packet.vtag != vars.vtag[direction.index()]
    {
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
        let new = next(mover, direction, old).ok_or(Reason::SctpState)?;
        match mover {
            Mover::Init => {
                on_init(vars, chunk.init_tag().ok_or(Reason::SctpChunks)?, direction, old);
                // Whoever repeats INITs, or reuses the port, must not keep a dead entry alive for ever.
                ignore |= !ctx.first && old == SctpState::Closed && new == SctpState::Closed;
            }
            Mover::InitAck => {
                on_init_ack(vars, chunk.init_tag().ok_or(Reason::SctpChunks)?, direction)?;
            }
            _ => {}
        }
        head.state = new as u8;
        if new == SctpState::Established && old != new {
            head.status |= status::ASSURED;
        }
    }
    if ignore {
        return Ok(Step::Ignore);
    }
    Ok(Step::refresh(SctpState::from_number(head.state).timeout_key(), ctx.settings))
}
