//! Limits: what is paused and until when, which breakers are open, what handlers are held to, what streams are trimmed to.

use std::time::Duration;

use askama::Template;
use axum::extract::{Form, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::admin::{BreakerStatus, HeldBy, Pause, PauseRequest, RetentionStatus, StreamStatus};
use crate::config::Role;
use crate::duration;
use crate::web::app::{Act, App};
use crate::web::command::CommandLine;
use crate::web::filters;
use crate::web::form::{ActForm, Field};
use crate::web::problem::Problem;
use crate::web::route::{Route, Scope};
use crate::web::seen;
use crate::web::visit::{Frame, Visit};

pub(super) fn routes() -> Vec<Route> {
    let operate = (Role::Operate, Scope::Stream);
    vec![
        Route::page("/limits", (Role::View, Scope::Any), limits),
        Route::action("/limits/pause", operate, pause),
        Route::action("/limits/resume", operate, resume),
    ]
}

#[derive(Serialize)]
struct Limits {
    streams: Vec<Stream>,
    handlers: Vec<Handler>,
}

#[derive(Serialize)]
struct Stream {
    name: String,
    paused: Vec<Paused>,
    breakers: Vec<Breaker>,
    retention: Option<RetentionStatus>,
    #[serde(skip)]
    keeps: String,
    #[serde(skip)]
    held: Option<String>,
    #[serde(skip)]
    pause: Option<ActForm>,
}

#[derive(Serialize)]
struct Paused {
    #[serde(flatten)]
    pause: Pause,
    #[serde(skip)]
    since: String,
    #[serde(skip)]
    until: Option<String>,
    #[serde(skip)]
    forms: Vec<ActForm>,
}

#[derive(Serialize)]
struct Breaker {
    #[serde(flatten)]
    breaker: BreakerStatus,
    #[serde(skip)]
    until: Option<String>,
}

/// What the configuration here says of a handler.
#[derive(Serialize)]
struct Handler {
    #[serde(rename = "type")]
    event_type: String,
    concurrency: Option<usize>,
    rate: Option<String>,
    timeout: String,
    attempts: u32,
    has_breaker: bool,
}

#[derive(Template)]
#[template(path = "limits.html")]
struct LimitsPage<'a> {
    frame: Frame,
    page: &'a Limits,
}

async fn limits(State(app): State<App>, visit: Visit) -> Result<Response, Problem> {
    let status = app.status().await?;
    let seen = status
        .streams
        .iter()
        .filter(|stream| visit.may(Role::View, &stream.stream));
    let page = Limits {
        streams: seen.map(|stream| Stream::of(stream, &visit)).collect(),
        handlers: handlers(&app),
    };
    let html = LimitsPage {
        frame: visit.frame("Limits"),
        page: &page,
    };
    visit.page(&page, html)
}

fn handlers(app: &App) -> Vec<Handler> {
    let settings = app.settings();
    let handler = |event_type: &String| {
        let policy = settings.policy(event_type);
        Handler {
            event_type: event_type.clone(),
            concurrency: policy.concurrency,
            rate: policy.rate.map(|rate| rate.to_string()),
            timeout: duration::format(policy.timeout).to_string(),
            attempts: policy.max_attempts,
            has_breaker: policy.circuit_breaker.is_some(),
        }
    };
    settings.handlers.keys().map(handler).collect()
}

impl Stream {
    fn of(status: &StreamStatus, visit: &Visit) -> Self {
        let may = visit.may(Role::Operate, &status.stream);
        let stream = &status.stream;
        let pause_form = || {
            let command = CommandLine::new(["pause", stream]).and(["--for", "1h"]);
            ActForm::new("Pause", "/limits/pause", command)
                .on(stream)
                .ask(Field::text("handler", "Only this event type").hint("all"))
                .ask(
                    Field::text("lasts", "For how long")
                        .value("1h")
                        .hint("1h; empty: until it is resumed"),
                )
        };
        Stream {
            name: stream.clone(),
            paused: status
                .paused
                .iter()
                .map(|pause| Paused::of(pause, stream, may))
                .collect(),
            breakers: status.circuit_breakers.iter().map(Breaker::of).collect(),
            keeps: match &status.retention {
                Some(retention) => retention.keeps.to_string(),
                None => "everything, for ever".to_owned(),
            },
            held: status.retention.as_ref().and_then(held),
            retention: status.retention.clone(),
            pause: may.then(pause_form),
        }
    }
}

impl Paused {
    fn of(pause: &Pause, stream: &str, may: bool) -> Self {
        let handler = pause.handler.as_deref().unwrap_or_default();
        let with_handler = |line: CommandLine| match handler {
            "" => line,
            handler => line.and(["--handler", handler]),
        };
        let resume = ActForm::new(
            "Resume",
            "/limits/resume",
            with_handler(CommandLine::new(["resume", stream])),
        )
        .on(stream)
        .with("handler", handler);
        let longer = with_handler(CommandLine::new(["pause", stream])).and(["--for", "1h"]);
        let another_end = ActForm::new("Another end", "/limits/pause", longer)
            .on(stream)
            .with("handler", handler)
            .ask(Field::text("lasts", "From now on, for how long").value("1h"));
        Paused {
            since: seen::second(pause.since),
            until: pause.until.map(seen::second),
            forms: match may {
                true => vec![resume, another_end],
                false => Vec::new(),
            },
            pause: pause.clone(),
        }
    }
}

impl Breaker {
    fn of(breaker: &BreakerStatus) -> Self {
        Breaker {
            until: breaker.until.map(seen::second),
            breaker: breaker.clone(),
        }
    }
}

/// What keeps a stream from being trimmed further.
fn held(retention: &RetentionStatus) -> Option<String> {
    if let Some(trouble) = &retention.trouble {
        return Some(trouble.clone());
    }
    let held = retention.held.as_ref()?;
    let why = match held.why {
        HeldBy::Unread => "has not read on from",
        HeldBy::Pending => "has not settled",
        HeldBy::Parked => "was made anew, and its parked entries are not back, from",
        HeldBy::Gone => "was destroyed a moment ago, and held",
    };
    Some(format!(
        "{} {why} {}, which is {} old{}",
        held.group,
        held.id,
        duration::rounded(Duration::from_secs(held.age.as_secs())),
        if held.too_long {
            ": longer than what is to be kept"
        } else {
            ""
        }
    ))
}

#[derive(Deserialize)]
struct What {
    reason: String,
    #[serde(default)]
    handler: String,
    #[serde(default)]
    lasts: String,
}

impl What {
    fn command(&self, verb: &str, stream: &str) -> CommandLine {
        let mut line = CommandLine::new([verb, stream]);
        if !self.handler.trim().is_empty() {
            line = line.and(["--handler", self.handler.trim()]);
        }
        if verb == "pause" && !self.lasts.trim().is_empty() {
            line = line.and(["--for", self.lasts.trim()]);
        }
        line
    }

    fn name<'a>(&'a self, stream: &'a str) -> &'a str {
        match self.handler.trim() {
            "" => stream,
            handler => handler,
        }
    }
}

async fn pause(
    State(app): State<App>,
    visit: Visit,
    Form(what): Form<What>,
) -> Result<Response, Problem> {
    let stream = visit.stream();
    let act = Act {
        command: what.command("pause", stream),
        reason: what.reason.clone(),
        back: visit.to("/limits"),
    };
    let mut request = PauseRequest::of(stream, &visit.who).reason(what.reason.trim());
    if !what.handler.trim().is_empty() {
        request = request.handler(what.handler.trim());
    }
    if !what.lasts.trim().is_empty() {
        let lasts = duration::parse(what.lasts.trim());
        request =
            request.lasts(lasts.map_err(|why| Problem::wrong(format!("for how long: {why}")))?);
    }
    let doing = async {
        let paused = app.admin().pause_with(request).await?;
        let name = what.name(stream);
        let until = paused
            .until
            .map(|until| format!(", until {}", seen::second(until)));
        let until = until.unwrap_or_default();
        Ok::<_, Problem>(match paused.is_new {
            true => format!("{name} is paused{until}; what runs already runs on"),
            false => format!("{name} was paused already{until}"),
        })
    };
    app.act(&visit, act, doing).await
}

async fn resume(
    State(app): State<App>,
    visit: Visit,
    Form(what): Form<What>,
) -> Result<Response, Problem> {
    let stream = visit.stream();
    let act = Act {
        command: what.command("resume", stream),
        reason: what.reason.clone(),
        back: visit.to("/limits"),
    };
    let doing = async {
        let resumed = match what.handler.trim() {
            "" => app.admin().resume(stream).await?,
            handler => app.admin().resume_handler(stream, handler).await?,
        };
        let name = what.name(stream);
        Ok::<_, Problem>(match resumed.was_paused {
            true => format!("{name} goes on"),
            false => format!("{name} was not paused"),
        })
    };
    app.act(&visit, act, doing).await
}
