//! The screen of `top`. Owns layout, columns and colours; everything that it shows is in the overview.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, LineGauge, Paragraph, Row, Table, Tabs};

use super::screen::{Screen, Tab};
use crate::control::schema::StateEntries;
use crate::control::schema::overview::{Forecast, Overview, PortNow, Talker, Tally, WorkerNow};

/// From these shares of the table on it is told in another colour, as the log warns.
const WARN: f64 = 0.8;
const ALARM: f64 = 0.95;

/// The lines of the head.
const HEAD: u16 = 2;

/// The lines of a table beside its rows: the frame and the names of the columns.
const FRAME: u16 = 3;

/// The whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let [head, tabs, body, keys] = Layout::vertical([
        Constraint::Length(HEAD),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, screen, head);
    let titles = Tab::ALL.iter().enumerate().map(|(at, tab)| format!("{} {}", at + 1, tab.title()));
    frame.render_widget(
        Tabs::new(titles).select(screen.tab as usize).highlight_style(Modifier::REVERSED),
        tabs,
    );
    draw_body(frame, screen, body);
    let order = screen.order();
    let said = format!(" q quit   Tab next   p pause   s sort: {order}   arrows scroll");
    frame.render_widget(Paragraph::new(said).style(Modifier::DIM), keys);
}

/// One tab below another, for paper: all of its rows. The talkers have a part of their own there.
pub(super) fn draw_part(frame: &mut Frame<'_>, screen: &Screen, with_head: bool) {
    let height = if with_head { HEAD } else { 0 };
    let [head, body] = Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(frame.area());
    if with_head {
        draw_head(frame, screen, head);
    }
    match (screen.tab, &screen.latest) {
        (Tab::Overview, Some(now)) => draw_rates_and_states(frame, screen, now, body),
        _ => draw_body(frame, screen, body),
    }
}

/// The lines that [`draw_part`] needs.
pub(super) fn part_height(screen: &Screen, with_head: bool) -> u16 {
    let head = if with_head { HEAD } else { 0 };
    let Some(now) = &screen.latest else { return head };
    let body = match screen.tab {
        Tab::Overview => table_height(rates(now).len().max(states(now, screen.order()).len())),
        Tab::Reasons => table_height(reasons(now, screen.order()).len()),
        Tab::Workers => table_height(now.workers.len()),
        Tab::Ports => table_height(now.ports.len()),
        Tab::Talkers => {
            let rows = now.top.as_ref().map_or(0, |top| top.sources.len().max(top.destinations.len()));
            table_height(rows).saturating_mul(2)
        }
    };
    head.saturating_add(body)
}

fn table_height(rows: usize) -> u16 {
    u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(FRAME)
}

fn draw_head(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let [title, fill] = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(area);
    let mut words = vec![Span::styled("dpdk-conntrack", Modifier::BOLD)];
    if let Some(now) = &screen.latest {
        words.push(Span::raw(format!("  up {}", span(now.uptime_secs))));
    }
    if screen.paused {
        words.push(Span::styled("  PAUSED", Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD)));
    }
    if let (Some(silent), Some((why, _))) = (screen.silent_for(), &screen.gone) {
        let said = format!("  NO ANSWER for {} s: {why}", silent.as_secs());
        words.push(Span::styled(said, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)));
    }
    frame.render_widget(Paragraph::new(Line::from(words)), title);
    let Some(now) = &screen.latest else {
        return frame.render_widget(Paragraph::new(format!("waiting for {}", screen.socket)), fill);
    };
    let share = now.entries as f64 / now.entries_limit.max(1) as f64;
    let colour = match share {
        share if share >= ALARM => Color::Red,
        share if share >= WARN => Color::Yellow,
        _ => Color::Green,
    };
    let label = format!(
        "{} of {} flows, {:.1} %, {}",
        whole(now.entries),
        whole(now.entries_limit),
        100.0 * share,
        outlook(&now.forecast)
    );
    frame.render_widget(
        LineGauge::default().ratio(share.clamp(0.0, 1.0)).label(label).filled_style(Style::new().fg(colour)),
        fill,
    );
}

/// Where the table's fill is going.
fn outlook(forecast: &Forecast) -> String {
    match forecast.full_in_secs {
        Some(0) => "full".to_owned(),
        Some(secs) => format!("full in {} at this rate", span(secs)),
        None if forecast.growth_per_second < 0.0 => {
            format!("{}/s", short(forecast.growth_per_second))
        }
        None => format!("+{}/s", short(forecast.growth_per_second)),
    }
}

fn draw_body(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let Some(now) = &screen.latest else { return };
    match screen.tab {
        Tab::Overview => draw_overview(frame, screen, now, area),
        Tab::Reasons => {
            let rows = reasons(now, screen.order()).into_iter().map(|(what, reason, tally)| {
                [what.to_owned(), reason.to_owned(), short(tally.per_second), within(tally.total, 16)]
            });
            let widths = [12, 30, 12, 16].map(Constraint::Length);
            let head = ["what", "reason", "a second", "since start"];
            draw_rows(frame, area, "Dropped, INVALID and lost packets", 2, head, widths, rows, screen.above);
        }
        Tab::Workers => {
            let rows =
                sorted(&now.workers, |a, b| by_worker(screen.order(), a, b)).into_iter().map(worker_row);
            let widths = [8, 11, 7, 8, 8, 8, 8, 9].map(Constraint::Length);
            let head = ["worker", "flows", "busy", "rx/s", "tx/s", "new/s", "handed/s", "lag"];
            draw_rows(frame, area, "Workers", 1, head, widths, rows, screen.above);
        }
        Tab::Ports => {
            let numbers = [4, 7, 8, 7, 8, 11, 9];
            // The frame, the other columns and the gap before each.
            let taken = 2 + numbers.iter().map(|width| width + 1).sum::<u16>();
            let room = usize::from(area.width.saturating_sub(taken));
            let rows = sorted(&now.ports, |a, b| by_port(screen.order(), a, b));
            let rows = rows.into_iter().map(|port| port_row(port, room));
            let [link, rx, rx_bits, tx, tx_bits, missed, errors] = numbers.map(Constraint::Length);
            let widths = [Constraint::Fill(1), link, rx, rx_bits, tx, tx_bits, missed, errors];
            let head = ["port", "link", "rx/s", "rx bit/s", "tx/s", "tx bit/s", "missed", "errors"];
            draw_rows(frame, area, "Ports", 2, head, widths, rows, screen.above);
        }
        Tab::Talkers => draw_talkers(frame, screen, now, area),
    }
}

fn draw_overview(frame: &mut Frame<'_>, screen: &Screen, now: &Overview, area: Rect) {
    let above = table_height(rates(now).len());
    let [above, below] = Layout::vertical([Constraint::Min(above), Constraint::Length(7)]).areas(area);
    draw_rates_and_states(frame, screen, now, above);
    let [left, right] = Layout::horizontal(HALVES).areas(below);
    let (sources, destinations) = talkers(now, "flows");
    draw_addresses(frame, left, "Top sources", sources, 0);
    draw_addresses(frame, right, "Top destinations", destinations, 0);
}

const HALVES: [Constraint; 2] = [Constraint::Fill(1), Constraint::Fill(1)];

fn draw_rates_and_states(frame: &mut Frame<'_>, screen: &Screen, now: &Overview, area: Rect) {
    let [left, right] = Layout::horizontal(HALVES).areas(area);
    let widths = [12, 9, 14].map(Constraint::Length);
    draw_rows(frame, left, "Rates", 1, ["", "a second", "since start"], widths, rates(now).into_iter(), 0);
    let widths = [7, 18, 11].map(Constraint::Length);
    let rows = states(now, screen.order()).into_iter();
    draw_rows(frame, right, "States", 2, ["proto", "state", "flows"], widths, rows, screen.above);
}

/// What happens, how often, and how often since the start.
fn rates(now: &Overview) -> Vec<[String; 3]> {
    let sum = |tallies: &BTreeMap<String, Tally>| {
        tallies.values().fold(Tally::default(), |sum, tally| Tally {
            total: sum.total + tally.total,
            per_second: sum.per_second + tally.per_second,
        })
    };
    let rows = [
        ("new flows", now.opened),
        ("ended flows", now.closed),
        ("received", now.rx_packets),
        ("sent", now.tx_packets),
        ("dropped", sum(&now.dropped)),
        ("INVALID", sum(&now.invalid)),
        ("malformed", sum(&now.malformed)),
        ("lost", sum(&now.lost)),
    ];
    let mut rows: Vec<_> =
        rows.map(|(name, tally)| [name.to_owned(), short(tally.per_second), within(tally.total, 14)]).into();
    // Bits a second and bytes since the start, as ports are told.
    let bits = now.rx_bytes.per_second * 8.0;
    rows.insert(3, ["  bits/bytes".to_owned(), short(bits), short(now.rx_bytes.total as f64)]);
    rows
}

/// Protocol, state and flows, of states that have any.
fn states(now: &Overview, order: &str) -> Vec<[String; 3]> {
    let mut states: Vec<_> = now.states.iter().filter(|state| state.entries > 0).collect();
    match order {
        "name" => states.sort_by(|a, b| (&a.proto, &a.state).cmp(&(&b.proto, &b.state))),
        _ => states.sort_by_key(|state| std::cmp::Reverse(state.entries)),
    }
    let row = |state: &StateEntries| {
        let name = if state.state.is_empty() { "-".to_owned() } else { state.state.clone() };
        [state.proto.clone(), name, whole(state.entries)]
    };
    states.into_iter().map(row).collect()
}

fn draw_talkers(frame: &mut Frame<'_>, screen: &Screen, now: &Overview, area: Rect) {
    // Below each other, so that the longest address fits.
    let [left, right] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
    let (sources, destinations) = talkers(now, screen.order());
    let about = match &now.top {
        Some(top) if !top.exact => ", estimated",
        Some(_) => "",
        None => ", being counted",
    };
    draw_addresses(frame, left, &format!("Sources by flows{about}"), sources, screen.above);
    draw_addresses(frame, right, &format!("Destinations by flows{about}"), destinations, screen.above);
}

fn talkers<'a>(now: &'a Overview, order: &str) -> (Vec<&'a Talker>, Vec<&'a Talker>) {
    let compare = |a: &Talker, b: &Talker| match order {
        "address" => a.address.cmp(&b.address),
        _ => b.flows.cmp(&a.flows).then(a.address.cmp(&b.address)),
    };
    match &now.top {
        Some(top) => (sorted(&top.sources, compare), sorted(&top.destinations, compare)),
        None => (Vec::new(), Vec::new()),
    }
}

fn draw_addresses(frame: &mut Frame<'_>, area: Rect, title: &str, rows: Vec<&Talker>, above: usize) {
    // The frame, the gap, and the other column.
    let room = usize::from(area.width).saturating_sub(2 + 1 + 11);
    let rows =
        rows.into_iter().map(|talker| [fitted(&talker.address.to_string(), room), whole(talker.flows)]);
    let widths = [Constraint::Fill(1), Constraint::Length(11)];
    draw_rows(frame, area, title, 1, ["address", "flows"], widths, rows, above);
}

/// A table in a frame, whose first columns are words; `above` rows at most are left out at the top, never so many that the rest of the frame is empty.
#[expect(clippy::too_many_arguments, reason = "what a table is")]
fn draw_rows<const N: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    words: usize,
    head: [&str; N],
    widths: [Constraint; N],
    rows: impl Iterator<Item = [String; N]>,
    above: usize,
) {
    let rows: Vec<_> = rows.collect();
    let room = usize::from(area.height.saturating_sub(FRAME));
    let above = above.min(rows.len().saturating_sub(room));
    let hidden = rows.len().saturating_sub(above + room);
    let title = if hidden > 0 { format!("{title} ({hidden} more below)") } else { title.to_owned() };
    // Words stand left, numbers right.
    let cell = |(at, text): (usize, String)| match at < words {
        true => Line::from(text),
        false => Line::from(text).right_aligned(),
    };
    let row = |cells: [String; N]| Row::new(cells.into_iter().enumerate().map(cell));
    let head = row(head.map(str::to_owned)).style(Modifier::BOLD);
    let table = Table::new(rows.into_iter().skip(above).map(row), widths)
        .header(head)
        .column_spacing(1)
        .block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

/// What, reason, and how often.
fn reasons<'a>(now: &'a Overview, order: &str) -> Vec<(&'static str, &'a str, Tally)> {
    let kinds = [
        ("dropped", &now.dropped),
        ("INVALID", &now.invalid),
        ("malformed", &now.malformed),
        ("lost", &now.lost),
        ("flow ended", &now.closed_by),
    ];
    let mut rows: Vec<_> = kinds
        .into_iter()
        .flat_map(|(what, tallies)| {
            tallies.iter().map(move |(reason, tally)| (what, reason.as_str(), *tally))
        })
        .filter(|(_, _, tally)| tally.total > 0)
        .collect();
    rows.sort_by(|a, b| match order {
        "total" => b.2.total.cmp(&a.2.total),
        "name" => (a.0, a.1).cmp(&(b.0, b.1)),
        _ => b.2.per_second.total_cmp(&a.2.per_second).then(b.2.total.cmp(&a.2.total)),
    });
    rows
}

fn by_worker(order: &str, a: &WorkerNow, b: &WorkerNow) -> Ordering {
    match order {
        "busy" => b.busy.total_cmp(&a.busy),
        "flows" => b.entries.cmp(&a.entries),
        "rx" => b.rx_packets_per_second.total_cmp(&a.rx_packets_per_second),
        _ => a.worker.cmp(&b.worker),
    }
}

fn worker_row(worker: &WorkerNow) -> [String; 8] {
    [
        if worker.responding { worker.worker.to_string() } else { format!("{} mute", worker.worker) },
        whole(worker.entries),
        format!("{:.1} %", 100.0 * worker.busy),
        short(worker.rx_packets_per_second),
        short(worker.tx_packets_per_second),
        short(worker.opened_per_second),
        short(worker.handed_off_per_second),
        format!("{:.3}s", worker.expiry_lag_seconds),
    ]
}

fn by_port(order: &str, a: &PortNow, b: &PortNow) -> Ordering {
    match order {
        "rx" => b.rx_packets_per_second.total_cmp(&a.rx_packets_per_second),
        "tx" => b.tx_packets_per_second.total_cmp(&a.tx_packets_per_second),
        "name" => a.name.cmp(&b.name),
        // As the configuration has them.
        _ => Ordering::Equal,
    }
}

/// With its name in so many characters.
fn port_row(port: &PortNow, room: usize) -> [String; 8] {
    let link = match port.up {
        Some(true) => "up",
        Some(false) => "down",
        None => "-",
    };
    [
        fitted(&port.name, room),
        link.to_owned(),
        short(port.rx_packets_per_second),
        short(port.rx_bits_per_second),
        short(port.tx_packets_per_second),
        short(port.tx_bits_per_second),
        within(port.rx_missed.total + port.rx_nombuf.total, 11),
        within(port.rx_errors.total + port.tx_errors.total, 9),
    ]
}

fn sorted<T>(rows: &[T], compare: impl Fn(&T, &T) -> Ordering) -> Vec<&T> {
    let mut rows: Vec<&T> = rows.iter().collect();
    rows.sort_by(|a, b| compare(a, b));
    rows
}

/// A name or an address in so many characters: what is left out is in the middle, and seen to be.
fn fitted(address: &str, room: usize) -> String {
    if address.len() <= room {
        return address.to_owned();
    }
    let half = room.saturating_sub(1) / 2;
    let (head, tail) = (address.get(..half), address.get(address.len() - half..));
    format!("{}…{}", head.unwrap_or_default(), tail.unwrap_or_default())
}

/// A rate in at most six characters.
fn short(rate: f64) -> String {
    let (value, unit) = match rate.abs() {
        size if size >= 999_500_000_000.0 => (rate / 1e12, "T"),
        size if size >= 999_500_000.0 => (rate / 1e9, "G"),
        size if size >= 999_500.0 => (rate / 1e6, "M"),
        size if size >= 9_999.5 => (rate / 1e3, "k"),
        _ => (rate, ""),
    };
    if unit.is_empty() { format!("{value:.0}") } else { format!("{value:.1}{unit}") }
}

/// A number with its thousands apart.
fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its thousands apart, or in short where a column of so many characters would cut it.
fn within(number: u64, room: usize) -> String {
    let text = whole(number);
    if text.len() <= room { text } else { short(number as f64) }
}

/// `3 min`, `2 h 5 min`, `5 d 3 h`.
fn span(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..86_400 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3600),
    }
}
