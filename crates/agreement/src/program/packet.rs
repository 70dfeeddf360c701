//! Raw packets, right by default and wrong on request.

use std::net::IpAddr;

/// IP protocol numbers, where the generator names them.
pub mod proto {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const GRE: u8 = 47;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION: u8 = 60;
    pub const SCTP: u8 = 132;
    pub const UDPLITE: u8 = 136;
}

/// The fields of an IP header that a program may choose.
#[derive(Clone, Debug)]
pub struct Ip {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    pub ttl: u8,
    pub id: u16,
    pub dont_fragment: bool,
    /// IPv6 extension headers as (number, body with its first byte to be set).
    pub extensions: Vec<(u8, Vec<u8>)>,
}

impl Ip {
    pub fn is_v6(&self) -> bool {
        self.src.is_ipv6()
    }
}

/// The ones' complement sum of 16-bit words, not yet inverted. RFC 1071
fn sum(bytes: &[u8], mut total: u32) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    for word in words {
        total += u32::from(u16::from_be_bytes(*word));
        total = (total & 0xffff) + (total >> 16);
    }
    if let [last] = rest {
        total += u32::from(*last) << 8;
    }
    (total & 0xffff) + (total >> 16)
}

/// The Internet checksum over `bytes`, going on from `total`.
fn checksum(bytes: &[u8], total: u32) -> u16 {
    let total = sum(bytes, total);
    !(((total & 0xffff) + (total >> 16)) as u16)
}

fn pseudo_sum(ip: &Ip, proto: u8, length: usize) -> u32 {
    let mut bytes = Vec::with_capacity(40);
    match (ip.src, ip.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
        }
        _ => {}
    }
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, proto]);
    sum(&bytes, 0)
}

/// Fills the checksum of a transport header at `at` in, over the pseudo header and everything.
pub fn fill_checksum(ip: &Ip, proto: u8, message: &mut [u8], at: usize) {
    if let Some(field) = message.get_mut(at..at + 2) {
        field.fill(0);
    }
    let value = checksum(message, pseudo_sum(ip, proto, message.len()));
    if let Some(field) = message.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// One IP packet around a payload.
pub fn ip(header: &Ip, payload: &[u8]) -> Vec<u8> {
    match (header.src, header.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let flags = if header.dont_fragment { 0x4000 } else { 0 };
            ip4(header, src.octets(), dst.octets(), flags, payload)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let (first, chain) = chain(header);
            ip6(header, src.octets(), dst.octets(), first, &[&chain, payload].concat())
        }
        _ => Vec::new(),
    }
}

fn ip4(header: &Ip, src: [u8; 4], dst: [u8; 4], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x45, 0];
    out.extend((20 + payload.len() as u16).to_be_bytes());
    out.extend(header.id.to_be_bytes());
    out.extend(fragment.to_be_bytes());
    out.extend([header.ttl, header.proto, 0, 0]);
    out.extend(src);
    out.extend(dst);
    fill_header_checksum(&mut out);
    out.extend(payload);
    out
}

/// Makes an IPv4 header's checksum right.
pub fn fill_header_checksum(packet: &mut [u8]) {
    let header_bytes = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    if let Some(header) = packet.get_mut(..header_bytes).filter(|header| header.len() >= 20) {
        header[10..12].fill(0);
        let value = checksum(header, 0);
        header[10..12].copy_from_slice(&value.to_be_bytes());
    }
}

fn ip6(header: &Ip, src: [u8; 16], dst: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x60, 0, 0, 0];
    out.extend((payload.len() as u16).to_be_bytes());
    out.extend([next, header.ttl]);
    out.extend(src);
    out.extend(dst);
    out.extend(payload);
    out
}

/// The extension headers in a row, and the number of the first of them (or of the transport).
fn chain(header: &Ip) -> (u8, Vec<u8>) {
    let mut next = header.proto;
    let mut chain = Vec::new();
    for (number, body) in header.extensions.iter().rev() {
        let mut piece = body.clone();
        if let Some(first) = piece.first_mut() {
            *first = next;
        }
        piece.extend(chain);
        chain = piece;
        next = *number;
    }
    (next, chain)
}

/// One fragment: `piece` at `offset` bytes of the payload.
pub fn fragment(header: &Ip, id: u32, offset: usize, more: bool, piece: &[u8]) -> Vec<u8> {
    match (header.src, header.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = header.clone();
            header.id = id as u16;
            let dont = if header.dont_fragment { 0x4000 } else { 0 };
            let field = dont | if more { 0x2000 } else { 0 } | (offset / 8) as u16 & 0x1fff;
            ip4(&header, src.octets(), dst.octets(), field, piece)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut fragment = vec![header.proto, 0];
            fragment.extend((((offset / 8) as u16) << 3 | u16::from(more)).to_be_bytes());
            fragment.extend(id.to_be_bytes());
            fragment.extend(piece);
            ip6(header, src.octets(), dst.octets(), proto::FRAGMENT, &fragment)
        }
        _ => Vec::new(),
    }
}

/// A TCP segment's choices.
#[derive(Clone, Debug, Default)]
pub struct Tcp {
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload_bytes: usize,
    /// Instead of the right one.
    pub data_offset: Option<u8>,
}

/// A segment with a right checksum.
pub fn tcp(header: &Ip, segment: &Tcp) -> Vec<u8> {
    let mut options = segment.options.clone();
    options.resize(options.len().next_multiple_of(4).min(40), 0);
    let offset = segment.data_offset.unwrap_or(5 + (options.len() / 4) as u8);
    let mut out = Vec::with_capacity(20 + options.len() + segment.payload_bytes);
    out.extend(segment.sport.to_be_bytes());
    out.extend(segment.dport.to_be_bytes());
    out.extend(segment.seq.to_be_bytes());
    out.extend(segment.ack.to_be_bytes());
    out.extend([offset << 4, segment.flags]);
    out.extend(segment.window.to_be_bytes());
    out.extend([0; 4]);
    out.extend(options);
    out.resize(out.len() + segment.payload_bytes, b'x');
    fill_checksum(header, proto::TCP, &mut out, 16);
    out
}

/// A UDP datagram with a right checksum.
pub fn udp(header: &Ip, sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + payload.len());
    out.extend(sport.to_be_bytes());
    out.extend(dport.to_be_bytes());
    out.extend((8 + payload.len() as u16).to_be_bytes());
    out.extend([0; 2]);
    out.extend(payload);
    fill_checksum(header, proto::UDP, &mut out, 6);
    out
}

/// A UDP-Lite datagram; `covered` bytes are under the checksum, 0 for all. `pseudo`: the protocol in its pseudo header.
pub fn udplite(header: &Ip, sport: u16, dport: u16, payload: &[u8], covered: u16, pseudo: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + payload.len());
    out.extend(sport.to_be_bytes());
    out.extend(dport.to_be_bytes());
    out.extend(covered.to_be_bytes());
    out.extend([0; 2]);
    out.extend(payload);
    let length = if covered == 0 { out.len() } else { usize::from(covered).min(out.len()) };
    let value = match checksum(out.get(..length).unwrap_or_default(), pseudo_sum(header, pseudo, out.len())) {
        0 => 0xffff,
        value => value,
    };
    if let Some(field) = out.get_mut(6..8) {
        field.copy_from_slice(&value.to_be_bytes());
    }
    out
}

/// An ICMP or ICMPv6 message (by the header's family) with a right checksum.
pub fn icmp(header: &Ip, icmp_type: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![icmp_type, code, 0, 0];
    out.extend(rest);
    out.extend(payload);
    if header.is_v6() {
        fill_checksum(header, proto::ICMPV6, &mut out, 2);
    } else {
        let value = checksum(&out, 0);
        out[2..4].copy_from_slice(&value.to_be_bytes());
    }
    out
}

/// An SCTP packet with a right checksum. RFC 9260 section 6.8
pub fn sctp(sport: u16, dport: u16, vtag: u32, chunks: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + chunks.len());
    out.extend(sport.to_be_bytes());
    out.extend(dport.to_be_bytes());
    out.extend(vtag.to_be_bytes());
    out.extend([0; 4]);
    out.extend(chunks);
    let value = crc32c(&out);
    out[8..12].copy_from_slice(&value.to_le_bytes());
    out
}

/// One SCTP chunk, padded to four bytes.
pub fn sctp_chunk(chunk_type: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![chunk_type, flags];
    out.extend((4 + body.len() as u16).to_be_bytes());
    out.extend(body);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = (value >> 1) ^ if value & 1 != 0 { 0x82f6_3b78 } else { 0 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(u32::MAX, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn the_internet_checksum_of_a_known_header_is_right() {
        let mut header =
            [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 192, 168, 0, 1, 192, 168, 0, 199];
        fill_header_checksum(&mut header);
        assert_eq!(header[10..12], [0xb8, 0x61]);
    }
}
