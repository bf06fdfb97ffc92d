//! Reading a stored event as one of an enum's, brought to its type's version by upcasters.

use std::sync::RwLock;

use super::aggregate::{AggregateEvent, EventData};
use crate::event::Envelope;
use crate::upcast::Upcasters;

/// The event; None where its type is none of the enum's.
///
/// # Errors
/// Where it can't be read.
pub(super) fn decode<E: AggregateEvent>(
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
