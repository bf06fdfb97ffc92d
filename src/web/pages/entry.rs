//! Entry: the whole life of one event, as Redis knows it.

use std::time::{Duration, SystemTime};

use askama::Template;
use axum::extract::{Query as Asked, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin::{Budget, EntryLife, EntryStanding, GroupLife, Hit, Place, Relations};
use crate::config::Role;
use crate::event::EntryId;
use crate::web::app::App;
use crate::web::command::CommandLine;
use crate::web::filters;
use crate::web::link;
use crate::web::problem::Problem;
use crate::web::route::{Route, Scope};
use crate::web::seen::{self, text};
use crate::web::visit::{Frame, Visit};

/// So much is looked at for what an entry has to do with, three times.
const LOOKS: Duration = Duration::from_millis(15);
const ENTRIES: u64 = 2_000;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::page("/entry", (Role::View, Scope::Any), entry)]
}

#[derive(Deserialize)]
struct Params {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    id: String,
}

#[derive(Serialize)]
struct Life {
    #[serde(flatten)]
    life: EntryLife,
    relations: Relations,
    /// What happened to it, in order.
    timeline: Vec<Step>,
}

/// Something that happened.
#[derive(Serialize)]
struct Step {
    /// None where it is to come, or it is not known when.
    at: Option<String>,
    what: String,
    detail: String,
    #[serde(skip)]
    mood: &'static str,
    #[serde(skip)]
    href: String,
    #[serde(skip)]
    order: SystemTime,
}

/// An event beside this one.
struct Beside<'a> {
    hit: &'a Hit,
    event_type: &'a str,
    subject: &'a str,
    when: String,
    href: String,
    groups: &'a [GroupLife],
}

#[derive(Template)]
#[template(path = "entry.html")]
struct EntryPage<'a> {
    frame: Frame,
    it: &'a Life,
    added: String,
    facts: Vec<(&'static str, String, String)>,
    json: String,
    cause: Option<Beside<'a>>,
    caused: Vec<Beside<'a>>,
    further: String,
    command: CommandLine,
}

async fn entry(
    State(app): State<App>,
    visit: Visit,
    Asked(params): Asked<Params>,
) -> Result<Response, Problem> {
    let stream = &params.stream;
    let id: EntryId = params.id.trim().parse()?;
    if !visit.may(Role::View, stream) {
        return Err(Problem::forbidden(format!(
            "this needs the role view with {stream:?}, which {} has not",
            visit.who
        )));
    }
    let admin = app.admin();
    let mut life = admin.entry(stream, id).await?;
    let hide = |stream: &str, event: &mut Value| seen::hide(&app, &visit, stream, event);
    let budget = Budget::default().time(LOOKS).entries(ENTRIES);
    let mut relations = admin.relations_as_seen(&life, &[], &budget, &hide).await?;
    let seen = |hit: &Hit| visit.may(Role::View, &hit.stream);
    relations.caused.retain(|caused| seen(&caused.hit));
    relations.cause = relations.cause.filter(seen);
    relations
        .covered
        .retain(|covered| visit.may(Role::View, &covered.stream));
    if !life.is_there
        && let Some(letter) = relations
            .letters
            .iter()
            .find(|hit| hit.place == Place::Dead)
    {
        // Whole, and already without what the visitor may not see.
        life.event = letter.event.clone();
    }
    hide(stream, &mut life.event);
    life.know(&relations);
    let it = Life {
        timeline: timeline(&life, &relations),
        life,
        relations,
    };
    let event = own_id(&it.life);
    let html = EntryPage {
        frame: visit.frame(format!("Entry {id}")),
        added: seen::milli(it.life.at),
        facts: facts(&it.life),
        json: seen::laid_out(&it.life.event),
        cause: it.relations.cause.as_ref().map(|hit| Beside::of(hit, &[])),
        caused: it
            .relations
            .caused
            .iter()
            .map(|caused| Beside::of(&caused.hit, &caused.groups))
            .collect(),
        further: link::find(&format!("causationid:{event}")),
        command: CommandLine::new(["entry", &id.to_string(), "--stream", stream]),
        it: &it,
    };
    visit.page(&it, html)
}

/// The event's id: its own, or its entry's.
fn own_id(life: &EntryLife) -> String {
    match text(&life.event, "id") {
        "" => life.id.to_string(),
        id => id.to_owned(),
    }
}

/// What an event says of itself, each with where more of it is found.
fn facts(life: &EntryLife) -> Vec<(&'static str, String, String)> {
    let names = [
        ("type", "Type", true),
        ("subject", "Subject", true),
        ("id", "Event", false),
        ("source", "Source", false),
        ("time", "Time", false),
        ("schemaversion", "Version", false),
        ("correlationid", "Chain", true),
        ("causationid", "Cause", false),
        ("traceparent", "Trace", false),
    ];
    let fact = |(name, says, is_sought): (&str, &'static str, bool)| {
        let value = text(&life.event, name);
        let href = match is_sought {
            true if !value.is_empty() && value != "***" => {
                link::find(&format!("{name}:\"{value}\""))
            }
            _ => String::new(),
        };
        (!value.is_empty()).then(|| (says, value.to_owned(), href))
    };
    names.into_iter().filter_map(fact).collect()
}

fn timeline(life: &EntryLife, relations: &Relations) -> Vec<Step> {
    let step = |at: Option<SystemTime>, what: &str, detail: String, mood| Step {
        at: at.map(seen::milli),
        what: what.to_owned(),
        detail,
        mood,
        href: String::new(),
        order: at.unwrap_or(SystemTime::UNIX_EPOCH),
    };
    let mut steps = vec![step(
        Some(life.at),
        "added",
        format!("to {}", life.stream),
        "fine",
    )];
    for group in &life.groups {
        let name = &group.group;
        if let Some(first) = group.first_delivered {
            steps.push(step(
                Some(first),
                "first delivered",
                format!("to a worker of {name}"),
                "fine",
            ));
        }
        for error in &group.errors {
            let which = match (error.attempt, error.times) {
                (Some(attempt), 1) => format!("attempt {attempt} of {name}: "),
                (Some(attempt), times) => {
                    format!("attempt {attempt} of {name}, the same {times} times: ")
                }
                (None, _) => format!("{name}: "),
            };
            // The last one may be without its time: it is then the one before what comes next.
            let at = error.at.or(group.first_delivered);
            let mut failed = step(at, "failed", format!("{which}{}", error.error), "failing");
            if error.at.is_none() {
                failed.at = None;
            }
            steps.push(failed);
        }
        if group.released > 0 {
            let times = format!(
                "{} times by {name}: a stop, a pause, a limit or an open breaker",
                group.released
            );
            let mut released = step(group.first_delivered, "released", times, "waiting");
            released.at = None;
            steps.push(released);
        }
    }
    for hit in &relations.letters {
        let dead = hit.event.get("dead").unwrap_or(&Value::Null);
        let mut of_it = match hit.place {
            Place::Dead => step(
                Some(hit.at),
                "buried",
                format!("as {}: {}", text(dead, "reason"), text(dead, "error")),
                "failing",
            ),
            _ => {
                let by = text(&hit.event, "replay.by");
                step(
                    Some(hit.at),
                    "replayed",
                    format!("as {}, by {by}; not settled yet", hit.id),
                    "waiting",
                )
            }
        };
        if hit.place == Place::Dead {
            of_it.href = link::link("/dead/letter", &[("stream", &hit.stream), ("id", &hit.id)]);
        }
        steps.push(of_it);
    }
    for caused in &relations.caused {
        let mut emitted = step(
            Some(caused.hit.at),
            "caused",
            format!(
                "{} in {}",
                text(&caused.hit.event, "type"),
                caused.hit.stream
            ),
            "fine",
        );
        emitted.href = link::entry(&caused.hit.stream, &caused.hit.id);
        steps.push(emitted);
    }
    steps.sort_by_key(|step| step.order);
    for group in &life.groups {
        let mood = match &group.standing {
            EntryStanding::Settled { .. } => "fine",
            EntryStanding::Lost | EntryStanding::Dead { .. } => "failing",
            EntryStanding::Held {
                is_lapsed: true, ..
            } => "behind",
            _ => "waiting",
        };
        let mut now = step(
            None,
            "now",
            format!("{}: {}", group.group, group.standing),
            mood,
        );
        now.order = life.now;
        steps.push(now);
    }
    steps
}

impl<'a> Beside<'a> {
    fn of(hit: &'a Hit, groups: &'a [GroupLife]) -> Self {
        Beside {
            event_type: text(&hit.event, "type"),
            subject: text(&hit.event, "subject"),
            when: seen::milli(hit.at),
            href: match hit.place {
                Place::Dead => link::entry(&hit.stream, text(&hit.event, "entry")),
                _ => link::entry(&hit.stream, &hit.id),
            },
            hit,
            groups,
        }
    }
}
