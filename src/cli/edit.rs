//! `delete`, `update` and `flush`: what operators do to flows, told flow by flow as `conntrack` tells it.

use std::io::{self, BufWriter};

use hyper::Method;

use super::client::Client;
use super::list::Listing;
use super::{Ask, Done, Failure, Voice};
use crate::control::schema::{Change, Flow, Flush, Flushed};
use crate::filter::Filter;
use crate::format::{Deed, Output};

pub(super) fn delete(ask: &Ask, filter: &Filter, output: Output, voice: Voice) -> Done {
    let client = Client::new(&ask.socket)?;
    let mut listing = Listing::told_by(BufWriter::new(io::stdout().lock()), output, &client.info()?)
        .of_edits(Deed::Deleted);
    let path = format!("/v1/flows{}", filter.query());
    client.send_lines(Method::DELETE, &path, &(), |flow: Flow| listing.flow(&flow))?;
    done(listing.end()?, "deleted", voice)
}

pub(super) fn update(ask: &Ask, filter: &Filter, change: &Change, output: Output, voice: Voice) -> Done {
    let client = Client::new(&ask.socket)?;
    let mut listing = Listing::told_by(BufWriter::new(io::stdout().lock()), output, &client.info()?)
        .of_edits(Deed::Updated);
    let path = format!("/v1/flows{}", filter.query());
    client.send_lines(Method::PATCH, &path, change, |flow: Flow| listing.flow(&flow))?;
    done(listing.end()?, "updated", voice)
}

/// As `conntrack`, nothing done is exit code 1.
fn done(flows: u64, what: &str, voice: Voice) -> Done {
    voice.say(&format!("{flows} flow entries have been {what}."))?;
    if flows == 0 { Err(Failure::NothingMatched) } else { Ok(()) }
}

pub(super) fn flush(ask: &Ask, voice: Voice) -> Done {
    let flushed: Flushed = Client::new(&ask.socket)?.send(Method::POST, "/v1/flush", &Flush {})?;
    match voice {
        Voice::Own => voice.say(&format!("{} flow entries have been ended.", flushed.flows)),
        Voice::Letters => voice.say("connection tracking table has been emptied."),
    }
}
