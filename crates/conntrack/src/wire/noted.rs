//! A datagram of which no more was kept than a mirror needs: its start, its length and the sum of its bytes. Owns what
//! can be said of it without the rest, and the form in which one worker tells another of it; sees no fragment.
//!
//! The Internet checksum is verified as if all were there. Two sums cannot be: SCTP's CRC, and one of UDP-Lite that
//! covers more than the start and less than all; both are taken for right.

use super::checksum::Sum;
use super::{
    Addr, Datagram, Family, Ip, L4, Packet, Parsed, Sums, be16, checksum, ipv6, ports, proto, transport,
};
use crate::fault::Fault;
use crate::track::reason::Reason;

/// Bytes that are kept: every transport header with all of its options, behind some extension headers, and what an ICMP
/// error quotes.
pub const HEAD_BYTES: usize = 512;

/// What is known of a datagram beside its start.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// Bytes of the whole payload.
    pub bytes: u32,
    /// Of the whole payload.
    pub sum: Sum,
}

/// The transport part, behind `first` and the extension headers that follow it.
pub(super) fn parse<'a>(ip: Ip, first: u8, head: &'a [u8], rest: Rest, sums: Sums) -> Parsed<'a> {
    let (protocol, start) = match ip.family {
        Family::V4 => (first, head),
        Family::V6 => match ipv6::skip_extensions(first, head) {
            Ok(found) => found,
            Err(reason) => return Parsed::Invalid(reason),
        },
    };
    let (skipped, _) = head.split_at(head.len() - start.len());
    let bytes = (rest.bytes as usize).saturating_sub(skipped.len());
    // Taking away is adding the complement. Extension headers are words of eight bytes, and an odd end is the datagram's.
    let sum = if skipped.is_empty() { rest.sum } else { rest.sum.add(&Sum::ZERO.add(skipped).complement()) };
    let right = |fault, pseudo: Option<u8>| {
        let of = |proto| checksum::pseudo(&ip.src, &ip.dst, proto, bytes);
        sums.unless(fault).pass(|| pseudo.map_or(sum, |proto| sum.plus(of(proto))).is_right())
    };
    match (protocol, ip.family) {
        (proto::UDP | proto::UDPLITE, _) => {
            let Some(&[sp0, sp1, dp0, dp1, len0, len1, sum0, sum1]) = start.first_chunk::<8>() else {
                return Parsed::Invalid(Reason::L4Truncated);
            };
            let (sport, dport) = ports(&[sp0, sp1, dp0, dp1]);
            let (stated, open) = (usize::from(be16([len0, len1])), sum0 | sum1 == 0);
            let lite = protocol == proto::UDPLITE;
            if (stated < 8 && !(lite && stated == 0)) || stated > bytes {
                return Parsed::Invalid(Reason::L4Length);
            }
            let good = match lite {
                false => open || right(Fault::SumUdp, Some(proto::UDP)),
                true if stated == 0 || stated == bytes => right(Fault::SumUdpLite, Some(proto::UDP)),
                true => start.get(..stated).is_none_or(|covered| {
                    let pseudo = checksum::pseudo(&ip.src, &ip.dst, proto::UDP, bytes);
                    sums.unless(Fault::SumUdpLite).pass(|| pseudo.add(covered).is_right())
                }),
            };
            if !good || (lite && open) {
                return Parsed::Invalid(Reason::L4Checksum);
            }
            ip.packet(protocol, if lite { L4::UdpLite { sport, dport } } else { L4::Udp { sport, dport } })
        }
        (proto::ICMP, Family::V4) if start.len() >= 8 && !right(Fault::SumIcmp, None) => {
            Parsed::Invalid(Reason::L4Checksum)
        }
        (proto::ICMPV6, Family::V6) if start.len() >= 8 && !right(Fault::SumIcmpv6, Some(proto::ICMPV6)) => {
            Parsed::Invalid(Reason::L4Checksum)
        }
        _ => match transport(ip, protocol, start, Sums::Accept) {
            Parsed::Packet(Packet { l4: L4::Tcp(mut segment), .. }) => {
                if !right(Fault::SumTcp, Some(proto::TCP)) {
                    return Parsed::Invalid(Reason::L4Checksum);
                }
                segment.payload_bytes += (bytes - start.len()) as u32;
                ip.packet(proto::TCP, L4::Tcp(segment))
            }
            other => other,
        },
    }
}

/// Room for what [`write`] makes.
pub const NOTE_BYTES: usize = BEFORE_HEAD + HEAD_BYTES;

/// Zone, family, protocol, hop limit and three bytes of nothing; two lengths; the sum; the addresses.
const BEFORE_HEAD: usize = 8 + 8 + 8 + 32;

/// One worker's word to another of a datagram in `zone`, into `note`; gives its length. Not for a wire.
pub fn write(datagram: &Datagram<'_>, rest: Rest, zone: u16, note: &mut [u8; NOTE_BYTES]) -> usize {
    let Datagram { family, src, dst, proto, hop_limit, ip_bytes, payload, rest: _ } = *datagram;
    let head = payload.get(..HEAD_BYTES).unwrap_or(payload);
    let [z0, z1] = zone.to_ne_bytes();
    let parts: [&[u8]; 6] = [
        &[z0, z1, u8::from(family == Family::V6), proto, hop_limit, 0, 0, 0],
        &(u64::from(ip_bytes) << 32 | u64::from(rest.bytes)).to_ne_bytes(),
        &rest.sum.to_ne_bytes(),
        &src.0,
        &dst.0,
        head,
    ];
    let mut at = 0;
    for part in parts {
        // The parts are as long as the room is, at most.
        if let Some(to) = note.get_mut(at..at + part.len()) {
            to.copy_from_slice(part);
        }
        at += part.len();
    }
    at
}

/// The zone of a note; `None` of what is none.
pub fn zone(note: &[u8]) -> Option<u16> {
    note.first_chunk().map(|zone| u16::from_ne_bytes(*zone))
}

/// Reads what [`write`] made.
pub(super) fn read(note: &[u8], sums: Sums) -> Parsed<'_> {
    let read = || {
        let (&[_, _, v6, proto, hop_limit, ..], left) = note.split_first_chunk::<8>()?;
        let (lengths, left) = left.split_first_chunk::<8>()?;
        let (sum, left) = left.split_first_chunk::<8>()?;
        let (src, left) = left.split_first_chunk::<16>()?;
        let (dst, head) = left.split_first_chunk::<16>()?;
        let lengths = u64::from_ne_bytes(*lengths);
        let family = if v6 == 1 { Family::V6 } else { Family::V4 };
        let ip_bytes = (lengths >> 32) as u32;
        let ip = Ip { family, src: Addr(*src), dst: Addr(*dst), hop_limit, ip_bytes };
        let rest = Rest { bytes: (lengths as u32).max(head.len() as u32), sum: Sum::from_ne_bytes(*sum) };
        Some(parse(ip, proto, head, rest, sums))
    };
    read().unwrap_or(Parsed::Malformed(Reason::IpTruncated))
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::fragment::{Fragments, Reassembly};
    use crate::key::hash::{Cpu, Hasher};
    use crate::tick::Tick;
    use crate::wire::{self, Checksum, Fragment, Link};

    const SRC: [u8; 4] = [10, 1, 0, 1];
    const DST: [u8; 4] = [10, 2, 0, 2];

    fn addrs(family: Family) -> [Addr; 2] {
        match family {
            Family::V4 => [Addr::v4(SRC), Addr::v4(DST)],
            Family::V6 => {
                [0x2001_0002_u128 << 96 | 1, 0x2001_0002_u128 << 96 | 2].map(|a| Addr(a.to_be_bytes()))
            }
        }
    }

    /// A transport header of `protocol` before `body`, its sum right unless `damage` says otherwise; behind a destination
    /// options header, if so.
    fn payload(family: Family, protocol: u8, extension: bool, body: &[u8], damage: u16) -> (u8, Vec<u8>) {
        let length = (8 + body.len()) as u16;
        let [l0, l1] = length.to_be_bytes();
        let (mut bytes, at) = match protocol {
            proto::TCP => (
                [&[0, 80, 4, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0x60, 0x10, 1, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4], body]
                    .concat(),
                16,
            ),
            proto::UDP => ([&[0, 53, 4, 0, l0, l1, 0, 0], body].concat(), 6),
            proto::UDPLITE => ([&[0, 53, 4, 0, 0, 0, 0, 0], body].concat(), 6),
            // An echo request, or an error that quotes a UDP packet of the other direction.
            proto::ICMP => ([&[8, 0, 0, 0, 0, 7, 0, 1], body].concat(), 2),
            proto::ICMPV6 => ([&[128, 0, 0, 0, 0, 7, 0, 1], body].concat(), 2),
            _ => (body.to_vec(), usize::MAX),
        };
        if at != usize::MAX {
            let [src, dst] = addrs(family);
            let summed = match protocol {
                proto::ICMP => Sum::ZERO,
                // As Linux sums it.
                proto::UDPLITE => checksum::pseudo(&src, &dst, proto::UDP, bytes.len()),
                _ => checksum::pseudo(&src, &dst, protocol, bytes.len()),
            };
            let sum = u16::from_ne_bytes(summed.add(&bytes).complement()).wrapping_add(damage);
            bytes[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        }
        if extension && family == Family::V6 {
            (60, [&[protocol, 0, 1, 4, 0, 0, 0, 0], bytes.as_slice()].concat())
        } else {
            (protocol, bytes)
        }
    }

    fn told(fragments: &mut Fragments, pieces: &[Fragment<'_>], zone: u16) -> Vec<std::string::String> {
        let mut told = Vec::new();
        for piece in pieces {
            if let Reassembly::Complete { datagram, .. } = fragments.add(Tick(0), piece, zone, 0) {
                told.push(format!("{:?}", wire::parse_datagram(&datagram, true)));
                if let Some(rest) = datagram.rest {
                    let mut note = [0; NOTE_BYTES];
                    let length = write(&datagram, rest, zone, &mut note);
                    assert_eq!(super::zone(&note[..length]), Some(zone));
                    let read = wire::parse(&note[..length], Link::Note, Checksum::Unknown, true);
                    assert_eq!(format!("{read:?}"), told[0]);
                }
            }
        }
        told
    }

    proptest! {
        #[test]
        fn of_a_note_the_same_is_said_as_of_the_whole(
            v6: bool,
            extension: bool,
            protocol in prop::sample::select(
                &[proto::TCP, proto::UDP, proto::UDPLITE, proto::ICMP, proto::ICMPV6, proto::GRE, 253][..]
            ),
            body in prop::collection::vec(any::<u8>(), 24..3000),
            damage in prop::sample::select(&[0_u16, 0, 1, 0x100][..]),
            cut in 1_usize..200,
            zone: u16,
        ) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let (first, whole) = payload(family, protocol, extension, &body, damage);
            let [src, dst] = addrs(family);
            let mut pieces: Vec<Fragment<'_>> = whole
                .chunks(8 * cut)
                .enumerate()
                .map(|(n, payload)| Fragment {
                    family, src, dst, id: 1, proto: first, hop_limit: 64, offset: (n * 8 * cut) as u32,
                    more: (n + 1) * 8 * cut < whole.len(), payload, header_bytes: if v6 { 40 } else { 20 },
                })
                .collect();
            pieces.reverse();
            // The list of a datagram's pieces is as long as the most that come in the wrong order.
            prop_assume!(pieces.len() < 100);
            let hasher = Hasher::new([1, 2, 3, 4], Cpu::portable());
            let want = told(&mut Fragments::new(4, hasher), &pieces, zone);
            prop_assert_eq!(want.len(), 1);
            prop_assert_eq!(told(&mut Fragments::without_payloads(4, hasher), &pieces, zone), want);
        }

        #[test]
        fn no_note_makes_it_panic(note in prop::collection::vec(any::<u8>(), 0..NOTE_BYTES)) {
            let _ = wire::parse(&note, Link::Note, Checksum::Unknown, true);
            let _ = super::zone(&note);
        }
    }
}
