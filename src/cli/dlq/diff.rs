//! `dlq diff`: the last errors of a dead letter, and in what each differs from the one before.

use std::fmt::Write;

use clap::Args;
use similar::{ChangeTag, TextDiff};

use super::CommandError;
use super::find::find;
use crate::cli::terminal::{print, print_json};
use crate::cli::text::printable;
use crate::dead_letters::{DeadLetters, EarlierError};
use crate::rfc3339;

/// Errors that have less in common are shown as they are.
const ALIKE: f32 = 0.4;

#[derive(Args)]
pub(super) struct DiffArgs {
    /// The letter's id, as `dlq list` shows it, or that of the entry or the event it is of
    id: String,
    /// The stream it is of, where the worker reads several
    #[arg(long)]
    stream: Option<String>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: DiffArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let (stream, letter) = find(dead, args.stream.as_deref(), &args.id).await?;
    let letter = dead.get(&stream, letter.id).await?;
    let mut errors = letter.notes.errors;
    if errors.is_empty() {
        // It died of the first one.
        errors.push(EarlierError {
            attempt: Some(letter.head.attempts),
            at: Some(letter.head.at),
            times: 1,
            error: letter.head.error,
        });
    }
    if args.json {
        return print_json(&errors);
    }
    errors.reverse();
    let mut text = String::new();
    let mut before: Option<&str> = None;
    for error in &errors {
        let attempt = match (error.attempt, error.times) {
            (Some(last), times) if times > 1 && last >= times => {
                format!("attempts {} to {last}", last - times + 1)
            }
            (Some(attempt), _) => format!("attempt {attempt}"),
            (None, _) => "an earlier attempt".to_owned(),
        };
        let at = error.at.map(rfc3339::millis).unwrap_or_default();
        let _ = writeln!(text, "{}", format!("{attempt}  {at}").trim_end());
        let shown = before.map_or_else(
            || error.error.clone(),
            |before| differs(before, &error.error),
        );
        for line in shown.lines() {
            let _ = writeln!(text, "  {}", printable(line));
        }
        before = Some(&error.error);
    }
    print(text.trim_end())
}

/// The error, with what it has not in common with the one before: `[-5s-]` has gone, `{+7s+}` has come.
fn differs(before: &str, after: &str) -> String {
    let diff = TextDiff::from_words(before, after);
    if diff.ratio() < ALIKE {
        return after.to_owned();
    }
    let (mut text, mut open) = (String::new(), ChangeTag::Equal);
    let mut turn = |text: &mut String, tag| {
        if tag != open {
            text.push_str(match open {
                ChangeTag::Delete => "-]",
                ChangeTag::Insert => "+}",
                ChangeTag::Equal => "",
            });
            text.push_str(match tag {
                ChangeTag::Delete => "[-",
                ChangeTag::Insert => "{+",
                ChangeTag::Equal => "",
            });
            open = tag;
        }
    };
    for change in diff.iter_all_changes() {
        turn(&mut text, change.tag());
        text.push_str(change.value());
    }
    turn(&mut text, ChangeTag::Equal);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_of_an_error_is_marked() {
        assert_eq!(
            differs("timed out after 5s", "timed out after 7s"),
            "timed out after [-5s-]{+7s+}"
        );
        assert_eq!(differs("timed out", "no stock"), "no stock");
        assert_eq!(differs("no stock", "no stock"), "no stock");
    }
}
