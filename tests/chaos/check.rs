//! The checker: what must hold, whatever went wrong, by what is known of a run when it is over.

mod effects;
mod entries;
mod lease;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::history::{History, Published, Stored};
use super::plan::Way;
use super::publishing::is_whole;
use crate::support::Entry;

pub use runs::Run;

/// What must not be.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// The entry, event or life that it is about; empty where it is about all of them.
    pub about: String,
    pub what: String,
}

/// What came of looking.
#[derive(Default)]
pub struct Findings {
    pub wrong: Vec<Wrong>,
    /// Runs that were looked at beside an earlier one of the same entry that had not given it up. Those that are not wrong
    /// came when the earlier one had lost its lease, or its worker had died.
    pub took_over: usize,
    /// Of those: how many came while the earlier one still ran.
    pub beside: usize,
    /// Runs of which it is known which attempt they had to be.
    pub exact: usize,
}

impl Findings {
    fn wrong(&mut self, about: impl Into<String>, what: impl Into<String>) {
        let (about, what) = (about.into(), what.into());
        self.wrong.push(Wrong { about, what });
    }
}

/// All that is known, by what it is asked for.
struct Known<'a> {
    history: &'a History,
    runs: Vec<Run>,
    /// Runs by entry, in their order.
    by_entry: BTreeMap<&'a str, Vec<usize>>,
    /// What was published, by event.
    published: BTreeMap<&'a str, Vec<&'a Published>>,
    /// Entries of the stream, by event.
    entries: BTreeMap<String, Vec<&'a Stored>>,
    letters: BTreeMap<String, Vec<&'a Entry>>,
}

/// Looks for all that is wrong.
pub fn check(history: &History) -> Findings {
    let mut findings = Findings::default();
    for life in history.lives.values() {
        for wrong in &life.wrong {
            findings.wrong(format!("worker {}", life.name), wrong);
        }
    }
    for left in &history.left {
        findings.wrong("", format!("left at the end: {left}"));
    }
    let runs = runs::of(&history.lines, &mut findings);
    let mut by_entry: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for line in &history.lines {
        if let super::records::What::Start { entry, .. } = &line.what {
            by_entry.entry(entry).or_default();
        }
    }
    for (n, run) in runs.iter().enumerate() {
        by_entry
            .get_mut(&run.entry[..])
            .expect("the entry of a run")
            .push(n);
    }
    let mut known = Known {
        history,
        runs,
        by_entry,
        published: BTreeMap::new(),
        entries: BTreeMap::new(),
        letters: BTreeMap::new(),
    };
    for published in &history.published {
        let of = known.published.entry(&published.event.id).or_default();
        of.push(published);
    }
    for entry in &history.entries {
        let of = known.entries.entry(field(&entry.entry, "id")).or_default();
        of.push(entry);
    }
    for letter in &history.letters {
        let of = format!(
            "{}/{}",
            field(letter, "dead.stream"),
            field(letter, "dead.entry")
        );
        known.letters.entry(of).or_default().push(letter);
    }
    published_is_there(&known, &mut findings);
    entries::check(&known, &mut findings);
    effects::check(&known, &mut findings);
    runs::check(&known, &mut findings);
    findings
}

/// What was acknowledged is in the stream, whole, and nothing more often than it was published.
fn published_is_there(known: &Known, findings: &mut Findings) {
    for (event, published) in &known.published {
        let entries = known.entries.get(*event).map_or(&[][..], |all| all);
        for id in published.iter().filter_map(|one| one.entry.as_ref()) {
            if !entries.iter().any(|entry| entry.key() == *id) {
                findings.wrong(
                    *event,
                    format!("published as {id}, which is not in the stream"),
                );
            }
        }
        let acknowledged = published.iter().filter(|one| one.known).count();
        if entries.len() < acknowledged {
            let there = entries.len();
            let what =
                format!("acknowledged {acknowledged} times, and {there} times in the stream");
            findings.wrong(*event, what);
        }
        if entries.len() > published.len() {
            findings.wrong(
                *event,
                format!(
                    "published {} times, and {} times in the stream",
                    published.len(),
                    entries.len()
                ),
            );
        }
        for entry in entries {
            if !is_whole(&published[0].event, entry) {
                findings.wrong(*event, format!("{} is not what was published", entry.key()));
            }
            if let Way::Later(delay) = published[0].event.way
                && entry.entry.id.ms < published[0].asked + delay
            {
                findings.wrong(*event, format!("{} came before its time", entry.key()));
            }
        }
    }
    for (event, entries) in &known.entries {
        if !known.published.contains_key(&event[..]) {
            findings.wrong(entries[0].key(), "published by nobody");
        }
    }
}

/// A field's value; empty where there is none.
pub fn field(entry: &Entry, name: &str) -> String {
    let named = |(field, _): &&(bytes::Bytes, bytes::Bytes)| field == name.as_bytes();
    let value = entry.fields.iter().find(named);
    value.map_or(String::new(), |(_, value)| {
        String::from_utf8_lossy(value).into_owned()
    })
}
