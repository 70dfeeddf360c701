//! Keys → tuples, one for each direction, as `conntrack` prints them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Tuple, TupleIds};
use crate::key::{FlowKey, Side};
use crate::wire::glance::IpGlance;
use crate::wire::icmp::answer_type;
use crate::wire::{Addr, Family, Quoted, QuotedIds, proto};

/// The original and the reply tuple of the flow of `key`, whose first packet came from `original`.
pub fn tuples(key: &FlowKey, original: Side) -> (Tuple, Tuple) {
    (tuple(key, original), tuple(key, original.other()))
}

/// The tuple of packets that come from `src`.
fn tuple(key: &FlowKey, src: Side) -> Tuple {
    let dst = src.other();
    let family = key.family();
    let (from, to) = (key.id(src), key.id(dst));
    let ids = match key.proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => TupleIds::Ports { sport: from, dport: to },
        proto::GRE => TupleIds::Gre { srckey: from, dstkey: to },
        proto::ICMP | proto::ICMPV6 => {
            let asker = key.asker();
            let [request, code] = key.id(asker.other()).to_be_bytes();
            let icmp_type = if src == asker { request } else { answer_type(family, request) };
            TupleIds::Icmp { icmp_type, code, id: key.id(asker) }
        }
        _ => TupleIds::None,
    };
    Tuple { src: ip(family, key.addr(src)), dst: ip(family, key.addr(dst)), ids }
}

/// The tuple of a packet as it travels.
pub fn tuple_of(ip: &IpGlance) -> Tuple {
    as_seen(ip.family, &ip.src, &ip.dst, ip.ids)
}

/// The tuple of a packet that an ICMP error quotes, as that packet travelled.
pub fn tuple_of_quoted(quoted: &Quoted) -> Tuple {
    as_seen(quoted.family, &quoted.src, &quoted.dst, quoted.ids)
}

fn as_seen(family: Family, src: &Addr, dst: &Addr, ids: QuotedIds) -> Tuple {
    let ids = match ids {
        QuotedIds::Ports { sport, dport } => TupleIds::Ports { sport, dport },
        QuotedIds::Icmp { icmp_type, code, id } => TupleIds::Icmp { icmp_type, code, id },
        QuotedIds::Gre { call_id, .. } => TupleIds::Gre { srckey: 0, dstkey: call_id },
        QuotedIds::None => TupleIds::None,
    };
    Tuple { src: ip(family, src), dst: ip(family, dst), ids }
}

fn ip(family: Family, addr: &Addr) -> IpAddr {
    let Addr([a, b, c, d, ..]) = *addr;
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(addr.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::key_of;
    use crate::wire::{L4, Packet};

    fn show(src: [u8; 4], dst: [u8; 4], proto: u8, l4: L4<'_>) -> (Tuple, Tuple) {
        let (src, dst) = (Addr::v4(src), Addr::v4(dst));
        let packet = Packet { family: Family::V4, src, dst, proto, ip_bytes: 40, l4 };
        let keyed = key_of(&packet, 0).unwrap();
        tuples(&keyed.key, keyed.side)
    }

    /// Whichever address is the smaller one.
    const PAIRS: [([u8; 4], [u8; 4]); 2] = [([10, 0, 0, 1], [10, 0, 0, 2]), ([10, 0, 0, 2], [10, 0, 0, 1])];

    #[test]
    fn the_original_tuple_is_the_first_packets_and_the_reply_tuple_its_swap() {
        for (a, b) in PAIRS {
            let (original, reply) = show(a, b, proto::UDP, L4::Udp { sport: 5000, dport: 53 });
            assert_eq!((original.src, original.dst), (IpAddr::from(a), IpAddr::from(b)));
            assert_eq!(original.ids, TupleIds::Ports { sport: 5000, dport: 53 });
            assert_eq!((reply.src, reply.dst), (IpAddr::from(b), IpAddr::from(a)));
            assert_eq!(reply.ids, TupleIds::Ports { sport: 53, dport: 5000 });
        }
    }

    #[test]
    fn an_answer_has_the_paired_type_and_the_same_code_and_id() {
        for (a, b) in PAIRS {
            for (asked, answered) in [(8, 0), (13, 14), (15, 16), (17, 18)] {
                let query = L4::IcmpQuery { icmp_type: asked, code: 3, id: 7 };
                let (original, reply) = show(a, b, proto::ICMP, query);
                assert_eq!(original.ids, TupleIds::Icmp { icmp_type: asked, code: 3, id: 7 });
                assert_eq!(reply.ids, TupleIds::Icmp { icmp_type: answered, code: 3, id: 7 });
                assert_eq!(original.src, IpAddr::from(a));
            }
        }
    }

    #[test]
    fn a_gre_call_id_stands_at_its_destination() {
        for (a, b) in PAIRS {
            let (original, reply) = show(a, b, proto::GRE, L4::Gre { version: 1, call_id: 100 });
            assert_eq!(original.ids, TupleIds::Gre { srckey: 0, dstkey: 100 });
            assert_eq!(reply.ids, TupleIds::Gre { srckey: 100, dstkey: 0 });
        }
    }

    #[test]
    fn other_protocols_have_no_ids_and_ipv6_is_whole() {
        let addr = |last| Addr([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        let (src, dst) = (addr(2), addr(1));
        let packet = Packet { family: Family::V6, src, dst, proto: 50, ip_bytes: 40, l4: L4::Generic };
        let keyed = key_of(&packet, 0).unwrap();
        let (original, _) = tuples(&keyed.key, keyed.side);
        assert_eq!(original.ids, TupleIds::None);
        assert_eq!(original.src, IpAddr::from(src.0));
    }
}
