//! What is counted of requests to Redis: how long each kind takes, and what went wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use super::cells::{Cells, Unit};
use super::snapshot::{Snapshot, Value, of};
use super::table::Id;
use crate::sync::{read, write};

/// Requests by their names, of which there are as many as there are commands and scripts.
#[derive(Default)]
pub struct Requests {
    of: RwLock<BTreeMap<&'static str, Arc<Request>>>,
    reconnects: RwLock<BTreeMap<Box<str>, Arc<AtomicU64>>>,
}

struct Request {
    took: Cells,
    /// By what went wrong.
    errors: RwLock<BTreeMap<&'static str, u64>>,
}

impl Requests {
    /// A request has got a reply, after so long.
    pub fn took(&self, request: &'static str, time: Duration) {
        let of = self.of(request);
        of.took
            .record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// It has failed.
    pub fn failed(&self, request: &'static str, kind: &'static str) {
        *write(&self.of(request).errors).entry(kind).or_default() += 1;
    }

    /// A connection was made; the first one for something is not made anew.
    pub fn connected(&self, part: &str) {
        let known = read(&self.reconnects).get(part).cloned();
        match known {
            Some(count) => drop(count.fetch_add(1, Ordering::Relaxed)),
            None => drop(write(&self.reconnects).insert(part.into(), Arc::default())),
        }
    }

    pub fn add_to(&self, snapshot: &mut Snapshot) {
        for (name, request) in read(&self.of).iter() {
            if let Some(histogram) = request.took.get() {
                let labels = of(&[name]);
                snapshot.add(
                    Id::RedisRequestDuration,
                    labels,
                    Value::Histogram(histogram),
                );
            }
            for (kind, count) in read(&request.errors).iter() {
                snapshot.add(Id::RedisErrors, of(&[name, kind]), Value::Counter(*count));
            }
        }
        for (part, count) in read(&self.reconnects).iter() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                snapshot.add(Id::RedisReconnects, of(&[part]), Value::Counter(count));
            }
        }
    }

    fn of(&self, request: &'static str) -> Arc<Request> {
        if let Some(known) = read(&self.of).get(request) {
            return known.clone();
        }
        let new = || {
            Arc::new(Request {
                took: Cells::new(Unit::Nanoseconds),
                errors: RwLock::default(),
            })
        };
        write(&self.of).entry(request).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_and_the_first_connection_is_no_second_one() {
        let requests = Requests::default();
        requests.took("xack", Duration::from_millis(2));
        requests.took("xack", Duration::from_millis(4));
        requests.took("park", Duration::from_millis(1));
        requests.failed("park", "refused");
        for part in ["settle", "settle", "fetch", "settle"] {
            requests.connected(part);
        }
        let mut snapshot = Snapshot::default();
        requests.add_to(&mut snapshot);
        let xack = snapshot.histogram(Id::RedisRequestDuration, &[("request", "xack")]);
        assert_eq!((xack.count(), xack.sum()), (2, 0.006));
        let total = |id, with: &[(&str, &str)]| snapshot.total(id, with);
        assert_eq!(
            total(Id::RedisErrors, &[("request", "park"), ("kind", "refused")]),
            1.0
        );
        assert_eq!(total(Id::RedisReconnects, &[("connection", "settle")]), 2.0);
        assert_eq!(total(Id::RedisReconnects, &[]), 2.0);
    }
}
