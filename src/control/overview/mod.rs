//! `/v1/overview`: aggregates, made once a second for everybody who looks. Owns the last of them, the samples before it
//! and what is known of the top talkers. However many look on, the workers are asked the same.

mod forecast;
mod history;
mod rates;
mod talkers;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;

use super::State;
use super::routes::problem;
use super::schema::Stats;
use super::schema::overview::{History, Overview, Top};
use history::Ring;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// How old top talkers may be that are told again.
const TOP_FRESH: Duration = Duration::from_secs(2);

/// How old they may be where workers are busy and let such looks wait for packets: on the stream, which waits for none.
const TOP_TOLD: Duration = Duration::from_secs(10);

/// How long a question waits for a look; it may take longer than that where workers are busy and others list.
const TOP_PATIENCE: Duration = Duration::from_secs(2);

/// What `/v1/overview` goes by.
pub(super) struct Overviews {
    ring: Mutex<Ring>,
    /// Every reader of the stream gets the same bytes, and one that is slow passes over what it missed.
    told: watch::Sender<Told>,
    /// As they were at the last look, and when; `None` where a worker did not answer.
    top: watch::Sender<Option<(Instant, Option<Top>)>>,
    /// Somebody asks for a look. One looks through the tables for all who ask.
    wanted: Notify,
    /// The history as it was told last, and the number of its last sample.
    history: Mutex<Option<(u64, Bytes)>>,
}

/// The last overview, and as it goes over the stream.
#[derive(Clone, Debug, Default)]
struct Told {
    overview: Arc<Overview>,
    event: Bytes,
}

impl Overviews {
    pub(super) fn new() -> Self {
        Self {
            ring: Mutex::default(),
            told: watch::Sender::new(Told::default()),
            top: watch::Sender::new(None),
            wanted: Notify::new(),
            history: Mutex::default(),
        }
    }

    /// Waits for the first look: somebody may ask while it is made.
    async fn begun(&self) {
        // The sender lives as long as `self`.
        let _ = self.told.subscribe().wait_for(|told| !told.event.is_empty()).await;
    }

    /// Top talkers of a look that is not older than `age`, if there was one.
    fn known_top(&self, age: Duration) -> Option<Option<Top>> {
        self.top.borrow().as_ref().filter(|(at, _)| at.elapsed() < age).map(|(_, top)| top.clone())
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next overview, from two readings; gives it whole to the ring and shortened back.
    fn next(
        &self,
        before: (Instant, &Stats),
        now: (Instant, &Stats),
        (unix_ms, boot_ms): (u64, u64),
        uptime_secs: u64,
    ) -> Overview {
        let seconds = now.0.duration_since(before.0).as_secs_f64();
        let mut overview = Overview { unix_ms, uptime_secs, ..rates::whole(before.1, now.1, seconds) };
        let mut ring = self.ring();
        ring.keep(&overview, boot_ms);
        let samples = ring.last("entries", forecast::SAMPLES);
        drop(ring);
        overview.forecast = forecast::forecast(&samples, overview.entries, overview.entries_limit);
        rates::shorten(&mut overview);
        overview
    }
}

/// Looks once a second, as long as the control thread runs.
pub(super) async fn run(state: Arc<State>) {
    tokio::join!(look(&state), look_for_talkers(&state));
}

/// Looks who has the most flows when somebody asks, and keeps that fresh for the stream while somebody reads it. Workers
/// under load take their time for a look through the tables, and the stream goes on meanwhile.
async fn look_for_talkers(state: &State) {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => if state.overviews.told.receiver_count() == 0 { continue },
            () = state.overviews.wanted.notified() => {}
        }
        if state.overviews.known_top(TOP_FRESH).is_some() {
            continue;
        }
        let tables = state.tables().await;
        let top = talkers::top(&state.workers, &tables, &mut places()).await.ok();
        let top = top.map(|top| Top { unix_ms: state.unix_ms(), ..top });
        state.overviews.top.send_replace(Some((Instant::now(), top)));
    }
}

async fn look(state: &State) {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<(Instant, Arc<Stats>)> = None;
    loop {
        tick.tick().await;
        let now = state.observe().await;
        let earlier = before.as_ref().unwrap_or(&now);
        if before.is_some() && now.0 == earlier.0 {
            continue;
        }
        let mut overview = state.overviews.next(
            (earlier.0, &earlier.1),
            (now.0, &now.1),
            (state.unix_ms(), state.boot_ms()),
            state.uptime_secs(),
        );
        before = Some(now);
        if state.overviews.told.receiver_count() > 0 {
            overview.top = state.overviews.known_top(TOP_TOLD).flatten();
        }
        let event = event(&overview);
        state.overviews.told.send_replace(Told { overview: Arc::new(overview), event });
    }
}

/// One server-sent event. <https://html.spec.whatwg.org/multipage/server-sent-events.html>
fn event(overview: &Overview) -> Bytes {
    let mut event = b"data: ".to_vec();
    // Our own types have no failing serializers, and a Vec takes every byte. JSON has no line break in it.
    if serde_json::to_writer(&mut event, overview).is_ok() {
        event.extend_from_slice(b"\n\n");
    }
    event.into()
}

impl State {
    /// The last overview, with top talkers whether or not somebody has asked before.
    async fn overview(&self) -> Overview {
        self.overviews.begun().await;
        let overview = self.overviews.told.borrow().overview.clone();
        Overview { top: self.top().await, ..Overview::clone(&overview) }
    }

    /// Who has the most flows; `None` where a worker does not answer, which is told elsewhere, or takes its time.
    async fn top(&self) -> Option<Top> {
        if let Some(top) = self.overviews.known_top(TOP_FRESH) {
            return top;
        }
        let mut looks = self.overviews.top.subscribe();
        self.overviews.wanted.notify_one();
        // Whatever came of it: what is known by then is told.
        let _ = tokio::time::timeout(TOP_PATIENCE, looks.changed()).await;
        self.overviews.known_top(TOP_TOLD).flatten()
    }

    /// The history as JSON, written out once for all who ask in the same second.
    fn history(&self) -> Result<Bytes, serde_json::Error> {
        let ring = self.overviews.ring();
        let mut kept = self.overviews.history.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((taken, text)) = kept.as_ref()
            && *taken == ring.taken()
        {
            return Ok(text.clone());
        }
        let text = Bytes::from(serde_json::to_vec(&ring.tell((self.appliance.boot_unix_ms)()))?);
        *kept = Some((ring.taken(), text.clone()));
        Ok(text)
    }
}

/// Places to look at need not be secret, only other ones each time.
fn places() -> impl FnMut() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let keys = RandomState::new();
    let mut number = 0_u64;
    move || {
        number += 1;
        keys.hash_one(number)
    }
}

/// What happens now, as aggregates a second.
#[utoipa::path(get, path = "/v1/overview", operation_id = "overview", responses((status = 200, body = Overview)))]
pub(super) async fn now(Shared(state): Shared<Arc<State>>) -> Response {
    Json(state.overview().await).into_response()
}

/// The last quarter of an hour, a sample a second.
#[utoipa::path(get, path = "/v1/overview/history", operation_id = "overview_history",
    responses((status = 200, body = History)))]
pub(super) async fn history(Shared(state): Shared<Arc<State>>) -> Response {
    match state.history() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

/// The overview as server-sent events: the present one at once and then one a second.
#[utoipa::path(get, path = "/v1/overview/stream", operation_id = "overview_stream",
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub(super) async fn stream(Shared(state): Shared<Arc<State>>) -> Response {
    // Else the first look would come twice: as the present one, and as the first change.
    state.overviews.begun().await;
    let later = WatchStream::from_changes(state.overviews.told.subscribe()).map(|told| told.event);
    let first = tokio_stream::once(event(&state.overview().await));
    let events = first.chain(later).map(Ok::<_, Infallible>);
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(events)).into_response()
}
