//! What is served: the probes, which show no data and ask for no token, and what a token may be needed for.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::health::Verdict;
use crate::config::Secret;

/// What answers a probe. Called on the server's thread, so it must neither block nor wait.
pub(crate) type Probe = Arc<dyn Fn() -> Verdict + Send + Sync>;

/// What is scraped, in the form that a request's `Accept` asks for: its content type and its bytes.
pub(crate) type Scraped = Arc<dyn Fn(&str) -> (&'static str, Vec<u8>) + Send + Sync>;

/// The routes of both probes.
pub(crate) fn probes(livez: Probe, readyz: Probe) -> Router {
    let probe = |probe: Probe| get(async move || probe());
    Router::new()
        .route("/livez", probe(livez))
        .route("/readyz", probe(readyz))
}

/// The route of what is scraped.
pub(crate) fn metrics(scraped: Scraped) -> Router {
    let scrape = get(async move |headers: HeaderMap| {
        let accept = headers.get(header::ACCEPT);
        let accept = accept.and_then(|accept| accept.to_str().ok());
        let (content_type, body) = scraped(accept.unwrap_or_default());
        ([(header::CONTENT_TYPE, content_type)], body)
    });
    Router::new().route("/metrics", scrape)
}

/// The same routes for those alone who show the token, where there is one.
pub(crate) fn behind(token: Option<&Secret>, router: Router) -> Router {
    match token {
        None => router,
        Some(token) => {
            let token: Arc<str> = Arc::from(token.expose());
            router.route_layer(from_fn_with_state(token, with_token))
        }
    }
}

async fn with_token(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    if shown(request.headers()).is_some_and(|shown| is_same(shown, token.as_bytes())) {
        return next.run(request).await;
    }
    let headers = [(header::WWW_AUTHENTICATE, "Bearer")];
    let why = "show the token of [telemetry] as `Authorization: Bearer …`\n";
    (StatusCode::UNAUTHORIZED, headers, why).into_response()
}

/// The bearer token of a request.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// In a time that says nothing of where two of the same length differ.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differ) == 0
}
