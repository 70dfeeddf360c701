//! The frames that traffic consists of: Ethernet without tags, an IP header without options or extension headers, no
//! fragment, TCP or UDP. Reads such a frame into scalars, so that nothing of it goes through memory before its key is
//! hashed. Says nothing of any other frame, nor of one with a fault: the general way judges those.

use super::checksum::{Sum, pseudo};
use super::{Addr, Checksum, Family, Segment, be16, ethernet, proto};
#[cfg(test)]
use super::{L4, Packet};
use crate::fault::{Fault, lanes_closed, planted};

/// A TCP or UDP packet, flat. An address is the number that its sixteen bytes (see [`Addr`]) are in memory.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a> {
    pub family: Family,
    pub src: u128,
    pub dst: u128,
    pub tcp: bool,
    /// As [`super::Packet::ip_bytes`].
    pub ip_bytes: u32,
    /// UDP: only the ports.
    pub segment: Segment<'a>,
}

/// Who receives a plain packet.
pub trait Take<'a> {
    fn take(self, plain: Plain<'a>);
}

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// An IPv4 header and the smaller of the two transport headers: no plain packet is shorter.
const LEAST: usize = ETHERNET_BYTES + IPV4_BYTES + 8;
/// More fragments, and the offset.
const FRAGMENT_BITS: u16 = 0x3fff;

/// Hands the frame to `to` if it is plain and right; else gives false, and nothing is said of it. Agrees with
/// [`super::parse`] where it speaks.
///
/// [`Take::take`] is called at one place for each family and protocol, where both are constants: inlined, it is made four
/// times, each without the others' cases.
#[inline(always)]
pub fn read<'a>(bytes: &'a [u8], checksum: Checksum, verify: bool, to: impl Take<'a>) -> bool {
    let Some(start) = bytes.first_chunk::<LEAST>() else { return false };
    if lanes_closed() {
        return false;
    }
    let taken = match be16([start[12], start[13]]) {
        ethernet::ETHERTYPE_IPV4 => ipv4(bytes, start, checksum == Checksum::AllGood)
            .and_then(|(ip, payload)| transport(Family::V4, ip, payload, Sums { checksum, verify }, to)),
        ethernet::ETHERTYPE_IPV6 => ipv6(bytes)
            .and_then(|(ip, payload)| transport(Family::V6, ip, payload, Sums { checksum, verify }, to)),
        _ => None,
    };
    taken.is_some()
}

/// What an IP header says.
struct Ip {
    src: u128,
    dst: u128,
    next: u8,
    ip_bytes: u32,
}

/// Four bytes as they lie.
#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn ipv4<'a>(bytes: &'a [u8], start: &[u8; LEAST], header_good: bool) -> Option<(Ip, &'a [u8])> {
    const AT: usize = ETHERNET_BYTES;
    // As they lie: the offset's upper bits and "more fragments", then the offset's lower byte.
    const FRAGMENT: u32 = u16::from_ne_bytes(FRAGMENT_BITS.to_be_bytes()) as u32;
    let fragment = word(start, AT + 6) & FRAGMENT != 0 && !planted(Fault::LaneFragment);
    if start[AT] != 0x45 || fragment {
        return None;
    }
    if !header_good && !Sum::ZERO.add(&start[AT..AT + IPV4_BYTES]).is_right() {
        return None;
    }
    let total = be16([start[AT + 2], start[AT + 3]]);
    let payload = bytes.get(AT + IPV4_BYTES..AT + usize::from(total))?;
    let (src, dst) = (u128::from(word(start, AT + 12)), u128::from(word(start, AT + 16)));
    Some((Ip { src, dst, next: start[AT + 9], ip_bytes: u32::from(total) }, payload))
}

#[inline(always)]
fn ipv6(bytes: &[u8]) -> Option<(Ip, &[u8])> {
    const AT: usize = ETHERNET_BYTES;
    let start = bytes.first_chunk::<{ AT + IPV6_BYTES }>()?;
    let (_, addrs) = start.split_last_chunk::<32>()?;
    let (src, dst) = (addrs.first_chunk::<16>()?, addrs.last_chunk::<16>()?);
    // Unspecified, loopback, mapped and multicast addresses have rules of their own.
    let special = |addr: &[u8; 16]| matches!(addr[0], 0 | 0xff);
    if start[AT] >> 4 != 6 || special(src) | special(dst) {
        return None;
    }
    let length = usize::from(be16([start[AT + 4], start[AT + 5]]));
    let payload = bytes.get(AT + IPV6_BYTES..AT + IPV6_BYTES + length)?;
    let (src, dst) = (u128::from_ne_bytes(*src), u128::from_ne_bytes(*dst));
    Some((Ip { src, dst, next: start[AT + 6], ip_bytes: (IPV6_BYTES + length) as u32 }, payload))
}

/// What is to be made of a transport checksum.
#[derive(Clone, Copy)]
struct Sums {
    checksum: Checksum,
    verify: bool,
}

impl Sums {
    /// Whether it is right, as far as anyone knows or can say; `right` computes it.
    #[inline(always)]
    fn pass(self, right: impl FnOnce() -> bool) -> bool {
        const GOOD: u8 = 1;
        const _: () = assert!(Checksum::Good as u8 & GOOD != 0 && Checksum::AllGood as u8 & GOOD != 0);
        const _: () = assert!(Checksum::Unknown as u8 & GOOD == 0 && Checksum::Bad as u8 & GOOD == 0);
        if (self.checksum as u8 & GOOD != 0) | !self.verify || planted(Fault::LaneSumTcp) {
            return true;
        }
        self.checksum == Checksum::Unknown && right()
    }
}

/// A function of its own: as a part of its caller it would have the addresses put into memory for every packet.
#[cold]
#[inline(never)]
fn is_right(src: u128, dst: u128, next: u8, payload: &[u8]) -> bool {
    let addr = |word: u128| Addr(word.to_ne_bytes());
    pseudo(&addr(src), &addr(dst), next, payload.len()).add(payload).is_right()
}

#[inline(always)]
fn transport<'a>(family: Family, ip: Ip, payload: &'a [u8], sums: Sums, to: impl Take<'a>) -> Option<()> {
    let Ip { src, dst, next, ip_bytes } = ip;
    let right = || is_right(src, dst, next, payload);
    match next {
        proto::TCP => {
            let head = payload.first_chunk::<20>()?;
            let header_bytes = usize::from(head[12] >> 4) * 4;
            let options = payload.get(20..header_bytes)?;
            if !sums.pass(right) {
                return None;
            }
            let ports = u32::from_be(word(head, 0));
            let segment = Segment {
                seq: u32::from_be(word(head, 4)),
                ack: u32::from_be(word(head, 8)),
                payload_bytes: (payload.len() - header_bytes) as u32,
                window: be16([head[14], head[15]]),
                flags: head[13],
                sport: (ports >> 16) as u16,
                dport: ports as u16,
                options,
            };
            to.take(Plain { family, src, dst, tcp: true, ip_bytes, segment });
        }
        proto::UDP => {
            let head = payload.first_chunk::<8>()?;
            if !(8..=payload.len()).contains(&usize::from(be16([head[4], head[5]]))) {
                return None;
            }
            if head[6] | head[7] != 0 && !sums.pass(right) {
                return None;
            }
            let ports = u32::from_be(word(head, 0));
            let segment = Segment { sport: (ports >> 16) as u16, dport: ports as u16, ..Segment::NONE };
            to.take(Plain { family, src, dst, tcp: false, ip_bytes, segment });
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
impl<'a> Plain<'a> {
    /// The same packet in the form that the general way gives.
    pub fn packet(&self) -> Packet<'a> {
        let Self { family, src, dst, tcp, ip_bytes, segment } = *self;
        let Segment { sport, dport, .. } = segment;
        Packet {
            family,
            src: Addr(src.to_ne_bytes()),
            dst: Addr(dst.to_ne_bytes()),
            proto: if tcp { proto::TCP } else { proto::UDP },
            ip_bytes,
            l4: if tcp { L4::Tcp(segment) } else { L4::Udp { sport, dport } },
        }
    }
}

impl Segment<'_> {
    /// Of a packet that is not TCP.
    pub(crate) const NONE: Self =
        Self { seq: 0, ack: 0, payload_bytes: 0, window: 0, flags: 0, sport: 0, dport: 0, options: &[] };
}
