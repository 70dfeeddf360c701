//! The screen on a terminal in memory.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::screen::{Next, Screen, Tab};
use super::view;
use crate::control::schema::StateEntries;
use crate::control::schema::overview::{Forecast, Overview, PortNow, Talker, Tally, Top, WorkerNow};

fn tally(total: u64, per_second: f64) -> Tally {
    Tally { total, per_second }
}

fn state(proto: &str, state: &str, entries: u64) -> StateEntries {
    StateEntries { proto: proto.to_owned(), state: state.to_owned(), entries }
}

fn busy() -> Overview {
    let talkers = |net: u8| {
        (1..=20).map(move |host| Talker { address: [10, 0, net, host].into(), flows: 1000 - u64::from(host) })
    };
    let worker =
        |worker: u32, busy| WorkerNow { worker, responding: worker != 2, busy, ..WorkerNow::default() };
    let port = |name: &str, rate| PortNow {
        name: name.to_owned(),
        up: Some(true),
        rx_packets_per_second: rate,
        ..PortNow::default()
    };
    Overview {
        uptime_secs: 7_500,
        entries: 212_336,
        entries_limit: 262_144,
        forecast: Forecast { growth_per_second: 262.0, full_in_secs: Some(190) },
        states: vec![state("udp", "", 12_336), state("tcp", "ESTABLISHED", 200_000)],
        opened: tally(1_234_567, 12_345.0),
        dropped: [("policy_new".to_owned(), tally(77, 3.0)), ("table_full".to_owned(), tally(900, 1.0))]
            .into(),
        invalid: [("tcp_state".to_owned(), tally(5, 0.0))].into(),
        workers: vec![worker(0, 0.25), worker(1, 0.75), worker(2, 0.5)],
        ports: vec![port("lan", 1_500.0), port("wan", 2_500_000.0)],
        top: Some(Top {
            exact: false,
            sources: talkers(1).collect(),
            destinations: talkers(2).collect(),
            ..Top::default()
        }),
        ..Overview::default()
    }
}

fn screen() -> Screen {
    let mut screen = Screen::new("/run/x.sock".to_owned());
    screen.hear(Ok(busy()));
    screen
}

fn lines(screen: &Screen, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, screen)).unwrap();
    let cells = terminal.backend().buffer().content().chunks(usize::from(width));
    cells.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()).collect()
}

fn press(screen: &mut Screen, code: KeyCode) -> Next {
    screen.key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[track_caller]
fn has(lines: &[String], words: &[&str]) {
    let found = lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(found, "no line has {words:?}:\n{}", lines.join("\n"));
}

#[test]
fn eighty_by_twenty_four_hold_all_that_matters() {
    let lines = lines(&screen(), 80, 24);
    has(&lines, &["dpdk-conntrack", "up 2 h 5 min"]);
    has(&lines, &["212,336 of 262,144 flows, 81.0 %, full in 3 min at this rate"]);
    has(&lines, &["new flows", "12.3k", "1,234,567"]);
    has(&lines, &["dropped", "4", "977"]);
    has(&lines, &["tcp", "ESTABLISHED", "200,000"]);
    has(&lines, &["10.0.1.1", "999", "10.0.2.1"]);
    has(&lines, &["q quit", "p pause", "s sort: flows"]);
    assert_eq!(lines.len(), 24);
}

#[test]
fn every_tab_draws_at_every_size_and_hides_rows_openly() {
    let mut screen = screen();
    for tab in Tab::ALL {
        screen.tab = tab;
        for (width, height) in [(80, 24), (200, 60), (40, 10), (10, 3), (1, 1)] {
            assert_eq!(lines(&screen, width, height).len(), usize::from(height), "{tab:?}");
        }
    }
    screen.tab = Tab::Talkers;
    has(&lines(&screen, 80, 24), &["Sources by flows, estimated (13 more below)"]);
    for _ in 0..100 {
        press(&mut screen, KeyCode::Down);
    }
    let end = lines(&screen, 80, 24);
    has(&end, &["10.0.1.20", "980"]);
    has(&end, &["Destinations by flows, estimated"]);
}

#[test]
fn keys_change_tab_and_order_pause_and_quit() {
    let mut screen = screen();
    assert_eq!(press(&mut screen, KeyCode::Tab), Next::Go);
    assert_eq!(screen.tab, Tab::Reasons);
    let first_reason = |screen: &Screen| lines(screen, 80, 24)[5].clone();
    assert!(first_reason(&screen).contains("policy_new"), "the highest rate first");
    press(&mut screen, KeyCode::Char('s'));
    assert!(first_reason(&screen).contains("table_full"), "the highest total first");
    press(&mut screen, KeyCode::Char('3'));
    assert!(lines(&screen, 80, 24)[5].contains(" 25.0 %"), "by number");
    press(&mut screen, KeyCode::Char('s'));
    assert!(lines(&screen, 80, 24)[5].contains(" 75.0 %"), "the busiest first");
    has(&lines(&screen, 80, 24), &["2 mute"]);
    press(&mut screen, KeyCode::BackTab);
    assert_eq!(screen.tab, Tab::Reasons);

    press(&mut screen, KeyCode::Char('p'));
    screen.hear(Ok(Overview { entries: 1, ..busy() }));
    has(&lines(&screen, 80, 24), &["PAUSED"]);
    has(&lines(&screen, 80, 24), &["212,336 of"]);
    press(&mut screen, KeyCode::Char('p'));
    screen.hear(Ok(Overview { entries: 1, ..busy() }));
    has(&lines(&screen, 80, 24), &["1 of 262,144 flows"]);

    assert_eq!(press(&mut screen, KeyCode::Char('q')), Next::Quit);
    assert_eq!(screen.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Next::Quit);
}

#[test]
fn an_appliance_that_is_gone_is_told_and_its_last_numbers_stay() {
    let mut screen = screen();
    screen.hear(Err("nobody answers".to_owned()));
    has(&lines(&screen, 80, 24), &["NO ANSWER for ", " s: nobody answers"]);
    has(&lines(&screen, 80, 24), &["212,336 of"]);
    screen.hear(Ok(busy()));
    assert!(!lines(&screen, 80, 24).iter().any(|line| line.contains("NO ANSWER")));
}

#[test]
fn what_a_column_cannot_hold_is_shortened_openly_and_never_cut() {
    let mut now = busy();
    now.opened = tally(1_234_567_890_123, 0.0);
    now.closed = tally(99_999_999_999, 0.0);
    now.states = vec![state("icmpv6", "SHUTDOWN_ACK_SENT", 100_000_000)];
    now.dropped = [("policy_new".to_owned(), tally(9_876_543_210_123, 0.0))].into();
    now.workers[1].entries = 100_000_000;
    now.ports[0].name = "a-name-of-thirty-two-characters!".to_owned();
    now.ports[0].rx_missed.total = 12_345_678_901;
    now.ports[0].rx_errors.total = 98_765_432;
    now.ports[0].rx_bits_per_second = 123_456_789_012.0;
    let mut screen = screen();
    screen.hear(Ok(now));
    let shown = lines(&screen, 80, 24);
    has(&shown, &["new flows", " 1.2T │"]);
    has(&shown, &["ended flows", " 99,999,999,999 │"]);
    has(&shown, &["icmpv6  SHUTDOWN_ACK_SENT  100,000,000│"]);
    screen.tab = Tab::Reasons;
    has(&lines(&screen, 80, 24), &["policy_new", " 9.9T"]);
    screen.tab = Tab::Workers;
    has(&lines(&screen, 80, 24), &["│1 ", " 100,000,000 "]);
    screen.tab = Tab::Ports;
    has(&lines(&screen, 80, 24), &["│a-name-o…racters! up ", " 123.5G ", " 12.3G ", " 98.8M│"]);
    let name = "│a-name-of-thirty-two-characters! ";
    has(&lines(&screen, 100, 24), &[name]);
    assert!(super::text(&mut screen).unwrap().contains(name), "on paper nothing is shortened");
}

#[test]
fn paper_has_every_row_however_many_there_are() {
    let many = |count: u64| {
        (0..count).map(|number| (format!("reason_{number:03}"), tally(number + 1, 1.0))).collect()
    };
    let states = ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT"];
    let mut now = busy();
    now.states = (1..).zip(states).map(|(entries, name)| state("tcp", name, entries)).collect();
    let others = ["udp", "udplite", "icmp", "icmpv6", "gre", "other"];
    now.states.extend(others.map(|proto| state(proto, "", 4_000_000)));
    now.dropped = many(90);
    now.workers = (0..70).map(|worker| WorkerNow { worker, ..WorkerNow::default() }).collect();
    let mut screen = screen();
    screen.hear(Ok(now));
    let text = super::text(&mut screen).unwrap();
    assert!(!text.contains("more below"), "{text}");
    for words in states.into_iter().chain(others).chain(["reason_000", "reason_089", "│69 "]) {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }
    // Rates beside 13 states, 91 reasons (one of INVALID), 70 workers, 2 ports and 20 talkers on two sides.
    let rows = 2 + (13 + 3) + (91 + 3) + (70 + 3) + (2 + 3) + 2 * (20 + 3);
    assert_eq!(text.lines().count(), rows, "{text}");
}

#[test]
fn paper_has_every_part_and_no_empty_lines() {
    let text = super::text(&mut screen()).unwrap();
    for words in ["212,336 of 262,144", "New flows", "policy_new", "wan", "10.0.1.20", "10.0.2.20"] {
        assert!(text.to_lowercase().contains(&words.to_lowercase()), "no `{words}` in\n{text}");
    }
    assert!(!text.contains("\n\n"), "{text}");
}
