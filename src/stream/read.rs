//! Delivery: the blocking read of new entries, over all of a worker's streams at once.

use std::time::Duration;

use redis::Value;

use super::connection::{Link, Trouble};
use super::reply;
use crate::event::Entry;

/// One read of new entries.
pub(crate) struct Read<'a> {
    pub group: &'a str,
    pub consumer: &'a str,
    /// At most so many entries of each stream.
    pub count: usize,
    /// How long to wait where there is none; None does not wait.
    pub block: Option<Duration>,
    pub streams: &'a [&'a str],
}

impl Link {
    /// Reads new entries: of each stream that has some, its place in `streams` and the entries.
    ///
    /// Must not be dropped before it has ended: the entries of a lost reply stay pending with this consumer.
    pub async fn read(&mut self, read: &Read<'_>) -> Result<Vec<(usize, Vec<Entry>)>, Trouble> {
        let doing = "reading new entries";
        let mut cmd = redis::cmd("XREADGROUP");
        cmd.arg("GROUP")
            .arg(read.group)
            .arg(read.consumer)
            .arg("COUNT")
            .arg(read.count);
        if let Some(block) = read.block {
            cmd.arg("BLOCK").arg(block.as_millis().max(1) as u64);
        }
        cmd.arg("STREAMS").arg(read.streams);
        for _ in read.streams {
            cmd.arg(">");
        }
        let value: Value = cmd
            .query_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(doing, error))?;
        if value == Value::Nil {
            return Ok(Vec::new());
        }
        parse(value, read.streams).ok_or_else(|| Trouble::garbled(doing))
    }

    /// Wakes a blocked read of the connection `client`. Answers whether it was blocked.
    pub async fn unblock(&mut self, client: i64) -> Result<bool, Trouble> {
        let mut cmd = redis::cmd("CLIENT");
        cmd.arg("UNBLOCK").arg(client);
        cmd.query_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of("waking the reader", error))
    }
}

fn parse(value: Value, streams: &[&str]) -> Option<Vec<(usize, Vec<Entry>)>> {
    let mut out = Vec::with_capacity(1);
    let pairs: Vec<(Value, Value)> = match value {
        Value::Array(items) => items
            .into_iter()
            .map(|item| reply::tuple(item).map(Into::into))
            .collect::<Option<_>>()?,
        Value::Map(pairs) => pairs,
        _ => return None,
    };
    for (name, entries) in pairs {
        let name = reply::bytes(name)?;
        let at = streams
            .iter()
            .position(|stream| stream.as_bytes() == name)?;
        let mut batch = Vec::new();
        for entry in reply::array(entries)? {
            let [id, fields] = reply::tuple(entry)?;
            let id = reply::id(&id)?;
            batch.push(Entry {
                id,
                fields: reply::fields(fields).unwrap_or_default(),
            });
        }
        out.push((at, batch));
    }
    Some(out)
}
