//! `pause` and `resume`: a stream, or one type of its events, for the whole group.

use std::time::UNIX_EPOCH;

use clap::Args;

use super::CommandError;
use super::terminal::{print, say};
use super::text::whoami;
use crate::config::{Settings, check};
use crate::event_type;
use crate::stream::{Connector, Keys, Pausable, PauseNote, Pool};

#[derive(Args)]
pub(super) struct PauseArgs {
    /// The stream that is meant
    stream: String,
    /// This handler's events alone, by their type
    #[arg(long, value_name = "TYPE")]
    handler: Option<String>,
    /// The group that is meant [default: worker.group]
    #[arg(long)]
    group: Option<String>,
    /// Who does this, for status to tell [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

struct Meant {
    pool: Pool,
    keys: Keys,
    what: Pausable,
    /// `orders`, or `order.created in orders`.
    name: String,
    group: String,
}

pub(super) async fn pause(args: PauseArgs, settings: Settings) -> Result<(), CommandError> {
    let meant = meant(&args, settings)?;
    let now = meant.pool.now().await?.duration_since(UNIX_EPOCH);
    let note = PauseNote {
        since_ms: now.unwrap_or_default().as_millis() as u64,
        by: args.by.unwrap_or_else(whoami),
    };
    let is_new = meant.pool.pause(&meant.keys, &meant.what, &note).await?;
    let Meant { name, group, .. } = meant;
    print(if is_new {
        format!("paused: {name}, for all workers of {group}; what runs already runs on")
    } else {
        format!("paused already: {name}")
    })
}

pub(super) async fn resume(args: PauseArgs, settings: Settings) -> Result<(), CommandError> {
    let meant = meant(&args, settings)?;
    let was_paused = meant.pool.resume(&meant.keys, &meant.what).await?;
    let Meant { name, group, .. } = meant;
    print(if was_paused {
        format!("resumed: {name}, for all workers of {group}")
    } else {
        format!("not paused: {name}; streamhand status shows what is")
    })
}

fn meant(args: &PauseArgs, settings: Settings) -> Result<Meant, CommandError> {
    let stream = &args.stream;
    check::stream_name(stream)
        .map_err(|why| CommandError::usage(format!("the stream name {stream:?} {why}")))?;
    if !settings.worker.streams.contains(stream) {
        say(format_args!("note: worker.streams does not name {stream}"));
    }
    let group = args.group.clone().unwrap_or(settings.worker.group);
    check::group_name(&group)
        .map_err(|why| CommandError::usage(format!("the group name {group:?} {why}")))?;
    let (what, name) = match &args.handler {
        None => (Pausable::Stream, stream.clone()),
        Some(event_type) => {
            event_type::check(event_type).map_err(|why| {
                CommandError::usage(format!("the event type {event_type:?} {why}"))
            })?;
            let what = Pausable::Handler(event_type.clone());
            (what, format!("{event_type} in {stream}"))
        }
    };
    Ok(Meant {
        pool: Connector::new(&settings.redis)?.pool(1)?,
        keys: Keys::new(stream, &group),
        what,
        name,
        group,
    })
}
