//! Events that are to be published later: listed, cancelled, and whether they come at all, for they come to a stream by
//! its workers alone.

use std::time::Duration;

use super::{Admin, check_stream};
use crate::error::Result;
use crate::publisher::{Publisher, ScheduledEvents, Topics};
use crate::stream::{self, Adding, Pool, Readers, StreamKeys, Wanted};

/// Workers that were there so recently are being restarted.
const RESTART: Duration = Duration::from_secs(5 * 60);
/// What is later than this was not added because nobody does.
const LATE: Duration = Duration::from_secs(60);

/// Why a stream's scheduled events don't come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadSchedule {
    /// Who does not read the stream.
    pub why: Unread,
    /// How long the first of them has been due, where that is too long.
    pub overdue: Option<Duration>,
}

/// Since when no worker reads a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unread {
    /// None ever has.
    NeverRead,
    /// The last was seen so long ago.
    NotSeenFor(Duration),
    /// There was one, and none is there now.
    NobodyThere,
}

/// An event that is to be cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ScheduledId {
    /// Its id.
    pub id: String,
    /// Its type and its source (empty where it has none), where several events have this id.
    pub of: Option<(String, String)>,
}

/// What became of an event that was to be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancelled {
    /// It will not be published.
    Yes,
    /// No event with this id waits for its time: it was published or cancelled, or never was scheduled.
    No,
    /// So many have this id, and none of them was cancelled: say which by its type and source.
    Which(u64),
}

impl Admin {
    /// The events of `stream` that wait for their time, the first due first.
    ///
    /// # Errors
    /// Where no stream can have this name.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// let mut events = admin.scheduled("orders")?;
    /// while let Some(event) = events.next().await? {
    ///     println!("{:?}: {}", event.at, event.id);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn scheduled(&self, stream: &str) -> Result<ScheduledEvents> {
        self.publisher().scheduled(stream)
    }

    /// Cancels events that wait for their time. Returns what became of each, in their order.
    ///
    /// # Errors
    /// Where no stream can have this name, or Redis can't be reached; some may be cancelled by then, and cancelling
    /// them once more does no harm.
    ///
    /// ```no_run
    /// use streamhand::admin::{Cancelled, ScheduledId};
    ///
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// let reminder = ScheduledId::new("reminder-7").of("order.reminded", "shop");
    /// let cancelled = admin.cancel_scheduled("orders", &[reminder]).await?;
    /// assert_eq!(cancelled, [Cancelled::Yes]);
    /// # Ok(()) }
    /// ```
    pub async fn cancel_scheduled(
        &self,
        stream: &str,
        events: &[ScheduledId],
    ) -> Result<Vec<Cancelled>> {
        check_stream(stream)?;
        let wanted: Vec<Wanted<'_>> = events.iter().map(ScheduledId::wanted).collect();
        let cancelled = self
            .publisher()
            .cancel_all_scheduled(stream, &wanted)
            .await?;
        let outcome = |cancelled| match cancelled {
            stream::Cancelled::Yes => Cancelled::Yes,
            stream::Cancelled::No => Cancelled::No,
            stream::Cancelled::Which(many) => Cancelled::Which(many),
        };
        Ok(cancelled.into_iter().map(outcome).collect())
    }

    /// Why scheduled events of `stream` do not come, if there is no worker to add them. Workers that are merely
    /// restarting are no reason.
    ///
    /// # Errors
    /// Where Redis can't be reached or refuses to say, or no stream can have this name.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// if let Some(unread) = admin.unread_schedule("orders").await? {
    ///     println!("nobody adds what is scheduled: {:?}", unread.why);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn unread_schedule(&self, stream: &str) -> Result<Option<UnreadSchedule>> {
        check_stream(stream)?;
        for stream in self.streams_of(stream) {
            if let Some(found) = unread(&self.pool, &stream).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn publisher(&self) -> Publisher {
        let topics = Topics::of_settings(&self.settings);
        Publisher::with_pool(self.pool.clone()).with_topics(topics)
    }
}

impl ScheduledId {
    /// The event with this id.
    pub fn new(id: impl Into<String>) -> Self {
        ScheduledId {
            id: id.into(),
            of: None,
        }
    }

    /// The one of this type and source, of several with this id. An empty source is none.
    #[must_use]
    pub fn of(mut self, event_type: impl Into<String>, source: impl Into<String>) -> Self {
        self.of = Some((event_type.into(), source.into()));
        self
    }

    fn wanted(&self) -> Wanted<'_> {
        let of = self.of.as_ref();
        Wanted {
            id: &self.id,
            of: of.map(|(event_type, source)| (&event_type[..], &source[..])),
        }
    }
}

/// Why a stream's scheduled events do not come, if that is so. Workers that are merely restarting are no reason.
pub(crate) async fn unread(pool: &Pool, stream: &str) -> Result<Option<UnreadSchedule>> {
    let Adding { readers, overdue } = pool.adding(&StreamKeys::new(stream)).await?;
    let why = match readers {
        Readers::Now => return Ok(None),
        Readers::Never => Unread::NeverRead,
        Readers::Ago(ago) if ago >= RESTART => Unread::NotSeenFor(ago),
        Readers::Ago(_) | Readers::Once if overdue >= LATE => Unread::NobodyThere,
        Readers::Ago(_) | Readers::Once => return Ok(None),
    };
    Ok(Some(UnreadSchedule {
        why,
        overdue: (overdue >= LATE).then_some(overdue),
    }))
}
