//! Packets of every tracked protocol between few hosts and ports, so that they meet in flows; whole, or cut into
//! fragments.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::checksum;

/// Errors that quote errors, at most.
const DEPTH_MAX: u32 = 2;

/// One packet between two of the hosts.
#[derive(Clone, Debug)]
pub struct Packet {
    pub v6: bool,
    /// From the second host to the first.
    pub back: bool,
    /// Another pair of hosts.
    pub others: bool,
    /// One of four pairs of ports, or ids.
    pub ids: u8,
    pub cut: Cut,
    pub l4: L4,
}

/// How a packet is cut into fragments.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Number of pieces; one is the whole packet.
    pub pieces: usize,
    /// Which piece goes first.
    pub first: usize,
    pub repeat: bool,
    pub lose: bool,
    pub id: u32,
}

#[derive(Clone, Debug)]
pub enum L4 {
    Tcp(Tcp),
    Udp { len: u8 },
    UdpLite { covered: u8, len: u8 },
    Icmp { icmp_type: u8, code: u8, len: u8 },
    IcmpError { icmp_type: u8, code: u8, quotes: Box<Packet>, bytes: u8 },
    Sctp { vtag: u8, chunks: Vec<u8> },
    Gre { version: u8, protocol: u16, len: u8 },
    Other { proto: u8, len: u8 },
}

#[derive(Clone, Debug)]
pub struct Tcp {
    pub flags: u8,
    /// How far from where its side started, and how many bits that is shifted.
    pub seq: (i8, u8),
    pub ack: (i8, u8),
    pub window: u16,
    pub options: Vec<u8>,
    pub len: u16,
}

/// Where the sides' sequence numbers start: the second one wraps soon.
const START: [u32; 2] = [1_000_000, 0xffff_fff0];
const TAGS: [u32; 4] = [0, 0x1111_1111, 0x2222_2222, 0x3333_3333];
const PORTS: [(u16, u16); 4] = [(40_000, 80), (40_001, 80), (7, 7), (0, 65_535)];

impl<'a> Arbitrary<'a> for Packet {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Self::read(u, DEPTH_MAX)
    }
}

impl Packet {
    fn read(u: &mut Unstructured<'_>, depth: u32) -> Result<Self> {
        let [place, cut] = Arbitrary::arbitrary(u)?;
        let bit = |byte: u8, n: u32| byte >> n & 1 != 0;
        Ok(Self {
            v6: bit(place, 0),
            back: bit(place, 1),
            others: bit(place, 2),
            ids: place >> 3 & 3,
            cut: Cut {
                pieces: usize::from(cut & 3) + 1,
                first: usize::from(cut >> 2 & 3),
                repeat: bit(cut, 4),
                lose: bit(cut, 5),
                id: u32::from(cut >> 6),
            },
            l4: L4::read(u, place >> 5, depth)?,
        })
    }

    /// The IP packet, uncut.
    pub fn whole(&self) -> Vec<u8> {
        let (proto, bytes) = self.transport();
        self.ip(proto, &bytes, None)
    }

    /// The IP packet, or its fragments as they are sent.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        let (proto, bytes) = self.transport();
        let Cut { pieces, first, repeat, lose, id } = self.cut;
        let step = bytes.len().div_ceil(pieces).next_multiple_of(8).max(8);
        if pieces == 1 || bytes.len() <= step {
            return vec![self.ip(proto, &bytes, None)];
        }
        let last = (bytes.len() - 1) / step;
        let piece = |n: usize| {
            let end = ((n + 1) * step).min(bytes.len());
            self.ip(proto, &bytes[n * step..end], Some((n * step, n < last, id)))
        };
        let mut sent: Vec<_> = (0..=last).map(|n| piece((n + first) % (last + 1))).collect();
        if repeat {
            sent.insert(1, piece(first % (last + 1)));
        }
        if lose {
            sent.pop();
        }
        sent
    }

    fn addresses(&self) -> [Vec<u8>; 2] {
        let host = |n: u8| match self.v6 {
            false => vec![10, 0, 0, n],
            true => [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[n]].concat(),
        };
        let (a, b) = if self.others { (3, 4) } else { (1, 2) };
        if self.back { [host(b), host(a)] } else { [host(a), host(b)] }
    }

    fn ip(&self, proto: u8, payload: &[u8], fragment: Option<(usize, bool, u32)>) -> Vec<u8> {
        let [src, dst] = self.addresses();
        let mut bytes;
        if self.v6 {
            bytes = vec![0x60, 0, 0, 0, 0, 0, if fragment.is_some() { 44 } else { proto }, 64];
            bytes.extend([src, dst].concat());
            if let Some((at, more, id)) = fragment {
                let place = at as u16 | u16::from(more);
                bytes.extend_from_slice(&[proto, 0]);
                bytes.extend_from_slice(&place.to_be_bytes());
                bytes.extend_from_slice(&id.to_be_bytes());
            }
        } else {
            let (place, id) = match fragment {
                Some((at, more, id)) => ((at / 8) as u16 | u16::from(more) << 13, id as u16),
                None => (0, 0),
            };
            bytes = vec![0x45, 0, 0, 0];
            bytes.extend_from_slice(&id.to_be_bytes());
            bytes.extend_from_slice(&place.to_be_bytes());
            bytes.extend_from_slice(&[64, proto, 0, 0]);
            bytes.extend([src, dst].concat());
        }
        let header = bytes.len();
        bytes.extend_from_slice(payload);
        checksum::set_length(&mut bytes);
        if !self.v6 {
            // The transport's checksum is there already.
            checksum::set_checksums(&mut bytes[..header]);
        }
        bytes
    }

    /// The protocol, and its header with data and checksum.
    fn transport(&self) -> (u8, Vec<u8>) {
        let (there, here) = PORTS[usize::from(self.ids)];
        let (sport, dport) = if self.back { (here, there) } else { (there, here) };
        let ports = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
        let data = |len: usize| vec![0x5a; len];
        let (proto, mut bytes) = match &self.l4 {
            L4::Tcp(tcp) => (6, [ports, tcp.behind_ports(self.back)].concat()),
            L4::Udp { len } => {
                let stated = 8 + 2 * u16::from(*len);
                (17, [&ports, &stated.to_be_bytes()[..], &[0; 2], &data(2 * usize::from(*len))].concat())
            }
            L4::UdpLite { covered, len } => {
                let covered = u16::from(*covered).to_be_bytes();
                (136, [&ports, &covered[..], &[0; 2], &data(usize::from(*len))].concat())
            }
            L4::Icmp { icmp_type, code, len } => {
                let head = [*icmp_type, *code, 0, 0, 0, self.ids, 0, 1];
                (if self.v6 { 58 } else { 1 }, [&head[..], &data(4 * usize::from(*len))].concat())
            }
            L4::IcmpError { icmp_type, code, quotes, bytes } => {
                let mut quote = quotes.whole();
                quote.truncate(4 * usize::from(*bytes));
                let head = [*icmp_type, *code, 0, 0, 0, 0, 0, 0];
                (if self.v6 { 58 } else { 1 }, [&head[..], &quote].concat())
            }
            L4::Sctp { vtag, chunks } => {
                let vtag = TAGS[usize::from(vtag & 3)].to_be_bytes();
                (132, [&ports, &vtag[..], &[0; 4], chunks].concat())
            }
            L4::Gre { version, protocol, len } => {
                let head = [0x20, *version];
                let rest = [0, 4, 0, self.ids];
                (47, [&head[..], &protocol.to_be_bytes(), &rest, &data((*len).into())].concat())
            }
            L4::Other { proto, len } => (*proto, data((*len).into())),
        };
        let addrs = self.addresses().iter().fold(0, |sum, addr| checksum::add(sum, addr));
        checksum::transport(proto, addrs, &mut bytes);
        (proto, bytes)
    }
}

impl L4 {
    fn read(u: &mut Unstructured<'_>, kind: u8, depth: u32) -> Result<Self> {
        Ok(match kind {
            1 => Self::Udp { len: u8::arbitrary(u)? },
            2 => {
                let [covered, len] = Arbitrary::arbitrary(u)?;
                Self::UdpLite { covered, len }
            }
            3 => {
                let [icmp_type, code, len] = Arbitrary::arbitrary(u)?;
                Self::Icmp { icmp_type, code, len }
            }
            4 if depth > 0 => {
                let [icmp_type, code, bytes] = Arbitrary::arbitrary(u)?;
                let quotes = Box::new(Packet::read(u, depth - 1)?);
                Self::IcmpError { icmp_type, code, quotes, bytes }
            }
            5 => {
                let vtag = u8::arbitrary(u)?;
                let mut chunks = Vec::new();
                for _ in 0..=(vtag >> 2 & 3) {
                    chunk(u, &mut chunks)?;
                }
                Self::Sctp { vtag, chunks }
            }
            6 => {
                let [version, protocol, len] = Arbitrary::arbitrary(u)?;
                Self::Gre { version, protocol: if protocol & 1 == 0 { 0x880b } else { 0x0800 }, len }
            }
            7 => {
                let [proto, len] = Arbitrary::arbitrary(u)?;
                Self::Other { proto, len }
            }
            _ => Self::Tcp(Tcp::arbitrary(u)?),
        })
    }
}

/// A chunk whose length is right; an INIT's tag is one of the few.
pub fn chunk(u: &mut Unstructured<'_>, chunks: &mut Vec<u8>) -> Result<()> {
    let [kind, flags, tag, bytes] = Arbitrary::arbitrary(u)?;
    let body = 4 * usize::from(bytes & 7);
    let length = (4 + body) as u16;
    chunks.extend_from_slice(&[kind & 0x1f, flags]);
    chunks.extend_from_slice(&length.to_be_bytes());
    let tag = TAGS[usize::from(tag & 3)].to_be_bytes();
    chunks.extend(tag.into_iter().cycle().take(body));
    Ok(())
}

/// At most 40 bytes of TCP options: any bytes, or some options of which most have the right length.
pub fn options(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let choice = u8::arbitrary(u)?;
    let mut bytes = Vec::new();
    if choice < 0x80 {
        bytes.extend_from_slice(u.bytes(usize::from(choice).min(40).min(u.len()))?);
    } else {
        for _ in 0..choice & 7 {
            let [kind, slip, value, near]: [u8; 4] = Arbitrary::arbitrary(u)?;
            let (kind, len) = match kind & 7 {
                0 | 1 => (5, 2 + 8 * usize::from(kind >> 3 & 3)),
                2 => (3, 3),
                3 => (4, 2),
                4 => (8, 10),
                5 => (2, 4),
                6 => (kind >> 3, 2),
                _ => {
                    bytes.push(kind >> 3 & 1);
                    continue;
                }
            };
            // A block's edges lie near either side's numbers.
            let edge =
                START[usize::from(value & 1)].wrapping_add((i32::from(near as i8) << (value >> 4)) as u32);
            let stated = if slip < 0xe0 { len } else { usize::from(slip & 0x1f) };
            bytes.extend_from_slice(&[kind, stated as u8]);
            let body = edge.to_be_bytes().into_iter().cycle().take(stated.saturating_sub(2));
            bytes.extend(if kind == 3 { vec![value; stated.saturating_sub(2)] } else { body.collect() });
        }
        bytes.truncate(40);
    }
    Ok(bytes)
}

/// One of the few tags.
pub fn tag(choice: u8) -> u32 {
    TAGS[usize::from(choice & 3)]
}

impl<'a> Arbitrary<'a> for Tcp {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            flags: u8::arbitrary(u)?,
            seq: Arbitrary::arbitrary(u)?,
            ack: Arbitrary::arbitrary(u)?,
            window: u16::arbitrary(u)?,
            len: u16::arbitrary(u)? % 2048,
            options: options(u)?,
        })
    }
}

impl Tcp {
    /// Sequence and acknowledgment number of a segment of this side.
    pub fn numbers(&self, back: bool) -> (u32, u32) {
        let number = |side: bool, (steps, shift): (i8, u8)| {
            START[usize::from(side)].wrapping_add(i32::from(steps).wrapping_shl((shift % 25).into()) as u32)
        };
        (number(back, self.seq), number(!back, self.ack))
    }

    fn behind_ports(&self, back: bool) -> Vec<u8> {
        let (seq, ack) = self.numbers(back);
        let mut bytes = [seq.to_be_bytes(), ack.to_be_bytes()].concat();
        let padded = self.options.len().next_multiple_of(4);
        bytes.extend_from_slice(&[(5 + padded as u8 / 4) << 4, self.flags]);
        bytes.extend_from_slice(&self.window.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.options);
        bytes.resize(16 + padded + usize::from(self.len), 0);
        bytes
    }
}
