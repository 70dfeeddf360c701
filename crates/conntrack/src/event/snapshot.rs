//! A flow as it was at one moment, copied as it lies: made by the loop in a few nanoseconds, and turned into what people
//! and machines read by whoever reads it.

use super::{Count, FlowView, ProtoView, tuples};
use crate::fault::{Fault, planted};
use crate::key::{Direction, FlowKey, Side};
use crate::table::FlowIndex;
use crate::table::cold::Cold;
use crate::table::entry::{Entry, Head, Vars, status};
use crate::tick::{Tick, Ticks, until};
use crate::track::timeout::TimeoutKey;
use crate::tracker::MAX_ENTRIES;
use crate::wire::proto;

/// See the file's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub(super) now: Tick,
    pub(super) key: FlowKey,
    pub(super) head: Head,
    /// Low words, by [`Direction::index`].
    pub(super) packets: [u32; 2],
    pub(super) bytes: [u32; 2],
    /// High words, of packets and of bytes.
    pub(super) high: [[u32; 2]; 2],
    pub(super) mark: u32,
    pub(super) created: u32,
    pub(super) flow: FlowIndex,
    pub(super) counted: bool,
    /// See [`Vars::shown`].
    pub(super) shown: [u32; 2],
}

impl Snapshot {
    /// Of the flow in this slot.
    #[inline(always)]
    pub(crate) fn of(now: Tick, flow: FlowIndex, entry: &Entry, cold: &Cold, counted: bool) -> Self {
        Self {
            now,
            key: entry.key,
            head: entry.head,
            packets: entry.packets,
            bytes: entry.bytes,
            high: cold.high(flow, entry),
            mark: cold.mark(flow, entry),
            created: entry.created,
            flow,
            counted: counted || planted(Fault::AccountingSwitch),
            shown: entry.vars.shown(entry.key.proto),
        }
    }

    /// Both directions' counters in full.
    pub(crate) fn counts(&self) -> [Count; 2] {
        [Direction::Original, Direction::Reply].map(|way| self.count(way))
    }

    /// The moment that this tells of.
    pub(super) fn at(&self) -> Tick {
        self.now
    }

    /// When the flow's timer runs out, or ran out.
    pub fn deadline(&self) -> Tick {
        Tick(self.now.0.saturating_add_signed(i64::from(until(self.head.deadline, self.now.low()))))
    }

    /// For people and machines to read.
    pub fn view(&self) -> FlowView {
        let Self { now, ref key, head, .. } = *self;
        let original = if head.status & status::ORIGINAL_HI != 0 { Side::Hi } else { Side::Lo };
        let (original, reply) = tuples(key, original);
        let left = until(head.deadline, now.low()).max(0) as u32;
        FlowView {
            id: self.id(),
            proto: key.proto,
            zone: key.zone,
            state: head.state,
            status: head.status & (status::SEEN_REPLY | status::ASSURED),
            original,
            reply,
            count: self.counted.then(|| self.counts()),
            mark: self.mark,
            timeout_secs: Ticks(left).as_secs(),
            timeout_key: TimeoutKey::ALL
                .get(usize::from(head.timeout()))
                .copied()
                .unwrap_or(TimeoutKey::Generic),
            created: Tick(now.0 - u64::from(now.low().wrapping_sub(self.created))),
            vars: self.proto_view(),
        }
    }

    fn count(&self, way: Direction) -> Count {
        let [packets, bytes] = self.high.map(|words| u64::from(words[way.index()]) << 32);
        Count {
            packets: packets | u64::from(self.packets[way.index()]),
            bytes: bytes | u64::from(self.bytes[way.index()]),
        }
    }

    fn proto_view(&self) -> ProtoView {
        let mut vars = Vars::of_shown(self.key.proto, self.shown);
        match self.key.proto {
            proto::TCP => {
                let tcp = vars.tcp();
                let wscale = [tcp.scale(Direction::Original), tcp.scale(Direction::Reply)];
                ProtoView::Tcp { wscale, flags: tcp.flags }
            }
            proto::SCTP => ProtoView::Sctp { vtag: vars.sctp().vtag },
            proto::GRE => {
                let gre = vars.gre();
                let secs = |ticks| Ticks(ticks).as_secs();
                ProtoView::Gre {
                    timeout_secs: secs(gre.timeout),
                    stream_timeout_secs: secs(gre.stream_timeout),
                }
            }
            _ => ProtoView::None,
        }
    }

    /// Differs between flows that live at the same time, and between those that follow each other in one slot.
    fn id(&self) -> u32 {
        // The slot fits 27 bits; those left tell apart the flows that it holds one after the other.
        const _: () = assert!(MAX_ENTRIES < 1 << 27);
        let age = (self.head.status >> status::INCARNATION_SHIFT) as u32
            ^ self.created.wrapping_mul(0x9e37_79b1) >> 16;
        // Murmur3's finalizer: one-to-one, so that no two live flows share an id.
        let mut id = self.flow.0 | age << 27;
        id = (id ^ id >> 16).wrapping_mul(0x85eb_ca6b);
        id = (id ^ id >> 13).wrapping_mul(0xc2b2_ae35);
        id ^ id >> 16
    }
}
