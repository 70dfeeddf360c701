//! The keyed hash of a [`FlowKey`]: 64 bits, from which the table takes its bucket and the steering its owner.
//!
//! Keyed per boot, so that nobody can choose addresses and ports that meet in one bucket. Two ways compute it: AES
//! rounds where the processor has them, folded multiplication elsewhere. They give different numbers; a process
//! uses one of them throughout.
#![allow(unsafe_code)]

use super::{FlowKey, Words};

/// What the processor can do. Only [`Cpu::detect`] claims an instruction, which makes [`Hasher`] and the tracker's choice
/// of a way through a burst sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    aes: bool,
    wide: bool,
    amd: bool,
}

impl Cpu {
    /// Asks the processor.
    pub fn detect() -> Self {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            x86::detect()
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        Self::portable()
    }

    /// Nothing beyond what every processor has.
    pub const fn portable() -> Self {
        Self { aes: false, wide: false, amd: false }
    }

    /// AMD's processors carry twice as many prefetches a second into the second cache as into the first, whose miss
    /// buffers are few; on others it makes no difference.
    pub const fn prefetches_to_second_cache(self) -> bool {
        self.amd
    }

    /// AES rounds and the instructions of x86-64-v3.
    pub const fn is_wide(self) -> bool {
        self.wide
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    use super::Cpu;

    /// Intel SDM volume 2, CPUID: leaf 1 ECX, leaf 7 EBX, leaf 0x8000_0001 ECX; volume 1, section 13.3 for XCR0.
    #[allow(unused_unsafe)]
    pub(super) fn detect() -> Cpu {
        // SAFETY: every x86-64 processor has the CPUID instruction; an absent leaf reads as zeros or another leaf's
        // bits, which is why the highest leaf is asked for first.
        let (highest, vendor, one, seven, extended) = unsafe {
            let zero = __cpuid(0);
            let (highest, vendor) = (zero.eax, [zero.ebx, zero.edx, zero.ecx]);
            let seven = if highest >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
            let extended = if __cpuid(0x8000_0000).eax > 0x8000_0000 { __cpuid(0x8000_0001).ecx } else { 0 };
            (highest, vendor, __cpuid(1).ecx, seven, extended)
        };
        let has = |word: u32, bits: &[u32]| bits.iter().all(|bit| word >> bit & 1 == 1);
        let aes = highest >= 1 && has(one, &[25]);
        // FMA, MOVBE, POPCNT, OSXSAVE, AVX; BMI1, AVX2, BMI2; LZCNT.
        let named = has(one, &[12, 22, 23, 27, 28]) && has(seven, &[3, 5, 8]) && has(extended, &[5]);
        // SAFETY: OSXSAVE says that XGETBV may be used; it is asked for only then.
        let kept = named && unsafe { kept_registers() } & 6 == 6;
        let vendor = vendor.map(u32::to_le_bytes);
        let amd = [b"AuthenticAMD", b"HygonGenuine"].iter().any(|name| name[..] == *vendor.as_flattened());
        Cpu { aes, wide: aes && kept, amd }
    }

    /// Which registers the operating system saves.
    ///
    /// # Safety
    /// The processor must have XSAVE, and the operating system must have enabled it.
    #[target_feature(enable = "xsave")]
    unsafe fn kept_registers() -> u64 {
        // SAFETY: as the caller promises.
        unsafe { _xgetbv(0) }
    }
}

/// A hash function with its secret.
#[derive(Clone, Copy)]
pub struct Hasher {
    /// Four 128-bit round keys, or eight words to fold with.
    secret: [u64; 8],
    aes: bool,
}

impl core::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The secret stays out of logs.
        f.debug_struct("Hasher").field("aes", &self.aes).finish_non_exhaustive()
    }
}

impl Hasher {
    /// A hash keyed by `key`, random per boot.
    pub fn new(key: [u64; 4], cpu: Cpu) -> Self {
        let mut secret = [0; 8];
        for (i, word) in secret.iter_mut().enumerate() {
            // Each word depends on the whole key; the constants only tell the words apart.
            // They are the fractional digits of pi, as 64-bit words.
            let salt = [0x243f_6a88_85a3_08d3u64, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0][i % 3];
            let mut mixed = salt.rotate_left(i as u32 * 7);
            for part in key {
                mixed = fold(mixed ^ part, 0x9e37_79b9_7f4a_7c15).wrapping_add(part.rotate_left(i as u32));
            }
            *word = mixed ^ key[i % 4];
        }
        Self { secret, aes: cpu.aes }
    }

    /// The hash of `key`: the same for both directions of a flow, as their key is the same.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if self.aes {
            // SAFETY: `aes` is only set by `Cpu::detect`, which saw the processor's AES flag.
            return unsafe { aes::hash(&self.secret, key) };
        }
        portable(&self.secret, key)
    }

    /// As [`Self::hash`], within a caller that is compiled for AES: there it is no call, and the key needs no memory.
    #[inline(always)]
    pub fn hash_here(&self, key: &Words) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if self.aes {
            // SAFETY: as in `hash`.
            return unsafe { aes::hash_here(&self.secret, &key.0) };
        }
        elsewhere(&self.secret, key)
    }
}

/// [`portable`] as a call: no processor that is compiled for AES comes here, and the keys of the others stay in registers.
#[cold]
#[inline(never)]
fn elsewhere(secret: &[u64; 8], key: &Words) -> u64 {
    portable(secret, key.key())
}

/// Both halves of a 128-bit product, one onto the other.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// Folded multiplication: each factor holds a word of the secret, so that no chosen word makes a product vanish.
#[inline]
fn portable(secret: &[u64; 8], key: &FlowKey) -> u64 {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = *secret;
    let [a, b, c, d, tail] = *key.words();
    let lo = fold(a ^ s0, b ^ s1);
    let hi = fold(c ^ s2, d ^ s3);
    // Turned, so that the same word at both ends does not cancel out.
    let mixed = fold(lo ^ s4, hi.rotate_left(32) ^ s5 ^ tail);
    fold(mixed ^ s6, lo ^ hi ^ tail ^ s7) ^ mixed
}

#[cfg(target_arch = "x86_64")]
mod aes {
    use core::arch::x86_64::{_mm_aesenc_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_xor_si128};

    use super::FlowKey;

    /// The family's bit in a key's last word.
    const V6: u64 = (crate::key::kind::V6 as u64) << 56;

    /// As [`hash_here`], as a function of its own.
    #[target_feature(enable = "aes")]
    pub(super) fn hash(secret: &[u64; 8], key: &FlowKey) -> u64 {
        // SAFETY: this function has the instructions, so whoever called it has them.
        unsafe { hash_here(secret, key.words()) }
    }

    /// IPv6: the addresses and the rest go through two rounds side by side, which spreads each byte over its whole
    /// block; joined one onto the other, they go through two or three more.
    ///
    /// # Safety
    /// The processor must have AES rounds. Fast only where the caller is compiled for them.
    #[inline(always)]
    pub(super) unsafe fn hash_here(secret: &[u64; 8], words: &[u64; 5]) -> u64 {
        let [a, b, c, d, e, f, g, h] = *secret;
        // SAFETY: SSE2 belongs to every x86-64, and the caller promises AES.
        let block = |low: u64, high: u64| unsafe { _mm_set_epi64x(high.cast_signed(), low.cast_signed()) };
        // SAFETY: as above.
        let round = |state, key| unsafe { _mm_aesenc_si128(state, key) };
        // SAFETY: as above.
        let xor = |a, b| unsafe { _mm_xor_si128(a, b) };
        // SAFETY: as above.
        let low = |block| unsafe { _mm_cvtsi128_si64(block) }.cast_unsigned();
        let (k0, k1, k2, k3) = (block(a, b), block(c, d), block(e, f), block(g, h));
        let [lo0, lo1, hi0, hi1, tail] = *words;
        if tail & V6 == 0 {
            // Of an IPv4 key one block holds all that is not zero.
            return low(round(round(round(xor(block(lo0 | hi0 << 32, tail), k0), k1), k2), k3));
        }
        let lo = round(round(xor(block(lo0, lo1), k0), k1), k2);
        let hi = round(round(xor(block(hi0, hi1), k1), k2), k3);
        let rest = round(round(xor(block(tail, 0), k2), k3), k0);
        low(round(round(xor(round(lo, hi), rest), k1), k3))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::key::kind;
    use crate::wire::Addr;

    const KEY: [u64; 4] = [0x0123_4567_89ab_cdef, 0xfeed_face_dead_beef, 42, 0];

    /// Every way that this machine can hash.
    fn hashers() -> Vec<Hasher> {
        let mut all = vec![Hasher::new(KEY, Cpu::portable())];
        if Cpu::detect().aes {
            all.push(Hasher::new(KEY, Cpu::detect()));
        }
        all
    }

    fn v4(lo: u32, hi: u32, lo_id: u16, hi_id: u16) -> FlowKey {
        FlowKey {
            lo: Addr::v4(lo.to_be_bytes()),
            hi: Addr::v4(hi.to_be_bytes()),
            lo_id,
            hi_id,
            zone: 0,
            proto: 6,
            kind: kind::LIVE,
        }
    }

    fn to_bytes(key: &FlowKey) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..16].copy_from_slice(&key.lo.0);
        bytes[16..32].copy_from_slice(&key.hi.0);
        bytes[32..].copy_from_slice(&key.words()[4].to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; 40]) -> FlowKey {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        FlowKey {
            lo: Addr(bytes[..16].try_into().unwrap()),
            hi: Addr(bytes[16..32].try_into().unwrap()),
            lo_id: word(32),
            hi_id: word(34),
            zone: word(36),
            proto: bytes[38],
            kind: bytes[39],
        }
    }

    #[test]
    fn each_bit_of_the_key_turns_about_half_of_the_hash() {
        // Of an IPv4 address the first four bytes, of an IPv6 address all sixteen; then ids, zone, protocol and kind.
        let all = (0..320).map(|bit| (kind::V6, bit));
        let narrow = (0..32).chain(128..160).chain(256..320).map(|bit| (0, bit));
        let bits: Vec<(u8, usize)> = all.chain(narrow).collect();
        for hasher in hashers() {
            for &(family, bit) in &bits {
                let (mut turned, mut per_bit) = (0, [0u32; 64]);
                for n in 0..256u32 {
                    let key = v4(n.wrapping_mul(0x9e37_79b1), n, n as u16, 443);
                    let key = FlowKey { kind: key.kind | family, ..key };
                    let mut bytes = to_bytes(&key);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    let difference = hasher.hash(&key) ^ hasher.hash(&from_bytes(&bytes));
                    turned += difference.count_ones();
                    for (i, count) in per_bit.iter_mut().enumerate() {
                        *count += (difference >> i & 1) as u32;
                    }
                }
                // 16384 coins: half is 8192, the deviation 64; 256 coins: half is 128, the deviation 8.
                assert!((7700..=8700).contains(&turned), "{hasher:?} bit {bit}: {turned} of 16384");
                assert!(per_bit.iter().all(|n| (76..=180).contains(n)), "{hasher:?} bit {bit}: {per_bit:?}");
            }
        }
    }

    #[test]
    fn neighbouring_flows_spread_evenly_over_buckets_and_tags() {
        for hasher in hashers() {
            // One client, one server, every port: the least that real traffic differs by.
            let mut low = vec![0u32; 1024];
            let mut high = vec![0u32; 1024];
            let mut seen = HashSet::new();
            for port in 0..=u16::MAX {
                let hash = hasher.hash(&v4(0x0a00_0001, 0x0a00_0002, port, 80));
                low[(hash & 1023) as usize] += 1;
                high[(hash >> 54) as usize] += 1;
                assert!(seen.insert(hash), "port {port} collides");
            }
            // 64 in each on average, deviation 8.
            for slots in [low, high] {
                let most = slots.iter().max().unwrap();
                let squares: f64 = slots.iter().map(|&n| (f64::from(n) - 64.0).powi(2) / 64.0).sum();
                assert!(*most < 64 + 7 * 8, "{hasher:?}: {most} in one slot");
                // Chi squared with 1023 degrees of freedom has the deviation 45.
                assert!((800.0..1250.0).contains(&squares), "{hasher:?}: chi squared {squares}");
            }
        }
    }

    #[test]
    fn swapped_or_mirrored_endpoints_and_the_family_hash_apart() {
        for hasher in hashers() {
            let key = v4(0x0a00_0001, 0x0a00_0002, 1000, 80);
            let others = [
                FlowKey { lo: key.hi, hi: key.lo, ..key },
                FlowKey { lo_id: key.hi_id, hi_id: key.lo_id, ..key },
                FlowKey { kind: key.kind | kind::V6, ..key },
                FlowKey { kind: key.kind | kind::ASKER_HI, ..key },
                FlowKey { zone: 1, ..key },
                FlowKey { proto: 17, ..key },
            ];
            for other in others {
                assert_ne!(hasher.hash(&key), hasher.hash(&other), "{hasher:?} {other:?}");
            }
            let same: HashSet<u64> = (0..1000).map(|n| hasher.hash(&v4(n, n, 5, 5))).collect();
            assert_eq!(same.len(), 1000, "{hasher:?}: equal endpoints cancel out");
        }
    }

    #[test]
    fn another_secret_gives_another_hash() {
        let key = v4(1, 2, 3, 4);
        for cpu in [Cpu::portable(), Cpu::detect()] {
            let mut seen = HashSet::new();
            for bit in 0..256 {
                let mut secret = [0; 4];
                secret[bit / 64] = 1 << (bit % 64);
                assert!(seen.insert(Hasher::new(secret, cpu).hash(&key)), "secret bit {bit}");
            }
        }
    }
}
