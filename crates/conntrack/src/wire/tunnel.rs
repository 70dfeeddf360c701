//! Tunnels, one level of them: VXLAN (RFC 7348), GENEVE (RFC 8926), GRE (RFC 2784, 2890) and IP in IP (RFC 2003, 4213).
//! Owns the way from a tunnel's packet to what it carries. Looked at only where the operator wants that tracked.

use super::{Addr, Datagram, Family, L4, Link, Packet, Quoted, QuotedIds, be16, ethernet, ipv4, ipv6, proto};
use crate::zone::{Tunnel, TunnelKind};

/// IANA "Assigned Internet Protocol Numbers"
const IPIP: u8 = 4;
const IPV6: u8 = 41;

/// IANA "Service Name and Transport Protocol Port Number Registry"
const VXLAN_PORT: u16 = 4789;
const GENEVE_PORT: u16 = 6081;

// IANA "IEEE 802 Numbers": an Ethernet frame, bridged.
const ETHERTYPE_BRIDGED: u16 = 0x6558;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// VXLAN's flag that the network's number is there. RFC 7348 section 5
const VXLAN_HAS_ID: u8 = 0x08;

/// GRE's flags of the optional fields, in their order. RFC 2890 section 2
const GRE_CHECKSUM: u16 = 0x8000;
const GRE_ROUTING: u16 = 0x4000;
const GRE_KEY: u16 = 0x2000;
const GRE_SEQUENCE: u16 = 0x1000;
const GRE_VERSION: u16 = 0x0007;

/// What a tunnel's packet carries.
#[derive(Clone, Copy, Debug)]
pub struct Carried<'a> {
    pub tunnel: Tunnel,
    pub link: Link,
    pub bytes: &'a [u8],
}

/// Whether a packet can be a tunnel's: worth a look with [`carried`].
#[inline]
pub fn may_carry(packet: &Packet<'_>) -> bool {
    match packet.l4 {
        L4::Udp { dport, .. } => matches!(dport, VXLAN_PORT | GENEVE_PORT),
        L4::Gre { version, .. } => version == 0,
        L4::Generic => matches!(packet.proto, IPIP | IPV6),
        _ => false,
    }
}

/// Whether an untagged Ethernet frame may be UDP, as a tunnel's is: what its IP header says where it has no options.
#[inline]
pub fn may_be_udp(frame: &[u8]) -> bool {
    // The protocol's place in IPv4 and in IPv6; which it is makes no difference to the caution.
    [23, 20].iter().any(|&at| frame.get(at) == Some(&proto::UDP))
}

/// Whether an ICMP error quotes a tunnel's packet.
pub fn quotes_tunnel(quoted: &Quoted) -> bool {
    match (quoted.proto, quoted.ids) {
        (proto::UDP, QuotedIds::Ports { dport, .. }) => matches!(dport, VXLAN_PORT | GENEVE_PORT),
        (proto::GRE, QuotedIds::Gre { version, .. }) => version == 0,
        (protocol, _) => matches!(protocol, IPIP | IPV6),
    }
}

/// What the frame carries, if it is a tunnel's packet that is understood. The frame has been parsed: it holds one whole
/// IP packet.
pub fn carried(frame: &[u8], link: Link) -> Option<Carried<'_>> {
    let (ip, bytes) = match link {
        Link::Note => return None,
        Link::Ip => (if frame.first()? >> 4 == 6 { Family::V6 } else { Family::V4 }, frame),
        Link::Ethernet => {
            let (ip, bytes) = match ethernet::payload(frame) {
                Ok(found) => found,
                Err(ethernet::Other::Tagged(tagged)) => (tagged.ip, tagged.body),
                Err(ethernet::Other::Answer(_)) => return None,
            };
            (if ip == ethernet::Ip::V6 { Family::V6 } else { Family::V4 }, bytes)
        }
    };
    // What follows the stated length is padding, and the tunnel's end does not see it.
    let length = |at: usize| Some(usize::from(be16(*bytes.get(at..)?.first_chunk()?)));
    let (src, dst, protocol, payload) = match ip {
        Family::V4 => ipv4::quoted(bytes.get(..length(2)?)?)?,
        Family::V6 => ipv6::quoted(bytes.get(..40 + length(4)?)?)?,
    };
    carried_in(src, dst, protocol, payload)
}

/// As [`carried`], for a packet that was put together from fragments.
pub fn carried_by<'a>(datagram: &Datagram<'a>) -> Option<Carried<'a>> {
    let Datagram { src, dst, proto, payload, .. } = *datagram;
    carried_in(src, dst, proto, payload)
}

fn carried_in(src: Addr, dst: Addr, protocol: u8, payload: &[u8]) -> Option<Carried<'_>> {
    let ends = Some([src, dst]);
    match protocol {
        proto::UDP => {
            let (&[_, _, dport0, dport1, ..], body) = payload.split_first_chunk::<8>()?;
            match be16([dport0, dport1]) {
                VXLAN_PORT => vxlan(body),
                GENEVE_PORT => geneve(body),
                _ => None,
            }
        }
        proto::GRE => gre(payload, ends),
        IPIP | IPV6 => {
            let tunnel = Tunnel { kind: TunnelKind::Ip, id: 0, ends };
            let version = if protocol == IPIP { 4 } else { 6 };
            (payload.first()? >> 4 == version).then_some(Carried { tunnel, link: Link::Ip, bytes: payload })
        }
        _ => None,
    }
}

fn vxlan(body: &[u8]) -> Option<Carried<'_>> {
    let (&[flags, _, _, _, id0, id1, id2, _], bytes) = body.split_first_chunk::<8>()?;
    let tunnel = Tunnel { kind: TunnelKind::Vxlan, id: u32::from_be_bytes([0, id0, id1, id2]), ends: None };
    (flags & VXLAN_HAS_ID != 0).then_some(Carried { tunnel, link: Link::Ethernet, bytes })
}

fn geneve(body: &[u8]) -> Option<Carried<'_>> {
    let (&[first, _, type0, type1, id0, id1, id2, _], rest) = body.split_first_chunk::<8>()?;
    // Two bits of version, which is 0, and the options' length in words. RFC 8926 section 3.4
    let bytes = rest.get(usize::from(first & 0x3f) * 4..)?;
    let tunnel = Tunnel { kind: TunnelKind::Geneve, id: u32::from_be_bytes([0, id0, id1, id2]), ends: None };
    let link = link_of(be16([type0, type1]))?;
    (first >> 6 == 0).then_some(Carried { tunnel, link, bytes })
}

fn gre(payload: &[u8], ends: Option<[Addr; 2]>) -> Option<Carried<'_>> {
    let (&[flags0, flags1, type0, type1], mut bytes) = payload.split_first_chunk::<4>()?;
    let flags = be16([flags0, flags1]);
    if flags & (GRE_VERSION | GRE_ROUTING) != 0 {
        return None;
    }
    if flags & GRE_CHECKSUM != 0 {
        bytes = bytes.get(4..)?;
    }
    let mut id = 0;
    if flags & GRE_KEY != 0 {
        let (key, rest) = bytes.split_first_chunk::<4>()?;
        (id, bytes) = (u32::from_be_bytes(*key), rest);
    }
    if flags & GRE_SEQUENCE != 0 {
        bytes = bytes.get(4..)?;
    }
    let link = link_of(be16([type0, type1]))?;
    Some(Carried { tunnel: Tunnel { kind: TunnelKind::Gre, id, ends }, link, bytes })
}

fn link_of(ethertype: u16) -> Option<Link> {
    match ethertype {
        ETHERTYPE_BRIDGED => Some(Link::Ethernet),
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Some(Link::Ip),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const A: Addr = Addr::v4([10, 0, 0, 1]);
    const B: Addr = Addr::v4([10, 0, 0, 2]);

    fn found(protocol: u8, payload: &[u8]) -> Option<(TunnelKind, u32, bool, Link, Vec<u8>)> {
        let carried = carried_in(A, B, protocol, payload)?;
        let Tunnel { kind, id, ends } = carried.tunnel;
        Some((kind, id, ends.is_some(), carried.link, carried.bytes.to_vec()))
    }

    fn udp(dport: u16, body: &[u8]) -> Vec<u8> {
        [&[0xc0, 0][..], &dport.to_be_bytes(), &[0, 0, 0, 0], body].concat()
    }

    #[test]
    fn each_kind_shows_its_network_and_what_it_carries() {
        let cases = [
            (
                17,
                udp(4789, &[8, 0, 0, 0, 1, 2, 3, 0, 9, 9]),
                (TunnelKind::Vxlan, 0x01_02_03, false, Link::Ethernet),
            ),
            (
                17,
                udp(6081, &[1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 1, 1, 1, 9, 9]),
                (TunnelKind::Geneve, 7, false, Link::Ethernet),
            ),
            (17, udp(6081, &[0, 0, 0x08, 0, 0, 0, 7, 0, 9, 9]), (TunnelKind::Geneve, 7, false, Link::Ip)),
            (47, [&[0, 0, 0x08, 0][..], &[9, 9]].concat(), (TunnelKind::Gre, 0, true, Link::Ip)),
            (
                47,
                [&[0xb0, 0, 0x65, 0x58, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 5][..], &[9, 9]].concat(),
                (TunnelKind::Gre, 256, true, Link::Ethernet),
            ),
        ];
        for (protocol, payload, (kind, id, ends, link)) in cases {
            assert_eq!(found(protocol, &payload), Some((kind, id, ends, link, Vec::from([9, 9]))));
            for cut in 0..payload.len() - 2 {
                assert_eq!(found(protocol, &payload[..cut]), None, "{kind:?} cut to {cut}");
            }
        }
        assert_eq!(found(4, &[0x45, 1]).unwrap().0, TunnelKind::Ip);
        assert_eq!(found(41, &[0x60, 1]).unwrap().3, Link::Ip);
    }

    #[test]
    fn what_is_not_understood_is_no_tunnel() {
        for (protocol, payload) in [
            (17, udp(4789, &[0, 0, 0, 0, 1, 2, 3, 0, 9])),
            (17, udp(4788, &[8, 0, 0, 0, 1, 2, 3, 0, 9])),
            (17, udp(6081, &[0x40, 0, 0x65, 0x58, 0, 0, 7, 0, 9])),
            (17, udp(6081, &[0, 0, 0x88, 0x47, 0, 0, 7, 0, 9])),
            (47, Vec::from([0, 1, 0x88, 0x0b, 0, 0, 0, 1])),
            (47, Vec::from([0x40, 0, 0x08, 0, 0, 0, 0, 0, 0x45])),
            (47, Vec::from([0, 0, 0, 0])),
            (4, Vec::from([0x60])),
            (41, Vec::from([0x45])),
            (6, Vec::from([8; 40])),
        ] {
            assert_eq!(found(protocol, &payload), None, "{payload:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..120), protocol in prop::sample::select(&[4, 17, 41, 47][..])
        ) {
            let _ = carried_in(A, B, protocol, &bytes);
            let _ = carried(&bytes, Link::Ip);
            let _ = carried(&bytes, Link::Ethernet);
        }
    }
}
