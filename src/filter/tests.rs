use std::net::IpAddr;

use conntrack::event::{FlowView, ProtoView, Tuple, TupleIds};
use conntrack::table::entry::status;
use conntrack::tick::Tick;
use conntrack::track::timeout::TimeoutKey;

use super::*;

fn flow(proto: u8, state: u8, ids: [TupleIds; 2]) -> FlowView {
    let (a, b): (IpAddr, IpAddr) = ("10.1.0.2".parse().unwrap(), "192.0.2.7".parse().unwrap());
    FlowView {
        id: 1,
        proto,
        zone: 3,
        state,
        status: status::SEEN_REPLY,
        original: Tuple { src: a, dst: b, ids: ids[0] },
        reply: Tuple { src: b, dst: a, ids: ids[1] },
        count: None,
        mark: 0x1f,
        timeout_secs: 1,
        timeout_key: TimeoutKey::Generic,
        created: Tick(0),
        vars: ProtoView::None,
    }
}

fn tcp() -> FlowView {
    let ports = [(4000, 443), (443, 4000)].map(|(sport, dport)| TupleIds::Ports { sport, dport });
    flow(6, 3, ports)
}

/// As the server reads them.
fn read(fields: &str) -> Result<Filter, String> {
    let pairs = fields.split('&').map(|pair| pair.split_once('=').unwrap());
    let object: serde_json::Map<_, _> = pairs
        .map(|(name, value)| {
            let number = value.parse::<u64>().ok().filter(|_| name != "proto" && name != "mark");
            (name.to_owned(), number.map_or_else(|| value.into(), Into::into))
        })
        .collect();
    serde_json::from_value(object.into()).map_err(|error| error.to_string())
}

#[test]
fn each_field_alone_takes_the_flow_or_leaves_it() {
    let udp_like = [
        ("family=ipv4", "family=ipv6"),
        ("proto=tcp", "proto=udp"),
        ("proto=6", "proto=7"),
        ("src=10.0.0.0/8", "src=11.0.0.0/8"),
        ("src=10.1.0.2", "src=10.1.0.3"),
        ("src=10.99.0.2/255.0.0.255", "src=10.99.0.3/255.0.0.255"),
        ("src=0.0.0.0/0", "src=::/0"),
        ("dst=192.0.2.0/24", "dst=10.1.0.2"),
        ("reply_src=192.0.2.7", "reply_src=10.1.0.2"),
        ("reply_dst=10.1.0.2", "reply_dst=192.0.2.7"),
        ("sport=4000", "sport=443"),
        ("dport=443", "dport=4000"),
        ("reply_sport=443", "reply_sport=4000"),
        ("reply_dport=4000", "reply_dport=443"),
        ("state=ESTABLISHED", "state=SYN_SENT"),
        ("state=established", "state=LISTEN"),
        ("zone=3", "zone=0"),
        ("mark=31", "mark=30"),
        ("mark=0x10/0xf0", "mark=0x20/0xf0"),
        ("status=SEEN_REPLY", "status=UNREPLIED"),
        ("status=seen_reply", "status=ASSURED,SEEN_REPLY"),
        ("proto=tcp&sport=4000", "proto=tcp&sport=4001"),
    ];
    for (takes, leaves) in udp_like {
        assert!(read(takes).unwrap().matches(&tcp()), "{takes}");
        assert!(!read(leaves).unwrap().matches(&tcp()), "{leaves}");
    }
    for other in ["icmp_type=8", "srckey=0", "icmp_id=443"] {
        assert!(!read(other).unwrap().matches(&tcp()), "{other}: TCP has none");
    }
}

#[test]
fn icmp_and_gre_are_taken_by_their_own_numbers() {
    let echo = [8, 0].map(|icmp_type| TupleIds::Icmp { icmp_type, code: 0, id: 7 });
    let gre = [(0, 9), (9, 0)].map(|(srckey, dstkey)| TupleIds::Gre { srckey, dstkey });
    for (fields, yes) in [("icmp_type=8&icmp_id=7", true), ("icmp_type=0", false), ("sport=8", false)] {
        assert_eq!(read(fields).unwrap().matches(&flow(1, 0, echo)), yes, "{fields}");
    }
    for (fields, yes) in [("dstkey=9&reply_srckey=9", true), ("srckey=9", false), ("dport=9", false)] {
        assert_eq!(read(fields).unwrap().matches(&flow(47, 0, gre)), yes, "{fields}");
    }
}

#[test]
fn a_state_is_of_tcp_or_sctp_by_the_flows_protocol() {
    let established: State = "ESTABLISHED".parse().unwrap();
    assert!(established.is_of(&tcp()));
    assert!(established.is_of(&FlowView { proto: 132, state: 4, ..tcp() }));
    assert!(!established.is_of(&FlowView { proto: 132, state: 3, ..tcp() }));
    assert!(!established.is_of(&FlowView { proto: 17, ..tcp() }));
    assert_eq!("LISTEN".parse::<State>(), "SYN_SENT2".parse::<State>());
}

#[test]
fn words_come_back_from_a_query_as_they_went() {
    let fields = "proto=sctp&src=10.0.0.0/8&dst=10.0.0.1&reply_src=10.0.0.0/255.0.255.0&sport=7&state=CLOSED&mark=0x1/0x3&\
                  status=ASSURED,UNREPLIED&events=NEW,DESTROY&family=ipv4&reply_dst=0.0.0.0/0";
    let filter = read(fields).unwrap();
    let query = filter.query();
    assert_eq!(read(&query[1..]).unwrap(), filter, "{query}");
    for pair in fields.split('&') {
        assert!(query.contains(pair), "{pair} in {query}");
    }
    assert_eq!(Filter::default().query(), "");
}

#[test]
fn protocols_have_the_names_of_etc_protocols() {
    let file = std::fs::read_to_string("/etc/protocols").expect("scripts/setup installs netbase");
    let mut checked = 0;
    for line in file.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(number)) = (words.next(), words.next()) else { continue };
        // Most of them nobody meets.
        if let Ok(Proto(known)) = name.parse() {
            assert_eq!(known.to_string(), number, "{name}");
            checked += 1;
        }
    }
    assert_eq!(checked, 16, "all but icmpv6, which is ipv6-icmp there");
}

#[test]
fn slips_are_refused_with_the_way_out() {
    for (fields, says) in [
        ("proto=tpc", "is no protocol"),
        ("proto=256", "is no protocol"),
        ("src=10.0.0.0/33", "no such mask"),
        ("src=10.0.0.0/ffff::", "no such mask"),
        ("src=example", "is no address"),
        ("state=OPEN", "is no state"),
        ("mark=five", "is no mark"),
        ("mark=1/", "is no mark"),
        ("status=EXPECTED", "is no status"),
        ("status=SEEN_REPLY,UNREPLIED", "cannot both hold"),
        ("events=OLD", "is no kind of event"),
        ("family=ipx", "is no address family"),
        ("colour=red", "unknown field"),
    ] {
        let error = read(fields).unwrap_err();
        assert!(error.contains(says), "{fields}: {error}");
    }
    let mixed = |fields| read(fields).unwrap().check().unwrap_err().to_string();
    assert!(mixed("src=10.0.0.1&dst=2001:db8::1").contains("mismatched address family"));
    assert!(mixed("src=10.0.0.1&family=ipv6").contains("mismatched address family"));
    assert!(read("events=NEW").unwrap().check_flows().is_err());
}
