use conntrack::event::DestroyReason;
use conntrack::table::entry::status;
use conntrack::tick::Tick;
use conntrack::track::timeout::TimeoutKey;

use super::*;

/// Lines of the live kernel (6.18) and of conntrack 1.4.7, as recorded.
const PROC: &str = include_str!("samples/proc.txt");
const LIST: &str = include_str!("samples/list.txt");
const EXTENDED: &str = include_str!("samples/extended.txt");
const ID: &str = include_str!("samples/id.txt");
const EVENTS: &str = include_str!("samples/events.txt");

fn style(form: Form) -> Style {
    Style::new(form)
}

/// Reads a sample line back into the view that it was printed from. Strict about what it does not know.
fn view_of(line: &str) -> FlowView {
    let mut words = line.split(' ').filter(|word| !word.is_empty()).peekable();
    let mut next = || words.next().unwrap_or_else(|| panic!("short line: {line}"));
    let mut name = next();
    if name == "ipv4" || name == "ipv6" {
        next();
        name = next();
    }
    let proto: u8 = next().parse().unwrap();
    let timeout_secs = next().parse().unwrap();
    let mut flow = FlowView {
        id: 0,
        proto,
        zone: 0,
        state: 0,
        status: status::SEEN_REPLY,
        original: tuple_of([None; 6], proto),
        reply: tuple_of([None; 6], proto),
        count: None,
        mark: 0,
        timeout_secs,
        timeout_key: TimeoutKey::Generic,
        created: Tick(0),
        vars: ProtoView::None,
    };
    assert_eq!(proto_name(proto), name);
    let mut tuples: Vec<[Option<&str>; 6]> = Vec::new();
    let mut counts: Vec<Count> = Vec::new();
    let mut gre = (0, 0);
    for word in words {
        let word = word.trim_end_matches(',');
        match word.split_once('=') {
            Some(("src", value)) => tuples.push([Some(value), None, None, None, None, None]),
            Some((key @ ("dst" | "sport" | "dport" | "srckey" | "dstkey" | "type" | "code"), value)) => {
                let at = match key {
                    "dst" => 1,
                    "sport" | "srckey" | "type" => 2,
                    "dport" | "dstkey" | "code" => 3,
                    _ => unreachable!(),
                };
                tuples.last_mut().unwrap()[at] = Some(value);
            }
            Some(("id", value)) if proto_is_icmp(proto) && tuples.last().unwrap()[4].is_none() => {
                tuples.last_mut().unwrap()[4] = Some(value);
            }
            Some(("id", value)) => flow.id = value.parse().unwrap(),
            Some(("packets", value)) => counts.push(Count { packets: value.parse().unwrap(), bytes: 0 }),
            Some(("bytes", value)) => counts.last_mut().unwrap().bytes = value.parse().unwrap(),
            Some(("zone", value)) => flow.zone = value.parse().unwrap(),
            Some(("timeout", value)) => gre.0 = value.parse().unwrap(),
            Some(("stream_timeout", value)) => gre.1 = value.parse().unwrap(),
            Some(("mark", value)) => flow.mark = value.parse().unwrap(),
            Some(("use", _)) => {}
            Some(other) => panic!("{other:?} in {line}"),
            None if word == "[UNREPLIED]" => flow.status &= !status::SEEN_REPLY,
            None if word == "[ASSURED]" => flow.status |= status::ASSURED,
            None => {
                flow.state = (0..16)
                    .find(|&state| FlowView { state, ..flow }.state_name(false) == Some(word))
                    .unwrap_or_else(|| panic!("{word} in {line}"));
            }
        }
    }
    flow.original = tuple_of(tuples[0], proto);
    flow.reply = tuple_of(tuples[1], proto);
    flow.count = (counts.len() == 2).then(|| [counts[0], counts[1]]);
    if proto == proto::GRE {
        flow.vars = ProtoView::Gre { timeout_secs: gre.0, stream_timeout_secs: gre.1 };
    }
    flow
}

fn proto_is_icmp(number: u8) -> bool {
    number == proto::ICMP || number == proto::ICMPV6
}

fn tuple_of(words: [Option<&str>; 6], proto: u8) -> Tuple {
    let address = |word: Option<&str>| word.unwrap_or("0.0.0.0").parse().unwrap();
    let number = |at: usize| {
        let word = words[at].unwrap_or("0");
        u16::from_str_radix(word.trim_start_matches("0x"), if word.starts_with("0x") { 16 } else { 10 })
            .unwrap()
    };
    let ids = match proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => {
            TupleIds::Ports { sport: number(2), dport: number(3) }
        }
        proto::ICMP | proto::ICMPV6 => {
            TupleIds::Icmp { icmp_type: number(2) as u8, code: number(3) as u8, id: number(4) }
        }
        proto::GRE => TupleIds::Gre { srckey: number(2), dstkey: number(3) },
        _ => TupleIds::None,
    };
    Tuple { src: address(words[0]), dst: address(words[1]), ids }
}

#[track_caller]
fn every_line_comes_back(sample: &str, print: impl Fn(&FlowView, &str) -> String) {
    let mut lines = 0;
    for line in sample.lines() {
        assert_eq!(print(&view_of(line), line), line);
        lines += 1;
    }
    assert!(lines >= 9, "the sample has only {lines} lines");
}

#[test]
fn proc_lines_equal_the_kernels() {
    every_line_comes_back(PROC, |flow, _| FlowLine(flow, style(Form::Proc)).to_string());
}

#[test]
fn listed_lines_equal_conntracks() {
    every_line_comes_back(LIST, |flow, _| FlowLine(flow, style(Form::Conntrack)).to_string());
}

#[test]
fn extended_lines_equal_conntracks() {
    every_line_comes_back(EXTENDED, |flow, _| {
        FlowLine(flow, Style { family: true, ..style(Form::Conntrack) }).to_string()
    });
}

#[test]
fn lines_with_an_id_equal_conntracks() {
    every_line_comes_back(ID, |flow, _| {
        FlowLine(flow, Style { id: true, ..style(Form::Conntrack) }).to_string()
    });
}

#[test]
fn event_lines_equal_conntracks() {
    let mut kinds = [0; 3];
    for line in EVENTS.lines() {
        let (kind, rest) = match line.split_once("] ").unwrap() {
            ("    [NEW", rest) => (EventKind::New, rest),
            (" [UPDATE", rest) => (EventKind::Update, rest),
            ("[DESTROY", rest) => (EventKind::Destroy(DestroyReason::Admin), rest),
            other => panic!("{other:?}"),
        };
        let mut flow = view_of(rest);
        // Only DESTROY tells counters; the flow has some all along.
        flow.count.get_or_insert_default();
        assert_eq!(
            EventLine(kind, &flow, Style { family: true, ..style(Form::Conntrack) }).to_string(),
            line
        );
        kinds[match kind {
            EventKind::New => 0,
            EventKind::Update | EventKind::Edited => 1,
            EventKind::Destroy(_) => 2,
        }] += 1;
    }
    assert!(kinds.iter().all(|&lines| lines >= 2), "{kinds:?}");
}

fn tutorial() -> FlowView {
    view_of(
        "tcp      6 117 SYN_SENT src=192.168.1.5 dst=192.168.1.35 sport=1031 dport=23 packets=1 bytes=60 [UNREPLIED] \
         src=192.168.1.35 dst=192.168.1.5 sport=23 dport=1031 packets=0 bytes=0 mark=0 use=1",
    )
}

#[test]
fn classic_lines_are_those_of_the_old_kernel() {
    let flow = tutorial();
    assert_eq!(
        FlowLine(&flow, style(Form::Classic)).to_string(),
        "tcp      6 117 SYN_SENT src=192.168.1.5 dst=192.168.1.35 sport=1031 dport=23 [UNREPLIED] src=192.168.1.35 \
         dst=192.168.1.5 sport=23 dport=1031 use=1"
    );
    let flow = FlowView { status: status::SEEN_REPLY | status::ASSURED, ..flow };
    assert_eq!(
        FlowLine(&flow, style(Form::Classic)).to_string(),
        "tcp      6 117 SYN_SENT src=192.168.1.5 dst=192.168.1.35 sport=1031 dport=23 src=192.168.1.35 \
         dst=192.168.1.5 sport=23 dport=1031 [ASSURED] use=1"
    );
    let marked = FlowLine(&FlowView { mark: 7, ..flow }, style(Form::Classic)).to_string();
    assert!(marked.ends_with(" dport=1031 [ASSURED] mark=7 use=1"), "{marked}");
    assert_eq!(
        FlowLine(&flow, style(Form::Conntrack)).to_string(),
        "tcp      6 117 SYN_SENT src=192.168.1.5 dst=192.168.1.35 sport=1031 dport=23 packets=1 bytes=60 \
         src=192.168.1.35 dst=192.168.1.5 sport=23 dport=1031 packets=0 bytes=0 [ASSURED] mark=0 use=1"
    );
}

#[test]
fn the_classic_profile_says_listen() {
    let state = (0..16)
        .find(|&state| FlowView { state, ..tutorial() }.state_name(false) == Some("SYN_SENT2"))
        .expect("a state number for SYN_SENT2");
    let flow = FlowView { state, ..tutorial() };
    let classic = FlowLine(&flow, Style { listen: true, ..style(Form::Classic) }).to_string();
    assert!(classic.starts_with("tcp      6 117 LISTEN src="), "{classic}");
}

#[test]
fn an_expired_flow_ends_without_a_timeout() {
    let flow = FlowView { timeout_secs: 0, count: None, ..tutorial() };
    let line =
        EventLine(EventKind::Destroy(DestroyReason::Timeout), &flow, style(Form::Conntrack)).to_string();
    assert_eq!(
        line,
        "[DESTROY] tcp      6 SYN_SENT src=192.168.1.5 dst=192.168.1.35 sport=1031 dport=23 [UNREPLIED] \
         src=192.168.1.35 dst=192.168.1.5 sport=23 dport=1031"
    );
}

// One table of conntrack 1.4.7, listed in three forms within a second: the first is read, the others are written.
const SAME: &str = include_str!("samples/same-list.txt");

fn same() -> Vec<FlowView> {
    let with_tags = |line| {
        let flow = view_of(line);
        // The tags of the flows that were put in; this form does not show them.
        let vars = if flow.proto == proto::SCTP { ProtoView::Sctp { vtag: [1, 2] } } else { flow.vars };
        FlowView { vars, ..flow }
    };
    let flows: Vec<_> = SAME.lines().map(with_tags).collect();
    assert_eq!(flows.len(), 12);
    flows
}

#[test]
fn xml_equals_conntracks() {
    let mut lines: Vec<_> =
        same().iter().map(|flow| XmlFlow(None, flow, style(Form::Conntrack)).to_string()).collect();
    lines.insert(0, XML_HEAD.to_owned());
    lines.push(XML_END.to_owned());
    assert_eq!(lines.join("\n") + "\n", include_str!("samples/same-xml.txt"));
}

#[test]
fn saved_lines_equal_conntracks() {
    let lines: String =
        same().iter().map(|flow| format!("{}\n", SaveLine(None, flow, style(Form::Conntrack)))).collect();
    assert_eq!(lines, include_str!("samples/same-save.txt"));
}

#[test]
fn extended_lines_with_marks_and_zones_equal_conntracks() {
    let both = Style { family: true, id: true, ..style(Form::Conntrack) };
    every_line_comes_back(SAME, |flow, _| FlowLine(flow, both).to_string());
}

/// A line of events without who was behind it: port ids and programs differ.
fn anonymous(line: &str) -> String {
    line.split(" portid=").next().unwrap().to_owned()
}

#[test]
fn events_of_operators_equal_conntracks_in_every_form() {
    let style = Style { family: true, id: true, operator: Some(4711), ..style(Form::Conntrack) };
    let xml: Vec<_> = include_str!("samples/same-events-xml.txt").lines().collect();
    assert_eq!([xml[0], xml[1], xml[xml.len() - 1]].join("\n"), [XML_HEAD, XML_END].join("\n"));
    let save = include_str!("samples/same-events-save.txt").lines();
    let forms = xml[2..].iter().zip(save);
    let mut lines = 0;
    for (line, (xml, save)) in include_str!("samples/same-events-extended.txt").lines().zip(forms) {
        let (kind, rest) = match line.split_once("] ").unwrap() {
            (" [UPDATE", rest) => (EventKind::Edited, rest),
            ("[DESTROY", rest) => (EventKind::Destroy(DestroyReason::Admin), rest),
            other => panic!("{other:?}"),
        };
        let flow = view_of(rest.split(" [USERSPACE]").next().unwrap());
        let written = [
            EventLine(kind, &flow, style).to_string(),
            XmlFlow(Some(kind), &flow, style).to_string(),
            SaveLine(Some(kind), &flow, style).to_string(),
        ];
        assert!(
            written.iter().all(|line| line.ends_with(" [USERSPACE] portid=4711 progname=dpdk-conntrack"))
        );
        assert_eq!(written.map(|line| anonymous(&line)), [line, xml, save].map(anonymous));
        lines += 1;
    }
    assert_eq!(lines, 7);
}

#[test]
fn what_a_packet_did_names_no_program() {
    let style = Style { operator: Some(1), ..style(Form::Conntrack) };
    for kind in [EventKind::New, EventKind::Update, EventKind::Destroy(DestroyReason::Timeout)] {
        let line = EventLine(kind, &tutorial(), style).to_string();
        assert!(!line.contains("USERSPACE") && !line.contains("mark="), "{line}");
    }
    let line = EventLine(EventKind::New, &FlowView { mark: 42, ..tutorial() }, style).to_string();
    assert!(line.ends_with(" dport=1031 mark=42"), "{line}");
}

#[test]
fn an_updated_flow_has_the_reference_that_conntrack_holds() {
    let style = Style { done: Deed::Updated, ..style(Form::Conntrack) };
    let line = include_str!("samples/same-updated.txt");
    assert_eq!(FlowLine(&view_of(line.trim_end()), style).to_string() + "\n", line);
    let xml = include_str!("samples/same-updated-xml.txt");
    // The mark was taken away again in between.
    let flow = FlowView { id: 234_117_357, mark: 0, ..view_of(line.trim_end()) };
    assert_eq!(XmlFlow(None, &flow, style).to_string() + "\n", xml);
}

#[test]
fn a_start_is_shown_as_conntrack_shows_it() {
    // The order of the columns is that of a kernel with nf_conntrack_timestamp on.
    let flow = FlowView { created: Tick::from_millis(4_000), mark: 4, zone: 7, ..tutorial() };
    let since = Since { boot_unix_ms: 1_795_378_470_900, now_unix_ms: 1_795_378_476_100 };
    let style = Style { since: Some(since), ..style(Form::Conntrack) };
    let line = FlowLine(&flow, style).to_string();
    // Within the offset of any time zone.
    let date = |line: &str, what: &str| {
        let rest = line.split(&format!("[{what}=")).nth(1).unwrap().split(']').next().unwrap().to_owned();
        assert_eq!((rest.len(), rest.ends_with(" 2026")), (24, true), "{rest}");
    };
    assert!(line.contains(" mark=4 zone=7 delta-time=2 [start="), "{line}");
    assert!(line.ends_with("] use=1"), "{line}");
    date(&line, "start");
    let ended = EventLine(EventKind::Destroy(DestroyReason::Timeout), &flow, style).to_string();
    assert!(ended.contains(" mark=4 zone=7 delta-time=2 [start="), "{ended}");
    date(&ended, "stop");
    assert!(!EventLine(EventKind::New, &flow, style).to_string().contains("start"));
    let xml = XmlFlow(None, &flow, style).to_string();
    assert!(xml.contains("<unreplied/><timestamp><start>1795378474900000000</start></timestamp><deltatime>2</deltatime></meta>"), "{xml}");
    let xml =
        XmlFlow(Some(EventKind::Destroy(DestroyReason::Timeout)), &flow, Style { when: Some(0), ..style })
            .to_string();
    assert!(
        xml.contains(
            "<stop>1795378476100000000</stop></timestamp><deltatime>1</deltatime></meta><when><hour>"
        ),
        "{xml}"
    );
}

#[test]
fn a_tables_columns_stand_under_their_names() {
    let column = |name: &str| TABLE_HEAD.find(name).unwrap();
    let line = TableLine(&FlowView { mark: 0x2a, ..tutorial() }, true).to_string();
    for (name, value) in [
        ("PROTO", "tcp "),
        ("STATE", "SYN_SENT "),
        ("LEFT", "1m57s "),
        ("SOURCE", "192.168.1.5:1031 "),
        ("DESTINATION", "192.168.1.35:23 "),
        ("PACKETS", "1 "),
        ("BYTES", "60 "),
        ("MARK", "0x2a "),
        ("ZONE", "0 "),
        ("STATUS", "unreplied"),
    ] {
        assert!(line[column(name)..].starts_with(value), "{name}: {line}");
    }
    for flow in same() {
        assert!(!TableLine(&flow, false).to_string().contains('\n'));
    }
}

// Of traffic through the kernel, with a mark and a zone among it; the flow with a zone of one direction only is left out.
const TRAFFIC: &str = include_str!("samples/traffic-list.txt");

#[test]
fn lines_of_real_traffic_equal_conntracks_in_every_form() {
    every_line_comes_back(TRAFFIC, |flow, _| FlowLine(flow, style(Form::Conntrack)).to_string());
    let family = Style { family: true, ..style(Form::Conntrack) };
    every_line_comes_back(include_str!("samples/traffic-extended.txt"), |flow, _| {
        FlowLine(flow, family).to_string()
    });
    let mut saved = include_str!("samples/traffic-save.txt").lines();
    for line in TRAFFIC.lines() {
        let flow = view_of(line);
        // The INIT told the tag 1 that answers must carry.
        let vars = if flow.proto == proto::SCTP { ProtoView::Sctp { vtag: [0, 1] } } else { flow.vars };
        let flow = FlowView { vars, ..flow };
        assert_eq!(Some(SaveLine(None, &flow, style(Form::Conntrack)).to_string().as_str()), saved.next());
    }
    assert_eq!(saved.next(), None);
    let answered = TRAFFIC.lines().find(|line| line.contains("dport=1000 ")).expect("its XML is there");
    let flow = FlowView { id: 1_595_157_732, ..view_of(answered) };
    let xml = XmlFlow(None, &flow, style(Form::Conntrack));
    assert_eq!(format!("{XML_HEAD}\n{xml}\n{XML_END}\n"), include_str!("samples/traffic-xml.txt"));
}

#[test]
fn events_of_real_traffic_equal_conntracks() {
    let mut marked = 0;
    for line in include_str!("samples/traffic-events.txt").lines() {
        let (kind, rest) = match line.split_once("] ").unwrap() {
            ("    [NEW", rest) => (EventKind::New, rest),
            (" [UPDATE", rest) => (EventKind::Update, rest),
            ("[DESTROY", rest) => (EventKind::Destroy(DestroyReason::Admin), rest),
            other => panic!("{other:?}"),
        };
        let flow = view_of(rest.split(" [USERSPACE]").next().unwrap());
        let style = Style { family: true, operator: Some(1), ..style(Form::Conntrack) };
        assert_eq!(anonymous(&EventLine(kind, &flow, style).to_string()), anonymous(line));
        marked += u32::from(flow.mark == 42);
    }
    assert_eq!(marked, 2, "the beginning and the end of the marked flow");
}
