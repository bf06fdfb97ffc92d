//! What is counted of events that are published. Streams and types are whatever publishers say, so there is an end to how
//! many are told apart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::cells::{Cells, Unit};
use super::entries::OTHER;
use super::snapshot::{Labels, Snapshot, Value, of};
use super::table::Id;
use crate::sync::lock;

/// Most streams, each with a histogram for each status; and most series of counts.
const MOST_STREAMS: usize = 100;
const MOST: usize = 1000;

/// What became of an event that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Ok,
    Duplicate,
    Scheduled,
    NotReplicated,
    Error,
}

#[derive(Default)]
pub struct Publishing(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    counts: BTreeMap<Labels, u64>,
    took: BTreeMap<Labels, Arc<Cells>>,
    streams: BTreeMap<Box<str>, ()>,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Duplicate => "duplicate",
            Status::Scheduled => "scheduled",
            Status::NotReplicated => "not_replicated",
            Status::Error => "error",
        }
    }
}

impl Publishing {
    /// Events were given to Redis for a stream, and that took so long.
    pub fn published<'a>(
        &self,
        stream: &str,
        events: impl IntoIterator<Item = (&'a str, Status)>,
        took: Duration,
    ) {
        let mut inner = lock(&self.0);
        let stream = inner.stream(stream);
        let mut worst = Status::Ok;
        for (event_type, status) in events {
            worst = worst.max(status);
            let labels = of(&[stream, event_type, status.as_str()]);
            let is_full = inner.counts.len() >= MOST && !inner.counts.contains_key(&labels);
            let labels = match is_full {
                true => of(&[stream, OTHER, status.as_str()]),
                false => labels,
            };
            *inner.counts.entry(labels).or_default() += 1;
        }
        let labels = of(&[stream, worst.as_str()]);
        let cells = inner.took.entry(labels);
        let cells = cells.or_insert_with(|| Arc::new(Cells::new(Unit::Nanoseconds)));
        cells.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn add_to(&self, snapshot: &mut Snapshot) {
        let inner = lock(&self.0);
        for (labels, count) in &inner.counts {
            snapshot.add(Id::Published, labels.clone(), Value::Counter(*count));
        }
        for (labels, cells) in &inner.took {
            if let Some(histogram) = cells.get() {
                snapshot.add(
                    Id::PublishDuration,
                    labels.clone(),
                    Value::Histogram(histogram),
                );
            }
        }
    }
}

impl Inner {
    /// The label of a stream.
    fn stream<'a>(&mut self, stream: &'a str) -> &'a str {
        if self.streams.contains_key(stream) {
            return stream;
        }
        if self.streams.len() >= MOST_STREAMS {
            return OTHER;
        }
        self.streams.insert(stream.into(), ());
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_what_became_of_them_and_there_is_an_end_to_series() {
        let publishing = Publishing::default();
        let took = Duration::from_millis(2);
        publishing.published(
            "orders",
            [("a", Status::Ok), ("a", Status::Ok), ("b", Status::Error)],
            took,
        );
        for n in 0..2 * MOST {
            publishing.published(&format!("s-{n}"), [(&*format!("t-{n}"), Status::Ok)], took);
        }
        publishing.published("orders", [("a", Status::Duplicate)], took);
        let mut snapshot = Snapshot::default();
        publishing.add_to(&mut snapshot);
        let total = |with: &[(&str, &str)]| snapshot.total(Id::Published, with);
        assert_eq!(
            total(&[("stream", "orders"), ("type", "a"), ("status", "ok")]),
            2.0
        );
        assert_eq!(total(&[("stream", "orders"), ("status", "error")]), 1.0);
        assert_eq!(total(&[]), 4.0 + 2.0 * MOST as f64);
        let durations = snapshot.histogram(
            Id::PublishDuration,
            &[("stream", "orders"), ("status", "error")],
        );
        assert_eq!(durations.count(), 1);
        assert!(
            snapshot.len() < MOST + 2 * MOST_STREAMS + 10,
            "{}",
            snapshot.len()
        );
    }
}
