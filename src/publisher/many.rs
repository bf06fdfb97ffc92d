//! What is said of many events that were to be published and are not all in.

use std::fmt;

use crate::error::{Error, ErrorKind};
use crate::event::{EntryId, Envelope};
use crate::stream::{Appended, Done, Fate};

/// What became of one of many events.
#[derive(Debug)]
#[non_exhaustive]
pub enum Published {
    /// It is in its stream, as this entry.
    Added(EntryId),
    /// It is as well, and fewer replicas are known to have it than were asked for: a failover may lose it.
    NotReplicated(EntryId),
    /// It is not: Redis refused it, for this reason.
    Refused(Error),
    /// It was sent, and there was no answer: it may be in its stream or not.
    Unknown,
    /// It is not: it was not sent, or nothing was done with it.
    NotSent,
}

/// Publishing many events came to an end before all of them were in. It says of each what became of it, and has the
/// events as they were sent: those that are published again have the ids they had, by which handlers know them.
///
/// ```no_run
/// # use streamhand::{Event, Publisher, PublishError};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { order_id: String }
/// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
/// # async fn example(publisher: Publisher, orders: Vec<OrderCreated>) -> streamhand::Result<()> {
/// if let Err(error) = publisher.publish_many("orders", &orders).await {
///     eprintln!("{error}; once more");
///     publisher.publish_envelopes("orders", error.into_rest()).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PublishError {
    error: Error,
    events: Vec<(Envelope, Published)>,
}

impl PublishError {
    /// An error before anything was sent.
    pub(super) fn before(error: Error, events: Vec<Envelope>) -> Self {
        let events = events.into_iter().map(|event| (event, Published::NotSent));
        PublishError {
            error,
            events: events.collect(),
        }
    }

    /// What kind of error the first one was.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// Every event, in the order in which they were given, and what became of it. There are none if an event could
    /// not be encoded: then nothing was sent.
    pub fn events(&self) -> impl ExactSizeIterator<Item = (&Envelope, &Published)> {
        self.events
            .iter()
            .map(|(event, published)| (event, published))
    }

    /// The events that are not known to be in, in their order, to be published again: not those that are in, and not known to
    /// be [with replicas](Published::NotReplicated). Those that are [`Unknown`] among
    /// them may come to be on the stream twice, under one id.
    ///
    /// [`Unknown`]: Published::Unknown
    pub fn into_rest(self) -> Vec<Envelope> {
        let rest = self.events.into_iter();
        let is_in =
            |one: &Published| matches!(one, Published::Added(_) | Published::NotReplicated(_));
        rest.filter(|(_, published)| !is_in(published))
            .map(|(event, _)| event)
            .collect()
    }

    fn count(&self, which: impl Fn(&Published) -> bool) -> usize {
        self.events.iter().filter(|(_, one)| which(one)).count()
    }
}

/// The ids of all events, or what became of each if they are not all in.
pub(super) fn added(
    events: Vec<Envelope>,
    appended: Appended,
) -> Result<Vec<EntryId>, PublishError> {
    let ids = appended.fates.iter().map(|fate| match fate {
        Fate::Done(done) => done.entry(),
        _ => None,
    });
    if let Some(ids) = ids.collect() {
        return Ok(ids);
    }
    let mut first = appended.broken;
    let published = appended.fates.into_iter().map(|fate| match fate {
        Fate::Done(Done::Added(id) | Done::AddedBefore(id)) => Published::Added(id),
        Fate::NotReplicated(done, why) => {
            if first.is_none() {
                first = Some(done.not_replicated(why).into_error());
            }
            done.entry()
                .map_or(Published::Unknown, Published::NotReplicated)
        }
        Fate::Done(Done::Scheduled { .. }) | Fate::InDoubt => Published::Unknown,
        Fate::NotSent => Published::NotSent,
        Fate::Refused(error) => {
            if first.is_none() {
                first = Some(Error::new(error.kind(), error.to_string()));
            }
            Published::Refused(error)
        }
    });
    let events = events.into_iter().zip(published).collect();
    Err(PublishError {
        error: first.unwrap_or_else(|| Error::new(ErrorKind::Redis, "Redis gave an event no id")),
        events,
    })
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let all = self.events.len();
        if all < 2 {
            return Ok(());
        }
        let added = self.count(|one| matches!(one, Published::Added(_)));
        write!(f, "; {added} of {all} events are published")?;
        match self.count(|one| matches!(one, Published::NotReplicated(_))) {
            0 => {}
            stored => write!(f, ", {stored} are stored and not known to be replicated")?,
        }
        match self.count(|one| matches!(one, Published::Unknown)) {
            0 => Ok(()),
            unknown => write!(f, ", and of {unknown} it is not known"),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

/// What became of each event is lost, and told in numbers.
impl From<PublishError> for Error {
    fn from(error: PublishError) -> Self {
        if error.events.len() < 2 {
            return error.error;
        }
        let message = error.to_string();
        Error::new(error.kind(), message).with_source(error.error)
    }
}
