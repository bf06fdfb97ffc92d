//! What there is to do in a stream for its group, in numbers: read in one step that costs the same however long it is.

use redis::Value;

use super::error::{Trouble, Who, refusal};
use super::group::ConsumerInfo;
use super::keys::Keys;
use super::pause::{self, Pausable, PauseNote};
use super::pool::Pool;
use super::reply;
use super::script::script;
use super::status::{BYTES, COUNT, Lag};
use crate::error::Result;
use crate::event::EntryId;

script!(GAUGES, "gauges", behind "common/ids", behind "common/lag");

/// What there is to do in a stream.
#[derive(Debug)]
pub(crate) struct StreamGauges {
    /// The server's time, in milliseconds since 1970.
    pub now_ms: u64,
    /// Whether there is a stream, or nothing yet; not something else that is in the way.
    pub is_stream: bool,
    pub length: u64,
    /// Entries that wait for their due time, and of these those whose time has come.
    pub parked: u64,
    pub due: u64,
    pub dead: u64,
    pub oldest_dead: Option<EntryId>,
    /// Events that were to be added before now.
    pub overdue: u64,
    pub paused: Vec<(Pausable, PauseNote)>,
    /// None where there is no such group.
    pub group: Option<GroupGauges>,
    pub again: AgainGauges,
}

/// What there is to do for a group.
#[derive(Debug)]
pub(crate) struct GroupGauges {
    pub lag: Lag,
    pub pending: u64,
    pub oldest_pending: Option<EntryId>,
    pub oldest_unread: Option<EntryId>,
    pub consumers: Vec<ConsumerInfo>,
}

/// The same of what was replayed.
#[derive(Debug)]
pub(crate) struct AgainGauges {
    /// What is not settled.
    pub length: u64,
    pub due: u64,
    pub consumers: Vec<ConsumerInfo>,
}

impl Pool {
    /// What there is to do in a stream for a group.
    pub async fn gauges(&self, keys: &Keys, group: &str) -> Result<StreamGauges> {
        let doing = format!("looking at {:?}", keys.stream);
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = GAUGES
            .key(&keys.stream)
            .key(&keys.trimmed)
            .key(&keys.retry)
            .key(&keys.dead)
            .key(&keys.again)
            .key(&keys.again(group).retry)
            .key(&keys.scheduled)
            .key(&keys.paused)
            .arg(group)
            .arg(COUNT)
            .arg(BYTES)
            .read_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        gauges(value).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }
}

fn gauges(value: Value) -> Option<StreamGauges> {
    let [
        now,
        kind,
        length,
        parked,
        due,
        dead,
        oldest_dead,
        overdue,
        paused,
        group,
        again,
    ] = reply::tuple(value)?;
    let count = |value: &Value| reply::int(value).map(|count| count as u64);
    let [again_length, again_due, again_consumers] = reply::tuple(again)?;
    let now_ms = count(&now)?;
    Some(StreamGauges {
        now_ms,
        is_stream: matches!(&reply::text(kind)?[..], "stream" | "none"),
        length: count(&length)?,
        parked: count(&parked)?,
        due: count(&due)?,
        dead: count(&dead)?,
        oldest_dead: reply::id(&oldest_dead),
        overdue: count(&overdue)?,
        paused: pause::paused(paused, now_ms),
        group: match group {
            Value::Nil => None,
            group => {
                let [lag, at_least, pending, lowest, unread, consumers] = reply::tuple(group)?;
                Some(GroupGauges {
                    lag: Lag::of(&lag, &at_least)?,
                    pending: count(&pending)?,
                    oldest_pending: reply::id(&lowest),
                    oldest_unread: reply::id(&unread),
                    consumers: all_consumers(consumers)?,
                })
            }
        },
        again: AgainGauges {
            length: count(&again_length)?,
            due: count(&again_due)?,
            consumers: all_consumers(again_consumers)?,
        },
    })
}

fn all_consumers(value: Value) -> Option<Vec<ConsumerInfo>> {
    let consumer = |value: Value| {
        let [name, pending, idle] = reply::tuple(value)?;
        Some(ConsumerInfo {
            // A foreign client's name may be any bytes; it only has to be told from ours.
            name: String::from_utf8_lossy(&reply::bytes(name)?).into_owned(),
            pending: reply::int(&pending)? as u64,
            idle_ms: reply::int(&idle)? as u64,
        })
    };
    reply::array(value)?.into_iter().map(consumer).collect()
}
