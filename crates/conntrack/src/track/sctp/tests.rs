//! Dialogues, each a claim that a recording of Linux 6.18 backs.

use std::vec::Vec;

use super::*;
use crate::key::Direction::{Original, Reply};
use crate::table::entry::status::{ASSURED, SEEN_REPLY};
use crate::track::settings::{Profile, Settings};
use crate::track::timeout::TimeoutKey;

const CLIENT: u32 = 0x1111_1111;
const SERVER: u32 = 0x2222_2222;
const STRANGER: u32 = 0x3333_3333;

/// One flow, kept as the tracker keeps it.
#[derive(Debug, Default)]
struct Association {
    head: Head,
    vars: SctpVars,
    live: bool,
}

fn chunk(chunk_type: u8) -> Vec<u8> {
    std::vec![chunk_type, 0, 0, 4]
}

fn data() -> Vec<u8> {
    chunk(0)
}

fn init(tag: u32) -> Vec<u8> {
    [&[1, 0, 0, 20], &tag.to_be_bytes()[..], &[0; 12]].concat()
}

fn init_ack(tag: u32) -> Vec<u8> {
    [&[2, 0, 0, 20], &tag.to_be_bytes()[..], &[0; 12]].concat()
}

fn heartbeat() -> Vec<u8> {
    chunk(4)
}

fn heartbeat_ack() -> Vec<u8> {
    chunk(5)
}

fn abort() -> Vec<u8> {
    chunk(6)
}

fn shutdown() -> Vec<u8> {
    chunk(7)
}

fn shutdown_ack() -> Vec<u8> {
    chunk(8)
}

fn cookie_echo() -> Vec<u8> {
    chunk(10)
}

fn cookie_ack() -> Vec<u8> {
    chunk(11)
}

fn shutdown_complete() -> Vec<u8> {
    chunk(14)
}

/// The T bit.
fn reflected(mut chunk: Vec<u8>) -> Vec<u8> {
    chunk[1] = 1;
    chunk
}

impl Association {
    fn step(&mut self, direction: Direction, vtag: u32, chunks: &[Vec<u8>]) -> Step {
        let settings = Settings::new(Profile::Linux);
        let chunks = chunks.concat();
        let packet = wire::Sctp { sport: 3000, dport: 4000, vtag, chunks: &chunks };
        let ctx = Context { now: 0, direction, first: !self.live, settings: &settings };
        let step = step(&mut self.head, &mut self.vars, &packet, &ctx);
        if !matches!(step, Step::Invalid(_)) {
            self.live = true;
            self.head.status |= if direction == Reply { SEEN_REPLY } else { 0 };
        }
        step
    }

    /// The packet is counted, and leaves the flow in `state` with that state's timeout.
    #[track_caller]
    fn counts(&mut self, direction: Direction, vtag: u32, chunks: &[Vec<u8>], state: SctpState) -> &mut Self {
        let settings = Settings::new(Profile::Linux);
        let step = self.step(direction, vtag, chunks);
        assert_eq!(SctpState::from_number(self.head.state).name(), state.name());
        assert_eq!(step, Step::refresh(state.timeout_key(), &settings));
        self
    }

    #[track_caller]
    fn ignores(&mut self, direction: Direction, vtag: u32, chunks: &[Vec<u8>]) -> &mut Self {
        assert_eq!(self.step(direction, vtag, chunks), Step::Ignore);
        self
    }

    #[track_caller]
    fn refuses(&mut self, direction: Direction, vtag: u32, chunks: &[Vec<u8>], reason: Reason) -> &mut Self {
        assert_eq!(self.step(direction, vtag, chunks), Step::Invalid(reason));
        self
    }

    fn established() -> Self {
        let mut association = Self::default();
        association
            .counts(Original, 0, &[init(CLIENT)], SctpState::Closed)
            .counts(Reply, CLIENT, &[init_ack(SERVER)], SctpState::CookieWait)
            .counts(Original, SERVER, &[cookie_echo()], SctpState::CookieEchoed);
        assert_eq!(association.head.status & ASSURED, 0);
        association.counts(Reply, CLIENT, &[cookie_ack()], SctpState::Established);
        association
    }

    /// A further path of an association that was set up elsewhere.
    fn by_heartbeat() -> Self {
        let mut association = Self::default();
        association.counts(Original, SERVER, &[heartbeat()], SctpState::HeartbeatSent).counts(
            Reply,
            CLIENT,
            &[heartbeat_ack()],
            SctpState::Established,
        );
        association
    }
}

#[test]
fn handshake_learns_both_tags_and_assures() {
    let association = Association::established();
    assert_eq!(association.vars.vtag, [SERVER, CLIENT]);
    assert_ne!(association.head.status & ASSURED, 0);
}

#[test]
fn shutdown_goes_through_three_states_and_closes() {
    Association::established()
        .counts(Original, SERVER, &[shutdown()], SctpState::ShutdownSent)
        .counts(Reply, CLIENT, &[shutdown_ack()], SctpState::ShutdownAckSent)
        .counts(Original, SERVER, &[shutdown_complete()], SctpState::Closed);
}

#[test]
fn data_needs_the_right_tag() {
    Association::established()
        .counts(Original, SERVER, &[data()], SctpState::Established)
        .refuses(Original, CLIENT, &[data()], Reason::SctpVtag)
        .refuses(Reply, SERVER, &[data()], Reason::SctpVtag);
}

#[test]
fn a_forged_abort_leaves_the_association_up() {
    let mut association = Association::established();
    association.refuses(Original, STRANGER, &[abort()], Reason::SctpVtag);
    association.refuses(Original, CLIENT, &[abort()], Reason::SctpVtag);
    association.refuses(Original, SERVER, &[reflected(abort())], Reason::SctpVtag);
    association.counts(Original, SERVER, &[data()], SctpState::Established);
}

#[test]
fn abort_closes_under_its_own_tag_or_the_reflected_one() {
    Association::established().counts(Original, SERVER, &[abort()], SctpState::Closed);
    Association::established().counts(Original, CLIENT, &[reflected(abort())], SctpState::Closed);
}

#[test]
fn a_repeated_init_does_not_keep_a_closed_flow_alive() {
    Association::default()
        .counts(Original, 0, &[init(CLIENT)], SctpState::Closed)
        .ignores(Original, 0, &[init(CLIENT)])
        .ignores(Original, 0, &[init(STRANGER)]);
}

#[test]
fn init_needs_tag_zero_and_all_its_fields() {
    let mut cut = init(CLIENT);
    cut.truncate(19);
    Association::default()
        .refuses(Original, CLIENT, &[init(CLIENT)], Reason::SctpVtag)
        .refuses(Original, 0, &[cut], Reason::SctpChunks)
        .counts(Original, 0, &[init(CLIENT)], SctpState::Closed);
}

#[test]
fn out_of_the_blue_packets_open_nothing() {
    for chunks in [abort(), shutdown_complete(), cookie_ack(), data(), chunk(3), chunk(192)] {
        Association::default().refuses(Original, 0, &[chunks], Reason::SctpNoOpen);
    }
    Association::default().refuses(Original, 0, &[shutdown(), data()], Reason::SctpNoOpen);
    Association::default().refuses(Original, SERVER, &[shutdown()], Reason::SctpVtag);
    Association::default().refuses(Original, SERVER, &[cookie_echo()], Reason::SctpVtag);
}

#[test]
fn a_shutdown_ack_out_of_the_blue_waits_for_the_reflected_completion() {
    Association::default().counts(Original, SERVER, &[shutdown_ack()], SctpState::ShutdownAckSent).counts(
        Reply,
        SERVER,
        &[shutdown_complete()],
        SctpState::Closed,
    );
}

#[test]
fn heartbeat_opens_a_path_and_its_answer_establishes_it() {
    let association = Association::by_heartbeat();
    assert_eq!(association.vars.vtag, [SERVER, CLIENT]);
    assert_ne!(association.head.status & ASSURED, 0);
}

#[test]
fn a_restart_elsewhere_is_followed_when_the_peer_answers_a_strange_heartbeat() {
    let mut association = Association::by_heartbeat();
    association.ignores(Original, STRANGER, &[heartbeat()]);
    association.counts(Reply, 0x4444_4444, &[heartbeat_ack()], SctpState::Established);
    assert_eq!(association.vars.vtag, [0, 0x4444_4444]);
    association.counts(Original, STRANGER, &[heartbeat()], SctpState::Established);
    assert_eq!(association.vars.vtag, [STRANGER, 0x4444_4444]);
}

#[test]
fn a_strange_heartbeat_answer_needs_a_strange_heartbeat_from_the_other_side() {
    Association::by_heartbeat()
        .refuses(Reply, STRANGER, &[heartbeat_ack()], Reason::SctpVtag)
        .ignores(Reply, STRANGER, &[heartbeat()])
        .refuses(Reply, STRANGER, &[heartbeat_ack()], Reason::SctpVtag)
        .ignores(Original, STRANGER, &[heartbeat()])
        .counts(Original, SERVER, &[heartbeat()], SctpState::Established)
        .refuses(Reply, STRANGER, &[heartbeat_ack()], Reason::SctpVtag);
}

#[test]
fn data_never_rides_on_a_strange_heartbeat_or_its_answer() {
    Association::by_heartbeat()
        .refuses(Original, STRANGER, &[heartbeat(), data()], Reason::SctpVtag)
        .ignores(Original, STRANGER, &[heartbeat()])
        .refuses(Reply, STRANGER, &[heartbeat_ack(), data()], Reason::SctpVtag)
        .counts(Reply, STRANGER, &[heartbeat_ack()], SctpState::Established);
}

#[test]
fn an_init_ack_that_answers_no_init_must_agree_with_the_known_tag() {
    Association::by_heartbeat().refuses(Reply, CLIENT, &[init_ack(STRANGER)], Reason::SctpVtag).counts(
        Reply,
        CLIENT,
        &[init_ack(SERVER)],
        SctpState::Established,
    );
}

#[test]
fn crossing_inits_accept_only_answers_that_agree_with_them() {
    Association::default()
        .counts(Original, 0, &[init(CLIENT)], SctpState::Closed)
        .ignores(Reply, 0, &[init(SERVER)])
        .refuses(Reply, CLIENT, &[init_ack(STRANGER)], Reason::SctpVtag)
        .counts(Reply, CLIENT, &[init_ack(SERVER)], SctpState::CookieWait)
        .counts(Original, SERVER, &[cookie_echo()], SctpState::CookieEchoed)
        .counts(Reply, CLIENT, &[cookie_ack()], SctpState::Established);
}

#[test]
fn a_completed_handshake_forgets_its_collision() {
    Association::default()
        .counts(Original, 0, &[init(CLIENT)], SctpState::Closed)
        .ignores(Reply, 0, &[init(SERVER)])
        .counts(Reply, CLIENT, &[init_ack(SERVER)], SctpState::CookieWait)
        .counts(Original, SERVER, &[cookie_echo()], SctpState::CookieEchoed)
        .counts(Reply, CLIENT, &[cookie_ack()], SctpState::Established)
        .refuses(Reply, CLIENT, &[init_ack(STRANGER)], Reason::SctpVtag)
        .counts(Original, 0, &[init(CLIENT + 1)], SctpState::Established)
        .counts(Reply, CLIENT + 1, &[init_ack(STRANGER)], SctpState::Established);
}

#[test]
fn a_stale_init_is_not_taken_for_a_collision() {
    // An old copy of the client's INIT arrives after the server's own; then the client really starts anew.
    let mut association = Association::default();
    association
        .counts(Original, 0, &[init(CLIENT)], SctpState::Closed)
        .ignores(Reply, 0, &[init(SERVER)])
        .ignores(Original, 0, &[init(CLIENT)]);
    assert!(association.vars.saw_init(Original) && association.vars.saw_init(Reply));
    association.ignores(Original, 0, &[init(STRANGER)]);
    assert!(association.vars.saw_init(Original) && !association.vars.saw_init(Reply));
}

#[test]
fn the_state_chooses_the_timeout() {
    let keys = SctpState::ALL.map(SctpState::timeout_key);
    assert_eq!(
        keys[1..],
        [
            TimeoutKey::SctpClosed,
            TimeoutKey::SctpCookieWait,
            TimeoutKey::SctpCookieEchoed,
            TimeoutKey::SctpEstablished,
            TimeoutKey::SctpShutdownSent,
            TimeoutKey::SctpShutdownRecd,
            TimeoutKey::SctpShutdownAckSent,
            TimeoutKey::SctpHeartbeatSent,
        ]
    );
}
