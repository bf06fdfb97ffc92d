//! Brings a stored event to what is made of it: its type, its version as of today, its data.

use std::sync::RwLock;

use super::aggregate::{Aggregate, AggregateEvent, EventData};
use super::events::StoredEvent;
use super::id::AggregateId;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Envelope;
use crate::upcast::Upcasters;

/// The event of an aggregate.
pub(super) fn decode<A: Aggregate>(
    upcasters: &RwLock<Upcasters>,
    id: &AggregateId,
    stored: &StoredEvent,
) -> Result<A::Event> {
    let envelope = &stored.envelope;
    let (event_type, version) = (envelope.event_type(), envelope.version());
    let wrong = |why: String| {
        let at = stored.version;
        let message = format!("event {at} of {id} ({event_type} in version {version}): {why}");
        Error::new(ErrorKind::Codec, message)
    };
    decode_one_of(upcasters, envelope)
        .map_err(&wrong)?
        .ok_or_else(|| wrong(format!("{} has no events of this type", A::KIND)))
}

/// The event, upcast where it is of an older version; None where its type is none of the enum's.
///
/// # Errors
/// Where it can't be read.
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
            let upcasters = upcasters.read().expect("no panic while it is locked");
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
