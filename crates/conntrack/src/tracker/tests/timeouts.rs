//! Every row of the timeout table expires at its time, to the second, and each moves when tuned.

use super::dialogue::{Host::*, *};
use crate::tick::{PER_SECOND, Ticks};
use crate::track::settings::{Profile, Settings};
use crate::track::timeout::TimeoutKey;
use crate::wire::proto;

/// A flow that is on this timeout, with the profile's value.
fn on(key: TimeoutKey) -> Dialogue {
    on_tuned(key, |dialogue| dialogue)
}

/// A flow that is on this timeout, after `tune` was done to the tracker.
fn on_tuned(key: TimeoutKey, tune: impl Fn(Dialogue) -> Dialogue) -> Dialogue {
    let classic = || tune(Dialogue::classic());
    let linux = || tune(Dialogue::linux());
    let (ask, answer) = (udp((5000, 53), 4), udp((53, 5000), 4));
    let echo = |icmp_type| [icmp_type, 0, 0, 0, 0, 7, 0, 1];
    let sctp = |chunk: &[u8], vtag: u32| {
        let mut packet = std::vec![0x13, 0x88, 0x13, 0x89];
        packet.extend(vtag.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(chunk);
        packet
    };
    let back = |chunk: &[u8], vtag: u32| {
        let mut packet = sctp(chunk, vtag);
        packet[..4].copy_from_slice(&[0x13, 0x89, 0x13, 0x88]);
        packet
    };
    let init = [1, 0, 0, 20, 0, 0, 0, 5, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    let init_ack = [2, 0, 0, 20, 0, 0, 0, 6, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    let chunk = |kind: u8| [kind, 0, 0, 4];
    let cookie_wait =
        || linux().raw(Client, proto::SCTP, &sctp(&init, 0)).raw(Server, proto::SCTP, &back(&init_ack, 5));
    let cookie_echoed = || cookie_wait().raw(Client, proto::SCTP, &sctp(&chunk(10), 6));
    let associated = || cookie_echoed().raw(Server, proto::SCTP, &back(&chunk(11), 5));
    match key {
        TimeoutKey::TcpNone => classic().client(seg(0)),
        TimeoutKey::TcpSynSent => classic().client(seg(SYN)),
        TimeoutKey::TcpSynRecv => classic().client(seg(SYN)).server(seg(SYN | ACK)),
        TimeoutKey::TcpEstablished => classic().established(),
        TimeoutKey::TcpFinWait => classic().established().client(seg(FIN | ACK)),
        TimeoutKey::TcpCloseWait => classic().established().client(seg(FIN | ACK)).server(seg(ACK)),
        TimeoutKey::TcpLastAck => classic().established().client(seg(FIN | ACK)).server(seg(FIN | ACK)),
        TimeoutKey::TcpTimeWait => {
            classic().established().client(seg(FIN | ACK)).server(seg(FIN | ACK)).client(seg(ACK))
        }
        TimeoutKey::TcpClose => classic().established().client(seg(RST)),
        // The SYN that crosses does not renew the first one's timeout; the next one does.
        TimeoutKey::TcpListen => classic().client(seg(SYN)).server(seg(SYN)).client(seg(SYN).seq_offset(-1)),
        TimeoutKey::TcpMaxRetrans => linux().established().server(seg(ACK).window(0)),
        TimeoutKey::TcpUnacknowledged => linux().established().client(seg(ACK | PSH).bytes(9)),
        TimeoutKey::Udp => classic().raw(Client, proto::UDP, &ask),
        TimeoutKey::UdpStream => classic()
            .raw(Client, proto::UDP, &ask)
            .raw(Server, proto::UDP, &answer)
            .raw(Client, proto::UDP, &ask),
        TimeoutKey::Icmp => classic().raw(Client, proto::ICMP, &echo(8)),
        TimeoutKey::Icmpv6 => {
            let mut packet = std::vec![0x60, 0, 0, 0, 0, 8, 58, 64];
            packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            packet.extend([128, 0, 0, 0, 0, 7, 0, 1]);
            classic().raw_ip(Client, &packet)
        }
        TimeoutKey::Gre => classic().raw(Client, proto::GRE, &[0, 0, 8, 0]),
        TimeoutKey::GreStream => classic()
            .raw(Client, proto::GRE, &[0, 0, 8, 0])
            .raw(Server, proto::GRE, &[0, 0, 8, 0])
            .raw(Client, proto::GRE, &[0, 0, 8, 0]),
        TimeoutKey::SctpClosed => linux().raw(Client, proto::SCTP, &sctp(&init, 0)),
        TimeoutKey::SctpCookieWait => cookie_wait(),
        TimeoutKey::SctpCookieEchoed => cookie_echoed(),
        TimeoutKey::SctpEstablished => associated(),
        TimeoutKey::SctpShutdownSent => {
            associated().raw(Client, proto::SCTP, &sctp(&[7, 0, 0, 8, 0, 0, 0, 1], 6))
        }
        TimeoutKey::SctpShutdownRecd => {
            associated().raw(Server, proto::SCTP, &back(&[7, 0, 0, 8, 0, 0, 0, 1], 5))
        }
        TimeoutKey::SctpShutdownAckSent => associated()
            .raw(Client, proto::SCTP, &sctp(&[7, 0, 0, 8, 0, 0, 0, 1], 6))
            .raw(Server, proto::SCTP, &back(&chunk(8), 5)),
        TimeoutKey::SctpHeartbeatSent => linux().raw(Client, proto::SCTP, &sctp(&[4, 0, 0, 4], 5)),
        TimeoutKey::Generic => classic().raw(Client, 89, &[0; 16]),
    }
}

fn profile_of(dialogue: &Dialogue) -> Profile {
    dialogue.tracker.settings().profile
}

/// How long the one flow lives, in seconds; fails if it is there a tick later or gone a tick earlier.
#[track_caller]
fn dies_after(dialogue: Dialogue, seconds: u32) {
    let [flow] = dialogue.flows()[..] else { panic!("one flow is expected: {:?}", dialogue.flows()) };
    assert_eq!(flow.timeout_secs, seconds, "{flow:?}");
    let almost = dialogue.wait(Ticks(seconds * PER_SECOND - 1));
    assert_eq!(almost.flows().len(), 1, "gone before its time: {flow:?}");
    let after = almost.wait(Ticks(1));
    assert_eq!(after.flows(), [], "still there: {flow:?}");
    // The wheel's finest slot is 32 ms: then the entry itself is gone, and told.
    let after = after.wait(Ticks(8));
    assert!(after.tracker.is_empty());
    assert!(matches!(after.kinds().last(), Some(crate::event::EventKind::Destroy(_))));
}

#[test]
fn every_row_expires_at_its_time() {
    for &key in TimeoutKey::ALL {
        let dialogue = on(key);
        let seconds = Settings::new(profile_of(&dialogue)).timeouts.get(key).as_secs();
        assert_eq!(dialogue.flows()[0].timeout_key, key);
        dies_after(dialogue, seconds);
    }
}

#[test]
fn the_classic_table_is_the_well_known_one() {
    let well_known = [
        (TimeoutKey::TcpNone, 30 * 60),
        (TimeoutKey::TcpEstablished, 5 * 86_400),
        (TimeoutKey::TcpSynSent, 2 * 60),
        (TimeoutKey::TcpSynRecv, 60),
        (TimeoutKey::TcpFinWait, 2 * 60),
        (TimeoutKey::TcpTimeWait, 2 * 60),
        (TimeoutKey::TcpClose, 10),
        (TimeoutKey::TcpCloseWait, 12 * 3600),
        (TimeoutKey::TcpLastAck, 30),
        (TimeoutKey::TcpListen, 2 * 60),
    ];
    for (key, seconds) in well_known {
        assert_eq!(Settings::new(Profile::Classic).timeouts.get(key).as_secs(), seconds, "{key:?}");
    }
}

#[test]
fn a_timeout_set_before_a_flow_comes_is_the_flows() {
    for &key in TimeoutKey::ALL {
        dies_after(on_tuned(key, |dialogue| dialogue.set_timeout(key, 2)), 2);
    }
}

#[test]
fn a_lowered_timeout_cuts_the_flows_in_the_table() {
    for &key in TimeoutKey::ALL {
        let before = on(key).wait_secs(1);
        let left = before.flows()[0].timeout_secs;
        assert!(left >= 2, "{key:?}");
        // One tick of the loop is enough for one flow.
        let cut = before.set_timeout(key, 1).wait(Ticks(1));
        assert!(cut.flows().iter().all(|flow| flow.timeout_secs < left), "{key:?}: {:?}", cut.flows());
        assert_eq!(cut.wait(Ticks(PER_SECOND + 8)).flows(), [], "{key:?}");
    }
}

#[test]
fn a_lowered_timeout_leaves_what_is_already_shorter() {
    let flow =
        on(TimeoutKey::TcpEstablished).wait_secs(431_990).set_timeout(TimeoutKey::TcpEstablished, 3600);
    flow.wait_secs(1).expect("ESTABLISHED", 9);
}

#[test]
fn a_raised_timeout_acts_from_the_next_packet() {
    on(TimeoutKey::TcpEstablished)
        .wait_secs(10)
        .set_timeout(TimeoutKey::TcpEstablished, 500_000)
        .wait_secs(1)
        .expect("ESTABLISHED", 431_989)
        .client(seg(ACK))
        .expect("ESTABLISHED", 500_000);
}

#[test]
fn a_packet_moves_the_timeout() {
    let mut dialogue = on(TimeoutKey::TcpEstablished);
    for _ in 0..3 {
        dialogue = dialogue.wait_secs(400_000).client(seg(ACK)).expect("ESTABLISHED", 432_000);
    }
    dies_after(dialogue, 432_000);
}

#[test]
fn a_clock_that_jumps_a_hundred_days_finds_no_flow_alive() {
    for days in [6, 91, 100, 150, 198, 300, 10_000] {
        on(TimeoutKey::TcpEstablished).stall_days(days).client(seg(ACK)).expect("ESTABLISHED", 432_000);
        let jumped = on(TimeoutKey::TcpEstablished).stall_days(days).wait(Ticks(1));
        assert_eq!(jumped.flows(), [], "{days} days");
        assert!(jumped.tracker.is_empty(), "{days} days");
    }
}

#[test]
fn a_flow_is_over_at_its_tick_however_late_the_wheel_is() {
    use crate::event::{DestroyReason::Timeout, EventKind::*};
    let ask = udp((5000, 53), 4);
    let thirty = 30 * PER_SECOND;
    let alive = on(TimeoutKey::Udp).stall(Ticks(thirty - 1)).raw(Client, proto::UDP, &ask);
    assert_eq!(alive.kinds(), [New]);
    let over = on(TimeoutKey::Udp).stall(Ticks(thirty)).raw(Client, proto::UDP, &ask);
    assert_eq!(over.kinds(), [New, Destroy(Timeout), New]);
}

#[test]
fn a_gre_flow_in_the_table_learns_a_raised_timeout() {
    on(TimeoutKey::Gre)
        .set_timeout(TimeoutKey::Gre, 60)
        .wait(Ticks(1))
        .raw(Client, proto::GRE, &[0, 0, 8, 0])
        .expect("-", 60);
}

#[test]
fn udp_is_a_stream_after_two_seconds_and_not_at_them() {
    let (ask, answer) = (udp((5000, 53), 4), udp((53, 5000), 4));
    let two = Dialogue::linux()
        .raw(Client, proto::UDP, &ask)
        .raw(Server, proto::UDP, &answer)
        .wait_secs(2)
        .raw(Client, proto::UDP, &ask)
        .expect("-", 30);
    two.wait(Ticks(1)).raw(Client, proto::UDP, &ask).expect("-", 120).expect_status(true, true);
}
