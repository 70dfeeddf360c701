//! The state table: state × direction × kind of segment. Total; every cell is written.

use super::state::{Index, TcpState};
use crate::fault::tcp_row;
use crate::key::Direction;
use crate::track::settings::Pickup;

/// What the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Move(TcpState),
    /// Passes, but tells nothing: the hosts may be in step with each other and out of step with us.
    Ignore,
    Invalid,
}

type Row = [Cell; 6];

/// The columns as people read them; the result is indexed by [`Index`].
const fn row(syn: Cell, synack: Cell, fin: Cell, ack: Cell, rst: Cell, flagless: Cell) -> Row {
    [flagless, syn, synack, fin, ack, rst]
}

const XX: Cell = Cell::Invalid;
const IG: Cell = Cell::Ignore;
const NO: Cell = Cell::Move(TcpState::None);
const SS: Cell = Cell::Move(TcpState::SynSent);
const SR: Cell = Cell::Move(TcpState::SynRecv);
const ES: Cell = Cell::Move(TcpState::Established);
const FW: Cell = Cell::Move(TcpState::FinWait);
const CW: Cell = Cell::Move(TcpState::CloseWait);
const LA: Cell = Cell::Move(TcpState::LastAck);
const TW: Cell = Cell::Move(TcpState::TimeWait);
const CL: Cell = Cell::Move(TcpState::Close);
const S2: Cell = Cell::Move(TcpState::SynSent2);

/// By [`TcpState`]. A second FIN from the same side counts as the other side's: the table does not look who sent it.
#[rustfmt::skip]
const ORIGINAL: [Row; 10] = [
    //   SYN SYN/ACK FIN ACK RST none
    row(SS, XX, XX, ES, XX, XX), // NONE: a first segment
    row(SS, XX, XX, XX, CL, XX), // SYN_SENT: the SYN again
    row(IG, SR, FW, ES, CL, XX), // SYN_RECV: the handshake's third segment
    row(IG, XX, FW, ES, CL, XX), // ESTABLISHED: a SYN will be challenged by the host
    row(IG, XX, LA, CW, CL, XX), // FIN_WAIT
    row(IG, XX, LA, CW, CL, XX), // CLOSE_WAIT
    row(IG, XX, LA, TW, CL, XX), // LAST_ACK
    row(SS, XX, TW, TW, CL, XX), // TIME_WAIT: a SYN reopens
    row(SS, XX, CL, CL, CL, XX), // CLOSE: a SYN reopens, if the end was proper
    row(S2, SR, XX, XX, CL, XX), // SYN_SENT2
];

#[rustfmt::skip]
const REPLY: [Row; 10] = [
    //   SYN SYN/ACK FIN ACK RST none
    row(XX, XX, XX, XX, XX, XX), // NONE
    row(S2, SR, XX, IG, CL, XX), // SYN_SENT: simultaneous open, the answer, or a challenge to an old connection
    row(XX, IG, FW, SR, CL, XX), // SYN_RECV: the SYN/ACK again
    row(XX, IG, FW, ES, CL, XX), // ESTABLISHED
    row(XX, IG, LA, CW, CL, XX), // FIN_WAIT
    row(XX, IG, LA, CW, CL, XX), // CLOSE_WAIT
    row(XX, IG, LA, TW, CL, XX), // LAST_ACK
    row(SS, IG, TW, TW, CL, XX), // TIME_WAIT: the server side may reopen too
    row(XX, IG, CL, CL, CL, XX), // CLOSE
    row(S2, SR, XX, IG, CL, XX), // SYN_SENT2
];

/// Row NONE when every first segment opens a flow.
const ANY_ORIGINAL: Row = row(SS, SS, TW, ES, CL, NO);
/// And the answers to a flow that a flagless segment opened.
const ANY_REPLY: Row = row(SR, SR, CL, CL, CL, NO);

/// The table's answer.
#[inline(always)]
pub(super) fn cell(pickup: Pickup, state: TcpState, from: Direction, index: Index) -> Cell {
    let row = match (pickup, state, from) {
        (Pickup::Any, TcpState::None, Direction::Original) => &ANY_ORIGINAL,
        (Pickup::Any, TcpState::None, Direction::Reply) => &ANY_REPLY,
        (_, _, Direction::Original) => &ORIGINAL[state as usize],
        (_, _, Direction::Reply) => &REPLY[state as usize],
    };
    let index = if tcp_row(state as u8, from) { index.swapped() } else { index };
    row[index as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;
    use std::string::String;

    fn render() -> String {
        let mut text = String::new();
        let columns = [Index::Syn, Index::SynAck, Index::Fin, Index::Ack, Index::Rst, Index::None];
        for (name, pickup) in [("ack", Pickup::Ack), ("any", Pickup::Any)] {
            for from in [Direction::Original, Direction::Reply] {
                writeln!(text, "pickup {name}, {from:?}: SYN SYN/ACK FIN ACK RST none").unwrap();
                for state in TcpState::ALL {
                    write!(text, "  {:<12}", state.name(false)).unwrap();
                    for index in columns {
                        let word = match cell(pickup, state, from, index) {
                            Cell::Move(new) => new.name(false),
                            Cell::Ignore => "~",
                            Cell::Invalid => "x",
                        };
                        write!(text, " {word:<11}").unwrap();
                    }
                    while text.ends_with(' ') {
                        text.pop();
                    }
                    text.push('\n');
                }
            }
        }
        text
    }

    #[test]
    fn the_whole_table_is_as_reviewed() {
        let reviewed = include_str!("table.snapshot");
        assert_eq!(render(), reviewed, "the table moved; review it and update table.snapshot:\n{}", render());
    }
}
