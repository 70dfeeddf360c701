//! The policy: what comes from outside unasked ends at the appliance and leaves no trace in the table.

use std::io::{Read, Write};

use crate::appliance::{INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, Pair, at};

/// Everything from outside that a host could take for the start of something.
const ARRIVALS: &str = "meta l4proto { tcp, udp, icmp }";

#[test]
fn nothing_unasked_comes_in_and_it_leaves_no_entry() {
    let pair = Pair::start("");
    // A server that would answer, so that only the appliance can be the reason for silence.
    let listener = pair.inside.listen("[::]:0");
    let port = listener.local_addr().unwrap().port();
    pair.inside.count_incoming(ARRIVALS);

    let _tcp = pair.outside.begin_connect(at(INSIDE, port));
    let _tcp6 = pair.outside.begin_connect(at(INSIDE6, port));
    let udp = pair.outside.udp(&at(OUTSIDE, 0).to_string());
    udp.send_to(b"x", at(INSIDE, port)).unwrap();
    let ping = pair.outside.enter(|| {
        std::process::Command::new("ping")
            .args(["-q", "-c", "2", "-i", "0.2", "-W", "1", INSIDE])
            .output()
            .unwrap()
    });
    assert!(!ping.status.success(), "an answer came: {}", String::from_utf8_lossy(&ping.stdout));
    // The SYN is sent again after 1 s: the second one fares like the first.
    pair.appliance.await_stats("two SYNs of each family, one datagram and two echo requests", |stats| {
        stats["dropped"]["policy_new"].as_u64() >= Some(7)
    });
    assert_eq!(pair.inside.counted(), 0, "packets reached the inside");
    assert!(pair.appliance.list().is_empty(), "{:?}", pair.appliance.list());
    // The hosts did find each other: it was not the wire that was broken.
    assert!(pair.outside.ip(&["neigh", "show", INSIDE]).contains("lladdr"));

    // The same server is reached once its own side has begun to talk.
    let outer = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let mut client = pair.inside.connect(outer.local_addr().unwrap());
    let (mut served, _) = outer.accept().unwrap();
    served.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    assert!(pair.inside.counted() > 0, "the counter counts");
}

#[test]
fn rows_decide_in_their_order() {
    // The shipped policy turned around: the outside may open connections and the inside may not.
    let pair = Pair::start(
        r#"
policy_default = "drop"
[[policy]]
from = "inside"
state = ["new"]
action = "drop"
[[policy]]
from = "any"
state = ["new", "established", "related", "untracked"]
action = "accept"
"#,
    );
    let listener = pair.inside.listen(&at(INSIDE, 0).to_string());
    let mut client = pair.outside.connect(listener.local_addr().unwrap());
    let (mut served, _) = listener.accept().unwrap();
    served.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();

    pair.outside.count_incoming("meta l4proto udp");
    let udp = pair.inside.udp(&at(INSIDE, 0).to_string());
    udp.send_to(b"x", at(OUTSIDE, 9)).unwrap();
    pair.appliance.await_stats("a datagram that was dropped", |stats| {
        stats["dropped"]["policy_new"].as_u64() > Some(0)
    });
    assert_eq!(pair.outside.counted(), 0, "the first row drops what the second would accept");
}

#[test]
fn errors_about_a_flow_are_related_and_come_in() {
    let pair = Pair::start("");
    for (from, to) in [(INSIDE, OUTSIDE), (INSIDE6, OUTSIDE6)] {
        let udp = pair.inside.udp(&at(from, 0).to_string());
        udp.connect(at(to, 9)).unwrap();
        udp.send(b"x").unwrap();
        // Port unreachable: the kernel turns the ICMP error into this one on the connected socket.
        let told = udp.recv(&mut [0]).unwrap_err();
        assert_eq!(told.kind(), std::io::ErrorKind::ConnectionRefused, "{to}: {told}");
    }
    pair.appliance.await_stats("both errors", |stats| stats["packets"]["related"].as_u64() >= Some(2));
}
