//! Pausing and resuming, for a whole group: a stream, or one handler's entries in it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Admin, check_stream};
use crate::error::{Error, ErrorKind, Result};
use crate::event_type;
use crate::stream::{Keys, NewPause, Pausable};

/// The longest pause that ends by itself.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What became of [`Admin::pause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Paused {
    /// False where it was paused before: then that pause stays as it is, with its time and its author.
    pub is_new: bool,
    /// When it ends by itself, by the server's clock; None where it has to be resumed.
    pub until: Option<SystemTime>,
}

/// What to pause, and how: see [`Admin::pause_with`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct PauseRequest {
    stream: String,
    handler: Option<String>,
    by: String,
    lasts: Option<Duration>,
    reason: Option<String>,
}

impl PauseRequest {
    /// All of a stream, until it is resumed. `by` says who does it, for [`status`](Admin::status) to tell.
    pub fn of(stream: impl Into<String>, by: impl Into<String>) -> Self {
        PauseRequest {
            stream: stream.into(),
            handler: None,
            by: by.into(),
            lasts: None,
            reason: None,
        }
    }

    /// The entries of this event type alone.
    pub fn handler(mut self, event_type: impl Into<String>) -> Self {
        self.handler = Some(event_type.into());
        self
    }

    /// It ends by itself after so long, even if whoever asked for it is gone. If it is paused already, that pause ends
    /// then.
    pub fn lasts(mut self, duration: Duration) -> Self {
        self.lasts = Some(duration);
        self
    }

    /// Why, for [`status`](Admin::status) to tell.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

/// What became of [`Admin::resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumed {
    /// False where nothing was paused.
    pub was_paused: bool,
}

impl Admin {
    /// Stops all workers of the group from starting entries of `stream`, until it is [resumed](Self::resume). What runs
    /// runs on. `by` says who did it, for [`status`](Self::status) to tell.
    ///
    /// # Errors
    /// Where Redis can't be reached or refuses it, or no stream can have this name.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// admin.pause("orders", "alice").await?;
    /// admin.pause_handler("orders", "order.created", "alice").await?;
    /// # Ok(()) }
    /// ```
    pub async fn pause(&self, stream: &str, by: &str) -> Result<Paused> {
        self.pause_with(PauseRequest::of(stream, by)).await
    }

    /// The same of the entries of one event type alone.
    ///
    /// # Errors
    /// As [`pause`](Self::pause), and where no event type can have this name.
    pub async fn pause_handler(&self, stream: &str, event_type: &str, by: &str) -> Result<Paused> {
        self.pause_with(PauseRequest::of(stream, by).handler(event_type))
            .await
    }

    /// The same with more to say: what of it, for how long, and why.
    ///
    /// # Errors
    /// As [`pause_handler`](Self::pause_handler), and where it is to last no time, or longer than a year.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use streamhand::admin::PauseRequest;
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// let pause = PauseRequest::of("orders", "alice").lasts(Duration::from_secs(3600)).reason("deploy 417");
    /// admin.pause_with(pause).await?;
    /// # Ok(()) }
    /// ```
    pub async fn pause_with(&self, request: PauseRequest) -> Result<Paused> {
        check_stream(&request.stream)?;
        let what = match &request.handler {
            None => Pausable::Stream,
            Some(event_type) => handler(event_type)?,
        };
        if let Some(lasts) = request
            .lasts
            .filter(|lasts| lasts.is_zero() || *lasts > LONGEST)
        {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "a pause of {} is none: give it from 1ms to 365d, or no end",
                    crate::duration::format(lasts)
                ),
            ));
        }
        let new = NewPause {
            by: &request.by,
            lasts: request.lasts,
            reason: request.reason.as_deref(),
        };
        let mut paused = Paused {
            is_new: false,
            until: None,
        };
        // A topic is paused once all of its partitions are; who is stopped half-way asks again.
        for stream in self.streams_of(&request.stream) {
            let keys = Keys::new(&stream, self.group());
            let (is_new, until) = self.pool.pause(&keys, &what, &new).await?;
            paused.is_new |= is_new;
            paused.until = until.map(|ms| UNIX_EPOCH + Duration::from_millis(ms));
        }
        Ok(paused)
    }

    /// Ends a pause of `stream`. Dropped half-way it has ended, or can be ended by another call.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// if !admin.resume("orders").await?.was_paused {
    ///     println!("orders was not paused");
    /// }
    /// admin.resume_handler("orders", "order.created").await?;
    /// # Ok(()) }
    /// ```
    pub async fn resume(&self, stream: &str) -> Result<Resumed> {
        self.resume_one(stream, Pausable::Stream).await
    }

    /// The same of the entries of one event type.
    ///
    /// # Errors
    /// As [`pause_handler`](Self::pause_handler).
    pub async fn resume_handler(&self, stream: &str, event_type: &str) -> Result<Resumed> {
        self.resume_one(stream, handler(event_type)?).await
    }

    async fn resume_one(&self, stream: &str, what: Pausable) -> Result<Resumed> {
        check_stream(stream)?;
        let mut was_paused = false;
        for stream in self.streams_of(stream) {
            let keys = Keys::new(&stream, self.group());
            was_paused |= self.pool.resume(&keys, &what).await?;
        }
        Ok(Resumed { was_paused })
    }
}

fn handler(event_type: &str) -> Result<Pausable> {
    match event_type::check(event_type) {
        Ok(()) => Ok(Pausable::Handler(event_type.to_owned())),
        Err(why) => Err(Error::new(
            ErrorKind::Invalid,
            format!("the event type {event_type:?} {why}"),
        )),
    }
}
