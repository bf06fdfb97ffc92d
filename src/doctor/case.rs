//! What the checks go by: whose group it is, and which streams.

use std::time::Duration;

use crate::config::Settings;
use crate::stream::Keys;

/// What the checks go by.
pub(super) struct Case {
    pub group: String,
    pub lease: Duration,
    pub streams: Vec<Keys>,
    /// Streams that workers trim by themselves.
    pub trimmed: Vec<String>,
    /// Whether workers tell of themselves.
    pub pulses: bool,
    /// What takes a rule or a worker's name in the commands that mend.
    pub user: String,
}

impl Case {
    pub fn of(settings: &Settings, user: String) -> Self {
        let worker = &settings.worker;
        // Of a partitioned topic each.
        let streams = settings.streams_of(&worker.streams);
        let keys = streams
            .iter()
            .map(|stream| Keys::new(stream, &worker.group));
        let trimmed = settings
            .streams
            .iter()
            .filter(|(_, of)| of.retention.is_some());
        Case {
            group: worker.group.clone(),
            lease: worker.lease,
            streams: keys.collect(),
            trimmed: trimmed.map(|(name, _)| name.clone()).collect(),
            pulses: settings.pulse.enabled,
            user,
        }
    }

    #[cfg(test)]
    pub fn example() -> Self {
        Case {
            group: "fulfilment".to_owned(),
            lease: Duration::from_secs(30),
            streams: vec![Keys::new("orders", "fulfilment")],
            trimmed: Vec::new(),
            pulses: true,
            user: "worker".to_owned(),
        }
    }
}
