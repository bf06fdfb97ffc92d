//! When events are published, and how often.

use std::time::{Duration, SystemTime};

use clap::Args;

use super::CommandError;
use crate::config::duration;
use crate::publisher::{Publisher, after, at_time, once_within};
use crate::stream::How;

#[derive(Args)]
pub(super) struct WhenArgs {
    /// Publish so much later than Redis gets the events: 90s, 10m, 1d
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "at")]
    delay: Option<Duration>,
    /// Publish at this time: 2026-01-31T12:00:00Z, 2026-01-31T13:00:00+01:00
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<SystemTime>,
    /// Publish nothing whose id was published by --once before; for --id and --envelopes
    #[arg(long, conflicts_with_all = ["delay", "at"])]
    pub once: bool,
    /// How long ago "before" is at most [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "once")]
    once_within: Option<Duration>,
}

impl WhenArgs {
    /// Whether events are to be published later.
    pub fn is_later(&self) -> bool {
        self.delay.is_some() || self.at.is_some()
    }

    /// What is asked for.
    ///
    /// # Errors
    /// Where it can't be meant.
    pub async fn how(&self, publisher: &Publisher) -> Result<How, CommandError> {
        if let Some(delay) = self.delay {
            if delay.as_millis() == 0 {
                let delay = duration::format(delay);
                return Err(CommandError::usage(format!(
                    "--delay {delay} is no delay: leave it out, or write at least 1ms"
                )));
            }
            return after(delay).map_err(|error| CommandError::usage(format!("--delay: {error}")));
        }
        if let Some(at) = self.at {
            let how = at_time(at).map_err(|error| CommandError::usage(format!("--at: {error}")))?;
            let now = publisher.pool().now().await?;
            if at <= now {
                return Err(CommandError::usage(format!(
                    "--at {} has passed (it is {} now at the server): leave it out to publish at once",
                    humantime::format_rfc3339(at),
                    humantime::format_rfc3339_seconds(now),
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

/// A time as RFC 3339 writes it, in UTC or with an offset.
fn time(text: &str) -> Result<SystemTime, String> {
    const ADVICE: &str = "write it as in 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00";
    let wrong = || format!("no time with its date and its offset from UTC; {ADVICE}");
    if let Ok(time) = humantime::parse_rfc3339(text) {
        return Ok(time);
    }
    let split = text.len().checked_sub("+01:00".len());
    let (local, offset) = split
        .and_then(|at| text.split_at_checked(at))
        .ok_or_else(wrong)?;
    let (ahead, digits) = match offset.split_at_checked(1) {
        Some(("+", digits)) => (true, digits),
        Some(("-", digits)) => (false, digits),
        _ => return Err(wrong()),
    };
    let number = |text: &str, below: u64| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>()
            .ok()
            .filter(|number| digits && *number < below)
    };
    let offset = digits
        .split_once(':')
        .and_then(|(hours, minutes)| Some(number(hours, 24)? * 60 + number(minutes, 60)?))
        .map(|minutes| Duration::from_secs(60 * minutes))
        .ok_or_else(wrong)?;
    if !local.ends_with(|last: char| last.is_ascii_digit()) {
        return Err(wrong());
    }
    let local = humantime::parse_rfc3339(&format!("{local}Z")).map_err(|_| wrong())?;
    let time = match ahead {
        true => local.checked_sub(offset),
        false => local.checked_add(offset),
    };
    time.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_offset() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31T13:00:00+01:00",
            "2026-01-31T06:30:00-05:30",
            "2026-01-31T12:00:00.000-00:00",
            "2026-02-01T02:00:00+14:00",
        ] {
            assert_eq!(time(text), Ok(noon), "{text}");
        }
        for wrong in [
            "",
            "noon",
            "10m",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00:00+1:00",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+01:60",
            "2026-01-31T12:00:00Z+01:00",
            "2026-13-31T12:00:00+01:00",
            "2026-01-31T12:00:00 +01",
            "ääää",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
