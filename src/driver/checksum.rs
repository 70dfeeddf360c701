//! Frames whose transport checksum was left for a device to fill in: finds the place and works the value out.
//! Owns no frame; what it is not sure of it leaves alone.

use conntrack::wire::checksum::pseudo;
use conntrack::wire::{Addr, proto};

// IANA "IEEE 802 Numbers"
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
/// QinQ before it had a number of its own.
const ETHERTYPE_QINQ_OLD: u16 = 0x9100;

/// Extension headers before the transport header, of those that a local stack sends. RFC 8200 section 4.1
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// As many tags, and as many extension headers, as are looked behind.
const TAGS_MAX: usize = 2;
const EXTENSIONS_MAX: usize = 8;

/// Where the checksum of a TCP or UDP packet belongs, counted from the frame's start, and its value. `None` for any other
/// frame, for a fragment (no stack leaves its checksum open), and for one that is cut short.
pub fn fill(frame: &[u8]) -> Option<(usize, [u8; 2])> {
    let mut at = 12;
    let mut ethertype = be16(frame, at)?;
    at += 2;
    for _ in 0..TAGS_MAX {
        if !matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ | ETHERTYPE_QINQ_OLD) {
            break;
        }
        ethertype = be16(frame, at + 2)?;
        at += 4;
    }
    let ip = frame.get(at..)?;
    let (src, dst, protocol, header, end) = match ethertype {
        ETHERTYPE_IPV4 => ipv4(ip)?,
        ETHERTYPE_IPV6 => ipv6(ip)?,
        _ => return None,
    };
    let transport = ip.get(header..end)?;
    let place = match protocol {
        proto::TCP => 16,
        proto::UDP => 6,
        _ => return None,
    };
    let (before, rest) = transport.split_at_checked(place)?;
    let (_, behind) = rest.split_at_checked(2)?;
    let sum = pseudo(&src, &dst, protocol, transport.len()).add(before).add(behind).complement();
    // In UDP a zero says that there is none. RFC 768
    let sum = if protocol == proto::UDP && sum == [0, 0] { [0xff, 0xff] } else { sum };
    Some((at + header + place, sum))
}

/// Addresses, protocol, and where the transport header and the packet end.
type Found = (Addr, Addr, u8, usize, usize);

fn ipv4(ip: &[u8]) -> Option<Found> {
    let &head = ip.first_chunk::<20>()?;
    let [first, _, len0, len1, _, _, frag0, frag1, _, protocol, _, _, addrs @ ..] = head;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addrs;
    // More fragments, or a place behind the first.
    if u16::from_be_bytes([frag0, frag1]) & 0x3fff != 0 || first >> 4 != 4 {
        return None;
    }
    let end = usize::from(u16::from_be_bytes([len0, len1]));
    Some((Addr::v4([s0, s1, s2, s3]), Addr::v4([d0, d1, d2, d3]), protocol, usize::from(first & 15) * 4, end))
}

fn ipv6(ip: &[u8]) -> Option<Found> {
    let (&head, _) = ip.split_first_chunk::<40>()?;
    let addr = |from: usize| Some(Addr(*head.get(from..)?.first_chunk::<16>()?));
    let end = 40 + usize::from(u16::from_be_bytes([head[4], head[5]]));
    let (mut protocol, mut at) = (head[6], 40);
    for _ in 0..EXTENSIONS_MAX {
        if !matches!(protocol, HOP_BY_HOP | ROUTING | DESTINATION) {
            break;
        }
        let &[next, length] = ip.get(at..)?.first_chunk::<2>()?;
        protocol = next;
        at += 8 * (usize::from(length) + 1);
    }
    Some((addr(8)?, addr(24)?, protocol, at, end))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk::<2>()?))
}

#[cfg(test)]
mod tests {
    use conntrack::wire::{self, Checksum, Link, Parsed};
    use proptest::prelude::*;

    use super::*;

    /// A frame with tags, IP of either family with or without an extension header, and a transport header of `protocol`.
    fn frame(tags: &[u16], v6: bool, extension: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for tag in tags {
            frame.extend_from_slice(&tag.to_be_bytes());
            frame.extend_from_slice(&[0, 5]);
        }
        let transport: Vec<u8> = match protocol {
            proto::TCP => {
                [&[0, 80, 4, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0xab, 0xcd, 0, 0], payload].concat()
            }
            _ => {
                let length = (8 + payload.len() as u16).to_be_bytes();
                [&[0, 53, 4, 0, length[0], length[1], 0xab, 0xcd], payload].concat()
            }
        };
        if v6 {
            let length = (transport.len() as u16 + if extension { 8 } else { 0 }).to_be_bytes();
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1]]);
            frame.extend_from_slice(&[if extension { DESTINATION } else { protocol }, 64]);
            frame.extend_from_slice(&[0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            frame.extend_from_slice(&[0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            if extension {
                frame.extend_from_slice(&[protocol, 0, 1, 4, 0, 0, 0, 0]);
            }
        } else {
            let options: &[u8] = if extension { &[1, 1, 1, 1] } else { &[] };
            let length = (20 + options.len() + transport.len()) as u16;
            let [l0, l1] = length.to_be_bytes();
            let mut ip = vec![0x45 + (options.len() / 4) as u8, 0, l0, l1, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            ip.extend_from_slice(&[198, 18, 0, 1, 198, 18, 0, 2]);
            ip.extend_from_slice(options);
            let sum = wire::checksum::Sum::ZERO.add(&ip).complement();
            ip[10..12].copy_from_slice(&sum);
            frame.extend_from_slice(&[8, 0]);
            frame.extend_from_slice(&ip);
        }
        frame.extend_from_slice(&transport);
        frame
    }

    proptest! {
        #[test]
        fn what_is_filled_in_is_right(
            tags in prop::collection::vec(prop::sample::select(&[0x8100_u16, 0x88a8, 0x9100][..]), 0..=2), v6: bool, extension: bool, tcp: bool,
            payload in prop::collection::vec(any::<u8>(), 0..200), padding in 0usize..20
        ) {
            let protocol = if tcp { proto::TCP } else { proto::UDP };
            let mut bytes = frame(&tags, v6, extension, protocol, &payload);
            bytes.resize(bytes.len() + padding, 0xee);
            let verify = |bytes: &[u8]| {
                matches!(wire::parse(bytes, Link::Ethernet, Checksum::Unknown, true), Parsed::Packet(_))
            };
            let (at, sum) = fill(&bytes).unwrap();
            prop_assert_eq!(&bytes[at..at + 2], &[0xab, 0xcd]);
            bytes[at..at + 2].copy_from_slice(&sum);
            prop_assert!(verify(&bytes));
            prop_assert_eq!(fill(&bytes), Some((at, sum)), "filling in again changes nothing");
            if sum != [0, 0] {
                bytes[at] ^= 1;
                prop_assert!(!verify(&bytes));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), cut in 0usize..100) {
            fill(&bytes);
            let mut good = frame(&[0x8100], true, true, proto::TCP, b"x");
            good.truncate(cut);
            fill(&good);
        }
    }

    #[test]
    fn a_fragment_and_other_protocols_are_left_alone() {
        let mut bytes = frame(&[], false, false, proto::UDP, b"x");
        bytes[20] = 0x20;
        assert_eq!(fill(&bytes), None);
        assert_eq!(fill(&frame(&[], false, false, proto::SCTP, b"x")), None);
    }

    #[test]
    fn a_udp_sum_of_zero_is_written_as_all_ones() {
        let zero = (0..=u16::MAX).find_map(|word| {
            let bytes = frame(&[], false, false, proto::UDP, &word.to_be_bytes());
            fill(&bytes).filter(|(_, sum)| *sum == [0xff, 0xff])
        });
        assert!(zero.is_some(), "one payload in 65536 sums to zero");
    }
}
