//! Audit: who did what by hand, and why.

use askama::Template;
use axum::extract::{Query as Asked, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::admin::Audited;
use crate::config::Role;
use crate::event::EntryId;
use crate::web::app::App;
use crate::web::filters;
use crate::web::link;
use crate::web::problem::Problem;
use crate::web::route::{Route, Scope};
use crate::web::seen;
use crate::web::visit::{Frame, Visit};

/// So many are shown at once.
const MOST: usize = 100;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::page("/audit", (Role::View, Scope::Every), audit)]
}

#[derive(Deserialize)]
struct Params {
    /// Those before this one.
    #[serde(default)]
    before: String,
}

#[derive(Serialize)]
struct Audit {
    audited: Vec<Audited>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage<'a> {
    frame: Frame,
    rows: Vec<(String, &'a Audited)>,
    earlier: Option<String>,
}

async fn audit(
    State(app): State<App>,
    visit: Visit,
    Asked(params): Asked<Params>,
) -> Result<Response, Problem> {
    let before: Option<EntryId> = match params.before.trim() {
        "" => None,
        id => Some(id.parse()?),
    };
    let page = Audit {
        audited: app.admin().audited(before, MOST).await?,
    };
    let last = page.audited.last().filter(|_| page.audited.len() == MOST);
    let html = AuditPage {
        frame: visit.frame("Audit"),
        rows: page
            .audited
            .iter()
            .map(|one| (seen::second(one.at), one))
            .collect(),
        earlier: last.map(|last| link::link("/audit", &[("before", &last.id.to_string())])),
    };
    visit.page(&page, html)
}
