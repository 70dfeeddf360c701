//! `/v1/dropped` and `/v1/trace`: single packets, told as they pass. Owns the records of INVALID and dropped packets that
//! workers have made, and which packets are followed. A slow reader loses lines and is told how many; it slows nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Query, RawQuery, State as Shared};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use conntrack::tick::Tick;
use conntrack::tracker::{Explained, Verdict};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::Instant;

use super::State;
use super::desk::NoAnswer;
use super::hub::json_line;
use super::routes::{PARTS, lines, parameters, problem};
use crate::bus::RECORDS;
use crate::bus::command::{Command, Follow};
use crate::bus::report::Sighting;
use crate::explain::{Packet, PacketLine};
use crate::filter::Filter;

/// Records that are kept for who asks for those of the past; as many may a reader be behind.
const KEPT: usize = 4 * RECORDS;

/// How often the rings are looked at while somebody reads.
const PERIOD: Duration = Duration::from_millis(20);

/// How long the last lines of a trace may take to be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a reader of followed packets gets without asking for more, and the most that it can ask for.
const TRACE_PACKETS: u64 = 1000;
const TRACE_PACKETS_MAX: u64 = 1_000_000;
const TRACE_SECS: f64 = 60.0;
/// The shortest is the timer's resolution.
const TRACE_SECS_MIN: f64 = 0.001;
const TRACE_SECS_MAX: f64 = 3600.0;

/// One line for every reader.
#[derive(Clone, Debug)]
struct Line {
    json: Bytes,
    /// What a reader's filter looks at; `None` for lines that every reader gets.
    packet: Option<Arc<Explained>>,
}

/// See the file's head.
pub(super) struct Packets {
    lines: broadcast::Sender<Line>,
    wake: Notify,
    records: Mutex<Records>,
    /// Somebody follows packets: one at a time.
    trace: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Records {
    past: VecDeque<Line>,
    unrecorded: u64,
}

impl Packets {
    pub(super) fn new() -> Self {
        Self {
            lines: broadcast::Sender::new(KEPT),
            wake: Notify::new(),
            records: Mutex::default(),
            trace: Arc::default(),
        }
    }
}

/// Moves records to their readers while there are any; runs as long as the control thread does.
pub(super) async fn pump(state: Arc<State>) {
    loop {
        state.packets.wake.notified().await;
        while state.packets.lines.receiver_count() > 0 {
            take_records(&state);
            tokio::time::sleep(PERIOD).await;
        }
    }
}

/// Takes what workers have recorded, for those who read now and for who asks for the past.
fn take_records(state: &State) {
    let mut fresh = Vec::new();
    for worker in 0..state.workers.len() {
        for _ in 0..RECORDS {
            let Some(told) = state.workers.next_record(worker) else { break };
            fresh.push((worker, told));
        }
    }
    fresh.sort_by_key(|(_, told)| told.explained.at);
    let mut records = state.packets.records.lock().unwrap_or_else(PoisonError::into_inner);
    let unrecorded = state.workers.unrecorded();
    let count = unrecorded.saturating_sub(records.unrecorded);
    records.unrecorded = unrecorded;
    let told = fresh.iter().map(|(worker, told)| Line {
        json: json_line(&state.packet_line(*worker, told)),
        packet: Some(Arc::new(told.explained)),
    });
    let untold = (count > 0).then(|| Line { json: json_line(&PacketLine::Untold { count }), packet: None });
    for line in told.chain(untold) {
        if records.past.len() >= KEPT {
            records.past.pop_front();
        }
        records.past.push_back(line.clone());
        // Nobody may be there to hear it.
        let _ = state.packets.lines.send(line);
    }
}

impl State {
    fn packet_line(&self, worker: usize, told: &Sighting) -> PacketLine {
        let port = self.appliance.info.ports.get(usize::from(told.port)).map(|port| port.name.clone());
        let boot_unix_ms = (self.appliance.boot_unix_ms)();
        let packet = Packet::new(&told.explained, worker as u32, port, self.classic, boot_unix_ms);
        PacketLine::Packet(Box::new(packet))
    }
}

/// The query in two: what is in `own`, and the rest, which is a filter's.
fn split<T: DeserializeOwned>(query: Option<&str>, own: &[&str]) -> Result<(Filter, T), String> {
    let is_own = |pair: &&str| own.contains(&pair.split('=').next().unwrap_or_default());
    let (mine, rest): (Vec<&str>, Vec<&str>) =
        query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).partition(is_own);
    let uri =
        |pairs: &[&str]| format!("/?{}", pairs.join("&")).parse::<Uri>().map_err(|error| error.to_string());
    let filter: Filter = parameters(Query::try_from_uri(&uri(&rest)?))?;
    filter.check_flows().map_err(|error| error.to_string())?;
    Ok((filter, parameters(Query::try_from_uri(&uri(&mine)?))?))
}

/// What `GET /v1/dropped` may be asked for besides a filter.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DroppedQuery {
    /// Begin with the records that are still there of the time before.
    #[serde(default)]
    past: bool,
}

/// INVALID and dropped packets from now on, a sample where there are many, as JSON lines without end.
#[utoipa::path(get, path = "/v1/dropped", params(Filter, DroppedQuery),
    responses((status = 200, content_type = "application/jsonl", body = PacketLine)))]
pub(super) async fn dropped(Shared(state): Shared<Arc<State>>, RawQuery(query): RawQuery) -> Response {
    let (filter, DroppedQuery { past }) = match split(query.as_deref(), &["past"]) {
        Ok(asked) => asked,
        Err(refused) => return problem(StatusCode::BAD_REQUEST, refused),
    };
    // What was recorded until now is the past.
    take_records(&state);
    let mut reader = state.packets.lines.subscribe();
    state.packets.wake.notify_one();
    let kept: Vec<Line> = match past {
        true => {
            let records = state.packets.records.lock().unwrap_or_else(PoisonError::into_inner);
            records.past.iter().cloned().collect()
        }
        false => Vec::new(),
    };
    let wanted = move |line: &Line| line.packet.as_deref().is_none_or(|packet| filter.matches_packet(packet));
    let (parts, receiver) = mpsc::channel(PARTS);
    tokio::spawn(async move {
        for line in kept {
            if wanted(&line) && parts.send(Ok(line.json)).await.is_err() {
                return;
            }
        }
        loop {
            let line = tokio::select! {
                line = reader.recv() => line,
                () = parts.closed() => return,
            };
            let json = match line {
                Ok(line) if wanted(&line) => line.json,
                Ok(_) => continue,
                Err(RecvError::Lagged(count)) => json_line(&PacketLine::Lost { count }),
                Err(RecvError::Closed) => return,
            };
            if parts.send(Ok(json)).await.is_err() {
                return;
            }
        }
    });
    lines(receiver)
}

/// What `GET /v1/trace` may be asked for besides a filter.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TraceQuery {
    /// So many packets at most.
    #[serde(default = "trace_packets")]
    #[param(minimum = 1, maximum = 1_000_000, default = 1000)]
    count: u64,
    /// For so long at most; 0.5 is half a second.
    #[serde(default = "trace_secs")]
    #[param(minimum = 0.001, maximum = 3600, default = 60)]
    secs: f64,
}

fn trace_packets() -> u64 {
    TRACE_PACKETS
}

fn trace_secs() -> f64 {
    TRACE_SECS
}

/// The packets of some flows as they pass, each with what every stage made of it, as JSON lines; one reader at a time. Over
/// TCP it needs the token: meanwhile every packet is looked at once more.
#[utoipa::path(get, path = "/v1/trace", params(Filter, TraceQuery),
    responses((status = 200, content_type = "application/jsonl", body = PacketLine),
        (status = 409, body = super::schema::Problem, description = "Somebody else follows packets")))]
pub(super) async fn trace(Shared(state): Shared<Arc<State>>, RawQuery(query): RawQuery) -> Response {
    let (filter, TraceQuery { count, secs }) = match split(query.as_deref(), &["count", "secs"]) {
        Ok(asked) => asked,
        Err(refused) => return problem(StatusCode::BAD_REQUEST, refused),
    };
    // What is not a number is in no range.
    if !(1..=TRACE_PACKETS_MAX).contains(&count) || !(TRACE_SECS_MIN..=TRACE_SECS_MAX).contains(&secs) {
        let said = format!(
            "a trace has 1 to {TRACE_PACKETS_MAX} packets and takes {TRACE_SECS_MIN} to {TRACE_SECS_MAX} seconds: \
             choose within these"
        );
        return problem(StatusCode::BAD_REQUEST, said);
    }
    let patience = Duration::from_secs_f64(secs);
    let Ok(turn) = Arc::clone(&state.packets.trace).try_lock_owned() else {
        let said = "somebody else follows packets: wait until that trace ends, or end it";
        return problem(StatusCode::CONFLICT, said);
    };
    let (parts, receiver) = mpsc::channel(PARTS);
    let (begun, begins) = oneshot::channel();
    // On a task of its own: whoever asked may go at any moment, and then the workers are still told to stop.
    tokio::spawn(async move {
        let following = follow(&state, Some((filter, patience))).await;
        if following.is_ok() {
            tracing::info!(filter = filter.query(), count, secs, "packets are followed");
            let _ = begun.send(Ok(()));
            let unfollowed = state.workers.unfollowed();
            read_followed(&state, &parts, count, unfollowed, Instant::now() + patience).await;
            let _ = follow(&state, None).await;
        } else {
            // Those that did answer are told to stop; one that did not stops by itself.
            let _ = follow(&state, None).await;
            let _ = begun.send(following);
        }
        drop(turn);
    });
    match begins.await.unwrap_or(Err(NoAnswer::Stopping)) {
        Ok(()) => lines(receiver),
        Err(error) => error.into_response(),
    }
}

/// Has every worker follow these packets for so long, or none any more; then nothing is left of those before.
async fn follow(state: &State, meant: Option<(Filter, Duration)>) -> Result<(), NoAnswer> {
    let (_, boot_ns) = (state.appliance.read_clocks)();
    let asked = || {
        Command::Follow(meant.as_ref().map(|&(filter, patience)| {
            let until_ns = boot_ns.saturating_add(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX));
            Box::new(Follow { filter, until: Tick::from_nanos(until_ns) })
        }))
    };
    if meant.is_some() {
        for worker in 0..state.workers.len() {
            while state.workers.next_followed(worker).is_some() {}
        }
    }
    state.workers.ask_all(asked).await.into_iter().try_for_each(|answer| answer.map(drop))
}

/// Hands followed packets to their reader until it has enough, its time is over, or it goes.
async fn read_followed(
    state: &State,
    parts: &mpsc::Sender<std::io::Result<Bytes>>,
    mut left: u64,
    mut unfollowed: u64,
    until: Instant,
) {
    loop {
        let over = Instant::now() >= until;
        let mut fresh = Vec::new();
        for worker in 0..state.workers.len() {
            while let Some(told) = state.workers.next_followed(worker) {
                fresh.push((worker, told));
            }
        }
        // A packet is handed over before it is tracked.
        let handed_off = |told: &Sighting| matches!(told.explained.outcome.verdict, Verdict::HandOff(_));
        fresh.sort_by_key(|(_, told)| (told.explained.at, !handed_off(told)));
        let mut text = Vec::new();
        for (worker, told) in &fresh {
            if left == 0 {
                break;
            }
            // The way from one worker to the next is one packet's.
            left -= u64::from(!handed_off(told));
            text.extend_from_slice(&json_line(&state.packet_line(*worker, told)));
        }
        let now = state.workers.unfollowed();
        if now > unfollowed {
            text.extend_from_slice(&json_line(&PacketLine::Untold { count: now - unfollowed }));
            unfollowed = now;
        }
        if !text.is_empty() {
            // A reader that stands still must not keep others from following.
            match tokio::time::timeout_at(until + PATIENCE, parts.send(Ok(text.into()))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
        if over || left == 0 {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = parts.closed() => return,
        }
    }
}
