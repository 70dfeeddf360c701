//! VLANs: hosts with equal addresses behind one pair of ports, told apart by their tags alone.

use crate::appliance::{INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, Pair, at, bring_up};
use crate::net::{Namespace, unique, until};
use crate::stream;
use crate::trunk::{Host, Trunk};

/// All flows are listed at the end: none of them ends by itself before.
const LASTING: &str = "[timeouts]\nudp.unreplied = \"1h\"\nudp.stream = \"1h\"\n";

/// The hosts of several VLANs on both sides of the appliance.
struct Vlans {
    pair: Pair,
    sides: Vec<[Host; 2]>,
    _trunks: [Trunk; 2],
}

impl Vlans {
    /// One host inside and one outside for each of `tags` (outer first), all with the same addresses.
    fn start(more: &str, tags: &[&[u16]]) -> Self {
        Self::joined_by(Pair::start(&format!("{more}\n{LASTING}")), tags)
    }

    fn joined_by(pair: Pair, tags: &[&[u16]]) -> Self {
        // The trunks' own addresses would answer for the untagged hosts.
        for (space, interface) in
            [(&pair.inside, &pair.inside_interface), (&pair.outside, &pair.outside_interface)]
        {
            space.ip(&["addr", "flush", "dev", interface]);
        }
        let host = |tags: &[u16], v4: &str, v6: &str| {
            let name = unique();
            // What a trunk of 1500 bytes leaves a second tag.
            let host = Host::new(name.clone(), tags, if tags.len() > 1 { 1496 } else { 1500 });
            bring_up(&host.space, &name, v4, v6);
            host
        };
        let sides: Vec<[Host; 2]> =
            tags.iter().map(|tags| [host(tags, INSIDE, INSIDE6), host(tags, OUTSIDE, OUTSIDE6)]).collect();
        let trunk = |space: &Namespace, interface: &str, side: usize| {
            Trunk::start(space, interface, &sides.iter().map(|hosts| &hosts[side]).collect::<Vec<_>>())
        };
        let trunks = [
            trunk(&pair.inside, &pair.inside_interface, 0),
            trunk(&pair.outside, &pair.outside_interface, 1),
        ];
        Self { pair, sides, _trunks: trunks }
    }

    fn inside(&self, vlan: usize) -> &Namespace {
        &self.sides[vlan][0].space
    }

    fn outside(&self, vlan: usize) -> &Namespace {
        &self.sides[vlan][1].space
    }

    fn ask(&self, vlan: usize, answer: &[u8]) {
        ask(self.inside(vlan), self.outside(vlan), answer);
    }
}

/// A question from port 1000 to port 53 and its answer, which names its VLAN.
fn ask(inside: &Namespace, outside: &Namespace, answer: &[u8]) {
    for (near, far) in [(INSIDE, OUTSIDE), (INSIDE6, OUTSIDE6)] {
        let server = outside.udp(&at(far, 53).to_string());
        let client = inside.udp(&at(near, 1000).to_string());
        client.send_to(b"question", at(far, 53)).unwrap();
        let (_, peer) = server.recv_from(&mut [0; 16]).unwrap();
        server.send_to(answer, peer).unwrap();
        let mut got = [0; 16];
        let (length, _) = client.recv_from(&mut got).unwrap();
        assert_eq!(&got[..length], answer, "the answer is another VLAN's");
    }
}

fn zone(text: &str) -> Option<u16> {
    text.split_whitespace().find_map(|word| word.strip_prefix("zone=")).map(|zone| zone.parse().unwrap())
}

/// The zones of the flows to port 53 over IPv4, in order; each must have been answered.
fn zones(pair: &Pair) -> Vec<u16> {
    let lines = pair.appliance.list();
    let dns = lines.iter().filter(|line| line.to_port(53) && line.text.contains(INSIDE));
    let mut zones: Vec<u16> = dns
        .map(|line| {
            assert!(!line.unreplied, "{}", line.text);
            zone(&line.text).unwrap_or(0)
        })
        .collect();
    zones.sort_unstable();
    zones
}

#[test]
fn equal_tuples_in_two_vlans_are_two_flows_in_two_zones() {
    let vlans = Vlans::start("", &[&[10], &[20], &[]]);
    vlans.ask(0, b"red");
    vlans.ask(1, b"blue");
    vlans.ask(2, b"plain");
    assert_eq!(zones(&vlans.pair), [0, 10, 20]);

    // TCP, with full segments behind a tag.
    let listener = vlans.outside(1).listen(&at(OUTSIDE, 80).to_string());
    let client = vlans.inside(1).connect(at(OUTSIDE, 80));
    let (server, _) = listener.accept().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| stream::send(&client, 1, 4 << 20));
        stream::receive(&server, 1, 4 << 20);
    });
    let line = vlans.pair.appliance.await_line("the connection", |line| line.to_port(80));
    assert!(line.assured && zone(&line.text) == Some(20), "{}", line.text);

    let limits = vlans.pair.appliance.tell(&["limits"]);
    assert!(limits.lines().any(|line| line.starts_with("zone=10,limit=0,count=")), "{limits}");
}

#[test]
fn two_tags_make_zones_of_their_own() {
    let vlans = Vlans::start("", &[&[100, 7], &[100, 8], &[200, 7]]);
    for vlan in 0..3 {
        vlans.ask(vlan, b"inner");
    }
    let zones = zones(&vlans.pair);
    assert!(zones.len() == 3 && zones[0] >= 4096, "{zones:?}");
    assert!(zones.windows(2).all(|pair| pair[0] < pair[1]), "two of them share a zone: {zones:?}");
    let limits = vlans.pair.appliance.tell(&["limits"]);
    for tags in ["100.7", "100.8", "200.7"] {
        assert!(limits.contains(&format!(" vlan={tags}")), "{tags} is not in\n{limits}");
    }
    // Datagrams of many fragments, each behind both tags.
    vlans.inside(1).exec(&["ping", "-q", "-c", "2", "-i", "0.2", "-W", "60", "-s", "8000", OUTSIDE]);
}

#[test]
fn two_workers_agree_on_the_zones_of_two_tags() {
    // One queue for both: what is not the first worker's is handed over, tags and all.
    let pair = Pair::start_with(&format!("workers = 2\n{LASTING}"), "queues = 1", "");
    let vlans = Vlans::joined_by(pair, &[&[100, 7], &[100, 8], &[]]);
    for vlan in 0..3 {
        vlans.inside(vlan).exec(&["ping", "-q", "-c", "2", "-i", "0.2", "-W", "60", "-s", "8000", OUTSIDE]);
        for port in 1000..1016 {
            let server = vlans.outside(vlan).udp(&at(OUTSIDE, 53).to_string());
            let client = vlans.inside(vlan).udp(&at(INSIDE, port).to_string());
            client.send_to(b"question", at(OUTSIDE, 53)).unwrap();
            let (_, peer) = server.recv_from(&mut [0; 16]).unwrap();
            server.send_to(b"answer", peer).unwrap();
            client.recv_from(&mut [0; 16]).unwrap();
        }
    }
    let found = zones(&vlans.pair);
    assert_eq!(found.len(), 3 * 16, "a flow for each port and VLAN, none of them split");
    let mut apart = found.clone();
    apart.dedup();
    assert!(apart.len() == 3 && apart.iter().all(|zone| found.iter().filter(|of| of == &zone).count() == 16));
}

#[test]
fn a_full_zone_refuses_its_own_new_flows_alone() {
    let vlans = Vlans::start("[[zone]]\nid = 10\nvlan = 10\nlimit = 100", &[&[10], &[20]]);
    let appliance = &vlans.pair.appliance;
    vlans.ask(0, b"red");
    vlans.ask(1, b"blue");
    // As many as there are now: what the hosts themselves say of the network is among them.
    let count = |limits: String| -> u64 {
        let line = limits.lines().find(|line| line.starts_with("zone=10,")).expect("a zone with flows");
        line.split("count=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    let full = count(appliance.tell(&["limits"]));
    let said = appliance.tell(&["limits", "set", &format!("zone=10,limit={full}")]);
    assert!(said.starts_with(&format!("zone=10,limit={full},count={full}")), "{said}");

    let refused = vlans.inside(0).udp(&at(INSIDE, 2000).to_string());
    refused.send_to(b"x", at(OUTSIDE, 53)).unwrap();
    appliance.await_stats("a refused flow", |stats| stats["dropped"]["zone_limit"].as_u64() > Some(0));
    vlans.ask(0, b"still");
    let other = vlans.inside(1).udp(&at(INSIDE, 2000).to_string());
    other.send_to(b"x", at(OUTSIDE, 53)).unwrap();
    appliance
        .await_line("another zone's new flow", |line| line.opened_from(2000) && zone(&line.text) == Some(20));
    // The workers copy their numbers out now and then.
    until("the full zone's numbers", || {
        let metrics = appliance.http("/metrics");
        let told = ["", "_limit"]
            .iter()
            .all(|what| metrics.contains(&format!("conntrack_zone_entries{what}{{zone=\"10\"}} {full}\n")));
        if told { Ok(()) } else { Err(metrics) }
    });

    appliance.tell(&["limits", "set", "zone=10,limit=0"]);
    refused.send_to(b"x", at(OUTSIDE, 53)).unwrap();
    appliance.await_line("room again", |line| line.opened_from(2000) && zone(&line.text) == Some(10));
}

#[test]
fn without_zones_a_vlan_is_looked_behind() {
    let vlans = Vlans::start("[zones]\nby = \"none\"", &[&[10]]);
    vlans.ask(0, b"red");
    assert_eq!(zones(&vlans.pair), [0]);
}
