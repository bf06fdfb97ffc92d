//! Brings a stored event to what its aggregate applies: its type, its version as of today, its data.

use std::sync::RwLock;

use super::aggregate::{Aggregate, AggregateEvent, EventData};
use super::events::StoredEvent;
use super::id::AggregateId;
use crate::error::{Error, ErrorKind, Result};
use crate::upcast::Upcasters;

/// The event that is stored, upcast where it is of an older version.
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
    let kinds = A::Event::KINDS;
    let kind = kinds
        .iter()
        .find(|kind| kind.event_type == event_type)
        .ok_or_else(|| wrong(format!("{} has no events of this type", A::KIND)))?;
    if version > kind.version {
        return Err(wrong(format!(
            "this release knows versions up to {}",
            kind.version
        )));
    }
    let upcast = match version == kind.version {
        true => None,
        false => {
            let upcasters = upcasters.read().expect("no panic while it is locked");
            upcasters
                .upcast(envelope)
                .map_err(|failure| wrong(failure.to_string()))?
        }
    };
    let data = EventData {
        content_type: envelope.content_type(),
        data: upcast.as_deref().unwrap_or(envelope.data()),
    };
    A::Event::decode(event_type, data)
        .ok_or_else(|| wrong("it is not decoded".to_owned()))?
        .map_err(|error| wrong(error.to_string()))
}
