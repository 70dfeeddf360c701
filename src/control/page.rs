//! The web page: a few files that are part of the program, and what browsers may do with them. Owns no number; the page
//! asks for those by itself.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Everything that the page has comes from here, nothing is written into it, and nobody may frame it.
/// <https://www.w3.org/TR/CSP3/>
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Path, type and content. build.rs says what to do where the chart library is missing.
const FILES: [(&str, &str, &str); 7] = [
    ("/", "text/html; charset=utf-8", include_str!("../../web/page.html")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("../../web/page.js")),
    ("/page.css", "text/css; charset=utf-8", include_str!("../../web/page.css")),
    ("/icon.svg", "image/svg+xml", include_str!("../../web/icon.svg")),
    (
        "/uplot.js",
        "text/javascript; charset=utf-8",
        include_str!("../../web/node_modules/uplot/dist/uPlot.iife.min.js"),
    ),
    (
        "/uplot.css",
        "text/css; charset=utf-8",
        include_str!("../../web/node_modules/uplot/dist/uPlot.min.css"),
    ),
    ("/licences.txt", "text/plain; charset=utf-8", include_str!("../../web/node_modules/uplot/LICENSE")),
];

/// The page and its parts.
pub(super) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |routes, (path, kind, text)| {
        routes.route(path, get(move || async move { file(kind, text) }))
    })
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Another version of the program has other files at the same paths.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
