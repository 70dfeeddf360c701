//! A long stream of bytes whose every byte both ends know, so that a lost, doubled, swapped or changed one is found.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Ends what runs beside a test, also where the test ends by a failure.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends `length` bytes of the stream and then a FIN.
pub(crate) fn send(to: &TcpStream, seed: u64, length: usize) {
    send_parts(to, seed, |sent| length - sent);
}

/// Sends the stream until `stop`, and then a FIN; gives how many bytes that were.
pub(crate) fn send_until(to: &TcpStream, seed: u64, stop: &AtomicBool) -> usize {
    send_parts(to, seed, |_| if stop.load(Ordering::Relaxed) { 0 } else { BLOCK })
}

/// `left` says how many bytes are to follow those that are sent.
fn send_parts(mut to: &TcpStream, seed: u64, left: impl Fn(usize) -> usize) -> usize {
    let (mut bytes, mut block, mut sent) = (Bytes { state: seed }, vec![0; BLOCK], 0);
    loop {
        let part = left(sent).min(BLOCK);
        if part == 0 {
            to.shutdown(std::net::Shutdown::Write).unwrap();
            return sent;
        }
        bytes.next_block(&mut block);
        to.write_all(&block[..part]).expect("the peer reads");
        sent += part;
    }
}

/// Reads to the end; every byte must be the stream's, and there must be `length` of them.
pub(crate) fn receive(from: &TcpStream, seed: u64, length: usize) {
    assert_eq!(receive_all(from, seed), length, "bytes came, and those that were sent");
}

/// Reads to the end; every byte must be the stream's. Gives how many came.
pub(crate) fn receive_all(from: &TcpStream, seed: u64) -> usize {
    let (mut bytes, mut want, mut got, mut at) = (Bytes { state: seed }, vec![0; BLOCK], Vec::new(), 0);
    loop {
        bytes.next_block(&mut want);
        got.clear();
        from.take(BLOCK as u64)
            .read_to_end(&mut got)
            .unwrap_or_else(|error| panic!("after {} bytes: {error}", at + got.len()));
        if let Some(wrong) = want.iter().zip(&got).position(|(want, got)| want != got) {
            panic!("byte {} is not the one that was sent", at + wrong);
        }
        at += got.len();
        if got.len() < BLOCK {
            return at;
        }
    }
}
