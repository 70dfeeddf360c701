//! Checksums: the Internet checksum with its pseudo headers, and SCTP's CRC32c. Owns the arithmetic, knows no
//! protocol's layout.

use super::Addr;

/// A ones' complement sum that is not folded yet. The order of the bytes within a word does not matter to whether
/// a sum is right (RFC 1071 section 2 B), so words are read as the machine likes them.
#[derive(Clone, Copy, Debug)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    pub const ZERO: Self = Self(0);

    /// Adds `bytes`, an even number of them unless they are the last.
    #[expect(clippy::should_implement_trait, reason = "`+` of a sum and bytes would say less than the word")]
    #[inline]
    pub fn add(self, bytes: &[u8]) -> Self {
        // 32-bit words into 64 bits: no carry is lost below 16 GiB, and the loop vectorises.
        let (words, tail) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        // The last word is filled up with zeros behind. RFC 1071 section 4.1
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(tail) {
            *to = *from;
        }
        Self(sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// Both together.
    pub const fn plus(self, more: Self) -> Self {
        // Each is below 2^50, whatever a packet holds; see `add`.
        Self(self.0.wrapping_add(more.0))
    }

    /// As it lies here, for [`Sum::from_ne_bytes`].
    pub const fn to_ne_bytes(self) -> [u8; 8] {
        self.0.to_ne_bytes()
    }

    /// What [`Sum::to_ne_bytes`] gave.
    pub const fn from_ne_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_ne_bytes(bytes))
    }

    /// Whether a sum that includes the checksum field says that nothing was damaged: all ones.
    #[inline(always)]
    pub fn is_right(self) -> bool {
        self.fold() == 0xffff
    }

    /// What makes this sum right when it is put where zeros were summed.
    pub fn complement(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }

    #[inline(always)]
    fn fold(self) -> u16 {
        let mut sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        sum = (sum >> 32) + (sum & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        ((sum >> 16) + (sum & 0xffff)) as u16
    }
}

/// The pseudo header's sum, for both families: an IPv4 address is followed by zeros, which add nothing.
/// RFC 9293 section 3.1, RFC 8200 section 8.1
#[inline(always)]
pub fn pseudo(src: &Addr, dst: &Addr, proto: u8, bytes: usize) -> Sum {
    let words = |addr: &Addr| {
        let bits = u128::from_ne_bytes(addr.0);
        let (a, b) = (bits as u64, (bits >> 64) as u64);
        (a >> 32) + (a & 0xffff_ffff) + (b >> 32) + (b & 0xffff_ffff)
    };
    let len = (bytes as u32).to_be();
    let proto = u32::from(proto).to_be();
    Sum(words(src) + words(dst) + u64::from(len) + u64::from(proto))
}

/// CRC32c's polynomial, bits reversed. RFC 9260 appendix A
const CRC32C: u32 = 0x82f6_3b78;

/// Eight tables, so that eight bytes are taken at a time.
static CRC32C_TABLES: [[u32; 256]; 8] = crc32c_tables();

const fn crc32c_tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ CRC32C } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut row = 1;
    while row < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[row - 1][byte];
            tables[row][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        row += 1;
    }
    tables
}

/// CRC32c of several pieces, one behind the other.
pub fn crc32c(pieces: &[&[u8]]) -> u32 {
    let table = |row: usize, byte: u8| CRC32C_TABLES[row & 7][usize::from(byte)];
    let mut crc = u32::MAX;
    for piece in pieces {
        let (chunks, tail) = piece.as_chunks::<8>();
        for &[a, b, c, d, e, f, g, h] in chunks {
            let [w, x, y, z] = (crc ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
            crc = table(7, w)
                ^ table(6, x)
                ^ table(5, y)
                ^ table(4, z)
                ^ table(3, e)
                ^ table(2, f)
                ^ table(1, g)
                ^ table(0, h);
        }
        for &byte in tail {
            crc = (crc >> 8) ^ table(0, byte ^ crc as u8);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 4.1, word by word in network order.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn crc32c_gives_the_published_values() {
        // RFC 3720 appendix B.4
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[&[0xff; 32]]), 0x62a8_ab43);
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
        assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xe306_9283);
    }

    #[test]
    fn the_sum_of_nothing_is_not_right() {
        assert!(!Sum::ZERO.is_right());
        assert!(!Sum::ZERO.add(&[0; 8]).is_right());
    }

    #[test]
    fn the_fold_keeps_every_carry() {
        assert_eq!(Sum(u64::MAX).fold(), 0xffff);
        assert_eq!(Sum(0xffff_ffff_0000_0001).fold(), 1);
    }

    proptest! {
        #[test]
        fn a_sum_is_the_plain_sum(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            // Zero and 0xffff are the same number; which of them comes out does not depend on the order.
            let got = u16::from_be_bytes(Sum::ZERO.add(&bytes).fold().to_ne_bytes());
            prop_assert_eq!(got, plain(&bytes));
        }

        #[test]
        fn pieces_of_even_length_sum_as_one(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..100) {
            let (a, b) = bytes.split_at((at * 2).min(bytes.len() & !1));
            prop_assert_eq!(Sum::ZERO.add(a).add(b).fold(), Sum::ZERO.add(&bytes).fold());
        }
    }
}
