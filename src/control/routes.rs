//! What can be asked, one function a route. An answer that is not a success is a [`Problem`]: one sentence.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State as Shared};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use conntrack::track::timeout::TimeoutKey;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa_axum::routes;

use super::api::{self, Routes};
use super::desk::NoAnswer;
use super::hub::Line;
use super::ports::PortError;
use super::reload::Refused;
use super::schema::{
    EventLine, Flush as FlushBody, Flushed, Info, Limits, PortRow, Problem, Reload, Reloaded, SetLimit,
    SetPort, SetSysctls, SetTimeout, Stats, TimeoutRow,
};
use super::{State, flows, overview, packets, page, what_if};
use crate::bus::command::{Command, Flush};
use crate::config::diff::{Difference, differences};
use crate::config::{Config, TrackingOptions, names, sysctl};
use crate::filter::Filter;
use crate::telemetry::prometheus;

/// The longest request body.
const BODY_BYTES: usize = 64 << 10;

/// How long a client may take for its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Parts of a listing that may wait for a slow reader.
pub(super) const PARTS: usize = 2;

/// Events that are put together into one write.
const EVENTS_PER_WRITE: usize = 256;

/// What can be asked, each route declared where its function is.
pub(super) fn all() -> Routes {
    Routes::new()
        .add(routes!(info))
        .add(routes!(stats))
        .add(routes!(overview::now))
        .add(routes!(overview::history))
        .add(routes!(overview::stream))
        .add(routes!(flows::list, flows::delete, flows::update))
        .add(routes!(flows::count))
        .add(routes!(events))
        .add(routes!(packets::dropped))
        .add(routes!(packets::trace))
        .add(routes!(config))
        .add(routes!(reload))
        .add(routes!(timeouts, set_timeout))
        .add(routes!(what_if::what_if))
        .add(routes!(limits, set_limit))
        .add(routes!(ports, set_port))
        .add(routes!(set_sysctls))
        .add(routes!(flush))
        .add(routes!(metrics))
        .add(routes!(api::openapi))
}

/// What is answered at either door; who may ask is the door's to say.
pub(super) fn router(state: Arc<State>) -> Router {
    all()
        .router()
        .merge(page::pages())
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_so)
        .with_state(state)
}

async fn nothing_here() -> Response {
    problem(
        StatusCode::NOT_FOUND,
        "there is nothing at this path: the command line and the daemon may be of different versions",
    )
}

async fn not_so() -> Response {
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path takes other methods: see `Allow`, and /v1/openapi.json",
    )
}

pub(super) fn problem(status: StatusCode, error: impl ToString) -> Response {
    (status, Json(Problem { error: error.to_string() })).into_response()
}

impl IntoResponse for NoAnswer {
    fn into_response(self) -> Response {
        problem(StatusCode::SERVICE_UNAVAILABLE, self)
    }
}

/// Which appliance answers, and how it was started.
#[utoipa::path(get, path = "/v1/info", responses((status = 200, body = Info)))]
async fn info(Shared(state): Shared<Arc<State>>) -> Response {
    Json(state.info()).into_response()
}

/// The configuration as it runs now, as a file: timeouts, switches and limits may have been changed since the start.
#[utoipa::path(get, path = "/v1/config", responses((status = 200, content_type = "application/toml", body = String)))]
async fn config(Shared(state): Shared<Arc<State>>) -> Response {
    ([(header::CONTENT_TYPE, "application/toml")], state.config().to_toml()).into_response()
}

/// Everybody's counters, at most 250 ms old.
#[utoipa::path(get, path = "/v1/stats", responses((status = 200, body = Stats)))]
async fn stats(Shared(state): Shared<Arc<State>>) -> Response {
    Json(&*state.stats().await).into_response()
}

/// The counters in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, content_type = "text/plain", body = String)))]
async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let stats = state.stats().await;
    match state.scrape.page(&state, &stats) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

/// A body of JSON lines that comes part by part; dropping the sender ends it.
pub(super) fn lines(receiver: mpsc::Receiver<std::io::Result<Bytes>>) -> Response {
    let body = Body::from_stream(ReceiverStream::new(receiver));
    ([(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
}

/// The query's parameters, or the sentence that refuses them.
pub(super) fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, String> {
    query.map(|Query(parameters)| parameters).map_err(|error| {
        let text = error.body_text();
        text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text).to_owned()
    })
}

/// What happens to flows from now on, as JSON lines without end; a reader that is too slow loses some and is told so.
#[utoipa::path(get, path = "/v1/events", params(Filter),
    responses((status = 200, content_type = "application/jsonl", body = EventLine)))]
async fn events(Shared(state): Shared<Arc<State>>, query: Result<Query<Filter>, QueryRejection>) -> Response {
    let filter = match parameters(query)
        .and_then(|filter| filter.check().map(|()| filter).map_err(|e| e.to_string()))
    {
        Ok(filter) => filter,
        Err(refused) => return problem(StatusCode::BAD_REQUEST, refused),
    };
    let wanted =
        move |line: &Line| line.event.as_deref().is_none_or(|(kind, flow)| filter.matches_event(*kind, flow));
    let mut reader = match state.hub.subscribe(&state.workers).await {
        Ok(reader) => reader,
        Err(error) => return error.into_response(),
    };
    let (parts, receiver) = mpsc::channel(PARTS);
    tokio::spawn(async move {
        loop {
            let first = tokio::select! {
                first = reader.next() => first,
                () = parts.closed() => return,
            };
            let Some(first) = first else { return };
            let more = std::iter::from_fn(|| reader.next_now());
            let mut text = Vec::new();
            for line in std::iter::once(first).chain(more).take(EVENTS_PER_WRITE).filter(&wanted) {
                text.extend_from_slice(&line.json);
            }
            if !text.is_empty() && parts.send(Ok(text.into())).await.is_err() {
                return;
            }
        }
    });
    lines(receiver)
}

fn row(state: &State, key: TimeoutKey) -> TimeoutRow {
    TimeoutRow {
        name: key.name().to_owned(),
        seconds: state.settings().timeouts.get(key).as_secs_f64(),
        used: state.settings().uses(key),
        explain: key.explain().to_owned(),
    }
}

/// Every timeout as it is now.
#[utoipa::path(get, path = "/v1/timeouts", responses((status = 200, body = Vec<TimeoutRow>)))]
async fn timeouts(Shared(state): Shared<Arc<State>>) -> Response {
    let rows: Vec<_> = TimeoutKey::ALL.iter().map(|&key| row(&state, key)).collect();
    Json(rows).into_response()
}

/// A request's body as JSON, within [`BODY_BYTES`] and [`BODY_TIMEOUT`]. Nothing at all is taken for `{}`.
pub(super) async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Response> {
    // A page of another site can make a browser send text or a form, but not this without asking us first.
    if !request.headers().get(header::CONTENT_TYPE).is_some_and(is_json) {
        let said = "the body is not announced as JSON: send `Content-Type: application/json`";
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, said));
    }
    let body = request.into_body();
    let too_long =
        || problem(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {BODY_BYTES} bytes"));
    // What is announced as too long is refused before it is read.
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_long());
    }
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return Err(too_long()),
        Err(_) => {
            return Err(problem(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not come in time: send it at once",
            ));
        }
    };
    let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
    // serde takes the members of an object also as a list, which the description does not.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(problem(StatusCode::BAD_REQUEST, "a body is an object: {...}"));
    }
    serde_json::from_slice(&bytes).map_err(|error| problem(StatusCode::BAD_REQUEST, error))
}

/// Parameters such as a character set may follow.
fn is_json(value: &HeaderValue) -> bool {
    let kind = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// Changes one timeout while traffic runs.
#[utoipa::path(put, path = "/v1/timeouts", request_body = SetTimeout, responses((status = 200, body = TimeoutRow)))]
async fn set_timeout(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let asked: SetTimeout = match body(request).await {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    let (key, value) = match names::parse_setting(&asked.name, &asked.value) {
        Ok(setting) => setting,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error),
    };
    let set = move |config: &mut Config| {
        config.settings.timeouts.set(key, value);
        Ok::<(), NoAnswer>(())
    };
    if let Err(error) = state.change(set).await {
        return error.into_response();
    }
    tracing::info!(timeout = key.name(), seconds = value.as_secs_f64(), "timeout changed");
    Json(row(&state, key)).into_response()
}

/// What `GET /v1/ports` may be asked for.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PortsQuery {
    /// With the driver's own counters.
    #[serde(default)]
    xstats: bool,
}

/// Ports, links and counters, at most 250 ms old.
#[utoipa::path(get, path = "/v1/ports", params(PortsQuery), responses((status = 200, body = Vec<PortRow>)))]
async fn ports(
    Shared(state): Shared<Arc<State>>,
    query: Result<Query<PortsQuery>, QueryRejection>,
) -> Response {
    let query = match parameters(query) {
        Ok(query) => query,
        Err(refused) => return problem(StatusCode::BAD_REQUEST, refused),
    };
    Json(&*state.appliance.ports.recent(query.xstats)).into_response()
}

/// Stops or starts a port.
#[utoipa::path(put, path = "/v1/ports", request_body = SetPort,
    responses((status = 200, body = PortRow), (status = 409, description = "the device does not do that", body = Problem)))]
async fn set_port(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let asked: SetPort = match body(request).await {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    let names = || state.appliance.info.ports.iter().map(|port| port.name.as_str());
    let Some(port) = names().position(|name| name == asked.name) else {
        let known = names().collect::<Vec<_>>().join(", ");
        let said = format!("no port is called `{}`: there are {known}", asked.name);
        return problem(StatusCode::BAD_REQUEST, said);
    };
    // On a task of its own: begun, it is brought to its end, also where whoever asked goes away meanwhile.
    let (whole, running) = (Arc::clone(&state), asked.running);
    let change =
        tokio::spawn(async move { whole.appliance.ports.set_running(&whole.workers, port, running).await });
    match change.await {
        Ok(Ok(())) => {}
        Ok(Err(PortError::NoAnswer(error))) => return error.into_response(),
        // What the device does not do will not be done the next time either.
        Ok(Err(error)) => return problem(StatusCode::CONFLICT, error),
        Err(error) => return problem(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
    tracing::info!(port = asked.name, running = asked.running, "port changed");
    state.ask_afresh().await;
    match state.appliance.ports.observe(false).get(port) {
        Some(row) => Json(row).into_response(),
        None => nothing_here().await,
    }
}

/// How many flows each zone has and may have.
#[utoipa::path(get, path = "/v1/limits", responses((status = 200, body = Limits)))]
async fn limits(Shared(state): Shared<Arc<State>>) -> Response {
    Json(state.appliance.zones.limits()).into_response()
}

/// Limits a zone, or all zones without a limit of their own.
#[utoipa::path(put, path = "/v1/limits", request_body = SetLimit, responses((status = 200, body = Limits)))]
async fn set_limit(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let asked: SetLimit = match body(request).await {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    if asked == (SetLimit { zone: None, limit: None }) {
        return problem(StatusCode::BAD_REQUEST, "nothing is asked for: give a zone, a limit, or both");
    }
    state.set_limit(asked.zone, asked.limit).await;
    let zones = &state.appliance.zones;
    tracing::info!(zone = asked.zone, limit = asked.limit, "zone limit changed");
    let rows = asked.zone.map(|zone| zones.limit(zone)).into_iter().collect();
    Json(Limits { zones: rows, ..zones.limits() }).into_response()
}

/// Many settings at once: refused as a whole, or applied between two bursts of each worker.
#[utoipa::path(put, path = "/v1/sysctls", request_body = SetSysctls, responses((status = 200, body = Vec<Difference>)))]
async fn set_sysctls(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let asked: SetSysctls = match body(request).await {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    let set = move |config: &mut Config| {
        let profile = config.settings.profile;
        let mut options = TrackingOptions {
            settings: config.settings,
            table: config.table,
            ..TrackingOptions::new(profile)
        };
        for SetTimeout { name, value } in &asked.settings {
            sysctl::set(&mut options, name, value)
                .map_err(|error| Refusal::Setting(format!("{name}: {error}")))?;
        }
        config.settings = options.settings;
        Ok::<(), Refusal>(())
    };
    let (before, after) = match state.change(set).await {
        Ok(changed) => changed,
        Err(Refusal::Setting(error)) => return problem(StatusCode::BAD_REQUEST, error),
        Err(Refusal::NoAnswer(error)) => return error.into_response(),
    };
    match differences(&before.to_toml(), &after.to_toml()) {
        Ok(changed) => {
            tracing::info!(changed = changed.len(), "settings changed");
            Json(changed).into_response()
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

/// Why settings were not changed.
enum Refusal {
    Setting(String),
    NoAnswer(NoAnswer),
}

impl From<NoAnswer> for Refusal {
    fn from(error: NoAnswer) -> Self {
        Self::NoAnswer(error)
    }
}

/// Reads the configuration file again and takes it over, all of it or nothing.
#[utoipa::path(
    post, path = "/v1/config/reload", request_body = Reload,
    responses(
        (status = 200, body = Reloaded),
        (status = 409, description = "a key differs that only a start takes over; nothing was changed", body = Problem),
        (status = 422, description = "the file is wrong or cannot be read; nothing was changed", body = Problem),
    )
)]
async fn reload(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let Reload {} = match body(request).await {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    match state.reload().await {
        Ok(reloaded) => Json(reloaded).into_response(),
        Err(refused) => {
            let status = match refused {
                Refused::Config(_) | Refused::File(_) => StatusCode::UNPROCESSABLE_ENTITY,
                Refused::Restart(_) => StatusCode::CONFLICT,
                Refused::NoAnswer(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            problem(status, refused)
        }
    }
}

/// Ends every flow.
#[utoipa::path(post, path = "/v1/flush", request_body = FlushBody, responses((status = 200, body = Flushed)))]
async fn flush(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let FlushBody {} = match body(request).await {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    // Once begun it goes on to its end, though whoever asked may go.
    let flushed = tokio::spawn(async move {
        let mut flows = 0;
        for worker in 0..state.workers.len() {
            let mut part = Flush::new();
            while part.from.is_some() {
                part = match state.workers.ask(worker, Command::Flush(part)).await? {
                    Command::Flush(part) => part,
                    _ => break,
                };
            }
            flows += part.ended;
        }
        state.ask_afresh().await;
        tracing::info!(flows, "table flushed");
        Ok(flows)
    });
    match flushed.await.unwrap_or(Err(NoAnswer::Stopping)) {
        Ok(flows) => Json(Flushed { flows }).into_response(),
        Err(error) => error.into_response(),
    }
}
