//! `list`: the table in the form that was asked for.

use std::io::{self, BufWriter, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use conntrack::event::FlowView;

use super::client::Client;
use super::{Ask, Done, Failure, Voice};
use crate::control::schema::{Flow, Info};
use crate::export::community::NO_SEED;
use crate::filter::Filter;
use crate::format::{
    Deed, FlowLine, Layout, Output, SaveLine, Since, Style, TABLE_HEAD, TableLine, XML_END, XML_HEAD, XmlFlow,
};

/// Flows printed one after the other, in the form that was asked for.
pub(super) struct Listing<W: Write> {
    out: W,
    output: Output,
    style: Style,
    classic: bool,
    /// XML is framed, as a listing and unlike what `conntrack -D` and `-U` print.
    framed: bool,
    shown: u64,
}

impl<W: Write> Listing<W> {
    pub(super) fn new(out: W, output: Output, classic: bool) -> Self {
        Self { out, output, style: output.style(classic), classic, framed: true, shown: 0 }
    }

    /// A listing of what `info`'s appliance tells.
    pub(super) fn told_by(out: W, output: Output, info: &Info) -> Self {
        let mut listing = Self::new(out, output, info.profile == "classic");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_unix_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        listing.reckon(Since { boot_unix_ms: info.boot_unix_ms, now_unix_ms });
        listing
    }

    /// Says by which clock flows began, for outputs that show it.
    pub(super) fn reckon(&mut self, since: Since) {
        self.style.since = Some(since).filter(|_| self.output.since);
    }

    /// What an edit answers, instead of a listing.
    pub(super) fn of_edits(mut self, done: Deed) -> Self {
        self.framed = false;
        self.style.done = done;
        self
    }

    /// Prints a flow of this process's own tracker.
    pub(super) fn view(&mut self, view: &FlowView) -> io::Result<()> {
        match self.output.layout {
            Layout::Json | Layout::JsonLines => {
                self.json(&Flow::new(view, self.classic).identified(view, NO_SEED))
            }
            _ => self.line(view),
        }
    }

    /// Prints a flow that the appliance told.
    pub(super) fn flow(&mut self, flow: &Flow) -> Result<(), Failure> {
        match self.output.layout {
            Layout::Json | Layout::JsonLines => self.json(flow)?,
            _ => {
                let view = flow.to_view().map_err(|error| Failure::Failed(error.to_string()))?;
                self.line(&view)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, view: &FlowView) -> io::Result<()> {
        let first = self.shown == 0;
        self.shown += 1;
        let Self { out, style, .. } = self;
        match self.output.layout {
            Layout::Xml => {
                if first && self.framed {
                    writeln!(out, "{XML_HEAD}")?;
                }
                writeln!(out, "{}", XmlFlow(None, view, *style))
            }
            Layout::Save => writeln!(out, "{}", SaveLine(None, view, *style)),
            Layout::Table => {
                if first {
                    writeln!(out, "{TABLE_HEAD}")?;
                }
                writeln!(out, "{}", TableLine(view, style.listen))
            }
            Layout::Text | Layout::Json | Layout::JsonLines => writeln!(out, "{}", FlowLine(view, *style)),
        }
    }

    fn json(&mut self, flow: &Flow) -> io::Result<()> {
        if self.output.layout == Layout::Json {
            self.out.write_all(if self.shown == 0 { b"[\n" } else { b",\n" })?;
        }
        self.shown += 1;
        serde_json::to_writer(&mut self.out, flow)?;
        if self.output.layout == Layout::JsonLines { self.out.write_all(b"\n") } else { Ok(()) }
    }

    /// Ends the listing; gives how many flows it had.
    pub(super) fn end(mut self) -> io::Result<u64> {
        match self.output.layout {
            Layout::Json => self.out.write_all(if self.shown == 0 { b"[]\n" } else { b"\n]\n" })?,
            Layout::Xml if self.shown > 0 && self.framed => writeln!(self.out, "{XML_END}")?,
            _ => {}
        }
        self.out.flush()?;
        Ok(self.shown)
    }
}

pub(super) fn list(ask: &Ask, filter: &Filter, output: Output, voice: Voice) -> Done {
    let client = Client::new(&ask.socket)?;
    let mut listing = Listing::told_by(BufWriter::new(io::stdout().lock()), output, &client.info()?);
    client.lines(&format!("/v1/flows{}", filter.query()), |flow: Flow| listing.flow(&flow))?;
    let shown = listing.end()?;
    voice.say(&format!("{shown} flow entries have been shown."))
}
