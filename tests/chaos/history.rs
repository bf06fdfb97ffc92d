//! All that is known of a run when it is over: what the checker goes by.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::plan::NewEvent;
use super::records::Line;
use crate::support::Entry;

/// What was published, done, suffered and left. Times are [`monotonic`](crate::support::monotonic), in nanoseconds.
#[derive(Clone, Default)]
pub struct History {
    pub published: Vec<Published>,
    pub lines: Vec<Line>,
    pub lives: BTreeMap<String, Life>,
    /// When the server was away, frozen, or had just come back.
    pub server_troubles: Troubles,
    /// The streams, which nobody trims.
    pub entries: Vec<Stored>,
    pub letters: Vec<Entry>,
    /// What effects have counted, by event.
    pub counted: BTreeMap<String, i64>,
    /// What handlers have emitted.
    pub emitted: Vec<Entry>,
    /// What is left where nothing should be, in words.
    pub left: Vec<String>,
}

/// An entry of a stream.
#[derive(Clone)]
pub struct Stored {
    pub stream: &'static str,
    pub entry: Entry,
}

impl Stored {
    /// Its stream and its id.
    pub fn key(&self) -> String {
        format!("{}/{}", self.stream, self.entry.id)
    }
}

/// What became of one publish.
#[derive(Clone, Debug)]
pub struct Published {
    pub event: NewEvent,
    /// Whether it was acknowledged. If not it may be in the stream or not, but not twice.
    pub known: bool,
    /// The entry, if the publisher was told which it is: its stream and its id.
    pub entry: Option<String>,
    /// When it was asked for, in ms since 1970.
    pub asked: u64,
}

/// A worker's process, from its start to its end.
#[derive(Clone, Debug)]
pub struct Life {
    pub name: String,
    pub began: u64,
    pub told_to_stop: Option<u64>,
    pub ended: Option<u64>,
    /// How it ended: an exit code, or a signal.
    pub ending: String,
    /// When its network or the process itself was in trouble.
    pub troubles: Troubles,
    /// Renewals that the server answered, in that order.
    pub renewals: Vec<Renewal>,
    /// What a worker's process must not do.
    pub wrong: Vec<String>,
}

impl Life {
    pub fn new(name: String, began: u64) -> Life {
        Life {
            name,
            began,
            told_to_stop: None,
            ended: None,
            ending: String::new(),
            troubles: Troubles::default(),
            renewals: Vec::new(),
            wrong: Vec::new(),
        }
    }
}

/// Times in which something was wrong. Clones are the same times: traps are sprung when they are.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<Vec<(u64, u64)>>>);

impl Troubles {
    pub fn add(&self, from: u64, until: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((from, until));
    }

    pub fn all(&self) -> Vec<(u64, u64)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether there was any between these times.
    pub fn between(&self, from: u64, until: u64) -> bool {
        self.all()
            .iter()
            .any(|(begin, end)| *begin <= until && from <= *end)
    }
}

/// A renewal of all that a worker held at the time. The server did it between the two times.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    pub asked: u64,
    pub answered: u64,
    pub stream: &'static str,
    /// Of what ran alone, and not of the rest.
    pub alone: bool,
}
