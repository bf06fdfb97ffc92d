//! The dead letters of one group: where they are.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::left_out::{LeftOut, List};
use super::letter::WholeLetter;
use super::notes::LetterNotes;
use crate::config::{RedisSettings, Settings, check, stream_name};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::partition::Partition;
use crate::stream::{Connector, Keys, Pool};

/// The dead letters of one group. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct DeadLetters {
    pub(super) pool: Pool,
    group: Arc<str>,
    pub(super) streams: Arc<[Keys]>,
    /// None if nothing may be left out.
    pub(super) left_out: Option<List>,
}

impl DeadLetters {
    /// The dead letters of the group and the streams of `[worker]`. Does not connect yet.
    ///
    /// # Errors
    /// If `redis.url` is wrong.
    pub fn new(settings: &Settings) -> Result<Self> {
        let worker = &settings.worker;
        let streams = settings.streams_of(&worker.streams);
        let streams = streams.iter().map(String::as_str);
        Self::of(&settings.redis, &worker.group, streams)
    }

    /// The dead letters of any group and any of its streams.
    ///
    /// # Errors
    /// If `redis.url` is wrong, or a name can't be one.
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
                stream_name(stream).map_err(|why| invalid("stream", stream, why))?;
                Ok(Keys::new(stream, group))
            })
            .collect::<Result<_>>()?;
        Ok(DeadLetters {
            pool: pool()?,
            group: group.into(),
            streams,
            left_out: None,
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
    /// If Redis can't be reached, or refuses to say.
    pub async fn now(&self) -> Result<SystemTime> {
        self.pool.now().await
    }

    /// One letter with all that is in it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of this id; if Redis can't be reached.
    pub async fn get(&self, stream: &str, id: EntryId) -> Result<WholeLetter> {
        let at = self.place(stream)?;
        let keys = &self.streams[at];
        let head = self.pick(stream, vec![id])?.letters().next().await?;
        let entry = self.pool.letters(keys, &[id]).await?.pop().flatten();
        let Some(entry) = entry else {
            return Err(self.no_letter(stream, id));
        };
        let letter = WholeLetter::parse(entry, stream).zip(head);
        let Some((mut letter, head)) = letter else {
            let message = format!(
                "{id} in {} is no dead letter: it does not end in the fields a worker writes",
                keys.dead
            );
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        letter.head.fingerprint = head.fingerprint;
        let ticket = [letter.head.ticket()];
        let noted = self.pool.notes(keys, &ticket).await?.pop();
        letter.notes = LetterNotes::of(noted.unwrap_or_default());
        Ok(letter)
    }

    /// The same, which goes on with the other streams if the node of a cluster can't be reached that one lies at. What was
    /// left out is in [`left_out`](Self::left_out). If all that is asked for lies there, it fails as ever.
    ///
    /// ```no_run
    /// # use streamhand::dead_letters::{DeadLetters, Filter};
    /// # async fn example(dead: DeadLetters) -> streamhand::Result<()> {
    /// let dead = dead.leaving_out_unreachable();
    /// println!("{} letters", dead.groups(Filter::new()).await?.total);
    /// for left_out in dead.left_out() {
    ///     println!("but for those of {}: {}", left_out.stream, left_out.error);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn leaving_out_unreachable(mut self) -> Self {
        self.left_out = Some(List::default());
        self
    }

    /// The streams that were left out since [`leaving_out_unreachable`](Self::leaving_out_unreachable), by this one, its
    /// clones, and what they have made.
    pub fn left_out(&self) -> Vec<LeftOut> {
        self.left_out.as_ref().map(List::all).unwrap_or_default()
    }

    /// What one stream has answered; None if it is left out. `others` are those asked for that have not been left out.
    ///
    /// # Errors
    /// If it can't be left out, or is the last.
    pub(super) fn or_left_out<T>(
        &self,
        at: usize,
        asked: Result<T>,
        others: &mut usize,
    ) -> Result<Option<T>> {
        match (asked, &self.left_out) {
            (Err(error), Some(list)) if *others > 1 && self.pool.is_of_one_node(&error) => {
                *others -= 1;
                list.add(&self.streams[at].stream, error.to_string());
                Ok(None)
            }
            (asked, _) => asked.map(Some),
        }
    }

    /// Says that there is no such letter.
    pub(super) fn no_letter(&self, stream: &str, id: EntryId) -> Error {
        let message = format!(
            "there is no dead letter {id} of {stream:?} in the group {:?}: it was replayed or purged, or never was one",
            self.group
        );
        Error::new(ErrorKind::NotFound, message)
    }

    /// Where a stream is among these, or the partitions of a topic are.
    pub(super) fn places(&self, name: &str) -> Result<Vec<usize>> {
        let is_of = |keys: &Keys| Partition::parse(&keys.stream).is_some_and(|of| of.topic == name);
        let all = self.streams.iter().enumerate();
        let places: Vec<usize> = all
            .filter(|(_, keys)| is_of(keys))
            .map(|(at, _)| at)
            .collect();
        if places.is_empty() || self.streams.iter().any(|keys| keys.stream == name) {
            return Ok(vec![self.place(name)?]);
        }
        Ok(places)
    }

    /// Where a stream is among these.
    pub(super) fn place(&self, stream: &str) -> Result<usize> {
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
