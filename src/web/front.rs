//! What is done with a request before it finds its route, and with every response: the prefix and `.json` are taken off
//! the path, and headers say what a browser may do with a page.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderValue, Request, Response, header};

use super::access::Access;
use crate::config::web::prefix_of;

/// Where a request comes from, and what its path began with.
#[derive(Clone, Debug)]
pub(super) struct Front {
    pub from: IpAddr,
    pub prefix: String,
    /// Whether the path ended with `.json`.
    pub json: bool,
}

const PREFIX: &str = "x-forwarded-prefix";

/// What a browser may load: our own files. Nothing stands in the page itself that would be run.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(&str, &str); 8] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
    ("x-robots-tag", "noindex"),
];

/// The request as the router takes it.
pub(super) fn arrived(
    mut request: Request<Body>,
    from: SocketAddr,
    access: &Access,
    prefix: Option<&str>,
) -> Request<Body> {
    let from = from.ip().to_canonical();
    let said = request
        .headers()
        .get(PREFIX)
        .filter(|_| access.is_proxy(from));
    let said = said.and_then(|prefix| prefix_of(prefix.to_str().ok()?).ok());
    let prefix = said
        .or_else(|| prefix.map(str::to_owned))
        .unwrap_or_default();
    let uri = request.uri();
    // A proxy may take the prefix off, or leave it there.
    let path = match uri.path().strip_prefix(&prefix) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => uri.path(),
    };
    let (path, json) = match path.strip_suffix(".json") {
        Some("/now") => ("/", true),
        Some(path) => (path, true),
        None => (path, false),
    };
    let whole = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    if let Ok(whole) = whole.parse::<PathAndQuery>() {
        *request.uri_mut() = Uri::from(whole);
    }
    request
        .extensions_mut()
        .insert(Front { from, prefix, json });
    request
}

/// The response with what a browser is to know. What says nothing of how long it may be kept is not kept.
pub(super) fn leaving(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
