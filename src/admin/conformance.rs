//! Judging what publishers wrote: entries are read a slice at a time, and held against the rules of the wire. Nothing is
//! written.

use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::{Admin, StreamTrouble, check_stream};
use crate::conformance::{BrokenRule, Found, Judging, Level, Rule};
use crate::error::Result;
use crate::event::{EntryId, Envelope};
use crate::handler::{Registry, Validity};
use crate::partition::Partition;
use crate::rfc3339;
use crate::stream::{Keys, Progress, SLICE, Said, TopicLayout};

/// How the entries of a stream were judged, by [`Admin::conformance`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Conformance {
    /// The stream or the topic that was asked for.
    pub stream: String,
    /// What was looked at of each stream of it.
    pub streams: Vec<JudgedStream>,
    /// Entries looked at.
    pub looked_at: u64,
    /// Of these, those that end as dead letters.
    pub dead_letters: u64,
    /// Those that are handled, and break a rule all the same.
    pub warned_of: u64,
    /// Those that break none.
    pub right: u64,
    /// Which rules are broken, the worst first.
    pub broken: Vec<BrokenRule>,
    /// Streams that could not be looked at, because the node of a cluster they lie at can't be reached.
    pub in_trouble: Vec<StreamTrouble>,
}

/// How much of a stream was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct JudgedStream {
    /// The stream.
    pub stream: String,
    /// Entries it has.
    pub length: u64,
    /// Entries looked at, the last ones.
    pub looked_at: u64,
    /// When the first of them was added, and the last one.
    pub from: Option<String>,
    /// When the last one was.
    pub to: Option<String>,
}

impl Conformance {
    /// How many rules of this level are broken.
    pub fn count(&self, level: Level) -> usize {
        self.broken.iter().filter(|it| it.level == level).count()
    }

    /// Whether something is lost, or ends as a dead letter.
    pub fn is_bad(&self) -> bool {
        self.broken.iter().any(|it| it.level != Level::Warning)
    }
}

impl Admin {
    /// Holds the last entries of a stream against what workers read: of each rule that is broken how many break it, an
    /// example, what is wrong with that and what would be right. Of a partitioned topic all its streams are looked at,
    /// `last` entries of each. What is said to end as a dead letter does so whatever the handler is; with a `registry`
    /// its handlers' decoders are asked as well.
    ///
    /// Of what is gone from the stream unread the groups of the stream are asked, or `group` alone. Nothing is written.
    ///
    /// # Errors
    /// If the name can't be a stream's, or Redis can't be reached or refuses to say.
    ///
    /// ```no_run
    /// # use streamhand::admin::Admin;
    /// # async fn example(admin: &Admin) -> streamhand::Result<()> {
    /// let judged = admin.conformance("orders", 1_000, None, None).await?;
    /// for it in &judged.broken {
    ///     println!("{} entries break {}: {}; right is {}", it.count, it.rule, it.wrong, it.right);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn conformance(
        &self,
        stream: &str,
        last: u64,
        group: Option<&str>,
        registry: Option<&Registry>,
    ) -> Result<Conformance> {
        check_stream(stream)?;
        let mut judging = Judging::default();
        let (mut streams, mut in_trouble) = (Vec::new(), Vec::new());
        let set = self.streams_of(stream);
        let layout = match self.pool.known_topic(stream).await {
            // Its partitions lie elsewhere, and the settings know them.
            Err(error) if self.pool.is_of_one_node(&error) && set[0] != stream => None,
            layout => layout?,
        };
        let names = layout.as_ref().map_or(set, TopicLayout::streams);
        if names[0] != stream {
            let beside = self.beside_topic(stream, names.len(), &mut judging).await;
            self.or_in_trouble(stream, beside, &mut in_trouble)?;
        }
        for name in names {
            let judged = self
                .judge(&name, last, group, registry, layout.as_ref(), &mut judging)
                .await;
            streams.extend(self.or_in_trouble(&name, judged, &mut in_trouble)?);
        }
        Ok(Conformance {
            stream: stream.to_owned(),
            streams,
            looked_at: judging.looked_at,
            dead_letters: judging.dead_letters,
            warned_of: judging.warned_of,
            right: judging.right,
            broken: judging.broken(),
            in_trouble,
        })
    }

    /// What came of looking at a stream; None if its node is away, which is noted.
    fn or_in_trouble<T>(
        &self,
        stream: &str,
        came: Result<T>,
        in_trouble: &mut Vec<StreamTrouble>,
    ) -> Result<Option<T>> {
        match came {
            Err(error) if self.pool.is_of_one_node(&error) => {
                in_trouble.push(StreamTrouble {
                    stream: stream.to_owned(),
                    error: error.to_string(),
                });
                Ok(None)
            }
            came => came.map(Some),
        }
    }

    /// Where the entries of a stream are found, and by what clock.
    async fn found(&self, stream: &str, layout: Option<&TopicLayout>) -> Result<Found> {
        let now = self.pool.at(stream).now().await?;
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut found = Found {
            partition: None,
            now_ms: since.as_millis() as u64,
        };
        if let Some(of) = Partition::parse(stream) {
            let known = match layout {
                Some(_) => None,
                None => self.pool.known_topic(of.topic).await?,
            };
            let generation = (of.generation as usize).wrapping_sub(1);
            let layout = layout.or(known.as_ref());
            let many = layout.and_then(|layout| layout.generations.get(generation));
            found.partition = many.map(|many| (of.number, *many));
        }
        Ok(found)
    }

    /// Entries of a stream that is called like a topic: workers read the topic's partitions.
    async fn beside_topic(&self, topic: &str, of: usize, judging: &mut Judging) -> Result<()> {
        let slice = self.pool.slice(topic, "-", "+", 1).await?;
        let Some(newest) = slice.entries.first() else {
            return Ok(());
        };
        let length = self.progress(topic).await?.length;
        let wrong = format!("it stands in {topic}, a topic of {of} partitions: no worker reads it");
        judging.breaks(Rule::Topic, length, topic, Some(newest.id), wrong);
        Ok(())
    }

    async fn judge(
        &self,
        stream: &str,
        last: u64,
        group: Option<&str>,
        registry: Option<&Registry>,
        layout: Option<&TopicLayout>,
        judging: &mut Judging,
    ) -> Result<JudgedStream> {
        let found = self.found(stream, layout).await?;
        let mut judged = JudgedStream {
            stream: stream.to_owned(),
            length: self.gone(stream, group, judging).await?,
            looked_at: 0,
            from: None,
            to: None,
        };
        let time = |id: EntryId| Some(rfc3339::millis(id.time()));
        let mut high = "+".to_owned();
        while judged.looked_at < last {
            let most = (last - judged.looked_at).min(SLICE as u64) as usize;
            let slice = self.pool.slice(stream, "-", &high, most).await?;
            for entry in &slice.entries {
                judging.entry(stream, entry, found, |event| against(registry?, event));
            }
            judged.looked_at += slice.entries.len() as u64;
            if let (Some(newest), Some(oldest)) = (slice.entries.first(), slice.entries.last()) {
                judged.to = judged.to.take().or_else(|| time(newest.id));
                judged.from = time(oldest.id);
            }
            match slice.next {
                Some(next) => high = next.to_string(),
                None => break,
            }
        }
        judged.length = judged.length.max(judged.looked_at);
        Ok(judged)
    }

    /// Notes what is gone from a stream, and returns how many entries there are.
    async fn gone(&self, stream: &str, group: Option<&str>, judging: &mut Judging) -> Result<u64> {
        let said = self.said_of(stream).await?;
        let [about, groups, settled] = &said[..] else {
            return Ok(0);
        };
        let name = |of: &Said| {
            of.get("name")
                .and_then(|name| name.text().map(str::to_owned))
        };
        for of in groups.items() {
            let Some(name) = name(of).filter(|name| group.is_none_or(|group| group == name)) else {
                continue;
            };
            let unread =
                Progress::of(about, settled, Some(of)).map_or(0, |progress| progress.unread());
            if unread > 0 {
                let wrong = format!("gone before the group {name} had read it");
                judging.breaks(Rule::Unread, unread, stream, None, wrong);
            }
        }
        let Some(progress) = Progress::of(about, settled, None) else {
            return Ok(0);
        };
        let removed = progress.gone_by_others();
        if removed > 0 {
            let wrong = "gone, and no worker has trimmed it".to_owned();
            judging.breaks(Rule::Removed, removed, stream, None, wrong);
        }
        Ok(progress.length)
    }

    async fn progress(&self, stream: &str) -> Result<Progress> {
        let said = self.said_of(stream).await?;
        let progress = match &said[..] {
            [about, _, settled] => Progress::of(about, settled, None),
            _ => None,
        };
        Ok(progress.unwrap_or_default())
    }

    /// What the server says of a stream, of its groups, and of how many entries workers have trimmed.
    async fn said_of(&self, stream: &str) -> Result<Vec<Said>> {
        let trimmed = Keys::new(stream, self.group()).trimmed;
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let asked = [
            words(&["XINFO", "STREAM", stream]),
            words(&["XINFO", "GROUPS", stream]),
            words(&["HGET", &trimmed, "settled"]),
        ];
        self.pool.at(stream).ask_all(&asked).await
    }
}

/// What the handler of an event has against it.
fn against(registry: &Registry, event: &Envelope) -> Option<String> {
    match registry.validate(event) {
        Ok(Validity::NoHandler) => Some(format!(
            "no handler here for the type {}",
            crate::names::shown(event.event_type())
        )),
        Ok(_) => None,
        Err(failure) => Some(failure.to_string()),
    }
}
