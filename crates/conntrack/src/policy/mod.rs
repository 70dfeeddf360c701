//! Room 5: step → verdict. An ordered table over (role, class) and the one list of drop reasons.

use crate::track::reason::Reason;

/// Which side of the appliance a frame entered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Inside,
    Outside,
}

impl Role {
    /// Both roles.
    pub const ALL: [Self; 2] = [Self::Inside, Self::Outside];
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
    pub const ALL: [Self; 5] = [Self::New, Self::Established, Self::Related, Self::Invalid, Self::Untracked];

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

    /// The class's bit in [`Rule::classes`].
    pub const fn bit(self) -> u8 {
        1 << self as u8
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
    /// [`Class::bit`] of each class that matches.
    pub classes: u8,
    /// The row does not match a TCP packet that is NEW without being a SYN.
    pub new_needs_syn: bool,
    pub action: Action,
    /// The mark of flows that begin by this row; 0 is none.
    pub mark: u32,
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A policy row (by number from 0), or the policy's end (`None`), refused this class.
    Policy { class: Class, row: Option<u8> },
    /// The table is full and nothing could make room.
    TableFull,
    /// The frame has no IP header that a host would accept.
    Malformed(Reason),
    /// A fragment of a datagram that cannot be completed: it overlaps, is too long, or came twice.
    Fragment,
    /// The ring to the worker that owns the flow, or to the one that sends on the port, was full.
    HandOffFull,
}

impl DropReason {
    /// Every label, for metrics that start at zero.
    pub const LABELS: [&'static str; 9] = [
        "policy_new",
        "policy_established",
        "policy_related",
        "policy_invalid",
        "policy_untracked",
        "table_full",
        "malformed",
        "fragment",
        "hand_off_full",
    ];

    /// The number of the reason's label in [`DropReason::LABELS`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        match self {
            Self::Policy { class, .. } => class as usize,
            Self::TableFull => 5,
            Self::Malformed(_) => 6,
            Self::Fragment => 7,
            Self::HandOffFull => 8,
        }
    }

    /// The metric label.
    pub const fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }
}

/// The most rows a policy may have.
pub const MAX_RULES: usize = 32;

/// A policy has more than [`MAX_RULES`] rows: this many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRules(pub usize);

/// An ordered table of rules and what happens at its end. It is worked out once for every case that a packet can
/// be in, so that a packet costs one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// By role, class and whether the packet is a TCP packet without a SYN.
    decided: [[[Decision; 2]; 5]; 2],
    /// What a flow is marked with, by role and whether its first packet is a TCP packet without a SYN.
    marks: [[u32; 2]; 2],
}

/// What the table says to one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub action: Action,
    /// The row that decided, counted from 0; `None` at the table's end.
    pub row: Option<u8>,
}

impl Policy {
    /// Everything passes: what a mirror port and a replay use.
    pub const ACCEPT_ALL: Self =
        Self { decided: [[[Decision { action: Action::Accept, row: None }; 2]; 5]; 2], marks: [[0; 2]; 2] };

    /// Works the rows out; `otherwise` holds where no row matches.
    pub fn new(rules: &[Rule], otherwise: Action) -> Result<Self, TooManyRules> {
        if rules.len() > MAX_RULES {
            return Err(TooManyRules(rules.len()));
        }
        let mut policy = Self::ACCEPT_ALL;
        for role in Role::ALL {
            for class in Class::ALL {
                for lacks_syn in [false, true] {
                    let matches = |rule: &&Rule| {
                        rule.from.is_none_or(|from| from == role)
                            && rule.classes & class.bit() != 0
                            && !(rule.new_needs_syn && class == Class::New && lacks_syn)
                    };
                    let decided = match rules.iter().position(|rule| matches(&rule)) {
                        Some(row) => Decision { action: rules[row].action, row: Some(row as u8) },
                        None => Decision { action: otherwise, row: None },
                    };
                    policy.decided[role as usize][class as usize][usize::from(lacks_syn)] = decided;
                    if let (Class::New, Some(row)) = (class, decided.row) {
                        policy.marks[role as usize][usize::from(lacks_syn)] = rules[usize::from(row)].mark;
                    }
                }
            }
        }
        Ok(policy)
    }

    /// The mark of a flow that begins with a packet from this side; see [`Policy::decide`].
    #[inline]
    pub const fn mark(&self, from: Role, lacks_syn: bool) -> u32 {
        self.marks[from as usize][lacks_syn as usize]
    }

    /// What happens to a packet of this class from this side. `lacks_syn`: a TCP packet that is not a plain SYN.
    #[inline(always)]
    pub const fn decide(&self, from: Role, class: Class, lacks_syn: bool) -> Decision {
        self.decided[from as usize][class as usize][lacks_syn as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(new_needs_syn: bool) -> Rule {
        let classes = Class::New.bit() | Class::Established.bit();
        Rule { from: Some(Role::Inside), classes, new_needs_syn, action: Action::Accept, mark: 0 }
    }

    #[test]
    fn the_first_row_that_matches_decides() {
        let never = Rule { action: Action::Drop, ..outgoing(false) };
        let policy = Policy::new(&[outgoing(false), never], Action::Drop).unwrap();
        let decision = policy.decide(Role::Inside, Class::New, false);
        assert_eq!(decision, Decision { action: Action::Accept, row: Some(0) });
    }

    #[test]
    fn what_no_row_names_meets_the_end() {
        let policy = Policy::new(&[outgoing(false)], Action::Drop).unwrap();
        let decision = policy.decide(Role::Outside, Class::New, false);
        assert_eq!(decision, Decision { action: Action::Drop, row: None });
    }

    #[test]
    fn new_without_a_syn_goes_on_to_the_next_row() {
        let policy = Policy::new(&[outgoing(true)], Action::Drop).unwrap();
        assert_eq!(policy.decide(Role::Inside, Class::New, false).action, Action::Accept);
        assert_eq!(policy.decide(Role::Inside, Class::New, true).action, Action::Drop);
        assert_eq!(policy.decide(Role::Inside, Class::Established, true).action, Action::Accept);
    }

    #[test]
    fn the_row_that_lets_a_flow_begin_marks_it() {
        let rows = [Rule { mark: 7, ..outgoing(true) }, Rule { mark: 9, from: None, ..outgoing(false) }];
        let policy = Policy::new(&rows, Action::Drop).unwrap();
        assert_eq!(policy.mark(Role::Inside, false), 7);
        assert_eq!(policy.mark(Role::Inside, true), 9);
        assert_eq!(policy.mark(Role::Outside, false), 9);
        assert_eq!(Policy::ACCEPT_ALL.mark(Role::Inside, false), 0);
    }

    #[test]
    fn more_rows_than_fit_are_refused() {
        assert_eq!(Policy::new(&[outgoing(false); 33], Action::Drop), Err(TooManyRules(33)));
    }
}
