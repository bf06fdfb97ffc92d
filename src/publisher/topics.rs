//! Where the events of a partitioned topic go: the streams it is spread over. They are asked for once, and again when one
//! of them turns out to be sealed: the topic has grown, or is growing.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Envelope;
use crate::partition;
use crate::reconnect::Pause;
use crate::stream::{Pool, StreamKeys, TopicLayout};
use crate::sync::{read, write};

/// How long a publisher waits for a growth that another has begun before it lends a hand,
const PATIENCE: Duration = Duration::from_millis(300);
/// and how long in all.
const LONGEST: Duration = Duration::from_secs(10);

/// The topics that are known to be partitioned, and what is known of each. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Topics(Arc<RwLock<BTreeMap<String, Topic>>>);

struct Topic {
    /// How many partitions it is set to have.
    partitions: u32,
    layout: Option<Arc<Placed>>,
}

/// A topic whose streams are known.
pub(crate) struct Placed {
    pub layout: TopicLayout,
    /// The streams of each generation, by partition.
    streams: Vec<Vec<StreamKeys>>,
}

impl Topics {
    /// These, each with how many partitions it is set to have.
    pub fn new<'a>(topics: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let topic = |(topic, partitions): (&str, u32)| {
            let layout = None;
            (topic.to_owned(), Topic { partitions, layout })
        };
        Topics(Arc::new(RwLock::new(
            topics.into_iter().map(topic).collect(),
        )))
    }

    /// The partitioned topics of these settings, as far as is known of them.
    #[cfg(feature = "worker")]
    pub fn of_settings(settings: &crate::config::Settings) -> Self {
        let topics = Self::new(settings.topics());
        for (name, of) in &settings.streams {
            if !of.generations.is_empty() {
                topics.learn(TopicLayout::of_generations(name, of.generations.clone()));
            }
        }
        topics
    }

    /// The same and one more.
    pub fn with(&self, topic: &str, partitions: u32) -> Result<Self> {
        partition::check(topic, partitions).map_err(|why| {
            let message = format!("{partitions} partitions of {topic:?}: {why}");
            Error::new(ErrorKind::Invalid, message)
        })?;
        let known = read(&self.0);
        let all = known.iter().map(|(name, of)| (&name[..], of.partitions));
        Ok(Self::new(all.chain([(topic, partitions)])))
    }

    /// What they are called.
    #[cfg(feature = "worker")]
    pub fn names(&self) -> Vec<String> {
        read(&self.0).keys().cloned().collect()
    }

    /// Where the events of a topic go, as far as it has been asked for. None if the stream is no such topic.
    pub fn known(&self, stream: &str) -> Option<Arc<Placed>> {
        read(&self.0).get(stream)?.layout.clone()
    }

    /// The streams that a name stands for: a topic's partitions, of all its generations that are known, else itself.
    pub fn streams(&self, name: &str) -> Vec<String> {
        match read(&self.0).get(name) {
            Some(topic) => match &topic.layout {
                Some(placed) => placed.layout.streams(),
                None => TopicLayout::first(name, topic.partitions).streams(),
            },
            None => vec![name.to_owned()],
        }
    }

    /// Where the events of a topic go. None if the stream is no such topic.
    ///
    /// # Errors
    /// If Redis can't be reached, or knows the topic to have another number of partitions.
    pub async fn place(&self, pool: &Pool, stream: &str) -> Result<Option<Arc<Placed>>> {
        let Some(partitions) = self.partitions(stream) else {
            return Ok(None);
        };
        if let Some(placed) = self.known(stream) {
            return Ok(Some(placed));
        }
        let layout = pool.topic(stream, partitions).await?;
        if layout.partitions() != partitions {
            let has = layout.partitions();
            tracing::info!(
                topic = stream,
                "the topic has grown to {has} partitions; `partitions = {partitions}` is what it began with"
            );
        }
        Ok(Some(self.learn(layout)))
    }

    /// The same, once the topic has a later generation than this one: one of its streams is sealed. Whoever grows it may
    /// have died half-way, and then this goes on with it.
    ///
    /// # Errors
    /// As [`place`](Self::place), and if the topic has not grown in the end.
    pub async fn place_behind(
        &self,
        pool: &Pool,
        topic: &str,
        generation: u32,
    ) -> Result<Arc<Placed>> {
        let (began, mut pause) = (Instant::now(), Pause::between(PATIENCE / 30, PATIENCE));
        let mut last = None;
        loop {
            let layout = pool.known_topic(topic).await?;
            if let Some(layout) = &layout {
                if layout.generation() > generation {
                    return Ok(self.learn(layout.clone()));
                }
                if let (Some(to), true) = (layout.sealing, began.elapsed() > PATIENCE) {
                    match pool.grow(layout, to).await {
                        Ok(layout) => return Ok(self.learn(layout)),
                        Err(error) => last = Some(error),
                    }
                }
            }
            if began.elapsed() > LONGEST {
                let why = last.map_or(String::new(), |error| format!(": {error}"));
                let message = format!(
                    "the topic {topic:?} is being grown, and does not get on with it{why}; the same command again \
                     finishes what it has begun"
                );
                return Err(Error::new(ErrorKind::Redis, message));
            }
            tokio::time::sleep(pause.next()).await;
        }
    }

    /// What is known by now of a topic. What was known of a later generation stays.
    pub fn learn(&self, layout: TopicLayout) -> Arc<Placed> {
        let placed = Arc::new(Placed::new(layout));
        let mut topics = write(&self.0);
        let Some(topic) = topics.get_mut(&placed.layout.topic) else {
            return placed;
        };
        if let Some(known) = &topic.layout
            && known.layout.generation() > placed.layout.generation()
        {
            return known.clone();
        }
        topic.layout = Some(placed.clone());
        placed
    }

    /// How many partitions a topic is set to have.
    pub fn partitions(&self, topic: &str) -> Option<u32> {
        Some(read(&self.0).get(topic)?.partitions)
    }
}

impl Placed {
    fn new(layout: TopicLayout) -> Self {
        let keys = |generation| {
            let streams = layout.streams_of(generation);
            streams.iter().map(|name| StreamKeys::new(name)).collect()
        };
        Placed {
            streams: (1..=layout.generation()).map(keys).collect(),
            layout,
        }
    }

    /// The stream that an event goes to, which has its id by now.
    pub fn stream_of(&self, event: &Envelope) -> &StreamKeys {
        self.stream_in(self.layout.generation(), event)
    }

    /// The stream that an event went to in this generation.
    pub fn stream_in(&self, generation: u32, event: &Envelope) -> &StreamKeys {
        let id = event.id();
        let subject = event.subject().map(str::as_bytes);
        let address = partition::address(subject, id.as_bytes());
        let streams = &self.streams[generation as usize - 1];
        &streams[partition::partition_of(address, streams.len() as u32) as usize]
    }
}
