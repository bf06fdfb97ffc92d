//! What had been counted at one time: plain data that can be added up, told apart from an earlier one, and shown.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::SystemTime;

use super::histogram::Histogram;
use super::table::{Id, Kind};

/// The values of a series' labels, in the order in which the table names them.
pub type Labels = Arc<[Box<str>]>;

/// Series and what they come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Since when it was counted,
    pub since: SystemTime,
    /// and until when.
    pub at: SystemTime,
    series: BTreeMap<(Id, Labels), Value>,
}

/// What one series comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A counter.
    Counter(u64),
    /// A counter of what need not be whole, as seconds.
    Total(f64),
    /// What is now.
    Gauge(f64),
    /// How often which values came.
    Histogram(Histogram),
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot::new(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH)
    }
}

impl Snapshot {
    /// One of nothing yet.
    pub fn new(since: SystemTime, at: SystemTime) -> Self {
        Snapshot {
            since,
            at,
            series: BTreeMap::new(),
        }
    }

    /// Adds to a series. One that there is already grows by it.
    pub fn add(&mut self, id: Id, labels: Labels, value: Value) {
        debug_assert_eq!(labels.len(), id.metric().labels.len(), "{id:?}");
        debug_assert!(value.is_of(id.metric().kind), "{id:?} {value:?}");
        match self.series.entry((id, labels)) {
            Entry::Vacant(at) => drop(at.insert(value)),
            Entry::Occupied(mut at) => at.get_mut().merge(&value),
        }
    }

    /// Sets what is now.
    pub fn gauge(&mut self, id: Id, labels: &[&str], value: f64) {
        self.series.insert((id, of(labels)), Value::Gauge(value));
    }

    /// All series, those of a metric beside each other, and by their labels.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &Labels, &Value)> {
        self.series
            .iter()
            .map(|((id, labels), value)| (*id, labels, value))
    }

    #[allow(dead_code)]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    #[allow(dead_code)]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// What the series with these labels comes to.
    #[allow(dead_code)]
    pub fn get(&self, id: Id, labels: &[&str]) -> Option<&Value> {
        self.series.get(&(id, of(labels)))
    }

    /// What a metric's counters come to together, of all series that have these values of these labels. Of histograms: how
    /// many were counted.
    pub fn total(&self, id: Id, with: &[(&str, &str)]) -> f64 {
        let series = self.iter().filter(|(of, ..)| *of == id);
        let names = id.metric().labels;
        let is_wanted = |labels: &Labels| {
            with.iter().all(|(name, value)| {
                let mut pairs = names.iter().zip(labels.iter());
                pairs.any(|(of, is)| of == name && **is == **value)
            })
        };
        series
            .filter(|(_, labels, _)| is_wanted(labels))
            .map(|(.., value)| match value {
                Value::Counter(count) => *count as f64,
                Value::Total(total) | Value::Gauge(total) => *total,
                Value::Histogram(histogram) => histogram.count() as f64,
            })
            .sum()
    }

    /// The same of a histogram, as one.
    pub fn histogram(&self, id: Id, with: &[(&str, &str)]) -> Histogram {
        let names = id.metric().labels;
        let mut all = Histogram::default();
        for (_, labels, value) in self.iter().filter(|(of, ..)| *of == id) {
            let is_wanted = with.iter().all(|(name, value)| {
                let mut pairs = names.iter().zip(labels.iter());
                pairs.any(|(of, is)| of == name && **is == **value)
            });
            if let (true, Value::Histogram(histogram)) = (is_wanted, value) {
                all.merge(histogram);
            }
        }
        all
    }

    /// Adds another one's: of another worker, or of another time.
    pub fn merge(&mut self, other: &Snapshot) {
        self.since = match self.series.is_empty() {
            true => other.since,
            false => self.since.min(other.since),
        };
        self.at = self.at.max(other.at);
        for (id, labels, value) in other.iter() {
            match self.series.entry((id, labels.clone())) {
                Entry::Vacant(at) => drop(at.insert(value.clone())),
                Entry::Occupied(mut at) => at.get_mut().merge(value),
            }
        }
    }

    /// Leaves what came to it since an earlier one. Gauges stay as they are, and what has not grown goes.
    pub fn subtract(&mut self, earlier: &Snapshot) {
        self.since = earlier.at;
        self.series.retain(|key, value| {
            if let Some(before) = earlier.series.get(key) {
                value.subtract(before);
            }
            !value.is_nothing()
        });
    }
}

impl Value {
    fn is_of(&self, kind: Kind) -> bool {
        match self {
            Value::Counter(_) | Value::Total(_) => kind == Kind::Counter,
            Value::Gauge(_) => kind == Kind::Gauge,
            Value::Histogram(_) => kind == Kind::Histogram,
        }
    }

    fn merge(&mut self, other: &Value) {
        match (self, other) {
            (Value::Counter(mine), Value::Counter(others)) => *mine += others,
            (Value::Total(mine), Value::Total(others))
            | (Value::Gauge(mine), Value::Gauge(others)) => *mine += others,
            (Value::Histogram(mine), Value::Histogram(others)) => mine.merge(others),
            (mine, other) => *mine = other.clone(),
        }
    }

    fn subtract(&mut self, earlier: &Value) {
        match (self, earlier) {
            (Value::Counter(mine), Value::Counter(earlier)) => {
                *mine = mine.saturating_sub(*earlier)
            }
            (Value::Total(mine), Value::Total(earlier)) => *mine = (*mine - earlier).max(0.0),
            (Value::Histogram(mine), Value::Histogram(earlier)) => mine.subtract(earlier),
            _ => {}
        }
    }

    fn is_nothing(&self) -> bool {
        match self {
            Value::Counter(count) => *count == 0,
            Value::Total(total) => *total == 0.0,
            Value::Gauge(_) => false,
            Value::Histogram(histogram) => histogram.is_empty(),
        }
    }
}

/// Values of labels.
pub fn of(labels: &[&str]) -> Labels {
    labels.iter().map(|value| Box::from(*value)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot() -> impl Strategy<Value = Snapshot> {
        let counters = proptest::collection::vec((0..3_usize, 1..1_000_u64), 0..20);
        let values = proptest::collection::vec((0..3_usize, 1e-6..1e3), 0..20);
        (counters, values).prop_map(|(counters, values)| {
            let mut snapshot = Snapshot::default();
            let stream = |n: usize| ["orders", "invoices", "mails"][n];
            for (n, count) in counters {
                let labels = of(&[stream(n), "group", "read"]);
                snapshot.add(Id::Delivered, labels, Value::Counter(count));
            }
            for (n, value) in values {
                let value: f64 = value;
                let mut histogram = Histogram::default();
                // What can be added up without rounding.
                histogram.record((value * 1024.0).round() / 1024.0);
                let labels = of(&[stream(n), "group", "order.created"]);
                snapshot.add(Id::Wait, labels, Value::Histogram(histogram));
            }
            snapshot
        })
    }

    proptest! {
        #[test]
        fn merging_is_the_same_in_any_order(a in snapshot(), b in snapshot(), c in snapshot()) {
            let mut left = a.clone();
            left.merge(&b);
            left.merge(&c);
            let mut right = c.clone();
            right.merge(&b);
            right.merge(&a);
            prop_assert_eq!(left, right);
        }

        #[test]
        fn subtracting_undoes_merging(a in snapshot(), b in snapshot()) {
            let mut all = a.clone();
            all.merge(&b);
            all.subtract(&b);
            prop_assert_eq!(all, a);
        }
    }

    #[test]
    fn gauges_of_workers_add_up_and_stay_what_they_are() {
        let mut one = Snapshot::default();
        one.gauge(Id::Slots, &["group"], 4.0);
        let earlier = one.clone();
        one.merge(&earlier);
        one.subtract(&earlier);
        assert_eq!(one.get(Id::Slots, &["group"]), Some(&Value::Gauge(8.0)));
    }

    #[test]
    fn totals_are_of_some_labels() {
        let mut one = Snapshot::default();
        let mut count = |stream, via, count| {
            let labels = of(&[stream, "group", via]);
            one.add(Id::Delivered, labels, Value::Counter(count));
        };
        count("orders", "read", 3);
        count("orders", "wake", 5);
        count("mails", "read", 7);
        assert_eq!(one.total(Id::Delivered, &[]), 15.0);
        assert_eq!(one.total(Id::Delivered, &[("stream", "orders")]), 8.0);
        assert_eq!(one.total(Id::Delivered, &[("via", "read")]), 10.0);
    }
}
