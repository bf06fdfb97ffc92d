//! `dlq runs`, `dlq stop` and `dlq resume`: replays that are kept in Redis, so that anybody can stop them or go on with them.

use std::fmt::Write;

use clap::Args;

use super::CommandError;
use crate::cli::away::say_left_out;
use crate::cli::terminal::{print, print_json, progress, say};
use crate::cli::text::{count, printable, table, time, whoami};
use crate::cli::told_to_stop;
use crate::dead_letters::{DeadLetters, Run, RunStanding};
use crate::error::{Result as OurResult, chain};

#[derive(Args)]
pub(super) struct RunsArgs {
    /// Only runs over letters of this stream
    #[arg(long)]
    stream: Option<String>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

/// Which run.
#[derive(Args)]
pub(super) struct RunArgs {
    /// The run, as `dlq runs` shows it: r-7
    #[arg(value_name = "RUN", value_parser = number)]
    run: u64,
    /// The stream whose letters it replays, where the worker reads several
    #[arg(long)]
    stream: Option<String>,
    /// Who does it [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(args: RunsArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let mut runs = dead.runs().await?;
    say_left_out(dead);
    if let Some(stream) = &args.stream {
        if !dead.streams().any(|known| known == stream) {
            // Says which there are.
            dead.run(stream, 0).await?;
        }
        runs.retain(|run| run.stream == *stream);
    }
    if args.json {
        return print_json(&runs);
    }
    if runs.is_empty() {
        say(format_args!(
            "no runs in the group {}: dlq replay --canary, --then, --stop-at, --at or --note begins one",
            dead.group()
        ));
        return Ok(());
    }
    let with_stream = dead.streams().count() > 1 && args.stream.is_none();
    let row = |run: &Run| {
        let mut row = vec![format!("r-{}", run.number)];
        if with_stream {
            row.push(run.stream.clone());
        }
        let state = match (run.state, run.at) {
            (RunStanding::Waiting, Some(at)) => format!("waiting until {}", time(at)),
            (RunStanding::Running, _) if run.driver.is_none() => "running, nobody drives it".into(),
            (state, _) => state.name().to_owned(),
        };
        let mut said = run.why.clone();
        if !run.note.is_empty() {
            let separator = if said.is_empty() { "" } else { "; " };
            let _ = write!(said, "{separator}{}", run.note);
        }
        row.extend([
            state,
            format!("{} of {}", run.replayed, run.found),
            run.succeeded.to_string(),
            run.died.to_string(),
            run.unsettled.to_string(),
            time(run.began),
            printable(&run.by).to_string(),
            printable(&said).to_string(),
        ]);
        row
    };
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    let mut header = vec![
        "RUN",
        "STREAM",
        "STATE",
        "REPLAYED",
        "SUCCEEDED",
        "DIED",
        "UNSETTLED",
        "BEGAN",
        "BY",
        "WHY",
    ];
    header.retain(|name| with_stream || *name != "STREAM");
    print(table(&header, &["STREAM", "STATE", "BY", "WHY"], &rows))
}

pub(super) async fn stop(args: RunArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let stream = stream_of(&args, dead).await?;
    let by = args.by.clone().unwrap_or_else(whoami);
    let went_on = dead.stop_run(&stream, args.run, &by).await?;
    let run = dead.run(&stream, args.run).await?;
    if args.json {
        return print_json(&run);
    }
    if went_on {
        return print(format_args!("stopped {}", told(&run)));
    }
    say(format_args!(
        "r-{} did not go on: {}",
        run.number,
        ended(&run)
    ));
    Ok(())
}

pub(super) async fn resume(args: RunArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let stream = stream_of(&args, dead).await?;
    let by = args.by.clone().unwrap_or_else(whoami);
    let run = dead.run(&stream, args.run).await?;
    follow(dead, &run, &by, args.json, true).await
}

/// Drives a run until it is over, and says what came of it. Told to stop it stops the run.
pub(super) async fn follow(
    dead: &DeadLetters,
    run: &Run,
    by: &str,
    json: bool,
    is_resumed: bool,
) -> Result<(), CommandError> {
    let stop = told_to_stop("; the run goes on where somebody resumes it")?;
    let bar = progress(Some(run.found), "letters replayed");
    let tell = |run: &Run| {
        bar.set_position(run.replayed + run.gone);
        bar.set_message(format!(
            "({} succeeded, {} died again, {} unsettled)",
            run.succeeded, run.died, run.unsettled
        ));
    };
    let (stream, number) = (&run.stream, run.number);
    let driving = async {
        match is_resumed {
            true => dead.resume_run(stream, number, by, tell).await,
            false => dead.drive_run(stream, number, by, tell).await,
        }
    };
    let driven: Option<OurResult<Run>> = tokio::select! {
        driven = driving => Some(driven),
        () = stop => None,
    };
    bar.finish_and_clear();
    let run = match driven {
        Some(Ok(run)) => run,
        Some(Err(error)) => {
            return Err(CommandError::failed(format!(
                "{}\ndlq resume r-{number} goes on with it",
                chain(&error)
            )));
        }
        None => {
            dead.stop_run(stream, number, by).await?;
            dead.run(stream, number).await?
        }
    };
    if json {
        print_json(&run)?;
    }
    let through = run.plan.canary_only && run.why.starts_with("the canary is through");
    match run.state {
        RunStanding::Done if !json => print(told(&run)),
        RunStanding::Done => Ok(()),
        _ if through && json => Ok(()),
        _ if through => print(format_args!("{}\n{}", told(&run), run.why)),
        _ => Err(CommandError::failed(format!(
            "{}: {}\nwhat is left stays a dead letter; dlq resume r-{number} goes on with it",
            told(&run),
            ended(&run)
        ))),
    }
}

/// What came of a run so far.
fn told(run: &Run) -> String {
    let mut text = format!(
        "r-{}: replayed {} of {}: {} succeeded, {} died again",
        run.number,
        run.replayed,
        count(run.found, "dead letter"),
        run.succeeded,
        run.died
    );
    if run.unsettled > 0 {
        let _ = write!(text, ", {} not settled yet", run.unsettled);
    }
    if run.gone > 0 {
        let _ = write!(
            text,
            "; {} were gone by then (another run's, or purged)",
            run.gone
        );
    }
    text
}

fn ended(run: &Run) -> String {
    match run.state {
        RunStanding::Done => "it is over".to_owned(),
        _ if run.why.is_empty() => run.state.name().to_owned(),
        _ => run.why.clone(),
    }
}

/// The stream of a run: the only one that has a run of this number, or the one that is named.
async fn stream_of(args: &RunArgs, dead: &DeadLetters) -> Result<String, CommandError> {
    if let Some(stream) = &args.stream {
        return Ok(stream.clone());
    }
    let runs = dead.runs().await?;
    if let Some(left_out) = dead.left_out().first() {
        say_left_out(dead);
        return Err(CommandError::failed(format!(
            "{} may have a run r-{} as well: say by --stream which is meant",
            left_out.stream, args.run
        )));
    }
    let mut of = runs.into_iter().filter(|run| run.number == args.run);
    match (of.next(), of.next()) {
        (Some(only), None) => Ok(only.stream),
        (None, _) => Err(CommandError::failed(format!(
            "there is no run r-{} in the group {}: dlq runs shows which there are",
            args.run,
            dead.group()
        ))),
        (Some(first), Some(second)) => Err(CommandError::usage(format!(
            "several streams have a run r-{}: add --stream {} or --stream {}",
            args.run, first.stream, second.stream
        ))),
    }
}

/// `r-7`, or `7`.
fn number(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix("r-").unwrap_or(text).parse();
    number.map_err(|_| "a run is named r-7, as dlq runs shows it".to_owned())
}
