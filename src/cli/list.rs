//! `list` and `flush`: the table as text or JSON, and its end.

use std::io::{self, BufWriter, Write};

use conntrack::event::FlowView;
use hyper::Method;

use super::client::Client;
use super::{Ask, Done, Failure};
use crate::control::schema::{Flow, Flushed};
use crate::format::{FlowLine, Layout, Output};

/// Flows printed one after the other, in the form that was asked for.
pub(super) struct Listing<W: Write> {
    out: W,
    output: Output,
    classic: bool,
    shown: u64,
}

impl<W: Write> Listing<W> {
    pub(super) fn new(out: W, output: Output, classic: bool) -> Self {
        Self { out, output, classic, shown: 0 }
    }

    /// Prints a flow of this process's own tracker.
    pub(super) fn view(&mut self, view: &FlowView) -> io::Result<()> {
        match self.output.layout {
            Layout::Text => self.line(view),
            Layout::Json | Layout::JsonLines => self.json(&Flow::new(view, self.classic)),
        }
    }

    /// Prints a flow that the appliance told.
    fn flow(&mut self, flow: &Flow) -> Result<(), Failure> {
        match self.output.layout {
            Layout::Text => {
                let view = flow.to_view().map_err(|error| Failure::Failed(error.to_string()))?;
                self.line(&view)?;
            }
            Layout::Json | Layout::JsonLines => self.json(flow)?,
        }
        Ok(())
    }

    fn line(&mut self, view: &FlowView) -> io::Result<()> {
        self.shown += 1;
        writeln!(self.out, "{}", FlowLine(view, self.output.style(self.classic)))
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
        if self.output.layout == Layout::Json {
            self.out.write_all(if self.shown == 0 { b"[]\n" } else { b"\n]\n" })?;
        }
        self.out.flush()?;
        Ok(self.shown)
    }
}

pub(super) fn list(ask: &Ask, output: Output) -> Done {
    let client = Client::new(&ask.socket)?;
    let mut listing = Listing::new(BufWriter::new(io::stdout().lock()), output, client.is_classic()?);
    client.lines("/v1/flows", |flow: Flow| listing.flow(&flow))?;
    let shown = listing.end()?;
    // As `conntrack`: beside the list, so that lines can be counted.
    writeln!(
        io::stderr(),
        "dpdk-conntrack v{}: {shown} flow entries have been shown.",
        env!("CARGO_PKG_VERSION")
    )?;
    Ok(())
}

pub(super) fn flush(ask: &Ask) -> Done {
    let flushed: Flushed = Client::new(&ask.socket)?.send(Method::POST, "/v1/flush", &())?;
    writeln!(
        io::stderr(),
        "dpdk-conntrack v{}: {} flow entries have been ended.",
        env!("CARGO_PKG_VERSION"),
        flushed.flows
    )?;
    Ok(())
}
