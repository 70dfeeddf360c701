//! Single packets told: a connection followed through every stage on several workers, and what was dropped and why.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::appliance::{INSIDE, OUTSIDE, Pair, at};
use crate::net::until;

#[test]
fn a_connection_is_followed_through_every_stage_on_both_workers() {
    // One queue, so that half of all flows are another worker's than the one that receives their packets.
    let pair = Pair::start_with("workers = 2", "queues = 1", "");
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let to = listener.local_addr().unwrap();
    let port = to.port().to_string();
    let trace = pair.appliance.trace(&["--dport", &port, "--for", "10m"]);
    let mut stories = String::new();
    let words = [
        "entry    none: a new one is made",
        "step     new, original direction, SYN_SENT",
        "step     established, reply direction, SYN_SENT -> SYN_RECV",
        "step     established, original direction, SYN_RECV -> ESTABLISHED",
        " flags=FIN,ACK ",
        "lan (inside), tcp",
        "wan (outside), tcp",
        "verdict  forward, by row 2 of the policy",
        // A flow of the worker that receives, and one that is handed over.
        "another handed it over",
        "to which worker",
    ];
    until("all of a connection's story", || {
        let mut client = pair.inside.connect(to);
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        drop(server);
        client.read_to_end(&mut Vec::new()).unwrap();
        stories += &trace.read_for(Duration::from_millis(300));
        let missing = words.iter().find(|words| !stories.contains(**words));
        if missing.is_none() && stories.matches("SYN_RECV -> ESTABLISHED").count() >= 2 {
            return Ok(());
        }
        Err(format!("no {missing:?}, or one connection alone, in\n{stories}"))
    });
    let other = pair.appliance.ask(&["trace", "--for", "1s"]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(1), "{said}");
    assert!(said.contains("somebody else follows packets"), "{said}");
    // With its client it ends: then another may follow, and what passes meanwhile is told to nobody.
    drop(trace);
    until("the end of a trace without its client", || {
        let next = pair.appliance.ask(&["trace", "--for", "1s", "-s", "192.0.2.77"]);
        if next.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&next.stderr).into_owned()) }
    });
}

#[test]
fn what_the_policy_refuses_and_what_is_invalid_is_told_with_the_reason() {
    let pair = Pair::start("");
    // Nobody reads while it happens: the records are kept.
    let stranger = pair.outside.udp(&at(OUTSIDE, 0).to_string());
    stranger.send_to(b"knock", at(INSIDE, 4444)).unwrap();
    let words = ["events", "--dropped", "--past", "--for", "300ms", "-p", "udp", "--dport", "4444"];
    let line = until("the record", || {
        pair.appliance.tell(&words).lines().next().map(str::to_owned).ok_or_else(String::new)
    });
    let sport = stranger.local_addr().unwrap().port();
    for part in [
        "[DROP] udp      17 ",
        &format!("src={OUTSIDE} dst={INSIDE} sport={sport} dport=4444 bytes=33"),
        " drop=policy_new policy=end zone=0 port=wan worker=0",
    ] {
        assert!(line.contains(part), "no `{part}` in {line}");
    }

    // As it happens, as JSON, and no more than asked for.
    let follow = pair.appliance.follow(&["events", "--dropped", "-o", "jsonl", "--count", "1", "-d", INSIDE]);
    let json = until("a record while it is followed", || {
        stranger.send_to(b"again", at(INSIDE, 4445)).unwrap();
        follow.read_for(Duration::from_millis(100)).lines().next().map(str::to_owned).ok_or_else(String::new)
    });
    let told: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(told["verdict"]["reason"], "policy_new", "{json}");
    assert_eq!((&told["class"], &told["port"]), (&"new".into(), &"wan".into()), "{json}");
}
