//! The files of the pages: in the program, under names that change with what is in them, so that a browser may keep them
//! for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

pub(super) const ROUTE: &str = "/assets/{name}";

/// One file.
struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
    /// `/assets/style-0123456789abcdef.css`
    path: String,
    tag: String,
}

const TEXT_CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    vec![
        made("style.css", TEXT_CSS, include_bytes!("assets/style.css")),
        made("live.js", JAVASCRIPT, include_bytes!("assets/live.js")),
        made(
            "icon.svg",
            "image/svg+xml",
            include_bytes!("assets/icon.svg"),
        ),
        made(
            "uPlot.min.css",
            TEXT_CSS,
            include_bytes!("assets/uPlot.min.css"),
        ),
        made(
            "uPlot.iife.min.js",
            JAVASCRIPT,
            include_bytes!("assets/uPlot.iife.min.js"),
        ),
    ]
});

/// Where a file is, within the prefix.
pub(super) fn path_of(name: &str) -> &'static str {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    asset.map_or("", |asset| &asset.path)
}

/// Serves a file.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let path = format!("/assets/{name}");
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == path) else {
        return Problem::not_found("there is no such file").into_response();
    };
    let mut response = match headers.get(header::IF_NONE_MATCH) {
        Some(known) if known.as_bytes() == asset.tag.as_bytes() => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        _ => asset.bytes.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(header::CACHE_CONTROL, forever);
    if let Ok(tag) = HeaderValue::from_str(&asset.tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn made(name: &'static str, kind: &'static str, bytes: &'static [u8]) -> Asset {
    let hash = fnv(bytes);
    let (stem, end) = name.rsplit_once('.').unwrap_or((name, ""));
    Asset {
        name,
        kind,
        bytes,
        path: format!("/assets/{stem}-{hash:016x}.{end}"),
        tag: format!("\"{hash:016x}\""),
    }
}

/// FNV-1a: it tells our own files apart, and is no defence against anybody.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_path_of_its_own() {
        for asset in ASSETS.iter() {
            assert!(asset.bytes.len() > 100, "{}", asset.name);
            assert_eq!(path_of(asset.name), asset.path);
        }
        assert_eq!(path_of("nothing.css"), "");
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
