//! The publisher: puts events on streams, one or many, pipelined; now, later, or only once.

mod many;
mod once;
mod scheduled;
mod sending;
mod topics;

pub use many::{PublishError, Published};
pub use once::Once;
pub(crate) use once::once_within;
#[cfg(feature = "cli")]
pub(crate) use scheduled::replacing;
pub use scheduled::{Scheduled, ScheduledEvent, ScheduledEvents};
pub(crate) use scheduled::{after, at_time};
pub(crate) use topics::Topics;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use sending::{Sending, Traced};

use crate::codec::{self, Encodable, Format};
use crate::config::{RedisSettings, RedisUrl, check_stream};
use crate::duration;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{EntryId, Envelope, Event, demand, envelope_of, with_id};
use crate::event_type;
use crate::metrics::Metrics;
use crate::metrics::published::Status;
use crate::stream::{
    Addition, Appended, Connector, Done, Fate, How, Pool, PooledConnection, Replicas, StreamKeys,
};
use crate::trace::{TraceContext, Tracer};

/// Puts events on streams. Cheap to clone; clones share their connections.
///
/// Every event gets an `id` (UUIDv7), a `time` and a `datacontenttype` where it has none, or an empty one. A publish that
/// ends in an error may have reached the stream all the same. Where that matters make the [`envelope`](Self::envelope)
/// first, which has its id from then on, and publish a clone of it: a repeat has the same id, which tells handlers that it
/// is the same event. Of many events the [error](PublishError) has those that are not known to be in.
#[derive(Clone)]
#[must_use]
pub struct Publisher {
    pool: Pool,
    format: Format,
    source: Option<Arc<str>>,
    timeout: Option<Duration>,
    pub(crate) replicas: Replicas,
    metrics: Option<Metrics>,
    traced: Option<Traced>,
    topics: Topics,
    layers: Vec<EventLayer>,
}

/// What every event passes before it is written.
type EventLayer = Arc<dyn Fn(&str, Envelope) -> Envelope + Send + Sync>;

impl Publisher {
    /// A publisher for the server at `url`, which is asked for its version now.
    ///
    /// ```no_run
    /// # use streamhand::Publisher;
    /// # async fn example() -> streamhand::Result<()> {
    /// let publisher = Publisher::connect("redis://127.0.0.1:6379").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where the address is not one (see [`RedisUrl`]), and as [`redis`](Self::redis) where the
    /// server can't be reached or used.
    pub async fn connect<U>(url: U) -> Result<Self>
    where
        U: TryInto<RedisUrl>,
        U::Error: Into<Error>,
    {
        let url = url.try_into().map_err(Into::into)?;
        let publisher = Self::new(&RedisSettings::new(url))?;
        publisher.redis().await?;
        Ok(publisher)
    }

    /// A publisher with connections of its own, made when they are needed.
    ///
    /// # Errors
    /// Where the address is not one.
    pub fn new(settings: &RedisSettings) -> Result<Self> {
        Ok(Self::with_pool(
            Connector::new(settings)?.pool(settings.pool_size)?,
        ))
    }

    pub(crate) fn with_pool(pool: Pool) -> Self {
        Publisher {
            replicas: pool.connector().replicas(),
            pool,
            format: Format::default(),
            source: None,
            timeout: None,
            metrics: None,
            traced: None,
            topics: Topics::default(),
            layers: Vec::new(),
        }
    }

    /// A publisher with connections of its own, by `[redis]`, which spreads those streams over partitions that
    /// `[streams]` says so of.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "config")]
    pub fn of_settings(settings: &crate::config::Settings) -> Result<Self> {
        Ok(Self::new(&settings.redis)?.with_topics(Topics::new(settings.topics())))
    }

    pub(crate) fn with_topics(mut self, topics: Topics) -> Self {
        self.topics = topics;
        self
    }

    /// The same publisher, which spreads what it publishes to `topic` over so many partitions: an event goes to the
    /// stream `{orders:7}`, say, by its subject, or by its id if it has no subject. All that publish to the topic or read
    /// it have to say the same number; whoever says another one is refused.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if there can't be so many, or the name has a tag of its own.
    pub fn partitioned(self, topic: &str, partitions: u32) -> Result<Self> {
        check_stream(topic)?;
        let topics = self.topics.with(topic, partitions)?;
        Ok(self.with_topics(topics))
    }

    /// Where the events of a topic go, if that is one and has been asked for: a worker asks before it begins.
    #[cfg(feature = "worker")]
    pub(crate) fn placed(&self, stream: &str) -> Option<Arc<topics::Placed>> {
        self.topics.known(stream)
    }

    /// The stream that an event would go to: `stream`, or that of its partition if it is a topic. An event without a
    /// subject and without an id has no place yet.
    ///
    /// # Errors
    /// If Redis can't be reached, or knows the topic to have another number of partitions.
    pub async fn stream_of(&self, stream: &str, event: &Envelope) -> Result<String> {
        let placed = self.within(self.topics.place(&self.pool, stream)).await?;
        Ok(match placed {
            Some(placed) => placed.stream_of(event).stream.clone(),
            None => stream.to_owned(),
        })
    }

    /// The same publisher, encoding data as `format` (MessagePack where this is not called).
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// The same publisher, whose calls take so long at most, waiting for a connection included; publishing many events is
    /// one call. Without it a connection is waited for 10 s, and each answer as long. What was sent by then may be done
    /// all the same: of many events [`PublishError`] has which those are.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The same publisher, whose events are acknowledged once so many replicas have them, in place of `redis.replicas`: a
    /// failover then loses none of them. If fewer have them within the timeout that is an error of
    /// [`ErrorKind::NotReplicated`], which says as what entry it is stored: see [`NotReplicated`](crate::NotReplicated). Of many
    /// events no more are sent then.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas.count = replicas;
        self
    }

    /// The same publisher, which waits so long for those, in place of `redis.replicas_timeout`: from a millisecond to 5 s.
    pub fn replicas_timeout(mut self, timeout: Duration) -> Self {
        self.replicas.timeout = timeout;
        self
    }

    /// The same publisher, naming `source` as where events come from.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// The same publisher, which counts what it publishes in `metrics`.
    pub fn metrics(self, metrics: &Metrics) -> Self {
        self.pool.counted_in(metrics);
        self.counts_in(Some(metrics.clone()))
    }

    pub(crate) fn counts_in(mut self, metrics: Option<Metrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// The same publisher, whose requests are spans; each begins a trace of its own.
    pub(crate) fn traced(mut self, tracer: Tracer) -> Self {
        self.traced = Some(Traced::new(tracer, None));
        self
    }

    /// The same, of which all are part of a trace.
    pub(crate) fn part_of(mut self, tracer: Tracer, context: TraceContext) -> Self {
        self.traced = Some(Traced::new(tracer, Some(context)));
        self
    }

    /// Publishes one event to `stream`. Answers the id Redis gave the entry.
    ///
    /// # Errors
    /// Where the event can't be encoded, the stream's name can't be one, or Redis can't be reached or refuses it.
    pub async fn publish<E: Event + Encodable>(&self, stream: &str, event: &E) -> Result<EntryId> {
        let envelope = self.envelope(event)?;
        self.publish_envelope(stream, envelope).await
    }

    /// Publishes events to `stream` in their order, pipelined. Answers the ids Redis gave them.
    ///
    /// # Errors
    /// As [`publish`](Self::publish). The error says of each event what became of it: once one is refused, or the
    /// connection breaks, no more are sent, but of those behind it that were on their way some may be in. What is not
    /// known to be in can be [taken from it](PublishError::into_rest) and published again under the same ids.
    pub async fn publish_many<'a, E: Event + Encodable>(
        &self,
        stream: &str,
        events: impl IntoIterator<Item = &'a E>,
    ) -> Result<Vec<EntryId>, PublishError> {
        let envelopes = events.into_iter().map(|event| self.envelope(event));
        let envelopes = envelopes
            .collect::<Result<Vec<_>>>()
            .map_err(|error| PublishError::before(error, Vec::new()))?;
        self.publish_envelopes(stream, envelopes).await
    }

    /// Publishes one event that is ready made: with an id, a subject or fields of its own.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and where the type breaks the grammar.
    pub async fn publish_envelope(&self, stream: &str, envelope: Envelope) -> Result<EntryId> {
        let ids = self.publish_envelopes(stream, [envelope]).await?;
        ids.first()
            .copied()
            .ok_or_else(|| Error::new(ErrorKind::Redis, "Redis gave the event no id"))
    }

    /// Publishes events that are ready made, in their order, pipelined. Answers the ids Redis gave them.
    ///
    /// # Errors
    /// As [`publish_many`](Self::publish_many), and where a type breaks the grammar (then nothing is published).
    pub async fn publish_envelopes(
        &self,
        stream: &str,
        envelopes: impl IntoIterator<Item = Envelope>,
    ) -> Result<Vec<EntryId>, PublishError> {
        let envelopes = self.layered(stream, envelopes);
        if let Err(error) = check_all(stream, &envelopes) {
            return Err(PublishError::before(error, envelopes));
        }
        let (envelopes, sending) = self.complete(stream, envelopes);
        let (mut appended, stop) = (Appended::default(), CancellationToken::new());
        self.send(stream, &How::Now, &envelopes, &stop, &mut appended)
            .await;
        sending.ended(&envelopes, &appended);
        many::added(envelopes, appended)
    }

    /// Gives events to Redis in their order, pipelined, until one is refused, the connection breaks, or `stop` says so.
    /// What became of every one stands in `appended`, even if this future is dropped before its end.
    pub(crate) async fn append(
        &self,
        stream: &str,
        how: &How,
        envelopes: impl IntoIterator<Item = Envelope>,
        stop: &CancellationToken,
        appended: &mut Appended,
    ) -> Result<()> {
        let envelopes = self.layered(stream, envelopes);
        check_all(stream, &envelopes)?;
        let (envelopes, sending) = self.complete(stream, envelopes);
        self.send(stream, how, &envelopes, stop, appended).await;
        sending.ended(&envelopes, appended);
        Ok(())
    }

    /// The same for one event.
    pub(crate) async fn append_one(
        &self,
        stream: &str,
        how: &How,
        envelope: Envelope,
    ) -> Result<Done> {
        let (mut appended, stop) = (Appended::default(), CancellationToken::new());
        self.append(stream, how, [envelope], &stop, &mut appended)
            .await?;
        appended.into_done()?.pop().ok_or_else(|| {
            Error::new(
                ErrorKind::Redis,
                "Redis does not say what became of the event",
            )
        })
    }

    async fn send(
        &self,
        stream: &str,
        how: &How,
        envelopes: &[Envelope],
        stop: &CancellationToken,
        appended: &mut Appended,
    ) {
        let since = self
            .metrics
            .as_ref()
            .map(|metrics| (metrics, Instant::now()));
        let keys = StreamKeys::new(stream);
        appended.fates = envelopes.iter().map(|_| Fate::NotSent).collect();
        let sent = self.send_in_order(stream, how, envelopes, (&keys, stop), appended);
        let sent = self.within(sent).await;
        if let Err(late) = sent {
            appended.broken = Some(late);
        }
        if let Some((metrics, since)) = since {
            let fates = appended.fates.iter().map(status);
            // What did not come to be asked for has no fate yet.
            let fates = fates.chain(std::iter::repeat(Status::Error));
            let types = envelopes.iter().map(Envelope::event_type);
            let publishing = metrics.publishing();
            publishing.published(stream, types.zip(fates), since.elapsed());
        }
    }

    /// Sends events to where they belong. If that is sealed, what is left goes to where their topic has grown to, in the
    /// same order: no event of a subject is behind one that came later.
    async fn send_in_order(
        &self,
        stream: &str,
        how: &How,
        envelopes: &[Envelope],
        (keys, stop): (&StreamKeys, &CancellationToken),
        appended: &mut Appended,
    ) -> Result<()> {
        let mut placed = self.topics.place(&self.pool, stream).await?;
        let replicas = self.replicas.asked();
        // What is to be known again is looked for first where it may have been added before the topic grew.
        let mut generation = match (&placed, how) {
            (Some(placed), How::Now) => placed.layout.generation(),
            _ => 1,
        };
        loop {
            let rest: Vec<usize> = (0..envelopes.len())
                .filter(|place| matches!(appended.fates[*place], Fate::NotSent))
                .collect();
            let keys = |event| match &placed {
                Some(placed) => placed.stream_in(generation, event),
                None => keys,
            };
            let addition = |place: &usize| {
                let event = &envelopes[*place];
                Addition::new(keys(event), event, how)
            };
            let additions = rest.iter().map(addition).collect();
            let to = self
                .pool
                .append_at(stream, how, (additions, rest), replicas, stop, appended);
            to.await;
            if !std::mem::take(&mut appended.sealed) || appended.broken.is_some() {
                return Ok(());
            }
            let is_refused = |fate: &Fate| !matches!(fate, Fate::Done(_) | Fate::NotSent);
            if appended.fates.iter().any(is_refused) {
                return Ok(());
            }
            let Some(known) = &placed else {
                return Err(Error::new(
                    ErrorKind::Redis,
                    format!(
                        "{stream:?} is sealed, and takes no events any more: if it is a partition, its topic has grown, \
                         and is to be published to by the topic's name"
                    ),
                ));
            };
            let newest = known.layout.generation();
            if generation < newest {
                generation += 1;
                continue;
            }
            let grown = self.topics.place_behind(&self.pool, stream, newest);
            placed = Some(grown.await?);
            generation = newest + 1;
        }
    }

    /// Has every event pass `layer` before it is written, with the stream's or the topic's name: to look at it, or to add fields. Those added
    /// earlier come first. What is published again after an error passes them again. What handlers emit does not pass them.
    ///
    /// ```no_run
    /// # use streamhand::{Envelope, Publisher};
    /// # async fn example() -> streamhand::Result<()> {
    /// let publisher = Publisher::connect("redis://127.0.0.1:6379").await?
    ///     .layer(|_stream, event| event.with("tenant", "acme"));
    /// # Ok(()) }
    /// ```
    pub fn layer(
        mut self,
        layer: impl Fn(&str, Envelope) -> Envelope + Send + Sync + 'static,
    ) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }

    fn layered(
        &self,
        stream: &str,
        envelopes: impl IntoIterator<Item = Envelope>,
    ) -> Vec<Envelope> {
        let layers = &self.layers;
        let pass = |event| {
            layers
                .iter()
                .fold(event, |event, layer| layer(stream, event))
        };
        envelopes.into_iter().map(pass).collect()
    }

    /// The envelope that [`publish`](Self::publish) would make of an event. It has an id, so that publishing it once
    /// more publishes the same event.
    ///
    /// # Errors
    /// Where the event can't be encoded.
    pub fn envelope<E: Event + Encodable>(&self, event: &E) -> Result<Envelope> {
        const { demand::<E>() };
        envelope_of(event, self.format).map(with_id)
    }

    /// A connection to the publisher's Redis, from its pool, for what is to be stored beside an event.
    ///
    /// # Errors
    /// Where Redis can't be reached.
    pub async fn redis(&self) -> Result<PooledConnection> {
        self.within(self.pool.get()).await
    }

    /// What comes of a call, if it does in time.
    async fn within<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(timeout) = self.timeout else {
            return call.await;
        };
        tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
            let timeout = duration::format(timeout);
            Err(Error::new(
                ErrorKind::Unreachable,
                format!("Redis has not done what it was asked for within {timeout}, the publisher's timeout"),
            ))
        })
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The same events with what they lack, and the span that sending them is.
    fn complete<'a>(
        &'a self,
        stream: &'a str,
        envelopes: Vec<Envelope>,
    ) -> (Vec<Envelope>, Sending<'a>) {
        let sending = Sending::begin(self.traced.as_ref(), &self.pool, stream, &envelopes);
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let complete = |envelope| {
            let mut envelope = self.with_source(with_id(envelope));
            if !envelope.says("time") {
                envelope = envelope.with_known("time", &now);
            }
            if !envelope.says("datacontenttype") {
                envelope = envelope.with("datacontenttype", codec::JSON);
            }
            sending.carried_by(envelope)
        };
        (envelopes.into_iter().map(complete).collect(), sending)
    }

    fn with_source(&self, envelope: Envelope) -> Envelope {
        match (envelope.source(), &self.source) {
            (None, Some(source)) => envelope.with("source", &**source),
            _ => envelope,
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("address", &self.pool.address())
            .field("format", &self.format)
            .field("source", &self.source)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What an event counts as.
fn status(fate: &Fate) -> Status {
    match fate {
        Fate::Done(Done::Added(_)) => Status::Ok,
        Fate::Done(Done::AddedBefore(_) | Done::Scheduled { is_new: false, .. }) => {
            Status::Duplicate
        }
        Fate::Done(Done::Scheduled { is_new: true, .. }) => Status::Scheduled,
        Fate::NotReplicated(..) => Status::NotReplicated,
        Fate::Refused(_) | Fate::InDoubt | Fate::NotSent => Status::Error,
    }
}

/// Refuses what can't be published at all.
fn check_all(stream: &str, envelopes: &[Envelope]) -> Result<()> {
    check_stream(stream)?;
    for envelope in envelopes {
        let event_type = envelope.event_type();
        if let Err(why) = event_type::check(event_type) {
            let message = format!("the event type {event_type:?} {why}");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
    }
    Ok(())
}
