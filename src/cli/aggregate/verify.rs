//! `aggregate verify`: walks aggregates, and says what is wrong with them. Problems go to standard output as they are
//! found, progress to standard error.

use clap::Args;
use indicatif::ProgressBar;

use super::CommandError;
use super::meant::failed;
use crate::admin::{Aggregates, List, Problem, Verified};
use crate::cli::terminal::{print, print_beside, progress, say};
use crate::cli::text::{count, printable, printable_json};

#[derive(Args)]
#[command(after_help = "\
Examples:
  streamhand aggregate verify
  streamhand aggregate verify order
  streamhand aggregate verify order:o-1 order:o-2 --json

Looked for are events that are missing, can't be read, or are out of place, and snapshots that are not what the events
come to. Nothing is changed. The exit code is 1 where there are any.")]
pub(super) struct VerifyArgs {
    /// Kinds, such as order, and aggregates, such as order:o-1 [default: all that are registered]
    #[arg(value_name = "KIND|ID")]
    which: Vec<String>,
    /// Write the problems as one JSON value
    #[arg(long)]
    json: bool,
}

/// What has been looked at.
struct Verifying {
    json: bool,
    bar: ProgressBar,
    aggregates: u64,
    events: u64,
    broken: u64,
    problems: u64,
}

pub(super) async fn run(args: VerifyArgs, aggregates: &Aggregates) -> Result<(), CommandError> {
    let all = aggregates.verify(&args.which);
    let all = all.map_err(|error| failed(&error))?;
    let mut verifying = Verifying {
        json: args.json,
        bar: progress(None, "aggregates"),
        aggregates: 0,
        events: 0,
        broken: 0,
        problems: 0,
    };
    let result = verifying.all(all).await;
    verifying.bar.finish_and_clear();
    result?;
    if args.json {
        let end = if verifying.problems == 0 { "[]" } else { "\n]" };
        print(end)?;
    }
    let Verifying {
        aggregates,
        events,
        broken,
        problems,
        ..
    } = verifying;
    let looked = format!(
        "{} with {}",
        count(aggregates, "aggregate"),
        count(events, "event")
    );
    if problems > 0 {
        let problems = count(problems, "problem");
        return Err(CommandError::failed(format!(
            "{problems} in {broken} of {looked}"
        )));
    }
    say(format_args!("{looked}: nothing is wrong"));
    Ok(())
}

impl Verifying {
    async fn all(&mut self, mut all: List<Verified>) -> Result<(), CommandError> {
        while let Some(one) = all.next().await.map_err(|error| failed(&error))? {
            self.events += one.events;
            self.aggregates += 1;
            self.broken += u64::from(!one.problems.is_empty());
            self.bar.inc(1);
            for problem in one.problems {
                let line = self.line(&problem)?;
                self.problems += 1;
                print_beside(&self.bar, line)?;
            }
        }
        Ok(())
    }

    fn line(&self, problem: &Problem) -> Result<String, CommandError> {
        if self.json {
            let json = serde_json::to_string(problem)
                .map_err(|error| CommandError::failed(error.to_string()))?;
            let separator = if self.problems == 0 { "[" } else { "," };
            return Ok(format!("{separator}\n{}", printable_json(&json)));
        }
        let at = problem
            .version
            .map(|version| format!(" at {version}"))
            .unwrap_or_default();
        let Problem {
            aggregate, problem, ..
        } = problem;
        Ok(format!("{aggregate}{at}: {}", printable(problem)))
    }
}
