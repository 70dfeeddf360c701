//! Datagrams without a conversation of their own: UDP, UDP-Lite, ICMP, GRE and everything else.

use super::packet::{self, Ip, proto};
use super::rng::Rng;
use super::{Ends, Side};

/// What kind of datagrams, and the numbers they share.
#[derive(Clone, Debug)]
pub(super) struct Datagrams {
    kind: Kind,
    ports: [u16; 2],
    id: u16,
    icmp_type: u8,
    generic: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Udp,
    UdpLite,
    Icmp,
    Gre,
    Generic,
}

impl Datagrams {
    pub(super) fn new(rng: &mut Rng, kind: Kind, v6: bool) -> Self {
        let requests = if v6 { [128, 139, 128, 128] } else { [8, 13, 15, 17] };
        Self {
            kind,
            ports: [rng.word() as u16, rng.pick([53, 123, 0, 4500, 1])],
            id: rng.word() as u16,
            icmp_type: rng.pick(requests),
            // ESP, AH, OSPF, IP in IP, PIM, DCCP, L2TP, experiments; none that the router terminates.
            generic: rng.pick([50, 89, 4, 103, 33, 115, 253, 255, 2, 1, 58, 97, 112]),
        }
    }

    /// The next datagram, and who sends it.
    pub(super) fn next(&mut self, rng: &mut Rng, ends: &Ends) -> (Side, Ip, Vec<u8>) {
        let side = if rng.chance(60) { Side::A } else { Side::B };
        let (number, bytes) = match self.kind {
            Kind::Udp => self.udp(rng, ends, side),
            Kind::UdpLite => self.udplite(rng, ends, side),
            Kind::Icmp => self.icmp(rng, ends, side),
            Kind::Gre => self.gre(rng),
            Kind::Generic => (self.generic, vec![0; rng.pick([0, 4, 16, 100])]),
        };
        let mut header = ends.ip(side, number);
        if number == proto::ICMPV6 && rng.chance(20) {
            header.ttl = 255;
        }
        (side, header, bytes)
    }

    fn ports(&self, side: Side) -> (u16, u16) {
        (self.ports[side as usize], self.ports[side.other() as usize])
    }

    fn udp(&self, rng: &mut Rng, ends: &Ends, side: Side) -> (u8, Vec<u8>) {
        let (sport, dport) = self.ports(side);
        let mut bytes =
            packet::udp(&ends.ip(side, proto::UDP), sport, dport, &vec![7; rng.below(60) as usize]);
        match rng.below(40) {
            0 => set(&mut bytes, 6, 0),
            1 => set(&mut bytes, 4, rng.pick([0, 7, 8, 9, 30, 65_535])),
            _ => {}
        }
        (proto::UDP, bytes)
    }

    fn udplite(&self, rng: &mut Rng, ends: &Ends, side: Side) -> (u8, Vec<u8>) {
        let (sport, dport) = self.ports(side);
        let payload = vec![7; rng.below(40) as usize];
        let covered = rng.pick([0, 0, 0, 8, 10, 7, 1, 48, 60]);
        // Linux accepts only those whose pseudo header says UDP.
        let pseudo = if rng.chance(80) { proto::UDP } else { proto::UDPLITE };
        let header = ends.ip(side, proto::UDPLITE);
        let mut bytes = packet::udplite(&header, sport, dport, &payload, covered, pseudo);
        if rng.chance(3) {
            set(&mut bytes, 6, 0);
        }
        (proto::UDPLITE, bytes)
    }

    fn icmp(&self, rng: &mut Rng, ends: &Ends, side: Side) -> (u8, Vec<u8>) {
        let number = if ends.v6 { proto::ICMPV6 } else { proto::ICMP };
        let answer = match (ends.v6, self.icmp_type) {
            (false, 8) => 0,
            (_, request) => request + 1,
        };
        let icmp_type = match rng.weighted([80, 10, 6, 4]) {
            0 if side == Side::A => self.icmp_type,
            0 => answer,
            1 => rng.pick([self.icmp_type, answer]),
            2 if ends.v6 => rng.between(126, 156) as u8,
            2 => rng.below(20) as u8,
            _ => rng.word() as u8,
        };
        let code = if rng.chance(5) { rng.below(4) as u8 } else { 0 };
        let id = if rng.chance(5) { rng.word() as u16 } else { self.id };
        let [high, low] = id.to_be_bytes();
        let payload = vec![9; rng.pick([0, 8, 8, 56])];
        let header = ends.ip(side, number);
        (number, packet::icmp(&header, icmp_type, code, [high, low, 0, rng.below(9) as u8], &payload))
    }

    fn gre(&self, rng: &mut Rng) -> (u8, Vec<u8>) {
        let mut bytes = if rng.chance(50) {
            let mut bytes = vec![0x20, 1, 0x88, 0x0b, 0, 4];
            bytes.extend(rng.pick([self.id, self.id, self.id.wrapping_add(1)]).to_be_bytes());
            bytes.extend([0; 4]);
            bytes
        } else {
            vec![rng.pick([0, 0x20, 0x80, 0x30]), rng.pick([0, 0, 0, 2, 7]), 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        };
        if rng.chance(6) {
            set(&mut bytes, 2, rng.pick([0x0800, 0x880b, 0x86dd, 0]));
        }
        if rng.chance(6) {
            bytes.truncate(rng.below(13) as usize);
        }
        (proto::GRE, bytes)
    }
}

fn set(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// An ICMP error that quotes a packet, from whoever could send it to `back`, the side that the packet came from.
pub(super) fn error(rng: &mut Rng, ends: &Ends, quoted: &[u8], back: Side) -> (Side, Ip, Vec<u8>) {
    let number = if ends.v6 { proto::ICMPV6 } else { proto::ICMP };
    let from = back.other();
    let mut header = ends.ip(from, number);
    if rng.chance(40) {
        header.src = ends.router(from);
    }
    if rng.chance(6) {
        header.dst = ends.stranger(back);
    }
    let icmp_type = if ends.v6 {
        rng.pick([1, 1, 2, 3, 4, 1, 3, 137, 100, 127])
    } else {
        rng.pick([3, 3, 3, 11, 12, 5, 4, 3, 11, 18])
    };
    let length = match rng.weighted([50, 20, 10, 10, 10]) {
        0 => quoted.len().min(500),
        1 => 28,
        2 => 24,
        3 => rng.below(quoted.len() as u32 + 1) as usize,
        _ => 48,
    };
    let mut inner = quoted.get(..length.min(quoted.len())).unwrap_or_default().to_vec();
    if rng.chance(8) {
        let at = rng.below(inner.len() as u32) as usize;
        if let Some(byte) = inner.get_mut(at) {
            *byte ^= 1 << rng.below(8);
        }
    }
    let code = rng.pick([0, 1, 3, 4, 0, 0, 255]);
    let bytes = packet::icmp(&header, icmp_type, code, [0, 0, 5, 0], &inner);
    (from, header, bytes)
}
