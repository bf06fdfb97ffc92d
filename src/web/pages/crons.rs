//! Crons: what happens again and again, what comes next; pause, resume, run by hand.

use std::time::Duration;

use askama::Template;
use axum::extract::{Form, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::admin::{Admin, CronOccurrence, CronPauseRequest, CronRun, CronStatus};
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

/// So many of the next times are shown, and lines of history.
const NEXT: usize = 5;
const LINES: usize = 10;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::page("/crons", (Role::View, Scope::Any), crons),
        Route::action("/crons/pause", (Role::Operate, Scope::Stream), pause),
        Route::action("/crons/resume", (Role::Operate, Scope::Stream), resume),
        Route::action("/crons/trigger", (Role::Operate, Scope::Stream), trigger),
    ]
}

#[derive(Serialize)]
struct Crons {
    crons: Vec<One>,
}

#[derive(Serialize)]
struct One {
    #[serde(flatten)]
    status: CronStatus,
    times: Vec<CronOccurrence>,
    history: Vec<CronRun>,
    #[serde(skip)]
    state: (&'static str, &'static str),
    /// Why it does not run, if it does not.
    #[serde(skip)]
    trouble: Option<String>,
    #[serde(skip)]
    acts: Vec<ActForm>,
}

#[derive(Template)]
#[template(path = "crons.html")]
struct CronsPage<'a> {
    frame: Frame,
    page: &'a Crons,
}

async fn crons(State(app): State<App>, visit: Visit) -> Result<Response, Problem> {
    let crons = app.admin().crons().await?;
    let seen = crons
        .into_iter()
        .filter(|cron| visit.may(Role::View, &cron.stream));
    let page = Crons {
        crons: seen.map(|status| One::of(status, &visit)).collect(),
    };
    let html = CronsPage {
        frame: visit.frame("Crons"),
        page: &page,
    };
    visit.page(&page, html)
}

impl One {
    fn of(status: CronStatus, visit: &Visit) -> Self {
        let name = &status.name;
        let form = |label: &str, what: &str| {
            let form = ActForm::new(label, &format!("/crons/{what}"), command(what, name));
            form.on(&status.stream).with("name", name)
        };
        let mut acts = Vec::new();
        if visit.may(Role::Operate, &status.stream) {
            acts.push(match status.paused {
                Some(_) => form("Resume", "resume"),
                None => form("Pause", "pause")
                    .ask(Field::text("for", "For how long?").hint("until it is resumed")),
            });
            acts.push(form("Publish one now", "trigger"));
        }
        let trouble = match (&status.paused, status.is_suspended) {
            (Some(paused), _) => {
                let until = paused
                    .until
                    .map(|until| format!(" until {}", seen::second(until)));
                let note = paused.note.as_ref().map(|note| format!(": {note}"));
                Some(format!(
                    "paused by {}{}{}",
                    paused.by,
                    until.unwrap_or_default(),
                    note.unwrap_or_default()
                ))
            }
            (None, true) => Some(format!(
                "no worker has declared it since {}: nothing of it is published until one does",
                seen::second(status.declared)
            )),
            (None, false) => None,
        };
        let mut history = status.history();
        history.truncate(LINES);
        One {
            times: status.next_times(NEXT).unwrap_or_default(),
            history,
            state: match (&status.paused, status.is_suspended) {
                (Some(_), _) => ("waiting", "paused"),
                (None, true) => ("failing", "suspended"),
                (None, false) => ("fine", "runs"),
            },
            trouble,
            acts,
            status,
        }
    }
}

fn command(what: &str, name: &str) -> CommandLine {
    CommandLine::new(["cron", what, name])
}

#[derive(Deserialize)]
struct What {
    reason: String,
    name: String,
    #[serde(default, rename = "for")]
    lasts: String,
}

async fn pause(
    State(app): State<App>,
    visit: Visit,
    Form(what): Form<What>,
) -> Result<Response, Problem> {
    let name = &what.name;
    let lasts = what.lasts.trim();
    let mut line = command("pause", name);
    if !lasts.is_empty() {
        line = line.and(["--for", lasts]);
    }
    let doing = async {
        let admin = of_stream(&app, &visit)?;
        let mut request = CronPauseRequest::of(name, &visit.who).note(&what.reason);
        if !lasts.is_empty() {
            let lasts = duration::parse(lasts);
            let lasts: Duration =
                lasts.map_err(|why| Problem::wrong(format!("for how long: {why}")))?;
            request = request.lasts(lasts);
        }
        Ok::<_, Problem>(match admin.pause_cron(request).await? {
            true => format!("{name} is paused"),
            false => format!("{name} was paused before"),
        })
    };
    app.act(
        &visit,
        act(&what, line.and(["--note", &what.reason]), &visit),
        doing,
    )
    .await
}

async fn resume(
    State(app): State<App>,
    visit: Visit,
    Form(what): Form<What>,
) -> Result<Response, Problem> {
    let name = &what.name;
    let doing = async {
        let admin = of_stream(&app, &visit)?;
        Ok::<_, Problem>(match admin.resume_cron(name, &visit.who).await? {
            true => format!("{name} goes on"),
            false => format!("{name} was not paused"),
        })
    };
    app.act(&visit, act(&what, command("resume", name), &visit), doing)
        .await
}

async fn trigger(
    State(app): State<App>,
    visit: Visit,
    Form(what): Form<What>,
) -> Result<Response, Problem> {
    let name = &what.name;
    let doing = async {
        let mut admin = of_stream(&app, &visit)?;
        if let Some(registry) = app.registry() {
            admin = admin.with_crons_of(registry)?;
        }
        let id = admin.trigger_cron(name).await?;
        Ok::<_, Problem>(format!("{id} is published"))
    };
    app.act(&visit, act(&what, command("trigger", name), &visit), doing)
        .await
}

/// What looks at the stream alone that the visit may operate.
fn of_stream(app: &App, visit: &Visit) -> Result<Admin, Problem> {
    Ok((*app.admin()).clone().for_streams([visit.stream()])?)
}

fn act(what: &What, command: CommandLine, visit: &Visit) -> Act {
    Act {
        command,
        reason: what.reason.clone(),
        back: visit.to("/crons"),
    }
}
