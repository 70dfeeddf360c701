//! What holds for all numbers: the circle of sequence numbers, the state table's totality, and the window's
//! indifference to where a connection's numbers started.

use std::vec::Vec;

use proptest::prelude::*;

use super::options::{Options, highest_sack};
use super::state::{Index, Mark, Peer, TcpState, TcpVars, after, before};
use super::steps::{Cell, cell};
use super::window::{Fit, check};
use super::{EstablishedRules, OpeningRules, step, step_established, step_opening};
use crate::key::Direction;
use crate::table::entry::{Head, status};
use crate::tick::Ticks;
use crate::track::settings::{Pickup, Profile, Settings};
use crate::track::timeout::TimeoutKey;
use crate::track::{Context, Step};
use crate::wire::{Segment, tcp_flags};

const BOTH: [Direction; 2] = [Direction::Original, Direction::Reply];

#[test]
fn just_half_the_circle_away_each_number_is_before_the_other() {
    for a in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let b = a.wrapping_add(1 << 31);
        assert!(before(a, b) && before(b, a) && after(a, b) && after(b, a), "{a:#x}");
        assert!(!before(a, a) && !after(a, a));
    }
}

#[test]
fn every_cell_is_answered_and_only_row_none_depends_on_the_pick_up() {
    for state in TcpState::ALL {
        for from in BOTH {
            for index in Index::ALL {
                let [any, ack, syn] =
                    [Pickup::Any, Pickup::Ack, Pickup::Syn].map(|pickup| cell(pickup, state, from, index));
                let place = (state, from, index);
                assert_eq!(ack, syn, "{place:?}");
                assert!(any == ack || state == TcpState::None, "{place:?}");
                // Nothing leads back to NONE, but for a flow that a flagless segment opened and another continues.
                for (pickup, cell) in [(Pickup::Any, any), (Pickup::Ack, ack)] {
                    let flagless = pickup == Pickup::Any && state == TcpState::None && index == Index::None;
                    assert_eq!(cell == Cell::Move(TcpState::None), flagless, "{pickup:?} {place:?}");
                }
                // A reset is heard in every state of a flow.
                let close = Cell::Move(TcpState::Close);
                assert!(index != Index::Rst || state == TcpState::None || ack == close, "{place:?}");
            }
        }
    }
}

#[test]
fn every_set_of_flags_has_a_column_and_every_number_a_state() {
    for byte in 0..=u8::MAX {
        assert!(Index::ALL.contains(&Index::of(byte)));
        let state = TcpState::from_number(byte);
        assert_eq!(state as u8, if byte < 10 { byte } else { 0 });
    }
}

/// A segment and what a flow knew before it, near to each other on the circle.
#[derive(Clone, Debug)]
struct Case {
    vars: TcpVars,
    from: Direction,
    state: TcpState,
    seq: u32,
    ack: u32,
    /// Ahead of `ack`.
    sack: u32,
    window: u16,
    flags: u8,
    payload_bytes: u32,
    be_liberal: bool,
}

impl Case {
    fn check(&mut self) -> Fit {
        let segment = Segment {
            sport: 1,
            dport: 2,
            seq: self.seq,
            ack: self.ack,
            window: self.window,
            flags: self.flags,
            payload_bytes: self.payload_bytes,
            options: &[3, 3, 7, 4, 2],
        };
        let (index, sack) = (Index::of(self.flags), self.ack.wrapping_add(self.sack));
        check(&mut self.vars, &segment, index, self.state, self.from, sack, self.be_liberal)
    }

    /// The same, had the numbers of `side` started `by` later. What was noted came from the segment's side.
    fn shifted(&self, side: Direction, by: u32) -> Self {
        let mut case = self.clone();
        let vars = &mut case.vars;
        let own = &mut vars.peers[side.index()];
        own.end = own.end.wrapping_add(by);
        own.maxend = own.maxend.wrapping_add(by);
        let other = &mut vars.peers[side.other().index()];
        other.maxack = other.maxack.wrapping_add(by);
        if self.from == side {
            case.seq = case.seq.wrapping_add(by);
            vars.last_seq = vars.last_seq.wrapping_add(by);
            vars.last_end = vars.last_end.wrapping_add(by);
        } else {
            case.ack = case.ack.wrapping_add(by);
            vars.last_ack = vars.last_ack.wrapping_add(by);
        }
        case
    }

    /// A reset's zeros stand for "no number", wherever the numbers started.
    fn has_a_meaningful_zero(&self) -> bool {
        self.flags & tcp_flags::RST != 0 && (self.seq == 0 || self.ack == 0)
    }
}

/// Mostly near `base`, at both edges of a window, now and then anywhere.
fn near(base: u32) -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => (-3i32..=3).prop_map(move |by| base.wrapping_add(by as u32)),
        4 => (-70_000i32..=70_000).prop_map(move |by| base.wrapping_add(by as u32)),
        1 => any::<u32>(),
    ]
}

fn maxwin() -> impl Strategy<Value = u32> {
    prop_oneof![1 => Just(0), 2 => 1u32..=4, 4 => 1u32..=1 << 17, 1 => any::<u32>()]
}

fn peer(own: u32, other: u32) -> impl Strategy<Value = Peer> {
    (near(own), near(own), maxwin(), near(other)).prop_map(|(end, maxend, maxwin, maxack)| Peer {
        end,
        maxend,
        maxwin,
        maxack,
    })
}

prop_compose! {
    fn vars(starts: [u32; 2], from: Direction)(
        peers in (peer(starts[0], starts[1]), peer(starts[1], starts[0])),
        last in (near(starts[from.index()]), near(starts[from.other().index()]), near(starts[from.index()])),
        last_window in 0u16..4,
        flags in any::<[u8; 2]>(),
        scales in (0u8..=14, 0u8..=14),
        retrans in any::<u8>(),
        noted in 0..Index::ALL.len(),
    ) -> TcpVars {
        let mut vars = TcpVars::default();
        vars.peers = [peers.0, peers.1];
        (vars.last_seq, vars.last_ack, vars.last_end) = last;
        (vars.last_window, vars.flags, vars.retrans) = (last_window, flags, retrans);
        vars.set_scale(Direction::Original, scales.0);
        vars.set_scale(Direction::Reply, scales.1);
        vars.noted.set(Index::ALL[noted], from);
        vars
    }
}

fn case() -> impl Strategy<Value = Case> {
    (any::<[u32; 2]>(), any::<bool>()).prop_flat_map(|(starts, reply)| {
        let from = BOTH[usize::from(reply)];
        let (own, other) = (starts[from.index()], starts[from.other().index()]);
        let sack = prop_oneof![3 => Just(0u32), 1 => 0u32..1 << 17, 1 => any::<u32>()];
        let window = prop_oneof![1 => 0u16..4, 1 => any::<u16>()];
        let payload_bytes = prop_oneof![1 => 0u32..4, 1 => 0u32..=65_535];
        let numbers = (near(own), near(other), sack, window, payload_bytes);
        (vars(starts, from), numbers, 0..TcpState::ALL.len(), any::<u8>(), any::<bool>()).prop_map(
            move |(vars, (seq, ack, sack, window, payload_bytes), state, flags, be_liberal)| {
                let state = TcpState::ALL[state];
                Case { vars, from, state, seq, ack, sack, window, flags, payload_bytes, be_liberal }
            },
        )
    })
}

/// Options as they should be, and bytes that are none, cut where a header ends.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        Just(Vec::from([1])),
        Just(Vec::from([4, 2])),
        any::<u8>().prop_map(|scale| Vec::from([3, 3, scale])),
        any::<[u8; 8]>().prop_map(|block| [&[5, 10], &block[..]].concat()),
        any::<[u8; 2]>().prop_map(Vec::from),
    ];
    prop::collection::vec(option, 0..12).prop_map(|options| {
        let mut bytes = options.concat();
        bytes.truncate(40);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// And where the short way says nothing, it has changed nothing.
    #[test]
    fn the_short_way_of_an_established_flow_ends_where_the_general_way_ends(
        case in case(),
        bytes in options(),
        switches in (any::<bool>(), prop::option::of(0u8..5), any::<bool>(), any::<bool>()),
        [established, retrans, unacknowledged] in prop::array::uniform3(1u32..1000),
        seconds in 0u32..100_000,
    ) {
        let mut settings = Settings::new(Profile::Linux);
        settings.tcp.be_liberal = case.be_liberal;
        (settings.tcp.window_tracking, settings.tcp.max_retrans, settings.tcp.unacknowledged_timer) =
            (switches.0 || switches.3, switches.1, switches.2);
        settings.timeouts.set(TimeoutKey::TcpEstablished, Ticks::from_secs(established));
        settings.timeouts.set(TimeoutKey::TcpMaxRetrans, Ticks::from_secs(retrans));
        settings.timeouts.set(TimeoutKey::TcpUnacknowledged, Ticks::from_secs(unacknowledged));
        let flags = if case.flags & 0x40 == 0 { case.flags & (tcp_flags::PSH | 0xc0) | tcp_flags::ACK } else { case.flags };
        // A flow where the same segment comes again.
        let mut before = case.vars;
        if case.flags & 0x80 == 0 {
            let end = case.seq.wrapping_add(case.payload_bytes);
            (before.last_seq, before.last_ack, before.last_end) = (case.seq, case.ack, end);
            before.last_window = case.window;
        }
        let segment = Segment {
            seq: case.seq,
            ack: case.ack,
            payload_bytes: case.payload_bytes,
            window: case.window,
            flags,
            sport: 1,
            dport: 2,
            options: &bytes,
        };
        let status = status::LIVE | status::SEEN_REPLY | status::ASSURED;
        let head = Head { deadline: 5, state: TcpState::Established as u8, timeout_key: 0, status };
        let ctx = Context { now: seconds, direction: case.from, first: false, settings: &settings };
        let (mut general_head, mut general) = (head, before);
        let general_says = step(&mut general_head, &mut general, &segment, &ctx);
        let mut short = before;
        match step_established(&mut short, &segment, case.from, &EstablishedRules::new(&settings)) {
            Some((key, span)) => {
                prop_assert_eq!(general_says, Step::Refresh { key, span });
                prop_assert_eq!(short, general);
                prop_assert_eq!(head, general_head);
            }
            None => {
                prop_assert_eq!(short, before);
                let common = flags & !(tcp_flags::PSH | 0xc0) == tcp_flags::ACK && settings.tcp.window_tracking;
                let known = before.peers.iter().all(|peer| peer.maxwin != 0);
                let learnt = matches!(general_says, Step::Refresh { .. }) && !case.be_liberal;
                let liberal = before.flags[case.from.index()] & Mark::LIBERAL != 0;
                prop_assert!(!(common && known && learnt && !liberal), "it should have spoken: {general_says:?}");
            }
        }
    }

    #[test]
    fn the_short_way_of_a_first_syn_ends_where_the_general_way_ends(
        (seq, ack, window, payload_bytes) in any::<(u32, u32, u16, u16)>(),
        flags in any::<u8>(),
        bytes in options(),
        max_retrans in prop::option::of(0u8..2),
        (classic, window_tracking, strict) in any::<(bool, bool, bool)>(),
        [syn_sent, retrans] in prop::array::uniform2(1u32..1000),
    ) {
        let mut settings = Settings::new(if classic { Profile::Classic } else { Profile::Linux });
        (settings.tcp.window_tracking, settings.tcp.max_retrans) = (window_tracking, max_retrans);
        if strict {
            settings.tcp.pickup = Pickup::Syn;
        }
        settings.timeouts.set(TimeoutKey::TcpSynSent, Ticks::from_secs(syn_sent));
        settings.timeouts.set(TimeoutKey::TcpMaxRetrans, Ticks::from_secs(retrans));
        let flags = if flags & 1 == 0 { flags & 0xc8 | tcp_flags::SYN } else { flags };
        let payload_bytes = payload_bytes.into();
        let segment =
            Segment { seq, ack, payload_bytes, window, flags, sport: 1, dport: 2, options: &bytes };
        let ctx = Context { now: 7, direction: Direction::Original, first: true, settings: &settings };
        let (mut head, mut vars) = (Head::default(), TcpVars::default());
        let general = step(&mut head, &mut vars, &segment, &ctx);
        let (mut short_head, mut short) = (Head::default(), TcpVars::default());
        match step_opening(&mut short_head, &mut short, &segment, &OpeningRules::new(&settings)) {
            Some((key, span)) => {
                prop_assert_eq!(general, Step::Refresh { key, span });
                prop_assert_eq!((short_head, short), (head, vars));
            }
            None => {
                prop_assert_eq!((short_head, short), (Head::default(), TcpVars::default()));
                prop_assert_ne!(flags & 0x37, tcp_flags::SYN);
            }
        }
    }

    #[test]
    fn of_two_numbers_one_is_before_the_other(a: u32, b: u32) {
        prop_assume!(a.wrapping_sub(b) != 1 << 31);
        prop_assert_eq!(before(a, b), after(b, a));
        prop_assert_eq!(usize::from(before(a, b)) + usize::from(after(a, b)), usize::from(a != b));
    }

    #[test]
    fn where_the_circle_starts_does_not_matter(a: u32, by in near(1 << 31), shift: u32) {
        let (b, shifted) = (a.wrapping_add(by), |number: u32| number.wrapping_add(shift));
        prop_assert_eq!(before(a, b), before(shifted(a), shifted(b)));
        prop_assert_eq!(after(a, b), after(shifted(a), shifted(b)));
    }

    #[test]
    fn a_step_of_less_than_half_the_circle_leads_ahead(a: u32, by in 1u32..1 << 31) {
        prop_assert!(before(a, a.wrapping_add(by)));
        prop_assert!(!after(a, a.wrapping_add(by)));
    }

    /// Also that no number makes it panic: tests run with overflow checks.
    #[test]
    fn a_window_does_not_care_where_the_numbers_of_a_side_started(
        case in case(), side in 0usize..2, by: u32,
    ) {
        let side = BOTH[side];
        let (mut plain, mut shifted) = (case.clone(), case.shifted(side, by));
        prop_assume!(!plain.has_a_meaningful_zero() && !shifted.has_a_meaningful_zero());
        let said = plain.check();
        prop_assert_eq!(said, shifted.check());
        prop_assert_eq!(plain.shifted(side, by).vars, shifted.vars);
    }

    #[test]
    fn a_segment_that_is_invalid_and_starts_no_side_teaches_nothing(case in case()) {
        let mut after_it = case.clone();
        let said = after_it.check();
        let is_syn = case.flags & tcp_flags::SYN != 0;
        let known = case.vars.peers[case.from.index()].maxwin != 0;
        if matches!(said, Fit::Invalid(_)) && known && !is_syn {
            prop_assert_eq!(after_it.vars, case.vars);
        }
    }

    #[test]
    fn a_liberal_side_is_never_out_of_window(case in case()) {
        let mut case = case;
        case.vars.flags[case.from.index()] |= Mark::LIBERAL;
        prop_assert_eq!(case.check(), Fit::Accept);
    }

    #[test]
    fn a_sack_block_counts_if_it_ends_beyond_the_acknowledgment(
        noise in prop::collection::vec(Just(1u8), 0..=30), ack: u32, by in 1u32..1 << 31,
    ) {
        let block = |right: u32| {
            let [a, b, c, d] = right.to_be_bytes();
            [&noise[..], &[5, 10, 0, 0, 0, 0, a, b, c, d]].concat()
        };
        let (ahead, behind) = (ack.wrapping_add(by), ack.wrapping_sub(by));
        prop_assert_eq!(highest_sack(&block(ahead), ack), ahead);
        prop_assert_eq!(highest_sack(&block(behind), ack), ack);
    }

    #[test]
    fn no_options_make_reading_them_fail(bytes in options(), ack: u32) {
        let read = Options::read(&bytes);
        prop_assert_eq!(read.is_none(), bytes.is_empty());
        prop_assert!(read.is_none_or(|options| options.wscale <= 14));
        let sack = bytes.windows(2).any(|pair| matches!(pair, [5, 10 | 18 | 26 | 34]));
        prop_assert!(sack || highest_sack(&bytes, ack) == ack);
    }
}
