//! `dlq purge`: deletes dead letters, exported before where that is asked for.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::CommandError;
use super::select::{Meant, Which, confirm};
use crate::called;
use crate::cli::terminal::{print, print_json, progress, say};
use crate::cli::text::{count, whoami};
use crate::cli::told_to_stop;
use crate::dead_letters::{Counted, DeadLetters, PurgeRun, PurgedLetters};
use crate::duration;
use crate::error::chain;

#[derive(Args)]
pub(super) struct PurgeArgs {
    #[command(flatten)]
    which: Which,
    /// Write the letters to this new file first, a line of JSON each; only they are deleted
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Keep them for so long (1h) where `dlq undo` brings them back from
    #[arg(long, value_name = "DURATION", conflicts_with = "export", value_parser = duration::parse)]
    undo_within: Option<Duration>,
    /// Who does this, for `dlq undo` to tell [default: user@host]
    #[arg(long, value_name = "NAME", requires = "undo_within")]
    by: Option<String>,
    /// Say how many would be deleted, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete without asking
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

/// What was done, as JSON.
#[derive(Serialize)]
struct Done<'a> {
    dry_run: bool,
    #[serde(flatten)]
    counted: &'a Counted,
    deleted: u64,
    held: u64,
    /// What brings them back, where that is possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    undo: Option<&'a str>,
}

pub(super) async fn run(args: PurgeArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    if let Some(file) = &args.export
        && file.exists()
    {
        return Err(CommandError::usage(format!(
            "{} exists already: name a new file to export to",
            file.display()
        )));
    }
    let meant = args.which.resolve(dead, "purge").await?;
    let (mut purged, mut held) = (0, 0);
    let undo = args.undo_within.filter(|_| !args.dry_run);
    let by = args.by.clone().unwrap_or_else(whoami);
    let undo = undo.map(|within| PurgeRun::begin(by, within)).transpose()?;
    if !args.dry_run && meant.counted.found > 0 {
        if !args.yes && !ask(&meant, args.export.as_deref(), args.undo_within)? {
            return Err(CommandError::failed("nothing was deleted"));
        }
        let stop = told_to_stop("; what was deleted so far is")?;
        let result = tokio::select! {
            result = purge(&meant, args.export.as_deref(), undo.as_ref(), &mut purged) => result,
            () = stop => Err("stopped".to_owned()),
        };
        match result {
            Ok(letters) => held = letters.held,
            Err(why) => {
                return Err(CommandError::failed(format!(
                    "{why}\ndeleted {purged} of {}",
                    meant.counted.found
                )));
            }
        }
    }
    if args.json {
        print_json(&Done {
            dry_run: args.dry_run,
            counted: &meant.counted,
            deleted: purged,
            held,
            undo: undo
                .as_ref()
                .filter(|_| purged > 0)
                .map(|run| &run.name[..]),
        })?;
    } else if args.dry_run {
        print(format_args!(
            "would delete {}",
            count(meant.counted.found, "dead letter")
        ))?;
    } else if meant.counted.found > 0 {
        let kept = match (&args.export, &undo) {
            (Some(file), _) => format!("; they are in {}", file.display()),
            (None, Some(run)) if purged > 0 => format!(
                "; within {} `{}` brings them back",
                duration::format(run.within),
                called::command(format_args!("dlq undo {}", run.name))
            ),
            _ => String::new(),
        };
        print(format_args!(
            "deleted {}{kept}",
            count(purged, "dead letter")
        ))?;
    }
    if held > 0 {
        say(format_args!(
            "{} held, and stay: dlq hold ID --release lets one go",
            match held {
                1 => "1 is".to_owned(),
                many => format!("{many} are"),
            }
        ));
    }
    meant.all_there(dead, args.dry_run)
}

fn ask(
    meant: &Meant,
    export: Option<&Path>,
    undo_within: Option<Duration>,
) -> Result<bool, CommandError> {
    let letters = count(meant.counted.found, "dead letter");
    let first = match export {
        Some(file) => format!(
            "Export {letters} of {} to {} and",
            meant.place,
            file.display()
        ),
        None => format!("Without exporting {letters} of {},", meant.place),
    };
    let unasked = format!(
        "{letters} would be deleted, and there is no terminal to ask on: add --yes to delete"
    );
    let question = match undo_within {
        Some(within) => format!(
            "Delete {letters} of {}? Within {} that can be undone",
            meant.place,
            duration::format(within)
        ),
        None => format!("{first} delete them for good?"),
    };
    confirm(&question, &unasked)
}

async fn purge(
    meant: &Meant,
    export: Option<&Path>,
    undo: Option<&PurgeRun>,
    purged: &mut u64,
) -> Result<PurgedLetters, String> {
    let bar = progress(Some(meant.counted.found), "letters");
    let Some(path) = export else {
        let tell = |done| {
            *purged = done;
            bar.set_position(done);
        };
        let result = match undo {
            Some(run) => meant.selection.purge_letters_undoably(run, tell).await,
            None => meant.selection.purge_letters(tell).await,
        };
        bar.finish_and_clear();
        return result.map_err(|error| chain(&error));
    };
    let cannot = |error: io::Error| format!("can't export to {}: {error}", path.display());
    let file = OpenOptions::new()
        .write(true)
        // Not what somebody else has put there, a link included.
        .create_new(true)
        // Letters hold what their events do, which is nobody else's business.
        .mode(0o600)
        .open(path)
        .map_err(cannot)?;
    let mut file = BufWriter::new(file);
    bar.set_message("(exporting)");
    let exported = meant
        .selection
        .export(&mut file, |done| bar.set_position(done))
        .await
        .map_err(|error| chain(&error))?;
    let file = file
        .into_inner()
        .map_err(|error| cannot(error.into_error()))?;
    make_lasting(&file, path).map_err(cannot)?;
    bar.set_message("(deleting)");
    let tell = |done| {
        *purged = done;
        bar.set_position(done);
    };
    let result = exported.purge_letters(tell).await;
    bar.finish_and_clear();
    result.map_err(|error| chain(&error))
}

/// The file and its name are on the disk before the first letter goes.
fn make_lasting(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
