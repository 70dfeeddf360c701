//! The API's description: OpenAPI, made from the same declarations that make the routes, so that neither lacks what the
//! other has. Owns what is true of every route; sees no worker and no socket.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, Paths};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Content, OpenApi as Document, Ref, Response as Answer};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::schema::Problem;
use super::{State, guard, routes};

/// The scheme's name in the document.
const TOKEN: &str = "token";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "dpdk-conntrack",
        description = "Connection tracking on DPDK: what is tracked, and how it is tuned while traffic runs. \
                       Over the unix socket nothing is asked of a client; over TCP every write needs the token, so does \
                       a trace, which costs the packets, and other reads need it where `control.reads` says so."
    ),
    components(schemas(Problem))
)]
struct Head;

/// Routes with their declarations: none can be added without one.
pub(super) struct Routes(OpenApiRouter<Arc<State>>);

impl Routes {
    pub(super) fn new() -> Self {
        Self(OpenApiRouter::with_openapi(Head::openapi()))
    }

    /// Adds what `utoipa_axum::routes!` makes of functions that have a `#[utoipa::path]`; those given together share a path.
    pub(super) fn add(self, routes: UtoipaMethodRouter<Arc<State>>) -> Self {
        Self(self.0.routes(routes))
    }

    pub(super) fn router(self) -> Router<Arc<State>> {
        self.0.into()
    }

    fn document(self) -> Document {
        let mut document = self.0.into_openapi();
        let components = document.components.get_or_insert_with(Components::new);
        components.add_security_scheme(TOKEN, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        common(&mut document.paths);
        document
    }
}

/// Each operation's answers that come from the doors and the body's reader and not from the operation itself.
fn common(paths: &mut Paths) {
    for (path, item) in &mut paths.paths {
        let costly = guard::COSTLY.contains(&path.as_str());
        let reads = [&mut item.get].into_iter().flatten();
        reads.for_each(|operation| {
            // Without a token where reads are open, with it everywhere.
            let open = (!costly).then(SecurityRequirement::default);
            operation.security = Some(open.into_iter().chain([token()]).collect());
            answers(operation, &REFUSALS);
        });
        let writes = [&mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        writes.into_iter().flatten().for_each(|operation| {
            operation.security = Some(vec![token()]);
            answers(operation, &REFUSALS);
            answers(operation, &BODY_REFUSALS);
        });
    }
}

/// What any request may be answered.
const REFUSALS: [(&str, &str); 4] = [
    ("400", "the request is wrong: the sentence says what to change"),
    ("401", "over TCP: the token is missing or wrong"),
    ("403", "over TCP: the Host or the Origin is not one that this door answers to"),
    ("503", "a worker did not answer in time"),
];

/// What a request with a body may be answered.
const BODY_REFUSALS: [(&str, &str); 3] = [
    ("408", "the body did not come within 10 s"),
    ("413", "the body is longer than 64 KiB"),
    ("415", "the body is not announced as application/json"),
];

fn token() -> SecurityRequirement {
    SecurityRequirement::new(TOKEN, [""; 0])
}

fn answers(operation: &mut Operation, refusals: &[(&str, &str)]) {
    for (status, description) in refusals {
        let mut answer = Answer::new(*description);
        let problem = Content::new(Some(Ref::from_schema_name("Problem")));
        answer.content.insert("application/json".to_owned(), problem.into());
        operation.responses.responses.entry((*status).to_owned()).or_insert(answer.into());
    }
}

static TEXT: LazyLock<Bytes> = LazyLock::new(|| text().into());

/// The description as JSON. Our own types serialize; were one not to, its test would say so.
fn text() -> String {
    routes::all().document().to_pretty_json().unwrap_or_default()
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, body = serde_json::Value)))]
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations() -> Vec<(String, String, serde_json::Value)> {
        let document: serde_json::Value = serde_json::from_str(&text()).unwrap();
        let mut all = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                all.push((method.clone(), path.clone(), operation.clone()));
            }
        }
        all
    }

    #[test]
    fn every_operation_says_what_it_is_and_what_it_answers() {
        let all = operations();
        assert!(all.len() > 10, "{all:?}");
        for (method, path, operation) in all {
            let (summary, id) = (&operation["summary"], &operation["operationId"]);
            assert!(summary.is_string() && id.is_string(), "{method} {path} has no words: {operation}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("200"), "{method} {path} does not say what success is");
            let content = &responses["200"]["content"];
            assert!(content.as_object().is_some_and(|types| !types.is_empty()), "{method} {path}: {content}");
        }
    }

    #[test]
    fn every_write_demands_the_token_and_so_does_what_costs_the_packets() {
        let all = operations();
        for (method, path, operation) in &all {
            let alone = operation["security"] == serde_json::json!([{ "token": [] }]);
            let demanded = method != "get" || guard::COSTLY.contains(&path.as_str());
            assert_eq!(alone, demanded, "{method} {path}: {}", operation["security"]);
        }
        for costly in guard::COSTLY {
            assert!(all.iter().any(|(_, path, _)| path == costly), "there is no {costly}");
        }
    }

    #[test]
    fn what_is_referred_to_is_there_and_names_are_not_used_twice() {
        let text = text();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        for name in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document["components"]["schemas"][name].is_object(), "{name} is described nowhere");
        }
        let mut ids: Vec<_> =
            operations().into_iter().map(|(_, _, o)| o["operationId"].to_string()).collect();
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all, "{ids:?}");
    }
}
