//! `dlq purge`: deletes dead letters, exported before where that is asked for.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::CommandError;
use super::select::{Meant, Which, confirm};
use crate::cli::terminal::{print, print_json, progress};
use crate::cli::text::count;
use crate::cli::told_to_stop;
use crate::dead_letters::{Counted, DeadLetters};
use crate::error::chain;

#[derive(Args)]
pub(super) struct PurgeArgs {
    #[command(flatten)]
    which: Which,
    /// Write the letters to this new file first, a line of JSON each; only what is in it is deleted
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
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
    let mut purged = 0;
    if !args.dry_run && meant.counted.found > 0 {
        if !args.yes && !ask(&meant, args.export.as_deref())? {
            return Err(CommandError::failed("nothing was deleted"));
        }
        let stop = told_to_stop("; what was deleted so far is")?;
        let result = tokio::select! {
            result = purge(&meant, args.export.as_deref(), &mut purged) => result,
            () = stop => Err("stopped".to_owned()),
        };
        if let Err(why) = result {
            return Err(CommandError::failed(format!(
                "{why}\ndeleted {purged} of {}",
                meant.counted.found
            )));
        }
    }
    if args.json {
        print_json(&Done {
            dry_run: args.dry_run,
            counted: &meant.counted,
            deleted: purged,
        })?;
    } else if args.dry_run {
        print(format_args!(
            "would delete {}",
            count(meant.counted.found, "dead letter")
        ))?;
    } else if meant.counted.found > 0 {
        let kept = match &args.export {
            Some(file) => format!("; they are in {}", file.display()),
            None => String::new(),
        };
        print(format_args!(
            "deleted {}{kept}",
            count(purged, "dead letter")
        ))?;
    }
    meant.all_there()
}

fn ask(meant: &Meant, export: Option<&Path>) -> Result<bool, CommandError> {
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
    confirm(&format!("{first} delete them for good?"), &unasked)
}

async fn purge(meant: &Meant, export: Option<&Path>, purged: &mut u64) -> Result<(), String> {
    let bar = progress(Some(meant.counted.found), "letters");
    let Some(path) = export else {
        let tell = |done| {
            *purged = done;
            bar.set_position(done);
        };
        let result = meant.selection.purge(tell).await;
        bar.finish_and_clear();
        return result.map(|_| ()).map_err(|error| chain(&error));
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
    let result = exported.purge(tell).await;
    bar.finish_and_clear();
    result.map(|_| ()).map_err(|error| chain(&error))
}

/// The file and its name are on the disk before the first letter goes.
fn make_lasting(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
