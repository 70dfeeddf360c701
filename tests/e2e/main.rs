//! End to end: the built appliance between network namespaces, with the kernel's own TCP, UDP and ICMP on either side.
//! Everything is observed from outside: what sockets get, what the namespaces count, what the subcommands print.
//! Needs root, for the namespaces and the tap devices.

mod appliance;
mod net;
mod stream;
mod trunk;
mod wires;

mod fragments;
mod full;
mod guard;
mod jumbo;
mod mirror;
mod newcomer;
mod packets;
mod ports;
mod protocols;
mod shown;
mod tcp;
mod tuned;
mod vlan;
mod workers;
