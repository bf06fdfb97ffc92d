//! Pausing and resuming, for a whole group: a stream, or one handler's entries in it.

use std::time::UNIX_EPOCH;

use super::{Admin, check_stream};
use crate::error::{Error, ErrorKind, Result};
use crate::event_type;
use crate::stream::{Keys, Pausable, PauseNote};

/// What became of [`Admin::pause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Paused {
    /// False where it was paused before: then that pause stays as it is, with its time and its author.
    pub is_new: bool,
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
        self.pause_one(stream, Pausable::Stream, by).await
    }

    /// The same of the entries of one event type alone.
    ///
    /// # Errors
    /// As [`pause`](Self::pause), and where no event type can have this name.
    pub async fn pause_handler(&self, stream: &str, event_type: &str, by: &str) -> Result<Paused> {
        self.pause_one(stream, handler(event_type)?, by).await
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

    async fn pause_one(&self, stream: &str, what: Pausable, by: &str) -> Result<Paused> {
        check_stream(stream)?;
        let now = self.pool.now().await?.duration_since(UNIX_EPOCH);
        let note = PauseNote {
            since_ms: now.unwrap_or_default().as_millis() as u64,
            by: by.to_owned(),
        };
        let keys = Keys::new(stream, self.group());
        let is_new = self.pool.pause(&keys, &what, &note).await?;
        Ok(Paused { is_new })
    }

    async fn resume_one(&self, stream: &str, what: Pausable) -> Result<Resumed> {
        check_stream(stream)?;
        let keys = Keys::new(stream, self.group());
        let was_paused = self.pool.resume(&keys, &what).await?;
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
