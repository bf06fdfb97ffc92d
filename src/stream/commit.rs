//! How an entry leaves a worker together with what its handler emitted and wants to take effect.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use redis::Value;

use super::commit_lines::{Placed, stored};
use super::connection::Link;
use super::error::{Trouble, is_for_now};
use super::keys::Keys;
use super::obstacle::{Need, need};
use super::outbox::MARK;
use super::reply;
use super::script::{ScriptInvocation, script};
use super::settle::ends;
use super::topology::Slot;
use crate::effects::Effect;
use crate::event::EntryId;
use crate::fields::Fields;
use crate::identity::Identity;

script!(
    COMMIT,
    "commit",
    behind "common/packed",
    behind "common/pending",
    behind "common/effects",
    behind "common/rights",
    behind "common/guards",
    behind "common/sealed",
    behind "common/commit"
);
script!(
    COMMIT_MORE,
    "commit_more",
    behind "common/packed",
    behind "common/pending",
    behind "common/effects",
    behind "common/rights",
    behind "common/guards",
    behind "common/sealed",
    behind "common/scheduled",
    behind "common/on_schedule",
    behind "common/ids",
    behind "common/reached",
    behind "common/appending",
    behind "common/commit"
);

/// One entry to be committed.
pub(crate) struct Commit<'a> {
    pub id: EntryId,
    pub consumer: &'a str,
    pub count: u32,
    /// It is known to be pending with nobody, and its end is ours to write until then (ms, by the server's clock); else 0.
    pub nobodys_until: u64,
    /// The group has a record of it.
    pub recorded: bool,
    pub mark: Option<Mark>,
    pub events: Vec<Leaving<'a>>,
    pub effects: &'a [Effect],
    /// What is scheduled, cancelled and appended.
    pub lines: Vec<Placed<'a>>,
}

/// An event that leaves with the acknowledgement.
pub(crate) struct Leaving<'a> {
    /// The stream it is for.
    pub stream: &'a str,
    /// Where it is added to: that stream, or, if one step can't reach that, what waits for it in the outbox.
    pub key: Cow<'a, str>,
    pub fields: &'a Fields,
    /// What a relay is to know it by, if it goes by the outbox.
    pub mark: Option<String>,
}

/// Notes that an event is done.
pub(crate) struct Mark {
    pub event: Identity,
    /// How long it is known.
    pub lasts: Duration,
    /// Another entry's mark means that this one is a copy.
    pub counts: bool,
}

/// What became of an entry's commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    Done,
    /// Another copy of the event has succeeded: the entry is acknowledged, and nothing else was done.
    Duplicate {
        /// That one had other data.
        differs: bool,
    },
    /// Another delivery of the entry is under way.
    Taken,
    /// It is not pending.
    Nobody,
    /// Nor that, and the time is over in which it was ours: nothing was done. And the server's time (ms).
    Late(u64),
    /// The guard of the effect at this place refused, at this value.
    Refused(usize, Option<Vec<u8>>),
    /// The aggregate of the line at this place is at this version.
    Conflict(usize, u64),
    /// It is, and has some of the events.
    Overlap(usize, u64),
    /// Events of the line at this place are there under their ids, from this version on: by the letter they are others.
    Stands(usize, u64, Vec<Fields>),
    /// It can't be done as it is.
    Failed(String),
    /// The server takes no writes now.
    NotNow(String),
    /// A stream that it emits to, now or later, is sealed: its topic has grown. Nothing was done.
    Sealed,
}

impl Commit<'_> {
    /// What this one needs, and others need not: of the streams it emits to, and of what it changes.
    pub fn needs(&self) -> Vec<Need<'_>> {
        let events = self.events.iter();
        let events = events.map(|event| need(&*event.key, "stream", "XADD"));
        let effects = self.effects.iter();
        let effects = effects.map(|effect| need(&effect.key, "", effect.command));
        let lines = self.lines.iter().flat_map(Placed::needs);
        events.chain(effects).chain(lines).collect()
    }

    /// What it was about to do with what it [needs](Self::needs) at this place, as a message begins, if that is not clear.
    pub fn doing(&self, place: usize) -> String {
        if let Some(event) = self.events.get(place) {
            return format!("emitting to {}: ", event.stream);
        }
        let before = self.events.len() + self.effects.len();
        let line = place.checked_sub(before).map(|place| place / 3);
        let line = line.and_then(|line| self.lines.get(line));
        line.map_or(String::new(), |line| format!("{}: ", line.doing()))
    }

    /// About how many bytes it has.
    pub fn size(&self) -> usize {
        let events = self.events.iter().map(|event| event.fields.size());
        let args = self.effects.iter().flat_map(|effect| &effect.args);
        let lines = self.lines.iter().map(Placed::size);
        events.sum::<usize>() + args.map(Vec::len).sum::<usize>() + lines.sum::<usize>()
    }

    /// How many strings it takes, keys included: a script can't hold any number of them.
    pub fn arguments(&self) -> usize {
        let events = self.events.iter();
        let events = events.map(|event| 4 + 2 * event.fields.len());
        let effects = self.effects.iter().map(|effect| 7 + effect.args.len());
        let lines = self.lines.iter().map(Placed::arguments);
        let own = events.sum::<usize>() + effects.sum::<usize>() + lines.sum::<usize>();
        11 + own + 8 * far(&self.events).len()
    }
}

impl Leaving<'_> {
    /// Adds it to a call, as commits have it.
    pub(super) fn put(&self, call: &mut ScriptInvocation<'_>) {
        let marks = usize::from(self.mark.is_some());
        call.key(&*self.key).arg(2 * (self.fields.len() + marks));
        if let Some(mark) = &self.mark {
            call.arg(MARK).arg(mark);
        }
        for (name, value) in self.fields {
            call.arg(name).arg(value);
        }
    }
}

/// Adds an effect to a call, as commits have it.
pub(super) fn put_effect(effect: &Effect, call: &mut ScriptInvocation<'_>) {
    call.key(&effect.key).arg(effect.command);
    match effect.asks() {
        None => call.arg(""),
        Some(asks) => call.arg("=").arg(&asks[..]),
    };
    call.arg(effect.args.len());
    effect.args.iter().for_each(|arg| {
        call.arg(&arg[..]);
    });
}

/// The streams that some of these go to by the outbox.
pub(super) fn far<'a>(events: &[Leaving<'a>]) -> BTreeSet<&'a str> {
    let far = events.iter().filter(|event| event.mark.is_some());
    far.map(|event| event.stream).collect()
}

/// Notes which streams are gone to by the outbox: behind the handler's own effects, whose places are answered. A relay finds
/// by these what waits.
pub(super) fn put_far(far: &BTreeSet<&str>, keys: &Keys, call: &mut ScriptInvocation<'_>) {
    for stream in far {
        call.key(&keys.outbox.targets);
        call.arg("SADD").arg("").arg(1).arg(*stream);
    }
}

/// What every commit needs.
pub(super) fn needs_of(keys: &Keys) -> Vec<Need<'_>> {
    vec![
        need(&keys.stream, "stream", "XPENDING XACK XDEL"),
        need(&keys.commits, "hash", "HGET HSET"),
        need(&keys.retry, "zset", "ZCARD ZREM"),
        need(&keys.failures, "hash", "HLEN HDEL"),
        need(&keys.guards, "zset", "ZCARD ZSCORE ZADD"),
    ]
}

impl Link {
    /// Commits entries of one stream; answers for each what became of it. `number` is higher with every request of
    /// `me`, repeats included, and only one is under way.
    pub async fn commit(
        &mut self,
        keys: &Keys,
        group: &str,
        me: &str,
        number: u64,
        delete: bool,
        commits: &[Commit<'_>],
    ) -> Result<Vec<CommitOutcome>, Trouble> {
        let doing = || format!("committing entries of {}", keys.stream);
        // What most commits have nothing of costs them nothing.
        let is_plain = commits.iter().all(|commit| commit.lines.is_empty());
        let script = if is_plain { &*COMMIT } else { &*COMMIT_MORE };
        let mut call = script.key(&keys.stream);
        call.key(&keys.retry)
            .key(&keys.failures)
            .key(&keys.commits)
            .key(&keys.guards);
        // What is the same of most of them is said once.
        let usual = commits.first().map_or("", |commit| commit.consumer);
        let is_plain = |commit: &Commit<'_>| !commit.recorded && commit.nobodys_until == 0;
        let more = if commits.iter().all(is_plain) {
            ""
        } else {
            "1"
        };
        let (first, last) = ends(commits.iter().map(|commit| commit.id));
        call.arg(group).arg(me).arg(number).arg(u8::from(delete));
        call.arg(usual).arg(more).arg(first).arg(last);
        call.arg(2 * commits.len());
        for commit in commits {
            let mark = commit.mark.as_ref();
            if let Some(mark) = mark {
                call.key(keys.seen(mark.event.which()));
            }
            let far = far(&commit.events);
            let letters = [
                ("r", commit.recorded),
                ("k", mark.is_some_and(|mark| mark.counts)),
                ("c", commit.consumer != usual),
                ("o", commit.nobodys_until != 0),
                ("m", mark.is_some()),
            ];
            let letters = letters.into_iter().filter(|(_, is)| *is);
            call.arg(commit.id.to_string())
                .arg(commit.count)
                .arg(letters.map(|(letter, _)| letter).collect::<String>())
                .arg(commit.events.len())
                .arg(commit.effects.len() + commit.lines.len() + far.len());
            if commit.consumer != usual {
                call.arg(commit.consumer);
            }
            if commit.nobodys_until != 0 {
                call.arg(commit.nobodys_until);
            }
            if let Some(mark) = mark {
                call.arg(mark.lasts.as_millis().max(1) as u64)
                    .arg(mark.event.data());
            }
            commit.events.iter().for_each(|event| event.put(&mut call));
            for effect in commit.effects {
                put_effect(effect, &mut call);
            }
            commit.lines.iter().for_each(|line| line.put(&mut call));
            put_far(&far, keys, &mut call);
        }
        call.pack();
        let answer = call.invoke_async(&mut self.conn).await;
        let value: Value = self.answered(doing, answer, || needs_of(keys)).await?;
        let outcomes: Option<Vec<_>> = reply::array(value)
            .filter(|answers| answers.len() == commits.len())
            .and_then(|answers| {
                let answers = answers.into_iter().zip(commits);
                answers.map(|(answer, of)| outcome(answer, of)).collect()
            });
        let outcomes = outcomes.ok_or_else(|| Trouble::garbled(&doing()))?;
        for outcome in &outcomes {
            if let CommitOutcome::NotNow(why) = outcome {
                self.conn.caught(why);
            }
        }
        Ok(outcomes)
    }

    /// Whether one step can reach the keys of `stream` and this one.
    pub fn reaches(&self, stream: &str, key: &str) -> bool {
        !self.greeting.is_cluster || Slot::of(stream) == Slot::of(key)
    }
}

fn outcome(value: Value, of: &Commit<'_>) -> Option<CommitOutcome> {
    if let Value::Int(1) = value {
        return Some(CommitOutcome::Done);
    }
    let mut parts = reply::array(value)?.into_iter();
    // Lines stand behind the effects.
    let line = |place: i64| {
        usize::try_from(place)
            .ok()?
            .checked_sub(1 + of.effects.len())
    };
    let version = |version: i64| u64::try_from(version).ok();
    let outcome = match &reply::bytes(parts.next()?)?[..] {
        b"duplicate" => CommitOutcome::Duplicate {
            differs: reply::int(&parts.next()?)? == 1,
        },
        b"sealed" => CommitOutcome::Sealed,
        b"taken" => CommitOutcome::Taken,
        b"nobody" => CommitOutcome::Nobody,
        b"late" => CommitOutcome::Late(reply::text(parts.next()?)?.parse().ok()?),
        b"refused" => {
            let place = usize::try_from(reply::int(&parts.next()?)?).ok()?;
            let current = parts.next().and_then(reply::bytes);
            CommitOutcome::Refused(place.checked_sub(1)?, current)
        }
        b"conflict" => {
            let at = line(reply::int(&parts.next()?)?)?;
            CommitOutcome::Conflict(at, version(reply::int(&parts.next()?)?)?)
        }
        b"overlap" => {
            let at = line(reply::int(&parts.next()?)?)?;
            CommitOutcome::Overlap(at, version(reply::int(&parts.next()?)?)?)
        }
        b"stands" => {
            let at = line(reply::int(&parts.next()?)?)?;
            let first = version(reply::int(&parts.next()?)?)?;
            CommitOutcome::Stands(at, first, stored(parts.next()?)?)
        }
        b"failed" => {
            let why = reply::text(parts.next()?)?;
            // Nothing was written, and it has nothing to do with what was to be.
            match is_for_now(&why) {
                true => CommitOutcome::NotNow(why),
                false => CommitOutcome::Failed(why),
            }
        }
        _ => return None,
    };
    Some(outcome)
}
