//! What other timeouts would do is what they do: each answer is held against the same packets under those timeouts.

use super::dialogue::{Host::*, *};
use crate::tick::{PER_SECOND, Ticks};
use crate::track::timeout::TimeoutKey;
use crate::tracker::{Between, Cursor, Forecast};
use crate::wire::proto;

fn asked(dialogue: &Dialogue, changes: &[(TimeoutKey, Ticks)]) -> Forecast {
    let mut timeouts = dialogue.tracker.settings().timeouts;
    changes.iter().for_each(|&(key, span)| timeouts.set(key, span));
    let mut forecast = Forecast::default();
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        from = dialogue.tracker.what_if(dialogue.now(), cursor, &timeouts, &mut forecast);
    }
    forecast
}

/// (flows, would go, cut for certain, cut at most)
fn numbers(dialogue: &Dialogue, key: TimeoutKey, span: Ticks) -> (u64, u64, u64, u64) {
    let Forecast { entries, cut, .. } = asked(dialogue, &[(key, span)]);
    (entries, asked(dialogue, &[(key, span)]).would_go(), cut.at_least, cut.at_most)
}

fn echo(from: Host, dialogue: Dialogue) -> Dialogue {
    let icmp_type = if from == Client { 8 } else { 0 };
    dialogue.raw(from, proto::ICMP, &[icmp_type, 0, 0, 0, 0, 7, 0, 1])
}

#[test]
fn a_pause_counts_from_the_tick_at_which_the_new_timeout_would_have_ended_the_flow() {
    for (pause, cut) in [(10 * PER_SECOND - 1, 0), (10 * PER_SECOND, 1), (29 * PER_SECOND, 1)] {
        let spoke = echo(Server, echo(Client, Dialogue::classic()).wait(Ticks(pause)));
        assert_eq!(numbers(&spoke, TimeoutKey::Icmp, Ticks::from_secs(10)), (1, 0, cut, cut), "{pause}");
    }
}

#[test]
fn a_flow_would_go_from_the_tick_at_which_its_silence_is_the_new_timeout() {
    let flow = echo(Client, Dialogue::classic()).wait(Ticks(10 * PER_SECOND - 1));
    assert_eq!(numbers(&flow, TimeoutKey::Icmp, Ticks::from_secs(10)), (1, 0, 0, 0));
    let flow = flow.wait(Ticks(1));
    assert_eq!(numbers(&flow, TimeoutKey::Icmp, Ticks::from_secs(10)), (1, 1, 0, 0));
    // Not whole seconds, and other timeouts, do as well.
    assert_eq!(numbers(&flow, TimeoutKey::Icmp, Ticks(2_499)).1, 1);
    assert_eq!(numbers(&flow, TimeoutKey::Icmp, Ticks(2_501)).1, 0);
    assert_eq!(numbers(&flow, TimeoutKey::Udp, Ticks(1)).1, 0);
    assert_eq!(numbers(&flow, TimeoutKey::Icmp, Ticks::from_secs(40)).1, 0, "a longer one ends nothing");
}

#[test]
fn a_flow_that_pauses_often_is_cut_once() {
    let mut dialogue = Dialogue::classic()
        .established()
        .client(seg(FIN | ACK))
        .server(seg(ACK))
        .expect("CLOSE_WAIT", 43_200);
    for pause in [70, 65, 61, 390, 3] {
        dialogue = dialogue.wait_secs(pause).server(seg(ACK));
    }
    assert_eq!(numbers(&dialogue, TimeoutKey::TcpCloseWait, Ticks::from_secs(60)), (1, 0, 1, 1));
    assert_eq!(numbers(&dialogue, TimeoutKey::TcpCloseWait, Ticks::from_secs(390)), (1, 0, 1, 1));
    assert_eq!(numbers(&dialogue, TimeoutKey::TcpCloseWait, Ticks::from_secs(420)).3, 0);
    // It has ended, and what it did stays known.
    let gone = dialogue.wait_secs(43_200 + 10);
    assert_eq!(numbers(&gone, TimeoutKey::TcpCloseWait, Ticks::from_secs(60)), (0, 0, 1, 1));
}

#[test]
fn a_packet_that_does_not_renew_the_timeout_is_a_packet_of_the_flow_as_well() {
    let again = Dialogue::linux().client(seg(SYN)).wait_secs(50).client(seg(SYN).seq_offset(-1));
    assert_eq!(numbers(&again, TimeoutKey::TcpSynSent, Ticks::from_secs(50)), (1, 1, 1, 1));
    assert_eq!(numbers(&again, TimeoutKey::TcpSynSent, Ticks::from_secs(51)), (1, 0, 0, 0));
}

#[test]
fn a_timeout_that_shortens_others_is_reckoned_with_the_state_that_it_shortens() {
    // Data that waits for its acknowledgment: 300 s instead of five days.
    let waiting = Dialogue::linux().established().client(seg(ACK | PSH).bytes(9));
    let spoke = waiting.wait_secs(100).client(seg(ACK | PSH).bytes(9)).wait_secs(80);
    let cut = |span| numbers(&spoke, TimeoutKey::TcpEstablished, Ticks::from_secs(span));
    assert_eq!((cut(60), cut(90), cut(200)), ((1, 1, 1, 1), (1, 0, 1, 1), (1, 0, 0, 0)));
    let both = [(TimeoutKey::TcpEstablished, Ticks::from_secs(60)), (TimeoutKey::Udp, Ticks::from_secs(1))];
    assert_eq!(asked(&spoke, &both).rows[TimeoutKey::TcpUnacknowledged as usize].would_go, 1);
}

#[test]
fn a_length_between_two_that_are_told_apart_is_answered_with_both() {
    let stream = echo(Client, Dialogue::classic().set_timeout(TimeoutKey::Icmp, 90_000));
    let spoke = echo(Client, stream.wait_secs(4_000));
    let cut = |span| asked(&spoke, &[(TimeoutKey::Icmp, Ticks::from_secs(span))]).cut;
    // Between 3600 and 4500.
    assert_eq!(cut(3_600), Between { at_least: 1, at_most: 1 });
    assert_eq!(cut(3_700), Between { at_least: 0, at_most: 1 });
    assert_eq!(cut(4_500), Between { at_least: 0, at_most: 0 });
    assert!(asked(&spoke, &[(TimeoutKey::Icmp, Ticks(PER_SECOND - 1))]).partial);
    assert!(!asked(&spoke, &[(TimeoutKey::Icmp, Ticks(PER_SECOND))]).partial);
}

#[test]
fn a_silence_is_reckoned_from_the_last_change_of_its_timeout() {
    // Raised: the deadline was made of the lower one.
    let raised =
        echo(Client, Dialogue::classic()).wait_secs(20).set_timeout(TimeoutKey::Icmp, 1000).wait_secs(2);
    let spoke = echo(Client, raised);
    assert_eq!(numbers(&spoke, TimeoutKey::Icmp, Ticks::from_secs(2)), (1, 0, 1, 1));
    assert_eq!(numbers(&spoke, TimeoutKey::Icmp, Ticks::from_secs(3)), (1, 0, 0, 0));
    // Lowered: what the flow has left is cut, and its silence counts from there.
    let lowered = spoke.wait_secs(30).set_timeout(TimeoutKey::Icmp, 100).wait(Ticks(1)).wait_secs(5);
    assert_eq!(numbers(&lowered, TimeoutKey::Icmp, Ticks::from_secs(6)).1, 0);
    let spoke = echo(Client, lowered);
    assert_eq!(numbers(&spoke, TimeoutKey::Icmp, Ticks::from_secs(5)).2, 1);
    assert_eq!(numbers(&spoke, TimeoutKey::Icmp, Ticks::from_secs(6)).2, 0);
}

#[test]
fn a_deadline_that_an_operator_moved_says_nothing_of_silence() {
    use crate::tracker::Edit;
    let mut flow = echo(Client, Dialogue::classic());
    let edit = Edit::Change { mark: None, timeout: Some(Ticks::from_secs(2)) };
    let named = flow.flows()[0];
    assert!(flow.tracker.edit(flow.now(), &named, edit, &mut flow.events).is_some());
    assert_eq!(flow.flows()[0].timeout_key, TimeoutKey::Icmp);
    let spoke = echo(Client, flow.wait_secs(1));
    assert_eq!(numbers(&spoke, TimeoutKey::Icmp, Ticks::from_secs(1)), (1, 0, 0, 0));
    let spoke = echo(Client, spoke.wait_secs(4));
    assert_eq!(numbers(&spoke, TimeoutKey::Icmp, Ticks::from_secs(4)), (1, 0, 1, 1));
}

#[test]
fn what_an_earlier_flow_in_the_slot_did_is_not_the_next_ones() {
    let first = echo(Client, echo(Client, Dialogue::classic()).wait_secs(20)).wait_secs(40);
    let second = echo(Client, echo(Client, first).wait_secs(20));
    assert_eq!(numbers(&second, TimeoutKey::Icmp, Ticks::from_secs(20)), (1, 0, 2, 2));
}

#[test]
fn pauses_with_and_without_waiting_data_are_counted_apart_and_said_to_be_counted_twice() {
    let data = seg(ACK | PSH).bytes(9);
    let idle = Dialogue::linux().established().wait_secs(70).client(seg(ACK));
    assert_eq!(asked(&idle, &[(TimeoutKey::TcpEstablished, Ticks::from_secs(60))]).crowded, 0);
    let waiting = idle.client(data).wait_secs(80).server(seg(ACK)).wait_secs(65).client(seg(ACK));
    let forecast = asked(&waiting, &[(TimeoutKey::TcpUnacknowledged, Ticks::from_secs(60))]);
    assert_eq!((forecast.cut, forecast.crowded), (Between { at_least: 1, at_most: 1 }, 2));
}
