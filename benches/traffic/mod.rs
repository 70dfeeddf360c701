//! Frames for the micro-benchmarks: which flow, which family, which direction, valid down to every checksum.
//! Sees nothing of the tracker. The flows are those of benches/peers/common.h.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

/// As many frames as a worker hands over at once.
pub(crate) const BURST: usize = 64;

/// Room for the longest frame here.
pub(crate) const FRAME_BYTES: usize = 96;

/// TCP flags.
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Tcp6,
    Udp,
    Echo,
}

/// One frame on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    bytes: [u8; FRAME_BYTES],
    len: usize,
}

impl Wire {
    /// A frame of flow `id`; a TCP one is in the middle of an established connection, with nothing in it.
    pub(crate) fn new(kind: Kind, id: u32, reply: bool) -> Self {
        Self::segment(kind, id, reply, ACK)
    }

    /// As [`Wire::new`], with these TCP flags. A SYN (with or without ACK) has the sequence number that comes before.
    pub(crate) fn segment(kind: Kind, id: u32, reply: bool, flags: u8) -> Self {
        let mut frame = Self { bytes: [0; FRAME_BYTES], len: 0 };
        frame.put(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        let (near, far, sport, dport) = endpoints(id, reply);
        let l4: &[u8] = match kind {
            Kind::Tcp | Kind::Tcp6 => &tcp(sport, dport, reply, flags),
            // A checksum of 0 is none.
            Kind::Udp => &[&sport.to_be_bytes()[..], &dport.to_be_bytes(), &[0, 26, 0, 0], &[0; 18]].concat(),
            Kind::Echo => &echo(reply, id as u16),
        };
        if kind == Kind::Tcp6 {
            frame.put(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.put(&(l4.len() as u16).to_be_bytes());
            frame.put(&[6, 64]);
            for addr in [near, far] {
                frame.put(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0]);
                frame.put(&addr.to_be_bytes());
            }
        } else {
            let proto = match kind {
                Kind::Udp => 17,
                Kind::Echo => 1,
                _ => 6,
            };
            let mut header = [0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&(20 + l4.len() as u16).to_be_bytes());
            (header[8], header[9]) = (64, proto);
            header[12..16].copy_from_slice(&near.to_be_bytes());
            header[16..20].copy_from_slice(&far.to_be_bytes());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.put(&[8, 0]);
            frame.put(&header);
        }
        frame.put(l4);
        frame
    }

    /// What came over the wire.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn put(&mut self, more: &[u8]) {
        self.bytes[self.len..self.len + more.len()].copy_from_slice(more);
        self.len += more.len();
    }
}

/// Source and destination address and port of flow `id`; no two flows share them.
fn endpoints(id: u32, reply: bool) -> (u32, u32, u16, u16) {
    let mixed = id.wrapping_mul(0x9e37_79b1);
    let near = 0x0a00_0000 | mixed & 0x00ff_ffff;
    let far = 0xac10_0000 | id.wrapping_mul(0x85eb_ca6b) >> 16;
    let port = 1024 + (mixed >> 24) as u16 * 251;
    if reply { (far, near, 443, port) } else { (near, far, port, 443) }
}

fn tcp(sport: u16, dport: u16, reply: bool, flags: u8) -> [u8; 20] {
    let (own, other): (u32, u32) = if reply { (2000, 1000) } else { (1000, 2000) };
    let seq = if flags & SYN != 0 { own } else { own + 1 };
    let ack = if flags & ACK != 0 { other + 1 } else { 0 };
    let mut header = [0; 20];
    header[..2].copy_from_slice(&sport.to_be_bytes());
    header[2..4].copy_from_slice(&dport.to_be_bytes());
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    header[8..12].copy_from_slice(&ack.to_be_bytes());
    (header[12], header[13]) = (0x50, flags);
    header[14..16].copy_from_slice(&[0xff, 0xff]);
    header
}

fn echo(reply: bool, id: u16) -> [u8; 8] {
    let mut message = [0; 8];
    message[0] = if reply { 0 } else { 8 };
    message[4..6].copy_from_slice(&id.to_be_bytes());
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// RFC 1071 section 1
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Numbers in no order, the same in every run.
#[derive(Debug)]
pub(crate) struct Random([u64; 2]);

impl Random {
    /// The peers' start.
    pub(crate) fn new() -> Self {
        Self([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03])
    }

    /// 64 bits. xorshift128+: Vigna, "Further scramblings of Marsaglia's xorshift generators", section 3
    pub(crate) fn next(&mut self) -> u64 {
        let [mut a, b] = self.0;
        a ^= a << 23;
        self.0 = [b, a ^ b ^ (a >> 17) ^ (b >> 26)];
        self.0[1].wrapping_add(b)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u32
    }

    /// A flow of `n` by Zipf's law with exponent 1: the inverse of its continuous form, ranks scattered over ids.
    pub(crate) fn zipf(&mut self, n: u32) -> u32 {
        const GAMMA: f64 = 0.577_215_664_9;
        let unit = (self.next() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0);
        let rank = ((unit * (f64::from(n).ln() + GAMMA) - GAMMA).exp() as u64).min(u64::from(n) - 1);
        ((rank.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % u64::from(n)) as u32
    }

    /// 0..n in no order.
    pub(crate) fn shuffled(&mut self, n: u32) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..n).collect();
        for at in (1..ids.len()).rev() {
            ids.swap(at, self.below(at as u32 + 1) as usize);
        }
        ids
    }
}
