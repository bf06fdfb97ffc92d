//! Aggregates whose kind is registered: their state, their history, one more event, and what must not be in them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Admin;
use super::data;
use super::history::{History, Reading};
use super::known::Known;
use super::list::List;
use super::verify::{Verified, Verifying};
use crate::config::nearest;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{EntryId, Envelope, with_id};
use crate::eventstore::{
    self, AggregateId, AppendError, Appended, EventError, EventStore, Kind, RedisEventStore,
};
use crate::handler::Registry;
use crate::pages::Source;

/// How often an event that may come at any version is tried, where others are faster.
const TRIES: u32 = 16;

/// The aggregates whose kinds are in a registry, by [`Admin::aggregates`]. Cheap to clone.
#[derive(Clone)]
pub struct Aggregates {
    kinds: Arc<BTreeMap<&'static str, Known>>,
}

/// The state that an aggregate's events add up to, by [`Aggregates::show`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AggregateState {
    /// The aggregate.
    #[serde(serialize_with = "id_text")]
    pub aggregate: AggregateId,
    /// The version it is at, that of its last event.
    pub version: u64,
    /// Its state as JSON.
    pub state: Box<RawValue>,
}

/// An event that can be appended, by [`Aggregates::event`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewEvent {
    /// The event as it is to be stored, with an id of its own.
    pub event: Envelope,
    /// Names in the data that the event has no use for, and that are not stored: most often typing mistakes.
    pub left_out: Vec<String>,
}

/// An event that is stored, by [`Aggregates::append`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AppendedEvent {
    /// The aggregate.
    #[serde(serialize_with = "id_text")]
    pub aggregate: AggregateId,
    /// The version it is at by this event.
    pub version: u64,
    /// The event's id.
    pub id: String,
    /// Where the event stands on the public stream.
    #[serde(serialize_with = "super::text")]
    pub position: EntryId,
    /// False where it had been stored before, and was not stored again.
    pub is_new: bool,
}

impl Admin {
    /// The aggregates whose kinds are in a registry. They share one connection, made when it is needed.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where something is wrong with the registry, it has no aggregates, or the group is called
    /// like a kind whose public stream it reads.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin, registry: &streamhand::Registry) -> streamhand::Result<()> {
    /// let order = admin.aggregates(registry)?.show(&"order:o-1".parse()?).await?;
    /// println!("{} at version {}: {}", order.aggregate, order.version, order.state);
    /// # Ok(()) }
    /// ```
    pub fn aggregates(&self, registry: &Registry) -> Result<Aggregates> {
        registry.check()?;
        let registered = registry.aggregates();
        registered.check_group(&self.settings.worker)?;
        let known = |kind: &Arc<Kind>| Known {
            kind: kind.clone(),
            store: RedisEventStore::on_line(self.line.clone(), kind.public.clone()),
        };
        let kinds: BTreeMap<_, _> = registered
            .shared_kinds()
            .map(|kind| (kind.name, known(kind)))
            .collect();
        if kinds.is_empty() {
            let message = "this program knows no aggregates: register them, as in \
                           Registry::new().aggregate::<Order>()";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(Aggregates {
            kinds: Arc::new(kinds),
        })
    }
}

impl Aggregates {
    /// The kinds there are.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().copied()
    }

    /// Refuses what is no kind of these.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where there is no such kind.
    pub fn check_kind(&self, kind: &str) -> Result<()> {
        self.kind(kind).map(|_| ())
    }

    /// All aggregates of a kind, in no order. Those that are made meanwhile may be among them.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where there is no such kind.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin, registry: &streamhand::Registry) -> streamhand::Result<()> {
    /// let mut orders = admin.aggregates(registry)?.list("order")?;
    /// while let Some(id) = orders.next().await? {
    ///     println!("{id}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn list(&self, kind: &str) -> Result<List<AggregateId>> {
        let known = self.kind(kind)?;
        Ok(List::of(Ids(known.store.aggregates(known.kind.name)?)))
    }

    /// The state that an aggregate's events add up to.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it has no events; [`ErrorKind::Invalid`] where its kind is not registered; where
    /// an event is missing or can't be applied, or Redis can't be reached.
    pub async fn show(&self, id: &AggregateId) -> Result<AggregateState> {
        self.show_at(id, None).await
    }

    /// The state that it had at a version; at the last one where none is given, or it has not come to that yet.
    ///
    /// # Errors
    /// As [`show`](Self::show).
    pub async fn show_at(&self, id: &AggregateId, at: Option<u64>) -> Result<AggregateState> {
        let Known { kind, store } = self.kind(id.kind())?;
        let (mut events, mut replay, mut version) = (store.read(id, 1), kind.begin(id.clone()), 0);
        while at.is_none_or(|at| version < at)
            && let Some(event) = events.next().await?
        {
            replay.apply(&event)?;
            version = event.version;
        }
        if version == 0 {
            return Err(missing(id));
        }
        Ok(AggregateState {
            aggregate: id.clone(),
            version,
            state: replay.state()?,
        })
    }

    /// The version that an aggregate is at.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it has no events; [`ErrorKind::Invalid`] where its kind is not registered.
    pub async fn version(&self, id: &AggregateId) -> Result<u64> {
        match self.kind(id.kind())?.store.version(id).await? {
            0 => Err(missing(id)),
            version => Ok(version),
        }
    }

    /// The public stream that others are told of its events on.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where its kind is not registered.
    pub fn stream_of(&self, id: &AggregateId) -> Result<String> {
        Ok(self.kind(id.kind())?.kind.public.of(id).to_owned())
    }

    /// The events of an aggregate, from this version on (1 is the first), the oldest first.
    ///
    /// # Errors
    /// As [`show`](Self::show). That an event is missing is said by the list, when its turn comes.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin, registry: &streamhand::Registry) -> streamhand::Result<()> {
    /// let mut history = admin.aggregates(registry)?.history(&"order:o-1".parse()?, 1).await?;
    /// while let Some(event) = history.events.next().await? {
    ///     println!("{} {}", event.stored.version, event.stored.envelope.event_type());
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn history(&self, id: &AggregateId, from: u64) -> Result<History> {
        let Known { store, .. } = self.kind(id.kind())?;
        let version = store.version(id).await?;
        if version == 0 {
            return Err(missing(id));
        }
        Ok(History {
            version,
            events: List::of(Reading::new(store.clone(), id.clone(), from)),
        })
    }

    /// The event of an aggregate of this kind whose data, in its version of today, is this JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where there is no such kind, it has no events of this type, or the data is none of it. What
    /// is wrong with the data is the source: a [`serde_json::Error`] or a [`DecodeError`](crate::DecodeError).
    pub fn event(&self, kind: &str, event_type: &str, data: &str) -> Result<NewEvent> {
        let Known { kind, .. } = self.kind(kind)?;
        let json: Value = serde_json::from_str(data).map_err(|error| {
            let message = format!("the data is no JSON: {error}");
            Error::new(ErrorKind::Invalid, message).with_source(error)
        })?;
        let event = kind.event(event_type, data.as_bytes()).ok_or_else(|| {
            let types: Vec<&str> = kind.events.iter().map(|known| known.event_type).collect();
            let message = format!(
                "{event_type:?} is no event of the aggregate {}{}",
                kind.name,
                instead(event_type, &types)
            );
            Error::new(ErrorKind::Invalid, message)
        })?;
        let event = event.map_err(|error| match error {
            EventError::Data(error) => {
                let message = format!("the data is no {event_type} of today: {error}");
                Error::new(ErrorKind::Invalid, message).with_source(error)
            }
            EventError::Failed(error) => error,
        })?;
        Ok(NewEvent {
            left_out: left_out(&json, &event),
            event: with_id(event),
        })
    }

    /// Appends an event to an aggregate and publishes it, once it is known that it can be read and applied where it is to
    /// come: what can't would be in the way of every load from then on. Whether it may happen is for your program to
    /// decide. `expect` is the version that the aggregate is expected at, 0 where it must not exist; None is any.
    ///
    /// The same event with the same id is appended once: this can be repeated where it was dropped, or its answer got
    /// lost.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] where the aggregate is at another version, or has the event at another place; the source is
    /// the [`AppendError`]. [`ErrorKind::Codec`] where it could not be loaded afterwards, or can't be now. As
    /// [`show`](Self::show). Then nothing is stored.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin, registry: &streamhand::Registry) -> streamhand::Result<()> {
    /// let aggregates = admin.aggregates(registry)?;
    /// let shipped = aggregates.event("order", "order.shipped", r#"{"order_id":"o-1"}"#)?;
    /// let appended = aggregates.append(&"order:o-1".parse()?, shipped.event, Some(1)).await?;
    /// assert_eq!(appended.version, 2);
    /// # Ok(()) }
    /// ```
    pub async fn append(
        &self,
        id: &AggregateId,
        event: Envelope,
        expect: Option<u64>,
    ) -> Result<AppendedEvent> {
        let known = self.kind(id.kind())?;
        let mut tries = TRIES;
        let event_id = event.id().into_owned();
        loop {
            let expected = known.check(id, &event, expect).await?;
            let appended = known.store.append(id, vec![event.clone()], expected).await;
            tries -= 1;
            match appended {
                Ok(appended) => return stored(id, event_id, &appended),
                // Others were faster: what they stored is to be looked at, too.
                Err(AppendError::Conflict(_)) if expect.is_none() && tries > 0 => {}
                Err(AppendError::Failed(error)) => return Err(error),
                Err(AppendError::NotReplicated { error, .. }) => return Err(error.into_error()),
                Err(other) => {
                    return Err(Error::new(ErrorKind::Exists, other.to_string()).with_source(other));
                }
            }
        }
    }

    /// Looks for what must not be in aggregates: events that are missing, can't be read or are out of place, and
    /// snapshots that are not what the events come to. `which` names kinds, such as `order`, and aggregates, such as
    /// `order:o-1`; nothing names all there are. Nothing is changed.
    ///
    /// Each aggregate is told of when it has been looked at, those with which nothing is wrong as well.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where something in `which` is neither a kind that is registered nor an aggregate of one.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin, registry: &streamhand::Registry) -> streamhand::Result<()> {
    /// let mut verified = admin.aggregates(registry)?.verify(["order"])?;
    /// while let Some(one) = verified.next().await? {
    ///     for problem in one.problems {
    ///         println!("{}: {}", problem.aggregate, problem.problem);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn verify<S: AsRef<str>>(
        &self,
        which: impl IntoIterator<Item = S>,
    ) -> Result<List<Verified>> {
        let mut named = Vec::new();
        for which in which {
            let which = which.as_ref();
            let id = match which.contains(':') {
                true => Some(which.parse::<AggregateId>()?),
                false => None,
            };
            let name = id.as_ref().map_or(which, AggregateId::kind);
            named.push((self.kind(name)?.clone(), id));
        }
        if named.is_empty() {
            named = self
                .kinds
                .values()
                .map(|known| (known.clone(), None))
                .collect();
        }
        Ok(List::of(Verifying::new(named)))
    }

    /// The kind of this name.
    fn kind(&self, name: &str) -> Result<&Known> {
        self.kinds.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.kinds().collect();
            let message = format!(
                "no aggregates of the kind {name:?} are registered in this program{}",
                instead(name, &names)
            );
            Error::new(ErrorKind::Invalid, message)
        })
    }
}

impl NewEvent {
    /// The same with an id of yours: the same append with the same id is done once.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.event = self.event.with("id", id);
        self
    }
}

impl fmt::Debug for Aggregates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.kinds()).finish()
    }
}

/// All aggregates of a kind.
struct Ids(eventstore::Aggregates);

impl Source for Ids {
    type Item = AggregateId;

    async fn page(&mut self) -> Result<Option<Vec<AggregateId>>> {
        Ok(self.0.next().await?.map(|id| vec![id]))
    }
}

fn stored(id: &AggregateId, event_id: String, appended: &Appended) -> Result<AppendedEvent> {
    let position = appended.positions.first().copied().ok_or_else(|| {
        let message = "Redis does not say where the event stands on the public stream";
        Error::new(ErrorKind::Redis, message)
    })?;
    Ok(AppendedEvent {
        aggregate: id.clone(),
        version: appended.version(),
        id: event_id,
        position,
        is_new: appended.is_new,
    })
}

/// Names that are in the data given and not in the event. One that is mistyped, where it may be missing, would go
/// unnoticed.
fn left_out(given: &Value, event: &Envelope) -> Vec<String> {
    let stored = data::json(event.content_type(), event.data())
        .and_then(|(_, json)| serde_json::from_str::<Value>(&json).ok());
    let (Value::Object(given), Some(Value::Object(stored))) = (given, stored) else {
        return Vec::new();
    };
    let names = given.keys().filter(|name| !stored.contains_key(*name));
    names.cloned().collect()
}

/// Says that there is no such aggregate.
fn missing(id: &AggregateId) -> Error {
    let message = format!("{id} does not exist: it has no events");
    Error::new(ErrorKind::NotFound, message)
}

/// What else there is, the likeliest where one is likely.
fn instead(word: &str, known: &[&str]) -> String {
    match nearest::of(word, known.iter().copied()) {
        Some(meant) => format!("; did you mean {meant}? there are: {}", known.join(", ")),
        None => format!("; there are: {}", known.join(", ")),
    }
}

fn id_text<S: serde::Serializer>(id: &AggregateId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(id.as_str())
}
