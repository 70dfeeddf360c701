//! Community ID, version 1: a hash of a flow's endpoints that is the same in every program that knows the flow, so that
//! their records can be joined. https://github.com/corelight/community-id-spec

use conntrack::event::{FlowView, TupleIds};
use conntrack::wire::proto;

/// The seed where nothing was configured: that of other programs.
pub const NO_SEED: u16 = 0;

/// The ID of a flow. `seed` is 0 unless sites are to be told apart.
pub fn community_id(flow: &FlowView, seed: u16) -> Option<String> {
    let tuple = &flow.original;
    let ports = match tuple.ids {
        // The specification knows no ports of UDP-Lite.
        TupleIds::Ports { sport, dport } if flow.proto != proto::UDPLITE => Some((sport, dport)),
        TupleIds::Icmp { icmp_type, code, .. } => Some((icmp_type.into(), code.into())),
        TupleIds::Ports { .. } | TupleIds::Gre { .. } | TupleIds::None => None,
    };
    let (sport, dport) = ports.unzip();
    community_id::calculate_community_id(seed, tuple.src, tuple.dst, sport, dport, flow.proto, false).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::record::tests::flow;

    /// The specification's own examples, and its baseline as Zeek's tests have it.
    #[test]
    fn ids_are_those_that_the_specification_prints() {
        let (a, b) = ("1.2.3.4", "5.6.7.8");
        let (v6a, v6b) = ("fe80:1:203:405:607:809:a0b:c0d", "fe80:1011:1213:1415:1617:1819:1a1b:1c1d");
        let ports = TupleIds::Ports { sport: 1122, dport: 3344 };
        let back = TupleIds::Ports { sport: 3344, dport: 1122 };
        let icmp = |icmp_type| TupleIds::Icmp { icmp_type, code: 0, id: 7 };
        for (seed, proto, src, dst, ids, want) in [
            (0, 6, a, b, ports, "1:wCb3OG7yAFWelaUydu0D+125CLM="),
            (0, 6, b, a, back, "1:wCb3OG7yAFWelaUydu0D+125CLM="),
            (0, 17, a, b, ports, "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg="),
            (0, 1, a, b, icmp(8), "1:crodRHL2FEsHjbv3UkRrfbs4bZ0="),
            (0, 58, v6a, v6b, icmp(128), "1:0bf7hyMJUwt3fMED7z8LIfRpBeo="),
            (0, 46, a, b, TupleIds::None, "1:ikv3kmf89luf73WPz1jOs49S768="),
            (1, 6, a, b, ports, "1:HhA1B+6CoLbiKPEs5nhNYN4XWfk="),
            (1, 17, a, b, ports, "1:OShq+iKDAMVouh/4bMxB9Sz4amw="),
            (1, 1, a, b, icmp(8), "1:9pr4ZGTICiuZoIh90RRYE2RyXpU="),
        ] {
            let id = community_id(&flow(proto, src, dst, ids), seed);
            assert_eq!(id.as_deref(), Some(want), "protocol {proto}, seed {seed}, from {src}");
        }
    }

    #[test]
    fn every_protocol_that_is_tracked_has_an_id() {
        let ports = TupleIds::Ports { sport: 1, dport: 2 };
        let gre = TupleIds::Gre { srckey: 0, dstkey: 5 };
        for (proto, ids) in
            [(6, ports), (17, ports), (136, ports), (132, ports), (47, gre), (50, TupleIds::None)]
        {
            assert!(community_id(&flow(proto, "10.0.0.1", "10.0.0.2", ids), 0).is_some(), "protocol {proto}");
        }
    }
}
