//! Hosts on virtual cables: for what tap devices cannot do, since their driver holds them to 1500 bytes and an interface that
//! was moved away cannot be stopped. The cables' other ends are read as captures of an interface are.

use crate::appliance::{Appliance, INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, bring_up};
use crate::net::{Namespace, need_root, unique};

/// A host inside and a host outside, joined by the appliance inline.
pub(crate) struct Wires {
    pub(crate) appliance: Appliance,
    pub(crate) inside: Namespace,
    pub(crate) outside: Namespace,
}

impl Wires {
    /// Cables that take `mtu` bytes, and `of_port` among the keys of both ports.
    pub(crate) fn start(mtu: u32, of_port: &str) -> Self {
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
                    space.ip(&["link", "set", interface, "mtu", &mtu.to_string()]);
                    // Between the hosts are wires: no frame is longer than they take, or without its checksum.
                    space.exec(&["ethtool", "-K", interface, "tx", "off", "gro", "off"]);
                }
                space.ip(&["link", "set", &end, "up"]);
                bring_up(host, near, v4, v6);
            }
        });
        Self { appliance, inside, outside }
    }
}
