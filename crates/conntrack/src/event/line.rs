//! Events as they go from core to core, where it is cache lines that cost: one for an event of most flows, two for those of
//! IPv6, with a mark, with counters beyond 32 bits or of a clock beyond 48.

use super::{DestroyReason, Event, EventKind, Snapshot};
use crate::key;
use crate::table::FlowIndex;
use crate::table::entry::Head;
use crate::tick::Tick;

/// An event, the first part of one, or the rest of one: all that is 0 for most flows, left out where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line([u64; 8]);

/// Bits of a first line's first byte.
const HAS_REST: u64 = 1;
const COUNTED: u64 = 2;

/// By the number in a first line's second byte.
const KINDS: [EventKind; 3 + DestroyReason::ALL.len()] = {
    let mut kinds = [EventKind::New; 3 + DestroyReason::ALL.len()];
    (kinds[1], kinds[2]) = (EventKind::Update, EventKind::Edited);
    let mut reason = 0;
    while reason < DestroyReason::ALL.len() {
        kinds[3 + reason] = EventKind::Destroy(DestroyReason::ALL[reason]);
        reason += 1;
    }
    kinds
};

#[inline(always)]
const fn number(kind: EventKind) -> u64 {
    match kind {
        EventKind::New => 0,
        EventKind::Update => 1,
        EventKind::Edited => 2,
        EventKind::Destroy(reason) => 3 + reason as u64,
    }
}

#[inline(always)]
const fn word([low, high]: [u32; 2]) -> u64 {
    low as u64 | (high as u64) << 32
}

#[inline(always)]
const fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

impl Line {
    /// Part of no event.
    pub(super) const NONE: Self = Self([0; 8]);

    /// Whether the rest of the event follows.
    #[inline(always)]
    pub const fn has_rest(&self) -> bool {
        self.0[0] & HAS_REST != 0
    }
}

impl Event {
    /// It as lines; the second is part of it if the first [`Line::has_rest`], and else zero.
    #[inline(always)]
    pub fn lines(&self) -> [Line; 2] {
        let Self { kind, snapshot } = self;
        let Snapshot { now, ref key, head, packets, bytes, high, mark, created, flow, counted, shown } =
            *snapshot;
        let [lo, lo_rest, hi, hi_rest, ids] = *key.words();
        let ([lo, lo_more], [hi, hi_more]) = (halves(lo), halves(hi));
        let now_high = (now.0 >> 48) as u32;
        let rest = [
            word([lo_more, hi_more]),
            lo_rest,
            hi_rest,
            word(high[0]),
            word(high[1]),
            word([mark, now_high]),
            0,
            0,
        ];
        let has_rest = rest.iter().fold(0, |any, word| any | word) != 0;
        let flags = (u64::from(has_rest) * HAS_REST) | (u64::from(counted) * COUNTED);
        let first = [
            flags | number(*kind) << 8 | now.0 << 16,
            word([lo, hi]),
            ids,
            u64::from(head.deadline) | u64::from(head.facts()) << 32,
            word(packets),
            word(bytes),
            word([created, flow.0]),
            word(shown),
        ];
        [Line(first), Line(rest)]
    }

    /// Takes the next event out of `lines`; `None` if there is none, or not all of it.
    #[inline]
    pub fn read<'a>(lines: &mut impl Iterator<Item = &'a Line>) -> Option<Self> {
        let first = lines.next()?;
        let Line([about, addrs, ids, head, packets, bytes, flow, shown]) = *first;
        let rest = if first.has_rest() { lines.next()?.0 } else { [0; 8] };
        let [more, lo_rest, hi_rest, packets_high, bytes_high, others, ..] = rest;
        let ([lo, hi], [lo_more, hi_more]) = (halves(addrs), halves(more));
        let ([deadline, facts], [created, flow]) = (halves(head), halves(flow));
        let [mark, now_high] = halves(others);
        let key = key::Words([word([lo, lo_more]), lo_rest, word([hi, hi_more]), hi_rest, ids]);
        Some(Self {
            kind: *KINDS.get((about >> 8 & 0xff) as usize)?,
            snapshot: Snapshot {
                now: Tick(about >> 16 | u64::from(now_high) << 48),
                key: *key.key(),
                head: Head::of(deadline, facts),
                packets: halves(packets),
                bytes: halves(bytes),
                high: [halves(packets_high), halves(bytes_high)],
                mark,
                created,
                flow: FlowIndex(flow),
                counted: about & COUNTED != 0,
                shown: halves(shown),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::event::Events;
    use crate::key::FlowKey;
    use crate::wire::Addr;

    fn snapshot() -> impl Strategy<Value = Snapshot> {
        // Each of these alone needs the second line, and none of them happens in a third of the snapshots.
        let rare = || prop_oneof![9 => Just(0), 1 => any::<u32>()];
        let v4 = any::<[u8; 4]>().prop_map(Addr::v4);
        let addr = || prop_oneof![4 => v4.clone(), 1 => any::<[u8; 16]>().prop_map(Addr)];
        let key = (addr(), addr(), any::<[u16; 3]>(), any::<[u8; 2]>()).prop_map(
            |(lo, hi, [lo_id, hi_id, zone], [proto, kind])| FlowKey {
                lo,
                hi,
                lo_id,
                hi_id,
                zone,
                proto,
                kind,
            },
        );
        let now = prop_oneof![9 => any::<u64>().prop_map(|now| now >> 16), 1 => any::<u64>()].prop_map(Tick);
        let head = (any::<u32>(), any::<[u8; 2]>(), any::<u16>()).prop_map(
            |(deadline, [state, timeout_key], status)| Head { deadline, state, timeout_key, status },
        );
        let high = [rare(), rare(), rare(), rare()].prop_map(|[a, b, c, d]| [[a, b], [c, d]]);
        let words = any::<([u32; 2], [u32; 2], u32, u32, [u32; 2])>();
        (now, key, head, high, rare(), any::<bool>(), words).prop_map(
            |(now, key, head, high, mark, counted, (packets, bytes, created, flow, shown))| {
                let flow = FlowIndex(flow);
                Snapshot { now, key, head, packets, bytes, high, mark, created, flow, counted, shown }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(told in prop::collection::vec((0..KINDS.len(), snapshot()), 0..8)) {
            let told = Vec::from_iter(told.into_iter().map(|(kind, snapshot)| Event { kind: KINDS[kind], snapshot }));
            let mut events = Events::with_capacity(told.len());
            told.iter().for_each(|event| events.tell(event));
            prop_assert_eq!((events.iter().collect::<Vec<_>>(), events.lost()), (told, 0));
        }

        #[test]
        fn an_event_without_its_rest_is_none(kind in 0..KINDS.len(), snapshot in snapshot()) {
            let [first, _] = Event { kind: KINDS[kind], snapshot }.lines();
            prop_assert_eq!(Event::read(&mut [first].iter()).is_none(), first.has_rest());
        }
    }

    #[test]
    fn one_line_tells_of_an_ipv4_flow_and_two_of_what_is_rarer() {
        let lines = |snapshot| {
            let mut events = Events::with_capacity(1);
            events.tell(&Event { kind: EventKind::New, snapshot });
            events.lines().len()
        };
        let all = u32::MAX;
        let lo = Addr::v4([255; 4]);
        let plain = Snapshot {
            now: Tick((1 << 48) - 1),
            key: FlowKey { lo, hi: lo, lo_id: 0xffff, hi_id: 0xffff, zone: 0xffff, proto: 255, kind: 0x82 },
            head: Head { deadline: all, state: 255, timeout_key: 255, status: 0xffff },
            packets: [all; 2],
            bytes: [all; 2],
            high: [[0; 2]; 2],
            mark: 0,
            created: all,
            flow: FlowIndex(all),
            counted: true,
            shown: [all; 2],
        };
        assert_eq!(lines(plain), 1);
        assert_eq!(lines(Snapshot { mark: 1, ..plain }), 2);
        assert_eq!(lines(Snapshot { high: [[0; 2], [0, 1]], ..plain }), 2);
        assert_eq!(lines(Snapshot { key: FlowKey { hi: Addr([1; 16]), ..plain.key }, ..plain }), 2);
        assert_eq!(lines(Snapshot { now: Tick(1 << 48), ..plain }), 2);
    }

    #[test]
    fn every_kind_has_its_own_number() {
        for (at, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(number(kind), at as u64, "{kind:?}");
        }
    }
}
