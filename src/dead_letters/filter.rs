//! Which dead letters are meant.

use std::time::SystemTime;

use regex::Regex;

use super::Reason;
use crate::error::{Error, ErrorKind, Result};
use crate::rfc3339;

/// Which dead letters are meant: those that all of it lets through; all of them if nothing is set.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub(super) stream: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) reason: Option<Reason>,
    pub(super) error: Option<Regex>,
    pub(super) since: Option<SystemTime>,
    pub(super) until: Option<SystemTime>,
    pub(super) limit: Option<u64>,
    pub(super) about: Option<String>,
    pub(super) fingerprint: Option<String>,
    pub(super) brief: bool,
    pub(super) masked: bool,
}

impl Filter {
    /// Lets all letters through.
    pub fn new() -> Self {
        Filter::default()
    }

    /// Only those of this stream.
    #[must_use]
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.stream = Some(stream.into());
        self
    }

    /// Only those of this event type.
    #[must_use]
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Only those that were buried for this reason.
    #[must_use]
    pub fn reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Only those in whose error this regular expression is found.
    ///
    /// # Errors
    /// If it is none.
    pub fn error(mut self, regex: &str) -> Result<Self> {
        let compiled = Regex::new(regex).map_err(|error| {
            Error::new(
                ErrorKind::Invalid,
                format!("{regex:?} is no regular expression: {error}"),
            )
        })?;
        self.error = Some(compiled);
        Ok(self)
    }

    /// Only those buried then or later, by the server's clock: see [`DeadLetters::now`](super::DeadLetters::now).
    #[must_use]
    pub fn since(mut self, time: SystemTime) -> Self {
        self.since = Some(time);
        self
    }

    /// Only those buried then or earlier, by the server's clock: see [`DeadLetters::now`](super::DeadLetters::now).
    #[must_use]
    pub fn until(mut self, time: SystemTime) -> Self {
        self.until = Some(time);
        self
    }

    /// Only so many, the oldest of the first stream first.
    #[must_use]
    pub fn limit(mut self, letters: u64) -> Self {
        self.limit = Some(letters);
        self
    }

    /// Only those of the entry with this id, or of the event: what was buried under it, replayed copies included.
    #[must_use]
    pub fn about(mut self, id: impl Into<String>) -> Self {
        self.about = Some(id.into());
        self
    }

    /// Only those of this fingerprint, as [`DeadLetters::groups`](super::DeadLetters::groups) tells it.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: impl Into<String>) -> Self {
        self.fingerprint = Some(fingerprint.into());
        self
    }

    /// For lists that people read: long names are cut when they are read.
    pub(crate) fn brief(mut self) -> Self {
        self.brief = true;
        self
    }

    /// Errors are told without what differs among letters that are alike, besides.
    pub(super) fn with_masked(mut self) -> Self {
        self.masked = true;
        self
    }

    /// Refuses what no letter can meet.
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
        if let Some(fingerprint) = &self.fingerprint
            && !(fingerprint.len() == 12 && fingerprint.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return invalid(format!(
                "{fingerprint:?} is no fingerprint: they have 12 hexadecimal digits, as dlq groups shows them"
            ));
        }
        match (self.since, self.until) {
            (Some(since), Some(until)) if since > until => invalid(format!(
                "nothing is since {} and until {}: the second is earlier",
                rfc3339::seconds(since),
                rfc3339::seconds(until)
            )),
            _ => Ok(()),
        }
    }
}
