//! Ports and links: cables pulled and plugged, ports stopped and started, several pairs of ports.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::appliance::{Appliance, INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, Pair, at, bring_up};
use crate::net::{Namespace, need_root, unique};
use crate::wires::Wires;

/// An echo over an open connection: both of its directions work.
fn echo(client: &mut TcpStream, server: &mut TcpStream, word: &[u8; 4]) {
    let mut got = [0; 4];
    client.write_all(word).unwrap();
    server.read_exact(&mut got).unwrap();
    server.write_all(&got).unwrap();
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, word);
}

fn connection(inside: &Namespace, outside: &Namespace) -> (TcpStream, TcpStream) {
    let listener = outside.listen(&at(OUTSIDE, 80).to_string());
    let client = inside.connect(at(OUTSIDE, 80));
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(crate::net::SOON)).unwrap();
    (client, server)
}

#[test]
fn a_link_that_goes_down_and_comes_up_costs_no_flow() {
    let pair = Pair::start("");
    let (mut client, mut server) = connection(&pair.inside, &pair.outside);
    for word in [b"pull", b"plug"] {
        echo(&mut client, &mut server, word);
        for space in [(&pair.outside, &pair.outside_interface), (&pair.inside, &pair.inside_interface)] {
            space.0.ip(&["link", "set", space.1, "down"]);
            std::thread::sleep(std::time::Duration::from_millis(200));
            space.0.ip(&["link", "set", space.1, "up"]);
        }
        // Interfaces lose their IPv6 addresses with the link, and not those of IPv4.
        echo(&mut client, &mut server, b"back");
    }
    let line = pair.appliance.await_line("the connection", |line| line.to_port(80));
    assert!(line.state == "ESTABLISHED" && line.assured, "{}", line.text);
}

fn field(ports: &str, port: &str, word: &str) -> u64 {
    let of_port = ports.split("port ").find(|part| part.starts_with(port)).expect("the port is shown");
    let number = of_port.split(&format!("{word}:")).nth(1).and_then(|rest| rest.split_whitespace().next());
    number.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no {word} in {ports}"))
}

/// Inline between the taps `{prefix}0` and `{prefix}1`, with `of_lan` among the first one's keys.
fn taps(prefix: &str, of_lan: &str) -> String {
    let port = |number: u8, port: &str, role: &str, peer: &str, more: &str| {
        format!(
            "[[port]]\nname = \"{port}\"\ndevice = \"net_tap{number},iface={prefix}{number}\"\n\
             role = \"{role}\"\npeer = \"{peer}\"\n{more}"
        )
    };
    port(0, "lan", "inside", "wan", of_lan) + &port(1, "wan", "outside", "lan", "")
}

/// An appliance whose taps stay with it, each bridged to a cable that leads to a host.
struct Bridged {
    appliance: Appliance,
    inside: Namespace,
    outside: Namespace,
}

impl Bridged {
    fn start() -> Self {
        need_root();
        let name = unique();
        let appliance = Appliance::start(&taps(&format!("{name}t"), ""));
        let host = |number: u8, v4: &str, v6: &str| {
            let host = Namespace::new(unique());
            let (tap, end, bridge) =
                (format!("{name}t{number}"), format!("{}c", host.name), format!("{name}b{number}"));
            let space = appliance.space();
            host.ip(&["link", "add", &host.name, "type", "veth", "peer", "name", &end, "netns", &space.name]);
            space.ip(&["link", "add", &bridge, "type", "bridge", "mcast_snooping", "0"]);
            for link in [&tap, &end] {
                space.ip(&["link", "set", link, "master", &bridge]);
            }
            for link in [&end, &bridge] {
                space.ip(&["link", "set", link, "up"]);
            }
            bring_up(&host, &host.name, v4, v6);
            host
        };
        let (inside, outside) = (host(0, INSIDE, INSIDE6), host(1, OUTSIDE, OUTSIDE6));
        Self { appliance, inside, outside }
    }
}

#[test]
fn a_port_is_stopped_and_started_and_its_flows_go_on() {
    let wires = Bridged::start();
    let (mut client, mut server) = connection(&wires.inside, &wires.outside);
    echo(&mut client, &mut server, b"one.");
    let ports = wires.appliance.tell(&["ports"]);
    assert!(ports.contains("port lan -> wan  net_tap0,"), "{ports}");
    assert!(ports.contains("mtu 1500, promiscuous on"), "{ports}");
    let before = field(&ports, "wan", "RX-packets");
    assert!(before > 0 && field(&ports, "lan", "TX-packets") > 0, "{ports}");

    assert_eq!(wires.appliance.tell(&["ports", "stop", "wan"]), "port wan is stopped\n");
    assert!(wires.appliance.tell(&["ports"]).contains("link stopped"));
    // What the outside sends now is not received, and what it would get is dropped.
    let ping = wires.inside.enter(|| {
        std::process::Command::new("ping").args(["-q", "-c", "1", "-W", "1", OUTSIDE]).status().unwrap()
    });
    assert!(!ping.success(), "a stopped port forwards");
    assert_eq!(wires.appliance.tell(&["ports", "stop", "wan"]), "port wan is stopped\n", "again is no error");
    assert_eq!(wires.appliance.list().iter().filter(|line| line.to_port(80)).count(), 1);

    assert_eq!(wires.appliance.tell(&["ports", "start", "wan"]), "port wan is running\n");
    echo(&mut client, &mut server, b"two.");
    wires.inside.exec(&["ping", "-q", "-c", "3", "-i", "0.2", "-W", "60", OUTSIDE]);
    assert!(field(&wires.appliance.tell(&["ports"]), "wan", "RX-packets") > before);
    let refused = wires.appliance.ask(&["ports", "stop", "wlan"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("there are lan, wan"), "{said}");
}

#[test]
fn a_driver_that_could_not_start_again_is_not_stopped() {
    let wires = Wires::start(1500, "");
    let refused = wires.appliance.ask(&["ports", "stop", "wan"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("take its interface down and up"), "{said}");
    wires.inside.exec(&["ping", "-q", "-c", "2", "-i", "0.2", "-W", "60", OUTSIDE]);
    let json: serde_json::Value =
        serde_json::from_str(&wires.appliance.tell(&["ports", "--xstats", "-o", "json"])).unwrap();
    assert!(json[1]["xstats"]["rx_good_packets"].as_u64() > Some(0), "{json:#}");
}

#[test]
fn a_port_that_is_to_take_its_own_frames_alone_is_not_promiscuous() {
    need_root();
    let name = unique();
    let appliance = Appliance::start(&taps(&format!("{name}q"), "promiscuous = false\n"));
    let by_the_kernel = [0, 1].map(|number| {
        appliance.space().ip(&["-o", "link", "show", "dev", &format!("{name}q{number}")]).contains("PROMISC")
    });
    assert_eq!(by_the_kernel, [false, true]);
    let ports = appliance.tell(&["ports"]);
    let told: Vec<_> = ports.split("promiscuous ").skip(1).filter_map(|rest| rest.lines().next()).collect();
    assert_eq!(told, ["off", "on"], "{ports}");
}

#[test]
fn several_pairs_of_ports_keep_to_themselves() {
    need_root();
    let name = unique();
    let roles = [("inside", "outside"), ("outside", "inside")];
    let config: String = (0..4)
        .map(|port| {
            let (pair, side) = (port / 2, port % 2);
            let (role, peer_role) = if side == 0 { roles[0] } else { roles[1] };
            format!(
                "[[port]]\nname = \"{role}{pair}\"\ndevice = \"net_tap{port},iface={name}p{port}\"\nrole = \"{role}\"\n\
                 peer = \"{peer_role}{pair}\"\n"
            )
        })
        .collect();
    let appliance = Appliance::start(&format!("[zones]\nby = \"port\"\n{config}"));
    let hosts: Vec<Namespace> = (0..4)
        .map(|port| {
            let interface = format!("{name}p{port}");
            let host = Namespace::new(interface.clone());
            appliance.give(&interface, &host);
            let (v4, v6) = if port % 2 == 0 { (INSIDE, INSIDE6) } else { (OUTSIDE, OUTSIDE6) };
            bring_up(&host, &interface, v4, v6);
            host
        })
        .collect();
    // The same addresses and ports on both pairs.
    for pair in [0, 1] {
        let server = hosts[2 * pair + 1].udp(&at(OUTSIDE, 53).to_string());
        let client = hosts[2 * pair].udp(&at(INSIDE, 1000).to_string());
        let word = [b'a' + pair as u8];
        client.send_to(&word, at(OUTSIDE, 53)).unwrap();
        let mut got = [0; 4];
        let (length, peer) = server.recv_from(&mut got).unwrap();
        assert_eq!(got[..length], word);
        server.send_to(&word, peer).unwrap();
        client.recv_from(&mut got).unwrap();
    }
    let lines = appliance.list();
    let mut zones: Vec<bool> =
        lines.iter().filter(|line| line.to_port(53)).map(|line| line.text.contains(" zone=1 ")).collect();
    zones.sort_unstable();
    assert_eq!(zones, [false, true], "one flow in each pair's zone");
}
