//! A flood of datagrams that never become whole, beside traffic that is meant.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::appliance::{INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, Pair, at};
use crate::mirror::mirror;
use crate::net::{Namespace, SOON, until};
use crate::stream::{self, Stop};

/// Well below what a tap and a test build of the appliance carry: what is lost shall be lost by the flood alone.
const BURST: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// What the flood is at least, and the datagrams that get through it.
const FLOOD: u64 = 15_000;
const QUESTIONS: u64 = 20;

/// First fragments of as many datagrams, from addresses that are nobody's, until `stop`; counts them in `sent`.
fn flood(host: &Namespace, stop: &AtomicBool, sent: &AtomicU64) {
    let socket = host.enter(|| {
        // The header comes with the data; the kernel fills its checksum in. raw(7)
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).expect("root may")
    });
    let to = SockAddr::from(SocketAddr::new(OUTSIDE.parse().unwrap(), 0));
    let mut number = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            number += 1;
            let mut packet = [0; 36];
            packet[..2].copy_from_slice(&[0x45, 0]);
            packet[2..4].copy_from_slice(&36_u16.to_be_bytes());
            packet[4..6].copy_from_slice(&(number as u16 | 1).to_be_bytes());
            packet[6..10].copy_from_slice(&[0x20, 0, 64, 17]);
            packet[12..16].copy_from_slice(&(0xc612_8000 | (number % 30_000)).to_be_bytes());
            packet[16..20].copy_from_slice(&[198, 18, 0, 2]);
            sent.fetch_add(u64::from(socket.send_to(&packet, &to).is_ok()), Ordering::Relaxed);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Frames that an interface sent to a queue without room.
fn dropped(host: &Namespace, interface: &str) -> u64 {
    let link: serde_json::Value =
        serde_json::from_str(&host.ip(&["-s", "-j", "link", "show", interface])).unwrap();
    link[0]["stats64"]["tx"]["dropped"].as_u64().expect("interfaces count what they drop")
}

#[test]
fn a_flood_of_fragments_is_held_within_its_budget_and_harms_no_traffic() {
    let pair = Pair::start("");
    for (host, interface) in
        [(&pair.inside, &pair.inside_interface), (&pair.outside, &pair.outside_interface)]
    {
        // For all that comes while the machine lets nobody read: a tap has room for 500 frames.
        host.ip(&["link", "set", interface, "txqueuelen", "100000"]);
    }
    let listener = pair.outside.listen(&at(OUTSIDE, 80).to_string());
    let client = pair.inside.connect(at(OUTSIDE, 80));
    let (server, _) = listener.accept().unwrap();
    let answering = pair.outside.udp(&at(OUTSIDE, 53).to_string());
    let asking = pair.inside.udp(&at(INSIDE, 0).to_string());
    let before = pair.appliance.resident_kib();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&pair.inside, &stop, &sent));
        let _stop = Stop(&stop);
        scope.spawn(|| stream::send(&client, 5, 10 << 20));
        stream::receive(&server, 5, 10 << 20);
        // Datagrams of three fragments each way, among the flood's: none of them is lost.
        let (mut questions, begun) = (0, Instant::now());
        while questions < QUESTIONS || sent.load(Ordering::Relaxed) < FLOOD {
            let (datagram, mut got) = ([questions as u8; 4000], [0; 4001]);
            asking.send_to(&datagram, at(OUTSIDE, 53)).unwrap();
            let (length, peer) = answering.recv_from(&mut got).expect("the question arrives");
            assert_eq!(got[..length], datagram);
            answering.send_to(&datagram, peer).unwrap();
            let length = asking.recv(&mut got).expect("the answer arrives");
            assert_eq!(got[..length], datagram);
            questions += 1;
            assert!(begun.elapsed() < SOON, "{sent:?} fragments in {SOON:?} are no flood");
            std::thread::sleep(10 * PAUSE);
        }
    });
    let arrived = sent.into_inner() - dropped(&pair.inside, &pair.inside_interface);
    assert!(arrived >= FLOOD / 2, "{arrived} fragments that arrived are no flood");
    // 1024 datagrams wait by default.
    let stats = pair
        .appliance
        .await_stats("the flood's end", |stats| stats["datagrams_evicted"].as_u64() >= Some(arrived - 1024));
    assert!(stats["held_frames"].as_u64() <= Some(4 * 1024 + 64), "{stats:#}");
    assert_eq!(stats["held_full"], 0, "{stats:#}");
    let grown = pair.appliance.resident_kib().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more than before the flood");
    let ports = pair.appliance.tell(&["ports"]);
    assert_eq!(ports.matches("RX-nombuf:  0").count(), 2, "{ports}");
}

#[test]
fn a_mirror_holds_no_frame_back() {
    let (appliance, host) = mirror(1);
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let stats = std::thread::scope(|scope| {
        scope.spawn(|| flood(&host, &stop, &sent));
        let _stop = Stop(&stop);
        appliance.await_stats("fragments", |stats| stats["fragments_held"].as_u64() > Some(500))
    });
    assert_eq!(stats["held_frames"], 0, "{stats:#}");
    // Whole ones are tracked all the same.
    let udp = host.udp(&at(INSIDE, 0).to_string());
    until("a datagram of three fragments", || {
        // Behind the flood the queue may have no room for it.
        udp.send_to(&[7; 4000], at(OUTSIDE, 53)).unwrap();
        let lines = appliance.list();
        if lines.iter().any(|line| line.to_port(53)) { Ok(()) } else { Err(format!("{lines:?}")) }
    });
    assert_eq!(appliance.worker_stats()["held_frames"], 0);
}

#[test]
fn workers_of_a_mirror_tell_each_other_of_datagrams_and_hold_none() {
    const DATAGRAMS: u16 = 40;
    // One has the queue, and the other half of the flows.
    let (appliance, host) = mirror(2);
    let sent = |to: &str| {
        for port in 1..=DATAGRAMS {
            host.udp(&at(if to == OUTSIDE { INSIDE } else { INSIDE6 }, 0).to_string())
                .send_to(&[7; 4000], at(to, 1000 + port))
                .unwrap();
        }
    };
    sent(OUTSIDE);
    sent(OUTSIDE6);
    until("every datagram's flow, and no other", || {
        let lines = appliance.list();
        let tracked = |address: &str| {
            let ours =
                |port| lines.iter().filter(|line| line.to_port(port) && line.text.contains(address)).count();
            (1001..=1000 + DATAGRAMS).map(ours).all(|found| found == 1)
        };
        if tracked(OUTSIDE) && tracked(OUTSIDE6) { Ok(()) } else { Err(format!("{lines:#?}")) }
    });
    let sum = |stats: &serde_json::Value, of: &str| {
        stats["workers"].as_array().unwrap().iter().map(|w| w[of].as_u64().unwrap()).sum::<u64>()
    };
    let datagrams = u64::from(2 * DATAGRAMS);
    let stats =
        appliance.await_all_stats("every datagram", |stats| sum(stats, "datagrams_completed") == datagrams);
    let sums = ["fragments_held", "fragments_again", "held_frames"].map(|of| sum(&stats, of));
    assert_eq!(sums, [2 * datagrams, 0, 0], "{stats:#}");
    assert!((10..datagrams - 10).contains(&sum(&stats, "handed_off")), "{stats:#}");
}
