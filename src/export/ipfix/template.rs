//! Templates: which elements a record has, in which order and size, and a record's values in just that order.
//! https://www.iana.org/assignments/ipfix

use std::net::IpAddr;

use conntrack::event::{Count, DestroyReason, TupleIds};
use conntrack::wire::proto;

use crate::export::Record;

/// The set that holds templates. RFC 7011 section 3.3.2
pub(super) const TEMPLATE_SET: u16 = 2;

/// The first number that a template may have. RFC 7011 section 3.4.1
const FIRST: u16 = 256;

/// Says that a Private Enterprise Number follows. RFC 7011 section 3.2
const ENTERPRISE: u16 = 0x8000;

/// The element of the other direction. RFC 5103 section 6.1
const REVERSE_PEN: u32 = 29305;

/// The shape of a record; its number is its template's, counted from [`FIRST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Template {
    v6: bool,
    /// Packets and bytes are known: accounting is on.
    counted: bool,
    ids: Ids,
}

/// What tells flows between two addresses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    None,
    Ports,
    Icmp,
}

/// Bytes of the longest record: IPv6, counted, with ports.
pub(super) const RECORD_BYTES: usize = 101;

impl Template {
    /// Every one.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..12_u16).map(|number| Self {
            v6: number & 1 != 0,
            counted: number & 2 != 0,
            ids: [Ids::None, Ids::Ports, Ids::Icmp][usize::from(number >> 2)],
        })
    }

    /// The one that fits the record.
    pub(super) fn of(record: &Record) -> Self {
        Self {
            v6: record.flow.original.src.is_ipv6(),
            counted: record.flow.count.is_some(),
            ids: match record.flow.original.ids {
                TupleIds::Ports { .. } => Ids::Ports,
                TupleIds::Icmp { .. } => Ids::Icmp,
                TupleIds::Gre { .. } | TupleIds::None => Ids::None,
            },
        }
    }

    /// Its number, which is that of the sets of its records.
    pub(super) const fn id(self) -> u16 {
        FIRST + self.v6 as u16 + 2 * self.counted as u16 + 4 * self.ids as u16
    }

    /// Elements as (number, bytes); those behind the first `usize` of them are of the reverse direction.
    fn elements(self) -> (Vec<(u16, u16)>, usize) {
        let (src, dst, address) = if self.v6 { (27, 28, 16) } else { (8, 12, 4) };
        let mut elements = vec![
            (152, 8), // flowStartMilliseconds
            (153, 8), // flowEndMilliseconds
            (148, 8), // flowId
            (src, address),
            (dst, address),
        ];
        match self.ids {
            Ids::None => {}
            Ids::Ports => elements.extend([(7, 2), (11, 2)]), // source and destinationTransportPort
            Ids::Icmp => elements.push((if self.v6 { 139 } else { 32 }, 2)), // icmpTypeCodeIPv6, icmpTypeCodeIPv4
        }
        elements.extend([
            (4, 1),   // protocolIdentifier
            (136, 1), // flowEndReason
            (239, 1), // biflowDirection
            (58, 2),  // vlanId
            (234, 4), // ingressVRFID
        ]);
        let counts = [(1, 8), (2, 8)]; // octet and packetDeltaCount
        if self.counted {
            elements.extend(counts);
        }
        let forward = elements.len();
        if self.counted {
            elements.extend(counts);
        }
        (elements, forward)
    }

    /// Appends the template record. RFC 7011 section 3.4.1
    pub(super) fn describe(self, out: &mut Vec<u8>) {
        let (elements, forward) = self.elements();
        out.extend(self.id().to_be_bytes());
        out.extend((elements.len() as u16).to_be_bytes());
        for (at, (number, bytes)) in elements.into_iter().enumerate() {
            if at < forward {
                out.extend(number.to_be_bytes());
                out.extend(bytes.to_be_bytes());
            } else {
                out.extend((number | ENTERPRISE).to_be_bytes());
                out.extend(bytes.to_be_bytes());
                out.extend(REVERSE_PEN.to_be_bytes());
            }
        }
    }

    /// Appends the record's values, in the order of [`Template::elements`].
    pub(super) fn fill(self, out: &mut Vec<u8>, record: &Record) {
        let flow = &record.flow;
        out.extend(record.start_unix_ms.to_be_bytes());
        out.extend(record.end_unix_ms.to_be_bytes());
        out.extend(u64::from(flow.id).to_be_bytes());
        for address in [flow.original.src, flow.original.dst] {
            match address {
                IpAddr::V4(address) => out.extend(address.octets()),
                IpAddr::V6(address) => out.extend(address.octets()),
            }
        }
        match flow.original.ids {
            TupleIds::Ports { sport, dport } => {
                out.extend(sport.to_be_bytes());
                out.extend(dport.to_be_bytes());
            }
            TupleIds::Icmp { icmp_type, code, .. } => out.extend([icmp_type, code]),
            TupleIds::Gre { .. } | TupleIds::None => {}
        }
        out.extend([flow.proto, end_reason(record), INITIATOR]);
        out.extend(record.tags.outer().to_be_bytes());
        out.extend(u32::from(flow.zone).to_be_bytes());
        for Count { packets, bytes } in flow.count.into_iter().flatten() {
            out.extend(bytes.to_be_bytes());
            out.extend(packets.to_be_bytes());
        }
    }
}

/// The record's source sent the first packet. RFC 5103 section 6.3
const INITIATOR: u8 = 1;

/// flowEndReason. RFC 5102 section 5.11.3
const fn end_reason(record: &Record) -> u8 {
    const IDLE: u8 = 1;
    const END_DETECTED: u8 = 3;
    const FORCED: u8 = 4;
    const LACK_OF_RESOURCES: u8 = 5;
    match record.reason {
        // A connection that was closed stays for a while before it is forgotten: what ended it is the closing.
        DestroyReason::Timeout if is_closed(record) => END_DETECTED,
        DestroyReason::Timeout => IDLE,
        DestroyReason::Closed => END_DETECTED,
        DestroyReason::EarlyDrop => LACK_OF_RESOURCES,
        DestroyReason::Admin => FORCED,
    }
}

const fn is_closed(record: &Record) -> bool {
    use conntrack::track::sctp::SctpState;
    use conntrack::track::tcp::TcpState;
    let state = record.flow.state;
    match record.flow.proto {
        proto::TCP => {
            state == TcpState::LastAck as u8
                || state == TcpState::TimeWait as u8
                || state == TcpState::Close as u8
        }
        proto::SCTP => state == SctpState::Closed as u8 || state == SctpState::ShutdownAckSent as u8,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::record::tests::record;

    #[test]
    fn a_record_is_as_long_as_its_template_says() {
        let ids = [
            TupleIds::None,
            TupleIds::Ports { sport: 1, dport: 2 },
            TupleIds::Icmp { icmp_type: 8, code: 0, id: 3 },
        ];
        let mut seen = Vec::new();
        for ids in ids {
            for v6 in [false, true] {
                for counted in [false, true] {
                    let mut record = record(17, ids);
                    if v6 {
                        record.flow.original.src = "2001:db8::1".parse().unwrap();
                        record.flow.original.dst = "2001:db8::2".parse().unwrap();
                    }
                    record.flow.count = record.flow.count.filter(|_| counted);
                    let template = Template::of(&record);
                    let mut bytes = Vec::new();
                    template.fill(&mut bytes, &record);
                    let stated: usize =
                        template.elements().0.iter().map(|&(_, bytes)| usize::from(bytes)).sum();
                    assert_eq!(bytes.len(), stated, "{template:?}");
                    assert!(bytes.len() <= RECORD_BYTES, "{template:?}");
                    seen.push(template);
                }
            }
        }
        assert_eq!(seen.len(), Template::all().count());
        for (number, template) in Template::all().enumerate() {
            assert!(seen.contains(&template));
            assert_eq!(template.id(), FIRST + number as u16);
        }
    }

    #[test]
    fn a_closed_connection_ended_and_an_idle_one_was_given_up() {
        use conntrack::track::tcp::TcpState;
        let of = |state: TcpState, reason| {
            let mut record = record(6, TupleIds::Ports { sport: 1, dport: 2 });
            (record.flow.state, record.reason) = (state as u8, reason);
            end_reason(&record)
        };
        assert_eq!(of(TcpState::TimeWait, DestroyReason::Timeout), 3);
        assert_eq!(of(TcpState::Established, DestroyReason::Timeout), 1);
        assert_eq!(of(TcpState::SynSent, DestroyReason::Closed), 3);
        assert_eq!(of(TcpState::Established, DestroyReason::Admin), 4);
        assert_eq!(of(TcpState::SynSent, DestroyReason::EarlyDrop), 5);
    }
}
