//! The public streams of a category, and the keys of its aggregates: a partition each, and a slot of a cluster.

use super::aggregate::Aggregate;
use crate::aggregate_id::AggregateId;
use crate::config::check_stream;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::{self, Partition};
use crate::stream::StreamKeys;

/// The streams on which others are told of aggregates' events: `orders`, or with partitions `{orders:0}` and so on.
///
/// The partition of an aggregate is the 64-bit FNV-1a hash of its address (`order:o-1`) modulo their number. That number
/// is for good: with another one aggregates would be looked for where they are not.
///
/// ```
/// use streamhand::eventstore::PublicStreams;
///
/// let orders = PublicStreams::new("orders").unwrap();
/// let order = "order:o-1".parse().unwrap();
/// assert_eq!((orders.of(&order), &orders.key(&order)[..]), ("orders", "{orders}:order:o-1"));
///
/// let orders = orders.partitions(8).unwrap();
/// assert_eq!(orders.of(&order), "{orders:2}");
/// assert_eq!(orders.key(&order), "{orders:2}:order:o-1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicStreams {
    streams: Vec<StreamKeys>,
}

impl PublicStreams {
    /// One public stream for all aggregates.
    ///
    /// # Errors
    /// If the name can't be a stream's.
    pub fn new(stream: &str) -> Result<Self> {
        check_stream(stream)?;
        Ok(PublicStreams {
            streams: vec![StreamKeys::new(stream)],
        })
    }

    /// Those of a kind of aggregates: its [`STREAM`](Aggregate::STREAM) in its [`PARTITIONS`](Aggregate::PARTITIONS).
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`partitions`](Self::partitions).
    pub fn of_kind<A: Aggregate>() -> Result<Self> {
        Self::new(A::STREAM)?.partitions(A::PARTITIONS)
    }

    /// The same in so many partitions, from 1 (which is the stream itself) to 16384.
    ///
    /// # Errors
    /// If there are too few or too many, or the stream's name has a tag of its own, which binds it to one slot.
    pub fn partitions(self, partitions: u32) -> Result<Self> {
        let stream = &self.streams[0].stream;
        let invalid = |why: &str| {
            let message = format!("{partitions} partitions of {stream:?}: {why}");
            Err(Error::new(ErrorKind::Invalid, message))
        };
        if partitions == 1 {
            return Ok(self);
        }
        match partition::check(stream, partitions) {
            Err(why) => invalid(why),
            Ok(()) => Ok(PublicStreams {
                streams: (0..partitions)
                    .map(|number| Partition::first(stream, number).to_string())
                    .map(|name| StreamKeys::new(&name))
                    .collect(),
            }),
        }
    }

    /// The stream that the events of an aggregate go to.
    pub fn of(&self, aggregate: &AggregateId) -> &str {
        &self.streams[self.partition(aggregate)].stream
    }

    /// That stream, and the keys beside it.
    pub(super) fn keys_of(&self, aggregate: &AggregateId) -> &StreamKeys {
        &self.streams[self.partition(aggregate)]
    }

    /// The key of an aggregate.
    pub fn key(&self, aggregate: &AggregateId) -> String {
        self.streams[self.partition(aggregate)].aggregate(aggregate.as_str())
    }

    /// The key of an aggregate's snapshot, which no aggregate can have: an id has no `:`.
    pub(super) fn snapshot(&self, aggregate: &AggregateId) -> String {
        format!("{}:snapshot", self.key(aggregate))
    }

    /// The stream of a partition.
    ///
    /// # Errors
    /// If there is no such partition.
    pub(super) fn partition_keys(&self, partition: usize) -> Result<&StreamKeys> {
        self.streams.get(partition).ok_or_else(|| {
            let message = format!(
                "there is no partition {partition}: they are {}",
                self.streams.len()
            );
            Error::new(ErrorKind::Invalid, message)
        })
    }

    /// The aggregate with this key. None if no aggregate of the partition has it.
    pub(super) fn aggregate_at(&self, partition: usize, key: &str) -> Option<AggregateId> {
        let prefix = self.streams[partition].aggregates();
        let id: AggregateId = key.strip_prefix(&prefix)?.parse().ok()?;
        (self.partition(&id) == partition).then_some(id)
    }

    /// All of them, by partition.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().map(|keys| &keys.stream[..])
    }

    /// The number of the partition an aggregate is in, from 0.
    pub fn partition(&self, aggregate: &AggregateId) -> usize {
        let count = self.streams.len() as u32;
        partition::partition_of(aggregate.as_str().as_bytes(), count) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregates_are_spread_evenly_over_partitions_each_beside_its_stream() {
        let orders = PublicStreams::new("orders").unwrap().partitions(8).unwrap();
        let mut count = [0; 8];
        for n in 0..8_000 {
            let order = AggregateId::new("order", &format!("o-{n}")).unwrap();
            let partition = orders.partition(&order);
            assert_eq!(orders.of(&order), format!("{{orders:{partition}}}"));
            assert_eq!(
                orders.key(&order),
                format!("{{orders:{partition}}}:order:o-{n}")
            );
            count[partition] += 1;
        }
        assert!(count.iter().all(|n| (800..1_200).contains(n)), "{count:?}");
        assert_eq!(orders.names().count(), 8);
    }

    #[test]
    fn what_can_t_be_spread_is_refused() {
        let orders = || PublicStreams::new("orders").unwrap();
        assert!(orders().partitions(0).is_err() && orders().partitions(16385).is_err());
        assert_eq!(orders().partitions(1).unwrap(), orders());
        let tagged = PublicStreams::new("{shop}.orders").unwrap();
        assert_eq!(
            tagged.key(&"order:1".parse().unwrap()),
            "{shop}.orders:order:1"
        );
        assert!(tagged.partitions(2).is_err());
        assert!(PublicStreams::new("a{b").is_err());
    }
}
