//! What a probe is told: a verdict, and the reasons for it.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What is wrong, as sentences without their full stop; nothing where all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// `ok`, or `failing`.
    pub status: &'static str,
    /// Why it is not ok.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// What does not count against it, and is good to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Verdict {
    /// All is well where there is no reason why not.
    pub fn of(why: Vec<String>) -> Self {
        Verdict {
            status: if why.is_empty() { "ok" } else { "failing" },
            why,
            notes: Vec::new(),
        }
    }

    /// The same with notes.
    pub fn noting(self, notes: Vec<String>) -> Self {
        Verdict { notes, ..self }
    }

    pub fn is_ok(&self) -> bool {
        self.why.is_empty()
    }
}

/// 200 or 503, and the verdict as JSON.
impl IntoResponse for Verdict {
    fn into_response(self) -> Response {
        let status = match self.is_ok() {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, [(header::CACHE_CONTROL, "no-store")], Json(self)).into_response()
    }
}
