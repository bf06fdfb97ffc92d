//! Aggregates: the events of one, and its state at any version.

use std::time::SystemTime;

use askama::Template;
use axum::extract::{Query as Asked, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin::{Aggregates, HistoryEvent};
use crate::config::Role;
use crate::eventstore::AggregateId;
use crate::web::app::App;
use crate::web::command::CommandLine;
use crate::web::filters;
use crate::web::link;
use crate::web::problem::Problem;
use crate::web::route::{Route, Scope};
use crate::web::seen;
use crate::web::visit::{Frame, Visit};

/// So many events are shown at once, and a state is made of so many at most.
const EVENTS: u64 = 50;
const APPLIED: u64 = 10_000;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::page(
        "/aggregates",
        (Role::View, Scope::Any),
        aggregates,
    )]
}

#[derive(Deserialize)]
struct Params {
    #[serde(default)]
    id: String,
    /// The version it is looked at.
    #[serde(default)]
    at: Option<u64>,
}

#[derive(Serialize)]
struct Page {
    kinds: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregate: Option<One>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct One {
    id: String,
    stream: String,
    /// The version it is at.
    version: u64,
    /// The version of the state.
    at: u64,
    state: Value,
    /// Events up to that one, the latest first.
    events: Vec<Event>,
    #[serde(skip)]
    earlier: Option<String>,
    #[serde(skip)]
    later: Option<String>,
    #[serde(skip)]
    json: String,
    #[serde(skip)]
    command: CommandLine,
}

#[derive(Serialize)]
struct Event {
    version: u64,
    time: String,
    #[serde(rename = "type")]
    event_type: String,
    id: String,
    position: String,
    data: Value,
    #[serde(skip)]
    json: String,
    #[serde(skip)]
    here: String,
    #[serde(skip)]
    entry: String,
}

#[derive(Template)]
#[template(path = "aggregates.html")]
struct AggregatesPage<'a> {
    frame: Frame,
    page: &'a Page,
    asked: &'a str,
}

async fn aggregates(
    State(app): State<App>,
    visit: Visit,
    Asked(params): Asked<Params>,
) -> Result<Response, Problem> {
    let asked = params.id.trim();
    let mut page = Page {
        kinds: Vec::new(),
        aggregate: None,
        problem: None,
    };
    match app.aggregates() {
        None => {
            page.problem = Some(
                "this program knows no aggregates: serve the pages by the program that registers them, by its command web \
                 or its [web] listen"
                    .to_owned(),
            );
        }
        Some(known) => {
            page.kinds = known.kinds().map(str::to_owned).collect();
            if !asked.is_empty() {
                match one(&app, &visit, known, asked, params.at).await {
                    Ok(one) => page.aggregate = Some(one),
                    Err(problem) if visit.wants_json() => return Err(problem),
                    Err(problem) => page.problem = Some(problem.message),
                }
            }
        }
    }
    let html = AggregatesPage {
        frame: visit.frame("Aggregates"),
        page: &page,
        asked,
    };
    visit.page(&page, html)
}

async fn one(
    app: &App,
    visit: &Visit,
    known: &Aggregates,
    asked: &str,
    at: Option<u64>,
) -> Result<One, Problem> {
    let id: AggregateId = asked.parse()?;
    let stream = known.stream_of(&id)?;
    if !visit.may(Role::View, &stream) {
        return Err(Problem::forbidden(format!(
            "this needs the role view with {stream}, which {} has not",
            visit.who
        )));
    }
    let version = known.version(&id).await?;
    let at = at.unwrap_or(version).clamp(1, version);
    if at > APPLIED {
        return Err(Problem::wrong(format!(
            "the state at version {at} takes more than {APPLIED} events to make; streamhand aggregate show {id} --at {at}"
        )));
    }
    let shown = known.show_at(&id, Some(at)).await?;
    let from = at.saturating_sub(EVENTS - 1).max(1);
    let mut history = known.history(&id, from).await?.events;
    let mut events = Vec::new();
    while let Some(event) = history.next().await? {
        if event.stored.version > at {
            break;
        }
        events.push(Event::of(app, visit, &id, &stream, event));
    }
    events.reverse();
    let mut state = serde_json::json!({ "data": shown.state });
    seen::hide(app, visit, &stream, &mut state);
    let state = state["data"].take();
    let version_link =
        |at: u64| link::link("/aggregates", &[("id", asked), ("at", &at.to_string())]);
    Ok(One {
        json: seen::laid_out(&state),
        command: CommandLine::new(["aggregate", "show", asked, "--at", &at.to_string()]),
        earlier: (at > 1).then(|| version_link(at - 1)),
        later: (at < version).then(|| version_link(at + 1)),
        id: id.to_string(),
        stream,
        version,
        at,
        state,
        events,
    })
}

impl Event {
    fn of(app: &App, visit: &Visit, id: &AggregateId, stream: &str, event: HistoryEvent) -> Self {
        let envelope = &event.stored.envelope;
        let time: SystemTime = envelope.time();
        let data: Value = match &event.data {
            Some(raw) => serde_json::from_str(raw.get()).unwrap_or_default(),
            None => Value::String("(can't be read)".to_owned()),
        };
        let mut whole = serde_json::json!({ "data": data });
        seen::hide(app, visit, stream, &mut whole);
        let data = whole["data"].take();
        let version = event.stored.version;
        Event {
            version,
            time: seen::second(time),
            event_type: envelope.event_type().to_owned(),
            id: envelope.id().into_owned(),
            position: event.stored.position.to_string(),
            json: seen::laid_out(&data),
            data,
            here: link::link(
                "/aggregates",
                &[("id", &id.to_string()), ("at", &version.to_string())],
            ),
            entry: link::entry(stream, &event.stored.position.to_string()),
        }
    }
}
