//! Projections: how far each view is, what it has stopped at; have it go on.

use askama::Template;
use axum::extract::{Form, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::admin::{ProjectionState, ProjectionStatus};
use crate::config::Role;
use crate::web::app::{Act, App};
use crate::web::command::CommandLine;
use crate::web::filters;
use crate::web::form::ActForm;
use crate::web::link;
use crate::web::problem::Problem;
use crate::web::route::{Route, Scope};
use crate::web::visit::{Frame, Visit};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::page("/projections", (Role::View, Scope::Any), projections),
        Route::action(
            "/projections/resume",
            (Role::Operate, Scope::Stream),
            resume,
        ),
    ]
}

#[derive(Serialize)]
struct Projections {
    projections: Vec<One>,
}

#[derive(Serialize)]
struct One {
    #[serde(flatten)]
    status: ProjectionStatus,
    #[serde(skip)]
    mood: &'static str,
    #[serde(skip)]
    stopped_href: String,
    #[serde(skip)]
    rebuild: CommandLine,
    #[serde(skip)]
    resume: Option<ActForm>,
}

#[derive(Template)]
#[template(path = "projections.html")]
struct ProjectionsPage<'a> {
    frame: Frame,
    page: &'a Projections,
}

async fn projections(State(app): State<App>, visit: Visit) -> Result<Response, Problem> {
    let status = app.status().await?;
    let seen = status
        .projections
        .iter()
        .filter(|one| visit.may(Role::View, &one.stream));
    let page = Projections {
        projections: seen.map(|status| One::of(status, &visit)).collect(),
    };
    let html = ProjectionsPage {
        frame: visit.frame("Projections"),
        page: &page,
    };
    visit.page(&page, html)
}

impl One {
    fn of(status: &ProjectionStatus, visit: &Visit) -> Self {
        let is_stopped = status.state == ProjectionState::Stopped;
        let may = is_stopped && visit.may(Role::Operate, &status.stream);
        let form = || {
            ActForm::new("Go on", "/projections/resume", command(&status.name))
                .on(&status.stream)
                .with("name", &status.name)
        };
        One {
            mood: match status.state {
                ProjectionState::Running => "fine",
                ProjectionState::Stopped => "failing",
                _ => "waiting",
            },
            stopped_href: match &status.stopped_at {
                Some(at) => link::entry(&status.stream, at),
                None => String::new(),
            },
            rebuild: CommandLine::new(["projection", "rebuild", &status.name]),
            resume: may.then(form),
            status: status.clone(),
        }
    }
}

fn command(name: &str) -> CommandLine {
    CommandLine::new(["projection", "resume", name])
}

#[derive(Deserialize)]
struct What {
    reason: String,
    name: String,
}

async fn resume(
    State(app): State<App>,
    visit: Visit,
    Form(what): Form<What>,
) -> Result<Response, Problem> {
    let stream = visit.stream();
    let act = Act {
        command: command(&what.name),
        reason: what.reason.clone(),
        back: visit.to("/projections"),
    };
    let doing = async {
        // Only what is one: else a key would be made of any name.
        let status = app.status().await?;
        let is_there = status
            .projections
            .iter()
            .any(|one| one.name == what.name && one.stream == stream);
        if !is_there {
            return Err(Problem::not_found(format!(
                "there is no projection {:?} of {stream}",
                what.name
            )));
        }
        Ok(
            match app.admin().resume_projection(stream, &what.name).await? {
                Some(at) => format!("{} goes on at {at}", what.name),
                None => format!("{} had not stopped", what.name),
            },
        )
    };
    app.act(&visit, act, doing).await
}
