//! A long stream of bytes whose every byte both ends know, so that a lost, doubled, swapped or changed one is found.

use std::io::{Read, Write};
use std::net::TcpStream;

const BLOCK: usize = 64 * 1024;

/// The stream that `seed` makes, block by block. SplitMix64: two seeds share no block.
struct Bytes {
    state: u64,
}

impl Bytes {
    fn next_block(&mut self, block: &mut [u8]) {
        for word in block.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..word.len()]);
        }
    }
}

/// Sends `length` bytes of the stream and then a FIN.
pub(crate) fn send(mut to: &TcpStream, seed: u64, length: usize) {
    let (mut bytes, mut block, mut left) = (Bytes { state: seed }, vec![0; BLOCK], length);
    while left > 0 {
        let part = left.min(BLOCK);
        bytes.next_block(&mut block);
        to.write_all(&block[..part]).expect("the peer reads");
        left -= part;
    }
    to.shutdown(std::net::Shutdown::Write).unwrap();
}

/// Reads to the end; every byte must be the stream's, and there must be `length` of them.
pub(crate) fn receive(mut from: &TcpStream, seed: u64, length: usize) {
    let (mut bytes, mut want, mut got, mut at) = (Bytes { state: seed }, vec![0; BLOCK], vec![0; BLOCK], 0);
    while at < length {
        let part = (length - at).min(BLOCK);
        bytes.next_block(&mut want);
        from.read_exact(&mut got[..part])
            .unwrap_or_else(|error| panic!("after {at} of {length} bytes: {error}"));
        if let Some(wrong) = want.iter().zip(&got).take(part).position(|(want, got)| want != got) {
            panic!("byte {} of {length} is not the one that was sent", at + wrong);
        }
        at += part;
    }
    assert_eq!(from.read(&mut got).expect("the peer ends with a FIN"), 0, "more than {length} bytes came");
}
