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
    Style { form, family: false, id: false, listen: false }
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
            Some(("mark" | "use", _)) => {}
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
            EventKind::Update => 1,
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
