//! `events --dropped` and `trace`: single packets, told as they pass.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;

use super::client::{Client, Ended};
use super::filter::{FilterWords, MarkWord};
use super::{Ask, Done, Failure, Voice};
use crate::config::duration::parse_span;
use crate::explain::{Packet, PacketLine, RecordLine, Story};
use crate::filter::Filter;
use crate::format::{Layout, Output};

/// INVALID and dropped packets in the place of flows.
#[derive(Debug, Args)]
#[command(next_help_heading = "Packets")]
pub(super) struct DroppedWords {
    /// INVALID and dropped packets instead, each with the reason; a sample where there are many. -o takes text, json or jsonl
    #[arg(long, conflicts_with = "event_mask")]
    dropped: bool,
    /// Begin with those that are still known of the time before
    #[arg(long, requires = "dropped")]
    past: bool,
    /// End after so many packets
    #[arg(long, value_name = "NUMBER", requires = "dropped", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so long, such as 10s
    #[arg(long = "for", value_name = "SPAN", requires = "dropped", value_parser = patience)]
    patience: Option<Duration>,
}

/// Which packets to follow, and how far.
#[derive(Debug, Args)]
pub(super) struct TraceWords {
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    form: PacketForm,
    /// End after so many packets
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// End after so long, from 1ms to an hour
    #[arg(long = "for", value_name = "SPAN", default_value = "1m", value_parser = patience)]
    patience: Duration,
    #[command(flatten)]
    filter: FilterWords,
    #[command(flatten)]
    mark: MarkWord,
}

/// How packets are printed.
#[derive(Debug, Args)]
pub(super) struct PacketForm {
    /// text, json or jsonl
    #[arg(short, long, value_name = "WORD", default_value = "text", value_parser = form)]
    output: Layout,
}

/// How long to wait. For no time at all there is no use.
fn patience(text: &str) -> Result<Duration, String> {
    match parse_span(text)? {
        Duration::ZERO => {
            Err("no packet comes in no time: give a longer one, such as 500ms or 10s".to_owned())
        }
        span => Ok(span),
    }
}

fn form(word: &str) -> Result<Layout, String> {
    match word {
        "text" => Ok(Layout::Text),
        "json" => Ok(Layout::Json),
        "jsonl" => Ok(Layout::JsonLines),
        _ => Err("packets are printed as text, json or jsonl".to_owned()),
    }
}

impl DroppedWords {
    pub(super) fn are_meant(&self) -> bool {
        self.dropped
    }

    pub(super) fn follow(&self, ask: &Ask, filter: &Filter, output: Output) -> Done {
        let layout = match output.layout {
            layout @ (Layout::Text | Layout::Json | Layout::JsonLines) => layout,
            Layout::Table | Layout::Xml | Layout::Save => {
                return Err(Failure::Usage("packets are printed as text, json or jsonl".to_owned()));
            }
        };
        let path = with("/v1/dropped", filter, if self.past { &["past=true"] } else { &[] });
        let mut printer =
            Printer::new(layout, "too many to tell each", |packet| RecordLine(packet).to_string());
        let client = Client::new(&ask.socket)?;
        let mut left = self.count;
        let ended = client.lines_while(&path, self.patience, |line| printer.more(&line, &mut left))?;
        printer.end(ended, "INVALID and dropped packets have been shown")
    }
}

impl TraceWords {
    pub(super) fn follow(self) -> Done {
        let Self { ask, form, count, patience, filter, mark } = self;
        let filter = filter.with_mark(mark)?;
        let secs = patience.as_secs_f64();
        let path = with("/v1/trace", &filter, &[&format!("count={count}"), &format!("secs={secs}")]);
        // Which of them were meant nobody has looked at.
        let mut printer =
            Printer::new(form.output, "too many to look at each", |packet| Story(packet).to_string());
        let client = Client::new(&ask.socket)?;
        // The appliance counts: it also knows which lines are one packet's.
        let ended = client.lines_while(&path, None, |line| printer.more(&line, &mut None))?;
        let ended = if ended == Ended::Stream { Ended::Enough } else { ended };
        printer.end(ended, "lines of followed packets have been shown")
    }
}

/// A path with a filter's parameters and others.
fn with(path: &str, filter: &Filter, more: &[&str]) -> String {
    let mut path = format!("{path}{}", filter.query());
    for parameter in more {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(parameter);
    }
    path
}

/// Prints packets as they come.
struct Printer<W: Fn(&Packet) -> String> {
    layout: Layout,
    /// What kept the others from being told.
    why_untold: &'static str,
    words: W,
    shown: u64,
}

impl<W: Fn(&Packet) -> String> Printer<W> {
    fn new(layout: Layout, why_untold: &'static str, words: W) -> Self {
        Self { layout, why_untold, words, shown: 0 }
    }

    /// Prints one; gives whether more are wanted.
    fn more(&mut self, line: &PacketLine, left: &mut Option<u64>) -> Result<bool, Failure> {
        let mut out = io::stdout().lock();
        if let PacketLine::Untold { count } | PacketLine::Lost { count } = line
            && self.layout != Layout::JsonLines
        {
            let why = match line {
                PacketLine::Lost { .. } => "were lost here: read faster".to_owned(),
                _ => format!("more are not told: there were {}", self.why_untold),
            };
            writeln!(io::stderr(), "dpdk-conntrack: {count} packets {why}")?;
            return Ok(true);
        }
        match (self.layout, line) {
            (Layout::Json, _) => {
                out.write_all(if self.shown == 0 { b"[" } else { b",\n" })?;
                serde_json::to_writer(&mut out, line).map_err(io::Error::from)?;
            }
            (Layout::JsonLines, _) => {
                serde_json::to_writer(&mut out, line).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            }
            (_, PacketLine::Packet(packet)) => writeln!(out, "{}", (self.words)(packet))?,
            _ => {}
        }
        out.flush()?;
        if matches!(line, PacketLine::Packet(_)) {
            self.shown += 1;
            if let Some(left) = left {
                *left = left.saturating_sub(1);
            }
        }
        Ok(*left != Some(0))
    }

    fn end(self, ended: Ended, what: &str) -> Done {
        if self.layout == Layout::Json {
            writeln!(io::stdout(), "{}", if self.shown == 0 { "[]" } else { "]" })?;
        }
        if ended == Ended::Stream {
            return Err(Failure::Failed("the appliance has stopped: no more packets".to_owned()));
        }
        Voice::Own.say(&format!("{} {what}.", self.shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_second_is_that_and_no_time_is_refused() {
        assert_eq!(patience("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(patience("90"), Ok(Duration::from_secs(90)));
        for none in ["0", "0s", "0ms"] {
            assert!(patience(none).unwrap_err().contains("such as 500ms"), "{none}");
        }
    }
}
