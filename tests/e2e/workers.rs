//! Several workers: both directions of a flow meet in one table, whatever queue a packet comes by, and nothing is lost
//! or reordered on the way from one worker to another.

use std::collections::HashSet;

use serde_json::Value;

use crate::appliance::{INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, Pair, at};
use crate::stream;

/// Connections and conversations of each kind.
const FLOWS: usize = 100;

/// All flows are listed at the end: none of them ends by itself before. A FIN that comes twice, because a worker had to wait,
/// may come to a host that has forgotten its connection and resets it.
const LASTING: &str = r#"
[timeouts]
tcp.time_wait = "1h"
tcp.last_ack = "1h"
tcp.close = "1h"
udp.stream = "1h"
"#;

/// Sum of a number over the workers.
fn sum(stats: &Value, of: impl Fn(&Value) -> &Value) -> u64 {
    stats["workers"].as_array().unwrap().iter().map(|worker| of(worker).as_u64().unwrap()).sum()
}

/// TCP, small and fragmented UDP, and echo in three fragments, over both families.
fn converse(pair: &Pair) {
    for (near, far) in [(INSIDE, OUTSIDE), (INSIDE6, OUTSIDE6)] {
        let listener = pair.outside.listen(&at(far, 0).to_string());
        let to = listener.local_addr().unwrap();
        for number in 0..FLOWS {
            let client = pair.inside.connect(to);
            let (server, _) = listener.accept().unwrap();
            let seed = number as u64;
            std::thread::scope(|scope| {
                scope.spawn(|| stream::send(&client, seed, 3000));
                stream::receive(&server, seed, 3000);
            });
        }
        let server = pair.outside.udp(&at(far, 0).to_string());
        let to = server.local_addr().unwrap();
        // Kept open, so that none gets the port of another.
        let mut clients = Vec::new();
        for number in 0..FLOWS {
            // Every other one is six fragments.
            let datagram = vec![number as u8; if number % 2 == 0 { 64 } else { 8000 }];
            let client = pair.inside.udp(&at(near, 0).to_string());
            let mut room = [0; 9000];
            for _ in 0..2 {
                client.send_to(&datagram, to).unwrap();
                let (length, peer) = server.recv_from(&mut room).unwrap();
                assert_eq!((&room[..length], peer), (&datagram[..], client.local_addr().unwrap()));
                server.send_to(&datagram, peer).unwrap();
                assert_eq!(client.recv(&mut room).unwrap(), datagram.len());
            }
            clients.push(client);
        }
        pair.inside.exec(&["ping", "-q", "-c", "5", "-i", "0.05", "-W", "60", "-s", "3000", far]);
    }
}

#[test]
fn both_directions_meet_in_one_entry_with_a_queue_for_each_worker_and_with_one_for_all() {
    for port in ["", "queues = 1"] {
        let pair = Pair::start_with(&format!("workers = 2\n{LASTING}"), port, "");
        converse(&pair);
        let listing = pair.appliance.tell(&["list", "-o", "json"]);
        let flows: Vec<Value> = serde_json::from_str(&listing).unwrap();
        let ours = |flow: &&Value| matches!(flow["proto_name"].as_str(), Some("tcp" | "udp" | "icmp"));
        let mut seen = HashSet::new();
        let (mut tcp, mut udp) = (0, 0);
        for flow in flows.iter().filter(ours).filter(|flow| flow["original"]["dport"] != 5353) {
            let ends: Vec<String> = ["src", "dst", "sport", "dport"]
                .iter()
                .map(|end| flow["original"][end].to_string())
                .collect();
            let mut direction_free = [ends[0].clone() + &ends[2], ends[1].clone() + &ends[3]];
            direction_free.sort();
            assert!(seen.insert((flow["proto"].to_string(), direction_free)), "twice: {flow}");
            for way in ["original", "reply"] {
                assert!(flow[way]["packets"].as_u64() > Some(0), "one-sided: {flow}");
            }
            match flow["proto_name"].as_str() {
                Some("tcp") => tcp += u32::from(flow["assured"] == true),
                Some("udp") => udp += u32::from(flow["assured"] == true),
                _ => {}
            }
        }
        assert_eq!((tcp, udp), (2 * FLOWS as u32, 2 * FLOWS as u32), "assured, with {port:?}");

        let stats = pair.appliance.await_all_stats("half of the flows at each worker", |stats| {
            let mut workers = stats["workers"].as_array().unwrap().iter();
            workers.all(|worker| worker["entries"].as_u64() > Some(FLOWS as u64))
        });
        assert!(sum(&stats, |worker| &worker["handed_off"]) > 0, "{stats:#}");
        assert_eq!(sum(&stats, |worker| &worker["dropped"]["hand_off_full"]), 0, "{stats:#}");
        for reason in ["tcp_seq_over_max_end", "tcp_ack_over_end", "icmp_no_request"] {
            assert_eq!(sum(&stats, |worker| &worker["invalid"][reason]), 0, "{stats:#}");
        }
        let text = pair.appliance.tell(&["stats"]);
        assert!(text.contains("hand-off   off="), "{text}");
    }
}

#[test]
fn a_transfer_arrives_intact_when_every_packet_is_handed_to_another_worker_and_back() {
    const LENGTH: usize = 100_000_000;
    // The first two hold the ports' queues and own no flow; the third owns all and has no queue.
    let pair = Pair::start_with("workers = 3", "queues = 1", "shares = [0, 0, 1]");
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let client = pair.inside.connect(listener.local_addr().unwrap());
    let (server, _) = listener.accept().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| stream::send(&client, 1, LENGTH));
        stream::receive(&server, 1, LENGTH);
    });
    let stats = pair.appliance.await_all_stats("the whole transfer", |stats| {
        sum(stats, |worker| &worker["rx_bytes"]) > LENGTH as u64
    });
    let untracked = sum(&stats, |worker| &worker["packets"]["untracked"]);
    let received = sum(&stats, |worker| &worker["rx_packets"]);
    assert!(received > 10_000, "{stats:#}");
    // A machine that does other things may let a worker wait so long that a ring fills; TCP sends that again.
    let lost = |worker: usize| stats["workers"][worker]["dropped"]["hand_off_full"].as_u64().unwrap();
    let handed = sum(&stats, |worker| &worker["handed_off"]) + lost(0) + lost(1);
    assert_eq!(handed, received - untracked, "{stats:#}");
    assert_eq!(
        (&stats["workers"][2]["rx_packets"], &stats["workers"][2]["tx_packets"]),
        (&0.into(), &0.into())
    );
    assert!(stats["workers"][2]["sent_through"].as_u64() > Some(10_000), "{stats:#}");
    let dropped = sum(&stats, |worker| &worker["dropped"]["hand_off_full"]);
    assert!(dropped * 4 < received, "{dropped} of {received} found a full ring");
}
