//! Frames longer than Ethernet's first standard had them.

use crate::appliance::{Appliance, INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, PROGRAM, at, bring_up};
use crate::net::{Namespace, need_root, unique};
use crate::stream;

struct Wires {
    appliance: Appliance,
    inside: Namespace,
    outside: Namespace,
}

/// Hosts on virtual cables, since taps are held to 1500 bytes by their driver. Their ends at the appliance are read as
/// captures of an interface are.
fn start(of_port: &str) -> Wires {
    need_root();
    let (inside, outside) = (Namespace::new(unique()), Namespace::new(unique()));
    let ends = [(&inside, INSIDE, INSIDE6), (&outside, OUTSIDE, OUTSIDE6)];
    let port = |number: usize, name: &str, role: &str, peer: &str| {
        let end = format!("{}c", ends[number].0.name);
        format!(
            "[[port]]\nname = \"{name}\"\ndevice = \"net_pcap{number},rx_iface_in={end},tx_iface={end}\"\n\
             role = \"{role}\"\npeer = \"{peer}\"\n{of_port}\n"
        )
    };
    let config = port(0, "lan", "inside", "wan") + &port(1, "wan", "outside", "lan");
    let appliance = Appliance::start_after(&config, |space| {
        for (host, v4, v6) in &ends {
            let (end, near) = (format!("{}c", host.name), &host.name);
            host.ip(&["link", "add", near, "type", "veth", "peer", "name", &end, "netns", &space.name]);
            for (space, interface) in [(*host, near), (space, &end)] {
                space.ip(&["link", "set", interface, "mtu", "9000"]);
                // Between the hosts are wires: no frame is longer than they take, or without its checksum.
                space.exec(&["ethtool", "-K", interface, "tx", "off", "gro", "off"]);
            }
            space.ip(&["link", "set", &end, "up"]);
            bring_up(host, near, v4, v6);
        }
    });
    Wires { appliance, inside, outside }
}

fn streams_of_jumbo_frames_arrive(wires: &Wires) {
    for (near, far) in [(INSIDE, OUTSIDE), (INSIDE6, OUTSIDE6)] {
        // As long as they can be, and not to be cut: 9000 less the IP and ICMP headers.
        let payload = if near == INSIDE { "8972" } else { "8952" };
        wires.inside.exec(&["ping", "-q", "-c", "3", "-i", "0.2", "-W", "5", "-M", "do", "-s", payload, far]);
        let listener = wires.outside.listen(&at(far, 80).to_string());
        let client = wires.inside.connect(at(far, 80));
        let (server, _) = listener.accept().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| stream::send(&client, 7, 10 << 20));
            stream::receive(&server, 7, 10 << 20);
        });
    }
    let stats = wires.appliance.worker_stats();
    let (packets, bytes) = (stats["rx_packets"].as_u64().unwrap(), stats["rx_bytes"].as_u64().unwrap());
    assert!(
        bytes > 20 << 20 && bytes / packets > 1_600,
        "segments were not jumbo ones: {bytes} in {packets}"
    );
    assert_eq!(stats["rx_refused"], 0, "{stats:#}");
}

#[test]
fn jumbo_frames_pass_in_one_buffer_each() {
    let wires = start("mtu = 9000");
    streams_of_jumbo_frames_arrive(&wires);
    wires.inside.exec(&["ping", "-q", "-c", "3", "-i", "0.2", "-W", "5", "-s", "40000", OUTSIDE]);
    wires.appliance.await_stats("whole datagrams", |stats| stats["datagrams_completed"].as_u64() >= Some(6));
}

#[test]
fn frames_longer_than_a_buffer_pass_in_several() {
    streams_of_jumbo_frames_arrive(&start(""));
}

#[test]
fn an_mtu_that_a_driver_cannot_take_is_refused_with_what_it_can() {
    need_root();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    let text = format!(
        "mode = \"mirror\"\n[[port]]\nname = \"span\"\ndevice = \"net_tap0,iface={}\"\nmtu = 9000\n\
         [eal]\nhugepages = false\n[control]\nsocket = \"{}/s\"\nhttp = \"off\"\n",
        unique(),
        folder.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let ended = std::process::Command::new(PROGRAM).arg("run").arg("--config").arg(&config).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains("takes an MTU of 46 to 1504 bytes, not 9000"), "{said}");
}
