//! Find: events by what is in them. A page looks for a moment only; it says what it has looked at, and goes on by a link.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use askama::Template;
use axum::extract::{Query as Asked, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin::{Budget, Covered, Hit, Place, Search, StreamTrouble};
use crate::config::Role;
use crate::rfc3339;
use crate::web::app::App;
use crate::web::command::CommandLine;
use crate::web::filters;
use crate::web::link;
use crate::web::problem::Problem;
use crate::web::route::{Route, Scope};
use crate::web::seen::{self, text};
use crate::web::visit::{Frame, Visit};

/// So long a page looks at most, through so many, and for so many.
const LOOKS: Duration = Duration::from_millis(60);
const ENTRIES: u64 = 50_000;
const HITS: usize = 50;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::page("/find", (Role::View, Scope::Any), find)]
}

#[derive(Deserialize)]
struct Params {
    #[serde(default)]
    q: String,
    /// A place, or nothing for all.
    #[serde(default, rename = "in")]
    place: String,
    /// How far back, as a duration or a time.
    #[serde(default)]
    since: String,
    #[serde(default)]
    cursor: String,
}

#[derive(Serialize)]
struct Page {
    query: String,
    hits: Vec<Row>,
    covered: Vec<Covered>,
    in_trouble: Vec<StreamTrouble>,
    cursor: Option<String>,
    #[serde(skip)]
    further: Option<String>,
    #[serde(skip)]
    command: CommandLine,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    hit: Hit,
    #[serde(skip)]
    event_type: String,
    #[serde(skip)]
    event_id: String,
    #[serde(skip)]
    subject: String,
    #[serde(skip)]
    when: String,
    #[serde(skip)]
    data: String,
    #[serde(skip)]
    href: String,
}

#[derive(Template)]
#[template(path = "find.html")]
struct FindPage<'a> {
    frame: Frame,
    page: &'a Page,
    place: &'a str,
    since: &'a str,
    places: [(&'static str, &'static str); 6],
    has_looked: bool,
}

/// What can be chosen to look in.
const PLACES: [(&str, &str); 6] = [
    ("", "everywhere"),
    ("stream", "streams"),
    ("dead", "dead letters"),
    ("replayed", "replayed entries"),
    ("parked", "parked entries"),
    ("scheduled", "scheduled events"),
];

async fn find(
    State(app): State<App>,
    visit: Visit,
    Asked(params): Asked<Params>,
) -> Result<Response, Problem> {
    let mut page = Page {
        query: params.q.trim().to_owned(),
        hits: Vec::new(),
        covered: Vec::new(),
        in_trouble: Vec::new(),
        cursor: None,
        further: None,
        command: CommandLine::new(["find", params.q.trim()]),
        problem: None,
    };
    let has_looked = !params.cursor.is_empty() || !page.query.is_empty();
    if has_looked {
        match look(&app, &visit, &params, &mut page).await {
            // What was typed can be mended where it was typed.
            Err(problem) if problem.status.is_client_error() && !visit.wants_json() => {
                page.problem = Some(problem.message);
            }
            looked => looked?,
        }
    }
    let html = FindPage {
        frame: visit.frame("Find"),
        page: &page,
        place: &params.place,
        since: &params.since,
        places: PLACES,
        has_looked,
    };
    visit.page(&page, html)
}

async fn look(app: &App, visit: &Visit, params: &Params, page: &mut Page) -> Result<(), Problem> {
    let admin = app.admin();
    let mut search = match params.cursor.is_empty() {
        false => Search::resume(&params.cursor)?,
        true => {
            let streams = admin.streams().iter();
            let seen = streams.filter(|stream| visit.may(Role::View, stream));
            let mut search = Search::new(&params.q)?.streams(seen);
            if !params.place.is_empty() {
                search = search.places([params.place.parse::<Place>()?]);
            }
            let since = params.since.trim();
            if let Ok(ago) = crate::duration::parse(since) {
                // By the clock that the ids are by.
                search = search.since(admin.now().await?.checked_sub(ago).unwrap_or(UNIX_EPOCH));
            } else if !since.is_empty() {
                search = search.since(time(since)?);
            }
            search
        }
    };
    if let Some(stream) = search
        .in_streams()
        .iter()
        .find(|stream| !visit.may(Role::View, stream))
    {
        return Err(Problem::forbidden(format!(
            "this needs the role view with {stream}, which {} has not",
            visit.who
        )));
    }
    page.query = search.query().to_string();
    page.command = CommandLine::new(["find"]).and(page.query.split_whitespace());
    let budget = Budget::default().time(LOOKS).entries(ENTRIES).hits(HITS);
    let hide = |stream: &str, event: &mut Value| seen::hide(app, visit, stream, event);
    let found = admin.search_as_seen(&mut search, &budget, &hide).await?;
    page.hits = found.hits.into_iter().map(Row::of).collect();
    page.covered = found.covered;
    page.in_trouble = found.in_trouble;
    page.further = found.cursor.as_ref().map(|cursor| {
        link::link(
            "/find",
            &[
                ("q", &page.query),
                ("in", &params.place),
                ("since", &params.since),
                ("cursor", cursor),
            ],
        )
    });
    page.cursor = found.cursor;
    Ok(())
}

fn time(text: &str) -> Result<SystemTime, Problem> {
    let day = format!("{text}T00:00:00Z");
    let at = rfc3339::parse(text).or_else(|_| rfc3339::parse(&day));
    at.map_err(|_| {
        Problem::wrong(format!(
            "{text:?} is no time: write 2h, 2026-01-31 or 2026-01-31T12:00:00Z"
        ))
    })
}

impl Row {
    fn of(hit: Hit) -> Self {
        let data = match hit.event.get("data") {
            Some(data) => data.to_string(),
            None => String::new(),
        };
        let entry = match hit.place {
            Place::Dead => text(&hit.event, "entry").to_owned(),
            _ => hit.id.clone(),
        };
        Row {
            event_type: text(&hit.event, "type").to_owned(),
            event_id: text(&hit.event, "id").to_owned(),
            subject: text(&hit.event, "subject").to_owned(),
            when: seen::second(hit.at),
            data: data.chars().take(160).collect(),
            href: match hit.place {
                Place::Dead => {
                    link::link("/dead/letter", &[("stream", &hit.stream), ("id", &hit.id)])
                }
                Place::Scheduled => link::link("/scheduled", &[]),
                _ => link::entry(&hit.stream, &entry),
            },
            hit,
        }
    }
}
