//! A projection without its types, as a runner knows it.

use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::{Arc, RwLock};

use super::super::aggregate::{AggregateEvent, EventKind, are_distinct};
use super::super::batch::VERSION;
use super::super::decode::decode_one_of;
use super::super::public::PublicStreams;
use super::{Projected, Projection, View};
use crate::aggregate_id::{AggregateId, is_kind};
use crate::effects::Effect;
use crate::error::Result;
use crate::event::{Entry, EntryId, Envelope};
use crate::failure::{Failure, panic_message};
use crate::upcast::Upcasters;

/// A projection of a registry.
pub(crate) struct Registered {
    pub name: &'static str,
    pub kinds: &'static [&'static str],
    pub events: &'static [EventKind],
    pub place: &'static Location<'static>,
    stream: (&'static str, u32),
    run: Run,
}

type Run = Box<dyn Fn(Place, Envelope) -> Result<Option<View>, Failure> + Send + Sync>;

/// Whose event it is, and where it stands.
struct Place {
    aggregate: AggregateId,
    version: u64,
    position: EntryId,
}

impl Registered {
    pub fn new<P: Projection>(
        projection: P,
        upcasters: Arc<RwLock<Upcasters>>,
        place: &'static Location<'static>,
    ) -> Self {
        const {
            assert!(
                is_kind(P::NAME),
                "Projection::NAME is a word of a-z, 0-9, '_' and '-', like orders-by-status"
            );
            assert!(
                !P::KINDS.is_empty(),
                "Projection::KINDS names the kinds of aggregates whose events it takes, like [\"order\"]"
            );
            assert!(
                are_distinct(<P::Event as AggregateEvent>::KINDS),
                "two events of a projection have the same Event::TYPE"
            );
        };
        let run = move |place: Place, envelope: Envelope| {
            let event = match decode_one_of::<P::Event>(&upcasters, &envelope) {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(None),
                Err(why) => return Err(Failure::undecodable(why)),
            };
            let event = Projected {
                event,
                aggregate: place.aggregate,
                version: place.version,
                position: place.position,
                envelope,
            };
            let mut view = View::new();
            projection.project(event, &mut view)?;
            Ok(Some(view))
        };
        Registered {
            name: P::NAME,
            kinds: P::KINDS,
            events: P::Event::KINDS,
            place,
            stream: (P::STREAM, P::PARTITIONS),
            run: Box::new(run),
        }
    }

    /// Its public streams.
    ///
    /// # Errors
    /// If there can be none of this name, or not so many.
    pub fn public(&self) -> Result<PublicStreams> {
        PublicStreams::new(self.stream.0)?.partitions(self.stream.1)
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<String> {
        let problem = |why: String| {
            Some(format!(
                "{}: the projection {} {why}",
                self.place, self.name
            ))
        };
        for kind in self.kinds {
            if AggregateId::new(kind, "1").is_err() {
                return problem(format!(
                    "takes events of {kind:?}, which is no kind of aggregates"
                ));
            }
            if *kind == self.name {
                return problem(
                    "is called like a kind of aggregates, whose keys would be its own".to_owned(),
                );
            }
        }
        if let Err(why) = crate::config::check::group_name(self.name) {
            return problem(format!("has a name that {why}"));
        }
        self.public()
            .err()
            .and_then(|error| problem(format!("can't be: {error}")))
    }

    /// Whose event an entry is, and its version there, where it is one of its kinds.
    pub(super) fn whose(&self, entry: &Entry) -> Option<(AggregateId, u64)> {
        let text = |name| std::str::from_utf8(entry.fields.value(name)?).ok();
        // What the store has not put there is nowhere else, and would be missing in a view that is made anew.
        let version = text(VERSION)?.parse().ok()?;
        let aggregate = text("subject")?.parse::<AggregateId>().ok()?;
        self.kinds
            .contains(&aggregate.kind())
            .then_some((aggregate, version))
    }

    /// What an entry of its public stream, at this position, does to the view; None if it is passed over.
    pub fn project(
        &self,
        entry: &Entry,
        position: EntryId,
    ) -> Result<Option<Vec<Effect>>, Failure> {
        let Some((aggregate, version)) = self.whose(entry) else {
            return Ok(None);
        };
        let envelope =
            Envelope::decode(entry.clone()).map_err(|(_, error)| Failure::undecodable(error))?;
        let place = Place {
            aggregate,
            version,
            position,
        };
        // What a panic leaves behind is the projection's own business, as with a handler.
        let view = catch_unwind(AssertUnwindSafe(|| (self.run)(place, envelope))).unwrap_or_else(
            |panic| {
                Err(Failure::panicked(format!(
                    "it panicked: {}",
                    panic_message(panic)
                )))
            },
        )?;
        view.map(|view| view.into_effects().map_err(Failure::permanent))
            .transpose()
    }
}
