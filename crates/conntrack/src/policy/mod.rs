//! Room 5: step → verdict. An ordered table over (role, class) and the one list of drop reasons.

use crate::track::reason::Reason;

/// Which side of the appliance a frame entered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Inside,
    Outside,
}

/// The connection state of a packet, as `ct state` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    New,
    Established,
    Related,
    Invalid,
    Untracked,
}

impl Class {
    /// Every class, in order.
    pub const ALL: [Class; 5] =
        [Class::New, Class::Established, Class::Related, Class::Invalid, Class::Untracked];

    /// As nftables prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Related => "related",
            Self::Invalid => "invalid",
            Self::Untracked => "untracked",
        }
    }
}

/// What a rule does with a matching packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Accept,
    Drop,
}

/// One row of the policy; the first that matches decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `None`: from either side.
    pub from: Option<Role>,
    /// Bit `1 << class` for each class that matches.
    pub classes: u8,
    /// Accept a TCP packet that is NEW only if it carries SYN and no ACK; else it goes on to the next row.
    pub new_needs_syn: bool,
    pub action: Action,
}

/// Why a packet was dropped. The metric label is [`DropReason::label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A policy row (by number from 0), or the policy's end (`None`), refused this class.
    Policy { class: Class, row: Option<u8> },
    /// The table is full and nothing could make room.
    TableFull,
    /// The frame has no IP header that a host would accept.
    Malformed(Reason),
    /// A fragment of a datagram that can no longer be completed (overlap, over the budget, timed out).
    Fragment,
}

/// The most rows a policy may have.
pub const MAX_RULES: usize = 32;

/// An ordered table of rules and what happens at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: [Option<Rule>; MAX_RULES],
    otherwise: Action,
}
