//! `replay`: a capture through the tracker, and what is printed of it.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use conntrack::track::settings::Profile;
use indicatif::{ProgressBar, ProgressStyle};

use super::list::Listing;
use super::timeout::{pair, print_what_if};
use super::{Done, Failure, FormWords, events};
use crate::config::TrackingOptions;
use crate::config::duration::parse_span;
use crate::config::names::parse_setting;
use crate::control::schema::{EventLine, Flow};
use crate::control::what_if::answer;
use crate::driver::capture::Capture;
use crate::explain::{Packet, PacketLine, Story};
use crate::export::community::NO_SEED;
use crate::format::{Layout, Since, Style};
use crate::replay::{self, Heard, ReplayError};

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// A pcap or pcapng file; - reads standard input
    file: PathBuf,
    /// Play up to this long after the first packet, set the clock there, and print the table as it stands then
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    until: Option<Duration>,
    /// Print events too, as they happen, before the table
    #[arg(long)]
    events: bool,
    /// Print every packet with what each stage makes of it, as `trace` does live, before the table
    #[arg(long)]
    explain: bool,
    /// classic or linux
    #[arg(long, value_name = "NAME", default_value = "classic", value_parser = profile)]
    profile: Profile,
    /// A timeout, such as tcp.established=3600; any name and value that `timeout set` takes
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    timeout: Vec<(String, String)>,
    /// Say at the end what another timeout would have done, such as tcp.close_wait=60s; several are set together
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    what_if: Vec<(String, String)>,
    /// A tracking key of the configuration file, such as tcp.pickup=ack or table.max_entries=1000000
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Let the TCP state table alone decide
    #[arg(long)]
    no_window_tracking: bool,
    /// Accept wrong checksums: captures taken on a sender whose NIC fills them in
    #[arg(long)]
    no_checksum: bool,
    #[command(flatten)]
    form: FormWords,
}

fn profile(word: &str) -> Result<Profile, String> {
    match word {
        "classic" => Ok(Profile::Classic),
        "linux" => Ok(Profile::Linux),
        _ => Err("the profiles are classic and linux".to_owned()),
    }
}

impl Replay {
    fn options(&self) -> Result<TrackingOptions, Failure> {
        let mut options = TrackingOptions::new(self.profile);
        for (key, value) in &self.set {
            options
                .set(key, value)
                .map_err(|error| Failure::Usage(format!("--set {key}={value}: {}", error.message())))?;
        }
        for (name, value) in &self.timeout {
            let (key, span) =
                parse_setting(name, value).map_err(|error| Failure::Usage(error.to_string()))?;
            options.settings.timeouts.set(key, span);
        }
        if self.no_window_tracking {
            options.settings.tcp.window_tracking = false;
        }
        if self.no_checksum {
            options.settings.checksum = false;
        }
        Ok(options)
    }

    pub(super) fn run(self) -> Done {
        let output = self.form.output.unwrap_or_default();
        if self.events {
            events::refuse_array(output)?;
            if output.layout == Layout::Xml {
                return Err(Failure::Usage(
                    "events and a table are two XML documents: give -o jsonl, or leave --events out"
                        .to_owned(),
                ));
            }
        }
        if self.explain && !matches!(output.layout, Layout::Text | Layout::JsonLines) {
            return Err(Failure::Usage("packets are explained as text, or with -o jsonl".to_owned()));
        }
        let options = self.options()?;
        let classic = options.settings.profile == Profile::Classic;
        let mut then = options.settings.timeouts;
        for (name, value) in &self.what_if {
            let (key, span) =
                parse_setting(name, value).map_err(|error| Failure::Usage(error.to_string()))?;
            then.set(key, span);
        }
        let name = self.file.display().to_string();
        let failed = |error: ReplayError| match error {
            ReplayError::Output(error) => Failure::Output(error),
            ReplayError::Capture(error) => Failure::Failed(format!("{name}: {error}")),
            memory => Failure::Failed(memory.to_string()),
        };

        let mut capture = Capture::open(&self.file).map_err(|error| failed(error.into()))?;
        let mut replay = replay::Replay::new(&options, self.events).map_err(failed)?;
        if self.explain {
            replay.explain();
        }
        let bar = progress(&self.file);
        let mut out = BufWriter::new(io::stdout().lock());
        let told = |start_unix_ms: u64, heard: Heard<'_>| match (heard, output.layout) {
            (Heard::Packet(explained), layout) => {
                let packet = Packet::new(explained, 0, None, classic, start_unix_ms);
                if layout != Layout::JsonLines {
                    return writeln!(out, "{}", Story(&packet));
                }
                serde_json::to_writer(&mut out, &PacketLine::Packet(Box::new(packet)))?;
                out.write_all(b"\n")
            }
            (Heard::Event(event), Layout::Text | Layout::Xml | Layout::Save | Layout::Table) => {
                let unix_ms = start_unix_ms + event.at().as_millis();
                let since = Since { boot_unix_ms: start_unix_ms, now_unix_ms: unix_ms };
                let style = Style { since: output.since.then_some(since), ..output.style(classic) };
                events::print(&mut out, event.kind, &event.flow(), unix_ms, output, style)
            }
            (Heard::Event(event), Layout::Json | Layout::JsonLines) => {
                let (view, unix_ms) = (event.flow(), start_unix_ms + event.at().as_millis());
                let line =
                    EventLine::new(event.kind, unix_ms, Flow::new(&view, classic).identified(&view, NO_SEED));
                serde_json::to_writer(&mut out, &line)?;
                out.write_all(b"\n")
            }
        };
        let played = replay.run(&mut capture, self.until, told, |done| bar.set_position(done));
        bar.finish_and_clear();
        if let Err(error @ (ReplayError::Output(_) | ReplayError::Memory { .. })) = played {
            return Err(failed(error));
        }
        // A capture that was cut off has been played as far as it goes: the table is shown, then the error.
        let mut listing = Listing::new(&mut out, output, classic);
        listing.reckon(Since { boot_unix_ms: replay.start_unix_ms(), now_unix_ms: replay.now_unix_ms() });
        replay.each_flow(|view| listing.view(view))?;
        let shown = listing.end()?;
        drop(out);
        let summary = replay.summary();
        let mut err = io::stderr().lock();
        write!(err, "dpdk-conntrack: {name}: {shown} flows, ")?;
        summary.write(&mut err)?;
        if !self.what_if.is_empty() {
            let recorded = (replay.now_unix_ms() - replay.start_unix_ms()) as f64 / 1e3;
            print_what_if(&mut err, &answer(&replay.what_if(&then), &options.settings, &then, recorded))?;
        }
        if summary.looks_offloaded() {
            writeln!(
                err,
                "dpdk-conntrack: many checksums are wrong, as in a capture taken on the sender: try --no-checksum"
            )?;
        }
        played.map_err(failed)
    }
}

/// A bar on a terminal, nothing elsewhere, and nothing for what has no known length.
fn progress(file: &Path) -> ProgressBar {
    let len = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
    match len {
        Some(len) if io::stderr().is_terminal() => {
            let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}  {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(len).with_style(style)
        }
        _ => ProgressBar::hidden(),
    }
}
