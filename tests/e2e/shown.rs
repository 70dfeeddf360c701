//! What operators look at: events, metrics, the control socket, and how it ends.

use std::io::{Read, Write};

use crate::appliance::{OUTSIDE, Pair, at, tuple};
use crate::net::until;

#[test]
fn events_follow_a_connection_as_it_happens() {
    let pair = Pair::start("");
    let events = pair.events();
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let server = listener.local_addr().unwrap();
    let mut client = pair.inside.connect(server);
    let (mut served, _) = listener.accept().unwrap();
    let original = tuple(client.local_addr().unwrap(), server);
    events.await_line(&["[NEW]", "SYN_SENT", &original, "[UNREPLIED]"]);
    events.await_line(&["[UPDATE]", "SYN_RECV", &original]);
    events.await_line(&["[UPDATE]", "ESTABLISHED", &original]);
    client.write_all(b"x").unwrap();
    served.read_exact(&mut [0]).unwrap();
    events.await_line(&["[UPDATE]", "[ASSURED]", &original]);
    pair.appliance.tell(&["timeout", "set", "tcp.established", "1"]);
    events.await_line(&["[DESTROY]", &original]);
}

#[test]
fn prometheus_reads_the_entries_and_the_packets() {
    let pair = Pair::start("");
    pair.inside.exec(&["ping", "-q", "-c", "2", "-i", "0.2", "-W", "60", OUTSIDE]);
    pair.appliance.await_line("the echo flow", |line| line.proto == "icmp");
    // The workers copy their counters out now and then.
    until("the echo flow's numbers", || {
        let metrics = pair.appliance.http("/metrics");
        let value = |name: &str| -> f64 {
            let lines = metrics.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        let all = value("conntrack_entries{") >= 1.0
            && value("conntrack_packets_total{") >= 4.0
            && value("conntrack_entries_limit") > 0.0;
        if all { Ok(()) } else { Err(metrics) }
    });
}

#[test]
fn sigterm_ends_it_cleanly_and_leaves_nothing() {
    let mut pair = Pair::start("");
    let status = pair.appliance.terminate();
    assert!(status.success(), "{status}: {}", pair.appliance.log());
    assert!(!pair.appliance.socket_exists(), "the control socket is left");
    let links = pair.inside.ip(&["-o", "link"]);
    assert!(!links.contains(&pair.inside_interface), "the tap device is left: {links}");
}

#[test]
fn a_client_without_a_daemon_says_how_to_start_one() {
    let asked = std::process::Command::new(crate::appliance::PROGRAM)
        .args(["list", "--socket", "/nonexistent/control.sock"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert_eq!(asked.status.code(), Some(3), "{told}");
    assert!(told.contains("/nonexistent/control.sock") && told.contains("run"), "{told}");
}
