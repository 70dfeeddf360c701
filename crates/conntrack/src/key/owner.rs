//! hash → the worker whose table the flow is in. Owns the table of slots, which is the same for every worker of an
//! appliance; it never sees a packet.
//!
//! The hash is keyed and direction-free, so both directions of a flow have one owner, and nobody without the key can
//! choose addresses and ports that meet on one worker.

/// A worker of the appliance, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u8);

/// The most workers.
pub const WORKERS_MAX: usize = 64;

/// Slots of the table: with [`WORKERS_MAX`] workers each still has 8, and it is 8 cache lines.
pub const SLOTS: usize = 512;

/// The hash bits that choose the slot: 32 to 40. The table's bucket comes from those below, its tag from those above 47.
const SHIFT: u32 = 32;

/// Which worker owns what, as one of them sees it.
#[derive(Clone, Debug)]
pub struct Owners {
    slots: [WorkerId; SLOTS],
    me: WorkerId,
    several: bool,
}

impl Owners {
    /// One worker, which owns everything.
    pub const fn alone() -> Self {
        Self { slots: [WorkerId(0); SLOTS], me: WorkerId(0), several: false }
    }

    /// Slots in proportion to `shares`, one for each worker, as worker `me` sees them. `None` where there are no
    /// shares, more than [`WORKERS_MAX`], none above zero, or none for `me`.
    pub fn shared(shares: &[u16], me: WorkerId) -> Option<Self> {
        let all: u64 = shares.iter().map(|&share| u64::from(share)).sum();
        if shares.len() > WORKERS_MAX || all == 0 || usize::from(me.0) >= shares.len() {
            return None;
        }
        let mut slots = [WorkerId(0); SLOTS];
        let (mut worker, mut below) = (0_u8, u64::from(shares[0]));
        for (number, slot) in slots.iter_mut().enumerate() {
            // The middle of the slot lies in its worker's part of the whole.
            while (2 * number as u64 + 1) * all >= below * 2 * SLOTS as u64 {
                worker += 1;
                below += u64::from(shares[usize::from(worker)]);
            }
            *slot = WorkerId(worker);
        }
        Some(Self { slots, me, several: shares.len() > 1 })
    }

    /// Whether there is anybody else.
    #[inline(always)]
    pub fn are_several(&self) -> bool {
        self.several
    }

    /// The owner of what hashes to `hash`.
    #[inline(always)]
    pub fn of(&self, hash: u64) -> WorkerId {
        self.slots[(hash >> SHIFT) as usize % SLOTS]
    }

    /// The owner, if it is somebody else.
    #[inline(always)]
    pub fn elsewhere(&self, hash: u64) -> Option<WorkerId> {
        let owner = self.of(hash);
        (owner != self.me).then_some(owner)
    }

    /// How many of [`SLOTS`] a worker owns.
    pub fn slots_of(&self, worker: WorkerId) -> usize {
        self.slots.iter().filter(|&&owner| owner == worker).count()
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::key::hash::{Cpu, Hasher};
    use crate::key::{FlowKey, key_of};
    use crate::wire::{Addr, Family, L4, Packet, proto};

    /// Flows of each attack. Every worker's fair share of them is at least 250.
    const FLOWS: usize = 16_384;

    /// Source address and port, and the port at the server.
    type Tuple = (u32, u16, u16);

    fn key(src: u32, sport: u16, dport: u16) -> FlowKey {
        let server = Addr::v4([192, 0, 2, 1]);
        let packet = Packet {
            family: Family::V4,
            src: Addr::v4(src.to_be_bytes()),
            dst: server,
            proto: proto::UDP,
            ip_bytes: 40,
            l4: L4::Udp { sport, dport },
        };
        key_of(&packet, 0).unwrap().key
    }

    /// What an attacker may choose who does not know the key: source addresses and ports, and the port attacked.
    fn attacks() -> Vec<(&'static str, Vec<Tuple>)> {
        let base = 0x0a00_0000;
        let each = |choose: &dyn Fn(u32) -> Tuple| (0..FLOWS as u32).map(choose).collect();
        vec![
            ("one host, every source port", each(&|n| (base, n as u16, 443))),
            // The steering of symmetric Toeplitz: the exclusive or of all 16-bit words stays the same.
            ("address and port cancel out", each(&|n| (base | n, 1024 ^ n as u16, 443))),
            ("both ports cancel out", each(&|n| (base, 1024 ^ n as u16, 443 ^ n as u16))),
            ("ports that differ in one high bit", each(&|n| (base | n >> 1, (n as u16) << 15, 443))),
            (
                "every 512th port of every 512th address",
                each(&|n| (base | (n / 128) << 9, (n as u16) << 9, 443)),
            ),
        ]
    }

    fn random_keys() -> impl Iterator<Item = [u64; 4]> {
        // SplitMix64, seeded: a red run can be repeated.
        let mut state = 0x5eed_u64;
        let mut next = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        (0..20).map(move |_| [next(), next(), next(), next()])
    }

    /// The fullest worker's part of an attack's flows, as a multiple of its fair share.
    fn worst(flows: &[Tuple], workers: usize, owner: impl Fn(&Tuple) -> usize) -> f64 {
        let mut load = vec![0_u32; workers];
        for flow in flows {
            load[owner(flow)] += 1;
        }
        f64::from(*load.iter().max().unwrap()) * workers as f64 / flows.len() as f64
    }

    #[test]
    fn nobody_without_the_key_steers_more_than_twice_a_fair_share_onto_a_worker() {
        for secret in random_keys() {
            for cpu in [Cpu::portable(), Cpu::detect()] {
                let hasher = Hasher::new(secret, cpu);
                for workers in [2, 4, 16, WORKERS_MAX] {
                    let owners = Owners::shared(&vec![1; workers], WorkerId(0)).unwrap();
                    for (attack, flows) in attacks() {
                        let worst = worst(&flows, workers, |&(src, sport, dport)| {
                            usize::from(owners.of(hasher.hash(&key(src, sport, dport))).0)
                        });
                        assert!(worst <= 2.0, "{attack}: {worst:.2} fair shares of {workers} workers");
                    }
                }
            }
        }
    }

    /// Toeplitz over a UDP packet's addresses and ports, by a key that repeats every 16 bits, as NICs compute it.
    /// (Microsoft, "RSS hashing functions"; the key is Woo and Park's symmetric one.)
    fn weak_toeplitz(src: u32, sport: u16, dport: u16) -> u32 {
        let input = u128::from(src) << 64
            | u128::from(0xc000_0201_u32) << 32
            | u128::from(sport) << 16
            | u128::from(dport);
        let window = |bit: u32| (0x6d5a_6d5a_u32).rotate_left(bit % 16);
        (0..96).filter(|bit| input >> (95 - bit) & 1 == 1).fold(0, |hash, bit| hash ^ window(bit))
    }

    #[test]
    fn the_weak_toeplitz_key_is_steered_completely() {
        let (_, flows) = attacks().swap_remove(1);
        // 128 slots, as many NICs have.
        let worst =
            worst(&flows, 128, |&(src, sport, dport)| weak_toeplitz(src, sport, dport) as usize % 128);
        assert_eq!(worst, 128.0, "all of it in one slot");
    }

    #[test]
    fn slots_follow_the_shares() {
        for shares in [&[1][..], &[1, 1], &[1, 3], &[0, 1], &[5, 0, 0, 3], &[1; WORKERS_MAX], &[u16::MAX; 3]]
        {
            let all: f64 = shares.iter().map(|&share| f64::from(share)).sum();
            let owners = Owners::shared(shares, WorkerId(0)).unwrap();
            for (worker, &share) in shares.iter().enumerate() {
                let want = f64::from(share) / all * SLOTS as f64;
                let have = owners.slots_of(WorkerId(worker as u8)) as f64;
                assert!((have - want).abs() <= 1.0, "{shares:?}: {have} slots for {want}");
            }
        }
        assert!(Owners::shared(&[], WorkerId(0)).is_none());
        assert!(Owners::shared(&[0, 0], WorkerId(0)).is_none());
        assert!(Owners::shared(&[1, 1], WorkerId(2)).is_none());
        assert!(Owners::shared(&[1; WORKERS_MAX + 1], WorkerId(0)).is_none());
    }

    #[test]
    fn everybody_agrees_on_the_owner_and_only_the_owner_keeps() {
        let hasher = Hasher::new([1, 2, 3, 4], Cpu::portable());
        let views: Vec<_> = (0..3).map(|me| Owners::shared(&[2, 1, 4], WorkerId(me)).unwrap()).collect();
        for port in 0..1000 {
            let hash = hasher.hash(&key(1, port, 53));
            let keepers = views.iter().filter(|view| view.elsewhere(hash).is_none()).count();
            assert_eq!(keepers, 1);
            assert!(views.iter().all(|view| view.of(hash) == views[0].of(hash)));
        }
        assert_eq!(Owners::alone().elsewhere(u64::MAX), None);
    }
}
