//! Timeouts changed while traffic runs.

use std::io::{Read, Write};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::appliance::{INSIDE, OUTSIDE, Pair, at};
use crate::net::SOON;
use crate::stream::{self, Stop};

#[test]
fn a_timeout_moves_under_a_running_transfer_and_the_transfer_goes_on() {
    let pair = Pair::start("");
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let server = listener.local_addr().unwrap();
    let client = pair.inside.connect(server);
    let (served, _) = listener.accept().unwrap();
    served.set_write_timeout(Some(SOON)).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| stream::send_until(&served, 3, &over));
        let reader = scope.spawn(|| stream::receive_all(&client, 3));
        let stop = Stop(&over);
        // The documented name, the kernel's in seconds, the old kernel's in hundredths of a second.
        for (name, value, seconds) in [
            ("tcp.established", "2h", 7200),
            ("nf_conntrack_tcp_timeout_established", "3600", 3600),
            ("ip_ct_tcp_timeout_established", "300000", 3000),
        ] {
            let begun = Instant::now();
            pair.appliance.tell(&["timeout", "set", name, value]);
            let line = pair
                .appliance
                .await_line(name, |line| line.to_port(server.port()) && line.timeout <= seconds);
            assert!(line.has_left(seconds, begun), "lowered to {seconds}, not below: {}", line.text);
        }
        let bytes = |stats: &serde_json::Value| stats["rx_bytes"].as_u64().unwrap();
        let before = bytes(&pair.appliance.worker_stats());
        pair.appliance.await_stats("10 MB more", |stats| bytes(stats) > before + 10_000_000);
        drop(stop);
        let [sent, received] =
            [sender, reader].map(|end| end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        assert_eq!(received, sent, "bytes came, and those that were sent");
    });
    let listing = pair.appliance.tell(&["timeout", "list"]);
    let row = listing.lines().find(|line| line.contains("tcp.established")).expect("every timeout is listed");
    assert!(row.contains("3000") || row.contains("50m"), "{row}");
}

#[test]
fn a_lowered_timeout_ends_idle_flows_and_a_raised_one_waits_for_their_next_packet() {
    let pair = Pair::start("");
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let server = listener.local_addr().unwrap();
    let mut client = pair.inside.connect(server);
    let (mut served, _) = listener.accept().unwrap();
    let ours = |line: &crate::appliance::Line| line.to_port(server.port());
    pair.appliance.await_line("the connection", ours);

    pair.appliance.tell(&["timeout", "set", "tcp.established", "100s"]);
    pair.appliance.await_line("the lowered timeout", |line| ours(line) && line.timeout <= 100);
    pair.appliance.tell(&["timeout", "set", "tcp.established", "5d"]);
    let line = pair.appliance.await_line("the connection", ours);
    assert!(line.timeout <= 100, "raising acts from the next packet: {}", line.text);
    client.write_all(b"x").unwrap();
    served.read_exact(&mut [0]).unwrap();
    pair.appliance.await_line("the raised timeout", |line| ours(line) && line.timeout > 431_000);

    let lowered = Instant::now();
    pair.appliance.tell(&["timeout", "set", "tcp.established", "2"]);
    pair.appliance.await_gone("the end of the idle connection", ours);
    let lasted = lowered.elapsed();
    assert!(lasted.as_secs_f64() > 1.5, "2 s were set, and it lasted {lasted:?}");
}

#[test]
fn a_timeout_that_is_not_there_is_refused_with_the_nearest_name() {
    let pair = Pair::start("");
    let refused = pair.appliance.ask(&["timeout", "set", "tcp.establisehd", "5d"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("tcp.established"), "{told}");
}

#[test]
fn flush_empties_the_table_and_traffic_goes_on() {
    let pair = Pair::start("");
    let server = pair.outside.udp(&at(OUTSIDE, 0).to_string());
    let client = pair.inside.udp(&at(INSIDE, 0).to_string());
    let to = server.local_addr().unwrap();
    client.send_to(b"x", to).unwrap();
    server.recv_from(&mut [0; 4]).unwrap();
    pair.appliance.await_line("the flow", |line| line.to_port(to.port()));
    pair.appliance.tell(&["flush"]);
    assert!(pair.appliance.list().is_empty(), "{:?}", pair.appliance.list());
    std::thread::sleep(Duration::from_millis(100));
    client.send_to(b"x", to).unwrap();
    server.recv_from(&mut [0; 4]).unwrap();
    pair.appliance.await_line("the flow again", |line| line.to_port(to.port()));
}
