//! Events that are published once, however often they are given to the publisher.

use std::time::Duration;

use super::Publisher;
use crate::codec::Encodable;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{EntryId, Envelope, Event};
use crate::stream::{Done, How};

/// What became of an event that is published once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once {
    /// The id Redis gave the entry; if it is not new, when the event was first published.
    pub entry: EntryId,
    /// False if the event had been published before, and was not published again.
    pub is_new: bool,
}

impl Publisher {
    /// How long an event is remembered to be published where nothing else is said: a day.
    pub const ONCE_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

    /// Publishes one event to `stream`, unless the same event was published so to it within the last `window`: one of
    /// this `id`, the same type and the same source. Safe to repeat for as long, by whomever: a publish whose answer got
    /// lost included.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and if the id is empty or the window no millisecond. [`ErrorKind::Exists`] if
    /// the event was published with other data.
    pub async fn publish_once<E: Event + Encodable>(
        &self,
        stream: &str,
        id: &str,
        event: &E,
        window: Duration,
    ) -> Result<Once> {
        let envelope = self.envelope(event)?.with_known("id", id);
        self.publish_envelope_once(stream, envelope, window).await
    }

    /// As [`publish_once`](Self::publish_once), with an event that is ready made and has an id.
    ///
    /// # Errors
    /// As [`publish_once`](Self::publish_once), and if the event has no id.
    pub async fn publish_envelope_once(
        &self,
        stream: &str,
        envelope: Envelope,
        window: Duration,
    ) -> Result<Once> {
        has_id(&envelope)?;
        let how = once_within(window)?;
        match self.append_one(stream, &how, envelope).await? {
            Done::Added(entry) => Ok(Once {
                entry,
                is_new: true,
            }),
            Done::AddedBefore(entry) => Ok(Once {
                entry,
                is_new: false,
            }),
            Done::Scheduled { .. } => Err(Error::new(
                ErrorKind::Redis,
                "Redis does not say what became of the event",
            )),
        }
    }
}

/// Once within this time, where so long can be remembered.
pub(crate) fn once_within(window: Duration) -> Result<How> {
    // Redis counts a time to live from its clock, in 63 bits.
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    if window.as_millis() == 0 || window > LONGEST {
        let message = format!(
            "nothing can be published once within {}: from a millisecond to a hundred years",
            crate::duration::format(window)
        );
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(How::Once(window))
}

/// Refuses an event that nothing can be recognized by.
fn has_id(envelope: &Envelope) -> Result<()> {
    if envelope.says("id") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        "an event that is to be published once needs an id of its own, by which it is known again",
    ))
}
