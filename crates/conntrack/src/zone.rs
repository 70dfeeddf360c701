//! Between rooms 1 and 2: where a packet was met (port, VLAN tags, tunnel) → its zone; and how many flows each zone
//! holds and may hold. Shared by the trackers of all workers; sees no flow and no packet's addresses but a tunnel's.
//!
//! A zone has 16 bits and two VLAN tags have 24, so zones of their own are handed out to pairs of tags as they are met,
//! out of a table that every worker reads and extends without a lock. When no zone is left the frame is refused: two
//! VLANs never share one unless the operator says so.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use crate::key::FlowKey;
use crate::key::hash::{Cpu, Hasher};
use crate::wire::{Addr, Tags};

/// The first zone that is handed out as its tags are met; below it are the VLANs' own numbers.
pub const LEARNED_FIRST: u16 = 4096;

const SLOTS: usize = 65_536 - LEARNED_FIRST as usize;

/// So many zones are handed out at most: the table is never much more than half full, and searches stay short.
pub const LEARNED_MAX: u32 = 32_768;

/// Of these, tunnels get so many at most: whoever may send what looks like ever new ones leaves VLANs the rest.
pub const TUNNELS_MAX: u32 = LEARNED_MAX / 2;

/// The slots that a search looks at, at most: what is not found in so many is refused.
const PROBES: usize = 128;

/// A slot whose zone the operator has named, or a port has: never handed out.
const RESERVED: u64 = u64::MAX;

/// What stands in a slot for a pair of tags, beside the tags; a tunnel's has the highest bit instead.
const VLAN_MARK: u64 = 1 << 62;
const TUNNEL_MARK: u64 = 1 << 63;

/// Nobody has asked for what stands in the slot since [`Zones::fade`]; whoever does takes the mark off.
const FADING_MARK: u64 = 1 << 61;

/// A zone was taken back here. Searches go on behind it, and may take it for a word that stands nowhere.
const LEFT: u64 = 1;

/// Searches that find what they want taken away by others, at most.
const TRIES: usize = 8;

/// What tells zones apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Nothing: all is one zone, tags are looked behind.
    Nothing,
    /// The port alone.
    Port,
    /// The VLAN alone: tags have the same zone on every port.
    #[default]
    Vlan,
    /// Both: tags belong to the zone of their port's untagged frames.
    PortVlan,
}

/// Tags, and the zone that untagged frames of their port have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub port_zone: u16,
    pub tags: Tags,
}

/// How zones are chosen, fixed at start.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub by: By,
    /// Places whose zone the operator has named.
    pub listed: Vec<(Place, u16)>,
    /// Zones that are not to be handed out, such as those of ports.
    pub reserved: Vec<u16>,
    /// Flows in each zone at most; 0 for no limit.
    pub default_limit: u32,
    /// Track what tunnels carry.
    pub inner: bool,
}

/// The kinds of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TunnelKind {
    Vxlan = 1,
    Geneve,
    Gre,
    /// IPv4 or IPv6 directly in IP.
    Ip,
}

impl TunnelKind {
    const ALL: [Self; 4] = [Self::Vxlan, Self::Geneve, Self::Gre, Self::Ip];

    /// As `ip link` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::Ip => "ipip",
        }
    }
}

/// What tells one tunnel from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub kind: TunnelKind,
    /// VXLAN's and GENEVE's network; GRE's key; else 0.
    pub id: u32,
    /// The tunnel's ends. A VXLAN or GENEVE network is one whatever ends its packets travel between, and has none here.
    pub ends: Option<[Addr; 2]>,
}

/// Where a zone comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A port's untagged frames, or a number that only limits know.
    Port,
    Vlan(Place),
    /// In the zone of its outer packets.
    Tunnel {
        kind: TunnelKind,
        id: u32,
        outer: u16,
    },
}

/// How full a zone is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Flows now.
    pub count: u32,
    /// Flows at most; 0 for no limit.
    pub limit: u32,
    /// New flows refused at the limit, since the start.
    pub refused: u64,
}

/// A zone's limit and the flows that were counted against it.
#[derive(Debug)]
struct Account {
    /// [`FOLLOWS`] or the zone's own limit.
    limit: AtomicU32,
    /// Flows made while there was a limit. All that end, and those made without one, are in the workers' counts.
    admitted: AtomicI32,
    refused: AtomicU64,
}

/// The zone follows the default limit.
const FOLLOWS: u32 = u32::MAX;

/// All zones of an appliance.
#[derive(Debug)]
pub struct Zones {
    by: By,
    inner: bool,
    /// In order of their places.
    listed: Box<[(u64, u16)]>,
    /// What each zone from [`LEARNED_FIRST`] on was handed out to.
    slots: Box<[AtomicU64]>,
    /// Of tunnels, whose slot only holds a hash: what an operator wants to read.
    tunnels: Box<[AtomicU64]>,
    learned: AtomicU32,
    /// Of these, tunnels'.
    learned_tunnels: AtomicU32,
    /// No zone is handed out while some are taken back.
    frozen: AtomicBool,
    default_limit: AtomicU32,
    accounts: Box<[Account]>,
    /// By worker, then by zone: flows made there without a limit, less flows that ended there.
    counts: Box<[Box<[AtomicI32]>]>,
    hasher: Hasher,
}

impl Zones {
    /// For `workers` trackers. About 1.9 MiB, and 256 KiB for each worker. `secret` is random per boot: nobody can
    /// make two tunnels that meet in one zone.
    pub fn new(rules: &Rules, workers: usize, secret: [u64; 4]) -> Arc<Self> {
        let mut listed: Vec<(u64, u16)> =
            rules.listed.iter().map(|(place, zone)| (word_of(*place), *zone)).collect();
        listed.sort_unstable();
        let zones = Self {
            by: rules.by,
            inner: rules.inner,
            listed: listed.into_boxed_slice(),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            tunnels: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            learned: AtomicU32::new(0),
            learned_tunnels: AtomicU32::new(0),
            frozen: AtomicBool::new(false),
            default_limit: AtomicU32::new(rules.default_limit),
            accounts: (0..=u16::MAX)
                .map(|_| Account {
                    limit: AtomicU32::new(FOLLOWS),
                    admitted: AtomicI32::new(0),
                    refused: AtomicU64::new(0),
                })
                .collect(),
            counts: (0..workers).map(|_| (0..=u16::MAX).map(|_| AtomicI32::new(0)).collect()).collect(),
            hasher: Hasher::new(secret, Cpu::detect()),
        };
        let named = rules.listed.iter().map(|(_, zone)| *zone);
        for zone in named.chain(rules.reserved.iter().copied()) {
            if let Some(slot) = zones.slot(zone) {
                slot.store(RESERVED, Ordering::Relaxed);
            }
        }
        Arc::new(zones)
    }

    /// One worker's part in them; each number once.
    pub fn member(self: &Arc<Self>, worker: usize) -> Member {
        debug_assert!(worker < self.counts.len(), "made for fewer workers");
        Member { zones: Arc::clone(self), worker }
    }

    /// What tells these zones apart.
    pub fn by(&self) -> By {
        self.by
    }

    /// The zone of a packet with these tags on a port whose untagged frames are in `port_zone`; `None` if none is left, or
    /// if they have none yet and `may_learn` says that they shall get none.
    pub fn of_tags(&self, port_zone: u16, tags: Tags, may_learn: bool) -> Option<u16> {
        match self.by {
            By::Nothing | By::Port => return Some(port_zone),
            By::Vlan | By::PortVlan => {}
        }
        if tags == Tags::NONE {
            return Some(port_zone);
        }
        let word = word_of(Place { port_zone, tags });
        if let Ok(at) = self.listed.binary_search_by_key(&word, |(place, _)| *place) {
            return self.listed.get(at).map(|(_, zone)| *zone);
        }
        if port_zone == 0 && tags.inner() == 0 {
            return Some(tags.outer());
        }
        self.learn(word, 0, may_learn)
    }

    /// Whether what tunnels carry is tracked.
    #[inline(always)]
    pub fn inner(&self) -> bool {
        self.inner
    }

    /// The zone of what a tunnel carries, whose own packets are in `outer`; `None` as in [`Zones::of_tags`].
    pub fn of_tunnel(&self, outer: u16, tunnel: &Tunnel, may_learn: bool) -> Option<u16> {
        let Tunnel { kind, id, ends } = *tunnel;
        let [a, b] = ends.unwrap_or_default();
        // One key for both directions, as a flow's.
        let (lo, hi) = if a <= b { (a, b) } else { (b, a) };
        let key = FlowKey {
            lo,
            hi,
            lo_id: id as u16,
            hi_id: (id >> 16) as u16,
            zone: outer,
            proto: kind as u8,
            kind: 0,
        };
        let about = u64::from(kind as u8) << 48 | u64::from(outer) << 32 | u64::from(id);
        // All ones but the mark could be taken for a reserved slot; one less is as good a hash.
        let word = ((self.hasher.hash(&key) | TUNNEL_MARK) & !FADING_MARK).min((RESERVED & !FADING_MARK) - 1);
        self.learn(word, about, may_learn)
    }

    /// The zone that `word` has, or has from now on. All who look for one word take the same way, and the first free slot
    /// on it; slots become free only while nobody takes any (see [`Zones::reap`]), so that they meet in one.
    fn learn(&self, word: u64, about: u64, may_learn: bool) -> Option<u16> {
        // Asked before the search: whoever takes slots back has waited for those who found it open.
        let may_learn = may_learn && !self.frozen.load(Ordering::Acquire);
        for _ in 0..TRIES {
            match self.search(word) {
                Ok(at) => return u16::try_from(at + usize::from(LEARNED_FIRST)).ok(),
                Err(Some((at, free))) if may_learn => {
                    if !self.claim(at, free, word, about)? {
                        continue;
                    }
                    return u16::try_from(at + usize::from(LEARNED_FIRST)).ok();
                }
                Err(_) => return None,
            }
        }
        None
    }

    /// The slot of `word`; or the first that it could have, and what marks that as free.
    fn search(&self, word: u64) -> Result<usize, Option<(usize, u64)>> {
        let start = spread(word);
        let mut free = None;
        for step in 0..PROBES {
            let at = (start + step) % SLOTS;
            let Some(slot) = self.slots.get(at) else { return Err(None) };
            let found = slot.load(Ordering::Acquire);
            // Who takes the mark off and who takes the slot back: one of them comes first.
            let stays = |found| {
                found == word
                    || slot.compare_exchange(found, word, Ordering::AcqRel, Ordering::Acquire).is_ok()
            };
            if found & !FADING_MARK == word && (stays(found) || slot.load(Ordering::Acquire) == word) {
                return Ok(at);
            }
            if matches!(found, 0 | LEFT) {
                free = free.or(Some((at, found)));
            }
            if found == 0 {
                break;
            }
        }
        Err(free)
    }

    /// Takes a free slot; false if somebody else has taken it, `None` if there are zones enough.
    fn claim(&self, at: usize, free: u64, word: u64, about: u64) -> Option<bool> {
        let tunnel = word & TUNNEL_MARK != 0;
        let take = |count: &AtomicU32, most| {
            let one_more = count.fetch_add(1, Ordering::Relaxed) < most;
            if !one_more {
                count.fetch_sub(1, Ordering::Relaxed);
            }
            one_more
        };
        if !take(&self.learned, LEARNED_MAX) {
            return None;
        }
        if tunnel && !take(&self.learned_tunnels, TUNNELS_MAX) {
            self.learned.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let taken =
            self.slots.get(at)?.compare_exchange(free, word, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if taken && about != 0 {
            self.tunnels.get(at)?.store(about, Ordering::Release);
        }
        if !taken {
            self.forget(tunnel);
        }
        Some(taken)
    }

    fn forget(&self, tunnel: bool) {
        self.learned.fetch_sub(1, Ordering::Relaxed);
        if tunnel {
            self.learned_tunnels.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Marks every zone that was handed out, holds no flow and has no limit of its own. What is asked for afterwards
    /// loses the mark.
    pub fn fade(&self) {
        for (slot, zone) in self.slots.iter().zip(LEARNED_FIRST..=u16::MAX) {
            let word = slot.load(Ordering::Acquire);
            if !is_learned(word) || word & FADING_MARK != 0 || !self.is_idle(zone) {
                continue;
            }
            // Taken or asked for meanwhile: then it is not idle.
            let _ = slot.compare_exchange(word, word | FADING_MARK, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Whether [`Zones::reap`] would take any zone back.
    pub fn any_faded(&self) -> bool {
        self.slots.iter().any(|slot| is_faded(slot.load(Ordering::Relaxed)))
    }

    /// Has no zone handed out until [`Zones::thaw`].
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
    }

    /// Zones are handed out again.
    pub fn thaw(&self) {
        self.frozen.store(false, Ordering::Release);
    }

    /// Takes back every zone that still bears the mark of [`Zones::fade`]; gives how many. To be called while zones are
    /// frozen, after every worker has ended the burst that it was at when that began, and longer after `fade` than
    /// fragments wait: then nobody uses their numbers.
    pub fn reap(&self) -> u32 {
        let mut taken_back = 0;
        for (slot, zone) in self.slots.iter().zip(LEARNED_FIRST..=u16::MAX) {
            let word = slot.load(Ordering::Acquire);
            if !is_faded(word)
                || !self.is_idle(zone)
                || slot.compare_exchange(word, LEFT, Ordering::AcqRel, Ordering::Acquire).is_err()
            {
                continue;
            }
            if let Some(about) = self.tunnels.get(usize::from(zone - LEARNED_FIRST)) {
                about.store(0, Ordering::Release);
            }
            self.account(zone).refused.store(0, Ordering::Relaxed);
            self.forget(word & TUNNEL_MARK != 0);
            taken_back += 1;
        }
        self.shorten();
        taken_back
    }

    /// What was left at the end of a way becomes the end. Nobody takes a slot meanwhile, so nothing stands behind it.
    fn shorten(&self) {
        // Ways lead around the end: twice.
        for at in (0..SLOTS).rev().chain((0..SLOTS).rev()) {
            let (Some(slot), Some(next)) = (self.slots.get(at), self.slots.get((at + 1) % SLOTS)) else {
                return;
            };
            if slot.load(Ordering::Acquire) == LEFT && next.load(Ordering::Acquire) == 0 {
                slot.store(0, Ordering::Release);
            }
        }
    }

    fn is_idle(&self, zone: u16) -> bool {
        self.usage(zone).count == 0 && !self.has_own_limit(zone)
    }

    fn slot(&self, zone: u16) -> Option<&AtomicU64> {
        self.slots.get(usize::from(zone.checked_sub(LEARNED_FIRST)?))
    }

    /// Zones handed out until now.
    pub fn learned(&self) -> u32 {
        self.learned.load(Ordering::Relaxed)
    }

    /// Where a zone comes from.
    pub fn origin(&self, zone: u16) -> Origin {
        let word = self.slot(zone).map_or(0, |slot| slot.load(Ordering::Acquire));
        let word = if word == RESERVED { word } else { word & !FADING_MARK };
        if word & TUNNEL_MARK != 0 && word != RESERVED {
            let at = usize::from(zone - LEARNED_FIRST);
            let about = self.tunnels.get(at).map_or(0, |about| about.load(Ordering::Acquire));
            let kind = TunnelKind::ALL.into_iter().find(|kind| *kind as u64 == about >> 48);
            // Between taking a slot and describing it lies a moment in which nothing is known of it.
            return kind.map_or(Origin::Port, |kind| Origin::Tunnel {
                kind,
                id: about as u32,
                outer: (about >> 32) as u16,
            });
        }
        if word & VLAN_MARK != 0 && word != RESERVED {
            return Origin::Vlan(place_of(word));
        }
        if let Some((word, _)) = self.listed.iter().find(|(_, listed)| *listed == zone) {
            return Origin::Vlan(place_of(*word));
        }
        let own = matches!(self.by, By::Vlan | By::PortVlan) && (1..LEARNED_FIRST).contains(&zone);
        if own { Origin::Vlan(Place { port_zone: 0, tags: Tags::new([zone, 0]) }) } else { Origin::Port }
    }

    /// Limits one zone (0: no limit), or has it follow the default again. Flows that are there stay.
    pub fn set_limit(&self, zone: u16, limit: Option<u32>) {
        // One less than the greatest number is as good as no limit.
        let word = limit.map_or(FOLLOWS, |limit| if limit == FOLLOWS { 0 } else { limit });
        self.account(zone).limit.store(word, Ordering::Relaxed);
    }

    /// Limits every zone that has no limit of its own; 0 for no limit.
    pub fn set_default_limit(&self, limit: u32) {
        self.default_limit.store(limit, Ordering::Relaxed);
    }

    /// What holds for zones without a limit of their own.
    pub fn default_limit(&self) -> u32 {
        self.default_limit.load(Ordering::Relaxed)
    }

    /// Whether the zone has a limit of its own.
    pub fn has_own_limit(&self, zone: u16) -> bool {
        self.account(zone).limit.load(Ordering::Relaxed) != FOLLOWS
    }

    /// How full the zone is.
    pub fn usage(&self, zone: u16) -> Usage {
        let account = self.account(zone);
        let admitted = account.admitted.load(Ordering::Relaxed);
        Usage {
            count: self.count(zone, admitted),
            limit: self.limit(account),
            refused: account.refused.load(Ordering::Relaxed),
        }
    }

    fn account(&self, zone: u16) -> &Account {
        // One for every number of 16 bits.
        &self.accounts[usize::from(zone)]
    }

    #[inline(always)]
    fn limit(&self, account: &Account) -> u32 {
        match account.limit.load(Ordering::Relaxed) {
            FOLLOWS => self.default_limit.load(Ordering::Relaxed),
            own => own,
        }
    }

    /// Flows of a zone, `admitted` of which met a limit.
    fn count(&self, zone: u16, admitted: i32) -> u32 {
        let own =
            |counts: &[AtomicI32]| counts.get(usize::from(zone)).map_or(0, |own| own.load(Ordering::Relaxed));
        let sum = self.counts.iter().fold(admitted, |sum, counts| sum.wrapping_add(own(counts)));
        // A sum over counts that others change meanwhile can be short by what they just ended.
        sum.max(0) as u32
    }
}

/// One worker's part in the zones: it alone writes its counts.
#[derive(Debug)]
pub struct Member {
    zones: Arc<Zones>,
    worker: usize,
}

impl Member {
    /// The zones that it is a part of.
    #[inline(always)]
    pub fn zones(&self) -> &Zones {
        &self.zones
    }

    /// Counts a flow that is about to be made; false if the zone is full, and the flow must not be made.
    #[inline]
    pub fn admit(&self, zone: u16) -> bool {
        let account = self.zones.account(zone);
        let limit = self.zones.limit(account);
        if limit == 0 {
            self.add(zone, 1);
            return true;
        }
        self.admit_below(zone, account, limit)
    }

    /// All who try count themselves first and look then: near the limit two may refuse each other, and none is let in
    /// beyond it.
    fn admit_below(&self, zone: u16, account: &Account, limit: u32) -> bool {
        let admitted = account.admitted.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        if self.zones.count(zone, admitted) <= limit {
            return true;
        }
        account.admitted.fetch_sub(1, Ordering::AcqRel);
        account.refused.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Forgets a flow that has ended, or was not made after all.
    #[inline]
    pub fn leave(&self, zone: u16) {
        self.add(zone, -1);
    }

    #[inline(always)]
    fn add(&self, zone: u16, more: i32) {
        // Only this worker writes here: a load and a store, and no locked instruction.
        let own = &self.zones.counts[self.worker][usize::from(zone)];
        own.store(own.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }
}

/// Whether a slot was handed out.
fn is_learned(word: u64) -> bool {
    word != RESERVED && word & (VLAN_MARK | TUNNEL_MARK) != 0
}

fn is_faded(word: u64) -> bool {
    is_learned(word) && word & FADING_MARK != 0
}

/// A place as one word, exactly.
fn word_of(place: Place) -> u64 {
    let Place { port_zone, tags } = place;
    VLAN_MARK | u64::from(port_zone) << 24 | u64::from(tags.outer()) << 12 | u64::from(tags.inner())
}

fn place_of(word: u64) -> Place {
    let id = |shift: u32| (word >> shift) as u16 & 0xfff;
    Place { port_zone: (word >> 24) as u16, tags: Tags::new([id(12), id(0)]) }
}

/// Where the search for a word starts: the high half of a product with 2^64 / golden ratio, scaled. Not keyed, so that
/// tags have the same zone after the next start, if no others came before them.
fn spread(word: u64) -> usize {
    let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (mixed as usize * SLOTS) >> 32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn zones(rules: &Rules) -> Arc<Zones> {
        Zones::new(rules, 2, [1, 2, 3, 4])
    }

    fn tags(outer: u16, inner: u16) -> Tags {
        Tags::new([outer, inner])
    }

    #[test]
    fn a_single_tag_is_its_own_zone_and_untagged_is_zone_0() {
        let zones = zones(&Rules::default());
        assert_eq!(zones.of_tags(0, Tags::NONE, true), Some(0));
        for vlan in 1..4096 {
            assert_eq!(zones.of_tags(0, tags(vlan, 0), true), Some(vlan));
        }
        assert_eq!(zones.learned(), 0);
        assert_eq!(zones.origin(77), Origin::Vlan(Place { port_zone: 0, tags: tags(77, 0) }));
        assert_eq!(zones.origin(0), Origin::Port);
    }

    #[test]
    fn what_is_not_told_apart_shares_its_ports_zone() {
        for by in [By::Nothing, By::Port] {
            let zones = zones(&Rules { by, ..Rules::default() });
            assert_eq!(zones.of_tags(3, tags(7, 8), true), Some(3), "{by:?}");
        }
    }

    #[test]
    fn pairs_of_tags_get_zones_that_no_vlan_port_or_listed_place_has() {
        let listed = Vec::from([(Place { port_zone: 0, tags: tags(5, 6) }, 5000)]);
        let rules = Rules { by: By::PortVlan, listed, reserved: Vec::from([4096, 4097]), ..Rules::default() };
        let zones = zones(&rules);
        assert_eq!(zones.of_tags(0, tags(5, 6), true), Some(5000));
        let mut met =
            HashMap::from([(5000, (0, tags(5, 6))), (4096, (1, Tags::NONE)), (4097, (2, Tags::NONE))]);
        for port_zone in [0, 4096, 4097] {
            for outer in 1..40 {
                for inner in 0..40 {
                    let place = (port_zone, tags(outer, inner));
                    let zone = zones.of_tags(place.0, place.1, true).unwrap();
                    let other = met.insert(zone, place).filter(|other| *other != place);
                    assert_eq!(other, None, "zone {zone} has {place:?} too");
                    if zone >= LEARNED_FIRST && zone != 5000 {
                        assert_eq!(zones.origin(zone), Origin::Vlan(Place { port_zone, tags: place.1 }));
                    }
                }
            }
        }
    }

    #[test]
    fn no_two_places_share_a_zone_however_many_there_are() {
        let zones = zones(&Rules::default());
        let (mut met, mut refused) = (HashMap::new(), 0);
        for outer in 1..300 {
            for inner in 1..150 {
                match zones.of_tags(0, tags(outer, inner), true) {
                    Some(zone) => assert_eq!(met.insert(zone, (outer, inner)), None),
                    None => refused += 1,
                }
            }
        }
        assert_eq!((met.len() as u32, zones.learned()), (LEARNED_MAX, LEARNED_MAX));
        assert_eq!(refused, 299 * 149 - LEARNED_MAX);
        for (zone, (outer, inner)) in met {
            assert_eq!(zones.of_tags(0, tags(outer, inner), true), Some(zone), "what has a zone keeps it");
        }
    }

    #[test]
    fn what_may_not_be_learned_is_found_once_another_has_it_learned() {
        let zones = zones(&Rules::default());
        assert_eq!(zones.of_tags(0, tags(7, 8), false), None);
        assert_eq!(zones.learned(), 0);
        let zone = zones.of_tags(0, tags(7, 8), true);
        assert_eq!(zones.of_tags(0, tags(7, 8), false), zone);
        assert_eq!(zones.of_tags(0, tags(7, 0), false), Some(7), "a single tag needs no learning");
    }

    #[test]
    fn tunnels_are_told_apart_and_both_directions_are_one() {
        let zones = zones(&Rules { inner: true, ..Rules::default() });
        let (a, b, c) = (Addr::v4([1; 4]), Addr::v4([2; 4]), Addr::v4([3; 4]));
        let tunnel = |kind, id, ends| Tunnel { kind, id, ends };
        let all = [
            tunnel(TunnelKind::Vxlan, 1, None),
            tunnel(TunnelKind::Vxlan, 2, None),
            tunnel(TunnelKind::Geneve, 1, None),
            tunnel(TunnelKind::Gre, 0, Some([a, b])),
            tunnel(TunnelKind::Gre, 1 << 16, Some([a, b])),
            tunnel(TunnelKind::Gre, 0, Some([a, c])),
            tunnel(TunnelKind::Ip, 0, Some([a, b])),
        ];
        let mut met: Vec<u16> = all.iter().map(|tunnel| zones.of_tunnel(0, tunnel, true).unwrap()).collect();
        met.push(zones.of_tunnel(9, &all[0], true).unwrap());
        let mut apart = met.clone();
        apart.sort_unstable();
        apart.dedup();
        assert_eq!(apart.len(), met.len(), "{met:?}");
        assert_eq!(zones.of_tunnel(0, &tunnel(TunnelKind::Gre, 0, Some([b, a])), true), Some(met[3]));
        let origin = Origin::Tunnel { kind: TunnelKind::Gre, id: 1 << 16, outer: 0 };
        assert_eq!(zones.origin(met[4]), origin);
    }

    #[test]
    fn threads_that_meet_the_same_tags_at_once_agree() {
        let zones = zones(&Rules::default());
        let found: Vec<Vec<u16>> = std::thread::scope(|scope| {
            let look = |zones: Arc<Zones>| {
                move || {
                    (1..3000).map(|i| zones.of_tags(0, tags(1 + i % 50, 1 + i / 50), true).unwrap()).collect()
                }
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(look(Arc::clone(&zones)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(found.iter().all(|other| *other == found[0]));
        assert_eq!(zones.learned(), 2999);
    }

    fn round(zones: &Zones) -> u32 {
        zones.freeze();
        let taken_back = zones.reap();
        zones.thaw();
        zones.fade();
        taken_back
    }

    #[test]
    fn a_zone_that_nobody_asks_for_is_taken_back_and_one_in_use_is_not() {
        let zones = zones(&Rules { inner: true, ..Rules::default() });
        let of = |inner: u16| zones.of_tags(0, tags(7, inner), true).unwrap();
        let tunnel = Tunnel { kind: TunnelKind::Vxlan, id: 5, ends: None };
        let (asked, filled, limited, idle) = (of(1), of(2), of(3), of(4));
        let carried = zones.of_tunnel(0, &tunnel, true).unwrap();
        let member = zones.member(1);
        assert!(member.admit(filled));
        zones.set_limit(limited, Some(9));
        assert_eq!((round(&zones), zones.any_faded()), (0, true));
        assert_eq!(zones.origin(idle), Origin::Vlan(Place { port_zone: 0, tags: tags(7, 4) }));
        assert_eq!(of(1), asked);
        assert_eq!((round(&zones), zones.learned()), (2, 3));
        assert_eq!([idle, carried].map(|zone| zones.origin(zone)), [Origin::Port; 2]);
        assert_eq!((of(1), of(2), of(3)), (asked, filled, limited));
        assert_eq!(zones.of_tags(0, tags(7, 4), false), None);
        assert_eq!((of(4), zones.of_tunnel(0, &tunnel, true)), (idle, Some(carried)), "free again");
        member.leave(filled);
        zones.set_limit(limited, None);
        assert_eq!((round(&zones), round(&zones)), (0, 5));
        assert_eq!(zones.learned(), 0);
        zones.freeze();
        assert_eq!(zones.of_tags(0, tags(7, 1), true), None);
    }

    #[test]
    fn all_zones_can_be_used_up_again_and_again_and_tunnels_leave_half() {
        let zones = zones(&Rules { inner: true, ..Rules::default() });
        let vxlan = |id| zones.of_tunnel(0, &Tunnel { kind: TunnelKind::Vxlan, id, ends: None }, true);
        for turn in 0..3 {
            let base = turn * 100_000;
            let found = (base..base + TUNNELS_MAX + 100).filter(|id| vxlan(*id).is_some()).count() as u32;
            assert_eq!(found, TUNNELS_MAX);
            let pairs =
                || (0..TUNNELS_MAX as u16).map(|n| tags(1 + n / 100, 1 + n % 100 + 100 * turn as u16));
            assert!(pairs().all(|pair| zones.of_tags(0, pair, true).is_some()));
            assert_eq!(zones.learned(), LEARNED_MAX);
            round(&zones);
            assert_eq!((round(&zones), zones.learned()), (LEARNED_MAX, 0));
            assert!(zones.slots.iter().all(|slot| slot.load(Ordering::Relaxed) == 0), "ways are short again");
        }
    }

    /// Words that go about the same way.
    fn near() -> &'static [u64] {
        static NEAR: std::sync::OnceLock<Vec<u64>> = std::sync::OnceLock::new();
        NEAR.get_or_init(|| {
            let words = (0..1 << 20).map(|n| VLAN_MARK | n);
            words.filter(|word| spread(*word).abs_diff(spread(VLAN_MARK)) < 12).take(60).collect()
        })
    }

    proptest! {
        // A round goes over all zones, and a case makes them.
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn what_has_a_zone_keeps_it_until_it_is_taken_back_and_shares_it_with_nobody(
            // Few starts, so that ways cross.
            steps in prop::collection::vec((0_u64..60, 0_u8..20), 1..150)
        ) {
            let zones = zones(&Rules::default());
            let near = near();
            // The zone, and whether it was asked for since the last fading.
            let mut model: HashMap<u64, (u16, bool)> = HashMap::new();
            for (n, what) in steps {
                if what == 0 {
                    let before = model.len();
                    model.retain(|_, (_, asked)| *asked);
                    prop_assert_eq!(round(&zones) as usize, before - model.len());
                    model.values_mut().for_each(|(_, asked)| *asked = false);
                    continue;
                }
                let word = near[n as usize % near.len()];
                let zone = zones.learn(word, 0, true).unwrap();
                prop_assert!(model.iter().all(|(other, (taken, _))| *taken != zone || *other == word));
                let known = model.entry(word).or_insert((zone, true));
                prop_assert_eq!(known.0, zone);
                known.1 = true;
            }
            prop_assert_eq!(zones.learned() as usize, model.len());
        }
    }

    #[test]
    fn a_limit_holds_over_all_workers_and_can_come_and_go() {
        let zones = zones(&Rules::default());
        let (one, two) = (zones.member(0), zones.member(1));
        for _ in 0..3 {
            assert!(one.admit(5) && two.admit(5));
        }
        zones.set_limit(5, Some(7));
        assert!(two.admit(5));
        assert!(!one.admit(5) && !two.admit(5));
        assert_eq!(zones.usage(5), Usage { count: 7, limit: 7, refused: 2 });
        // Made without a limit, ended with one, by another worker than the one that is refused.
        one.leave(5);
        assert!(two.admit(5));
        assert!(!two.admit(5));
        zones.set_limit(5, Some(0));
        assert!(one.admit(5));
        zones.set_limit(5, None);
        zones.set_default_limit(8);
        assert!(!one.admit(5));
        assert!(one.admit(6), "a limit holds for each zone");
        assert_eq!(zones.usage(5).count, 8);
    }

    #[test]
    fn two_workers_at_the_limit_never_get_beyond_it() {
        let zones = zones(&Rules { default_limit: 100, ..Rules::default() });
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let member = zones.member(worker);
                scope.spawn(move || {
                    let mut mine = 0;
                    for turn in 0..200_000_u32 {
                        if member.admit(1) {
                            mine += 1;
                        }
                        // What was let in is counted in full: ours cannot be more than all.
                        assert!(mine <= 100);
                        if mine > 0 && turn % 3 == 0 {
                            member.leave(1);
                            mine -= 1;
                        }
                    }
                });
            }
        });
        let usage = zones.usage(1);
        assert!((1..=100).contains(&usage.count), "{usage:?}");
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_plain_model(
            steps in prop::collection::vec((0usize..2, 0u16..3, prop::bool::weighted(0.6), 0u32..6), 1..200)
        ) {
            let zones = zones(&Rules::default());
            let members = [zones.member(0), zones.member(1)];
            let (mut model, mut limits) = ([0_u32; 3], [0_u32; 3]);
            for (number, (worker, zone, come, limit)) in steps.into_iter().enumerate() {
                let at = usize::from(zone);
                if number % 7 == 0 {
                    zones.set_limit(zone, Some(limit));
                    limits[at] = limit;
                }
                if come {
                    let room = limits[at] == 0 || model[at] < limits[at];
                    prop_assert_eq!(members[worker].admit(zone), room);
                    model[at] += u32::from(room);
                } else if model[at] > 0 {
                    members[worker].leave(zone);
                    model[at] -= 1;
                }
                prop_assert_eq!(zones.usage(zone).count, model[at]);
            }
        }
    }
}
