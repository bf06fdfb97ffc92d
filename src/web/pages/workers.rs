//! Workers: who, what version, what each runs now and since when; quiet, drain, and what was asked of them.

use std::time::{Duration, SystemTime};

use askama::Template;
use axum::extract::{Form, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::admin::{FleetWorker, StandingOrder, WorkerOrder, WorkerState};
use crate::config::Role;
use crate::web::app::{Act, App};
use crate::web::command::CommandLine;
use crate::web::filters;
use crate::web::form::ActForm;
use crate::web::problem::Problem;
use crate::web::route::{Route, Scope};
use crate::web::visit::{Frame, Visit};

/// How long a worker is quiet that nobody tells to go on.
const QUIET: Duration = Duration::from_secs(3600);

pub(super) fn routes() -> Vec<Route> {
    let operate = (Role::Operate, Scope::Every);
    vec![
        Route::page("/workers", (Role::View, Scope::Any), workers),
        Route::action("/workers/quiet", operate, quiet),
        Route::action("/workers/drain", operate, drain),
        Route::action("/workers/resume", operate, resume),
    ]
}

/// What the page shows.
#[derive(Serialize)]
struct Workers {
    workers: Vec<WorkerOf>,
    orders: Vec<OrderOf>,
    /// Whether workers tell of themselves; older ones, and those with the pulse turned off, are known by their consumers
    /// alone.
    silent: Vec<String>,
}

#[derive(Serialize)]
struct WorkerOf {
    #[serde(flatten)]
    is: FleetWorker,
    #[serde(skip)]
    now: SystemTime,
    #[serde(skip)]
    forms: Vec<ActForm>,
}

#[derive(Serialize)]
struct OrderOf {
    #[serde(flatten)]
    is: StandingOrder,
    #[serde(skip)]
    left: Duration,
    #[serde(skip)]
    form: Option<ActForm>,
}

#[derive(Template)]
#[template(path = "workers.html")]
struct WorkersPage<'a> {
    frame: Frame,
    workers: &'a Workers,
}

async fn workers(State(app): State<App>, visit: Visit) -> Result<Response, Problem> {
    app.look();
    let admin = app.admin();
    let streams = admin.streams();
    let may_order = visit.may_all(Role::Operate, streams);
    let (fleet, orders) = (app.fleet().await?, app.orders().await?);
    let (status, now) = (app.status().await?, fleet.now);
    let sees = |stream: &String| visit.may(Role::View, stream);
    let seen = fleet
        .workers
        .iter()
        .filter(|worker| worker.streams.iter().any(sees));
    let workers: Vec<WorkerOf> = seen
        .map(|worker| {
            let mut is = worker.clone();
            is.streams.retain(sees);
            is.runs.retain(|run| sees(&run.stream));
            let forms = if may_order { forms(&is) } else { Vec::new() };
            WorkerOf { is, now, forms }
        })
        .collect();
    let standing = orders.iter().map(|order| OrderOf {
        is: order.clone(),
        left: order.until.duration_since(now).unwrap_or_default(),
        form: (may_order && order.lasts()).then(|| take_back(order)),
    });
    let consumers = status.streams.iter().filter(|stream| sees(&stream.stream));
    let consumers =
        consumers.flat_map(|stream| stream.group.iter().flat_map(|group| &group.consumers));
    let tells = |name: &String| fleet.workers.iter().any(|worker| worker.name == *name);
    let mut silent: Vec<String> = consumers
        .filter(|one| one.is_there() && !one.is_alone && !tells(&one.name))
        .map(|one| one.name.clone())
        .collect();
    silent.sort();
    silent.dedup();
    let data = Workers {
        workers,
        orders: standing.collect(),
        silent,
    };
    let page = WorkersPage {
        frame: visit.frame("Workers"),
        workers: &data,
    };
    visit.page(&data, page)
}

impl WorkerOf {
    fn state(&self) -> &'static str {
        match self.is.state {
            WorkerState::Alive => "alive",
            WorkerState::Quiet => "quiet",
            WorkerState::Draining => "draining",
            WorkerState::Gone => "gone",
        }
    }

    fn mood(&self) -> &'static str {
        match self.is.state {
            WorkerState::Alive => "fine",
            WorkerState::Quiet | WorkerState::Draining => "waiting",
            WorkerState::Gone => "gone",
        }
    }

    fn ago(&self, time: &SystemTime) -> Duration {
        self.now.duration_since(*time).unwrap_or_default()
    }

    fn mebibytes(&self) -> u64 {
        self.is.memory >> 20
    }

    /// How full it is, from 0 to 100.
    fn full(&self) -> u64 {
        (self.is.running * 100)
            .checked_div(self.is.slots)
            .unwrap_or(0)
            .min(100)
    }
}

fn forms(worker: &FleetWorker) -> Vec<ActForm> {
    let form = |label: &str, verb: &str| {
        let command = CommandLine::new(["worker", verb, &worker.name]);
        ActForm::new(label, &format!("/workers/{verb}"), command).with("worker", &worker.name)
    };
    match worker.state {
        WorkerState::Alive => vec![form("Quiet", "quiet"), form("Drain", "drain").danger()],
        WorkerState::Quiet => vec![form("Resume", "resume"), form("Drain", "drain").danger()],
        WorkerState::Draining | WorkerState::Gone => Vec::new(),
    }
}

fn take_back(order: &StandingOrder) -> ActForm {
    let command = CommandLine::new(["worker", "resume"]);
    let command = match &order.to {
        Some(worker) => command.and([worker]),
        None => command.and(["--all"]),
    };
    ActForm::new("Take back", "/workers/resume", command)
        .with("worker", order.to.clone().unwrap_or_default())
}

/// A form that asks something of one worker.
#[derive(Deserialize)]
struct Whom {
    reason: String,
    /// Empty for all.
    #[serde(default)]
    worker: String,
}

impl Whom {
    fn act(&self, verb: &str, visit: &Visit) -> Act {
        let command = CommandLine::new(["worker", verb]);
        let command = match &self.worker[..] {
            "" => command.and(["--all"]),
            worker => command.and([worker]),
        };
        Act {
            command,
            reason: self.reason.clone(),
            back: visit.to("/workers"),
        }
    }

    fn name(&self) -> &str {
        match &self.worker[..] {
            "" => "every worker",
            worker => worker,
        }
    }

    fn ask(&self, order: WorkerOrder) -> WorkerOrder {
        match &self.worker[..] {
            "" => order,
            worker => order.to(worker),
        }
    }
}

async fn quiet(
    State(app): State<App>,
    visit: Visit,
    Form(whom): Form<Whom>,
) -> Result<Response, Problem> {
    let doing = async {
        let order = whom.ask(WorkerOrder::quiet(QUIET));
        app.admin().order(order, &visit.who).await?;
        let name = whom.name();
        Ok::<_, Problem>(format!("{name} is to take up nothing new for an hour"))
    };
    app.act(&visit, whom.act("quiet", &visit), doing).await
}

async fn drain(
    State(app): State<App>,
    visit: Visit,
    Form(whom): Form<Whom>,
) -> Result<Response, Problem> {
    let doing = async {
        let order = whom.ask(WorkerOrder::drain());
        app.admin().order(order, &visit.who).await?;
        Ok::<_, Problem>(format!(
            "{} is to stop once what it runs has ended",
            whom.name()
        ))
    };
    app.act(&visit, whom.act("drain", &visit), doing).await
}

async fn resume(
    State(app): State<App>,
    visit: Visit,
    Form(whom): Form<Whom>,
) -> Result<Response, Problem> {
    let doing = async {
        let to = (!whom.worker.is_empty()).then_some(&whom.worker);
        let mut taken = 0;
        for order in app.admin().orders().await? {
            if order.to.as_ref() == to && order.lasts() {
                taken += u64::from(app.admin().take_back(order.number).await?);
            }
        }
        Ok::<_, Problem>(match taken {
            0 => format!("nothing was asked of {}", whom.name()),
            _ => format!("{} goes on as configured", whom.name()),
        })
    };
    app.act(&visit, whom.act("resume", &visit), doing).await
}
