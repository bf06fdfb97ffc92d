//! Brings a stored event to what is made of it: its type, its version as of today, its data; and applies it.

use std::sync::RwLock;

use super::aggregate::{Aggregate, AggregateEvent, EventData};
use super::catch_panic::catch_panic;
use super::events::StoredEvent;
use crate::aggregate_id::AggregateId;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Envelope;
use crate::sync::read;
use crate::upcast::Upcasters;

/// The event of an aggregate.
pub(super) fn decode<A: Aggregate>(
    upcasters: &RwLock<Upcasters>,
    id: &AggregateId,
    stored: &StoredEvent,
) -> Result<A::Event> {
    let wrong = |why: String| wrong(id, stored, &why);
    catch_panic("read,", || decode_one_of(upcasters, &stored.envelope))
        .and_then(|read| read)
        .map_err(wrong)?
        .ok_or_else(|| wrong(format!("{} has no events of this type", A::KIND)))
}

/// Applies an event, as it is decoded, by what `apply` does with it.
///
/// # Errors
/// If that panics. The state is not to be used any more.
pub(super) fn apply(id: &AggregateId, stored: &StoredEvent, apply: impl FnOnce()) -> Result<()> {
    catch_panic("applied,", apply).map_err(|why| wrong(id, stored, &why))
}

/// What is wrong with an event.
fn wrong(id: &AggregateId, stored: &StoredEvent, why: &str) -> Error {
    let (at, envelope) = (stored.version, &stored.envelope);
    let (event_type, version) = (envelope.event_type(), envelope.version());
    let message = format!("event {at} of {id} ({event_type} in version {version}): {why}");
    Error::new(ErrorKind::Codec, message)
}

/// The event, upcast where it is of an older version; None if its type is none of the enum's.
///
/// # Errors
/// If it can't be read.
pub(super) fn decode_one_of<E: AggregateEvent>(
    upcasters: &RwLock<Upcasters>,
    envelope: &Envelope,
) -> Result<Option<E>, String> {
    let (event_type, version) = (envelope.event_type(), envelope.version());
    let mut kinds = E::KINDS.iter();
    let Some(kind) = kinds.find(|kind| kind.event_type == event_type) else {
        return Ok(None);
    };
    if version > kind.version {
        return Err(format!(
            "this release knows versions up to {}",
            kind.version
        ));
    }
    let upcast = match version == kind.version {
        true => None,
        false => {
            let upcasters = read(upcasters);
            upcasters
                .upcast(envelope)
                .map_err(|failure| failure.to_string())?
        }
    };
    let data = EventData {
        content_type: envelope.content_type(),
        data: upcast.as_deref().unwrap_or(envelope.data()),
    };
    E::decode(event_type, data)
        .ok_or_else(|| "it is not decoded".to_owned())?
        .map(Some)
        .map_err(|error| error.to_string())
}
