//! `/v1/flows`: lists, deletes and changes the flows that a filter takes. Workers copy pages out; the filter works here,
//! and what it takes goes back to the same worker by tuple and id.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use conntrack::event::FlowView;
use conntrack::tracker::{Edit, NewMark};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;

use super::State;
use super::desk::{Entrance, NoAnswer};
use super::hub::write_line;
use super::routes::{PARTS, body, lines, parameters, problem};
use super::schema::{Change, Counted, Flow};
use crate::bus::command::{Command, Edits, Page};
use crate::config::duration::{Plain, parse_timeout};
use crate::filter::Filter;

/// Flows that a worker copies out for one question; some 0.6 MB.
const PAGE_FLOWS: usize = 4096;

/// A part of a listing is handed over once it has so many bytes. Some three of them and one page wait for a reader who stands
/// still: a megabyte for each, however many do.
const PART_BYTES: usize = 64 << 10;

/// How long a reader of a listing may take for one part; then it is given up.
const READER_PATIENCE: Duration = Duration::from_secs(30);

/// The flows that the filter takes, as JSON lines: of all of them at their moment, page by page.
#[utoipa::path(get, path = "/v1/flows", operation_id = "list_flows", params(Filter),
    responses((status = 200, content_type = "application/jsonl", body = Flow)))]
pub(super) async fn list(
    Shared(state): Shared<Arc<State>>,
    Extension(entrance): Extension<Entrance>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Response {
    match flow_filter(query) {
        Ok(filter) => stream(state, entrance, filter, None),
        Err(refused) => problem(StatusCode::BAD_REQUEST, refused),
    }
}

/// Ends the flows that the filter takes and tells each as it was.
#[utoipa::path(delete, path = "/v1/flows", operation_id = "delete_flows", params(Filter),
    responses((status = 200, content_type = "application/jsonl", body = Flow)))]
pub(super) async fn delete(
    Shared(state): Shared<Arc<State>>,
    Extension(entrance): Extension<Entrance>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Response {
    match flow_filter(query) {
        Ok(filter) => stream(state, entrance, filter, Some(Edit::Delete)),
        Err(refused) => problem(StatusCode::BAD_REQUEST, refused),
    }
}

/// Changes the flows that the filter takes and tells each as it is now.
#[utoipa::path(patch, path = "/v1/flows", operation_id = "update_flows", params(Filter), request_body = Change,
    responses((status = 200, content_type = "application/jsonl", body = Flow)))]
pub(super) async fn update(
    Shared(state): Shared<Arc<State>>,
    Extension(entrance): Extension<Entrance>,
    query: Result<Query<Filter>, QueryRejection>,
    request: Request,
) -> Response {
    let filter = match flow_filter(query) {
        Ok(filter) => filter,
        Err(refused) => return problem(StatusCode::BAD_REQUEST, refused),
    };
    let Change { mark, timeout } = match body(request).await {
        Ok(change) => change,
        Err(refused) => return refused,
    };
    let timeout = match timeout.map(|text| parse_timeout(&text, Plain::Seconds)).transpose() {
        Ok(timeout) => timeout,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error),
    };
    if mark.is_none() && timeout.is_none() {
        return problem(StatusCode::BAD_REQUEST, "nothing to change: give a mark or a timeout");
    }
    let mark = mark.map(|mark| NewMark { value: mark.value, mask: mark.mask });
    stream(state, entrance, filter, Some(Edit::Change { mark, timeout }))
}

/// How many flows the filter takes, counted one by one.
#[utoipa::path(get, path = "/v1/count", operation_id = "count_flows", params(Filter), responses((status = 200, body = Counted)))]
pub(super) async fn count(
    Shared(state): Shared<Arc<State>>,
    Extension(entrance): Extension<Entrance>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Response {
    let filter = match flow_filter(query) {
        Ok(filter) => filter,
        Err(refused) => return problem(StatusCode::BAD_REQUEST, refused),
    };
    let mut flows = 0;
    for worker in 0..state.workers.len() {
        let mut page = Box::new(Page::with_capacity(PAGE_FLOWS));
        while page.from.is_some() {
            page.flows.clear();
            page = match state.workers.walk(entrance, worker, Command::Page(page)).await {
                Ok(Command::Page(page)) => page,
                Ok(_) => break,
                Err(error) => return error.into_response(),
            };
            flows += page.flows.iter().filter(|flow| filter.matches(flow)).count() as u64;
        }
    }
    Json(Counted { flows }).into_response()
}

fn flow_filter(query: Result<Query<Filter>, QueryRejection>) -> Result<Filter, String> {
    let filter = parameters(query)?;
    filter.check_flows().map_err(|error| error.to_string())?;
    Ok(filter)
}

/// The flows of every worker that the filter takes, after `edit` if there is one, page by page.
fn stream(state: Arc<State>, entrance: Entrance, filter: Filter, edit: Option<Edit>) -> Response {
    let (parts, receiver) = mpsc::channel(PARTS);
    tokio::spawn(async move {
        let mut edited = 0;
        for worker in 0..state.workers.len() {
            match pages(&state, entrance, worker, &filter, edit, &parts).await {
                Ok(Some(flows)) => edited += flows,
                Ok(None) => break,
                Err(error) => {
                    break_off(&parts, error).await;
                    break;
                }
            }
        }
        if edit.is_some() {
            state.ask_afresh().await;
        }
        match edit {
            Some(Edit::Delete) => tracing::info!(flows = edited, filter = filter.query(), "flows deleted"),
            Some(Edit::Change { .. }) => {
                tracing::info!(flows = edited, filter = filter.query(), "flows changed");
            }
            None => {}
        }
    });
    lines(receiver)
}

/// One worker's part of [`stream`]; gives how many flows it had, or `None` if nobody reads any more.
async fn pages(
    state: &State,
    entrance: Entrance,
    worker: usize,
    filter: &Filter,
    edit: Option<Edit>,
    parts: &mpsc::Sender<std::io::Result<Bytes>>,
) -> Result<Option<usize>, NoAnswer> {
    let seed = state.appliance.config.export.community_id_seed;
    let told = |view: &FlowView| Flow::new(view, state.classic).identified(view, seed);
    let mut page = Box::new(Page::with_capacity(PAGE_FLOWS));
    let mut count = 0;
    while page.from.is_some() {
        page.flows.clear();
        let Command::Page(filled) = state.workers.walk(entrance, worker, Command::Page(page)).await? else {
            return Ok(None);
        };
        page = filled;
        let meant = page.flows.iter().filter(|flow| filter.matches(flow));
        let read = match edit {
            None => write_out(meant.map(told), parts).await,
            Some(edit) => {
                let flows: Vec<FlowView> = meant.copied().collect();
                if flows.is_empty() {
                    continue;
                }
                let edits = Box::new(Edits::new(edit, flows));
                let Command::Edit(edits) = state.workers.ask(worker, Command::Edit(edits)).await? else {
                    return Ok(None);
                };
                count += edits.done;
                write_out(edits.flows.iter().take(edits.done).map(told), parts).await
            }
        };
        if !read {
            return Ok(None);
        }
    }
    Ok(Some(count))
}

/// Writes lines out as their reader takes them; false if the listing ends here.
async fn write_out<T: Serialize>(
    lines: impl Iterator<Item = T>,
    parts: &mpsc::Sender<std::io::Result<Bytes>>,
) -> bool {
    let mut text = Vec::new();
    for line in lines {
        write_line(&mut text, &line);
        if text.len() >= PART_BYTES
            && !send_part(parts, std::mem::take(&mut text).into(), READER_PATIENCE).await
        {
            return false;
        }
    }
    text.is_empty() || send_part(parts, text.into(), READER_PATIENCE).await
}

/// Hands a part of a listing to its reader; false if the listing ends here.
async fn send_part(parts: &mpsc::Sender<std::io::Result<Bytes>>, part: Bytes, patience: Duration) -> bool {
    match parts.send_timeout(Ok(part), patience).await {
        Ok(()) => true,
        Err(SendTimeoutError::Closed(_)) => false,
        Err(SendTimeoutError::Timeout(_)) => {
            break_off(parts, "the reader is too slow").await;
            false
        }
    }
}

/// Ends a listing before its time. The reader must see that: an unfinished body shows it, however late it is read.
async fn break_off(
    parts: &mpsc::Sender<std::io::Result<Bytes>>,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) {
    // A reader that is gone need not be told.
    let _ = parts.send(Err(std::io::Error::other(why))).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_listing_is_written_out_as_it_is_read_and_no_further() {
        let (parts, mut receiver) = mpsc::channel(PARTS);
        let (line, written) = ("x".repeat(400), AtomicUsize::new(0));
        let page = (0..PAGE_FLOWS).map(|_| {
            written.fetch_add(1, Ordering::Relaxed);
            line.as_str()
        });
        let talk = async move {
            let whole = write_out(page, &parts).await;
            drop(parts);
            whole
        };
        // Quotes and a line break come with each.
        let bytes = line.len() + 3;
        let listen = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let waiting = written.load(Ordering::Relaxed) * bytes;
            assert!(waiting <= 256 << 10, "{waiting} bytes for one who does not read");
            let mut read = 0;
            while let Some(part) = receiver.recv().await {
                read += part.unwrap().len();
            }
            assert_eq!(read, PAGE_FLOWS * bytes);
        };
        assert!(tokio::join!(biased; talk, listen).0, "it was read to its end");
    }

    #[tokio::test]
    async fn a_reader_that_was_given_up_sees_that_the_listing_broke_off() {
        let (parts, mut receiver) = mpsc::channel(PARTS);
        let talk = async {
            for _ in 0..PARTS {
                assert!(send_part(&parts, "line\n".into(), Duration::from_millis(1)).await);
            }
            assert!(!send_part(&parts, "line\n".into(), Duration::from_millis(1)).await);
            drop(parts);
        };
        let listen = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for _ in 0..PARTS {
                assert!(receiver.recv().await.unwrap().is_ok());
            }
            assert!(
                receiver.recv().await.is_some_and(|last| last.is_err()),
                "it looks like the listing's end"
            );
        };
        // However late both are woken, who talks sees first that its patience is over.
        tokio::join!(biased; talk, listen);
    }
}
