//! Finding aggregates, and reading the events of many of them.

use redis::Value;

use super::error::{Trouble, was_cut};
use super::events::entries;
use super::keys::StreamKeys;
use super::line::Line;
use super::reply;
use super::script::script;
use crate::error::Result;
use crate::event::{Entry, EntryId};

script!(FIRST_EVENTS, "first_events", behind "common/ids");

/// Keys that Redis looks at before it answers.
const SCAN: usize = 1000;

/// How far the keys have been looked through.
#[derive(Default)]
pub(crate) struct Scan {
    cursor: u64,
    /// The connection that this cursor means something on: another server numbers keys otherwise.
    connection: Option<u64>,
    pub is_done: bool,
}

/// Where the events of an aggregate behind a position begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FirstEvent {
    pub version: u64,
    pub position: EntryId,
    /// The version of the last one.
    pub last: u64,
}

/// What the key of an aggregate holds behind a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Events(FirstEvent),
    /// Something of this type, which is no aggregate.
    Other(String),
}

/// Events to be read of one aggregate.
pub(crate) struct PageOf<'a> {
    pub key: &'a str,
    pub from: u64,
    pub most: usize,
}

impl StreamKeys {
    /// What keys of aggregates begin with.
    pub fn aggregates(&self) -> String {
        self.aggregate("")
    }
}

impl Line {
    /// Looks through some more keys, and answers those that begin with `prefix`, whatever they hold. One may come twice.
    ///
    /// On another connection it begins anew: this may be another server, or the same one restarted.
    pub async fn scan(&self, prefix: &str, scan: &mut Scan) -> Result<Vec<String>> {
        let doing = "looking for aggregates";
        let mut line = self.get(prefix).await?;
        let cursor = match scan.connection {
            Some(number) if number == line.number => scan.cursor,
            _ => 0,
        };
        let mut command = redis::cmd("SCAN");
        command
            .arg(cursor)
            .arg("MATCH")
            .arg(literally(prefix) + "*");
        command.arg("COUNT").arg(SCAN);
        let answer: Value = line.query(doing, &command).await?;
        let found = scanned(answer).ok_or_else(|| Trouble::garbled(doing).into_error());
        let (cursor, keys) = found?;
        scan.cursor = cursor;
        scan.connection = Some(line.number);
        scan.is_done = cursor == 0;
        Ok(keys)
    }

    /// Where the events behind a position begin in each of these aggregates, all of one partition.
    pub async fn first_events(&self, keys: &[String], after: EntryId) -> Result<Vec<Found>> {
        let doing = "looking at aggregates";
        let Some(first) = keys.first() else {
            return Ok(Vec::new());
        };
        let mut line = self.get(first).await?;
        let mut call = FIRST_EVENTS.prepare_invoke();
        call.arg(after.to_string());
        for key in keys {
            call.key(key);
        }
        let answer = line.read(doing, &call).await?;
        reply::array(answer)
            .and_then(|all| all.into_iter().map(first_event).collect())
            .ok_or_else(|| Trouble::garbled(doing).into_error())
    }

    /// What a key holds that is neither a stream nor nothing.
    pub async fn holds_other(&self, key: &str) -> Result<Option<String>> {
        let mut command = redis::cmd("TYPE");
        command.arg(key);
        let mut line = self.get(key).await?;
        let held: String = line.query("looking at aggregates", &command).await?;
        Ok((held != "stream" && held != "none").then_some(held))
    }

    /// The events of aggregates of one partition from a version on, of each at most so many.
    pub async fn pages(&self, pages: &[PageOf<'_>]) -> Result<Vec<Vec<Entry>>> {
        let doing = "reading the events of aggregates";
        let Some(first) = pages.first() else {
            return Ok(Vec::new());
        };
        let mut line = self.get(first.key).await?;
        let mut pipe = redis::Pipeline::with_capacity(pages.len());
        for page in pages {
            pipe.cmd("XRANGE")
                .arg(page.key)
                .arg(format!("{}-0", page.from));
            pipe.arg("+").arg("COUNT").arg(page.most);
        }
        let answer: Vec<Value> = match pipe.query_async(&mut line.conn).await {
            Ok(answer) => answer,
            Err(error) => {
                let error = line.failed(doing, error).await;
                if !was_cut(&error) {
                    return Err(error);
                }
                // All of them together may be too large an answer: one after the other, each in parts if it has to be.
                let mut all = Vec::with_capacity(pages.len());
                for page in pages {
                    all.push(self.read_events(page.key, page.from, page.most).await?);
                }
                return Ok(all);
            }
        };
        answer
            .into_iter()
            .map(entries)
            .collect::<Option<_>>()
            .ok_or_else(|| Trouble::garbled(doing).into_error())
    }
}

/// These characters and no others, as a pattern.
pub(super) fn literally(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

fn scanned(answer: Value) -> Option<(u64, Vec<String>)> {
    let [cursor, keys] = reply::tuple(answer)?;
    let cursor = reply::text(cursor)?.parse().ok()?;
    // A key that is no text is no aggregate's.
    let keys = reply::array(keys)?.into_iter().filter_map(reply::text);
    Some((cursor, keys.collect()))
}

fn first_event(value: Value) -> Option<Found> {
    match value {
        Value::Nil => return Some(Found::Nothing),
        Value::BulkString(_) | Value::SimpleString(_) => {
            return Some(Found::Other(reply::text(value)?));
        }
        _ => {}
    }
    let [version, position, last] = reply::tuple(value)?;
    let number = |value: &Value| reply::int(value).and_then(|number| u64::try_from(number).ok());
    Some(Found::Events(FirstEvent {
        version: number(&version)?,
        position: reply::id(&position)?,
        last: number(&last)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_its_text_alone() {
        assert_eq!(literally("{a*b?[c]\\}:"), "{a\\*b\\?\\[c\\]\\\\}:");
    }
}
