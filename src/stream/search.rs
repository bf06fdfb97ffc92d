//! Reading entries whole, slice by slice, to look for something: what lies in memory at once is bounded, and no step
//! holds other clients up for long.

use redis::Value;

use super::PARKED;
use super::error::{Trouble, Who, refusal};
use super::growth::is_seal;
use super::keys::Keys;
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result;
use crate::event::{Entry, EntryId};

script!(SEARCH, "search", behind "common/ids");
script!(PARKED_ENTRIES, "parked", behind "common/ids");

/// Most entries and about most bytes of one step.
pub(crate) const SLICE: usize = 500;
const BYTES: usize = 256 << 10;

/// Some entries of a stream.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub entries: Vec<Entry>,
    /// Where to go on: the highest id that was not looked at, or the lowest where it goes up. None at the end.
    pub next: Option<EntryId>,
    pub bytes: u64,
}

/// How many entries there are where one may look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub stream: u64,
    pub dead: u64,
    pub again: u64,
    pub parked: u64,
    pub scheduled: u64,
}

impl Pool {
    /// Entries of a stream between two ids, as Redis writes ranges, the newest first; at most so many.
    pub async fn slice(&self, key: &str, low: &str, high: &str, most: usize) -> Result<Slice> {
        let doing = format!("looking through {key}");
        let mut conn = self.at(key).get().await?;
        let value: Value = SEARCH
            .key(key)
            .arg(low)
            .arg(high)
            .arg(1)
            .arg(most.min(SLICE))
            .arg(BYTES)
            .read_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        slice(value).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// Parked entries from an id on, the lowest first.
    pub async fn parked_slice(
        &self,
        keys: &Keys,
        group: &str,
        (low, high): (&str, &str),
        most: usize,
    ) -> Result<Slice> {
        let doing = format!("looking through what is parked of {:?}", keys.stream);
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = PARKED_ENTRIES
            .key(&keys.stream)
            .arg(group)
            .arg(PARKED)
            .arg(low)
            .arg(high)
            .arg(most.min(SLICE))
            .arg(BYTES)
            .read_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        slice(value).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// How many entries there are; none where a key holds something else.
    pub async fn sizes(&self, keys: &Keys) -> Result<Sizes> {
        let doing = format!("counting what there is of {:?}", keys.stream);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut pipe = redis::Pipeline::with_capacity(5);
        pipe.cmd("XLEN").arg(&keys.stream);
        pipe.cmd("XLEN").arg(&keys.dead);
        pipe.cmd("XLEN").arg(&keys.again);
        pipe.cmd("ZCARD").arg(&keys.retry);
        pipe.cmd("ZCARD").arg(&keys.scheduled);
        pipe.ignore_errors();
        let answers: Vec<redis::RedisResult<u64>> = pipe
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let mut sizes = answers.into_iter().map(|size| size.unwrap_or(0));
        let mut next = || sizes.next().unwrap_or(0);
        Ok(Sizes {
            stream: next(),
            dead: next(),
            again: next(),
            parked: next(),
            scheduled: next(),
        })
    }
}

fn slice(value: Value) -> Option<Slice> {
    let [entries, next, bytes] = reply::tuple(value)?;
    let entry = |value| {
        let [id, fields] = reply::tuple(value)?;
        Some(Entry {
            id: reply::id(&id)?,
            fields: reply::fields(fields)?,
        })
    };
    let mut entries = reply::array(entries)?
        .into_iter()
        .map(entry)
        .collect::<Option<Vec<Entry>>>()?;
    // What seals a stream is no event.
    entries.retain(|entry| !is_seal(entry));
    Some(Slice {
        entries,
        next: reply::id(&next),
        bytes: reply::int(&bytes)? as u64,
    })
}
