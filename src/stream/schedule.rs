//! Scheduled events: added to their stream when their time has come, listed, cancelled.

use std::time::{Duration, SystemTime};

use redis::Value;

use super::connection::Link;
use super::error::{Trouble, Who, refusal};
use super::keys::StreamKeys;
use super::obstacle::need;
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result;
use crate::identity::which;

script!(
    ADD_DUE, "add_due",
    behind "common/scheduled", behind "common/rights", behind "common/ids", behind "common/reading", behind "common/cron"
);
script!(LIST, "list_scheduled", behind "common/scheduled");
script!(CANCEL, "cancel", behind "common/scheduled", behind "common/on_schedule");

/// Most events a script deals with at once, and the bytes after which it stops: another client waits meanwhile.
const EVENTS: usize = 200;
const BYTES: usize = 1 << 20;

/// The last due time there can be, in ms: the end of the year 9999, behind which RFC 3339 has nothing.
pub(crate) const LAST_MS: u64 = 253_402_300_799_999;

/// What adding events whose time has come did.
pub(crate) struct Due {
    pub added: u64,
    /// Ids whose event other hands have deleted.
    pub gone: Vec<String>,
    /// What time it was, in ms.
    pub now_ms: u64,
    /// When the next event is due, from now; zero where some are due already.
    pub next: Option<Duration>,
}

/// One event that waits for its time.
pub(crate) struct Kept {
    pub id: Vec<u8>,
    pub place: Place,
    pub due_ms: u64,
    /// Its fields as a script packed them; None where other hands have deleted it.
    pub packed: Option<Vec<u8>>,
}

/// Where an event stands on the schedule, in Redis' own words: whatever other hands have put there, a list goes on
/// behind it.
#[derive(Clone)]
pub(crate) struct Place {
    pub name: Vec<u8>,
    pub due: String,
}

/// An event that is to be cancelled.
pub(crate) struct Wanted<'a> {
    pub id: &'a str,
    /// Its type and its source, which may be empty; None where it is the only one of that id.
    pub of: Option<(&'a str, &'a str)>,
}

/// What cancelling an event came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// It will not be published.
    Yes,
    /// It does not wait for its time.
    No,
    /// So many wait that have its id, and which one is meant was not said: none was cancelled.
    Which(u64),
}

impl Link {
    /// Adds events to their stream whose time has come, some at a time.
    /// The event of a cron's next occurrence is late, and its cron undeclared, after those times: then it is not added.
    pub async fn add_due(
        &mut self,
        keys: &StreamKeys,
        crons: (Duration, Duration),
    ) -> Result<Due, Trouble> {
        let doing = || {
            format!(
                "adding events that are due to {:?} from {}",
                keys.stream, keys.scheduled
            )
        };
        let answer = ADD_DUE
            .key(&keys.stream)
            .key(&keys.scheduled)
            .key(&keys.events)
            .key(&keys.cron)
            .arg(EVENTS)
            .arg(BYTES)
            .arg(crons.0.as_millis() as u64)
            .arg(crons.1.as_millis() as u64)
            .invoke_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XLEN XADD"),
                need(&keys.scheduled, "zset", "ZRANGEBYSCORE ZRANGE ZREM"),
                need(&keys.events, "hash", "HLEN HGET HDEL"),
                need(&keys.cron, "hash", "HGET HSET"),
            ]
        };
        let value: Value = self.answered(doing, answer, needs).await?;
        let parse = |value| {
            let [added, gone, next, now] = reply::tuple(value)?;
            Some(Due {
                added: reply::int(&added)? as u64,
                gone: reply::array(gone)?
                    .into_iter()
                    .map(lossy)
                    .collect::<Option<_>>()?,
                now_ms: reply::int(&now)? as u64,
                next: reply::until(next, reply::int(&now)? as u64),
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }
}

impl Pool {
    /// Some of the events that wait for their time, and whether there are more.
    pub async fn scheduled(
        &self,
        keys: &StreamKeys,
        after: Option<&Place>,
    ) -> Result<(Vec<Kept>, bool)> {
        let doing = format!("listing what is scheduled in {}", keys.scheduled);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut call = LIST.key(&keys.scheduled);
        call.key(&keys.events);
        match after {
            Some(place) => call.arg(&place.due).arg(&place.name),
            None => call.arg("").arg(""),
        };
        let value: Value = call
            .arg(EVENTS)
            .arg(BYTES)
            .read_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let one = |value| {
            let [name, due, packed, id] = reply::tuple(value)?;
            let (name, due) = (reply::bytes(name)?, reply::text(due)?);
            Some(Kept {
                id: reply::bytes(id)?,
                due_ms: due.parse::<f64>().ok()? as u64,
                place: Place { name, due },
                packed: reply::bytes(packed),
            })
        };
        let parse = |value| {
            let [events, more] = reply::tuple(value)?;
            let events = reply::array(events)?.into_iter().map(one);
            Some((events.collect::<Option<_>>()?, reply::int(&more)? == 1))
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// Takes events off that wait for their time: each by its id, and by which event it is where that is known.
    pub async fn cancel(&self, keys: &StreamKeys, events: &[Wanted<'_>]) -> Result<Vec<Cancelled>> {
        let doing = format!("cancelling what is scheduled in {}", keys.scheduled);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut cancelled = Vec::with_capacity(events.len());
        for chunk in events.chunks(EVENTS) {
            let mut call = CANCEL.key(&keys.scheduled);
            call.key(&keys.events);
            for Wanted { id, of } in chunk {
                let (event_type, source) = of.unwrap_or_default();
                let which = |_| which(source.as_bytes(), id.as_bytes(), event_type.as_bytes());
                call.arg(*id).arg(of.map(which).unwrap_or_default());
                call.arg(event_type).arg(source);
            }
            let value: Value = call
                .invoke_async(&mut conn)
                .await
                .map_err(|error| refusal(Who::Operator, &doing, error))?;
            let answers = reply::array(value).filter(|answers| answers.len() == chunk.len());
            let answers = answers.ok_or_else(|| Trouble::garbled(&doing).into_error())?;
            cancelled.extend(answers.iter().map(|answer| match reply::int(answer) {
                Some(1) => Cancelled::Yes,
                Some(many) if many < 0 => Cancelled::Which(many.unsigned_abs()),
                _ => Cancelled::No,
            }));
        }
        Ok(cancelled)
    }
}

/// A due time in ms as a time that can be written.
pub(crate) fn time(due_ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(due_ms.min(LAST_MS))
}

fn lossy(value: Value) -> Option<String> {
    Some(String::from_utf8_lossy(&reply::bytes(value)?).into_owned())
}
