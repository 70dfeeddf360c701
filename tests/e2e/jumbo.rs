//! Frames longer than Ethernet's first standard had them.

use crate::appliance::{INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, PROGRAM, at};
use crate::net::{need_root, unique};
use crate::stream;
use crate::wires::Wires;

fn streams_of_jumbo_frames_arrive(wires: &Wires) {
    for (near, far) in [(INSIDE, OUTSIDE), (INSIDE6, OUTSIDE6)] {
        // As long as they can be, and not to be cut: 9000 less the IP and ICMP headers.
        let payload = if near == INSIDE { "8972" } else { "8952" };
        wires
            .inside
            .exec(&["ping", "-q", "-c", "3", "-i", "0.2", "-W", "60", "-M", "do", "-s", payload, far]);
        let listener = wires.outside.listen(&at(far, 80).to_string());
        let client = wires.inside.connect(at(far, 80));
        let (server, _) = listener.accept().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| stream::send(&client, 7, 10 << 20));
            stream::receive(&server, 7, 10 << 20);
        });
    }
    let stats =
        wires.appliance.await_stats("both streams", |stats| stats["rx_bytes"].as_u64() > Some(20 << 20));
    let (packets, bytes) = (stats["rx_packets"].as_u64().unwrap(), stats["rx_bytes"].as_u64().unwrap());
    assert!(bytes / packets > 1_600, "segments were not jumbo ones: {bytes} in {packets}");
    assert_eq!(stats["rx_refused"], 0, "{stats:#}");
}

#[test]
fn jumbo_frames_pass_in_one_buffer_each() {
    let wires = Wires::start(9000, "mtu = 9000");
    streams_of_jumbo_frames_arrive(&wires);
    wires.inside.exec(&["ping", "-q", "-c", "3", "-i", "0.2", "-W", "60", "-s", "40000", OUTSIDE]);
    wires.appliance.await_stats("whole datagrams", |stats| stats["datagrams_completed"].as_u64() >= Some(6));
}

#[test]
fn frames_longer_than_a_buffer_pass_in_several() {
    streams_of_jumbo_frames_arrive(&Wires::start(9000, ""));
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
