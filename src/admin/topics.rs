//! Partitioned topics as a whole: totals of their partitions and how evenly they are spread, and how a topic grows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Admin, check_stream};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::{self, Partition};
use crate::stream::{Connector, Pool, TopicLayout};

/// How many partitions a topic has and had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TopicGrowth {
    /// The topic.
    pub topic: String,
    /// How many partitions each of its generations has, the first one first. Events go to the last.
    pub generations: Vec<u32>,
    /// How many the next one is to have, if somebody has begun to make it and has not finished that.
    pub growing_to: Option<u32>,
    /// The groups that have settled all there is of a generation, and read the next, by generation.
    pub through: BTreeMap<u32, Vec<String>>,
}

impl Admin {
    /// Spreads a partitioned topic over more streams, without that the order of a subject is lost: events go to a new
    /// generation of partitions, which a group reads once it has settled the old one. Publishers and workers follow by
    /// themselves. What was begun and not finished is finished by the same call.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it is no partitioned topic, has so many partitions or more, can't have so many, or has
    /// aggregates of an event store. [`ErrorKind::Exists`] if it is being grown to another number. If Redis can't be
    /// reached or refuses a step: what is done stays done, and the same again goes on behind it.
    pub async fn grow(&self, topic: &str, partitions: u32) -> Result<TopicGrowth> {
        check_stream(topic)?;
        let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, why));
        if let Err(why) = partition::check(topic, partitions) {
            return invalid(format!("{partitions} partitions of {topic:?}: {why}"));
        }
        let layout = self.layout(topic).await?;
        if layout.sealing.is_none() {
            let has = layout.partitions();
            if has == partitions && layout.generation() > 1 {
                return Ok(TopicGrowth::of(&layout));
            }
            if has >= partitions {
                return invalid(format!(
                    "the topic {topic:?} has {has} partitions: it can grow only, to more than that"
                ));
            }
            if let Some(stream) = self.pool.has_aggregates(&layout).await? {
                return invalid(format!(
                    "the topic {topic:?} has aggregates of an event store, beside {stream} for one: they are kept \
                     beside their partition, and can't move to another"
                ));
            }
        }
        let grown = self.pool.grow(&layout, partitions).await?;
        Ok(TopicGrowth::of(&grown))
    }

    /// How many partitions a topic has and had, and which groups are how far.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it is no partitioned topic. If Redis can't be reached.
    pub async fn growth(&self, topic: &str) -> Result<TopicGrowth> {
        check_stream(topic)?;
        Ok(TopicGrowth::of(&self.layout(topic).await?))
    }

    /// The same, with all partitions that its topics have grown to by now.
    ///
    /// # Errors
    /// If Redis can't be reached, or refuses to say.
    pub async fn grown(mut self) -> Result<Self> {
        let mut settings = (*self.settings).clone();
        learn(&self.pool, &mut settings).await?;
        self.streams = settings.streams_of(&settings.worker.streams).into();
        self.settings = settings.into();
        Ok(self)
    }

    /// The same for who looks again and again. If Redis does not say, as it was: whatever is asked next tells why.
    #[cfg(feature = "telemetry")]
    pub(crate) async fn as_grown(&self) -> Self {
        let has_topics = self.settings.topics().next().is_some();
        match has_topics.then(|| self.clone().grown()) {
            Some(grown) => grown.await.unwrap_or_else(|_| self.clone()),
            None => self.clone(),
        }
    }

    async fn layout(&self, topic: &str) -> Result<TopicLayout> {
        if let Some(known) = self.pool.known_topic(topic).await? {
            return Ok(known);
        }
        let all = self.settings.topics();
        let Some((_, partitions)) = all.into_iter().find(|(name, _)| *name == topic) else {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "{topic:?} is no partitioned topic: neither Redis knows of its partitions nor [streams.{topic:?}]"
                ),
            ));
        };
        self.pool.topic(topic, partitions).await
    }
}

/// Has these settings know what their topics have grown to.
pub(crate) async fn learn(pool: &Pool, settings: &mut Settings) -> Result<()> {
    let topics: Vec<String> = settings.topics().map(|(name, _)| name.to_owned()).collect();
    for topic in topics {
        let known = pool.known_topic(&topic).await?;
        if let (Some(layout), Some(of)) = (known, settings.streams.get_mut(&topic)) {
            of.generations = layout.generations;
        }
    }
    Ok(())
}

/// These settings, with what their topics have grown to. If Redis does not say, who goes on with them will tell why.
#[cfg(feature = "cli")]
pub(crate) async fn grown(mut settings: Settings) -> Settings {
    if settings.topics().next().is_some()
        && let Ok(connector) = Connector::new(&settings.redis)
        && let Ok(pool) = connector.pool(1)
    {
        let _ = learn(&pool, &mut settings).await;
    }
    settings
}

impl TopicGrowth {
    fn of(layout: &TopicLayout) -> Self {
        let mut through = BTreeMap::<u32, Vec<String>>::new();
        for (generation, group) in &layout.through {
            through.entry(*generation).or_default().push(group.clone());
        }
        TopicGrowth {
            topic: layout.topic.clone(),
            generations: layout.generations.clone(),
            growing_to: layout.sealing,
            through,
        }
    }
}

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
