//! A full table, by each of its three answers.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::time::Duration;

use crate::appliance::{INSIDE, OUTSIDE, Pair, at};
use crate::net::until;

const ENTRIES: u64 = 64;
const SENT: u64 = 100;

fn start(on_full: &str) -> Pair {
    // Nothing in it ends by itself while a test runs.
    let timeouts = "[timeouts]\nudp.unreplied = \"1h\"";
    Pair::start(&format!("[table]\nmax_entries = {ENTRIES}\non_full = \"{on_full}\"\n{timeouts}"))
}

/// One datagram from each of so many new sockets. The sockets stay open, so that each has a port of its own.
fn datagrams(pair: &Pair, number: u64) -> Vec<UdpSocket> {
    (0..number)
        .map(|_| {
            let socket = pair.inside.udp(&at(INSIDE, 0).to_string());
            socket.send_to(b"x", at(OUTSIDE, 9999)).unwrap();
            socket
        })
        .collect()
}

/// Sends more flows than the table has room for; the counter at `path` tells of those without. So many of the datagrams must
/// come out at the other side and no more, and the table be full.
fn overfill(pair: &Pair, path: &str, arrived: u64) {
    // Nobody may answer: unreachable errors are no part of this.
    pair.outside.count_incoming("udp dport 9999");
    pair.outside.drop_incoming("udp dport 9999");
    // ARP first, or the kernel keeps only the last few of the datagrams while it asks.
    pair.inside.exec(&["ping", "-q", "-c", "1", "-W", "60", OUTSIDE]);
    pair.appliance.tell(&["flush"]);
    let _sockets = datagrams(pair, SENT);
    // All of them have been judged then.
    await_counter(pair, path, SENT - ENTRIES);
    let numbers = || {
        let entries = pair.appliance.tell(&["count"]).trim().parse().expect("count prints a number");
        (pair.outside.counted(), entries)
    };
    let expected = (arrived, ENTRIES);
    until(&format!("{expected:?} datagrams and entries"), || {
        let found = numbers();
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    });
    // And no more came after that.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(numbers(), expected, "datagrams and entries");
}

/// Waits until the counter at `path` has this value.
fn await_counter(pair: &Pair, path: &str, value: u64) {
    pair.appliance
        .await_stats(path, |stats| stats.pointer(path).and_then(serde_json::Value::as_u64) == Some(value));
}

#[test]
fn early_drop_makes_room_for_new_flows() {
    let pair = start("early_drop");
    // Every new flow finds room.
    overfill(&pair, "/destroyed/early_drop", SENT);
    await_counter(&pair, "/dropped/table_full", 0);
}

#[test]
fn drop_new_refuses_new_flows() {
    let pair = start("drop_new");
    // Only those with an entry go through.
    overfill(&pair, "/dropped/table_full", ENTRIES);
    await_counter(&pair, "/destroyed/early_drop", 0);
}

#[test]
fn pass_untracked_lets_them_through_without_an_entry() {
    let pair = start("pass_untracked");
    overfill(&pair, "/full_untracked", SENT);
}

#[test]
fn assured_flows_survive_a_flood() {
    let pair = start("early_drop");
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let server = listener.local_addr().unwrap();
    let mut client = pair.inside.connect(server);
    let (mut served, _) = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    served.read_exact(&mut [0]).unwrap();
    pair.appliance.await_line("[ASSURED]", |line| line.to_port(server.port()) && line.assured);

    pair.outside.drop_incoming("udp dport 9999");
    let _sockets = datagrams(&pair, 3 * ENTRIES);
    // One for each of them that found the table full, all but the connection's.
    await_counter(&pair, "/destroyed/early_drop", 2 * ENTRIES + 1);
    pair.appliance
        .await_line("the connection, still there", |line| line.to_port(server.port()) && line.assured);
    served.write_all(b"y").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_filling_table_warns_at_80_90_and_95_percent() {
    let pair = start("drop_new");
    pair.outside.drop_incoming("udp dport 9999");
    pair.inside.exec(&["ping", "-q", "-c", "1", "-W", "60", OUTSIDE]);
    pair.appliance.tell(&["flush"]);
    let mut sockets = Vec::new();
    let mut told = 0;
    for (entries, mark) in [(52, "80 %"), (58, "90 %"), (61, "95 %")] {
        sockets.extend(datagrams(&pair, entries - sockets.len() as u64));
        until(&format!("a warning of {mark} at {entries} of {ENTRIES}"), || {
            let log = pair.appliance.log();
            if log[told..].contains(mark) { Ok(()) } else { Err(log) }
        });
        told = pair.appliance.log().len();
    }
}
