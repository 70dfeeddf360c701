//! Mirror mode: tracks what it hears and never sends.

use crate::appliance::{Appliance, INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, at, bring_up, tuple};
use crate::net::{Namespace, need_root, unique};

/// An appliance that listens to one tap, and the host whose it is. Nobody is there to answer for the outside's addresses.
pub(crate) fn mirror(workers: u16) -> (Appliance, Namespace) {
    need_root();
    let interface = format!("{}m", unique());
    let config = format!(
        "workers = {workers}\nmode = \"mirror\"\n[[port]]\nname = \"span\"\ndevice = \"net_tap0,iface={interface}\"\nqueues = 1\n"
    );
    let appliance = Appliance::start_with(&config, "");
    let host = Namespace::new(interface.clone());
    appliance.give(&interface, &host);
    bring_up(&host, &interface, INSIDE, INSIDE6);
    for address in [OUTSIDE, OUTSIDE6] {
        host.ip(&["neigh", "add", address, "lladdr", "02:00:00:00:00:02", "dev", &interface]);
    }
    (appliance, host)
}

#[test]
fn a_mirror_port_tracks_and_never_sends() {
    let (appliance, host) = mirror(1);
    let udp = host.udp(&at(INSIDE, 0).to_string());
    let (from, to) = (udp.local_addr().unwrap(), at(OUTSIDE, 53));
    udp.send_to(b"x", to).unwrap();
    let _tcp = host.begin_connect(at(OUTSIDE6, 80));

    let line = appliance.await_line("the datagram", |line| line.to_port(53));
    assert_eq!(
        line.text,
        format!("udp      17 {} {} [UNREPLIED] {} use=1", line.timeout, tuple(from, to), tuple(to, from))
    );
    appliance.await_line("the SYN", |line| line.in_state(80, "SYN_SENT"));
    let link: serde_json::Value =
        serde_json::from_str(&host.ip(&["-s", "-j", "link", "show", &host.name])).unwrap();
    assert!(link[0]["stats64"]["tx"]["packets"].as_u64() >= Some(2), "{link}");
    assert_eq!(link[0]["stats64"]["rx"]["packets"].as_u64(), Some(0), "it sent something: {link}");
}
