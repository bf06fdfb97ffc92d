//! `projection`: the views of this program's registry, how far they are, and building one anew.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::terminal::{print, progress, say};
use super::text::{printable, table};
use super::{CommandError, told_to_stop};
use crate::config::Settings;
use crate::eventstore::projection::{Registered, rebuild};
use crate::handler::Registry;
use crate::names::shown;
use crate::stream::{Connector, Pool, ProjectionStatus, StreamKeys};

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
    registry.check()?;
    match command {
        ProjectionCommand::List(args) => list(args, &settings, &registry).await,
        ProjectionCommand::Resume(args) => resume(args, &settings, &registry).await,
        ProjectionCommand::Rebuild(args) => build(args, &settings, &registry).await,
    }
}

async fn list(
    args: ListArgs,
    settings: &Settings,
    registry: &Registry,
) -> Result<(), CommandError> {
    let pool = Connector::new(&settings.redis)?.pool(1)?;
    let mut found = Vec::new();
    for projection in registry.projections() {
        for stream in projection.public()?.names() {
            let of = StreamKeys::new(stream);
            let all = pool.projections(&of, &[projection.name]).await?;
            let own = all
                .into_iter()
                .filter(|status| status.name == projection.name);
            found.extend(own.map(|status| (stream.to_owned(), status)));
        }
    }
    if args.json {
        let all: Vec<Value> = found
            .iter()
            .map(|(stream, status)| as_json(stream, status))
            .collect();
        return print(json!({ "projections": all }));
    }
    if found.is_empty() {
        say("no projection is registered in this program");
        return Ok(());
    }
    print(rows(&found))?;
    for note in found
        .iter()
        .flat_map(|(stream, status)| notes(stream, status))
    {
        print(note)?;
    }
    Ok(())
}

async fn resume(
    args: ResumeArgs,
    settings: &Settings,
    registry: &Registry,
) -> Result<(), CommandError> {
    let projection = known(registry, &args.name)?;
    let pool = Connector::new(&settings.redis)?.pool(1)?;
    let mut resumed = 0;
    for stream in projection.public()?.names() {
        let keys = StreamKeys::new(stream).projection(projection.name);
        if let Some(at) = pool.resume_projection(&keys).await? {
            let name = projection.name;
            print(format_args!(
                "{stream}: {name} goes on where it stopped, at {at}"
            ))?;
            resumed += 1;
        }
    }
    if resumed == 0 {
        say(format_args!("{} has not stopped", args.name));
    }
    Ok(())
}

/// The projection of this name.
fn known<'a>(registry: &'a Registry, name: &str) -> Result<&'a Arc<Registered>, CommandError> {
    let all = registry.projections();
    all.iter()
        .find(|projection| projection.name == name)
        .ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|projection| projection.name).collect();
            let known = match names.is_empty() {
                true => "none".to_owned(),
                false => names.join(", "),
            };
            CommandError::usage(format!(
                "no projection {name:?} is registered in this program; there is {known}"
            ))
        })
}

async fn build(
    args: RebuildArgs,
    settings: &Settings,
    registry: &Registry,
) -> Result<(), CommandError> {
    let projection = known(registry, &args.name)?;
    let host = gethostname::gethostname();
    let me = format!(
        "rebuild-{}-{}-{:08x}",
        host.to_string_lossy(),
        std::process::id(),
        fastrand::u32(..)
    );
    let told = told_to_stop("; the view that is served stays as it was")?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        told.await;
        stopping.cancel();
    });
    let bar = progress(Some(0), "events");
    let built = rebuild(projection.clone(), settings, &me, &stop, |progress| {
        // Of one that was never built nobody knows how many there are.
        bar.set_length(progress.of.max(progress.built));
        bar.set_position(progress.built);
    })
    .await;
    bar.finish_and_clear();
    say(format_args!(
        "built {} anew from {} events",
        args.name, built?.built
    ));
    Ok(())
}

/// The projections that are groups of these streams, whatever program they are of.
pub(super) async fn on_streams(
    pool: &Pool,
    streams: &[String],
) -> Result<Vec<(String, ProjectionStatus)>, CommandError> {
    let mut found = Vec::new();
    for stream in streams {
        let all = pool.projections(&StreamKeys::new(stream), &[]).await?;
        found.extend(all.into_iter().map(|status| (stream.clone(), status)));
    }
    Ok(found)
}

pub(super) fn rows(all: &[(String, ProjectionStatus)]) -> String {
    let unknown = || "-".to_owned();
    let row = |(stream, status): &(String, ProjectionStatus)| {
        vec![
            shown(&status.name).to_string(),
            stream.clone(),
            status.state().to_owned(),
            status.lag.map_or_else(unknown, |lag| lag.to_string()),
            status
                .generation()
                .map_or_else(unknown, |generation| generation.to_string()),
            status.bad().to_string(),
            status.position().map_or_else(unknown, str::to_owned),
            status
                .runner()
                .map_or_else(unknown, |runner| shown(runner).to_string()),
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
pub(super) fn notes(stream: &str, status: &ProjectionStatus) -> Vec<String> {
    let name = shown(&status.name);
    let stopped = status.stopped().map(|(at, why)| {
        let why = printable(why);
        match status.is_held() {
            true => format!(
                "{stream}: {name} has stopped at {at}, until `projection resume` or `projection rebuild` ({why})"
            ),
            false => format!(
                "{stream}: {name} has stopped before the bad event {at}: a worker that is started tries it again ({why})"
            ),
        }
    });
    let anew = status.is_behind_end().map(|end| {
        format!(
            "{stream}: it was deleted or made anew, and ends at {end}, before where {name} stands: who runs that goes on \
             with the aggregates"
        )
    });
    let died = Some(status.deaths()).filter(|deaths| *deaths > 1).map(|deaths| {
        format!("{stream}: the last {deaths} workers that ran {name} died; it goes on an event at a time")
    });
    let built = status.rebuild().map(|(generation, position)| {
        format!("{stream}: generation {generation} of {name} is being built, and at {position}")
    });
    stopped
        .into_iter()
        .chain(anew)
        .chain(died)
        .chain(built)
        .collect()
}

pub(super) fn as_json(stream: &str, status: &ProjectionStatus) -> Value {
    let stopped = status.stopped();
    let rebuild = status.rebuild();
    json!({
        "name": status.name,
        "stream": stream,
        "state": status.state(),
        "lag": status.lag,
        "generation": status.generation(),
        "position": status.position(),
        "bad_events": status.bad(),
        "runner": status.runner(),
        "stopped_at": stopped.map(|(at, _)| at),
        "stopped_why": stopped.map(|(_, why)| why),
        "held": status.is_held(),
        "deaths": status.deaths(),
        "rebuild": rebuild.map(|(generation, position)| json!({ "generation": generation, "position": position })),
    })
}
