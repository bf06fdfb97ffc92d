//! How durations stand in JSON: in milliseconds, as everywhere else.

use std::time::Duration;

use serde::{Serialize, Serializer};

pub(super) fn ms<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(duration.as_millis() as u64)
}

pub(super) fn some_ms<S: Serializer>(
    duration: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    duration
        .map(|duration| duration.as_millis() as u64)
        .serialize(to)
}
