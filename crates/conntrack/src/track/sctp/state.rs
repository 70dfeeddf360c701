//! The states of an association, and which chunk leads from which to which.

use super::chunk::Mover;
use crate::fault::sctp_row;
use crate::key::Direction;
use crate::track::timeout::TimeoutKey;

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

    /// The state with this number, as [`Head::state`](crate::table::entry::Head::state) holds it; [`SctpState::None`] for a number that is none.
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
            // No packet is accepted into NONE.
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

/// Short names, so that the table fits the screen.
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

/// The state that a chunk leads to, by [`Mover`], direction and present state. The array's lengths make it total.
#[rustfmt::skip]
const NEXT: [[[cells::Cell; 9]; 2]; 11] = {
    use cells::{CL, CW, CE, ES, SS, SR, SA, HS, XX};
    [
        //     NO  CL  CW  CE  ES  SS  SR  SA  HS   (NO is NONE)
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

/// Where a row with a planted fault leads instead of to `state`.
fn too_far(state: SctpState) -> Option<SctpState> {
    SctpState::ALL.get(state as usize % 8 + 1).copied()
}

/// The state after `chunk` from `direction`; `None` if the chunk does not fit the state.
pub(super) fn next(chunk: Mover, direction: Direction, state: SctpState) -> Option<SctpState> {
    let next = NEXT[chunk as usize][direction.index()][state as usize];
    if sctp_row(chunk as u8, direction) { next.and_then(too_far) } else { next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    /// Reviewers: a moved cell is a changed agreement with Linux. Say in the commit which recording shows it.
    const SNAPSHOT: &str = "\
Init             Original | CL CL CW CE ES CL CL SA CW
Init             Reply    | -- CL CW CE ES SS SR SA --
InitAck          Original | CL CL CW CE ES SS SR SA CL
InitAck          Reply    | -- CW CW CE ES SS SR SA --
Abort            Original | CL CL CL CL CL CL CL CL CL
Abort            Reply    | -- CL CL CL CL CL CL CL --
Shutdown         Original | CL CL CW CE SS SS SR SA CL
Shutdown         Reply    | -- CL CW CE SR SS SR SA --
ShutdownAck      Original | SA CL CW CE ES SA SA SA SA
ShutdownAck      Reply    | -- CL CW CE ES SA SA SA --
Error            Original | CL CL CW CE ES SS SR SA CL
Error            Reply    | -- CL CW CL ES SS SR SA --
CookieEcho       Original | CL CL CE CE ES SS SR SA CL
CookieEcho       Reply    | -- CL CE CE ES SS SR SA --
CookieAck        Original | CL CL CW ES ES SS SR SA CL
CookieAck        Reply    | -- CL CW ES ES SS SR SA --
ShutdownComplete Original | CL CL CW CE ES SS SR CL CL
ShutdownComplete Reply    | -- CL CW CE ES SS SR CL --
Heartbeat        Original | HS CL CW CE ES SS SR SA HS
Heartbeat        Reply    | -- CL CW CE ES SS SR SA HS
HeartbeatAck     Original | CL CL CW CE ES SS SR SA HS
HeartbeatAck     Reply    | -- CL CW CE ES SS SR SA ES
";

    fn code(cell: Option<SctpState>) -> &'static str {
        match cell {
            None => "--",
            Some(SctpState::None) => "NO",
            Some(SctpState::Closed) => "CL",
            Some(SctpState::CookieWait) => "CW",
            Some(SctpState::CookieEchoed) => "CE",
            Some(SctpState::Established) => "ES",
            Some(SctpState::ShutdownSent) => "SS",
            Some(SctpState::ShutdownRecd) => "SR",
            Some(SctpState::ShutdownAckSent) => "SA",
            Some(SctpState::HeartbeatSent) => "HS",
        }
    }

    #[test]
    fn the_whole_table_is_as_recorded() {
        let mut table = String::new();
        let mut movers: std::vec::Vec<Mover> = (0..=u8::MAX).filter_map(Mover::of).collect();
        movers.sort_by_key(|mover| *mover as u8);
        assert_eq!(movers.len(), NEXT.len(), "a row that no chunk type reaches");
        for mover in movers {
            for direction in [Direction::Original, Direction::Reply] {
                table +=
                    &std::format!("{:16} {:8} |", std::format!("{mover:?}"), std::format!("{direction:?}"));
                for state in SctpState::ALL {
                    table += " ";
                    table += code(next(mover, direction, state));
                }
                table += "\n";
            }
        }
        assert!(table == SNAPSHOT, "the table is now\n{table}");
    }

    #[test]
    fn numbers_are_the_places_in_all() {
        for (number, state) in (0u8..).zip(SctpState::ALL) {
            assert_eq!(state as u8, number);
            assert_eq!(SctpState::from_number(number), state);
        }
        assert_eq!(SctpState::from_number(9), SctpState::None);
    }
}
