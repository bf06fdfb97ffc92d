//! What publishers in any language wrote, held against what workers read: which rules entries break, how many of them, and
//! what comes of it.
//!
//! Pure: an entry goes in, what it breaks comes out, so that `conformance/entries.json` is all it takes to test it. What
//! an entry is read as is asked of the code that workers read by; a rule that said something else would be worth nothing.

mod copies;
mod data;
mod entry;
mod rule;

pub(crate) use entry::Found;
pub use rule::Level;
pub(crate) use rule::Rule;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::{Entry, EntryId, Envelope};

/// A rule that entries break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BrokenRule {
    /// Its name: see `docs/wire.md`.
    pub rule: &'static str,
    /// What comes of it.
    pub level: Level,
    /// How many entries break it.
    pub count: u64,
    /// The stream that the example is in.
    pub stream: String,
    /// The entry that is the example; None if it is not there.
    pub example: Option<String>,
    /// What is wrong with that.
    pub wrong: String,
    /// What would be right.
    pub right: &'static str,
}

/// How entries were judged, one after the other.
#[derive(Default)]
pub(crate) struct Judging {
    broken: BTreeMap<Rule, BrokenRule>,
    copies: copies::Copies,
    /// Entries looked at; of these those that will be dead letters, those that break only what is warned of, and those
    /// that break nothing.
    pub looked_at: u64,
    pub dead_letters: u64,
    pub warned_of: u64,
    pub right: u64,
}

impl Judging {
    /// Judges an entry. `wrong` says what its handler has against it, if handlers are known.
    pub fn entry(
        &mut self,
        stream: &str,
        entry: &Entry,
        found: Found,
        wrong: impl FnOnce(&Envelope) -> Option<String>,
    ) {
        let (mut broken, envelope) = entry::judge(entry, found);
        if let Some(envelope) = &envelope {
            if let Some(wrong) = self.copies.meet(envelope.fields()) {
                let rule = Rule::OtherData;
                broken.push(entry::Broken { rule, wrong });
            }
            let is_known = broken.iter().any(|it| it.rule.level() == Level::DeadLetter);
            if !is_known && let Some(wrong) = wrong(envelope) {
                let rule = Rule::Handler;
                broken.push(entry::Broken { rule, wrong });
            }
        }
        self.looked_at += 1;
        match broken.iter().map(|it| it.rule.level()).min() {
            None => self.right += 1,
            Some(Level::Warning) => self.warned_of += 1,
            Some(_) => self.dead_letters += 1,
        }
        for entry::Broken { rule, wrong } in broken {
            self.breaks(rule, 1, stream, Some(entry.id), wrong);
        }
    }

    /// So many entries of a stream break a rule.
    pub fn breaks(
        &mut self,
        rule: Rule,
        count: u64,
        stream: &str,
        example: Option<EntryId>,
        wrong: String,
    ) {
        let broken = self.broken.entry(rule).or_insert_with(|| BrokenRule {
            rule: rule.name(),
            level: rule.level(),
            count: 0,
            stream: stream.to_owned(),
            example: example.map(|id| id.to_string()),
            wrong,
            right: rule.right(),
        });
        broken.count += count;
    }

    /// What was broken, the worst first.
    pub fn broken(self) -> Vec<BrokenRule> {
        let mut broken: Vec<_> = self.broken.into_values().collect();
        broken.sort_by_key(|rule| rule.level);
        broken
    }
}

#[cfg(test)]
mod tests;
