//! `cancel`: an event, wherever it stands.

use std::time::{Duration, Instant};

use clap::Args;

use super::CommandError;
use super::away::say_away;
use super::terminal::{print, print_json, progress, say};
use super::text::whoami;
use crate::admin::{
    Admin, CANCEL_HEARD_WITHIN, CancelOutcome, CancelRequest, CancelledOne, EntryStanding,
};
use crate::called;
use crate::config::Settings;
use crate::duration;
use crate::names::shown;

/// How often it is asked whether a worker has heard of it.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(super) struct CancelArgs {
    /// The event's id, or the entry's
    #[arg(value_name = "ID")]
    id: String,
    /// The stream it is of, or for, be it of the group or not [default: each of worker.streams]; may be repeated
    #[arg(long)]
    stream: Vec<String>,
    /// Its type, where events of several have the id
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// The group that is meant [default: worker.group]
    #[arg(long)]
    pub(super) group: Option<String>,
    /// Who does this, for entry and the log to tell [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Look at about so many entries for the event's id
    #[arg(long, value_name = "NUMBER", default_value_t = 200_000)]
    entries: u64,
    /// Wait so long for the worker that has it to say that it is cancelled [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    wait: Option<Duration>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: CancelArgs, settings: Settings) -> Result<(), CommandError> {
    let mut admin = Admin::new(&settings)?;
    if let Some(group) = &args.group {
        admin = admin.for_group(group)?;
    }
    let by = args.by.clone().unwrap_or_else(whoami);
    let mut request = CancelRequest::of(&args.id, by)
        .streams(&args.stream)
        .entries(args.entries);
    if let Some(event_type) = &args.event_type {
        request = request.event_type(event_type);
    }
    let bar = progress(None, "entries looked at");
    let cancelled = admin.cancel(request).await;
    bar.finish_and_clear();
    let mut cancelled = cancelled?;
    for away in &cancelled.in_trouble {
        say_away(&away.stream, &away.error);
    }
    let until = Instant::now() + args.wait.unwrap_or(CANCEL_HEARD_WITHIN);
    let mut said = Vec::new();
    for one in &mut cancelled.found {
        let what = match &one.outcome {
            CancelOutcome::Held { .. } => heard(&admin, one, until).await?,
            outcome => (outcome.to_string(), outcome.is_cancelled()),
        };
        said.push(what);
    }
    let is_done = !said.is_empty() && said.iter().all(|(_, is_cancelled)| *is_cancelled);
    if args.json {
        let mut json = serde_json::to_value(&cancelled).unwrap_or_default();
        for (place, (text, is_cancelled)) in said.iter().enumerate() {
            json["found"][place]["said"] = text.as_str().into();
            json["found"][place]["is_cancelled"] = (*is_cancelled).into();
        }
        print_json(&json)?;
    } else {
        for (one, (text, _)) in cancelled.found.iter().zip(&said) {
            let copy = if one.is_replayed { ", replayed" } else { "" };
            let (id, stream) = (shown(&one.id), shown(&one.stream));
            print(format!("{id} of {stream}{copy}: {text}"))?;
        }
    }
    if cancelled.found.is_empty() {
        let more = match cancelled.is_cut {
            true => "; not all was looked through: raise --entries, or give the entry's id",
            false => "",
        };
        return Err(CommandError::failed(format!(
            "no event and no entry has the id {}, neither on a schedule nor in a stream{more}",
            shown(&args.id)
        )));
    }
    if cancelled.is_cut {
        say("not all was looked through: there may be more with this id; raise --entries");
    }
    match is_done {
        true => Ok(()),
        false => Err(CommandError::failed(
            "not all of it is cancelled".to_owned(),
        )),
    }
}

/// What becomes of an entry that a worker has, and whether it is cancelled.
async fn heard(
    admin: &Admin,
    one: &CancelledOne,
    until: Instant,
) -> Result<(String, bool), CommandError> {
    loop {
        let note = admin.cancel_note(one).await?;
        if note.is_some_and(|note| note.is_done) {
            return Ok(("cancelled".to_owned(), true));
        }
        let standing = match one.id.parse() {
            Ok(id) if !one.is_replayed => {
                let life = admin.entry(&one.stream, id).await?;
                let own = life.groups.into_iter().next();
                own.map(|own| own.standing)
            }
            _ => None,
        };
        if let Some(EntryStanding::Settled { .. } | EntryStanding::Gone) = standing {
            // The note may have come in between.
            if admin
                .cancel_note(one)
                .await?
                .is_some_and(|note| note.is_done)
            {
                return Ok(("cancelled".to_owned(), true));
            }
            let done =
                "too late: it was done before its worker had heard of it, or is a dead letter";
            return Ok((done.to_owned(), false));
        }
        if Instant::now() >= until {
            let entry = called::command(format_args!("entry {}", one.id));
            let text = format!("{}, and has not ended it yet: see {entry}", one.outcome);
            return Ok((text, true));
        }
        tokio::time::sleep(LOOK).await;
    }
}
