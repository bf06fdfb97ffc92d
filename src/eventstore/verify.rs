//! Looks for what must not be in an aggregate: events that are missing, can't be read or are out of place, and a snapshot
//! that is not what the events come to. Entries are looked at as they are, a page at a time.

use serde_json::Value;

use super::EventStore;
use super::events::{FIRST, StoredEvent, next_page};
use super::redis::RedisEventStore;
use super::registered::{Kind, Replay};
use super::snapshot::Snapshot;
use crate::aggregate_id::AggregateId;
use crate::error::{Result, chain};
use crate::event::{Entry, EntryId};

/// Something that is wrong with an aggregate.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// The aggregate.
    pub aggregate: String,
    /// The version of the event it is about; None if it is not about one.
    pub version: Option<u64>,
    /// What is wrong.
    pub problem: String,
}

impl Problem {
    /// There is no such aggregate.
    pub(crate) fn missing(aggregate: &AggregateId) -> Self {
        Problem {
            aggregate: aggregate.to_string(),
            version: None,
            problem: "it does not exist: it has no events".to_owned(),
        }
    }
}

/// What is known of an aggregate so far.
struct Walk<'a> {
    id: &'a AggregateId,
    kind: &'a Kind,
    /// The version that comes next.
    next: u64,
    position: Option<EntryId>,
    /// None once an event could not be applied.
    replay: Option<Box<dyn Replay>>,
    snapshot: Option<Snapshot>,
    problems: &'a mut Vec<Problem>,
}

/// Adds all that is wrong with an aggregate to `problems`, and answers how many events there are. More than `most`
/// problems of one are not looked for.
///
/// # Errors
/// If Redis can't be read.
pub(crate) async fn verify(
    store: &RedisEventStore,
    kind: &Kind,
    id: &AggregateId,
    most: usize,
    problems: &mut Vec<Problem>,
) -> Result<u64> {
    let most = problems.len() + most;
    if let Some(problem) = store.clobbered(id).await? {
        problems.push(Problem {
            aggregate: id.to_string(),
            version: None,
            problem,
        });
        return Ok(0);
    }
    // Before the events: what is there by then is there afterwards.
    let last = store.last_version(id).await?;
    let snapshot = store.snapshot(id).await?;
    let mut walk = Walk {
        id,
        kind,
        next: 1,
        position: None,
        replay: Some(kind.begin(id.clone())),
        snapshot,
        problems,
    };
    let (mut events, mut page, mut seen, mut from) = (0, FIRST, None, 1);
    while walk.problems.len() < most {
        let entries = store.entries(id, from, page).await?;
        let is_last = entries.len() < page;
        let before = seen;
        page = next_page(entries.iter().map(Entry::size));
        for entry in entries {
            if seen.is_some_and(|seen| entry.id <= seen) {
                continue;
            }
            (seen, events) = (Some(entry.id), events + 1);
            walk.entry(entry);
        }
        if is_last {
            walk.end(last);
            break;
        }
        // From the last one on, for others can have its version.
        let Some(seen) = seen else { break };
        if before == Some(seen) || page < 2 {
            from = seen.ms + 1;
        } else {
            from = seen.ms;
        }
    }
    walk.problems.truncate(most);
    Ok(events)
}

impl Walk<'_> {
    fn say(&mut self, version: Option<u64>, problem: impl Into<String>) {
        self.problems.push(Problem {
            aggregate: self.id.to_string(),
            version,
            problem: problem.into(),
        });
    }

    fn entry(&mut self, entry: Entry) {
        let EntryId { ms: version, seq } = entry.id;
        if seq != 0 {
            return self.say(None, format!("the entry {} is at no version", entry.id));
        }
        self.lacks_up_to(version);
        self.next = version + 1;
        let event = match StoredEvent::decode(self.id, entry) {
            Ok(event) => event,
            Err(error) => {
                self.replay = None;
                return self.say(Some(version), chain(&error));
            }
        };
        if let Some(before) = self.position
            && event.position <= before
        {
            let at = event.position;
            self.say(
                Some(version),
                format!("its position {at} is not behind {before}, that of the event before it"),
            );
        }
        self.position = Some(event.position);
        match event.envelope.subject() {
            Some(subject) if subject == self.id.as_str() => {}
            Some(other) => self.say(Some(version), format!("its subject is {other:?}")),
            None => self.say(Some(version), "it has no subject"),
        }
        if let Some(replay) = &mut self.replay
            && let Err(error) = replay.apply(&event)
        {
            self.replay = None;
            self.say(Some(version), chain(&error));
        }
        if let Some(snapshot) = self
            .snapshot
            .take_if(|snapshot| snapshot.version == version)
        {
            self.snapshot(&snapshot, &event);
        }
    }

    fn lacks_up_to(&mut self, version: u64) {
        let next = self.next;
        if version > next {
            self.replay = None;
            self.say(
                Some(next),
                format!("it lacks its events {next} to {}", version - 1),
            );
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot, event: &StoredEvent) {
        let version = snapshot.version;
        if event.envelope.id() != snapshot.event {
            return self.say(
                None,
                format!(
                    "its snapshot at {version} is of another event, {:?}",
                    snapshot.event
                ),
            );
        }
        // One of another schema is of another release.
        let (Some(replay), true) = (&self.replay, snapshot.schema == self.kind.schema) else {
            return;
        };
        let Some(kept) = self.kind.state(&snapshot.state) else {
            return self.say(None, format!("its snapshot at {version} does not decode"));
        };
        let value = |json: &str| serde_json::from_str::<Value>(json).ok();
        match (kept, replay.state()) {
            (Ok(kept), Ok(state)) if value(kept.get()) == value(state.get()) => {}
            (Ok(kept), Ok(state)) => self.say(
                None,
                format!("its snapshot at {version} is {kept}, and its events come to {state}"),
            ),
            (Err(error), _) | (_, Err(error)) => self.say(None, chain(&error)),
        }
    }

    fn end(&mut self, last: u64) {
        self.lacks_up_to(last + 1);
        if let Some(snapshot) = self.snapshot.take() {
            self.say(
                None,
                format!(
                    "its snapshot is of version {}, which it does not have",
                    snapshot.version
                ),
            );
        }
    }
}
