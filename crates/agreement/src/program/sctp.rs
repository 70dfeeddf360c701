//! An SCTP association: the usual order of chunks, and every other.

use super::packet::{Ip, proto, sctp, sctp_chunk};
use super::rng::Rng;
use super::{Ends, Side};

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// Every chunk type worth a try.
const TYPES: [u8; 19] = [
    DATA,
    INIT,
    INIT_ACK,
    SACK,
    HEARTBEAT,
    HEARTBEAT_ACK,
    ABORT,
    SHUTDOWN,
    SHUTDOWN_ACK,
    ERROR,
    COOKIE_ECHO,
    COOKIE_ACK,
    12,
    13,
    SHUTDOWN_COMPLETE,
    15,
    192,
    193,
    128,
];

/// An association's whole life, side by side.
const LIFE: [(Side, u8); 12] = [
    (Side::A, INIT),
    (Side::B, INIT_ACK),
    (Side::A, COOKIE_ECHO),
    (Side::B, COOKIE_ACK),
    (Side::A, DATA),
    (Side::B, SACK),
    (Side::A, HEARTBEAT),
    (Side::B, HEARTBEAT_ACK),
    (Side::B, DATA),
    (Side::A, SHUTDOWN),
    (Side::B, SHUTDOWN_ACK),
    (Side::A, SHUTDOWN_COMPLETE),
];

/// An association and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Association {
    /// The tag that packets to each side carry.
    tags: [u32; 2],
    ports: [u16; 2],
    at: usize,
    unruly: u32,
}

impl Association {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            tags: [rng.word() | 1, rng.word() | 1],
            ports: [rng.between(1024, 65_535) as u16, rng.pick([0, 2905, 3868, 36_412])],
            at: if rng.chance(15) { rng.below(12) as usize } else { 0 },
            unruly: rng.pick([0, 15, 40, 90]),
        }
    }

    /// The next packet, and who sends it.
    pub(super) fn next(&mut self, rng: &mut Rng, ends: &Ends) -> (Side, Ip, Vec<u8>) {
        let unruly = rng.chance(self.unruly);
        let (side, chunks) = if unruly {
            let side = if rng.chance(50) { Side::A } else { Side::B };
            let count = if rng.chance(70) { 1 } else { rng.between(2, 4) };
            let mut types: Vec<u8> = (0..count).map(|_| rng.pick(TYPES)).collect();
            if rng.chance(3) {
                types.push(rng.word() as u8);
            }
            (side, types)
        } else {
            let (side, chunk) = LIFE[self.at % LIFE.len()];
            self.at += 1;
            (side, vec![chunk])
        };
        let mut vtag = self.tags[side.other() as usize];
        if chunks.contains(&INIT) && !rng.chance(5) {
            vtag = 0;
        }
        if unruly && rng.chance(25) {
            vtag = match rng.below(4) {
                0 => 0,
                1 => self.tags[side as usize],
                2 => vtag.wrapping_add(1),
                _ => rng.word(),
            };
        }
        if rng.chance(2) {
            // The host was started again.
            self.tags[side as usize] = rng.word() | 1;
        }
        let mut body = Vec::new();
        for chunk_type in &chunks {
            let flags = if rng.chance(15) { rng.below(4) as u8 } else { 0 };
            body.extend(sctp_chunk(*chunk_type, flags, &self.chunk_body(rng, side, *chunk_type)));
        }
        if unruly && rng.chance(6) {
            self.damage(rng, &mut body);
        }
        let header = ends.ip(side, proto::SCTP);
        let (sport, dport) = (self.ports[side as usize], self.ports[side.other() as usize]);
        let bytes = sctp(sport, dport, vtag, &body);
        (side, header, bytes)
    }

    fn chunk_body(&self, rng: &mut Rng, side: Side, chunk_type: u8) -> Vec<u8> {
        match chunk_type {
            INIT | INIT_ACK => {
                let tag = if rng.chance(8) {
                    rng.pick([0, 1, rng.clone().word()])
                } else {
                    self.tags[side as usize]
                };
                let mut body = tag.to_be_bytes().to_vec();
                body.extend([0, 0, 255, 255, 0, 10, 0, 10, 0, 0, 0, 1]);
                if chunk_type == INIT_ACK {
                    body.extend([0, 7, 0, 8, 1, 2, 3, 4]);
                }
                body
            }
            DATA => vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, b'd', b'a', b't', b'a'],
            SACK => vec![0, 0, 0, 1, 0, 0, 255, 255, 0, 0, 0, 0],
            HEARTBEAT | HEARTBEAT_ACK => vec![0, 1, 0, 8, 1, 2, 3, 4],
            SHUTDOWN => vec![0, 0, 0, 1],
            COOKIE_ECHO => vec![1, 2, 3, 4],
            ERROR => vec![0, 3, 0, 8, 0, 0, 0, 0],
            _ => Vec::new(),
        }
    }

    /// A wrong length, or an end that comes too early.
    fn damage(&self, rng: &mut Rng, body: &mut Vec<u8>) {
        match rng.below(3) {
            0 => body.truncate(rng.below(body.len() as u32 + 1) as usize),
            1 => {
                let value = rng.pick([0, 1, 3, 4, 5, 19, 20, 200, 65_535]) as u16;
                if let Some(field) = body.get_mut(2..4) {
                    field.copy_from_slice(&value.to_be_bytes());
                }
            }
            _ => body.extend([0; 3]),
        }
    }
}
