//! `pause` and `resume`: a stream, or one type of its events, for the whole group.

use clap::Args;

use super::CommandError;
use super::terminal::{print, say};
use super::text::whoami;
use crate::admin::Admin;
use crate::config::{Settings, stream_name};

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

pub(super) async fn pause(args: PauseArgs, settings: Settings) -> Result<(), CommandError> {
    let admin = admin(&args, &settings)?;
    let (stream, by) = (&args.stream, args.by.clone().unwrap_or_else(whoami));
    let paused = match &args.handler {
        None => admin.pause(stream, &by).await?,
        Some(event_type) => admin.pause_handler(stream, event_type, &by).await?,
    };
    let (name, group) = (args.name(), admin.group());
    print(if paused.is_new {
        format!("paused: {name}, for all workers of {group}; what runs already runs on")
    } else {
        format!("paused already: {name}")
    })
}

pub(super) async fn resume(args: PauseArgs, settings: Settings) -> Result<(), CommandError> {
    let admin = admin(&args, &settings)?;
    let resumed = match &args.handler {
        None => admin.resume(&args.stream).await?,
        Some(event_type) => admin.resume_handler(&args.stream, event_type).await?,
    };
    let (name, group) = (args.name(), admin.group());
    print(if resumed.was_paused {
        format!("resumed: {name}, for all workers of {group}")
    } else {
        format!("not paused: {name}; streamhand status shows what is")
    })
}

fn admin(args: &PauseArgs, settings: &Settings) -> Result<Admin, CommandError> {
    let stream = &args.stream;
    stream_name(stream)
        .map_err(|why| CommandError::usage(format!("the stream name {stream:?} {why}")))?;
    if !settings.worker.streams.contains(stream) {
        say(format_args!("note: worker.streams does not name {stream}"));
    }
    let admin = Admin::new(settings)?;
    Ok(match &args.group {
        Some(group) => admin.for_group(group)?,
        None => admin,
    })
}

impl PauseArgs {
    /// `orders`, or `order.created in orders`.
    fn name(&self) -> String {
        match &self.handler {
            None => self.stream.clone(),
            Some(event_type) => format!("{event_type} in {}", self.stream),
        }
    }
}
