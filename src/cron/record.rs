//! What is kept of a cron in Redis: what was declared last, what was last and what is next. Scripts change parts of it; what
//! a later release keeps there as well stays.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::occurrence::{After, Occurrence};
use super::spec::Spec;

/// A record. Numbers are text, for scripts hold numbers as doubles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// What was declared, as JSON.
    pub spec: String,
    /// The program's version of who did.
    pub release: String,
    /// The group whose workers run it.
    pub group: String,
    /// When it was last declared, in ms.
    pub declared: String,
    /// What was declared before, as hashes, the last one last: none of it comes back by a worker that is behind.
    pub past: String,
    /// What becomes of overlaps, for scripts.
    pub overlap: String,

    /// What the next occurrence is known by; empty if none comes any more.
    pub next: String,
    /// The names of all that happen then.
    pub names: String,
    /// When it happens, in seconds since 1970, and when its event is due, in ms: by its jitter later.
    pub at: String,
    pub due: String,
    /// The last local time of those that happen once each, with it.
    pub behind: String,
    /// What it was to come after: an instant and such a local time.
    pub after: String,
    pub after_behind: String,
    /// How it is with it; see [`Seen`].
    pub state: String,
    /// `1` if it may be late: it is caught up with.
    pub free: String,

    /// The last one whose event was added: what it is known by, its entry, and when, in ms.
    pub last: String,
    pub entry: String,
    pub added: String,

    /// Since when it is paused, in ms; empty if it is not.
    pub paused: String,
    /// Until when, in ms; empty until somebody resumes it.
    pub paused_until: String,
    pub paused_by: String,
    pub paused_note: String,

    /// What a later release keeps.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// How it is with the next occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It stands on the schedule.
    Stands,
    /// The same, and it waits for the one before.
    Waits,
    /// It was taken off: it was late, or nobody declares it any more.
    Off,
    /// It had its turn: its event was added, or it was left out.
    Done,
}

/// A line of a cron's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    /// When it was written, in ms.
    pub at_ms: u64,
    /// `added`, or why it was not: `overlap`, `paused`, `missed`, `suspended`.
    pub what: String,
    /// When it was due, in ms.
    pub due_ms: u64,
    /// What the occurrences are known by, between commas.
    pub names: String,
    /// Its entry.
    pub entry: Option<String>,
}

impl Record {
    /// What is kept; None if it can't be read.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What was declared.
    pub fn spec(&self) -> Option<Spec> {
        Spec::parse(&self.spec)
    }

    pub fn due_ms(&self) -> u64 {
        number(&self.due)
    }

    pub fn declared_ms(&self) -> u64 {
        number(&self.declared)
    }

    pub fn seen(&self) -> Seen {
        match &self.state[..] {
            "" => Seen::Stands,
            "wait" => Seen::Waits,
            "done" => Seen::Done,
            _ => Seen::Off,
        }
    }

    /// Whether it is paused at this time.
    pub fn is_paused(&self, now_ms: u64) -> bool {
        !self.paused.is_empty()
            && (self.paused_until.is_empty() || number(&self.paused_until) > now_ms)
    }

    /// What the next occurrence was to come after.
    pub fn before(&self) -> After {
        After {
            instant: self.after.parse().unwrap_or_default(),
            behind: self.after_behind.parse().ok(),
        }
    }

    /// What is to come after the next occurrence.
    pub fn behind(&self) -> After {
        After {
            instant: self.at.parse().unwrap_or_default(),
            behind: self.behind.parse().ok(),
        }
    }

    /// The same with this occurrence next.
    pub fn set_next(&mut self, name: &str, spec: &Spec, after: After, next: Option<&Occurrence>) {
        self.after = after.instant.to_string();
        self.after_behind = after.behind.map_or(String::new(), |it| it.to_string());
        self.free.clear();
        let Some(next) = next else {
            self.state = "done".into();
            for gone in [&mut self.next, &mut self.names, &mut self.due] {
                gone.clear();
            }
            return;
        };
        self.state.clear();
        self.next.clone_from(&next.name);
        self.names = next.names();
        self.at = next.instant.to_string();
        self.due = due_ms(name, spec, next).to_string();
        let behind = next.as_before(after).behind;
        self.behind = behind.map_or(String::new(), |it| it.to_string());
    }
}

impl Line {
    /// A line as scripts write it: `<when> <what> <due> <entry or -> <names>`.
    pub fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(5, ' ');
        Some(Line {
            at_ms: parts.next()?.parse().ok()?,
            what: parts.next()?.to_owned(),
            due_ms: parts.next()?.parse().ok()?,
            entry: parts
                .next()
                .filter(|entry| *entry != "-")
                .map(str::to_owned),
            names: parts.next()?.to_owned(),
        })
    }
}

/// The id of an occurrence's event.
pub(crate) fn id(name: &str, occurrence: &str) -> String {
    format!("cron:{name}:{occurrence}")
}

/// When an occurrence's event is due, in ms.
pub(super) fn due_ms(name: &str, spec: &Spec, occurrence: &Occurrence) -> u64 {
    let at = u64::try_from(occurrence.instant).unwrap_or_default() * 1000;
    at + spec.jitter_of(name, &occurrence.name)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}
