//! UDP, ICMP echo and fragments, over IPv4 and IPv6.

use std::time::Instant;

use crate::appliance::{INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, Pair, at, tuple};

#[test]
fn a_udp_answer_takes_the_unreplied_mark_away_and_further_traffic_assures() {
    let pair = Pair::start("");
    for (near, far) in [(INSIDE, OUTSIDE), (INSIDE6, OUTSIDE6)] {
        let server = pair.outside.udp(&at(far, 0).to_string());
        let client = pair.inside.udp(&at(near, 0).to_string());
        let (from, to) = (client.local_addr().unwrap(), server.local_addr().unwrap());
        let begun = Instant::now();
        client.send_to(b"question", to).unwrap();
        let (_, peer) = server.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(peer, from);
        let line = pair.appliance.await_line("the first datagram", |line| line.to_port(to.port()));
        assert_eq!(
            line.text,
            format!("udp      17 {} {} [UNREPLIED] {} use=1", line.timeout, tuple(from, to), tuple(to, from))
        );
        assert!(line.has_left(30, begun), "{}", line.text);

        server.send_to(b"answer", peer).unwrap();
        client.recv_from(&mut [0; 16]).unwrap();
        let line = pair.appliance.await_line("the answer", |line| line.to_port(to.port()) && !line.unreplied);
        assert!(!line.assured, "{}", line.text);

        client.send_to(b"more", to).unwrap();
        let line = pair.appliance.await_line("[ASSURED]", |line| line.to_port(to.port()) && line.assured);
        assert!(line.has_left(180, begun), "{}", line.text);
    }
}

#[test]
fn echo_requests_are_answered_and_listed() {
    let pair = Pair::start("");
    for (number, proto, near, far, request, reply) in
        [(1, "icmp", INSIDE, OUTSIDE, 8, 0), (58, "icmpv6", INSIDE6, OUTSIDE6, 128, 129)]
    {
        pair.inside.exec(&["ping", "-q", "-c", "3", "-i", "0.2", "-W", "60", far]);
        let line = pair.appliance.await_line("the echo flow", |line| line.proto == proto);
        let id = line.text.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id");
        assert_eq!(
            line.text,
            format!(
                "{proto:<8} {number} {} src={near} dst={far} type={request} code=0 id={id} \
                 src={far} dst={near} type={reply} code=0 id={id} use=1",
                line.timeout
            )
        );
    }
}

#[test]
fn fragments_arrive_and_belong_to_their_flow() {
    let pair = Pair::start("");
    for (far, proto) in [(OUTSIDE, "icmp"), (OUTSIDE6, "icmpv6")] {
        // 4,000 bytes are three fragments each way.
        pair.inside.exec(&["ping", "-q", "-c", "3", "-i", "0.2", "-W", "60", "-s", "4000", far]);
        let line = pair.appliance.await_line("the echo flow", |line| line.proto == proto);
        assert!(!line.unreplied, "{}", line.text);
    }
    assert_eq!(pair.appliance.list().len(), 2, "no fragment has made a flow of its own");
}
