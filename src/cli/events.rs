//! `events`: flows as they begin, change and end.

use std::io::{self, Write};

use conntrack::event::{EventKind, FlowView};

use super::client::Client;
use super::{Ask, Done, Failure, Voice};
use crate::control::schema;
use crate::filter::Filter;
use crate::format::{EventLine, Layout, Output, SaveLine, Since, Style, XML_END, XML_HEAD, XmlFlow};
use crate::worker::clock;

/// An array has no end while events still come, and a table's columns are a flow's.
pub(super) fn refuse_array(output: Output) -> Done {
    match output.layout {
        Layout::Json => Err(Failure::Usage("events come one by one: give -o jsonl".to_owned())),
        Layout::Table => {
            Err(Failure::Usage("events are no table: leave -o table out, or give -o jsonl".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Prints one event as a line; `unix_ms` is its wall-clock time.
pub(super) fn print(
    out: &mut impl Write,
    kind: EventKind,
    view: &FlowView,
    unix_ms: u64,
    output: Output,
    style: Style,
) -> io::Result<()> {
    let style = Style { when: output.timestamp.then_some(unix_ms), ..style };
    match output.layout {
        Layout::Xml => return writeln!(out, "{}", XmlFlow(Some(kind), view, style)),
        Layout::Save => return writeln!(out, "{}", SaveLine(Some(kind), view, style)),
        Layout::Text | Layout::Table | Layout::Json | Layout::JsonLines => {}
    }
    if output.timestamp {
        // As `conntrack -E -o timestamp`: seconds, six digits, a tab.
        write!(out, "[{}.{:06}]\t", unix_ms / 1000, unix_ms % 1000 * 1000)?;
    }
    writeln!(out, "{}", EventLine(kind, view, style))
}

pub(super) fn follow(ask: &Ask, filter: &Filter, output: Output, voice: Voice) -> Done {
    refuse_array(output)?;
    let client = Client::new(&ask.socket)?;
    let info = client.info()?;
    let style = Style {
        operator: (voice == Voice::Letters).then_some(info.pid),
        ..output.style(info.profile == "classic")
    };
    let mut out = io::stdout().lock();
    let mut shown = 0_u64;
    let asked_to_end =
        client.lines_until_signal(&format!("/v1/events{}", filter.query()), |event: schema::EventLine| {
            if let schema::EventLine::Lost { count } = event {
                // Not among the events: scripts read those.
                writeln!(
                    io::stderr(),
                    "dpdk-conntrack: {count} events were lost here: read faster, or follow with -o jsonl"
                )?;
                if output.layout != Layout::JsonLines {
                    return Ok(());
                }
            }
            if output.layout == Layout::JsonLines {
                serde_json::to_writer(&mut out, &event).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            } else {
                if output.layout == Layout::Xml && shown == 0 {
                    writeln!(out, "{XML_HEAD}")?;
                }
                told(&mut out, &event, output, style)?;
            }
            shown += 1;
            Ok(out.flush()?)
        })?;
    if output.layout == Layout::Xml && shown > 0 {
        writeln!(out, "{XML_END}")?;
    }
    if !asked_to_end {
        return Err(Failure::Failed("the appliance has stopped: no more events".to_owned()));
    }
    voice.say(&format!("{shown} flow events have been shown."))
}

fn told(out: &mut impl Write, event: &schema::EventLine, output: Output, style: Style) -> Done {
    use schema::EventLine::{Destroy, Lost, New, Update};
    let (unix_ms, flow) = match event {
        New { unix_ms, flow } | Update { unix_ms, flow, .. } | Destroy { unix_ms, flow, .. } => {
            (*unix_ms, flow)
        }
        Lost { .. } => return Ok(()),
    };
    let kind = event.kind().ok_or_else(|| {
        Failure::Failed("an event of a kind that this version does not know: update this program".to_owned())
    })?;
    let view = flow.to_view().map_err(|error| Failure::Failed(error.to_string()))?;
    // The clock may be set while events come, so that what it said at the first one may be wrong at this one.
    let since = output.since.then(|| Since { boot_unix_ms: clock::boot_unix_ms(), now_unix_ms: unix_ms });
    Ok(print(out, kind, &view, unix_ms, output, Style { since, ..style })?)
}
