//! Where the events of a partitioned topic go: the streams it is spread over, which are asked for once.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Envelope;
use crate::partition;
use crate::stream::{Pool, StreamKeys, TopicLayout};
use crate::sync::{read, write};

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
    /// The streams events go to, by partition.
    pub streams: Vec<StreamKeys>,
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
    #[cfg(feature = "worker")]
    pub fn known(&self, stream: &str) -> Option<Arc<Placed>> {
        read(&self.0).get(stream)?.layout.clone()
    }

    /// The streams that a name stands for: a topic's partitions, else itself.
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
        let partitions = {
            let topics = read(&self.0);
            let Some(topic) = topics.get(stream) else {
                return Ok(None);
            };
            if let Some(layout) = &topic.layout {
                return Ok(Some(layout.clone()));
            }
            topic.partitions
        };
        let placed = Arc::new(Placed::new(pool.topic(stream, partitions).await?));
        if let Some(topic) = write(&self.0).get_mut(stream) {
            topic.layout = Some(placed.clone());
        }
        Ok(Some(placed))
    }
}

impl Placed {
    fn new(layout: TopicLayout) -> Self {
        let streams = layout.streams();
        Placed {
            streams: streams.iter().map(|name| StreamKeys::new(name)).collect(),
            layout,
        }
    }

    /// The stream that an event goes to, which has its id by now.
    pub fn stream_of(&self, event: &Envelope) -> &StreamKeys {
        let id = event.id();
        let subject = event.subject().map(str::as_bytes);
        let address = partition::address(subject, id.as_bytes());
        let number = partition::partition_of(address, self.layout.partitions());
        &self.streams[number as usize]
    }
}
