//! Frames held while their datagram is put together. Owns them, by the tracker's id, in order of arrival.
//! Bounded: when it is full the frame comes back to the caller, who frees and counts it.

use conntrack::tracker::HeldId;

/// No slot.
const NONE: u32 = u32::MAX;

/// Lists of held frames, all in one slab; everything is allocated when it is made.
#[derive(Debug)]
pub struct Held<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    used: u32,
    /// Open addressing, at most half full; a datagram's place is found from its id.
    lists: Vec<List>,
    mask: usize,
    list_count: usize,
}

#[derive(Debug)]
struct Slot<T> {
    frame: Option<T>,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    id: u32,
    /// `NONE` in an unused list.
    first: u32,
    last: u32,
}

const UNUSED: List = List { id: 0, first: NONE, last: NONE };

impl<T> Held<T> {
    /// Room for `frames` frames of at most `datagrams` datagrams.
    pub fn with_capacity(frames: u32, datagrams: usize) -> Self {
        let frames = frames.clamp(1, NONE - 1);
        let slots = (0..frames)
            .map(|i| Slot { frame: None, next: if i + 1 < frames { i + 1 } else { NONE } })
            .collect();
        let size = (datagrams.max(1) * 2).next_power_of_two();
        Self { slots, free: 0, used: 0, lists: vec![UNUSED; size], mask: size - 1, list_count: 0 }
    }

    /// Frames held now.
    pub fn len(&self) -> u32 {
        self.used
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Keeps `frame` behind the others of `id`, or gives it back when there is no room.
    pub fn keep(&mut self, id: HeldId, frame: T) -> Result<(), T> {
        if self.free == NONE {
            return Err(frame);
        }
        let place = self.place_of(id);
        if self.lists[place].first == NONE && (self.list_count + 1) * 2 > self.lists.len() {
            return Err(frame);
        }
        let slot = self.free;
        let taken = &mut self.slots[slot as usize];
        self.free = taken.next;
        *taken = Slot { frame: Some(frame), next: NONE };
        self.used += 1;
        let list = &mut self.lists[place];
        if list.first == NONE {
            *list = List { id: id.0, first: slot, last: slot };
            self.list_count += 1;
        } else {
            let last = std::mem::replace(&mut list.last, slot);
            self.slots[last as usize].next = slot;
        }
        Ok(())
    }

    /// Frames held under `id`.
    pub fn count(&self, id: HeldId) -> usize {
        let (mut count, mut slot) = (0, self.lists[self.place_of(id)].first);
        while let Some(held) = self.slots.get(slot as usize) {
            count += 1;
            slot = held.next;
        }
        count
    }

    /// Gives every frame of `id`, oldest first, to `each`, and forgets the id.
    pub fn release(&mut self, id: HeldId, mut each: impl FnMut(T)) {
        let place = self.place_of(id);
        let mut slot = self.lists[place].first;
        if slot == NONE {
            return;
        }
        self.forget(place);
        while slot != NONE {
            let taken = &mut self.slots[slot as usize];
            let (frame, next) = (taken.frame.take(), taken.next);
            taken.next = self.free;
            self.free = slot;
            self.used -= 1;
            if let Some(frame) = frame {
                each(frame);
            }
            slot = next;
        }
    }

    /// Where `id` is, or where it would go.
    fn place_of(&self, id: HeldId) -> usize {
        let mut place = home_of(id.0) & self.mask;
        while self.lists[place].first != NONE && self.lists[place].id != id.0 {
            place = (place + 1) & self.mask;
        }
        place
    }

    /// Empties a place and moves later ones up, so that no search ends too early.
    fn forget(&mut self, mut hole: usize) {
        self.list_count -= 1;
        let mut place = hole;
        loop {
            place = (place + 1) & self.mask;
            let list = self.lists[place];
            if list.first == NONE {
                break;
            }
            let home = home_of(list.id) & self.mask;
            // `list` may move up if its home does not lie between the hole and its place.
            if place.wrapping_sub(home) & self.mask >= place.wrapping_sub(hole) & self.mask {
                self.lists[hole] = list;
                hole = place;
            }
        }
        self.lists[hole] = UNUSED;
    }
}

/// Ids are the tracker's own numbers, so nobody outside chooses them; spreading them is enough.
fn home_of(id: u32) -> usize {
    (id.wrapping_mul(0x9e37_79b9) >> 7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_full_store_gives_the_frame_back() {
        let mut held = Held::with_capacity(2, 8);
        assert_eq!(held.keep(HeldId(1), 10), Ok(()));
        assert_eq!(held.keep(HeldId(2), 20), Ok(()));
        assert_eq!(held.keep(HeldId(1), 11), Err(11));
        held.release(HeldId(2), |frame| assert_eq!(frame, 20));
        assert_eq!(held.keep(HeldId(1), 11), Ok(()));
    }

    #[test]
    fn more_datagrams_than_agreed_are_refused() {
        let mut held = Held::with_capacity(100, 4);
        for id in 0..4 {
            assert_eq!(held.keep(HeldId(id), id), Ok(()));
        }
        assert_eq!(held.keep(HeldId(4), 4), Err(4));
    }

    proptest! {
        #[test]
        fn it_keeps_and_gives_as_a_map_of_lists_would(
            steps in prop::collection::vec((0u32..12, prop::bool::weighted(0.7)), 1..300)
        ) {
            let mut held = Held::with_capacity(40, 12);
            let mut model: HashMap<u32, Vec<usize>> = HashMap::new();
            for (number, (id, keep)) in steps.into_iter().enumerate() {
                // Spread, so that ids share places now and then.
                let id = id * 0x0101_0101;
                if keep {
                    let room = model.values().map(Vec::len).sum::<usize>() < 40;
                    prop_assert_eq!(held.keep(HeldId(id), number).is_ok(), room);
                    if room {
                        model.entry(id).or_default().push(number);
                    }
                } else {
                    let mut got = Vec::new();
                    prop_assert_eq!(held.count(HeldId(id)), model.get(&id).map_or(0, Vec::len));
                    held.release(HeldId(id), |frame| got.push(frame));
                    prop_assert_eq!(got, model.remove(&id).unwrap_or_default());
                }
                prop_assert_eq!(held.len() as usize, model.values().map(Vec::len).sum::<usize>());
            }
        }
    }
}
