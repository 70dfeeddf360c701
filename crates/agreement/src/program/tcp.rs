//! A TCP conversation: mostly sensible, and otherwise as close to the edges as its own memory of the numbers allows.

use super::packet::{Ip, Tcp, proto, tcp};
use super::rng::Rng;
use super::{Ends, Side};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const URG: u8 = 32;

/// The numbers of one side.
#[derive(Clone, Debug)]
struct End {
    /// The next sequence number.
    next: u32,
    /// The highest acknowledgment sent.
    acked: u32,
    window: u16,
    scale: u8,
    sent_syn: bool,
    sent_fin: bool,
}

/// A conversation and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    ends: [End; 2],
    ports: [u16; 2],
    /// How often, in percent, a segment is not the next sensible one.
    unruly: u32,
    /// Both ends negotiate scaling and selective acknowledgment.
    options: bool,
    last: Option<(Side, Tcp)>,
    /// Begins in the middle.
    midstream: bool,
}

impl Conversation {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let small = rng.chance(40);
        let mut end = |sport: bool| {
            let near_wrap = rng.chance(30);
            let next = if near_wrap { 0u32.wrapping_sub(rng.below(3000)) } else { rng.word() };
            let window =
                if small { rng.between(1, 700) as u16 } else { rng.pick([8192, 29_200, 65_535, 0x4000]) };
            let scale = if rng.chance(50) { rng.below(15) as u8 } else { 0 };
            let port = if sport { rng.between(1024, 65_535) } else { rng.pick([21, 22, 80, 443, 0, 50_000]) };
            (End { next, acked: 0, window, scale, sent_syn: false, sent_fin: false }, port as u16)
        };
        let (a, sport) = end(true);
        let (b, dport) = end(false);
        Self {
            ends: [a, b],
            ports: [sport, dport],
            unruly: rng.pick([0, 10, 30, 60, 90]),
            options: rng.chance(60),
            last: None,
            midstream: rng.chance(12),
        }
    }

    /// The next segment, and who sends it.
    pub(super) fn next(&mut self, rng: &mut Rng, ends: &Ends) -> (Side, Ip, Vec<u8>) {
        let (side, mut segment) = match &self.last {
            // Again, exactly: retransmissions are counted.
            Some((side, last)) if rng.chance(8) => (*side, last.clone()),
            _ if rng.chance(self.unruly) => self.any(rng),
            _ => self.sensible(rng),
        };
        self.note(side, &segment);
        if rng.chance(1) {
            segment.data_offset = Some(rng.below(16) as u8);
        }
        let header = ends.ip(side, proto::TCP);
        let bytes = tcp(&header, &segment);
        (side, header, bytes)
    }

    fn note(&mut self, side: Side, segment: &Tcp) {
        let end = &mut self.ends[side as usize];
        if segment.flags & ACK != 0 && (segment.ack.wrapping_sub(end.acked) as i32) > 0 {
            end.acked = segment.ack;
        }
        self.last = Some((side, segment.clone()));
    }

    fn segment(&self, side: Side, flags: u8) -> Tcp {
        let (own, peer) = (&self.ends[side as usize], &self.ends[side.other() as usize]);
        Tcp {
            sport: self.ports[side as usize],
            dport: self.ports[side.other() as usize],
            seq: own.next,
            ack: if flags & ACK != 0 { peer.next } else { 0 },
            flags,
            window: own.window,
            options: Vec::new(),
            payload_bytes: 0,
            data_offset: None,
        }
    }

    fn syn_options(&self, rng: &mut Rng, side: Side) -> Vec<u8> {
        let mut options = Vec::new();
        if !self.options {
            return options;
        }
        options.extend([2, 4, 5, 180]);
        if rng.chance(70) {
            options.extend([4, 2]);
        }
        if rng.chance(70) {
            options.extend([1, 3, 3, self.ends[side as usize].scale]);
        }
        if rng.chance(40) {
            options.extend([8, 10, 0, 0, 0, 1, 0, 0, 0, 0]);
        }
        options
    }

    /// What a host would send next.
    fn sensible(&mut self, rng: &mut Rng) -> (Side, Tcp) {
        let [a, b] = &self.ends;
        if !a.sent_syn && !self.midstream {
            let mut segment = self.segment(Side::A, SYN);
            segment.options = self.syn_options(rng, Side::A);
            self.ends[0].sent_syn = true;
            self.ends[0].next = self.ends[0].next.wrapping_add(1);
            return (Side::A, segment);
        }
        if !b.sent_syn && !self.midstream {
            // Now and then both open at once.
            let flags = if rng.chance(5) { SYN } else { SYN | ACK };
            let mut segment = self.segment(Side::B, flags);
            segment.options = self.syn_options(rng, Side::B);
            self.ends[1].sent_syn = true;
            self.ends[1].next = self.ends[1].next.wrapping_add(1);
            return (Side::B, segment);
        }
        let over = a.sent_fin && b.sent_fin;
        let side = if rng.chance(50) { Side::A } else { Side::B };
        if over && rng.chance(30) {
            // The same ports again.
            let again =
                if rng.chance(50) { rng.word() } else { self.ends[0].next.wrapping_add(rng.below(100_000)) };
            self.ends.iter_mut().for_each(|end| (end.sent_syn, end.sent_fin) = (false, false));
            self.ends[0].next = again;
            self.midstream = false;
            return self.sensible(rng);
        }
        let own = &self.ends[side as usize];
        let (flags, payload) = match rng.weighted([40, 40, 8, 3]) {
            0 if !own.sent_fin => {
                let room = u32::from(self.ends[side.other() as usize].window).max(1);
                (ACK | PSH, rng.between(1, room.min(1200)) as usize)
            }
            2 if !own.sent_fin => (FIN | ACK, 0),
            3 => (RST | if rng.chance(50) { ACK } else { 0 }, 0),
            _ => (ACK, 0),
        };
        let mut segment = self.segment(side, flags);
        segment.payload_bytes = payload;
        if rng.chance(5) {
            segment.window = rng.pick([0, 1, 10]);
        }
        if rng.chance(6) {
            segment.options = self.sack(rng, side);
        }
        let lost = rng.chance(6);
        let own = &mut self.ends[side as usize];
        if flags & RST == 0 && !lost {
            own.next = own.next.wrapping_add(payload as u32 + u32::from(flags & FIN));
            own.sent_fin |= flags & FIN != 0;
        }
        (side, segment)
    }

    /// A selective acknowledgment with an edge near what the peer has sent.
    fn sack(&self, rng: &mut Rng, side: Side) -> Vec<u8> {
        let peer = &self.ends[side.other() as usize];
        let right = peer.next.wrapping_add(rng.pick([0, 1, 2, 500])).wrapping_sub(rng.pick([0, 0, 1, 100]));
        let left = right.wrapping_sub(rng.pick([1, 100, 1000]));
        let mut options = vec![1, 1, 5, 10];
        options.extend(left.to_be_bytes());
        options.extend(right.to_be_bytes());
        if rng.chance(10) {
            options[3] = rng.below(20) as u8;
        }
        options
    }

    /// Any segment, with numbers near an edge.
    fn any(&mut self, rng: &mut Rng) -> (Side, Tcp) {
        let side = if rng.chance(50) { Side::A } else { Side::B };
        let flags = match rng.weighted([12, 12, 14, 30, 12, 8, 5]) {
            0 => SYN,
            1 => SYN | ACK,
            2 => FIN | ACK,
            3 => ACK | if rng.chance(50) { PSH } else { 0 },
            4 => RST,
            5 => RST | ACK,
            _ => {
                let extra = rng.pick([0, URG, PSH, 0x40, 0x80, 0xc0]);
                (rng.word() as u8 & 0x3f) | extra
            }
        };
        let mut segment = self.segment(side, flags);
        let (own, peer) = (&self.ends[side as usize], &self.ends[side.other() as usize]);
        let payload = rng.pick([0, 0, 0, 1, 10, 100, 700, 1300]);
        segment.payload_bytes = payload;
        let scaled = u32::from(peer.window) << if self.options { peer.scale.min(14) } else { 0 };
        let window = rng.pick([u32::from(peer.window), scaled, 66_000]);
        let jitter = rng.below(5).wrapping_sub(2);
        segment.seq = match rng.weighted([25, 15, 12, 10, 8, 8, 6, 4, 4]) {
            0 => own.next,
            1 => own.next.wrapping_add(jitter),
            2 => peer.acked.wrapping_add(window).wrapping_add(jitter),
            3 => peer
                .acked
                .wrapping_add(window.wrapping_mul(2))
                .wrapping_sub(payload as u32)
                .wrapping_add(jitter),
            4 => own.next.wrapping_sub(window).wrapping_add(jitter).wrapping_sub(payload as u32),
            5 => peer.acked.wrapping_add(jitter),
            6 => own.next.wrapping_add(rng.below(3000)).wrapping_sub(1500),
            7 => 0,
            _ => rng.word(),
        };
        if flags & ACK != 0 || rng.chance(5) {
            let own_window = u32::from(own.window) << if self.options { own.scale.min(14) } else { 0 };
            let lag = own_window.max(66_000);
            segment.ack = match rng.weighted([40, 15, 8, 8, 8, 4, 4]) {
                0 => peer.next,
                1 => peer.next.wrapping_add(jitter),
                2 => peer.next.wrapping_sub(66_000).wrapping_add(jitter),
                3 => peer.next.wrapping_sub(lag).wrapping_add(jitter),
                4 => own.acked,
                5 => 0,
                _ => rng.word(),
            };
        }
        if rng.chance(20) {
            segment.window = rng.pick([0, 1, 2, 100, 1000, 65_535]);
        }
        if flags & SYN != 0 && rng.chance(60) {
            segment.options = self.syn_options(rng, side);
        } else if rng.chance(10) {
            segment.options = self.sack(rng, side);
        }
        if rng.chance(4) {
            segment.options =
                (0..rng.below(40)).map(|_| rng.pick([0, 1, 2, 3, 4, 5, 8, 10, 14, 15, 255])).collect();
        }
        // What was sent far off is not taken for what was sent.
        let end = segment.seq.wrapping_add(payload as u32 + u32::from(flags & (SYN | FIN) != 0));
        let own = &mut self.ends[side as usize];
        if (end.wrapping_sub(own.next) as i32) > 0 && end.wrapping_sub(own.next) < 100_000 && rng.chance(50) {
            own.next = end;
        }
        if flags & SYN != 0 && rng.chance(30) {
            own.next = segment.seq.wrapping_add(1);
            own.sent_syn = true;
        }
        (side, segment)
    }
}
