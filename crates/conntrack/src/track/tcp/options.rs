//! TCP options, as far as windows need them. Reading stops at the first malformed length.

use super::state::{Mark, after};
use crate::fault::{Fault, planted};

const END: u8 = 0;
const NOP: u8 = 1;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
/// RFC 7323 section 2.3
const MAX_WSCALE: u8 = 14;

/// What a SYN offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) wscale: u8,
    /// [`Mark::WSCALE`] and [`Mark::SACK_OK`].
    pub(super) marks: u8,
}

impl Options {
    /// `None` where the header has no options at all.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() && !planted(Fault::OptionNone) {
            return None;
        }
        let mut found = Self::default();
        for (kind, value) in Walk(bytes) {
            match (kind, value) {
                (WINDOW_SCALE, &[wscale]) => {
                    if planted(Fault::OptionFirstWins) && found.marks & Mark::WSCALE != 0 {
                        continue;
                    }
                    found.wscale =
                        if planted(Fault::OptionScaleCap) { wscale & 15 } else { wscale.min(MAX_WSCALE) };
                    found.marks |= Mark::WSCALE;
                }
                (SACK_PERMITTED, &[]) if !planted(Fault::OptionSackPermitted) => found.marks |= Mark::SACK_OK,
                _ => {}
            }
        }
        Some(found)
    }
}

/// The highest right edge among the first SACK option's blocks, or `ack` if that is higher. RFC 2018 section 3
#[inline(always)]
pub(super) fn highest_sack(bytes: &[u8], ack: u32) -> u32 {
    // Only a timestamp, as in nearly every segment of an established connection. RFC 7323 appendix A
    if bytes.len() == 12 && bytes[..4] == [NOP, NOP, 8, 10] {
        return ack;
    }
    search_sack(bytes, ack)
}

fn search_sack(bytes: &[u8], ack: u32) -> u32 {
    for (kind, value) in Walk(bytes) {
        if kind == SACK && !value.is_empty() && value.len() % 8 == 0 {
            let blocks = if planted(Fault::SackFirstBlock) { &value[..8] } else { value };
            return blocks.chunks_exact(8).fold(ack, |highest, block| {
                let right = u32::from_be_bytes([block[4], block[5], block[6], block[7]]);
                if after(right, highest) { right } else { highest }
            });
        }
    }
    ack
}

/// Kind and value of each option.
struct Walk<'a>(&'a [u8]);

impl<'a> Iterator for Walk<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.0 {
                [] | [END, ..] => return None,
                [NOP, ref rest @ ..] => self.0 = rest,
                [kind, length, ref rest @ ..] => {
                    let value = rest.get(..usize::from(length).checked_sub(2)?)?;
                    self.0 = &rest[value.len()..];
                    return Some((kind, value));
                }
                [_] => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_repeated_options_wins() {
        let options = Options::read(&[3, 3, 5, 1, 3, 3, 9]).unwrap();
        assert_eq!(options, Options { wscale: 9, marks: Mark::WSCALE });
    }

    #[test]
    fn a_scale_beyond_14_counts_as_14() {
        assert_eq!(Options::read(&[3, 3, 200]).unwrap().wscale, 14);
    }

    #[test]
    fn reading_stops_at_a_length_that_cannot_be() {
        for broken in [&[4, 1, 3, 3, 7][..], &[8, 30, 3, 3, 7], &[4], &[9, 0, 4, 2]] {
            assert_eq!(Options::read(broken), Some(Options::default()), "{broken:?}");
        }
    }

    #[test]
    fn options_of_another_length_say_nothing() {
        assert_eq!(Options::read(&[3, 4, 7, 0, 4, 3, 0]).unwrap(), Options::default());
    }

    #[test]
    fn the_highest_right_edge_counts_across_the_wrap() {
        let mut bytes = [5, 18, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 1, 0, 0, 0, 9, 1, 1];
        assert_eq!(highest_sack(&bytes, 0xffff_ff00), 9);
        bytes[1] = 17;
        assert_eq!(highest_sack(&bytes, 0xffff_ff00), 0xffff_ff00);
    }
}
