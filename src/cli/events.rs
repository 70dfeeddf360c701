//! `events`: flows as they begin, change and end.

use std::io::{self, Write};

use conntrack::event::{EventKind, FlowView};

use super::client::Client;
use super::{Ask, Done, Failure};
use crate::control::schema;
use crate::format::{EventLine, Layout, Output};

/// An array has no end while events still come.
pub(super) fn refuse_array(output: Output) -> Done {
    if output.layout == Layout::Json {
        return Err(Failure::Usage("events come one by one: give -o jsonl".to_owned()));
    }
    Ok(())
}

/// Prints one event as a line of text; `unix_ms` is its wall-clock time.
pub(super) fn print(
    out: &mut impl Write,
    kind: EventKind,
    view: &FlowView,
    unix_ms: u64,
    output: Output,
    classic: bool,
) -> io::Result<()> {
    if output.timestamp {
        // As `conntrack -E -o timestamp`: seconds, six digits, a tab.
        write!(out, "[{}.{:06}]\t", unix_ms / 1000, unix_ms % 1000 * 1000)?;
    }
    writeln!(out, "{}", EventLine(kind, view, output.style(classic)))
}

pub(super) fn follow(ask: &Ask, output: Output) -> Done {
    refuse_array(output)?;
    let client = Client::new(&ask.socket)?;
    let classic = client.is_classic()?;
    let mut out = io::stdout().lock();
    client.lines("/v1/events", |event: schema::EventLine| {
        if output.layout == Layout::JsonLines {
            serde_json::to_writer(&mut out, &event).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        } else {
            told(&mut out, &event, output, classic)?;
        }
        Ok(out.flush()?)
    })?;
    Err(Failure::Failed("the appliance has stopped: no more events".to_owned()))
}

fn told(out: &mut impl Write, event: &schema::EventLine, output: Output, classic: bool) -> Done {
    use schema::EventLine::{Destroy, Lost, New, Update};
    let (unix_ms, flow) = match event {
        New { unix_ms, flow } | Update { unix_ms, flow } | Destroy { unix_ms, flow, .. } => (*unix_ms, flow),
        Lost { count } => {
            // Not among the events: scripts read those.
            writeln!(
                io::stderr(),
                "dpdk-conntrack: {count} events were lost here: read faster, or follow with -o jsonl"
            )?;
            return Ok(());
        }
    };
    let kind = event.kind().ok_or_else(|| {
        Failure::Failed("an event of a kind that this version does not know: update this program".to_owned())
    })?;
    let view = flow.to_view().map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(print(out, kind, &view, unix_ms, output, classic)?)
}
