//! What Redis keeps of a partitioned topic: how many partitions each of its generations has.
//!
//! `{orders}:partitions` is a hash with a field for each generation, its number, and how many partitions that has. A
//! field is written once and never changed, so whoever comes first says it and all others find it. The highest is where
//! events go.

use redis::Value;

use super::error::{Trouble, Who, refusal};
use super::pool::Pool;
use super::reply;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::Partition;

/// What is known of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicLayout {
    pub topic: String,
    /// How many partitions each generation has, the first one first.
    generations: Vec<u32>,
}

impl TopicLayout {
    /// That of a topic which has never grown.
    pub fn first(topic: &str, partitions: u32) -> Self {
        TopicLayout {
            topic: topic.to_owned(),
            generations: vec![partitions],
        }
    }

    /// How many partitions events are spread over.
    pub fn partitions(&self) -> u32 {
        self.generations.last().copied().unwrap_or(1)
    }

    /// The streams events go to, by partition.
    pub fn streams(&self) -> Vec<String> {
        let generation = self.generations.len() as u32;
        let stream = |number| Partition {
            topic: &self.topic,
            generation,
            number,
        };
        (0..self.partitions())
            .map(|number| stream(number).to_string())
            .collect()
    }

    fn of(topic: &str, value: Value) -> Option<Self> {
        let mut found = Vec::new();
        let mut items = reply::array(value)?.into_iter();
        while let (Some(generation), Some(partitions)) = (items.next(), items.next()) {
            // Fields that are no numbers are for later releases.
            let Ok(generation) = reply::text(generation)?.parse::<u32>() else {
                continue;
            };
            found.push((generation, reply::text(partitions)?.parse().ok()?));
        }
        found.sort_unstable();
        let is_whole = (1..)
            .zip(&found)
            .all(|(at, (generation, _))| at == *generation);
        is_whole.then(|| TopicLayout {
            topic: topic.to_owned(),
            generations: found
                .into_iter()
                .map(|(_, partitions)| partitions)
                .collect(),
        })
    }
}

/// The key of what is kept of a topic.
pub(crate) fn partitions_key(topic: &str) -> String {
    format!("{{{topic}}}:partitions")
}

impl Pool {
    /// What is known of a topic that is set to have so many partitions; if nothing is, that is said now.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it has another number of them, and has never had that: events would be looked for where
    /// they are not.
    pub async fn topic(&self, topic: &str, partitions: u32) -> Result<TopicLayout> {
        let key = partitions_key(topic);
        let doing = format!("looking how many partitions {topic:?} has, in {key}");
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
        assert_eq!(layout.streams()[3], "{orders:2.3}");
        assert_eq!(
            TopicLayout::first("orders", 2).streams(),
            ["{orders:0}", "{orders:1}"]
        );
        assert_eq!(
            TopicLayout::of("orders", hash(&[("1", "2"), ("3", "4")])),
            None
        );
    }
}
