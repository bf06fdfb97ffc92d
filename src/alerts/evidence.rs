//! What rules look at, as data: how the group stands, and what it has counted of late.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::AlertSettings;
use crate::metrics::snapshot::{Snapshot, Value};
use crate::metrics::table::Id;

/// The windows that rules look back over: of sudden, of lasting and of slow trouble.
pub(super) const WINDOWS: [Duration; 4] = [
    Duration::from_secs(5 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(6 * 3600),
];

/// How a group stands at one moment, and how it got there.
pub(super) struct Evidence<'a> {
    pub settings: &'a AlertSettings,
    /// The group's gauges.
    pub gauges: Snapshot,
    /// What all workers have counted within each of [`WINDOWS`].
    pub counted: [Snapshot; WINDOWS.len()],
    /// How many entries each stream's group had not read, a minute apart, the youngest last.
    pub lags: BTreeMap<String, Vec<u64>>,
    /// Kinds of failures whose first dead letter is younger than the last look.
    pub new_failures: Vec<NewFailure>,
    /// The shortest lease of the group's workers.
    pub lease: Option<Duration>,
}

/// A kind of failure that was never seen before.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NewFailure {
    pub stream: String,
    pub fingerprint: String,
    /// What went wrong, in words, and of which type.
    pub error: String,
    pub event_type: String,
}

/// Something that is wrong, of one rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    /// What tells it from others of its rule, beside the group.
    pub labels: Vec<(&'static str, String)>,
    /// What is wrong and how badly, in a sentence.
    pub text: String,
}

impl Evidence<'_> {
    /// What was counted within the last `window`, one of [`WINDOWS`].
    pub fn within(&self, window: Duration) -> &Snapshot {
        let at = WINDOWS.iter().position(|of| *of == window);
        &self.counted[at.expect("a window that rules look back over")]
    }

    /// The series of a gauge of the group, with what they are at.
    pub fn gauge(&self, id: Id) -> impl Iterator<Item = (Series<'_>, f64)> {
        let series = self.gauges.iter().filter(move |(of, ..)| *of == id);
        series.filter_map(|(id, labels, value)| match value {
            Value::Gauge(value) => Some((Series { id, labels }, *value)),
            _ => None,
        })
    }

    /// The streams that anything was counted of within the last `window`.
    pub fn streams(&self, window: Duration) -> Vec<&str> {
        let series = self.within(window).iter();
        let mut streams: Vec<&str> = series
            .filter(|(id, ..)| *id == Id::Settled)
            .filter_map(|(id, labels, _)| Series { id, labels }.label("stream"))
            .collect();
        streams.dedup();
        streams
    }
}

/// One series of a metric.
#[derive(Clone, Copy)]
pub(super) struct Series<'a> {
    id: Id,
    labels: &'a [Box<str>],
}

impl<'a> Series<'a> {
    /// The value of one of its labels.
    pub fn label(&self, name: &str) -> Option<&'a str> {
        let at = self.id.metric().labels.iter().position(|of| *of == name)?;
        self.labels.get(at).map(|value| &**value)
    }

    /// The same for a finding: empty if there is none.
    pub fn own(&self, name: &'static str) -> (&'static str, String) {
        (name, self.label(name).unwrap_or_default().to_owned())
    }
}
