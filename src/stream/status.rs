//! How a stream and its group are doing: read in one step, so that the numbers fit together.

use std::fmt;
use std::time::Duration;

use redis::Value;

use super::error::{Trouble, Who, refusal};
use super::group::ConsumerInfo;
use super::keys::Keys;
use super::pause::{self, BreakerNote, Pausable, PauseNote};
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result;
use crate::event::EntryId;

script!(STATUS, "status", behind "common/ids", behind "common/lag");

/// Most entries, and most bytes, that are looked at to count a lag that Redis does not know.
pub(super) const COUNT: usize = 1000;
pub(super) const BYTES: usize = 4 << 20;

/// How a stream is doing.
#[derive(Debug)]
pub(crate) struct StreamStatus {
    /// What its key holds: `none`, `stream`, or something else that is in the way.
    pub kind: String,
    pub length: u64,
    /// Entries that wait for their due time, and how long the first of them still has to.
    pub parked: u64,
    pub next_due: Option<Duration>,
    pub dead: u64,
    /// Events that are to be added later, and how long the first of them still has to.
    pub scheduled: u64,
    pub next_scheduled: Option<Duration>,
    /// Replayed entries that are not settled yet.
    pub again: u64,
    /// The protocol that the group's workers speak.
    pub protocol: Option<u32>,
    /// None where there is no such group.
    pub group: Option<GroupStatus>,
    /// The group's keys that hold something else than they should, and what it is.
    pub in_the_way: Vec<(String, String)>,
    /// What is paused, since when and by whom.
    pub paused: Vec<(Pausable, PauseNote)>,
    /// Circuit breakers that are not closed, by worker; those of workers that are gone among them.
    pub breakers: Vec<(String, Vec<BreakerNote>)>,
    /// The server's time, in milliseconds since 1970.
    pub now_ms: u64,
}

/// How a group is doing.
#[derive(Debug)]
pub(crate) struct GroupStatus {
    pub last_delivered: EntryId,
    /// Delivered and not settled; parked ones are among them.
    pub pending: u64,
    pub oldest_pending: Option<(EntryId, Duration)>,
    pub lag: Lag,
    pub consumers: Vec<ConsumerInfo>,
}

/// How many entries a group has not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lag {
    Exactly(u64),
    /// Redis does not know, and counting them all would take too long.
    AtLeast(u64),
}

impl Lag {
    /// As a script answers it: the number, and whether there are at least so many.
    pub(super) fn of(number: &Value, at_least: &Value) -> Option<Self> {
        let number = reply::int(number)? as u64;
        Some(match reply::int(at_least)? {
            0 => Lag::Exactly(number),
            _ => Lag::AtLeast(number),
        })
    }

    /// The number where it is known, and the number there are at least.
    pub fn known(self) -> (Option<u64>, u64) {
        match self {
            Lag::Exactly(lag) => (Some(lag), lag),
            Lag::AtLeast(lag) => (None, lag),
        }
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lag::Exactly(lag) => write!(f, "{lag}"),
            Lag::AtLeast(lag) => write!(f, "{lag}+"),
        }
    }
}

impl Pool {
    /// How a stream and its group are doing.
    pub async fn status(&self, keys: &Keys, group: &str) -> Result<StreamStatus> {
        let doing = format!("looking at {:?}", keys.stream);
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = STATUS
            .key(&keys.stream)
            .key(&keys.retry)
            .key(&keys.dead)
            .key(&keys.again)
            .key(&keys.protocol)
            .key(&keys.failures)
            .key(&keys.position)
            .key(&keys.paused)
            .key(&keys.breakers)
            .key(&keys.scheduled)
            .key(&keys.scheduled_events)
            .key(&keys.trimmed)
            .arg(group)
            .arg(COUNT)
            .arg(BYTES)
            .read_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        status(value).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }
}

fn status(value: Value) -> Option<StreamStatus> {
    let [
        kind,
        now,
        parked,
        due,
        dead,
        again,
        protocol,
        length,
        group,
        in_the_way,
        paused,
        breakers,
        scheduled,
        later,
    ] = reply::tuple(value)?;
    let now = reply::int(&now)? as u64;
    Some(StreamStatus {
        kind: reply::text(kind)?,
        length: reply::int(&length)? as u64,
        parked: reply::int(&parked)? as u64,
        next_due: reply::until(due, now),
        dead: reply::int(&dead)? as u64,
        scheduled: reply::int(&scheduled)? as u64,
        next_scheduled: reply::until(later, now),
        again: reply::int(&again)? as u64,
        protocol: reply::int(&protocol).map(|number| number as u32),
        group: match group {
            Value::Nil => None,
            group => Some(group_status(group, now)?),
        },
        in_the_way: reply::array(in_the_way)?
            .into_iter()
            .map(|value| {
                let [key, kind] = reply::tuple(value)?;
                Some((reply::text(key)?, reply::text(kind)?))
            })
            .collect::<Option<_>>()?,
        paused: pause::paused(paused, now),
        breakers: pause::breakers(breakers),
        now_ms: now,
    })
}

fn group_status(value: Value, now: u64) -> Option<GroupStatus> {
    let [last, pending, lowest, lag, at_least, consumers] = reply::tuple(value)?;
    let consumer = |value: Value| {
        let [name, pending, idle] = reply::tuple(value)?;
        Some(ConsumerInfo {
            // A foreign client's name may be any bytes; it only has to be shown.
            name: String::from_utf8_lossy(&reply::bytes(name)?).into_owned(),
            pending: reply::int(&pending)? as u64,
            idle_ms: reply::int(&idle)? as u64,
        })
    };
    Some(GroupStatus {
        last_delivered: reply::id(&last)?,
        pending: reply::int(&pending)? as u64,
        oldest_pending: reply::id(&lowest)
            .map(|id| (id, Duration::from_millis(now.saturating_sub(id.ms)))),
        lag: Lag::of(&lag, &at_least)?,
        consumers: reply::array(consumers)?
            .into_iter()
            .map(consumer)
            .collect::<Option<_>>()?,
    })
}
