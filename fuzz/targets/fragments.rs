//! Any sequence of fragments: what is put together equals a plain model's bytes, every name that frames were held under
//! is released or given up exactly once, and no limit is passed.
#![no_main]

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use conntrack::fragment::{Fragments, HeldId, Reassembly};
use conntrack::key::hash::{Cpu, Hasher};
use conntrack::tick::{Tick, Ticks};
use conntrack::wire::{Addr, Family, Fragment, proto};
use conntrack_fuzz::input::Many;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    max_datagrams: u8,
    commands: Many<Command>,
}

#[derive(Debug)]
enum Command {
    Add(Piece),
    Wait(u16),
    Expire(u8),
    TakeDiscarded,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    key: Key,
    /// Of the bytes: pieces of one datagram may disagree.
    salt: usize,
    offset: u32,
    len: usize,
    more: bool,
    header_bytes: u32,
}

/// What ties fragments together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    v6: bool,
    source: u8,
    scoped: bool,
    /// Tells apart only where the destination is scoped.
    ingress: u8,
    zone: u16,
    proto: u8,
    id: u32,
}

impl<'a> Arbitrary<'a> for Command {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let [choice, place, size]: [u8; 3] = Arbitrary::arbitrary(u)?;
        Ok(match choice & 15 {
            0 => Self::Wait(u16::arbitrary(u)?),
            1 => Self::Expire(place),
            2 => Self::TakeDiscarded,
            kind => {
                let v6 = choice & 0x10 != 0;
                // Small pieces near the start, medium ones, and such as reach the greatest length.
                let (unit, start) = match kind {
                    3..=9 => (8, u32::from(place)),
                    10..=13 => (512, u32::from(place) * 32),
                    _ => (256, u32::from(u16::arbitrary(u)?) & 0x1fff),
                };
                let [more, host, uneven]: [u8; 3] = Arbitrary::arbitrary(u)?;
                let spill = if uneven & 0x0f == 0 { usize::from(uneven >> 4) } else { 0 };
                let scoped = v6 && host & 0x10 != 0;
                Self::Add(Piece {
                    key: Key {
                        v6,
                        source: host & 3,
                        scoped,
                        ingress: if scoped { host >> 5 & 1 } else { 0 },
                        zone: u16::from(host >> 6 & 1),
                        proto: if v6 || host & 0x80 == 0 { proto::UDP } else { proto::TCP },
                        id: u32::from(choice >> 5),
                    },
                    salt: usize::from(more >> 1 & 3),
                    offset: start * 8,
                    len: (usize::from(size) * unit + spill).min(65_535),
                    more: more & 1 != 0,
                    header_bytes: if v6 { 40 } else { 20 } + u32::from(host >> 2 & 3) * 8,
                })
            }
        })
    }
}

/// The bytes of each salt at each place of a datagram.
static BYTES: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    [0usize, 1, 2, 3].map(|salt| (0..131_072).map(|at| (at * 7 + at / 256 + salt * 85) as u8).collect())
});

/// A datagram as a driver would see it.
struct Held {
    id: HeldId,
    since: Tick,
    /// Start, end, salt; in the order in which they came.
    pieces: Vec<(usize, usize, usize)>,
    header_bytes: u32,
}

#[derive(Default)]
struct Model {
    held: HashMap<Key, Held>,
    /// Replaced by a newer datagram of the same key; their names are still to come.
    doomed: HashSet<HeldId>,
}

impl Model {
    /// The datagram is gone; its name has to come.
    fn lose(&mut self, key: &Key) {
        if let Some(held) = self.held.remove(key) {
            assert!(self.doomed.insert(held.id));
        }
    }

    fn is_used(&self, id: HeldId) -> bool {
        self.doomed.contains(&id) || self.held.values().any(|held| held.id == id)
    }

    fn take_discarded(&mut self, fragments: &mut Fragments) {
        while let Some(id) = fragments.take_discarded() {
            let key = self.held.iter().find(|(_, held)| held.id == id).map(|(key, _)| *key);
            match key {
                Some(key) => drop(self.held.remove(&key)),
                None => assert!(self.doomed.remove(&id), "named without frames, or twice: {id:?}"),
            }
        }
        assert!(self.doomed.is_empty(), "never named: {:?}", self.doomed);
        let frames: usize = self.held.values().map(|held| held.pieces.len()).sum();
        assert_eq!(fragments.frames(), frames);
    }
}

fuzz_target!(|input: Input| {
    let max_datagrams = u16::from(input.max_datagrams % 6) + 1;
    let mut fragments = Fragments::new(max_datagrams, Hasher::new([1, 2, 3, 4], Cpu::portable()));
    let mut model = Model::default();
    let mut now = Tick(0);
    for command in input.commands.0 {
        match command {
            Command::Add(piece) => add(&mut fragments, &mut model, now, &piece),
            Command::Wait(ticks) => now = now.after(Ticks(ticks.into())),
            Command::Expire(budget) => assert!(fragments.expire(now, budget.into()) <= budget.into()),
            Command::TakeDiscarded => model.take_discarded(&mut fragments),
        }
        assert!(fragments.frames() <= fragments.frames_max());
        assert!(fragments.waiting() <= max_datagrams.into());
    }
    now = now.after(Ticks::from_secs(61));
    while fragments.expire(now, 1) == 1 {}
    assert_eq!((fragments.waiting(), fragments.frames()), (0, 0));
    model.take_discarded(&mut fragments);
    assert!(model.held.is_empty());
});

fn add(fragments: &mut Fragments, model: &mut Model, now: Tick, piece: &Piece) {
    let Piece { key, salt, offset, more, header_bytes, .. } = *piece;
    let start = offset as usize;
    let bytes = &BYTES[salt][start..start + piece.len];
    let family = if key.v6 { Family::V6 } else { Family::V4 };
    let mut dst = [2; 16];
    if key.scoped {
        dst[..2].copy_from_slice(&[0xfe, 0x80]);
    }
    if !key.v6 {
        dst[4..].fill(0);
    }
    let mut src = [0; 16];
    src[0] = key.source;
    let fragment = Fragment {
        family,
        src: Addr(src),
        dst: Addr(dst),
        id: key.id,
        proto: key.proto,
        hop_limit: 64,
        offset,
        more,
        payload: bytes,
        header_bytes,
    };
    // IPv4 cuts all but the last to a multiple of eight bytes.
    let mut end = start + bytes.len();
    if !key.v6 && more {
        end &= !7;
    }
    let ours = (start, end, salt);
    match fragments.add(now, &fragment, key.zone, key.ingress) {
        Reassembly::Held(id) => {
            if model.held.get(&key).is_some_and(|held| held.id != id) {
                model.lose(&key);
            }
            if !model.held.contains_key(&key) {
                assert!(!model.is_used(id), "a name was given twice while frames are held under it");
                model.held.insert(key, Held { id, since: now, pieces: Vec::new(), header_bytes: 0 });
            }
            let held = model.held.get_mut(&key).expect("just put in");
            assert!(end > start);
            assert!(held.pieces.iter().all(|&(a, b, _)| b <= start || end <= a), "overlapping pieces held");
            held.pieces.push(ours);
            if start == 0 {
                held.header_bytes = header_bytes;
            }
        }
        Reassembly::Complete { held: id, datagram } => {
            if model.held.get(&key).is_some_and(|held| Some(held.id) != id) {
                model.lose(&key);
            }
            let held = model.held.remove(&key);
            assert_eq!(held.as_ref().map(|held| held.id), id);
            let (mut pieces, since, mut head) = match held {
                Some(held) => (held.pieces, held.since, held.header_bytes),
                None => (Vec::new(), now, 0),
            };
            pieces.push(ours);
            pieces.sort_unstable();
            if start == 0 {
                head = header_bytes;
            }
            let timeout = if key.v6 { 60 } else { 30 };
            assert!(now < since.after(Ticks::from_secs(timeout)), "put together after its time");
            let mut at = 0;
            for (start, end, salt) in pieces {
                assert_eq!(start, at, "a hole, or an overlap");
                assert_eq!(datagram.payload[start..end], BYTES[salt][start..end]);
                at = end;
            }
            assert_eq!(datagram.payload.len(), at);
            assert_eq!(datagram.ip_bytes, head + at as u32);
            assert!(datagram.ip_bytes <= if key.v6 { 65_575 } else { 65_535 });
            assert_eq!((datagram.family, datagram.src.0, datagram.dst.0), (family, src, dst));
            assert_eq!(datagram.proto, key.proto);
        }
        // The datagram goes on waiting, unless it was pushed out before: then its name comes.
        Reassembly::Redundant => {}
        Reassembly::Discarded | Reassembly::NotHeld => model.lose(&key),
    }
}
