//! `dlq show`: all of one dead letter, to be read.

use std::fmt::Write;
use std::time::SystemTime;

use clap::Args;

use super::CommandError;
use super::find::find;
use crate::cli::data::{self, Shown};
use crate::cli::terminal::print;
use crate::cli::text::{count, printable, rough};
use crate::dead_letters::{DeadLetters, Remark, WholeLetter};
use crate::names::shown;
use crate::rfc3339;

/// Fields of an event whose values are names, and are cut as those are; `--json` has them whole.
const NAMES: [&[u8]; 5] = [b"type", b"id", b"source", b"subject", b"datacontenttype"];

#[derive(Args)]
pub(super) struct ShowArgs {
    /// The letter's id, as `dlq list` shows it, or that of the entry or the event it is of
    id: String,
    /// The stream it is of, where the worker reads several
    #[arg(long)]
    stream: Option<String>,
    /// Print it as one JSON value, as `dlq purge --export` writes it
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ShowArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let (stream, letter) = find(dead, args.stream.as_deref(), &args.id).await?;
    let letter = dead.get(&stream, letter.id).await?;
    if args.json {
        let json = serde_json::to_string(&letter);
        return print(json.map_err(|error| CommandError::failed(error.to_string()))?);
    }
    print(readable(&letter, dead.now().await?).trim_end())
}

fn readable(letter: &WholeLetter, now: SystemTime) -> String {
    let head = &letter.head;
    let mut text = format!(
        "dead letter {} of {} in the group {}\n\n",
        head.id,
        shown(&head.stream),
        shown(&head.group)
    );
    let handler = match &head.handler[..] {
        "" => "-",
        name => name,
    };
    let first = rfc3339::millis(head.first_delivered);
    let at = rfc3339::millis(head.at);
    let attempts = match head.crash_checks {
        0 => head.attempts.to_string(),
        checks => format!(
            "{}, and {}",
            head.attempts,
            count(checks.into(), "crash check")
        ),
    };
    for (name, value) in [
        ("reason", shown(head.reason.as_str()).to_string()),
        ("error", head.error.clone()),
        ("attempts", attempts),
        ("handler", shown(handler).to_string()),
        ("entry", head.entry.clone()),
        ("consumer", shown(&head.consumer).to_string()),
        ("first delivered", first.to_string()),
        ("buried", format!("{at} ({} ago)", rough(head.age(now)))),
        ("replays", head.replays.to_string()),
    ] {
        field(&mut text, name, &Shown::Text(value));
    }
    if !letter.replay.is_empty() {
        text.push_str("\nlast replayed\n");
        for (name, value) in &letter.replay {
            let name = String::from_utf8_lossy(name);
            field(
                &mut text,
                name.trim_start_matches("replay."),
                &data::value(value),
            );
        }
    }
    noted(&mut text, letter);
    let _ = writeln!(
        text,
        "\nentry: {}",
        count(letter.fields.len() as u64, "field")
    );
    let content_type = letter
        .fields
        .value("datacontenttype")
        .map(String::from_utf8_lossy);
    for (name, value) in &letter.fields {
        let value = match name {
            b"data" => data::decoded(content_type.as_deref(), value),
            name if NAMES.contains(&name) => cut(data::value(value)),
            _ => data::value(value),
        };
        field(&mut text, &String::from_utf8_lossy(name), &value);
    }
    text
}

/// What is noted of it, if anything is.
fn noted(text: &mut String, letter: &WholeLetter) {
    let notes = &letter.notes;
    let said = |remark: &Remark| {
        let by = format!("{}, {}", remark.by, rfc3339::seconds(remark.at));
        match &remark.text[..] {
            "" => by,
            said => format!("{said} ({by})"),
        }
    };
    let remarks = [
        ("note", &notes.note),
        ("assigned to", &notes.assigned),
        ("held", &notes.held),
    ];
    let mut lines: Vec<(&str, String)> = remarks
        .into_iter()
        .filter_map(|(name, remark)| Some((name, said(remark.as_ref()?))))
        .collect();
    if let Some(edit) = &notes.edit {
        let names: Vec<_> = edit
            .fields
            .iter()
            .map(|(name, _)| shown(&String::from_utf8_lossy(name)).to_string())
            .collect();
        let at = rfc3339::seconds(edit.at);
        lines.push((
            "edited",
            format!(
                "{} ({}, {at}); dlq edit ID --show has the new values",
                names.join(", "),
                edit.by
            ),
        ));
    }
    if !notes.errors.is_empty() {
        let errors = notes
            .errors
            .iter()
            .map(|error| u64::from(error.times))
            .sum();
        let errors = count(errors, "error");
        lines.push((
            "errors",
            format!("the last {errors} are known: dlq diff ID shows them"),
        ));
    }
    if lines.is_empty() {
        return;
    }
    text.push_str("\nnoted\n");
    for (name, value) in lines {
        field(text, name, &Shown::Text(value));
    }
}

/// A value that is a name, cut.
fn cut(value: Shown) -> Shown {
    match value {
        Shown::Text(name) => Shown::Text(shown(&name).to_string()),
        block => block,
    }
}

/// A name and its value: beside it where it is one line, else below it.
fn field(text: &mut String, name: &str, value: &Shown) {
    let name = shown(name).to_string();
    let (note, body) = match value {
        Shown::Text(body) => ("", body),
        Shown::Block(note, body) => (*note, body),
    };
    let mut lines = body.lines();
    match (note, lines.next(), lines.next()) {
        ("", None, _) => {
            let _ = writeln!(text, "  {name}");
        }
        ("", Some(line), None) => {
            let _ = writeln!(text, "  {name:<16} {}", printable(line));
        }
        _ => {
            let _ = writeln!(text, "{}", format!("  {name:<16} {note}").trim_end());
            for line in body.lines() {
                let _ = writeln!(text, "    {}", printable(line));
            }
        }
    }
}
