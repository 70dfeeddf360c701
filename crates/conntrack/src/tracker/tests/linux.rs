//! The linux profile, where a few lines say it best; the recorded corpus says the rest.

use super::dialogue::*;
use crate::event::{DestroyReason, EventKind};
use crate::policy::{Class, Role};
use crate::tick::Tick;
use crate::track::reason::Reason;
use crate::tracker::{Frame, Verdict};
use crate::wire::{Checksum, proto};

#[test]
fn only_the_exact_reset_closes_an_established_flow() {
    Dialogue::linux().established().client(seg(RST)).expect("CLOSE", 10);
    Dialogue::linux()
        .established()
        .client(seg(RST).seq_offset(1))
        .expect_class(Class::Established)
        .expect("ESTABLISHED", 10);
    let below = Dialogue::linux().established().client(seg(RST).seq_offset(-1));
    assert_eq!(below.last.reason, Some(Reason::TcpRstUnderAck));
}

#[test]
fn a_reset_alone_ends_an_unanswered_flow_at_once() {
    let dialogue = Dialogue::linux().client(seg(SYN)).server(seg(RST | ACK)).expect_no_flow();
    assert_eq!(dialogue.kinds(), [EventKind::New, EventKind::Destroy(DestroyReason::Closed)]);
}

#[test]
fn a_syn_sent_again_does_not_renew() {
    Dialogue::linux()
        .client(seg(SYN))
        .wait_secs(50)
        .client(seg(SYN).seq_offset(-1))
        .expect_class(Class::New)
        .expect("SYN_SENT", 70);
}

#[test]
fn assured_comes_with_the_third_segment() {
    Dialogue::linux().client(seg(SYN)).server(seg(SYN | ACK)).client(seg(ACK)).expect_status(true, true);
}

#[test]
fn data_waits_for_its_acknowledgment_300_seconds() {
    Dialogue::linux()
        .established()
        .client(seg(ACK | PSH).bytes(100))
        .expect("ESTABLISHED", 300)
        .server(seg(ACK))
        .expect("ESTABLISHED", 432_000);
}

#[test]
fn a_syn_in_time_wait_is_a_new_flow() {
    let dialogue = Dialogue::linux()
        .established()
        .client(seg(FIN | ACK))
        .server(seg(FIN | ACK))
        .client(seg(ACK))
        .expect("TIME_WAIT", 120)
        .client(seg(SYN))
        .expect_class(Class::New)
        .expect("SYN_SENT", 120)
        .expect_status(false, false);
    let told = dialogue.kinds();
    assert_eq!(told[told.len() - 2..], [EventKind::Destroy(DestroyReason::Closed), EventKind::New]);
}

#[test]
fn events_tell_each_change_once() {
    use EventKind::{New, Update};
    let dialogue = Dialogue::linux()
        .client(seg(SYN))
        .server(seg(SYN | ACK))
        .client(seg(ACK))
        .client(seg(ACK | PSH).bytes(5))
        .server(seg(ACK));
    assert_eq!(dialogue.kinds(), [New, Update, Update]);
}

#[test]
fn data_beyond_the_window_is_invalid_and_says_so() {
    let beyond = Dialogue::linux().established().client(seg(ACK | PSH).bytes(10).seq_offset(1 << 20));
    assert_eq!(beyond.last.reason, Some(Reason::TcpSeqOverMaxEnd));
    let unseen = Dialogue::linux().established().client(seg(ACK).ack_offset(1));
    assert_eq!(unseen.last.reason, Some(Reason::TcpAckOverEnd));
}

#[test]
fn the_same_tuple_in_two_zones_is_two_flows() {
    let mut dialogue = Dialogue::linux();
    let packet = ipv4(proto::UDP, [10, 0, 0, 1], [10, 0, 0, 2], &udp((1, 2), 0));
    let frames = [0, 7].map(|zone| Frame { zone, ..frame(&packet, Role::Inside) });
    let mut outcomes = [dialogue.last; 2];
    dialogue.tracker.on_burst(Tick(1), &frames, &mut outcomes, &mut dialogue.events);
    assert_eq!(dialogue.tracker.len(), 2);
    assert_eq!(outcomes[1].class, Some(Class::New));
}

#[test]
fn what_the_nic_found_wrong_is_invalid_and_not_summed_again() {
    let mut dialogue = Dialogue::linux();
    // Without a UDP checksum there is nothing to find wrong; a TCP checksum of zero is wrong here.
    let packet = ipv4(proto::TCP, [10, 0, 0, 1], [10, 0, 0, 2], &tcp((1, 2), 1, 0, SYN, 1000, 0));
    let frames = [Checksum::Bad, Checksum::Unknown, Checksum::Good]
        .map(|checksum| Frame { checksum, ..frame(&packet, Role::Inside) });
    let mut outcomes = [dialogue.last; 3];
    dialogue.tracker.on_burst(Tick(1), &frames, &mut outcomes, &mut dialogue.events);
    assert_eq!(
        outcomes.map(|outcome| outcome.reason),
        [Some(Reason::L4Checksum), Some(Reason::L4Checksum), None]
    );
}

#[test]
fn a_fragment_whose_header_a_card_found_right_is_held_all_the_same() {
    let mut dialogue = Dialogue::linux();
    let mut packet = ipv4(proto::TCP, [10, 0, 0, 1], [10, 0, 0, 2], &tcp((1, 2), 1, 0, SYN, 1000, 4));
    // More fragments.
    packet[6] = 0x20;
    let whole = Frame { checksum: Checksum::AllGood, ..frame(&packet, Role::Inside) };
    let mut outcomes = [dialogue.last];
    dialogue.tracker.on_burst(Tick(1), &[whole], &mut outcomes, &mut dialogue.events);
    assert!(matches!(outcomes[0].verdict, Verdict::Hold(_)), "{:?}", outcomes[0]);
    assert!(dialogue.tracker.is_empty());
}
