//! Dead letters that were purged and can be brought back for a while: moved to a key of their own, which expires.

use std::time::Duration;

use redis::Value;

use super::PROTOCOL;
use super::error::{Trouble, Who, refusal, refusal_in};
use super::keys::Keys;
use super::letters::{BYTES, LETTERS, Purged, Ticket, newer};
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result;

script!(
    PURGE_KEPT,
    "purge_kept",
    behind "common/ids",
    behind "common/death",
    behind "common/fingerprint",
    behind "common/left",
    behind "common/rights"
);
script!(UNDO_PURGE, "undo_purge", behind "common/rights");

/// A purge that is asked for, which can be undone for a while.
#[derive(Clone, Debug)]
pub(crate) struct Undoable {
    /// What it is called.
    pub run: String,
    pub by: String,
    pub within: Duration,
}

/// What is known of a purge that can be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PurgeNote {
    pub run: String,
    pub at_ms: u64,
    pub until_ms: u64,
    pub letters: u64,
    pub by: String,
}

impl Pool {
    /// Purges letters so that they can be brought back. Says of those it came to, which is at least the first, what
    /// became of them, and what stopped it.
    pub async fn purge_kept(
        &self,
        keys: &Keys,
        tickets: &[Ticket],
        undoable: &Undoable,
    ) -> (Vec<Purged>, Result<()>) {
        let doing = format!("purging dead letters in {}", keys.dead);
        let mut call = PURGE_KEPT.key(&keys.dead);
        call.key(&keys.protocol)
            .key(keys.purged(&undoable.run))
            .key(&keys.purges)
            .key(&keys.notes)
            .key(&keys.groups)
            .key(&keys.runs)
            .key(&keys.out)
            .key(&keys.held)
            .arg(PROTOCOL)
            .arg(BYTES)
            .arg(&undoable.run)
            .arg(&undoable.by)
            .arg(undoable.within.as_millis().to_string());
        for ticket in tickets.iter().take(LETTERS) {
            call.arg(ticket.id.to_string()).arg(&ticket.mark[..]);
        }
        let answer: Result<Value> = async {
            let mut conn = self.at(&keys.stream).get().await?;
            call.invoke_async(&mut conn)
                .await
                .map_err(|error| refusal(Who::Operator, &doing, error))
        }
        .await;
        let value = match answer {
            Ok(value) => value,
            Err(error) => return (Vec::new(), Err(error)),
        };
        if let Value::BulkString(protocol) = &value {
            let protocol = String::from_utf8_lossy(protocol);
            return (Vec::new(), Err(newer(&protocol)));
        }
        let parse = |value| {
            let [there, error] = reply::tuple(value)?;
            let there = reply::array(there)?;
            let there: Vec<Purged> = there.iter().map(Purged::of).collect();
            Some((there, reply::text(error)))
        };
        match parse(value) {
            Some((there, Some(error))) => (there, Err(refusal_in(Who::Operator, &doing, &error))),
            Some((there, None)) if there.is_empty() == tickets.is_empty() => (there, Ok(())),
            _ => (Vec::new(), Err(Trouble::garbled(&doing).into_error())),
        }
    }

    /// Brings some letters of a purge back. Says how many came back, and how many are left.
    pub async fn undo_purge(&self, keys: &Keys, run: &str) -> Result<(u64, u64)> {
        let doing = format!("bringing purged letters back to {}", keys.dead);
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = UNDO_PURGE
            .key(&keys.dead)
            .key(&keys.protocol)
            .key(keys.purged(run))
            .key(&keys.purges)
            .key(&keys.notes)
            .key(&keys.held)
            .arg(PROTOCOL)
            .arg(LETTERS)
            .arg(BYTES)
            .arg(run)
            .invoke_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        if let Value::BulkString(protocol) = &value {
            return Err(newer(&String::from_utf8_lossy(protocol)));
        }
        let parse = |value| {
            let [back, left, error] = reply::tuple(value)?;
            Some((reply::int(&back)?, reply::int(&left)?, reply::text(error)))
        };
        match parse(value) {
            Some((_, _, Some(error))) => Err(refusal_in(Who::Operator, &doing, &error)),
            Some((back, left, None)) => Ok((back as u64, left as u64)),
            None => Err(Trouble::garbled(&doing).into_error()),
        }
    }

    /// The purges that can be undone, the latest first.
    pub async fn purges(&self, keys: &Keys) -> Result<Vec<PurgeNote>> {
        let doing = format!("looking at {}", keys.purges);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut pipe = redis::Pipeline::with_capacity(2);
        pipe.cmd("HGETALL").arg(&keys.purges).cmd("TIME");
        let (notes, (seconds, _)): (Vec<(String, String)>, (u64, u64)) = pipe
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let mut purges: Vec<_> = notes
            .into_iter()
            .filter_map(|(run, note)| PurgeNote::parse(run, &note))
            .filter(|note| note.until_ms > seconds * 1000)
            .collect();
        purges.sort_by(|a, b| b.at_ms.cmp(&a.at_ms).then_with(|| a.run.cmp(&b.run)));
        Ok(purges)
    }
}

impl PurgeNote {
    fn parse(run: String, note: &str) -> Option<Self> {
        let mut parts = note.splitn(4, ' ');
        let mut number = || parts.next()?.parse().ok();
        let (at_ms, until_ms, letters) = (number()?, number()?, number()?);
        Some(PurgeNote {
            run,
            at_ms,
            until_ms,
            letters,
            by: parts.next()?.to_owned(),
        })
    }
}
