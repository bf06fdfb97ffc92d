//! Keeping streams and dead letters short: what is trimmed, what holds it back, what is dropped.

use std::time::Duration;

use redis::Value;

use super::clock::Expected;
use super::connection::Link;
use super::error::{Trouble, Who, refusal};
use super::keys::Keys;
use super::obstacle::need;
use super::pool::Pool;
use super::reply;
use super::script::{ScriptInvocation, script};
use super::status::{BYTES, COUNT, Lag};
use crate::config::{Keep, Retention};
use crate::error::Result;
use crate::event::EntryId;

script!(TRIM, "trim", behind "common/ids", behind "common/lag", behind "common/clock");
script!(
    EXPIRE,
    "expire",
    behind "common/ids",
    behind "common/death",
    behind "common/fingerprint",
    behind "common/left",
    behind "common/runs",
    behind "common/clock"
);

/// Most entries that one step trims: Redis frees as many in a quarter of a millisecond.
const ENTRIES: u64 = 10_000;
/// Most dead letters that one step drops.
const LETTERS: u64 = 100;
/// How old what is held back gets under `"acked"` before it is warned of. Under an age or a number it is at once.
const LONG: Duration = Duration::from_secs(3600);

/// How often the workers of all groups trim a stream, and how often those of a group drop dead letters.
#[derive(Clone, Copy)]
pub(crate) struct Rhythm {
    pub every: Duration,
    /// Between two warnings of the same.
    pub silence: Duration,
    /// How long a destroyed group holds what it had not settled.
    pub grace: Duration,
    /// None for who only looks.
    pub clock: Option<Expected>,
}

/// What a stream is trimmed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub retention: Retention,
    pub force: bool,
}

/// A stream that is trimmed.
#[derive(Clone, Copy)]
pub(crate) struct Trimming<'a> {
    pub keys: &'a Keys,
    pub group: &'a str,
    pub policy: Policy,
    pub consumer: &'a str,
    pub rhythm: Rhythm,
    /// The groups it is thought to have.
    pub groups: &'a [Vec<u8>],
}

/// Whether a step begins a turn, goes on with it, or only looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Turn,
    On,
    Look,
}

/// What a step of trimming came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trim {
    /// It is another's turn, or there is nothing to trim.
    NotNow,
    /// The server's clock was set: nothing goes by it.
    ClockIsOff,
    /// The stream has other groups than was thought: these.
    Groups(Vec<Vec<u8>>),
    Done(Trimmed),
}

/// What was trimmed, or could be, and what holds the rest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub entries: u64,
    /// Of these, trimmed by force above what some group has not settled.
    pub forced: u64,
    pub more: bool,
    pub hold: Option<Hold>,
    /// Entries that could be trimmed, where it was only looked; there may be more.
    pub could: u64,
    pub could_at_least: bool,
}

/// What keeps a stream from being trimmed further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub group: String,
    pub why: HoldWhy,
    /// The first entry that stays.
    pub id: EntryId,
    pub age: Duration,
    pub pending: u64,
    /// Counted where it is said.
    pub unread: Option<Lag>,
    /// Whether it holds what should have gone.
    pub too_long: bool,
    /// Whether that is to be said now.
    pub warn: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldWhy {
    Unread,
    Pending,
    /// It was made anew, and what was parked is not back yet.
    Parked,
    /// It was destroyed a moment ago.
    Gone,
}

/// Whether dead letters were dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expire {
    /// It is another's turn.
    NotNow,
    /// The server's clock was set: nothing goes by it.
    ClockIsOff,
    Done(Expired),
}

/// What a step of dropping dead letters came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub letters: u64,
    pub dropped: u64,
    pub first: Option<EntryId>,
    pub last: Option<EntryId>,
    pub more: bool,
    pub warn: bool,
    /// The number of a run of replays that has begun, or is to begin by now, and that nobody drives.
    pub undriven: Option<u64>,
}

impl HoldWhy {
    pub fn name(self) -> &'static str {
        match self {
            HoldWhy::Unread => "unread",
            HoldWhy::Pending => "pending",
            HoldWhy::Parked => "parked",
            HoldWhy::Gone => "gone",
        }
    }
}

impl Link {
    /// Trims a stream by one step.
    pub async fn trim(
        &mut self,
        of: Trimming<'_>,
        step: Step,
    ) -> std::result::Result<Trim, Trouble> {
        let doing = format!("trimming {:?}", of.keys.stream);
        let answer = of.call(step).invoke_async(&mut self.conn).await;
        let needs = || {
            vec![
                need(
                    &of.keys.stream,
                    "stream",
                    "XINFO|GROUPS XPENDING XRANGE XLEN XTRIM",
                ),
                need(&of.keys.trimmed, "hash", "HGETALL HSET HDEL"),
                need(&of.keys.retry, "zset", "ZCARD"),
            ]
        };
        let value: Value = self.answered(|| doing.clone(), answer, needs).await?;
        trim(value).ok_or_else(|| Trouble::garbled(&doing))
    }

    /// Drops dead letters that are not to be kept, by one step.
    pub async fn expire(
        &mut self,
        keys: &Keys,
        keep: Option<Keep>,
        warn_at: u64,
        step: Step,
        consumer: &str,
        rhythm: Rhythm,
    ) -> std::result::Result<Expire, Trouble> {
        let doing = format!("dropping dead letters of {:?}", keys.stream);
        let (kind, value) = match keep {
            None => ("none", 0),
            Some(Keep::For(age)) => ("age", age.as_millis() as u64),
            Some(Keep::Last(letters)) => ("count", letters),
        };
        let answer = EXPIRE
            .key(&keys.dead)
            .key(&keys.kept)
            .key(&keys.notes)
            .key(&keys.groups)
            .key(&keys.runs)
            .key(&keys.out)
            .arg(kind)
            .arg(value)
            .arg(step.name())
            .arg(consumer)
            .arg(rhythm.every.as_millis() as u64)
            .arg(LETTERS)
            .arg(warn_at)
            .arg(rhythm.silence.as_millis() as u64)
            .arg(&Expected::args(rhythm.clock))
            .invoke_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(&keys.dead, "stream", "XLEN XRANGE XDEL"),
                need(&keys.kept, "hash", "HMGET HSET HINCRBY"),
            ]
        };
        let value: Value = self.answered(|| doing.clone(), answer, needs).await?;
        match value {
            Value::Nil => Ok(Expire::NotNow),
            Value::BulkString(_) => Ok(Expire::ClockIsOff),
            value => expired(value)
                .map(Expire::Done)
                .ok_or_else(|| Trouble::garbled(&doing)),
        }
    }
}

impl Pool {
    /// What could be trimmed of a stream now, and what holds the rest; None where its group is not there.
    pub async fn look_at_trimming(&self, of: Trimming<'_>) -> Result<Option<Trimmed>> {
        let doing = format!("looking at what could be trimmed of {:?}", of.keys.stream);
        let mut conn = self.at(&of.keys.stream).get().await?;
        let mut groups = of.groups.to_vec();
        // Groups that come and go faster than this are for the next look.
        for _ in 0..3 {
            let of = Trimming {
                groups: &groups,
                ..of
            };
            let answer = of.call(Step::Look).read_async(&mut conn).await;
            let value: Value = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
            match trim(value).ok_or_else(|| Trouble::garbled(&doing).into_error())? {
                Trim::Done(done) => return Ok(Some(done)),
                Trim::Groups(found) => groups = found,
                Trim::NotNow | Trim::ClockIsOff => return Ok(None),
            }
        }
        Ok(None)
    }

    /// How many dead letters were dropped because they were not to be kept.
    pub async fn dropped_letters(&self, keys: &Keys) -> Result<u64> {
        let doing = format!("looking at the dead letters of {:?}", keys.stream);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut call = redis::cmd("HGET");
        let answer = call.arg(&keys.kept).arg("dropped").query_async(&mut conn);
        match answer.await {
            Ok(value) => Ok(reply::int(&value).unwrap_or(0) as u64),
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(0),
            Err(error) => Err(refusal(Who::Operator, &doing, error)),
        }
    }
}

impl Trimming<'_> {
    fn call(&self, step: Step) -> ScriptInvocation<'static> {
        let Trimming { keys, policy, .. } = self;
        let (kind, kept) = match policy.retention {
            Retention::Acked => ("acked", 0),
            Retention::Beyond(Keep::For(age)) => ("age", age.as_millis() as u64),
            Retention::Beyond(Keep::Last(entries)) => ("count", entries),
        };
        let mut call = TRIM.prepare_invoke();
        call.key(&keys.stream).key(&keys.trimmed);
        call.arg(self.group)
            .arg(kind)
            .arg(kept)
            .arg(u8::from(policy.force))
            .arg(step.name())
            .arg(self.consumer)
            .arg(self.rhythm.every.as_millis() as u64)
            .arg(self.rhythm.grace.as_millis() as u64)
            .arg(ENTRIES)
            .arg(LONG.as_millis() as u64)
            .arg(self.rhythm.silence.as_millis() as u64)
            .arg(COUNT)
            .arg(BYTES)
            .arg(&Expected::args(self.rhythm.clock));
        for name in self.groups {
            call.key(keys.retry_of(name)).arg(&name[..]);
        }
        call
    }
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Turn => "turn",
            Step::On => "on",
            Step::Look => "look",
        }
    }
}

fn trim(value: Value) -> Option<Trim> {
    let mut items = reply::array(value)?.into_iter();
    let state = reply::text(items.next()?)?;
    match &state[..] {
        "wait" | "none" => Some(Trim::NotNow),
        "off" => Some(Trim::ClockIsOff),
        "groups" => {
            let names = reply::array(items.next()?)?.into_iter();
            names
                .map(reply::bytes)
                .collect::<Option<_>>()
                .map(Trim::Groups)
        }
        _ => {
            let [entries, forced, more, hold, could, at_least] =
                reply::tuple(Value::Array(items.collect()))?;
            Some(Trim::Done(Trimmed {
                entries: reply::int(&entries)? as u64,
                forced: reply::int(&forced)? as u64,
                more: reply::int(&more)? == 1,
                hold: match hold {
                    Value::Nil => None,
                    hold => Some(holding(hold)?),
                },
                could: reply::int(&could)? as u64,
                could_at_least: reply::int(&at_least)? == 1,
            }))
        }
    }
}

fn holding(value: Value) -> Option<Hold> {
    let [group, why, id, age, pending, too_long, unread, at_least] = reply::tuple(value)?;
    let too_long = reply::int(&too_long)?;
    Some(Hold {
        // A foreign client's name may be any bytes; it only has to be shown.
        group: String::from_utf8_lossy(&reply::bytes(group)?).into_owned(),
        why: match &reply::text(why)?[..] {
            "unread" => HoldWhy::Unread,
            "pending" => HoldWhy::Pending,
            "parked" => HoldWhy::Parked,
            _ => HoldWhy::Gone,
        },
        id: reply::id(&id)?,
        age: Duration::from_millis(reply::int(&age)? as u64),
        pending: reply::int(&pending)? as u64,
        unread: Lag::of(&unread, &at_least),
        too_long: too_long > 0,
        warn: too_long == 2,
    })
}

fn expired(value: Value) -> Option<Expired> {
    let [letters, dropped, first, last, more, warn, run] = reply::tuple(value)?;
    Some(Expired {
        letters: reply::int(&letters)? as u64,
        dropped: reply::int(&dropped)? as u64,
        first: reply::id(&first),
        last: reply::id(&last),
        more: reply::int(&more)? == 1,
        warn: reply::int(&warn)? == 1,
        undriven: reply::int(&run).map(|number| number as u64),
    })
}
