//! The kinds of aggregates that a program knows: what can be done with one by its name, whatever its type.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::{Arc, RwLock};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::aggregate::{Aggregate, AggregateEvent, EventData, EventKind, assert_sound};
use super::catch_panic::catch_panic;
use super::decode::{apply, decode};
use super::events::StoredEvent;
use super::public::PublicStreams;
use super::snapshot;
use crate::aggregate_id::AggregateId;
use crate::codec::{self, DecodeError, Format};
use crate::config::WorkerSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Envelope;
use crate::upcast::Upcasters;

/// All kinds that are registered, and what is wrong with that.
#[derive(Default)]
pub(crate) struct Registered {
    kinds: BTreeMap<&'static str, Arc<Kind>>,
    problems: Vec<String>,
}

/// A kind of aggregates.
pub(crate) struct Kind {
    pub name: &'static str,
    pub public: PublicStreams,
    /// Its events, in their versions as of today.
    pub events: &'static [EventKind],
    /// [`Aggregate::SNAPSHOT_VERSION`].
    pub schema: u32,
    place: &'static Location<'static>,
    upcasters: Arc<RwLock<Upcasters>>,
    typed: Box<dyn Typed>,
}

/// An aggregate that is being made of its events.
pub(crate) trait Replay: Send {
    /// One more event.
    fn apply(&mut self, event: &StoredEvent) -> Result<()>;

    /// The state so far, as JSON.
    fn state(&self) -> Result<Box<RawValue>>;
}

/// What needs the aggregate's type.
trait Typed: Send + Sync {
    fn stream(&self) -> &'static str;

    fn begin(&self, id: AggregateId, upcasters: Arc<RwLock<Upcasters>>) -> Box<dyn Replay>;

    fn state(&self, snapshot: &[u8]) -> Option<Result<Box<RawValue>>>;

    fn event(&self, event_type: &str, data: EventData<'_>) -> Option<Result<Envelope, EventError>>;
}

/// Why something is no event.
pub(crate) enum EventError {
    Data(DecodeError),
    Failed(Error),
}

impl Registered {
    /// Adds one.
    pub fn add<A>(&mut self, place: &'static Location<'static>, upcasters: &Arc<RwLock<Upcasters>>)
    where
        A: Aggregate + Serialize + DeserializeOwned,
    {
        const { assert_sound::<A>() };
        let name = A::KIND;
        let mut refuse = |why: String| self.problems.push(format!("{place}: {why}"));
        if let Err(error) = AggregateId::new(name, "1") {
            return refuse(error.to_string());
        }
        let public = match PublicStreams::of_kind::<A>() {
            Ok(public) => public,
            Err(error) => return refuse(format!("the aggregate {name}: {error}")),
        };
        let other = self.kinds.values().find(|other| {
            let streams = (other.typed.stream(), other.public.names().count());
            streams.0 == A::STREAM && streams.1 != A::PARTITIONS as usize
        });
        if let Some(other) = other {
            return refuse(format!(
                "the aggregate {name} is in {} partitions of {}, and {}, registered at {}, in {}",
                A::PARTITIONS,
                A::STREAM,
                other.name,
                other.place,
                other.public.names().count()
            ));
        }
        match self.kinds.entry(name) {
            Entry::Vacant(free) => {
                free.insert(Arc::new(Kind {
                    name,
                    public,
                    events: A::Event::KINDS,
                    schema: A::SNAPSHOT_VERSION,
                    place,
                    upcasters: upcasters.clone(),
                    typed: Box::new(Of::<A>(PhantomData)),
                }));
            }
            Entry::Occupied(taken) => {
                let first = taken.get().place;
                refuse(format!(
                    "the aggregate {name} is registered already, at {first}"
                ));
            }
        }
    }

    /// Those that are registered, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.values().map(|kind| &**kind)
    }

    /// The same, to be kept.
    pub fn shared_kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }

    /// The one of this name.
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.get(name).map(|kind| &**kind)
    }

    /// The version that events of a type have in the first aggregate that has them.
    pub fn version_of(&self, event_type: &str) -> Option<u32> {
        self.kinds().find_map(|kind| kind.version_of(event_type))
    }

    /// All that is wrong with them.
    pub fn problems(&self, upcasters: &Upcasters) -> Vec<String> {
        let mut problems = self.problems.clone();
        for kind in self.kinds() {
            for EventKind {
                event_type,
                version,
            } in kind.events
            {
                if let Some(led) = upcasters.version(event_type)
                    && led != *version
                {
                    problems.push(format!(
                        "{}: {event_type} has upcasters to version {led}, and version {version} in the aggregate {}",
                        kind.place, kind.name
                    ));
                }
            }
        }
        problems
    }

    /// Refuses a kind that is called as the group that reads its public stream: their keys would be among each other.
    pub fn check_group(&self, worker: &WorkerSettings) -> Result<()> {
        let Some(kind) = self.kind(&worker.group) else {
            return Ok(());
        };
        match kind
            .public
            .names()
            .find(|name| worker.streams.iter().any(|s| s == name))
        {
            None => Ok(()),
            Some(stream) => Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "{}: the aggregate {} is called as the group that reads {stream:?}, and the group's keys begin \
                     with its name: rename the group (worker.group) or the kind",
                    kind.place, kind.name
                ),
            )),
        }
    }
}

impl Kind {
    /// An aggregate before its first event.
    pub fn begin(&self, id: AggregateId) -> Box<dyn Replay> {
        self.typed.begin(id, self.upcasters.clone())
    }

    /// The event whose data in today's version is this JSON, as it would be stored; None if there is no such type.
    pub fn event(&self, event_type: &str, json: &[u8]) -> Option<Result<Envelope, EventError>> {
        let data = EventData {
            content_type: codec::JSON,
            data: json,
        };
        self.typed.event(event_type, data)
    }

    /// The state of a snapshot as JSON; None if it does not decode.
    pub fn state(&self, snapshot: &[u8]) -> Option<Result<Box<RawValue>>> {
        self.typed.state(snapshot)
    }

    fn version_of(&self, event_type: &str) -> Option<u32> {
        let kind = self
            .events
            .iter()
            .find(|kind| kind.event_type == event_type);
        kind.map(|kind| kind.version)
    }
}

struct Of<A>(PhantomData<fn() -> A>);

impl<A> Typed for Of<A>
where
    A: Aggregate + Serialize + DeserializeOwned,
{
    fn stream(&self) -> &'static str {
        A::STREAM
    }

    fn begin(&self, id: AggregateId, upcasters: Arc<RwLock<Upcasters>>) -> Box<dyn Replay> {
        Box::new(Replaying {
            state: A::initial(),
            id,
            upcasters,
        })
    }

    fn state(&self, snapshot: &[u8]) -> Option<Result<Box<RawValue>>> {
        Some(as_json(&snapshot::decode::<A>(snapshot)?))
    }

    fn event(&self, event_type: &str, data: EventData<'_>) -> Option<Result<Envelope, EventError>> {
        let made = || {
            let event = A::Event::decode(event_type, data)?;
            let event = event.map_err(EventError::Data);
            Some(
                event.and_then(|event| event.encode(Format::default()).map_err(EventError::Failed)),
            )
        };
        catch_panic("read,", made).unwrap_or_else(|why| {
            let message = format!("{event_type} of {}: {why}", A::KIND);
            Some(Err(EventError::Failed(Error::new(
                ErrorKind::Codec,
                message,
            ))))
        })
    }
}

struct Replaying<A> {
    state: A,
    id: AggregateId,
    upcasters: Arc<RwLock<Upcasters>>,
}

impl<A: Aggregate + Serialize> Replay for Replaying<A> {
    fn apply(&mut self, stored: &StoredEvent) -> Result<()> {
        let event = decode::<A>(&self.upcasters, &self.id, stored)?;
        apply(&self.id, stored, || self.state.apply(event))
    }

    fn state(&self) -> Result<Box<RawValue>> {
        as_json(&self.state)
    }
}

fn as_json<A: Aggregate + Serialize>(state: &A) -> Result<Box<RawValue>> {
    let written = catch_panic("written,", || serde_json::value::to_raw_value(state));
    let written = written.and_then(|written| written.map_err(|error| error.to_string()));
    written.map_err(|why| {
        let kind = A::KIND;
        let message = format!("the state of this {kind} can't be written as JSON: {why}");
        Error::new(ErrorKind::Codec, message)
    })
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::aggregate_events;
    use crate::context::Context;
    use crate::event::Event;
    use crate::failure::Failure;
    use crate::handler::Registry;

    #[derive(Serialize, Deserialize)]
    struct Opened {}

    impl Event for Opened {
        const TYPE: &'static str = "account.opened";
        const VERSION: u32 = 2;
    }

    /// The same type, as another part of the program has it.
    #[derive(Serialize, Deserialize)]
    struct OpenedOnce {}

    impl Event for OpenedOnce {
        const TYPE: &'static str = "account.opened";
        const VERSION: u32 = 3;
    }

    aggregate_events! {
        enum AccountEvent { Opened(Opened) }
    }

    macro_rules! aggregate {
        ($name:ident, $kind:literal, $stream:literal, $partitions:literal) => {
            #[derive(Serialize, Deserialize)]
            struct $name {}

            impl Aggregate for $name {
                const KIND: &'static str = $kind;
                const STREAM: &'static str = $stream;
                const PARTITIONS: u32 = $partitions;
                type Event = AccountEvent;

                fn initial() -> Self {
                    $name {}
                }

                fn apply(&mut self, event: AccountEvent) {
                    match event {
                        AccountEvent::Opened(Opened {}) => {}
                    }
                }
            }
        };
    }

    aggregate!(Account, "account", "accounts", 2);
    aggregate!(Other, "other", "accounts", 4);
    aggregate!(Taken, "scheduled", "accounts", 2);
    aggregate!(Nowhere, "nowhere", "a{b", 1);

    fn step(old: serde_json::Value) -> Result<serde_json::Value, Failure> {
        Ok(old)
    }

    #[test]
    fn upcasters_may_lead_to_an_aggregate_that_has_no_handler() {
        let registry = || Registry::new().aggregate::<Account>();
        registry().upcast::<Opened, _, _>(1, step).check().unwrap();
        let raw = registry().on_raw("account.opened", |_, _| async { Ok(()) });
        raw.upcast::<Opened, _, _>(1, step).check().unwrap();
        let elsewhere = registry()
            .upcast::<OpenedOnce, _, _>(1, step)
            .upcast::<OpenedOnce, _, _>(2, step)
            .on(async |_: OpenedOnce, _: Context| Ok(()));
        let error = elsewhere.check().unwrap_err().to_string();
        let said =
            "account.opened has upcasters to version 3, and version 2 in the aggregate account";
        assert!(error.contains(said), "{error}");
    }

    #[test]
    fn all_that_is_wrong_with_kinds_is_told_with_its_place() {
        let registry = Registry::new()
            .aggregate::<Account>()
            .aggregate::<Account>()
            .aggregate::<Other>()
            .aggregate::<Taken>()
            .aggregate::<Nowhere>();
        let error = registry.check().unwrap_err().to_string();
        for said in [
            "the aggregate account is registered already, at ",
            "the aggregate other is in 4 partitions of accounts, and account, registered at ",
            "its kind is the name of keys that every stream has",
            "the aggregate nowhere: the stream name \"a{b\"",
        ] {
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(error.matches("registered.rs:").count(), 6, "{error}");
    }
}
