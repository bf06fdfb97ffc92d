//! Scheduled: events that wait for their time; cancel them.

use askama::Template;
use axum::extract::{Form, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::admin::{Cancelled, ScheduledId};
use crate::config::Role;
use crate::web::app::{Act, App};
use crate::web::command::CommandLine;
use crate::web::filters;
use crate::web::form::ActForm;
use crate::web::problem::Problem;
use crate::web::route::{Route, Scope};
use crate::web::seen;
use crate::web::visit::{Frame, Visit};

/// So many of each stream are shown: those that are due first.
const MOST: usize = 100;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::page("/scheduled", (Role::View, Scope::Any), scheduled),
        Route::action("/scheduled/cancel", (Role::Operate, Scope::Stream), cancel),
    ]
}

#[derive(Serialize)]
struct Scheduled {
    streams: Vec<Stream>,
}

#[derive(Serialize)]
struct Stream {
    name: String,
    /// How many there are.
    of: u64,
    events: Vec<Event>,
    /// Why they don't come, if they don't.
    trouble: Option<String>,
}

#[derive(Serialize)]
struct Event {
    due: String,
    is_overdue: bool,
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    subject: String,
    source: String,
    #[serde(skip)]
    cancel: Option<ActForm>,
}

#[derive(Template)]
#[template(path = "scheduled.html")]
struct ScheduledPage<'a> {
    frame: Frame,
    page: &'a Scheduled,
}

async fn scheduled(State(app): State<App>, visit: Visit) -> Result<Response, Problem> {
    let status = app.status().await?;
    let mut streams = Vec::new();
    for stream in status
        .streams
        .iter()
        .filter(|stream| visit.may(Role::View, &stream.stream))
    {
        let mut events = Vec::new();
        if stream.scheduled > 0 {
            let mut list = app.admin().scheduled(&stream.stream)?;
            while events.len() < MOST
                && let Some(event) = list.next().await?
            {
                let envelope = event.event.as_ref();
                let of = |text: Option<&str>| text.unwrap_or_default().to_owned();
                let event_type = of(envelope.map(|event| event.event_type()));
                let source = of(envelope.and_then(|event| event.source()));
                let may = visit.may(Role::Operate, &stream.stream);
                events.push(Event {
                    due: seen::second(event.at),
                    is_overdue: event.at < stream.now,
                    cancel: may.then(|| form(&stream.stream, &event.id, &event_type, &source)),
                    subject: of(envelope.and_then(|event| event.subject())),
                    id: event.id,
                    event_type,
                    source,
                });
            }
        }
        streams.push(Stream {
            name: stream.stream.clone(),
            of: stream.scheduled,
            events,
            trouble: stream.scheduled_unread.is_some().then(|| {
                "no worker of any group adds what is scheduled here: it waits until one runs"
                    .to_owned()
            }),
        });
    }
    let page = Scheduled { streams };
    let html = ScheduledPage {
        frame: visit.frame("Scheduled"),
        page: &page,
    };
    visit.page(&page, html)
}

fn form(stream: &str, id: &str, event_type: &str, source: &str) -> ActForm {
    let form = ActForm::new(
        "Cancel",
        "/scheduled/cancel",
        command(stream, id, event_type, source),
    );
    form.on(stream)
        .with("id", id)
        .with("type", event_type)
        .with("source", source)
        .danger()
}

fn command(stream: &str, id: &str, event_type: &str, source: &str) -> CommandLine {
    let mut line = CommandLine::new(["scheduled", "cancel", stream, id]);
    if !event_type.is_empty() {
        line = line.and(["--type", event_type]);
    }
    if !source.is_empty() {
        line = line.and(["--source", source]);
    }
    line
}

#[derive(Deserialize)]
struct What {
    reason: String,
    id: String,
    #[serde(default, rename = "type")]
    event_type: String,
    #[serde(default)]
    source: String,
}

async fn cancel(
    State(app): State<App>,
    visit: Visit,
    Form(what): Form<What>,
) -> Result<Response, Problem> {
    let stream = visit.stream();
    let act = Act {
        command: command(stream, &what.id, &what.event_type, &what.source),
        reason: what.reason.clone(),
        back: visit.to("/scheduled"),
    };
    let doing = async {
        let id = match what.event_type.is_empty() {
            true => ScheduledId::new(&what.id),
            false => ScheduledId::new(&what.id).of(&what.event_type, &what.source),
        };
        let cancelled = app.admin().cancel_scheduled(stream, &[id]).await?;
        match cancelled.first() {
            Some(Cancelled::Yes) => Ok(format!("{} will not be published", what.id)),
            Some(Cancelled::Which(many)) => Err(Problem::wrong(format!(
                "{many} events have the id {}: name its type, too",
                what.id
            ))),
            _ => Err(Problem::not_found(format!(
                "{} does not wait for its time: it was published or cancelled",
                what.id
            ))),
        }
    };
    app.act(&visit, act, doing).await
}
