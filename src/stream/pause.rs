//! Pausing a stream, or one handler's entries in it, for a whole group; and what its workers tell of their circuit
//! breakers.

use std::collections::HashMap;
use std::time::Duration;

use redis::{AsyncCommands, Value};
use serde::{Deserialize, Serialize};

use super::connection::Link;
use super::error::{Trouble, Who, refusal};
use super::keys::Keys;
use super::obstacle::need;
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result;

script!(PAUSE, "pause");
script!(RESUME, "resume");

/// Failure records looked at in one step of a resume.
const RECORDS: usize = 1000;

/// What is paused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pausable {
    Stream,
    Handler(String),
}

/// Since when something is paused, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PauseNote {
    pub since_ms: u64,
    /// When it ends by itself; None where somebody has to resume it.
    #[serde(default)]
    pub until_ms: Option<u64>,
    pub by: String,
    #[serde(default)]
    pub reason: Option<String>,
}

/// A pause that is asked for.
pub(crate) struct NewPause<'a> {
    pub by: &'a str,
    pub lasts: Option<Duration>,
    pub reason: Option<&'a str>,
}

/// A circuit breaker of a worker that is not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BreakerNote {
    pub name: String,
    pub state: String,
    /// How often it has opened.
    pub opened: u64,
    /// When its probes are let through, in milliseconds since 1970; none where they are.
    pub until_ms: Option<u64>,
    /// What it was opened for, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Pausable {
    fn field(&self) -> String {
        match self {
            Pausable::Stream => "stream".to_owned(),
            Pausable::Handler(event_type) => format!("handler:{event_type}"),
        }
    }

    fn parse(field: &str) -> Option<Self> {
        match field.strip_prefix("handler:") {
            Some(event_type) => Some(Pausable::Handler(event_type.to_owned())),
            None => (field == "stream").then_some(Pausable::Stream),
        }
    }
}

impl Pool {
    /// Pauses something for the group. Answers whether it was not paused before, and until when it is, in milliseconds
    /// since 1970. What is paused already stays as it is, but for its end where one is given.
    pub async fn pause(
        &self,
        keys: &Keys,
        what: &Pausable,
        new: &NewPause<'_>,
    ) -> Result<(bool, Option<u64>)> {
        let doing = format!("pausing in {}", keys.paused);
        let mut conn = self.at(&keys.stream).get().await?;
        let json = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let lasts = new.lasts.map(|lasts| lasts.as_millis().to_string());
        let value: Value = PAUSE
            .key(&keys.paused)
            .arg(what.field())
            .arg(json(new.by))
            .arg(lasts.unwrap_or_default())
            .arg(new.reason.map(json).unwrap_or_default())
            .invoke_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let parse = |value| {
            let [is_new, until] = reply::tuple(value)?;
            Some((
                reply::int(&is_new)? == 1,
                reply::int(&until).map(|ms| ms as u64),
            ))
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// Ends a pause. Answers whether there was one.
    pub async fn resume(&self, keys: &Keys, what: &Pausable) -> Result<bool> {
        let doing = format!("resuming in {}", keys.paused);
        let mut conn = self.at(&keys.stream).get().await?;
        let (mut cursor, mut was_paused) = ("0".to_owned(), false);
        loop {
            let value: Value = RESUME
                .key(&keys.paused)
                .key(&keys.retry)
                .key(&keys.failures)
                .arg(what.field())
                .arg(&cursor)
                .arg(RECORDS)
                .invoke_async(&mut conn)
                .await
                .map_err(|error| refusal(Who::Operator, &doing, error))?;
            let answer = reply::tuple(value)
                .and_then(|[next, was, _]| Some((reply::text(next)?, reply::int(&was)?)));
            let (next, was) = answer.ok_or_else(|| Trouble::garbled(&doing).into_error())?;
            was_paused |= was == 1;
            cursor = next;
            if cursor == "0" {
                return Ok(was_paused);
            }
        }
    }
}

impl Link {
    /// Tells which circuit breakers of a worker are not closed.
    pub async fn note_breakers(
        &mut self,
        keys: &Keys,
        consumer: &str,
        notes: &[BreakerNote],
    ) -> std::result::Result<(), Trouble> {
        let answer: redis::RedisResult<i64> = if notes.is_empty() {
            self.conn.hdel(&keys.breakers, consumer).await
        } else {
            let notes = serde_json::to_string(notes).unwrap_or_default();
            self.conn.hset(&keys.breakers, consumer, notes).await
        };
        let doing = || "telling of circuit breakers".to_owned();
        let needs = || vec![need(&keys.breakers, "hash", "HSET HDEL")];
        self.answered(doing, answer, needs).await.map(|_| ())
    }
}

/// What is paused, from the hash of that; what can't be read is left out, and what has ended by now.
pub(super) fn paused(value: Value, now_ms: u64) -> Vec<(Pausable, PauseNote)> {
    let mut paused: Vec<_> = pairs(value)
        .into_iter()
        .filter_map(|(field, note)| {
            Some((Pausable::parse(&field)?, serde_json::from_str(&note).ok()?))
        })
        .filter(|(_, note): &(_, PauseNote)| note.until_ms.is_none_or(|until| until > now_ms))
        .collect();
    paused.sort_by(|(a, _), (b, _)| a.cmp(b));
    paused
}

/// The circuit breakers that are not closed, by worker.
pub(super) fn breakers(value: Value) -> Vec<(String, Vec<BreakerNote>)> {
    let mut breakers: Vec<_> = pairs(value)
        .into_iter()
        .filter_map(|(consumer, notes)| Some((consumer, serde_json::from_str(&notes).ok()?)))
        .collect();
    breakers.sort_by(|(a, _): &(String, _), (b, _)| a.cmp(b));
    breakers
}

fn pairs(value: Value) -> HashMap<String, String> {
    let texts: Vec<String> = reply::array(value)
        .unwrap_or_default()
        .into_iter()
        .map(|value| reply::text(value).unwrap_or_default())
        .collect();
    texts
        .chunks_exact(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}
