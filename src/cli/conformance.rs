//! `conformance`: holds what publishers wrote against what workers read.

use clap::Args;

use super::CommandError;
use super::away::say_away;
use super::terminal::{print, print_json, say};
use super::text::{count, printable, table};
use crate::admin::{Admin, BrokenRule, Conformance, Level};
use crate::config::Settings;
use crate::handler::Registry;

#[derive(Args)]
#[command(after_help = "\
Examples:
  streamhand conformance --stream orders
  streamhand conformance --stream orders --last 100000 --json

Nothing is written. Exit code 1: something is lost, or ends as a dead letter; with --strict also if there is a warning.
A program with handlers asks their decoders, too. The page \"Publishing from other languages\" explains each rule.")]
pub(super) struct ConformanceArgs {
    /// The stream or topic
    #[arg(long, value_name = "STREAM")]
    stream: String,
    /// Look at so many of its last entries; of each partition of a topic
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    last: u64,
    /// Look whether this group has lost entries, and no other one
    #[arg(long)]
    group: Option<String>,
    /// Fail if there is a warning
    #[arg(long)]
    strict: bool,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    args: ConformanceArgs,
    settings: &Settings,
    registry: Option<&Registry>,
) -> Result<(), CommandError> {
    let admin = Admin::new(settings)?;
    let judged = admin.conformance(&args.stream, args.last, args.group.as_deref(), registry);
    let judged = judged.await?;
    for away in &judged.in_trouble {
        say_away(&away.stream, &away.error);
    }
    match args.json {
        true => print_json(&judged)?,
        false => show(&judged)?,
    }
    if judged.streams.is_empty() && !judged.in_trouble.is_empty() {
        return Err(CommandError::failed("nothing could be looked at"));
    }
    if judged.streams.iter().all(|of| of.length == 0) {
        say(format_args!(
            "there is nothing in {}",
            printable(&args.stream)
        ));
    }
    let warnings = judged.count(Level::Warning) as u64;
    let lost = judged.broken.iter().filter(|it| it.level == Level::Lost);
    match (lost.map(|it| it.count).sum(), judged.dead_letters) {
        (0, 0) if args.strict && warnings > 0 => {
            Err(CommandError::failed(count(warnings, "warning")))
        }
        (0, 0) => Ok(()),
        (lost, 0) => Err(CommandError::failed(format!("{} lost", entries(lost)))),
        (0, dead) => Err(CommandError::failed(format!(
            "{} that end as dead letters",
            entries(dead)
        ))),
        (lost, dead) => Err(CommandError::failed(format!(
            "{} lost, and {} that end as dead letters",
            entries(lost),
            entries(dead)
        ))),
    }
}

fn entries(many: u64) -> String {
    match many {
        1 => "1 entry".to_owned(),
        many => format!("{many} entries"),
    }
}

fn show(judged: &Conformance) -> Result<(), CommandError> {
    let with_stream = judged.streams.len() > 1;
    if !judged.broken.is_empty() {
        let mut header = vec![
            "RULE", "COMES TO", "ENTRIES", "STREAM", "EXAMPLE", "WRONG", "RIGHT",
        ];
        header.retain(|name| with_stream || *name != "STREAM");
        let rows: Vec<Vec<String>> = judged
            .broken
            .iter()
            .map(|it| row(it, with_stream))
            .collect();
        print(table(&header, &["WRONG", "RIGHT"], &rows))?;
    }
    let partitions = match judged.streams.len() {
        1 => String::new(),
        many => format!(" in {many} streams"),
    };
    print(format_args!(
        "{} looked at{partitions}: {} right, {} with warnings, {} that end as dead letters",
        entries(judged.looked_at),
        judged.right,
        judged.warned_of,
        judged.dead_letters,
    ))
}

fn row(broken: &BrokenRule, with_stream: bool) -> Vec<String> {
    let mut row = vec![
        broken.rule.to_owned(),
        broken.level.name().to_owned(),
        broken.count.to_string(),
    ];
    if with_stream {
        row.push(printable(&broken.stream).to_string());
    }
    row.extend([
        broken.example.clone().unwrap_or_else(|| "-".to_owned()),
        printable(&broken.wrong).to_string(),
        broken.right.to_owned(),
    ]);
    row
}
