//! `projection`: the views of this program's registry, how far they are, and building one anew.

use clap::{Args, Subcommand};

use super::terminal::{print, print_json, progress, say};
use super::text::{printable, table};
use super::{CommandError, told_to_stop};
use crate::admin::{Admin, ProjectionStatus, Projections};
use crate::config::Settings;
use crate::handler::Registry;
use crate::names::shown;

#[derive(Subcommand)]
pub(super) enum ProjectionCommand {
    /// List projections with how far they are
    List(ListArgs),
    /// Have a projection go on that has stopped, whatever it stopped at
    Resume(ResumeArgs),
    /// Build a projection's view anew from the aggregates, beside the one that is served until it is done
    Rebuild(RebuildArgs),
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct RebuildArgs {
    /// The projection
    name: String,
}

#[derive(Args)]
pub(super) struct ResumeArgs {
    /// The projection
    name: String,
}

pub(super) async fn run(
    command: ProjectionCommand,
    settings: Settings,
    registry: Registry,
) -> Result<(), CommandError> {
    let projections = Admin::new(&settings)?.projections(&registry)?;
    match command {
        ProjectionCommand::List(args) => list(args, &projections).await,
        ProjectionCommand::Resume(args) => resume(args, &projections).await,
        ProjectionCommand::Rebuild(args) => build(args, &projections).await,
    }
}

/// All of them, as JSON.
#[derive(serde::Serialize)]
struct List {
    projections: Vec<ProjectionStatus>,
}

async fn list(args: ListArgs, projections: &Projections) -> Result<(), CommandError> {
    let found = projections.list().await?;
    if args.json {
        return print_json(&List { projections: found });
    }
    if found.is_empty() {
        say("no projection is registered in this program");
        return Ok(());
    }
    print(rows(&found))?;
    for note in found.iter().flat_map(notes) {
        print(note)?;
    }
    Ok(())
}

async fn resume(args: ResumeArgs, projections: &Projections) -> Result<(), CommandError> {
    let (name, resumed) = (&args.name, projections.resume(&args.name).await?);
    for one in &resumed {
        let (stream, at) = (&one.stream, &one.at);
        print(format_args!(
            "{stream}: {name} goes on where it stopped, at {at}"
        ))?;
    }
    if resumed.is_empty() {
        say(format_args!("{name} has not stopped"));
    }
    Ok(())
}

async fn build(args: RebuildArgs, projections: &Projections) -> Result<(), CommandError> {
    let name = &args.name;
    let stop = told_to_stop("; the view that is served stays as it was")?;
    let bar = progress(Some(0), "events");
    let built = projections.rebuild(name, stop, |progress| {
        // Of one that was never built nobody knows how many there are.
        bar.set_length(progress.of.max(progress.built));
        bar.set_position(progress.built);
    });
    let built = built.await;
    bar.finish_and_clear();
    let built = built?.built;
    say(format_args!("built {name} anew from {built} events"));
    Ok(())
}

pub(super) fn rows(all: &[ProjectionStatus]) -> String {
    let unknown = || "-".to_owned();
    let row = |status: &ProjectionStatus| {
        let number = |number: Option<u64>| number.map_or_else(unknown, |number| number.to_string());
        let runner = status.runner.as_deref();
        vec![
            shown(&status.name).to_string(),
            status.stream.clone(),
            status.state.name().to_owned(),
            number(status.lag),
            number(status.generation),
            status.bad_events.to_string(),
            status.position.clone().unwrap_or_else(unknown),
            runner.map_or_else(unknown, |runner| shown(runner).to_string()),
        ]
    };
    let header = [
        "PROJECTION",
        "STREAM",
        "STATE",
        "LAG",
        "GENERATION",
        "BAD EVENTS",
        "POSITION",
        "RUN BY",
    ];
    let rows: Vec<_> = all.iter().map(row).collect();
    table(&header, &["STREAM", "RUN BY"], &rows)
}

/// What an operator has to know of a projection first.
pub(super) fn notes(status: &ProjectionStatus) -> Vec<String> {
    let (stream, name) = (&status.stream, shown(&status.name));
    let stopped = status.stopped_at.as_ref().map(|at| {
        let why = printable(status.stopped_why.as_deref().unwrap_or_default());
        match status.held {
            true => format!(
                "{stream}: {name} has stopped at {at}, until `projection resume` or `projection rebuild` ({why})"
            ),
            false => format!(
                "{stream}: {name} has stopped before the bad event {at}: a worker that is started tries it again ({why})"
            ),
        }
    });
    let anew = status.behind_end.map(|end| {
        format!(
            "{stream}: it was deleted or made anew, and ends at {end}, before where {name} stands: who runs that goes on \
             with the aggregates"
        )
    });
    let died = Some(status.deaths).filter(|deaths| *deaths > 1).map(|deaths| {
        format!("{stream}: the last {deaths} workers that ran {name} died; it goes on an event at a time")
    });
    let built = status.rebuild.as_ref().map(|built| {
        let (generation, position) = (built.generation, &built.position);
        format!("{stream}: generation {generation} of {name} is being built, and at {position}")
    });
    stopped
        .into_iter()
        .chain(anew)
        .chain(died)
        .chain(built)
        .collect()
}
