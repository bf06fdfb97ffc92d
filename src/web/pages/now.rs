//! Now: how the group is doing, in a sentence, and each of its streams; pause and resume.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use askama::Template;
use axum::extract::{Form, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::admin::{GroupStatus, Status, StreamStatus};
use crate::config::Role;
use crate::partition::Partition;
use crate::web::app::{Act, App, runnable};
use crate::web::command::CommandLine;
use crate::web::filters;
use crate::web::form::ActForm;
use crate::web::json;
use crate::web::past::Past;
use crate::web::problem::Problem;
use crate::web::range;
use crate::web::route::{Route, Scope};
use crate::web::sentence::{Facts, Sentence};
use crate::web::visit::{Frame, Visit};

pub(super) fn routes() -> Vec<Route> {
    let operate = (Role::Operate, Scope::Stream);
    vec![
        Route::page("/", (Role::View, Scope::Any), now),
        Route::action("/streams/pause", operate, pause),
        Route::action("/streams/resume", operate, resume),
    ]
}

/// Most notes that the line of a topic has.
const NOTES: usize = 5;

/// What the page shows.
#[derive(Serialize)]
struct Now {
    group: String,
    sentence: Sentence,
    /// Those of topics one by one.
    streams: Vec<Stream>,
    /// What the partitions of each topic come to together.
    topics: Vec<Stream>,
    /// Streams that can't be looked at, and why.
    in_trouble: Vec<(String, String)>,
    warning: Option<String>,
}

#[derive(Serialize)]
struct Stream {
    name: String,
    /// How many partitions it has, if it is a topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<usize>,
    length: u64,
    /// As text: it may be more than is known.
    waiting: String,
    in_hand: u64,
    parked: u64,
    #[serde(rename = "next_due_ms", serialize_with = "json::some_ms")]
    next_due: Option<Duration>,
    scheduled: u64,
    replayed: u64,
    dead: u64,
    workers: u64,
    #[serde(rename = "oldest_ms", serialize_with = "json::some_ms")]
    oldest: Option<Duration>,
    paused: Vec<Paused>,
    notes: Vec<String>,
    /// What the visitor may do with it.
    #[serde(skip)]
    forms: Vec<ActForm>,
}

#[derive(Serialize)]
struct Paused {
    handler: Option<String>,
    by: String,
    #[serde(rename = "ago_ms", serialize_with = "json::ms")]
    ago: Duration,
}

#[derive(Template)]
#[template(path = "now.html")]
struct NowPage<'a> {
    frame: Frame,
    now: &'a Now,
}

async fn now(State(app): State<App>, visit: Visit) -> Result<Response, Problem> {
    app.look();
    let status = app.status().await?;
    // Without a history there is still a status.
    let past = app.past(&range::Scope::last_hour()).await.ok();
    let now = Now::of(&app, &status, past.as_deref(), &visit);
    let page = NowPage {
        frame: visit.frame("Now"),
        now: &now,
    };
    visit.page(&now, page)
}

impl Now {
    /// Of what the visitor may see.
    fn of(app: &App, status: &Status, past: Option<&Past>, visit: &Visit) -> Self {
        let streams = status.streams.iter();
        let seen: Vec<&StreamStatus> = streams
            .filter(|stream| visit.may(Role::View, &stream.stream))
            .collect();
        let troubles = status.in_trouble.iter();
        let in_trouble: Vec<(String, String)> = troubles
            .filter(|trouble| visit.may(Role::View, &trouble.stream))
            .map(|trouble| (trouble.stream.clone(), trouble.error.clone()))
            .collect();
        let mut facts = facts(&seen, &in_trouble);
        let names: Vec<&str> = seen.iter().map(|stream| &stream.stream[..]).collect();
        let lately = past.map(|past| past.lately(&names));
        facts.trend = lately.and_then(|lately| lately.trend(&app.waited(&names)));
        Now {
            group: status.group.clone(),
            sentence: facts.sentence(),
            topics: topics(&seen, visit),
            streams: seen
                .iter()
                .map(|stream| Stream::of(stream, visit))
                .collect(),
            in_trouble,
            warning: status.eviction_warning.clone(),
        }
    }
}

impl Now {
    /// What stands in the table: streams, and topics as one line each.
    fn lines(&self) -> impl Iterator<Item = &Stream> {
        let streams = self.streams.iter();
        let alone = streams.filter(|stream| topic_of(&stream.name).is_none());
        self.topics.iter().chain(alone)
    }

    /// The partitions of a topic.
    fn parts<'a>(&'a self, topic: &'a Stream) -> impl Iterator<Item = &'a Stream> {
        let streams = self.streams.iter();
        streams.filter(move |stream| topic_of(&stream.name) == Some(&topic.name[..]))
    }
}

/// The topic that a stream is a partition of.
fn topic_of(stream: &str) -> Option<&str> {
    Partition::parse(stream).map(|partition| partition.topic)
}

/// The topics that these are partitions of, each as a whole.
fn topics(seen: &[&StreamStatus], visit: &Visit) -> Vec<Stream> {
    let mut topics: Vec<(&str, Vec<&StreamStatus>)> = Vec::new();
    for status in seen {
        if let Some(topic) = topic_of(&status.stream) {
            match topics.iter_mut().find(|(known, _)| *known == topic) {
                Some((_, of)) => of.push(status),
                None => topics.push((topic, vec![status])),
            }
        }
    }
    let topics = topics.into_iter();
    topics
        .map(|(topic, of)| Stream::whole(topic, &of, visit))
        .collect()
}

impl Stream {
    /// What the partitions of a topic come to together.
    fn whole(topic: &str, of: &[&StreamStatus], visit: &Visit) -> Self {
        let parts: Vec<Stream> = of.iter().map(|status| Stream::of(status, visit)).collect();
        let total = |number: fn(&Stream) -> u64| parts.iter().map(number).sum::<u64>();
        let groups = of.iter().filter_map(|status| status.group.as_ref());
        let workers: BTreeSet<&str> = groups
            .flat_map(|group| &group.consumers)
            .filter(|one| !one.is_alone && one.is_there())
            .map(|one| &one.name[..])
            .collect();
        let lag = of.iter().map(|status| match &status.group {
            Some(group) => group.lag.unwrap_or(group.lag_at_least),
            None => status.length,
        });
        let is_more = parts.iter().any(|part| part.waiting.ends_with('+'));
        let mut notes: Vec<String> = Vec::new();
        for part in &parts {
            for note in &part.notes {
                let note = format!("{}: {note}", part.name);
                if notes.len() < NOTES {
                    notes.push(note);
                }
            }
        }
        // What holds for some partitions only is said, and done, below.
        let is_paused = |part: &Stream| part.paused.iter().any(|pause| pause.handler.is_none());
        let all_paused = !parts.is_empty() && parts.iter().all(is_paused);
        let paused = of.first().filter(|_| all_paused);
        let mut whole = Stream {
            name: topic.to_owned(),
            partitions: Some(parts.len()),
            length: total(|part| part.length),
            waiting: format!("{}{}", lag.sum::<u64>(), if is_more { "+" } else { "" }),
            in_hand: total(|part| part.in_hand),
            parked: total(|part| part.parked),
            next_due: parts.iter().filter_map(|part| part.next_due).min(),
            scheduled: total(|part| part.scheduled),
            replayed: total(|part| part.replayed),
            dead: total(|part| part.dead),
            workers: workers.len() as u64,
            oldest: parts.iter().filter_map(|part| part.oldest).max(),
            paused: paused.map(|status| paused_of(status)).unwrap_or_default(),
            notes,
            forms: Vec::new(),
        };
        if of
            .iter()
            .all(|status| visit.may(Role::Operate, &status.stream))
        {
            let (label, verb) = match all_paused {
                true => ("Resume", "resume"),
                false => ("Pause", "pause"),
            };
            let path = format!("/streams/{verb}");
            let form = ActForm::new(label, &path, command(verb, topic, None));
            whole.forms.push(form.on(topic));
        }
        whole
    }

    fn of(status: &StreamStatus, visit: &Visit) -> Self {
        let group = status.group.as_ref();
        let consumers = group.iter().flat_map(|group| &group.consumers);
        Stream {
            name: status.stream.clone(),
            partitions: None,
            length: status.length,
            waiting: group.map_or_else(|| status.length.to_string(), waiting),
            in_hand: group.map_or(0, |group| group.pending.saturating_sub(status.parked)),
            parked: status.parked,
            next_due: status.next_due,
            scheduled: status.scheduled,
            replayed: status.replayed,
            dead: status.dead,
            workers: consumers
                .filter(|one| !one.is_alone && one.is_there())
                .count() as u64,
            oldest: group.and_then(|group| group.oldest_pending_age),
            paused: paused_of(status),
            notes: notes(status),
            forms: match visit.may(Role::Operate, &status.stream) {
                true => forms(status),
                false => Vec::new(),
            },
        }
    }
}

fn paused_of(status: &StreamStatus) -> Vec<Paused> {
    let paused = status.paused.iter().map(|pause| Paused {
        handler: pause.handler.clone(),
        by: pause.by.clone(),
        ago: status.now.duration_since(pause.since).unwrap_or_default(),
    });
    paused.collect()
}

/// What there is to do with a stream: to end each pause, and to pause all of it if it is not.
fn forms(status: &StreamStatus) -> Vec<ActForm> {
    let stream = &status.stream;
    let form = |label: String, verb: &str, handler: Option<&str>| {
        let path = format!("/streams/{verb}");
        let form = ActForm::new(label, &path, command(verb, stream, handler)).on(stream);
        match handler {
            Some(handler) => form.with("handler", handler),
            None => form,
        }
    };
    let paused = status.paused.iter().map(|pause| match &pause.handler {
        Some(handler) => form(format!("Resume {handler}"), "resume", Some(handler)),
        None => form("Resume".to_owned(), "resume", None),
    });
    let is_paused = status.paused.iter().any(|pause| pause.handler.is_none());
    let pause = (!is_paused).then(|| form("Pause".to_owned(), "pause", None));
    paused.chain(pause).collect()
}

fn command(verb: &str, stream: &str, handler: Option<&str>) -> CommandLine {
    let line = CommandLine::new([verb, stream]);
    match handler {
        Some(handler) => line.and(["--handler", handler]),
        None => line,
    }
}

fn waiting(group: &GroupStatus) -> String {
    match group.lag {
        Some(lag) => lag.to_string(),
        None => format!("{}+", group.lag_at_least),
    }
}

/// What there is to know of a stream besides its numbers.
fn notes(status: &StreamStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(trouble) = trouble(status) {
        notes.push(trouble);
    }
    for one in &status.in_the_way {
        notes.push(format!(
            "{} is a {} that is in the way of the group",
            one.key, one.kind
        ));
    }
    for breaker in &status.circuit_breakers {
        notes.push(format!(
            "breaker {} is {} at {}",
            breaker.name, breaker.state, breaker.worker
        ));
    }
    if status.scheduled_unread.is_some() {
        notes.push("no worker adds what is scheduled".to_owned());
    }
    if status.dead_too_many {
        notes.push("there are many dead letters".to_owned());
    }
    notes
}

fn trouble(status: &StreamStatus) -> Option<String> {
    match &status.kind[..] {
        "stream" if status.is_of_newer_release() => Some("a newer release works on it".to_owned()),
        "stream" | "none" => None,
        kind => Some(format!("{} is a {kind}, not a stream", status.stream)),
    }
}

fn facts(streams: &[&StreamStatus], in_trouble: &[(String, String)]) -> Facts {
    let mut facts = Facts {
        is_new: true,
        ..Facts::default()
    };
    let mut workers = BTreeSet::new();
    for (stream, error) in in_trouble {
        facts.troubles.push(format!("{stream}: {error}"));
    }
    for status in streams {
        facts.troubles.extend(trouble(status));
        let now = status
            .now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        facts.now_ms = facts.now_ms.max(now.as_millis() as u64);
        facts.is_new &= status.protocol.is_none();
        let group = status.group.as_ref();
        facts.runnable += runnable(status);
        facts.running += group.map_or(0, |group| group.pending.saturating_sub(status.parked));
        facts.parked += status.parked;
        facts.next_due = facts.next_due.into_iter().chain(status.next_due).min();
        facts.dead += status.dead;
        for pause in &status.paused {
            let what = pause.handler.as_ref().unwrap_or(&status.stream);
            facts.paused.push(format!("{what} by {}", pause.by));
        }
        for breaker in &status.circuit_breakers {
            let until = breaker
                .until
                .and_then(|until| until.duration_since(SystemTime::UNIX_EPOCH).ok());
            let until = until.map(|until| until.as_millis() as u64);
            if !facts.breakers.iter().any(|(name, _)| *name == breaker.name) {
                facts.breakers.push((breaker.name.clone(), until));
            }
        }
        let consumers = group.iter().flat_map(|group| &group.consumers);
        let there = consumers.filter(|one| !one.is_alone && one.is_there());
        workers.extend(there.map(|one| one.name.clone()));
    }
    facts.workers = workers.len() as u64;
    facts
}

/// A form to pause or resume something.
#[derive(Deserialize)]
struct What {
    reason: String,
    /// One type's events alone.
    #[serde(default)]
    handler: String,
}

impl What {
    fn handler(&self) -> Option<&str> {
        Some(self.handler.trim()).filter(|handler| !handler.is_empty())
    }

    fn act(&self, verb: &str, visit: &Visit) -> Act {
        Act {
            command: command(verb, visit.stream(), self.handler()),
            reason: self.reason.clone(),
            back: visit.to("/"),
        }
    }
}

async fn pause(
    State(app): State<App>,
    visit: Visit,
    Form(what): Form<What>,
) -> Result<Response, Problem> {
    let (admin, stream) = (app.admin(), visit.stream());
    let doing = async {
        let paused = match what.handler() {
            None => admin.pause(stream, &visit.who).await?,
            Some(handler) => admin.pause_handler(stream, handler, &visit.who).await?,
        };
        let name = what.handler().unwrap_or(stream);
        Ok::<_, Problem>(match paused.is_new {
            true => format!("{name} is paused; what runs already runs on"),
            false => format!("{name} was paused already"),
        })
    };
    app.act(&visit, what.act("pause", &visit), doing).await
}

async fn resume(
    State(app): State<App>,
    visit: Visit,
    Form(what): Form<What>,
) -> Result<Response, Problem> {
    let (admin, stream) = (app.admin(), visit.stream());
    let doing = async {
        let resumed = match what.handler() {
            None => admin.resume(stream).await?,
            Some(handler) => admin.resume_handler(stream, handler).await?,
        };
        let name = what.handler().unwrap_or(stream);
        Ok::<_, Problem>(match resumed.was_paused {
            true => format!("{name} goes on"),
            false => format!("{name} was not paused"),
        })
    };
    app.act(&visit, what.act("resume", &visit), doing).await
}
