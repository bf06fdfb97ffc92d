//! `pause` and `resume`: a stream, or one type of its events, for the whole group.

use std::time::Duration;

use clap::Args;

use super::CommandError;
use super::terminal::{print, say};
use super::text::{time, whoami};
use crate::admin::{Admin, PauseRequest};
use crate::called;
use crate::config::{Settings, stream_name};
use crate::duration;

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

/// What only a pause takes.
#[derive(Args)]
pub(super) struct NewPauseArgs {
    #[command(flatten)]
    what: PauseArgs,
    /// It ends by itself after so long (1h); what is paused already then does, too
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    lasts: Option<Duration>,
    /// Why, for status to tell
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) async fn pause(args: NewPauseArgs, settings: Settings) -> Result<(), CommandError> {
    let NewPauseArgs {
        what: args,
        lasts,
        reason,
    } = args;
    let admin = admin(&args, &settings)?;
    let by = args.by.clone().unwrap_or_else(whoami);
    let mut request = PauseRequest::of(&args.stream, by);
    if let Some(event_type) = &args.handler {
        request = request.handler(event_type);
    }
    if let Some(lasts) = lasts {
        request = request.lasts(lasts);
    }
    if let Some(reason) = reason {
        request = request.reason(reason);
    }
    let paused = admin.pause_with(request).await?;
    let (name, group) = (args.name(), admin.group());
    let until = paused
        .until
        .map(|until| format!(", until {}", time(until)))
        .unwrap_or_default();
    print(if paused.is_new {
        format!("paused: {name}, for all workers of {group}{until}; what runs already runs on")
    } else {
        format!("paused already: {name}{until}")
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
        format!(
            "not paused: {name}; {} shows what is",
            called::command("status")
        )
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
