//! For how long events are known once they are done.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::config::Settings;
use crate::handler::Registry;

/// How long events of each type are known once they are done: of those types whose handlers deduplicate.
pub(crate) struct Windows(FxHashMap<Box<[u8]>, Duration>);

impl Windows {
    pub fn new(settings: &Settings, registry: &Registry) -> Self {
        let window = |event_type: &str| {
            let lasts = settings.policy(event_type).deduplicate?;
            Some((event_type.as_bytes().into(), lasts))
        };
        Windows(registry.event_types().filter_map(window).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How long an event of this type is known.
    pub fn lasts(&self, event_type: &[u8]) -> Option<Duration> {
        self.0.get(event_type).copied()
    }
}
