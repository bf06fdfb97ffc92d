//! Partitioned topics as a whole: totals of their partitions, and how evenly they are spread.

use serde::Serialize;

use crate::partition::Partition;

/// A partitioned topic: what its partitions come to together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TopicStatus {
    /// The topic.
    pub topic: String,
    /// How many partitions of it could be looked at.
    pub partitions: usize,
    /// Entries of all of them.
    pub length: u64,
    /// Entries that were not delivered yet; None if one partition does not know, or there is no group.
    pub lag: Option<u64>,
    /// So many there are at least.
    pub lag_at_least: u64,
    /// Entries that were delivered and are not settled.
    pub pending: u64,
    /// Entries that wait for their retry.
    pub parked: u64,
    /// Replayed entries that are not settled yet.
    pub replayed: u64,
    /// Dead letters.
    pub dead: u64,
    /// Events that are to be published later.
    pub scheduled: u64,
    /// How many times the mean the longest partition has; 1 if all are alike, 0 if there is nothing.
    pub skew: f64,
    /// The longest partition's stream, if there is anything.
    pub longest: Option<String>,
}

/// What one stream has, if it is a partition.
pub(super) struct Part<'a> {
    pub stream: &'a str,
    pub length: u64,
    /// None if it is not known, or there is no group.
    pub lag: Option<u64>,
    pub lag_at_least: u64,
    pub pending: u64,
    pub parked: u64,
    pub replayed: u64,
    pub dead: u64,
    pub scheduled: u64,
}

impl TopicStatus {
    /// The topics that these are partitions of, in their order. Other streams are none.
    pub(super) fn all<'a>(parts: impl IntoIterator<Item = Part<'a>>) -> Vec<Self> {
        let mut all: Vec<(TopicStatus, u64)> = Vec::new();
        for part in parts {
            let Some(Partition { topic, .. }) = Partition::parse(part.stream) else {
                continue;
            };
            let at = all.iter().position(|(known, _)| known.topic == topic);
            let at = at.unwrap_or_else(|| {
                let new = TopicStatus {
                    topic: topic.to_owned(),
                    lag: Some(0),
                    ..TopicStatus::default()
                };
                all.push((new, 0));
                all.len() - 1
            });
            let (of, most) = &mut all[at];
            of.add(&part);
            if part.length > *most {
                *most = part.length;
                of.longest = Some(part.stream.to_owned());
            }
        }
        let skewed = all.into_iter().map(|(mut of, most)| {
            if of.length > 0 {
                let skew = most as f64 * of.partitions as f64 / of.length as f64;
                of.skew = (skew * 100.0).round() / 100.0;
            }
            of
        });
        skewed.collect()
    }

    fn add(&mut self, part: &Part<'_>) {
        self.partitions += 1;
        self.length += part.length;
        self.lag = self.lag.zip(part.lag).map(|(all, one)| all + one);
        self.lag_at_least += part.lag_at_least;
        self.pending += part.pending;
        self.parked += part.parked;
        self.replayed += part.replayed;
        self.dead += part.dead;
        self.scheduled += part.scheduled;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_added_up_and_the_longest_is_named() {
        let part = |stream, length, lag| Part {
            stream,
            length,
            lag,
            lag_at_least: lag.unwrap_or(7),
            pending: 1,
            parked: 0,
            replayed: 0,
            dead: 2,
            scheduled: 0,
        };
        let parts = [
            part("{orders:0}", 10, Some(1)),
            part("plain", 99, Some(9)),
            part("{orders:1}", 30, Some(2)),
            part("{made:0}", 0, None),
        ];
        let all = TopicStatus::all(parts);
        let [orders, made] = &all[..] else {
            panic!("{all:?}");
        };
        let of = (orders.partitions, orders.length, orders.lag, orders.dead);
        assert_eq!(of, (2, 40, Some(3), 4));
        assert_eq!(
            (orders.skew, orders.longest.as_deref()),
            (1.5, Some("{orders:1}"))
        );
        let of = (
            made.skew,
            made.longest.as_deref(),
            made.lag,
            made.lag_at_least,
        );
        assert_eq!(of, (0.0, None, None, 7));
    }
}
