//! Dead letters: looking through them, giving them back to their group, deleting them.
//!
//! A [`DeadLetters`] knows the streams of one group. A [`Filter`] or a list of ids makes a [`Selection`] of it, which
//! ends at the newest letter of when it was made, so that what dies again while it is replayed is not replayed
//! again. However many letters there are and however large, only a few are in memory at once.
//!
//! ```no_run
//! # use streamhand::{Settings, dead_letters::{DeadLetters, Filter}};
//! # async fn example(settings: &Settings) -> streamhand::Result<()> {
//! let dead = DeadLetters::new(settings)?;
//! let timeouts = dead.select(Filter::new().reason("failed").error("timed out")?).await?;
//! let mut letters = timeouts.letters();
//! while let Some(letter) = letters.next().await? {
//!     println!("{} {:?}: {}", letter.id, letter.event_type, letter.error);
//! }
//! let run = timeouts.replay("alice@ops", None, |_| ()).await?;
//! println!("replayed {}", run.replayed);
//! # Ok(()) }
//! ```

mod export;
mod filter;
mod letter;
mod letters;
mod selection;

pub use export::Exported;
pub use filter::{Filter, REASONS};
pub use letter::{DeadLetter, WholeLetter};
pub use letters::Letters;
pub use selection::{Counted, Replayed, Selection, Stats, Tally};

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::{RedisSettings, Settings, check};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::stream::{Connector, Keys, Pool};

/// The dead letters of one group. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct DeadLetters {
    pool: Pool,
    group: Arc<str>,
    streams: Arc<[Keys]>,
}

impl DeadLetters {
    /// The dead letters of the group and the streams of `[worker]`. Does not connect yet.
    ///
    /// # Errors
    /// Where `redis.url` is wrong.
    pub fn new(settings: &Settings) -> Result<Self> {
        let worker = &settings.worker;
        let streams = worker.streams.iter().map(String::as_str);
        Self::of(&settings.redis, &worker.group, streams)
    }

    /// The dead letters of any group and any of its streams.
    ///
    /// # Errors
    /// Where `redis.url` is wrong, or a name can't be one.
    pub fn of<'a>(
        redis: &RedisSettings,
        group: &str,
        streams: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        let pool = || Connector::new(redis)?.pool(redis.pool_size);
        Self::at(pool, group, streams)
    }

    /// The same, over connections of a pool.
    pub(crate) fn at<'a>(
        pool: impl FnOnce() -> Result<Pool>,
        group: &str,
        streams: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        let invalid = |what: &str, name: &str, why: String| {
            Error::new(
                ErrorKind::Invalid,
                format!("the {what} name {name:?} {why}"),
            )
        };
        check::group_name(group).map_err(|why| invalid("group", group, why))?;
        let streams = streams
            .into_iter()
            .map(|stream| {
                check::stream_name(stream).map_err(|why| invalid("stream", stream, why))?;
                Ok(Keys::new(stream, group))
            })
            .collect::<Result<_>>()?;
        Ok(DeadLetters {
            pool: pool()?,
            group: group.into(),
            streams,
        })
    }

    /// The group whose letters they are.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The streams whose letters they are.
    pub fn streams(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().map(|keys| &keys.stream[..])
    }

    /// The server's time, which all times of letters are of: "older than 30 days" is `until` 30 days before it. The
    /// clock of this machine may be wrong.
    ///
    /// # Errors
    /// Where Redis can't be reached, or refuses to say.
    pub async fn now(&self) -> Result<SystemTime> {
        self.pool.now().await
    }

    /// The letters that `filter` lets through and that are there now: the oldest first, stream by stream.
    ///
    /// # Errors
    /// Where Redis can't be reached, or the filter names a stream that is none of these.
    pub async fn select(&self, filter: Filter) -> Result<Selection> {
        Selection::filtered(self.clone(), filter).await
    }

    /// These letters of one stream, in this order.
    ///
    /// # Errors
    /// Where `stream` is none of these.
    pub fn pick(&self, stream: &str, ids: Vec<EntryId>) -> Result<Selection> {
        let at = self.place(stream)?;
        Ok(Selection::picked(self.clone(), at, ids))
    }

    /// The letter of this id, or, where there is none, those of the entry or the event that has it: what was buried
    /// under it, replayed copies included. None of them where there is nothing of the kind.
    ///
    /// # Errors
    /// Where `stream` is none of these, or Redis can't be reached.
    pub async fn find(&self, stream: &str, id: &str) -> Result<Vec<DeadLetter>> {
        if let Ok(id) = id.parse()
            && let Some(letter) = self.pick(stream, vec![id])?.letters().next().await?
        {
            return Ok(vec![letter]);
        }
        let about = self.select(Filter::new().stream(stream).about(id)).await?;
        let (mut letters, mut found) = (about.letters(), Vec::new());
        while let Some(letter) = letters.next().await? {
            found.push(letter);
        }
        Ok(found)
    }

    /// One letter with all that is in it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none of this id; where Redis can't be reached.
    pub async fn get(&self, stream: &str, id: EntryId) -> Result<WholeLetter> {
        let keys = &self.streams[self.place(stream)?];
        let entry = self.pool.letters(keys, &[id]).await?.pop().flatten();
        let Some(entry) = entry else {
            let message = format!(
                "there is no dead letter {id} of {stream:?} in the group {:?}: it was replayed or purged, or never was one",
                self.group
            );
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        WholeLetter::parse(entry, stream).ok_or_else(|| {
            let message = format!(
                "{id} in {} is no dead letter: it does not end in the fields a worker writes",
                keys.dead
            );
            Error::new(ErrorKind::NotFound, message)
        })
    }

    /// Where a stream is among these.
    fn place(&self, stream: &str) -> Result<usize> {
        let found = self.streams.iter().position(|keys| keys.stream == stream);
        found.ok_or_else(|| {
            let known: Vec<String> = self.streams().map(|name| format!("{name:?}")).collect();
            let message = format!(
                "the stream {stream:?} is none of those that the group {:?} reads: {}",
                self.group,
                known.join(", ")
            );
            Error::new(ErrorKind::Invalid, message)
        })
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters")
            .field("group", &self.group)
            .field("streams", &self.streams().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
