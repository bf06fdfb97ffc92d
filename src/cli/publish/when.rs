//! When events are published, and how often.

use std::time::{Duration, SystemTime};

use clap::Args;

use super::CommandError;
use crate::delay;
use crate::duration;
use crate::publisher::{Publisher, after, at_time, once_within, replacing};
use crate::rfc3339;
use crate::stream::How;

#[derive(Args)]
pub(super) struct WhenArgs {
    /// Publish so much later than Redis gets the events: 90s, 10m, 1d
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "at")]
    delay: Option<Duration>,
    /// Publish at this time: 2026-01-31T12:00:00Z, 2026-01-31T13:00:00+01:00
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<SystemTime>,
    /// Take the place of what waits for its time under the same id, its data and its time; with --delay or --at
    #[arg(long)]
    pub replace: bool,
    /// As --delay with --replace: each call puts the event off, and it comes so long after the last one
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with_all = ["delay", "at", "replace"])]
    debounce: Option<Duration>,
    /// Publish nothing whose id was published by --once before; for --id and --envelopes
    #[arg(long, conflicts_with_all = ["delay", "at", "replace", "debounce"])]
    pub once: bool,
    /// How long ago "before" is at most [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "once")]
    once_within: Option<Duration>,
}

impl WhenArgs {
    /// Whether events are to be published later.
    pub fn is_later(&self) -> bool {
        self.delay.is_some() || self.at.is_some() || self.debounce.is_some()
    }

    /// Whether they take the place of what waits under their ids.
    pub fn replaces(&self) -> bool {
        self.replace || self.debounce.is_some()
    }

    /// What is asked for.
    ///
    /// # Errors
    /// Where it can't be meant.
    pub async fn how(&self, publisher: &Publisher) -> Result<How, CommandError> {
        if self.replace && !self.is_later() {
            return Err(CommandError::usage(
                "--replace is for what waits for its time: add --delay 10m or --at TIME, when it comes then",
            ));
        }
        let how = self.when(publisher).await?;
        Ok(match self.replaces() {
            true => replacing(how),
            false => how,
        })
    }

    async fn when(&self, publisher: &Publisher) -> Result<How, CommandError> {
        let option = if self.debounce.is_some() {
            "--debounce"
        } else {
            "--delay"
        };
        if let Some(delay) = self.delay.or(self.debounce) {
            if delay.as_millis() == 0 {
                let delay = duration::format(delay);
                return Err(CommandError::usage(format!(
                    "{option} {delay} is no delay: leave it out, or write at least 1ms"
                )));
            }
            return after(delay).map_err(|error| CommandError::usage(format!("{option}: {error}")));
        }
        if let Some(at) = self.at {
            let how = at_time(at).map_err(|error| CommandError::usage(format!("--at: {error}")))?;
            let now = publisher.pool().now().await?;
            if at <= now {
                return Err(CommandError::usage(format!(
                    "--at {} has passed (it is {} now at the server): leave it out to publish at once",
                    rfc3339::written(at),
                    rfc3339::seconds(now),
                )));
            }
            return Ok(how);
        }
        if self.once {
            let within = self.once_within.unwrap_or(Publisher::ONCE_WITHIN);
            return once_within(within)
                .map_err(|error| CommandError::usage(format!("--once-within: {error}")));
        }
        Ok(How::Now)
    }
}

/// Until when a handler may start for an event.
#[derive(Clone, Copy)]
pub(super) enum Deadline {
    At(SystemTime),
    In(Duration),
}

impl Deadline {
    /// Reads `2026-01-31T12:00:00Z`, with any offset, or `10m`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(time) = duration::parse(text) {
            return Ok(Deadline::In(time));
        }
        rfc3339::parse(text)
            .map(Deadline::At)
            .map_err(|why| format!("it {why}, or how long from now (90s, 10m, 1d)"))
    }

    /// When that is, by the server's clock.
    ///
    /// # Errors
    /// Where it has passed.
    pub async fn time(self, publisher: &Publisher) -> Result<SystemTime, CommandError> {
        let now = publisher.pool().now().await?;
        let at = match self {
            Deadline::At(at) => at,
            Deadline::In(time) => now + delay::bounded(time),
        };
        if at <= now {
            return Err(CommandError::usage(format!(
                "--expires {} has passed (it is {} now at the server): no handler would start",
                rfc3339::written(at),
                rfc3339::seconds(now),
            )));
        }
        Ok(at)
    }
}

/// A time as RFC 3339 writes it, in UTC or with an offset.
fn time(text: &str) -> Result<SystemTime, String> {
    rfc3339::parse(text).map_err(|why| format!("it {why}"))
}
