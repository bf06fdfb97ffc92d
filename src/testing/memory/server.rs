//! The server in memory: its streams, what is scheduled, and what is delivered and woken.

use std::collections::{BTreeMap, HashMap};

use super::effects::{Not, Value, Values};
use super::group::{Group, Mark, Woken};
use crate::testing::clock::Clock;
use crate::testing::terms::{Due, How};

use crate::config::Start;
use crate::effects::Effect;
use crate::event::{Entry, EntryId, Envelope};
use crate::fields::Fields;
use crate::identity::{self, Identity};
use crate::rfc3339;
use crate::stream::{Keys, time};

/// A server in memory.
pub(in crate::testing) struct Memory {
    clock: Clock,
    pub(super) streams: BTreeMap<String, Stream>,
    /// By the stream that is read: that of replayed entries has one of its own.
    groups: HashMap<String, Group>,
    pub(super) values: Values,
    /// What is paused of a stream, its replayed entries included, and until when, if that is known; by where that is kept.
    pub(super) pauses: HashMap<String, BTreeMap<String, Option<u64>>>,
    /// What is known of events that are to be handled once, by where that is kept.
    pub(super) marks: HashMap<String, Mark>,
    /// Events that are to be added later, by stream and by which event it is.
    /// Each with its due time and its turn among those of one due time.
    scheduled: BTreeMap<String, BTreeMap<String, (u64, u64, Fields)>>,
    /// How many were scheduled.
    turns: u64,
    /// Which events were published once, and until when that is known.
    once: HashMap<(String, String), (EntryId, Option<String>, u64)>,
}

/// As a publisher says it.
fn differs(event: &Envelope, what: String) -> String {
    let which = identity::named(event.fields());
    format!("{which} {what} with other data: what is another event needs another id")
}

#[derive(Default)]
pub(super) struct Stream {
    entries: BTreeMap<EntryId, Fields>,
    last: EntryId,
}

impl Stream {
    fn add(&mut self, now_ms: u64, fields: Fields) -> EntryId {
        let at = EntryId { ms: now_ms, seq: 0 };
        let id = if at > self.last { at } else { self.last.next() };
        self.last = id;
        self.entries.insert(id, fields);
        id
    }
}

impl Memory {
    pub fn new(clock: Clock) -> Self {
        Memory {
            clock,
            streams: BTreeMap::new(),
            groups: HashMap::new(),
            values: Values::default(),
            pauses: HashMap::new(),
            marks: HashMap::new(),
            scheduled: BTreeMap::new(),
            turns: 0,
            once: HashMap::new(),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn group(&mut self, keys: &Keys) -> &mut Group {
        self.groups.entry(keys.stream.clone()).or_default()
    }

    /// Adds an entry to a stream.
    pub fn add(&mut self, stream: &str, fields: Fields) -> EntryId {
        let now = self.now_ms();
        let stream = self.streams.entry(stream.to_owned()).or_default();
        stream.add(now, fields)
    }

    /// Publishes an event. None if it is scheduled.
    pub fn publish(&mut self, stream: &str, event: &Envelope, how: How) -> Option<EntryId> {
        let now = self.now_ms();
        let which = || {
            identity::which(
                event.source_bytes(),
                event.id().as_bytes(),
                event.type_bytes(),
            )
        };
        let data = |fields: &Fields| Identity::of(fields).map(|event| event.data().to_owned());
        let due = match how {
            How::Now => return Some(self.add(stream, event.fields().clone())),
            How::Once(window) => {
                let mark = (stream.to_owned(), which());
                if let Some((id, its, until)) = self.once.get(&mark)
                    && *until > now
                {
                    if *its != data(event.fields()) {
                        panic!(
                            "{}",
                            differs(event, format!("was published before, as entry {id},"))
                        );
                    }
                    return Some(*id);
                }
                let id = self.add(stream, event.fields().clone());
                let until = now + window.as_millis() as u64;
                self.once.insert(mark, (id, data(event.fields()), until));
                return Some(id);
            }
            How::At(ms) => ms,
            How::After(delay) => now + delay.as_millis() as u64,
        };
        let scheduled = self.scheduled.entry(stream.to_owned()).or_default();
        if let Some((at, _, fields)) = scheduled.get(&which()) {
            let at = rfc3339::millis(time(*at));
            if data(fields) != data(event.fields()) {
                panic!(
                    "{}",
                    differs(event, format!("is scheduled for {at} already,"))
                );
            }
            return None;
        }
        self.turns += 1;
        scheduled.insert(which(), (due, self.turns, event.fields().clone()));
        None
    }

    /// Forgets scheduled events of this id. Returns how many.
    pub fn cancel(&mut self, stream: &str, id: &str) -> usize {
        let Some(scheduled) = self.scheduled.get_mut(stream) else {
            return 0;
        };
        let before = scheduled.len();
        scheduled.retain(|_, (_, _, fields)| fields.value("id") != Some(id.as_bytes()));
        before - scheduled.len()
    }

    /// Adds what is due to its stream. Returns how many.
    pub fn add_due(&mut self, stream: &str) -> usize {
        let now = self.now_ms();
        let Some(scheduled) = self.scheduled.get_mut(stream) else {
            return 0;
        };
        let mut due: Vec<(u64, u64, String)> = scheduled
            .iter()
            .filter(|(_, (at, ..))| *at <= now)
            .map(|(name, (at, turn, _))| (*at, *turn, name.clone()))
            .collect();
        due.sort();
        let fields: Vec<Fields> = due
            .iter()
            .filter_map(|(.., name)| scheduled.remove(name))
            .map(|(.., fields)| fields)
            .collect();
        let count = fields.len();
        for fields in fields {
            self.add(stream, fields);
        }
        count
    }

    /// Makes sure that there is a group.
    pub fn join(&mut self, keys: &Keys, start: Start) {
        let last = self.streams.entry(keys.stream.clone()).or_default().last;
        self.groups.entry(keys.stream.clone()).or_insert_with(|| {
            let read = match start {
                Start::Beginning => EntryId::default(),
                Start::End => last,
            };
            Group::begins_at(read)
        });
    }

    /// Delivers new entries.
    pub fn read_new(&mut self, keys: &Keys, me: &str, most: usize) -> Vec<Entry> {
        let now = self.now_ms();
        let group = self.groups.entry(keys.stream.clone()).or_default();
        let Some(stream) = self.streams.get(&keys.stream) else {
            return Vec::new();
        };
        let from = group.read.next();
        let new = stream.entries.range(from..).take(most);
        let new: Vec<Entry> = new
            .map(|(id, fields)| Entry {
                id: *id,
                fields: fields.clone(),
            })
            .collect();
        for entry in &new {
            group.deliver(entry.id, me, 1, now);
            group.read = entry.id;
        }
        new
    }

    /// Every entry of a stream.
    pub fn entries(&self, stream: &str) -> Vec<Entry> {
        let entries = self.streams.get(stream).map(|stream| &stream.entries);
        let entries = entries.into_iter().flatten();
        entries
            .map(|(id, fields)| Entry {
                id: *id,
                fields: fields.clone(),
            })
            .collect()
    }

    pub(super) fn fields(&self, stream: &str, id: EntryId) -> Option<Fields> {
        self.streams.get(stream)?.entries.get(&id).cloned()
    }

    pub(super) fn delete(&mut self, stream: &str, id: EntryId) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.entries.remove(&id);
        }
    }

    /// When the next scheduled event of a stream is due.
    fn next_scheduled(&self, stream: &str) -> Option<u64> {
        let scheduled = self.scheduled.get(stream)?;
        scheduled.values().map(|(due, ..)| *due).min()
    }

    /// Takes parked entries whose time has come, and tells what else there is.
    pub fn wake(&mut self, keys: &Keys, me: &str, most: usize) -> Due {
        let now = self.now_ms();
        let paused = self.paused(keys);
        let group = self.group(keys);
        let most = if paused.iter().any(|what| what == "stream") {
            0
        } else {
            most
        };
        let ids = group.due(now, most);
        let (mut entries, mut trimmed) = (Vec::new(), Vec::new());
        for id in ids {
            let fields = self.fields(&keys.stream, id);
            match self.group(keys).wake(id, me, fields, now) {
                Woken::Comes(delivered) => entries.push(delivered),
                Woken::Trimmed => trimmed.push(id),
                Woken::Stale => {}
            }
        }
        let group = self.group(keys);
        let (next, waiting) = (group.next_due(), group.has_waiting());
        let again = self.streams.get(&keys.again);
        Due {
            entries,
            trimmed,
            next,
            scheduled: self.next_scheduled(&keys.stream),
            paused,
            waiting,
            again: again.is_some_and(|again| !again.entries.is_empty()),
        }
    }

    /// What a key holds that effects are on.
    pub fn value(&self, key: &str) -> Option<Value> {
        self.values.get(key).cloned()
    }

    /// Does an effect by itself.
    pub fn apply(&mut self, effect: &Effect) -> Result<(), Not> {
        self.values.apply(effect)
    }
}
