//! The classic profile: Oskar Andreasson's iptables tutorial, section 4.4, and the old table's own ways.

use super::dialogue::*;
use crate::policy::{Class, Policy};
use crate::track::settings::{Profile, Settings};
use crate::tracker::OnFull;
use crate::wire::proto;

#[test]
fn the_tutorials_connection_shows_the_tutorials_numbers() {
    Dialogue::classic()
        .client(seg(SYN))
        .expect_class(Class::New)
        .expect_status(false, false)
        .wait_secs(3)
        .expect("SYN_SENT", 117)
        .server(seg(SYN | ACK))
        .expect_class(Class::Established)
        .wait_secs(3)
        .expect("SYN_RECV", 57)
        .expect_status(true, false)
        .client(seg(ACK))
        .wait_secs(1)
        .expect("ESTABLISHED", 431_999)
        .expect_status(true, false)
        .client(seg(ACK | PSH).bytes(10))
        .expect_status(true, true)
        .expect("ESTABLISHED", 432_000);
}

#[test]
fn a_connection_closes_through_the_documented_states() {
    Dialogue::classic()
        .established()
        .client(seg(FIN | ACK))
        .expect("FIN_WAIT", 120)
        .server(seg(ACK))
        .expect("CLOSE_WAIT", 43_200)
        .server(seg(FIN | ACK))
        .expect("LAST_ACK", 30)
        .client(seg(ACK))
        .expect("TIME_WAIT", 120)
        .wait_secs(121)
        .expect_no_flow();
}

#[test]
fn every_first_segment_opens_a_flow() {
    for (flags, state, seconds) in [
        (SYN, "SYN_SENT", 120),
        (SYN | ACK, "SYN_SENT", 120),
        (ACK, "ESTABLISHED", 432_000),
        (FIN | ACK, "TIME_WAIT", 120),
        (RST, "CLOSE", 10),
        (RST | ACK, "CLOSE", 10),
        (0, "NONE", 1800),
        (PSH, "NONE", 1800),
    ] {
        Dialogue::classic().client(seg(flags)).expect_class(Class::New).expect(state, seconds);
    }
}

#[test]
fn an_impossible_set_of_flags_opens_nothing() {
    for flags in [SYN | FIN, SYN | RST, FIN, FIN | RST] {
        Dialogue::classic().client(seg(flags)).expect_class(Class::Invalid).expect_no_flow();
    }
}

#[test]
fn a_flagless_segment_is_invalid_on_any_other_flow() {
    Dialogue::classic().established().client(seg(0)).expect_class(Class::Invalid);
}

#[test]
fn a_flagless_flow_answered_by_syn_ack_is_half_open() {
    Dialogue::classic().client(seg(0)).server(seg(SYN | ACK)).expect("SYN_RECV", 60);
    Dialogue::classic().client(seg(0)).server(seg(SYN)).expect("SYN_RECV", 60);
    Dialogue::classic().client(seg(0)).server(seg(0)).expect("NONE", 1800);
    Dialogue::classic().client(seg(0)).server(seg(ACK)).expect("CLOSE", 10);
}

#[test]
fn two_syns_that_cross_are_listen() {
    Dialogue::classic().client(seg(SYN)).server(seg(SYN)).expect("LISTEN", 120);
}

#[test]
fn a_udp_flow_is_assured_by_the_first_packet_after_the_answer() {
    use super::dialogue::Host::{Client, Server};
    Dialogue::classic()
        .raw(Client, proto::UDP, &udp((5000, 53), 4))
        .raw(Server, proto::UDP, &udp((53, 5000), 4))
        .expect("-", 30)
        .raw(Client, proto::UDP, &udp((5000, 53), 4))
        .expect("-", 180)
        .expect_status(true, true);
}

#[test]
fn unacknowledged_data_and_a_closed_window_cost_no_time() {
    Dialogue::classic()
        .established()
        .client(seg(ACK | PSH).bytes(100))
        .expect("ESTABLISHED", 432_000)
        .server(seg(ACK).window(0))
        .expect("ESTABLISHED", 432_000);
}

#[test]
fn without_window_tracking_any_reset_closes() {
    let mut settings = Settings::new(Profile::Classic);
    settings.tcp.window_tracking = false;
    Dialogue::new(settings).established().server(seg(RST).seq_offset(1 << 30)).expect("CLOSE", 10);
    Dialogue::classic().established().server(seg(RST).seq_offset(1 << 30)).expect_class(Class::Invalid);
}

#[test]
fn window_tracking_switched_off_lets_any_reset_close_a_flow_that_it_has_watched() {
    let mut dialogue = Dialogue::classic().established();
    let mut settings = *dialogue.tracker.settings();
    settings.tcp.window_tracking = false;
    dialogue.tracker.configure(settings, Policy::ACCEPT_ALL, OnFull::EarlyDrop);
    dialogue.server(seg(RST).seq_offset(1 << 30)).expect("CLOSE", 10);
}
