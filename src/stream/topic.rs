//! What Redis keeps of a partitioned topic: how many partitions each of its generations has, and who is through with one.
//!
//! `{orders}:partitions` is a hash with a field for each generation, its number, and how many partitions that has. The
//! highest is where events go. `sealing:2` says that somebody has begun to make generation 2, and how many it is to have;
//! `through:1:fulfilment` that this group has settled all there is of generation 1. A field is written once and never
//! changed, so whoever comes first says it and all others find it.

use std::collections::BTreeSet;

use redis::Value;

use super::error::{Trouble, Who, refusal};
use super::pool::Pool;
use super::reply;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::{Partition, address, partition_of};

/// What is known of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicLayout {
    pub topic: String,
    /// How many partitions each generation has, the first one first.
    pub generations: Vec<u32>,
    /// How many the next one is to have, if somebody has begun to make it.
    pub sealing: Option<u32>,
    /// Groups that are through with a generation.
    pub through: BTreeSet<(u32, String)>,
}

impl TopicLayout {
    /// That of a topic which has never grown.
    pub fn first(topic: &str, partitions: u32) -> Self {
        Self::of_generations(topic, vec![partitions])
    }

    /// That of one whose generations have so many partitions.
    pub fn of_generations(topic: &str, generations: Vec<u32>) -> Self {
        TopicLayout {
            topic: topic.to_owned(),
            generations,
            sealing: None,
            through: BTreeSet::new(),
        }
    }

    /// How many partitions events are spread over.
    pub fn partitions(&self) -> u32 {
        self.generations.last().copied().unwrap_or(1)
    }

    /// The generation that events go to.
    pub fn generation(&self) -> u32 {
        self.generations.len() as u32
    }

    /// The streams of a generation, by partition.
    pub fn streams_of(&self, generation: u32) -> Vec<String> {
        let place = (generation as usize).wrapping_sub(1);
        let partitions = self.generations.get(place).copied().unwrap_or_default();
        streams(&self.topic, generation, partitions)
    }

    /// Those of all generations, the oldest first.
    pub fn streams(&self) -> Vec<String> {
        (1..=self.generation())
            .flat_map(|generation| self.streams_of(generation))
            .collect()
    }

    /// The stream that whatever has this address goes to.
    fn stream_of(&self, address: &[u8]) -> String {
        let partition = Partition {
            topic: &self.topic,
            generation: self.generation(),
            number: partition_of(address, self.partitions()),
        };
        partition.to_string()
    }

    /// Whether a group has settled all there is of a generation, and the next is to be read.
    #[cfg(feature = "worker")]
    pub fn is_through(&self, generation: u32, group: &str) -> bool {
        self.through.contains(&(generation, group.to_owned()))
    }

    fn of(topic: &str, value: Value) -> Option<Self> {
        let (mut found, mut sealing, mut through) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut items = reply::array(value)?.into_iter();
        while let (Some(field), Some(value)) = (items.next(), items.next()) {
            let (field, value) = (reply::text(field)?, reply::text(value)?);
            let mut words = field.splitn(3, ':');
            match (words.next(), words.next(), words.next()) {
                (Some("sealing"), Some(generation), None) => {
                    let generation: u32 = generation.parse().ok()?;
                    sealing.push((generation, value.parse().ok()?));
                }
                (Some("through"), Some(generation), Some(group)) => {
                    through.insert((generation.parse().ok()?, group.to_owned()));
                }
                (Some(generation), None, _) => {
                    // Fields that are none of these are for later releases.
                    if let Ok(generation) = generation.parse::<u32>() {
                        found.push((generation, value.parse().ok()?));
                    }
                }
                _ => {}
            }
        }
        found.sort_unstable();
        let is_whole = (1..)
            .zip(&found)
            .all(|(at, (generation, _))| at == *generation);
        let next = found.len() as u32 + 1;
        let sealing = sealing.iter().find(|(generation, _)| *generation == next);
        is_whole.then(|| TopicLayout {
            topic: topic.to_owned(),
            sealing: sealing.map(|(_, partitions)| *partitions),
            through,
            generations: found
                .into_iter()
                .map(|(_, partitions)| partitions)
                .collect(),
        })
    }
}

/// The streams of a topic's generation that has so many.
pub(super) fn streams(topic: &str, generation: u32, partitions: u32) -> Vec<String> {
    let stream = |number| Partition {
        topic,
        generation,
        number,
    };
    (0..partitions)
        .map(|number| stream(number).to_string())
        .collect()
}

/// The key of what is kept of a topic.
pub(crate) fn partitions_key(topic: &str) -> String {
    format!("{{{topic}}}:partitions")
}

fn looking(topic: &str) -> String {
    let key = partitions_key(topic);
    format!("looking how many partitions {topic:?} has, in {key}")
}

impl Pool {
    /// What is known of a topic that is set to have so many partitions; if nothing is, that is said now.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it has another number of them, and has never had that: events would be looked for where
    /// they are not.
    pub async fn topic(&self, topic: &str, partitions: u32) -> Result<TopicLayout> {
        let key = partitions_key(topic);
        let doing = looking(topic);
        let mut conn = self.at(&key).get().await?;
        let mut pipe = redis::pipe();
        pipe.cmd("HSETNX").arg(&key).arg(1).arg(partitions).ignore();
        pipe.cmd("HGETALL").arg(&key);
        let value: Vec<Value> = pipe
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let layout = value
            .into_iter()
            .next()
            .and_then(|value| TopicLayout::of(topic, value))
            .filter(|layout| !layout.generations.is_empty())
            .ok_or_else(|| Trouble::garbled(&doing).into_error())?;
        if layout.generations.contains(&partitions) {
            return Ok(layout);
        }
        let has = layout.partitions();
        Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "the topic {topic:?} has {has} partitions, as {key} says, and is set to have {partitions}: with another \
                 number events would go where nobody looks for their subject; write `partitions = {has}` in \
                 [streams.{topic:?}]"
            ),
        ))
    }

    /// What is known of a topic. None if nobody has said yet how many partitions it has.
    pub async fn known_topic(&self, topic: &str) -> Result<Option<TopicLayout>> {
        let (key, doing) = (partitions_key(topic), looking(topic));
        let mut conn = self.at(&key).get().await?;
        let mut call = redis::cmd("HGETALL");
        let answer = call.arg(&key).query_async(&mut conn).await;
        let value: Value = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
        let layout = TopicLayout::of(topic, value);
        let layout = layout.ok_or_else(|| Trouble::garbled(&doing).into_error())?;
        Ok((!layout.generations.is_empty()).then_some(layout))
    }

    /// Where an event goes whose stream is sealed: the stream that its topic has for it by now. None if that is no
    /// partition, or its topic has no later generation yet.
    #[cfg(feature = "worker")]
    pub async fn grown_from(
        &self,
        stream: &str,
        subject: Option<&[u8]>,
        id: &[u8],
    ) -> Result<Option<String>> {
        let Some(Partition {
            topic, generation, ..
        }) = Partition::parse(stream)
        else {
            return Ok(None);
        };
        let layout = self.known_topic(topic).await?;
        let layout = layout.filter(|layout| layout.generation() > generation);
        Ok(layout.map(|layout| layout.stream_of(address(subject, id))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(fields: &[(&str, &str)]) -> Value {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let pair = |(name, value): &(&str, &str)| [text(name), text(value)];
        Value::Array(fields.iter().flat_map(pair).collect())
    }

    #[test]
    fn events_go_to_the_highest_generation_that_is_written_down() {
        let layout = TopicLayout::of("orders", hash(&[("2", "4"), ("1", "2"), ("x", "9")]));
        let layout = layout.expect("a layout");
        assert_eq!(layout.partitions(), 4);
        assert_eq!(layout.streams_of(2)[3], "{orders:2.3}");
        assert_eq!(layout.streams()[2], "{orders:2.0}");
        assert_eq!(layout.streams().len(), 6);
        assert_eq!(
            TopicLayout::first("orders", 2).streams(),
            ["{orders:0}", "{orders:1}"]
        );
        assert_eq!(
            TopicLayout::of("orders", hash(&[("1", "2"), ("3", "4")])),
            None
        );
    }
    #[test]
    fn a_growth_under_way_and_groups_that_are_through_are_told() {
        let begun = [("1", "2"), ("sealing:2", "8"), ("through:1:a", "1")];
        let layout = TopicLayout::of("orders", hash(&begun)).expect("a layout");
        assert_eq!((layout.generation(), layout.sealing), (1, Some(8)));
        assert!(layout.is_through(1, "a") && !layout.is_through(1, "b"));
        let done = [("1", "2"), ("sealing:2", "8"), ("2", "8")];
        let layout = TopicLayout::of("orders", hash(&done)).expect("a layout");
        assert_eq!((layout.generation(), layout.sealing), (2, None));
    }
}
