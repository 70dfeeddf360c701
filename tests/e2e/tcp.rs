//! TCP: what arrives, and the states that the table walks through while it does.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::appliance::{INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, Pair, at, tuple};
use crate::net::{Namespace, SOON};
use crate::stream;

const HUNDRED_MB: usize = 100_000_000;

/// Both directions one after the other, over one connection each.
fn transfer_both_ways(pair: &Pair, server: &str) {
    let listener = pair.outside.listen(&at(server, 0).to_string());
    let to = listener.local_addr().unwrap();
    for (seed, upload) in [(1, false), (2, true)] {
        let client = pair.inside.connect(to);
        let (served, _) = listener.accept().unwrap();
        served.set_read_timeout(Some(SOON)).unwrap();
        served.set_write_timeout(Some(SOON)).unwrap();
        let (sender, receiver) = if upload { (&client, &served) } else { (&served, &client) };
        std::thread::scope(|scope| {
            scope.spawn(|| stream::send(sender, seed, HUNDRED_MB));
            stream::receive(receiver, seed, HUNDRED_MB);
        });
    }
    // They went through the appliance and not around it.
    pair.appliance
        .await_stats("all the bytes", |stats| stats["rx_bytes"].as_u64() > Some(2 * HUNDRED_MB as u64));
}

#[test]
fn a_hundred_megabytes_arrive_intact_both_ways() {
    transfer_both_ways(&Pair::start(""), OUTSIDE);
}

#[test]
fn a_hundred_megabytes_arrive_intact_both_ways_over_ipv6() {
    transfer_both_ways(&Pair::start(""), OUTSIDE6);
}

/// Has a host wait a minute before it sends what was not acknowledged again, and send no probe for it. A FIN that comes twice
/// means LAST_ACK, and this machine may let the first one wait longer than the fifth of a second that the kernel waits.
fn send_once(host: &Namespace, interface: &str) {
    host.exec(&["sysctl", "-qw", "net.ipv4.tcp_early_retrans=0"]);
    let network = ["198.18.0.0/24", "dev", interface, "proto", "kernel", "scope", "link", "src", INSIDE];
    host.ip(&[&["route", "replace"][..], &network, &["rto_min", "60s"]].concat());
}

#[test]
fn a_connection_walks_through_the_documented_states() {
    let begun = Instant::now();
    let pair = Pair::start("");
    send_once(&pair.inside, &pair.inside_interface);
    let table = &pair.appliance;
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let server = listener.local_addr().unwrap();
    let port = server.port();

    // The server never sees the SYN.
    pair.outside.drop_incoming("tcp flags & (syn | ack) == syn");
    let mut client = pair.inside.begin_connect(server);
    let from = client.local_addr().unwrap();
    let line = table.await_line("SYN_SENT", |line| line.in_state(port, "SYN_SENT"));
    assert!(line.has_left(120, begun), "{}", line.text);
    assert_eq!(
        line.text,
        format!(
            "tcp      6 {} SYN_SENT {} [UNREPLIED] {} use=1",
            line.timeout,
            tuple(from, server),
            tuple(server, from)
        )
    );

    // The client never sees the SYN/ACK.
    pair.inside.drop_incoming("tcp flags & (syn | ack) == (syn | ack)");
    pair.outside.let_in();
    let line = table.await_line("SYN_RECV", |line| line.in_state(port, "SYN_RECV"));
    assert!(line.has_left(60, begun), "{}", line.text);
    assert_eq!(
        line.text,
        format!("tcp      6 {} SYN_RECV {} {} use=1", line.timeout, tuple(from, server), tuple(server, from))
    );

    pair.inside.let_in();
    let line = table.await_line("ESTABLISHED", |line| line.in_state(port, "ESTABLISHED"));
    assert!(line.has_left(432_000, begun), "{}", line.text);
    let (mut served, _) = listener.accept().unwrap();
    client.set_nonblocking(false).unwrap();
    client.write_all(b"x").unwrap();
    served.read_exact(&mut [0]).unwrap();
    let line = table.await_line("[ASSURED]", |line| line.to_port(port) && line.assured);
    assert_eq!(line.state, "ESTABLISHED");

    // Another connection's FIN, which the server never sees.
    pair.outside.drop_incoming("tcp flags & fin == fin");
    let closing = pair.inside.connect(server);
    closing.shutdown(Shutdown::Write).unwrap();
    let line = table.await_line("FIN_WAIT", |line| line.in_state(port, "FIN_WAIT"));
    assert!(line.has_left(120, begun), "{}", line.text);
    assert!(line.opened_from(closing.local_addr().unwrap().port()), "{}", line.text);

    pair.outside.let_in();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(served.read(&mut [0]).unwrap(), 0, "the FIN arrives");
    let line = table.await_line("CLOSE_WAIT", |line| line.in_state(port, "CLOSE_WAIT"));
    assert!(line.has_left(43_200, begun) && line.assured, "{}", line.text);
    assert!(line.opened_from(from.port()), "{}", line.text);

    // The client never sees the server's FIN.
    pair.inside.drop_incoming("tcp flags & fin == fin");
    drop(served);
    let line = table.await_line("LAST_ACK", |line| line.opened_from(from.port()) && line.state == "LAST_ACK");
    assert!(line.has_left(30, begun), "{}", line.text);

    // The server never sees the last ACK: with that it would forget the connection and reset it if its FIN was on the way
    // twice.
    pair.outside.drop_incoming("tcp flags & ack == ack");
    pair.inside.let_in();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the FIN arrives when it is sent again");
    let line =
        table.await_line("TIME_WAIT", |line| line.opened_from(from.port()) && line.state == "TIME_WAIT");
    assert!(line.has_left(120, begun) && line.assured, "{}", line.text);
}

#[test]
fn assured_comes_with_the_packet_after_the_handshake() {
    let pair = Pair::start("");
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let server = listener.local_addr().unwrap();
    let mut client = pair.inside.connect(server);
    let line = pair.appliance.await_line("ESTABLISHED", |line| line.in_state(server.port(), "ESTABLISHED"));
    assert!(!line.assured && !line.unreplied, "only the handshake was there: {}", line.text);
    client.write_all(b"x").unwrap();
    pair.appliance.await_line("[ASSURED]", |line| line.to_port(server.port()) && line.assured);
}

#[test]
fn the_linux_profile_assures_with_the_handshake() {
    let pair = Pair::start("profile = \"linux\"");
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let server = listener.local_addr().unwrap();
    let _client = pair.inside.connect(server);
    let line = pair.appliance.await_line("ESTABLISHED", |line| line.in_state(server.port(), "ESTABLISHED"));
    assert!(line.assured, "{}", line.text);
}

#[test]
fn a_reset_leads_to_close_and_disappears_after_its_timeout() {
    let pair = Pair::start("[timeouts]\ntcp.close = \"3s\"");
    let events = pair.events();
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let server = listener.local_addr().unwrap();
    let mut client = pair.inside.connect(server);
    let (mut served, _) = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    served.read_exact(&mut [0]).unwrap();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    let original = tuple(client.local_addr().unwrap(), server);
    let reset = Instant::now();
    drop(client);
    events.await_line(&["[UPDATE]", " 3 CLOSE ", &original]);
    let told = served.read(&mut [0]).unwrap_err();
    assert_eq!(told.kind(), std::io::ErrorKind::ConnectionReset, "the reset itself goes through");
    events.await_line(&["[DESTROY]", &original]);
    let lasted = reset.elapsed();
    assert!(lasted.as_secs_f64() > 2.5, "CLOSE was to last 3 s, and lasted {lasted:?}");
    pair.appliance.await_gone("the end of CLOSE", |line| line.to_port(server.port()));
}

#[test]
fn a_refused_connection_is_refused_by_the_server_itself() {
    let pair = Pair::start("");
    let refused =
        pair.inside.enter(|| std::net::TcpStream::connect_timeout(&at(OUTSIDE, 1), SOON)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn frames_pass_with_the_addresses_they_came_with() {
    let pair = Pair::start("");
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let _client = pair.inside.connect(listener.local_addr().unwrap());
    // Each host has learned the other's own address: ARP passed, and nobody in between put in theirs.
    let learned = |host: &Namespace, address| host.ip(&["neigh", "show", address]);
    let (far, near) = (pair.outside.mac(&pair.outside_interface), pair.inside.mac(&pair.inside_interface));
    assert!(learned(&pair.inside, OUTSIDE).contains(&far), "{} is not {far}", learned(&pair.inside, OUTSIDE));
    assert!(
        learned(&pair.outside, INSIDE).contains(&near),
        "{} is not {near}",
        learned(&pair.outside, INSIDE)
    );
    // Neighbour discovery does the same for IPv6.
    pair.inside.exec(&["ping", "-6", "-c", "1", "-W", "60", OUTSIDE6]);
    assert!(learned(&pair.outside, INSIDE6).contains(&near), "{}", learned(&pair.outside, INSIDE6));
}
