//! A flood of datagrams that never become whole, beside traffic that is meant.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::appliance::{INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, Pair, at};
use crate::mirror::mirror;
use crate::net::Namespace;
use crate::stream;

/// Well below what a tap and a test build of the appliance carry: what is lost shall be lost by the flood alone.
const BURST: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Ends a flood, also where the test ends by a failure.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// First fragments of as many datagrams, from addresses that are nobody's, until `stop`; gives how many were sent.
fn flood(host: &Namespace, stop: &AtomicBool) -> u64 {
    let socket = host.enter(|| {
        // The header comes with the data; the kernel fills its checksum in. raw(7)
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).expect("root may")
    });
    let to = SockAddr::from(SocketAddr::new(OUTSIDE.parse().unwrap(), 0));
    let mut number = 0_u32;
    let mut sent = 0;
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
            sent += u64::from(socket.send_to(&packet, &to).is_ok());
        }
        std::thread::sleep(PAUSE);
    }
    sent
}

#[test]
fn a_flood_of_fragments_is_held_within_its_budget_and_harms_no_traffic() {
    let pair = Pair::start("");
    pair.inside.exec(&["ping", "-q", "-c", "2", "-i", "0.2", "-W", "5", OUTSIDE]);
    let listener = pair.outside.listen(&at(OUTSIDE, 80).to_string());
    let client = pair.inside.connect(at(OUTSIDE, 80));
    let (server, _) = listener.accept().unwrap();
    let before = pair.appliance.resident_kib();
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sent = scope.spawn(|| flood(&pair.inside, &stop));
        let stopped = Stop(&stop);
        scope.spawn(|| stream::send(&client, 5, 10 << 20));
        stream::receive(&server, 5, 10 << 20);
        // Datagrams of three fragments each way, among the flood's.
        let said =
            pair.inside.exec(&["ping", "-q", "-c", "20", "-i", "0.1", "-W", "2", "-s", "4000", OUTSIDE]);
        // A device's queue may overflow while a busy machine lets nobody read it. Had the flood all the room, none would come.
        let received = |number: usize| said.contains(&format!(" {number} received,"));
        assert!((15..=20).any(received), "{said}");
        drop(stopped);
        sent.join().unwrap()
    });
    // 1024 datagrams wait by default, and what they are made of.
    let stats = pair.appliance.await_stats("the flood's end", |stats| {
        stats["datagrams_evicted"].as_u64() > Some(sent - sent / 10 - 1024)
    });
    assert!(sent > 5_000, "{sent}");
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
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&host, &stop));
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
    });
    let stats = appliance.await_stats("fragments", |stats| stats["fragments_held"].as_u64() > Some(500));
    assert_eq!(stats["held_frames"], 0, "{stats:#}");
    // Whole ones are tracked all the same.
    let udp = host.udp(&at(INSIDE, 0).to_string());
    udp.send_to(&[7; 4000], at(OUTSIDE, 53)).unwrap();
    appliance.await_line("a datagram of three fragments", |line| line.to_port(53));
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
    appliance.await_line("the last datagram", |line| {
        line.to_port(1000 + DATAGRAMS) && line.text.contains(OUTSIDE6)
    });
    let tracked = |address: &str| {
        let lines = appliance.list();
        let ours =
            |port| lines.iter().filter(|line| line.to_port(port) && line.text.contains(address)).count();
        (1001..=1000 + DATAGRAMS).map(ours).all(|found| found == 1)
    };
    assert!(tracked(OUTSIDE) && tracked(OUTSIDE6), "{:#?}", appliance.list());
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
