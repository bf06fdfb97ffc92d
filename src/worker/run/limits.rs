//! Limits that operators set while the group runs, as this worker has heard of them: each stream says what is set, and of two
//! that do not agree the later one holds.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::policy::SetLimit;
use crate::sync::lock;

/// What is set, and who is to hear of changes.
#[derive(Default)]
pub(crate) struct Limits {
    /// Whether anything is: most of the time nothing is.
    any: AtomicBool,
    streams: Mutex<BTreeMap<String, Vec<SetLimit>>>,
    /// There are other places than before: what waits here may have its turn.
    changed: Notify,
    /// A handler has too few permits of its group's.
    wanted: std::sync::Arc<Notify>,
}

impl Limits {
    /// What is set by a stream's word. Returns what holds for all handlers, if that has changed.
    pub fn learn(&self, stream: &str, set: Vec<SetLimit>) -> Option<Vec<SetLimit>> {
        if set.is_empty() && !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let mut streams = lock(&self.streams);
        let before = holding(&streams);
        match set.is_empty() {
            true => streams.remove(stream),
            false => streams.insert(stream.to_owned(), set),
        };
        self.any.store(!streams.is_empty(), Ordering::Relaxed);
        let now = holding(&streams);
        (before != now).then_some(now)
    }

    /// There are other places than before.
    pub fn change(&self) {
        self.changed.notify_one();
    }

    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Waits until a handler has too few permits.
    pub fn wanted(&self) -> Notified<'_> {
        self.wanted.notified()
    }

    /// Told of that.
    pub fn wants(&self) -> std::sync::Arc<Notify> {
        self.wanted.clone()
    }
}

fn holding(streams: &BTreeMap<String, Vec<SetLimit>>) -> Vec<SetLimit> {
    let mut all: BTreeMap<&str, &SetLimit> = BTreeMap::new();
    for set in streams.values().flatten() {
        let known = all.entry(&set.handler).or_insert(set);
        if set.since_ms > known.since_ms {
            *known = set;
        }
    }
    all.into_values().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_streams_that_do_not_agree_the_later_word_holds() {
        let set = |since_ms, slots| SetLimit {
            handler: "a.b".to_owned(),
            since_ms,
            rate: None,
            concurrency: Some(slots),
        };
        let limits = Limits::default();
        assert_eq!(limits.learn("orders", Vec::new()), None);
        assert_eq!(
            limits.learn("orders", vec![set(1, 8)]),
            Some(vec![set(1, 8)])
        );
        assert_eq!(limits.learn("orders", vec![set(1, 8)]), None);
        assert_eq!(
            limits.learn("mails", vec![set(2, 4)]),
            Some(vec![set(2, 4)])
        );
        assert_eq!(limits.learn("orders", Vec::new()), None);
        assert_eq!(limits.learn("mails", Vec::new()), Some(Vec::new()));
    }
}
