//! Follows the growth of the topics that a worker reads.
//!
//! A topic that grows has a new generation of partitions, and its old one is sealed. The group reads the old one to its
//! end and settles all of it before any worker reads the new one: so no event of a subject comes before an earlier one.
//! That it has is written down in Redis by whoever finds it first, and never taken back. Here is looked for new
//! generations, the entries that seal streams are acknowledged, and it is said which streams are read. Streams of old
//! generations are kept: their scheduled events, replayed entries and dead letters are tended as ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::error::Result;
use crate::partition::Partition;
use crate::publisher::Topics;
use crate::reconnect::{Complaint, Pause};
use crate::stream::{Pool, TopicLayout};
use crate::worker::shard::unit::Shards;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Reads, Source};

/// How often it is looked whether a topic has grown,
const LOOK: Duration = Duration::from_secs(5);
/// or is not, if no topic is read,
const NEVER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// and, as long as one grows, how far its group is: at first and at most.
const SOON: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What is followed.
pub(crate) struct Growth {
    pub group: String,
    pub topics: Topics,
    /// The topics that are read whole, and whether their events have an order.
    pub names: Vec<(String, bool)>,
    pub pool: Pool,
    pub signals: Arc<Signals>,
    pub shards: Arc<Shards>,
    /// Takes the streams that are to be read as well.
    pub more: mpsc::UnboundedSender<Vec<String>>,
}

/// What is known of them.
#[derive(Default)]
struct SoFar {
    /// The streams that are read, or were asked for.
    asked: BTreeSet<String>,
    /// The stream that holds up each topic, by what was seen last.
    held_up: BTreeMap<String, String>,
    /// Those of which it was said that dead letters do.
    told: BTreeSet<String>,
}

impl Growth {
    /// Follows them until it is dropped.
    pub async fn run(self) {
        let mut so_far = SoFar {
            asked: self.streams(),
            ..SoFar::default()
        };
        let (mut soon, mut complaint) = (Pause::between(SOON.0, SOON.1), Complaint::default());
        loop {
            let wait = match self.turn(&mut so_far).await {
                Ok(true) => soon.next(),
                Ok(false) => {
                    soon.reset();
                    match self.names.is_empty() {
                        // A partition that is read by itself may be sealed: that is told.
                        true => NEVER,
                        // Not all workers at once.
                        false => LOOK.mul_f64(0.75 + 0.5 * fastrand::f64()),
                    }
                }
                Err(error) => {
                    complaint.warn(format!("can't follow how topics grow: {error}"));
                    soon.next().max(SOON.1)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.signals.found_sealed() => soon.reset(),
            }
        }
    }

    /// One look at all of them. Returns whether something is under way.
    async fn turn(&self, so_far: &mut SoFar) -> Result<bool> {
        for source in self.sources() {
            if source.has_seal() {
                let (stream, group) = (&source.keys.stream, &self.group);
                source.set_seal(false);
                if let Err(error) = self.pool.acknowledge_seal(stream, group).await {
                    source.set_seal(true);
                    return Err(error);
                }
            }
        }
        let mut is_busy = false;
        for (topic, has_order) in &self.names {
            // What a server has lost is said anew by whoever publishes; until then all is read that there is.
            let Some(layout) = self.pool.known_topic(topic).await? else {
                continue;
            };
            let before = self.topics.known(topic);
            if before.is_none_or(|before| before.layout != layout) {
                self.topics.learn(layout.clone());
            }
            is_busy |= self.follow(&layout, *has_order, so_far).await?;
        }
        Ok(is_busy)
    }

    async fn follow(
        &self,
        layout: &TopicLayout,
        has_order: bool,
        so_far: &mut SoFar,
    ) -> Result<bool> {
        let mut streams = layout.streams();
        streams.retain(|stream| so_far.asked.insert(stream.clone()));
        if !streams.is_empty() {
            let (topic, partitions) = (&layout.topic, layout.partitions());
            tracing::info!(topic, partitions, "the topic has grown");
            let _ = self.more.send(streams);
        }
        let newest = layout.generation();
        let mut opened = 1;
        while opened < newest && layout.is_through(opened, &self.group) {
            opened += 1;
        }
        while opened < newest {
            let (group, last) = (
                (&self.group[..], has_order),
                so_far.held_up.get(&layout.topic),
            );
            let last = last.map(String::as_str);
            let passed = self.pool.pass_through(layout, opened, group, last).await?;
            let Some(unsettled) = passed else {
                so_far.held_up.remove(&layout.topic);
                opened += 1;
                continue;
            };
            if unsettled.is_held && so_far.told.insert(unsettled.stream.clone()) {
                let (topic, stream) = (&layout.topic, &unsettled.stream);
                tracing::warn!(
                    topic,
                    stream,
                    "the topic has grown, and what is new of it waits until the dead letters that hold their subjects are \
                     replayed or purged"
                );
            }
            so_far
                .held_up
                .insert(layout.topic.clone(), unsettled.stream);
            break;
        }
        let mut is_changed = false;
        for source in self.sources() {
            let Some(of) = Partition::parse(&source.keys.stream) else {
                continue;
            };
            if of.topic == layout.topic {
                let reads = match of.generation {
                    // What nobody knows of any more is read.
                    generation if generation > newest => Reads::Yes,
                    generation if generation > opened => Reads::NotYet,
                    generation if generation < opened => Reads::NoMore,
                    _ => Reads::Yes,
                };
                is_changed |= source.set_reads(reads);
            }
        }
        if is_changed {
            self.signals.replan_all();
        }
        // Streams that were asked for may not be there yet.
        let there = self.streams();
        let is_there = layout.streams().iter().all(|stream| there.contains(stream));
        Ok(opened < newest || layout.sealing.is_some() || !is_there)
    }

    fn sources(&self) -> Vec<Arc<Source>> {
        self.shards.sources()
    }

    fn streams(&self) -> BTreeSet<String> {
        let sources = self.sources().into_iter();
        sources.map(|source| source.keys.stream.clone()).collect()
    }
}
