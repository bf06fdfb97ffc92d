//! Cancelling entries: what is parked is settled at once, of everything else there is a mark by which its worker settles
//! it. Marks end by themselves.

use std::collections::HashSet;
use std::time::Duration;

use redis::{RedisResult, Value};

use super::connection::Link;
use super::error::{Trouble, Who, refusal};
use super::keys::Keys;
use super::obstacle::need;
use super::pool::Pool;
use super::reply;
use super::script::script;
use super::settle::{Buried, late};
use crate::error::Result;
use crate::event::EntryId;

script!(
    CANCEL_ENTRY,
    "cancel_entry",
    behind "common/ids",
    behind "common/rights",
    behind "common/guards"
);
script!(
    CANCELLED,
    "cancelled",
    behind "common/rights",
    behind "common/guards"
);

/// For how long a mark stands, and what became of it is known.
const CANCEL_LASTS: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most marks of a stream and a group.
const MARKS: usize = 10_000;
/// The field of what is asked of workers that changes with every mark.
const FLAG: &str = "cancels";

/// What asking for a cancellation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CancelAsked {
    /// It was parked, and is settled.
    Cancelled,
    /// It is with this consumer, which hears of it.
    Held(String),
    /// It has not been read: whoever reads it settles it.
    Unread,
    /// It was asked for before, or has been done.
    Before(CancelNote),
    /// It was settled before.
    Settled,
    /// There is no such entry.
    Missing,
    /// There is no such group.
    NoGroup,
    /// Too many are to be cancelled already.
    Full,
}

/// What is noted of a cancellation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CancelNote {
    /// It was cancelled; else it is to be.
    pub is_done: bool,
    /// When that was, or when it was asked for, in ms.
    pub at_ms: u64,
    pub by: String,
}

impl CancelNote {
    pub fn parse(note: &str) -> Option<Self> {
        let mut words = note.splitn(4, ' ');
        let is_done = words.next()? == "done";
        words.next()?;
        let at_ms = words.next()?.parse().ok()?;
        let by = words.next().unwrap_or_default().to_owned();
        Some(CancelNote { is_done, at_ms, by })
    }
}

/// What tells that there are other marks than before, of what is asked of workers.
pub(crate) fn cancel_flag(asked: &[(String, String)]) -> Option<&str> {
    let flag = asked.iter().find(|(field, _)| field == FLAG);
    flag.map(|(_, value)| &value[..])
}

/// One entry to be settled as cancelled.
pub(crate) struct Cancelling<'a> {
    pub id: EntryId,
    pub consumer: &'a str,
    pub count: u32,
    /// Until when (ms, by the server's clock) this is the worker's to do should it be nobody's; 0 where it is not.
    pub own_until: u64,
    /// The key that says its event is done, where its handler deduplicates: a claim on it goes.
    pub mark: Option<String>,
}

impl Link {
    /// Which entries of a stream are to be cancelled.
    pub async fn marked_for_cancel(&mut self, keys: &Keys) -> Result<HashSet<EntryId>, Trouble> {
        let doing = || format!("asking what is to be cancelled in {}", keys.cancelled);
        let mut hgetall = redis::cmd("HGETALL");
        let answer = hgetall.arg(&keys.cancelled).query_async(&mut self.conn);
        let answer = answer.await;
        let needs = || vec![need(&keys.cancelled, "hash", "HGETALL")];
        let value: Value = self.answered(doing, answer, needs).await?;
        let pairs = reply::pairs(value).ok_or_else(|| Trouble::garbled(&doing()))?;
        let asked = pairs
            .iter()
            .filter(|(_, note)| note.starts_with("asked "))
            .filter_map(|(id, _)| id.parse().ok());
        Ok(asked.collect())
    }

    /// Settles an entry as cancelled.
    pub async fn cancelled(
        &mut self,
        keys: &Keys,
        group: &str,
        delete: bool,
        of: &Cancelling<'_>,
    ) -> Result<Buried, Trouble> {
        let doing = || format!("settling a cancelled entry of {}", keys.stream);
        let answer = CANCELLED
            .key(&keys.stream)
            .key(&keys.retry)
            .key(&keys.failures)
            .key(&keys.guards)
            .key(&keys.cancelled)
            .key(of.mark.as_ref().unwrap_or(&keys.stream))
            .arg(group)
            .arg(of.consumer)
            .arg(of.id.to_string())
            .arg(of.count)
            .arg(of.own_until)
            .arg(u8::from(delete))
            .arg(CANCEL_LASTS.as_millis() as u64)
            .arg(of.consumer)
            .invoke_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING XACK XDEL"),
                need(&keys.retry, "zset", "ZCARD ZREM"),
                need(&keys.failures, "hash", "HLEN HDEL"),
                need(&keys.guards, "zset", "ZCARD ZSCORE ZADD"),
                need(&keys.cancelled, "hash", "HGET HSET PTTL PEXPIRE"),
            ]
        };
        let answer: String = self.answered(doing, answer, needs).await?;
        match &answer[..] {
            "ok" => Ok(Buried::Done),
            "taken" => Ok(Buried::Taken),
            "nobody" => Ok(Buried::Nobody),
            other => late(other)
                .map(Buried::Late)
                .ok_or_else(|| Trouble::garbled(&doing())),
        }
    }
}

impl Pool {
    /// Asks that an entry is cancelled.
    pub async fn cancel_entry(
        &self,
        keys: &Keys,
        group: &str,
        id: EntryId,
        by: &str,
        delete: bool,
    ) -> Result<CancelAsked> {
        let doing = format!("cancelling the entry {id} of {:?}", keys.stream);
        let mut conn = self.at(&keys.stream).get().await?;
        let answer: RedisResult<Value> = CANCEL_ENTRY
            .key(&keys.stream)
            .key(&keys.retry)
            .key(&keys.failures)
            .key(&keys.guards)
            .key(&keys.cancelled)
            .key(&keys.asked)
            .arg(group)
            .arg(id.to_string())
            .arg(by)
            .arg(CANCEL_LASTS.as_millis() as u64)
            .arg(MARKS)
            .arg(u8::from(delete))
            .invoke_async(&mut conn)
            .await;
        let value = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
        let parse = |value| {
            let [what, of] = reply::tuple(value)?;
            let of = reply::text(of)?;
            Some(match &reply::text(what)?[..] {
                "cancelled" => CancelAsked::Cancelled,
                "held" => CancelAsked::Held(of),
                "unread" => CancelAsked::Unread,
                "before" => CancelAsked::Before(CancelNote::parse(&of)?),
                "settled" => CancelAsked::Settled,
                "missing" => CancelAsked::Missing,
                "none" => CancelAsked::NoGroup,
                "full" => CancelAsked::Full,
                _ => return None,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// What is noted of an entry's cancellation.
    pub async fn cancel_note(&self, keys: &Keys, id: EntryId) -> Result<Option<CancelNote>> {
        let doing = format!("asking what is cancelled in {}", keys.cancelled);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut hget = redis::cmd("HGET");
        let answer: RedisResult<Option<String>> = hget
            .arg(&keys.cancelled)
            .arg(id.to_string())
            .query_async(&mut conn)
            .await;
        let note = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
        Ok(note.as_deref().and_then(CancelNote::parse))
    }

    /// How many entries of a stream are to be cancelled, and how many were of late.
    pub async fn cancel_counts(&self, keys: &Keys) -> Result<(u64, u64)> {
        let doing = format!("asking what is cancelled in {}", keys.cancelled);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut hgetall = redis::cmd("HGETALL");
        let answer: RedisResult<Value> = hgetall.arg(&keys.cancelled).query_async(&mut conn).await;
        let value = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
        let notes = reply::pairs(value).ok_or_else(|| Trouble::garbled(&doing).into_error())?;
        let is_done = |note: &&(String, String)| note.1.starts_with("done ");
        let done = notes.iter().filter(is_done).count() as u64;
        Ok((notes.len() as u64 - done, done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_of_a_cancellation_is_read() {
        let note = CancelNote::parse("done 5 4 alice of ops").unwrap();
        assert_eq!(
            (note.is_done, note.at_ms, &note.by[..]),
            (true, 4, "alice of ops")
        );
        assert!(!CancelNote::parse("asked 5 4 bob").unwrap().is_done);
        assert_eq!(CancelNote::parse("nonsense"), None);
    }
}
