//! `GET /v1/timeouts/what-if`: what other timeouts would do, before they are set. Workers look at their tables a slice
//! at a time; what they say is added up and put into words here, for a replay too.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use conntrack::tick::Ticks;
use conntrack::track::settings::Settings;
use conntrack::track::timeout::{TimeoutKey, Timeouts};
use conntrack::tracker::{Forecast, PAUSE_MIN};

use super::State;
use super::desk::{Entrance, NoAnswer};
use super::routes::{parameters, problem};
use super::schema::{WhatIf, WhatIfRow};
use crate::bus::command::{self, Command};
use crate::config::names::{NameError, parse_setting};

/// What may be asked.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Timeouts as `timeout set` takes them, with commas between: `tcp.close_wait=60s,udp.stream=1m`.
    #[param(example = "tcp.close_wait=60s")]
    set: String,
}

/// What these timeouts would do if they were set: nothing is changed.
#[utoipa::path(get, path = "/v1/timeouts/what-if", operation_id = "what_if", params(Asked),
    responses((status = 200, body = WhatIf)))]
pub(super) async fn what_if(
    Shared(state): Shared<Arc<State>>,
    Extension(entrance): Extension<Entrance>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let settings = state.settings();
    let asked = match parameters(query) {
        Ok(asked) => asked,
        Err(refused) => return problem(StatusCode::BAD_REQUEST, refused),
    };
    let timeouts = match changed(settings.timeouts, &asked.set) {
        Ok(timeouts) => timeouts,
        Err(refused) => return problem(StatusCode::BAD_REQUEST, refused),
    };
    let mut all = Forecast::default();
    for worker in 0..state.workers.len() {
        let mut part = Box::new(command::WhatIf::new(timeouts));
        while part.from.is_some() {
            part = match state.workers.walk(entrance, worker, Command::WhatIf(part)).await {
                Ok(Command::WhatIf(part)) => part,
                // A command comes back as what it was.
                Ok(_) => return NoAnswer::Silent { worker }.into_response(),
                Err(error) => return error.into_response(),
            };
        }
        all.add(&part.forecast);
    }
    Json(answer(&all, &settings, &timeouts, state.started.elapsed().as_secs_f64())).into_response()
}

/// The timeouts with those that a question names set as it says.
fn changed(mut timeouts: Timeouts, asked: &str) -> Result<Timeouts, String> {
    for setting in asked.split(',') {
        let Some((name, value)) = setting.split_once('=') else {
            let setting = setting.chars().take(64).collect::<String>();
            return Err(format!("`{setting}` is no timeout: write it as tcp.close_wait=60s"));
        };
        let (key, span) =
            parse_setting(name.trim(), value.trim()).map_err(|error: NameError| error.to_string())?;
        timeouts.set(key, span);
    }
    Ok(timeouts)
}

/// A forecast in words and numbers, after so many seconds of recording.
pub fn answer(forecast: &Forecast, settings: &Settings, then: &Timeouts, recorded_secs: f64) -> WhatIf {
    let rows = TimeoutKey::ALL.iter().zip(&forecast.rows).map(|(&key, row)| WhatIfRow {
        name: key.name().to_owned(),
        seconds: settings.timeouts.get(key).as_secs_f64(),
        seconds_then: then.get(key).as_secs_f64(),
        flows: row.flows,
        would_go: row.would_go,
        cut_at_least: row.cut.at_least,
        cut_at_most: row.cut.at_most,
    });
    let concerned =
        |row: &WhatIfRow| row.seconds != row.seconds_then || row.would_go > 0 || row.cut_at_most > 0;
    WhatIf {
        recorded_secs,
        entries: forecast.entries,
        would_go: forecast.would_go(),
        entries_then: forecast.entries - forecast.would_go(),
        cut_at_least: forecast.cut.at_least,
        cut_at_most: forecast.cut.at_most,
        rows: rows.filter(concerned).collect(),
        notes: notes(forecast, settings, then),
    }
}

/// What a reader must know to take the numbers for what they are.
fn notes(forecast: &Forecast, settings: &Settings, then: &Timeouts) -> Vec<String> {
    let mut notes = Vec::new();
    let present = &settings.timeouts;
    for &key in TimeoutKey::ALL.iter().filter(|&&key| then.get(key) != present.get(key)) {
        let name = key.name();
        if !settings.uses(key) {
            notes.push(format!("{name} is not used: see `profile` and `[tcp]` in the configuration"));
        } else if then.get(key) > present.get(key) {
            notes.push(format!(
                "{name} would be raised: that ends nothing, and how many entries it would keep is not known"
            ));
        }
        // Flows on a state's own timeout are not known to wait for an acknowledgment, say, as long as that changes nothing.
        let shortens =
            matches!(key, TimeoutKey::TcpUnacknowledged | TimeoutKey::TcpMaxRetrans) && settings.uses(key);
        if shortens && let Some(state) = newly_shortened(key, present, then) {
            notes.push(format!(
                "{name} would be shorter than {} and shorten it for some flows: how many is not recorded",
                state.name()
            ));
        }
    }
    if forecast.partial {
        let least = PAUSE_MIN.as_secs();
        notes
            .push(format!("pauses below {least} s are not recorded: more flows than that may have been cut"));
    }
    if forecast.cut.at_least != forecast.cut.at_most {
        notes.push(
            "pauses are recorded by length: whole seconds up to a minute, then in steps of 2 to 25 %; a flow that paused on several \
             timeouts may count for each"
                .to_owned(),
        );
    }
    if forecast.crowded > 0 {
        notes.push(format!(
            "connections went {} times from pauses with data waiting to pauses without, or back: they may count twice",
            forecast.crowded
        ));
    }
    notes
}

/// A state's timeout that `key` would shorten then, and does not now.
fn newly_shortened(key: TimeoutKey, present: &Timeouts, then: &Timeouts) -> Option<TimeoutKey> {
    let shorter = |timeouts: &Timeouts, own| timeouts.get(key) < timeouts.get(own);
    let of_states = conntrack::track::tcp::TcpState::ALL.iter().map(|state| state.timeout_key());
    of_states
        .into_iter()
        .find(|&own| shorter(then, own) && !shorter(present, own) && then.get(key) > Ticks(0))
}
