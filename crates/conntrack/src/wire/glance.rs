//! What a frame looks like to people, as far as it can be read. Checks nothing and decides nothing: a packet is told of
//! because something is wrong with it, so every part that cannot be read is left out, and the others stand.

use super::ethernet::{self, Other};
use super::{
    Addr, Family, Fragment, L4, Link, Packet, Quoted, QuotedIds, Segment, Tags, be16, gre, icmp, ipv6, ports,
    proto,
};

/// A frame as it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    pub tags: Tags,
    /// `None`: not IP, or not enough of it.
    pub ip: Option<IpGlance>,
}

/// The IP packet of a [`Glance`], as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpGlance {
    pub family: Family,
    pub src: Addr,
    pub dst: Addr,
    pub proto: u8,
    /// As they travel; ICMP errors have their type and code, and the id 0.
    pub ids: QuotedIds,
    /// From the IP header on, as the header states it.
    pub bytes: u32,
    pub piece: Option<Piece>,
    pub tcp: Option<TcpGlance>,
    /// The packet that an ICMP error quotes.
    pub quoted: Option<Quoted>,
}

/// Where a fragment lies in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub id: u32,
    pub offset: u32,
    pub more: bool,
}

/// The numbers of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpGlance {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    /// As on the wire, unscaled.
    pub window: u16,
    pub payload_bytes: u32,
}

/// Reads what can be read.
pub fn glance(bytes: &[u8], link: Link) -> Glance {
    let (tags, ip) = match link {
        // Another worker's words, no frame.
        Link::Note => return Glance::default(),
        Link::Ip => (Tags::NONE, bytes),
        Link::Ethernet => match ethernet::payload(bytes) {
            Ok((_, ip)) => (Tags::NONE, ip),
            Err(Other::Tagged(tagged)) => (tagged.tags, tagged.body),
            Err(Other::Answer(_)) => return Glance::default(),
        },
    };
    let ip = match ip.first().map(|first| first >> 4) {
        Some(4) => v4(ip),
        Some(6) => v6(ip),
        _ => None,
    };
    Glance { tags, ip }
}

fn v4(bytes: &[u8]) -> Option<IpGlance> {
    let &[first, _, len0, len1, id0, id1, frag0, frag1, _, proto, _, _, ref addrs @ ..] =
        bytes.first_chunk::<20>()?;
    let &[s0, s1, s2, s3, d0, d1, d2, d3] = addrs;
    let place = be16([frag0, frag1]);
    let (offset, more) = (u32::from(place & 0x1fff) * 8, place & 0x2000 != 0);
    let piece = (offset != 0 || more).then_some(Piece { id: u32::from(be16([id0, id1])), offset, more });
    let total = usize::from(be16([len0, len1]));
    let payload = bytes.get(usize::from(first & 0xf) * 4..total.min(bytes.len())).unwrap_or_default();
    let ends = (Addr::v4([s0, s1, s2, s3]), Addr::v4([d0, d1, d2, d3]));
    Some(transport(Family::V4, ends, proto, total as u32, piece, payload))
}

fn v6(bytes: &[u8]) -> Option<IpGlance> {
    const FRAGMENT: u8 = 44;
    let (head, rest) = bytes.split_first_chunk::<40>()?;
    let &[_, _, _, _, len0, len1, next, _, ref addrs @ ..] = head;
    let (src, dst) = addrs.split_at(16);
    let ends = (Addr(*src.first_chunk()?), Addr(*dst.first_chunk()?));
    let total = 40 + u32::from(be16([len0, len1]));
    let rest = rest.get(..usize::from(be16([len0, len1]))).unwrap_or(rest);
    let (next, rest, piece) = match rest.split_first_chunk::<8>() {
        Some((&[inner, _, place0, place1, ref id @ ..], behind)) if next == FRAGMENT => {
            let place = be16([place0, place1]);
            let (offset, more) = (u32::from(place & !7), place & 1 != 0);
            (inner, behind, Some(Piece { id: u32::from_be_bytes(*id), offset, more }))
        }
        _ => (next, rest, None),
    };
    let (proto, payload) = ipv6::skip_extensions(next, rest).unwrap_or((next, &[]));
    Some(transport(Family::V6, ends, proto, total, piece, payload))
}

fn transport(
    family: Family,
    (src, dst): (Addr, Addr),
    proto: u8,
    bytes: u32,
    piece: Option<Piece>,
    payload: &[u8],
) -> IpGlance {
    // Only a first piece begins with a transport header.
    let payload = if piece.is_some_and(|piece| piece.offset != 0) { &[] } else { payload };
    let mut ids = QuotedIds::None;
    let (mut tcp, mut quoted) = (None, None);
    match proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => {
            if let Some(head) = payload.first_chunk() {
                let (sport, dport) = ports(head);
                ids = QuotedIds::Ports { sport, dport };
            }
        }
        proto::ICMP | proto::ICMPV6 => {
            if let Some(&[icmp_type, code, _, _, id0, id1, _, _]) = payload.first_chunk::<8>() {
                let asks = icmp::request_type(family, icmp_type).is_some();
                let id = if asks { be16([id0, id1]) } else { 0 };
                ids = QuotedIds::Icmp { icmp_type, code, id };
                if !asks {
                    quoted = icmp::quoted(family, payload.get(8..).unwrap_or_default());
                }
            }
        }
        proto::GRE => {
            if let Some((version, call_id)) = gre::ids(payload) {
                ids = QuotedIds::Gre { version, call_id };
            }
        }
        _ => {}
    }
    if let (proto::TCP, Some(head)) = (proto, payload.first_chunk::<20>()) {
        let &[_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, _, _] = head;
        tcp = Some(TcpGlance {
            flags,
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            ack: u32::from_be_bytes([a0, a1, a2, a3]),
            window: be16([w0, w1]),
            payload_bytes: payload.len().saturating_sub(usize::from(offset >> 4) * 4) as u32,
        });
    }
    IpGlance { family, src, dst, proto, ids, bytes, piece, tcp, quoted }
}

impl Glance {
    /// Of a packet that was understood: behind a tunnel, or put together, it is not what the frame begins with.
    pub fn of_packet(packet: &Packet<'_>, tags: Tags) -> Self {
        let Packet { family, src, dst, proto, ip_bytes, .. } = *packet;
        let (mut tcp, mut quoted) = (None, None);
        let ids = match packet.l4 {
            L4::Tcp(Segment { seq, ack, window, flags, payload_bytes, sport, dport, .. }) => {
                tcp = Some(TcpGlance { flags, seq, ack, window, payload_bytes });
                QuotedIds::Ports { sport, dport }
            }
            L4::Udp { sport, dport } | L4::UdpLite { sport, dport } => QuotedIds::Ports { sport, dport },
            L4::Sctp(sctp) => QuotedIds::Ports { sport: sctp.sport, dport: sctp.dport },
            L4::IcmpQuery { icmp_type, code, id } => QuotedIds::Icmp { icmp_type, code, id },
            L4::IcmpError { inner } => {
                quoted = Some(inner);
                QuotedIds::None
            }
            L4::Gre { version, call_id } => QuotedIds::Gre { version, call_id },
            L4::Generic => QuotedIds::None,
        };
        let ip = IpGlance { family, src, dst, proto, ids, bytes: ip_bytes, piece: None, tcp, quoted };
        Self { tags, ip: Some(ip) }
    }

    /// Of a fragment that was understood.
    pub fn of_fragment(fragment: &Fragment<'_>, tags: Tags) -> Self {
        let Fragment { family, src, dst, id, proto, offset, more, payload, header_bytes, .. } = *fragment;
        let bytes = header_bytes + payload.len() as u32;
        let piece = Some(Piece { id, offset, more });
        Self { tags, ip: Some(transport(family, (src, dst), proto, bytes, piece, payload)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_frame_can_be_told(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120), ethertype in prop::sample::select(&[0x0800_u16, 0x86dd, 0x8100])
        ) {
            if let Some(place) = bytes.get_mut(12..14) {
                place.copy_from_slice(&ethertype.to_be_bytes());
            }
            if let (Some(first), 0x0800 | 0x86dd) = (bytes.get_mut(14), ethertype) {
                *first = *first & 0xf | if ethertype == 0x0800 { 0x40 } else { 0x60 };
            }
            glance(&bytes, Link::Ethernet);
            glance(&bytes, Link::Ip);
        }
    }
}
