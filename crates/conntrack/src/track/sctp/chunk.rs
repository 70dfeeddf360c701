//! The chunks of a packet: how to walk them, which may stand together. Sees no flow.

use crate::fault::{Fault, planted};
use crate::track::reason::Reason;

/// The chunk types that move an association; all others (DATA, SACK, ...) keep the state. RFC 9260 section 3.2
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mover {
    Init,
    InitAck,
    Abort,
    Shutdown,
    ShutdownAck,
    Error,
    CookieEcho,
    CookieAck,
    ShutdownComplete,
    Heartbeat,
    HeartbeatAck,
}

/// Chunk type DATA.
const DATA: u8 = 0;

impl Mover {
    pub(super) const fn of(chunk_type: u8) -> Option<Self> {
        match chunk_type {
            1 => Some(Self::Init),
            2 => Some(Self::InitAck),
            4 => Some(Self::Heartbeat),
            5 => Some(Self::HeartbeatAck),
            6 => Some(Self::Abort),
            7 => Some(Self::Shutdown),
            8 => Some(Self::ShutdownAck),
            9 => Some(Self::Error),
            10 => Some(Self::CookieEcho),
            11 => Some(Self::CookieAck),
            14 => Some(Self::ShutdownComplete),
            _ => None,
        }
    }
}

/// One chunk's header, and what follows it. RFC 9260 section 3.2
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) chunk_type: u8,
    flags: u8,
    /// As stated: header and value, without padding.
    length: u16,
    /// Everything behind the chunk header to the packet's end: Linux reads an INIT's tag by its place, whatever
    /// length the chunk states.
    behind: &'a [u8],
}

impl Chunk<'_> {
    /// The T bit: the sender had no association and reflected the tag. RFC 9260 section 8.5.1
    pub(super) fn is_reflected(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The initiate tag of an INIT or INIT_ACK; `None` if its 16 fixed bytes are not all there.
    pub(super) fn init_tag(&self) -> Option<u32> {
        let fixed: &[u8; 16] = self.behind.first_chunk()?;
        fixed.first_chunk().copied().map(u32::from_be_bytes)
    }
}

/// Walks the chunks of a packet. Every turn takes at least four bytes, so there are at most `bytes / 4` of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        // Fewer than four bytes at the end are no chunk, and no error either.
        let (&[chunk_type, flags, high, low], behind) = self.0.split_first_chunk()?;
        let length = u16::from_be_bytes([high, low]);
        // A length of zero leads nowhere. The chunk is still given, for `shape` to refuse.
        let whole = if length == 0 { self.0.len() } else { usize::from(length).next_multiple_of(4) };
        // The last chunk may state more than there is.
        self.0 = self.0.get(whole..).unwrap_or(&[]);
        Some(Chunk { chunk_type, flags, length, behind })
    }
}

/// Which chunk types a packet holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Present {
    pub(super) data: bool,
    /// Bit per [`Mover`].
    movers: u16,
}

impl Present {
    /// Whether the packet holds one of these.
    pub(super) fn any<const N: usize>(self, of: [Mover; N]) -> bool {
        of.into_iter().any(|mover| self.movers & (1 << mover as u8) != 0)
    }
}

/// Whether the chunks may stand together; which ones there are. RFC 9260 section 6.10
pub(super) fn shape(chunks: &[u8]) -> Result<Present, Reason> {
    let mut present = Present::default();
    let mut alone = false;
    let mut empty = true;
    for chunk in Chunks(chunks) {
        let mover = Mover::of(chunk.chunk_type);
        alone |= matches!(mover, Some(Mover::Init | Mover::InitAck | Mover::ShutdownComplete))
            && !planted(Fault::SctpBundled);
        let first_only =
            matches!(mover, Some(Mover::CookieEcho | Mover::CookieAck)) && !planted(Fault::SctpCookieLater);
        let nowhere = chunk.length == 0 && !planted(Fault::SctpZeroLength);
        if nowhere || (!empty && (alone || first_only)) {
            return Err(Reason::SctpChunks);
        }
        empty = false;
        present.data |= chunk.chunk_type == DATA;
        present.movers |= mover.map_or(0, |mover| 1 << mover as u8);
    }
    if empty { Err(Reason::SctpChunks) } else { Ok(present) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const INIT: [u8; 20] = [1, 0, 0, 20, 0xa, 0xb, 0xc, 0xd, 0, 0, 255, 255, 0, 10, 0, 10, 0, 0, 0, 1];
    const COOKIE_ACK: [u8; 4] = [11, 0, 0, 4];
    const SACK: [u8; 4] = [3, 0, 0, 4];

    fn is_refused(chunks: &[&[u8]]) -> bool {
        shape(&chunks.concat()).is_err()
    }

    #[test]
    fn lengths_are_padded_to_four_and_a_short_tail_is_no_chunk() {
        let bytes = [10, 0, 0, 5, 0x42, 0, 0, 0, 3, 0, 0, 1, 0, 0, 0];
        let seen: Vec<(u8, u16)> = Chunks(&bytes).map(|chunk| (chunk.chunk_type, chunk.length)).collect();
        assert_eq!(seen, [(10, 5), (3, 1)]);
    }

    #[test]
    fn the_last_chunk_may_state_more_than_there_is() {
        assert!(!is_refused(&[&[3, 0, 255, 255]]));
    }

    #[test]
    fn no_chunk_and_a_chunk_of_length_zero_are_refused() {
        assert!(is_refused(&[]));
        assert!(is_refused(&[&[3, 0, 0]]));
        assert!(is_refused(&[&[3, 0, 0, 0]]));
        assert!(is_refused(&[&SACK, &[3, 0, 0, 0], &SACK]));
    }

    #[test]
    fn init_stands_alone_and_cookies_come_first() {
        assert!(!is_refused(&[&INIT]));
        assert!(is_refused(&[&INIT, &SACK]));
        assert!(is_refused(&[&SACK, &INIT]));
        assert!(!is_refused(&[&COOKIE_ACK, &SACK]));
        assert!(is_refused(&[&SACK, &COOKIE_ACK]));
    }

    #[test]
    fn the_init_tag_needs_all_fixed_fields_but_not_the_stated_length() {
        let tag = |bytes: &[u8]| Chunks(bytes).next().and_then(|chunk| chunk.init_tag());
        assert_eq!(tag(&INIT), Some(0x0a0b_0c0d));
        let mut short = INIT;
        short[3] = 4;
        assert_eq!(tag(&short), Some(0x0a0b_0c0d));
        assert_eq!(tag(&INIT[..19]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_in_a_quarter_as_many_turns(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Chunks(&bytes).count() <= bytes.len() / 4);
            let _ = shape(&bytes);
        }
    }
}
