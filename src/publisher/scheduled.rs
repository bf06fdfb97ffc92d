//! Events that are published later: kept in Redis until their time has come, then added to their stream by any of its
//! workers.

use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Publisher, Topics};
use crate::codec::{self, Encodable};
use crate::config::check_stream;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Entry, EntryId, Envelope, Event, with_id};
use crate::names::shown;
use crate::pages::{Pages, Source};
use crate::rfc3339;
use crate::stream::{Cancelled, Done, How, Kept, LAST_MS, Place, Pool, StreamKeys, Wanted, time};

/// An event that is to be published later.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scheduled {
    /// The event's id, by which it is cancelled.
    pub id: String,
    /// When it is due.
    pub at: SystemTime,
    /// False where the event was scheduled before: that one is kept as it was.
    pub is_new: bool,
    /// Whether it has taken the place of what was scheduled before: its data, its time and its turn.
    pub replaced: bool,
}

/// An event that waits for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduledEvent {
    /// The stream it is for.
    pub stream: String,
    /// The event's id.
    pub id: String,
    /// When it is due.
    pub at: SystemTime,
    /// The event; None where other hands than ours have deleted it, or written what is none.
    pub event: Option<Envelope>,
}

/// The events of a stream that wait for their time, by [`Publisher::scheduled`]: a `Stream`, and
/// [`next`](Self::next) for who has no use for one.
///
/// A wait for the next one can be dropped: nothing is passed over. Behind an error it can be asked again, and goes on.
#[must_use = "it reads nothing before it is asked"]
pub struct ScheduledEvents {
    /// The streams there are, as far as they have not been asked for: a topic may have grown.
    streams: Option<Pages<Streams>>,
    pool: Pool,
    /// Those of a stream, or of each partition of a topic.
    pages: Vec<Pages<Waiting>>,
    /// The next of each, as far as it is known and has not been given away; None behind the last one.
    heads: Vec<Option<Option<ScheduledEvent>>>,
}

/// The streams of a topic, all on one page.
struct Streams {
    topics: Topics,
    pool: Pool,
    topic: String,
    is_told: bool,
}

/// Where the next page begins.
struct Waiting {
    pool: Pool,
    keys: StreamKeys,
    place: Option<Place>,
    more: bool,
    /// Those told last that have the same due time: they may come again where one of them has gone meanwhile.
    told: HashSet<Vec<u8>>,
}

impl Publisher {
    /// Publishes one event to `stream` at this time; at once where it has passed. Until then it can be
    /// [cancelled](Self::cancel_scheduled).
    ///
    /// An event of the same id, type and source that is scheduled for the same time is the same event: nothing changes,
    /// and that it is scheduled is answered, so that a call whose answer got lost can be repeated.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); [`ErrorKind::Exists`] where the same event is scheduled for another time, or with
    /// other data; [`ErrorKind::Invalid`] where the time lies behind the year 9999.
    pub async fn publish_at<E: Event + Encodable>(
        &self,
        stream: &str,
        event: &E,
        at: SystemTime,
    ) -> Result<Scheduled> {
        let envelope = self.envelope(event)?;
        self.publish_envelope_at(stream, envelope, at).await
    }

    /// As [`publish_at`](Self::publish_at), with an event that is ready made.
    ///
    /// # Errors
    /// As [`publish_at`](Self::publish_at).
    pub async fn publish_envelope_at(
        &self,
        stream: &str,
        envelope: Envelope,
        at: SystemTime,
    ) -> Result<Scheduled> {
        self.schedule(stream, envelope, at_time(at)?).await
    }

    /// Publishes one event to `stream` so much later than Redis gets it, by the clock of Redis. Until then it can be
    /// [cancelled](Self::cancel_scheduled).
    ///
    /// Where the same event is scheduled, it stays as it is, and its time is answered: a repeat delays nothing.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); [`ErrorKind::Exists`] where the event is scheduled with other data;
    /// [`ErrorKind::Invalid`] where the time lies behind the year 9999.
    pub async fn publish_after<E: Event + Encodable>(
        &self,
        stream: &str,
        event: &E,
        delay: Duration,
    ) -> Result<Scheduled> {
        let envelope = self.envelope(event)?;
        self.publish_envelope_after(stream, envelope, delay).await
    }

    /// As [`publish_after`](Self::publish_after), with an event that is ready made.
    ///
    /// # Errors
    /// As [`publish_after`](Self::publish_after).
    pub async fn publish_envelope_after(
        &self,
        stream: &str,
        envelope: Envelope,
        delay: Duration,
    ) -> Result<Scheduled> {
        self.schedule(stream, envelope, after(delay)?).await
    }

    /// As [`publish_envelope_at`](Self::publish_envelope_at), in place of the event of the same id, type and source that waits
    /// for its time: its data, its time and its turn are those of the one that is given now. If none waits it is scheduled as
    /// any other, even if one has come to its stream: ask [`cancel_scheduled`](Self::cancel_scheduled) first if that matters.
    ///
    /// Of a topic that waits in the partition of the event's subject which is replaced: give the same subject.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); [`ErrorKind::Invalid`] where the event has no id, or the time lies behind the year 9999.
    pub async fn replace_envelope_at(
        &self,
        stream: &str,
        envelope: Envelope,
        at: SystemTime,
    ) -> Result<Scheduled> {
        known_again(&envelope)?;
        let how = replacing(at_time(at)?);
        self.schedule(stream, envelope, how).await
    }

    /// The same, so much later than Redis gets it, by the clock of Redis. Called again and again it debounces: the event comes
    /// once so long after the last call, with what that one said. An event that is replaced for ever never comes.
    ///
    /// ```no_run
    /// # async fn example(publisher: streamhand::Publisher) -> streamhand::Result<()> {
    /// use std::time::Duration;
    /// use streamhand::Envelope;
    ///
    /// let changed = Envelope::new("cart.changed").with("id", "cart-7").json(&"three items")?;
    /// publisher.replace_envelope_after("carts", changed, Duration::from_secs(5)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`replace_envelope_at`](Self::replace_envelope_at).
    pub async fn replace_envelope_after(
        &self,
        stream: &str,
        envelope: Envelope,
        delay: Duration,
    ) -> Result<Scheduled> {
        known_again(&envelope)?;
        let how = replacing(after(delay)?);
        self.schedule(stream, envelope, how).await
    }

    /// The events of `stream` that wait for their time, the first due first.
    ///
    /// # Errors
    /// Where the stream's name can't be one.
    pub fn scheduled(&self, stream: &str) -> Result<ScheduledEvents> {
        check_stream(stream)?;
        Ok(ScheduledEvents {
            streams: Some(Pages::of(Streams {
                topics: self.topics.clone(),
                pool: self.pool.clone(),
                topic: stream.to_owned(),
                is_told: false,
            })),
            pool: self.pool.clone(),
            heads: Vec::new(),
            pages: Vec::new(),
        })
    }

    /// Takes the event with this id off, so that it will not be published. Answers whether it waited for its time:
    /// where it did not it has been published or cancelled, or never was scheduled.
    ///
    /// # Errors
    /// Where the stream's name can't be one, or Redis can't be reached or refuses it. [`ErrorKind::Invalid`] where
    /// several events with this id wait, of other types or sources: see
    /// [`cancel_scheduled_event`](Self::cancel_scheduled_event).
    pub async fn cancel_scheduled(&self, stream: &str, id: &str) -> Result<bool> {
        self.cancel_one(stream, id, None).await
    }

    /// As [`cancel_scheduled`](Self::cancel_scheduled), with the event itself: of several with one id the one with its
    /// type and its source.
    ///
    /// # Errors
    /// As [`cancel_scheduled`](Self::cancel_scheduled), and where the event has no id.
    pub async fn cancel_scheduled_event(&self, stream: &str, event: &Envelope) -> Result<bool> {
        if !event.says("id") {
            let message = "an event without an id can't be cancelled: it is known by that";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let event = self.with_source(event.clone());
        let of = (event.event_type(), event.source().unwrap_or_default());
        self.cancel_one(stream, &event.id(), Some(of)).await
    }

    async fn cancel_one(&self, stream: &str, id: &str, of: Option<(&str, &str)>) -> Result<bool> {
        let wanted = [Wanted { id, of }];
        let cancelled = self.cancel_all_scheduled(stream, &wanted).await?;
        match cancelled[..] {
            [Cancelled::Which(many)] => Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "{many} events with the id \"{}\" wait for their time: say which by its type and source",
                    shown(id)
                ),
            )),
            _ => Ok(cancelled == [Cancelled::Yes]),
        }
    }

    /// As [`cancel_scheduled`](Self::cancel_scheduled), for many.
    pub(crate) async fn cancel_all_scheduled(
        &self,
        stream: &str,
        events: &[Wanted<'_>],
    ) -> Result<Vec<Cancelled>> {
        check_stream(stream)?;
        self.within(self.topics.place(&self.pool, stream)).await?;
        let mut all = vec![Cancelled::No; events.len()];
        for stream in self.topics.streams(stream) {
            let pool = self.pool.at(&stream);
            let keys = StreamKeys::new(&stream);
            let cancelled = self.within(pool.cancel(&keys, events)).await?;
            for (all, one) in all.iter_mut().zip(cancelled) {
                if one != Cancelled::No {
                    *all = one;
                }
            }
        }
        Ok(all)
    }

    async fn schedule(&self, stream: &str, envelope: Envelope, how: How) -> Result<Scheduled> {
        // Known here, so that it can be answered.
        let envelope = with_id(envelope);
        let id = envelope.id().into_owned();
        match self.append_one(stream, &how, envelope).await? {
            Done::Scheduled {
                due_ms,
                is_new,
                replaced,
            } => Ok(Scheduled {
                id,
                at: time(due_ms),
                is_new,
                replaced,
            }),
            _ => Err(Error::new(
                ErrorKind::Redis,
                "Redis does not say what became of the event",
            )),
        }
    }
}

impl ScheduledEvents {
    /// The next event; None at the end. What is scheduled or published meanwhile may be among them or not.
    ///
    /// # Errors
    /// Where Redis can't be reached, or refuses to say.
    pub async fn next(&mut self) -> Result<Option<ScheduledEvent>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx))
            .await
            .transpose()
    }
}

impl fmt::Debug for ScheduledEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScheduledEvents")
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}

impl Stream for ScheduledEvents {
    type Item = Result<ScheduledEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let ScheduledEvents {
            streams,
            pool,
            pages,
            heads,
        } = &mut *self;
        while let Some(asked) = streams {
            match ready!(Pin::new(asked).poll_next(cx)).transpose()? {
                Some(stream) => {
                    heads.push(None);
                    pages.push(Pages::of(Waiting::of(pool, &stream)));
                }
                None => *streams = None,
            }
        }
        for (pages, head) in pages.iter_mut().zip(heads.iter_mut()) {
            if head.is_none() {
                *head = Some(ready!(Pin::new(pages).poll_next(cx)).transpose()?);
            }
        }
        let due = |head: &Option<Option<ScheduledEvent>>| Some(head.as_ref()?.as_ref()?.at);
        let known = heads.iter_mut().filter(|head| due(head).is_some());
        let first = known.min_by_key(|head| due(head));
        Poll::Ready(first.and_then(Option::take).flatten().map(Ok))
    }
}

impl Source for Streams {
    type Item = String;

    async fn page(&mut self) -> Result<Option<Vec<String>>> {
        if self.is_told {
            return Ok(None);
        }
        self.topics.place(&self.pool, &self.topic).await?;
        self.is_told = true;
        Ok(Some(self.topics.streams(&self.topic)))
    }
}

impl Waiting {
    /// What waits for its time in a stream, from the beginning.
    fn of(pool: &Pool, stream: &str) -> Self {
        Waiting {
            pool: pool.at(stream),
            keys: StreamKeys::new(stream),
            place: None,
            more: true,
            told: HashSet::new(),
        }
    }
}

impl Source for Waiting {
    type Item = ScheduledEvent;

    async fn page(&mut self) -> Result<Option<Vec<ScheduledEvent>>> {
        if !self.more {
            return Ok(None);
        }
        let (page, more) = self.pool.scheduled(&self.keys, self.place.as_ref()).await?;
        self.more = more && !page.is_empty();
        let mut events = Vec::with_capacity(page.len());
        for kept in page {
            let last = self.place.replace(kept.place.clone());
            if last.is_none_or(|last| last.due != kept.place.due) {
                self.told.clear();
            }
            if self.told.insert(kept.place.name.clone()) {
                events.push(event(&self.keys.stream, kept));
            }
        }
        Ok(Some(events))
    }
}

impl Serialize for ScheduledEvent {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let event = self.event.as_ref();
        let mut map = to.serialize_struct("ScheduledEvent", 7)?;
        map.serialize_field("stream", &self.stream)?;
        map.serialize_field("id", &self.id)?;
        map.serialize_field("at", &rfc3339::millis(self.at))?;
        map.serialize_field("type", &event.map(|event| event.event_type()))?;
        map.serialize_field("subject", &event.and_then(|event| event.subject()))?;
        map.serialize_field("source", &event.and_then(|event| event.source()))?;
        map.serialize_field("bytes", &event.map(|event| event.fields().size()))?;
        map.end()
    }
}

/// The same, in place of what waits.
pub(crate) fn replacing(how: How) -> How {
    match how {
        How::At(due) => How::ReplaceAt(due),
        How::After(delay) => How::ReplaceAfter(delay),
        how => how,
    }
}

/// What is replaced is known by its id.
fn known_again(envelope: &Envelope) -> Result<()> {
    if envelope.says("id") {
        return Ok(());
    }
    let message = "an event without an id replaces none: it is known by that";
    Err(Error::new(ErrorKind::Invalid, message))
}

/// At this time, where it can be written.
pub(crate) fn at_time(at: SystemTime) -> Result<How> {
    // What lies before 1970 has passed as well.
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let ms = since.unwrap_or_default().as_millis();
    match u64::try_from(ms) {
        Ok(ms) if ms <= LAST_MS => Ok(How::At(ms)),
        _ => Err(too_far()),
    }
}

/// After this delay, where the time can be written.
pub(crate) fn after(delay: Duration) -> Result<How> {
    match SystemTime::now().checked_add(delay) {
        Some(at) => at_time(at).map(|_| How::After(delay)),
        None => Err(too_far()),
    }
}

fn too_far() -> Error {
    Error::new(
        ErrorKind::Invalid,
        "that is too far in the future: nothing can be scheduled for a time after the year 9999",
    )
}

fn event(stream: &str, kept: Kept) -> ScheduledEvent {
    let unpack = |packed: Vec<u8>| {
        let fields = codec::packed(packed)?;
        let id = EntryId::default();
        Envelope::decode(Entry { id, fields }).ok()
    };
    ScheduledEvent {
        stream: stream.to_owned(),
        at: time(kept.due_ms),
        event: kept.packed.and_then(unpack),
        id: String::from_utf8_lossy(&kept.id).into_owned(),
    }
}
