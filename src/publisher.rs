//! The publisher: puts events on streams, one or many, pipelined; now, later, or only once.

mod once;
mod scheduled;

pub use once::Once;
pub(crate) use once::once_within;
pub use scheduled::{Scheduled, ScheduledEvent, ScheduledEvents};
pub(crate) use scheduled::{after, at_time};

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use uuid::Uuid;

use crate::codec::{self, Format};
use crate::config::{RedisSettings, check};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{EntryId, Envelope};
use crate::event_type;
use crate::handler::Event;
use crate::stream::{Addition, Appended, Connector, Done, How, Pool, PooledConnection};

/// Puts events on streams. Cheap to clone; clones share their connections.
///
/// Every event gets an `id` (UUIDv7), a `time` and a `datacontenttype` where it has none. A publish that ends in an
/// error may have reached the stream all the same; publish it again with the same [`Envelope`], whose `id` then
/// tells handlers that it is the same event.
#[derive(Clone)]
pub struct Publisher {
    pool: Pool,
    format: Format,
    source: Option<Arc<str>>,
}

impl Publisher {
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
            pool,
            format: Format::default(),
            source: None,
        }
    }

    /// The same publisher, encoding data as `format` (MessagePack where this is not called).
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// The same publisher, naming `source` as where events come from.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// Publishes one event to `stream`. Answers the id Redis gave the entry.
    ///
    /// # Errors
    /// Where the event can't be encoded, the stream's name can't be one, or Redis can't be reached or refuses it.
    pub async fn publish<E: Event + Serialize>(&self, stream: &str, event: &E) -> Result<EntryId> {
        let envelope = self.envelope(event)?;
        self.publish_envelope(stream, envelope).await
    }

    /// Publishes events to `stream` in their order, pipelined. Answers the ids Redis gave them.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); of those events that follow the first one refused, some may have been
    /// published.
    pub async fn publish_many<'a, E: Event + Serialize>(
        &self,
        stream: &str,
        events: impl IntoIterator<Item = &'a E>,
    ) -> Result<Vec<EntryId>> {
        let envelopes = events
            .into_iter()
            .map(|event| self.envelope(event))
            .collect::<Result<Vec<_>>>()?;
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
    ) -> Result<Vec<EntryId>> {
        let appended = self.append(stream, &How::Now, envelopes).await?;
        let done = appended.into_done()?;
        Ok(done.into_iter().filter_map(Done::entry).collect())
    }

    /// Gives events to Redis in their order, pipelined, telling of every one what became of it.
    pub(crate) async fn append(
        &self,
        stream: &str,
        how: &How,
        envelopes: impl IntoIterator<Item = Envelope>,
    ) -> Result<Appended> {
        let envelopes = self.complete_all(stream, envelopes)?;
        let additions: Vec<Addition<'_>> = envelopes
            .iter()
            .map(|envelope| Addition {
                id: envelope.id(),
                fields: envelope.fields(),
            })
            .collect();
        Ok(self.pool.append(stream, how, &additions).await)
    }

    /// The envelope that [`publish`](Self::publish) would make of an event, to be completed and published.
    ///
    /// # Errors
    /// Where the event can't be encoded.
    pub fn envelope<E: Event + Serialize>(&self, event: &E) -> Result<Envelope> {
        const {
            assert!(
                event_type::is_valid(E::TYPE),
                "Event::TYPE is dotted and lower-case, like order.created"
            )
        };
        envelope_of(event, self.format)
    }

    /// A connection to the publisher's Redis, from its pool, for what is to be stored beside an event.
    ///
    /// # Errors
    /// Where Redis can't be reached.
    pub async fn redis(&self) -> Result<PooledConnection> {
        self.pool.get().await
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    fn complete_all(
        &self,
        stream: &str,
        envelopes: impl IntoIterator<Item = Envelope>,
    ) -> Result<Vec<Envelope>> {
        check_stream(stream)?;
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        envelopes
            .into_iter()
            .map(|envelope| self.complete(envelope, &now))
            .collect()
    }

    fn complete(&self, mut envelope: Envelope, now: &str) -> Result<Envelope> {
        if let Err(why) = event_type::check(envelope.event_type()) {
            let message = format!("the event type {:?} {why}", envelope.event_type());
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        envelope = with_id(envelope);
        if envelope.field("time").is_none() {
            envelope = envelope.with("time", now);
        }
        if envelope.field("datacontenttype").is_none() {
            envelope = envelope.with("datacontenttype", codec::JSON);
        }
        if let (None, Some(source)) = (envelope.source(), &self.source) {
            envelope = envelope.with("source", &**source);
        }
        Ok(envelope)
    }
}

/// The same event with an id where it has none.
pub(crate) fn with_id(envelope: Envelope) -> Envelope {
    if envelope.field("id").is_some() {
        return envelope;
    }
    let id = Uuid::now_v7().hyphenated();
    envelope.with("id", id.encode_lower(&mut Uuid::encode_buffer()))
}

/// The envelope of an event: its type, its version and its data.
pub(crate) fn envelope_of<E: Event + Serialize>(event: &E, format: Format) -> Result<Envelope> {
    let data = codec::encode(format, event)?;
    let envelope = Envelope::new(E::TYPE)
        .with("datacontenttype", format.content_type())
        .with("data", data);
    Ok(if E::VERSION == 1 {
        envelope
    } else {
        envelope.with("schemaversion", E::VERSION.to_string())
    })
}

/// Refuses what can't be the name of a stream here.
pub(crate) fn check_stream(stream: &str) -> Result<()> {
    check::stream_name(stream).map_err(|why| {
        Error::new(
            ErrorKind::Invalid,
            format!("the stream name {stream:?} {why}"),
        )
    })
}
