//! `dlq edit`: other values for a dead letter's fields, validated before they are kept, for a replay to apply.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use serde::Serialize;
use similar::TextDiff;

use super::CommandError;
use super::find::find;
use super::select::confirm;
use crate::admin::{Admin, FieldChange, LetterEdit};
use crate::called;
use crate::cli::data::laid_out;
use crate::cli::terminal::{print, print_json, say};
use crate::cli::text::{printable, whoami};
use crate::error::{Error, chain};
use crate::handler::{Registry, Validity};

#[derive(Args)]
#[command(after_help = "\
Examples:
  streamhand dlq edit 1732360000000-0                                # the data as JSON, in $EDITOR
  streamhand dlq edit 1732360000000-0 --set data.amount=0 --set data.items.0.sku=s-1
  streamhand dlq edit 1732360000000-0 --set type=order.created --replay
  streamhand dlq edit 1732360000000-0 --undo

The letter stays as it was buried. A replay puts the new values in the place of the old ones, and those go along as
edited.was.data and the like. The handler's own decoder and upcasters say whether it can decode what comes of it.")]
pub(super) struct EditArgs {
    /// The letter's id, as `dlq list` shows it, or that of the entry or the event it is of
    id: String,
    /// The stream it is of, where the worker reads several
    #[arg(long)]
    stream: Option<String>,
    /// Set one value: within the data, as JSON or text, or another field; may be repeated
    #[arg(long, value_name = "PLACE=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Take all edits of it back
    #[arg(long, conflicts_with_all = ["set", "show"])]
    undo: bool,
    /// Show what was edited, and change nothing
    #[arg(long, conflicts_with = "set")]
    show: bool,
    /// Keep it though nobody can say whether its handler could decode it
    #[arg(long)]
    unchecked: bool,
    /// Replay it at once
    #[arg(long)]
    replay: bool,
    /// Keep it without asking
    #[arg(long, short)]
    yes: bool,
    /// Who edits it [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

/// What was done, as JSON.
#[derive(Serialize)]
struct Done<'a> {
    id: String,
    changes: &'a [FieldChange],
    /// Whether a handler can decode it: `decodes`, `taken as it is`, or `unchecked`.
    validity: &'a str,
    kept: bool,
    replayed: bool,
}

pub(super) async fn run(
    args: EditArgs,
    admin: &Admin,
    registry: Option<&Registry>,
) -> Result<(), CommandError> {
    let dead = admin.dead_letters()?;
    let (stream, letter) = find(&dead, args.stream.as_deref(), &args.id).await?;
    let mut edit = admin.edit(&stream, letter.id).await?;
    if args.show {
        return told(&args, &edit, "", false, false);
    }
    let mut draft = None;
    if args.undo {
        edit.undo();
    } else if args.set.is_empty() {
        draft = Some(in_editor(&mut edit)?);
    } else {
        for (place, value) in &args.set {
            edit.set(place, value)?;
        }
    }
    if !edit.is_new() {
        if let Some(draft) = draft.take() {
            draft.remove();
        }
        if !args.replay {
            say("nothing is changed");
            return told(&args, &edit, "", false, false);
        }
    }
    let kept = keep(&args, admin, &edit, registry).await;
    let validity = match kept {
        Ok(validity) => validity,
        Err(error) => return Err(with_draft(error, draft)),
    };
    if let Some(draft) = draft {
        draft.remove();
    }
    let mut replayed = false;
    if args.replay {
        let by = args.by.clone().unwrap_or_else(whoami);
        let this = dead.pick(&stream, vec![letter.id])?;
        replayed = this.replay(&by, None, |_| ()).await?.replayed == 1;
        if !replayed {
            return Err(CommandError::failed(format!(
                "the dead letter {} was gone before it could be replayed",
                letter.id
            )));
        }
    }
    told(&args, &edit, validity, true, replayed)
}

/// Validates what is new, shows it, asks and keeps it. Returns what the handler said of it.
async fn keep(
    args: &EditArgs,
    admin: &Admin,
    edit: &LetterEdit,
    registry: Option<&Registry>,
) -> Result<&'static str, CommandError> {
    let validity = match args.undo {
        true => "unchecked",
        false => validated(args, edit, registry)?,
    };
    if !edit.is_new() {
        return Ok(validity);
    }
    let id = edit.letter().head.id;
    if !args.json {
        say(shown(&edit.changes()));
    }
    let unasked =
        "the edit would be kept, and there is no terminal to ask on: add --yes to keep it";
    if !args.yes && !confirm(&format!("Keep this edit of {id}?"), unasked)? {
        return Err(CommandError::failed("nothing was kept"));
    }
    let by = args.by.clone().unwrap_or_else(whoami);
    admin.save_edit(edit, &by).await?;
    Ok(validity)
}

/// What the handler says of it, by its own decoder.
fn validated(
    args: &EditArgs,
    edit: &LetterEdit,
    registry: Option<&Registry>,
) -> Result<&'static str, CommandError> {
    let unsure = |why: String| match args.unchecked {
        true => Ok("unchecked"),
        false => Err(CommandError::failed(format!(
            "{why}: nobody can say here whether its handler could decode it; add --unchecked to keep it all the same"
        ))),
    };
    let Some(registry) = registry else {
        return unsure(
            "this program has no handlers, and the one whose workers handle the group has the same command".to_owned(),
        );
    };
    match edit.validate(registry) {
        Ok(Validity::Decodes) => Ok("decodes"),
        Ok(Validity::TakenAsItIs) => Ok("taken as it is"),
        Ok(Validity::Ignored) => unsure("events of its type are ignored".to_owned()),
        Ok(_) => unsure("no handler is registered for its type".to_owned()),
        Err(failure) => Err(CommandError::failed(format!(
            "its handler could not decode it, and nothing was kept: {}",
            printable(&failure.to_string())
        ))),
    }
}

/// Says what came of it.
fn told(
    args: &EditArgs,
    edit: &LetterEdit,
    validity: &str,
    kept: bool,
    replayed: bool,
) -> Result<(), CommandError> {
    let (id, changes) = (edit.letter().head.id, edit.changes());
    if args.json {
        return print_json(&Done {
            id: id.to_string(),
            changes: &changes,
            validity,
            kept,
            replayed,
        });
    }
    if args.show {
        return match changes.is_empty() {
            true => print(format_args!("{id} is not edited")),
            false => print(shown(&changes)),
        };
    }
    match (kept, replayed) {
        (false, _) => Ok(()),
        (true, true) => print(format_args!("replayed {id} as it is edited")),
        (true, false) if args.undo => print(format_args!("{id} is replayed as it was buried")),
        (true, false) => print(format_args!(
            "kept: `{}` replays {id} as it is edited",
            called::command(format_args!("dlq replay {id}"))
        )),
    }
}

/// What is changed, as lines that go and lines that come.
fn shown(changes: &[FieldChange]) -> String {
    let mut text = String::new();
    for FieldChange {
        name,
        before,
        after,
    } in changes
    {
        let lines = |value: &str| match name == "data" {
            true => format!("{}\n", laid_out(value)),
            false => format!("{value}\n"),
        };
        let before = before.as_deref().map(lines).unwrap_or_default();
        let after = lines(after);
        let _ = writeln!(text, "{}", printable(name));
        for change in TextDiff::from_lines(&before, &after).iter_all_changes() {
            let line = change.value().trim_end_matches('\n');
            let _ = writeln!(text, "{} {}", change.tag(), printable(line));
        }
    }
    text.trim_end().to_owned()
}

/// What was written in the editor, kept until it is known that it is not needed any more.
struct Draft(PathBuf);

impl Draft {
    fn remove(self) {
        let _ = std::fs::remove_file(self.0);
    }
}

/// The same error; and where the text is, so that nobody has to write it again.
fn with_draft(error: CommandError, draft: Option<Draft>) -> CommandError {
    let Some(Draft(path)) = draft else {
        return error;
    };
    let message = format!("{error}\nwhat you wrote is in {}", path.display());
    match error.code() {
        2 => CommandError::usage(message),
        _ => CommandError::failed(message),
    }
}

/// Has the data edited as JSON in the user's editor.
fn in_editor(edit: &mut LetterEdit) -> Result<Draft, CommandError> {
    let set = |name| {
        std::env::var(name)
            .ok()
            .filter(|editor| !editor.trim().is_empty())
    };
    let editor = set("VISUAL").or_else(|| set("EDITOR")).ok_or_else(|| {
        CommandError::usage(
            "neither $VISUAL nor $EDITOR is set: name an editor, or use --set data.amount=0",
        )
    })?;
    let id = edit.letter().head.id;
    let text = edit.data_text().ok_or_else(|| {
        CommandError::failed(format!(
            "the data of {id} is neither JSON nor MessagePack nor any text: give it another one by --set data=JSON"
        ))
    })?;
    let before = match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => format!("{}\n", laid_out(&text)),
        Err(_) => text.into_owned(),
    };
    let cannot =
        |error: io::Error| CommandError::failed(format!("can't have {id} edited: {error}"));
    let name = format!("letter-{id}-{:08x}.json", fastrand::u32(..));
    let path = std::env::temp_dir().join(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        // Letters hold what their events do, which is nobody else's business.
        .mode(0o600)
        .open(&path)
        .map_err(cannot)?;
    let draft = Draft(path);
    file.write_all(before.as_bytes()).map_err(cannot)?;
    drop(file);
    // An editor may have arguments: `code --wait`.
    let mut words = editor.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).arg(&draft.0);
    if !io::stdout().is_terminal() {
        // Data goes to standard output, and an editor's screen is none.
        command.stdout(io::stderr());
    }
    let status = command.status().map_err(|error| {
        CommandError::failed(format!("can't start the editor {editor:?}: {error}"))
    });
    let ended = match status {
        Ok(status) if status.success() => std::fs::read_to_string(&draft.0).map_err(cannot),
        Ok(status) => Err(CommandError::failed(format!(
            "the editor ended with {status}: nothing was kept"
        ))),
        Err(error) => Err(error),
    };
    let after = match ended {
        Ok(after) => after,
        Err(error) => {
            draft.remove();
            return Err(error);
        }
    };
    if after != before
        && let Err(error) = edit.set_data_text(&after)
    {
        return Err(with_draft(said(&error), Some(draft)));
    }
    Ok(draft)
}

fn said(error: &Error) -> CommandError {
    CommandError::failed(format!("{}: nothing was kept", printable(&chain(error))))
}

/// `data.amount=0`
fn setting(text: &str) -> Result<(String, String), String> {
    let (place, value) = text
        .split_once('=')
        .filter(|(place, _)| !place.is_empty())
        .ok_or_else(|| "write a place and its value: data.amount=0".to_owned())?;
    Ok((place.to_owned(), value.to_owned()))
}
