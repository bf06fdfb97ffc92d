//! What happened in a test, line by line, and what of it is counted. An entry is called by its stream and how many came
//! before it there, so that the same test says the same each time it runs, wherever.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::clock::Clock;
use crate::context::Context;
use crate::duration;
use crate::effects::Effect;
use crate::event::EntryId;
use crate::fields::Fields;
use crate::sync::lock;
use crate::worker::state::source::Source;
use crate::worker::{Observer, Outcome, Settled, Unstarted};

/// Most lines that are printed where something failed.
const MOST_LINES: usize = 200;

/// What happened.
#[derive(Clone)]
pub(super) struct Log {
    inner: Arc<Mutex<Inner>>,
    clock: Clock,
    seed: u64,
}

#[derive(Default)]
struct Inner {
    lines: Vec<(Duration, String)>,
    /// Consumers, and what they are called here.
    workers: Vec<(String, String)>,
    names: HashMap<(String, EntryId), String>,
    counts: HashMap<String, usize>,
    /// Handlers that started, by type and by event.
    runs: Vec<(String, String)>,
    /// Those that succeeded and are not settled, by event.
    succeeded: HashMap<String, String>,
    /// Those that are, by type and by event.
    handled: Vec<(String, String)>,
    /// Copies that did not run, by type.
    duplicates: Vec<String>,
    effects: Vec<Effect>,
    /// The ids of events that the test itself has published.
    own: HashSet<String>,
}

impl Log {
    /// The test's.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    pub fn new(clock: Clock, seed: u64) -> Self {
        Log {
            inner: Arc::default(),
            clock,
            seed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// One more line.
    pub fn say(&self, text: impl Into<String>) {
        let (at, mut text) = (self.clock.passed(), text.into());
        let mut inner = self.lock();
        for (consumer, name) in &inner.workers {
            if text.contains(consumer) {
                text = text.replace(consumer, name);
            }
        }
        inner.lines.push((at, text));
    }

    /// A worker's consumer is called by its number.
    pub fn calls(&self, consumer: &str, number: u32) {
        let name = (consumer.to_owned(), number.to_string());
        self.lock().workers.push(name);
    }

    /// What an entry is called: `orders#1`.
    pub fn name(&self, stream: &str, id: EntryId) -> String {
        let mut inner = self.lock();
        if let Some(name) = inner.names.get(&(stream.to_owned(), id)) {
            return name.clone();
        }
        let count = inner.counts.entry(stream.to_owned()).or_default();
        *count += 1;
        let name = format!("{stream}#{count}");
        inner.names.insert((stream.to_owned(), id), name.clone());
        name
    }

    /// The same of one that came from there: a replayed one has a stream of its own.
    pub fn name_of(&self, source: &Source, id: EntryId) -> String {
        let stream = &source.surroundings.stream;
        match source.keys.stream == *stream {
            true => self.name(stream, id),
            false => self.name(&replayed(stream), id),
        }
    }

    /// The same of one with these fields.
    fn name_by(&self, stream: &str, id: EntryId, fields: &Fields) -> String {
        match fields.value("replay.count") {
            None => self.name(stream, id),
            Some(_) => self.name(&replayed(stream), id),
        }
    }

    /// The test publishes an event of this id.
    pub fn is_own(&self, id: &str) {
        self.lock().own.insert(id.to_owned());
    }

    pub fn published_by_test(&self, id: &str) -> bool {
        self.lock().own.contains(id)
    }

    /// Effects that took place.
    pub fn took_effect(&self, effects: &[Effect]) {
        self.lock().effects.extend_from_slice(effects);
    }

    pub fn effects(&self) -> Vec<Effect> {
        self.lock().effects.clone()
    }

    /// How many runs of a type's handler there were.
    pub fn runs(&self, event_type: &str) -> usize {
        let inner = self.lock();
        inner.runs.iter().filter(|(of, _)| of == event_type).count()
    }

    /// How many of them succeeded.
    pub fn handled(&self, event_type: &str) -> usize {
        let inner = self.lock();
        let of = inner.handled.iter().filter(|(of, _)| of == event_type);
        of.count()
    }

    /// An entry has left its group, and not for the dead letters.
    pub fn acknowledged(&self, name: &str) {
        let mut inner = self.lock();
        if let Some(event_type) = inner.succeeded.remove(name) {
            inner.handled.push((event_type, name.to_owned()));
        }
    }

    /// The same of one that was committed, whatever its handler comes to.
    pub fn handled_in_full(&self, name: &str, event_type: &str) {
        let handled = (event_type.to_owned(), name.to_owned());
        self.lock().handled.push(handled);
    }

    /// The worker died: what it had done and not settled is not known to anybody.
    pub fn died(&self) {
        self.lock().succeeded.clear();
    }

    /// All that happened, with the times.
    pub fn timeline(&self) -> String {
        let inner = self.lock();
        let mut text = format!("what happened (seed {}):\n", self.seed);
        let left_out = inner.lines.len().saturating_sub(MOST_LINES);
        if left_out > 0 {
            let _ = writeln!(text, "  ... {left_out} lines before");
        }
        for (at, line) in &inner.lines[left_out..] {
            let _ = writeln!(
                text,
                "  {:>9}  {line}",
                format!("+{}", duration::format(*at))
            );
        }
        text
    }
}

/// What a worker tells of the life of entries.
pub(super) struct Watch {
    pub log: Log,
    /// It is dead by now: what it still tells happened to nobody.
    pub is_dead: Arc<AtomicBool>,
}

impl Watch {
    fn log(&self) -> Option<&Log> {
        (!self.is_dead.load(Ordering::SeqCst)).then_some(&self.log)
    }
}

impl Observer for Watch {
    fn started(&self, context: &Context) {
        let Some(log) = self.log() else { return };
        let event = context.envelope();
        let name = log.name_by(context.stream(), event.entry_id(), event.fields());
        let event_type = event.event_type();
        let runs = (event_type.to_owned(), name.clone());
        log.lock().runs.push(runs);
        log.say(format!(
            "{name} {event_type}: attempt {} of {} begins",
            context.attempt(),
            context.max_attempts()
        ));
    }

    fn settled(&self, settled: &Settled<'_>) {
        let Some(log) = self.log() else { return };
        let event = settled.context.envelope();
        let name = log.name_by(settled.context.stream(), event.entry_id(), event.fields());
        let what = told(settled.outcome, settled.error, settled.delay);
        let lost = if settled.lost {
            ", but it is another worker's by now"
        } else {
            ""
        };
        let why = settled
            .reason
            .map_or(String::new(), |reason| format!(" as {reason}"));
        log.say(format!("{name} {}: {what}{why}{lost}", event.event_type()));
        if settled.outcome == Outcome::Succeeded && !settled.lost {
            let event_type = event.event_type().to_owned();
            log.lock().succeeded.insert(name, event_type);
        }
    }

    fn unstarted(&self, unstarted: &Unstarted<'_>) {
        let Some(log) = self.log() else { return };
        let name = log.name_by(unstarted.stream, unstarted.entry, unstarted.fields);
        let event_type = unstarted.fields.value("type").unwrap_or(b"(no type)");
        let event_type = String::from_utf8_lossy(event_type);
        let what = told(unstarted.outcome, unstarted.error, unstarted.delay);
        let why = unstarted
            .reason
            .map_or(String::new(), |reason| format!(" as {reason}"));
        log.say(format!("{name} {event_type}: does not run: {what}{why}"));
        if matches!(unstarted.outcome, Outcome::Duplicate) {
            log.lock().duplicates.push(event_type.into_owned());
        }
    }
}

/// What the stream of its replayed entries is called.
fn replayed(stream: &str) -> String {
    format!("{stream} again")
}

fn told(outcome: Outcome, error: Option<&str>, delay: Option<Duration>) -> String {
    let what = match outcome {
        Outcome::Succeeded => "succeeds",
        Outcome::Retried => "fails, and is tried again",
        Outcome::Released => "is released",
        Outcome::Buried => "goes to the dead letters",
        Outcome::Ignored => "is acknowledged: its type is ignored",
        Outcome::Duplicate => "is acknowledged: its event has been handled",
        Outcome::Cancelled => "is acknowledged: it was cancelled",
    };
    let delay = delay.map_or(String::new(), |delay| {
        format!(" in {}", duration::rounded(delay))
    });
    let error = error.map_or(String::new(), |error| format!(": {error}"));
    format!("{what}{delay}{error}")
}
