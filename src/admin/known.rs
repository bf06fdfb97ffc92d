//! A registered kind of aggregates, and where they are.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result, chain};
use crate::event::Envelope;
use crate::eventstore::{AggregateId, EventStore, Expected, Kind, RedisEventStore, StoredEvent};

/// A kind, and where its aggregates are.
#[derive(Clone)]
pub(super) struct Known {
    pub kind: Arc<Kind>,
    pub store: RedisEventStore,
}

impl Known {
    /// Applies the event to the aggregate as it is before it. Returns where it may be stored.
    pub async fn check(
        &self,
        id: &AggregateId,
        event: &Envelope,
        expect: Option<u64>,
    ) -> Result<Expected> {
        let refuse = |what: &str, why: Error| {
            let message = format!("nothing is stored, for {id} {what}: {}", chain(&why));
            Error::new(ErrorKind::Codec, message).with_source(why)
        };
        let most = expect.unwrap_or(u64::MAX);
        let (mut events, mut replay) = (self.store.read(id, 1), self.kind.begin(id.clone()));
        let (mut version, mut last) = (0, None);
        while version < most {
            let Some(stored) = events.next().await? else {
                break;
            };
            let applied = replay.apply(&stored);
            applied.map_err(|why| refuse("can't be loaded", why))?;
            version = stored.version;
            last = Some(stored.envelope.id().into_owned());
        }
        let expected = match expect {
            Some(expected) if version < expected => return Ok(Expected::Exact(expected)),
            // The same request once more: it is stored, and applied.
            None if last.is_some_and(|last| last == event.id()) => return Ok(Expected::Any),
            _ => Expected::Exact(version),
        };
        let applied = replay.apply(&StoredEvent::new(version + 1, event.clone()));
        applied.map_err(|why| refuse("could not be loaded any more", why))?;
        Ok(expected)
    }
}
