//! How a batch leaves a worker: its entries together, with what their handler emitted and wants to take effect.

use redis::Value;

use super::call::ARGUMENTS;
use super::commit::{Leaving, Mark, far, needs_of, put_effect, put_far};
use super::connection::Link;
use super::error::{Trouble, is_for_now};
use super::keys::Keys;
use super::reply;
use super::script::script;
use crate::effects::Effect;
use crate::event::EntryId;

script!(
    COMMIT_BATCH,
    "commit_batch",
    behind "common/packed",
    behind "common/effects",
    behind "common/rights",
    behind "common/guards",
    behind "common/sealed"
);

/// Keys and arguments of a call that belong to no single entry, event or effect.
const FOR_ALL: usize = 32;

/// A batch to be committed.
pub(crate) struct BatchCommit<'a> {
    pub entries: Vec<BatchEntry>,
    pub events: Vec<Leaving<'a>>,
    pub effects: &'a [Effect],
}

/// One entry of it.
pub(crate) struct BatchEntry {
    pub id: EntryId,
    pub count: u32,
    /// It is known to be pending with nobody, and its end is ours to write until then (ms, by the server's clock); else 0.
    pub nobodys_until: u64,
    /// The group has a record of it.
    pub recorded: bool,
    pub mark: Option<Mark>,
}

/// What became of a batch's commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BatchOutcome {
    Done,
    /// Nothing was done, for these entries, by their places, are not ours.
    Gone(Vec<(usize, NotOurs)>),
    /// The guard of the effect at this place refused, at this value.
    Refused(usize, Option<Vec<u8>>),
    /// It can't be done as it is.
    Failed(String),
    /// The server takes no writes now.
    NotNow(String),
    /// A stream that it emits to is sealed: its topic has grown. Nothing was done.
    Sealed,
}

/// Why an entry is not ours to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOurs {
    /// Another delivery of it is under way.
    Taken,
    /// It is not pending.
    Nobody,
    /// Nor that, and the time is over in which it was ours. And the server's time (ms).
    Late(u64),
    /// Another copy of the event has succeeded.
    Copy {
        /// That one had other data.
        differs: bool,
    },
}

impl BatchCommit<'_> {
    /// Whether it has more arguments than some services take.
    pub fn is_too_large(&self) -> bool {
        let marks = self.entries.iter().filter(|entry| entry.mark.is_some());
        let marks = marks.count().min(1) * self.entries.len();
        let rest = self.events.len() + self.effects.len() + far(&self.events).len();
        marks + 2 * rest + FOR_ALL > ARGUMENTS
    }
}

impl Link {
    /// Commits a batch of one stream. `number` is higher with every request of `me`, repeats and those of other commits
    /// included, and only one is under way.
    pub async fn commit_batch(
        &mut self,
        keys: &Keys,
        group: &str,
        me: &str,
        number: u64,
        delete: bool,
        commit: &BatchCommit<'_>,
    ) -> Result<BatchOutcome, Trouble> {
        let doing = || format!("committing a batch of {}", keys.stream);
        let has_marks = commit.entries.iter().any(|entry| entry.mark.is_some());
        let mut call = COMMIT_BATCH.key(&keys.stream);
        call.key(&keys.retry)
            .key(&keys.failures)
            .key(&keys.commits)
            .key(&keys.guards);
        call.arg(group).arg(me).arg(number).arg(u8::from(delete));
        call.arg(u8::from(has_marks)).arg(commit.events.len());
        let mut entries = String::with_capacity(48 * commit.entries.len());
        for entry in &commit.entries {
            if has_marks {
                match &entry.mark {
                    Some(mark) => call.key(keys.seen(mark.event.which())),
                    None => call.key(&keys.stream),
                };
            }
            let mark = entry.mark.as_ref();
            let lasts = mark.map_or(0, |mark| mark.lasts.as_millis().max(1) as u64);
            let data = mark.map_or("", |mark| mark.event.data());
            let (recorded, counts) = (
                u8::from(entry.recorded),
                u8::from(mark.is_some_and(|mark| mark.counts)),
            );
            let (id, count, until) = (entry.id, entry.count, entry.nobodys_until);
            entries += &format!("{id} {count} {until} {recorded} {lasts} {data} {counts}\n");
        }
        call.arg(entries);
        commit.events.iter().for_each(|event| event.put(&mut call));
        for effect in commit.effects {
            put_effect(effect, &mut call);
        }
        put_far(&far(&commit.events), keys, &mut call);
        call.pack();
        let answer = call.invoke_async(&mut self.conn).await;
        let value: Value = self.answered(doing, answer, || needs_of(keys)).await?;
        let outcome = outcome(value).ok_or_else(|| Trouble::garbled(&doing()))?;
        if let BatchOutcome::NotNow(why) = &outcome {
            self.conn.caught(why);
        }
        Ok(outcome)
    }
}

fn outcome(value: Value) -> Option<BatchOutcome> {
    let mut parts = reply::array(value)?.into_iter();
    Some(match &reply::bytes(parts.next()?)?[..] {
        b"done" => BatchOutcome::Done,
        b"gone" => BatchOutcome::Gone(parts.map(not_ours).collect::<Option<_>>()?),
        b"sealed" => BatchOutcome::Sealed,
        b"refused" => {
            let place = usize::try_from(reply::int(&parts.next()?)?).ok()?;
            let current = parts.next().and_then(reply::bytes);
            BatchOutcome::Refused(place.checked_sub(1)?, current)
        }
        b"failed" => {
            let why = reply::text(parts.next()?)?;
            // Nothing was written, and it has nothing to do with what was to be.
            match is_for_now(&why) {
                true => BatchOutcome::NotNow(why),
                false => BatchOutcome::Failed(why),
            }
        }
        _ => return None,
    })
}

fn not_ours(value: Value) -> Option<(usize, NotOurs)> {
    let mut parts = reply::array(value)?.into_iter();
    let place = usize::try_from(reply::int(&parts.next()?)?).ok()?;
    let why = match &reply::bytes(parts.next()?)?[..] {
        b"taken" => NotOurs::Taken,
        b"nobody" => NotOurs::Nobody,
        b"late" => NotOurs::Late(reply::text(parts.next()?)?.parse().ok()?),
        b"copy" => NotOurs::Copy {
            differs: reply::int(&parts.next()?)? == 1,
        },
        _ => return None,
    };
    Some((place.checked_sub(1)?, why))
}
